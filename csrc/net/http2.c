/* HTTP/2 sessions over libnghttp2; what it does and what is done here is in the header.
 *
 * A stream is in at most two places beside the list of all: the queue of those that have something to tell (`queue`), and one of
 * three lists ordered by time, `arriving` (a request that is not complete: body_timeout), `sending` (bytes of an answer wait:
 * write_timeout) and `closing` (it is answered, but its client still sends), whose first one says when there is something to
 * expire. Structures and their small buffers are used again. */
#include "net/http2.h"
#include <nghttp2/nghttp2.h>
#include <string.h>
#include "base/alloc.h"

#define OUTPUT_BATCH 65536u    /* output is collected until it has this size … */
#define OUTPUT_KEPT 16384u     /* … and an idle connection keeps a buffer of at most this */
#define SPARE_STREAMS 64u
#define SPARE_BYTES 16384u     /* buffers up to this size stay with a spare stream */
#define RESERVE_MOST 1048576u  /* what a content-length alone can make us set aside */
#define MAX_TARGET 8192u       /* bounds of HTTP/1.1's requests */
#define MAX_METHOD 32u
#define MAX_TRAILERS 8192u
#define UNWANTED_MOST 65536u   /* of a body that is not wanted any more; clients take a RST_STREAM(NO_ERROR) worse than they should */
#define RESERVE 4096u
#define POOL_STEP 64u
#define POOLS 9u               /* sizes up to 8 steps */
#define POOL_KEPT 32u          /* blocks of each */
#define CLOSING_SECONDS 1.0    /* how long such a rest may take */
#define INVALID_COST 5.0       /* glitches that a malformed request counts for */

typedef struct span { uint32_t at, length; } span;
typedef struct buffer { char *bytes; size_t at, size, capacity; } buffer; /* what is in it: bytes[at, size) */
typedef union prefix { /* libnghttp2 does not tell realloc the old size: it stands in front of blocks */
  size_t size;
  union prefix *next; /* in a pool */
  char space[16];
} prefix;
typedef struct pool { prefix *first; size_t count; } pool;
typedef struct stream stream;
typedef struct list { stream *first, *last; } list;

struct stream {
  stream *all_prev, *all_next, *queue_next, *prev, *next;
  list *in;              /* one of the three, or NULL */
  double since;          /* … since when */
  int32_t id;
  int status;            /* refused with it */
  const char *message;
  buffer text;           /* names and values of the head */
  span method, path, host, *fields;
  uint32_t field_count, field_capacity, head_size, trailer_size;
  uint64_t body_length, content_length;
  buffer body, out;
  ml_http2_field *trailers; /* one block with their texts */
  size_t trailer_count;
  bool has_method, has_path, has_host, has_authority, expects, head_done, remote_ended, told, handed, streaming, refused, queued, closed;
  bool started, final, deferred, answered; /* answered: its end has been sent */
};

struct ml_http2 {
  nghttp2_session *session;
  ml_http2_limits limits;
  double now, created, head_since, resets, glitches, refilled;
  uint64_t room, buffered;
  size_t streams;
  stream *all, *spare, *queue_first, *queue_last, *last; /* last: its body was handed out by the event before */
  size_t spare_count;
  list arriving, sending, closing;
  buffer out;
  ml_http2_field *fields; /* of the event that is told */
  bool settings_seen, doomed, failed, no_memory;
  pool pools[POOLS]; /* blocks given back, by size: the same few sizes are asked for with every request */
  size_t reserved;
  prefix reserve[RESERVE / sizeof(prefix)]; /* see take */
};

void ml_http2_default_limits(ml_http2_limits *limits) {
  *limits = (ml_http2_limits){
    .max_streams = 128, .max_head = 16384, .max_fields = 100, .stream_window = 2u << 20, .connection_window = 16u << 20,
    .max_body = 32u << 20, .head_timeout = 10, .body_timeout = 30, .write_timeout = 30,
    .resets = 500, .resets_per_second = 30, .glitches = 1000, .glitches_per_second = 50,
  };
}

/* ---- memory ---- */

/* libnghttp2 does not survive every allocation that fails (1.52 frees a DATA item twice). So small ones come from a reserve then, and the
 * session ends as soon as it is back in our hands. */
static void *take(size_t size, void *user) {
  ml_http2 *h = user;
  size_t whole;
  if (!ml_add_size(size, sizeof(prefix) + POOL_STEP - 1, &whole)) return NULL;
  whole &= ~(size_t)(POOL_STEP - 1);
  pool *p = whole < POOL_STEP * POOLS ? &h->pools[whole / POOL_STEP] : NULL;
  prefix *block;
  if (p != NULL && p->first != NULL) { /* one of this size has been given back before */
    block = p->first;
    p->first = block->next;
    --p->count;
    block->size = size;
    return block + 1;
  }
  block = ml_alloc(whole);
  if (block == NULL) {
    h->no_memory = true;
    if (whole > sizeof(h->reserve) - h->reserved) return NULL;
    block = h->reserve + h->reserved / sizeof(prefix);
    h->reserved += whole;
  }
  block->size = size;
  return block + 1;
}

static bool reserved(const ml_http2 *h, const prefix *block) { return block >= h->reserve && block < h->reserve + RESERVE / sizeof(prefix); }

static void *take_zero(size_t count, size_t size, void *user) {
  size_t whole;
  void *block = ml_mul_size(count, size, &whole) ? take(whole, user) : NULL;
  return block != NULL ? memset(block, 0, whole) : NULL;
}

static void give(void *memory, void *user) {
  ml_http2 *h = user;
  if (memory == NULL) return;
  prefix *block = (prefix *)memory - 1;
  if (reserved(h, block)) return;
  const size_t number = (block->size + sizeof(prefix) + POOL_STEP - 1) / POOL_STEP;
  if (number >= POOLS || h->pools[number].count == POOL_KEPT) {
    ml_free(block);
    return;
  }
  block->next = h->pools[number].first;
  h->pools[number].first = block;
  ++h->pools[number].count;
}

static void *retake(void *block, size_t size, void *user) {
  if (block == NULL) return take(size, user);
  const size_t old = ((prefix *)block - 1)->size;
  void *moved = take(size, user);
  if (moved == NULL) return NULL;
  memcpy(moved, block, old < size ? old : size);
  give(block, user);
  return moved;
}

static void drop(buffer *b) {
  ml_free(b->bytes);
  *b = (buffer){ 0 };
}

/* room for `more` behind what is there; `expected`: how much will come in the end */
static bool reserve(buffer *b, size_t more, size_t expected) {
  size_t need;
  if (b->at == b->size) b->at = b->size = 0;
  if (!ml_add_size(b->size, more, &need)) return false;
  if (need <= b->capacity) return true;
  if (b->at != 0 && b->at >= need / 2) { /* at least half of it is used up */
    memmove(b->bytes, b->bytes + b->at, b->size - b->at);
    b->size -= b->at;
    b->at = 0;
    return reserve(b, more, expected);
  }
  size_t capacity = b->capacity < 256 ? 512 : b->capacity * 2;
  if (capacity < expected) capacity = expected;
  if (capacity < need) capacity = need;
  char *bytes = ml_realloc(b->bytes, b->capacity, capacity);
  if (bytes == NULL) return false;
  b->bytes = bytes;
  b->capacity = capacity;
  return true;
}

static bool append(buffer *b, const void *bytes, size_t length, size_t expected) {
  if (length == 0) return true;
  if (!reserve(b, length, expected)) return false;
  memcpy(b->bytes + b->size, bytes, length);
  b->size += length;
  return true;
}

/* ---- lists ---- */

static void leave_list(stream *s) {
  if (s->in == NULL) return;
  if (s->prev != NULL) s->prev->next = s->next;
  else s->in->first = s->next;
  if (s->next != NULL) s->next->prev = s->prev;
  else s->in->last = s->prev;
  s->prev = s->next = NULL;
  s->in = NULL;
}

/* at its end, with the time of now */
static void enter_list(ml_http2 *h, list *l, stream *s) {
  leave_list(s);
  s->in = l;
  s->since = h->now;
  s->prev = l->last;
  if (l->last != NULL) l->last->next = s;
  else l->first = s;
  l->last = s;
}

static void enqueue(ml_http2 *h, stream *s) {
  if (s->queued) return;
  s->queued = true;
  s->queue_next = NULL;
  if (h->queue_last != NULL) h->queue_last->queue_next = s;
  else h->queue_first = s;
  h->queue_last = s;
}

static void drop_body(ml_http2 *h, stream *s) {
  h->buffered -= s->body.size - s->body.at;
  s->body.at = s->body.size = 0;
  if (s->body.capacity > SPARE_BYTES) drop(&s->body);
}

static void destroy(stream *s) {
  drop(&s->text);
  drop(&s->body);
  drop(&s->out);
  ml_free(s->fields);
  ml_free(s->trailers);
  ml_free(s);
}

static void release(ml_http2 *h, stream *s) {
  leave_list(s);
  drop_body(h, s);
  if (h->last == s) h->last = NULL;
  if (s->all_prev != NULL) s->all_prev->all_next = s->all_next;
  else h->all = s->all_next;
  if (s->all_next != NULL) s->all_next->all_prev = s->all_prev;
  if (h->spare_count == SPARE_STREAMS) {
    destroy(s);
    return;
  }
  if (s->out.capacity > SPARE_BYTES) drop(&s->out);
  ml_free(s->trailers);
  const buffer text = s->text, body = s->body, out = s->out;
  span *fields = s->fields;
  const uint32_t capacity = s->field_capacity;
  *s = (stream){ .text = text, .body = body, .out = out, .fields = fields, .field_capacity = capacity, .next = h->spare };
  s->text.at = s->text.size = s->out.at = s->out.size = 0;
  h->spare = s;
  ++h->spare_count;
}

static stream *make(ml_http2 *h, int32_t id) {
  stream *s = h->spare;
  if (s != NULL) {
    h->spare = s->next;
    s->next = NULL;
    --h->spare_count;
  } else if ((s = ml_alloc_zero(1, sizeof(*s))) == NULL) {
    return NULL;
  }
  s->id = id;
  s->all_next = h->all;
  if (h->all != NULL) h->all->all_prev = s;
  h->all = s;
  return s;
}

static stream *find(ml_http2 *h, int32_t id) { return id > 0 ? nghttp2_session_get_stream_user_data(h->session, id) : NULL; }

/* ---- accounts ---- */

static void refill(ml_http2 *h) {
  const double passed = h->now - h->refilled;
  if (!(passed > 0)) return;
  h->refilled = h->now;
  h->resets += passed * h->limits.resets_per_second;
  if (h->resets > h->limits.resets) h->resets = h->limits.resets;
  h->glitches += passed * h->limits.glitches_per_second;
  if (h->glitches > h->limits.glitches) h->glitches = h->limits.glitches;
}

static int pay(ml_http2 *h, double *account, double cost) {
  *account -= cost;
  if (*account >= 0 || h->doomed) return 0;
  h->doomed = true;
  return nghttp2_session_terminate_session(h->session, NGHTTP2_ENHANCE_YOUR_CALM) != 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static void earn(ml_http2 *h) {
  h->glitches += 1;
  if (h->glitches > h->limits.glitches) h->glitches = h->limits.glitches;
}

/* ---- requests ---- */

static int out_of_memory(ml_http2 *h) {
  h->no_memory = true;
  return NGHTTP2_ERR_CALLBACK_FAILURE;
}

/* the first reason counts; its body, there and to come, is of no interest any more */
static void refuse(ml_http2 *h, stream *s, int status, const char *message) {
  if (s->status != 0 || s->handed) return;
  s->status = status;
  s->message = message;
  drop_body(h, s);
  leave_list(s);
  enqueue(h, s);
}

static int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *head, void *user) {
  ml_http2 *h = user;
  (void)session;
  if (h->no_memory) return NGHTTP2_ERR_CALLBACK_FAILURE;
  if (head->type != NGHTTP2_CONTINUATION) h->head_since = head->type == NGHTTP2_HEADERS ? h->now : -1;
  /* PRIORITY means nothing to us (RFC 9113 5.3), and so it does not come to on_frame */
  return head->type == NGHTTP2_PRIORITY ? pay(h, &h->glitches, 1) : 0;
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  ml_http2 *h = user;
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  stream *s = make(h, frame->hd.stream_id);
  if (s == NULL) return out_of_memory(h);
  ++h->streams;
  return nghttp2_session_set_stream_user_data(session, s->id, s) != 0 ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

static bool same(const char *text, size_t length, const char *literal) { return length == strlen(literal) && memcmp(text, literal, length) == 0; }

static bool keep(stream *s, const uint8_t *text, size_t length, span *where) {
  *where = (span){ (uint32_t)s->text.size, (uint32_t)length };
  return append(&s->text, text, length, 512);
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + ('a' - 'A')) : c; }

static bool same_host(const stream *s, const char *text, size_t length) {
  if (length != s->host.length) return false;
  for (size_t i = 0; i < length; ++i)
    if (lower(text[i]) != lower(s->text.bytes[s->host.at + i])) return false;
  return true;
}

/* RFC 3986's reg-name, IP literal and port, as for HTTP/1.1 */
static bool valid_host(const char *text, size_t length) {
  for (size_t i = 0; i < length; ++i) {
    const char c = text[i];
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')) continue;
    if (c == '\0' || strchr("-._~!$&'()*+;=:[]%", c) == NULL) return false;
  }
  return true;
}

static bool add_field(stream *s, const uint8_t *name, size_t name_length, const uint8_t *value, size_t value_length) {
  if (s->field_count * 2 + 2 > s->field_capacity) {
    const size_t old = s->field_capacity, capacity = old == 0 ? 32 : old * 2;
    span *fields = ml_realloc(s->fields, old * sizeof(span), capacity * sizeof(span));
    if (fields == NULL) return false;
    s->fields = fields;
    s->field_capacity = (uint32_t)capacity;
  }
  if (!keep(s, name, name_length, &s->fields[s->field_count * 2])) return false;
  if (!keep(s, value, value_length, &s->fields[s->field_count * 2 + 1])) return false;
  ++s->field_count;
  return true;
}

/* libnghttp2 has checked names and values, and that each pseudo header field comes once and first */
static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length, const uint8_t *value,
                     size_t value_length, uint8_t flags, void *user) {
  ml_http2 *h = user;
  (void)flags;
  stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (s == NULL) return 0;
  const size_t size = name_length + value_length + 32;
  const char *text = (const char *)value, *label = (const char *)name;
  if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) { /* trailers: nobody asks for them */
    s->trailer_size += size > MAX_TRAILERS ? MAX_TRAILERS + 1 : (uint32_t)size;
    return s->trailer_size > MAX_TRAILERS ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
  }
  if (s->status != 0) return 0;
  if (size > h->limits.max_head || (s->head_size += (uint32_t)size) > h->limits.max_head) {
    refuse(h, s, 431, "request header fields too large");
    return 0;
  }
  bool kept = true;
  if (name_length != 0 && label[0] == ':') {
    if (same(label, name_length, ":method")) {
      s->has_method = true;
      kept = keep(s, value, value_length, &s->method);
    } else if (same(label, name_length, ":path")) {
      s->has_path = true;
      kept = keep(s, value, value_length, &s->path);
    } else if (same(label, name_length, ":authority")) {
      s->has_authority = s->has_host = true;
      kept = keep(s, value, value_length, &s->host);
    }
  } else if (same(label, name_length, "host")) {
    if (s->has_authority && !same_host(s, text, value_length)) refuse(h, s, 400, "Host and :authority differ");
    else if (s->has_host && !s->has_authority) refuse(h, s, 400, "more than one Host");
    else if (!s->has_host) kept = keep(s, value, value_length, &s->host);
    s->has_host = true;
  } else if (s->field_count == h->limits.max_fields) {
    refuse(h, s, 431, "too many header fields");
  } else {
    if (same(label, name_length, "content-length")) {
      uint64_t number = 0;
      for (size_t i = 0; i < value_length; ++i)
        number = number > (UINT64_MAX - 9) / 10 ? UINT64_MAX : number * 10 + (uint64_t)(text[i] - '0');
      s->content_length = number;
    } else if (same(label, name_length, "expect")) {
      s->expects = same(text, value_length, "100-continue");
    }
    kept = add_field(s, name, name_length, value, value_length);
  }
  return kept ? 0 : out_of_memory(h);
}

static int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_length,
                             const uint8_t *value, size_t value_length, uint8_t flags, void *user) {
  ml_http2 *h = user;
  (void)name, (void)name_length, (void)value, (void)value_length, (void)flags;
  if (pay(h, &h->glitches, INVALID_COST) != 0 ||
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_PROTOCOL_ERROR) != 0)
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void check_head(ml_http2 *h, stream *s) {
  const char *path = s->text.bytes + s->path.at, *method = s->text.bytes + s->method.at;
  if (s->status != 0) return;
  if (s->method.length > MAX_METHOD) refuse(h, s, 501, "unknown method");
  else if (same(method, s->method.length, "CONNECT")) refuse(h, s, 501, "CONNECT is not supported");
  else if (s->path.length > MAX_TARGET) refuse(h, s, 414, "request line too long");
  else if (!s->has_path || s->path.length == 0) refuse(h, s, 400, "the request target is not a path");
  if (s->status != 0) return;
  for (uint32_t i = 0; i < s->path.length; ++i)
    if (path[i] <= ' ' || path[i] > '~' || path[i] == '#') {
      refuse(h, s, 400, "invalid character in the request target");
      return;
    }
  if (same(path, s->path.length, "*") && !same(method, s->method.length, "OPTIONS")) refuse(h, s, 400, "the target * is for OPTIONS only");
  else if (path[0] != '/' && !same(path, s->path.length, "*")) refuse(h, s, 400, "the request target is not a path");
  else if (!valid_host(s->text.bytes + s->host.at, s->host.length)) refuse(h, s, 400, "invalid Host");
  else if (s->content_length > h->limits.max_body) refuse(h, s, 413, "request body too large");
}

static int on_head(ml_http2 *h, stream *s, bool ended) {
  s->head_done = true;
  s->remote_ended = ended;
  check_head(h, s);
  enqueue(h, s);
  if (ended || s->status != 0) return 0;
  enter_list(h, &h->arriving, s);
  if (s->expects) {
    const nghttp2_nv status = { (uint8_t *)":status", (uint8_t *)"100", 7, 3, NGHTTP2_NV_FLAG_NONE };
    if (nghttp2_submit_headers(h->session, NGHTTP2_FLAG_NONE, s->id, NULL, &status, 1, NULL) < 0) return out_of_memory(h);
  }
  return 0;
}

static void on_end(ml_http2 *h, stream *s) {
  s->remote_ended = true;
  if (s->in == &h->arriving || s->in == &h->closing) leave_list(s);
  if (!s->answered) enqueue(h, s);
}

static int on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  ml_http2 *h = user;
  const bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0, ack = (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
  stream *s = NULL;
  switch (frame->hd.type) {
  case NGHTTP2_HEADERS:
    h->head_since = -1;
    s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (s == NULL) return 0;
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) return on_head(h, s, ended);
    if (ended) on_end(h, s);
    return 0;
  case NGHTTP2_DATA:
    s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (s != NULL && ended) on_end(h, s);
    return !ended && frame->hd.length <= frame->data.padlen ? pay(h, &h->glitches, 1) : 0;
  case NGHTTP2_RST_STREAM:
    return pay(h, &h->resets, 1);
  case NGHTTP2_SETTINGS:
    if (ack) return 0;
    if (h->settings_seen) return pay(h, &h->glitches, 1);
    h->settings_seen = true;
    return 0;
  case NGHTTP2_PING:
    return ack ? 0 : pay(h, &h->glitches, 1);
  default:
    return 0;
  }
}

static int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user) {
  ml_http2 *h = user;
  (void)session;
  if (frame->hd.type == NGHTTP2_HEADERS) h->head_since = -1;
  return pay(h, &h->glitches, code == NGHTTP2_ERR_REFUSED_STREAM ? 1 : INVALID_COST);
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *bytes, size_t length, void *user) {
  ml_http2 *h = user;
  (void)flags;
  stream *s = nghttp2_session_get_stream_user_data(session, id);
  if (nghttp2_session_consume_connection(session, length) != 0) return out_of_memory(h);
  const bool unwanted = s == NULL || s->status != 0 || s->final;
  if (s != NULL && s->answered && (s->body_length += length) > UNWANTED_MOST) /* nobody reads it */
    return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_NO_ERROR) != 0 ? out_of_memory(h) : 0;
  if (!unwanted) {
    s->body_length += length;
    if (!s->streaming && s->body_length > h->limits.max_body) {
      refuse(h, s, 413, "request body too large");
    } else if (length > h->room) {
      if (s->streaming) return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, id, NGHTTP2_ENHANCE_YOUR_CALM) != 0 ? out_of_memory(h) : 0;
      refuse(h, s, 503, "too many request bodies at once");
    } else {
      const size_t expected = s->content_length < RESERVE_MOST ? (size_t)s->content_length : RESERVE_MOST;
      if (!append(&s->body, bytes, length, expected)) return out_of_memory(h);
      h->room -= length;
      h->buffered += length;
      if (s->streaming) { /* it may send more when this has been read */
        enqueue(h, s);
        return 0;
      }
    }
  }
  return nghttp2_session_consume_stream(session, id, length) != 0 ? out_of_memory(h) : 0;
}

static int on_frame_sent(nghttp2_session *session, const nghttp2_frame *frame, void *user) {
  ml_http2 *h = user;
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  earn(h);
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (s == NULL) return 0;
  leave_list(s);
  s->answered = true;
  s->body_length = 0;
  if (!s->remote_ended) enter_list(h, &h->closing, s); /* a small rest of the request may still come */
  return 0;
}

static int on_close(nghttp2_session *session, int32_t id, uint32_t code, void *user) {
  ml_http2 *h = user;
  (void)code;
  stream *s = nghttp2_session_get_stream_user_data(session, id);
  if (s == NULL) return 0;
  --h->streams;
  s->closed = true;
  leave_list(s);
  nghttp2_session_set_stream_user_data(session, id, NULL);
  if (s->handed && !s->final) enqueue(h, s); /* somebody works for it */
  if (!s->queued) release(h, s);             /* else when its turn comes */
  return 0;
}

/* ---- life ---- */

static ml_status set_up(ml_http2 *h, ml_error *err) {
  nghttp2_mem memory = { h, take, give, take_zero, retake };
  nghttp2_session_callbacks *callbacks = NULL;
  nghttp2_option *option = NULL;
  int code = nghttp2_session_callbacks_new(&callbacks);
  if (code == 0) code = nghttp2_option_new(&option);
  if (code == 0) {
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_no_closed_streams(option, 1);
    code = nghttp2_session_server_new3(&h->session, callbacks, h, option, &memory);
  }
  nghttp2_option_del(option);
  nghttp2_session_callbacks_del(callbacks);
  if (code == 0) {
    const nghttp2_settings_entry settings[] = {
      { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, h->limits.max_streams },
      { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, h->limits.stream_window },
      { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, h->limits.max_head },
      { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
    };
    code = nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings, sizeof(settings) / sizeof(settings[0]));
  }
  if (code == 0) code = nghttp2_session_set_local_window_size(h->session, NGHTTP2_FLAG_NONE, 0, (int32_t)h->limits.connection_window);
  if (code == 0 && !h->no_memory) return ML_OK;
  if (code == NGHTTP2_ERR_NOMEM || h->no_memory) return ml_fail_memory(err, sizeof(*h), "an HTTP/2 session");
  return ml_fail(err, ML_INTERNAL, "HTTP/2 session: %s", nghttp2_strerror(code));
}

ml_status ml_http2_new(const ml_http2_limits *limits, double now, ml_http2 **session, ml_error *err) {
  ml_http2 *h = ml_alloc_zero(1, sizeof(*h));
  *session = NULL;
  if (h == NULL) return ml_fail_memory(err, sizeof(*h), "an HTTP/2 session");
  h->limits = *limits;
  h->now = h->created = h->refilled = now;
  h->head_since = -1;
  h->resets = limits->resets;
  h->glitches = limits->glitches;
  h->fields = ml_alloc_zero((size_t)limits->max_fields + 1, sizeof(ml_http2_field));
  ml_status status = h->fields != NULL ? set_up(h, err) : ml_fail_memory(err, limits->max_fields * sizeof(ml_http2_field), "an HTTP/2 session");
  if (status != ML_OK) {
    ml_http2_free(h);
    return status;
  }
  *session = h;
  return ML_OK;
}

void ml_http2_free(ml_http2 *h) {
  if (h == NULL) return;
  nghttp2_session_del(h->session);
  for (stream *s = h->all, *next; s != NULL; s = next) {
    next = s->all_next;
    destroy(s);
  }
  for (stream *s = h->spare, *next; s != NULL; s = next) {
    next = s->next;
    destroy(s);
  }
  for (size_t i = 0; i < POOLS; ++i)
    for (prefix *block = h->pools[i].first, *next; block != NULL; block = next) {
      next = block->next;
      ml_free(block);
    }
  drop(&h->out);
  ml_free(h->fields);
  ml_free(h);
}

static ml_status fail(ml_http2 *h, int code, ml_error *err) {
  if (h->no_memory || code == NGHTTP2_ERR_NOMEM) {
    h->failed = true;
    return ml_fail_memory(err, 0, "an HTTP/2 connection");
  }
  return ml_fail(err, ML_INTERNAL, "HTTP/2: %s", nghttp2_strerror(code));
}

static void forget_last(ml_http2 *h) {
  if (h->last != NULL) drop_body(h, h->last);
  h->last = NULL;
}

ml_status ml_http2_receive(ml_http2 *h, const void *bytes, size_t length, double now, uint64_t room, ml_error *err) {
  forget_last(h);
  if (h->failed || h->doomed) return ML_OK; /* what it says is of no interest any more */
  h->now = now;
  h->room = room;
  refill(h);
  const ssize_t used = nghttp2_session_mem_recv(h->session, bytes, length);
  if (used >= 0 && !h->no_memory) return ML_OK;
  h->doomed = true;
  if (used != NGHTTP2_ERR_NOMEM && !h->no_memory && used != NGHTTP2_ERR_BAD_CLIENT_MAGIC)
    (void)nghttp2_session_terminate_session(h->session, NGHTTP2_ENHANCE_YOUR_CALM); /* too many frames of some kind: its own limits */
  else
    h->failed = true;
  return fail(h, (int)used, err);
}

/* ---- events ---- */

static ml_http2_text text_of(const stream *s, span where) { return (ml_http2_text){ s->text.bytes + where.at, where.length }; }

static void tell_head(ml_http2 *h, const stream *s, ml_http2_event *event) {
  event->method = text_of(s, s->method);
  event->path = text_of(s, s->path);
  const char *mark = memchr(event->path.text, '?', event->path.length);
  if (mark != NULL) {
    const size_t length = (size_t)(mark - event->path.text);
    event->query = (ml_http2_text){ mark + 1, event->path.length - length - 1 };
    event->path.length = length;
  }
  size_t count = 0;
  if (s->has_host) h->fields[count++] = (ml_http2_field){ { "host", 4 }, text_of(s, s->host) };
  for (uint32_t i = 0; i < s->field_count; ++i)
    h->fields[count++] = (ml_http2_field){ text_of(s, s->fields[i * 2]), text_of(s, s->fields[i * 2 + 1]) };
  event->fields = h->fields;
  event->field_count = count;
}

ml_status ml_http2_next(ml_http2 *h, ml_http2_event *event, ml_error *err) {
  (void)err;
  forget_last(h);
  for (stream *s; (s = h->queue_first) != NULL;) {
    h->queue_first = s->queue_next;
    if (s->queue_next == NULL) h->queue_last = NULL;
    s->queued = false;
    *event = (ml_http2_event){ .id = s->id };
    if (s->closed || h->doomed) {
      const bool tell = s->handed && !s->final;
      if (s->closed) release(h, s);
      if (!tell) continue;
      event->kind = ML_HTTP2_CLOSED;
      return ML_OK;
    }
    if (s->status != 0 && !s->refused && s->head_done) {
      s->refused = s->handed = true;
      event->kind = ML_HTTP2_REFUSED;
      event->status = s->status;
      event->message = s->message;
      return ML_OK;
    }
    if (!s->head_done || s->status != 0) continue;
    if (s->streaming) {
      event->kind = ML_HTTP2_DATA;
      return ML_OK;
    }
    if (s->remote_ended && !s->handed) {
      s->handed = true;
      h->last = s;
      tell_head(h, s, event);
      event->kind = ML_HTTP2_REQUEST;
      event->body = (ml_http2_text){ s->body.bytes != NULL ? s->body.bytes + s->body.at : "", s->body.size - s->body.at };
      return ML_OK;
    }
    if (!s->told && !s->remote_ended) {
      s->told = true;
      tell_head(h, s, event);
      event->kind = ML_HTTP2_HEAD;
      return ML_OK;
    }
  }
  *event = (ml_http2_event){ .kind = ML_HTTP2_NONE };
  return ML_OK;
}

bool ml_http2_stream_body(ml_http2 *h, int32_t id, ml_http2_event *event) {
  stream *s = find(h, id);
  *event = (ml_http2_event){ .id = id };
  if (s == NULL || s->status != 0 || !s->head_done) return false;
  if (h->last == s) h->last = NULL; /* its body was told, and is kept */
  s->streaming = s->handed = true;
  leave_list(s);
  tell_head(h, s, event);
  event->kind = s->remote_ended ? ML_HTTP2_REQUEST : ML_HTTP2_HEAD;
  return true;
}

bool ml_http2_read(ml_http2 *h, int32_t id, ml_http2_text *bytes, bool *ended) {
  stream *s = find(h, id);
  forget_last(h);
  *bytes = (ml_http2_text){ "", 0 };
  *ended = true;
  if (s == NULL) return false;
  const size_t length = s->body.size - s->body.at;
  if (length != 0) {
    *bytes = (ml_http2_text){ s->body.bytes + s->body.at, length };
    h->last = s;
    (void)nghttp2_session_consume_stream(h->session, id, length); /* fails for want of memory: the window stays smaller */
  }
  *ended = s->remote_ended;
  return true;
}

/* ---- answers ---- */

static bool append_fields(nghttp2_nv *pairs, size_t *count, const ml_http2_field *fields, size_t field_count) {
  for (size_t i = 0; i < field_count; ++i) {
    if (*count > ML_HTTP2_MAX_RESPONSE_FIELDS) return false;
    pairs[(*count)++] = (nghttp2_nv){ (uint8_t *)(uintptr_t)fields[i].name.text, (uint8_t *)(uintptr_t)fields[i].value.text, /* copied */
                                     fields[i].name.length, fields[i].value.length, NGHTTP2_NV_FLAG_NONE };
  }
  return true;
}

static bool valid_fields(const ml_http2_field *fields, size_t count, ml_error *err) {
  for (size_t i = 0; i < count; ++i)
    if (nghttp2_check_header_name((const uint8_t *)fields[i].name.text, fields[i].name.length) == 0 || fields[i].name.text[0] == ':' ||
        nghttp2_check_header_value((const uint8_t *)fields[i].value.text, fields[i].value.length) == 0) {
      ml_fail(err, ML_INVALID_ARGUMENT, "invalid response header field '%.*s'", (int)(fields[i].name.length < 100 ? fields[i].name.length : 100),
              fields[i].name.text);
      return false;
    }
  return true;
}

static bool keep_trailers(stream *s, const ml_http2_field *trailers, size_t count, ml_error *err) {
  size_t size = count * sizeof(*trailers);
  for (size_t i = 0; i < count; ++i)
    if (!ml_add_size(size, trailers[i].name.length, &size) || !ml_add_size(size, trailers[i].value.length, &size)) size = SIZE_MAX;
  if (size == 0) return true;
  ml_http2_field *kept = size != SIZE_MAX ? ml_alloc(size) : NULL;
  if (kept == NULL) {
    ml_fail_memory(err, size, "trailers");
    return false;
  }
  char *text = (char *)(kept + count);
  for (size_t i = 0; i < count; ++i) {
    kept[i] = (ml_http2_field){ { text, trailers[i].name.length }, { text + trailers[i].name.length, trailers[i].value.length } };
    memcpy(text, trailers[i].name.text, trailers[i].name.length);
    text += trailers[i].name.length;
    if (trailers[i].value.length != 0) memcpy(text, trailers[i].value.text, trailers[i].value.length);
    text += trailers[i].value.length;
  }
  s->trailers = kept;
  s->trailer_count = count;
  return true;
}

static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *into, size_t length, uint32_t *flags, nghttp2_data_source *source,
                       void *user) {
  ml_http2 *h = user;
  stream *s = source->ptr;
  size_t n = s->out.size - s->out.at;
  if (n > length) n = length;
  if (n != 0) {
    memcpy(into, s->out.bytes + s->out.at, n);
    s->out.at += n;
  }
  if (s->out.at < s->out.size) {
    enter_list(h, &h->sending, s); /* it moves */
    return (ssize_t)n;
  }
  s->out.at = s->out.size = 0;
  if (!s->final) {
    if (s->in == &h->sending) leave_list(s);
    if (n != 0) return (ssize_t)n;
    s->deferred = true;
    return NGHTTP2_ERR_DEFERRED;
  }
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (s->trailer_count != 0) {
    nghttp2_nv pairs[ML_HTTP2_MAX_RESPONSE_FIELDS + 1];
    size_t count = 0;
    (void)append_fields(pairs, &count, s->trailers, s->trailer_count); /* counted when they were given */
    *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    if (nghttp2_submit_trailer(session, id, pairs, count) != 0) {
      h->no_memory = true;
      return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
  }
  return (ssize_t)n;
}

/* the head of an answer; with a body that comes from s->out, or at once the end */
static ml_status submit(ml_http2 *h, stream *s, int status, const ml_http2_field *fields, size_t field_count, const ml_http2_field *more,
                        size_t more_count, bool with_body, ml_error *err) {
  nghttp2_nv pairs[ML_HTTP2_MAX_RESPONSE_FIELDS + 1];
  if (status < 200 || status > 999) return ml_fail(err, ML_INVALID_ARGUMENT, "invalid response status %d", status);
  const char digits[3] = { (char)('0' + status / 100), (char)('0' + status / 10 % 10), (char)('0' + status % 10) };
  pairs[0] = (nghttp2_nv){ (uint8_t *)":status", (uint8_t *)(uintptr_t)digits, 7, 3, NGHTTP2_NV_FLAG_NONE };
  size_t count = 1;
  if (!append_fields(pairs, &count, fields, field_count) || !append_fields(pairs, &count, more, more_count))
    return ml_fail(err, ML_INVALID_ARGUMENT, "more than %u response header fields", ML_HTTP2_MAX_RESPONSE_FIELDS);
  const nghttp2_data_provider provider = { .source.ptr = s, .read_callback = on_read };
  const int code = nghttp2_submit_response(h->session, s->id, pairs, count, with_body ? &provider : NULL);
  if (code != 0) return fail(h, code, err);
  s->started = true;
  return ML_OK;
}

ml_status ml_http2_respond(ml_http2 *h, int32_t id, int status, const ml_http2_field *fields, size_t field_count, const char *body,
                           size_t length, const ml_http2_field *trailers, size_t trailer_count, bool *sent, ml_error *err) {
  stream *s = find(h, id);
  *sent = false;
  if (s == NULL || h->failed || h->doomed) return ML_OK;
  if (s->started) return ml_fail(err, ML_FAILED_PRECONDITION, "stream %d has an answer already", (int)id);
  if (!valid_fields(fields, field_count, err) || !valid_fields(trailers, trailer_count, err)) return ML_INVALID_ARGUMENT;
  if (trailer_count > ML_HTTP2_MAX_RESPONSE_FIELDS) return ml_fail(err, ML_INVALID_ARGUMENT, "too many trailers");
  if (length == 0) {
    ML_TRY(submit(h, s, status, fields, field_count, trailers, trailer_count, false, err));
  } else {
    if (!append(&s->out, body, length, length)) return ml_fail_memory(err, length, "an answer");
    if (!keep_trailers(s, trailers, trailer_count, err)) return ML_RESOURCE_EXHAUSTED;
    s->final = true;
    ml_status status_code = submit(h, s, status, fields, field_count, NULL, 0, true, err);
    if (status_code != ML_OK) {
      s->out.at = s->out.size = 0;
      ml_free(s->trailers);
      s->trailers = NULL;
      s->trailer_count = 0;
      s->final = false;
      return status_code;
    }
    enter_list(h, &h->sending, s);
  }
  s->final = true;
  if (h->last != s) drop_body(h, s);
  *sent = true;
  return ML_OK;
}

ml_status ml_http2_start(ml_http2 *h, int32_t id, int status, const ml_http2_field *fields, size_t field_count, bool *sent, ml_error *err) {
  stream *s = find(h, id);
  *sent = false;
  if (s == NULL || h->failed || h->doomed) return ML_OK;
  if (s->started) return ml_fail(err, ML_FAILED_PRECONDITION, "stream %d has an answer already", (int)id);
  if (!valid_fields(fields, field_count, err)) return ML_INVALID_ARGUMENT;
  ML_TRY(submit(h, s, status, fields, field_count, NULL, 0, true, err));
  *sent = true;
  return ML_OK;
}

static ml_status resume(ml_http2 *h, stream *s, ml_error *err) {
  if (!s->deferred) return ML_OK;
  s->deferred = false;
  const int code = nghttp2_session_resume_data(h->session, s->id);
  return code == NGHTTP2_ERR_NOMEM ? fail(h, code, err) : ML_OK;
}

ml_status ml_http2_write(ml_http2 *h, int32_t id, const char *bytes, size_t length, size_t *queued, bool *sent, ml_error *err) {
  stream *s = find(h, id);
  *sent = false;
  *queued = 0;
  if (s == NULL || h->failed || h->doomed) return ML_OK;
  if (!s->started || s->final) return ml_fail(err, ML_FAILED_PRECONDITION, "stream %d is not being answered", (int)id);
  if (length != 0) {
    if (!append(&s->out, bytes, length, 0)) return ml_fail_memory(err, length, "an answer");
    if (s->in == NULL) enter_list(h, &h->sending, s);
    ML_TRY(resume(h, s, err));
  }
  *queued = s->out.size - s->out.at;
  *sent = true;
  return ML_OK;
}

ml_status ml_http2_finish(ml_http2 *h, int32_t id, const ml_http2_field *trailers, size_t trailer_count, bool *sent, ml_error *err) {
  stream *s = find(h, id);
  *sent = false;
  if (s == NULL || h->failed || h->doomed) return ML_OK;
  if (!s->started || s->final) return ml_fail(err, ML_FAILED_PRECONDITION, "stream %d is not being answered", (int)id);
  if (trailer_count > ML_HTTP2_MAX_RESPONSE_FIELDS) return ml_fail(err, ML_INVALID_ARGUMENT, "too many trailers");
  if (!valid_fields(trailers, trailer_count, err)) return ML_INVALID_ARGUMENT;
  if (!keep_trailers(s, trailers, trailer_count, err)) return ML_RESOURCE_EXHAUSTED;
  s->final = true;
  drop_body(h, s);
  if (h->last == s) h->last = NULL;
  ML_TRY(resume(h, s, err));
  *sent = true;
  return ML_OK;
}

size_t ml_http2_queued(ml_http2 *h, int32_t id) {
  const stream *s = find(h, id);
  return s != NULL ? s->out.size - s->out.at : 0;
}

ml_status ml_http2_reset(ml_http2 *h, int32_t id, uint32_t code, ml_error *err) {
  stream *s = find(h, id);
  if (s == NULL || h->failed) return ML_OK;
  s->final = true; /* nobody is to be told */
  const int result = nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, id, code);
  return result != 0 ? fail(h, result, err) : ML_OK;
}

/* ---- output ---- */

ml_status ml_http2_output(ml_http2 *h, double now, const char **bytes, size_t *length, ml_error *err) {
  ml_status status = ML_OK;
  h->now = now;
  if (h->no_memory && !h->failed) status = fail(h, NGHTTP2_ERR_NOMEM, err);
  if (h->out.at == h->out.size && !h->failed) {
    h->out.at = h->out.size = 0;
    while (h->out.size < OUTPUT_BATCH) {
      const uint8_t *piece = NULL;
      const ssize_t n = nghttp2_session_mem_send(h->session, &piece);
      if (n == 0 && !h->no_memory) break;
      if (n <= 0 || h->no_memory || !append(&h->out, piece, (size_t)n, 1024)) {
        if (n >= 0) h->no_memory = true;
        h->failed = true; /* what was collected so far is whole frames, and can go */
        status = fail(h, (int)n, err);
        break;
      }
    }
    if (h->out.size == 0 && h->out.capacity > OUTPUT_KEPT) drop(&h->out);
  }
  *bytes = h->out.bytes != NULL ? h->out.bytes + h->out.at : "";
  *length = h->out.size - h->out.at;
  return status;
}

void ml_http2_sent(ml_http2 *h, size_t length) {
  const size_t left = h->out.size - h->out.at;
  h->out.at += length < left ? length : left;
}

/* ---- the end ---- */

ml_status ml_http2_shutdown_notice(ml_http2 *h, ml_error *err) {
  const int code = h->failed || h->doomed ? 0 : nghttp2_submit_shutdown_notice(h->session);
  return code != 0 ? fail(h, code, err) : ML_OK;
}

ml_status ml_http2_goaway(ml_http2 *h, ml_error *err) {
  int code = 0;
  if (!h->failed && !h->doomed) {
    code = nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(h->session), NGHTTP2_NO_ERROR, NULL, 0);
    for (const stream *s = h->closing.first; s != NULL && code == 0; s = s->next)
      code = nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
  }
  return code != 0 ? fail(h, code, err) : ML_OK;
}

void ml_http2_get_state(const ml_http2 *h, ml_http2_state *state) {
  double deadline = -1;
  const double candidates[] = {
    h->settings_seen ? -1 : h->created + h->limits.head_timeout,
    h->head_since < 0 ? -1 : h->head_since + h->limits.head_timeout,
    h->arriving.first == NULL ? -1 : h->arriving.first->since + h->limits.body_timeout,
    h->closing.first == NULL ? -1 : h->closing.first->since + CLOSING_SECONDS,
    h->sending.first == NULL ? -1 : h->sending.first->since + h->limits.write_timeout,
  };
  for (size_t i = 0; i < sizeof(candidates) / sizeof(candidates[0]); ++i)
    if (candidates[i] >= 0 && (deadline < 0 || candidates[i] < deadline)) deadline = candidates[i];
  const bool output = h->out.at < h->out.size;
  *state = (ml_http2_state){ .streams = h->streams, .buffered = h->buffered, .deadline = deadline, .events = h->queue_first != NULL };
  state->finished = !output && (h->failed || (nghttp2_session_want_read(h->session) == 0 && nghttp2_session_want_write(h->session) == 0));
}

bool ml_http2_expire(ml_http2 *h, double now) {
  h->now = now;
  if ((!h->settings_seen && h->created + h->limits.head_timeout <= now) ||
      (h->head_since >= 0 && h->head_since + h->limits.head_timeout <= now)) {
    h->doomed = true;
    if (nghttp2_session_terminate_session(h->session, NGHTTP2_NO_ERROR) != 0) h->failed = true;
    return false;
  }
  for (stream *s; (s = h->arriving.first) != NULL && s->since + h->limits.body_timeout <= now;) {
    leave_list(s);
    refuse(h, s, 408, "the request body did not arrive in time");
  }
  for (stream *s; (s = h->closing.first) != NULL && s->since + CLOSING_SECONDS <= now;) {
    leave_list(s);
    if (nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR) != 0) h->failed = true;
  }
  for (stream *s; (s = h->sending.first) != NULL && s->since + h->limits.write_timeout <= now;) {
    leave_list(s);
    if (nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_CANCEL) != 0) h->failed = true;
  }
  return true;
}
