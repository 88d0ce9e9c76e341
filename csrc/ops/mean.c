/* Mean: y = (x0 + x1 + ... ) / n of n inputs, with NumPy broadcasting. Gradient: dx_i = dy / n, summed over repeated dimensions.
 * Reference: ONNX Mean-13. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(add, ML_CASES2_FLOAT(T, a + b))
ML_BINARY_ROWS(divide, ML_CASES2_FLOAT(T, a / b))

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml__variadic_run(ctx, ML_BIN_ADD, add);
  if (ctx->n_in == 1) return ML_OK;
  double f64 = ctx->n_in;
  float f32 = (float)ctx->n_in;
  const ml_view *y = ctx->out[0];
  const ml_view count = {
    .data = y->dtype == ML_FLOAT32 ? (void *)&f32 : (void *)&f64, .count = 1, .dtype = y->dtype, .rank = 0
  };
  ml__binary(ctx->run->kernels, ML_BIN_DIV, divide, y, &count, y);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *d = g->n_in == 1 ? g->dout[0] : ml_g2(g, "Div", g->dout[0], g->constant(g, g->n_in, g->dout[0]));
  for (int32_t i = 0; i < g->n_in; ++i)
    if (g->needs[i]) g->din[i] = ml__g_operand(g, i, d);
}

const ml_op_def ml_op_mean = {
  .name = "Mean", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_VARIADIC,
  .types = { ML_MASK_F },
  .formula = "y = (x0 + x1 + ...) / n",
  .infer = ml_op_infer_broadcast,
  .run = run,
  .gradient = gradient,
};
