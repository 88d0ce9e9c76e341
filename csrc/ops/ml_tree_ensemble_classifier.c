/* TreeEnsembleClassifier 3 (ai.onnx.ml): every tree's leaf votes for classes; scores = transform(base + sum of votes), label =
 * the class with the highest score. X (rows, features) float32/float64/int32/int64 -> labels Y (rows), scores Z (rows, classes)
 * float32. ONNX operator specification, with ONNX Runtime's reading where that is silent:
 * - float64 X (or thresholds given as float64) compares in float64, everything else in float32.
 * - Two labels and votes for one class only (what converters write for binary models) is a single score s for the second label:
 *   with no negative weight it is a probability, s > 0.5 wins and the scores are (1 - s, s); otherwise s > 0 wins and the scores
 *   are (-s, s). LOGISTIC makes them the logistic of (-s, s). Votes for class 1 alone give (0, s) instead.
 * - A class that no leaf voted for in a row cannot win it unless there are base values.
 * Departures: with votes for both of two classes the highest score wins (ONNX Runtime answers 1 or 0, which need not be labels);
 * base values count for every class; one label is always the answer. */
#include <string.h>
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
  { "class_treeids", ML_ATTR_INTS, false, "tree of each vote" },
  { "class_nodeids", ML_ATTR_INTS, false, "leaf of each vote" },
  { "class_ids", ML_ATTR_INTS, false, "class of each vote: a position among the labels" },
  { "class_weights", ML_ATTR_FLOATS, false, "weight of each vote" },
  { "class_weights_as_tensor", ML_ATTR_TENSOR, false, "weight of each vote, float64 allowed" },
  { "classlabels_int64s", ML_ATTR_INTS, false, "labels, one of the classlabels_* attributes" },
  { "classlabels_strings", ML_ATTR_STRINGS, false, "labels" },
  { "base_values", ML_ATTR_FLOATS, false, "added to the sums: one per class, or one for a binary model" },
  { "base_values_as_tensor", ML_ATTR_TENSOR, false, "added to the sums, float64 allowed" },
  { "post_transform", ML_ATTR_STRING, false, "NONE (default), SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT" },
  { 0 },
};

typedef struct state {
  ml__trees *trees;
  ml_view labels, base;
  ml__transform transform;
  bool binary;                  /* two labels, votes for one */
  bool first_only;              /* … which is class 0 */
  bool positive;                /* no weight is negative */
} state;

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_view labels = { 0 };
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__labels_of(ctx->attrs, "classlabels_int64s", "classlabels_strings", &labels, err));
  return ml__infer_classifier(ctx, &labels, (int64_t)labels.count, err);
}

static void release(void *p) {
  state *s = p;
  if (s) ml__trees_free(s->trees);
  ml_free(s);
}

/* A binary model's votes all go to one target. */
static void look_at_votes(state *s, ml__tree_read *read) {
  ml__tree_vote *votes = (ml__tree_vote *)(uintptr_t)read->list.votes;
  s->positive = true;
  s->binary = s->labels.count == 2;
  for (size_t i = 0; i < read->list.n_votes; i++) {
    s->positive = s->positive && !(votes[i].weight < 0);
    s->binary = s->binary && votes[i].target == votes[0].target;
  }
  s->first_only = read->list.n_votes == 0 || votes[0].target == 0;
  if (!s->binary) return;
  for (size_t i = 0; i < read->list.n_votes; i++) votes[i].target = 0;
  read->list.n_targets = 1;
}

static ml_status fill(ml_op_ctx *ctx, state *s, ml_error *err) {
  ml__tree_read read;
  ML_TRY(ml__labels_of(ctx->attrs, "classlabels_int64s", "classlabels_strings", &s->labels, err));
  ML_TRY(ml__transform_of(ctx->attrs, &s->transform, err));
  ML_TRY(ml__float_list(ctx->attrs, "base_values", &s->base, err));
  size_t n = s->labels.count;
  if (s->base.count != 0 && s->base.count != n && !(n == 2 && s->base.count == 1))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute base_values has %zu values, expected %zu", s->base.count, n);
  ML_TRY(ml__tree_read_nodes(ctx->attrs, "class", n, ctx->in[0]->dtype, &read, err));
  look_at_votes(s, &read);
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

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  const state *s = ctx->state;
  int64_t rows, features;
  ML_TRY(ml__matrix_of(ctx->in[0], &rows, &features, err));
  size_t count, targets = ml__trees_targets(s->trees);
  if (!ml_mul_size((size_t)rows, targets, &count)) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%lld rows are too many",
                                                                  (long long)rows);
  ML_TRY(ml__matrix_room(ctx->in[0], ml__trees_dtype(s->trees), bytes, err));
  ML_TRY(ml__room_add(bytes, s->labels.count, sizeof(float), err)); /* a row of scores when Z is not wanted */
  return ml__room_add(bytes, count, ml_dtype_size(ml__trees_dtype(s->trees)), err);
}

/* The one score of a binary model as two; gives the winner. */
static size_t binary_scores(const state *s, double score, float *z) {
  for (size_t i = 0; i < s->base.count; i++) /* of two base values the one that belongs to the votes */
    if (s->base.count == 1 || i == (s->first_only ? 0 : 1)) score += ml_element_get(s->base.data, s->base.dtype, i);
  float v = (float)score;
  size_t winner = s->positive ? v > 0.5f : v > 0;
  if (!s->first_only) {
    z[0] = 0;
    z[1] = v + 0.0f;
    ml__transform_f32(s->transform, z, 2);
  } else if (s->transform == ML__TRANSFORM_PROBIT) {
    ml__transform_f32(s->transform, &v, 1);
    z[0] = z[1] = v;
  } else {
    bool logistic = s->transform == ML__TRANSFORM_LOGISTIC;
    z[0] = s->positive && !logistic ? 1 - v : -v;
    z[1] = v + 0.0f;
    if (logistic) ml__transform_f32(s->transform, z, 2);
  }
  return winner;
}

/* -0.0: nobody voted for the class */
#define VOTED(v) ((v) != 0 || !__builtin_signbit(v))

#define CLASSES(NAME, T)                                                                              \
  static size_t NAME(const state *s, const T *sums, float *z) {                                       \
    size_t n = s->labels.count, winner = SIZE_MAX;                                                    \
    T best = 0;                                                                                       \
    for (size_t i = 0; i < n; i++) {                                                                  \
      bool voted = VOTED(sums[i]) || s->base.count == n;                                              \
      T v = sums[i] + (i < s->base.count ? (T)ml_element_get(s->base.data, s->base.dtype, i) : (T)0); \
      if (voted && (winner == SIZE_MAX || v > best)) {                                                \
        winner = i;                                                                                   \
        best = v;                                                                                     \
      }                                                                                               \
      z[i] = (float)v;                                                                                \
    }                                                                                                 \
    ml__transform_f32(s->transform, z, n);                                                            \
    return winner == SIZE_MAX ? 0 : winner;                                                           \
  }
CLASSES(classes_f32, float)
CLASSES(classes_f64, double)

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const state *s = ctx->state;
  const ml_view *x = ctx->in[0];
  ml_view *y = ml__out(ctx, 0), *z = ml__out(ctx, 1);
  int64_t rows, features;
  ML_TRY(ml__matrix_of(x, &rows, &features, err));
  if ((size_t)features < ml__trees_features(s->trees))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X has %lld features, the trees need %zu", (long long)features,
                   ml__trees_features(s->trees));
  ml_dtype dtype = ml__trees_dtype(s->trees);
  size_t room = 0, n = s->labels.count;
  ML_TRY(ml__matrix_room(x, dtype, &room, err));
  float *unwanted = (float *)(void *)((char *)ctx->workspace + room);
  ML_TRY(ml__room_add(&room, n, sizeof(float), err));
  void *sums = (char *)ctx->workspace + room;
  const void *values = ml__matrix_as(x, dtype, ctx->workspace);
  ml__trees_run(s->trees, ctx->run->kernels == ml_kernel_table_ref(), values, (size_t)rows, (size_t)features, sums);
  for (size_t r = 0; r < (size_t)rows; r++) {
    float *to = z ? (float *)z->data + r * n : unwanted;
    size_t label;
    if (s->binary) label = binary_scores(s, ml_element_get(sums, dtype, r), to);
    else if (dtype == ML_FLOAT32) label = classes_f32(s, (const float *)sums + r * n, to);
    else label = classes_f64(s, (const double *)sums + r * n, to);
    if (y) ml__label_put(&s->labels, label, y, r);
  }
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const state *s = ctx->state;
  const ml_view *out = ctx->out[0] ? ctx->out[0] : ctx->n_out > 1 ? ctx->out[1] : NULL;
  return s && out && out->rank > 0 ? ml__trees_steps(s->trees) * (double)out->dims[0] : 0;
}

const ml_op_def ml_op_ml_tree_ensemble_classifier = {
  .name = "TreeEnsembleClassifier", .domain = "ai.onnx.ml", .since = 3, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 2,
  .attrs = attrs, .types = { ML__MASK_FEATURE }, .formula = "Z = transform(base + sum of votes), Y = label of the highest",
  .infer = infer, .prepare = prepare, .release = release, .workspace = workspace, .run = run, .flops = flops,
};
