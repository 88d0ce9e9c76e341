/* GlobalMaxPool 22: Y = largest X of everything but batch and channel; NaN wins. X (N,C,D1…) -> Y (N,C,1…). ONNX operator
 * specification. Gradient: mlserve.GlobalMaxPoolGrad gives dY to the first largest element. */
#include "ops/global_pool.h"

static void value(const ml_op_ctx *ctx, size_t n, size_t index) {
  if (ctx->in[0]->dtype == ML_FLOAT32) {
    ((float *)ctx->out[0]->data)[index] = ctx->run->kernels->max_f32((const float *)ctx->in[0]->data + index * n, n);
    return;
  }
  const double *x = (const double *)ctx->in[0]->data + index * n;
  double top = x[0];
  for (size_t i = 1; i < n; i++) top = x[i] > top || x[i] != x[i] ? x[i] : top;
  ((double *)ctx->out[0]->data)[index] = top;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__global_pool_run(ctx, value, err); }

static void gradient(ml_grad *g) {
  if (g->needs[0] && g->dout[0]) g->din[0] = ml_g2(g, "mlserve.GlobalMaxPoolGrad", g->dout[0], g->in[0]);
}

const ml_op_def ml_op_global_max_pool = {
  .name = "GlobalMaxPool", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_F },
  .formula = "Y = max of X per channel", .infer = ml__global_pool_infer, .run = run, .gradient = gradient,
  .flops = ml__global_pool_flops,
};
