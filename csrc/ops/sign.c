/* Sign: y = -1, 0 or 1; NaN stays NaN; y has the shape of x. No gradient (zero almost everywhere). Reference: ONNX Sign-13. */
#include "ops/elementwise.h"

ML_UNARY_CASES(-1, ML_CASES1_FLOAT(T, x != x ? x : (T)((x > 0) - (x < 0))) ML_CASES1_SIGNED(T, (x > 0) - (x < 0))
               ML_CASES1_UNSIGNED(T, x != 0))

const ml_op_def ml_op_sign = {
  .name = "Sign", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_N },
  .formula = "y = sign(x)",
  .infer = ml_op_infer_same,
  .run = run,
};
