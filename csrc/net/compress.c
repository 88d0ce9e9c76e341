#include "net/compress.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <zlib.h>

#include "base/alloc.h"

enum { FIRST_ROOM = 4096, WINDOW = 15, GZIP_WINDOW = WINDOW + 16, MEMORY_LEVEL = 8 };

static voidpf take(voidpf unused, uInt count, uInt size) {
  size_t bytes;
  (void)unused;
  return ml_mul_size(count, size, &bytes) ? ml_alloc(bytes) : NULL;
}

static void give_back(voidpf unused, voidpf block) {
  (void)unused;
  ml_free(block);
}

static uInt part(size_t size) { return size < UINT_MAX ? (uInt)size : UINT_MAX; }

/* zlib's header is 16 bits, a multiple of 31, the method in the lower half of the first byte. */
static int window_of(ml_coding coding, const unsigned char *bytes, size_t size) {
  if (coding == ML_CODING_GZIP) return GZIP_WINDOW;
  bool header = size >= 2 && (bytes[0] & 0x0f) == Z_DEFLATED && (bytes[0] << 8 | bytes[1]) % 31 == 0;
  return header ? WINDOW : -WINDOW;
}

typedef struct buffer {
  char *data;
  size_t size, capacity;
} buffer;

/* Room behind what is there, at most up to `most` bytes; none there: false. */
static ml_status make_room(buffer *b, size_t most, ml_error *err) {
  if (b->size < b->capacity) return ML_OK;
  size_t need;
  if (!ml_add_size(b->size, b->size < FIRST_ROOM ? FIRST_ROOM : b->size, &need)) return ml_fail_memory(err, SIZE_MAX, "a request body");
  return ml_grow(&b->data, &b->capacity, need < most ? need : most, 1, "a request body", err);
}

static ml_status inflate_all(z_stream *z, const unsigned char *bytes, size_t size, ml_inflate_limits limits, buffer *b, ml_error *err) {
  size_t most = limits.bytes ? limits.bytes : SIZE_MAX - 1, allowed;
  bool by_ratio = limits.ratio && ml_mul_size(size, limits.ratio, &allowed) && allowed < most;
  if (by_ratio) most = allowed > ML_INFLATE_FREE ? allowed : ML_INFLATE_FREE;
  if (limits.bytes && most >= limits.bytes) {
    most = limits.bytes;
    by_ratio = false;
  }
  size_t at = 0;
  int code = Z_OK;
  z->next_in = (z_const Bytef *)bytes;
  for (;;) {
    if (code == Z_STREAM_END) {
      if (at == size) return ML_OK;
      if (inflateReset(z) != Z_OK) return ml_fail(err, ML_INTERNAL, "zlib cannot begin anew"); /* the next member */
    }
    ML_TRY(make_room(b, most + 1, err)); /* one byte more tells too much from just enough */
    uInt given = part(size - at), room = part(b->capacity - b->size);
    z->next_in = (z_const Bytef *)(bytes + at);
    z->avail_in = given;
    z->next_out = (Bytef *)(b->data + b->size);
    z->avail_out = room;
    code = inflate(z, Z_NO_FLUSH);
    at += given - z->avail_in;
    b->size += room - z->avail_out;
    if (b->size > most && by_ratio)
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the body inflates to more than %zu times its size", limits.ratio);
    if (b->size > most) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the body inflates to more than %zu bytes", most);
    if (code == Z_MEM_ERROR) return ml_fail_memory(err, b->size, "a request body");
    if (code == Z_OK || code == Z_STREAM_END) continue;
    if (code == Z_BUF_ERROR && z->avail_out == 0) continue;
    if (code == Z_BUF_ERROR) return ml_fail(err, ML_DATA_LOSS, "the compressed body is cut short");
    return ml_fail(err, ML_DATA_LOSS, "the compressed body is broken: %s", z->msg ? z->msg : "invalid data");
  }
}

ml_status ml_inflate(ml_coding coding, const void *bytes, size_t size, ml_inflate_limits limits, char **out, size_t *out_size, ml_error *err) {
  z_stream z = {.zalloc = take, .zfree = give_back};
  buffer b = {0};
  *out = NULL;
  *out_size = 0;
  int code = inflateInit2(&z, window_of(coding, bytes, size));
  if (code != Z_OK) return code == Z_MEM_ERROR ? ml_fail_memory(err, 1, "zlib") : ml_fail(err, ML_INTERNAL, "zlib does not begin (%d)", code);
  ml_status status = inflate_all(&z, bytes, size, limits, &b, err);
  inflateEnd(&z);
  if (status != ML_OK) {
    ml_free(b.data);
    return status;
  }
  *out = b.data;
  *out_size = b.size;
  return ML_OK;
}

static ml_status deflate_all(z_stream *z, const unsigned char *bytes, size_t size, buffer *b, ml_error *err) {
  size_t at = 0;
  int code = Z_OK;
  while (code != Z_STREAM_END) {
    ML_TRY(make_room(b, SIZE_MAX, err));
    uInt given = part(size - at), room = part(b->capacity - b->size);
    z->next_in = (z_const Bytef *)(bytes + at);
    z->avail_in = given;
    z->next_out = (Bytef *)(b->data + b->size);
    z->avail_out = room;
    code = deflate(z, at + given == size ? Z_FINISH : Z_NO_FLUSH);
    at += given - z->avail_in;
    b->size += room - z->avail_out;
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR) return ml_fail(err, ML_INTERNAL, "zlib cannot go on (%d)", code);
  }
  return ML_OK;
}

ml_status ml_deflate(ml_coding coding, const void *bytes, size_t size, int level, char **out, size_t *out_size, ml_error *err) {
  z_stream z = {.zalloc = take, .zfree = give_back};
  buffer b = {0};
  *out = NULL;
  *out_size = 0;
  if (level < 1 || level > 9) return ml_fail(err, ML_INVALID_ARGUMENT, "level %d: 1 to 9 expected", level);
  int code = deflateInit2(&z, level, Z_DEFLATED, coding == ML_CODING_GZIP ? GZIP_WINDOW : WINDOW, MEMORY_LEVEL, Z_DEFAULT_STRATEGY);
  if (code != Z_OK) return code == Z_MEM_ERROR ? ml_fail_memory(err, 1, "zlib") : ml_fail(err, ML_INTERNAL, "zlib does not begin (%d)", code);
  ml_status status = deflate_all(&z, bytes, size, &b, err);
  deflateEnd(&z);
  if (status != ML_OK) {
    ml_free(b.data);
    return status;
  }
  *out = b.data;
  *out_size = b.size;
  return ML_OK;
}
