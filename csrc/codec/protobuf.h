/* Protocol Buffers wire format.
 * Lives here: a bounded reader over borrowed bytes and a growing writer; no message types. May include: base.
 * Reference: protobuf.dev/programming-guides/encoding. The reader never allocates; the writer's buffer belongs to its owner. */
#ifndef ML_CODEC_PROTOBUF_H
#define ML_CODEC_PROTOBUF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

typedef enum ml_pb_wire { ML_PB_VARINT = 0, ML_PB_FIXED64 = 1, ML_PB_BYTES = 2, ML_PB_FIXED32 = 5 } ml_pb_wire;

typedef struct ml_pb_reader {
  const uint8_t *at, *end;
  const uint8_t *begin; /* of the whole file or message, for offsets in errors */
} ml_pb_reader;

typedef struct ml_pb_field {
  uint32_t number;
  ml_pb_wire wire;
  uint64_t integer;     /* VARINT, FIXED64 and FIXED32 values */
  const uint8_t *bytes; /* BYTES: borrowed */
  size_t size;
} ml_pb_field;

void ml_pb_reader_init(ml_pb_reader *reader, const void *bytes, size_t size);
/* Reader over the contents of a BYTES field, keeping `begin`. */
ml_pb_reader ml_pb_reader_sub(const ml_pb_reader *parent, const ml_pb_field *field);
/* Next field: true with *field filled; false at the end (*status == ML_OK) or on malformed bytes (*status == ML_DATA_LOSS, err
 * names the offset): truncated, varint over 10 bytes, field number 0 or > 2^29-1, groups (wire types 3 and 4), wire types 6
 * and 7. */
bool ml_pb_next(ml_pb_reader *reader, ml_pb_field *field, ml_status *status, ml_error *err);
/* Checks the wire type of a field: ML_DATA_LOSS "MESSAGE.FIELD: expected wire type …". */
ml_status ml_pb_expect(const ml_pb_field *field, ml_pb_wire wire, const char *what, ml_error *err);

static inline int64_t ml_pb_zigzag(uint64_t v) { return (int64_t)(v >> 1) ^ -(int64_t)(v & 1); }
float ml_pb_float(const ml_pb_field *field);   /* FIXED32 bits as float */
double ml_pb_double(const ml_pb_field *field); /* FIXED64 bits as double */

/* Repeated scalars, packed or not. count says how many values this occurrence holds (1 when unpacked); read stores them at `out`,
 * which must have room for that many. kind: varints are stored as int64_t, fixed32 as 4 raw bytes, fixed64 as 8 raw bytes. */
ml_status ml_pb_packed_count(const ml_pb_field *field, ml_pb_wire element, size_t *count, const char *what, ml_error *err);
ml_status ml_pb_packed_read(const ml_pb_field *field, ml_pb_wire element, void *out, const char *what, ml_error *err);
/* Packed varints at *at, up to `room` of them or up to end: of each the lowest `width` bytes (1, 2, 4 or 8) are stored; width 0: a byte that is 1
 * unless the varint is 0. *at is left behind the last one read, *count says how many. false: the next is malformed. */
bool ml_pb_varints(const uint8_t **at, const uint8_t *end, void *out, size_t width, size_t room, size_t *count);

/* Writer: failures are sticky; check ml_pb_writer_status once at the end. */
typedef struct ml_pb_writer {
  uint8_t *bytes;
  size_t size, capacity;
  ml_status status;
} ml_pb_writer;

void ml_pb_writer_init(ml_pb_writer *writer);
void ml_pb_writer_free(ml_pb_writer *writer);
/* int64, int32, bool, enum: cast to uint64_t, sign-extended */
void ml_pb_put_varint(ml_pb_writer *writer, uint32_t number, uint64_t value);
void ml_pb_put_float(ml_pb_writer *writer, uint32_t number, float value);
void ml_pb_put_double(ml_pb_writer *writer, uint32_t number, double value);
void ml_pb_put_bytes(ml_pb_writer *writer, uint32_t number, const void *bytes, size_t size);
void ml_pb_put_string(ml_pb_writer *writer, uint32_t number, const char *text); /* NULL or "": nothing is written */
/* Room for `more` bytes behind writer->size, which is the caller's to advance; NULL when the writer has failed. */
uint8_t *ml_pb_reserve(ml_pb_writer *writer, size_t more);
/* Embedded message: size_t mark = ml_pb_open(w, number); … ml_pb_close(w, mark); nest up to 64 deep. */
size_t ml_pb_open(ml_pb_writer *writer, uint32_t number);
void ml_pb_close(ml_pb_writer *writer, size_t mark);

/* Bytes for who knows all sizes beforehand. */
static inline size_t ml_pb_varint_size(uint64_t value) { return (size_t)(70 - __builtin_clzll(value | 1)) / 7; }
static inline uint8_t *ml_pb_varint(uint8_t *to, uint64_t value) {
  while (value >= 0x80) {
    *to++ = (uint8_t)(value | 0x80);
    value >>= 7;
  }
  *to++ = (uint8_t)value;
  return to;
}
static inline uint8_t *ml_pb_tag(uint8_t *to, uint32_t number, ml_pb_wire wire) { return ml_pb_varint(to, (uint64_t)number << 3 | (uint64_t)wire); }
static inline size_t ml_pb_tag_size(uint32_t number) { return ml_pb_varint_size((uint64_t)number << 3); }
/* A BYTES field of `size` bytes, with its tag and length. */
static inline size_t ml_pb_bytes_size(uint32_t number, size_t size) { return ml_pb_tag_size(number) + ml_pb_varint_size(size) + size; }

#endif
