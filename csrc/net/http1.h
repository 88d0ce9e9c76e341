/* HTTP/1.1 on the receiving side: heads of requests, and of responses for the client, and chunked bodies (RFC 9112), strict.
 * Lives here: bytes to spans, no sockets, no Lua. May include: base. Nothing allocates; spans point into the caller's bytes.
 *
 * Strict means: whatever two servers might read differently is refused. A request is accepted only when
 *   - every line ends in CRLF; no bare CR or LF, NUL or other control character, no obs-fold, no space before a colon;
 *   - the version is HTTP/1.0 or HTTP/1.1; 1.1 has exactly one Host (1.0 at most one);
 *   - Content-Length is digits only, once; Transfer-Encoding is `chunked`, once, in 1.1 only; never both;
 *   - line, head and field counts stay under the limits below.
 * One CRLF before the request line is skipped (RFC 9112 section 2.2: some clients send one after a body).
 * A response is held to the same rules, but that it needs no Host, may come without a reason phrase, and may have a body that ends with the
 * connection.
 * Work is linear in the bytes received however they are cut: a parser remembers where it stopped. */
#ifndef ML_NET_HTTP1_H
#define ML_NET_HTTP1_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ML_HTTP1_MAX_LINE 8192u    /* request line without its CRLF, and so the target too: 414 beyond */
#define ML_HTTP1_MAX_HEAD 32768u   /* whole head with the empty line: 431 beyond */
#define ML_HTTP1_MAX_FIELDS 100u   /* 431 beyond */
#define ML_HTTP1_MAX_NAME 256u     /* field name: 431 beyond */
#define ML_HTTP1_MAX_METHOD 32u    /* 501 beyond */

typedef enum ml_http1_result {
  ML_HTTP1_MORE = 0, /* all right so far, the input ends too early */
  ML_HTTP1_DONE,
  ML_HTTP1_DATA,     /* chunked only: a run of body bytes */
  ML_HTTP1_BAD       /* see status and message; sticky */
} ml_http1_result;

typedef struct ml_http1_span { uint16_t at, length; } ml_http1_span; /* relative to the first byte of the head */
typedef struct ml_http1_field { ml_http1_span name, value; } ml_http1_field; /* value without surrounding blanks */

typedef struct ml_http1_parser {
  /* read-only, valid after ML_HTTP1_DONE */
  ml_http1_span method, path, query; /* path.length == 0 stands for "/" (absolute form without a path) */
  uint32_t head_length;              /* bytes of the head, the empty line included */
  uint32_t field_count;
  uint64_t content_length;           /* 0 when absent or chunked */
  uint8_t minor;                     /* 0 or 1 */
  bool has_query, has_content_length, chunked, keep_alive, expect_continue;
  uint16_t code;                     /* of a response: 100 … 999 */
  bool until_close;                  /* of a response: the body ends with the connection */
  /* read-only, valid after ML_HTTP1_BAD */
  int status;                        /* 400, 413, 414, 431, 501 or 505 */
  const char *message;               /* a constant text without request bytes */
  /* private */
  uint32_t line_at, scanned;         /* start of the unfinished line; bytes before `scanned` hold no LF after it */
  uint8_t stage, hosts, encodings;
  bool close_seen, keep_alive_seen, coding_known;
  /* limits: at most, and at first, the constants above */
  uint32_t max_head, max_fields;
  bool response;                     /* what is parsed; to be set after init */
  ml_http1_field fields[ML_HTTP1_MAX_FIELDS];
} ml_http1_parser;

void ml_http1_parser_init(ml_http1_parser *parser);
/* Ready for another head, of the same kind and with the same limits. */
void ml_http1_parser_next(ml_http1_parser *parser);
/* `text` holds everything received since the head began (the same bytes as in the call before, and more). */
ml_http1_result ml_http1_parse(ml_http1_parser *parser, const char *text, size_t length);

#define ML_HTTP1_MAX_CHUNK_DIGITS 16u      /* hexadecimal digits of a chunk size, leading zeros included */
#define ML_HTTP1_MAX_EXTENSIONS 16384u     /* bytes of chunk extensions in one body */
#define ML_HTTP1_MAX_TRAILERS 8192u        /* bytes of trailer fields */

typedef struct ml_http1_chunked {
  uint64_t total;      /* read-only: body bytes announced so far */
  int status;          /* read-only, after ML_HTTP1_BAD: 400 or 413 */
  const char *message;
  /* private */
  uint64_t limit, remaining;
  uint32_t extensions, trailers;
  uint8_t state, digits;
} ml_http1_chunked;

/* A body of more than `limit` bytes ends in 413 as soon as a chunk size says so. */
void ml_http1_chunked_init(ml_http1_chunked *body, uint64_t limit);
/* Consumes text[*at, length). DATA: *data and *size are body bytes inside text, call again; MORE: all consumed;
 * DONE: *at is behind the body (trailer fields are checked and dropped); BAD: see status. */
ml_http1_result ml_http1_chunked_next(ml_http1_chunked *body, const char *text, size_t length, size_t *at,
                                      const char **data, size_t *size);

#endif
