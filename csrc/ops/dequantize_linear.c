/* DequantizeLinear: y = (x - x_zero_point) * x_scale. The scale is one value, one per place along the axis, or one per block
 * of block_size places. x (any shape; int32 has no zero point but 0), x_scale, x_zero_point (optional) -> y in the shape of x
 * and of the scale's type (or output_dtype). No gradient. Reference: ONNX DequantizeLinear-25. */
#include "ops/quantize.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "1 (default): dimension of the scales" },
  { "block_size", ML_ATTR_INT, false, "0 (default): no blocks; else elements along the axis that share a scale" },
  { "output_dtype", ML_ATTR_INT, false, "type of y; the scale's by default" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *zero = ml__in(ctx, 2);
  ml__scales q;
  ML_TRY(ml__op_check_types(ctx, err));
  const int64_t wanted = ml_attr_int(ctx->attrs, "output_dtype", 0), dtype = wanted != 0 ? wanted : (int64_t)ctx->in[1]->dtype;
  if (dtype < 1 || dtype > 31 || (ML__MASK_SCALE & ML_BIT(dtype)) == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'output_dtype' is %lld, expected float32, float16 or bfloat16",
                   (long long)dtype);
  if (zero != NULL && zero->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "x is %s, x_zero_point is %s", ml_dtype_name(x->dtype), ml_dtype_name(zero->dtype));
  ML_TRY(ml__scales_init(ctx, x, ctx->in[1], zero, &q, err));
  ml_op_set(ctx->out[0], (ml_dtype)dtype, x->dims, x->rank);
  return ML_OK;
}

typedef struct job {
  const ml_view *x, *scale, *zero, *y;
} job;

#define ROW(T)                                                                                             \
  {                                                                                                        \
    const T *xs = (const T *)j->x->data + at;                                                              \
    const float *scales = (const float *)j->scale->data + s;                                               \
    float *ys = (float *)j->y->data + at;                                                                  \
    const T *zeros = j->zero ? (const T *)j->zero->data + s : NULL;                                        \
    if (t == 0) {                                                                                          \
      const float scale = scales[0];                                                                       \
      const int32_t zero = zeros ? zeros[0] : 0;                                                           \
      for (size_t i = 0; i < n; i++) ys[i] = (float)((int32_t)xs[i] - zero) * scale;                       \
    } else {                                                                                               \
      for (size_t i = 0; i < n; i++) ys[i] = (float)((int32_t)xs[i] - (zeros ? zeros[i] : 0)) * scales[i]; \
    }                                                                                                      \
  }

static void row(void *context, size_t at, size_t n, size_t s, size_t t) {
  const job *j = context;
  if (j->scale->dtype == ML_FLOAT32 && j->y->dtype == ML_FLOAT32) {
    switch (j->x->dtype) {
      case ML_INT8: ROW(int8_t) return;
      case ML_UINT8: ROW(uint8_t) return;
      case ML_INT16: ROW(int16_t) return;
      case ML_UINT16: ROW(uint16_t) return;
      default: break;
    }
  }
  for (size_t i = 0; i < n; i++) {
    double zero = j->zero ? ml_element_get(j->zero->data, j->zero->dtype, s + i * t) : 0;
    float shifted = (float)(ml_element_get(j->x->data, j->x->dtype, at + i) - zero);
    ml_element_set(j->y->data, j->y->dtype, at + i,
                   (double)(shifted * (float)ml_element_get(j->scale->data, j->scale->dtype, s + i * t)));
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  job j = { .x = ctx->in[0], .scale = ctx->in[1], .zero = ml__in(ctx, 2), .y = ctx->out[0] };
  ml__scales q;
  ML_TRY(ml__scales_init(ctx, j.x, j.scale, j.zero, &q, err));
  ml__scales_rows(&q, row, &j);
  return ML_OK;
}

const ml_op_def ml_op_dequantize_linear = {
  .name = "DequantizeLinear", .domain = "", .since = 28, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML__MASK_QUANTIZED | ML_BIT(ML_INT32), ML__MASK_SCALE, ML__MASK_QUANTIZED | ML_BIT(ML_INT32) },
  .formula = "y = (x - zero) scale", .infer = infer, .run = run,
};
