/* TensorFlow Serving's answers name no element types: the first number of an output decides, and an output that began with an integer and goes on
 * with a fraction is read once more as floats. An output that is no tensor at all (scikit-learn's probabilities by label, ragged lists) is handed
 * on as the text that it is. */
#include "serve/reply.h"

#include <string.h>

#include "base/alloc.h"
#include "codec/utf8.h"
#include "serve/infer.h"
#include "serve/json_tensor.h"

enum { KEY_SCRATCH = 4096, MOST_OUTPUTS = 4096, DATATYPE = 16 };

typedef struct decoding {
  ml_json_decoder decoder;
  ml_json_tensor elements; /* of the tensor that is being read */
  ml_reply *reply;
  ml_reply_dtype *dtype;
  void *context;
} decoding;

void ml_reply_free(ml_reply *reply) {
  for (size_t i = 0; i < reply->n; i++) {
    ml_free(reply->values[i].name);
    ml_tensor_release(reply->values[i].tensor);
  }
  ml_free(reply->values);
  ml_free(reply->version);
  ml_free(reply->id);
  *reply = (ml_reply){0};
}

static ml_status add_value(ml_reply *reply, const char *name, size_t length, ml_reply_value **out, ml_error *err) {
  if (reply->n == MOST_OUTPUTS) return ml_fail(err, ML_DATA_LOSS, "more than %d outputs", MOST_OUTPUTS);
  ML_TRY(ml_grow(&reply->values, &reply->capacity, reply->n + 1, sizeof *reply->values, "an answer", err));
  ml_reply_value *value = &reply->values[reply->n];
  *value = (ml_reply_value){0};
  if (name) {
    value->name = ml_alloc(length + 1);
    if (!value->name) return ml_fail_memory(err, length + 1, "an answer");
    memcpy(value->name, name, length);
    value->name[length] = '\0';
    value->name_length = length;
  }
  reply->n++;
  *out = value;
  return ML_OK;
}

static bool is(const char *key, size_t length, const char *text) { return length == strlen(text) && memcmp(key, text, length) == 0; }

/* ---------------------------------------------------------------- tensors ---- */
/* What JSON numbers of this type are read as. */
static ml_dtype read_as(ml_dtype dtype) {
  if (dtype == ML_UINT16) return ML_INT32;
  if (ml_dtype_is_float(dtype) && dtype != ML_FLOAT32) return ML_FLOAT64;
  return ml_dtype_is_integer(dtype) && ml_dtype_bits(dtype) < 8 ? ML_INT8 : dtype;
}

/* Element type by the first element at or below the reader; NONE when it is none of a tensor. */
static ml_dtype looks_like(const decoding *d) {
  ml_json_decoder copy = d->decoder;
  const char *p = copy.reader.at, *end = copy.reader.end;
  while (p < end && (*p == '[' || *p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
  if (p == end) return ML_DTYPE_NONE;
  if (*p == '"') return ML_STRING;
  if (*p == 't' || *p == 'f') return ML_BOOL;
  if (*p == '{') {
    copy.reader.at = p;
    return ml_json_is_base64(&copy) ? ML_STRING : ML_DTYPE_NONE;
  }
  if (*p == ']' || *p == 'N' || *p == 'I') return ML_FLOAT32;
  if (*p == '-') p++;
  const char *digits = p;
  while (p < end && *p >= '0' && *p <= '9') p++;
  if (p == digits) return p < end && *p == 'I' ? ML_FLOAT32 : ML_DTYPE_NONE;
  return p < end && (*p == '.' || *p == 'e' || *p == 'E') ? ML_FLOAT32 : ML_INT64;
}

static ml_status make_tensor(const ml_json_tensor *elements, ml_dtype read, ml_dtype dtype, const int64_t *dims, int32_t rank, ml_tensor **out,
                             ml_error *err) {
  size_t count;
  if (ml_shape_count(dims, rank, read, &count, err) != ML_OK) return err->code = ML_DATA_LOSS;
  if (count != elements->count) return ml_fail(err, ML_INVALID_ARGUMENT, "%zu elements for a shape of %zu", elements->count, count);
  if (dtype == ML_STRING) return ml_tensor_from_strings((const ml_str *)(void *)elements->data, dims, rank, out, err);
  ml_tensor *tensor;
  ML_TRY(ml_tensor_new(read, dims, rank, &tensor, err));
  if (count) memcpy(tensor->view.data, elements->data, count * ml_dtype_size(read));
  if (read == dtype) {
    *out = tensor;
    return ML_OK;
  }
  ml_status status = ml_tensor_cast(tensor, dtype, out, err);
  ml_tensor_release(tensor);
  return status;
}

static ml_status read_tensor(decoding *d, ml_dtype dtype, ml_tensor **out, ml_error *err) {
  ml_json_shape shape = {0};
  d->elements.count = 0;
  ML_TRY(ml_json_tensor_read(&d->decoder, read_as(dtype), &d->elements, &shape, err));
  return make_tensor(&d->elements, read_as(dtype), dtype, shape.dims, shape.rank, out, err);
}

static bool out_of_memory(ml_status status) { return status == ML_RESOURCE_EXHAUSTED; }

/* The value at the reader, as a tensor or as text. */
static ml_status read_value(decoding *d, ml_reply_value *value, ml_error *err) {
  ml_json_peek(&d->decoder.reader);
  const ml_json_reader before = d->decoder.reader;
  ml_dtype wanted = d->dtype ? d->dtype(d->context, value->name, value->name_length) : ML_DTYPE_NONE, dtype = wanted ? wanted : looks_like(d);
  ml_status status = dtype ? read_tensor(d, dtype, &value->tensor, err) : ML_INVALID_ARGUMENT;
  if (status == ML_OK || out_of_memory(status)) return status;
  d->decoder.reader = before;
  if (!wanted && dtype == ML_INT64) {
    status = read_tensor(d, ML_FLOAT32, &value->tensor, err);
    if (status == ML_OK || out_of_memory(status)) return status;
    d->decoder.reader = before;
  }
  ML_TRY(ml_json_skip(&d->decoder.reader, err));
  value->text = before.at;
  value->length = (size_t)(d->decoder.reader.at - before.at);
  return ML_OK;
}

/* ---------------------------------------------------------------- predict ---- */
static ml_status read_columns(decoding *d, ml_error *err) {
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more;
  ml_reply_value *value;
  d->reply->named = true;
  ML_TRY(ml_json_enter_object(&d->decoder.reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(&d->decoder.reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) return ML_OK;
    ML_TRY(add_value(d->reply, key, length, &value, err));
    ML_TRY(read_value(d, value, err));
  }
}

typedef struct column { /* an output while its rows are read */
  ml_json_tensor elements;
  ml_json_shape shape; /* of a row */
  ml_dtype dtype;
  size_t rows;
} column;

typedef struct columns {
  column *items;
  size_t n, capacity;
} columns;

static void free_columns(columns *c) {
  for (size_t i = 0; i < c->n; i++) ml_free(c->items[i].elements.data);
  ml_free(c->items);
  *c = (columns){0};
}

/* The column of this name, which is nearly always the one behind the one before. */
static ml_status find_column(decoding *d, columns *c, const char *name, size_t length, size_t hint, bool add, size_t *out, ml_error *err) {
  ml_reply *reply = d->reply;
  for (size_t i = 0; i < c->n; i++) {
    size_t at = (hint + i) % c->n;
    if (!is(name, length, reply->values[at].name) || reply->values[at].name_length != length) continue;
    *out = at;
    return ML_OK;
  }
  if (!add) return ml_fail(err, ML_INVALID_ARGUMENT, "the rows have different outputs");
  ml_reply_value *value;
  ML_TRY(ml_grow(&c->items, &c->capacity, c->n + 1, sizeof *c->items, "an answer", err));
  ML_TRY(add_value(reply, name, length, &value, err));
  c->items[c->n] = (column){0};
  *out = c->n++;
  return ML_OK;
}

static ml_status copy_elements(const ml_json_tensor *from, ml_dtype dtype, ml_json_tensor *to, ml_error *err) {
  size_t bytes = from->count * ml_dtype_size(dtype);
  if (bytes == 0) return ML_OK;
  ML_TRY(ml_grow(&to->data, &to->bytes, bytes, 1, "an answer", err));
  memcpy(to->data, from->data, bytes);
  to->count = from->count;
  return ML_OK;
}

/* Objects by output name, one for each row; integers: what numbers without a fraction are. */
static ml_status read_rows(decoding *d, columns *c, ml_dtype integers, ml_error *err) {
  ml_json_reader *reader = &d->decoder.reader;
  char scratch[KEY_SCRATCH];
  bool first = true, more;
  size_t rows = 0;
  ML_TRY(ml_json_enter_array(reader, err));
  for (;; rows++) {
    bool first_key = true, more_keys;
    size_t seen = 0;
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) break;
    ML_TRY(ml_json_enter_object(reader, err));
    for (;; seen++) {
      const char *key;
      size_t length, at = 0;
      ML_TRY(ml_json_object_next(reader, &first_key, &more_keys, scratch, sizeof scratch, &key, &length, err));
      if (!more_keys) break;
      ML_TRY(find_column(d, c, key, length, seen, rows == 0, &at, err));
      column *to = &c->items[at];
      ml_json_peek(reader);
      if (to->rows != rows) return ml_fail(err, ML_INVALID_ARGUMENT, "an output stands twice in a row");
      if (rows == 0) {
        ml_dtype wanted = d->dtype ? d->dtype(d->context, d->reply->values[at].name, length) : ML_DTYPE_NONE;
        to->dtype = wanted ? wanted : looks_like(d);
        if (!wanted && to->dtype == ML_INT64) to->dtype = integers;
        if (!to->dtype) return ml_fail(err, ML_INVALID_ARGUMENT, "an output that is no tensor");
      }
      /* The first row is read where there is room for as much as the body can hold, which not every output needs. */
      ml_json_shape shape = rows ? to->shape : (ml_json_shape){0};
      ml_json_tensor *into = rows ? &to->elements : &d->elements;
      if (rows == 0) into->count = 0;
      ML_TRY(ml_json_tensor_read(&d->decoder, read_as(to->dtype), into, &shape, err));
      if (rows == 0) ML_TRY(copy_elements(into, read_as(to->dtype), &to->elements, err));
      if (rows && !ml_shape_equal(shape.dims, shape.rank, to->shape.dims, to->shape.rank))
        return ml_fail(err, ML_INVALID_ARGUMENT, "rows of different shapes");
      to->shape = shape;
      to->rows++;
    }
    if (seen != c->n) return ml_fail(err, ML_INVALID_ARGUMENT, "the rows have different outputs");
  }
  for (size_t i = 0; i < c->n; i++) {
    column *from = &c->items[i];
    int64_t dims[ML_MAX_RANK];
    if (from->shape.rank == ML_MAX_RANK) return ml_fail(err, ML_INVALID_ARGUMENT, "an output of too many dimensions");
    dims[0] = (int64_t)rows;
    memcpy(dims + 1, from->shape.dims, (size_t)from->shape.rank * sizeof *dims);
    ML_TRY(make_tensor(&from->elements, read_as(from->dtype), from->dtype, dims, from->shape.rank + 1, &d->reply->values[i].tensor, err));
  }
  d->reply->named = true;
  return ML_OK;
}

/* Is this an array of objects that are no base64? Nothing is consumed. */
static bool are_rows(const decoding *d) {
  ml_json_decoder copy = d->decoder;
  bool first = true, more;
  if (ml_json_peek(&copy.reader) != ML_JSON_ARRAY || ml_json_enter_array(&copy.reader, NULL) != ML_OK) return false;
  if (ml_json_array_next(&copy.reader, &first, &more, NULL) != ML_OK || !more) return false;
  return ml_json_peek(&copy.reader) == ML_JSON_OBJECT && !ml_json_is_base64(&copy);
}

static ml_status read_predictions(decoding *d, bool rows, ml_error *err) {
  ml_reply_value *value;
  if (!rows && ml_json_peek(&d->decoder.reader) == ML_JSON_OBJECT && !ml_json_is_base64(&d->decoder)) return read_columns(d, err);
  if (rows && are_rows(d)) {
    static const ml_dtype integers[] = {ML_INT64, ML_FLOAT32};
    const ml_json_reader before = d->decoder.reader;
    for (size_t i = 0; i < sizeof integers / sizeof *integers; i++) {
      columns c = {0};
      ml_status status = read_rows(d, &c, integers[i], err);
      free_columns(&c);
      if (status == ML_OK || out_of_memory(status)) return status;
      ml_reply_free(d->reply);
      d->decoder.reader = before;
    }
  }
  ML_TRY(add_value(d->reply, NULL, 0, &value, err));
  return read_value(d, value, err);
}

static ml_status read_predict(decoding *d, ml_error *err) {
  ml_json_reader *reader = &d->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more, seen = false;
  if (ml_json_peek(reader) != ML_JSON_OBJECT) return ml_fail(err, ML_DATA_LOSS, "no JSON object");
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    bool rows = is(key, length, "predictions");
    if (!rows && !is(key, length, "outputs")) {
      ML_TRY(ml_json_skip(reader, err));
      continue;
    }
    if (seen) return ml_fail(err, ML_DATA_LOSS, "'predictions' or 'outputs' more than once");
    seen = true;
    ML_TRY(read_predictions(d, rows, err));
  }
  ML_TRY(ml_json_expect_end(reader, err));
  return seen ? ML_OK : ml_fail(err, ML_DATA_LOSS, "neither 'predictions' nor 'outputs'");
}

/* Whatever is wrong is the server's fault, not the caller's. */
static ml_status finish(decoding *d, ml_status status, ml_error *err) {
  ml_free(d->elements.data);
  ml_json_decoder_free(&d->decoder);
  if (status == ML_OK) return ML_OK;
  ml_reply_free(d->reply);
  if (out_of_memory(status)) return status;
  err->code = ML_DATA_LOSS;
  return ML_DATA_LOSS;
}

ml_status ml_reply_predict(const char *body, size_t size, ml_reply_dtype *dtype, void *context, ml_reply *out, ml_error *err) {
  decoding d = {.reply = out, .dtype = dtype, .context = context};
  *out = (ml_reply){0};
  ml_json_decoder_reset(&d.decoder, body, size, 0);
  return finish(&d, read_predict(&d, err), err);
}

/* ---------------------------------------------------------------- infer ---- */
static ml_dtype datatype(const char *name) {
  if (strcmp(name, "STRING") == 0) return ML_STRING; /* as Triton's documents call labels */
  for (ml_dtype i = ML_FLOAT32; i < ML_CONTAINER; i++) {
    const char *known = ml_infer_dtype_name(i);
    if (known && strcmp(known, name) == 0) return i;
  }
  return ML_DTYPE_NONE;
}

static ml_status read_string(ml_json_reader *reader, char **out, size_t *length, ml_error *err) {
  size_t bound;
  char *text;
  if (ml_json_peek(reader) != ML_JSON_STRING) return ml_json_fail(reader, err, "a string expected");
  ML_TRY(ml_json_string_length(reader, &bound, err));
  text = ml_alloc(bound + 1);
  if (!text) return ml_fail_memory(err, bound + 1, "an answer");
  ml_status status = ml_json_string_read(reader, text, length, err);
  if (status != ML_OK) {
    ml_free(text);
    return status;
  }
  text[*length] = '\0';
  ml_free(*out);
  *out = text;
  return ML_OK;
}

typedef struct output {
  char *name, *datatype;
  size_t name_length;
  int64_t dims[ML_MAX_RANK];
  int32_t rank;        /* ML_UNKNOWN: not said */
  bool has_size, has_data;
  uint64_t size;       /* of binary data */
  ml_json_reader data; /* at the JSON data */
} output;

static ml_status read_shape(ml_json_reader *reader, output *o, ml_error *err) {
  bool first = true, more;
  ml_json_number number;
  o->rank = 0;
  ML_TRY(ml_json_enter_array(reader, err));
  for (;;) {
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) return ML_OK;
    if (o->rank == ML_MAX_RANK) return ml_json_fail(reader, err, "a shape of more than %d dimensions", ML_MAX_RANK);
    if (ml_json_peek(reader) != ML_JSON_NUMBER) return ml_json_fail(reader, err, "a dimension expected");
    ML_TRY(ml_json_number_read(reader, &number, err));
    if (!number.integral || number.integer < 0) return ml_json_fail(reader, err, "a dimension of 0 or more expected");
    o->dims[o->rank++] = number.integer;
  }
}

static ml_status read_parameters(ml_json_reader *reader, output *o, ml_error *err) {
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more;
  ml_json_number number;
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) return ML_OK;
    if (!is(key, length, "binary_data_size")) {
      ML_TRY(ml_json_skip(reader, err));
      continue;
    }
    if (ml_json_peek(reader) != ML_JSON_NUMBER) return ml_json_fail(reader, err, "a size expected");
    ML_TRY(ml_json_number_read(reader, &number, err));
    if (!number.fits_uint64) return ml_json_fail(reader, err, "a size expected");
    o->size = number.magnitude;
    o->has_size = true;
  }
}

static ml_status strings_from_bytes(const char *bytes, size_t size, size_t count, const output *o, ml_tensor **out, ml_error *err) {
  if (count > size / 4) return ml_fail(err, ML_DATA_LOSS, "output '%.100s': %zu bytes for %zu strings", o->name, size, count);
  ml_str *strings = ml_alloc_zero(count + 1, sizeof *strings);
  if (!strings) return ml_fail_memory(err, (count + 1) * sizeof *strings, "an answer");
  ml_status status = ML_OK;
  size_t at = 0, i = 0;
  for (; i < count && size - at >= 4; i++) {
    uint32_t length;
    memcpy(&length, bytes + at, sizeof length);
    at += sizeof length;
    if (length > size - at) break;
    strings[i] = (ml_str){bytes + at, length};
    at += length;
  }
  if (i != count || at != size) status = ml_fail(err, ML_DATA_LOSS, "output '%.100s': its strings do not fill its %zu bytes", o->name, size);
  else status = ml_tensor_from_strings(strings, o->dims, o->rank, out, err);
  ml_free(strings);
  return status;
}

static ml_status tensor_from_bytes(const char *bytes, size_t size, ml_dtype dtype, const output *o, ml_tensor **out, ml_error *err) {
  size_t count;
  if (ml_shape_count(o->dims, o->rank, dtype, &count, err) != ML_OK) return err->code = ML_DATA_LOSS;
  if (dtype == ML_STRING) return strings_from_bytes(bytes, size, count, o, out, err);
  if (count != size / ml_dtype_size(dtype) || size % ml_dtype_size(dtype) != 0)
    return ml_fail(err, ML_DATA_LOSS, "output '%.100s': %zu bytes for %zu elements of %s", o->name, size, count, ml_dtype_name(dtype));
  ML_TRY(ml_tensor_new(dtype, o->dims, o->rank, out, err));
  if (size) memcpy((*out)->view.data, bytes, size);
  if (dtype == ML_BOOL)
    for (size_t i = 0; i < size; i++) ((uint8_t *)(*out)->view.data)[i] = ((const uint8_t *)(*out)->view.data)[i] != 0;
  return ML_OK;
}

ml_status ml_reply_tensor(const char *bytes, size_t size, const char *name, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err) {
  static char unnamed[] = "";
  output o = {.name = unnamed, .rank = rank};
  ml_dtype dtype = datatype(name);
  *out = NULL;
  if (!dtype) return ml_fail(err, ML_DATA_LOSS, "unknown datatype '%.20s'", name);
  memcpy(o.dims, dims, (size_t)rank * sizeof *dims);
  return tensor_from_bytes(bytes, size, dtype, &o, out, err);
}

static ml_status read_output(decoding *d, output *o, const char **binary, const char *end, ml_error *err) {
  ml_json_reader *reader = &d->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length, ignored;
  bool first = true, more;
  ml_reply_value *value;
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    if (is(key, length, "name")) ML_TRY(read_string(reader, &o->name, &o->name_length, err));
    else if (is(key, length, "datatype")) ML_TRY(read_string(reader, &o->datatype, &ignored, err));
    else if (is(key, length, "shape")) ML_TRY(read_shape(reader, o, err));
    else if (is(key, length, "parameters")) ML_TRY(read_parameters(reader, o, err));
    else {
      if (is(key, length, "data")) {
        ml_json_peek(reader);
        o->data = *reader;
        o->has_data = true;
      }
      ML_TRY(ml_json_skip(reader, err));
    }
  }
  if (!o->name || !o->datatype || o->rank == ML_UNKNOWN) return ml_fail(err, ML_DATA_LOSS, "an output without name, datatype or shape");
  ml_dtype dtype = datatype(o->datatype);
  if (!dtype) return ml_fail(err, ML_DATA_LOSS, "output '%.100s': unknown datatype '%.20s'", o->name, o->datatype);
  if (o->has_size == o->has_data) return ml_fail(err, ML_DATA_LOSS, "output '%.100s': either data or binary_data_size expected", o->name);
  ML_TRY(add_value(d->reply, o->name, o->name_length, &value, err));
  if (o->has_size) {
    if (o->size > (uint64_t)(end - *binary)) return ml_fail(err, ML_DATA_LOSS, "output '%.100s': its binary data are not there", o->name);
    const char *bytes = *binary;
    *binary += o->size;
    return tensor_from_bytes(bytes, (size_t)o->size, dtype, o, &value->tensor, err);
  }
  const ml_json_reader after = *reader;
  ml_json_shape shape = {0}; /* that of the lists, which need not be the tensor's */
  *reader = o->data;
  d->elements.count = 0;
  ML_TRY(ml_json_tensor_read(&d->decoder, read_as(dtype), &d->elements, &shape, err));
  *reader = after;
  return make_tensor(&d->elements, read_as(dtype), dtype, o->dims, o->rank, &value->tensor, err);
}

static ml_status read_infer(decoding *d, const char *binary, const char *end, ml_error *err) {
  ml_json_reader *reader = &d->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more, seen = false;
  d->reply->named = true;
  if (ml_json_peek(reader) != ML_JSON_OBJECT) return ml_fail(err, ML_DATA_LOSS, "no JSON object");
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    bool text = ml_json_peek(reader) == ML_JSON_STRING;
    if (text && is(key, length, "model_version")) {
      ML_TRY(read_string(reader, &d->reply->version, &length, err));
    } else if (text && is(key, length, "id")) {
      ML_TRY(read_string(reader, &d->reply->id, &length, err));
    } else if (is(key, length, "outputs")) {
      bool first_output = true, more_outputs;
      if (seen) return ml_fail(err, ML_DATA_LOSS, "'outputs' more than once");
      seen = true;
      ML_TRY(ml_json_enter_array(reader, err));
      for (;;) {
        ML_TRY(ml_json_array_next(reader, &first_output, &more_outputs, err));
        if (!more_outputs) break;
        output o = {.rank = ML_UNKNOWN};
        ml_status status = read_output(d, &o, &binary, end, err);
        ml_free(o.name);
        ml_free(o.datatype);
        if (status != ML_OK) return status;
      }
    } else {
      ML_TRY(ml_json_skip(reader, err));
    }
  }
  ML_TRY(ml_json_expect_end(reader, err));
  if (!seen) return ml_fail(err, ML_DATA_LOSS, "no 'outputs'");
  return binary == end ? ML_OK : ml_fail(err, ML_DATA_LOSS, "%zu bytes behind the last output", (size_t)(end - binary));
}

ml_status ml_reply_infer(const char *body, size_t size, size_t json_size, ml_reply *out, ml_error *err) {
  decoding d = {.reply = out};
  *out = (ml_reply){0};
  if (json_size > size) return ml_fail(err, ML_DATA_LOSS, "%zu bytes of JSON announced, %zu there", json_size, size);
  ml_json_decoder_reset(&d.decoder, body, json_size, 0);
  return finish(&d, read_infer(&d, body + json_size, body + size, err), err);
}

/* ---------------------------------------------------------------- requests ---- */
static ml_status written(const ml_json_writer *out, ml_error *err) {
  return out->status == ML_OK ? ML_OK : ml_fail_memory(err, out->capacity, "a request");
}

ml_status ml_request_json(ml_tensor *tensor, int64_t row, bool plain, ml_json_writer *out, ml_error *err) {
  ml_dtype dtype = read_as(tensor->view.dtype);
  ml_tensor *cast = NULL;
  bool base64 = false;
  const ml_view *view = &tensor->view;
  if (row >= 0 && (view->rank < 1 || row >= view->dims[0])) return ml_fail(err, ML_INVALID_ARGUMENT, "no row %lld", (long long)row);
  if (dtype == ML_STRING) {
    const ml_str *strings = view->data;
    for (size_t i = 0; i < view->count && !base64; i++) base64 = !ml_utf8_valid(strings[i].bytes, strings[i].length, NULL);
    if (base64 && plain) return ml_fail(err, ML_INVALID_ARGUMENT, "a string that is no UTF-8 has no form in JSON: send it as binary");
  }
  if (dtype != view->dtype) {
    ML_TRY(ml_tensor_cast(tensor, dtype == ML_FLOAT64 ? ML_FLOAT32 : dtype, &cast, err));
    view = &cast->view;
  }
  if (row >= 0) ml_json_put_row(out, view, (size_t)row, base64);
  else ml_json_put_tensor(out, view, base64);
  ml_tensor_release(cast);
  return written(out, err);
}

ml_status ml_request_bytes(const ml_view *view, ml_json_writer *out, ml_error *err) {
  if (view->dtype != ML_STRING) {
    ml_json_put_raw(out, view->data, view->count * ml_dtype_size(view->dtype));
    return written(out, err);
  }
  const ml_str *strings = view->data;
  for (size_t i = 0; i < view->count; i++) {
    if (strings[i].length > UINT32_MAX) return ml_fail(err, ML_INVALID_ARGUMENT, "a string of more than 4 GiB");
    uint32_t length = (uint32_t)strings[i].length;
    ml_json_put_raw(out, (const char *)&length, sizeof length);
    ml_json_put_raw(out, strings[i].bytes, length);
  }
  return written(out, err);
}
