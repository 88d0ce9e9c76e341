/* Protobuf reader and writer on arbitrary bytes: every field is read as all that it might be, BYTES fields also as messages.
 * Demands, beyond no crash: a message that is read can be written again and then reads the same; an error names an offset; no
 * block is left.
 * Build: clang -fsanitize=fuzzer,address,undefined -Icsrc spec/fuzz/fuzz_protobuf.c csrc/codec/[a-z]*.c
 * csrc/base/{alloc,status}.c -lm */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "codec/protobuf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)
#define MAX_DEPTH 64

static void read_packed(const ml_pb_field *field) {
  static const ml_pb_wire elements[] = {ML_PB_VARINT, ML_PB_FIXED32, ML_PB_FIXED64};
  for (int i = 0; i < 3; ++i) {
    size_t count = SIZE_MAX, width = elements[i] == ML_PB_FIXED32 ? 4 : 8;
    ml_error err = {0};
    if (ml_pb_packed_count(field, elements[i], &count, "M.f", &err) != ML_OK) {
      DEMAND(strncmp(err.message, "M.f: ", 5) == 0);
      continue;
    }
    DEMAND(count <= (field->wire == ML_PB_BYTES ? field->size : 1));
    void *values = malloc(count * width + 1); /* the extra byte only makes the block exist */
    if (values == NULL) abort();
    if (ml_pb_packed_read(field, elements[i], values, "M.f", &err) == ML_OK && elements[i] == ML_PB_FIXED32 &&
        field->wire == ML_PB_BYTES && count > 0)
      DEMAND(memcmp(values, field->bytes, field->size) == 0);
    free(values);
  }
}

/* Copies the message into out; whether it is whole. An embedded message that is damaged is copied as bytes. */
static bool copy_message(ml_pb_reader reader, ml_pb_writer *out, int depth) {
  ml_pb_field field;
  ml_status status;
  ml_error err = {0};
  while (ml_pb_next(&reader, &field, &status, &err)) {
    DEMAND(status == ML_OK && field.number >= 1 && field.number <= 0x1fffffff);
    read_packed(&field);
    switch (field.wire) {
      case ML_PB_VARINT: ml_pb_put_varint(out, field.number, field.integer); break;
      case ML_PB_FIXED32: ml_pb_put_float(out, field.number, ml_pb_float(&field)); break;
      case ML_PB_FIXED64: ml_pb_put_double(out, field.number, ml_pb_double(&field)); break;
      case ML_PB_BYTES: {
        DEMAND(field.bytes >= reader.begin && field.size <= (size_t)(reader.end - field.bytes));
        size_t before = out->size, mark = ml_pb_open(out, field.number);
        if (depth < MAX_DEPTH && copy_message(ml_pb_reader_sub(&reader, &field), out, depth + 1)) {
          ml_pb_close(out, mark);
        } else {
          out->size = before;
          ml_pb_put_bytes(out, field.number, field.bytes, field.size);
        }
        break;
      }
      default: abort();
    }
  }
  DEMAND(status == ML_OK ? reader.at == reader.end : status == ML_DATA_LOSS && strstr(err.message, "offset") != NULL);
  return status == ML_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t live = ml_alloc_get_stats().live_blocks;
  ml_pb_writer once, twice;
  ml_pb_reader reader;
  ml_pb_writer_init(&once);
  ml_pb_writer_init(&twice);
  ml_pb_reader_init(&reader, data, size);
  if (copy_message(reader, &once, 0)) {
    DEMAND(once.status == ML_OK && once.size <= size); /* never longer: varints are only shortened */
    ml_pb_reader_init(&reader, once.bytes, once.size);
    DEMAND(copy_message(reader, &twice, 0) && twice.size == once.size &&
           (once.size == 0 || memcmp(once.bytes, twice.bytes, once.size) == 0));
  }
  ml_pb_writer_free(&once);
  ml_pb_writer_free(&twice);
  DEMAND(ml_alloc_get_stats().live_blocks == live);
  return 0;
}
