/* Fuzz target: heads of requests and of responses, and chunked bodies. Besides crashes it checks what must hold for every input: all spans lie inside
 * the head, cutting the input anywhere changes nothing, and an accepted head has no byte that a lenient neighbour could read
 * differently. The first byte chooses where to cut. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "net/http1.h"

#define CHECK(condition) \
  do {                   \
    if (!(condition)) abort(); \
  } while (0)

static void check_span(ml_http1_span span, uint32_t head_length) { CHECK((uint32_t)span.at + span.length <= head_length); }

static void check_head(const ml_http1_parser *parser, const char *text) {
  check_span(parser->method, parser->head_length);
  check_span(parser->path, parser->head_length);
  check_span(parser->query, parser->head_length);
  CHECK(parser->field_count <= ML_HTTP1_MAX_FIELDS && !(parser->chunked && parser->has_content_length));
  for (uint32_t i = 0; i < parser->field_count; ++i) {
    check_span(parser->fields[i].name, parser->head_length);
    check_span(parser->fields[i].value, parser->head_length);
    CHECK(parser->fields[i].name.length > 0 && parser->fields[i].name.length <= ML_HTTP1_MAX_NAME);
  }
  for (uint32_t i = 0; i < parser->head_length; ++i) {
    CHECK(text[i] != '\0');
    if (text[i] == '\r') CHECK(text[i + 1] == '\n');
    if (text[i] == '\n') CHECK(i > 0 && text[i - 1] == '\r');
  }
}

/* order-dependent sum of the body, number of bytes consumed and outcome; `cut` bytes first, then the rest */
static uint64_t decode(const char *text, size_t length, size_t cut, size_t *used, ml_http1_result *result) {
  ml_http1_chunked body;
  uint64_t sum = 0, total = 0;
  ml_http1_chunked_init(&body, 1000);
  *used = 0;
  *result = ML_HTTP1_MORE;
  for (int part = 0; part < 2 && *result == ML_HTTP1_MORE; ++part) {
    size_t end = part == 0 ? cut : length, size = 0;
    const char *data = NULL;
    while ((*result = ml_http1_chunked_next(&body, text, end, used, &data, &size)) == ML_HTTP1_DATA) {
      CHECK(data >= text && size > 0 && data + size <= text + end);
      for (size_t i = 0; i < size; ++i) sum = sum * 31 + (unsigned char)data[i] + 1;
      total += size;
    }
  }
  CHECK(total <= 1000 && total <= body.total && *used <= length);
  return sum;
}

/* Parses at once and cut; returns where the body begins. */
static size_t parse(const char *text, size_t length, size_t cut, bool response) {
  ml_http1_parser whole, parts;
  ml_http1_parser_init(&whole);
  ml_http1_parser_init(&parts);
  whole.response = parts.response = response;
  ml_http1_result result = ml_http1_parse(&whole, text, length), second = ml_http1_parse(&parts, text, cut);
  if (second == ML_HTTP1_MORE) second = ml_http1_parse(&parts, text, length);
  CHECK(result == second && result != ML_HTTP1_DATA);
  size_t body_at = 0;
  if (result == ML_HTTP1_DONE) {
    CHECK(whole.head_length == parts.head_length && whole.field_count == parts.field_count && whole.head_length <= length);
    CHECK(whole.code == parts.code && whole.until_close == parts.until_close && (response ? whole.code >= 100 : whole.method.length > 0));
    CHECK(whole.content_length == parts.content_length && whole.keep_alive == parts.keep_alive && whole.chunked == parts.chunked);
    check_head(&whole, text);
    body_at = whole.head_length;
  } else if (result == ML_HTTP1_BAD) {
    CHECK(whole.status == parts.status && strcmp(whole.message, parts.message) == 0);
  }

  return body_at;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
  if (size == 0) return 0;
  size_t length = size - 1, cut = length * bytes[0] / 256;
  char *text = malloc(length != 0 ? length : 1); /* no byte to spare */
  if (text == NULL) return 0;
  memcpy(text, bytes + 1, length);

  parse(text, length, cut, true);
  size_t body_at = parse(text, length, cut, false);
  size_t used[2];
  ml_http1_result results[2];
  const char *body = text + body_at;
  size_t body_length = length - body_at;
  uint64_t sum = decode(body, body_length, body_length, &used[0], &results[0]);
  CHECK(sum == decode(body, body_length, cut < body_length ? cut : body_length, &used[1], &results[1]));
  CHECK(used[0] == used[1] && results[0] == results[1]);
  free(text);
  return 0;
}
