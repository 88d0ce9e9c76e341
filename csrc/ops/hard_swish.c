/* HardSwish: y = x max(0, min(1, x/6 + 1/2)); y has the shape of x.
 * Gradient: dx = dy (x <= -3 ? 0 : x < 3 ? x/3 + 1/2 : 1). Reference: ONNX HardSwish-14 (Howard et al. 2019). */
#include "ops/elementwise.h"

ML_UNARY_FLOAT(x * (x < -3 ? 0 : x > 3 ? 1 : x / 6 + (T)0.5), 0, 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "HardSwish", g->in[0], 0, 0);
}

const ml_op_def ml_op_hard_swish = {
  .name = "HardSwish", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = x max(0, min(1, x / 6 + 1/2))",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
