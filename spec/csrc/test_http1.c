/* Request heads and chunked bodies at the level of bytes: exact buffers (so that a sanitizer sees a read too far), every cut,
 * limits to the byte, and linear work. What each refusal looks like to a client is tested over sockets in spec/serve. */
#include "net/http1.h"
#include <stdlib.h>
#include <string.h>
#include "tap.h"

/* a copy without a byte to spare */
static char *exact(const char *text, size_t length) {
  char *copy = malloc(length != 0 ? length : 1);
  if (copy == NULL) abort();
  memcpy(copy, text, length);
  return copy;
}

static int parse_status(const char *text, size_t length) {
  ml_http1_parser parser;
  char *copy = exact(text, length);
  ml_http1_parser_init(&parser);
  ml_http1_result result = ml_http1_parse(&parser, copy, length);
  free(copy);
  return result == ML_HTTP1_DONE ? 200 : result == ML_HTTP1_MORE ? 0 : parser.status;
}

/* fed with one more byte each time, in buffers that move */
static ml_http1_result parse_bytewise(ml_http1_parser *parser, const char *text, size_t length) {
  ml_http1_parser_init(parser);
  ml_http1_result result = ML_HTTP1_MORE;
  for (size_t i = 0; i <= length && result == ML_HTTP1_MORE; ++i) {
    char *copy = exact(text, i);
    result = ml_http1_parse(parser, copy, i);
    free(copy);
  }
  return result;
}

static bool is(ml_http1_span span, const char *text, const char *expected) {
  return span.length == strlen(expected) && memcmp(text + span.at, expected, span.length) == 0;
}

static void test_whole(void) {
  static const char text[] = "\r\nPOST /v1/models/m:predict?a=b?c HTTP/1.1\r\nHost: [::1]:8501\r\nX:  \t a b\t\r\nEmpty:\r\n"
                             "Content-Length: 0012\r\nExpect: 100-continue\r\nConnection: foo, close\r\n\r\nbody";
  ml_http1_parser parser;
  for (int way = 0; way < 2; ++way) {
    if (way == 0) {
      ml_http1_parser_init(&parser);
      ok(ml_http1_parse(&parser, text, sizeof(text) - 1) == ML_HTTP1_DONE, "whole head");
    } else {
      ok(parse_bytewise(&parser, text, sizeof(text) - 1) == ML_HTTP1_DONE, "head byte by byte");
    }
    ok(is(parser.method, text, "POST"), "method");
    ok(is(parser.path, text, "/v1/models/m:predict"), "path");
    ok(parser.has_query && is(parser.query, text, "a=b?c"), "query");
    ok(parser.field_count == 6, "field count");
    ok(is(parser.fields[0].name, text, "Host") && is(parser.fields[0].value, text, "[::1]:8501"), "host");
    ok(is(parser.fields[1].value, text, "a b"), "blanks around a value");
    ok(is(parser.fields[2].value, text, ""), "empty value");
    ok(parser.content_length == 12 && parser.has_content_length && !parser.chunked, "length");
    ok(parser.expect_continue && !parser.keep_alive && parser.minor == 1, "flags");
    ok(parser.head_length == sizeof(text) - 1 - 4, "head length");
    ok(ml_http1_parse(&parser, text, sizeof(text) - 1) == ML_HTTP1_DONE, "done is sticky");
  }
  ml_http1_parser_init(&parser);
  ok(ml_http1_parse(&parser, "GET /\n", 6) == ML_HTTP1_BAD && ml_http1_parse(&parser, text, 10) == ML_HTTP1_BAD, "bad is sticky");
}

static void test_every_byte(void) {
  /* in each place of a request, which bytes keep it well-formed? Compared with the rules written down as sets. */
  static const char token[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  for (int c = 0; c < 256; ++c) {
    char text[64];
    bool in_token = c != 0 && strchr(token, c) != NULL;
    int length = snprintf(text, sizeof(text), "G_T /a_b HTTP/1.1\r\nHost: a\r\nX_Y: a_b\r\n\r\n");
    char work[64];
    memcpy(work, text, (size_t)length);
    work[1] = (char)c;
    ok((parse_status(work, (size_t)length) == 200) == in_token, "byte %d in a method", c);
    memcpy(work, text, (size_t)length);
    work[6] = (char)c;
    ok((parse_status(work, (size_t)length) == 200) == (c > 0x20 && c < 0x7f && c != '#'), "byte %d in a target", c);
    memcpy(work, text, (size_t)length);
    work[29] = (char)c;
    ok((parse_status(work, (size_t)length) == 200) == (in_token || c == ':'), "byte %d in a field name", c);
    memcpy(work, text, (size_t)length);
    work[34] = (char)c;
    ok((parse_status(work, (size_t)length) == 200) == (c == '\t' || (c >= 0x20 && c != 0x7f)), "byte %d in a field value", c);
  }
}

static void test_limits(void) {
  size_t size = 3 * ML_HTTP1_MAX_HEAD;
  char *text = malloc(size);
  if (text == NULL) abort();
  for (int over = 0; over < 2; ++over) {
    size_t line = ML_HTTP1_MAX_LINE + (size_t)over;
    memset(text, 'a', size);
    memcpy(text, "GET /", 5);
    memcpy(text + line - 9, " HTTP/1.1\r\nHost: a\r\n\r\n", 22);
    ok(parse_status(text, line + 13) == (over ? 414 : 200), "request line of %zu bytes", line);
    size_t head = ML_HTTP1_MAX_HEAD + (size_t)over;
    memset(text, 'a', size);
    memcpy(text, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 28);
    memcpy(text + head - 4, "\r\n\r\n", 4);
    ok(parse_status(text, head) == (over ? 431 : 200), "head of %zu bytes", head);
    ok(parse_status(text, size) == (over ? 431 : 200), "head of %zu bytes with a body behind", head);
    size_t length = (size_t)sprintf(text, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = 1; i < ML_HTTP1_MAX_FIELDS + (unsigned)over; ++i) length += (size_t)sprintf(text + length, "X: 1\r\n");
    length += (size_t)sprintf(text + length, "\r\n");
    ok(parse_status(text, length) == (over ? 431 : 200), "%u fields", ML_HTTP1_MAX_FIELDS + (unsigned)over);
    memset(text, 'a', size);
    size_t name = ML_HTTP1_MAX_NAME + (size_t)over;
    memcpy(text, "GET / HTTP/1.1\r\nHost: a\r\n", 25);
    memcpy(text + 25 + name, ": 1\r\n\r\n", 7);
    ok(parse_status(text, 25 + name + 7) == (over ? 431 : 200), "field name of %zu bytes", name);
    memset(text, 'M', size);
    size_t method = ML_HTTP1_MAX_METHOD + (size_t)over;
    memcpy(text + method, " / HTTP/1.1\r\nHost: a\r\n\r\n", 24);
    ok(parse_status(text, method + 24) == (over ? 501 : 200), "method of %zu bytes", method);
  }
  memset(text, 'a', size);
  ok(parse_status(text, ML_HTTP1_MAX_LINE + 1) == 0, "a line that may still end");
  ok(parse_status(text, ML_HTTP1_MAX_LINE + 2) == 414, "a line that is too long already");
  free(text);
}

/* decodes with at most `step` bytes a call; returns the status (0: more, 200: done) */
static int decode(const char *text, size_t length, uint64_t limit, size_t step, char *out, size_t *out_length, size_t *used) {
  ml_http1_chunked body;
  ml_http1_chunked_init(&body, limit);
  *out_length = 0;
  for (size_t from = 0; from < length;) {
    size_t part = length - from < step ? length - from : step, at = 0, size = 0;
    const char *data = NULL;
    char *copy = exact(text + from, part);
    ml_http1_result result;
    while ((result = ml_http1_chunked_next(&body, copy, part, &at, &data, &size)) == ML_HTTP1_DATA) {
      if (out != NULL) memcpy(out + *out_length, data, size);
      *out_length += size;
    }
    free(copy);
    *used = from + at;
    if (result == ML_HTTP1_BAD) return body.status;
    if (result == ML_HTTP1_DONE) return 200;
    from += part;
  }
  return 0;
}

static void test_chunked(void) {
  static const char text[] = "5\r\nhello\r\n1;x=\"y\"\r\n \r\n05\r\nworld\r\n0\r\nA: b\r\nC:\r\n\r\nrest";
  char out[64];
  size_t length, used;
  for (size_t step = 1; step < sizeof(text); ++step) {
    ok(decode(text, sizeof(text) - 1, 11, step, out, &length, &used) == 200, "decoded in steps of %zu", step);
    ok(length == 11 && memcmp(out, "hello world", 11) == 0 && used == sizeof(text) - 1 - 4, "body and end in steps of %zu", step);
    ok(decode(text, sizeof(text) - 1, 10, step, out, &length, &used) == 413, "over the limit in steps of %zu", step);
  }
  for (size_t end = 0; end < sizeof(text) - 1 - 4; ++end)
    ok(decode(text, end, 11, end + 1, out, &length, &used) == 0, "%zu bytes are not enough", end);
  ok(decode("fffffffffffffffe\r\n", 18, UINT64_MAX, 18, out, &length, &used) == 0, "the largest chunk is a number like others");
  ok(decode("1\r\na\r\nffffffffffffffff\r\n", 24, UINT64_MAX, 24, out, &length, &used) == 413, "the sum does not overflow");
  ok(decode("10000000000000000\r\n", 19, UINT64_MAX, 19, out, &length, &used) == 400, "17 digits");

  size_t chunks = 1000000, size = 6 * chunks + 5;
  char *many = malloc(size);
  if (many == NULL) abort();
  for (size_t i = 0; i < chunks; ++i) memcpy(many + 6 * i, "1\r\nx\r\n", 6);
  memcpy(many + 6 * chunks, "0\r\n\r\n", 5);
  ok(decode(many, size, chunks, 4096, NULL, &length, &used) == 200 && length == chunks && used == size, "a million chunks");
  free(many);
}

/* code of a good response head, minus the status of a refusal, or 0: more is needed; the same however it is cut */
static int response_code(const char *text, ml_http1_parser *parser) {
  int code[2] = { 0, 0 };
  for (int way = 0; way < 2; ++way) {
    size_t length = strlen(text);
    ml_http1_result result = ML_HTTP1_MORE;
    ml_http1_parser_init(parser);
    parser->response = true;
    for (size_t i = way == 0 ? length : 0; i <= length && result == ML_HTTP1_MORE; ++i) {
      char *copy = exact(text, i);
      result = ml_http1_parse(parser, copy, i);
      free(copy);
    }
    code[way] = result == ML_HTTP1_DONE ? parser->code : result == ML_HTTP1_MORE ? 0 : -parser->status;
  }
  return code[0] == code[1] ? code[0] : -1;
}

static void test_responses(void) {
  static const struct { const char *text; int code; int64_t length; bool keep; } cases[] = { /* length -1: chunked, -2: until the end */
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, 5, true },
    { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n", 200, 5, false },
    { "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", 200, 5, false },
    { "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n", 200, 5, true },
    { "HTTP/1.1 404 N\303\266t found\r\nTransfer-Encoding: chunked\r\n\r\n", 404, -1, true },
    { "HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", 503, 0, true }, { "HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n", 503, 0, true },
    { "HTTP/1.1 200 OK\r\n\r\n", 200, -2, false }, { "HTTP/1.1 204 No Content\r\n\r\n", 204, 0, true },
    { "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, 0, true }, { "HTTP/1.1 100 Continue\r\n\r\n", 100, 0, true },
    { "HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", 999, 0, true },
    { "HTTP/2 200 OK\r\n\r\n", -400, 0, false }, { "HTTP/2.0 200 OK\r\n\r\n", -400, 0, false }, { "http/1.1 200 OK\r\n\r\n", -400, 0, false },
    { "HTTP/1.1 099 X\r\n\r\n", -400, 0, false }, { "HTTP/1.1 20 X\r\n\r\n", -400, 0, false }, { "HTTP/1.1 2000 X\r\n\r\n", -400, 0, false },
    { "HTTP/1.1  200 X\r\n\r\n", -400, 0, false }, { "HTTP/1.1 200 a\001b\r\n\r\n", -400, 0, false }, { "\r\nHTTP/1.1 200 OK\r\n\r\n", -400, 0, false },
    { "HTTP/1.1 200 OK\n\n", -400, 0, false }, { "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", -400, 0, false },
    { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", -400, 0, false },
    { "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", -400, 0, false },
    { "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", -400, 0, false }, { "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", -501, 0, false },
    { "HTTP/1.1 200 O", 0, 0, false },
  };
  ml_http1_parser parser;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; ++i) {
    int code = response_code(cases[i].text, &parser);
    ok(code == cases[i].code, "response %zu: %d", i, code);
    if (cases[i].code <= 0) continue;
    int64_t length = parser.until_close ? -2 : parser.chunked ? -1 : (int64_t)parser.content_length;
    ok(length == cases[i].length && parser.keep_alive == cases[i].keep, "body of response %zu: %lld", i, (long long)length);
  }
  ml_http1_parser_next(&parser);
  ok(parser.response && parser.code == 0, "the next one is a response, too");
  char *text = malloc(ML_HTTP1_MAX_LINE + 3);
  if (text == NULL) abort();
  memset(text, 'a', ML_HTTP1_MAX_LINE + 2);
  memcpy(text, "HTTP/1.1 200 ", 13);
  text[ML_HTTP1_MAX_LINE + 2] = '\0';
  ok(response_code(text, &parser) == -431, "a status line that is too long");
  free(text);
}

int main(void) {
  test_responses();
  test_whole();
  test_every_byte();
  test_limits();
  test_chunked();
  return done();
}
