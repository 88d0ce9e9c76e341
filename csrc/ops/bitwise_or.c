/* BitwiseOr: y = a or b on the bits of integers, with broadcasting. No gradient. Reference: ONNX BitwiseOr-18. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows, ML_CASES2_INTEGER(T, a | b))
ML_BINARY_RUN(-1)

const ml_op_def ml_op_bitwise_or = {
  .name = "BitwiseOr", .domain = "", .since = 18, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1,
  .types = { ML_MASK_I },
  .formula = "y = a | b",
  .infer = ml_op_infer_broadcast,
  .run = run,
};
