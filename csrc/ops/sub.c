/* Sub: z = a - b with NumPy broadcasting; integers wrap. Gradient: da = dz, db = -dz, summed over repeated dimensions.
 * Reference: ONNX Sub-14. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows, ML_CASES2_FLOAT(T, a - b) ML_CASES2_INTEGER(T, (uint64_t)a - (uint64_t)b))
ML_BINARY_RUN(ML_BIN_SUB)

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml__g_operand(g, 0, g->dout[0]);
  if (g->needs[1]) g->din[1] = ml_g1(g, "Neg", ml__g_operand(g, 1, g->dout[0]));
}

const ml_op_def ml_op_sub = {
  .name = "Sub", .domain = "", .since = 14, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1,
  .types = { ML_MASK_N },
  .formula = "z = a - b",
  .infer = ml_op_infer_broadcast,
  .run = run,
  .gradient = gradient,
};
