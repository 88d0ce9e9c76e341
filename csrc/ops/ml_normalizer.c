/* Normalizer 1 (ai.onnx.ml): y = x / norm of its row; MAX: max |x|, L1: sum |x|, L2: sqrt sum x^2. A row of norm 0 stays as it
 * is. X (N, C) or (C) numeric -> Y (same) float32. ONNX operator specification, scikit-learn's Normalizer. */
#include <math.h>
#include "ops/feature.h"

static const ml_attr_def attrs[] = {
  { "norm", ML_ATTR_STRING, false, "\"MAX\" (default), \"L1\" or \"L2\"" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  if (!ml_attr_is(ctx->attrs, "norm", "MAX", "MAX") && !ml_attr_is(ctx->attrs, "norm", "MAX", "L1") &&
      !ml_attr_is(ctx->attrs, "norm", "MAX", "L2")) {
    ml_str s = ml_attr_str(ctx->attrs, "norm", "MAX");
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute norm: expected MAX, L1 or L2, got '%.*s'",
                   s.length > 64 ? 64 : (int)s.length, s.bytes);
  }
  ml_op_set(ctx->out[0], ML_FLOAT32, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  bool l1 = ml_attr_is(ctx->attrs, "norm", "MAX", "L1"), l2 = ml_attr_is(ctx->attrs, "norm", "MAX", "L2");
  float *to = ctx->out[0]->data;
  (void)err;
  if (x->count == 0) return ML_OK;
  size_t n = (size_t)ml__features(x);
  for (size_t row = 0; row < x->count; row += n) {
    double norm = 0;
    for (size_t i = row; i < row + n; i++) {
      double v = fabs(ml_element_get(x->data, x->dtype, i));
      norm = l1 ? norm + v : l2 ? norm + v * v : v > norm || isnan(v) ? v : norm;
    }
    if (l2) norm = sqrt(norm);
    if (norm == 0) norm = 1;
    for (size_t i = row; i < row + n; i++) to[i] = (float)(ml_element_get(x->data, x->dtype, i) / norm);
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_normalizer = {
  .name = "Normalizer", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML__MASK_FEATURE }, .formula = "y = x / norm of its row", .infer = infer, .run = run,
};
