/* Selu: y = gamma (x > 0 ? x : alpha (e^x - 1)); y has the shape of x.
 * Gradient: dx = dy gamma (x > 0 ? 1 : alpha e^x). Reference: ONNX Selu-6 (Klambauer et al. 2017). */
#include "ops/elementwise.h"

#define ALPHA 1.67326319217681884765625f
#define GAMMA 1.05070102214813232421875f

ML_UNARY_KERNEL(ML_UN_SELU, gamma * (x > 0 ? x : alpha * expm1(x)), ml_attr_float(ctx->attrs, "alpha", ALPHA),
                ml_attr_float(ctx->attrs, "gamma", GAMMA))

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Selu", g->in[0], ml_attr_float(g->attrs, "alpha", ALPHA), ml_attr_float(g->attrs, "gamma", GAMMA));
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 1.67326319217681884765625: scale below 0" },
  { "gamma", ML_ATTR_FLOAT, false, "default 1.05070102214813232421875: scale of the whole" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_selu = {
  .name = "Selu", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = gamma (x > 0 ? x : alpha (exp(x) - 1))",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
