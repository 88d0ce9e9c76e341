/* mlserve.GroupNormalizationGrad: with r = 1/sqrt(var + epsilon) and h = (X - mean) r of each group, g = scale dY and means over
 * the group,
 *   dX = r (g - mean g - h mean(g h)),  dscale = sum of dY h,  dbias = sum of dY.
 * dY, X (N,C,D1…), scale (C or num_groups) -> dX (N,C,D1…), dscale, dbias (shape of scale). num_groups 0: one group per channel.
 */
#include "base/thread.h"
#include "ops/group_norm.h"
#include "ops/window.h"

static const ml_attr_def attrs[] = {
  { "epsilon", ML_ATTR_FLOAT, false, "1e-5 (default): added to the variance" },
  { "num_groups", ML_ATTR_INT, false, "0 (default): as many as channels" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *dy = ctx->in[0], *x = ctx->in[1];
  if (dy->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dY is %s, X is %s", ml_dtype_name(dy->dtype), ml_dtype_name(x->dtype));
  ML_TRY(ml__group_norm_check(x, ctx->in[2], NULL, ml_attr_int(ctx->attrs, "num_groups", 0), err));
  if (ml__out(ctx, 0)) ml_op_like(ctx->out[0], x);
  for (int32_t i = 1; i < 3; i++)
    if (ml__out(ctx, i)) ml_op_like(ctx->out[i], ctx->in[2]);
  return ML_OK;
}

typedef struct job {
  const ml_op_ctx *ctx;
  ml__group_norm n;
  double epsilon;
  size_t chunks;
} job;

/* A chunk owns whole groups over all images, so the sums over images need no second step. */
static void chunk(void *context, size_t index) {
  const job *j = context;
  const ml__group_norm *n = &j->n;
  const ml_op_ctx *ctx = j->ctx;
  const ml_view *x = ctx->in[1];
  ml_view *dx = ml__out(ctx, 0), *dscale = ml__out(ctx, 1), *dbias = ml__out(ctx, 2);
  size_t first, end, block = n->C * n->S;
  ml__unit_range(n->G, j->chunks, index, &first, &end);
  for (size_t group = first; group < end; group++) {
    ML_SWITCH_FLOAT(x->dtype, {
      const T *scale = ctx->in[2]->data;
      for (size_t c = 0; c < n->C; c++) {
        size_t at = n->per_group ? group : group * n->C + c;
        if (dscale) ((T *)dscale->data)[at] = 0;
        if (dbias) ((T *)dbias->data)[at] = 0;
      }
      for (size_t image = 0; image < n->N; image++) {
        const size_t start = (image * n->G + group) * block;
        const T *v = (const T *)x->data + start;
        const T *g = (const T *)ctx->in[0]->data + start;
        double mean;
        double inverse;
        double sum_g = 0;
        double sum_gh = 0;
        ml__group_moments(x->dtype, v, block, j->epsilon, &mean, &inverse);
        for (size_t c = 0; c < n->C; c++) {
          size_t at = n->per_group ? group : group * n->C + c;
          double sum = 0;
          double dot = 0;
          for (size_t i = c * n->S; i < (c + 1) * n->S; i++) {
            sum += (double)g[i];
            dot += (double)g[i] * ((double)v[i] - mean);
          }
          dot *= inverse;
          sum_g += (double)scale[at] * sum;
          sum_gh += (double)scale[at] * dot;
          if (dscale) ((T *)dscale->data)[at] += (T)dot;
          if (dbias) ((T *)dbias->data)[at] += (T)sum;
        }
        sum_g /= (double)block;
        sum_gh /= (double)block;
        for (size_t i = 0; dx && i < block; i++) {
          double f = (double)scale[n->per_group ? group : group * n->C + i / n->S];
          ((T *)dx->data)[start + i] = (T)(inverse * (f * (double)g[i] - sum_g - ((double)v[i] - mean) * inverse * sum_gh));
        }
      }
    })
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *dy = ctx->in[0], *x = ctx->in[1];
  job j = { .ctx = ctx, .epsilon = (double)ml_attr_float(ctx->attrs, "epsilon", 1e-5f) };
  if (dy->count != x->count) return ml_fail(err, ML_INVALID_ARGUMENT, "dY has %zu elements, X %zu", dy->count, x->count);
  ML_TRY(ml__group_norm_init(&j.n, x, ctx->in[2], NULL, ml_attr_int(ctx->attrs, "num_groups", 0), err));
  if (j.n.G == 0) return ML_OK;
  if (x->count == 0) j.n.N = 0; /* sums over nothing */
  j.chunks = ml__unit_chunks(j.n.G, 32 * (double)j.n.N * (double)j.n.C * (double)j.n.S, 64);
  if (j.chunks == 1) chunk(&j, 0);
  else ml_parallel(j.chunks, chunk, &j);
  return ML_OK;
}

const ml_op_def ml_op_group_normalization_grad = {
  .name = "GroupNormalizationGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 3,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F }, .formula = "dX = r (g - mean g - h mean(g h)), g = scale dY",
  .infer = infer,
  .run = run,
};
