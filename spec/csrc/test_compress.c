/* Content codings: what zlib's own one-call functions make of a text, in every cut; limits to the byte; memory that runs out at every allocation. */
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include "base/alloc.h"
#include "net/compress.h"
#include "tap.h"

static const ml_inflate_limits none = {0, 0};

static char *text_of(size_t size) {
  char *text = malloc(size + 1);
  if (!text) abort();
  for (size_t i = 0; i < size; i++) text[i] = "0123456789,. []"[(i * i / 7 + i) % 15];
  return text;
}

static bool inflates_to(ml_coding coding, const void *bytes, size_t size, ml_inflate_limits limits, const char *text, size_t length) {
  char *out;
  size_t out_size;
  ml_error err;
  if (ml_inflate(coding, bytes, size, limits, &out, &out_size, &err) != ML_OK) return false;
  bool same = out_size == length && (length == 0 || memcmp(out, text, length) == 0);
  ml_free(out);
  return same;
}

static void test_against_zlib(void) {
  static const size_t sizes[] = {0, 1, 2, 4095, 4096, 4097, 70000, 300000};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    size_t size = sizes[i];
    char *text = text_of(size);
    uLongf packed_size = compressBound(size);
    Bytef *packed = malloc(packed_size);
    if (!packed || compress2(packed, &packed_size, (const Bytef *)text, size, 6) != Z_OK) abort();
    ok(inflates_to(ML_CODING_DEFLATE, packed, packed_size, none, text, size), "zlib's %zu bytes", size);
    ok(inflates_to(ML_CODING_DEFLATE, packed + 2, packed_size - 6, none, text, size), "%zu bytes without header", size);
    ok(!inflates_to(ML_CODING_GZIP, packed, packed_size, none, text, size), "%zu bytes of zlib's are no gzip", size);
    free(packed);
    for (int level = 1; level <= 9; level += 4) {
      char *out;
      size_t out_size;
      ml_error err;
      ok(ml_deflate(ML_CODING_DEFLATE, text, size, level, &out, &out_size, &err) == ML_OK, "deflate");
      char *back = malloc(size + 1);
      uLongf back_size = size + 1;
      ok(back && uncompress((Bytef *)back, &back_size, (const Bytef *)out, out_size) == Z_OK && back_size == size && memcmp(back, text, size) == 0,
         "zlib reads ours: %zu bytes, level %d", size, level);
      free(back);
      ml_free(out);
      ok(ml_deflate(ML_CODING_GZIP, text, size, level, &out, &out_size, &err) == ML_OK && inflates_to(ML_CODING_GZIP, out, out_size, none, text, size),
         "gzip there and back: %zu bytes, level %d", size, level);
      ml_free(out);
    }
    free(text);
  }
}

static void test_cuts(void) {
  char *text = text_of(3000), *out, *back;
  size_t size, back_size;
  ml_error err;
  ok(ml_deflate(ML_CODING_GZIP, text, 3000, 6, &out, &size, &err) == ML_OK, "gzip");
  for (size_t cut = 0; cut < size; cut++) {
    char *copy = malloc(cut + 1);
    if (!copy) abort();
    memcpy(copy, out, cut);
    ok(ml_inflate(ML_CODING_GZIP, copy, cut, none, &back, &back_size, &err) == ML_DATA_LOSS && !back, "cut at %zu", cut);
    free(copy);
  }
  size_t wrong = 0;
  for (size_t i = 10; i < size; i++) { /* the checksum finds every flipped bit behind the header */
    out[i] = (char)(out[i] ^ 4);
    wrong += ml_inflate(ML_CODING_GZIP, out, size, none, &back, &back_size, &err) == ML_DATA_LOSS;
    out[i] = (char)(out[i] ^ 4);
  }
  ok(wrong == size - 10, "flipped bits are found");
  ml_free(out);
  free(text);
}

static ml_status inflate_with(const char *bytes, size_t size, size_t most, size_t ratio, ml_error *err) {
  char *out;
  size_t out_size;
  ml_status status = ml_inflate(ML_CODING_GZIP, bytes, size, (ml_inflate_limits){most, ratio}, &out, &out_size, err);
  ml_free(out);
  return status;
}

static void test_limits(void) {
  size_t size = (size_t)3 << 20, packed_size;
  char *text = calloc(1, size), *packed;
  ml_error err;
  if (!text) abort();
  ok(ml_deflate(ML_CODING_GZIP, text, size, 9, &packed, &packed_size, &err) == ML_OK && packed_size < size / 900, "zeros become few bytes");
  ok(inflate_with(packed, packed_size, size, 0, &err) == ML_OK, "as many bytes as are allowed");
  ok(inflate_with(packed, packed_size, size - 1, 0, &err) == ML_RESOURCE_EXHAUSTED, "one more than allowed");
  ok(inflate_with(packed, packed_size, 1, 0, &err) == ML_RESOURCE_EXHAUSTED, "one byte allowed");
  ok(inflate_with(packed, packed_size, 0, 100, &err) == ML_RESOURCE_EXHAUSTED && strstr(err.message, "100 times"), "the ratio");
  ok(inflate_with(packed, packed_size, 0, size / packed_size + 1, &err) == ML_OK, "a ratio that is large enough");
  ok(inflate_with(packed, packed_size, 0, SIZE_MAX, &err) == ML_OK, "a ratio beyond all numbers");
  ml_free(packed);
  ok(ml_deflate(ML_CODING_GZIP, text, ML_INFLATE_FREE, 9, &packed, &packed_size, &err) == ML_OK, "less");
  ok(inflate_with(packed, packed_size, 0, 2, &err) == ML_OK, "a mebibyte is free");
  ml_free(packed);
  ok(ml_deflate(ML_CODING_GZIP, text, 1, 0, &packed, &packed_size, &err) == ML_INVALID_ARGUMENT && !packed, "level 0");
  free(text);
}

static void test_memory(void) {
  char *text = text_of(100000), *packed, *out;
  size_t packed_size, out_size;
  ml_error err;
  ok(ml_deflate(ML_CODING_GZIP, text, 100000, 6, &packed, &packed_size, &err) == ML_OK, "gzip");
  uint64_t before = ml_alloc_get_stats().live_blocks;
  for (int way = 0; way < 2; way++) {
    ml_status status = ML_RESOURCE_EXHAUSTED;
    uint64_t n = 0;
    while (status == ML_RESOURCE_EXHAUSTED && n < 1000) {
      ml_alloc_fail_at(++n, false);
      status = way ? ml_deflate(ML_CODING_GZIP, text, 100000, 6, &out, &out_size, &err)
                   : ml_inflate(ML_CODING_GZIP, packed, packed_size, none, &out, &out_size, &err);
      ml_alloc_fail_at(0, false);
      if (status != ML_OK) ok(status == ML_RESOURCE_EXHAUSTED && !out, "allocation %d fails: %s", (int)n, err.message);
      ml_free(out);
      ok(ml_alloc_get_stats().live_blocks == before, "nothing is left behind");
    }
    ok(status == ML_OK && n > 3, "enough memory in the end");
  }
  ml_free(packed);
  free(text);
}

int main(void) {
  test_against_zlib();
  test_cuts();
  test_limits();
  test_memory();
  return done();
}
