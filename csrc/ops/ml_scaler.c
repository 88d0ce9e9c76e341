/* Scaler 1 (ai.onnx.ml): y = (x - offset) scale per feature. X (…, features) numeric -> Y (same) float32; offset (default 0)
 * and scale (default 1) hold one value or one per feature. ONNX operator specification. */
#include "ops/feature.h"

static const ml_attr_def attrs[] = {
  { "offset", ML_ATTR_FLOATS, false, "subtracted first: one value or one per feature; default 0" },
  { "scale", ML_ATTR_FLOATS, false, "then multiplied: one value or one per feature; default 1" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ml_view offset, scale;
  ML_TRY(ml__feature_list(ctx->attrs, "offset", ctx->in[0], &offset, err));
  ML_TRY(ml__feature_list(ctx->attrs, "scale", ctx->in[0], &scale, err));
  ml_op_set(ctx->out[0], ML_FLOAT32, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

#define SCALE                                                                                                \
  {                                                                                                          \
    const T *from = x->data;                                                                                 \
    for (size_t i = 0; i < x->count; i += n)                                                                 \
      for (size_t k = 0; k < n; k++) to[i + k] = ((float)from[i + k] - off[k * off_step]) * by[k * by_step]; \
  }

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  static const float zero = 0, one = 1;
  const ml_view *x = ctx->in[0];
  ml_view offset, scale;
  ML_TRY(ml__feature_list(ctx->attrs, "offset", x, &offset, err));
  ML_TRY(ml__feature_list(ctx->attrs, "scale", x, &scale, err));
  if (x->count == 0) return ML_OK;
  size_t n = (size_t)ml__features(x), off_step = offset.count > 1, by_step = scale.count > 1;
  const float *off = offset.count ? offset.data : &zero, *by = scale.count ? scale.data : &one;
  float *to = ctx->out[0]->data;
  switch (x->dtype) {
    case ML_FLOAT32: {
      typedef float T;
      SCALE
    } break;
    case ML_FLOAT64: {
      typedef double T;
      SCALE
    } break;
    case ML_INT32: {
      typedef int32_t T;
      SCALE
    } break;
    case ML_INT64: {
      typedef int64_t T;
      SCALE
    } break;
    default: break;
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_scaler = {
  .name = "Scaler", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML__MASK_FEATURE }, .formula = "y = (x - offset) scale", .infer = infer, .run = run,
};
