/* HTTP/2 on the asking side: one connection's state over libnghttp2, without a socket.
 * Lives here: requests in, bytes out; bytes in, answers out. May include: base. Knows nothing of gRPC but that requests and answers come in pieces
 * and that answers end in trailers.
 *
 *   request(fields, body) … output(&bytes) … receive(bytes) … next(&id) … get(id), read(id)
 *
 * What a server can make us keep is bounded: fields of an answer (max_head, max_fields; the stream is reset beyond), and of each body one window,
 * which opens again as the body is read. Requests beyond the server's limit of streams wait here. A request whose stream was refused, or that
 * GOAWAY left out, was not looked at: its error is REFUSED_STREAM (7).
 * Ownership: the session owns its streams until `forget`; texts are valid until the next call. One thread at a time. */
#ifndef ML_NET_HTTP2_CLIENT_H
#define ML_NET_HTTP2_CLIENT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "net/http2.h"

typedef struct ml_http2_client ml_http2_client;

typedef struct ml_http2_client_limits {
  uint32_t max_head, max_fields, stream_window, connection_window;
} ml_http2_client_limits;

typedef struct ml_http2_answer {
  int status;                      /* 0: the head is not there yet */
  const ml_http2_field *fields;    /* pairs; names in lower case; without pseudo header fields */
  size_t field_count;
  const ml_http2_field *trailers;
  size_t trailer_count;
  size_t buffered, queued;         /* bytes of the answer not read, of the request not sent */
  bool ended;                      /* nothing more will come */
  bool closed;                     /* the stream is over … */
  uint32_t error;                  /* … for this reason (RFC 9113 section 7); 0: it came to its end */
} ml_http2_answer;

ml_status ml_http2_client_new(const ml_http2_client_limits *limits, ml_http2_client **client, ml_error *err);
void ml_http2_client_free(ml_http2_client *client); /* NULL allowed */

/* fields: pseudo header fields first. more: the body goes on with write. Bytes are copied. UNAVAILABLE: the connection takes no more. */
ml_status ml_http2_client_request(ml_http2_client *client, const ml_http2_field *fields, size_t count, const char *body, size_t length, bool more, int32_t *id,
                                  ml_error *err);
/* false: the stream is over, or the request has ended. */
ml_status ml_http2_client_write(ml_http2_client *client, int32_t id, const char *bytes, size_t length, bool more, bool *taken, ml_error *err);
ml_status ml_http2_client_reset(ml_http2_client *client, int32_t id, uint32_t code, ml_error *err);
void ml_http2_client_forget(ml_http2_client *client, int32_t id);

ml_status ml_http2_client_receive(ml_http2_client *client, const void *bytes, size_t length, ml_error *err);
/* A stream of which there is news; 0: none. */
int32_t ml_http2_client_next(ml_http2_client *client);
/* false: no such stream. */
bool ml_http2_client_get(ml_http2_client *client, int32_t id, ml_http2_answer *answer);
/* What has come of the body since the last call; empty: nothing. */
ml_http2_text ml_http2_client_read(ml_http2_client *client, int32_t id);

/* As ml_http2_output and ml_http2_sent. */
ml_status ml_http2_client_output(ml_http2_client *client, const char **bytes, size_t *length, ml_error *err);
void ml_http2_client_sent(ml_http2_client *client, size_t length);
/* Whether new requests may be made, and whether there is anything to wait for at all. */
bool ml_http2_client_usable(const ml_http2_client *client);
bool ml_http2_client_finished(const ml_http2_client *client);

#endif
