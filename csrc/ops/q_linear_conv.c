/* QLinearConv: y = saturate(round((B + (x - x_zero) convolved with (w - w_zero)) x_scale w_scale / y_scale) + y_zero) of 8-bit
 * integers; padding is x's zero point. x (N,C,D1…), x_scale, x_zero_point, w (M,C/group,k1…), w_scale and w_zero_point
 * (scalars or (M)), y_scale, y_zero_point, B ((M) int32, of scale x_scale w_scale, optional) -> (N,M,O1…) of y_zero_point's
 * type. No gradient. Reference: ONNX QLinearConv-10. */
#include "ops/conv_integer.h"
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  for (int32_t i = 0; i < ctx->n_in; i++) {
    if (ctx->in[i] == NULL) continue;
    const uint32_t mask = i == 1 || i == 4 || i == 6 ? ML_BIT(ML_FLOAT32) : i == 8 ? ML_BIT(ML_INT32) : ML__MASK_8BIT;
    const ml_dtype dtype = ctx->in[i]->dtype;
    if (dtype != ML_DTYPE_NONE && (ML_BIT(dtype) & mask) == 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has dtype %s, expected %s", (int)i, ml_dtype_name(dtype),
                     mask == ML__MASK_8BIT ? "int8 or uint8" : i == 8 ? "int32" : "float32");
  }
  ML_TRY(ml__op_check_scalar(ctx->in[1], "x_scale", err));
  ML_TRY(ml__op_check_scalar(ctx->in[2], "x_zero_point", err));
  ML_TRY(ml__op_check_scalar(ctx->in[6], "y_scale", err));
  ML_TRY(ml__op_check_scalar(ctx->in[7], "y_zero_point", err));
  return ml__conv_i8_infer(ctx, ctx->in[0], ctx->in[3], ctx->in[7]->dtype, ctx->out[0], err);
}

static ml_status start(ml_op_ctx *ctx, ml__conv_i8 *c, ml_error *err) {
  const ml_view *w_scale = ctx->in[4], *bias = ml__in(ctx, 8);
  ML_TRY(ml__conv_i8_init(c, ctx, ctx->in[0], ctx->in[3], ctx->in[2], ctx->in[5], err));
  const size_t filters = c->groups * c->filters;
  if (w_scale->count != 1 && w_scale->count != filters)
    return ml_fail(err, ML_INVALID_ARGUMENT, "w_scale has %zu values, expected one or %zu", w_scale->count, filters);
  if (bias != NULL && bias->count != filters)
    return ml_fail(err, ML_INVALID_ARGUMENT, "B has %zu values for %zu filters", bias->count, filters);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__conv_i8 c;
  ML_TRY(start(ctx, &c, err));
  return ml__conv_i8_workspace(&c, bytes, err);
}

typedef struct target {
  uint8_t *y; /* the bytes are the same for int8 */
  size_t filters, outputs;
  float x_scale, y_scale;
  const ml_view *w_scale;
  const int32_t *bias;
  int32_t zero, low, high;
} target;

static void store(void *context, size_t image, size_t filter, size_t filters, size_t position, size_t n, const int32_t *sums,
                  size_t ld) {
  const target *t = context;
  for (size_t f = 0; f < filters; f++) {
    const float w_scale = ((const float *)t->w_scale->data)[t->w_scale->count == 1 ? 0 : filter + f],
                scale = t->x_scale * w_scale / t->y_scale;
    const uint32_t bias = t->bias ? (uint32_t)t->bias[filter + f] : 0;
    uint8_t *to = t->y + (image * t->filters + filter + f) * t->outputs + position;
    for (size_t i = 0; i < n; i++)
      to[i] = (uint8_t)ml__quantized((float)(int32_t)((uint32_t)sums[f * ld + i] + bias) * scale, t->zero, t->low, t->high);
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml__conv_i8 c;
  const ml_view *bias = ml__in(ctx, 8), *y = ctx->out[0];
  if (y->count == 0) return ML_OK;
  ML_TRY(start(ctx, &c, err));
  target t = { .y = y->data, .filters = c.groups * c.filters, .outputs = c.outputs,
               .x_scale = *(const float *)ctx->in[1]->data, .y_scale = *(const float *)ctx->in[6]->data, .w_scale = ctx->in[4],
               .bias = bias != NULL ? bias->data : NULL, .zero = ml__zero_at(ctx->in[7], 0) };
  ml__quantized_range(y->dtype, &t.low, &t.high);
  ml__conv_i8_run(&c, store, &t, ctx->workspace);
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const ml_view *w = ctx->in[3];
  return w->rank < 1 || w->dims[0] < 1 ? 0 : 2.0 * (double)ctx->out[0]->count * (double)w->count / (double)w->dims[0];
}

const ml_op_def ml_op_q_linear_conv = {
  .name = "QLinearConv", .domain = "", .since = 10, .min_in = 8, .max_in = 9, .min_out = 1, .max_out = 1, .attrs = ml__conv_attrs,
  .formula = "y = quantised convolution of quantised tensors", .infer = infer, .workspace = workspace, .run = run, .flops = flops,
};
