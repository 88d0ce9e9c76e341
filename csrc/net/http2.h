/* HTTP/2 on the serving side: one connection's state over libnghttp2, without a socket.
 * Lives here: bytes in, events out; responses in, bytes out. May include: base. This and http2_client are the only
 * places that know libnghttp2.
 *
 *   receive(bytes) … next(&event) … respond(id, …) … output(&bytes)
 *
 * libnghttp2 does frames, HPACK, flow control and the validation of RFC 9113 (pseudo header fields, connection-specific fields,
 * content-length against data). What it leaves to its user is done here:
 *   - bounds: streams at a time, size and number of header fields (431), body of one request (413), bytes of all bodies that are
 *     still arriving (503), bodies that do not arrive in time (408), answers nobody takes (the stream is reset);
 *   - the checks of targets and hosts that HTTP/1.1 requests get, so that both versions accept the same;
 *   - accounts of what costs us more than the client: resets of requests, and PING, SETTINGS, PRIORITY, empty DATA and invalid
 *     frames. Both are refilled by time, the second one by answers too; who overdraws one gets GOAWAY ENHANCE_YOUR_CALM.
 * Everything that may fail says so; after a failure of `receive` or `output` only `output` and `free` make sense.
 * Ownership: the session owns its streams; what an event points to is valid until the next call. One thread at a time. */
#ifndef ML_NET_HTTP2_H
#define ML_NET_HTTP2_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

#define ML_HTTP2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define ML_HTTP2_MAX_RESPONSE_FIELDS 64u

typedef struct ml_http2 ml_http2;

typedef struct ml_http2_limits {
  uint32_t max_streams, max_head, max_fields; /* head: names and values and 32 bytes a field, as RFC 9113 counts */
  uint32_t stream_window, connection_window;
  uint64_t max_body;
  double head_timeout, body_timeout, write_timeout; /* seconds */
  double resets, resets_per_second, glitches, glitches_per_second; /* the two accounts: full, and refilled so fast */
} ml_http2_limits;

typedef struct ml_http2_text { const char *text; size_t length; } ml_http2_text;
typedef struct ml_http2_field { ml_http2_text name, value; } ml_http2_field; /* names in lower case */

typedef enum ml_http2_kind {
  ML_HTTP2_NONE = 0,
  ML_HTTP2_REQUEST, /* a whole request: head and body */
  ML_HTTP2_HEAD,    /* the head of a request whose body is still coming; told once, see ml_http2_stream_body */
  ML_HTTP2_DATA,    /* of a stream whose body is streamed: there is more to read, or its end */
  ML_HTTP2_CLOSED,  /* the client has given up a request that was handed out and not answered */
  ML_HTTP2_REFUSED  /* to be answered with `status` and `message`; nothing else comes of this request */
} ml_http2_kind;

typedef struct ml_http2_event {
  ml_http2_kind kind;
  int32_t id;
  ml_http2_text method, path, query; /* REQUEST and HEAD; query.text == NULL: there is none */
  const ml_http2_field *fields;      /* without pseudo header fields; "host" is first, whatever the client called it */
  size_t field_count;
  ml_http2_text body;                /* REQUEST */
  int status;                        /* REFUSED */
  const char *message;               /* REFUSED: a constant */
} ml_http2_event;

/* 128 streams, 16 KiB and 100 fields of head, 2 MiB and 16 MiB of window, 32 MiB of body, 10, 30 and 30 seconds, 500 resets and 30
 * a second, 1000 glitches and 50 a second. */
void ml_http2_default_limits(ml_http2_limits *limits);
/* `now` is in seconds of any clock that only goes forward. */
ml_status ml_http2_new(const ml_http2_limits *limits, double now, ml_http2 **session, ml_error *err);
void ml_http2_free(ml_http2 *session); /* NULL allowed */

/* At most `room` more bytes of request bodies may be kept: requests beyond it are refused with 503. */
ml_status ml_http2_receive(ml_http2 *session, const void *bytes, size_t length, double now, uint64_t room, ml_error *err);
/* The next event; kind NONE when there is none. */
ml_status ml_http2_next(ml_http2 *session, ml_http2_event *event, ml_error *err);

/* From now on the body of this stream is read with ml_http2_read. `event` is filled as REQUEST and HEAD fill it. False: no such stream. */
bool ml_http2_stream_body(ml_http2 *session, int32_t id, ml_http2_event *event);
/* What has arrived since the last call (may be empty); *ended: nothing more will come. False: no such stream (it was reset).
 * The client may send as much again. */
bool ml_http2_read(ml_http2 *session, int32_t id, ml_http2_text *bytes, bool *ended);

/* A whole answer. Trailers may be NULL (none); with them and without a body the answer is one header block. *sent is false when
 * the stream is gone. Bytes are copied. */
ml_status ml_http2_respond(ml_http2 *session, int32_t id, int status, const ml_http2_field *fields, size_t field_count, const char *body,
                           size_t length, const ml_http2_field *trailers, size_t trailer_count, bool *sent, ml_error *err);
/* An answer in pieces: start, write …, finish. *queued: bytes not yet sent. */
ml_status ml_http2_start(ml_http2 *session, int32_t id, int status, const ml_http2_field *fields, size_t field_count, bool *sent, ml_error *err);
ml_status ml_http2_write(ml_http2 *session, int32_t id, const char *bytes, size_t length, size_t *queued, bool *sent, ml_error *err);
ml_status ml_http2_finish(ml_http2 *session, int32_t id, const ml_http2_field *trailers, size_t trailer_count, bool *sent, ml_error *err);
/* Bytes written to a stream and not yet sent; 0 when it is gone. */
size_t ml_http2_queued(ml_http2 *session, int32_t id);
/* Ends a stream without an answer. `code` is one of RFC 9113 section 7. */
ml_status ml_http2_reset(ml_http2 *session, int32_t id, uint32_t code, ml_error *err);

/* Bytes to be sent; *length == 0: none. They stay until ml_http2_sent says how many of them are gone. */
ml_status ml_http2_output(ml_http2 *session, double now, const char **bytes, size_t *length, ml_error *err);
void ml_http2_sent(ml_http2 *session, size_t length);

/* Graceful end in two steps: says that it is near (requests on their way are still taken), then takes no new ones. */
ml_status ml_http2_shutdown_notice(ml_http2 *session, ml_error *err);
ml_status ml_http2_goaway(ml_http2 *session, ml_error *err);

typedef struct ml_http2_state {
  size_t streams;    /* open: arriving, being handled or being answered */
  uint64_t buffered; /* bytes of bodies that have not been handed out */
  double deadline;   /* when ml_http2_expire has something to do; negative: never */
  bool finished;     /* nothing more to read or send: close */
  bool events;       /* ml_http2_next has something to tell */
} ml_http2_state;
void ml_http2_get_state(const ml_http2 *session, ml_http2_state *state);
/* Refuses (408) or resets what is late. False: the connection as a whole is (no head, no SETTINGS): output and close. */
bool ml_http2_expire(ml_http2 *session, double now);

#endif
