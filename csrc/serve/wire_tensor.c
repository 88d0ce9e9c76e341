/* Fixed-width elements are what they are in memory, so nearly every request is a memcpy. Everything else is unpacked in one pass into the place that
 * the model reads, and never holds more than the count its shape was checked for. Booleans are made 0 or 1 on the way, elements of less than 8 bits
 * get their sign. */
#include "serve/wire_tensor.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "elements on the wire are copied as they are");

ml_pb_wire ml_wire_element(ml_dtype dtype) {
  if (dtype == ML_FLOAT32) return ML_PB_FIXED32;
  if (dtype == ML_FLOAT64) return ML_PB_FIXED64;
  return dtype == ML_STRING || ml_dtype_is_small(dtype) ? ML_PB_BYTES : ML_PB_VARINT;
}

ml_status ml_wire_add(ml_wire *wire, const ml_pb_field *field, const uint8_t *message, size_t size, ml_error *err) {
  size_t more = 1;
  bool first = wire->bytes == NULL;
  if (wire->element == ML_PB_BYTES) ML_TRY(ml_pb_expect(field, ML_PB_BYTES, "an element", err));
  else ML_TRY(ml_pb_packed_count(field, wire->element, &more, "an element", err));
  wire->given += more; /* at least one byte each */
  if (first && field->wire == ML_PB_BYTES && (wire->element == ML_PB_FIXED32 || wire->element == ML_PB_FIXED64)) {
    wire->form = ML_WIRE_ELEMENTS;
    wire->bytes = field->bytes;
    wire->size = field->size;
  } else {
    wire->form = ML_WIRE_LIST;
    wire->bytes = message;
    wire->size = size;
  }
  return ML_OK;
}

bool ml_wire_in_place(const ml_wire *wire, ml_dtype dtype, size_t count) {
  return wire->form == ML_WIRE_ELEMENTS && wire->given >= count && dtype != ML_BOOL && ml_dtype_bits(dtype) >= 8;
}

/* ---------------------------------------------------------------- fields ---- */
ml_status ml_wire_text(const ml_pb_field *field, const char *what, ml_str *out, ml_error *err) {
  ML_TRY(ml_pb_expect(field, ML_PB_BYTES, what, err));
  *out = (ml_str){(const char *)field->bytes, field->size};
  return ML_OK;
}

ml_pb_reader ml_wire_reader(ml_str message) {
  ml_pb_reader reader;
  ml_pb_reader_init(&reader, message.bytes, message.length);
  return reader;
}

uint8_t *ml_wire_put_text(uint8_t *to, uint32_t number, const char *bytes, size_t size) {
  to = ml_pb_varint(ml_pb_tag(to, number, ML_PB_BYTES), size);
  if (size > 0) memcpy(to, bytes, size);
  return to + size;
}

/* ---------------------------------------------------------------- strings ---- */
__attribute__((cold)) static ml_status damaged(size_t at, ml_error *err) {
  return ml_fail(err, ML_DATA_LOSS, "string %zu does not fit into the bytes given", at);
}

static ml_status copy_lengths(const ml_wire *w, size_t count, ml_str *to, ml_error *err) {
  const uint8_t *at = w->bytes, *end = at + w->size;
  size_t left;
  for (size_t i = 0; i < count; i++) {
    uint64_t length;
    if (!ml_pb_varints(&at, end, &length, sizeof length, 1, &left) || left == 0 || length > w->size) return damaged(i, err);
    to[i].length = (size_t)length;
  }
  for (size_t i = 0; i < count; i++) {
    if (to[i].length > (size_t)(end - at)) return damaged(i, err);
    to[i].bytes = (const char *)at;
    at += to[i].length;
  }
  return at == end ? ML_OK : ml_fail(err, ML_DATA_LOSS, "%zu bytes behind the last string", (size_t)(end - at));
}

static ml_status copy_prefixed(const ml_wire *w, size_t count, ml_str *to, ml_error *err) {
  const uint8_t *at = w->bytes, *end = at + w->size;
  for (size_t i = 0; i < count; i++) {
    uint32_t length;
    if ((size_t)(end - at) < sizeof length) return damaged(i, err);
    memcpy(&length, at, sizeof length);
    at += sizeof length;
    if (length > (size_t)(end - at)) return damaged(i, err);
    to[i] = (ml_str){(const char *)at, length};
    at += length;
  }
  return at == end ? ML_OK : ml_fail(err, ML_DATA_LOSS, "%zu bytes behind the last string", (size_t)(end - at));
}

/* ---------------------------------------------------------------- lists ---- */
static ml_status copy_list(const ml_wire *w, ml_dtype dtype, size_t count, char *to, ml_error *err) {
  ml_pb_reader reader;
  ml_pb_field field;
  ml_status status;
  size_t at = 0, size = ml_dtype_size(dtype), n = 0;
  ml_pb_reader_init(&reader, w->bytes, w->size);
  while (at < count && ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != w->field) continue;
    if (dtype == ML_STRING) {
      ((ml_str *)(void *)to)[at++] = (ml_str){(const char *)field.bytes, field.size};
    } else if (field.wire != ML_PB_BYTES) { /* one by itself: its lowest bytes come first */
      uint64_t value = dtype == ML_BOOL ? field.integer != 0 : field.integer;
      memcpy(to + size * at++, &value, size);
    } else if (w->element == ML_PB_VARINT) {
      const uint8_t *p = field.bytes;
      if (!ml_pb_varints(&p, p + field.size, to + size * at, dtype == ML_BOOL ? 0 : size, count - at, &n))
        return ml_fail(err, ML_DATA_LOSS, "protobuf: varint over 10 bytes or 64 bits");
      at += n;
    } else {
      n = field.size / size;
      if (n > count - at) n = count - at;
      if (n > 0) memcpy(to + size * at, field.bytes, n * size);
      at += n;
    }
  }
  return at == count || at == w->given ? ML_OK : ml_fail(err, ML_INTERNAL, "%zu of %zu elements found", at, w->given);
}

/* Of `have` elements the last up to count of them; none: zeros. */
static void repeat_last(char *to, size_t size, size_t have, size_t count) {
  if (have == 0) {
    memset(to, 0, count * size);
    return;
  }
  for (size_t first = have; have < count;) { /* doubling what is there */
    size_t n = have - first + 1;
    if (n > count - have) n = count - have;
    memcpy(to + have * size, to + (first - 1) * size, n * size);
    have += n;
  }
}

ml_status ml_wire_copy(const ml_wire *w, ml_dtype dtype, size_t count, void *to, ml_error *err) {
  size_t size = ml_dtype_size(dtype), have = w->given < count ? w->given : count;
  if (count == 0) return ML_OK;
  if (w->form == ML_WIRE_LENGTHS) return copy_lengths(w, count, to, err);
  if (w->form == ML_WIRE_PREFIXED) return copy_prefixed(w, count, to, err);
  if (w->form == ML_WIRE_LIST) {
    ML_TRY(copy_list(w, dtype, have, to, err));
  } else {
    if (have > 0) memcpy(to, w->bytes, have * size);
    if (dtype == ML_BOOL) for (size_t i = 0; i < have; i++) ((uint8_t *)to)[i] = w->bytes[i] != 0;
  }
  if (ml_dtype_bits(dtype) < 8) ml_mask_small(to, dtype, have);
  if (have < count) repeat_last(to, size, have, count);
  if (have == 0 && dtype == ML_STRING) for (size_t i = 0; i < count; i++) ((ml_str *)to)[i].bytes = "";
  return ML_OK;
}

/* ---------------------------------------------------------------- writing ---- */
/* Element i of a type that lists write as varints: negative ones are long. */
static inline uint64_t integer_at(const void *data, ml_dtype dtype, size_t i) {
  switch (dtype) {
    case ML_INT8:
    case ML_INT4:
    case ML_INT2: return (uint64_t)((const int8_t *)data)[i];
    case ML_INT16: return (uint64_t)((const int16_t *)data)[i];
    case ML_INT32: return (uint64_t)((const int32_t *)data)[i];
    case ML_INT64:
    case ML_UINT64: return ((const uint64_t *)data)[i];
    case ML_UINT32: return ((const uint32_t *)data)[i];
    case ML_UINT16:
    case ML_FLOAT16:
    case ML_BFLOAT16: return ((const uint16_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
  }
}

size_t ml_wire_list_size(const ml_view *v, uint32_t field) {
  size_t size = 0;
  if (v->dtype == ML_STRING) {
    for (size_t i = 0; i < v->count; i++) size += ml_pb_bytes_size(field, ((const ml_str *)v->data)[i].length);
    return size;
  }
  if (ml_wire_element(v->dtype) != ML_PB_VARINT) return v->count * ml_dtype_size(v->dtype);
  for (size_t i = 0; i < v->count; i++) size += ml_pb_varint_size(integer_at(v->data, v->dtype, i));
  return size;
}

uint8_t *ml_wire_list_write(const ml_view *v, uint32_t field, uint8_t *to) {
  if (v->count == 0) return to;
  if (v->dtype == ML_STRING) {
    for (size_t i = 0; i < v->count; i++) {
      const ml_str *s = (const ml_str *)v->data + i;
      to = ml_pb_varint(ml_pb_tag(to, field, ML_PB_BYTES), s->length);
      if (s->length > 0) memcpy(to, s->bytes, s->length);
      to += s->length;
    }
    return to;
  }
  if (ml_wire_element(v->dtype) != ML_PB_VARINT) {
    size_t size = v->count * ml_dtype_size(v->dtype);
    memcpy(to, v->data, size);
    return to + size;
  }
  for (size_t i = 0; i < v->count; i++) to = ml_pb_varint(to, integer_at(v->data, v->dtype, i));
  return to;
}
