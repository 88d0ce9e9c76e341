/* Sigmoid: y = 1 / (1 + e^-x); y has the shape of x. Gradient: dx = dy y (1 - y). Reference: ONNX Sigmoid-13. */
#include "ops/elementwise.h"

ML_UNARY_KERNEL(ML_UN_SIGMOID, x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Sigmoid", g->out[0], 0, 0);
}

const ml_op_def ml_op_sigmoid = {
  .name = "Sigmoid", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = 1 / (1 + exp(-x))",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
