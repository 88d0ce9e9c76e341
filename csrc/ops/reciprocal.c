/* Reciprocal: y = 1 / x; y has the shape of x. Gradient: dx = -dy y^2. Reference: ONNX Reciprocal-13. */
#include "ops/elementwise.h"

ML_UNARY_KERNEL(ML_UN_RECIPROCAL, 1 / x, 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Reciprocal", g->out[0], 0, 0);
}

const ml_op_def ml_op_reciprocal = {
  .name = "Reciprocal", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = 1 / x",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
