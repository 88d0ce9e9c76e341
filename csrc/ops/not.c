/* Not: y = not x on bool; y has the shape of x. No gradient. Reference: ONNX Not-1. */
#include "ops/elementwise.h"

ML_UNARY_CASES(-1, ML_CASE1(ML_BOOL, uint8_t, uint8_t, x == 0))

const ml_op_def ml_op_not = {
  .name = "Not", .domain = "", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_BIT(ML_BOOL) },
  .formula = "y = not x",
  .infer = ml_op_infer_same,
  .run = run,
};
