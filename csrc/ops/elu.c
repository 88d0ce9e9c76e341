/* Elu: y = x > 0 ? x : alpha (e^x - 1); y has the shape of x. Gradient: dx = x > 0 ? dy : dy alpha e^x. Reference: ONNX Elu-6
 * (Clevert, Unterthiner, Hochreiter 2016). */
#include "ops/elementwise.h"

ML_UNARY_KERNEL(ML_UN_ELU, x > 0 ? x : alpha * expm1(x), ml_attr_float(ctx->attrs, "alpha", 1.0f), 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Elu", g->in[0], ml_attr_float(g->attrs, "alpha", 1.0f), 0);
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 1: scale below 0" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_elu = {
  .name = "Elu", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = x > 0 ? x : alpha (exp(x) - 1)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
