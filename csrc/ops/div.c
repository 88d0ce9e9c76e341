/* Div: z = a / b with NumPy broadcasting. Integers truncate towards 0, x / 0 = 0 and INT_MIN / -1 = INT_MIN: no input traps.
 * Gradient: da = dz / b, db = -dz z / b, summed over repeated dimensions. Reference: ONNX Div-14. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows, ML_CASES2_FLOAT(T, a / b)
               ML_CASES2_SIGNED(T, b == 0 ? UINT64_C(0) : b == -1 ? UINT64_C(0) - (uint64_t)a : (uint64_t)(a / b))
               ML_CASES2_UNSIGNED(T, b == 0 ? 0 : a / b))
ML_BINARY_RUN(ML_BIN_DIV)

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml__g_operand(g, 0, ml_g2(g, "Div", g->dout[0], g->in[1]));
  if (g->needs[1]) {
    ml_value *d = ml_g2(g, "Div", ml_g2(g, "Mul", g->dout[0], g->out[0]), g->in[1]);
    g->din[1] = ml_g1(g, "Neg", ml__g_operand(g, 1, d));
  }
}

const ml_op_def ml_op_div = {
  .name = "Div", .domain = "", .since = 14, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1,
  .types = { ML_MASK_N },
  .formula = "z = a / b",
  .infer = ml_op_infer_broadcast,
  .run = run,
  .gradient = gradient,
};
