/* Binarizer 1 (ai.onnx.ml): y = 1 where x > threshold, else 0. X (any shape) numeric -> Y (same, same type). ONNX operator
 * specification. */
#include "ops/feature.h"

static const ml_attr_def attrs[] = {
  { "threshold", ML_ATTR_FLOAT, false, "0 (default)" },
  { 0 },
};

#define BINARIZE(W)                                                          \
  {                                                                          \
    const T *from = x->data;                                                 \
    T *to = ctx->out[0]->data;                                               \
    for (size_t i = 0; i < x->count; i++) to[i] = (W)from[i] > (W)threshold; \
  }

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  float threshold = ml_attr_float(ctx->attrs, "threshold", 0);
  (void)err;
  switch (x->dtype) {
    case ML_FLOAT32: {
      typedef float T;
      BINARIZE(float)
    } break;
    case ML_FLOAT64: {
      typedef double T;
      BINARIZE(double)
    } break;
    case ML_INT32: {
      typedef int32_t T;
      BINARIZE(double)
    } break;
    case ML_INT64: {
      typedef int64_t T;
      BINARIZE(double)
    } break;
    default: break;
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ml_op_like(ctx->out[0], ctx->in[0]);
  return ML_OK;
}

const ml_op_def ml_op_ml_binarizer = {
  .name = "Binarizer", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE, .attrs = attrs, .types = { ML__MASK_FEATURE }, .formula = "y = 1 where x > threshold, else 0",
  .infer = infer, .run = run,
};
