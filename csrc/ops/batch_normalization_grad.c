/* mlserve.BatchNormalizationGrad: with r = 1/sqrt(var + epsilon), h = (X - mean) r and sums over everything but the channel,
 *   dB = sum dY,  dscale = sum dY h,
 *   dX = scale r dY                                     with the given statistics,
 *   dX = scale r (dY - dB / n - h dscale / n)           with those of the batch (training_mode=1).
 * dY, X (N,C,D…), scale, input_mean, input_var (C) -> dX (N,C,D…), dscale (C), dB (C). Ioffe & Szegedy 2015, section 3. */
#include <math.h>
#include "ops/batch_norm.h"

static const ml_attr_def attrs[] = {
  { "epsilon", ML_ATTR_FLOAT, false, "1e-5 (default): BatchNormalization's" },
  { "training_mode", ML_ATTR_INT, false, "0 (default): BatchNormalization's" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  static const char *const names[5] = { "dY", "X", "scale", "input_mean", "input_var" };
  const ml_view *x = ctx->in[1];
  if (x->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 1 or more, got rank 0");
  if (ctx->in[0]->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dY is %s, X is %s", ml_dtype_name(ctx->in[0]->dtype), ml_dtype_name(x->dtype));
  for (int32_t i = 2; i < 5; i++) ML_TRY(ml__check_channel(x, ctx->in[i], names[i], err));
  if (ml__out(ctx, 0)) ml_op_like(ctx->out[0], x);
  for (int32_t i = 1; i < 3; i++)
    if (ml__out(ctx, i)) ml_op_like(ctx->out[i], ctx->in[2]);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  size_t C = ml__channels_of(ctx->in[1]).C;
  return ml_mul_size(C, 4 * sizeof(double), bytes) ? ML_OK : ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu channels are too many", C);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  static const char *const names[5] = { "dY", "X", "scale", "input_mean", "input_var" };
  const ml_view *dy = ctx->in[0], *x = ctx->in[1];
  ml_view *dx = ml__out(ctx, 0), *dscale = ml__out(ctx, 1), *db = ml__out(ctx, 2);
  ml__channels d = ml__channels_of(x);
  double *mean = ctx->workspace, *inv = mean + d.C, *sum = inv + d.C, *dot = sum + d.C;
  double eps = (double)ml_attr_float(ctx->attrs, "epsilon", 1e-5f), n = (double)d.N * (double)d.S;
  bool training = ml_attr_int(ctx->attrs, "training_mode", 0) != 0;
  if (dy->count != x->count) return ml_fail(err, ML_INVALID_ARGUMENT, "dY has %zu elements, X %zu", dy->count, x->count);
  for (int32_t i = 2; i < 5; i++) ML_TRY(ml__check_channel_count(ctx->in[i], d.C, names[i], err));
  if (training) ml__channel_moments(x, mean, inv);
  for (size_t c = 0; c < d.C; c++) {
    if (!training) {
      mean[c] = ml_element_get(ctx->in[3]->data, x->dtype, c);
      inv[c] = ml_element_get(ctx->in[4]->data, x->dtype, c);
    }
    inv[c] = 1 / sqrt(inv[c] + eps);
    dot[c] = 0;
  }
  ml__channel_sums(dy, sum);
  ML_SWITCH_FLOAT(x->dtype, {
    const T *v = x->data;
    const T *g = dy->data;
    for (size_t k = 0; k < d.N; k++)
      for (size_t c = 0; c < d.C; c++, v += d.S, g += d.S) {
        double s = 0;
        for (size_t i = 0; i < d.S; i++) s += (double)g[i] * ((double)v[i] - mean[c]);
        dot[c] += s * inv[c];
      }
  })
  for (size_t c = 0; c < d.C; c++) {
    if (dscale) ml_element_set(dscale->data, x->dtype, c, dot[c]);
    if (db) ml_element_set(db->data, x->dtype, c, sum[c]);
  }
  if (!dx || x->count == 0) return ML_OK;
  ML_SWITCH_FLOAT(x->dtype, {
    const T *v = x->data;
    const T *g = dy->data;
    const T *scale = ctx->in[2]->data;
    T *to = dx->data;
    for (size_t k = 0; k < d.N; k++)
      for (size_t c = 0; c < d.C; c++, v += d.S, g += d.S, to += d.S) {
        double f = (double)scale[c] * inv[c];
        double offset = training ? sum[c] / n : 0;
        double slope = training ? dot[c] * inv[c] / n : 0;
        for (size_t i = 0; i < d.S; i++) to[i] = (T)(f * ((double)g[i] - offset - ((double)v[i] - mean[c]) * slope));
      }
  })
  return ML_OK;
}

const ml_op_def ml_op_batch_normalization_grad = {
  .name = "BatchNormalizationGrad", .domain = "mlserve", .since = 1, .min_in = 5, .max_in = 5, .min_out = 1, .max_out = 3,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F }, .formula = "dX = scale r (dY - mean dY - h mean(dY h))",
  .infer = infer, .workspace = workspace, .run = run,
};
