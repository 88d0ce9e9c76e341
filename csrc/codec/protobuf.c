/* Protocol Buffers wire format: bounded reader and growing writer (protobuf.dev/programming-guides/encoding).
 * The reader trusts nothing: every length is compared with what is left before a pointer moves, and a failing call leaves the
 * reader where it was, so that asking again gives the same error. Stricter than the format asks for in two places, both of which
 * only damaged or hostile files hit: groups are refused and a varint may not carry more than 64 significant bits.
 * Embedded messages are written with one byte kept for their length; ml_pb_close moves the contents when the length needs more.
 * That costs one memmove per nesting level of large messages and keeps the output canonical (shortest varints). */
#include "codec/protobuf.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire's fixed-width values are copied as they are");

#define MAX_FIELD_NUMBER 0x1fffffffu
#define MAX_VARINT 10

static const char *const wire_names[8] = {"varint", "fixed64", "bytes", "start of group", "end of group", "fixed32", "6", "7"};

static const uint8_t no_bytes[1] = {0}; /* stands in for NULL, on which even "+ 0" is undefined */

/* ---- reader ---- */

typedef enum varint_result { VARINT_OK, VARINT_TRUNCATED, VARINT_TOO_LONG } varint_result;

static varint_result varint_slow(const uint8_t **at, const uint8_t *end, uint64_t *value) {
  const uint8_t *p = *at;
  uint64_t result = 0;
  for (unsigned i = 0; i < MAX_VARINT; ++i) {
    if (p == end) return VARINT_TRUNCATED;
    uint8_t byte = *p++;
    if (i == MAX_VARINT - 1 && byte > 1) return VARINT_TOO_LONG; /* an eleventh byte or a 65th bit */
    result |= (uint64_t)(byte & 0x7f) << (7 * i);
    if (byte < 0x80) {
      *at = p;
      *value = result;
      return VARINT_OK;
    }
  }
  return VARINT_TOO_LONG;
}

static inline varint_result varint_read(const uint8_t **at, const uint8_t *end, uint64_t *value) {
  if (*at < end && **at < 0x80) {
    *value = *(*at)++;
    return VARINT_OK;
  }
  return varint_slow(at, end, value);
}

void ml_pb_reader_init(ml_pb_reader *reader, const void *bytes, size_t size) {
  const uint8_t *start = bytes != NULL ? bytes : no_bytes;
  reader->begin = reader->at = start;
  reader->end = start + (bytes != NULL ? size : 0);
}

ml_pb_reader ml_pb_reader_sub(const ml_pb_reader *parent, const ml_pb_field *field) {
  ml_pb_reader sub;
  ml_pb_reader_init(&sub, field->bytes, field->size);
  if (field->bytes != NULL) sub.begin = parent->begin;
  return sub;
}

static bool varint_fail(const ml_pb_reader *reader, varint_result result, const char *what, ml_status *status, ml_error *err) {
  size_t offset = (size_t)(reader->at - reader->begin);
  if (result == VARINT_TRUNCATED) *status = ml_fail(err, ML_DATA_LOSS, "protobuf: %s at offset %zu is cut short", what, offset);
  else *status = ml_fail(err, ML_DATA_LOSS, "protobuf: %s at offset %zu: varint over 10 bytes or 64 bits", what, offset);
  return false;
}

bool ml_pb_next(ml_pb_reader *reader, ml_pb_field *field, ml_status *status, ml_error *err) {
  const uint8_t *p = reader->at, *end = reader->end;
  *status = ML_OK;
  if (p == end) return false;
  uint64_t tag, length;
  varint_result result = varint_read(&p, end, &tag);
  if (result != VARINT_OK) return varint_fail(reader, result, "tag", status, err);
  size_t offset = (size_t)(reader->at - reader->begin);
  uint64_t number = tag >> 3;
  unsigned wire = (unsigned)(tag & 7);
  if (number == 0 || number > MAX_FIELD_NUMBER) {
    *status = ml_fail(err, ML_DATA_LOSS, "protobuf: field number %llu at offset %zu is outside 1..%u", (unsigned long long)number,
                      offset, MAX_FIELD_NUMBER);
    return false;
  }
  size_t left = (size_t)(end - p);
  field->number = (uint32_t)number;
  field->wire = (ml_pb_wire)wire;
  field->integer = 0;
  field->bytes = NULL;
  field->size = 0;
  switch (wire) {
    case ML_PB_VARINT:
      result = varint_read(&p, end, &field->integer);
      if (result != VARINT_OK) return varint_fail(reader, result, "value of the field", status, err);
      break;
    case ML_PB_FIXED64:
      if (left < 8) goto truncated;
      memcpy(&field->integer, p, 8);
      p += 8;
      break;
    case ML_PB_FIXED32: {
      uint32_t bits;
      if (left < 4) goto truncated;
      memcpy(&bits, p, 4);
      field->integer = bits;
      p += 4;
      break;
    }
    case ML_PB_BYTES:
      result = varint_read(&p, end, &length);
      if (result != VARINT_OK) return varint_fail(reader, result, "length of the field", status, err);
      left = (size_t)(end - p);
      if (length > left) {
        *status = ml_fail(err, ML_DATA_LOSS, "protobuf: field %u at offset %zu claims %llu bytes, %zu are left", field->number,
                          offset, (unsigned long long)length, left);
        return false;
      }
      field->bytes = p;
      field->size = (size_t)length;
      p += length;
      break;
    default:
      *status = ml_fail(err, ML_DATA_LOSS, "protobuf: field %u at offset %zu has unsupported wire type %u%s", field->number,
                        offset, wire, wire < 5 ? " (group)" : "");
      return false;
  }
  reader->at = p;
  return true;
truncated:
  *status = ml_fail(err, ML_DATA_LOSS, "protobuf: field %u at offset %zu is cut short: %s with %zu bytes left", field->number,
                    offset, wire_names[wire], left);
  return false;
}

static ml_status wire_mismatch(const ml_pb_field *field, ml_pb_wire wire, const char *suffix, const char *what, ml_error *err) {
  return ml_fail(err, ML_DATA_LOSS, "%s: expected wire type %s%s, got %s (field %u)", what, wire_names[wire & 7], suffix,
                 wire_names[field->wire & 7], field->number);
}

ml_status ml_pb_expect(const ml_pb_field *field, ml_pb_wire wire, const char *what, ml_error *err) {
  return field->wire == wire ? ML_OK : wire_mismatch(field, wire, "", what, err);
}

float ml_pb_float(const ml_pb_field *field) {
  uint32_t bits = (uint32_t)field->integer;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

double ml_pb_double(const ml_pb_field *field) {
  double value;
  memcpy(&value, &field->integer, sizeof value);
  return value;
}

ml_status ml_pb_packed_count(const ml_pb_field *field, ml_pb_wire element, size_t *count, const char *what, ml_error *err) {
  assert(element != ML_PB_BYTES);
  if (field->wire == element) {
    *count = 1;
    return ML_OK;
  }
  if (field->wire != ML_PB_BYTES || element == ML_PB_BYTES) return wire_mismatch(field, element, " or packed bytes", what, err);
  if (element == ML_PB_VARINT) { /* as many values as bytes without continuation bit */
    size_t values = 0;
    for (size_t i = 0; i < field->size; ++i) values += field->bytes[i] < 0x80;
    if (field->size > 0 && field->bytes[field->size - 1] >= 0x80)
      return ml_fail(err, ML_DATA_LOSS, "%s: the last of %zu packed varints is cut short", what, values + 1);
    *count = values;
    return ML_OK;
  }
  size_t width = element == ML_PB_FIXED64 ? 8 : 4;
  if (field->size % width != 0)
    return ml_fail(err, ML_DATA_LOSS, "%s: %zu packed bytes are no multiple of %zu", what, field->size, width);
  *count = field->size / width;
  return ML_OK;
}

ml_status ml_pb_packed_read(const ml_pb_field *field, ml_pb_wire element, void *out, const char *what, ml_error *err) {
  size_t count = 0;
  if (field->wire == element) {
    if (element == ML_PB_FIXED32) {
      uint32_t bits = (uint32_t)field->integer;
      memcpy(out, &bits, sizeof bits);
    } else if (element != ML_PB_BYTES) {
      memcpy(out, &field->integer, sizeof field->integer);
    }
    return ML_OK;
  }
  if (field->wire != ML_PB_BYTES || element == ML_PB_BYTES) return wire_mismatch(field, element, " or packed bytes", what, err);
  if (element != ML_PB_VARINT) {
    ML_TRY(ml_pb_packed_count(field, element, &count, what, err));
    if (count > 0) memcpy(out, field->bytes, field->size);
    return ML_OK;
  }
  if (field->size == 0) return ML_OK;
  const uint8_t *p = field->bytes, *end = p + field->size;
  char *to = out;
  while (p < end) {
    uint64_t value;
    varint_result result = varint_read(&p, end, &value);
    if (result != VARINT_OK)
      return ml_fail(err, ML_DATA_LOSS, "%s: packed varint at byte %zu %s", what, (size_t)(p - field->bytes),
                     result == VARINT_TRUNCATED ? "is cut short" : "is over 10 bytes or 64 bits");
    memcpy(to, &value, sizeof value);
    to += sizeof value;
  }
  return ML_OK;
}

/* One loop for each width, so that the store is one instruction. */
#define READ_VARINTS(type, expression)                              \
  for (; n < room && p < end; n++) {                                \
    uint64_t value;                                                 \
    if (varint_read(&p, end, &value) != VARINT_OK) goto malformed;  \
    ((type *)out)[n] = (type)(expression);                          \
  }

bool ml_pb_varints(const uint8_t **at, const uint8_t *end, void *out, size_t width, size_t room, size_t *count) {
  const uint8_t *p = *at;
  size_t n = 0;
  switch (width) {
    case 0: READ_VARINTS(uint8_t, value != 0) break;
    case 1: READ_VARINTS(uint8_t, value) break;
    case 2: READ_VARINTS(uint16_t, value) break;
    case 4: READ_VARINTS(uint32_t, value) break;
    default: READ_VARINTS(uint64_t, value) break;
  }
  *at = p;
  *count = n;
  return true;
malformed:
  *at = p;
  *count = n;
  return false;
}

/* ---- writer ---- */

void ml_pb_writer_init(ml_pb_writer *writer) { *writer = (ml_pb_writer){NULL, 0, 0, ML_OK}; }

void ml_pb_writer_free(ml_pb_writer *writer) {
  ml_free(writer->bytes);
  ml_pb_writer_init(writer);
}

uint8_t *ml_pb_reserve(ml_pb_writer *writer, size_t more) {
  if (writer->status != ML_OK) return NULL;
  if (more > writer->capacity - writer->size) {
    size_t need;
    if (!ml_add_size(writer->size, more, &need)) {
      writer->status = ML_RESOURCE_EXHAUSTED;
      return NULL;
    }
    writer->status = ml_grow(&writer->bytes, &writer->capacity, need, 1, "a protobuf message", NULL);
    if (writer->status != ML_OK) return NULL;
  }
  return writer->bytes + writer->size;
}

static uint8_t *put_tag(uint8_t *p, uint32_t number, ml_pb_wire wire) {
  assert(number >= 1 && number <= MAX_FIELD_NUMBER);
  return ml_pb_tag(p, number, wire);
}

void ml_pb_put_varint(ml_pb_writer *writer, uint32_t number, uint64_t value) {
  uint8_t *p = ml_pb_reserve(writer, 5 + MAX_VARINT);
  if (p == NULL) return;
  p = ml_pb_varint(put_tag(p, number, ML_PB_VARINT), value);
  writer->size = (size_t)(p - writer->bytes);
}

void ml_pb_put_float(ml_pb_writer *writer, uint32_t number, float value) {
  uint8_t *p = ml_pb_reserve(writer, 5 + sizeof value);
  if (p == NULL) return;
  p = put_tag(p, number, ML_PB_FIXED32);
  memcpy(p, &value, sizeof value);
  writer->size = (size_t)(p - writer->bytes) + sizeof value;
}

void ml_pb_put_double(ml_pb_writer *writer, uint32_t number, double value) {
  uint8_t *p = ml_pb_reserve(writer, 5 + sizeof value);
  if (p == NULL) return;
  p = put_tag(p, number, ML_PB_FIXED64);
  memcpy(p, &value, sizeof value);
  writer->size = (size_t)(p - writer->bytes) + sizeof value;
}

void ml_pb_put_bytes(ml_pb_writer *writer, uint32_t number, const void *bytes, size_t size) {
  size_t need;
  if (!ml_add_size(size, 5 + MAX_VARINT, &need)) {
    if (writer->status == ML_OK) writer->status = ML_RESOURCE_EXHAUSTED;
    return;
  }
  uint8_t *p = ml_pb_reserve(writer, need);
  if (p == NULL) return;
  p = ml_pb_varint(put_tag(p, number, ML_PB_BYTES), size);
  if (size > 0) memcpy(p, bytes, size);
  writer->size = (size_t)(p - writer->bytes) + size;
}

void ml_pb_put_string(ml_pb_writer *writer, uint32_t number, const char *text) {
  if (text != NULL && *text != '\0') ml_pb_put_bytes(writer, number, text, strlen(text));
}

size_t ml_pb_open(ml_pb_writer *writer, uint32_t number) {
  uint8_t *p = ml_pb_reserve(writer, 5 + 1);
  if (p == NULL) return 0;
  p = put_tag(p, number, ML_PB_BYTES);
  *p++ = 0; /* the length, if it fits one byte */
  writer->size = (size_t)(p - writer->bytes);
  return writer->size;
}

void ml_pb_close(ml_pb_writer *writer, size_t mark) {
  if (writer->status != ML_OK) return;
  assert(mark >= 2 && mark <= writer->size);
  size_t length = writer->size - mark;
  uint8_t prefix[MAX_VARINT];
  size_t width = (size_t)(ml_pb_varint(prefix, length) - prefix);
  if (width > 1) {
    if (ml_pb_reserve(writer, width - 1) == NULL) return;
    memmove(writer->bytes + mark + width - 1, writer->bytes + mark, length);
    writer->size += width - 1;
  }
  memcpy(writer->bytes + mark - 1, prefix, width);
}
