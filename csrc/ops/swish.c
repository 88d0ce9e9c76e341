/* Swish: y = x sigmoid(alpha x); y has the shape of x. alpha = 1 is SiLU.
 * Gradient: dx = dy (s + alpha x s (1 - s)), s = sigmoid(alpha x). Reference: ONNX Swish-24 (Ramachandran et al. 2017). */
#include "ops/elementwise.h"

ML_UNARY_INSIDE(alpha * x, ML_UN_SIGMOID, x * t, x / (1 + exp(-alpha * x)), ml_attr_float(ctx->attrs, "alpha", 1.0f), 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Swish", g->in[0], ml_attr_float(g->attrs, "alpha", 1.0f), 0);
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 1: scale inside the sigmoid" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_swish = {
  .name = "Swish", .domain = "", .since = 24, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = x sigmoid(alpha x)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
