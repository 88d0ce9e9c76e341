/* Reading the nodes_* attributes of TreeEnsembleClassifier and TreeEnsembleRegressor into one list of nodes (contract:
 * ops/trees.h). A node is named by (tree id, node id); the first node of a tree in the file is its root. Names are found in a
 * sorted list. */
#include <stdlib.h>
#include <string.h>
#include "ops/lookup.h"
#include "ops/trees.h"

typedef struct name {
  int64_t tree, node;
  size_t index;
} name;

static int by_name(const void *a, const void *b) {
  const name *x = a, *y = b;
  if (x->tree != y->tree) return x->tree < y->tree ? -1 : 1;
  if (x->node != y->node) return x->node < y->node ? -1 : 1;
  return x->index < y->index ? -1 : x->index > y->index;
}

/* Position in the list of nodes, or SIZE_MAX. */
static size_t find(const name *names, size_t n, int64_t tree, int64_t node) {
  size_t low = 0, high = n;
  while (low < high) {
    size_t mid = low + (high - low) / 2;
    if (names[mid].tree < tree || (names[mid].tree == tree && names[mid].node < node)) low = mid + 1;
    else high = mid;
  }
  return low < n && names[low].tree == tree && names[low].node == node ? names[low].index : SIZE_MAX;
}

/* A list of ints that must have `count` values (SIZE_MAX: any number); absent is an error unless optional. */
static ml_status ints(const ml_attrs *attrs, const char *name_, size_t count, bool optional, const int64_t **out, size_t *n,
                      ml_error *err) {
  ml_view v = { 0 };
  *out = NULL;
  bool given = ml__attr_list(attrs, name_, &v) && v.count > 0;
  if (!given && optional) return ML_OK;
  if (!given && count != 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s is missing", name_);
  if (count != SIZE_MAX && v.count != count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s has %zu values, expected %zu", name_, v.count, count);
  *out = v.data;
  if (n) *n = v.count;
  return ML_OK;
}

ml_status ml__float_list(const ml_attrs *attrs, const char *name_, ml_view *out, ml_error *err) {
  char tensor[64];
  ml_view v = { 0 };
  size_t n = strlen(name_);
  memcpy(tensor, name_, n);
  memcpy(tensor + n, "_as_tensor", sizeof "_as_tensor");
  *out = (ml_view) { .dtype = ML_FLOAT32 };
  bool list = ml__attr_list(attrs, name_, out) && out->count > 0;
  if (!ml__attr_list(attrs, tensor, &v) || v.count == 0) return ML_OK;
  if (list) return ml_fail(err, ML_INVALID_ARGUMENT, "attributes %s and %s are both given, expected one", name_, tensor);
  if (v.dtype != ML_FLOAT32 && v.dtype != ML_FLOAT64)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s is %s, expected float32 or float64", tensor, ml_dtype_name(v.dtype));
  *out = v;
  return ML_OK;
}

static bool mode_of(ml_str s, ml__tree_mode *out) {
  static const struct { const char *text; ml__tree_mode mode; } modes[] = {
    { "LEAF", ML__TREE_LEAF }, { "BRANCH_LEQ", ML__TREE_LEQ }, { "BRANCH_LT", ML__TREE_LT }, { "BRANCH_GTE", ML__TREE_GTE },
    { "BRANCH_GT", ML__TREE_GT }, { "BRANCH_EQ", ML__TREE_EQ }, { "BRANCH_NEQ", ML__TREE_NEQ },
  };
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
    if (s.length == strlen(modes[i].text) && memcmp(s.bytes, modes[i].text, s.length) == 0) {
      *out = modes[i].mode;
      return true;
    }
  return false;
}

typedef struct source {
  const int64_t *trees, *ids, *features, *yes, *no, *missing;
  const ml_str *modes;
  ml_view values;
  const int64_t *vote_trees, *vote_nodes, *vote_ids;
  ml_view weights;
  size_t n, n_votes, n_targets;
  char vote_names[3][32];                 /* attributes of the votes, for messages */
} source;

static ml_status take_attributes(source *s, const ml_attrs *attrs, const char *prefix, ml_error *err) {
  ml_view modes = { 0 };
  static const char *const parts[3] = { "_treeids", "_nodeids", "_ids" };
  char weights[32];
  for (size_t i = 0; i < 3; i++) {
    memcpy(s->vote_names[i], prefix, strlen(prefix));
    memcpy(s->vote_names[i] + strlen(prefix), parts[i], strlen(parts[i]) + 1);
  }
  memcpy(weights, prefix, strlen(prefix));
  memcpy(weights + strlen(prefix), "_weights", sizeof "_weights");
  ML_TRY(ints(attrs, "nodes_treeids", SIZE_MAX, false, &s->trees, &s->n, err));
  ML_TRY(ints(attrs, "nodes_nodeids", s->n, false, &s->ids, NULL, err));
  ML_TRY(ints(attrs, "nodes_featureids", s->n, false, &s->features, NULL, err));
  ML_TRY(ints(attrs, "nodes_truenodeids", s->n, false, &s->yes, NULL, err));
  ML_TRY(ints(attrs, "nodes_falsenodeids", s->n, false, &s->no, NULL, err));
  ML_TRY(ints(attrs, "nodes_missing_value_tracks_true", s->n, true, &s->missing, NULL, err));
  if (!ml__attr_list(attrs, "nodes_modes", &modes) || modes.count != s->n)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute nodes_modes has %zu values, expected %zu", modes.count, s->n);
  s->modes = modes.data;
  ML_TRY(ml__float_list(attrs, "nodes_values", &s->values, err));
  if (s->values.count != s->n)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute nodes_values has %zu values, expected %zu", s->values.count, s->n);
  ML_TRY(ints(attrs, s->vote_names[0], SIZE_MAX, true, &s->vote_trees, &s->n_votes, err));
  ML_TRY(ints(attrs, s->vote_names[1], s->n_votes, false, &s->vote_nodes, NULL, err));
  ML_TRY(ints(attrs, s->vote_names[2], s->n_votes, false, &s->vote_ids, NULL, err));
  ML_TRY(ml__float_list(attrs, weights, &s->weights, err));
  if (s->weights.count != s->n_votes)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s has %zu values, expected %zu", weights, s->weights.count, s->n_votes);
  return ML_OK;
}

static ml_status child(const source *s, const name *names, size_t i, const int64_t *ids, const char *what, size_t *out,
                       ml_error *err) {
  *out = find(names, s->n, s->trees[i], ids[i]);
  if (*out != SIZE_MAX) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s[%zu]: tree %lld has no node %lld", what, i, (long long)s->trees[i],
                 (long long)ids[i]);
}

static ml_status fill(const source *s, ml__tree_node *nodes, size_t *roots, ml__tree_vote *votes, name *names, size_t *n_roots,
                      ml_error *err) {
  for (size_t i = 0; i < s->n; i++) names[i] = (name) { s->trees[i], s->ids[i], i };
  qsort(names, s->n, sizeof *names, by_name);
  for (size_t i = 1; i < s->n; i++)
    if (names[i].tree == names[i - 1].tree && names[i].node == names[i - 1].node)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute nodes_nodeids[%zu]: tree %lld has a node %lld already", names[i].index,
                     (long long)names[i].tree, (long long)names[i].node);
  for (size_t i = 0; i < s->n; i++) {
    ml__tree_node *n = &nodes[i];
    *n = (ml__tree_node) { .split = ml_element_get(s->values.data, s->values.dtype, i), .feature = s->features[i],
                           .missing_yes = s->missing && s->missing[i] == 1 };
    if (!mode_of(s->modes[i], &n->mode))
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute nodes_modes[%zu]: unknown mode '%.*s'", i,
                     s->modes[i].length > 40 ? 40 : (int)s->modes[i].length, s->modes[i].bytes);
    if (n->mode == ML__TREE_LEAF) continue;
    if (n->feature < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute nodes_featureids[%zu] is %lld", i, (long long)n->feature);
    ML_TRY(child(s, names, i, s->yes, "nodes_truenodeids", &n->yes, err));
    ML_TRY(child(s, names, i, s->no, "nodes_falsenodeids", &n->no, err));
  }
  for (size_t i = 0; i < s->n_votes; i++) { /* first their number, then their place: votes of a leaf keep their order */
    size_t at = find(names, s->n, s->vote_trees[i], s->vote_nodes[i]);
    if (at == SIZE_MAX)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s[%zu]: tree %lld has no node %lld", s->vote_names[1], i,
                     (long long)s->vote_trees[i], (long long)s->vote_nodes[i]);
    if (s->vote_ids[i] < 0 || (uint64_t)s->vote_ids[i] >= s->n_targets)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s[%zu] is %lld, expected 0 to %zu", s->vote_names[2], i,
                     (long long)s->vote_ids[i], s->n_targets - 1);
    if (nodes[at].mode == ML__TREE_LEAF) nodes[at].count++;
  }
  size_t used = 0;
  for (size_t i = 0; i < s->n; i++) {
    nodes[i].first = used;
    if (nodes[i].mode == ML__TREE_LEAF) used += nodes[i].count;
    nodes[i].count = 0;
  }
  for (size_t i = 0; i < s->n_votes; i++) { /* a vote at a branch counts for nothing */
    ml__tree_node *n = &nodes[find(names, s->n, s->vote_trees[i], s->vote_nodes[i])];
    if (n->mode != ML__TREE_LEAF) continue;
    votes[n->first + n->count++] =
        (ml__tree_vote) { ml_element_get(s->weights.data, s->weights.dtype, i), (size_t)s->vote_ids[i] };
  }
  *n_roots = 0; /* trees in the order in which they appear: the first of a tree's nodes is its root */
  for (size_t i = 0; i < s->n;) {
    size_t end = i, first = SIZE_MAX;
    for (; end < s->n && names[end].tree == names[i].tree; end++) if (names[end].index < first) first = names[end].index;
    roots[(*n_roots)++] = first;
    i = end;
  }
  return ML_OK;
}

static int by_index(const void *a, const void *b) {
  const size_t *x = a, *y = b;
  return *x < *y ? -1 : *x > *y;
}

void ml__tree_read_free(ml__tree_read *read) {
  ml_free(read->memory);
  read->memory = NULL;
}

ml_status ml__tree_read_nodes(const ml_attrs *attrs, const char *prefix, size_t n_targets, ml_dtype x, ml__tree_read *out,
                              ml_error *err) {
  source s = { .n_targets = n_targets };
  *out = (ml__tree_read) { .memory = NULL };
  ML_TRY(take_attributes(&s, attrs, prefix, err));
  size_t a, b, c, d, total;
  if (!ml_mul_size(s.n + 1, sizeof(ml__tree_node), &a) || !ml_mul_size(s.n_votes + 1, sizeof(ml__tree_vote), &b) ||
      !ml_mul_size(s.n + 1, sizeof(name), &c) || !ml_mul_size(s.n + 1, sizeof(size_t), &d) || !ml_add_size(a, b, &total) ||
      !ml_add_size(total, c, &total) || !ml_add_size(total, d, &total))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu nodes are too many", s.n);
  char *memory = ml_alloc(total);
  if (!memory) return ml_fail_memory(err, total, "trees");
  ml__tree_node *nodes = (ml__tree_node *)(void *)memory;
  ml__tree_vote *votes = (ml__tree_vote *)(void *)(memory + a);
  name *names = (name *)(void *)(memory + a + b);
  size_t *roots = (size_t *)(void *)(memory + a + b + c), n_roots = 0;
  ml_status status = fill(&s, nodes, roots, votes, names, &n_roots, err);
  if (status != ML_OK) {
    ml_free(memory);
    return status;
  }
  qsort(roots, n_roots, sizeof *roots, by_index);
  out->memory = memory;
  out->list = (ml__tree_list) { .nodes = nodes, .n_nodes = s.n, .roots = roots, .n_roots = n_roots, .votes = votes,
                                .n_votes = s.n_votes, .n_targets = n_targets, .aggregate = ML__TREE_SUM,
                                .wide = x == ML_FLOAT64 || s.values.dtype == ML_FLOAT64 };
  return ML_OK;
}
