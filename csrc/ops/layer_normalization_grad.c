/* mlserve.LayerNormalizationGrad: per row of n normalised elements, with r = 1/sqrt(var + epsilon), h = (X - mean) r and k = dY
 * Scale, dX = r (k - mean(k) - h mean(k h)),  dScale = sum over rows of dY h,  dB = sum over rows of dY. dY, X (D…, n…),
 * Scale (broadcast to (n…)) -> dX (D…, n…), dScale (n…), dB (n…). Ba, Kiros & Hinton 2016. */
#include <string.h>
#include "ops/layer_norm.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "-1 (default): LayerNormalization's" },
  { "epsilon", ML_ATTR_FLOAT, false, "1e-5 (default): LayerNormalization's" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[1];
  int32_t axis = 0;
  if (ctx->in[0]->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dY is %s, X is %s", ml_dtype_name(ctx->in[0]->dtype), ml_dtype_name(x->dtype));
  ML_TRY(ml__check_normalised(ctx, x, ctx->in[2], "Scale", err));
  if (x->rank != ML_UNKNOWN) ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
  if (ml__out(ctx, 0)) ml_op_like(ctx->out[0], x);
  for (int32_t i = 1; i < 3; i++)
    ml_op_set(ml__out(ctx, i), x->dtype, x->dims + axis, x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->rank - axis);
  return ML_OK;
}

/* sums of dScale and dB in double, then room for the spread scale */
static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__rows d;
  ML_TRY(ml__rows_of(ctx, ctx->in[1], &d, err));
  return ml_mul_size(d.n, 3 * sizeof(double), bytes)
             ? ML_OK
             : ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu normalised elements are too many", d.n);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *dy = ctx->in[0], *x = ctx->in[1];
  double eps = (double)ml_attr_float(ctx->attrs, "epsilon", 1e-5f), *sums = ctx->workspace;
  ml__rows d;
  ML_TRY(ml__rows_of(ctx, x, &d, err));
  if (dy->count != x->count) return ml_fail(err, ML_INVALID_ARGUMENT, "dY has %zu elements, X %zu", dy->count, x->count);
  ML_TRY(ml__check_normalised(ctx, x, ctx->in[2], "Scale", err));
  if (d.n == 0) return ML_OK;
  memset(sums, 0, 2 * d.n * sizeof *sums);
  if (x->count > 0) {
    const void *spread = ml__spread(x, &d, ctx->in[2], sums + 2 * d.n);
    ML_SWITCH_FLOAT(x->dtype, {
      const T *scale = spread;
      for (size_t r = 0; r < d.rows; r++) {
        const T *v = (const T *)x->data + r * d.n;
        const T *g = (const T *)dy->data + r * d.n;
        double mean;
        double inv;
        double sum_k = 0;
        double sum_kh = 0;
        ml__row_moments(v, x->dtype, d.n, eps, &mean, &inv);
        for (size_t i = 0; i < d.n; i++) {
          double h = ((double)v[i] - mean) * inv;
          double k = (double)g[i] * (double)scale[i];
          sum_k += k;
          sum_kh += k * h;
          sums[i] += (double)g[i] * h;
          sums[d.n + i] += (double)g[i];
        }
        sum_k /= (double)d.n;
        sum_kh /= (double)d.n;
        T *to = ml__out(ctx, 0) ? (T *)ctx->out[0]->data + r * d.n : NULL;
        for (size_t i = 0; to && i < d.n; i++) {
          double h = ((double)v[i] - mean) * inv;
          to[i] = (T)(inv * ((double)g[i] * (double)scale[i] - sum_k - h * sum_kh));
        }
      }
    })
  }
  for (int32_t k = 1; k < 3; k++)
    if (ml__out(ctx, k)) ml_convert(sums + (size_t)(k - 1) * d.n, ML_FLOAT64, ctx->out[k]->data, x->dtype, d.n);
  return ML_OK;
}

const ml_op_def ml_op_layer_normalization_grad = {
  .name = "LayerNormalizationGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 3,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F }, .formula = "dX = r (k - mean k - h mean(k h)), k = dY Scale",
  .infer = infer, .workspace = workspace, .run = run,
};
