/* Sqrt: y = square root of x, NaN below 0; y has the shape of x. Gradient: dx = dy / (2 y). Reference: ONNX Sqrt-13. */
#include "ops/elementwise.h"

ML_UNARY_KERNEL(ML_UN_SQRT, sqrt(x), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Sqrt", g->out[0], 0, 0);
}

const ml_op_def ml_op_sqrt = {
  .name = "Sqrt", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = sqrt(x)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
