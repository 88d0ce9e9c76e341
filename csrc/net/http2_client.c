/* HTTP/2 sessions of a client over libnghttp2. The connection's window opens as bytes arrive, a stream's as they are read: an answer that nobody
 * reads keeps no other from coming. */
#include "net/http2_client.h"
#include <nghttp2/nghttp2.h>
#include <string.h>
#include "base/alloc.h"

#define OUTPUT_BATCH 65536u
#define MAX_FIELDS 64u /* of a request */

typedef struct buffer { char *bytes; size_t at, size, capacity; } buffer;
typedef struct span { size_t name, name_length, value, value_length; } span;

typedef struct block { /* header fields; texts move as it grows */
  buffer text;
  span *spans;
  size_t count, capacity, size;
  ml_http2_field *fields; /* made when it is complete */
} block;

typedef struct stream stream;
struct stream {
  stream *previous, *following, *queue_next;
  int32_t id;
  int status;           /* of the head that is being read, or of the answer */
  bool head_done, ended, closed, final, deferred, queued, too_large, forgotten;
  uint32_t error;
  block head, trailers;
  buffer in, out;
};

struct ml_http2_client {
  nghttp2_session *session;
  ml_http2_client_limits limits;
  stream *all, *queue_first, *queue_last;
  buffer out;
  bool going, failed, no_memory;
};

static void drop(buffer *b) {
  ml_free(b->bytes);
  *b = (buffer){ 0 };
}

static bool append(buffer *b, const void *bytes, size_t length) {
  size_t need;
  if (length == 0) return true;
  if (b->at == b->size) b->at = b->size = 0;
  if (b->at > b->capacity / 2) {
    memmove(b->bytes, b->bytes + b->at, b->size - b->at);
    b->size -= b->at;
    b->at = 0;
  }
  if (!ml_add_size(b->size, length, &need) || ml_grow(&b->bytes, &b->capacity, need, 1, "an HTTP/2 connection", NULL) != ML_OK) return false;
  memcpy(b->bytes + b->size, bytes, length);
  b->size += length;
  return true;
}

/* ---- streams ---- */

static void free_block(block *b) {
  drop(&b->text);
  ml_free(b->spans);
  ml_free(b->fields);
  *b = (block){ 0 };
}

static stream *find(const ml_http2_client *c, int32_t id) {
  for (stream *s = c->all; s != NULL; s = s->following)
    if (s->id == id) return s;
  return NULL;
}

static void unqueue(ml_http2_client *c, stream *s) {
  stream **at = &c->queue_first, *before = NULL;
  if (!s->queued) return;
  while (*at != s) {
    before = *at;
    at = &(*at)->queue_next;
  }
  *at = s->queue_next;
  s->queued = false;
  if (c->queue_last == s) c->queue_last = before;
}

static void destroy(ml_http2_client *c, stream *s) {
  unqueue(c, s);
  if (s->previous != NULL) s->previous->following = s->following;
  else c->all = s->following;
  if (s->following != NULL) s->following->previous = s->previous;
  free_block(&s->head);
  free_block(&s->trailers);
  drop(&s->in);
  drop(&s->out);
  ml_free(s);
}

static void news(ml_http2_client *c, stream *s) {
  if (s->queued || s->forgotten) return;
  s->queued = true;
  s->queue_next = NULL;
  if (c->queue_last != NULL) c->queue_last->queue_next = s;
  else c->queue_first = s;
  c->queue_last = s;
}

int32_t ml_http2_client_next(ml_http2_client *c) {
  stream *s = c->queue_first;
  if (s == NULL) return 0;
  c->queue_first = s->queue_next;
  if (c->queue_first == NULL) c->queue_last = NULL;
  s->queued = false;
  return s->id;
}

/* ---- what libnghttp2 tells ---- */

static int out_of_memory(ml_http2_client *c) {
  c->no_memory = true;
  return NGHTTP2_ERR_CALLBACK_FAILURE;
}

static bool add_field(block *b, const uint8_t *name, size_t name_length, const uint8_t *value, size_t value_length) {
  if (ml_grow(&b->spans, &b->capacity, b->count + 1, sizeof *b->spans, "header fields", NULL) != ML_OK) return false;
  b->spans[b->count++] = (span){ b->text.size, name_length, b->text.size + name_length, value_length };
  return append(&b->text, name, name_length) && append(&b->text, value, value_length);
}

static bool complete(block *b) {
  ml_free(b->fields);
  b->fields = ml_alloc_zero(b->count + 1, sizeof *b->fields);
  if (b->fields == NULL) return false;
  const char *text = b->text.bytes != NULL ? b->text.bytes : "";
  for (size_t i = 0; i < b->count; ++i) {
    const span *s = &b->spans[i];
    b->fields[i] = (ml_http2_field){ { text + s->name, s->name_length }, { text + s->value, s->value_length } };
  }
  return true;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length, const uint8_t *value,
                     size_t value_length, uint8_t flags, void *user) {
  ml_http2_client *c = user;
  stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  (void)flags;
  if (s == NULL || frame->hd.type != NGHTTP2_HEADERS) return 0;
  block *b = s->head_done ? &s->trailers : &s->head;
  b->size += name_length + value_length + 32;
  if (b->size > c->limits.max_head || b->count >= c->limits.max_fields) {
    s->too_large = true;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* the stream is reset */
  }
  if (name_length != 0 && name[0] == ':') {
    if (name_length == 7 && memcmp(name, ":status", 7) == 0) { /* three digits: checked by libnghttp2 */
      s->status = 0;
      for (size_t i = 0; i < value_length && i < 3; ++i) s->status = s->status * 10 + (value[i] - '0');
    }
    return 0;
  }
  return add_field(b, name, name_length, value, value_length) ? 0 : out_of_memory(c);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  ml_http2_client *c = user;
  if (frame->hd.type == NGHTTP2_GOAWAY) {
    c->going = true;
    return 0;
  }
  stream *s = frame->hd.stream_id != 0 ? nghttp2_session_get_stream_user_data(session, frame->hd.stream_id) : NULL;
  if (s == NULL) return 0;
  if (frame->hd.type == NGHTTP2_HEADERS) {
    if (s->head_done) {
      if (!complete(&s->trailers)) return out_of_memory(c);
    } else if (s->status >= 200) {
      if (!complete(&s->head)) return out_of_memory(c);
      s->head_done = true;
    } else {
      free_block(&s->head); /* an interim answer */
    }
    news(c, s);
  }
  if ((frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
    s->ended = true;
    news(c, s);
  }
  return 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length, void *user) {
  ml_http2_client *c = user;
  stream *s = nghttp2_session_get_stream_user_data(session, id);
  (void)flags;
  if (nghttp2_session_consume_connection(session, length) != 0) return out_of_memory(c);
  if (s == NULL) return 0;
  if (!append(&s->in, bytes, length)) return out_of_memory(c);
  news(c, s);
  return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t error, void *user) {
  ml_http2_client *c = user;
  stream *s = nghttp2_session_get_stream_user_data(session, id);
  if (s == NULL) return 0;
  s->closed = s->ended = true;
  if (s->error == 0) s->error = s->too_large ? NGHTTP2_ENHANCE_YOUR_CALM : error;
  drop(&s->out);
  if (s->forgotten) destroy(c, s);
  else news(c, s);
  return 0;
}

static int on_not_sent(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user) {
  ml_http2_client *c = user;
  stream *s = frame->hd.type == NGHTTP2_HEADERS ? find(c, frame->hd.stream_id) : NULL;
  (void)session, (void)code;
  if (s == NULL || s->closed) return 0;
  s->closed = s->ended = true; /* it never left: as if it had been refused */
  s->error = NGHTTP2_REFUSED_STREAM;
  if (!s->forgotten) news(c, s);
  return 0;
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *into, size_t length, uint32_t *flags, nghttp2_data_source *source, void *user) {
  stream *s = source->ptr;
  (void)session, (void)id, (void)user;
  size_t n = s->out.size - s->out.at;
  if (n > length) n = length;
  if (n != 0) memcpy(into, s->out.bytes + s->out.at, n);
  s->out.at += n;
  if (s->out.at == s->out.size) {
    if (s->final) *flags |= NGHTTP2_DATA_FLAG_EOF;
    else if (n == 0) {
      s->deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
    s->out.at = s->out.size = 0;
  }
  return (ssize_t)n;
}

/* ---- the session ---- */

static ml_status fail(ml_http2_client *c, int code, ml_error *err) {
  if (c->no_memory || code == NGHTTP2_ERR_NOMEM) return ml_fail_memory(err, 0, "an HTTP/2 connection");
  return ml_fail(err, ML_UNAVAILABLE, "HTTP/2: %s", nghttp2_strerror(code));
}

static int start(ml_http2_client *c) {
  nghttp2_session_callbacks *callbacks = NULL;
  nghttp2_option *option = NULL;
  int code = nghttp2_session_callbacks_new(&callbacks);
  if (code == 0) code = nghttp2_option_new(&option);
  if (code == 0) {
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_not_sent);
    code = nghttp2_session_client_new2(&c->session, callbacks, c, option);
  }
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_option_del(option);
  const nghttp2_settings_entry settings[] = {
    { NGHTTP2_SETTINGS_ENABLE_PUSH, 0 }, { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, c->limits.stream_window },
    { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, c->limits.max_head },
  };
  if (code == 0) code = nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(settings[0]));
  if (code == 0) code = nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, (int32_t)c->limits.connection_window);
  return code;
}

ml_status ml_http2_client_new(const ml_http2_client_limits *limits, ml_http2_client **client, ml_error *err) {
  ml_http2_client *c = ml_alloc_zero(1, sizeof(*c));
  *client = NULL;
  if (c == NULL) return ml_fail_memory(err, sizeof(*c), "an HTTP/2 connection");
  c->limits = *limits;
  const int code = start(c);
  if (code != 0) {
    const ml_status status = fail(c, code, err);
    ml_http2_client_free(c);
    return status;
  }
  *client = c;
  return ML_OK;
}

void ml_http2_client_free(ml_http2_client *c) {
  if (c == NULL) return;
  nghttp2_session_del(c->session); /* calls nobody back */
  while (c->all != NULL) destroy(c, c->all);
  drop(&c->out);
  ml_free(c);
}

/* ---- requests ---- */

ml_status ml_http2_client_request(ml_http2_client *c, const ml_http2_field *fields, size_t count, const char *body, size_t length, bool more, int32_t *id,
                                  ml_error *err) {
  nghttp2_nv pairs[MAX_FIELDS];
  *id = 0;
  if (!ml_http2_client_usable(c)) return ml_fail(err, ML_UNAVAILABLE, "the connection takes no more requests");
  if (count > MAX_FIELDS) return ml_fail(err, ML_INVALID_ARGUMENT, "more than %u header fields", MAX_FIELDS);
  for (size_t i = 0; i < count; ++i) {
    const ml_http2_text name = fields[i].name, value = fields[i].value;
    const bool pseudo = name.length > 1 && name.text[0] == ':';
    if (nghttp2_check_header_name((const uint8_t *)name.text + pseudo, name.length - pseudo) == 0 ||
        nghttp2_check_header_value((const uint8_t *)value.text, value.length) == 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "invalid header field '%.*s'", (int)(name.length < 100 ? name.length : 100), name.text);
    pairs[i] = (nghttp2_nv){ (uint8_t *)(uintptr_t)name.text, (uint8_t *)(uintptr_t)value.text, name.length, value.length, NGHTTP2_NV_FLAG_NONE };
  }
  stream *s = ml_alloc_zero(1, sizeof(*s));
  if (s == NULL || !append(&s->out, body, length)) {
    ml_free(s);
    return ml_fail_memory(err, length, "a request");
  }
  s->final = !more;
  s->following = c->all;
  if (c->all != NULL) c->all->previous = s;
  c->all = s;
  const nghttp2_data_provider provider = { .source.ptr = s, .read_callback = on_read };
  const int32_t result = nghttp2_submit_request(c->session, NULL, pairs, count, &provider, s);
  if (result < 0) {
    destroy(c, s);
    return fail(c, result, err);
  }
  *id = s->id = result;
  return ML_OK;
}

ml_status ml_http2_client_write(ml_http2_client *c, int32_t id, const char *bytes, size_t length, bool more, bool *taken, ml_error *err) {
  stream *s = find(c, id);
  *taken = s != NULL && !s->closed && !s->final && !c->failed;
  if (!*taken) return ML_OK;
  if (!append(&s->out, bytes, length)) return ml_fail_memory(err, length, "a request");
  s->final = !more;
  if (!s->deferred || (length == 0 && more)) return ML_OK;
  s->deferred = false;
  const int code = nghttp2_session_resume_data(c->session, id);
  return code == NGHTTP2_ERR_NOMEM ? fail(c, code, err) : ML_OK;
}

ml_status ml_http2_client_reset(ml_http2_client *c, int32_t id, uint32_t code, ml_error *err) {
  const stream *s = find(c, id);
  if (s == NULL || s->closed || c->failed) return ML_OK;
  const int result = nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, code);
  return result != 0 ? fail(c, result, err) : ML_OK;
}

/* libnghttp2 may still read the request's body from it: a stream that is open is reset, and freed when it has closed. */
void ml_http2_client_forget(ml_http2_client *c, int32_t id) {
  stream *s = find(c, id);
  if (s == NULL || s->forgotten) return;
  if (s->closed) {
    destroy(c, s);
    return;
  }
  unqueue(c, s);
  s->forgotten = s->final = true;
  if (!c->failed) (void)nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL); /* fails for want of memory: it ends with the connection */
}

/* ---- bytes ---- */

ml_status ml_http2_client_receive(ml_http2_client *c, const void *bytes, size_t length, ml_error *err) {
  if (c->failed) return ml_fail(err, ML_UNAVAILABLE, "HTTP/2: the connection has failed");
  const ssize_t n = nghttp2_session_mem_recv(c->session, bytes, length);
  if (n >= 0) return ML_OK;
  c->failed = true;
  return fail(c, (int)n, err);
}

bool ml_http2_client_get(ml_http2_client *c, int32_t id, ml_http2_answer *answer) {
  const stream *s = find(c, id);
  *answer = (ml_http2_answer){ 0 };
  if (s == NULL) return false;
  *answer = (ml_http2_answer){
    .status = s->head_done ? s->status : 0, .fields = s->head.fields, .field_count = s->head_done ? s->head.count : 0,
    .trailers = s->trailers.fields, .trailer_count = s->trailers.fields != NULL ? s->trailers.count : 0,
    .buffered = s->in.size - s->in.at, .queued = s->out.size - s->out.at, .ended = s->ended, .closed = s->closed, .error = s->error,
  };
  return true;
}

ml_http2_text ml_http2_client_read(ml_http2_client *c, int32_t id) {
  stream *s = find(c, id);
  if (s == NULL || s->in.at == s->in.size) return (ml_http2_text){ "", 0 };
  const ml_http2_text text = { s->in.bytes + s->in.at, s->in.size - s->in.at };
  s->in.at = s->in.size;
  if (!s->closed) (void)nghttp2_session_consume_stream(c->session, id, text.length); /* fails for want of memory: the window stays smaller */
  return text;
}

ml_status ml_http2_client_output(ml_http2_client *c, const char **bytes, size_t *length, ml_error *err) {
  ml_status status = ML_OK;
  if (c->out.at == c->out.size && !c->failed) {
    c->out.at = c->out.size = 0;
    while (c->out.size < OUTPUT_BATCH) {
      const uint8_t *piece = NULL;
      const ssize_t n = nghttp2_session_mem_send(c->session, &piece);
      if (n == 0) break;
      if (n < 0 || !append(&c->out, piece, (size_t)n)) {
        if (n > 0) c->no_memory = true;
        c->failed = true;
        status = fail(c, (int)n, err);
        break;
      }
    }
  }
  *bytes = c->out.bytes != NULL ? c->out.bytes + c->out.at : "";
  *length = c->out.size - c->out.at;
  return status;
}

void ml_http2_client_sent(ml_http2_client *c, size_t length) {
  const size_t left = c->out.size - c->out.at;
  c->out.at += length < left ? length : left;
}

bool ml_http2_client_usable(const ml_http2_client *c) {
  return !c->failed && !c->going && nghttp2_session_check_request_allowed(c->session) != 0;
}

bool ml_http2_client_finished(const ml_http2_client *c) {
  return c->failed || (nghttp2_session_want_read(c->session) == 0 && nghttp2_session_want_write(c->session) == 0);
}
