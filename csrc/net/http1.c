/* Strict HTTP/1.1 heads and chunked bodies; the rules are in the header.
 *
 * The head is read line by line: a line is looked at once, when its LF has arrived, so a head cut into single bytes costs the
 * same as a whole one, and a bad line is refused before the rest is there. The chunked reader is a plain state machine whose
 * only bulk state is DATA, which hands out runs without copying. */
#include "net/http1.h"
#include <string.h>

enum { CLASS_TOKEN = 1, CLASS_VALUE = 2, CLASS_TARGET = 4, CLASS_HOST = 8 };

/* Sums of the above, sixteen bytes a row. token: RFC 9110 5.6.2; value: VCHAR, obs-text, SP, HTAB; target: VCHAR without '#';
 * host: reg-name, IP literal and port of RFC 3986, without the comma that a list of hosts would need. */
static const uint8_t classes[256] = {
  0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0,
  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
  2, 15, 6, 3, 15, 15, 15, 15, 14, 14, 15, 15, 6, 15, 15, 6,
  15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 14, 14, 6, 14, 6, 6,
  6, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
  15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 14, 6, 14, 7, 15,
  7, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,
  15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 6, 7, 6, 15, 0,
  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
  2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2,
};

static inline bool is_class(char c, unsigned mask) { return (classes[(unsigned char)c] & mask) != 0; }

static bool all_class(const char *text, size_t length, unsigned mask) {
  for (size_t i = 0; i < length; ++i)
    if (!is_class(text[i], mask)) return false;
  return true;
}

static inline char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

/* case-insensitive comparison with a lower-case literal of the same length */
static bool same(const char *text, size_t length, const char *literal, size_t literal_length) {
  if (length != literal_length) return false;
  for (size_t i = 0; i < length; ++i)
    if (lower(text[i]) != literal[i]) return false;
  return true;
}
#define SAME(text, length, literal) same((text), (length), "" literal, sizeof(literal) - 1)

static inline ml_http1_span span(size_t at, size_t length) {
  return (ml_http1_span){ .at = (uint16_t)at, .length = (uint16_t)length }; /* both < ML_HTTP1_MAX_HEAD */
}

enum { STAGE_START, STAGE_REQUEST_LINE, STAGE_FIELDS, STAGE_DONE, STAGE_BAD };

static ml_http1_result bad(ml_http1_parser *p, int status, const char *message) {
  p->stage = STAGE_BAD;
  p->status = status;
  p->message = message;
  return ML_HTTP1_BAD;
}

void ml_http1_parser_next(ml_http1_parser *p) {
  memset(p, 0, offsetof(ml_http1_parser, max_head)); /* fields are valid up to field_count only */
}

void ml_http1_parser_init(ml_http1_parser *p) {
  ml_http1_parser_next(p);
  p->max_head = ML_HTTP1_MAX_HEAD;
  p->max_fields = ML_HTTP1_MAX_FIELDS;
  p->response = false;
}

/* origin form "/a?b", absolute form "http://host/a?b", asterisk form "*" (OPTIONS only) */
static ml_http1_result parse_target(ml_http1_parser *p, const char *text, size_t at, size_t length) {
  const char *target = text + at;
  if (!all_class(target, length, CLASS_TARGET)) return bad(p, 400, "invalid character in the request target");
  if (length == 1 && target[0] == '*') {
    if (!(p->method.length == 7 && memcmp(text + p->method.at, "OPTIONS", 7) == 0))
      return bad(p, 400, "the target * is for OPTIONS only");
    p->path = span(at, 1);
    return ML_HTTP1_DONE;
  }
  if (target[0] != '/') {
    size_t skip = length > 7 && SAME(target, 7, "http://") ? 7 : length > 8 && SAME(target, 8, "https://") ? 8 : 0;
    if (skip == 0) return bad(p, 400, "the request target is not a path");
    size_t authority = skip;
    while (authority < length && target[authority] != '/' && target[authority] != '?') ++authority;
    if (authority == skip || !all_class(target + skip, authority - skip, CLASS_HOST))
      return bad(p, 400, "invalid host in the request target");
    at += authority;
    target += authority;
    length -= authority;
  }
  const char *mark = length != 0 ? memchr(target, '?', length) : NULL;
  size_t path_length = mark != NULL ? (size_t)(mark - target) : length;
  p->path = span(at, path_length);
  if (mark != NULL) {
    p->has_query = true;
    p->query = span(at + path_length + 1, length - path_length - 1);
  }
  return ML_HTTP1_DONE;
}

/* METHOD SP target SP HTTP/1.x, single spaces */
static ml_http1_result parse_request_line(ml_http1_parser *p, const char *text, size_t at, size_t length) {
  size_t end = at + length, i = at;
  if (length > ML_HTTP1_MAX_LINE) return bad(p, 414, "request line too long");
  while (i < end && is_class(text[i], CLASS_TOKEN)) ++i;
  if (i == at || i == end || text[i] != ' ') return bad(p, 400, "invalid request line");
  if (i - at > ML_HTTP1_MAX_METHOD) return bad(p, 501, "unknown method");
  p->method = span(at, i - at);
  size_t target = ++i;
  while (i < end && text[i] != ' ') ++i;
  if (i == end || i == target) return bad(p, 400, "invalid request line");
  size_t target_end = i++;
  const char *version = text + i;
  if (end - i != 8 || memcmp(version, "HTTP/", 5) != 0 || version[5] < '0' || version[5] > '9' || version[6] != '.' ||
      version[7] < '0' || version[7] > '9')
    return bad(p, 400, "invalid HTTP version");
  if (version[5] != '1' || version[7] > '1') return bad(p, 505, "HTTP version not supported: use HTTP/1.1");
  p->minor = (uint8_t)(version[7] - '0');
  if (p->method.length == 7 && memcmp(text + at, "CONNECT", 7) == 0) return bad(p, 501, "CONNECT is not supported");
  return parse_target(p, text, target, target_end - target);
}

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* HTTP/1.x SP code [SP reason]; what the reason says is nobody's business */
static ml_http1_result parse_status_line(ml_http1_parser *p, const char *line, size_t length) {
  if (length > ML_HTTP1_MAX_LINE) return bad(p, 431, "status line too long");
  if (length < 12 || memcmp(line, "HTTP/1.", 7) != 0 || (line[7] != '0' && line[7] != '1') || line[8] != ' ') return bad(p, 400, "invalid status line");
  for (size_t i = 9; i < 12; ++i)
    if (!is_digit(line[i])) return bad(p, 400, "invalid status code");
  p->code = (uint16_t)((line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0'));
  if (p->code < 100) return bad(p, 400, "invalid status code");
  if (length > 12 && (line[12] != ' ' || !all_class(line + 13, length - 13, CLASS_VALUE))) return bad(p, 400, "invalid status line");
  p->minor = (uint8_t)(line[7] - '0');
  return ML_HTTP1_DONE;
}

static ml_http1_result parse_content_length(ml_http1_parser *p, const char *value, size_t length) {
  if (p->has_content_length) return bad(p, 400, "more than one Content-Length");
  if (length == 0) return bad(p, 400, "invalid Content-Length");
  for (size_t i = 0; i < length; ++i)
    if (value[i] < '0' || value[i] > '9') return bad(p, 400, "invalid Content-Length");
  uint64_t number = 0;
  for (size_t i = 0; i < length; ++i) {
    if (__builtin_mul_overflow(number, (uint64_t)10, &number) ||
        __builtin_add_overflow(number, (uint64_t)(value[i] - '0'), &number) || number > INT64_MAX)
      return bad(p, 413, "Content-Length too large");
  }
  p->has_content_length = true;
  p->content_length = number;
  return ML_HTTP1_DONE;
}

static void parse_connection(ml_http1_parser *p, const char *value, size_t length) {
  size_t i = 0;
  while (i < length) {
    size_t from = i;
    while (i < length && value[i] != ',') ++i;
    size_t to = i++;
    while (from < to && (value[from] == ' ' || value[from] == '\t')) ++from;
    while (to > from && (value[to - 1] == ' ' || value[to - 1] == '\t')) --to;
    if (SAME(value + from, to - from, "close")) p->close_seen = true;
    else if (SAME(value + from, to - from, "keep-alive")) p->keep_alive_seen = true;
  }
}

static ml_http1_result parse_field(ml_http1_parser *p, const char *text, size_t at, size_t length) {
  size_t end = at + length, i = at;
  if (text[at] == ' ' || text[at] == '\t') return bad(p, 400, "folded header line");
  if (p->field_count == p->max_fields) return bad(p, 431, "too many header fields");
  while (i < end && is_class(text[i], CLASS_TOKEN)) ++i;
  if (i == at || i == end || text[i] != ':') return bad(p, 400, "invalid header field name");
  if (i - at > ML_HTTP1_MAX_NAME) return bad(p, 431, "header field name too long");
  const char *name = text + at;
  size_t name_length = i - at, from = i + 1, to = end;
  if (!all_class(text + from, to - from, CLASS_VALUE)) return bad(p, 400, "invalid character in a header field value");
  while (from < to && (text[from] == ' ' || text[from] == '\t')) ++from;
  while (to > from && (text[to - 1] == ' ' || text[to - 1] == '\t')) --to;
  const char *value = text + from;
  size_t value_length = to - from;
  p->fields[p->field_count++] = (ml_http1_field){ .name = span(at, name_length), .value = span(from, value_length) };
  switch (name_length) {
  case 4:
    if (SAME(name, name_length, "host")) {
      if (p->hosts++ != 0) return bad(p, 400, "more than one Host");
      if (!all_class(value, value_length, CLASS_HOST)) return bad(p, 400, "invalid Host");
    }
    break;
  case 6:
    if (SAME(name, name_length, "expect") && SAME(value, value_length, "100-continue")) p->expect_continue = true;
    break;
  case 10:
    if (SAME(name, name_length, "connection")) parse_connection(p, value, value_length);
    break;
  case 14:
    if (SAME(name, name_length, "content-length") && parse_content_length(p, value, value_length) == ML_HTTP1_BAD)
      return ML_HTTP1_BAD;
    break;
  case 17:
    if (SAME(name, name_length, "transfer-encoding")) {
      if (p->encodings++ != 0) return bad(p, 400, "more than one Transfer-Encoding");
      p->chunked = SAME(value, value_length, "chunked");
      p->coding_known = p->chunked || value_length == 0 || !all_class(value, value_length, CLASS_TOKEN);
    }
    break;
  default:
    break;
  }
  return ML_HTTP1_DONE;
}

/* what can be judged only when all fields are there */
static ml_http1_result finish(ml_http1_parser *p, size_t head_length) {
  if (p->minor == 1 && p->hosts == 0 && !p->response) return bad(p, 400, "missing Host");
  if (p->encodings != 0) {
    if (p->has_content_length) return bad(p, 400, "both Content-Length and Transfer-Encoding");
    if (p->minor == 0) return bad(p, 400, "Transfer-Encoding in HTTP/1.0");
    if (!p->chunked)
      return p->coding_known ? bad(p, 400, "invalid Transfer-Encoding") : bad(p, 501, "unsupported Transfer-Encoding");
  }
  p->keep_alive = !p->close_seen && (p->minor == 1 || p->keep_alive_seen);
  if (p->response) {
    if (p->code < 200 || p->code == 204 || p->code == 304) { /* these have no body, whatever they say */
      p->chunked = false;
      p->content_length = 0;
    } else if (!p->chunked && !p->has_content_length) {
      p->until_close = true;
      p->keep_alive = false;
    }
  }
  p->expect_continue = p->expect_continue && p->minor == 1;
  p->head_length = (uint32_t)head_length;
  p->stage = STAGE_DONE;
  return ML_HTTP1_DONE;
}

ml_http1_result ml_http1_parse(ml_http1_parser *p, const char *text, size_t length) {
  if (p->stage == STAGE_BAD) return ML_HTTP1_BAD;
  if (p->stage == STAGE_DONE) return ML_HTTP1_DONE;
  size_t visible = length < p->max_head ? length : p->max_head;
  for (;;) {
    size_t at = p->line_at;
    const char *feed = visible > p->scanned ? memchr(text + p->scanned, '\n', visible - p->scanned) : NULL;
    if (feed == NULL) {
      p->scanned = (uint32_t)visible;
      if (p->stage != STAGE_FIELDS && visible - at > ML_HTTP1_MAX_LINE + 1)
        return p->response ? bad(p, 431, "status line too long") : bad(p, 414, "request line too long");
      if (visible == p->max_head) return bad(p, 431, p->response ? "response head too large" : "request head too large");
      return ML_HTTP1_MORE;
    }
    size_t next = (size_t)(feed - text) + 1;
    if (next - at < 2 || feed[-1] != '\r') return bad(p, 400, "line does not end in CRLF");
    size_t line = next - at - 2;
    p->line_at = p->scanned = (uint32_t)next;
    if (p->stage == STAGE_FIELDS) {
      if (line == 0) return finish(p, next);
      if (parse_field(p, text, at, line) == ML_HTTP1_BAD) return ML_HTTP1_BAD;
    } else if (line == 0 && p->stage == STAGE_START && !p->response) {
      p->stage = STAGE_REQUEST_LINE;
    } else {
      ml_http1_result result = p->response ? parse_status_line(p, text + at, line) : parse_request_line(p, text, at, line);
      if (result == ML_HTTP1_BAD) return ML_HTTP1_BAD;
      p->stage = STAGE_FIELDS;
    }
  }
}

/* ---- chunked bodies ---- */

enum {
  SIZE_FIRST, SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF,         /* chunks */
  TRAILER_FIRST, TRAILER_NAME, TRAILER_VALUE, TRAILER_LF, LAST_LF,      /* after the chunk of size 0 */
  FINISHED, FAILED
};

static ml_http1_result bad_chunk(ml_http1_chunked *c, int status, const char *message) {
  c->state = FAILED;
  c->status = status;
  c->message = message;
  return ML_HTTP1_BAD;
}

void ml_http1_chunked_init(ml_http1_chunked *c, uint64_t limit) {
  *c = (ml_http1_chunked){ .limit = limit, .state = SIZE_FIRST };
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  c = lower(c);
  return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* the size line is complete */
static ml_http1_result begin_chunk(ml_http1_chunked *c) {
  if (c->remaining == 0) {
    c->state = TRAILER_FIRST;
    return ML_HTTP1_MORE;
  }
  if (c->remaining > c->limit - c->total) return bad_chunk(c, 413, "request body too large");
  c->total += c->remaining;
  c->state = DATA;
  return ML_HTTP1_MORE;
}

/* one byte of framing; BAD, DONE or MORE (go on) */
static ml_http1_result step(ml_http1_chunked *c, char byte) {
  int digit;
  switch (c->state) {
  case SIZE_FIRST:
  case SIZE:
    digit = hex_digit(byte);
    if (digit >= 0) {
      if (++c->digits > ML_HTTP1_MAX_CHUNK_DIGITS || c->remaining >> 60 != 0) return bad_chunk(c, 400, "chunk size too long");
      c->remaining = c->remaining << 4 | (uint64_t)digit;
      c->state = SIZE;
      return ML_HTTP1_MORE;
    }
    if (c->state == SIZE_FIRST) return bad_chunk(c, 400, "invalid chunk size");
    if (byte == ';') c->state = EXTENSION;
    else if (byte == '\r') c->state = SIZE_LF;
    else return bad_chunk(c, 400, "invalid chunk size");
    return ML_HTTP1_MORE;
  case EXTENSION:
    if (byte == '\r') {
      c->state = SIZE_LF;
    } else {
      if (!is_class(byte, CLASS_VALUE)) return bad_chunk(c, 400, "invalid chunk extension");
      if (++c->extensions > ML_HTTP1_MAX_EXTENSIONS) return bad_chunk(c, 400, "chunk extensions too long");
    }
    return ML_HTTP1_MORE;
  case SIZE_LF:
    if (byte != '\n') return bad_chunk(c, 400, "chunk size line does not end in CRLF");
    return begin_chunk(c);
  case DATA_CR:
    if (byte != '\r') return bad_chunk(c, 400, "chunk data does not end in CRLF");
    c->state = DATA_LF;
    return ML_HTTP1_MORE;
  case DATA_LF:
    if (byte != '\n') return bad_chunk(c, 400, "chunk data does not end in CRLF");
    c->state = SIZE_FIRST;
    c->digits = 0;
    return ML_HTTP1_MORE;
  case TRAILER_FIRST:
  case TRAILER_NAME:
  case TRAILER_VALUE:
    if (byte == '\r') {
      if (c->state == TRAILER_NAME) return bad_chunk(c, 400, "invalid trailer field");
      c->state = c->state == TRAILER_FIRST ? LAST_LF : TRAILER_LF;
      return ML_HTTP1_MORE;
    }
    if (++c->trailers > ML_HTTP1_MAX_TRAILERS) return bad_chunk(c, 431, "trailer fields too large");
    if (c->state == TRAILER_VALUE) {
      if (!is_class(byte, CLASS_VALUE)) return bad_chunk(c, 400, "invalid trailer field");
    } else if (byte == ':' && c->state == TRAILER_NAME) {
      c->state = TRAILER_VALUE;
    } else {
      if (!is_class(byte, CLASS_TOKEN)) return bad_chunk(c, 400, "invalid trailer field");
      c->state = TRAILER_NAME;
    }
    return ML_HTTP1_MORE;
  case TRAILER_LF:
    if (byte != '\n') return bad_chunk(c, 400, "trailer line does not end in CRLF");
    c->state = TRAILER_FIRST;
    return ML_HTTP1_MORE;
  default: /* LAST_LF */
    if (byte != '\n') return bad_chunk(c, 400, "chunked body does not end in CRLF");
    c->state = FINISHED;
    return ML_HTTP1_DONE;
  }
}

ml_http1_result ml_http1_chunked_next(ml_http1_chunked *c, const char *text, size_t length, size_t *at,
                                      const char **data, size_t *size) {
  if (c->state == FAILED) return ML_HTTP1_BAD;
  if (c->state == FINISHED) return ML_HTTP1_DONE;
  while (*at < length) {
    if (c->state == DATA) {
      size_t run = length - *at;
      if (run >= c->remaining) {
        run = (size_t)c->remaining;
        c->state = DATA_CR;
      }
      c->remaining -= run;
      *data = text + *at;
      *size = run;
      *at += run;
      return ML_HTTP1_DATA;
    }
    ml_http1_result result = step(c, text[(*at)++]);
    if (result != ML_HTTP1_MORE) return result;
  }
  return ML_HTTP1_MORE;
}
