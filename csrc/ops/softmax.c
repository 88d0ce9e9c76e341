/* Softmax: y = e^(x - m) / sum e^(x - m) along one axis (default -1), m being the largest element; y has the shape of x.
 * Gradient: dx = y (dy - sum(y dy)), node mlserve.SoftmaxGrad. Reference: ONNX Softmax-13.
 * Also here: the body LogSoftmax shares (ml__softmax_run). */
#include "ops/elementwise.h"
#include <string.h>
#include "base/thread.h"

bool ml__axis_split(const ml_view *x, int64_t axis, size_t *outer, size_t *length, size_t *inner) {
  int32_t at;
  if (ml_axis_normalise(axis, x->rank, &at, NULL) != ML_OK) return false;
  *outer = *inner = 1;
  for (int32_t d = 0; d < at; ++d) *outer *= (size_t)x->dims[d];
  for (int32_t d = at + 1; d < x->rank; ++d) *inner *= (size_t)x->dims[d];
  *length = (size_t)x->dims[at];
  return true;
}

ml_status ml__softmax_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_same(ctx, err));
  int32_t axis;
  if (ctx->in[0]->rank < 0) return ML_OK;
  return ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), ctx->in[0]->rank, &axis, err);
}

enum { WIDTH = 64 }; /* columns handled side by side when the axis is not the last one */

/* `width` columns at stride `inner`, `length` deep; out may be in. EXP puts the exponentials of row[0 ... width-1] in place. */
#define COLUMNS(TYPE, EXP)                                                                                                 \
  do {                                                                                                                     \
    typedef TYPE T;                                                                                                        \
    const T *xs = (const T *)x + at;                                                                                       \
    T *ys = (T *)y + at;                                                                                                   \
    T top[WIDTH], sum[WIDTH], row[WIDTH];                                                                                  \
    for (size_t c = 0; c < width; ++c) {                                                                                   \
      top[c] = xs[c];                                                                                                      \
      sum[c] = 0;                                                                                                          \
    }                                                                                                                      \
    for (size_t i = 1; i < length; ++i)                                                                                    \
      for (size_t c = 0; c < width; ++c) {                                                                                 \
        const T v = xs[i * inner + c];                                                                                     \
        top[c] = v > top[c] || v != v ? v : top[c];                                                                        \
      }                                                                                                                    \
    for (size_t i = 0; i < length; ++i) {                                                                                  \
      T *to = ys + i * inner;                                                                                              \
      for (size_t c = 0; c < width; ++c) row[c] = xs[i * inner + c] - top[c];                                              \
      if (log_form) memcpy(to, row, width * sizeof row[0]);                                                                \
      EXP;                                                                                                                 \
      if (!log_form) memcpy(to, row, width * sizeof row[0]);                                                               \
      for (size_t c = 0; c < width; ++c) sum[c] += row[c];                                                                 \
    }                                                                                                                      \
    for (size_t c = 0; c < width; ++c) sum[c] = log_form ? log(sum[c]) : 1 / sum[c];                                       \
    for (size_t i = 0; i < length; ++i) {                                                                                  \
      T *to = ys + i * inner;                                                                                              \
      if (log_form)                                                                                                        \
        for (size_t c = 0; c < width; ++c) to[c] -= sum[c];                                                                \
      else                                                                                                                 \
        for (size_t c = 0; c < width; ++c) to[c] *= sum[c];                                                                \
    }                                                                                                                      \
  } while (0)

static void columns(const ml_kernels *kernels, ml_dtype dtype, const void *x, void *y, size_t at, size_t length, size_t inner,
                    size_t width, bool log_form) {
  if (dtype == ML_FLOAT32) COLUMNS(float, kernels->unary_f32(ML_UN_EXP, row, row, width, 0, 0));
  else COLUMNS(double, for (size_t c = 0; c < width; ++c) row[c] = exp(row[c]));
}

typedef struct job {
  const ml_kernels *kernels;
  const float *x;
  float *y;
  size_t rows, cols, step;
  bool log_form;
} job;

static void rows_chunk(void *context, size_t chunk) {
  const job *j = context;
  const size_t begin = chunk * j->step, rows = j->rows - begin < j->step ? j->rows - begin : j->step;
  j->kernels->softmax_f32(j->x + begin * j->cols, j->y + begin * j->cols, rows, j->cols, j->log_form);
}

ml_status ml__softmax_run(ml_op_ctx *ctx, bool log_form, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  const int64_t axis = ml_attr_int(ctx->attrs, "axis", -1);
  size_t outer, length, inner;
  if (y->count == 0) return ML_OK;
  if (!ml__axis_split(x, axis, &outer, &length, &inner))
    return ml_fail(err, ML_INVALID_ARGUMENT, "axis %lld is outside a tensor of rank %d", (long long)axis, (int)x->rank);
  if (inner == 1 && x->dtype == ML_FLOAT32) {
    if (y->count < ML__PARALLEL) {
      ctx->run->kernels->softmax_f32(x->data, y->data, outer, length, log_form);
    } else {
      job j = { .kernels = ctx->run->kernels, .x = x->data, .y = y->data, .rows = outer, .cols = length,
                .step = length < ML__CHUNK ? ML__CHUNK / length : 1, .log_form = log_form };
      ml_parallel((outer + j.step - 1) / j.step, rows_chunk, &j);
    }
    return ML_OK;
  }
  for (size_t o = 0; o < outer; ++o)
    for (size_t c = 0; c < inner; c += WIDTH)
      columns(ctx->run->kernels, x->dtype, x->data, y->data, o * length * inner + c, length, inner,
              inner - c < WIDTH ? inner - c : WIDTH, log_form);
  return ML_OK;
}

void ml__softmax_gradient(ml_grad *g, bool log_form) {
  const ml_attr attrs[] = { ml_attr_of_int("axis", ml_attr_int(g->attrs, "axis", -1)), ml_attr_of_int("log", log_form) };
  g->din[0] = ml_gn(g, "mlserve.SoftmaxGrad", attrs, 2, 2, (ml_value *const[]){ g->out[0], g->dout[0] });
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__softmax_run(ctx, false, err); }

static void gradient(ml_grad *g) { ml__softmax_gradient(g, false); }

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "default -1: the axis that sums to 1" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_softmax = {
  .name = "Softmax", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = exp(x) / sum(exp(x), axis)",
  .infer = ml__softmax_infer,
  .run = run,
  .gradient = gradient,
};
