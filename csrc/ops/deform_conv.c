/* DeformConv 22: a convolution whose taps lie elsewhere: Y[n][m][o] = B[m] + sum over channels c and taps k of W[m][c][k]
 * mask[k][o] X[n][c] interpolated at o stride + k dilation - pad + offset[k][o]; outside the image X is zero.
 * X (N,C,H,W), W (M,C/group,kH,kW), offset (N,offset_group kH kW 2,oH,oW: rows, then columns), B (M, optional),
 * mask (N,offset_group kH kW,oH,oW, optional) -> Y (N,M,oH,oW). Zhu et al. 2019; ONNX operator specification. */
#include <math.h>
#include "base/thread.h"
#include "ops/conv.h"
#include "ops/product.h"

static const ml_attr_def attrs[] = {
  { "dilations", ML_ATTR_INTS, false, "1 (default): distance of taps, per spatial dimension" },
  { "group", ML_ATTR_INT, false, "1 (default): groups of channels that are convolved apart" },
  { "kernel_shape", ML_ATTR_INTS, false, "default: taken from W" },
  { "offset_group", ML_ATTR_INT, false, "1 (default): groups of channels with offsets of their own" },
  { "pads", ML_ATTR_INTS, false, "0 (default): all beginnings, then all ends" },
  { "strides", ML_ATTR_INTS, false, "1 (default), per spatial dimension" },
  { 0 },
};

enum { COLUMNS = 128, CHUNKS = 16 };

static ml_status check_field(const ml_view *field, const ml_view *x, const ml__window *w, int64_t channels, const char *what,
                             ml_error *err) {
  char text[96];
  if (!field) return ML_OK;
  if (field->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s, X is %s", what, ml_dtype_name(field->dtype), ml_dtype_name(x->dtype));
  if (field->rank == ML_UNKNOWN) return ML_OK;
  const int64_t want[4] = { x->dims[0], channels, w->out[0], w->out[1] };
  bool fits = field->rank == 4;
  for (int32_t d = 0; fits && d < 4; d++) fits = field->dims[d] < 0 || want[d] < 0 || field->dims[d] == want[d];
  return fits ? ML_OK
              : ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected shape (%lld, %lld, %lld, %lld), got %s", what, (long long)want[0],
                        (long long)want[1], (long long)want[2], (long long)want[3],
                        ml_shape_format(field->dims, field->rank, text, sizeof text));
}

static ml_status check(const ml_op_ctx *ctx, ml__window *w, int64_t *groups, ml_error *err) {
  const ml_view *x = ctx->in[0], *weights = ctx->in[1];
  int64_t offset_groups = ml_attr_int(ctx->attrs, "offset_group", 1), taps = 0;
  if (x->rank != 4) return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 4, got rank %d", (int)x->rank);
  ML_TRY(ml__conv_groups(ctx->attrs, x, weights, false, groups, err));
  ML_TRY(ml__window_init(w, ctx->attrs, x, weights, false, err));
  if (offset_groups < 1 || offset_groups > INT32_MAX || (x->dims[1] >= 0 && x->dims[1] % offset_groups != 0))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'offset_group' is %lld for %lld channels", (long long)offset_groups,
                   (long long)x->dims[1]);
  bool known = w->kernel[0] >= 0 && w->kernel[1] >= 0;
  if (known &&
      (__builtin_mul_overflow(w->kernel[0], w->kernel[1], &taps) || __builtin_mul_overflow(taps, 2 * offset_groups, &taps)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "the kernel is too large");
  ML_TRY(check_field(ctx->in[2], x, w, known ? taps : ML_UNKNOWN, "offset", err));
  return check_field(ml__in(ctx, 4), x, w, known ? taps / 2 : ML_UNKNOWN, "mask", err);
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *weights = ctx->in[1];
  int64_t groups, filters = weights->rank == ML_UNKNOWN ? ML_UNKNOWN : weights->dims[0];
  int64_t dims[4] = { ML_UNKNOWN, filters, ML_UNKNOWN, ML_UNKNOWN };
  ml__window w;
  if (x->rank != ML_UNKNOWN) {
    ML_TRY(check(ctx, &w, &groups, err));
    dims[0] = x->dims[0];
    dims[2] = w.out[0];
    dims[3] = w.out[1];
  }
  ML_TRY(ml__conv_check_bias(ml__in(ctx, 3), x, filters, err));
  ml_op_set(ctx->out[0], x->dtype, dims, 4);
  return ML_OK;
}

typedef struct job {
  const ml_op_ctx *ctx;
  ml__conv c;
  size_t cols, col_blocks, units, chunks;
  size_t per_offset; /* channels with the same offsets */
} job;

static ml_status plan(const ml_op_ctx *ctx, job *j, ml_error *err) {
  int64_t groups;
  ml__window w;
  *j = (job){ .ctx = ctx };
  ML_TRY(check(ctx, &w, &groups, err));
  ml__conv_set(&j->c, &w, ctx->in[0]->dims[0], groups, ctx->in[0]->dims[1], ctx->in[1]->dims[0]);
  j->cols = j->c.O < COLUMNS ? j->c.O : COLUMNS;
  if (j->cols == 0) return ML_OK;
  j->col_blocks = (j->c.O + j->cols - 1) / j->cols;
  j->units = j->c.N * j->c.G * j->col_blocks;
  j->per_offset = (size_t)(ctx->in[0]->dims[1] / ml_attr_int(ctx->attrs, "offset_group", 1));
  j->chunks = ml__unit_chunks(j->units, (2 * (double)j->c.M + 40) * (double)j->c.C * (double)j->c.P * (double)j->cols, CHUNKS);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  job j;
  *bytes = 0;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(plan(ctx, &j, err));
  bool fits =
      ml_mul_size(j.c.C * j.c.P, j.cols * j.chunks, bytes) && ml_mul_size(*bytes, ml_dtype_size(ctx->in[0]->dtype), bytes);
  return fits ? ML_OK : ml_fail(err, ML_RESOURCE_EXHAUSTED, "the kernel is too large");
}

#define DEFINE(T, NAME)                                                                                                          \
  static T NAME##_at(const T *x, int64_t H, int64_t W, double row, double col) {                                                 \
    if (!(row > -1 && row < (double)H && col > -1 && col < (double)W)) return 0;                                                 \
    const int64_t y = (int64_t)floor(row), z = (int64_t)floor(col);                                                              \
    const double fy = row - (double)y, fx = col - (double)z;                                                                     \
    double sum = 0;                                                                                                              \
    if (y >= 0 && z >= 0) sum += (1 - fy) * (1 - fx) * (double)x[y * W + z];                                                     \
    if (y >= 0 && z + 1 < W) sum += (1 - fy) * fx * (double)x[y * W + z + 1];                                                    \
    if (y + 1 < H && z >= 0) sum += fy * (1 - fx) * (double)x[(y + 1) * W + z];                                                  \
    if (y + 1 < H && z + 1 < W) sum += fy * fx * (double)x[(y + 1) * W + z + 1];                                                 \
    return (T)sum;                                                                                                               \
  }                                                                                                                              \
  static void NAME##_columns(const job *j, size_t image, size_t group, size_t start, size_t n, T *cols) {                        \
    const ml__conv *c = &j->c;                                                                                                   \
    const ml__window *w = &c->w;                                                                                                 \
    const ml_view *mask = ml__in(j->ctx, 4);                                                                                     \
    for (size_t ch = 0; ch < c->C; ch++) {                                                                                       \
      const size_t channel = group * c->C + ch, channels = c->G * c->C, field = channel / j->per_offset;                         \
      const size_t fields = channels / j->per_offset;                                                                            \
      const T *x = (const T *)j->ctx->in[0]->data + (image * channels + channel) * c->I;                                         \
      for (size_t p = 0; p < c->P; p++, cols += n) {                                                                             \
        const size_t at = (image * fields + field) * c->P + p;                                                                   \
        const T *dy = (const T *)j->ctx->in[2]->data + 2 * at * c->O, *dx = dy + c->O;                                           \
        const T *m = mask ? (const T *)mask->data + at * c->O : NULL;                                                            \
        const double tap_row = (double)((int64_t)p / w->kernel[1] * w->dilation[0] - w->begin[0]);                               \
        const double tap_col = (double)((int64_t)p % w->kernel[1] * w->dilation[1] - w->begin[1]);                               \
        for (size_t i = 0; i < n; i++) {                                                                                         \
          const size_t o = start + i;                                                                                            \
          const double row = (double)((int64_t)(o / (size_t)w->out[1]) * w->stride[0]) + tap_row + (double)dy[o];                \
          const double col = (double)((int64_t)(o % (size_t)w->out[1]) * w->stride[1]) + tap_col + (double)dx[o];                \
          const T v = NAME##_at(x, w->in[0], w->in[1], row, col);                                                                \
          cols[i] = m ? v * m[o] : v;                                                                                            \
        }                                                                                                                        \
      }                                                                                                                          \
    }                                                                                                                            \
  }
DEFINE(float, f32)
DEFINE(double, f64)

static void chunk(void *context, size_t index) {
  const job *j = context;
  const ml__conv *c = &j->c;
  const ml_view *weights = j->ctx->in[1], *bias = ml__in(j->ctx, 3), *y = j->ctx->out[0];
  const size_t K = c->C * c->P, size = ml_dtype_size(y->dtype);
  char *cols = (char *)j->ctx->workspace + index * K * j->cols * size;
  size_t first, end;
  ml__unit_range(j->units, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    size_t start = u % j->col_blocks * j->cols, at = u / j->col_blocks, group = at % c->G;
    size_t n = c->O - start < j->cols ? c->O - start : j->cols;
    if (y->dtype == ML_FLOAT32) f32_columns(j, at / c->G, group, start, n, (float *)(void *)cols);
    else f64_columns(j, at / c->G, group, start, n, (double *)(void *)cols);
    char *to = (char *)y->data + (at * c->M * c->O + start) * size;
    for (size_t m = 0; m < c->M && bias; m++)
      ml__fill(to + m * c->O * size, (const char *)bias->data + (group * c->M + m) * size, size, n);
    ml__product(j->ctx->run->kernels, y->dtype, false, false, c->M, n, K, 1,
                (const char *)weights->data + group * c->M * K * size, K, cols, n, bias ? 1 : 0, to, c->O);
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *bias = ml__in(ctx, 3), *mask = ml__in(ctx, 4);
  job j;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(plan(ctx, &j, err));
  if (bias && bias->count != j.c.G * j.c.M)
    return ml_fail(err, ML_INVALID_ARGUMENT, "B has %zu values for %zu channels", bias->count, j.c.G * j.c.M);
  size_t field = j.per_offset ? j.c.N * (j.c.G * j.c.C / j.per_offset) * j.c.P * j.c.O : 0;
  if (ctx->in[2]->count < 2 * field || (mask && mask->count < field))
    return ml_fail(err, ML_INVALID_ARGUMENT, "offset or mask is too small");
  ml_parallel(j.chunks, chunk, &j);
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const ml_view *weights = ctx->in[1];
  return weights->dims[0] ? 2.0 * (double)ctx->out[0]->count * (double)(weights->count / (size_t)weights->dims[0]) : 0;
}

const ml_op_def ml_op_deform_conv = {
  .name = "DeformConv", .domain = "", .since = 22, .min_in = 3, .max_in = 5, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F }, .formula = "Y = W X(position + offset) mask + B", .infer = infer, .workspace = workspace, .run = run,
  .flops = flops,
};
