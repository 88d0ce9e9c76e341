/* Abs: y = |x|, element by element; y has the shape of x. Integers wrap: |INT_MIN| = INT_MIN, as in NumPy.
 * Gradient: dx = dy sign(x), 0 at 0. Reference: ONNX Abs-13. */
#include "ops/elementwise.h"

ML_UNARY_CASES(ML_UN_ABS, ML_CASES1_FLOAT(T, fabs(x)) ML_CASES1_SIGNED(T, x < 0 ? UINT64_C(0) - (uint64_t)x : (uint64_t)x)
               ML_CASES1_UNSIGNED(T, x))

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Abs", g->in[0], 0, 0);
}

const ml_op_def ml_op_abs = {
  .name = "Abs", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_N },
  .formula = "y = |x|",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
