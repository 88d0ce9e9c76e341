/* Erf: y = 2/sqrt(pi) * integral of e^(-t^2) from 0 to x; y has the shape of x. Gradient: dx = dy 2/sqrt(pi) e^(-x^2).
 * Reference: ONNX Erf-13. */
#include "ops/elementwise.h"

ML_UNARY_KERNEL(ML_UN_ERF, erf(x), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Erf", g->in[0], 0, 0);
}

const ml_op_def ml_op_erf = {
  .name = "Erf", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = erf(x)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
