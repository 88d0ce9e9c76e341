/* BatchNormalization after a product with constant weights (Conv, ConvTranspose, Gemm) is a product with other weights:
 * s = scale / sqrt(var + epsilon) per output channel; W' = W s, B' = (B - mean) s + shift. Computed in double, rounded once. */
#include <math.h>
#include <string.h>
#include "graph/convert.h"

typedef struct layout { /* weights as [outer][channels][inner]; `groups` blocks of outer have channels of their own */
  size_t outer, channels, inner, groups;
} layout;

static bool layout_of(const ml_node *n, layout *out) {
  const ml_value *w = n->in[1];
  size_t count = w->init->view.count;
  if (count == 0 || w->rank < 2) return false;
  if (n->op == &ml_op_conv) {
    *out = (layout){1, (size_t)w->dims[0], count / (size_t)w->dims[0], 1};
    return true;
  }
  if (n->op == &ml_op_gemm) {
    if (ml_attr_float(&n->attrs, "alpha", 1) != 1.0f || ml_attr_float(&n->attrs, "beta", 1) != 1.0f || w->rank != 2) return false;
    size_t rows = (size_t)w->dims[0], columns = (size_t)w->dims[1];
    *out = ml_attr_int(&n->attrs, "transB", 0) ? (layout){1, rows, columns, 1} : (layout){rows, columns, 1, 1};
    return true;
  }
  if (n->op != &ml_op_conv_transpose) return false;
  size_t in = (size_t)w->dims[0], channels = (size_t)w->dims[1];
  int64_t groups = ml_attr_int(&n->attrs, "group", 1);
  if (groups < 1 || in % (size_t)groups != 0) return false;
  *out = (layout){in, channels, count / in / channels, (size_t)groups};
  return true;
}

static bool is_vector(const ml_value *v, ml_dtype dtype, size_t n) {
  return v && v->init && v->dtype == dtype && v->rank == 1 && v->init->view.count == n;
}

/* uses: of the first n_values values; what was made since waits for the next round. */
static bool matches(const ml_node *bn, const uint32_t *uses, size_t n_values, layout *l) {
  if (bn->op != &ml_op_batch_normalization || ml_attr_int(&bn->attrs, "training_mode", 0) || !bn->out[0]) return false;
  for (int32_t k = 1; k < bn->n_out; k++)
    if (bn->out[k]) return false;
  const ml_node *n = bn->in[0]->producer;
  if (!n || (n->op != &ml_op_conv && n->op != &ml_op_conv_transpose && n->op != &ml_op_gemm)) return false;
  const ml_value *w = n->in[1], *b = n->n_in > 2 ? n->in[2] : NULL;
  if (w->id >= n_values || (b && b->id >= n_values)) return false;
  if (uses[bn->in[0]->id] != 1 || !w->init || (w->dtype != ML_FLOAT32 && w->dtype != ML_FLOAT64) || !layout_of(n, l)) return false;
  size_t channels = l->channels * l->groups;
  for (int32_t k = 1; k < 5; k++)
    if (!is_vector(bn->in[k], w->dtype, channels)) return false;
  return !b || is_vector(b, w->dtype, channels);
}

static double at(const ml_value *v, size_t i) { return ml_element_get(v->init->view.data, v->dtype, i); }

static ml_status scaled(const ml_node *bn, const layout *l, const double *s, ml_tensor **weights, ml_tensor **bias, ml_error *err) {
  const ml_node *n = bn->in[0]->producer;
  const ml_value *w = n->in[1], *b = n->n_in > 2 ? n->in[2] : NULL;
  int64_t channels = (int64_t)(l->channels * l->groups);
  ML_TRY(ml_tensor_new(w->dtype, w->dims, w->rank, weights, err));
  ML_TRY(ml_tensor_new(w->dtype, &channels, 1, bias, err));
  for (size_t a = 0, i = 0; a < l->outer; a++)
    for (size_t c = 0; c < l->channels; c++)
      for (size_t k = 0; k < l->inner; k++, i++)
        ml_element_set((*weights)->view.data, w->dtype, i, at(w, i) * s[a / (l->outer / l->groups) * l->channels + c]);
  for (size_t c = 0; c < (size_t)channels; c++)
    ml_element_set((*bias)->view.data, w->dtype, c, ((b ? at(b, c) : 0) - at(bn->in[3], c)) * s[c] + at(bn->in[2], c));
  return ML_OK;
}

/* The tensor under the value's name when nobody else reads it, else under a new one. */
static ml_status put(ml_graph *g, ml_value *old, bool reuse, ml_tensor *tensor, ml_value **out, ml_error *err) {
  *out = old;
  if (reuse) return ml_graph_set_initializer(g, old, tensor, err);
  const char *name = ml_arena_printf(g->arena, "%s_folded", old->name);
  if (!name) return ml_fail_memory(err, 1, "a name");
  return ml_graph_initializer(g, ml_graph_find(g, name) ? NULL : name, tensor, old->trainable, out, err);
}

static ml_status fuse(ml_graph *g, ml_node *bn, const layout *l, const uint32_t *uses, ml_error *err) {
  ml_node *n = bn->in[0]->producer;
  size_t channels = l->channels * l->groups;
  double epsilon = (double)ml_attr_float(&bn->attrs, "epsilon", 1e-5f), *s = ml_alloc(channels * sizeof *s);
  if (!s) return ml_fail_memory(err, channels * sizeof *s, "a fused normalisation");
  for (size_t c = 0; c < channels; c++) s[c] = at(bn->in[1], c) / sqrt(at(bn->in[4], c) + epsilon);
  ml_tensor *weights = NULL, *bias = NULL;
  ml_value *in[3] = {n->in[0]}, *old = n->n_in > 2 && n->in[2] ? n->in[2] : bn->in[2]; /* without a bias the shift becomes one */
  ml_status status = scaled(bn, l, s, &weights, &bias, err);
  if (status == ML_OK) status = put(g, n->in[1], uses[n->in[1]->id] == 1, weights, &in[1], err);
  if (status == ML_OK) status = put(g, old, uses[old->id] == 1, bias, &in[2], err);
  if (status == ML_OK) status = ml_graph_become(g, n, n->op, n->attrs.items, n->attrs.count, 3, in, err);
  ml_tensor_release(weights);
  ml_tensor_release(bias);
  ml_free(s);
  return status;
}

ml_status ml__simplify_batch_norm(ml_graph *g, bool *changed, ml_error *err) {
  uint32_t *uses;
  ML_TRY(ml_graph_uses(g, &uses, err));
  ml_status status = ML_OK;
  size_t n_values = g->n_values;
  for (size_t i = 0; i < g->n_nodes && status == ML_OK; i++) {
    ml_node *bn = g->nodes[i];
    layout l;
    if (!matches(bn, uses, n_values, &l)) continue;
    status = fuse(g, bn, &l, uses, err);
    if (status == ML_OK) *changed = ml__simplify_bypass(g, bn, bn->in[0]) || *changed;
  }
  ml_free(uses);
  ML_TRY(status);
  return ml_graph_prune(g, err);
}
