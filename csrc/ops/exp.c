/* Exp: y = e^x; y has the shape of x. Gradient: dx = dy y. Reference: ONNX Exp-13. */
#include "ops/elementwise.h"

ML_UNARY_KERNEL(ML_UN_EXP, exp(x), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml_g2(g, "Mul", g->dout[0], g->out[0]);
}

const ml_op_def ml_op_exp = {
  .name = "Exp", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = exp(x)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
