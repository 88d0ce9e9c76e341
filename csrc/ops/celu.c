/* Celu: y = max(0, x) + min(0, alpha (e^(x/alpha) - 1)); y has the shape of x. float32 goes through Elu: alpha elu(x / alpha).
 * Gradient: dx = x > 0 ? dy : dy e^(x/alpha). Reference: ONNX Celu-12 (Barron 2017). */
#include "ops/elementwise.h"

ML_UNARY_INSIDE(x / alpha, ML_UN_ELU, x > 0 ? x : alpha * t, x > 0 ? x : alpha * expm1(x / alpha),
                ml_attr_float(ctx->attrs, "alpha", 1.0f), 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Celu", g->in[0], ml_attr_float(g->attrs, "alpha", 1.0f), 0);
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 1: scale below 0" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_celu = {
  .name = "Celu", .domain = "", .since = 28, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = max(0, x) + min(0, alpha (exp(x / alpha) - 1))",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
