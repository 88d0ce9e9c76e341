/* Clip: y = min(max(x, lo), hi) with optional scalar inputs lo and hi; y has the shape of x. lo > hi gives hi; NaN stays NaN.
 * Gradient: dx = lo <= x <= hi ? dy : 0 (the bounds belong to the interval, as in PyTorch). Reference: ONNX Clip-13. */
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  static const char *const names[] = { "input", "min", "max" };
  ML_TRY(ml_op_infer_same(ctx, err));
  for (int32_t i = 1; i < ctx->n_in; ++i) {
    if (ctx->in[i] == NULL) continue;
    if (ctx->in[i]->dtype != ctx->in[0]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s must have the dtype of the input, %s, got %s", names[i],
                     ml_dtype_name(ctx->in[0]->dtype), ml_dtype_name(ctx->in[i]->dtype));
    ML_TRY(ml__op_check_scalar(ctx->in[i], names[i], err));
  }
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *low = ctx->n_in > 1 ? ctx->in[1] : NULL, *high = ctx->n_in > 2 ? ctx->in[2] : NULL;
  const void *from = ctx->in[0]->data;
  void *to = ctx->out[0]->data;
  const size_t n = ctx->out[0]->count;
  (void)err;
  if (n == 0) return ML_OK;
  if (low == NULL && high == NULL) {
    ml__copy_run(ctx);
    return ML_OK;
  }
  ML_SWITCH_NUMERIC(ctx->in[0]->dtype, {
    const T *xs = from;
    T *ys = to;
    if (low != NULL) {
      const T lo = *(const T *)low->data;
      for (size_t i = 0; i < n; ++i) ys[i] = xs[i] < lo ? lo : xs[i];
      xs = ys;
    }
    if (high != NULL) {
      const T hi = *(const T *)high->data;
      for (size_t i = 0; i < n; ++i) ys[i] = xs[i] > hi ? hi : xs[i];
    }
  })
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *d = g->dout[0];
  if (g->n_in > 1 && g->in[1] != NULL) d = ml__g_where(g, ml_g2(g, "GreaterOrEqual", g->in[0], g->in[1]), d);
  if (g->n_in > 2 && g->in[2] != NULL) d = ml__g_where(g, ml_g2(g, "LessOrEqual", g->in[0], g->in[2]), d);
  g->din[0] = d;
}

const ml_op_def ml_op_clip = {
  .name = "Clip", .domain = "", .since = 13, .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_N },
  .formula = "y = min(max(x, lo), hi)",
  .infer = infer,
  .run = run,
  .gradient = gradient,
};
