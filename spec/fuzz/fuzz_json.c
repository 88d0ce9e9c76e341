/* JSON reader and writer on arbitrary bytes. The first byte chooses whether NaN and infinities are allowed. Demands, beyond no
 * crash: skipping a document and reading it value by value agree on whether it is one; numbers equal strtod's and strtof's; what
 * was read, written again, is JSON, and reading that and writing it once more changes nothing; the codecs beneath undo
 * themselves.
 * Build: clang -fsanitize=fuzzer,address,undefined -Icsrc spec/fuzz/fuzz_json.c csrc/codec/[a-z]*.c csrc/base/{alloc,status}.c
 * -lm */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "codec/base64.h"
#include "codec/decimal.h"
#include "codec/json.h"
#include "codec/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)

static void check_against_libc(const char *text, size_t length, float f, double d) {
  char copy[2000];
  if (length >= sizeof copy) return;
  memcpy(copy, text, length);
  copy[length] = '\0';
  double expected_d = strtod(copy, NULL);
  float expected_f = strtof(copy, NULL);
  DEMAND(memcmp(&d, &expected_d, sizeof d) == 0 && memcmp(&f, &expected_f, sizeof f) == 0);
}

static ml_status copy_string(ml_json_reader *reader, ml_json_writer *out, ml_error *err) {
  size_t bound, length;
  ML_TRY(ml_json_string_length(reader, &bound, err));
  char *text = malloc(bound > 0 ? bound : 1);
  if (text == NULL) return ML_RESOURCE_EXHAUSTED;
  ml_status status = ml_json_string_read(reader, text, &length, err);
  if (status == ML_OK) {
    DEMAND(length <= bound && ml_utf8_valid(text, length, NULL));
    ml_json_put_string(out, text, length);
  }
  free(text);
  return status;
}

static ml_status copy_value(ml_json_reader *reader, ml_json_writer *out, ml_error *err) {
  bool first = true, more, comma = false;
  ml_json_kind kind = ml_json_peek(reader);
  switch (kind) {
    case ML_JSON_NULL: ml_json_put_literal(out, "null"); return ml_json_literal_read(reader, kind, err);
    case ML_JSON_TRUE: ml_json_put_literal(out, "true"); return ml_json_literal_read(reader, kind, err);
    case ML_JSON_FALSE: ml_json_put_literal(out, "false"); return ml_json_literal_read(reader, kind, err);
    case ML_JSON_NUMBER: {
      ml_json_number number;
      ml_json_reader start = *reader, other = *reader;
      ml_status status = ml_json_number_read(reader, &number, err);
      if (status != ML_OK) { /* too large for double is still a number */
        other = start;
        if (strstr(err->message, "number out of range") == NULL) return status;
        ML_TRY(ml_json_skip(&other, err));
        *reader = other;
        ml_json_put_literal(out, "0");
        return ML_OK;
      }
      float f;
      bool fits = ml_json_float_read(&other, &f, NULL) == ML_OK;
      DEMAND(!fits || other.at == reader->at);
      if (fits && isfinite(number.value)) check_against_libc(start.at, (size_t)(reader->at - start.at), f, number.value);
      if (number.integral) DEMAND((double)number.integer == number.value);
      if (number.fits_uint64) DEMAND((double)number.magnitude == number.value);
      if (number.integral) ml_json_put_int64(out, number.integer);
      else ml_json_put_double(out, number.value);
      return ML_OK;
    }
    case ML_JSON_STRING: return copy_string(reader, out, err);
    case ML_JSON_ARRAY:
      ML_TRY(ml_json_enter_array(reader, err));
      ml_json_put_literal(out, "[");
      for (;; comma = true) {
        ML_TRY(ml_json_array_next(reader, &first, &more, err));
        if (!more) break;
        if (comma) ml_json_put_literal(out, ",");
        ML_TRY(copy_value(reader, out, err));
      }
      ml_json_put_literal(out, "]");
      return ML_OK;
    case ML_JSON_OBJECT:
      ML_TRY(ml_json_enter_object(reader, err));
      ml_json_put_literal(out, "{");
      for (;; comma = true) {
        char scratch[1 << 12];
        const char *key;
        size_t length;
        ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
        if (!more) break;
        if (comma) ml_json_put_literal(out, ",");
        ml_json_put_string(out, key, length);
        ml_json_put_literal(out, ":");
        ML_TRY(copy_value(reader, out, err));
      }
      ml_json_put_literal(out, "}");
      return ML_OK;
    default: return ml_json_fail(reader, err, "no value");
  }
}

static bool copy_document(const char *text, size_t size, bool nonfinite, ml_json_writer *out, ml_error *err) {
  ml_json_reader reader;
  ml_json_reader_init(&reader, text, size);
  reader.allow_nonfinite = nonfinite;
  return copy_value(&reader, out, err) == ML_OK && ml_json_expect_end(&reader, err) == ML_OK;
}

static void check_json(const char *text, size_t size, bool nonfinite) {
  ml_json_reader reader;
  ml_json_writer once, twice;
  ml_error err = {0};
  ml_json_writer_init(&once);
  ml_json_writer_init(&twice);
  ml_json_reader_init(&reader, text, size);
  reader.allow_nonfinite = nonfinite;
  bool skipped = ml_json_skip(&reader, &err) == ML_OK && ml_json_expect_end(&reader, &err) == ML_OK;
  DEMAND(skipped || strstr(err.message, " at line ") != NULL);
  bool copied = copy_document(text, size, nonfinite, &once, &err);
  DEMAND(copied == skipped || (skipped && strstr(err.message, "key of over") != NULL));
  if (copied) {
    DEMAND(copy_document(once.text, once.length, true, &twice, &err));
    DEMAND(once.length == twice.length && memcmp(once.text, twice.text, once.length) == 0);
  }
  ml_json_writer_free(&once);
  ml_json_writer_free(&twice);
}

static void check_floats(const char *text, size_t size) {
  ml_json_reader bulk, single;
  float many[64], one;
  size_t count = 0, seen = 0;
  bool first = true, more = true;
  ml_json_reader_init(&bulk, text, size);
  if (ml_json_enter_array(&bulk, NULL) != ML_OK) return;
  single = bulk;
  bool read = ml_json_floats_read(&bulk, many, 64, &count, NULL) == ML_OK;
  while (ml_json_array_next(&single, &first, &more, NULL) == ML_OK && more && ml_json_float_read(&single, &one, NULL) == ML_OK) {
    if (read) DEMAND(seen < count && memcmp(&one, &many[seen], sizeof one) == 0);
    ++seen;
  }
  DEMAND(read == (!more && seen <= 64 && single.depth == 0));
  if (read) DEMAND(bulk.at == single.at && count == seen);
}

static void check_beneath(const uint8_t *data, size_t size) {
  size_t characters, length, bad = 0;
  bool valid = ml_utf8_valid(data, size, &bad);
  DEMAND(valid || (bad < size && ml_utf8_valid(data, bad, NULL) && ml_utf8_sequence(data + bad, size - bad, NULL) == 0));

  uint8_t *bytes = malloc(ml_base64_decoded_bound(size) + 1);
  if (bytes == NULL || !ml_base64_encoded_size(size, &characters)) abort();
  if (ml_base64_decode((const char *)data, size, bytes, &length, NULL) == ML_OK) DEMAND(length <= ml_base64_decoded_bound(size));
  free(bytes);
  char *text = malloc(characters + 1);
  bytes = malloc(ml_base64_decoded_bound(characters) + 1);
  if (text == NULL || bytes == NULL) abort();
  ml_base64_encode(data, size, text);
  DEMAND(ml_base64_decode(text, characters, bytes, &length, NULL) == ML_OK && length == size &&
         (size == 0 || memcmp(bytes, data, size) == 0));
  free(text);
  free(bytes);

  char printed[ML_DECIMAL_MAX];
  ml_decimal number;
  if (size >= 8) {
    double value, back;
    memcpy(&value, data, sizeof value);
    if (isfinite(value)) {
      size_t used = ml_decimal_print_double(value, printed);
      DEMAND(ml_decimal_scan(printed, printed + used, ML_DECIMAL_JSON, &number) == printed + used &&
             ml_decimal_to_double(&number, &back));
      DEMAND(memcmp(&value, &back, sizeof value) == 0);
    }
  }
  if (ml_decimal_scan((const char *)data, (const char *)data + size, ML_DECIMAL_LOOSE, &number) != NULL) {
    float f;
    double d;
    ml_decimal_to_float(&number, &f);
    ml_decimal_to_double(&number, &d);
    DEMAND((double)f == (double)(float)d || isfinite(d)); /* both are infinite together, else each is its own rounding */
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  bool nonfinite = data[0] == 'n';
  uint64_t live = ml_alloc_get_stats().live_blocks;
  check_json((const char *)data + 1, size - 1, nonfinite);
  check_floats((const char *)data + 1, size - 1);
  check_beneath(data + 1, size - 1);
  DEMAND(ml_alloc_get_stats().live_blocks == live);
  return 0;
}
