/* DynamicQuantizeLinear: quantises to uint8 with the scale and zero point that x itself asks for: scale = (max(0, max x) -
 * min(0, min x)) / 255, zero = saturate(round(-min(0, min x) / scale)), y = saturate(round(x / scale) + zero). x all zero:
 * scale 1, zero 0. x (any shape) float32 -> y like x, y_scale, y_zero_point (scalars). No gradient. Reference: ONNX
 * DynamicQuantizeLinear-11. */
#include "ops/quantize.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ml_op_set(ctx->out[0], ML_UINT8, ctx->in[0]->dims, ctx->in[0]->rank);
  ml_op_set(ml__out(ctx, 1), ML_FLOAT32, NULL, 0);
  ml_op_set(ml__out(ctx, 2), ML_UINT8, NULL, 0);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0], *y_scale = ml__out(ctx, 1), *y_zero = ml__out(ctx, 2);
  const float *xs = x->data;
  float low = 0, high = 0;
  (void)err;
  for (size_t i = 0; i < x->count; i++) {
    low = xs[i] < low ? xs[i] : low;
    high = xs[i] > high ? xs[i] : high;
  }
  const float scale = high > low ? (high - low) / 255.0f : 1.0f;
  const int32_t zero = ml__quantized(-low / scale, 0, 0, 255);
  if (y_scale != NULL) *(float *)y_scale->data = scale;
  if (y_zero != NULL) *(uint8_t *)y_zero->data = (uint8_t)zero;
  if (y == NULL) return ML_OK;
  uint8_t *ys = y->data;
  for (size_t i = 0; i < x->count; i++) ys[i] = (uint8_t)ml__quantized(xs[i] / scale, zero, 0, 255);
  return ML_OK;
}

const ml_op_def ml_op_dynamic_quantize_linear = {
  .name = "DynamicQuantizeLinear", .domain = "", .since = 11, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 3,
  .types = { ML_BIT(ML_FLOAT32) }, .like = { 0, ML_OP_OWN }, .formula = "y = saturate(round(x / scale) + zero)", .infer = infer, .run = run,
};
