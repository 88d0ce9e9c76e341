/* Mish: y = x tanh(ln(1 + e^x)); y has the shape of x. With w = e^x (e^x + 2), tanh(ln(1 + e^x)) = w / (w + 2): float32 needs one
 * exponential; beyond x = 20 the quotient is 1 in either precision.
 * Gradient: dx = dy (t + x sigmoid(x) (1 - t^2)), t = tanh(softplus(x)). Reference: ONNX Mish-18 (Misra 2019). */
#include "ops/elementwise.h"

ML_UNARY_INSIDE(x > 20 ? 20 : x, ML_UN_EXP, x * (t * (t + 2) / (t * (t + 2) + 2)),
                x * tanh((x > 0 ? x : 0) + log1p(exp(-fabs(x)))), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Mish", g->in[0], 0, 0);
}

const ml_op_def ml_op_mish = {
  .name = "Mish", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = x tanh(ln(1 + exp(x)))",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
