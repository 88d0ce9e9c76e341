/* Sum: y = x0 + x1 + ... with NumPy broadcasting. Gradient: dx_i = dy, summed over repeated dimensions.
 * Reference: ONNX Sum-13. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows, ML_CASES2_FLOAT(T, a + b))

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml__variadic_run(ctx, ML_BIN_ADD, rows);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  for (int32_t i = 0; i < g->n_in; ++i)
    if (g->needs[i]) g->din[i] = ml__g_operand(g, i, g->dout[0]);
}

const ml_op_def ml_op_sum = {
  .name = "Sum", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_VARIADIC,
  .types = { ML_MASK_F },
  .formula = "y = x0 + x1 + ...",
  .infer = ml_op_infer_broadcast,
  .run = run,
  .gradient = gradient,
};
