/* Casting values; see convert.h. Numbers go through ml_convert (floats out of range saturate, NaN gives 0); bool is "not zero", so a
 * NaN is true. Integers keep their low bits, as ONNX has it; what becomes one of less than 8 bits does too, from floats as well. */
#include <math.h>
#include <string.h>
#include <strings.h>
#include "codec/decimal.h"
#include "ops/convert.h"

/* ---------------------------------------------------------------- to text ---- */
static size_t special(double value, char *out) {
  const char *text = isnan(value) ? "NaN" : value > 0 ? "INF" : "-INF";
  memcpy(out, text, strlen(text));
  return strlen(text);
}

static size_t print(const void *data, ml_dtype dtype, size_t i, char *out) {
  switch (dtype) {
    case ML_FLOAT64: {
      double v = ((const double *)data)[i];
      return isfinite(v) ? ml_decimal_print_double(v, out) : special(v, out);
    }
    case ML_UINT64: return ml_decimal_print_uint64(((const uint64_t *)data)[i], out);
    case ML_INT64: return ml_decimal_print_int64(((const int64_t *)data)[i], out);
    case ML_BOOL: {
      bool v = ((const bool *)data)[i];
      memcpy(out, v ? "True" : "False", v ? 4 : 5);
      return v ? 4 : 5;
    }
    default: {
      if (ml_dtype_is_integer(dtype)) return ml_decimal_print_int64((int64_t)ml_element_get(data, dtype, i), out);
      double v = ml_element_get(data, dtype, i);
      return isfinite(v) ? ml_decimal_print_float((float)v, out) : special(v, out);
    }
  }
}

static ml_status to_text(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_str *y = ctx->out[0]->data;
  size_t bytes = 0, used = 0;
  char text[ML_DECIMAL_MAX];
  for (size_t i = 0; i < x->count; i++) bytes += print(x->data, x->dtype, i, text);
  char *block = ctx->run->scratch(ctx->run, bytes + ML_DECIMAL_MAX); /* printing may use that much room past the last one */
  if (!block) return ml_fail_memory(err, bytes, "string elements");
  for (size_t i = 0; i < x->count; i++) {
    size_t n = print(x->data, x->dtype, i, block + used);
    y[i] = (ml_str) { block + used, n };
    used += n;
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- from text ---- */
static bool same(ml_str s, const char *text) { return s.length == strlen(text) && strncasecmp(s.bytes, text, s.length) == 0; }

static ml_str trim(ml_str s) {
  while (s.length > 0 && (s.bytes[0] == ' ' || s.bytes[0] == '\t')) s.bytes++, s.length--;
  while (s.length > 0 && (s.bytes[s.length - 1] == ' ' || s.bytes[s.length - 1] == '\t')) s.length--;
  return s;
}

static bool read_special(ml_str s, double *out) {
  bool negative = s.length > 0 && s.bytes[0] == '-';
  if (s.length > 0 && (negative || s.bytes[0] == '+')) s.bytes++, s.length--;
  if (same(s, "inf") || same(s, "infinity")) *out = negative ? -INFINITY : INFINITY;
  else if (same(s, "nan")) *out = NAN;
  else return false;
  return true;
}

/* One element; false when the text is no number. */
static bool read_one(ml_str s, ml_dtype dtype, void *data, size_t i) {
  ml_decimal d;
  double real = 0;
  s = trim(s);
  if (dtype == ML_BOOL && (same(s, "true") || same(s, "false"))) {
    ((bool *)data)[i] = s.length == 4;
    return true;
  }
  if (!read_special(s, &real)) {
    if (s.length == 0 || ml_decimal_scan(s.bytes, s.bytes + s.length, ML_DECIMAL_LOOSE, &d) != s.bytes + s.length) return false;
    uint64_t magnitude;
    if ((dtype == ML_INT64 || dtype == ML_UINT64) && ml_decimal_to_uint64(&d, &magnitude)) { /* exact where double is not */
      if (dtype == ML_UINT64) ((uint64_t *)data)[i] = d.negative ? 0 : magnitude;
      else if (d.negative) ((int64_t *)data)[i] = magnitude > (uint64_t)INT64_MAX ? INT64_MIN : -(int64_t)magnitude;
      else ((int64_t *)data)[i] = magnitude > (uint64_t)INT64_MAX ? INT64_MAX : (int64_t)magnitude;
      return true;
    }
    if (dtype == ML_FLOAT32) {
      (void)ml_decimal_to_float(&d, &((float *)data)[i]);
      return true;
    }
    (void)ml_decimal_to_double(&d, &real);
  }
  if (dtype == ML_BOOL) ((bool *)data)[i] = real != 0;
  else ml_convert(&real, ML_FLOAT64, (char *)data + i * ml_dtype_size(dtype), dtype, 1);
  return true;
}

static ml_status from_text(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const ml_str *s = x->data;
  for (size_t i = 0; i < x->count; i++)
    if (!read_one(s[i], ctx->out[0]->dtype, ctx->out[0]->data, i))
      return ml_fail(err, ML_INVALID_ARGUMENT, "element %zu: '%.*s' is not a number of type %s", i,
                     s[i].length > 64 ? 64 : (int)s[i].length, s[i].bytes, ml_dtype_name(ctx->out[0]->dtype));
  return ML_OK;
}

/* ---------------------------------------------------------------- numbers ---- */
/* Low bits of 64-bit integers. */
static void keep_low(const int64_t *from, void *to, ml_dtype dtype, size_t n) {
#define KEEP(bytes, type)                                               \
  case bytes:                                                           \
    for (size_t i = 0; i < n; i++) ((type *)to)[i] = (type)from[i];     \
    break;
  switch (ml_dtype_size(dtype)) {
    KEEP(1, uint8_t)
    KEEP(2, uint16_t)
    KEEP(4, uint32_t)
    default: memcpy(to, from, n * sizeof *from);
  }
  ml_mask_small(to, dtype, n);
}

static void to_integer(const ml_view *x, const ml_view *y) {
  enum { BLOCK = 256 };
  int64_t wide[BLOCK];
  const size_t from_size = ml_dtype_size(x->dtype), to_size = ml_dtype_size(y->dtype);
  for (size_t i = 0; i < x->count; i += BLOCK) {
    const size_t n = x->count - i < BLOCK ? x->count - i : BLOCK;
    const char *from = (const char *)x->data + i * from_size;
    if (x->dtype == ML_UINT64) memcpy(wide, from, n * sizeof *wide);
    else ml_convert(from, x->dtype, wide, ML_INT64, n);
    keep_low(wide, (char *)y->data + i * to_size, y->dtype, n);
  }
}

ml_status ml__cast_check(const ml_op_ctx *ctx, ml_round *round, ml_error *err) {
  *round = ML_ROUND_UP;
  static const char *const modes[] = { "up", "down", "nearest" }; /* as ml_round has them */
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
    if (ml_attr_is(ctx->attrs, "round_mode", "up", modes[i])) {
      *round = (ml_round)i;
      return ML_OK;
    }
  const ml_str given = ml_attr_str(ctx->attrs, "round_mode", "up");
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'round_mode' is '%.*s', expected up, down or nearest",
                 given.length < 40 ? (int)given.length : 40, given.bytes);
}

ml_status ml__cast_run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  if (x->count == 0) return ML_OK;
  if (x->dtype == y->dtype) {
    if (x->data != y->data) memmove(y->data, x->data, x->count * ml_dtype_size(x->dtype));
    return ML_OK;
  }
  if (y->dtype == ML_STRING) return to_text(ctx, err);
  if (x->dtype == ML_STRING) return from_text(ctx, err);
  if (ml_dtype_is_small(y->dtype)) {
    ml_round round;
    ML_TRY(ml__cast_check(ctx, &round, err));
    ml_convert_small(x->data, x->dtype, y->data, y->dtype, x->count, ml_attr_int(ctx->attrs, "saturate", 1) != 0, round);
  } else if (ml_dtype_is_integer(y->dtype) && (ml_dtype_is_integer(x->dtype) || ml_dtype_bits(y->dtype) < 8)) {
    to_integer(x, y);
  } else {
    ml_convert(x->data, x->dtype, y->data, y->dtype, x->count);
  }
  return ML_OK;
}
