/* Sinh: y = sinh(x); y has the shape of x. Gradient: dx = dy cosh x. Reference: ONNX Sinh-22. */
#include "ops/elementwise.h"

ML_UNARY_FLOAT(sinh(x), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Sinh", g->in[0], 0, 0);
}

const ml_op_def ml_op_sinh = {
  .name = "Sinh", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = sinh(x)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
