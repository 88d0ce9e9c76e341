/* ModelProto to graph.
 * Nothing in the file is believed: wire types are checked, a single message that comes twice is refused (merging is where readers
 * differ), counts are bounded by the bytes that hold them, names are UTF-8 without NUL, nodes must be in topological order (so
 * there are no cycles) and every name has one definition. The graph message is walked several times, once per kind of thing in
 * it; a walk only hops over lengths, so this is cheaper than keeping an index, and needs no memory. Subgraphs are read by the same
 * code (onnx_import.h says how scopes work); functions are replaced by their bodies (onnx_function.c). */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "codec/json.h"
#include "codec/utf8.h"
#include "format/onnx_import.h"

enum {
  ARENA_NODES = 64 /* nodes that share one scratch arena */,
  LISTED = 160 /* bytes of an error kept for what follows a list */
};
#define FROZEN_KEY "mlserve.frozen"

/* ---------------------------------------------------------------- fields ---- */
ml_status ml__onnx_text(const ml_pb_field *f, ml_arena *arena, const char *what, const char **out, ml_error *err) {
  size_t bad;
  ML_TRY(ml_pb_expect(f, ML_PB_BYTES, what, err));
  if (f->size > 0 && memchr(f->bytes, 0, f->size)) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: NUL in a string", what);
  if (!ml_utf8_valid(f->bytes, f->size, &bad)) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: not UTF-8 at byte %zu", what, bad);
  *out = ml_arena_strndup(arena, f->size ? (const char *)f->bytes : "", f->size);
  return *out ? ML_OK : ml_fail_memory(err, f->size, what);
}

ml_status ml__onnx_message(const ml_pb_reader *parent, const ml_pb_field *f, bool *seen, const char *what, ml_pb_reader *out, ml_error *err) {
  ML_TRY(ml_pb_expect(f, ML_PB_BYTES, what, err));
  if (*seen) return ml_fail(err, ML_INVALID_ARGUMENT, "%s is given twice", what);
  *seen = true;
  *out = ml_pb_reader_sub(parent, f);
  return ML_OK;
}

/* ---------------------------------------------------------------- model ---- */
ml_status ml__onnx_read_opset(ml__importer *im, ml_pb_reader reader, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  int64_t version = 0;
  const char *name = "";
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__OPSET_DOMAIN) {
      ML_TRY(ml__onnx_text(&f, im->source->scratch, "OperatorSetIdProto.domain", &name, err));
    } else if (f.number == ML__OPSET_VERSION) {
      ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "OperatorSetIdProto.version", err));
      version = (int64_t)f.integer;
    }
  }
  if (status != ML_OK) return status;
  int32_t at = ml__opset_domain(name), newest = ml__opset_newest(at);
  if (at < 0) return ML_OK; /* matters only if a node uses it, and then the operator is unknown */
  if (!*name) name = "ai.onnx";
  if (im->versions[at] > 0 && im->versions[at] != version) /* some converters repeat a line */
    return ml_fail(err, ML_INVALID_ARGUMENT, "operator set %s is imported twice", name);
  if (version < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "operator set %s has version %lld", name, (long long)version);
  if (version > newest)
    return ml_fail(err, ML_UNIMPLEMENTED, "operator set %s version %lld is newer than %d, the newest one known here", name,
                   (long long)version, (int)newest);
  im->versions[at] = version;
  return ML_OK;
}

static ml_status read_property(ml__importer *im, ml_pb_reader reader, ml_error *err) {
  ml_pb_field f, value = {0};
  ml_status status;
  const char *key = "";
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__ENTRY_KEY) ML_TRY(ml__onnx_text(&f, im->source->scratch, "metadata key", &key, err));
    else if (f.number == ML__ENTRY_VALUE) {
      ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "metadata value", err));
      value = f;
    }
  }
  if (status != ML_OK) return status;
  if (ml_graph_property(im->graph, key)) return ml_fail(err, ML_INVALID_ARGUMENT, "metadata key '%s' is given twice", key);
  return ml_graph_set_property(im->graph, key, value.size ? (const char *)value.bytes : "", value.size, err);
}

/* Appends to a list in `list`, which keeps room for "… and N more". */
__attribute__((format(printf, 4, 5))) static void list_add(char *list, size_t size, size_t *left_out, const char *format, ...) {
  char item[320];
  va_list arguments;
  va_start(arguments, format);
  int n = vsnprintf(item, sizeof item, format, arguments);
  va_end(arguments);
  size_t used = strlen(list);
  if (*left_out > 0 || n < 0 || (size_t)n >= sizeof item || used + (size_t)n + 2 >= size) ++*left_out;
  else snprintf(list + used, size - used, "%s%s", used ? ", " : "", item);
}

static ml_status fail_list(ml_error *err, const char *what, const char *list, size_t left_out) {
  if (left_out == 0) return ml_fail(err, ML_UNIMPLEMENTED, "%s: %s", what, list);
  return ml_fail(err, ML_UNIMPLEMENTED, "%s: %s%sand %zu more", what, list, *list ? ", … " : "", left_out);
}

static ml_status read_model(ml__importer *im, ml_error *err) {
  ml_pb_reader reader = im->model;
  ml_pb_field f;
  ml_status status;
  bool has_graph = false;
  ml_graph *g = im->graph;
  while (ml_pb_next(&reader, &f, &status, err)) {
    switch (f.number) {
      case ML__MODEL_IR_VERSION:
        ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "ModelProto.ir_version", err));
        im->ir_version = (int64_t)f.integer;
        break;
      case ML__MODEL_PRODUCER_NAME: ML_TRY(ml__onnx_text(&f, g->arena, "ModelProto.producer_name", &g->producer_name, err)); break;
      case ML__MODEL_PRODUCER_VERSION:
        ML_TRY(ml__onnx_text(&f, g->arena, "ModelProto.producer_version", &g->producer_version, err));
        break;
      case ML__MODEL_VERSION:
        ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "ModelProto.model_version", err));
        g->model_version = (int64_t)f.integer;
        break;
      case ML__MODEL_DOC: ML_TRY(ml__onnx_text(&f, g->arena, "ModelProto.doc_string", &g->doc, err)); break;
      case ML__MODEL_GRAPH: ML_TRY(ml__onnx_message(&reader, &f, &has_graph, "ModelProto.graph", &im->body, err)); break;
      case ML__MODEL_OPSET:
        ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "ModelProto.opset_import", err));
        ML_TRY(ml__onnx_read_opset(im, ml_pb_reader_sub(&reader, &f), err));
        break;
      case ML__MODEL_METADATA:
        ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "ModelProto.metadata_props", err));
        ML_TRY(read_property(im, ml_pb_reader_sub(&reader, &f), err));
        break;
      case ML__MODEL_FUNCTION:
        ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "ModelProto.functions", err));
        ML_TRY(ml__onnx_read_function(im, ml_pb_reader_sub(&reader, &f), err));
        break;
      default: break;
    }
  }
  if (status != ML_OK) return status;
  if (im->ir_version < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "no ir_version: not an ONNX model");
  if (!has_graph) return ml_fail(err, ML_INVALID_ARGUMENT, "the model has no graph");
  if (im->versions[0] == 0 && im->ir_version < 3) im->versions[0] = 1; /* before versions were imported */
  return ML_OK;
}

/* ---------------------------------------------------------------- graph ---- */
/* ValueInfoProto: name (in the scratch arena) and type. */
static ml_status read_value_info(ml__importer *im, ml_pb_reader reader, const char *what, const char **name, ml__declared *type,
                                 ml_error *err) {
  ml_pb_field f;
  ml_status status;
  bool seen = false;
  ml_pb_reader inner = {0};
  *name = "";
  *type = (ml__declared){.rank = ML_UNKNOWN};
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__VALUE_NAME) ML_TRY(ml__onnx_text(&f, im->arena, "ValueInfoProto.name", name, err));
    else if (f.number == ML__VALUE_TYPE) ML_TRY(ml__onnx_message(&reader, &f, &seen, "ValueInfoProto.type", &inner, err));
  }
  if (status != ML_OK) return status;
  if (!**name) return ml_fail(err, ML_INVALID_ARGUMENT, "%s without a name", what);
  if (seen && (status = ml__onnx_read_type(im, inner, type, err)) != ML_OK) return ml_fail_in(err, status, "%s '%s'", what, *name);
  return ML_OK;
}

/* The value that `name` means here; false: there is none. NULL: an input that a call leaves out. Captures what a graph around this one has. */
static ml_status find(ml__importer *im, const char *name, bool *found, ml_value **out, ml_error *err) {
  *found = true;
  if (im->local) {
    for (size_t i = 0; i < im->call->n_inputs; i++) {
      if (strcmp(im->call->inputs[i].name, name) != 0) continue;
      *out = im->call->inputs[i].value;
      return ML_OK;
    }
    ML_TRY(ml__onnx_local_name(im, name, &name, err));
  }
  if ((*out = ml_graph_find(im->graph, name))) return ML_OK;
  *found = false;
  if (!im->outer || im->local) return ML_OK;
  ml_value *outer;
  ML_TRY(find(im->outer, name, found, &outer, err));
  if (!*found || !outer) return ML_OK;
  ML_TRY(ml_grow(&im->captured, &im->cap_captured, im->n_captured + 1, sizeof *im->captured, "a subgraph", err));
  ML_TRY(ml_graph_capture(im->graph, name, outer, out, err));
  im->captured[im->n_captured++] = outer;
  return ML_OK;
}

static ml_status recycle(ml__importer *im, ml_error *err) {
  ml_arena_free(im->arena);
  im->arena = ml_arena_new();
  im->upgrade.scratch = im->arena;
  return im->arena ? ML_OK : ml_fail_memory(err, 1, "an import");
}

static ml_status scan_graph(ml__importer *im, ml_error *err) {
  ml_pb_reader reader = im->body;
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    switch (f.number) {
      case ML__GRAPH_NODE:
      case ML__GRAPH_INITIALIZER:
      case ML__GRAPH_INPUT:
      case ML__GRAPH_OUTPUT:
      case ML__GRAPH_SPARSE_INITIALIZER:
      case ML__GRAPH_VALUE_INFO: ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "GraphProto", err)); break;
      case ML__GRAPH_NAME: ML_TRY(ml__onnx_text(&f, im->graph->arena, "GraphProto.name", &im->graph->name, err)); break;
      case ML__GRAPH_DOC:
        if (!im->graph->doc) ML_TRY(ml__onnx_text(&f, im->graph->arena, "GraphProto.doc_string", &im->graph->doc, err));
        break;
      default: break;
    }
  }
  return status;
}

typedef ml_status (*tensor_reader)(ml__onnx_source *source, ml_pb_reader reader, ml_tensor **out, ml_error *err);

static ml_status add_initializer(ml__importer *im, ml_pb_reader reader, ml_pb_reader named, tensor_reader read, ml_error *err) {
  const char *at;
  size_t length;
  ML_TRY(ml__onnx_tensor_name(named, &at, &length, err));
  ml_pb_field f = {.number = ML__TENSOR_NAME, .wire = ML_PB_BYTES, .bytes = (const uint8_t *)at, .size = length};
  const char *name;
  ML_TRY(ml__onnx_text(&f, im->arena, "initialiser name", &name, err));
  if (!*name) return ml_fail(err, ML_INVALID_ARGUMENT, "initialiser without a name");
  if (ml_graph_find(im->graph, name)) return ml_fail(err, ML_INVALID_ARGUMENT, "initialiser '%s' is defined twice", name);
  ml_tensor *tensor;
  ml_status status = read(im->source, reader, &tensor, err);
  if (status == ML_OK) {
    bool trainable = !im->outer && (tensor->view.dtype == ML_FLOAT32 || tensor->view.dtype == ML_FLOAT64) && tensor->view.count > 0;
    status = ml_graph_initializer(im->graph, name, tensor, trainable, NULL, err);
    ml_tensor_release(tensor);
  }
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "initialiser '%s'", name);
}

static ml_status read_initializer(ml__importer *im, ml_pb_reader reader, ml_error *err) {
  return add_initializer(im, reader, reader, ml__onnx_tensor, err);
}

/* It is named by its values. */
static ml_status read_sparse_initializer(ml__importer *im, ml_pb_reader reader, ml_error *err) {
  ml_pb_reader values;
  ML_TRY(ml__onnx_sparse_values(reader, &values, err));
  return add_initializer(im, reader, values, ml__onnx_sparse_tensor, err);
}

/* What a formal input of a subgraph is when the file does not say: Loop's iteration number and condition, else the element type of what the node
 * is given for it. */
static void hint(const ml__importer *im, ml__declared *type) {
  size_t index = im->graph->n_inputs;
  const ml__onnx_node *node = im->subgraph_of;
  bool loop = strcmp(node->op, "Loop") == 0;
  if (loop && index < 2) {
    *type = (ml__declared){.dtype = index == 0 ? ML_INT64 : ML_BOOL};
    return;
  }
  if (strcmp(node->op, "Scan") == 0 && node->version < 9) index++;
  const ml_value *given = index < node->n_in ? node->in[index] : NULL;
  if (!given) return;
  uint32_t coded = given->type;
  if (strcmp(node->op, "SequenceMap") == 0 && coded) coded = ml_type_inner(coded);
  else if (!coded) coded = ml_type_tensor(given->dtype);
  ml_view view = {.rank = ML_UNKNOWN};
  ml_op_set_type(&view, coded);
  type->dtype = view.dtype;
  type->type = view.type;
  type->rank = view.rank;
}

static ml_status read_input(ml__importer *im, ml_pb_reader reader, ml_error *err) {
  const char *name;
  ml__declared type;
  ML_TRY(read_value_info(im, reader, "input", &name, &type, err));
  if (type.dtype == ML_DTYPE_NONE && im->subgraph_of) hint(im, &type);
  if (type.dtype == ML_DTYPE_NONE) return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s' has no element type", name);
  ml_value *value = ml_graph_find(im->graph, name);
  if (value && value->init) { /* before IR 4 every initialiser was listed, later ones are defaults that callers rarely override */
    if (value->dtype == type.dtype) return ML_OK;
    return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s' is declared %s, its initialiser is %s", name, ml_dtype_name(type.dtype),
                   ml_dtype_name(value->dtype));
  }
  if (value) return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s' is defined twice", name);
  ml_view like = {.dtype = type.dtype, .type = type.type, .rank = type.rank};
  memcpy(like.dims, type.dims, sizeof like.dims);
  ML_TRY(ml_graph_input_like(im->graph, name, &like, &value, err));
  for (int32_t d = 0; d < type.rank; d++) if (type.dims[d] == ML_UNKNOWN) value->dim_names[d] = type.names[d];
  return ML_OK;
}

/* Names of unknown dimensions, and a whole shape where inference found none. */
static void adopt(ml_value *value, const ml__declared *type) {
  if (value->rank == ML_UNKNOWN && type->rank != ML_UNKNOWN) {
    value->rank = type->rank;
    memcpy(value->dims, type->dims, sizeof value->dims);
  }
  if (value->rank != type->rank) return;
  for (int32_t d = 0; d < type->rank; d++)
    if (value->dims[d] == ML_UNKNOWN && !value->dim_names[d]) value->dim_names[d] = type->names[d];
}

static ml_status read_output(ml__importer *im, ml_pb_reader reader, ml_error *err) {
  const char *name;
  ml__declared type;
  ML_TRY(read_value_info(im, reader, "output", &name, &type, err));
  ml_value *value;
  bool found;
  ML_TRY(find(im, name, &found, &value, err));
  if (!found || !value) return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is produced by no node", name);
  if (value->is_output && !im->outer) return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is listed twice", name);
  if ((type.type || value->type) && type.dtype != ML_DTYPE_NONE && value->dtype != ML_DTYPE_NONE && !ml_type_fits(type.type, value->type)) {
    char declared[96], is[96];
    return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is declared %s, but is %s", name,
                   ml_type_format(type.type ? type.type : ml_type_tensor(type.dtype), declared, sizeof declared),
                   ml_type_format(value->type ? value->type : ml_type_tensor(value->dtype), is, sizeof is));
  }
  if (type.dtype != ML_DTYPE_NONE && value->dtype != ML_DTYPE_NONE && type.dtype != value->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is declared %s, but is %s", name, ml_dtype_name(type.dtype),
                   ml_dtype_name(value->dtype));
  if (value->dtype == ML_DTYPE_NONE) value->dtype = type.dtype;
  adopt(value, &type);
  return ml_graph_output(im->graph, value, err);
}

/* ---------------------------------------------------------------- nodes ---- */
typedef struct node_fields {
  const char *op, *name, *domain, *overload;
  size_t n_in, n_out, n_attrs;
} node_fields;

static ml_status scan_node(ml__importer *im, ml_pb_reader reader, node_fields *out, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  *out = (node_fields){"", "", "", "", 0, 0, 0};
  while (ml_pb_next(&reader, &f, &status, err)) {
    switch (f.number) {
      case ML__NODE_OP_TYPE: ML_TRY(ml__onnx_text(&f, im->arena, "NodeProto.op_type", &out->op, err)); break;
      case ML__NODE_NAME: ML_TRY(ml__onnx_text(&f, im->arena, "NodeProto.name", &out->name, err)); break;
      case ML__NODE_DOMAIN: ML_TRY(ml__onnx_text(&f, im->arena, "NodeProto.domain", &out->domain, err)); break;
      case ML__NODE_INPUT: out->n_in++; break;
      case ML__NODE_OUTPUT: out->n_out++; break;
      case ML__NODE_ATTRIBUTE: out->n_attrs++; break;
      case ML__NODE_OVERLOAD: ML_TRY(ml__onnx_text(&f, im->arena, "NodeProto.overload", &out->overload, err)); break;
      default: break;
    }
  }
  if (strcmp(out->domain, "ai.onnx") == 0) out->domain = "";
  return status;
}

static const ml_op_def *find_op(const node_fields *node) {
  const ml_op_def *op = ml_op_find(node->domain, ml__opset_current_name(node->domain, node->op));
  return op && !(op->flags & (ML_OP_TRAINING | ML_OP_INTERNAL)) ? op : NULL; /* those never leave the program */
}

/* Version of the node's operator set; 0: not imported. */
static int64_t version_of(const ml__importer *im, const char *domain) {
  int32_t at = ml__opset_domain(domain);
  return at < 0 ? 0 : im->versions[at];
}

/* All operators that we lack in one message: whoever converts a model wants to know the whole distance. */
typedef struct missing { const char *op, *domain; struct missing *next; } missing;
typedef struct shortfall {
  missing *all;
  char list[ML_ERROR_MAX - LISTED];
  size_t left_out, count;
} shortfall;

enum { MISSING_MAX = 1000 }; /* of a hostile file; the list is long enough by then */

static ml_status note_missing(const ml__importer *im, const node_fields *node, size_t index, shortfall *s, ml_error *err) {
  if (!*node->op) return ml_fail(err, ML_INVALID_ARGUMENT, "node %zu ('%s') has no op_type", index, node->name);
  missing *m = s->all;
  while (m && (strcmp(m->op, node->op) != 0 || strcmp(m->domain, node->domain) != 0)) m = m->next;
  if (m) return ML_OK;
  ml_arena *scratch = im->source->scratch;
  m = ml_arena_alloc(scratch, sizeof *m);
  if (!m || !(m->op = ml_arena_strndup(scratch, node->op, strlen(node->op))) || !(m->domain = ml_arena_strndup(scratch, node->domain, strlen(node->domain))))
    return ml_fail_memory(err, sizeof *m, "an import");
  m->next = s->all;
  s->all = m;
  if (++s->count > MISSING_MAX) return fail_list(err, "unsupported operators", s->list, s->left_out + 1);
  const char *domain = *node->domain ? node->domain : "ai.onnx";
  int64_t version = version_of(im, node->domain);
  char number[32] = "";
  if (version > 0) snprintf(number, sizeof number, ", version %lld", (long long)version);
  if (*node->name) list_add(s->list, sizeof s->list, &s->left_out, "%s (domain %s%s) at node '%s'", node->op, domain, number, node->name);
  else list_add(s->list, sizeof s->list, &s->left_out, "%s (domain %s%s) at node %zu", node->op, domain, number, index);
  return ML_OK;
}

static ml_status look_at_nodes(ml__importer *im, ml_pb_reader reader, uint32_t field, shortfall *s, ml_error *err);

static ml_status look_at_subgraphs(ml__importer *im, ml_pb_reader node, shortfall *s, ml_error *err) {
  ml_pb_field f, inner;
  ml_status status;
  while (ml_pb_next(&node, &f, &status, err)) {
    if (f.number != ML__NODE_ATTRIBUTE) continue;
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "NodeProto.attribute", err));
    ml_pb_reader attr = ml_pb_reader_sub(&node, &f);
    while (ml_pb_next(&attr, &inner, &status, err)) {
      if (inner.number != ML__ATTR_G) continue;
      ML_TRY(ml_pb_expect(&inner, ML_PB_BYTES, "AttributeProto.g", err));
      ML_TRY(look_at_nodes(im, ml_pb_reader_sub(&attr, &inner), ML__GRAPH_NODE, s, err));
    }
    ML_TRY(status);
  }
  return status;
}

static ml_status look_at_function(ml__importer *im, ml__function *function, shortfall *s, ml_error *err) {
  if (function->checked) return ML_OK;
  function->checked = true;
  ml__importer body = *im;
  body.arena = NULL;
  ml_status status = ml__onnx_function_opsets(&body, function, err);
  if (status == ML_OK) status = look_at_nodes(&body, function->body, ML__FUNCTION_NODE, s, err);
  ml_arena_free(body.arena);
  return status;
}

static ml_status look_at_nodes(ml__importer *im, ml_pb_reader reader, uint32_t field, shortfall *s, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  size_t index = 0;
  if (++im->depth > im->source->limits.max_depth)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "calls and subgraphs nest deeper than %zu", im->source->limits.max_depth);
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != field) continue;
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "NodeProto", err));
    if (index++ % ARENA_NODES == 0) ML_TRY(recycle(im, err));
    ml_pb_reader node_reader = ml_pb_reader_sub(&reader, &f);
    node_fields node;
    ML_TRY(scan_node(im, node_reader, &node, err));
    ml__function *function = ml__onnx_find_function(im, node.domain, node.op, node.overload);
    if (function) ML_TRY(look_at_function(im, function, s, err));
    else if (!find_op(&node) && !ml__onnx_is_gradient(node.domain, node.op)) ML_TRY(note_missing(im, &node, index - 1, s, err));
    ML_TRY(look_at_subgraphs(im, node_reader, s, err)); /* after this the node's texts may be gone */
  }
  im->depth--;
  return status;
}

static ml_status refuse_unsupported(ml__importer *im, ml_error *err) {
  shortfall s = {0};
  ML_TRY(look_at_nodes(im, im->body, ML__GRAPH_NODE, &s, err));
  return s.all ? fail_list(err, "unsupported operators", s.list, s.left_out) : ML_OK;
}

/* The file's name wins over one that the import made up. */
static ml_status give_way(ml__importer *im, const char *name, ml_error *err) {
  ml_value *value = ml_graph_find(im->graph, name);
  if (!value) return ML_OK;
  for (size_t i = 0; i < im->upgrade.n_made; i++) {
    if (im->upgrade.made[i] != value) continue;
    for (uint32_t k = 1;; k++) {
      const char *other = ml_arena_printf(im->arena, "%s_%u", name, k);
      if (!other) return ml_fail_memory(err, 1, "a name");
      if (!ml_graph_find(im->graph, other)) return ml_graph_rename(im->graph, value, other, err);
    }
  }
  return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is defined twice", name);
}

/* What a name that the file defines is called in the graph. */
ml_status ml__onnx_local_name(const ml__importer *im, const char *name, const char **out, ml_error *err) {
  *out = name;
  if (!im->local || !*name) return ML_OK;
  for (size_t i = 0; i < im->call->n_outputs; i++) {
    const ml__binding *b = &im->call->outputs[i];
    if (strcmp(b->name, name) != 0 || !*b->as) continue;
    *out = b->as;
    return ML_OK;
  }
  *out = ml_arena_printf(im->arena, "%s/%s", im->call->prefix, name);
  return *out ? ML_OK : ml_fail_memory(err, strlen(name), "a name");
}

static ml_status read_edges(ml__importer *im, ml_pb_reader reader, ml__onnx_node *node, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    const char *name;
    if (f.number == ML__NODE_INPUT) {
      ml_value *value = NULL;
      bool found = true;
      ML_TRY(ml__onnx_text(&f, im->arena, "NodeProto.input", &name, err));
      if (*name) ML_TRY(find(im, name, &found, &value, err));
      if (!found)
        return ml_fail(err, ML_INVALID_ARGUMENT,
                       "input '%s' is neither a graph input, an initialiser nor an output of an earlier node", name);
      node->in[node->n_in++] = value;
    } else if (f.number == ML__NODE_OUTPUT) {
      ML_TRY(ml__onnx_text(&f, im->arena, "NodeProto.output", &name, err));
      ML_TRY(ml__onnx_local_name(im, name, &name, err));
      if (*name) ML_TRY(give_way(im, name, err));
      node->out[node->n_out++] = name;
    }
  }
  return status;
}

/* The node in its canonical form, then what an upgrade put behind it. */
static ml_status make_node(ml__importer *im, const ml_op_def *op, const ml__onnx_node *n, ml_error *err) {
  ml_graph *g = im->graph;
  ml_value **out = ml_arena_alloc(im->arena, (n->n_out + 1) * sizeof *out);
  if (!out) return ml_fail_memory(err, n->n_out * sizeof *out, "a node");
  ML_TRY(ml_graph_node(g, op, n->name, n->attrs, n->n_attrs, n->n_in, n->in, n->n_out, n->out, out, err));
  for (size_t i = 0; i < n->n_out; i++) if (!n->out[i]) ML_TRY(ml__opset_made(&im->upgrade, out[i], err));
  for (size_t i = 0; i < n->n_after; i++) {
    const ml__after *a = &n->after[i];
    const ml_op_def *def = ml_op_find("", a->op);
    if (!def) return ml_fail(err, ML_UNIMPLEMENTED, "operator %s is missing", a->op);
    ml_value *in[2] = {out[a->output], a->second}, *last;
    ML_TRY(
        ml_graph_node(g, def, NULL, &a->attr, a->attr.type != ML_ATTR_NONE, a->second ? 2 : 1, in, 1, &a->out_name, &last, err));
  }
  return ML_OK;
}

/* A subgraph where the operator takes none: refused before an upgrade rewrites the attributes and loses it. */
static ml_status check_graphs(const ml_op_def *op, const ml__onnx_node *node, ml_error *err) {
  for (size_t i = 0; i < node->n_attrs; i++) {
    const ml_attr_def *def = op->attrs;
    while (def && def->name && (def->type != ML_ATTR_GRAPH || strcmp(def->name, node->attrs[i].name) != 0)) def++;
    if (node->attrs[i].type == ML_ATTR_GRAPH && (!def || !def->name))
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is a graph, which the operator does not take", node->attrs[i].name);
  }
  return ML_OK;
}

static ml_status read_node(ml__importer *im, ml_pb_reader reader, size_t index, ml_error *err) {
  node_fields fields;
  ML_TRY(scan_node(im, reader, &fields, err));
  const ml__function *function = ml__onnx_find_function(im, fields.domain, fields.op, fields.overload);
  const ml_op_def *op = function ? NULL : find_op(&fields);
  char place[320];
  if (*fields.name) snprintf(place, sizeof place, "%s '%s'", fields.op, fields.name);
  else snprintf(place, sizeof place, "%s (node %zu)", fields.op, index);
  if (++im->source->nodes > im->source->limits.max_nodes)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%s: more than %zu nodes", place, im->source->limits.max_nodes);
  int64_t version = version_of(im, fields.domain);
  if (!function && version == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: operator set %s is not imported", place,
                   *fields.domain ? fields.domain : "ai.onnx");
  int32_t first = ml__opset_introduced(fields.domain, fields.op);
  if (!function && version < first)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: the operator exists since version %d, the model imports %lld", place, first,
                   (long long)version);
  ml__onnx_node node = {.domain = fields.domain, .op = fields.op, .name = fields.name, .version = version};
  node.attrs = ml_arena_alloc(im->arena, (fields.n_attrs + ML__OPSET_ROOM) * sizeof *node.attrs);
  node.in = ml_arena_alloc(im->arena, (fields.n_in + ML__OPSET_ROOM) * sizeof *node.in);
  node.out = ml_arena_alloc(im->arena, (fields.n_out + 1) * sizeof *node.out);
  if (!node.attrs || !node.in || !node.out) return ml_fail_memory(err, 1, place);
  ml__owned owned = {0};
  ml_status status = read_edges(im, reader, &node, err);
  if (status == ML_OK) status = ml__onnx_read_attrs(im, reader, &node, &owned, err);
  if (status == ML_OK && op) status = check_graphs(op, &node, err);
  if (status == ML_OK && !op && !function)
    status = ml__onnx_gradient(&im->upgrade, &node, im->source->limits.max_nodes, err);
  if (status == ML_OK && op) status = check_graphs(op, &node, err);
  if (status == ML_OK && op) {
    status = ml__opset_upgrade(&im->upgrade, &node, err);
    owned.n_graphs = 0; /* an upgrade may have put a graph around a graph */
    for (size_t i = 0; i < node.n_attrs; i++) if (node.attrs[i].type == ML_ATTR_GRAPH) owned.graphs[owned.n_graphs++] = node.attrs[i].as.graph;
  }
  if (status != ML_OK) status = ml_fail_in(err, status, "%s", place);
  else if (function) status = ml__onnx_call(im, function, &node, place, err);
  else if (op) status = make_node(im, op, &node, err);
  if (status == ML_OK) owned.n_graphs = 0; /* the node's now */
  ml__onnx_release_owned(&owned);
  return status;
}

/* ---------------------------------------------------------------- all ---- */
typedef ml_status (*reader_of)(ml__importer *im, ml_pb_reader reader, ml_error *err);

static ml_status for_each(ml__importer *im, uint32_t number, reader_of read, ml_error *err) {
  ml_pb_reader reader = im->body;
  ml_pb_field f;
  ml_status status;
  size_t n = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != number) continue;
    if (n++ % ARENA_NODES == 0) ML_TRY(recycle(im, err));
    ML_TRY(read(im, ml_pb_reader_sub(&reader, &f), err));
  }
  return status;
}

ml_status ml__onnx_read_nodes(ml__importer *im, uint32_t field, ml_error *err) {
  ml_pb_reader reader = im->body;
  ml_pb_field f;
  ml_status status;
  size_t n = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != field) continue;
    if (n++ % ARENA_NODES == 0) ML_TRY(recycle(im, err));
    ML_TRY(read_node(im, ml_pb_reader_sub(&reader, &f), n - 1, err));
  }
  return status;
}

static ml_status read_intermediate(ml__importer *im, ml_pb_reader reader, ml_error *err) {
  const char *name;
  ml__declared type;
  ml_error ignored;
  if (read_value_info(im, reader, "value_info", &name, &type, &ignored) == ML_RESOURCE_EXHAUSTED)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%s", ignored.message);
  if (type.dtype == ML_DTYPE_NONE || type.type) return ML_OK; /* of no use, or malformed: it is only a hint */
  ml_value *value = ml_graph_find(im->graph, name);
  if (value && value->producer && value->dtype == type.dtype && value->rank == type.rank) adopt(value, &type);
  return ML_OK;
}

/* Parameters are all float initialisers but those the metadata freezes and those that are settings or statistics. */
static ml_status freeze(ml__importer *im, ml_error *err) {
  ml_graph *g = im->graph;
  for (size_t i = 0; i < g->n_nodes; i++) {
    const ml_node *node = g->nodes[i];
    for (int32_t k = 0; k < node->n_in; k++)
      if (node->in[k] && node->in[k]->init && !ml__opset_is_parameter(node->op, k)) node->in[k]->trainable = false;
  }
  const ml_property *property = ml_graph_property(g, FROZEN_KEY);
  if (!property) return ML_OK;
  ml_json_reader reader;
  bool first = true, more;
  ml_json_reader_init(&reader, property->value, property->length);
  ML_TRY(ml_json_enter_array(&reader, err));
  for (;;) {
    size_t length;
    ML_TRY(ml_json_array_next(&reader, &first, &more, err));
    if (!more) break;
    ML_TRY(ml_json_string_length(&reader, &length, err));
    char *name = ml_alloc(length + 1);
    if (!name) return ml_fail_memory(err, length + 1, "metadata");
    ml_status status = ml_json_string_read(&reader, name, &length, err);
    if (status == ML_OK) {
      name[length] = '\0';
      ml_value *value = ml_graph_find(g, name);
      if (value) value->trainable = false;
    }
    ml_free(name);
    ML_TRY(status);
  }
  ML_TRY(ml_json_expect_end(&reader, err));
  ml_graph_remove_property(g, FROZEN_KEY); /* written anew from the flags */
  return ML_OK;
}

static ml_status read_graph(ml__importer *im, ml_error *err) {
  ML_TRY(recycle(im, err));
  ML_TRY(scan_graph(im, err));
  ML_TRY(for_each(im, ML__GRAPH_INITIALIZER, read_initializer, err));
  ML_TRY(for_each(im, ML__GRAPH_SPARSE_INITIALIZER, read_sparse_initializer, err));
  ML_TRY(for_each(im, ML__GRAPH_INPUT, read_input, err));
  ML_TRY(ml__onnx_read_nodes(im, ML__GRAPH_NODE, err));
  ML_TRY(for_each(im, ML__GRAPH_VALUE_INFO, read_intermediate, err));
  ML_TRY(for_each(im, ML__GRAPH_OUTPUT, read_output, err));
  return im->graph->n_outputs > 0 ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "the graph has no outputs");
}

/* The node's inputs with what the subgraph captured behind them. */
static ml_status append_captures(ml__importer *im, const ml__importer *inner, ml__onnx_node *node, ml_error *err) {
  if (inner->n_captured == 0) return ML_OK;
  ml_value **in = ml_arena_alloc(im->arena, (node->n_in + inner->n_captured + ML__OPSET_ROOM) * sizeof *in);
  if (!in) return ml_fail_memory(err, inner->n_captured * sizeof *in, "a subgraph");
  if (node->n_in) memcpy(in, node->in, node->n_in * sizeof *in);
  memcpy(in + node->n_in, inner->captured, inner->n_captured * sizeof *in);
  node->in = in;
  node->n_in += inner->n_captured;
  return ML_OK;
}

ml_status ml__onnx_read_subgraph(ml__importer *im, ml_pb_reader reader, ml__onnx_node *node, ml_graph **out, ml_error *err) {
  if (im->depth >= im->source->limits.max_depth)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "calls and subgraphs nest deeper than %zu", im->source->limits.max_depth);
  ml__importer inner = *im;
  inner.outer = im;
  inner.local = false;
  inner.subgraph_of = node;
  inner.depth++;
  inner.body = reader;
  inner.arena = NULL;
  inner.captured = NULL;
  inner.n_captured = inner.cap_captured = 0;
  ML_TRY(ml_graph_new(NULL, &inner.graph, err));
  inner.upgrade = (ml__upgrade){.graph = inner.graph};
  ml_status status = read_graph(&inner, err);
  if (status == ML_OK) status = append_captures(im, &inner, node, err);
  ml_arena_free(inner.arena);
  ml_free(inner.upgrade.made);
  ml_free(inner.captured);
  if (status == ML_OK) *out = inner.graph;
  else ml_graph_free(inner.graph);
  return status;
}

static ml_status import(ml__importer *im, ml_error *err) {
  ML_TRY(recycle(im, err));
  ML_TRY(read_model(im, err));
  im->graph->onnx_opset = im->versions[0];
  im->graph->onnx_ml_opset = im->versions[1];
  ML_TRY(refuse_unsupported(im, err));
  ML_TRY(read_graph(im, err));
  ml_status status = freeze(im, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "metadata '" FROZEN_KEY "'");
}

static ml_status read_source(ml__onnx_source *source, const ml_onnx_limits *limits, ml_graph **out, ml_error *err) {
  *out = NULL;
  if (limits) source->limits = *limits;
  if (source->limits.max_bytes == 0) source->limits.max_bytes = (size_t)8 << 30;
  if (source->limits.max_nodes == 0) source->limits.max_nodes = 1000000;
  if (source->limits.max_depth == 0) source->limits.max_depth = 64;
  if (source->size == 0) return ml_fail(err, ML_DATA_LOSS, "the file is empty");
  if (source->size > source->limits.max_bytes || source->size > INT32_MAX) /* protobuf's own limit */
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu bytes are over the limit of %zu", source->size,
                   source->limits.max_bytes < INT32_MAX ? source->limits.max_bytes : (size_t)INT32_MAX);
  source->total = source->size;
  ml__importer im = {.source = source};
  source->scratch = ml_arena_new();
  ml_status status = source->scratch ? ml_graph_new(NULL, &im.graph, err) : ml_fail_memory(err, 1, "an import");
  if (status == ML_OK) {
    im.upgrade.graph = im.graph;
    ml_pb_reader_init(&im.model, source->bytes, source->size);
    status = import(&im, err);
  }
  ml_arena_free(im.arena);
  ml_free(im.upgrade.made);
  ml_free(source->functions);
  ml__onnx_external_close(source);
  ml_arena_free(source->scratch);
  if (status == ML_OK) *out = im.graph;
  else ml_graph_free(im.graph);
  return status;
}

ml_status ml_onnx_read(const void *bytes, size_t size, const char *what, const ml_onnx_limits *limits, ml_graph **out,
                       ml_error *err) {
  ml__onnx_source source = {.bytes = bytes, .size = size};
  ml_status status = read_source(&source, limits, out, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", what);
}

static void unmap(void *context) {
  ml_file_unmap(context);
  ml_free(context);
}

static ml_status load(const char *path, const ml_onnx_limits *limits, ml_graph **out, ml_error *err) {
  const char *slash = strrchr(path, '/');
  char *directory = slash ? ml_strndup(path, slash == path ? 1 : (size_t)(slash - path)) : ml_strndup(".", 1);
  ml_file_map *map = ml_alloc_zero(1, sizeof *map);
  ml_storage *storage = NULL;
  bool copy = limits && limits->copy; /* weights are copied out of a copy, so that the rest of it goes */
  ml_status status = directory && map ? (copy ? ml_file_open_copy : ml_file_open_map)(path, map, err) : ml_fail_memory(err, sizeof *map, path);
  if (status == ML_OK) {
    storage = ml_storage_wrap((void *)(uintptr_t)map->bytes, map->size, unmap, map);
    if (!storage) {
      ml_file_unmap(map);
      status = ml_fail_memory(err, sizeof *map, path);
    }
  }
  if (status == ML_OK) {
    ml__onnx_source source = {.bytes = map->bytes, .size = map->size, .storage = copy ? NULL : storage, .directory = directory};
    status = read_source(&source, limits, out, err);
    if (status == ML_OK && !copy) ml_file_forget(map); /* most weights have been copied, being unaligned: once in memory is enough */
  }
  if (!storage) ml_free(map);
  ml_storage_release(storage); /* the weights in place keep it alive */
  ml_free(directory);
  return status;
}

ml_status ml_onnx_load(const char *path, const ml_onnx_limits *limits, ml_graph **out, ml_error *err) {
  *out = NULL;
  ml_status status = load(path, limits, out, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", path);
}
