/* Softsign: y = x / (1 + |x|); y has the shape of x. Gradient: dx = dy / (1 + |x|)^2. Reference: ONNX Softsign-1. */
#include "ops/elementwise.h"

ML_UNARY_FLOAT(x / (1 + fabs(x)), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Softsign", g->in[0], 0, 0);
}

const ml_op_def ml_op_softsign = {
  .name = "Softsign", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = x / (1 + |x|)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
