/* StringNormalizer 10: drops stop words and changes the case. X (C) or (1,C) string -> Y (n) or (1,n) string with what is left;
 * one empty string when nothing is. The locale attribute has no effect: upper and lower case are those of Unicode's simple
 * mappings for ASCII, Latin-1, Latin Extended-A, Greek and Cyrillic (U+0041 to U+045F), all of them of equal length in UTF-8;
 * other characters stay. ONNX operator specification. */
#include <string.h>
#include "ops/lookup.h"
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "case_change_action", ML_ATTR_STRING, false, "NONE (default), LOWER or UPPER" },
  { "is_case_sensitive", ML_ATTR_INT, false, "0 (default); not 0: stop words must match in case too" },
  { "stopwords", ML_ATTR_STRINGS, false, "words to drop; default none" },
  { "locale", ML_ATTR_STRING, false, "without effect" },
  { 0 },
};

typedef enum change { CHANGE_NONE, CHANGE_LOWER, CHANGE_UPPER } change;

static uint32_t lower(uint32_t c) {
  if ((c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE && c != 0xD7)) return c + 32;
  if (c == 0x178) return 0xFF;
  if ((c >= 0x100 && c <= 0x12E) || (c >= 0x132 && c <= 0x136) || (c >= 0x14A && c <= 0x176)) return c | 1;
  if ((c >= 0x139 && c <= 0x147) || (c >= 0x179 && c <= 0x17D)) return c % 2 == 1 ? c + 1 : c;
  if (c == 0x386) return 0x3AC;
  if (c >= 0x388 && c <= 0x38A) return c + 37;
  if (c == 0x38C) return 0x3CC;
  if (c == 0x38E || c == 0x38F) return c + 63;
  if (c >= 0x391 && c <= 0x3AB && c != 0x3A2) return c + 32;
  if (c >= 0x400 && c <= 0x40F) return c + 80;
  return c >= 0x410 && c <= 0x42F ? c + 32 : c;
}

static uint32_t upper(uint32_t c) { /* the inverse, and final sigma */
  if (c == 0x3C2) return 0x3A3;
  if (c < 0x180) {
    if (c >= 'a' && c <= 'z') return c - 32;
    if (c == 0xFF) return 0x178;
    if (c >= 0xE0 && c < 0xFF) return c == 0xF7 ? c : c - 32;
    return c > 0x100 && lower(c - 1) == c ? c - 1 : c;
  }
  static const uint8_t steps[] = { 32, 37, 38, 63, 64, 80 };
  for (size_t i = 0; i < sizeof steps; i++)
    if (c > 0x380 && c < 0x460 && c - steps[i] != c && lower(c - steps[i]) == c) return c - steps[i];
  return c;
}

/* Both have n bytes: every mapping stays within one, or within two, bytes. */
static void change_case(const char *from, char *to, size_t n, change what) {
  for (size_t i = 0; i < n; i++) {
    unsigned char a = (unsigned char)from[i], b = i + 1 < n ? (unsigned char)from[i + 1] : 0;
    bool two = a >= 0xC2 && a <= 0xDF && (b & 0xC0) == 0x80;
    uint32_t c = a < 0x80 ? a : two ? (uint32_t)(a & 0x1F) << 6 | (b & 0x3F) : 0;
    if (a >= 0x80 && !two) {
      to[i] = from[i];
      continue;
    }
    c = what == CHANGE_LOWER ? lower(c) : upper(c);
    to[i] = (char)(two ? 0xC0 | c >> 6 : c);
    if (two) to[++i] = (char)(0x80 | (c & 0x3F));
  }
}

static ml_status change_of(const ml_attrs *list, change *out, ml_error *err) {
  static const char *const names[] = { "NONE", "LOWER", "UPPER" };
  for (size_t i = 0; i < 3; i++)
    if (ml_attr_is(list, "case_change_action", "NONE", names[i])) {
      *out = (change)i;
      return ML_OK;
    }
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute case_change_action: expected NONE, LOWER or UPPER");
}

typedef struct state {
  ml__lookup *stop;
  ml_str *words; /* in lower case, with their bytes behind them; NULL: the attribute's are used */
} state;

static void release(void *p) {
  state *s = p;
  if (!s) return;
  ml__lookup_free(s->stop);
  ml_free(s->words);
  ml_free(s);
}

static ml_status lower_words(const ml_view *list, ml_str **out, ml_error *err) {
  size_t bytes = 0;
  const ml_str *from = list->data;
  if (!ml_mul_size(list->count + 1, sizeof(ml_str), &bytes)) return ml_fail_memory(err, SIZE_MAX, "stop words");
  for (size_t i = 0; i < list->count; i++)
    if (!ml_add_size(bytes, from[i].length, &bytes)) return ml_fail_memory(err, SIZE_MAX, "stop words");
  ml_str *words = ml_alloc(bytes);
  if (!words) return ml_fail_memory(err, bytes, "stop words");
  char *to = (char *)(words + list->count + 1);
  for (size_t i = 0; i < list->count; i++) {
    change_case(from[i].bytes, to, from[i].length, CHANGE_LOWER);
    words[i] = (ml_str) { to, from[i].length };
    to += from[i].length;
  }
  *out = words;
  return ML_OK;
}

static ml_status prepare(ml_op_ctx *ctx, void **out, ml_error *err) {
  ml_view list = { .dtype = ML_STRING };
  (void)ml__attr_list(ctx->attrs, "stopwords", &list);
  state *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "stop words");
  ml_status status = ML_OK;
  if (ml_attr_int(ctx->attrs, "is_case_sensitive", 0) == 0) status = lower_words(&list, &s->words, err);
  if (s->words) list.data = s->words;
  if (status == ML_OK) status = ml__lookup_new(&list, &s->stop, err);
  if (status == ML_OK) *out = s;
  else release(s);
  return status;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  change what;
  char text[96];
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(change_of(ctx->attrs, &what, err));
  if (x->rank != ML_UNKNOWN && x->rank != 1 && !(x->rank == 2 && (x->dims[0] == 1 || x->dims[0] < 0)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected shape (C) or (1, C), got %s", ml_shape_format(x->dims, x->rank, text,
                                                                                                        sizeof text));
  ml_op_set(ctx->out[0], ML_STRING, (int64_t[]) { x->rank == 2 ? 1 : ML_UNKNOWN, ML_UNKNOWN }, x->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const state *s = ctx->state;
  const ml_str *from = x->data;
  change what = CHANGE_NONE;
  size_t bytes = 0, kept = 0;
  ML_TRY(change_of(ctx->attrs, &what, err));
  for (size_t i = 0; i < x->count; i++)
    if (!ml_add_size(bytes, from[i].length, &bytes)) return ml_fail_memory(err, SIZE_MAX, "strings");
  char *low = ctx->run->scratch(ctx->run, bytes + 1), *changed = what == CHANGE_NONE ? NULL : ctx->run->scratch(ctx->run,
                                                                                                                bytes + 1);
  bool *keep = ctx->run->scratch(ctx->run, x->count + 1);
  if (!low || !keep || (what != CHANGE_NONE && !changed)) return ml_fail_memory(err, bytes, "strings");
  for (size_t i = 0; i < x->count; i++) {
    ml_str word = from[i];
    if (s->words) {
      change_case(word.bytes, low, word.length, CHANGE_LOWER);
      word.bytes = low;
    }
    ml_view one = { .data = &word, .count = 1, .dtype = ML_STRING };
    keep[i] = ml__lookup_find(s->stop, &one, 0) == SIZE_MAX;
    kept += keep[i];
  }
  int64_t dims[2] = { kept ? (int64_t)kept : 1, kept ? (int64_t)kept : 1 };
  if (x->rank == 2) dims[0] = 1;
  ML_TRY(ctx->run->resize(ctx->run, ctx->out[0], dims, x->rank, err));
  ml_str *to = ctx->out[0]->data;
  if (kept == 0) to[0] = (ml_str) { "", 0 };
  for (size_t i = 0, n = 0; i < x->count; i++) {
    if (!keep[i]) continue;
    to[n] = from[i];
    if (changed) {
      change_case(from[i].bytes, changed, from[i].length, what);
      to[n].bytes = changed;
      changed += from[i].length;
    }
    n++;
  }
  return ML_OK;
}

const ml_op_def ml_op_string_normalizer = {
  .name = "StringNormalizer", .domain = "", .since = 10, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_BIT(ML_STRING) }, .formula = "Y = X without stop words, in another case", .infer = infer, .prepare = prepare,
  .release = release, .run = run,
};
