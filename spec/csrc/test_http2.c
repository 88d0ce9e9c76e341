/* HTTP/2 sessions at the level of bytes: every cut of a conversation tells the same, bodies that are streamed and answers in pieces obey
 * the windows, accounts and timeouts count to the number, and a failing allocation anywhere leaks nothing. What clients see of it is tested
 * over sockets in spec/serve. The bytes are written by hand after RFC 9113 and RFC 7541. */
#include "net/http2.h"
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "tap.h"

typedef struct bytes { unsigned char data[200000]; size_t length; } bytes;

static void put(bytes *b, const void *data, size_t length) {
  if (b->length + length > sizeof(b->data)) abort();
  if (length != 0) memcpy(b->data + b->length, data, length);
  b->length += length;
}

static void frame(bytes *b, unsigned type, unsigned flags, unsigned stream, const void *payload, size_t length) {
  const unsigned char head[9] = { (unsigned char)(length >> 16), (unsigned char)(length >> 8), (unsigned char)length, (unsigned char)type,
                                  (unsigned char)flags, (unsigned char)(stream >> 24), (unsigned char)(stream >> 16),
                                  (unsigned char)(stream >> 8), (unsigned char)stream };
  put(b, head, sizeof(head));
  put(b, payload, length);
}

enum { DATA = 0, HEADERS = 1, RST_STREAM = 3, SETTINGS = 4, PING = 6, GOAWAY = 7, WINDOW_UPDATE = 8, END_STREAM = 1, END_HEADERS = 4 };

static void greet(bytes *b) {
  b->length = 0;
  put(b, ML_HTTP2_PREFACE, 24);
  frame(b, SETTINGS, 0, 0, "", 0);
}

/* POST (indexed 3), scheme http (6), path and authority as literals that are not indexed, x: y */
static const char post_head[] = "\x83\x86\x04\x06/a?b=c\x01\x04host\x00\x01x\x01y";
#define POST_LENGTH (sizeof(post_head) - 1)

static void request(bytes *b, unsigned stream, const char *body, bool end) {
  const bool bodiless = body == NULL;
  frame(b, HEADERS, END_HEADERS | (bodiless && end ? END_STREAM : 0), stream, post_head, POST_LENGTH);
  if (!bodiless) frame(b, DATA, end ? END_STREAM : 0, stream, body, strlen(body));
}

static ml_http2 *session(const ml_http2_limits *given) {
  ml_http2_limits limits;
  ml_http2 *h = NULL;
  ml_error err;
  ml_http2_default_limits(&limits);
  if (ml_http2_new(given != NULL ? given : &limits, 100, &h, &err) != ML_OK) return NULL;
  return h;
}

/* all output, appended */
static bool collect(ml_http2 *h, bytes *out) {
  for (;;) {
    const char *data;
    size_t length;
    ml_error err;
    ml_status status = ml_http2_output(h, 100, &data, &length, &err);
    put(out, data, length);
    ml_http2_sent(h, length);
    if (status != ML_OK) return false;
    if (length == 0) return true;
  }
}

/* bytes of DATA of a stream in collected output; *ended, *reset (code + 1), *goaway (code + 1) */
static size_t data_of(const bytes *out, unsigned stream, bool *ended, unsigned *reset, unsigned *goaway) {
  size_t total = 0;
  *ended = false;
  *reset = *goaway = 0;
  for (size_t at = 0; at + 9 <= out->length;) {
    const unsigned char *p = out->data + at;
    const size_t length = (size_t)p[0] << 16 | (size_t)p[1] << 8 | p[2];
    const unsigned id = (unsigned)(p[5] & 0x7f) << 24 | (unsigned)p[6] << 16 | (unsigned)p[7] << 8 | p[8];
    if (id == stream && p[3] == DATA) total += length;
    if (id == stream && (p[3] == DATA || p[3] == HEADERS) && (p[4] & END_STREAM) != 0) *ended = true;
    if (id == stream && p[3] == RST_STREAM) *reset = p[12] + 1u;
    if (p[3] == GOAWAY) *goaway = p[16] + 1u;
    at += 9 + length;
  }
  return total;
}

static bool is(ml_http2_text text, const char *expected) {
  return text.length == strlen(expected) && memcmp(text.text, expected, text.length) == 0;
}

static bool is_request(const ml_http2_event *e, int id, const char *body) {
  return e->kind == ML_HTTP2_REQUEST && e->id == id && is(e->method, "POST") && is(e->path, "/a") && is(e->query, "b=c") && e->field_count == 2 &&
         is(e->fields[0].name, "host") && is(e->fields[0].value, "host") && is(e->fields[1].name, "x") && is(e->fields[1].value, "y") &&
         is(e->body, body);
}

static ml_http2_event next(ml_http2 *h) {
  ml_http2_event event;
  ml_error err;
  ml_http2_next(h, &event, &err);
  return event;
}

static const ml_http2_field plain[] = { { { "content-type", 12 }, { "text/plain", 10 } } };
static const ml_http2_field trailer[] = { { { "grpc-status", 11 }, { "0", 1 } } };

static void test_cuts(void) {
  bytes in, out;
  ml_error err;
  greet(&in);
  request(&in, 1, "hello", true);
  request(&in, 3, NULL, true);
  size_t good = 0;
  for (size_t cut = 0; cut <= in.length; ++cut) {
    ml_http2 *h = session(NULL);
    bool fine = ml_http2_receive(h, in.data, cut, 100, 1000, &err) == ML_OK;
    ml_http2_event event = next(h);
    if (event.kind == ML_HTTP2_HEAD) event = next(h); /* the head of the first one was there */
    bool first = is_request(&event, 1, "hello");
    if (!first) fine = fine && event.kind == ML_HTTP2_NONE;
    fine = fine && ml_http2_receive(h, in.data + cut, in.length - cut, 100, 1000, &err) == ML_OK;
    if (!first) {
      event = next(h);
      fine = fine && is_request(&event, 1, "hello");
      event = next(h);
    } else {
      event = next(h);
    }
    if (cut == in.length) event = (ml_http2_event){ .kind = ML_HTTP2_NONE }; /* told above */
    else fine = fine && is_request(&event, 3, "");
    bool sent = false;
    fine = fine && ml_http2_respond(h, 1, 200, plain, 1, "body", 4, trailer, 1, &sent, &err) == ML_OK && sent;
    bool ended;
    unsigned reset, goaway;
    out.length = 0;
    fine = fine && collect(h, &out) && data_of(&out, 1, &ended, &reset, &goaway) == 4 && ended && reset == 0 && goaway == 0;
    good += fine;
    ml_http2_free(h);
  }
  /* the whole conversation in one piece tells the second request right behind the first */
  ok(good >= in.length, "every cut but the last: %zu of %zu", good, in.length + 1);
  ml_http2 *h = session(NULL);
  ml_http2_receive(h, in.data, in.length, 100, 1000, &err);
  ml_http2_event event = next(h);
  ok(is_request(&event, 1, "hello"), "first request");
  event = next(h);
  ok(is_request(&event, 3, ""), "second request");
  ok(next(h).kind == ML_HTTP2_NONE, "no more");
  ml_http2_state state;
  ml_http2_get_state(h, &state);
  ok(state.streams == 2 && state.buffered == 0 && !state.finished && state.deadline < 0, "two streams are open");
  ml_http2_free(h);
}

static void test_streaming(void) {
  static bytes in, out;
  static char large[100000];
  ml_error err;
  ml_http2 *h = session(NULL);
  ml_http2_event event;
  ml_http2_text text;
  bool ended, sent;
  size_t queued;
  unsigned reset, goaway;
  memset(large, 'z', sizeof(large));
  greet(&in);
  request(&in, 1, "one", false);
  ml_http2_receive(h, in.data, in.length, 100, 1000, &err);
  event = next(h);
  ok(event.kind == ML_HTTP2_HEAD && is(event.path, "/a"), "a head is told before its body is complete");
  ok(ml_http2_stream_body(h, 1, &event) && is(event.method, "POST") && event.field_count == 2, "streamed from here");
  ok(ml_http2_read(h, 1, &text, &ended) && is(text, "one") && !ended, "what had come");
  ok(ml_http2_read(h, 1, &text, &ended) && is(text, "") && !ended, "nothing more yet");
  in.length = 0;
  frame(&in, DATA, 0, 1, "two", 3);
  frame(&in, DATA, END_STREAM, 1, "three", 5);
  ml_http2_receive(h, in.data, in.length, 100, 1000, &err);
  ok(next(h).kind == ML_HTTP2_DATA && next(h).kind == ML_HTTP2_NONE, "told once");
  ok(ml_http2_read(h, 1, &text, &ended) && is(text, "twothree") && ended, "the rest and the end");
  ok(ml_http2_start(h, 1, 200, plain, 1, &sent, &err) == ML_OK && sent, "an answer in pieces");
  ok(ml_http2_respond(h, 1, 200, plain, 1, "", 0, NULL, 0, &sent, &err) == ML_FAILED_PRECONDITION, "no second answer");
  ok(ml_http2_write(h, 1, large, sizeof(large), &queued, &sent, &err) == ML_OK && sent && queued == sizeof(large), "written");
  out.length = 0;
  collect(h, &out);
  ok(data_of(&out, 1, &ended, &reset, &goaway) == 65535 && !ended, "one window is sent");
  ok(ml_http2_queued(h, 1) == sizeof(large) - 65535, "the rest waits");
  ml_http2_finish(h, 1, trailer, 1, &sent, &err);
  in.length = 0;
  frame(&in, WINDOW_UPDATE, 0, 0, "\0\1\0\0", 4);
  frame(&in, WINDOW_UPDATE, 0, 1, "\0\1\0\0", 4);
  ml_http2_receive(h, in.data, in.length, 100, 1000, &err);
  collect(h, &out);
  ok(data_of(&out, 1, &ended, &reset, &goaway) == sizeof(large) && ended && reset == 0, "all of it, and trailers");
  ml_http2_free(h);
}

static void test_accounts(void) {
  static bytes in, out;
  ml_http2_limits limits;
  ml_error err;
  bool ended;
  unsigned reset, goaway;
  ml_http2_default_limits(&limits);
  limits.resets = 10;
  limits.resets_per_second = 1;
  for (int extra = 0; extra < 2; ++extra) {
    ml_http2 *h = session(&limits);
    greet(&in);
    for (unsigned i = 0; i < 10u + (unsigned)extra; ++i) {
      request(&in, 2 * i + 1, NULL, true);
      frame(&in, RST_STREAM, 0, 2 * i + 1, "\0\0\0\10", 4);
    }
    ml_http2_receive(h, in.data, in.length, 100, 1000, &err);
    ok(next(h).kind == ML_HTTP2_NONE, "nobody works for what was taken back");
    out.length = 0;
    collect(h, &out);
    data_of(&out, 0, &ended, &reset, &goaway);
    ok(goaway == (extra ? 12u : 0u), "%d resets: %u", 10 + extra, goaway);
    if (!extra) { /* two seconds later there are two more */
      in.length = 0;
      for (unsigned i = 20; i < 22; ++i) {
        request(&in, 2 * i + 1, NULL, true);
        frame(&in, RST_STREAM, 0, 2 * i + 1, "\0\0\0\10", 4);
      }
      ml_http2_receive(h, in.data, in.length, 102, 1000, &err);
      collect(h, &out);
      data_of(&out, 0, &ended, &reset, &goaway);
      ok(goaway == 0, "the account is refilled");
    }
    ml_http2_state state;
    ml_http2_get_state(h, &state);
    ok(state.finished == (extra != 0), "finished when the account is overdrawn");
    ml_http2_free(h);
  }
}

static void test_bounds(void) {
  static bytes in, out;
  ml_http2_limits limits;
  ml_http2_state state;
  ml_error err;
  bool ended, sent;
  unsigned reset, goaway;
  ml_http2_default_limits(&limits);
  limits.max_body = 8;
  limits.body_timeout = 5;
  ml_http2 *h = session(&limits);
  greet(&in);
  request(&in, 1, "12345678", true);
  request(&in, 3, "123456789", true);
  request(&in, 5, "1234", false);
  ml_http2_receive(h, in.data, in.length, 100, 13, &err);
  ml_http2_event event = next(h);
  ok(is_request(&event, 1, "12345678"), "a body of the largest size");
  event = next(h);
  ok(event.kind == ML_HTTP2_REFUSED && event.id == 3 && event.status == 413, "one byte more: 413");
  ok(next(h).kind == ML_HTTP2_HEAD, "a body still to come");
  ml_http2_get_state(h, &state);
  ok(state.deadline == 105 && state.buffered == 4, "has five seconds");
  in.length = 0;
  frame(&in, DATA, 0, 5, "12", 2);
  ml_http2_receive(h, in.data, in.length, 101, 1, &err);
  event = next(h);
  ok(event.kind == ML_HTTP2_REFUSED && event.id == 5 && event.status == 503, "no room for two bytes: 503");
  ml_http2_get_state(h, &state);
  ok(state.buffered == 0, "nothing is kept of it");
  in.length = 0;
  request(&in, 7, "1", false);
  ml_http2_receive(h, in.data, in.length, 102, 100, &err);
  ok(next(h).kind == ML_HTTP2_HEAD && ml_http2_expire(h, 106.9) && next(h).kind == ML_HTTP2_NONE, "before its time");
  ok(ml_http2_expire(h, 107) && (event = next(h)).kind == ML_HTTP2_REFUSED && event.status == 408, "too late: 408");
  ok(ml_http2_respond(h, 7, 408, plain, 1, "late", 4, NULL, 0, &sent, &err) == ML_OK && sent, "answered");
  out.length = 0;
  collect(h, &out);
  data_of(&out, 7, &ended, &reset, &goaway);
  ok(ended && reset == 0, "a small rest may still come");
  ml_http2_expire(h, 109);
  collect(h, &out);
  data_of(&out, 7, &ended, &reset, &goaway);
  ok(reset == 1, "then the stream is closed with NO_ERROR");
  ok(ml_http2_respond(h, 9, 200, plain, 1, "", 0, NULL, 0, &sent, &err) == ML_OK && !sent, "a stream that is not there");
  static const ml_http2_field bad[] = { { { "a b", 3 }, { "c", 1 } } };
  ok(ml_http2_respond(h, 1, 200, bad, 1, "", 0, NULL, 0, &sent, &err) == ML_INVALID_ARGUMENT && !sent, "an invalid name");
  ok(ml_http2_respond(h, 1, 99, plain, 1, "", 0, NULL, 0, &sent, &err) == ML_INVALID_ARGUMENT && !sent, "an invalid status");
  ok(ml_http2_respond(h, 1, 204, NULL, 0, "", 0, NULL, 0, &sent, &err) == ML_OK && sent, "and a good one afterwards");
  ml_http2_free(h);
}

/* a conversation of all kinds; what fails is no matter */
static void converse(const bytes *in, bytes *out) {
  ml_http2 *h = session(NULL);
  ml_error err;
  bool sent;
  size_t queued;
  if (h == NULL) return;
  for (size_t at = 0; at < in->length; at += 50) {
    const size_t left = in->length - at;
    if (ml_http2_receive(h, in->data + at, left < 50 ? left : 50, 100, 100000, &err) != ML_OK) break;
    for (ml_http2_event event = next(h); event.kind != ML_HTTP2_NONE; event = next(h)) {
      if (event.kind == ML_HTTP2_REQUEST) {
        ml_http2_respond(h, event.id, 200, plain, 1, "an answer", 9, trailer, 1, &sent, &err);
      } else if (event.kind == ML_HTTP2_HEAD && event.id == 5 && ml_http2_stream_body(h, 5, &event)) {
        ml_http2_start(h, 5, 200, plain, 1, &sent, &err);
        ml_http2_write(h, 5, "piece", 5, &queued, &sent, &err);
        ml_http2_finish(h, 5, trailer, 1, &sent, &err);
      } else if (event.kind == ML_HTTP2_REFUSED) {
        ml_http2_respond(h, event.id, event.status, plain, 1, "no", 2, NULL, 0, &sent, &err);
      }
    }
    out->length = 0;
    if (!collect(h, out)) break;
  }
  ml_http2_goaway(h, &err);
  out->length = 0;
  collect(h, out);
  ml_http2_free(h);
}

static void test_memory(void) {
  static bytes in, out;
  greet(&in);
  request(&in, 1, "hello", true);
  request(&in, 3, NULL, true);
  request(&in, 5, "streamed", false);
  frame(&in, PING, 0, 0, "12345678", 8);
  frame(&in, DATA, END_STREAM, 5, "more", 4);
  request(&in, 7, "never complete", false);
  frame(&in, RST_STREAM, 0, 7, "\0\0\0\10", 4);
  const uint64_t live = ml_alloc_get_stats().live_blocks, before = ml_alloc_get_stats().allocations;
  converse(&in, &out);
  const uint64_t needed = ml_alloc_get_stats().allocations - before;
  ok(ml_alloc_get_stats().live_blocks == live, "nothing is left behind");
  ok(needed > 20, "allocations go through the hook: %u", (unsigned)needed);
  uint64_t leaks = 0;
  for (uint64_t n = 1; n <= needed; ++n)
    for (int persistent = 0; persistent < 2; ++persistent) {
      ml_alloc_fail_at(n, persistent != 0);
      converse(&in, &out);
      ml_alloc_fail_at(0, false);
      leaks += ml_alloc_get_stats().live_blocks != live;
    }
  ok(leaks == 0, "each of %u allocations may fail: %u leaks", (unsigned)needed, (unsigned)leaks);
}

int main(void) {
  test_cuts();
  test_streaming();
  test_accounts();
  test_bounds();
  test_memory();
  return done();
}
