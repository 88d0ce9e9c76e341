/* Graph to ModelProto.
 * IR 8 and operator set 17 are what nearly every runtime reads, so that is what is written; the lowest higher version is taken
 * when a node cannot be said in 17, and then all nodes take that version's form. A caller may ask for another version, which every
 * node must fit. The same graph gives the same bytes: nodes in order, initialisers by value number, nothing about time or place.
 * A subgraph is written by an exporter of its own inside that of the graph around it: what it captures goes by the name it has out there, and a name
 * of its own that means something out there gets another (ONNX forbids shadowing). */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "codec/json.h"
#include "format/onnx_import.h"

enum { ONNX = 0 /* of the domains */, TARGET = 17, TARGET_ML = 3, OLDEST = 11 /* what the tables of opset.c reach down to */ };
#define FROZEN_KEY "mlserve.frozen"

typedef struct exporter {
  const ml_graph *graph;
  struct exporter *outer;  /* of a subgraph */
  const char **names;      /* by value id; NULL: the graph's own */
  ml_arena *scratch;
  ml_pb_writer *out;
  uint32_t *uses;          /* by value id, as written */
  int32_t versions[ML__OPSET_DOMAINS]; /* by domain; 0: not needed */
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

/* IR version that came with a version of ai.onnx (docs/Versioning.md of the ONNX repository). */
static int32_t ir_version_of(int32_t onnx, int32_t ml) {
  static const int8_t ir[] = {[11] = 6, 7, 7, 7, 8, 8, 8, 8, 9, 9, 10, 10, 11, 12, 13, 13, 13, 14};
  int32_t version = onnx < (int32_t)sizeof ir ? ir[onnx] : ir[sizeof ir - 1];
  return ml > 3 && version < ml + 5 ? ml + 5 : version;
}

/* Names in `list` an operator that the wanted version lacks, once. */
static void list_operator(char *list, size_t size, const ml_node *node, int32_t needed) {
  char item[160];
  size_t used = strlen(list), length = strlen(node->op->name);
  for (const char *at = list; (at = strstr(at, node->op->name)); at += length)
    if ((at == list || at[-1] == ' ') && strncmp(at + length, " at ", 4) == 0) return; /* another node of the same operator */
  int n = snprintf(item, sizeof item, "%s at node '%.80s' (needs %d)", node->op->name, node->name, needed);
  if (n < 0 || (size_t)n >= sizeof item || used + (size_t)n + 8 >= size) return;
  snprintf(list + used, size - used, "%s%s", used ? ", " : "", item);
}

static ml_status scan_versions(exporter *ex, const ml_graph *g, int32_t opset, char *list, size_t size, ml_error *err) {
  for (size_t i = 0; i < g->n_nodes; i++) {
    const ml_node *node = g->nodes[i];
    const char *domain = node->op->domain;
    ML_TRY(refuse(node, err));
    for (size_t k = 0; k < node->attrs.count; k++)
      if (node->attrs.items[k].type == ML_ATTR_GRAPH) ML_TRY(scan_versions(ex, node->attrs.items[k].as.graph, opset, list, size, err));
    int32_t at = ml__opset_domain(domain), least = strcmp(domain, "ai.onnx.ml") == 0 ? TARGET_ML : 1;
    if (at < 0) return ml_fail(err, ML_UNIMPLEMENTED, "%s '%s': domain %s cannot be written", node->op->name, node->name, domain);
    int32_t needed = ml__opset_needed(node, ex->versions[at] ? ex->versions[at] : least);
    if (at != ONNX || opset == 0) ex->versions[at] = needed;
    else if (needed > opset) list_operator(list, size, node, needed);
  }
  return ML_OK;
}

static ml_status choose_versions(exporter *ex, int32_t opset, ml_error *err) {
  char list[ML_ERROR_MAX - 160] = "";
  if (opset != 0 && (opset < OLDEST || opset > ml__opset_newest(ONNX)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "opset %d cannot be written, only %d to %d", opset, OLDEST, ml__opset_newest(ONNX));
  ex->versions[ONNX] = opset ? opset : TARGET;
  ML_TRY(scan_versions(ex, ex->graph, opset, list, sizeof list, err));
  return *list ? ml_fail(err, ML_INVALID_ARGUMENT, "opset %d cannot express %s", opset, list) : ML_OK;
}

/* ---------------------------------------------------------------- nodes ---- */
static const char *name_of(const exporter *ex, const ml_value *v) { return ex->names ? ex->names[v->id] : v->name; }

static ml_status put_subgraph(exporter *ex, const ml_graph *graph, ml_value *const *captured, ml_error *err);

/* captured: the node's inputs that belong to this attribute, when it is a graph */
static ml_status put_attr(exporter *ex, const ml_attr *a, ml_value *const *captured, ml_error *err) {
  ml_pb_writer *w = ex->out;
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
    case ML_ATTR_GRAPH:
      inner = ml_pb_open(w, ML__ATTR_G);
      ML_TRY(put_subgraph(ex, a->as.graph, captured, err));
      ml_pb_close(w, inner);
      break;
    case ML_ATTR_TYPE:
      inner = ml_pb_open(w, ML__ATTR_TP);
      ml__onnx_put_coded_type(w, (uint32_t)a->as.i);
      ml_pb_close(w, inner);
      break;
    default: break;
  }
  ml_pb_put_varint(w, ML__ATTR_TYPE, (uint64_t)a->type);
  ml_pb_close(w, mark);
  return ML_OK;
}

/* Unlike ml_pb_put_string, an empty name too. */
static void put_name(ml_pb_writer *w, uint32_t number, const char *name) { ml_pb_put_bytes(w, number, name, strlen(name)); }

/* Keeps the draft's extra constant under a name nobody has. */
static ml_status keep_extra(exporter *ex, const ml__draft *draft, const char **name, ml_error *err) {
  ML_TRY(ml_grow(&ex->extras, &ex->cap_extras, ex->n_extras + 1, sizeof *ex->extras, "an export", err));
  for (uint32_t k = 0;; k++) {
    *name = ml_arena_printf(ex->scratch, "%s_%zu_%u", draft->node->name, draft->extra_input, k);
    if (!*name) return ml_fail_memory(err, 1, "a name");
    bool taken = false;
    for (const exporter *e = ex; e && !taken; e = e->outer) taken = ml_graph_find(e->graph, *name) != NULL;
    for (size_t i = 0; i < ex->n_extras && !taken; i++) taken = strcmp(ex->extras[i].name, *name) == 0;
    if (!taken) break;
  }
  ex->extras[ex->n_extras++] = (struct extra){*name, ml_tensor_retain(draft->extra)};
  return ML_OK;
}

static ml_status put_draft(exporter *ex, const ml__draft *d, ml_error *err) {
  ml_pb_writer *w = ex->out;
  const ml_node *node = d->node;
  const char *extra = NULL;
  if (d->extra) ML_TRY(keep_extra(ex, d, &extra, err));
  size_t n_in = d->n_in, n_out = (size_t)node->n_out, captures = 0;
  for (size_t i = 0; i < d->n_attrs; i++) if (d->attrs[i].type == ML_ATTR_GRAPH) captures += d->attrs[i].as.graph->n_captures;
  ml_value **captured = d->in + d->n_in - captures;
  for (size_t i = 0; i < captures; i++) ex->uses[captured[i]->id]++;
  n_in -= captures;
  size_t last = d->extra_again > d->extra_input ? d->extra_again : d->extra_input;
  if (extra && n_in <= last) n_in = last + 1;
  while (n_in > 0 && !(extra && n_in - 1 == last) && !(n_in - 1 < d->n_in - captures && d->in[n_in - 1]))
    n_in--; /* inputs left out at the end */
  while (n_out > 1 && !node->out[n_out - 1]) n_out--;
  size_t mark = ml_pb_open(w, ML__GRAPH_NODE);
  for (size_t i = 0; i < n_in; i++) {
    const ml_value *v = i < d->n_in - captures ? d->in[i] : NULL;
    bool is_extra = extra && (i == d->extra_input || (d->extra_again > 0 && i == d->extra_again));
    put_name(w, ML__NODE_INPUT, is_extra ? extra : v ? name_of(ex, v) : "");
    if (v) ex->uses[v->id]++;
  }
  for (size_t i = 0; i < n_out; i++) put_name(w, ML__NODE_OUTPUT, node->out[i] ? name_of(ex, node->out[i]) : "");
  ml_pb_put_string(w, ML__NODE_NAME, node->name);
  ml_pb_put_string(w, ML__NODE_OP_TYPE, node->op->name);
  for (size_t i = 0; i < d->n_attrs; i++) {
    ML_TRY(put_attr(ex, &d->attrs[i], captured, err));
    if (d->attrs[i].type == ML_ATTR_GRAPH) captured += d->attrs[i].as.graph->n_captures;
  }
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
    status = ml__opset_downgrade(&draft, ex->versions[ml__opset_domain(node->op->domain)], scratch, err);
    if (status == ML_OK) status = put_draft(ex, &draft, err);
  }
  ml_tensor_release(draft.extra);
  ml_arena_free(scratch);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s '%s'", node->op->name, node->name);
}

/* ---------------------------------------------------------------- the rest ---- */
static ml_status put_value_info(const exporter *ex, uint32_t number, const ml_value *v, ml_error *err) {
  ml_pb_writer *w = ex->out;
  if (v->dtype == ML_DTYPE_NONE) return ml_fail(err, ML_INVALID_ARGUMENT, "value '%s' has no element type", v->name);
  size_t info = ml_pb_open(w, number);
  put_name(w, ML__VALUE_NAME, name_of(ex, v));
  size_t type = ml_pb_open(w, ML__VALUE_TYPE);
  ml_value typed = *v;
  /* a branch that is not taken need not fit: no shape is promised */
  if (ex->outer && number == ML__GRAPH_OUTPUT && !v->type) typed.rank = ML_UNKNOWN;
  ml__onnx_put_type(w, &typed);
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
  ml_pb_writer *w = ex->out;
  for (size_t i = 0; i < g->n_nodes; i++) ML_TRY(put_node(ex, g->nodes[i], err));
  ml_pb_put_string(w, ML__GRAPH_NAME, g->name && *g->name ? g->name : "model");
  for (size_t i = 0; i < g->n_values; i++)
    if (is_written(ex, g->values[i])) put_initializer(w, name_of(ex, g->values[i]), &g->values[i]->init->view);
  for (size_t i = 0; i < ex->n_extras; i++) put_initializer(w, ex->extras[i].name, &ex->extras[i].tensor->view);
  for (size_t i = 0; i < g->n_inputs - g->n_captures; i++) ML_TRY(put_value_info(ex, ML__GRAPH_INPUT, g->inputs[i], err));
  for (size_t i = 0; i < g->n_outputs; i++) ML_TRY(put_value_info(ex, ML__GRAPH_OUTPUT, g->outputs[i], err));
  return ML_OK;
}

/* A name that means nothing here or in the graphs around. */
static ml_status fresh_name(const exporter *ex, const char *hint, const char **out, ml_error *err) {
  for (uint32_t k = 0;; k++) {
    const char *name = k == 0 ? hint : ml_arena_printf(ex->scratch, "%s_inner%u", hint, k);
    if (!name) return ml_fail_memory(err, 1, "a name");
    bool taken = k > 0 && ml_graph_find(ex->graph, name);
    for (const exporter *e = ex->outer; e && !taken; e = e->outer) {
      taken = ml_graph_find(e->graph, name) != NULL;
      for (size_t i = 0; i < e->n_extras && !taken; i++) taken = strcmp(e->extras[i].name, name) == 0;
    }
    *out = name;
    if (!taken) return ML_OK;
  }
}

static ml_status name_values(exporter *ex, ml_value *const *captured, ml_error *err) {
  const ml_graph *g = ex->graph;
  ex->names = ml_arena_alloc(ex->scratch, (g->n_values + 1) * sizeof *ex->names);
  if (!ex->names) return ml_fail_memory(err, g->n_values * sizeof *ex->names, "an export");
  for (size_t i = 0; i < g->n_captures; i++) ex->names[g->inputs[g->n_inputs - g->n_captures + i]->id] = name_of(ex->outer, captured[i]);
  for (size_t i = 0; i < g->n_values; i++) if (!ex->names[i]) ML_TRY(fresh_name(ex, g->values[i]->name, &ex->names[i], err));
  return ML_OK;
}

static ml_status put_subgraph(exporter *outer, const ml_graph *graph, ml_value *const *captured, ml_error *err) {
  exporter ex = {.graph = graph, .outer = outer, .out = outer->out, .scratch = outer->scratch,
                 .uses = ml_alloc_zero(graph->n_values + 1, sizeof(uint32_t))};
  memcpy(ex.versions, outer->versions, sizeof ex.versions);
  ml_status status = ex.uses ? name_values(&ex, captured, err) : ml_fail_memory(err, 1, "an export");
  if (status == ML_OK) status = put_graph(&ex, err);
  for (size_t i = 0; i < ex.n_extras; i++) ml_tensor_release(ex.extras[i].tensor);
  ml_free(ex.extras);
  ml_free(ex.uses);
  return status;
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
    put_property(ex->out, FROZEN_KEY, json.text, json.length);
  }
  ml_status status = json.status;
  ml_json_writer_free(&json);
  return status == ML_OK ? ML_OK : ml_fail_memory(err, 1, "metadata");
}

static ml_status put_model(exporter *ex, int32_t opset, ml_error *err) {
  const ml_graph *g = ex->graph;
  ml_pb_writer *w = ex->out;
  if (g->n_outputs == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "the graph has no outputs");
  ML_TRY(choose_versions(ex, opset, err));
  ml_pb_put_varint(w, ML__MODEL_IR_VERSION, (uint64_t)ir_version_of(ex->versions[ONNX], ex->versions[ml__opset_domain("ai.onnx.ml")]));
  ml_pb_put_string(w, ML__MODEL_PRODUCER_NAME, g->producer_name ? g->producer_name : "mlserve");
  ml_pb_put_string(w, ML__MODEL_PRODUCER_VERSION, g->producer_version);
  if (g->model_version != 0) ml_pb_put_varint(w, ML__MODEL_VERSION, (uint64_t)g->model_version);
  ml_pb_put_string(w, ML__MODEL_DOC, g->doc);
  size_t mark = ml_pb_open(w, ML__MODEL_GRAPH);
  ML_TRY(put_graph(ex, err));
  ml_pb_close(w, mark);
  for (int32_t i = 0; i < ML__OPSET_DOMAINS; i++)
    if (ex->versions[i]) put_opset(w, ml__opset_domain_name(i), ex->versions[i]);
  for (size_t i = 0; i < g->n_properties; i++)
    if (strcmp(g->properties[i].key, FROZEN_KEY) != 0)
      put_property(w, g->properties[i].key, g->properties[i].value, g->properties[i].length);
  ML_TRY(put_frozen(ex, err));
  if (w->status != ML_OK) return ml_fail_memory(err, w->capacity, "a model file");
  if (w->size > INT32_MAX)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the model has %zu bytes; an ONNX file ends at %d", w->size, INT32_MAX);
  return ML_OK;
}

ml_status ml_onnx_write_as(const ml_graph *graph, int32_t opset, void **bytes, size_t *size, ml_error *err) {
  *bytes = NULL;
  *size = 0;
  ml_pb_writer out;
  exporter ex = {.graph = graph, .out = &out, .scratch = ml_arena_new(), .uses = ml_alloc_zero(graph->n_values + 1, sizeof(uint32_t))};
  ml_pb_writer_init(&out);
  ml_status status = ex.scratch && ex.uses ? put_model(&ex, opset, err) : ml_fail_memory(err, 1, "an export");
  for (size_t i = 0; i < ex.n_extras; i++) ml_tensor_release(ex.extras[i].tensor);
  ml_free(ex.extras);
  ml_free(ex.uses);
  ml_arena_free(ex.scratch);
  if (status != ML_OK) {
    ml_pb_writer_free(&out);
    return status;
  }
  *bytes = out.bytes;
  *size = out.size;
  return ML_OK;
}

ml_status ml_onnx_write(const ml_graph *graph, void **bytes, size_t *size, ml_error *err) {
  return ml_onnx_write_as(graph, 0, bytes, size, err);
}

ml_status ml_onnx_save(const ml_graph *graph, const char *path, ml_error *err) { return ml_onnx_save_as(graph, 0, path, err); }

ml_status ml_onnx_save_as(const ml_graph *graph, int32_t opset, const char *path, ml_error *err) {
  void *bytes;
  size_t size;
  ml_status status = ml_onnx_write_as(graph, opset, &bytes, &size, err);
  if (status == ML_OK) status = ml_file_write(path, bytes, size, err);
  ml_free(bytes);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", path);
}
