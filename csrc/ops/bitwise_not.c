/* BitwiseNot: y = ~x, every bit inverted; y has the shape of x. No gradient. Reference: ONNX BitwiseNot-18. */
#include "ops/elementwise.h"

ML_UNARY_CASES(-1, ML_CASES1_SIGNED(T, ~x) ML_CASES1_UNSIGNED(T, ~x))

const ml_op_def ml_op_bitwise_not = {
  .name = "BitwiseNot", .domain = "", .since = 18, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_I },
  .formula = "y = ~x",
  .infer = ml_op_infer_same,
  .run = run,
};
