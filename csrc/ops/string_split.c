/* StringSplit 20: the parts of each string, cut at `delimiter`, at most maxsplit times from the left. Without a delimiter: cut at
 * runs of ASCII white space, none of it at the ends. X (any shape) string -> Y (…, most parts of any string) string, filled up
 * with "", and Z (…) int64, the numbers of parts. Parts are pieces of the input's bytes. ONNX operator specification. */
#include <string.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "delimiter", ML_ATTR_STRING, false, "\"\" (default): white space" },
  { "maxsplit", ML_ATTR_INT, false, "cuts at most; default any number" },
  { 0 },
};

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static const char *search(ml_str in, ml_str what) {
  while (in.length >= what.length) {
    const char *at = memchr(in.bytes, what.bytes[0], in.length - what.length + 1);
    if (!at || memcmp(at, what.bytes, what.length) == 0) return at;
    in.length -= (size_t)(at + 1 - in.bytes);
    in.bytes = at + 1;
  }
  return NULL;
}

/* Next part of *rest; false at the end. cuts is what is left of maxsplit. */
static bool next_part(ml_str *rest, ml_str delimiter, int64_t *cuts, bool *done, ml_str *part) {
  if (*done) return false;
  if (delimiter.length == 0) {
    while (rest->length > 0 && is_space(*rest->bytes)) rest->bytes++, rest->length--;
    if (rest->length == 0) return false;
    size_t n = 0;
    while (n < rest->length && !is_space(rest->bytes[n])) n++;
    if (*cuts == 0) n = rest->length;
    *part = (ml_str) { rest->bytes, n };
    *rest = (ml_str) { rest->bytes + n, rest->length - n };
    if (*cuts > 0) (*cuts)--;
    return true;
  }
  const char *at = *cuts == 0 || rest->length == 0 ? NULL : search(*rest, delimiter);
  if (!at) {
    *part = *rest;
    *done = true;
    return true;
  }
  size_t n = (size_t)(at - rest->bytes);
  *part = (ml_str) { rest->bytes, n };
  *rest = (ml_str) { at + delimiter.length, rest->length - n - delimiter.length };
  if (*cuts > 0) (*cuts)--;
  return true;
}

/* Parts of s, the first `room` of them into out. */
static size_t split(ml_str s, ml_str delimiter, int64_t cuts, ml_str *out, size_t room) {
  size_t n = 0;
  bool done = false;
  ml_str part;
  while (next_part(&s, delimiter, &cuts, &done, &part)) {
    if (n < room) out[n] = part;
    n++;
  }
  return n;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  int64_t dims[ML_MAX_RANK];
  ML_TRY(ml__op_check_types(ctx, err));
  if (x->rank == ML_MAX_RANK) return ml_fail(err, ML_INVALID_ARGUMENT, "X: rank %d leaves no room for another dimension",
                                             ML_MAX_RANK);
  if (x->rank > 0) memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
  if (x->rank >= 0) dims[x->rank] = ML_UNKNOWN;
  ml_op_set(ml__out(ctx, 0), ML_STRING, dims, x->rank < 0 ? ML_UNKNOWN : x->rank + 1);
  ml_op_set(ml__out(ctx, 1), ML_INT64, x->dims, x->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ml__out(ctx, 0), *z = ml__out(ctx, 1);
  ml_str delimiter = ml_attr_str(ctx->attrs, "delimiter", "");
  int64_t cuts = ml_attr_int(ctx->attrs, "maxsplit", -1), dims[ML_MAX_RANK];
  if (cuts < 0) cuts = -1;
  size_t most = 0;
  const ml_str *s = x->data;
  for (size_t i = 0; i < x->count; i++) {
    size_t n = split(s[i], delimiter, cuts, NULL, 0);
    if (z) ((int64_t *)z->data)[i] = (int64_t)n;
    if (n > most) most = n;
  }
  if (!y) return ML_OK;
  if (x->rank > 0) memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
  dims[x->rank] = (int64_t)most;
  ML_TRY(ctx->run->resize(ctx->run, y, dims, x->rank + 1, err));
  ml_str *to = y->data;
  for (size_t i = 0; i < x->count; i++, to += most)
    for (size_t n = split(s[i], delimiter, cuts, to, most); n < most; n++) to[n] = (ml_str) { "", 0 };
  return ML_OK;
}

const ml_op_def ml_op_string_split = {
  .name = "StringSplit", .domain = "", .since = 20, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 2, .attrs = attrs,
  .types = { ML_BIT(ML_STRING) }, .formula = "Y = parts of X, Z = their number", .infer = infer, .run = run,
};
