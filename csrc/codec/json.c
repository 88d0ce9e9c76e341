/* JSON (RFC 8259), strict: no comments, no trailing commas, no leading zeros, no byte order mark, UTF-8 only, lone surrogates
 * refused. The reader is a cursor; the caller's control flow is the parser's stack, so nesting is counted in reader->depth and
 * anything that walks by itself (ml_json_skip) keeps one bit per level instead of recursing. Whatever is read is compared with
 * `end` first. After a failure the reader is only good for ml_json_fail. Numbers are decimal.c's business; here is only where
 * they may stand. */
#include "codec/json.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "codec/base64.h"
#include "codec/decimal.h"
#include "codec/utf8.h"

/* ---- errors ---- */

static ml_status fail_with(const ml_json_reader *reader, ml_error *err, const char *format, va_list arguments) {
  char message[ML_ERROR_MAX - 96]; /* leaves room for the place */
  size_t line = 1, column = 1;
  if (err == NULL) return ML_INVALID_ARGUMENT;
  vsnprintf(message, sizeof message, format, arguments);
  for (const char *p = reader->begin; p < reader->at; ++p) {
    if (*p == '\n') {
      ++line;
      column = 1;
    } else {
      column += ((unsigned char)*p & 0xc0) != 0x80; /* characters, not bytes */
    }
  }
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s at line %zu, column %zu (offset %zu)", message, line, column,
                 (size_t)(reader->at - reader->begin));
}

ml_status ml_json_fail(const ml_json_reader *reader, ml_error *err, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  ml_status status = fail_with(reader, err, format, arguments);
  va_end(arguments);
  return status;
}

__attribute__((cold, noinline)) static ml_status unexpected(const ml_json_reader *reader, const char *expected, ml_error *err) {
  if (reader->at >= reader->end) return ml_json_fail(reader, err, "expected %s, got the end of input", expected);
  unsigned char byte = (unsigned char)*reader->at;
  if (byte > ' ' && byte < 0x7f) return ml_json_fail(reader, err, "expected %s, got '%c'", expected, byte);
  return ml_json_fail(reader, err, "expected %s, got byte 0x%02x", expected, byte);
}

/* ---- reader ---- */

void ml_json_reader_init(ml_json_reader *reader, const char *text, size_t length) {
  if (text == NULL) {
    text = "";
    length = 0;
  }
  *reader = (ml_json_reader){.at = text, .end = text + length, .begin = text};
}

static inline void skip_space(ml_json_reader *reader) {
  const char *p = reader->at, *end = reader->end;
  while (p < end && (unsigned char)*p <= ' ' && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t')) ++p;
  reader->at = p;
}

ml_json_kind ml_json_peek(ml_json_reader *reader) {
  skip_space(reader);
  if (reader->at >= reader->end) return ML_JSON_END;
  switch (*reader->at) {
    case 'n': return ML_JSON_NULL;
    case 'f': return ML_JSON_FALSE;
    case 't': return ML_JSON_TRUE;
    case '"': return ML_JSON_STRING;
    case '[': return ML_JSON_ARRAY;
    case '{': return ML_JSON_OBJECT;
    case 'N': case 'I': return reader->allow_nonfinite ? ML_JSON_NUMBER : ML_JSON_INVALID;
    case '-': case '0': case '1': case '2': case '3': case '4': case '5': case '6': case '7': case '8': case '9':
      return ML_JSON_NUMBER;
    default: return ML_JSON_INVALID;
  }
}

static ml_status enter(ml_json_reader *reader, char bracket, const char *expected, ml_error *err) {
  skip_space(reader);
  if (reader->at >= reader->end || *reader->at != bracket) return unexpected(reader, expected, err);
  if (reader->depth >= ML_JSON_MAX_DEPTH) return ml_json_fail(reader, err, "nested deeper than %d levels", ML_JSON_MAX_DEPTH);
  ++reader->at;
  ++reader->depth;
  return ML_OK;
}

ml_status ml_json_enter_array(ml_json_reader *reader, ml_error *err) { return enter(reader, '[', "an array", err); }
ml_status ml_json_enter_object(ml_json_reader *reader, ml_error *err) { return enter(reader, '{', "an object", err); }

static inline ml_status next_item(ml_json_reader *reader, char closing, bool *first, bool *more, const char *expected,
                                  ml_error *err) {
  skip_space(reader);
  *more = false;
  if (reader->at >= reader->end) return unexpected(reader, expected, err);
  char c = *reader->at;
  if (c == closing) {
    ++reader->at;
    --reader->depth;
    return ML_OK;
  }
  if (*first) {
    *first = false;
  } else {
    if (c != ',') return unexpected(reader, expected, err);
    ++reader->at;
    skip_space(reader);
    if (reader->at < reader->end && *reader->at == closing)
      return ml_json_fail(reader, err, "nothing between ',' and '%c'", closing);
  }
  *more = true;
  return ML_OK;
}

ml_status ml_json_array_next(ml_json_reader *reader, bool *first, bool *more, ml_error *err) {
  return next_item(reader, ']', first, more, *first ? "a value or ']'" : "',' or ']'", err);
}

/* Where a run of string bytes that stand for themselves ends: at a quote, a backslash, a control character, ill-formed UTF-8 or
 * `end`. */
static const char *plain_run(const char *p, const char *end) {
  const uint64_t ones = 0x0101010101010101u, highs = 0x8080808080808080u;
  for (;;) {
    while (end - p >= 8) {
      uint64_t x, quote, backslash;
      memcpy(&x, p, sizeof x);
      quote = x ^ ones * '"';
      backslash = x ^ ones * '\\';
      /* highest bit of a byte: below 0x20, zero after the exclusive or, or over 0x7f */
      if ((((x - ones * 0x20) | (quote - ones) | (backslash - ones) | x) & highs) != 0) break;
      p += 8;
    }
    const char *stop = end - p > 8 ? p + 8 : end;
    while (p < stop) {
      unsigned char byte = (unsigned char)*p;
      if (byte < 0x80) {
        if (byte < 0x20 || byte == '"' || byte == '\\') return p;
        ++p;
        continue;
      }
      size_t width = ml_utf8_sequence((const unsigned char *)p, (size_t)(end - p), NULL);
      if (width == 0) return p;
      p += width;
    }
    if (p >= end) return p;
  }
}

/* Value of the four hexadecimal digits at p, -1 when they are not. */
static int hex4(const char *p, const char *end) {
  int value = 0;
  if (end - p < 4) return -1;
  for (int i = 0; i < 4; ++i) {
    char c = p[i];
    int digit;
    if (c >= '0' && c <= '9') digit = c - '0';
    else if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
    else if (c >= 'A' && c <= 'F') digit = c - 'A' + 10;
    else return -1;
    value = value << 4 | digit;
  }
  return value;
}

/* What the escape at reader->at (the backslash) stands for, 1 to 3 bytes or 4 for a surrogate pair, into utf8; consumes it. */
static ml_status read_escape(ml_json_reader *reader, char utf8[4], size_t *width, ml_error *err) {
  const char *p = reader->at, *end = reader->end;
  int unit, low;
  *width = 1;
  if (end - p < 2) {
    reader->at = end;
    return unexpected(reader, "the rest of an escape", err);
  }
  switch (p[1]) {
    case '"': case '\\': case '/': utf8[0] = p[1]; break;
    case 'b': utf8[0] = '\b'; break;
    case 'f': utf8[0] = '\f'; break;
    case 'n': utf8[0] = '\n'; break;
    case 'r': utf8[0] = '\r'; break;
    case 't': utf8[0] = '\t'; break;
    case 'u':
      unit = hex4(p + 2, end);
      if (unit < 0) return ml_json_fail(reader, err, "\\u without four hexadecimal digits");
      reader->at = p + 6;
      if (unit < 0x80) {
        utf8[0] = (char)unit;
      } else if (unit < 0x800) {
        utf8[0] = (char)(0xc0 | unit >> 6);
        utf8[1] = (char)(0x80 | (unit & 0x3f));
        *width = 2;
      } else if (unit < 0xd800 || unit > 0xdfff) {
        utf8[0] = (char)(0xe0 | unit >> 12);
        utf8[1] = (char)(0x80 | (unit >> 6 & 0x3f));
        utf8[2] = (char)(0x80 | (unit & 0x3f));
        *width = 3;
      } else {
        low = unit < 0xdc00 && end - p >= 8 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8, end) : -1;
        if (low < 0xdc00 || low > 0xdfff) {
          reader->at = p;
          return ml_json_fail(reader, err, "surrogate \\u%04x without its other half", (unsigned)unit);
        }
        unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        utf8[0] = (char)(0xf0 | unit >> 18);
        utf8[1] = (char)(0x80 | (unit >> 12 & 0x3f));
        utf8[2] = (char)(0x80 | (unit >> 6 & 0x3f));
        utf8[3] = (char)(0x80 | (unit & 0x3f));
        *width = 4;
        reader->at = p + 12;
      }
      return ML_OK;
    default:
      ++reader->at;
      return unexpected(reader, "an escape (one of \"\\/bfnrtu)", err);
  }
  reader->at = p + 2;
  return ML_OK;
}

/* Consumes the string here (the opening quote is next) into out, at most `room` bytes; with out NULL checks it only. */
static ml_status read_string(ml_json_reader *reader, char *out, size_t room, size_t *length, ml_error *err) {
  const char *opening = reader->at++, *end = reader->end;
  size_t used = 0;
  for (;;) {
    const char *run = reader->at;
    reader->at = plain_run(run, end);
    size_t width = (size_t)(reader->at - run);
    if (out != NULL) {
      if (width > room - used) goto too_long;
      if (width > 0) memcpy(out + used, run, width);
      used += width;
    }
    if (reader->at >= end) {
      reader->at = opening;
      return ml_json_fail(reader, err, "string without closing quote");
    }
    if (*reader->at == '"') {
      ++reader->at;
      *length = used;
      return ML_OK;
    }
    if (*reader->at != '\\') {
      unsigned byte = (unsigned char)*reader->at;
      if (byte < 0x20) return ml_json_fail(reader, err, "control character 0x%02x in a string", byte);
      return ml_json_fail(reader, err, "byte 0x%02x is not valid UTF-8", byte);
    }
    char utf8[4];
    ML_TRY(read_escape(reader, utf8, &width, err));
    if (out != NULL) {
      if (width > room - used) goto too_long;
      memcpy(out + used, utf8, width);
      used += width;
    }
  }
too_long:
  reader->at = opening;
  return ml_json_fail(reader, err, "key of over %zu bytes", room);
}

/* Up to the opening quote of a key. */
static ml_status next_key(ml_json_reader *reader, bool *first, bool *more, ml_error *err) {
  ML_TRY(next_item(reader, '}', first, more, *first ? "a key or '}'" : "',' or '}'", err));
  if (*more && (reader->at >= reader->end || *reader->at != '"')) return unexpected(reader, "a key in quotes", err);
  return ML_OK;
}

static ml_status read_colon(ml_json_reader *reader, ml_error *err) {
  skip_space(reader);
  if (reader->at >= reader->end || *reader->at != ':') return unexpected(reader, "':'", err);
  ++reader->at;
  return ML_OK;
}

ml_status ml_json_object_next(ml_json_reader *reader, bool *first, bool *more, char *scratch, size_t scratch_size,
                              const char **key, size_t *key_length, ml_error *err) {
  ML_TRY(next_key(reader, first, more, err));
  if (!*more) return ML_OK;
  const char *start = reader->at + 1, *stop = plain_run(start, reader->end);
  if (stop < reader->end && *stop == '"') {
    *key = start;
    *key_length = (size_t)(stop - start);
    reader->at = stop + 1;
  } else {
    ML_TRY(read_string(reader, scratch, scratch_size, key_length, err));
    *key = scratch;
  }
  return read_colon(reader, err);
}

/* NaN and infinities, where allowed; false leaves the reader alone. */
static bool read_nonfinite(ml_json_reader *reader, double *value) {
  static const struct { char text[9]; unsigned char length; } words[] = {{"NaN", 3}, {"Infinity", 8}, {"Inf", 3}};
  if (!reader->allow_nonfinite) return false;
  const char *p = reader->at;
  bool negative = p < reader->end && *p == '-';
  p += negative;
  for (size_t i = negative ? 1 : 0; i < sizeof words / sizeof words[0]; ++i) {
    size_t length = words[i].length;
    if ((size_t)(reader->end - p) < length || memcmp(p, words[i].text, length) != 0) continue;
    *value = i == 0 ? (double)NAN : negative ? -(double)INFINITY : (double)INFINITY;
    reader->at = p + length;
    return true;
  }
  return false;
}

__attribute__((cold, noinline)) static ml_status not_a_number(ml_json_reader *reader, const char *place, ml_error *err) {
  if (place == reader->at) return unexpected(reader, "a number", err);
  const char *start = reader->at;
  reader->at = place;
  if (place < reader->end && ml__is_digit(*place)) { /* only a leading zero stops a digit */
    reader->at = start;
    return ml_json_fail(reader, err, "number with a leading zero");
  }
  return unexpected(reader, "a digit", err);
}

/* Quotes the number, cut when long. */
__attribute__((cold, noinline)) static ml_status out_of_range(ml_json_reader *reader, const char *past, const char *type,
                                                              ml_error *err) {
  size_t length = (size_t)(past - reader->at);
  bool cut = length > 40;
  return ml_json_fail(reader, err, "number out of range: %.*s%s as %s", (int)(cut ? 40 : length), reader->at, cut ? "..." : "",
                      type);
}

static inline ml_status read_float(ml_json_reader *reader, float *out, ml_error *err) {
  ml_decimal number;
  double value;
  skip_space(reader);
  const char *past = ml_decimal_scan(reader->at, reader->end, ML_DECIMAL_JSON, &number);
  if (past == NULL) {
    if (!read_nonfinite(reader, &value)) return not_a_number(reader, number.stop, err);
    *out = (float)value;
    return ML_OK;
  }
  if (!ml_decimal_to_float(&number, out)) return out_of_range(reader, past, "float", err);
  reader->at = past;
  return ML_OK;
}

ml_status ml_json_float_read(ml_json_reader *reader, float *out, ml_error *err) { return read_float(reader, out, err); }

ml_status ml_json_floats_read(ml_json_reader *reader, float *out, size_t room, size_t *count, ml_error *err) {
  bool first = true, more;
  size_t read = 0;
  ml_json_reader local = *reader; /* its address goes to failing paths only, so the cursor stays in a register */
  for (;; ++read) {
    ml_status status = next_item(&local, ']', &first, &more, first ? "a number or ']'" : "',' or ']'", err);
    if (status == ML_OK && !more) break;
    if (status == ML_OK && read == room) status = ml_json_fail(&local, err, "more than %zu numbers", room);
    if (status == ML_OK) status = read_float(&local, out + read, err);
    if (status != ML_OK) {
      *reader = local;
      return status;
    }
  }
  *reader = local;
  *count = read;
  return ML_OK;
}

ml_status ml_json_double_read(ml_json_reader *reader, double *out, ml_error *err) {
  ml_decimal number;
  skip_space(reader);
  const char *past = ml_decimal_scan(reader->at, reader->end, ML_DECIMAL_JSON, &number);
  if (past == NULL) return read_nonfinite(reader, out) ? ML_OK : not_a_number(reader, number.stop, err);
  if (!ml_decimal_to_double(&number, out)) return out_of_range(reader, past, "double", err);
  reader->at = past;
  return ML_OK;
}

ml_status ml_json_number_read(ml_json_reader *reader, ml_json_number *out, ml_error *err) {
  ml_decimal number;
  *out = (ml_json_number){0};
  skip_space(reader);
  const char *past = ml_decimal_scan(reader->at, reader->end, ML_DECIMAL_JSON, &number);
  if (past == NULL) {
    if (!read_nonfinite(reader, &out->value)) return not_a_number(reader, number.stop, err);
    out->negative = signbit(out->value);
    return ML_OK;
  }
  if (!ml_decimal_to_double(&number, &out->value)) return out_of_range(reader, past, "double", err);
  reader->at = past;
  out->negative = number.negative;
  if (!ml_decimal_to_uint64(&number, &out->magnitude)) {
    out->magnitude = 0;
    return ML_OK;
  }
  out->fits_uint64 = !number.negative || out->magnitude == 0;
  if (out->magnitude <= INT64_MAX) {
    out->integral = true;
    out->integer = number.negative ? -(int64_t)out->magnitude : (int64_t)out->magnitude;
  } else if (number.negative && out->magnitude == (uint64_t)INT64_MAX + 1) {
    out->integral = true;
    out->integer = INT64_MIN;
  }
  return ML_OK;
}

ml_status ml_json_literal_read(ml_json_reader *reader, ml_json_kind kind, ml_error *err) {
  const char *word = kind == ML_JSON_NULL ? "null" : kind == ML_JSON_TRUE ? "true" : "false";
  assert(kind == ML_JSON_NULL || kind == ML_JSON_TRUE || kind == ML_JSON_FALSE);
  size_t length = kind == ML_JSON_FALSE ? 5 : 4;
  skip_space(reader);
  if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length) != 0) return unexpected(reader, word, err);
  reader->at += length;
  return ML_OK;
}

ml_status ml_json_string_length(ml_json_reader *reader, size_t *upper_bound, ml_error *err) {
  skip_space(reader);
  if (reader->at >= reader->end || *reader->at != '"') return unexpected(reader, "a string", err);
  const char *start = reader->at + 1, *p = start;
  for (;;) {
    const char *quote = p < reader->end ? memchr(p, '"', (size_t)(reader->end - p)) : NULL;
    if (quote == NULL) return ml_json_fail(reader, err, "string without closing quote");
    const char *before = quote; /* an odd number of backslashes makes it part of the string */
    while (before > p && before[-1] == '\\') --before;
    if ((quote - before) % 2 == 0) {
      *upper_bound = (size_t)(quote - start);
      return ML_OK;
    }
    p = quote + 1;
  }
}

ml_status ml_json_string_read(ml_json_reader *reader, char *out, size_t *length, ml_error *err) {
  skip_space(reader);
  if (reader->at >= reader->end || *reader->at != '"') return unexpected(reader, "a string", err);
  return read_string(reader, out, SIZE_MAX, length, err);
}

ml_status ml_json_skip(ml_json_reader *reader, ml_error *err) {
  _Static_assert(ML_JSON_MAX_DEPTH <= 64, "one bit a level");
  uint64_t objects = 0, firsts = 0; /* of each level entered here: is it an object, has nothing been read from it */
  int base = reader->depth;
  for (;;) {
    ml_json_kind kind = ml_json_peek(reader);
    switch (kind) {
      case ML_JSON_NULL: case ML_JSON_TRUE: case ML_JSON_FALSE: ML_TRY(ml_json_literal_read(reader, kind, err)); break;
      case ML_JSON_NUMBER: {
        ml_decimal number;
        double ignored;
        const char *past = ml_decimal_scan(reader->at, reader->end, ML_DECIMAL_JSON, &number);
        if (past != NULL) reader->at = past;
        else if (!read_nonfinite(reader, &ignored)) return not_a_number(reader, number.stop, err);
        break;
      }
      case ML_JSON_STRING: {
        size_t ignored;
        ML_TRY(read_string(reader, NULL, 0, &ignored, err));
        break;
      }
      case ML_JSON_ARRAY: case ML_JSON_OBJECT: {
        bool object = kind == ML_JSON_OBJECT;
        ML_TRY(object ? ml_json_enter_object(reader, err) : ml_json_enter_array(reader, err));
        uint64_t bit = UINT64_C(1) << (reader->depth - base - 1);
        firsts |= bit;
        objects = object ? objects | bit : objects & ~bit;
        break;
      }
      default: return unexpected(reader, "a value", err);
    }
    for (bool more = false; !more;) {
      if (reader->depth == base) return ML_OK;
      uint64_t bit = UINT64_C(1) << (reader->depth - base - 1);
      bool first = (firsts & bit) != 0;
      firsts &= ~bit;
      if (objects & bit) {
        ML_TRY(next_key(reader, &first, &more, err));
        if (more) {
          size_t ignored;
          ML_TRY(read_string(reader, NULL, 0, &ignored, err));
          ML_TRY(read_colon(reader, err));
        }
      } else {
        ML_TRY(ml_json_array_next(reader, &first, &more, err));
      }
    }
  }
}

ml_status ml_json_expect_end(ml_json_reader *reader, ml_error *err) {
  skip_space(reader);
  return reader->at == reader->end ? ML_OK : unexpected(reader, "the end of input", err);
}

/* ---- writer ---- */

void ml_json_writer_init(ml_json_writer *writer) { *writer = (ml_json_writer){NULL, 0, 0, ML_OK}; }

void ml_json_writer_free(ml_json_writer *writer) {
  ml_free(writer->text);
  ml_json_writer_init(writer);
}

/* Makes room for `more` bytes; NULL when the writer has failed. */
static inline char *reserve(ml_json_writer *writer, size_t more) {
  if (writer->status != ML_OK) return NULL;
  if (more > writer->capacity - writer->length) {
    size_t need;
    writer->status = ml_add_size(writer->length, more, &need)
                         ? ml_grow(&writer->text, &writer->capacity, need, 1, "a JSON text", NULL)
                         : ML_RESOURCE_EXHAUSTED;
    if (writer->status != ML_OK) return NULL;
  }
  return writer->text + writer->length;
}

void ml_json_put_raw(ml_json_writer *writer, const char *text, size_t length) {
  char *to = reserve(writer, length);
  if (to == NULL) return;
  if (length > 0) memcpy(to, text, length);
  writer->length += length;
}

void ml_json_put_string(ml_json_writer *writer, const char *bytes, size_t length) {
  static const char hex[] = "0123456789abcdef";
  const char *p = bytes != NULL ? bytes : "", *end = p + (bytes != NULL ? length : 0);
  ml_json_put_literal(writer, "\"");
  while (writer->status == ML_OK) {
    const char *stop = plain_run(p, end);
    ml_json_put_raw(writer, p, (size_t)(stop - p));
    if (stop == end) break;
    p = stop + 1;
    unsigned char byte = (unsigned char)*stop;
    size_t bad;
    switch (byte) {
      case '"': ml_json_put_literal(writer, "\\\""); break;
      case '\\': ml_json_put_literal(writer, "\\\\"); break;
      case '\b': ml_json_put_literal(writer, "\\b"); break;
      case '\f': ml_json_put_literal(writer, "\\f"); break;
      case '\n': ml_json_put_literal(writer, "\\n"); break;
      case '\r': ml_json_put_literal(writer, "\\r"); break;
      case '\t': ml_json_put_literal(writer, "\\t"); break;
      default:
        if (byte < 0x20) {
          char escape[6] = {'\\', 'u', '0', '0', hex[byte >> 4], hex[byte & 15]};
          ml_json_put_raw(writer, escape, sizeof escape);
        } else {
          ml_utf8_sequence((const unsigned char *)stop, (size_t)(end - stop), &bad);
          ml_json_put_literal(writer, "\xef\xbf\xbd");
          p = stop + bad;
        }
    }
  }
  ml_json_put_literal(writer, "\"");
}

void ml_json_put_base64(ml_json_writer *writer, const void *bytes, size_t length) {
  size_t characters, need;
  if (!ml_base64_encoded_size(length, &characters) || !ml_add_size(characters, 2, &need)) {
    if (writer->status == ML_OK) writer->status = ML_RESOURCE_EXHAUSTED;
    return;
  }
  char *to = reserve(writer, need);
  if (to == NULL) return;
  to[0] = '"';
  ml_base64_encode(bytes, length, to + 1);
  to[characters + 1] = '"';
  writer->length += need;
}

static void put_nonfinite(ml_json_writer *writer, bool nan, bool negative) {
  if (nan) ml_json_put_literal(writer, "NaN");
  else if (negative) ml_json_put_literal(writer, "-Infinity");
  else ml_json_put_literal(writer, "Infinity");
}

void ml_json_put_float(ml_json_writer *writer, float value) {
  char *to = reserve(writer, ML_DECIMAL_MAX);
  if (to == NULL) return;
  if (isfinite(value)) writer->length += ml_decimal_print_float(value, to);
  else put_nonfinite(writer, isnan(value), value < 0);
}

void ml_json_put_double(ml_json_writer *writer, double value) {
  char *to = reserve(writer, ML_DECIMAL_MAX);
  if (to == NULL) return;
  if (isfinite(value)) writer->length += ml_decimal_print_double(value, to);
  else put_nonfinite(writer, isnan(value), value < 0);
}

void ml_json_put_int64(ml_json_writer *writer, int64_t value) {
  char *to = reserve(writer, ML_DECIMAL_MAX);
  if (to != NULL) writer->length += ml_decimal_print_int64(value, to);
}

void ml_json_put_uint64(ml_json_writer *writer, uint64_t value) {
  char *to = reserve(writer, ML_DECIMAL_MAX);
  if (to != NULL) writer->length += ml_decimal_print_uint64(value, to);
}
