/* Fuzz target: HTTP/2 sessions. The first byte says how the rest is cut and how requests are answered; preface and SETTINGS are put in front,
 * so that frames are reached at once. Besides crashes it checks what must hold for every input: no more streams than announced, no more bytes
 * kept than there is room for, output in whole frames of at most 16384 bytes, and nothing left behind. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "net/http2.h"

#define CHECK(condition) \
  do {                   \
    if (!(condition)) abort(); \
  } while (0)

#define ROOM 4096u

static const ml_http2_field head[] = { { { "content-type", 12 }, { "text/plain", 10 } } }, tail[] = { { { "grpc-status", 11 }, { "0", 1 } } };

typedef struct framing { unsigned char head[9]; size_t have, left; } framing;

/* output is a sequence of frames, wherever it is cut */
static void check_frames(framing *f, const char *bytes, size_t length) {
  while (length != 0) {
    if (f->left != 0) {
      const size_t n = length < f->left ? length : f->left;
      bytes += n, length -= n, f->left -= n;
    } else {
      f->head[f->have++] = (unsigned char)*bytes++, --length;
      if (f->have < 9) continue;
      f->have = 0;
      f->left = (size_t)f->head[0] << 16 | (size_t)f->head[1] << 8 | f->head[2];
      CHECK(f->left <= 16384);
    }
  }
}

static bool flush(ml_http2 *h, framing *f, double now) {
  for (;;) {
    const char *bytes;
    size_t length;
    ml_error err;
    const ml_status status = ml_http2_output(h, now, &bytes, &length, &err);
    check_frames(f, bytes, length);
    ml_http2_sent(h, length);
    if (status != ML_OK || length == 0) return status == ML_OK;
  }
}

static void serve(ml_http2 *h, unsigned how) {
  static const char body[20000];
  ml_error err;
  ml_http2_event event, more;
  ml_http2_text text;
  bool sent, ended;
  size_t queued;
  for (;;) {
    CHECK(ml_http2_next(h, &event, &err) == ML_OK);
    const int32_t id = event.id;
    switch (event.kind) {
    case ML_HTTP2_NONE:
      return;
    case ML_HTTP2_REQUEST:
      CHECK(event.field_count <= 9 && event.method.length > 0 && event.path.length > 0 && event.body.length <= ROOM);
      if ((id & 2) != 0 && (how & 1) != 0) break; /* left without an answer */
      ml_http2_respond(h, id, 200, head, 1, body, (how & 2) != 0 ? sizeof(body) : event.body.length, tail, (how >> 2) & 1, &sent, &err);
      break;
    case ML_HTTP2_HEAD:
      if ((how & 8) == 0) break;
      CHECK(ml_http2_stream_body(h, id, &more) && more.method.length == event.method.length);
      ml_http2_start(h, id, 200, head, 1, &sent, &err);
      ml_http2_write(h, id, body, 100, &queued, &sent, &err);
      if ((how & 16) != 0) ml_http2_finish(h, id, tail, 1, &sent, &err);
      break;
    case ML_HTTP2_DATA:
      if (ml_http2_read(h, id, &text, &ended) && ended) ml_http2_finish(h, id, tail, 1, &sent, &err);
      else if ((how & 32) != 0) ml_http2_reset(h, id, 8, &err);
      break;
    case ML_HTTP2_CLOSED:
      ml_http2_respond(h, id, 200, head, 1, body, 1, NULL, 0, &sent, &err);
      CHECK(!sent);
      break;
    case ML_HTTP2_REFUSED:
      CHECK(event.status >= 400 && event.message != NULL);
      ml_http2_respond(h, id, event.status, head, 1, event.message, strlen(event.message), NULL, 0, &sent, &err);
      break;
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  static const char settings[9] = { 0, 0, 0, 4, 0, 0, 0, 0, 0 };
  if (size == 0) return 0;
  const uint64_t live = ml_alloc_get_stats().live_blocks;
  const unsigned how = bytes[0];
  const size_t step = (how & 64) != 0 ? 7 : (how & 128) != 0 ? 100 : size;
  ml_http2_limits limits;
  ml_http2 *h;
  ml_error err;
  framing f = { .left = 0 };
  double now = 1;
  ml_http2_default_limits(&limits);
  limits.max_streams = 4;
  limits.max_fields = 8;
  limits.max_head = 500;
  limits.max_body = 3000;
  limits.stream_window = 3000;
  limits.resets = limits.glitches = 20;
  if (ml_http2_new(&limits, now, &h, &err) != ML_OK) return 0;
  bool fine = ml_http2_receive(h, ML_HTTP2_PREFACE, 24, now, ROOM, &err) == ML_OK && ml_http2_receive(h, settings, 9, now, ROOM, &err) == ML_OK;
  CHECK(fine);
  for (size_t at = 1; fine && at < size; at += step) {
    const size_t length = size - at < step ? size - at : step;
    ml_http2_state state;
    char *exact = malloc(length); /* no byte to spare */
    if (exact == NULL) break;
    memcpy(exact, bytes + at, length);
    ml_http2_get_state(h, &state);
    fine = ml_http2_receive(h, exact, length, now, ROOM - state.buffered, &err) == ML_OK;
    free(exact);
    ml_http2_get_state(h, &state);
    CHECK(state.buffered <= ROOM);
    serve(h, how);
    fine = flush(h, &f, now) && fine;
    ml_http2_get_state(h, &state);
    CHECK(state.streams <= limits.max_streams || state.finished);
    now += 0.5;
    if ((how & 16) == 0) ml_http2_expire(h, now);
  }
  if ((how & 1) != 0) ml_http2_shutdown_notice(h, &err);
  ml_http2_goaway(h, &err);
  flush(h, &f, now);
  CHECK(f.left == 0 && f.have == 0);
  ml_http2_free(h);
  CHECK(ml_alloc_get_stats().live_blocks == live);
  return 0;
}
