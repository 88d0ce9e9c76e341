/* SoftmaxGrad (ours): gradient of Softmax and LogSoftmax from the output y and its gradient dy, along `axis` (default -1).
 * log = 0: dx = y (dy - sum(y dy)); log = 1: dx = dy - e^y sum(dy). dx has the shape of y. */
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_present(ctx, 2, err));
  ML_TRY(ml__softmax_infer(ctx, err));
  const ml_view *y = ctx->in[0], *dy = ctx->in[1];
  char a[128], b[128];
  if (y->dtype != dy->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "y and dy must have one dtype, got %s and %s", ml_dtype_name(y->dtype),
                   ml_dtype_name(dy->dtype));
  if (ml_view_known(y) && ml_view_known(dy) && !ml_shape_equal(y->dims, y->rank, dy->dims, dy->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "y has shape %s but dy has shape %s", ml_shape_format(y->dims, y->rank, a, sizeof a),
                   ml_shape_format(dy->dims, dy->rank, b, sizeof b));
  return ML_OK;
}

/* one run of `length` elements at stride `inner`; dx may be y or dy */
#define LINE(TYPE)                                                                                                         \
  do {                                                                                                                     \
    typedef TYPE T;                                                                                                        \
    const T *ys = (const T *)y + at;                                                                                       \
    const T *ds = (const T *)dy + at;                                                                                      \
    T *xs = (T *)dx + at;                                                                                                  \
    T sum = 0;                                                                                                             \
    if (log_form) {                                                                                                        \
      for (size_t i = 0; i < length; ++i) sum += ds[i * inner];                                                            \
      for (size_t i = 0; i < length; ++i) xs[i * inner] = ds[i * inner] - exp(ys[i * inner]) * sum;                        \
    } else {                                                                                                               \
      for (size_t i = 0; i < length; ++i) sum += ys[i * inner] * ds[i * inner];                                            \
      for (size_t i = 0; i < length; ++i) xs[i * inner] = ys[i * inner] * (ds[i * inner] - sum);                           \
    }                                                                                                                      \
  } while (0)

static void line(ml_dtype dtype, const void *y, const void *dy, void *dx, size_t at, size_t length, size_t inner, bool log_form) {
  if (dtype == ML_FLOAT32) LINE(float);
  else LINE(double);
}

/* a contiguous float32 run through the kernels */
static void line_f32(const ml_kernels *k, const float *y, const float *dy, float *dx, size_t n, bool log_form) {
  if (log_form) {
    const float sum = k->sum_f32(dy, n);
    float e[ML__BLOCK];
    for (size_t begin = 0; begin < n; begin += ML__BLOCK) {
      const size_t m = n - begin < ML__BLOCK ? n - begin : ML__BLOCK;
      k->unary_f32(ML_UN_EXP, y + begin, e, m, 0, 0);
      for (size_t i = 0; i < m; ++i) dx[begin + i] = dy[begin + i] - e[i] * sum;
    }
  } else {
    const float sum = k->dot_f32(y, dy, n);
    for (size_t i = 0; i < n; ++i) dx[i] = y[i] * (dy[i] - sum);
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *y = ctx->in[0], *dy = ctx->in[1], *dx = ctx->out[0];
  const int64_t axis = ml_attr_int(ctx->attrs, "axis", -1);
  const bool log_form = ml_attr_int(ctx->attrs, "log", 0) != 0;
  size_t outer, length, inner;
  if (dx->count == 0) return ML_OK;
  if (!ml__axis_split(y, axis, &outer, &length, &inner))
    return ml_fail(err, ML_INVALID_ARGUMENT, "axis %lld is outside a tensor of rank %d", (long long)axis, (int)y->rank);
  for (size_t o = 0; o < outer; ++o) {
    const size_t at = o * length * inner;
    if (inner == 1 && y->dtype == ML_FLOAT32)
      line_f32(ctx->run->kernels, (const float *)y->data + at, (const float *)dy->data + at, (float *)dx->data + at, length,
               log_form);
    else
      for (size_t c = 0; c < inner; ++c) line(y->dtype, y->data, dy->data, dx->data, at + c, length, inner, log_form);
  }
  return ML_OK;
}

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "default -1: axis of the forward operator" },
  { "log", ML_ATTR_INT, false, "default 0: Softmax; 1: LogSoftmax" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_softmax_grad = {
  .name = "SoftmaxGrad", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1 | ML_OP_TRAINING,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "dx = y (dy - sum(y dy)) or dy - exp(y) sum(dy)",
  .infer = infer,
  .run = run,
};
