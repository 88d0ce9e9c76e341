/* Or: z = a or b on bool, with NumPy broadcasting. No gradient. Reference: ONNX Or-7. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows, ML_CASE2(ML_BOOL, uint8_t, uint8_t, (a != 0) | (b != 0)))
ML_BINARY_RUN(-1)

const ml_op_def ml_op_or = {
  .name = "Or", .domain = "", .since = 7, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1,
  .types = { ML_BIT(ML_BOOL) },
  .formula = "z = a or b",
  .infer = ml_op_infer_broadcast,
  .run = run,
};
