/* AttributeProto to ml_attr. An attribute inside a function's body may stand for one of the call's (ref_attr_name). */
#include "format/onnx_import.h"
#include <string.h>

/* The type an attribute without one has (files of IR 1): that of the only field that is set. Sparse tensors become dense ones. */
static ml_attr_type field_type(uint32_t number) {
  switch (number) {
    case ML__ATTR_F: return ML_ATTR_FLOAT;
    case ML__ATTR_I: return ML_ATTR_INT;
    case ML__ATTR_S: return ML_ATTR_STRING;
    case ML__ATTR_T:
    case ML__ATTR_SPARSE_TENSOR: return ML_ATTR_TENSOR;
    case ML__ATTR_G: return ML_ATTR_GRAPH;
    case ML__ATTR_FLOATS: return ML_ATTR_FLOATS;
    case ML__ATTR_INTS: return ML_ATTR_INTS;
    case ML__ATTR_STRINGS: return ML_ATTR_STRINGS;
    case ML__ATTR_TENSORS: return ML_ATTR_TENSORS;
    case ML__ATTR_GRAPHS: return ML_ATTR_GRAPHS;
    case ML__ATTR_TP: return ML_ATTR_TYPE;
    default: return ML_ATTR_NONE;
  }
}

enum { SPARSE_TENSOR = 11 }; /* AttributeType; the forms we have are ml_attr_type's numbers */

typedef struct attr_scan {
  const char *name, *ref;
  uint64_t type;
  ml_attr_type found; /* of the value field that is set */
  bool two;           /* more than one kind of value */
  size_t count;       /* elements of the list forms */
  ml_pb_field value;  /* last value field, for the single forms */
} attr_scan;

static ml_status scan_attr(ml__importer *im, ml_pb_reader reader, attr_scan *scan, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  *scan = (attr_scan){.name = "", .ref = ""};
  while (ml_pb_next(&reader, &f, &status, err)) {
    size_t count = 1;
    if (f.number == ML__ATTR_NAME) {
      ML_TRY(ml__onnx_text(&f, im->arena, "AttributeProto.name", &scan->name, err));
    } else if (f.number == ML__ATTR_TYPE) {
      ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "AttributeProto.type", err));
      scan->type = f.integer;
    } else if (f.number == ML__ATTR_REF) {
      ML_TRY(ml__onnx_text(&f, im->arena, "AttributeProto.ref_attr_name", &scan->ref, err));
    } else if (f.number == ML__ATTR_SPARSE_TENSORS || f.number == ML__ATTR_TYPE_PROTOS) {
      return ml_fail(err, ML_UNIMPLEMENTED, "attribute '%s': lists of sparse tensors or types are not supported", scan->name);
    }
    ml_attr_type type = field_type(f.number);
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

void ml__onnx_release_owned(ml__owned *o) {
  for (size_t i = 0; i < o->n_tensors; i++) ml_tensor_release(o->tensors[i]);
  for (size_t i = 0; i < o->n_graphs; i++) ml_graph_free(o->graphs[i]);
  ml_free(o->tensors);
  ml_free(o->graphs);
  *o = (ml__owned){0};
}

static ml_status read_tensor(ml__importer *im, const ml_pb_reader *parent, const ml_pb_field *f, ml__owned *o, ml_tensor **out, ml_error *err) {
  ML_TRY(ml_grow(&o->tensors, &o->cap_tensors, o->n_tensors + 1, sizeof(ml_tensor *), "an attribute", err));
  ml_pb_reader reader = ml_pb_reader_sub(parent, f);
  if (f->number == ML__ATTR_SPARSE_TENSOR) ML_TRY(ml__onnx_sparse_tensor(im->source, reader, out, err));
  else ML_TRY(ml__onnx_tensor(im->source, reader, out, err));
  o->tensors[o->n_tensors++] = *out;
  return ML_OK;
}

static ml_status read_list(ml__importer *im, ml_pb_reader reader, const attr_scan *scan, ml_attr *attr, ml__owned *o, ml_error *err) {
  size_t element = attr->type == ML_ATTR_FLOATS ? sizeof(float) : attr->type == ML_ATTR_INTS ? sizeof(int64_t)
                 : attr->type == ML_ATTR_STRINGS ? sizeof(ml_str) : sizeof(ml_tensor *);
  size_t bytes, at = 0;
  char *items = ml_mul_size(scan->count + 1, element, &bytes) ? ml_arena_alloc(im->arena, bytes) : NULL;
  if (!items) return ml_fail_memory(err, scan->count, "an attribute");
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (field_type(f.number) != attr->type) continue;
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
      ML_TRY(read_tensor(im, &reader, &f, o, (ml_tensor **)to, err));
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

/* The call's attribute under the name it has here. */
static ml_status read_reference(const ml__importer *im, const attr_scan *scan, ml_attr *attr, bool *left_out, ml_error *err) {
  if (!im->call) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' refers to a function's attribute outside a function", scan->name);
  for (size_t i = 0; i < im->call->n_attrs; i++) {
    if (strcmp(im->call->attrs[i].name, scan->ref) != 0) continue;
    *attr = im->call->attrs[i];
    attr->name = scan->name;
    if (scan->type != 0 && scan->type != (uint64_t)attr->type)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has another type than the function's attribute '%s'", scan->name, scan->ref);
    return ML_OK;
  }
  *left_out = true;
  return ML_OK;
}

/* A single value that is its type's zero may be left out. */
static ml_status read_value(ml__importer *im, ml_pb_reader reader, const attr_scan *scan, ml__onnx_node *node, ml_attr *attr, ml__owned *o, ml_error *err) {
  switch (attr->type) {
    case ML_ATTR_FLOAT: attr->as.f = scan->found ? ml_pb_float(&scan->value) : 0.0f; return ML_OK;
    case ML_ATTR_INT: attr->as.i = scan->found ? (int64_t)scan->value.integer : 0; return ML_OK;
    case ML_ATTR_STRING: attr->as.s = (ml_str){scan->value.size ? (const char *)scan->value.bytes : "", scan->value.size}; return ML_OK;
    case ML_ATTR_TENSOR:
      if (!scan->found) return ml_fail(err, ML_INVALID_ARGUMENT, "no tensor");
      if (scan->count > 1) return ml_fail(err, ML_INVALID_ARGUMENT, "two tensors");
      return read_tensor(im, &reader, &scan->value, o, &attr->as.tensor, err);
    case ML_ATTR_GRAPH:
      if (scan->found && scan->count > 1) return ml_fail(err, ML_INVALID_ARGUMENT, "two graphs");
      if (!node || !scan->found) return ml_fail(err, ML_INVALID_ARGUMENT, "no graph");
      ML_TRY(ml_grow(&o->graphs, &o->cap_graphs, o->n_graphs + 1, sizeof(ml_graph *), "an attribute", err));
      ML_TRY(ml__onnx_read_subgraph(im, ml_pb_reader_sub(&reader, &scan->value), node, &attr->as.graph, err));
      o->graphs[o->n_graphs++] = attr->as.graph;
      return ML_OK;
    case ML_ATTR_TYPE: {
      ml__declared type = {.rank = ML_UNKNOWN};
      if (scan->found) ML_TRY(ml__onnx_read_type(im, ml_pb_reader_sub(&reader, &scan->value), &type, err));
      attr->as.i = (int64_t)(type.type ? type.type : ml_type_tensor(type.dtype));
      return ML_OK;
    }
    default: return read_list(im, reader, scan, attr, o, err);
  }
}

ml_status ml__onnx_read_attr(ml__importer *im, ml_pb_reader reader, ml__onnx_node *node, ml_attr *attr, bool *left_out, ml__owned *o, ml_error *err) {
  attr_scan scan;
  *left_out = false;
  ML_TRY(scan_attr(im, reader, &scan, err));
  if (!*scan.name) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute without a name");
  if (*scan.ref) return read_reference(im, &scan, attr, left_out, err);
  if (scan.two) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has values of several types", scan.name);
  if (scan.type == SPARSE_TENSOR) scan.type = ML_ATTR_TENSOR;
  if (scan.type >= ML_ATTR_GRAPHS && scan.type != ML_ATTR_TYPE)
    return ml_fail(err, ML_UNIMPLEMENTED, "attribute '%s' has type %llu, which is not supported", scan.name, (unsigned long long)scan.type);
  ml_attr_type type = scan.type ? (ml_attr_type)scan.type : scan.found;
  if (type == ML_ATTR_NONE) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has no type and no value", scan.name);
  if (scan.found != ML_ATTR_NONE && scan.found != type)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has a value of another type", scan.name);
  *attr = (ml_attr){.name = scan.name, .type = type, .count = 1};
  ml_status status = read_value(im, reader, &scan, node, attr, o, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "attribute '%s'", scan.name);
}

ml_status ml__onnx_read_attrs(ml__importer *im, ml_pb_reader reader, ml__onnx_node *node, ml__owned *o, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != ML__NODE_ATTRIBUTE) continue;
    bool left_out;
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "NodeProto.attribute", err));
    ml_attr *attr = &node->attrs[node->n_attrs];
    ML_TRY(ml__onnx_read_attr(im, ml_pb_reader_sub(&reader, &f), node, attr, &left_out, o, err));
    if (left_out) continue;
    for (size_t i = 0; i < node->n_attrs; i++)
      if (strcmp(node->attrs[i].name, attr->name) == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is given twice", attr->name);
    node->n_attrs++;
  }
  return status;
}
