/* Add: z = a + b with NumPy broadcasting; integers wrap. Gradient: da = dz, db = dz, summed over repeated dimensions.
 * Reference: ONNX Add-14. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows, ML_CASES2_FLOAT(T, a + b) ML_CASES2_INTEGER(T, (uint64_t)a + (uint64_t)b))
ML_BINARY_RUN(ML_BIN_ADD)

static void gradient(ml_grad *g) {
  for (int32_t i = 0; i < 2; ++i)
    if (g->needs[i]) g->din[i] = ml__g_operand(g, i, g->dout[0]);
}

const ml_op_def ml_op_add = {
  .name = "Add", .domain = "", .since = 14, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1,
  .types = { ML_MASK_N },
  .formula = "z = a + b",
  .infer = ml_op_infer_broadcast,
  .run = run,
  .gradient = gradient,
};
