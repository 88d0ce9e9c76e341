/* ModelProto to graph.
 * Nothing in the file is believed: wire types are checked, a single message that comes twice is refused (merging is where readers
 * differ), counts are bounded by the bytes that hold them, names are UTF-8 without NUL, nodes must be in topological order (so
 * there are no cycles) and every name has one definition. The graph message is walked several times, once per kind of thing in
 * it; a walk only hops over lengths, so this is cheaper than keeping an index, and needs no memory. Functions, subgraphs and
 * sparse tensors are refused by name at one place each (refuse_functions, read_attr, scan_graph). */
#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "codec/json.h"
#include "codec/utf8.h"
#include "format/onnx_proto.h"
#include "format/opset.h"

enum {
  ARENA_NODES = 64 /* nodes that share one scratch arena */,
  LISTED = 160 /* bytes of an error kept for what follows a list */
};
#define FROZEN_KEY "mlserve.frozen"

typedef struct importer {
  ml__onnx_source *source;
  ml_graph *graph;
  ml_arena *arena; /* of the current nodes */
  int64_t ir_version, onnx_version, ml_version;
  bool has_onnx, has_ml;
  ml_pb_reader model, body; /* whole model; its graph */
  ml__upgrade upgrade;
} importer;

/* ---------------------------------------------------------------- fields ---- */
/* A string of the file as a C string in arena; `what` names the field in messages. */
static ml_status text(const ml_pb_field *f, ml_arena *arena, const char *what, const char **out, ml_error *err) {
  size_t bad;
  ML_TRY(ml_pb_expect(f, ML_PB_BYTES, what, err));
  if (f->size > 0 && memchr(f->bytes, 0, f->size)) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: NUL in a string", what);
  if (!ml_utf8_valid(f->bytes, f->size, &bad)) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: not UTF-8 at byte %zu", what, bad);
  *out = ml_arena_strndup(arena, f->size ? (const char *)f->bytes : "", f->size);
  return *out ? ML_OK : ml_fail_memory(err, f->size, what);
}

/* A singular embedded message: may come once. */
static ml_status message(const ml_pb_reader *parent, const ml_pb_field *f, bool *seen, const char *what, ml_pb_reader *out,
                         ml_error *err) {
  ML_TRY(ml_pb_expect(f, ML_PB_BYTES, what, err));
  if (*seen) return ml_fail(err, ML_INVALID_ARGUMENT, "%s is given twice", what);
  *seen = true;
  *out = ml_pb_reader_sub(parent, f);
  return ML_OK;
}

static bool same(const ml_pb_field *f, const char *name) {
  size_t n = strlen(name);
  return f->size == n && (n == 0 || memcmp(f->bytes, name, n) == 0);
}

/* ---------------------------------------------------------------- model ---- */
static ml_status read_opset(importer *im, ml_pb_reader reader, ml_error *err) {
  ml_pb_field f, domain = {0};
  ml_status status;
  int64_t version = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__OPSET_DOMAIN) {
      ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "OperatorSetIdProto.domain", err));
      domain = f;
    } else if (f.number == ML__OPSET_VERSION) {
      ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "OperatorSetIdProto.version", err));
      version = (int64_t)f.integer;
    }
  }
  if (status != ML_OK) return status;
  bool onnx = same(&domain, "") || same(&domain, "ai.onnx"), ml = same(&domain, "ai.onnx.ml");
  if (!onnx && !ml) return ML_OK; /* matters only if a node uses it, and then the operator is unknown */
  const char *name = onnx ? "ai.onnx" : "ai.onnx.ml";
  int64_t newest = onnx ? ML__NEWEST_ONNX : ML__NEWEST_ONNX_ML;
  if (onnx ? im->has_onnx && im->onnx_version != version : im->has_ml && im->ml_version != version) /* some converters repeat a line */
    return ml_fail(err, ML_INVALID_ARGUMENT, "operator set %s is imported twice", name);
  if (version < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "operator set %s has version %lld", name, (long long)version);
  if (version > newest)
    return ml_fail(err, ML_UNIMPLEMENTED, "operator set %s version %lld is newer than %lld, the newest one known here", name,
                   (long long)version, (long long)newest);
  if (onnx) im->has_onnx = true, im->onnx_version = version;
  else im->has_ml = true, im->ml_version = version;
  return ML_OK;
}

static ml_status read_property(importer *im, ml_pb_reader reader, ml_error *err) {
  ml_pb_field f, value = {0};
  ml_status status;
  const char *key = "";
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__ENTRY_KEY) ML_TRY(text(&f, im->source->scratch, "metadata key", &key, err));
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

static ml_status refuse_functions(importer *im, ml_error *err) {
  char list[ML_ERROR_MAX - LISTED] = "";
  size_t left_out = 0;
  ml_pb_reader reader = im->model;
  ml_pb_field f, inner;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != ML__MODEL_FUNCTION) continue;
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "ModelProto.functions", err));
    ml_pb_reader function = ml_pb_reader_sub(&reader, &f);
    const char *name = "", *domain = "";
    while (ml_pb_next(&function, &inner, &status, err)) {
      if (inner.number == ML__FUNCTION_NAME) ML_TRY(text(&inner, im->source->scratch, "function name", &name, err));
      if (inner.number == ML__FUNCTION_DOMAIN) ML_TRY(text(&inner, im->source->scratch, "function domain", &domain, err));
    }
    if (status != ML_OK) return status;
    list_add(list, sizeof list, &left_out, "%s (domain %s)", name, *domain ? domain : "ai.onnx");
  }
  if (status != ML_OK) return status;
  return *list || left_out ? fail_list(err, "model functions are not supported", list, left_out) : ML_OK;
}

static ml_status read_model(importer *im, ml_error *err) {
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
      case ML__MODEL_PRODUCER_NAME: ML_TRY(text(&f, g->arena, "ModelProto.producer_name", &g->producer_name, err)); break;
      case ML__MODEL_PRODUCER_VERSION:
        ML_TRY(text(&f, g->arena, "ModelProto.producer_version", &g->producer_version, err));
        break;
      case ML__MODEL_VERSION:
        ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "ModelProto.model_version", err));
        g->model_version = (int64_t)f.integer;
        break;
      case ML__MODEL_DOC: ML_TRY(text(&f, g->arena, "ModelProto.doc_string", &g->doc, err)); break;
      case ML__MODEL_GRAPH: ML_TRY(message(&reader, &f, &has_graph, "ModelProto.graph", &im->body, err)); break;
      case ML__MODEL_OPSET:
        ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "ModelProto.opset_import", err));
        ML_TRY(read_opset(im, ml_pb_reader_sub(&reader, &f), err));
        break;
      case ML__MODEL_METADATA:
        ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "ModelProto.metadata_props", err));
        ML_TRY(read_property(im, ml_pb_reader_sub(&reader, &f), err));
        break;
      default: break;
    }
  }
  if (status != ML_OK) return status;
  if (im->ir_version < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "no ir_version: not an ONNX model");
  if (!has_graph) return ml_fail(err, ML_INVALID_ARGUMENT, "the model has no graph");
  if (!im->has_onnx && im->ir_version < 3) im->has_onnx = true, im->onnx_version = 1; /* before versions were imported */
  return refuse_functions(im, err);
}

/* ---------------------------------------------------------------- types ---- */
typedef struct declared {
  ml_dtype dtype;
  int32_t rank; /* ML_UNKNOWN: no shape */
  int64_t dims[ML_MAX_RANK];
  const char *names[ML_MAX_RANK]; /* in the graph's arena */
} declared;

static ml_status read_dim(importer *im, ml_pb_reader reader, declared *type, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  if (type->rank == ML_MAX_RANK) return ml_fail(err, ML_INVALID_ARGUMENT, "rank over %d", ML_MAX_RANK);
  int32_t d = type->rank++;
  type->dims[d] = ML_UNKNOWN;
  type->names[d] = NULL;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__DIM_VALUE) {
      ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "dim_value", err));
      type->dims[d] = (int64_t)f.integer; /* -1 is written by some for "unknown" */
      if (type->dims[d] < ML_UNKNOWN)
        return ml_fail(err, ML_INVALID_ARGUMENT, "dimension %d is negative (%lld)", d, (long long)type->dims[d]);
    } else if (f.number == ML__DIM_PARAM && f.size > 0) {
      ML_TRY(text(&f, im->graph->arena, "dim_param", &type->names[d], err));
    }
  }
  return status;
}

static ml_status read_tensor_type(importer *im, ml_pb_reader reader, declared *type, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  uint64_t element = 0;
  bool has_shape = false;
  ml_pb_reader shape = {0};
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__TENSOR_TYPE_ELEM) {
      ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "elem_type", err));
      element = f.integer;
    } else if (f.number == ML__TENSOR_TYPE_SHAPE) {
      ML_TRY(message(&reader, &f, &has_shape, "shape", &shape, err));
    }
  }
  if (status != ML_OK) return status;
  if (element != 0) ML_TRY(ml__onnx_dtype(element, &type->dtype, err));
  if (!has_shape) return ML_OK;
  type->rank = 0;
  while (ml_pb_next(&shape, &f, &status, err)) {
    if (f.number != ML__SHAPE_DIM) continue;
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "dim", err));
    ML_TRY(read_dim(im, ml_pb_reader_sub(&shape, &f), type, err));
  }
  return status;
}

static ml_status read_type(importer *im, ml_pb_reader reader, declared *type, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  bool seen = false;
  ml_pb_reader tensor = {0};
  while (ml_pb_next(&reader, &f, &status, err)) {
    const char *kind = NULL;
    switch (f.number) {
      case ML__TYPE_TENSOR: ML_TRY(message(&reader, &f, &seen, "tensor_type", &tensor, err)); break;
      case ML__TYPE_SEQUENCE: kind = "sequence"; break;
      case ML__TYPE_MAP: kind = "map"; break;
      case ML__TYPE_OPAQUE: kind = "opaque"; break;
      case ML__TYPE_SPARSE: kind = "sparse tensor"; break;
      case ML__TYPE_OPTIONAL: kind = "optional"; break;
      default: break;
    }
    if (kind) return ml_fail(err, ML_UNIMPLEMENTED, "%s types are not supported", kind);
  }
  if (status != ML_OK || !seen) return status;
  return read_tensor_type(im, tensor, type, err);
}

/* ValueInfoProto: name (in the scratch arena) and type. */
static ml_status read_value_info(importer *im, ml_pb_reader reader, const char *what, const char **name, declared *type,
                                 ml_error *err) {
  ml_pb_field f;
  ml_status status;
  bool seen = false;
  ml_pb_reader inner = {0};
  *name = "";
  *type = (declared){.rank = ML_UNKNOWN};
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__VALUE_NAME) ML_TRY(text(&f, im->arena, "ValueInfoProto.name", name, err));
    else if (f.number == ML__VALUE_TYPE) ML_TRY(message(&reader, &f, &seen, "ValueInfoProto.type", &inner, err));
  }
  if (status != ML_OK) return status;
  if (!**name) return ml_fail(err, ML_INVALID_ARGUMENT, "%s without a name", what);
  if (seen && (status = read_type(im, inner, type, err)) != ML_OK) return ml_fail_in(err, status, "%s '%s'", what, *name);
  return ML_OK;
}

/* ---------------------------------------------------------------- graph ---- */
static ml_status recycle(importer *im, ml_error *err) {
  ml_arena_free(im->arena);
  im->arena = ml_arena_new();
  im->upgrade.scratch = im->arena;
  return im->arena ? ML_OK : ml_fail_memory(err, 1, "an import");
}

static ml_status scan_graph(importer *im, ml_error *err) {
  ml_pb_reader reader = im->body;
  ml_pb_field f;
  ml_status status;
  size_t nodes = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    switch (f.number) {
      case ML__GRAPH_NODE:
      case ML__GRAPH_INITIALIZER:
      case ML__GRAPH_INPUT:
      case ML__GRAPH_OUTPUT:
      case ML__GRAPH_VALUE_INFO: ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "GraphProto", err)); break;
      case ML__GRAPH_SPARSE_INITIALIZER: return ml_fail(err, ML_UNIMPLEMENTED, "sparse initialisers are not supported");
      case ML__GRAPH_NAME: ML_TRY(text(&f, im->graph->arena, "GraphProto.name", &im->graph->name, err)); break;
      case ML__GRAPH_DOC:
        if (!im->graph->doc) ML_TRY(text(&f, im->graph->arena, "GraphProto.doc_string", &im->graph->doc, err));
        break;
      default: break;
    }
    if (f.number == ML__GRAPH_NODE && ++nodes > im->source->limits.max_nodes)
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "more than %zu nodes", im->source->limits.max_nodes);
  }
  return status;
}

static ml_status read_initializer(importer *im, ml_pb_reader reader, ml_error *err) {
  const char *at;
  size_t length;
  ML_TRY(ml__onnx_tensor_name(reader, &at, &length, err));
  ml_pb_field f = {.number = ML__TENSOR_NAME, .wire = ML_PB_BYTES, .bytes = (const uint8_t *)at, .size = length};
  const char *name;
  ML_TRY(text(&f, im->arena, "initialiser name", &name, err));
  if (!*name) return ml_fail(err, ML_INVALID_ARGUMENT, "initialiser without a name");
  if (ml_graph_find(im->graph, name)) return ml_fail(err, ML_INVALID_ARGUMENT, "initialiser '%s' is defined twice", name);
  ml_tensor *tensor;
  ml_status status = ml__onnx_tensor(im->source, reader, &tensor, err);
  if (status == ML_OK) {
    bool trainable = (tensor->view.dtype == ML_FLOAT32 || tensor->view.dtype == ML_FLOAT64) && tensor->view.count > 0;
    status = ml_graph_initializer(im->graph, name, tensor, trainable, NULL, err);
    ml_tensor_release(tensor);
  }
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "initialiser '%s'", name);
}

static ml_status read_input(importer *im, ml_pb_reader reader, ml_error *err) {
  const char *name;
  declared type;
  ML_TRY(read_value_info(im, reader, "input", &name, &type, err));
  if (type.dtype == ML_DTYPE_NONE) return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s' has no element type", name);
  ml_value *value = ml_graph_find(im->graph, name);
  if (value && value->init) { /* before IR 4 every initialiser was listed, later ones are defaults that callers rarely override */
    if (value->dtype == type.dtype) return ML_OK;
    return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s' is declared %s, its initialiser is %s", name, ml_dtype_name(type.dtype),
                   ml_dtype_name(value->dtype));
  }
  if (value) return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s' is defined twice", name);
  ML_TRY(ml_graph_input(im->graph, name, type.dtype, type.dims, type.rank, &value, err));
  for (int32_t d = 0; d < type.rank; d++) if (type.dims[d] == ML_UNKNOWN) value->dim_names[d] = type.names[d];
  return ML_OK;
}

/* Names of unknown dimensions, and a whole shape where inference found none. */
static void adopt(ml_value *value, const declared *type) {
  if (value->rank == ML_UNKNOWN && type->rank != ML_UNKNOWN) {
    value->rank = type->rank;
    memcpy(value->dims, type->dims, sizeof value->dims);
  }
  if (value->rank != type->rank) return;
  for (int32_t d = 0; d < type->rank; d++)
    if (value->dims[d] == ML_UNKNOWN && !value->dim_names[d]) value->dim_names[d] = type->names[d];
}

static ml_status read_output(importer *im, ml_pb_reader reader, ml_error *err) {
  const char *name;
  declared type;
  ML_TRY(read_value_info(im, reader, "output", &name, &type, err));
  ml_value *value = ml_graph_find(im->graph, name);
  if (!value) return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is produced by no node", name);
  if (value->is_output) return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is listed twice", name);
  if (type.dtype != ML_DTYPE_NONE && value->dtype != ML_DTYPE_NONE && type.dtype != value->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is declared %s, but is %s", name, ml_dtype_name(type.dtype),
                   ml_dtype_name(value->dtype));
  if (value->dtype == ML_DTYPE_NONE) value->dtype = type.dtype;
  adopt(value, &type);
  return ml_graph_output(im->graph, value, err);
}

/* ---------------------------------------------------------------- nodes ---- */
typedef struct node_fields {
  const char *op, *name, *domain;
  size_t n_in, n_out, n_attrs;
} node_fields;

static ml_status scan_node(importer *im, ml_pb_reader reader, node_fields *out, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  *out = (node_fields){"", "", "", 0, 0, 0};
  while (ml_pb_next(&reader, &f, &status, err)) {
    switch (f.number) {
      case ML__NODE_OP_TYPE: ML_TRY(text(&f, im->arena, "NodeProto.op_type", &out->op, err)); break;
      case ML__NODE_NAME: ML_TRY(text(&f, im->arena, "NodeProto.name", &out->name, err)); break;
      case ML__NODE_DOMAIN: ML_TRY(text(&f, im->arena, "NodeProto.domain", &out->domain, err)); break;
      case ML__NODE_INPUT: out->n_in++; break;
      case ML__NODE_OUTPUT: out->n_out++; break;
      case ML__NODE_ATTRIBUTE: out->n_attrs++; break;
      case ML__NODE_OVERLOAD:
        if (f.size > 0) return ml_fail(err, ML_UNIMPLEMENTED, "node '%s': function overloads are not supported", out->name);
        break;
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
static int64_t version_of(const importer *im, const char *domain) {
  if (!*domain) return im->onnx_version;
  return strcmp(domain, "ai.onnx.ml") == 0 ? im->ml_version : 0;
}

/* All operators that we lack in one message: whoever converts a model wants to know the whole distance. */
static ml_status refuse_unsupported(importer *im, ml_error *err) {
  typedef struct seen { const char *op, *domain; struct seen *next; } seen;
  seen *all = NULL;
  char list[ML_ERROR_MAX - LISTED] = "";
  size_t left_out = 0, index = 0, count = 0;
  ml_pb_reader reader = im->body;
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != ML__GRAPH_NODE) continue;
    if (index++ % ARENA_NODES == 0) ML_TRY(recycle(im, err));
    node_fields node;
    ML_TRY(scan_node(im, ml_pb_reader_sub(&reader, &f), &node, err));
    if (find_op(&node)) continue;
    if (!*node.op) return ml_fail(err, ML_INVALID_ARGUMENT, "node %zu ('%s') has no op_type", index - 1, node.name);
    seen *s = all;
    while (s && (strcmp(s->op, node.op) != 0 || strcmp(s->domain, node.domain) != 0)) s = s->next;
    if (s) continue;
    s = ml_arena_alloc(im->source->scratch, sizeof *s);
    if (!s || !(s->op = ml_arena_strndup(im->source->scratch, node.op, strlen(node.op))) ||
        !(s->domain = ml_arena_strndup(im->source->scratch, node.domain, strlen(node.domain))))
      return ml_fail_memory(err, sizeof *s, "an import");
    s->next = all;
    all = s;
    if (++count > 1000)
      return fail_list(err, "unsupported operators", list, left_out + 1); /* a hostile file; the list is long enough */
    const char *domain = *node.domain ? node.domain : "ai.onnx";
    int64_t version = version_of(im, node.domain);
    char number[32] = "";
    if (version > 0) snprintf(number, sizeof number, ", version %lld", (long long)version);
    if (*node.name) list_add(list, sizeof list, &left_out, "%s (domain %s%s) at node '%s'", node.op, domain, number, node.name);
    else list_add(list, sizeof list, &left_out, "%s (domain %s%s) at node %zu", node.op, domain, number, index - 1);
  }
  if (status != ML_OK) return status;
  return all ? fail_list(err, "unsupported operators", list, left_out) : ML_OK;
}

/* The type an attribute without one has (files of IR 1): that of the only field that is set. */
static ml_attr_type attr_field_type(uint32_t number) {
  switch (number) {
    case ML__ATTR_F: return ML_ATTR_FLOAT;
    case ML__ATTR_I: return ML_ATTR_INT;
    case ML__ATTR_S: return ML_ATTR_STRING;
    case ML__ATTR_T: return ML_ATTR_TENSOR;
    case ML__ATTR_G: return ML_ATTR_GRAPH;
    case ML__ATTR_FLOATS: return ML_ATTR_FLOATS;
    case ML__ATTR_INTS: return ML_ATTR_INTS;
    case ML__ATTR_STRINGS: return ML_ATTR_STRINGS;
    case ML__ATTR_TENSORS: return ML_ATTR_TENSORS;
    case ML__ATTR_GRAPHS: return ML_ATTR_GRAPHS;
    default: return ML_ATTR_NONE;
  }
}

typedef struct attr_scan {
  const char *name;
  uint64_t type;
  ml_attr_type found; /* of the value field that is set */
  bool two;           /* more than one kind of value */
  size_t count;       /* elements of the list forms */
  ml_pb_field value;  /* last value field, for the single forms */
} attr_scan;

static ml_status scan_attr(importer *im, ml_pb_reader reader, attr_scan *scan, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  *scan = (attr_scan){.name = ""};
  while (ml_pb_next(&reader, &f, &status, err)) {
    size_t count = 1;
    if (f.number == ML__ATTR_NAME) {
      ML_TRY(text(&f, im->arena, "AttributeProto.name", &scan->name, err));
    } else if (f.number == ML__ATTR_TYPE) {
      ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "AttributeProto.type", err));
      scan->type = f.integer;
    } else if (f.number == ML__ATTR_REF && f.size > 0) {
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' refers to a function's attribute outside a function", scan->name);
    } else if (f.number == ML__ATTR_SPARSE_TENSOR || f.number == ML__ATTR_SPARSE_TENSORS) {
      return ml_fail(err, ML_UNIMPLEMENTED, "attribute '%s': sparse tensors are not supported", scan->name);
    } else if (f.number == ML__ATTR_TP || f.number == ML__ATTR_TYPE_PROTOS) {
      return ml_fail(err, ML_UNIMPLEMENTED, "attribute '%s': types as attributes are not supported", scan->name);
    }
    ml_attr_type type = attr_field_type(f.number);
    if (type == ML_ATTR_NONE) continue;
    ml_pb_wire wire = type == ML_ATTR_FLOAT ? ML_PB_FIXED32 : type == ML_ATTR_INT ? ML_PB_VARINT : ML_PB_BYTES;
    if (type == ML_ATTR_FLOATS) ML_TRY(ml_pb_packed_count(&f, ML_PB_FIXED32, &count, "AttributeProto.floats", err));
    else if (type == ML_ATTR_INTS) ML_TRY(ml_pb_packed_count(&f, ML_PB_VARINT, &count, "AttributeProto.ints", err));
    else ML_TRY(ml_pb_expect(&f, wire, "AttributeProto", err));
    if (scan->found != ML_ATTR_NONE && scan->found != type) scan->two = true;
    scan->found = type;
    scan->value = f;
    scan->count += count;
  }
  return status;
}

/* Tensors decoded for a node, released when the node has been made (the graph has its own references then). */
typedef struct owned { ml_tensor **tensors; size_t n, capacity; } owned;

static void release_owned(owned *o) {
  for (size_t i = 0; i < o->n; i++) ml_tensor_release(o->tensors[i]);
  ml_free(o->tensors);
  *o = (owned){NULL, 0, 0};
}

static ml_status attr_tensor(importer *im, const ml_pb_reader *parent, const ml_pb_field *f, owned *o, ml_tensor **out,
                             ml_error *err) {
  ML_TRY(ml_grow(&o->tensors, &o->capacity, o->n + 1, sizeof(ml_tensor *), "an attribute", err));
  ML_TRY(ml__onnx_tensor(im->source, ml_pb_reader_sub(parent, f), out, err));
  o->tensors[o->n++] = *out;
  return ML_OK;
}

static ml_status attr_list(importer *im, ml_pb_reader reader, const attr_scan *scan, ml_attr *attr, owned *o, ml_error *err) {
  size_t element = attr->type == ML_ATTR_FLOATS ? sizeof(float) : attr->type == ML_ATTR_INTS ? sizeof(int64_t)
                 : attr->type == ML_ATTR_STRINGS ? sizeof(ml_str) : sizeof(ml_tensor *);
  size_t bytes, at = 0;
  char *items = ml_mul_size(scan->count + 1, element, &bytes) ? ml_arena_alloc(im->arena, bytes) : NULL;
  if (!items) return ml_fail_memory(err, scan->count, "an attribute");
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (attr_field_type(f.number) != attr->type) continue;
    size_t count = 1;
    void *to = items + at * element;
    if (attr->type == ML_ATTR_FLOATS) {
      ML_TRY(ml_pb_packed_count(&f, ML_PB_FIXED32, &count, "AttributeProto.floats", err));
      ML_TRY(ml_pb_packed_read(&f, ML_PB_FIXED32, to, "AttributeProto.floats", err));
    } else if (attr->type == ML_ATTR_INTS) {
      ML_TRY(ml_pb_packed_count(&f, ML_PB_VARINT, &count, "AttributeProto.ints", err));
      ML_TRY(ml_pb_packed_read(&f, ML_PB_VARINT, to, "AttributeProto.ints", err));
    } else if (attr->type == ML_ATTR_STRINGS) {
      *(ml_str *)to = (ml_str){f.size ? (const char *)f.bytes : "", f.size};
    } else {
      ML_TRY(attr_tensor(im, &reader, &f, o, (ml_tensor **)to, err));
    }
    at += count;
  }
  attr->count = at;
  attr->as.floats = (const float *)(const void *)items; /* every list form is a pointer here */
  if (attr->type == ML_ATTR_INTS) attr->as.ints = (const int64_t *)(const void *)items;
  if (attr->type == ML_ATTR_STRINGS) attr->as.strings = (const ml_str *)(const void *)items;
  if (attr->type == ML_ATTR_TENSORS) attr->as.tensors = (ml_tensor *const *)(const void *)items;
  return status;
}

static ml_status read_attr(importer *im, ml_pb_reader reader, ml_attr *attr, owned *o, ml_error *err) {
  attr_scan scan;
  ML_TRY(scan_attr(im, reader, &scan, err));
  if (!*scan.name) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute without a name");
  if (scan.two) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has values of several types", scan.name);
  if (scan.type > ML_ATTR_GRAPHS)
    return ml_fail(err, ML_UNIMPLEMENTED, "attribute '%s' has type %llu, which is not supported", scan.name,
                   (unsigned long long)scan.type);
  ml_attr_type type = scan.type ? (ml_attr_type)scan.type : scan.found;
  if (type == ML_ATTR_NONE) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has no type and no value", scan.name);
  if (type == ML_ATTR_GRAPH || type == ML_ATTR_GRAPHS)
    return ml_fail(err, ML_UNIMPLEMENTED, "attribute '%s': subgraphs are not supported", scan.name);
  if (scan.found != ML_ATTR_NONE && scan.found != type)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has a value of another type", scan.name);
  *attr = (ml_attr){.name = scan.name, .type = type, .count = 1};
  switch (type) { /* a single value that is its type's zero may be left out */
    case ML_ATTR_FLOAT: attr->as.f = scan.found ? ml_pb_float(&scan.value) : 0.0f; return ML_OK;
    case ML_ATTR_INT: attr->as.i = scan.found ? (int64_t)scan.value.integer : 0; return ML_OK;
    case ML_ATTR_STRING:
      attr->as.s = (ml_str){scan.value.size ? (const char *)scan.value.bytes : "", scan.value.size};
      return ML_OK;
    case ML_ATTR_TENSOR: {
      if (!scan.found) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has no tensor", scan.name);
      if (scan.count > 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has two tensors", scan.name);
      ml_status status = attr_tensor(im, &reader, &scan.value, o, &attr->as.tensor, err);
      return status == ML_OK ? ML_OK : ml_fail_in(err, status, "attribute '%s'", scan.name);
    }
    default: {
      ml_status status = attr_list(im, reader, &scan, attr, o, err);
      return status == ML_OK ? ML_OK : ml_fail_in(err, status, "attribute '%s'", scan.name);
    }
  }
}

/* The file's name wins over one that the import made up. */
static ml_status give_way(importer *im, const char *name, ml_error *err) {
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

static ml_status read_node_fields(importer *im, ml_pb_reader reader, ml__onnx_node *node, owned *o, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    const char *name;
    if (f.number == ML__NODE_INPUT) {
      ML_TRY(text(&f, im->arena, "NodeProto.input", &name, err));
      ml_value *value = ml_graph_find(im->graph, name);
      if (*name && !value)
        return ml_fail(err, ML_INVALID_ARGUMENT,
                       "input '%s' is neither a graph input, an initialiser nor an output of an earlier node", name);
      node->in[node->n_in++] = *name ? value : NULL;
    } else if (f.number == ML__NODE_OUTPUT) {
      ML_TRY(text(&f, im->arena, "NodeProto.output", &name, err));
      if (*name) ML_TRY(give_way(im, name, err));
      node->out[node->n_out++] = name;
    } else if (f.number == ML__NODE_ATTRIBUTE) {
      ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "NodeProto.attribute", err));
      ml_attr *attr = &node->attrs[node->n_attrs];
      ML_TRY(read_attr(im, ml_pb_reader_sub(&reader, &f), attr, o, err));
      for (size_t i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, attr->name) == 0)
          return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is given twice", attr->name);
      node->n_attrs++;
    }
  }
  return status;
}

/* The node in its canonical form, then what an upgrade put behind it. */
static ml_status make_node(importer *im, const ml_op_def *op, const ml__onnx_node *n, ml_error *err) {
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

static ml_status read_node(importer *im, ml_pb_reader reader, size_t index, ml_error *err) {
  node_fields fields;
  ML_TRY(scan_node(im, reader, &fields, err));
  const ml_op_def *op = find_op(&fields);
  char place[320];
  if (*fields.name) snprintf(place, sizeof place, "%s '%s'", fields.op, fields.name);
  else snprintf(place, sizeof place, "%s (node %zu)", fields.op, index);
  int64_t version = version_of(im, fields.domain);
  if (version == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: operator set %s is not imported", place,
                   *fields.domain ? fields.domain : "ai.onnx");
  int32_t first = ml__opset_introduced(fields.domain, fields.op);
  if (version < first)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: the operator exists since version %d, the model imports %lld", place, first,
                   (long long)version);
  ml__onnx_node node = {.domain = fields.domain, .op = fields.op, .name = fields.name, .version = version};
  node.attrs = ml_arena_alloc(im->arena, (fields.n_attrs + ML__OPSET_ROOM) * sizeof *node.attrs);
  node.in = ml_arena_alloc(im->arena, (fields.n_in + ML__OPSET_ROOM) * sizeof *node.in);
  node.out = ml_arena_alloc(im->arena, (fields.n_out + 1) * sizeof *node.out);
  if (!node.attrs || !node.in || !node.out) return ml_fail_memory(err, 1, place);
  owned o = {NULL, 0, 0};
  ml_status status = read_node_fields(im, reader, &node, &o, err);
  if (status == ML_OK) status = ml__opset_upgrade(&im->upgrade, &node, err);
  if (status != ML_OK) status = ml_fail_in(err, status, "%s", place);
  else status = make_node(im, op, &node, err);
  release_owned(&o);
  return status;
}

/* ---------------------------------------------------------------- all ---- */
typedef ml_status (*reader_of)(importer *im, ml_pb_reader reader, ml_error *err);

static ml_status for_each(importer *im, uint32_t number, reader_of read, ml_error *err) {
  ml_pb_reader reader = im->body;
  ml_pb_field f;
  ml_status status;
  size_t n = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != number) continue;
    if (n++ % ARENA_NODES == 0) ML_TRY(recycle(im, err));
    if (read) ML_TRY(read(im, ml_pb_reader_sub(&reader, &f), err));
    else ML_TRY(read_node(im, ml_pb_reader_sub(&reader, &f), n - 1, err));
  }
  return status;
}

static ml_status read_intermediate(importer *im, ml_pb_reader reader, ml_error *err) {
  const char *name;
  declared type;
  ml_error ignored;
  if (read_value_info(im, reader, "value_info", &name, &type, &ignored) == ML_RESOURCE_EXHAUSTED)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%s", ignored.message);
  if (type.dtype == ML_DTYPE_NONE) return ML_OK; /* of a type that no value here has, or malformed: it is only a hint */
  ml_value *value = ml_graph_find(im->graph, name);
  if (value && value->producer && value->dtype == type.dtype && value->rank == type.rank) adopt(value, &type);
  return ML_OK;
}

/* Parameters are all float initialisers but those the metadata freezes and those that are settings or statistics. */
static ml_status freeze(importer *im, ml_error *err) {
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
  size_t at = (size_t)(property - g->properties); /* written anew from the flags */
  memmove(&g->properties[at], &g->properties[at + 1], (--g->n_properties - at) * sizeof *g->properties);
  return ML_OK;
}

static ml_status import(importer *im, ml_error *err) {
  ML_TRY(recycle(im, err));
  ML_TRY(read_model(im, err));
  ML_TRY(scan_graph(im, err));
  ML_TRY(refuse_unsupported(im, err));
  im->graph->onnx_opset = im->has_onnx ? im->onnx_version : 0;
  im->graph->onnx_ml_opset = im->has_ml ? im->ml_version : 0;
  ML_TRY(for_each(im, ML__GRAPH_INITIALIZER, read_initializer, err));
  ML_TRY(for_each(im, ML__GRAPH_INPUT, read_input, err));
  ML_TRY(for_each(im, ML__GRAPH_NODE, NULL, err));
  ML_TRY(for_each(im, ML__GRAPH_VALUE_INFO, read_intermediate, err));
  ML_TRY(for_each(im, ML__GRAPH_OUTPUT, read_output, err));
  if (im->graph->n_outputs == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "the graph has no outputs");
  ml_status status = freeze(im, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "metadata '" FROZEN_KEY "'");
}

static ml_status read_source(ml__onnx_source *source, const ml_onnx_limits *limits, ml_graph **out, ml_error *err) {
  *out = NULL;
  if (limits) source->limits = *limits;
  if (source->limits.max_bytes == 0) source->limits.max_bytes = (size_t)8 << 30;
  if (source->limits.max_nodes == 0) source->limits.max_nodes = 1000000;
  if (source->size == 0) return ml_fail(err, ML_DATA_LOSS, "the file is empty");
  if (source->size > source->limits.max_bytes || source->size > INT32_MAX) /* protobuf's own limit */
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu bytes are over the limit of %zu", source->size,
                   source->limits.max_bytes < INT32_MAX ? source->limits.max_bytes : (size_t)INT32_MAX);
  source->total = source->size;
  importer im = {.source = source};
  source->scratch = ml_arena_new();
  ml_status status = source->scratch ? ml_graph_new(NULL, &im.graph, err) : ml_fail_memory(err, 1, "an import");
  if (status == ML_OK) {
    im.upgrade.graph = im.graph;
    ml_pb_reader_init(&im.model, source->bytes, source->size);
    status = import(&im, err);
  }
  ml_arena_free(im.arena);
  ml_free(im.upgrade.made);
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
  ml_status status = directory && map ? ml_file_open_map(path, map, err) : ml_fail_memory(err, sizeof *map, path);
  if (status == ML_OK) {
    storage = ml_storage_wrap((void *)(uintptr_t)map->bytes, map->size, unmap, map);
    if (!storage) {
      ml_file_unmap(map);
      status = ml_fail_memory(err, sizeof *map, path);
    }
  }
  if (status == ML_OK) {
    ml__onnx_source source = {.bytes = map->bytes, .size = map->size, .storage = storage, .directory = directory};
    status = read_source(&source, limits, out, err);
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
