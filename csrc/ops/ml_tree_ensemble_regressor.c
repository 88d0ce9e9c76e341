/* TreeEnsembleRegressor 3 (ai.onnx.ml): y = transform(base + aggregate of the votes of every tree's leaf) per target. X (rows,
 * features) float32/float64/int32/int64 -> Y (rows, n_targets) float32. AVERAGE divides the sum by the number of trees. float64 X
 * (or thresholds given as float64) compares and sums in float64, everything else in float32, as ONNX Runtime does. ONNX operator
 * specification. */
#include "kernels/kernels.h"
#include "ops/class_scores.h"
#include "ops/trees.h"

static const ml_attr_def attrs[] = {
  { "nodes_treeids", ML_ATTR_INTS, false, "tree of each node" },
  { "nodes_nodeids", ML_ATTR_INTS, false, "number of each node within its tree; the first listed is the root" },
  { "nodes_featureids", ML_ATTR_INTS, false, "feature each node tests" },
  { "nodes_modes", ML_ATTR_STRINGS, false, "BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ or LEAF" },
  { "nodes_values", ML_ATTR_FLOATS, false, "thresholds" },
  { "nodes_values_as_tensor", ML_ATTR_TENSOR, false, "thresholds, float64 allowed" },
  { "nodes_truenodeids", ML_ATTR_INTS, false, "next node when the test holds" },
  { "nodes_falsenodeids", ML_ATTR_INTS, false, "next node when it does not" },
  { "nodes_missing_value_tracks_true", ML_ATTR_INTS, false, "1: a NaN takes the true branch; default 0" },
  { "nodes_hitrates", ML_ATTR_FLOATS, false, "popularity of each node; not used" },
  { "nodes_hitrates_as_tensor", ML_ATTR_TENSOR, false, "popularity of each node; not used" },
  { "target_treeids", ML_ATTR_INTS, false, "tree of each vote" },
  { "target_nodeids", ML_ATTR_INTS, false, "leaf of each vote" },
  { "target_ids", ML_ATTR_INTS, false, "target of each vote" },
  { "target_weights", ML_ATTR_FLOATS, false, "weight of each vote" },
  { "target_weights_as_tensor", ML_ATTR_TENSOR, false, "weight of each vote, float64 allowed" },
  { "n_targets", ML_ATTR_INT, false, "1 (default): number of targets" },
  { "aggregate_function", ML_ATTR_STRING, false, "SUM (default), AVERAGE, MIN or MAX of the votes" },
  { "base_values", ML_ATTR_FLOATS, false, "added afterwards: one per target" },
  { "base_values_as_tensor", ML_ATTR_TENSOR, false, "added afterwards, float64 allowed" },
  { "post_transform", ML_ATTR_STRING, false, "NONE (default), SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT" },
  { 0 },
};

typedef struct state {
  ml__trees *trees;
  ml_view base;
  ml__transform transform;
} state;

static ml_status targets_of(const ml_attrs *list, int64_t *out, ml_error *err) {
  *out = ml_attr_int(list, "n_targets", 1);
  if (*out < 1 || *out > ML__MAX_TARGETS)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute n_targets is %lld, expected 1 to %d", (long long)*out, ML__MAX_TARGETS);
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t rows, features, targets;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(targets_of(ctx->attrs, &targets, err));
  ML_TRY(ml__matrix_of(ctx->in[0], &rows, &features, err));
  ml_op_set(ctx->out[0], ML_FLOAT32, (int64_t[]) { rows, targets }, 2);
  return ML_OK;
}

static void release(void *p) {
  state *s = p;
  if (s) ml__trees_free(s->trees);
  ml_free(s);
}

static ml_status aggregate_of(const ml_attrs *list, ml__tree_aggregate *out, ml_error *err) {
  static const char *const names[] = { "AVERAGE", "SUM", "MIN", "MAX" };
  for (size_t i = 0; i < 4; i++)
    if (ml_attr_is(list, "aggregate_function", "SUM", names[i])) {
      *out = (ml__tree_aggregate)i;
      return ML_OK;
    }
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute aggregate_function: expected SUM, AVERAGE, MIN or MAX");
}

static ml_status fill(ml_op_ctx *ctx, state *s, ml_error *err) {
  int64_t targets;
  ml__tree_aggregate aggregate = ML__TREE_SUM;
  ml__tree_read read;
  ML_TRY(targets_of(ctx->attrs, &targets, err));
  ML_TRY(aggregate_of(ctx->attrs, &aggregate, err));
  ML_TRY(ml__transform_of(ctx->attrs, &s->transform, err));
  ML_TRY(ml__float_list(ctx->attrs, "base_values", &s->base, err));
  if (s->base.count != 0 && s->base.count != (size_t)targets)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute base_values has %zu values, expected %lld", s->base.count,
                   (long long)targets);
  ML_TRY(ml__tree_read_nodes(ctx->attrs, "target", (size_t)targets, ctx->in[0]->dtype, &read, err));
  read.list.aggregate = aggregate;
  ml_status status = ml__trees_pack(&read.list, &s->trees, err);
  ml__tree_read_free(&read);
  return status;
}

static ml_status prepare(ml_op_ctx *ctx, void **out, ml_error *err) {
  state *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "trees");
  ml_status status = fill(ctx, s, err);
  if (status == ML_OK) *out = s;
  else release(s);
  return status;
}

/* X as the trees want it and, in float64, the scores: Y holds float32. */
static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  const state *s = ctx->state;
  ML_TRY(ml__matrix_room(ctx->in[0], ml__trees_dtype(s->trees), bytes, err));
  return ml__trees_dtype(s->trees) == ML_FLOAT32 ? ML_OK : ml__room_add(bytes, ctx->out[0]->count, sizeof(double), err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const state *s = ctx->state;
  const ml_view *x = ctx->in[0];
  int64_t rows, features;
  ML_TRY(ml__matrix_of(x, &rows, &features, err));
  if ((size_t)features < ml__trees_features(s->trees))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X has %lld features, the trees need %zu", (long long)features,
                   ml__trees_features(s->trees));
  ml_dtype dtype = ml__trees_dtype(s->trees);
  size_t room = 0, n = ml__trees_targets(s->trees);
  ML_TRY(ml__matrix_room(x, dtype, &room, err));
  float *y = ctx->out[0]->data;
  void *sums = dtype == ML_FLOAT32 ? (void *)y : (char *)ctx->workspace + room;
  const void *values = ml__matrix_as(x, dtype, ctx->workspace);
  ml__trees_run(s->trees, ctx->run->kernels == ml_kernel_table_ref(), values, (size_t)rows, (size_t)features, sums);
  for (size_t r = 0; r < (size_t)rows; r++) {
    for (size_t i = 0; i < n; i++) {
      double base = s->base.count ? ml_element_get(s->base.data, s->base.dtype, i) : 0;
      y[r * n + i] = dtype == ML_FLOAT32 ? y[r * n + i] + (float)base : (float)(((double *)sums)[r * n + i] + base);
    }
    ml__transform_f32(s->transform, y + r * n, n);
  }
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const state *s = ctx->state;
  return s && ctx->out[0]->rank > 0 ? ml__trees_steps(s->trees) * (double)ctx->out[0]->dims[0] : 0;
}

const ml_op_def ml_op_ml_tree_ensemble_regressor = {
  .name = "TreeEnsembleRegressor", .domain = "ai.onnx.ml", .since = 3, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = attrs, .types = { ML__MASK_FEATURE }, .formula = "y = transform(base + aggregate of votes)", .infer = infer,
  .prepare = prepare, .release = release, .workspace = workspace, .run = run, .flops = flops,
};
