/* Decoding is one pass. The first path down (element [0] of every level) fixes the rank, and a list fixes the size of its level
 * when it closes; later lists must agree. Innermost lists of floats, which is nearly all there is, are read by one call of the
 * codec into the buffer; whatever that call does not like is read again element by element, which finds the exact words of the
 * refusal. */
#include "serve/json_tensor.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "codec/base64.h"

enum { QUOTE = 256, KEPT_STRINGS = 1 << 20, FIRST_ELEMENTS = 64 };

void ml_json_decoder_reset(ml_json_decoder *decoder, const char *text, size_t size, size_t max_elements) {
  ml_json_reader_init(&decoder->reader, text, size);
  decoder->reader.allow_nonfinite = true;
  decoder->max_elements = max_elements ? max_elements : SIZE_MAX;
  decoder->elements = 0;
  decoder->semantic = false;
  decoder->strings_used = 0;
  if (decoder->strings_bytes > KEPT_STRINGS) { /* one large request should not pin its memory */
    ml_free(decoder->strings);
    decoder->strings = NULL;
    decoder->strings_bytes = 0;
  }
}

void ml_json_decoder_free(ml_json_decoder *decoder) {
  ml_free(decoder->strings);
  *decoder = (ml_json_decoder){0};
}

/* ---------------------------------------------------------------- messages ---- */
ml_status ml_json_refuse(ml_json_decoder *decoder, ml_error *err, ml_status code, const char *format, ...) {
  char message[ML_ERROR_MAX];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  decoder->semantic = true;
  return ml_fail(err, code, "%s", message);
}

const char *ml_json_quote(const ml_json_decoder *decoder, const char *at, char text[260]) {
  ml_json_reader reader = decoder->reader;
  size_t n = 0;
  reader.at = at;
  reader.depth = 0;
  ml_json_peek(&reader);
  const char *p = reader.at;
  const char *end = ml_json_skip(&reader, NULL) == ML_OK ? reader.at : decoder->reader.end;
  bool quoted = false;
  for (; p < end && n < QUOTE; p++) {
    if (*p == '"') quoted = !quoted;
    if (!quoted && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) continue;
    text[n++] = *p;
    if (quoted && *p == '\\' && p + 1 < end && n < QUOTE) text[n++] = *++p;
  }
  if (p < end) { /* cut at a character */
    while (n > 0 && ((unsigned char)text[n - 1] & 0xc0) == 0x80) n--;
    if (n > 0 && (unsigned char)text[n - 1] >= 0xc0) n--;
    memcpy(text + n, "...", 3);
    n += 3;
  }
  text[n] = '\0';
  return text;
}

const char *ml_json_shape_text(const int64_t *dims, int32_t rank, char *text, size_t size) {
  size_t n = (size_t)snprintf(text, size, "[");
  for (int32_t i = 0; i < rank && n < size; i++)
    n += (size_t)snprintf(text + n, size - n, "%s%lld", i ? "," : "", (long long)dims[i]);
  if (n < size) snprintf(text + n, size - n, "]");
  return text;
}

static const char *kind_name(ml_json_kind kind) {
  switch (kind) {
    case ML_JSON_NULL: return "Null";
    case ML_JSON_FALSE: return "False";
    case ML_JSON_TRUE: return "True";
    case ML_JSON_NUMBER: return "Number";
    case ML_JSON_STRING: return "String";
    case ML_JSON_ARRAY: return "Array";
    default: return "Object";
  }
}

static const struct { ml_dtype dtype; const char *name;
} dtypes[] = {
    {ML_FLOAT32, "float"},  {ML_FLOAT64, "double"}, {ML_INT32, "int32"},
    {ML_UINT8, "uint8"},    {ML_INT16, "int16"},     {ML_INT8, "int8"},
    {ML_STRING, "string"}, {ML_INT64, "int64"},     {ML_BOOL, "bool"},
    {ML_UINT16, "uint16"}, {ML_FLOAT16, "half"},     {ML_BFLOAT16, "bfloat16"},
    {ML_UINT32, "uint32"}, {ML_UINT64, "uint64"},
};

const char *ml_tf_dtype_name(ml_dtype dtype) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) if (dtypes[i].dtype == dtype) return dtypes[i].name;
  return "invalid";
}

/* A value that begins nothing is a syntax error; any other is of the wrong type. */
__attribute__((cold)) static ml_status wrong_type(ml_json_decoder *d, ml_dtype dtype, ml_error *err) {
  char text[260];
  ml_json_kind kind = ml_json_peek(&d->reader);
  ml_json_reader copy = d->reader;
  ML_TRY(ml_json_skip(&copy, err));
  return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "JSON Value: %s Type: %s is not of expected type: %s",
                        ml_json_quote(d, d->reader.at, text), kind_name(kind), ml_tf_dtype_name(dtype));
}

/* ---------------------------------------------------------------- elements ---- */
/* Room for `more` elements behind tensor->count. */
static ml_status ensure(ml_json_decoder *d, ml_json_tensor *t, size_t more, size_t size, ml_error *err) {
  size_t need;
  if (more > d->max_elements - d->elements)
    return ml_json_refuse(d, err, ML_RESOURCE_EXHAUSTED, "the request has more than %zu elements", d->max_elements);
  if (!ml_add_size(t->count, more, &need) || !ml_mul_size(need, size, &need)) return ml_fail_memory(err, SIZE_MAX, "a request");
  if (need <= t->bytes) return ML_OK;
  return ml_grow(&t->data, &t->bytes, need, 1, "a request", err);
}

/* Memory for string bytes that never moves within a request: all strings of a body and what they decode to fit twice its size. */
static ml_status string_room(ml_json_decoder *d, size_t size, char **out, ml_error *err) {
  size_t need;
  if (d->strings_used == 0) { /* the first of this request: the memory may be from a smaller one */
    if (!ml_mul_size((size_t)(d->reader.end - d->reader.begin), 2, &need) || !ml_add_size(need, 1, &need))
      return ml_fail_memory(err, SIZE_MAX, "a request");
    if (d->strings_bytes < need) {
      ml_free(d->strings);
      d->strings_bytes = 0;
      d->strings = ml_alloc(need);
      if (!d->strings) return ml_fail_memory(err, need, "a request");
      d->strings_bytes = need;
    }
  }
  if (d->strings_bytes - d->strings_used < size) return ml_fail(err, ML_INTERNAL, "string bytes outgrew the request");
  *out = d->strings + d->strings_used;
  return ML_OK;
}

static ml_status read_text(ml_json_decoder *d, ml_str *out, ml_error *err) {
  size_t length;
  char *to = NULL;
  ML_TRY(ml_json_string_length(&d->reader, &length, err));
  ML_TRY(string_room(d, length, &to, err));
  ML_TRY(ml_json_string_read(&d->reader, to, &length, err));
  *out = (ml_str){to, length};
  d->strings_used += length;
  return ML_OK;
}

bool ml_json_is_base64(const ml_json_decoder *decoder) {
  ml_json_reader reader = decoder->reader;
  char scratch[256];
  const char *key;
  size_t length;
  bool first = true, more;
  if (ml_json_peek(&reader) != ML_JSON_OBJECT || ml_json_enter_object(&reader, NULL) != ML_OK) return false;
  if (ml_json_object_next(&reader, &first, &more, scratch, sizeof scratch, &key, &length, NULL) != ML_OK || !more) return false;
  if (length != 3 || memcmp(key, "b64", 3) != 0 || ml_json_peek(&reader) != ML_JSON_STRING ||
      ml_json_skip(&reader, NULL) != ML_OK)
    return false;
  return ml_json_object_next(&reader, &first, &more, scratch, sizeof scratch, &key, &length, NULL) == ML_OK && !more;
}

static ml_status read_base64(ml_json_decoder *d, ml_str *out, ml_error *err) {
  char scratch[256], *to = NULL;
  const char *key;
  size_t length, size;
  bool first = true, more;
  ml_str text = {"", 0};
  ML_TRY(ml_json_enter_object(&d->reader, err));
  ML_TRY(ml_json_object_next(&d->reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
  ML_TRY(read_text(d, &text, err));
  ML_TRY(ml_json_object_next(&d->reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
  ML_TRY(string_room(d, ml_base64_decoded_bound(text.length), &to, err));
  if (ml_base64_decode(text.bytes, text.length, to, &size, NULL) != ML_OK)
    return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "Unable to base64 decode");
  *out = (ml_str){to, size};
  d->strings_used += size;
  return ML_OK;
}

/* An integer literal within [low, high]. */
static ml_status read_integer(ml_json_decoder *d, ml_dtype dtype, int64_t low, int64_t high, int64_t *out, ml_error *err) {
  ml_json_number number;
  ml_json_reader before = d->reader;
  ML_TRY(ml_json_number_read(&d->reader, &number, err));
  if (!number.integral || number.integer < low || number.integer > high) {
    d->reader = before;
    return wrong_type(d, dtype, err);
  }
  *out = number.integer;
  return ML_OK;
}

static ml_status read_number(ml_json_decoder *d, ml_dtype dtype, void *to, ml_error *err) {
  int64_t i = 0;
  switch (dtype) {
    case ML_FLOAT32: return ml_json_float_read(&d->reader, to, err);
    case ML_FLOAT64: return ml_json_double_read(&d->reader, to, err);
    case ML_INT8: ML_TRY(read_integer(d, dtype, INT8_MIN, INT8_MAX, &i, err)); *(int8_t *)to = (int8_t)i; return ML_OK;
    case ML_INT16: ML_TRY(read_integer(d, dtype, INT16_MIN, INT16_MAX, &i, err)); *(int16_t *)to = (int16_t)i; return ML_OK;
    case ML_INT32: ML_TRY(read_integer(d, dtype, INT32_MIN, INT32_MAX, &i, err)); *(int32_t *)to = (int32_t)i; return ML_OK;
    case ML_INT64: ML_TRY(read_integer(d, dtype, INT64_MIN, INT64_MAX, &i, err)); *(int64_t *)to = i; return ML_OK;
    case ML_UINT8: ML_TRY(read_integer(d, dtype, 0, UINT8_MAX, &i, err)); *(uint8_t *)to = (uint8_t)i; return ML_OK;
    case ML_UINT32: ML_TRY(read_integer(d, dtype, 0, UINT32_MAX, &i, err)); *(uint32_t *)to = (uint32_t)i; return ML_OK;
    case ML_UINT64: {
      ml_json_number number;
      ml_json_reader before = d->reader;
      ML_TRY(ml_json_number_read(&d->reader, &number, err));
      if (!number.fits_uint64) {
        d->reader = before;
        return wrong_type(d, dtype, err);
      }
      *(uint64_t *)to = number.magnitude;
      return ML_OK;
    }
    default: return wrong_type(d, dtype, err);
  }
}

static bool readable(ml_dtype dtype) {
  return ml_dtype_bits(dtype) >= 8 && !ml_dtype_is_small(dtype) && dtype != ML_FLOAT16 && dtype != ML_BFLOAT16 && dtype != ML_UINT16;
}

static ml_status read_element(ml_json_decoder *d, ml_dtype dtype, ml_json_tensor *t, ml_json_kind kind, ml_error *err) {
  size_t size = ml_dtype_size(dtype);
  if (!readable(dtype)) {
    char text[260];
    ml_json_reader copy = d->reader;
    ML_TRY(ml_json_skip(&copy, err));
    return ml_json_refuse(d, err, ML_UNIMPLEMENTED, "Conversion of JSON Value: %s to type: %s",
                          ml_json_quote(d, d->reader.at, text), ml_tf_dtype_name(dtype));
  }
  ML_TRY(ensure(d, t, 1, size, err));
  void *to = t->data + t->count * size;
  if (dtype == ML_BOOL) {
    if (kind != ML_JSON_TRUE && kind != ML_JSON_FALSE) return wrong_type(d, dtype, err);
    ML_TRY(ml_json_literal_read(&d->reader, kind, err));
    *(uint8_t *)to = kind == ML_JSON_TRUE;
  } else if (dtype == ML_STRING) {
    if (kind == ML_JSON_STRING) ML_TRY(read_text(d, to, err));
    else if (kind == ML_JSON_OBJECT && ml_json_is_base64(d)) ML_TRY(read_base64(d, to, err));
    else return wrong_type(d, dtype, err);
  } else {
    if (kind != ML_JSON_NUMBER) return wrong_type(d, dtype, err);
    ML_TRY(read_number(d, dtype, to, err));
  }
  t->count++;
  d->elements++;
  return ML_OK;
}

/* ---------------------------------------------------------------- nesting ---- */
/* An innermost list of floats at once; false: nothing has happened. */
static bool read_floats(ml_json_decoder *d, ml_json_tensor *t, ml_json_shape *s, int32_t level) {
  size_t count, most = (size_t)(d->reader.end - d->reader.at) / 2 + 1; /* a number and its comma take two bytes */
  bool closed = (s->closed >> level & 1) != 0;
  if (closed) most = (size_t)s->dims[level];
  else if (s->dims[level] > 0 && (size_t)s->dims[level] < most) most = (size_t)s->dims[level]; /* the caller's guess */
  if (most > d->max_elements - d->elements) most = d->max_elements - d->elements;
  if (ensure(d, t, most, sizeof(float), NULL) != ML_OK) return false;
  ml_json_reader before = d->reader;
  if (ml_json_floats_read(&d->reader, (float *)(void *)t->data + t->count, most, &count, NULL) != ML_OK ||
      (closed && count != most)) {
    d->reader = before;
    return false;
  }
  s->dims[level] = (int64_t)count;
  s->closed |= UINT32_C(1) << level;
  s->rank = level + 1;
  t->count += count;
  d->elements += count;
  return true;
}

static ml_status read_value(ml_json_decoder *d, ml_dtype dtype, ml_json_tensor *t, ml_json_shape *s, int32_t level,
                            ml_error *err) {
  ml_json_kind kind = ml_json_peek(&d->reader);
  if (kind != ML_JSON_ARRAY) {
    if (s->rank == ML_UNKNOWN) s->rank = level;
    if (level != s->rank) {
      char text[260];
      ml_json_reader copy = d->reader;
      ML_TRY(ml_json_skip(&copy, err));
      return ml_json_refuse(d, err, ML_INVALID_ARGUMENT,
                            "JSON Value: %s found at incorrect level: %d in the JSON DOM. Expected at level: %d",
                            ml_json_quote(d, d->reader.at, text), level + 1, s->rank);
    }
    return read_element(d, dtype, t, kind, err);
  }
  if (s->rank != ML_UNKNOWN && level >= s->rank)
    return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "Encountered list at unexpected level: %d expected < %d", level, s->rank);
  if (level == ML_MAX_RANK) return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "lists nested deeper than %d levels", ML_MAX_RANK);
  bool first = true, more;
  ML_TRY(ml_json_enter_array(&d->reader, err));
  if (dtype == ML_FLOAT32 && (s->rank == ML_UNKNOWN || s->rank == level + 1) && ml_json_peek(&d->reader) == ML_JSON_NUMBER &&
      read_floats(d, t, s, level))
    return ML_OK;
  int64_t n = 0;
  for (;; n++) {
    ML_TRY(ml_json_array_next(&d->reader, &first, &more, err));
    if (!more) break;
    ML_TRY(read_value(d, dtype, t, s, level + 1, err));
  }
  if (s->rank == ML_UNKNOWN) s->rank = level + 1; /* an empty list ends the first path */
  if (!(s->closed >> level & 1)) {
    s->dims[level] = n;
    s->closed |= UINT32_C(1) << level;
  } else if (s->dims[level] != n) {
    return ml_json_refuse(d, err, ML_INVALID_ARGUMENT,
                          "Encountered list at unexpected size: %lld at level: %d expected size: %lld", (long long)n, level,
                          (long long)s->dims[level]);
  }
  return ML_OK;
}

ml_status ml_json_tensor_read(ml_json_decoder *decoder, ml_dtype dtype, ml_json_tensor *tensor, ml_json_shape *shape,
                              ml_error *err) {
  shape->rank = ML_UNKNOWN;
  shape->closed = 0;
  return read_value(decoder, dtype, tensor, shape, 0, err);
}

/* ---------------------------------------------------------------- encoding ---- */
ml_status ml_json_tensor_writable(ml_dtype dtype, ml_error *err) {
  if (readable(dtype)) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "Failed to write JSON value for tensor type: %s", ml_tf_dtype_name(dtype));
}

static void put_element(ml_json_writer *w, const ml_view *v, size_t i, bool base64) {
  switch (v->dtype) {
    case ML_FLOAT32: ml_json_put_float(w, ((const float *)v->data)[i]); break;
    case ML_FLOAT64: ml_json_put_double(w, ((const double *)v->data)[i]); break;
    case ML_INT8: ml_json_put_int64(w, ((const int8_t *)v->data)[i]); break;
    case ML_INT16: ml_json_put_int64(w, ((const int16_t *)v->data)[i]); break;
    case ML_INT32: ml_json_put_int64(w, ((const int32_t *)v->data)[i]); break;
    case ML_INT64: ml_json_put_int64(w, ((const int64_t *)v->data)[i]); break;
    case ML_UINT8: ml_json_put_int64(w, ((const uint8_t *)v->data)[i]); break;
    case ML_UINT32: ml_json_put_int64(w, ((const uint32_t *)v->data)[i]); break;
    case ML_UINT64: ml_json_put_uint64(w, ((const uint64_t *)v->data)[i]); break;
    case ML_BOOL:
      if (((const uint8_t *)v->data)[i]) ml_json_put_literal(w, "true");
      else ml_json_put_literal(w, "false");
      break;
    case ML_STRING: {
      const ml_str *s = &((const ml_str *)v->data)[i];
      if (!base64) ml_json_put_string(w, s->bytes, s->length);
      else {
        ml_json_put_literal(w, "{\"b64\": ");
        ml_json_put_base64(w, s->bytes, s->length);
        ml_json_put_literal(w, "}");
      }
      break;
    }
    default: ml_json_put_literal(w, "null"); break; /* ml_json_tensor_writable keeps these out */
  }
}

/* Elements from `at` on, nested by dims[level …]; returns how many there were. */
static size_t put_level(ml_json_writer *w, const ml_view *v, int32_t level, size_t at, bool base64) {
  if (level == v->rank) {
    put_element(w, v, at, base64);
    return 1;
  }
  size_t begin = at;
  ml_json_put_literal(w, "[");
  for (int64_t i = 0; i < v->dims[level] && w->status == ML_OK; i++) {
    if (i) ml_json_put_literal(w, ", ");
    at += put_level(w, v, level + 1, at, base64);
  }
  ml_json_put_literal(w, "]");
  return at - begin;
}

static void put_map(ml_json_writer *w, const ml_container *map, bool base64) {
  const ml_view *keys = &map->items[0].tensor->view, *values = &map->items[1].tensor->view;
  ml_json_put_literal(w, "{");
  for (size_t i = 0; i < keys->count; i++) {
    const ml_str *text = keys->dtype == ML_STRING ? (const ml_str *)keys->data + i : NULL;
    if (i) ml_json_put_literal(w, ", ");
    if (text) {
      ml_json_put_string(w, text->bytes, text->length);
    } else {
      ml_json_put_literal(w, "\"");
      put_element(w, keys, i, false);
      ml_json_put_literal(w, "\"");
    }
    ml_json_put_literal(w, ": ");
    put_element(w, values, i, base64);
  }
  ml_json_put_literal(w, "}");
}

static void put_item(ml_json_writer *w, const ml_item *item, bool base64) {
  const ml_container *c = item->container;
  if (!c) {
    ml_json_put_tensor(w, &item->tensor->view, base64);
    return;
  }
  ml_kind kind = ml_type_kind(c->type);
  if (kind == ML_KIND_MAP_INT64 || kind == ML_KIND_MAP_STRING) {
    put_map(w, c, base64);
  } else if (kind == ML_KIND_OPTIONAL) {
    if (c->count) put_item(w, &c->items[0], base64);
    else ml_json_put_literal(w, "null");
  } else {
    ml_json_put_literal(w, "[");
    for (size_t i = 0; i < c->count && w->status == ML_OK; i++) {
      if (i) ml_json_put_literal(w, ", ");
      put_item(w, &c->items[i], base64);
    }
    ml_json_put_literal(w, "]");
  }
}

void ml_json_put_tensor(ml_json_writer *writer, const ml_view *view, bool base64) {
  if (view->type) put_item(writer, &(ml_item){NULL, ml_view_container(view)}, base64);
  else put_level(writer, view, 0, 0, base64);
}

void ml_json_put_row(ml_json_writer *writer, const ml_view *view, size_t row, bool base64) {
  if (view->type) {
    put_item(writer, &ml_view_container(view)->items[row], base64);
    return;
  }
  size_t rows = (size_t)view->dims[0];
  put_level(writer, view, 1, rows ? view->count / rows * row : 0, base64);
}
