/* Folding and simplifying for a file: what stays is standard ONNX that computes the same. The steps run in turn until none finds anything. */
#include <string.h>
#include "base/cpu.h"
#include "graph/convert.h"
#include "graph/pass.h"
#include "graph/session.h"

enum { MAX_ROUNDS = 16 }; /* each round that changes something removes a node or an operand; a chain may need several */

/* ---------------------------------------------------------------- constants ---- */
static bool same_elements(const ml_value *v, double number) {
  if (!v || !v->init || v->dtype == ML_STRING || v->init->view.count == 0) return false;
  for (size_t i = 0; i < v->init->view.count; i++)
    if (ml_element_get(v->init->view.data, v->dtype, i) != number) return false;
  return true;
}

/* Integers of a constant input; NULL when it is left out or not constant. */
static const int64_t *constant_ints(const ml_node *n, int32_t index, size_t *count) {
  const ml_value *v = index < n->n_in ? n->in[index] : NULL;
  if (!v || !v->init || v->dtype != ML_INT64) return NULL;
  *count = v->init->view.count;
  return v->init->view.data;
}

static bool left_out(const ml_node *n, int32_t index) { return index >= n->n_in || !n->in[index]; }

static bool same_known_shape(const ml_value *a, const ml_value *b) {
  if (a->rank == ML_UNKNOWN || a->rank != b->rank) return false;
  for (int32_t d = 0; d < a->rank; d++)
    if (a->dims[d] == ML_UNKNOWN || a->dims[d] != b->dims[d]) return false;
  return true;
}

/* ---------------------------------------------------------------- nodes that change nothing ---- */
/* Arithmetic with a neutral scalar, which may not be a parameter: one is only by chance what it is. */
static bool is_neutral(const ml_node *n, int32_t index, double number) {
  const ml_value *x = n->in[1 - index], *c = n->in[index];
  return !c->trainable && c->init && c->init->view.count == 1 && x->rank != ML_UNKNOWN && c->rank <= x->rank && same_elements(c, number);
}

static const ml_value *neutral_operand(const ml_node *n) {
  double number = n->op == &ml_op_mul || n->op == &ml_op_div || n->op == &ml_op_pow ? 1 : 0;
  bool commutes = n->op == &ml_op_mul || n->op == &ml_op_add;
  if (is_neutral(n, 1, number)) return n->in[0];
  return commutes && is_neutral(n, 0, number) ? n->in[1] : NULL;
}

static bool is_idle_transpose(const ml_node *n) {
  const ml_attr *perm = ml_attr_find(&n->attrs, "perm");
  if (!perm) return n->in[0]->rank == 0 || n->in[0]->rank == 1;
  for (size_t i = 0; i < perm->count; i++)
    if (perm->as.ints[i] != (int64_t)i) return false;
  return true;
}

/* The wanted shape is the one there is: each size given, or copied by 0, but for one -1. */
static bool is_idle_reshape(const ml_node *n) {
  const ml_value *x = n->in[0];
  size_t count = 0, open = 0;
  const int64_t *shape = constant_ints(n, 1, &count);
  if (same_known_shape(x, n->out[0])) return true;
  if (!shape || x->rank < 0 || count != (size_t)x->rank) return false;
  bool zero_is_size = ml_attr_int(&n->attrs, "allowzero", 0) != 0;
  for (size_t d = 0; d < count; d++) {
    if (shape[d] == 0 && !zero_is_size) continue;
    if (shape[d] == -1) open++;
    else if (shape[d] != x->dims[d]) return false;
  }
  return open <= 1;
}

static bool is_idle_slice(const ml_node *n) {
  size_t n_starts = 0, n_ends = 0, n_steps = 0;
  const int64_t *starts = constant_ints(n, 1, &n_starts), *ends = constant_ints(n, 2, &n_ends), *steps = NULL;
  if (!left_out(n, 4) && !(steps = constant_ints(n, 4, &n_steps))) return false;
  for (size_t i = 0; steps && i < n_steps; i++)
    if (steps[i] != 1) return false;
  if (same_known_shape(n->in[0], n->out[0])) return true;
  if (!starts || !ends) return false;
  for (size_t i = 0; i < n_starts && i < n_ends; i++)
    if (starts[i] != 0 || ends[i] < INT32_MAX) return false; /* exporters say "to the end" by the largest int32 or int64 */
  return true;
}

static bool is_off(const ml_node *n, int32_t index) {
  return left_out(n, index) || (n->in[index]->dtype == ML_BOOL && same_elements(n->in[index], 0));
}

static bool is_idle_dropout(const ml_node *n) { return !(n->n_out > 1 && n->out[1]) && is_off(n, 2); }

/* The value that the node's output equals, or NULL. */
static const ml_value *unchanged(const ml_node *n) {
  const ml_op_def *op = n->op;
  if (n->n_in < 1 || n->n_out < 1 || !n->in[0] || !n->out[0]) return NULL;
  const ml_value *x = n->in[0];
  bool idle = false;
  if (op == &ml_op_identity) idle = true;
  else if (op == &ml_op_cast) idle = x->dtype && x->dtype == n->out[0]->dtype;
  else if (op == &ml_op_dropout) idle = is_idle_dropout(n);
  else if (op == &ml_op_transpose) idle = is_idle_transpose(n);
  else if (op == &ml_op_reshape) idle = is_idle_reshape(n);
  else if (op == &ml_op_slice) idle = is_idle_slice(n);
  else if (op == &ml_op_flatten || op == &ml_op_squeeze || op == &ml_op_unsqueeze || op == &ml_op_expand || op == &ml_op_tile)
    idle = same_known_shape(x, n->out[0]);
  else if (op == &ml_op_pad) idle = n->n_in > 1 && same_elements(n->in[1], 0);
  else if (op == &ml_op_clip) idle = left_out(n, 1) && left_out(n, 2);
  else if (op == &ml_op_concat || op == &ml_op_sum || op == &ml_op_max || op == &ml_op_min || op == &ml_op_mean) idle = n->n_in == 1;
  else if (op == &ml_op_add || op == &ml_op_sub || op == &ml_op_mul || op == &ml_op_div || op == &ml_op_pow) return neutral_operand(n);
  return idle ? x : NULL;
}

bool ml__simplify_bypass(ml_graph *g, ml_node *node, ml_value *same) {
  ml_value *out = node->out[0];
  if (!out->is_output) {
    ml_graph_replace(g, out, same, false);
    return true;
  }
  ml_node *producer = same->producer;
  if (!producer || same->is_output || producer == node) return false;
  int32_t k = 0;
  while (producer->out[k] != same) k++;
  ml_graph_replace(g, same, out, false);
  producer->out[k] = out;
  out->producer = producer;
  same->producer = NULL;
  node->out[0] = NULL; /* nobody's now, so prune takes the node */
  return true;
}

/* ---------------------------------------------------------------- two that are one ---- */
static ml_status merge_transposes(ml_graph *g, ml_node *n, bool *changed, ml_error *err) {
  const ml_node *first = n->in[0]->producer;
  int64_t perm[ML_MAX_RANK];
  if (!first || first->op != &ml_op_transpose || first->in[0]->rank == ML_UNKNOWN) return ML_OK;
  const ml_attr *a = ml_attr_find(&first->attrs, "perm"), *b = ml_attr_find(&n->attrs, "perm");
  int32_t rank = first->in[0]->rank;
  for (int32_t i = 0; i < rank; i++) {
    int64_t at = b ? b->as.ints[i] : rank - 1 - i;
    perm[i] = a ? a->as.ints[at] : rank - 1 - at;
  }
  ml_attr attr = ml_attr_of_ints("perm", perm, (size_t)rank);
  ml_value *in = first->in[0];
  *changed = true;
  return ml_graph_become(g, n, &ml_op_transpose, &attr, 1, 1, &in, err);
}

/* Reshape cares only for the number and order of elements, unless it copies dimensions by 0. */
static void merge_reshapes(ml_node *n, bool *changed) {
  const ml_node *first = n->in[0]->producer;
  size_t count = 0;
  const int64_t *shape = constant_ints(n, 1, &count);
  if (!first || !shape) return;
  if (first->op != &ml_op_reshape && first->op != &ml_op_flatten && first->op != &ml_op_squeeze && first->op != &ml_op_unsqueeze) return;
  for (size_t i = 0; i < count; i++)
    if (shape[i] == 0) return;
  n->in[0] = first->in[0];
  *changed = true;
}

ml_status ml__simplify_noops(ml_graph *g, bool *changed, ml_error *err) {
  for (size_t i = 0; i < g->n_nodes; i++) {
    ml_node *n = g->nodes[i];
    const ml_value *same = unchanged(n);
    if (same) *changed = ml__simplify_bypass(g, n, (ml_value *)(uintptr_t)same) || *changed;
    else if (n->op == &ml_op_transpose) ML_TRY(merge_transposes(g, n, changed, err));
    else if (n->op == &ml_op_reshape) merge_reshapes(n, changed);
  }
  return ml_graph_prune(g, err);
}

/* ---------------------------------------------------------------- all ---- */
static bool keep_small(const ml_node *node) { return node->op == &ml_op_dequantize_linear; }

/* Bounds of Range that are lists of one element: runtimes let that pass at run time, but not where they know the shape. */
static ml_status scalar_bounds(ml_graph *g, ml_node *n, ml_error *err) {
  for (int32_t k = 0; k < n->n_in; k++) {
    ml_value *v = n->in[k];
    if (!v || v->rank != 1 || v->dims[0] != 1) continue;
    if (!v->init) {
      size_t at = ml_graph_node_index(g, n);
      ML_TRY(ml_graph_node(g, &ml_op_squeeze, NULL, NULL, 0, 1, &v, 1, NULL, &n->in[k], err));
      ml_graph_move_last(g, at);
      continue;
    }
    ml_tensor *scalar;
    ML_TRY(ml_tensor_reshape(v->init, NULL, 0, &scalar, err));
    ml_status status = ml_graph_initializer(g, NULL, scalar, false, &n->in[k], err);
    ml_tensor_release(scalar);
    ML_TRY(status);
  }
  return ML_OK;
}

/* One budget for all rounds: as in a program, constants may take half of the machine's memory. */
static ml_status fold(ml_graph *g, ml__budget *budget, ml_error *err) {
  const ml_compile_options options = {.level = ML_LEVEL_EXACT, .budget = budget};
  ML_TRY(ml__fold(g, &options, keep_small, err));
  for (size_t i = 0; i < g->n_nodes; i++)
    if (g->nodes[i]->op == &ml_op_range) ML_TRY(scalar_bounds(g, g->nodes[i], err));
  return ML_OK;
}

ml_status ml_graph_fold(ml_graph *g, ml_error *err) {
  ml__budget budget = {.limit = ml_memory_size() / 2};
  return fold(g, &budget, err);
}

ml_status ml_graph_simplify(ml_graph *g, ml_error *err) {
  ml__budget budget = {.limit = ml_memory_size() / 2};
  bool changed = true;
  for (int round = 0; changed && round < MAX_ROUNDS; round++) {
    changed = false;
    size_t before = g->n_nodes;
    ML_TRY(fold(g, &budget, err));
    bool shapes = false, noops = false, fused = false;
    ML_TRY(ml__simplify_shapes(g, &shapes, err));
    ML_TRY(ml__simplify_noops(g, &noops, err));
    ML_TRY(ml__simplify_batch_norm(g, &fused, err));
    changed = shapes || noops || fused || g->n_nodes != before;
  }
  return ML_OK;
}
