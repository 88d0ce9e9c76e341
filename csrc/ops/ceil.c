/* Ceil: y = the smallest integer not below x; y has the shape of x. No gradient (zero almost everywhere).
 * Reference: ONNX Ceil-13. */
#include "ops/elementwise.h"

ML_UNARY_FLOAT(ceil(x), 0, 0)

const ml_op_def ml_op_ceil = {
  .name = "Ceil", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = ceil(x)",
  .infer = ml_op_infer_same,
  .run = run,
};
