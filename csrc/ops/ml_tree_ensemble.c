/* TreeEnsemble 5 (ai.onnx.ml): y = transform(aggregate of the votes of every tree's leaf) per target. X (rows, features) float32
 * or float64 -> Y (rows, n_targets) of the same type. Branches and leaves are separate lists; a branch's child is a position in
 * one or the other. BRANCH_MEMBER tests membership of a set: the sets lie one after the other in membership_values, a NaN after
 * each. ONNX operator specification. */
#include <math.h>
#include <string.h>
#include "kernels/kernels.h"
#include "ops/class_scores.h"
#include "ops/trees.h"

static const ml_attr_def attrs[] = {
  { "tree_roots", ML_ATTR_INTS, true, "position of each tree's root among the nodes" },
  { "nodes_featureids", ML_ATTR_INTS, true, "feature each node tests" },
  { "nodes_modes", ML_ATTR_TENSOR, true, "uint8: 0 <=, 1 <, 2 >=, 3 >, 4 ==, 5 !=, 6 is a member" },
  { "nodes_splits", ML_ATTR_TENSOR, true, "thresholds, of X's type" },
  { "nodes_truenodeids", ML_ATTR_INTS, true, "next node, or leaf, when the test holds" },
  { "nodes_trueleafs", ML_ATTR_INTS, true, "1: nodes_truenodeids is a leaf" },
  { "nodes_falsenodeids", ML_ATTR_INTS, true, "next node, or leaf, when it does not" },
  { "nodes_falseleafs", ML_ATTR_INTS, true, "1: nodes_falsenodeids is a leaf" },
  { "nodes_missing_value_tracks_true", ML_ATTR_INTS, false, "1: a NaN takes the true branch; default 0" },
  { "nodes_hitrates", ML_ATTR_TENSOR, false, "popularity of each node; not used" },
  { "membership_values", ML_ATTR_TENSOR, false, "sets of the BRANCH_MEMBER nodes, each ended by a NaN" },
  { "leaf_targetids", ML_ATTR_INTS, true, "target of each leaf" },
  { "leaf_weights", ML_ATTR_TENSOR, true, "weight of each leaf" },
  { "n_targets", ML_ATTR_INT, false, "1 (default): number of targets" },
  { "aggregate_function", ML_ATTR_INT, false, "0 average, 1 sum (default), 2 minimum, 3 maximum" },
  { "post_transform", ML_ATTR_INT, false, "0 none (default), 1 softmax, 2 logistic, 3 softmax without zeros, 4 probit" },
  { 0 },
};

static ml_status choice(const ml_attrs *list, const char *name, int64_t fallback, int64_t most, int64_t *out, ml_error *err) {
  *out = ml_attr_int(list, name, fallback);
  if (*out >= 0 && *out <= most) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s is %lld, expected 0 to %lld", name, (long long)*out, (long long)most);
}

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
  ml_op_set(ctx->out[0], ctx->in[0]->dtype, (int64_t[]) { rows, targets }, 2);
  return ML_OK;
}

/* A list or tensor attribute with `count` values; a tensor has to hold numbers. */
static ml_status values(const ml_attrs *list, const char *name, size_t count, ml_view *out, ml_error *err) {
  *out = (ml_view) { .dtype = ML_INT64 };
  (void)ml__attr_list(list, name, out);
  if (out->count != count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s has %zu values, expected %zu", name, out->count, count);
  if (out->dtype == ML_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s holds strings, expected numbers", name);
  return ML_OK;
}

static int64_t int_at(const ml_view *v, size_t i) { return ((const int64_t *)v->data)[i]; }

/* Leaf j is node n + j of the list. */
static ml_status child(const ml_view *ids, const ml_view *leafs, const char *what, size_t i, size_t n, size_t leaves, size_t *out,
                       ml_error *err) {
  int64_t id = int_at(ids, i);
  bool leaf = int_at(leafs, i) != 0;
  if (id < 0 || (uint64_t)id >= (leaf ? leaves : n))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s[%zu] is %lld, but there are %zu %s", what, i, (long long)id,
                   leaf ? leaves : n, leaf ? "leaves" : "nodes");
  *out = leaf ? n + (size_t)id : (size_t)id;
  return ML_OK;
}

typedef struct lists {
  ml_view roots, features, modes, splits, yes, yes_leaf, no, no_leaf, missing, members, targets, weights;
} lists;

static ml_status take(const ml_attrs *list, lists *l, ml_error *err) {
  (void)ml__attr_list(list, "nodes_featureids", &l->features);
  (void)ml__attr_list(list, "leaf_targetids", &l->targets);
  (void)ml__attr_list(list, "tree_roots", &l->roots);
  size_t n = l->features.count, leaves = l->targets.count;
  ML_TRY(values(list, "nodes_modes", n, &l->modes, err));
  ML_TRY(values(list, "nodes_splits", n, &l->splits, err));
  ML_TRY(values(list, "nodes_truenodeids", n, &l->yes, err));
  ML_TRY(values(list, "nodes_trueleafs", n, &l->yes_leaf, err));
  ML_TRY(values(list, "nodes_falsenodeids", n, &l->no, err));
  ML_TRY(values(list, "nodes_falseleafs", n, &l->no_leaf, err));
  ML_TRY(values(list, "leaf_weights", leaves, &l->weights, err));
  if (ml__attr_list(list, "nodes_missing_value_tracks_true", &l->missing) && l->missing.count != 0)
    ML_TRY(values(list, "nodes_missing_value_tracks_true", n, &l->missing, err));
  if (ml__attr_list(list, "membership_values", &l->members)) ML_TRY(values(list, "membership_values", l->members.count,
                                                                           &l->members, err));
  if (l->modes.dtype != ML_UINT8)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute nodes_modes is %s, expected uint8", ml_dtype_name(l->modes.dtype));
  return ML_OK;
}

static ml_status fill(const lists *l, ml__tree_node *nodes, size_t *roots, ml__tree_vote *votes, double *members,
                      size_t n_targets, ml_error *err) {
  size_t n = l->features.count, leaves = l->targets.count, member = 0;
  for (size_t i = 0; i < l->members.count; i++) members[i] = ml_element_get(l->members.data, l->members.dtype, i);
  for (size_t i = 0; i < n; i++) {
    unsigned mode = ((const uint8_t *)l->modes.data)[i];
    if (mode > ML__TREE_MEMBER) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute nodes_modes[%zu] is %u, expected 0 to 6",
                                               i, mode);
    nodes[i] = (ml__tree_node) { .split = ml_element_get(l->splits.data, l->splits.dtype, i), .feature = int_at(&l->features, i),
                                 .mode = (ml__tree_mode)mode, .missing_yes = l->missing.count && int_at(&l->missing, i) == 1 };
    if (nodes[i].feature < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute nodes_featureids[%zu] is %lld", i, (long long)nodes[i].feature);
    ML_TRY(child(&l->yes, &l->yes_leaf, "nodes_truenodeids", i, n, leaves, &nodes[i].yes, err));
    ML_TRY(child(&l->no, &l->no_leaf, "nodes_falsenodeids", i, n, leaves, &nodes[i].no, err));
    if (mode != ML__TREE_MEMBER) continue;
    nodes[i].first = member;
    while (member < l->members.count && !isnan(members[member])) member++;
    if (member == l->members.count && nodes[i].first == member)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute membership_values has no set for node %zu", i);
    nodes[i].count = member - nodes[i].first;
    if (member < l->members.count) member++;
  }
  for (size_t i = 0; i < leaves; i++) {
    int64_t target = int_at(&l->targets, i);
    if (target < 0 || (uint64_t)target >= n_targets)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute leaf_targetids[%zu] is %lld, expected 0 to %zu", i, (long long)target,
                     n_targets - 1);
    nodes[n + i] = (ml__tree_node) { .mode = ML__TREE_LEAF, .first = i, .count = 1 };
    votes[i] = (ml__tree_vote) { ml_element_get(l->weights.data, l->weights.dtype, i), (size_t)target };
  }
  for (size_t i = 0; i < l->roots.count; i++) {
    int64_t root = int_at(&l->roots, i);
    if (root < 0 || (uint64_t)root >= n)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute tree_roots[%zu] is %lld, but there are %zu nodes", i,
                     (long long)root, n);
    roots[i] = (size_t)root;
  }
  return ML_OK;
}

static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  lists l = { 0 };
  int64_t aggregate, transform, targets;
  ml__trees *trees = NULL;
  ML_TRY(targets_of(ctx->attrs, &targets, err));
  ML_TRY(choice(ctx->attrs, "aggregate_function", 1, 3, &aggregate, err));
  ML_TRY(choice(ctx->attrs, "post_transform", 0, 4, &transform, err));
  ML_TRY(take(ctx->attrs, &l, err));
  size_t n = l.features.count, leaves = l.targets.count;
  ml__tree_node *nodes = ml_alloc_zero(n + leaves + 1, sizeof *nodes);
  size_t *roots = ml_alloc_zero(l.roots.count + 1, sizeof *roots);
  ml__tree_vote *votes = ml_alloc_zero(leaves + 1, sizeof *votes);
  double *members = ml_alloc_zero(l.members.count + 1, sizeof *members);
  ml_status status = nodes && roots && votes && members ? fill(&l, nodes, roots, votes, members, (size_t)targets, err)
                                                        : ml_fail_memory(err, (n + leaves) * sizeof *nodes, "trees");
  ml__tree_list list = { .nodes = nodes, .n_nodes = n + leaves, .roots = roots, .n_roots = l.roots.count, .votes = votes,
                         .n_votes = leaves, .members = members, .n_targets = (size_t)targets,
                         .aggregate = (ml__tree_aggregate)aggregate, .wide = ctx->in[0]->dtype == ML_FLOAT64 };
  if (status == ML_OK) status = ml__trees_pack(&list, &trees, err);
  ml_free(nodes);
  ml_free(roots);
  ml_free(votes);
  ml_free(members);
  *state = trees;
  return status;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml__trees *trees = ctx->state;
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  int64_t rows, features;
  ML_TRY(ml__matrix_of(x, &rows, &features, err));
  if ((size_t)features < ml__trees_features(trees))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X has %lld features, the trees need %zu", (long long)features,
                   ml__trees_features(trees));
  ml__trees_run(trees, ctx->run->kernels == ml_kernel_table_ref(), x->data, (size_t)rows, (size_t)features, y->data);
  ml__transform transform = (ml__transform)ml_attr_int(ctx->attrs, "post_transform", 0);
  size_t n = ml__trees_targets(trees);
  for (size_t r = 0; r < (size_t)rows; r++) {
    if (y->dtype == ML_FLOAT64) {
      double *to = (double *)y->data + r * n;
      for (size_t i = 0; i < n; i++) to[i] += 0.0; /* -0.0: no vote */
      ml__transform_f64(transform, to, n);
    } else {
      float *to = (float *)y->data + r * n;
      for (size_t i = 0; i < n; i++) to[i] += 0.0f;
      ml__transform_f32(transform, to, n);
    }
  }
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  return ctx->state && ctx->out[0]->rank > 0 ? ml__trees_steps(ctx->state) * (double)ctx->out[0]->dims[0] : 0;
}

const ml_op_def ml_op_ml_tree_ensemble = {
  .name = "TreeEnsemble", .domain = "ai.onnx.ml", .since = 5, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_WIDEN, .attrs = attrs, .types = { ML_MASK_F }, .formula = "y = transform(aggregate of votes)", .infer = infer, .prepare = prepare,
  .release = ml__trees_free, .run = run, .flops = flops,
};
