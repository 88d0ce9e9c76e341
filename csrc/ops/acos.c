/* Acos: y = acos(x); y has the shape of x. Gradient: dx = dy (-1 / sqrt(1 - x^2)). NaN outside [-1, 1]. Reference: ONNX
 * Acos-22. */
#include "ops/elementwise.h"

ML_UNARY_FLOAT(acos(x), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Acos", g->in[0], 0, 0);
}

const ml_op_def ml_op_acos = {
  .name = "Acos", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = acos(x)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
