/* Neg: y = -x; y has the shape of x. Integers wrap: -INT_MIN = INT_MIN. Gradient: dx = -dy. Reference: ONNX Neg-13. */
#include "ops/elementwise.h"

ML_UNARY_CASES(ML_UN_NEG, ML_CASES1_FLOAT(T, -x) ML_CASES1_SIGNED(T, UINT64_C(0) - (uint64_t)x))

static void gradient(ml_grad *g) {
  g->din[0] = ml_g1(g, "Neg", g->dout[0]);
}

const ml_op_def ml_op_neg = {
  .name = "Neg", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F | ML_BIT(ML_INT8) | ML_BIT(ML_INT16) | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) },
  .formula = "y = -x",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
