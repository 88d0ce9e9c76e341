/* The client's HTTP/2 session against the server's, in memory: whole, in single bytes, with a failing allocator, and frames that no server should
 * send. Frames are written down from RFC 9113. */
#include <string.h>

#include "base/alloc.h"
#include "net/http2_client.h"
#include "tap.h"

static const ml_http2_client_limits limits = {.max_head = 4096, .max_fields = 20, .stream_window = 65535, .connection_window = 1 << 20};
static ml_error err;

#define FIELD(name, value) {{name, sizeof name - 1}, {value, sizeof value - 1}}
static const ml_http2_field request_fields[] = {FIELD(":method", "POST"), FIELD(":scheme", "http"), FIELD(":path", "/a"), FIELD(":authority", "h"), FIELD("te", "trailers")};

/* Everything the client has to say goes to the server and back, in pieces of `step`; false when somebody fails. */
static bool exchange(ml_http2_client *c, ml_http2 *server, size_t step) {
  for (int round = 0; round < 8; round++) {
    const char *bytes;
    size_t length;
    bool idle = true;
    while (ml_http2_client_output(c, &bytes, &length, &err) == ML_OK && length > 0) {
      size_t part = length < step ? length : step;
      if (ml_http2_receive(server, bytes, part, 0, UINT64_MAX, &err) != ML_OK) return false;
      ml_http2_client_sent(c, part);
      idle = false;
    }
    ml_http2_event event;
    while (ml_http2_next(server, &event, &err) == ML_OK && event.kind != ML_HTTP2_NONE) {
      static const ml_http2_field head[] = {FIELD("x-a", "b"), FIELD("x-a", "c")}, tail[] = {FIELD("grpc-status", "0")};
      bool sent;
      char body[64];
      size_t size = event.body.length < sizeof body ? event.body.length : sizeof body;
      if (event.kind != ML_HTTP2_REQUEST) continue;
      if (size > 0) memcpy(body, event.body.text, size);
      if (ml_http2_respond(server, event.id, 200, head, 2, body, size, tail, 1, &sent, &err) != ML_OK) return false;
      idle = false;
    }
    while (ml_http2_output(server, 0, &bytes, &length, &err) == ML_OK && length > 0) {
      size_t part = length < step ? length : step;
      if (ml_http2_client_receive(c, bytes, part, &err) != ML_OK) return false;
      ml_http2_sent(server, part);
      idle = false;
    }
    if (idle) return true;
  }
  return true;
}

static void test_answers(void) {
  for (size_t step = 1; step < 100000; step = step * 7 + 1) {
    ml_http2_client *c;
    ml_http2 *server;
    ml_http2_limits server_limits;
    ml_http2_answer answer;
    int32_t first, second;
    bool taken;
    ml_http2_default_limits(&server_limits);
    if (!ok(ml_http2_client_new(&limits, &c, &err) == ML_OK && ml_http2_new(&server_limits, 0, &server, &err) == ML_OK, "sessions")) return;
    ok(ml_http2_client_request(c, request_fields, 5, "hello", 5, false, &first, &err) == ML_OK, "a request");
    ok(ml_http2_client_request(c, request_fields, 5, "", 0, true, &second, &err) == ML_OK && second != first, "another one");
    ok(exchange(c, server, step), "exchanged in steps of %zu: %s", step, err.message);
    ok(ml_http2_client_get(c, first, &answer) && answer.status == 200 && answer.ended && answer.closed && answer.error == 0 && answer.buffered == 5, "an answer");
    ok(answer.trailer_count == 1 && answer.trailers[0].name.length == 11 && answer.trailers[0].value.text[0] == '0', "its trailers");
    ml_http2_text text = ml_http2_client_read(c, first);
    ok(text.length == 5 && memcmp(text.text, "hello", 5) == 0 && ml_http2_client_read(c, first).length == 0, "its body, once");
    ok(ml_http2_client_get(c, second, &answer) && answer.status == 0 && !answer.ended, "the other one waits");
    ok(ml_http2_client_write(c, second, "abc", 3, false, &taken, &err) == ML_OK && taken, "goes on");
    ok(ml_http2_client_write(c, second, "x", 1, false, &taken, &err) == ML_OK && !taken, "and has ended");
    ok(exchange(c, server, step) && ml_http2_client_get(c, second, &answer) && answer.closed && answer.buffered == 3, "answered");
    ml_http2_client_forget(c, first);
    ok(!ml_http2_client_get(c, first, &answer), "forgotten");
    ok(ml_http2_client_request(c, request_fields, 5, "", 0, true, &first, &err) == ML_OK, "a third one");
    ml_http2_client_forget(c, first); /* before it was sent */
    ok(exchange(c, server, step) && !ml_http2_client_get(c, first, &answer) && ml_http2_client_usable(c), "given up");
    ml_http2_client_free(c);
    ml_http2_free(server);
  }
}

/* What the client makes of these bytes of a server, after one request. */
static ml_http2_answer after(const char *bytes, size_t length, ml_status *status, bool *usable) {
  ml_http2_client *c;
  ml_http2_answer answer = {0};
  const char *out;
  size_t n;
  int32_t id;
  *status = ML_INTERNAL;
  if (ml_http2_client_new(&limits, &c, &err) != ML_OK || ml_http2_client_request(c, request_fields, 5, "x", 1, false, &id, &err) != ML_OK) return answer;
  while (ml_http2_client_output(c, &out, &n, &err) == ML_OK && n > 0) ml_http2_client_sent(c, n);
  *status = ml_http2_client_receive(c, bytes, length, &err);
  while (ml_http2_client_output(c, &out, &n, &err) == ML_OK && n > 0) ml_http2_client_sent(c, n);
  ml_http2_client_get(c, id, &answer);
  *usable = ml_http2_client_usable(c);
  answer.fields = answer.trailers = NULL;
  ml_http2_client_free(c);
  return answer;
}

#define SETTINGS "\0\0\0\4\0\0\0\0\0"
static void test_bad_servers(void) {
  ml_status status;
  bool usable;
  ml_http2_answer a;
#define AFTER(text) a = after(text, sizeof text - 1, &status, &usable)
  AFTER(SETTINGS "\0\0\4\3\0\0\0\0\1\0\0\0\7");
  ok(a.closed && a.error == 7 && usable, "a stream refused");
  AFTER(SETTINGS "\0\0\10\7\0\0\0\0\0\0\0\0\0\0\0\0\0");
  ok(a.closed && a.error == 7 && !usable, "a connection that takes no more");
  AFTER("HTTP/1.1 400 Bad Request\r\n\r\n");
  ok(status != ML_OK || !usable, "HTTP/1.1");
  AFTER(SETTINGS "\0\0\1\1\5\0\0\0\1\210");
  ok(a.status == 200 && a.ended && a.closed, "a head alone");
  AFTER(SETTINGS "\0\0\1\0\0\0\0\0\1x");
  ok(a.closed || !usable, "a body without a head");
  AFTER(SETTINGS "\0\0\1\1\5\0\0\0\2\210");
  ok(!usable, "a stream that nobody asked for");
}

static void test_memory(void) {
  unsigned failures = 0;
  for (unsigned n = 1; n < 400; n++) {
    ml_http2_client *c = NULL;
    ml_http2 *server = NULL;
    ml_http2_limits server_limits;
    int32_t id = 0;
    ml_http2_default_limits(&server_limits);
    if (ml_http2_new(&server_limits, 0, &server, &err) != ML_OK) return;
    ml_alloc_fail_at(n, false);
    bool done_well = ml_http2_client_new(&limits, &c, &err) == ML_OK && ml_http2_client_request(c, request_fields, 5, "hello", 5, false, &id, &err) == ML_OK &&
                     exchange(c, server, 1000);
    ml_alloc_fail_at(0, false);
    if (id) ml_http2_client_forget(c, id);
    ml_http2_client_free(c);
    ml_http2_free(server);
    if (!done_well) failures++;
  }
  ok(failures > 2 && failures < 399, "%u allocations failed and left nothing behind", failures);
}

int main(void) {
  test_answers();
  test_bad_servers();
  test_memory();
  return done();
}
