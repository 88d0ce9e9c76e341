/* QuantizeLinear: y = saturate(round(x / y_scale) + y_zero_point), rounded to the nearest integer with ties to even. The scale
 * is one value, one per place along the axis, or one per block of block_size places. x (any shape), y_scale, y_zero_point
 * (optional, gives the type of y; else output_dtype, else uint8) -> y in the shape of x. float16 scales divide in float16, as
 * the attribute precision says otherwise. 8- and 16-bit types only. No gradient. Reference: ONNX QuantizeLinear-25. */
#include "ops/quantize.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "1 (default): dimension of the scales" },
  { "block_size", ML_ATTR_INT, false, "0 (default): no blocks; else elements along the axis that share a scale" },
  { "output_dtype", ML_ATTR_INT, false, "type of y without a zero point; uint8 by default" },
  { "precision", ML_ATTR_INT, false, "type of the division; the scale's by default" },
  { "saturate", ML_ATTR_INT, false, "ignored: only for 8-bit floats" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *zero = ml__in(ctx, 2);
  ml__scales q;
  ML_TRY(ml__op_check_types(ctx, err));
  const int64_t wanted = ml_attr_int(ctx->attrs, "output_dtype", 0), precision = ml_attr_int(ctx->attrs, "precision", 0);
  const int64_t dtype = wanted != 0 ? wanted : zero != NULL ? (int64_t)zero->dtype : ML_UINT8;
  if (dtype < 1 || dtype > 31 || (ML__MASK_QUANTIZED & ML_BIT(dtype)) == 0)
    return ml_fail(err, ML_UNIMPLEMENTED, "quantising to type %lld is not supported: int8, uint8, int16 or uint16",
                   (long long)dtype);
  if (zero != NULL && (int64_t)zero->dtype != dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'output_dtype' is %s, y_zero_point is %s", ml_dtype_name((ml_dtype)dtype),
                   ml_dtype_name(zero->dtype));
  if (precision != 0 && precision != ML_FLOAT32 && precision != ML_FLOAT16 && precision != ML_BFLOAT16)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'precision' is %lld", (long long)precision);
  ML_TRY(ml__scales_init(ctx, x, ctx->in[1], zero, &q, err));
  ml_op_set(ctx->out[0], (ml_dtype)dtype, x->dims, x->rank);
  return ML_OK;
}

typedef struct job {
  const ml_view *x, *scale, *zero, *y;
  ml_dtype precision;
  int32_t low, high;
} job;

#define ROW(T)                                                                                                  \
  {                                                                                                             \
    const float *xs = (const float *)j->x->data + at, *scales = (const float *)j->scale->data + s;              \
    T *ys = (T *)j->y->data + at;                                                                               \
    const T *zeros = j->zero ? (const T *)j->zero->data + s : NULL;                                             \
    if (t == 0) {                                                                                               \
      const float scale = scales[0];                                                                            \
      const int32_t zero = zeros ? zeros[0] : 0;                                                                \
      for (size_t i = 0; i < n; i++) ys[i] = (T)ml__quantized(xs[i] / scale, zero, low, high);                  \
    } else {                                                                                                    \
      for (size_t i = 0; i < n; i++) ys[i] = (T)ml__quantized(xs[i] / scales[i], zeros ? zeros[i] : 0, low, high); \
    }                                                                                                           \
  }

static void row(void *context, size_t at, size_t n, size_t s, size_t t) {
  const job *j = context;
  const int32_t low = j->low, high = j->high;
  if (j->x->dtype == ML_FLOAT32 && j->scale->dtype == ML_FLOAT32 && j->precision == ML_FLOAT32) {
    switch (j->y->dtype) {
      case ML_INT8: ROW(int8_t) break;
      case ML_INT16: ROW(int16_t) break;
      case ML_UINT16: ROW(uint16_t) break;
      default: ROW(uint8_t) break;
    }
    return;
  }
  for (size_t i = 0; i < n; i++) {
    float q = (float)ml_element_get(j->x->data, j->x->dtype, at + i) / (float)ml_element_get(j->scale->data, j->scale->dtype,
                                                                                             s + i * t);
    if (j->precision == ML_FLOAT16) q = ml_half_to_float(ml_float_to_half(q));
    if (j->precision == ML_BFLOAT16) q = ml_bfloat_to_float(ml_float_to_bfloat(q));
    ml_element_set(j->y->data, j->y->dtype, at + i, ml__quantized(q, ml__zero_at(j->zero, s + i * t), low, high));
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  job j = { .x = ctx->in[0], .scale = ctx->in[1], .zero = ml__in(ctx, 2), .y = ctx->out[0] };
  const int64_t precision = ml_attr_int(ctx->attrs, "precision", 0);
  ml__scales q;
  j.precision = precision != 0 ? (ml_dtype)precision : j.scale->dtype;
  ml__quantized_range(j.y->dtype, &j.low, &j.high);
  ML_TRY(ml__scales_init(ctx, j.x, j.scale, j.zero, &q, err));
  ml__scales_rows(&q, row, &j);
  return ML_OK;
}

const ml_op_def ml_op_quantize_linear = {
  .name = "QuantizeLinear", .domain = "", .since = 28, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML__MASK_SCALE | ML_BIT(ML_INT32), ML__MASK_SCALE, ML__MASK_QUANTIZED },
  .formula = "y = saturate(round(x / scale) + zero)", .infer = infer, .run = run,
};
