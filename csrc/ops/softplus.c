/* Softplus: y = ln(1 + e^x), computed as max(x, 0) + ln(1 + e^-|x|) so that nothing overflows; y has the shape of x.
 * Gradient: dx = dy sigmoid(x). Reference: ONNX Softplus-1. */
#include "ops/elementwise.h"

ML_UNARY_KERNEL(ML_UN_SOFTPLUS, (x > 0 ? x : 0) + log1p(exp(-fabs(x))), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Softplus", g->in[0], 0, 0);
}

const ml_op_def ml_op_softplus = {
  .name = "Softplus", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = ln(1 + exp(x))",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
