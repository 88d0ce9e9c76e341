/* JSON (RFC 8259): a bounded pull reader and a growing writer.
 * Lives here: tokens, exact numbers, strings with UTF-8 checking; no tensor words. May include: base.
 * Numbers are converted without strtod on the common path and equal strtod's result on every path.
 * The reader never allocates except for unescaping long strings into the caller's buffer; the writer's buffer belongs to its
 * owner. */
#ifndef ML_CODEC_JSON_H
#define ML_CODEC_JSON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

#define ML_JSON_MAX_DEPTH 64

typedef enum ml_json_kind {
  ML_JSON_END = 0, ML_JSON_NULL, ML_JSON_FALSE, ML_JSON_TRUE, ML_JSON_NUMBER, ML_JSON_STRING, ML_JSON_ARRAY, ML_JSON_OBJECT,
  ML_JSON_INVALID /* a byte with which no value begins */
} ml_json_kind;

typedef struct ml_json_reader {
  const char *at, *end, *begin; /* end need not be NUL-terminated; nothing at or after it is read */
  int depth;
  bool allow_nonfinite;         /* accept NaN, Infinity, -Infinity, Inf, -Inf */
} ml_json_reader;

void ml_json_reader_init(ml_json_reader *reader, const char *text, size_t length);
/* Skips white space and says what value begins here (nothing consumed but the space). END at the end of input. */
ml_json_kind ml_json_peek(ml_json_reader *reader);

/* Every function below fails with INVALID_ARGUMENT and "… at line L, column C (offset O)"; depth over ML_JSON_MAX_DEPTH fails
 * too. */
ml_status ml_json_enter_array(ml_json_reader *reader, ml_error *err);   /* consumes [ */
ml_status ml_json_enter_object(ml_json_reader *reader, ml_error *err);  /* consumes { */
/* To be called before each element: *more says whether one follows; consumes the comma, or the closing bracket when none follows.
 * *first is the caller's, true before the first call. */
ml_status ml_json_array_next(ml_json_reader *reader, bool *first, bool *more, ml_error *err);
/* Same for objects; when *more, the key has been consumed up to and including the colon and is at *key (unescaped into scratch
 * when it has escapes; else borrowed from the text). scratch may be any size >= 256; a longer escaped key is an error. */
ml_status ml_json_object_next(ml_json_reader *reader, bool *first, bool *more, char *scratch, size_t scratch_size,
                              const char **key, size_t *key_length, ml_error *err);
/* A number token. `integral` is true when it has neither fraction nor exponent and fits int64; then *integer is exact.
 * 1e999 fails ("number out of range"). */
typedef struct ml_json_number {
  double value;
  int64_t integer;
  uint64_t magnitude;
  bool integral, negative, fits_uint64;
} ml_json_number;
ml_status ml_json_number_read(ml_json_reader *reader, ml_json_number *out, ml_error *err);
/* The fast path for tensors: any number, rounded once to float (correctly rounded from the decimal text). */
ml_status ml_json_float_read(ml_json_reader *reader, float *out, ml_error *err);
ml_status ml_json_double_read(ml_json_reader *reader, double *out, ml_error *err);
/* All numbers of an array that has been entered and from which nothing was read, up to and including its closing bracket: the
 * same as ml_json_array_next and ml_json_float_read in turn, but a third faster. More than `room` numbers, or anything but a
 * number, fails. */
ml_status ml_json_floats_read(ml_json_reader *reader, float *out, size_t room, size_t *count, ml_error *err);
ml_status ml_json_literal_read(ml_json_reader *reader, ml_json_kind kind, ml_error *err); /* null, true, false */
/* Length in bytes of the string here once unescaped (its raw length is an upper bound), without consuming. */
ml_status ml_json_string_length(ml_json_reader *reader, size_t *upper_bound, ml_error *err);
/* Consumes a string, unescaping into out (room for upper_bound bytes); UTF-8 and surrogates are checked. */
ml_status ml_json_string_read(ml_json_reader *reader, char *out, size_t *length, ml_error *err);
ml_status ml_json_skip(ml_json_reader *reader, ml_error *err); /* one whole value, iteratively */
ml_status ml_json_expect_end(ml_json_reader *reader, ml_error *err); /* only white space may remain */
/* "INVALID_ARGUMENT at the reader's place" */
ml_status ml_json_fail(const ml_json_reader *reader, ml_error *err, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));

/* Writer: failures are sticky (out of memory); check status once. */
typedef struct ml_json_writer {
  char *text;
  size_t length, capacity;
  ml_status status;
} ml_json_writer;
void ml_json_writer_init(ml_json_writer *writer);
void ml_json_writer_free(ml_json_writer *writer);
void ml_json_put_raw(ml_json_writer *writer, const char *text, size_t length);
#define ml_json_put_literal(writer, literal) ml_json_put_raw((writer), "" literal, sizeof(literal) - 1)
void ml_json_put_string(ml_json_writer *writer, const char *bytes, size_t length); /* with quotes; invalid UTF-8 becomes U+FFFD */
void ml_json_put_base64(ml_json_writer *writer, const void *bytes, size_t length); /* with quotes */
/* Shortest decimal that reads back to the same float/double; always has '.' or 'e' ("1.0"); NaN, Infinity, -Infinity bare. */
void ml_json_put_float(ml_json_writer *writer, float value);
void ml_json_put_double(ml_json_writer *writer, double value);
void ml_json_put_int64(ml_json_writer *writer, int64_t value);
void ml_json_put_uint64(ml_json_writer *writer, uint64_t value);

#endif
