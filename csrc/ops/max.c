/* Max: y = the largest of the inputs element by element, with NumPy broadcasting; NaN wins, as in NumPy.
 * Gradient: dy goes to the inputs equal to y in equal parts (two equal inputs get half each, as PyTorch's binary max).
 * Reference: ONNX Max-13. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows, ML_CASES2_FLOAT(T, a > b || a != a ? a : b) ML_CASES2_INTEGER(T, a > b ? a : b))

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml__variadic_run(ctx, ML_BIN_MAX, rows);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml__g_extremum(g);
}

const ml_op_def ml_op_max = {
  .name = "Max", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_VARIADIC,
  .types = { ML_MASK_N },
  .formula = "y = max(x0, x1, ...)",
  .infer = ml_op_infer_broadcast,
  .run = run,
  .gradient = gradient,
};
