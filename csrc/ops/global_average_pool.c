/* GlobalAveragePool 22: Y = mean of X over everything but batch and channel. X (N,C,D1…) -> Y (N,C,1…). ONNX operator
 * specification. Gradient: dX = dY / n, repeated. */
#include "ops/global_pool.h"

static void value(const ml_op_ctx *ctx, size_t n, size_t index) {
  if (ctx->in[0]->dtype == ML_FLOAT32) {
    ((float *)ctx->out[0]->data)[index] = ctx->run->kernels->sum_f32((const float *)ctx->in[0]->data + index * n, n) / (float)n;
    return;
  }
  const double *x = (const double *)ctx->in[0]->data + index * n;
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += x[i];
  ((double *)ctx->out[0]->data)[index] = sum / (double)n;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__global_pool_run(ctx, value, err); }

static void gradient(ml_grad *g) {
  ml_value *x = g->in[0], *dy = g->dout[0];
  if (!g->needs[0] || !dy) return;
  ml_value *n = ml_g2(g, "Div", ml_g1(g, "Size", x), ml_g1(g, "Size", g->out[0]));
  g->din[0] = ml__g_expand_like(g, ml_g2(g, "Div", dy, ml__g_cast(g, n, g->shape_of(g, x)->dtype)), x);
}

const ml_op_def ml_op_global_average_pool = {
  .name = "GlobalAveragePool", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_F },
  .formula = "Y = mean of X per channel", .infer = ml__global_pool_infer, .run = run, .gradient = gradient,
  .flops = ml__global_pool_flops,
};
