/* ThresholdedRelu: y = x > alpha ? x : 0; y has the shape of x. Gradient: dx = x > alpha ? dy : 0.
 * Reference: ONNX ThresholdedRelu-10. */
#include "ops/elementwise.h"

ML_UNARY_FLOAT(x > alpha ? x : 0, ml_attr_float(ctx->attrs, "alpha", 1.0f), 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "ThresholdedRelu", g->in[0], ml_attr_float(g->attrs, "alpha", 1.0f), 0);
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 1: threshold" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_thresholded_relu = {
  .name = "ThresholdedRelu", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = x > alpha ? x : 0",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
