/* float32 to float16. Every float32 value of the graph becomes float16, and a node that ONNX defines for float32 only gets Cast nodes
 * around it (users of onnxconverter-common know this as its block list; here the rule is the operator's definition in ONNX up to version
 * 17). A value has a native form, the type in which its producer gives it, and when somebody wants the other one, one Cast. No shapes are
 * inferred: they do not change. */
#include <math.h>
#include <string.h>
#include "base/cpu.h"
#include "graph/convert.h"
#include "graph/pass.h"
#include "graph/session.h"

#define HALF_MAX 65504.0f
#define HALF_TINY 5.9604644775390625e-8f /* 2^-24, the smallest subnormal */

typedef struct halver {
  ml_graph *g;
  bool keep_io;
  ml_half_report *report;
  ml_node **old; size_t n_old; /* the nodes as they were */
  ml_node **order; size_t n_order, cap_order;
  size_t n_values;               /* as it was; ids of the three tables */
  ml_value **other;              /* the value in its other type, made on demand */
  bool *full_used;               /* somebody wants float32 */
  bool *converted;               /* was float32 before */
} halver;

static bool one_of(const char *name, const char *const *names) {
  for (; *names; names++)
    if (strcmp(name, *names) == 0) return true;
  return false;
}

static bool begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

/* Takes and gives float32: by definition, or since the type of the output is an attribute's or the container's. */
static bool is_full(const ml_node *n) {
  static const char *const names[] = {
      "Bernoulli", "BitCast", "BlackmanWindow", "Celu", "ConcatFromSequence", "ConstantOfShape", "CumProd", "CumSum", "DequantizeLinear",
      "DynamicQuantizeLinear", "EyeLike", "HammingWindow", "HannWindow", "ImageDecoder", "IsInf", "MelWeightMatrix", "Multinomial",
      "NonMaxSuppression",
      "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Range",
      "SplitToSequence", "TfIdfVectorizer", NULL};
  const char *name = n->op->name;
  for (size_t k = 0; k < n->attrs.count; k++)
    if (n->attrs.items[k].type == ML_ATTR_GRAPH) return true; /* bodies stay as they are, and so does what they capture */
  if (n->op == &ml_op_scatter_nd || n->op == &ml_op_scatter_elements) /* ONNX Runtime's sums are of float32 only */
    return !ml_attr_is(&n->attrs, "reduction", "none", "none");
  return *n->op->domain || begins(name, "Sequence") || begins(name, "Optional") || one_of(name, names);
}

static bool input_is_full(const ml_node *n, int32_t k) { return is_full(n) || (n->op == &ml_op_resize && (k == 1 || k == 2)); }
/* Statistics of LayerNormalization have the type of stash_type. */
static bool output_is_full(const ml_node *n, int32_t k) { return is_full(n) || (n->op == &ml_op_layer_normalization && k > 0); }

static ml_status push(halver *h, ml_node *node, ml_error *err) {
  ML_TRY(ml_grow(&h->order, &h->cap_order, h->n_order + 1, sizeof *h->order, "nodes", err));
  h->order[h->n_order++] = node;
  return ML_OK;
}

static ml_status cast_node(halver *h, ml_value *from, ml_dtype to, ml_node **node, ml_error *err) {
  ml_attr attr = ml_attr_of_int("to", to);
  ml_value *out;
  const char *name = ml_arena_printf(h->g->arena, "%s_%s", from->name, ml_dtype_name(to));
  if (!name) return ml_fail_memory(err, 1, "a name");
  ML_TRY(ml_graph_node(h->g, &ml_op_cast, name, &attr, 1, 1, &from, 1, NULL, &out, err));
  *node = out->producer;
  return push(h, *node, err);
}

/* ---------------------------------------------------------------- initialisers ---- */
static ml_status half_tensor(halver *h, const ml_value *v, ml_tensor **out, ml_error *err) {
  const ml_view *view = &v->init->view;
  ML_TRY(ml_tensor_new(ML_FLOAT16, view->dims, view->rank, out, err));
  const float *from = view->data;
  uint16_t *to = (*out)->view.data;
  ml_half_note note = {.name = v->name};
  for (size_t i = 0; i < view->count; i++) {
    float x = from[i], magnitude = fabsf(x);
    if (isfinite(x)) {
      if ((double)magnitude > note.largest) note.largest = (double)magnitude;
      if (magnitude > HALF_MAX) {
        x = copysignf(HALF_MAX, x);
        note.saturated++;
      } else if (magnitude > 0 && magnitude < HALF_TINY) {
        x = copysignf(HALF_TINY, x);
        note.tiny++;
      }
    }
    to[i] = ml_float_to_half(x);
  }
  if (note.saturated == 0 && note.tiny == 0) return ML_OK;
  ML_TRY(ml_grow(&h->report->notes, &h->report->capacity, h->report->n + 1, sizeof note, "a report", err));
  h->report->notes[h->report->n++] = note;
  return ML_OK;
}

static ml_status halve_initializer(halver *h, ml_value *v, ml_error *err) {
  ml_tensor *half = NULL;
  ml_status status = half_tensor(h, v, &half, err);
  if (status == ML_OK && !h->full_used[v->id]) {
    ml_tensor_release(v->init);
    v->init = ml_tensor_retain(half);
    v->dtype = ML_FLOAT16;
    v->trainable = false;
  } else if (status == ML_OK) {
    const char *name = ml_arena_printf(h->g->arena, "%s_float16", v->name);
    if (!name) status = ml_fail_memory(err, 1, "a name");
    else status = ml_graph_initializer(h->g, ml_graph_find(h->g, name) ? NULL : name, half, false, &h->other[v->id], err);
  }
  ml_tensor_release(half);
  return status;
}

/* ---------------------------------------------------------------- nodes ---- */
/* The value as the wanted type; float32 or float16 itself. */
static ml_status want(halver *h, ml_value *v, ml_dtype dtype, ml_value **out, ml_error *err) {
  *out = v;
  if (v->dtype == dtype) return ML_OK;
  if (v->init && !h->other[v->id]) {
    ML_TRY(halve_initializer(h, v, err));
    if (v->dtype == dtype) return ML_OK;
  }
  if (!h->other[v->id]) {
    ml_node *cast;
    ML_TRY(cast_node(h, v, dtype, &cast, err));
    h->other[v->id] = cast->out[0];
  }
  *out = h->other[v->id];
  return ML_OK;
}

/* A graph output whose node gives the other type: the node gives a new value, and a Cast the output. */
static ml_status cast_output(halver *h, ml_node *node, int32_t k, ml_dtype native, ml_error *err) {
  ml_value *v = node->out[k];
  ml_node *cast;
  node->out[k] = NULL;
  ML_TRY(ml_graph_want_output(h->g, node, k, err));
  ml_value *inner = node->out[k];
  inner->dtype = native;
  inner->rank = v->rank;
  memcpy(inner->dims, v->dims, sizeof v->dims);
  memcpy(inner->dim_names, v->dim_names, sizeof v->dim_names);
  ML_TRY(cast_node(h, inner, v->dtype, &cast, err));
  cast->out[0]->producer = NULL;
  cast->out[0] = v;
  v->producer = cast;
  h->other[v->id] = inner;
  return ML_OK;
}

static ml_status halve_node(halver *h, ml_node *n, ml_error *err) {
  for (int32_t k = 0; k < n->n_in; k++) {
    ml_value *v = n->in[k];
    if (!v || !h->converted[v->id] || n->op == &ml_op_cast) continue; /* Cast takes what there is */
    ML_TRY(want(h, v, input_is_full(n, k) ? ML_FLOAT32 : ML_FLOAT16, &n->in[k], err));
  }
  ML_TRY(push(h, n, err));
  bool full_cast = n->op == &ml_op_cast && n->out[0]->is_output && h->keep_io;
  if (n->op == &ml_op_cast && n->out[0]->dtype == ML_FLOAT32 && !full_cast) {
    ml_attr attrs[4];
    if (n->attrs.count > 4) return ml_fail(err, ML_INTERNAL, "Cast '%s' has %zu attributes", n->name, n->attrs.count);
    memcpy(attrs, n->attrs.items, n->attrs.count * sizeof *attrs);
    for (size_t i = 0; i < n->attrs.count; i++)
      if (strcmp(attrs[i].name, "to") == 0) attrs[i].as.i = ML_FLOAT16;
    ML_TRY(ml_graph_become(h->g, n, n->op, attrs, n->attrs.count, 1, n->in, err));
  }
  for (int32_t k = 0; k < n->n_out; k++) {
    ml_value *v = n->out[k];
    if (!v || v->dtype != ML_FLOAT32) continue;
    ml_dtype native = full_cast || output_is_full(n, k) ? ML_FLOAT32 : ML_FLOAT16;
    ml_dtype wanted = v->is_output ? (h->keep_io ? ML_FLOAT32 : ML_FLOAT16) : native;
    v->dtype = wanted;
    if (wanted != native) ML_TRY(cast_output(h, n, k, native, err));
  }
  return ML_OK;
}

static ml_status halve(halver *h, ml_error *err) {
  ml_graph *g = h->g;
  for (size_t i = 0; i < h->n_values; i++) h->converted[i] = g->values[i]->dtype == ML_FLOAT32;
  for (size_t i = 0; i < g->n_nodes; i++) {
    const ml_node *n = g->nodes[i];
    for (int32_t k = 0; k < n->n_in; k++)
      if (n->in[k] && input_is_full(n, k)) h->full_used[n->in[k]->id] = true;
  }
  for (size_t i = 0; i < g->n_outputs; i++)
    if (g->outputs[i]->init && h->keep_io) h->full_used[g->outputs[i]->id] = true;
  for (size_t i = 0; i < g->n_inputs; i++)
    if (!h->keep_io && g->inputs[i]->dtype == ML_FLOAT32) g->inputs[i]->dtype = ML_FLOAT16;
  for (size_t i = 0; i < h->n_old; i++) ML_TRY(halve_node(h, h->old[i], err));
  for (size_t i = 0; i < g->n_outputs; i++) { /* constants that are outputs */
    ml_value *v = g->outputs[i], *ignored;
    if (v->init && !h->keep_io && v->dtype == ML_FLOAT32 && !h->full_used[v->id]) ML_TRY(want(h, v, ML_FLOAT16, &ignored, err));
  }
  if (h->n_order != g->n_nodes) return ml_fail(err, ML_INTERNAL, "%zu nodes in order, %zu in the graph", h->n_order, g->n_nodes);
  memcpy(g->nodes, h->order, h->n_order * sizeof *h->order);
  return ml_graph_prune(g, err);
}

static bool is_not_constant(const ml_node *node) { return node->op != &ml_op_constant; }

ml_status ml_graph_to_half(ml_graph *g, bool keep_io, ml_half_report *report, ml_error *err) {
  ml__budget budget = {.limit = ml_memory_size() / 2};
  const ml_compile_options options = {.level = ML_LEVEL_EXACT, .budget = &budget};
  ML_TRY(ml__fold(g, &options, is_not_constant, err)); /* Constant nodes become initialisers */
  halver h = {.g = g, .keep_io = keep_io, .report = report, .n_old = g->n_nodes, .n_values = g->n_values};
  h.old = ml_alloc_zero(g->n_nodes + 1, sizeof *h.old);
  h.other = ml_alloc_zero(g->n_values + 1, sizeof *h.other);
  h.full_used = ml_alloc_zero(g->n_values + 1, sizeof *h.full_used);
  h.converted = ml_alloc_zero(g->n_values + 1, sizeof *h.converted);
  ml_status status = h.old && h.other && h.full_used && h.converted ? ML_OK : ml_fail_memory(err, g->n_values * sizeof *h.other, "a conversion");
  if (status == ML_OK) {
    if (g->n_nodes > 0) memcpy(h.old, g->nodes, g->n_nodes * sizeof *h.old);
    status = halve(&h, err);
  }
  ml_free(h.old);
  ml_free(h.other);
  ml_free(h.full_used);
  ml_free(h.converted);
  ml_free(h.order);
  return status;
}
