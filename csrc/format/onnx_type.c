/* TypeProto to declared types and back. Sequences, optionals and maps of tensors nest; the shapes inside them are not kept. */
#include "format/onnx_import.h"
#include <string.h>

static ml_status read_dim(ml__importer *im, ml_pb_reader reader, ml__declared *type, ml_error *err) {
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
      ML_TRY(ml__onnx_text(&f, im->graph->arena, "dim_param", &type->names[d], err));
    }
  }
  return status;
}

static ml_status read_tensor_type(ml__importer *im, ml_pb_reader reader, ml__declared *type, ml_error *err) {
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
      ML_TRY(ml__onnx_message(&reader, &f, &has_shape, "shape", &shape, err));
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

static ml_status read_depth(ml__importer *im, ml_pb_reader reader, ml__declared *type, int depth, ml_error *err);

/* Sequence, optional (elem_type = 1) and map (key_type = 1, value_type = 2). */
static ml_status read_container(ml__importer *im, ml_pb_reader reader, ml_kind kind, ml__declared *type, int depth, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  bool map = kind == ML_KIND_MAP_INT64, seen = false;
  ml_pb_reader inner = {0};
  ml__declared element = {.rank = ML_UNKNOWN};
  uint64_t key = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (map && f.number == ML__MAP_KEY) {
      ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "key_type", err));
      key = f.integer;
    } else if (f.number == (map ? ML__MAP_VALUE : ML__SEQUENCE_ELEM)) {
      ML_TRY(ml__onnx_message(&reader, &f, &seen, "element type", &inner, err));
    }
  }
  if (status != ML_OK) return status;
  if (map && key == ML_STRING) kind = ML_KIND_MAP_STRING;
  else if (map && key != ML_INT64) return ml_fail(err, ML_UNIMPLEMENTED, "maps with keys of type %llu are not supported (int64 and string are)", (unsigned long long)key);
  if (seen) ML_TRY(read_depth(im, inner, &element, depth + 1, err));
  if (map && element.type) return ml_fail(err, ML_UNIMPLEMENTED, "maps of values that are no tensors are not supported");
  type->dtype = ML_CONTAINER;
  type->rank = 0;
  type->type = ml_type_of(kind, element.type ? element.type : ml_type_tensor(element.dtype));
  return type->type ? ML_OK : ml_fail(err, ML_UNIMPLEMENTED, "a type of more than %d constructors", ML_TYPE_DEPTH);
}

static ml_status read_depth(ml__importer *im, ml_pb_reader reader, ml__declared *type, int depth, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  bool seen = false;
  ml_pb_reader inner = {0};
  uint32_t kind = 0;
  if (depth > ML_TYPE_DEPTH) return ml_fail(err, ML_UNIMPLEMENTED, "a type of more than %d constructors", ML_TYPE_DEPTH);
  while (ml_pb_next(&reader, &f, &status, err)) {
    switch (f.number) {
      case ML__TYPE_TENSOR:
      case ML__TYPE_SEQUENCE:
      case ML__TYPE_MAP:
      case ML__TYPE_OPTIONAL:
        kind = f.number;
        ML_TRY(ml__onnx_message(&reader, &f, &seen, "the type", &inner, err));
        break;
      case ML__TYPE_OPAQUE: return ml_fail(err, ML_UNIMPLEMENTED, "opaque types are not supported");
      case ML__TYPE_SPARSE: return ml_fail(err, ML_UNIMPLEMENTED, "sparse tensors between nodes are not supported");
      default: break;
    }
  }
  if (status != ML_OK || !seen) return status;
  switch (kind) {
    case ML__TYPE_SEQUENCE: return read_container(im, inner, ML_KIND_SEQUENCE, type, depth, err);
    case ML__TYPE_OPTIONAL: return read_container(im, inner, ML_KIND_OPTIONAL, type, depth, err);
    case ML__TYPE_MAP: return read_container(im, inner, ML_KIND_MAP_INT64, type, depth, err);
    default: return read_tensor_type(im, inner, type, err);
  }
}

ml_status ml__onnx_read_type(ml__importer *im, ml_pb_reader reader, ml__declared *type, ml_error *err) {
  return read_depth(im, reader, type, 0, err);
}

/* ---------------------------------------------------------------- writing ---- */
void ml__onnx_put_coded_type(ml_pb_writer *w, uint32_t type) {
  static const uint32_t fields[] = {ML__TYPE_TENSOR, ML__TYPE_SEQUENCE, ML__TYPE_OPTIONAL, ML__TYPE_MAP, ML__TYPE_MAP};
  ml_kind kind = ml_type_kind(type);
  size_t outer = ml_pb_open(w, fields[kind]);
  if (kind == ML_KIND_TENSOR) {
    ml_pb_put_varint(w, ML__TENSOR_TYPE_ELEM, ml_type_dtype(type));
  } else {
    bool map = kind == ML_KIND_MAP_INT64 || kind == ML_KIND_MAP_STRING;
    if (map) ml_pb_put_varint(w, ML__MAP_KEY, kind == ML_KIND_MAP_INT64 ? ML_INT64 : ML_STRING);
    size_t inner = ml_pb_open(w, map ? ML__MAP_VALUE : ML__SEQUENCE_ELEM);
    ml__onnx_put_coded_type(w, ml_type_inner(type));
    ml_pb_close(w, inner);
  }
  ml_pb_close(w, outer);
}

void ml__onnx_put_type(ml_pb_writer *w, const ml_value *v) {
  if (v->type) {
    ml__onnx_put_coded_type(w, v->type);
    return;
  }
  size_t tensor = ml_pb_open(w, ML__TYPE_TENSOR);
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
}
