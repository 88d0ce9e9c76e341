/* Graph to ModelProto.
 * IR 8 and operator set 17 are what nearly every runtime reads, so that is what is written; the lowest higher version is taken
 * when a node cannot be said in 17, and then all nodes take that version's form. The same graph gives the same bytes: nodes in
 * order, initialisers by value number, nothing about time or place. */
#include <string.h>

#include "base/file.h"
#include "codec/json.h"
#include "format/onnx_proto.h"
#include "format/opset.h"

enum { IR_VERSION = 8, TARGET = 17, TARGET_ML = 3 };
#define FROZEN_KEY "mlserve.frozen"

typedef struct exporter {
  const ml_graph *graph;
  ml_arena *scratch;
  ml_pb_writer out;
  uint32_t *uses;          /* by value id, as written */
  int32_t onnx, ml;        /* versions; ml 0: not needed */
  struct extra { const char *name; ml_tensor *tensor; } *extras; /* constants that a downgrade added */
  size_t n_extras, cap_extras;
} exporter;

static ml_status refuse(const ml_node *node, ml_error *err) {
  if (node->op->flags & ML_OP_TRAINING)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s '%s': the operator exists only while training and cannot be written",
                   node->op->name, node->name);
  if ((node->op->flags & ML_OP_INTERNAL) || strcmp(node->op->domain, "mlserve") == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s '%s': the operator exists only in compiled programs and cannot be written",
                   node->op->name, node->name);
  return ML_OK;
}

static ml_status choose_versions(exporter *ex, ml_error *err) {
  const ml_graph *g = ex->graph;
  ex->onnx = TARGET;
  for (size_t i = 0; i < g->n_nodes; i++) {
    ML_TRY(refuse(g->nodes[i], err));
    if (strcmp(g->nodes[i]->op->domain, "ai.onnx.ml") == 0) ex->ml = ml__opset_needed(g->nodes[i], ex->ml ? ex->ml : TARGET_ML);
    else ex->onnx = ml__opset_needed(g->nodes[i], ex->onnx);
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- nodes ---- */
static void put_attr(ml_pb_writer *w, const ml_attr *a) {
  size_t mark = ml_pb_open(w, ML__NODE_ATTRIBUTE), inner;
  ml_pb_put_string(w, ML__ATTR_NAME, a->name);
  switch (a->type) {
    case ML_ATTR_FLOAT: ml_pb_put_float(w, ML__ATTR_F, a->as.f); break;
    case ML_ATTR_INT: ml_pb_put_varint(w, ML__ATTR_I, (uint64_t)a->as.i); break;
    case ML_ATTR_STRING: ml_pb_put_bytes(w, ML__ATTR_S, a->as.s.bytes, a->as.s.length); break;
    case ML_ATTR_TENSOR:
      inner = ml_pb_open(w, ML__ATTR_T);
      ml__onnx_put_tensor(w, &a->as.tensor->view, NULL);
      ml_pb_close(w, inner);
      break;
    /* lists are declared without "packed" in onnx.proto */
    case ML_ATTR_FLOATS: for (size_t i = 0; i < a->count; i++) ml_pb_put_float(w, ML__ATTR_FLOATS, a->as.floats[i]); break;
    case ML_ATTR_INTS: for (size_t i = 0; i < a->count; i++) ml_pb_put_varint(w, ML__ATTR_INTS, (uint64_t)a->as.ints[i]); break;
    case ML_ATTR_STRINGS:
      for (size_t i = 0; i < a->count; i++) ml_pb_put_bytes(w, ML__ATTR_STRINGS, a->as.strings[i].bytes, a->as.strings[i].length);
      break;
    case ML_ATTR_TENSORS:
      for (size_t i = 0; i < a->count; i++) {
        inner = ml_pb_open(w, ML__ATTR_TENSORS);
        ml__onnx_put_tensor(w, &a->as.tensors[i]->view, NULL);
        ml_pb_close(w, inner);
      }
      break;
    default: break;
  }
  ml_pb_put_varint(w, ML__ATTR_TYPE, (uint64_t)a->type);
  ml_pb_close(w, mark);
}

/* Unlike ml_pb_put_string, an empty name too. */
static void put_name(ml_pb_writer *w, uint32_t number, const char *name) { ml_pb_put_bytes(w, number, name, strlen(name)); }

/* Keeps the draft's extra constant under a name nobody has. */
static ml_status keep_extra(exporter *ex, const ml__draft *draft, const char **name, ml_error *err) {
  ML_TRY(ml_grow(&ex->extras, &ex->cap_extras, ex->n_extras + 1, sizeof *ex->extras, "an export", err));
  for (uint32_t k = 0;; k++) {
    *name = ml_arena_printf(ex->scratch, "%s_%zu_%u", draft->node->name, draft->extra_input, k);
    if (!*name) return ml_fail_memory(err, 1, "a name");
    bool taken = ml_graph_find(ex->graph, *name) != NULL;
    for (size_t i = 0; i < ex->n_extras && !taken; i++) taken = strcmp(ex->extras[i].name, *name) == 0;
    if (!taken) break;
  }
  ex->extras[ex->n_extras++] = (struct extra){*name, ml_tensor_retain(draft->extra)};
  return ML_OK;
}

static ml_status put_draft(exporter *ex, const ml__draft *d, ml_error *err) {
  ml_pb_writer *w = &ex->out;
  const ml_node *node = d->node;
  const char *extra = NULL;
  if (d->extra) ML_TRY(keep_extra(ex, d, &extra, err));
  size_t n_in = d->n_in, n_out = (size_t)node->n_out;
  if (extra && n_in <= d->extra_input) n_in = d->extra_input + 1;
  while (n_in > 0 && !(extra && n_in - 1 == d->extra_input) && !(n_in - 1 < d->n_in && d->in[n_in - 1]))
    n_in--; /* inputs left out at the end */
  while (n_out > 1 && !node->out[n_out - 1]) n_out--;
  size_t mark = ml_pb_open(w, ML__GRAPH_NODE);
  for (size_t i = 0; i < n_in; i++) {
    const ml_value *v = i < d->n_in ? d->in[i] : NULL;
    put_name(w, ML__NODE_INPUT, extra && i == d->extra_input ? extra : v ? v->name : "");
    if (v) ex->uses[v->id]++;
  }
  for (size_t i = 0; i < n_out; i++) put_name(w, ML__NODE_OUTPUT, node->out[i] ? node->out[i]->name : "");
  ml_pb_put_string(w, ML__NODE_NAME, node->name);
  ml_pb_put_string(w, ML__NODE_OP_TYPE, node->op->name);
  for (size_t i = 0; i < d->n_attrs; i++) put_attr(w, &d->attrs[i]);
  ml_pb_put_string(w, ML__NODE_DOMAIN, node->op->domain);
  ml_pb_close(w, mark);
  return ML_OK;
}

static ml_status put_node(exporter *ex, const ml_node *node, ml_error *err) {
  ml_arena *scratch = ml_arena_new(); /* per node: a large graph needs no large copy of itself */
  if (!scratch) return ml_fail_memory(err, 1, "an export");
  ml__draft draft = {.node = node, .n_attrs = node->attrs.count, .n_in = (size_t)node->n_in};
  draft.attrs = ml_arena_alloc(scratch, (draft.n_attrs + ML__OPSET_ROOM) * sizeof *draft.attrs);
  draft.in = ml_arena_alloc(scratch, (draft.n_in + ML__OPSET_ROOM) * sizeof *draft.in);
  ml_status status = draft.attrs && draft.in ? ML_OK : ml_fail_memory(err, 1, "an export");
  if (status == ML_OK) {
    if (draft.n_attrs > 0) memcpy(draft.attrs, node->attrs.items, draft.n_attrs * sizeof *draft.attrs);
    if (draft.n_in > 0) memcpy(draft.in, node->in, draft.n_in * sizeof *draft.in);
    bool ml = strcmp(node->op->domain, "ai.onnx.ml") == 0;
    status = ml__opset_downgrade(&draft, ml ? ex->ml : ex->onnx, scratch, err);
    if (status == ML_OK) status = put_draft(ex, &draft, err);
  }
  ml_tensor_release(draft.extra);
  ml_arena_free(scratch);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s '%s'", node->op->name, node->name);
}

/* ---------------------------------------------------------------- the rest ---- */
static ml_status put_value_info(ml_pb_writer *w, uint32_t number, const ml_value *v, ml_error *err) {
  if (v->dtype == ML_DTYPE_NONE) return ml_fail(err, ML_INVALID_ARGUMENT, "value '%s' has no element type", v->name);
  size_t info = ml_pb_open(w, number);
  put_name(w, ML__VALUE_NAME, v->name);
  size_t type = ml_pb_open(w, ML__VALUE_TYPE), tensor = ml_pb_open(w, ML__TYPE_TENSOR);
  ml_pb_put_varint(w, ML__TENSOR_TYPE_ELEM, (uint64_t)v->dtype);
  if (v->rank != ML_UNKNOWN) {
    size_t shape = ml_pb_open(w, ML__TENSOR_TYPE_SHAPE);
    for (int32_t d = 0; d < v->rank; d++) {
      size_t dim = ml_pb_open(w, ML__SHAPE_DIM);
      if (v->dims[d] != ML_UNKNOWN) ml_pb_put_varint(w, ML__DIM_VALUE, (uint64_t)v->dims[d]);
      else ml_pb_put_string(w, ML__DIM_PARAM, v->dim_names[d]);
      ml_pb_close(w, dim);
    }
    ml_pb_close(w, shape);
  }
  ml_pb_close(w, tensor);
  ml_pb_close(w, type);
  ml_pb_close(w, info);
  return ML_OK;
}

static void put_initializer(ml_pb_writer *w, const char *name, const ml_view *view) {
  size_t mark = ml_pb_open(w, ML__GRAPH_INITIALIZER);
  ml__onnx_put_tensor(w, view, name);
  ml_pb_close(w, mark);
}

static bool is_written(const exporter *ex, const ml_value *v) { return v->init && (ex->uses[v->id] > 0 || v->is_output); }

static ml_status put_graph(exporter *ex, ml_error *err) {
  const ml_graph *g = ex->graph;
  ml_pb_writer *w = &ex->out;
  size_t mark = ml_pb_open(w, ML__MODEL_GRAPH);
  for (size_t i = 0; i < g->n_nodes; i++) ML_TRY(put_node(ex, g->nodes[i], err));
  ml_pb_put_string(w, ML__GRAPH_NAME, g->name && *g->name ? g->name : "model");
  for (size_t i = 0; i < g->n_values; i++)
    if (is_written(ex, g->values[i])) put_initializer(w, g->values[i]->name, &g->values[i]->init->view);
  for (size_t i = 0; i < ex->n_extras; i++) put_initializer(w, ex->extras[i].name, &ex->extras[i].tensor->view);
  for (size_t i = 0; i < g->n_inputs; i++) ML_TRY(put_value_info(w, ML__GRAPH_INPUT, g->inputs[i], err));
  for (size_t i = 0; i < g->n_outputs; i++) ML_TRY(put_value_info(w, ML__GRAPH_OUTPUT, g->outputs[i], err));
  ml_pb_close(w, mark);
  return ML_OK;
}

static void put_opset(ml_pb_writer *w, const char *domain, int32_t version) {
  size_t mark = ml_pb_open(w, ML__MODEL_OPSET);
  put_name(w, ML__OPSET_DOMAIN, domain);
  ml_pb_put_varint(w, ML__OPSET_VERSION, (uint64_t)version);
  ml_pb_close(w, mark);
}

static void put_property(ml_pb_writer *w, const char *key, const char *value, size_t length) {
  size_t mark = ml_pb_open(w, ML__MODEL_METADATA);
  put_name(w, ML__ENTRY_KEY, key);
  ml_pb_put_bytes(w, ML__ENTRY_VALUE, value, length);
  ml_pb_close(w, mark);
}

/* Names of the float initialisers that training leaves alone, as a JSON array. */
static ml_status put_frozen(exporter *ex, ml_error *err) {
  ml_json_writer json;
  ml_json_writer_init(&json);
  for (size_t i = 0; i < ex->graph->n_values; i++) {
    const ml_value *v = ex->graph->values[i];
    if (!is_written(ex, v) || v->trainable || (v->dtype != ML_FLOAT32 && v->dtype != ML_FLOAT64) || v->init->view.count == 0)
      continue;
    if (json.length == 0) ml_json_put_literal(&json, "[");
    else ml_json_put_literal(&json, ",");
    ml_json_put_string(&json, v->name, strlen(v->name));
  }
  if (json.length > 0) {
    ml_json_put_literal(&json, "]");
    put_property(&ex->out, FROZEN_KEY, json.text, json.length);
  }
  ml_status status = json.status;
  ml_json_writer_free(&json);
  return status == ML_OK ? ML_OK : ml_fail_memory(err, 1, "metadata");
}

static ml_status put_model(exporter *ex, ml_error *err) {
  const ml_graph *g = ex->graph;
  ml_pb_writer *w = &ex->out;
  if (g->n_outputs == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "the graph has no outputs");
  ML_TRY(choose_versions(ex, err));
  ml_pb_put_varint(w, ML__MODEL_IR_VERSION, IR_VERSION);
  ml_pb_put_string(w, ML__MODEL_PRODUCER_NAME, g->producer_name ? g->producer_name : "mlserve");
  ml_pb_put_string(w, ML__MODEL_PRODUCER_VERSION, g->producer_version);
  if (g->model_version != 0) ml_pb_put_varint(w, ML__MODEL_VERSION, (uint64_t)g->model_version);
  ml_pb_put_string(w, ML__MODEL_DOC, g->doc);
  ML_TRY(put_graph(ex, err));
  put_opset(w, "", ex->onnx);
  if (ex->ml) put_opset(w, "ai.onnx.ml", ex->ml);
  for (size_t i = 0; i < g->n_properties; i++)
    if (strcmp(g->properties[i].key, FROZEN_KEY) != 0)
      put_property(w, g->properties[i].key, g->properties[i].value, g->properties[i].length);
  ML_TRY(put_frozen(ex, err));
  if (w->status != ML_OK) return ml_fail_memory(err, w->capacity, "a model file");
  if (w->size > INT32_MAX)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the model has %zu bytes; an ONNX file ends at %d", w->size, INT32_MAX);
  return ML_OK;
}

ml_status ml_onnx_write(const ml_graph *graph, void **bytes, size_t *size, ml_error *err) {
  *bytes = NULL;
  *size = 0;
  exporter ex = {.graph = graph, .scratch = ml_arena_new(), .uses = ml_alloc_zero(graph->n_values + 1, sizeof(uint32_t))};
  ml_pb_writer_init(&ex.out);
  ml_status status = ex.scratch && ex.uses ? put_model(&ex, err) : ml_fail_memory(err, 1, "an export");
  for (size_t i = 0; i < ex.n_extras; i++) ml_tensor_release(ex.extras[i].tensor);
  ml_free(ex.extras);
  ml_free(ex.uses);
  ml_arena_free(ex.scratch);
  if (status != ML_OK) {
    ml_pb_writer_free(&ex.out);
    return status;
  }
  *bytes = ex.out.bytes;
  *size = ex.out.size;
  return ML_OK;
}

ml_status ml_onnx_save(const ml_graph *graph, const char *path, ml_error *err) {
  void *bytes;
  size_t size;
  ml_status status = ml_onnx_write(graph, &bytes, &size, err);
  if (status == ML_OK) status = ml_file_write(path, bytes, size, err);
  ml_free(bytes);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", path);
}
