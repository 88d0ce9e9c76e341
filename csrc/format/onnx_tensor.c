/* TensorProto to tensor and back: the one decoder every tensor of a model goes through (initialisers, attributes, .pb files).
 * Element counts are bounded by the bytes that hold them, so a small file cannot ask for a large allocation. Raw data and
 * external data stay where they are (mapped) when the address suits the element; booleans are an exception, because a byte other
 * than 0 and 1 is not one, and elements of less than 8 bits, which are packed in files only. */
#include <string.h>

#include "format/onnx_proto.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "raw_data is little-endian and is used in place");

ml_status ml__onnx_dtype(uint64_t number, ml_dtype *out, ml_error *err) {
  *out = ML_DTYPE_NONE;
  if (number < 64 && ml_dtype_is_element((int64_t)number)) {
    *out = (ml_dtype)number;
    return ML_OK;
  }
  if (number == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "no element type");
  if (number == 14 || number == 15)
    return ml_fail(err, ML_UNIMPLEMENTED, "element type %s is not supported", number == 14 ? "complex64" : "complex128");
  return ml_fail(err, ML_INVALID_ARGUMENT, "unknown element type %llu", (unsigned long long)number);
}

/* Where the elements of a tensor are; filled by one pass over its fields. */
typedef struct tensor_scan {
  int64_t dims[ML_MAX_RANK];
  int32_t rank;
  bool has_type, has_raw, external;
  uint64_t type;
  const uint8_t *raw;
  size_t raw_size;
  uint32_t field;      /* the typed data field that holds elements, 0: none */
  size_t field_count;  /* elements in it */
  size_t string_bytes;
  const char *location;
  size_t location_length;
  uint64_t offset, length;
  bool has_length;
} tensor_scan;

static const char *field_name(uint32_t field) {
  switch (field) {
    case ML__TENSOR_FLOAT_DATA: return "float_data";
    case ML__TENSOR_INT32_DATA: return "int32_data";
    case ML__TENSOR_STRING_DATA: return "string_data";
    case ML__TENSOR_INT64_DATA: return "int64_data";
    case ML__TENSOR_DOUBLE_DATA: return "double_data";
    case ML__TENSOR_UINT64_DATA: return "uint64_data";
    default: return "raw_data";
  }
}

static ml_pb_wire field_wire(uint32_t field) {
  if (field == ML__TENSOR_FLOAT_DATA) return ML_PB_FIXED32;
  if (field == ML__TENSOR_DOUBLE_DATA) return ML_PB_FIXED64;
  return ML_PB_VARINT;
}

/* The typed field that onnx.proto prescribes for a dtype. */
static uint32_t field_of(ml_dtype dtype) {
  switch (dtype) {
    case ML_FLOAT32: return ML__TENSOR_FLOAT_DATA;
    case ML_FLOAT64: return ML__TENSOR_DOUBLE_DATA;
    case ML_INT64: return ML__TENSOR_INT64_DATA;
    case ML_UINT32:
    case ML_UINT64: return ML__TENSOR_UINT64_DATA;
    case ML_STRING: return ML__TENSOR_STRING_DATA;
    default: return ML__TENSOR_INT32_DATA;
  }
}

static bool is_key(const ml_pb_field *key, const char *text) {
  return key->size == strlen(text) && (key->size == 0 || memcmp(key->bytes, text, key->size) == 0);
}

/* Decimal digits only: no sign, no space, no overflow. */
static ml_status decimal(const ml_pb_field *value, const char *what, uint64_t *out, ml_error *err) {
  uint64_t n = 0;
  if (value->size == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "external data: %s is empty", what);
  for (size_t i = 0; i < value->size; i++) {
    unsigned digit = (unsigned)(value->bytes[i] - '0');
    if (digit > 9 || __builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, digit, &n))
      return ml_fail(err, ML_INVALID_ARGUMENT, "external data: %s '%.*s' is not a non-negative number", what,
                     (int)(value->size < 40 ? value->size : 40), (const char *)value->bytes);
  }
  *out = n;
  return ML_OK;
}

static ml_status scan_external(ml_pb_reader reader, tensor_scan *scan, ml_error *err) {
  ml_pb_field f, key = {0}, value = {0};
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != ML__ENTRY_KEY && f.number != ML__ENTRY_VALUE) continue;
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "StringStringEntryProto", err));
    *(f.number == ML__ENTRY_KEY ? &key : &value) = f;
  }
  if (status != ML_OK) return status;
  if (is_key(&key, "location")) {
    if (scan->location) return ml_fail(err, ML_INVALID_ARGUMENT, "external data: two locations");
    scan->location = value.bytes ? (const char *)value.bytes : "";
    scan->location_length = value.size;
  } else if (is_key(&key, "offset")) {
    return decimal(&value, "offset", &scan->offset, err);
  } else if (is_key(&key, "length")) {
    scan->has_length = true;
    return decimal(&value, "length", &scan->length, err);
  }
  return ML_OK; /* checksum and keys of others */
}

static ml_status scan_dims(const ml_pb_field *f, tensor_scan *scan, ml_error *err) {
  size_t count;
  ML_TRY(ml_pb_packed_count(f, ML_PB_VARINT, &count, "TensorProto.dims", err));
  if (count > (size_t)(ML_MAX_RANK - scan->rank)) return ml_fail(err, ML_INVALID_ARGUMENT, "rank over %d", ML_MAX_RANK);
  ML_TRY(ml_pb_packed_read(f, ML_PB_VARINT, scan->dims + scan->rank, "TensorProto.dims", err));
  for (size_t i = 0; i < count; i++, scan->rank++)
    if (scan->dims[scan->rank] < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "dimension %d is negative (%lld)", scan->rank, (long long)scan->dims[scan->rank]);
  return ML_OK;
}

static ml_status scan_data(const ml_pb_field *f, tensor_scan *scan, ml_error *err) {
  size_t count = 1;
  if (f->number == ML__TENSOR_STRING_DATA) {
    ML_TRY(ml_pb_expect(f, ML_PB_BYTES, "TensorProto.string_data", err));
    scan->string_bytes += f->size; /* cannot overflow: all of them lie in one buffer */
  } else {
    ML_TRY(ml_pb_packed_count(f, field_wire(f->number), &count, field_name(f->number), err));
  }
  if (count == 0) return ML_OK;
  if (scan->field && scan->field != f->number)
    return ml_fail(err, ML_INVALID_ARGUMENT, "both %s and %s hold data", field_name(scan->field), field_name(f->number));
  scan->field = f->number;
  scan->field_count += count;
  return ML_OK;
}

static ml_status scan_fields(ml_pb_reader reader, tensor_scan *scan, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    switch (f.number) {
      case ML__TENSOR_DIMS: ML_TRY(scan_dims(&f, scan, err)); break;
      case ML__TENSOR_DATA_TYPE:
        ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "TensorProto.data_type", err));
        scan->has_type = true;
        scan->type = f.integer;
        break;
      case ML__TENSOR_SEGMENT: return ml_fail(err, ML_UNIMPLEMENTED, "segmented tensors are not supported");
      case ML__TENSOR_FLOAT_DATA:
      case ML__TENSOR_INT32_DATA:
      case ML__TENSOR_STRING_DATA:
      case ML__TENSOR_INT64_DATA:
      case ML__TENSOR_DOUBLE_DATA:
      case ML__TENSOR_UINT64_DATA: ML_TRY(scan_data(&f, scan, err)); break;
      case ML__TENSOR_RAW_DATA:
        ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "TensorProto.raw_data", err));
        scan->has_raw = true;
        scan->raw = f.bytes;
        scan->raw_size = f.size;
        break;
      case ML__TENSOR_EXTERNAL:
        ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "TensorProto.external_data", err));
        ML_TRY(scan_external(ml_pb_reader_sub(&reader, &f), scan, err));
        break;
      case ML__TENSOR_LOCATION:
        ML_TRY(ml_pb_expect(&f, ML_PB_VARINT, "TensorProto.data_location", err));
        if (f.integer > 1) return ml_fail(err, ML_INVALID_ARGUMENT, "unknown data location %llu", (unsigned long long)f.integer);
        scan->external = f.integer == 1;
        break;
      default: break;
    }
  }
  return status;
}

/* bytes at `from` into a new tensor; bool becomes 0 or 1, packed elements take a byte each */
static ml_status copy_raw(const tensor_scan *scan, ml_dtype dtype, const uint8_t *from, size_t size, ml_tensor **out,
                          ml_error *err) {
  ML_TRY(ml_tensor_new(dtype, scan->dims, scan->rank, out, err));
  uint8_t *to = (*out)->view.data;
  if (ml_dtype_bits(dtype) < 8) ml_unpack(from, dtype, to, (*out)->view.count);
  else if (dtype == ML_BOOL) for (size_t i = 0; i < size; i++) to[i] = from[i] != 0;
  else if (size > 0) memcpy(to, from, size);
  return ML_OK;
}

static ml_status from_storage(const tensor_scan *scan, ml_dtype dtype, ml_storage *storage, size_t offset, size_t size,
                              ml_tensor **out, ml_error *err) {
  const uint8_t *at = (const uint8_t *)ml_storage_data(storage) + offset;
  if (dtype == ML_BOOL || size == 0 || ml_dtype_bits(dtype) < 8 || (uintptr_t)at % ml_dtype_size(dtype) != 0)
    return copy_raw(scan, dtype, at, size, out, err);
  return ml_tensor_on(storage, offset, dtype, scan->dims, scan->rank, out, err);
}

static ml_status decode_external(ml__onnx_source *source, const tensor_scan *scan, ml_dtype dtype, size_t size, ml_tensor **out,
                                 ml_error *err) {
  if (scan->has_raw || scan->field)
    return ml_fail(err, ML_INVALID_ARGUMENT, "both external data and %s hold data", field_name(scan->field));
  if (!scan->location) return ml_fail(err, ML_INVALID_ARGUMENT, "external data: no location");
  if (dtype == ML_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "external data: strings cannot be external");
  if (memchr(scan->location, 0, scan->location_length))
    return ml_fail(err, ML_INVALID_ARGUMENT, "external data: NUL in the location");
  char *location = ml_arena_strndup(source->scratch, scan->location, scan->location_length);
  if (!location) return ml_fail_memory(err, scan->location_length, "external data");
  if (scan->has_length && scan->length != size)
    return ml_fail(err, ML_INVALID_ARGUMENT, "external data '%s': length %llu, the shape needs %zu bytes", location,
                   (unsigned long long)scan->length, size);
  ml_storage *storage;
  ML_TRY(ml__onnx_external(source, location, &storage, err));
  size_t have = ml_storage_bytes(storage);
  if (scan->offset > have || size > have - (size_t)scan->offset)
    return ml_fail(err, ML_DATA_LOSS, "external data '%s': %zu bytes at offset %llu lie outside the file of %zu bytes", location,
                   size, (unsigned long long)scan->offset, have);
  return from_storage(scan, dtype, storage, (size_t)scan->offset, size, out, err);
}

/* Stores values[count] at element `at`; false with *bad set when one does not fit the dtype. */
static bool narrow(ml_tensor *tensor, size_t at, const int64_t *values, size_t count, int64_t *bad) {
  void *data = tensor->view.data;
  for (size_t i = 0; i < count; i++) {
    int64_t v = values[i];
    size_t k = at + i;
    bool fits = true;
    switch (tensor->view.dtype) {
      case ML_INT8: fits = v >= INT8_MIN && v <= INT8_MAX; ((int8_t *)data)[k] = (int8_t)v; break;
      case ML_UINT8:
      case ML_FLOAT8E4M3FN:
      case ML_FLOAT8E4M3FNUZ:
      case ML_FLOAT8E5M2:
      case ML_FLOAT8E5M2FNUZ:
      case ML_FLOAT8E8M0: fits = v >= 0 && v <= UINT8_MAX; ((uint8_t *)data)[k] = (uint8_t)v; break;
      case ML_FLOAT6E2M3:
      case ML_FLOAT6E3M2: fits = v >= 0 && v < 64; ((uint8_t *)data)[k] = (uint8_t)v; break;
      case ML_BOOL: ((uint8_t *)data)[k] = v != 0; break;
      case ML_INT16: fits = v >= INT16_MIN && v <= INT16_MAX; ((int16_t *)data)[k] = (int16_t)v; break;
      case ML_UINT16:
      case ML_FLOAT16:
      case ML_BFLOAT16: fits = v >= 0 && v <= UINT16_MAX; ((uint16_t *)data)[k] = (uint16_t)v; break;
      case ML_INT32: fits = v >= INT32_MIN && v <= INT32_MAX; ((int32_t *)data)[k] = (int32_t)v; break;
      case ML_UINT32: fits = v >= 0 && v <= UINT32_MAX; ((uint32_t *)data)[k] = (uint32_t)v; break;
      default: ((int64_t *)data)[k] = v; break; /* int64 and uint64: all 64 bits */
    }
    if (!fits) {
      *bad = v;
      return false;
    }
  }
  return true;
}

static ml_status decode_varints(const ml_pb_field *f, ml_tensor *tensor, size_t at, size_t count, ml_error *err) {
  int64_t one, bad = 0, *values = &one;
  if (count > 1 && !(values = ml_alloc(count * sizeof *values))) return ml_fail_memory(err, count * sizeof *values, "a tensor");
  ml_status status = ml_pb_packed_read(f, ML_PB_VARINT, values, field_name(f->number), err);
  if (status == ML_OK && !narrow(tensor, at, values, count, &bad))
    status = ml_fail(err, ML_INVALID_ARGUMENT, "%s: %lld does not fit %s", field_name(f->number), (long long)bad,
                     ml_dtype_name(tensor->view.dtype));
  if (values != &one) ml_free(values);
  return status;
}

static ml_status decode_typed(ml_pb_reader reader, const tensor_scan *scan, ml_tensor *tensor, ml_error *err) {
  size_t at = 0, size = ml_dtype_size(tensor->view.dtype);
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != scan->field) continue;
    size_t count;
    ML_TRY(ml_pb_packed_count(&f, field_wire(f.number), &count, field_name(f.number), err));
    if (field_wire(f.number) == ML_PB_VARINT) ML_TRY(decode_varints(&f, tensor, at, count, err));
    else if (count > 0)
      ML_TRY(ml_pb_packed_read(&f, field_wire(f.number), (char *)tensor->view.data + at * size, field_name(f.number), err));
    at += count;
  }
  return status;
}

/* Elements of 2 or 4 bits in int32_data: each number is a byte of packed ones. */
static ml_status decode_packed(ml_pb_reader reader, const tensor_scan *scan, ml_tensor *tensor, ml_error *err) {
  const int64_t size = (int64_t)scan->field_count;
  ml_tensor *bytes;
  ML_TRY(ml_tensor_new(ML_UINT8, &size, 1, &bytes, err));
  ml_status status = decode_typed(reader, scan, bytes, err);
  if (status == ML_OK) ml_unpack(bytes->view.data, tensor->view.dtype, tensor->view.data, tensor->view.count);
  ml_tensor_release(bytes);
  return status;
}

static ml_status decode_strings(ml_pb_reader reader, const tensor_scan *scan, ml_tensor **out, ml_error *err) {
  ml_str *strings = ml_alloc_zero(scan->field_count + 1, sizeof *strings);
  if (!strings) return ml_fail_memory(err, scan->field_count * sizeof *strings, "a string tensor");
  size_t n = 0;
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&reader, &f, &status, err))
    if (f.number == ML__TENSOR_STRING_DATA) strings[n++] = (ml_str){f.size ? (const char *)f.bytes : "", f.size};
  if (status == ML_OK) status = ml_tensor_from_strings(strings, scan->dims, scan->rank, out, err);
  ml_free(strings);
  return status;
}

ml_status ml__onnx_tensor(ml__onnx_source *source, ml_pb_reader reader, ml_tensor **out, ml_error *err) {
  *out = NULL;
  tensor_scan scan = {0};
  ML_TRY(scan_fields(reader, &scan, err));
  if (!scan.has_type) return ml_fail(err, ML_INVALID_ARGUMENT, "no element type");
  ml_dtype dtype;
  ML_TRY(ml__onnx_dtype(scan.type, &dtype, err));
  size_t count;
  ML_TRY(ml_shape_count(scan.dims, scan.rank, dtype, &count, err));
  size_t size = ml_packed_size(dtype, count); /* cannot overflow: ml_shape_count has checked count * size in memory */
  const bool packed = ml_dtype_bits(dtype) < 6; /* in int32_data too; those of 6 bits are not */
  if (scan.external) return decode_external(source, &scan, dtype, size, out, err);
  if (scan.location) return ml_fail(err, ML_INVALID_ARGUMENT, "external_data is given, but data_location is not EXTERNAL");
  if (scan.field && scan.has_raw && scan.raw_size > 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "both %s and raw_data hold data", field_name(scan.field));
  if (scan.field) {
    if (scan.field != field_of(dtype))
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s elements belong in %s or raw_data, not in %s", ml_dtype_name(dtype),
                     field_name(field_of(dtype)), field_name(scan.field));
    if (scan.field_count != (packed ? size : count))
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s holds %zu elements, the shape needs %zu", field_name(scan.field),
                     scan.field_count, packed ? size : count);
    if (dtype == ML_STRING) return decode_strings(reader, &scan, out, err);
    ML_TRY(ml_tensor_new(dtype, scan.dims, scan.rank, out, err));
    ml_status status = packed ? decode_packed(reader, &scan, *out, err) : decode_typed(reader, &scan, *out, err);
    if (status == ML_OK) return ML_OK;
    ml_tensor_release(*out);
    *out = NULL;
    return status;
  }
  if (dtype == ML_STRING && scan.raw_size > 0) return ml_fail(err, ML_INVALID_ARGUMENT, "strings cannot be raw_data");
  if (scan.raw_size != size)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s holds %zu bytes, the shape needs %zu",
                   scan.has_raw ? "raw_data" : "no data field", scan.raw_size, size);
  if (count == 0 || !source->storage || scan.raw < source->bytes)
    return copy_raw(&scan, dtype, scan.raw, dtype == ML_STRING ? 0 : size, out, err);
  return from_storage(&scan, dtype, source->storage, (size_t)(scan.raw - source->bytes), size, out, err);
}

ml_status ml__onnx_tensor_name(ml_pb_reader reader, const char **name, size_t *length, ml_error *err) {
  ml_pb_field f;
  ml_status status;
  *name = "";
  *length = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != ML__TENSOR_NAME) continue;
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "TensorProto.name", err));
    if (f.size == 0) continue;
    *name = (const char *)f.bytes;
    *length = f.size;
  }
  return status;
}

ml_status ml_onnx_tensor_read(const void *bytes, size_t size, const char *what, ml_tensor **out, const char **name,
                              size_t *name_length, ml_error *err) {
  *out = NULL;
  ml__onnx_source source = {.bytes = bytes, .size = size, .scratch = ml_arena_new()};
  if (!source.scratch) return ml_fail_memory(err, 1, what);
  ml_pb_reader reader;
  ml_pb_reader_init(&reader, bytes, size);
  const char *at = NULL;
  size_t length = 0;
  ml_status status = ml__onnx_tensor_name(reader, &at, &length, err);
  if (status == ML_OK) status = ml__onnx_tensor(&source, reader, out, err);
  if (status == ML_OK && name) *name = at;
  if (status == ML_OK && name_length) *name_length = length;
  ml_arena_free(source.scratch);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", what);
}

void ml__onnx_put_tensor(ml_pb_writer *writer, const ml_view *view, const char *name) {
  for (int32_t i = 0; i < view->rank; i++) ml_pb_put_varint(writer, ML__TENSOR_DIMS, (uint64_t)view->dims[i]);
  ml_pb_put_varint(writer, ML__TENSOR_DATA_TYPE, (uint64_t)view->dtype);
  if (view->dtype == ML_STRING) {
    const ml_str *strings = view->data;
    for (size_t i = 0; i < view->count; i++) ml_pb_put_bytes(writer, ML__TENSOR_STRING_DATA, strings[i].bytes, strings[i].length);
  }
  ml_pb_put_string(writer, ML__TENSOR_NAME, name);
  if (view->dtype == ML_STRING) return;
  const size_t size = ml_packed_size(view->dtype, view->count);
  if (ml_dtype_bits(view->dtype) >= 8) {
    ml_pb_put_bytes(writer, ML__TENSOR_RAW_DATA, view->data, size);
    return;
  }
  void *packed = ml_alloc(size + 1);
  if (packed) ml_pack(view->data, view->dtype, packed, view->count);
  else writer->status = ML_RESOURCE_EXHAUSTED;
  if (packed) ml_pb_put_bytes(writer, ML__TENSOR_RAW_DATA, packed, size);
  ml_free(packed);
}

ml_status ml_onnx_tensor_write(const ml_tensor *tensor, const char *name, void **bytes, size_t *size, ml_error *err) {
  *bytes = NULL;
  *size = 0;
  ml_pb_writer writer;
  ml_pb_writer_init(&writer);
  ml__onnx_put_tensor(&writer, &tensor->view, name);
  if (writer.status != ML_OK) {
    ml_pb_writer_free(&writer);
    return ml_fail_memory(err, tensor->view.count * ml_dtype_size(tensor->view.dtype), "a TensorProto");
  }
  *bytes = writer.bytes;
  *size = writer.size;
  return ML_OK;
}
