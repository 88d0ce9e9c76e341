/* Less: z = a < b, bool, with NumPy broadcasting; false where either is NaN. No gradient. Reference: ONNX Less-13. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows, ML_CASES2_NUMERIC(uint8_t, a < b))
ML_BINARY_RUN(-1)

const ml_op_def ml_op_less = {
  .name = "Less", .domain = "", .since = 13, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_N },
  .formula = "z = a < b",
  .infer = ml_op_infer_compare,
  .run = run,
};
