/* Values of any type as protobuf: TensorProto, SequenceProto, OptionalProto and MapProto (onnx-data.proto), the files of ONNX's backend tests.
 * Which message it is stands nowhere in the bytes; the reader is told the type. */
#include <string.h>
#include "format/onnx_proto.h"

enum { /* field numbers of onnx-data.proto; SequenceProto and OptionalProto have the same ones */
  VALUE_NAME = 1, VALUE_ELEM_TYPE = 2, VALUE_TENSOR = 3, VALUE_SPARSE = 4, VALUE_SEQUENCE = 5, VALUE_MAP = 6, VALUE_OPTIONAL = 7,
  MAP_NAME = 1, MAP_KEY_TYPE = 2, MAP_KEYS = 3, MAP_STRING_KEYS = 4, MAP_VALUES = 5,
  /* elem_type */
  OF_TENSOR = 1, OF_SEQUENCE = 3, OF_MAP = 4, OF_OPTIONAL = 5
};

static uint32_t element_field(uint32_t inner) {
  switch (ml_type_kind(inner)) {
    case ML_KIND_TENSOR: return VALUE_TENSOR;
    case ML_KIND_SEQUENCE: return VALUE_SEQUENCE;
    case ML_KIND_OPTIONAL: return VALUE_OPTIONAL;
    default: return VALUE_MAP;
  }
}

static ml_status read_value(ml__onnx_source *source, ml_pb_reader reader, uint32_t type, ml_item *out, ml_error *err);

static ml_status count_fields(ml_pb_reader reader, uint32_t number, size_t *count, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  *count = 0;
  while (ml_pb_next(&reader, &f, &status, err)) *count += f.number == number;
  return status;
}

/* Sequences and optionals: the elements are one repeated (optional: single) field. */
static ml_status read_elements(ml__onnx_source *source, ml_pb_reader reader, ml_container *c, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  uint32_t inner = ml_type_inner(c->type), number = element_field(inner);
  size_t at = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == VALUE_SPARSE) return ml_fail(err, ML_UNIMPLEMENTED, "sparse tensors in sequences are not supported");
    if (f.number != number) {
      if (f.number >= VALUE_TENSOR && f.number <= VALUE_OPTIONAL) return ml_fail(err, ML_INVALID_ARGUMENT, "elements of another type than the model declares");
      continue;
    }
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "an element", err));
    ml_status read = read_value(source, ml_pb_reader_sub(&reader, &f), inner, &c->items[at], err);
    if (read != ML_OK) return ml_fail_in(err, read, "element %zu", at);
    at++;
  }
  return status;
}

static ml_status make_keys(const ml_str *strings, const int64_t *ints, size_t n, ml_tensor **out, ml_error *err) {
  int64_t dims[1] = {(int64_t)n};
  if (strings) return ml_tensor_from_strings(strings, dims, 1, out, err);
  ML_TRY(ml_tensor_new(ML_INT64, dims, 1, out, err));
  if (n) memcpy((*out)->view.data, ints, n * sizeof *ints);
  return ML_OK;
}

/* keys (int64 or strings) and values, a SequenceProto of scalars, which become one tensor. */
static ml_status read_map(ml__onnx_source *source, ml_pb_reader reader, ml_container *c, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  bool text = ml_type_kind(c->type) == ML_KIND_MAP_STRING;
  ml_str *strings = NULL;
  int64_t *ints = NULL;
  ml_item values = {NULL, NULL};
  size_t n = 0, most;
  ML_TRY(count_fields(reader, text ? MAP_STRING_KEYS : MAP_KEYS, &most, err));
  if (!text) { /* packed: count the elements */
    ml_pb_reader again = reader;
    most = 0;
    while (ml_pb_next(&again, &f, &status, err)) {
      size_t some;
      if (f.number != MAP_KEYS) continue;
      ML_TRY(ml_pb_packed_count(&f, ML_PB_VARINT, &some, "MapProto.keys", err));
      most += some;
    }
    ML_TRY(status);
  }
  strings = ml_arena_alloc(source->scratch, (most + 1) * sizeof *strings);
  ints = ml_arena_alloc(source->scratch, (most + 1) * sizeof *ints);
  if (!strings || !ints) return ml_fail_memory(err, most * sizeof *strings, "a map");
  while (ml_pb_next(&reader, &f, &status, err)) {
    size_t some;
    if (text && f.number == MAP_STRING_KEYS) {
      ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "MapProto.string_keys", err));
      strings[n++] = (ml_str){f.size ? (const char *)f.bytes : "", f.size};
    } else if (!text && f.number == MAP_KEYS) {
      ML_TRY(ml_pb_packed_count(&f, ML_PB_VARINT, &some, "MapProto.keys", err));
      ML_TRY(ml_pb_packed_read(&f, ML_PB_VARINT, ints + n, "MapProto.keys", err));
      n += some;
    } else if (f.number == MAP_VALUES) {
      if (values.container) continue;
      ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "MapProto.values", err));
      ML_TRY(read_value(source, ml_pb_reader_sub(&reader, &f), ml_type_of(ML_KIND_SEQUENCE, ml_type_inner(c->type)), &values, err));
    }
  }
  int64_t dims[1] = {(int64_t)n};
  ml_dtype dtype = ml_type_dtype(c->type);
  ml_tensor *joined = NULL, *owned;
  if (status == ML_OK && (values.container ? values.container->count : 0) != n) status = ml_fail(err, ML_INVALID_ARGUMENT, "a map of %zu keys and other values", n);
  if (status == ML_OK) status = make_keys(text ? strings : NULL, ints, n, &c->items[0].tensor, err);
  if (status == ML_OK) status = ml_tensor_new(dtype, dims, 1, &joined, err);
  for (size_t i = 0; i < n && status == ML_OK; i++) {
    const ml_view *v = &values.container->items[i].tensor->view;
    if (v->count != 1 || v->dtype != dtype) status = ml_fail(err, ML_INVALID_ARGUMENT, "value %zu of a map is no scalar of its type", i);
    else memcpy((char *)joined->view.data + i * ml_dtype_size(dtype), v->data, ml_dtype_size(dtype));
  }
  if (status == ML_OK && dtype == ML_STRING && (status = ml_tensor_copy_of(&joined->view, &owned, err)) == ML_OK) { /* the bytes are the values' */
    ml_tensor_release(joined);
    joined = owned;
  }
  c->items[1].tensor = joined;
  ml_container_release(values.container);
  return status;
}

static ml_status read_value(ml__onnx_source *source, ml_pb_reader reader, uint32_t type, ml_item *out, ml_error *err) {
  ml_kind kind = ml_type_kind(type);
  *out = (ml_item){NULL, NULL};
  if (kind == ML_KIND_TENSOR) {
    ML_TRY(ml__onnx_tensor(source, reader, &out->tensor, err));
    ml_dtype wanted = ml_type_dtype(type), got = out->tensor->view.dtype;
    if (wanted == ML_DTYPE_NONE || wanted == got) return ML_OK;
    ml_tensor_release(out->tensor);
    out->tensor = NULL;
    return ml_fail(err, ML_INVALID_ARGUMENT, "a tensor of %s, expected %s", ml_dtype_name(got), ml_dtype_name(wanted));
  }
  bool map = kind == ML_KIND_MAP_INT64 || kind == ML_KIND_MAP_STRING;
  size_t count = 2;
  ml_container *made;
  if (!map) ML_TRY(count_fields(reader, element_field(ml_type_inner(type)), &count, err));
  if (kind == ML_KIND_OPTIONAL && count > 1) return ml_fail(err, ML_INVALID_ARGUMENT, "an optional of %zu values", count);
  ML_TRY(ml_container_new(type, count, &made, err));
  ml_status status = map ? read_map(source, reader, made, err) : read_elements(source, reader, made, err);
  if (status == ML_OK) out->container = made;
  else ml_container_release(made);
  return status;
}

static ml_status read_name(ml_pb_reader reader, uint32_t number, const char **name, size_t *length, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  *name = "";
  *length = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != number || f.wire != ML_PB_BYTES) continue;
    *name = f.size ? (const char *)f.bytes : "";
    *length = f.size;
  }
  return status;
}

ml_status ml_onnx_value_read(const void *bytes, size_t size, const char *what, uint32_t type, ml_item *out, const char **name, size_t *name_length, ml_error *err) {
  ml__onnx_source source = {.bytes = bytes, .size = size, .scratch = ml_arena_new(), .limits = {.max_bytes = SIZE_MAX}};
  ml_pb_reader reader;
  const char *ignored_name;
  size_t ignored_length;
  *out = (ml_item){NULL, NULL};
  if (!source.scratch) return ml_fail_memory(err, 1, what);
  ml_pb_reader_init(&reader, bytes, size);
  ml_status status = read_name(reader, ml_type_kind(type) == ML_KIND_TENSOR ? ML__TENSOR_NAME : VALUE_NAME, name ? name : &ignored_name, name_length ? name_length : &ignored_length, err);
  if (status == ML_OK) status = read_value(&source, reader, type, out, err);
  ml_arena_free(source.scratch);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", what);
}

/* ---------------------------------------------------------------- writing ---- */
static void put_value(ml_pb_writer *w, const ml_item *item, const char *name);

static void put_map(ml_pb_writer *w, const ml_container *c) {
  const ml_view *keys = &c->items[0].tensor->view, *values = &c->items[1].tensor->view;
  ml_pb_put_varint(w, MAP_KEY_TYPE, (uint64_t)keys->dtype);
  for (size_t i = 0; i < keys->count; i++) {
    if (keys->dtype == ML_STRING) ml_pb_put_bytes(w, MAP_STRING_KEYS, ((const ml_str *)keys->data)[i].bytes, ((const ml_str *)keys->data)[i].length);
    else ml_pb_put_varint(w, MAP_KEYS, (uint64_t)((const int64_t *)keys->data)[i]);
  }
  size_t sequence = ml_pb_open(w, MAP_VALUES);
  ml_pb_put_varint(w, VALUE_ELEM_TYPE, OF_TENSOR);
  for (size_t i = 0; i < values->count; i++) {
    ml_view scalar = {.data = (char *)values->data + i * ml_dtype_size(values->dtype), .count = 1, .dtype = values->dtype};
    size_t tensor = ml_pb_open(w, VALUE_TENSOR);
    ml__onnx_put_tensor(w, &scalar, NULL);
    ml_pb_close(w, tensor);
  }
  ml_pb_close(w, sequence);
}

static void put_container(ml_pb_writer *w, ml_container *c, const char *name) {
  static const uint64_t numbers[] = {OF_TENSOR, OF_SEQUENCE, OF_OPTIONAL, OF_MAP, OF_MAP};
  ml_pb_put_string(w, VALUE_NAME, name);
  ml_kind kind = ml_type_kind(c->type);
  if (kind == ML_KIND_MAP_INT64 || kind == ML_KIND_MAP_STRING) {
    put_map(w, c);
    return;
  }
  uint32_t inner = ml_type_inner(c->type);
  ml_pb_put_varint(w, VALUE_ELEM_TYPE, numbers[ml_type_kind(inner)]);
  for (size_t i = 0; i < c->count; i++) {
    size_t mark = ml_pb_open(w, element_field(inner));
    put_value(w, &c->items[i], NULL);
    ml_pb_close(w, mark);
  }
}

static void put_value(ml_pb_writer *w, const ml_item *item, const char *name) {
  if (item->container) put_container(w, item->container, name);
  else ml__onnx_put_tensor(w, &item->tensor->view, name);
}

ml_status ml_onnx_value_write(const ml_item *item, const char *name, void **bytes, size_t *size, ml_error *err) {
  ml_pb_writer writer;
  *bytes = NULL;
  *size = 0;
  ml_pb_writer_init(&writer);
  put_value(&writer, item, name);
  if (writer.status != ML_OK) {
    ml_pb_writer_free(&writer);
    return ml_fail_memory(err, writer.capacity, "a value");
  }
  *bytes = writer.bytes;
  *size = writer.size;
  return ML_OK;
}
