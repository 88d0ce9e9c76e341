/* MeanVarianceNormalization 13: Y = (X - mean) / (sqrt(var) + 1e-9), mean and population variance over `axes`.
 * X (any shape) -> Y (shape of X). ONNX operator specification (the 1e-9 is the one of its function body). */
#include <math.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axes", ML_ATTR_INTS, false, "0, 2, 3 (default): dimensions the statistics are taken over" },
  { 0 },
};

static const int64_t usual[3] = { 0, 2, 3 };

static ml_status reduced(const ml_op_ctx *ctx, bool *set, ml_error *err) {
  const ml_attr *axes = ml_attr_find(ctx->attrs, "axes");
  return ml__axes(axes ? axes->as.ints : usual, axes ? axes->count : 3, ctx->in[0]->rank, set, err);
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  bool set[ML_MAX_RANK];
  ML_TRY(ml_op_infer_same(ctx, err));
  return ctx->in[0]->rank == ML_UNKNOWN ? ML_OK : reduced(ctx, set, err);
}

/* number of groups, and for each dimension how far one step moves among them */
static size_t groups_of(const ml_view *x, const bool *set, int64_t *step) {
  size_t groups = 1;
  for (int32_t d = x->rank - 1; d >= 0; d--) {
    step[d] = set[d] ? 0 : (int64_t)groups;
    if (!set[d]) groups *= (size_t)x->dims[d];
  }
  return groups;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  bool set[ML_MAX_RANK];
  int64_t step[ML_MAX_RANK];
  *bytes = 0;
  if (ctx->in[0]->count == 0) return ML_OK;
  ML_TRY(reduced(ctx, set, err));
  size_t groups = groups_of(ctx->in[0], set, step);
  return ml_mul_size(groups, 2 * sizeof(double), bytes) ? ML_OK : ml_fail(err, ML_RESOURCE_EXHAUSTED, "X is too large");
}

/* index and its group become the next element's */
static void next(const ml_view *x, const int64_t *step, int64_t *index, int64_t *group) {
  for (int32_t d = x->rank - 1; d >= 0; d--) {
    *group += step[d];
    if (++index[d] < x->dims[d]) return;
    *group -= step[d] * x->dims[d];
    index[d] = 0;
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  bool set[ML_MAX_RANK];
  int64_t step[ML_MAX_RANK], index[ML_MAX_RANK] = { 0 }, group = 0;
  if (x->count == 0) return ML_OK;
  ML_TRY(reduced(ctx, set, err));
  size_t groups = groups_of(x, set, step);
  double *mean = ctx->workspace, *var = mean + groups, n = (double)(x->count / groups);
  for (size_t i = 0; i < groups; i++) mean[i] = var[i] = 0;
  ML_SWITCH_FLOAT(x->dtype, {
    const T *v = x->data;
    T *y = ctx->out[0]->data;
    for (size_t i = 0; i < x->count; i++, next(x, step, index, &group)) mean[group] += (double)v[i];
    for (size_t i = 0; i < groups; i++) mean[i] /= n;
    for (size_t i = 0; i < x->count; i++, next(x, step, index, &group)) {
      double e = (double)v[i] - mean[group];
      var[group] += e * e;
    }
    for (size_t i = 0; i < groups; i++) var[i] = 1 / (sqrt(var[i] / n) + 1e-9);
    for (size_t i = 0; i < x->count; i++, next(x, step, index, &group)) y[i] = (T)(((double)v[i] - mean[group]) * var[group]);
  })
  return ML_OK;
}

const ml_op_def ml_op_mean_variance_normalization = {
  .name = "MeanVarianceNormalization", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE, .attrs = attrs, .types = { ML_MASK_F }, .formula = "Y = (X - mean) / sqrt(var)", .infer = infer,
  .workspace = workspace, .run = run,
};
