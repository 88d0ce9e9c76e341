/* Relu: y = max(x, 0), NaN stays NaN; y has the shape of x. Gradient: dx = y > 0 ? dy : 0. Reference: ONNX Relu-14. */
#include "ops/elementwise.h"

ML_UNARY_CASES(ML_UN_RELU, ML_CASES1_FLOAT(T, x < 0 ? (T)0 : x) ML_CASES1_SIGNED(T, x < 0 ? (T)0 : x))

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Relu", g->out[0], 0, 0);
}

const ml_op_def ml_op_relu = {
  .name = "Relu", .domain = "", .since = 14, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F | ML_BIT(ML_INT8) | ML_BIT(ML_INT16) | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) },
  .formula = "y = max(x, 0)",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
