/* Tokenizer 1 (com.microsoft, what skl2onnx makes of text vectorisers): X (C) or (N, C) string -> Y (…, most tokens of any string)
 * string, filled up with pad_value. tokenexp: tokens are its matches, one after the other. separators: tokens are what is left
 * between matches of the first separator, cut again by the second, and so on; the only separator "", or the expression ".", makes every
 * character a token. Tokens of fewer than mincharnum characters are dropped. mark: U+0002 stands before, U+0003 behind the tokens.
 * Tokens are pieces of the input's bytes. Reference: ONNX Runtime's ContribOperators.md, and its behaviour. */
#include <string.h>
#include "base/alloc.h"
#include "ops/movement.h"
#include "ops/regex.h"

static const ml_attr_def attrs[] = {
  { "mark", ML_ATTR_INT, true, "1: put U+0002 and U+0003 around the tokens" },
  { "mincharnum", ML_ATTR_INT, true, "least number of characters of a token, at least 1" },
  { "pad_value", ML_ATTR_STRING, true, "what fills rows of fewer tokens" },
  { "separators", ML_ATTR_STRINGS, false, "regular expressions between tokens" },
  { "tokenexp", ML_ATTR_STRING, false, "regular expression of a token" },
  { 0 },
};

enum { MAX_SEPARATORS = 64 };

typedef struct state {
  size_t n;            /* separators; 0: tokens are matches of patterns[0], or (none) characters */
  size_t room;
  ml__regex *patterns[MAX_SEPARATORS];
} state;

static void release(void *p) {
  state *s = p;
  if (!s) return;
  for (size_t i = 0; i < MAX_SEPARATORS; i++) ml__regex_free(s->patterns[i]);
  ml_free(s);
}

static ml_status add_pattern(state *s, size_t i, ml_str text, const char *what, ml_error *err) {
  ML_TRY(ml__regex_new(text, what, &s->patterns[i], err));
  size_t room = ml__regex_room(s->patterns[i]);
  if (room > s->room) s->room = room;
  return ML_OK;
}

static ml_status compile(state *s, const ml_attrs *list, ml_error *err) {
  const ml_attr *separators = ml_attr_find(list, "separators");
  ml_str token = ml_attr_str(list, "tokenexp", "");
  size_t n = separators ? separators->count : 0;
  if ((token.length > 0) == (n > 0)) return ml_fail(err, ML_INVALID_ARGUMENT, "either separators or tokenexp must be given");
  if (n > MAX_SEPARATORS) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute separators: %zu of them, at most %d are possible", n,
                                         MAX_SEPARATORS);
  if (token.length == 1 && token.bytes[0] == '.') return ML_OK; /* line ends are characters too */
  if (token.length > 0) return add_pattern(s, 0, token, "tokenexp", err);
  if (n == 1 && separators->as.strings[0].length == 0) return ML_OK;
  for (s->n = 0; s->n < n; s->n++) {
    if (separators->as.strings[s->n].length == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute separators: \"\" among others");
    ML_TRY(add_pattern(s, s->n, separators->as.strings[s->n], "separators", err));
  }
  return ML_OK;
}

static ml_status prepare(ml_op_ctx *ctx, void **out, ml_error *err) {
  state *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "a tokeniser");
  ml_status status = compile(s, ctx->attrs, err);
  if (status == ML_OK) *out = s;
  else release(s);
  return status;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  int64_t dims[3] = { ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN }, least = ml_attr_int(ctx->attrs, "mincharnum", 1);
  char text[96];
  ML_TRY(ml__op_check_types(ctx, err));
  if (least < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute mincharnum is %lld, at least 1 expected", (long long)least);
  if (x->rank != ML_UNKNOWN && x->rank != 1 && x->rank != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected shape (C) or (N, C), got %s", ml_shape_format(x->dims, x->rank, text, sizeof text));
  for (int32_t i = 0; i < x->rank; i++) dims[i] = x->dims[i];
  ml_op_set(ctx->out[0], ML_STRING, dims, x->rank < 0 ? ML_UNKNOWN : x->rank + 1);
  return ML_OK;
}

typedef struct walk {
  const state *s;
  void *room;
  size_t least, n, capacity;   /* tokens found; those beyond capacity are only counted */
  ml_str *out;
} walk;

static size_t characters(const char *text, size_t length) {
  size_t n = 0, at = 0;
  while (at < length) {
    (void)ml__utf8_next(text, length, &at);
    n++;
  }
  return n;
}

static bool long_enough(const walk *w, ml_str token) { return characters(token.bytes, token.length) >= w->least; }

static void keep(walk *w, ml_str token) {
  if (w->n < w->capacity) w->out[w->n] = token;
  w->n++;
}

/* Where to look after a match: behind it, and behind one character when it is empty. */
static size_t behind(ml_str s, size_t begin, size_t end) {
  size_t at = end;
  if (begin == end) {
    if (at >= s.length) return s.length + 1;
    (void)ml__utf8_next(s.bytes, s.length, &at);
  }
  return at;
}

static void matches(walk *w, ml_str s) {
  size_t begin, end, at = 0;
  while (at <= s.length && ml__regex_find(w->s->patterns[0], s, at, &begin, &end, w->room)) {
    ml_str token = { s.bytes + begin, end - begin };
    if (long_enough(w, token)) keep(w, token);
    at = behind(s, begin, end);
  }
}

/* The pieces between separators from number `which` on; at most MAX_SEPARATORS deep. */
static void pieces(walk *w, ml_str s, size_t which) {
  size_t begin, end, at = 0;
  if (which == w->s->n) {
    keep(w, s);
    return;
  }
  while (at <= s.length) {
    bool found = ml__regex_find(w->s->patterns[which], s, at, &begin, &end, w->room);
    ml_str piece = { s.bytes + at, (found ? begin : s.length) - at };
    if (long_enough(w, piece)) pieces(w, piece, which + 1);
    at = found ? behind(s, begin, end) : s.length + 1;
  }
}

static void tokenize(walk *w, ml_str s) {
  w->n = 0;
  if (w->s->n > 0) pieces(w, s, 0);
  else if (w->s->patterns[0]) matches(w, s);
  else {
    for (size_t from = 0, at = 0; at < s.length; from = at) {
      (void)ml__utf8_next(s.bytes, s.length, &at);
      if (w->least == 1) keep(w, (ml_str) { s.bytes + from, at - from });
    }
  }
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  (void)err;
  *bytes = ((const state *)ctx->state)->room;
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const ml_str *s = x->data;
  bool mark = ml_attr_int(ctx->attrs, "mark", 0) != 0;
  walk w = { .s = ctx->state, .room = ctx->workspace, .least = (size_t)ml_attr_int(ctx->attrs, "mincharnum", 1) };
  size_t most = 0;
  int64_t dims[3] = { 0, 0, 0 };
  if (w.s->room > 0) memset(w.room, 0, w.s->room);
  for (size_t i = 0; i < x->count; i++) {
    tokenize(&w, s[i]);
    if (w.n > most) most = w.n;
  }
  size_t width = most == 0 ? 0 : most + (mark ? 2 : 0);
  for (int32_t i = 0; i < x->rank; i++) dims[i] = x->dims[i];
  dims[x->rank] = (int64_t)width;
  ML_TRY(ctx->run->resize(ctx->run, ctx->out[0], dims, x->rank + 1, err));
  ml_str *to = ctx->out[0]->data, pad = ml_attr_str(ctx->attrs, "pad_value", "");
  for (size_t i = 0; width > 0 && i < x->count; i++) {
    if (mark) *to++ = (ml_str) { "\002", 1 };
    w.out = to;
    w.capacity = most;
    tokenize(&w, s[i]);
    to += w.n;
    if (mark) *to++ = (ml_str) { "\003", 1 };
    for (size_t k = w.n; k < most; k++) *to++ = pad;
  }
  return ML_OK;
}

const ml_op_def ml_op_ms_tokenizer = {
  .name = "Tokenizer", .domain = "com.microsoft", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_BIT(ML_STRING) }, .formula = "Y = tokens of X, padded", .infer = infer, .prepare = prepare, .release = release,
  .workspace = workspace, .run = run,
};
