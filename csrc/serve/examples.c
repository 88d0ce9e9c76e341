/* The body is walked twice: once for its keys (and its syntax, which comes before every other refusal), then example by example. The features of one
 * example are collected first, because a name may come twice and the last one counts, and then appended to the inputs' buffers. Texts are those of
 * tensorflow/serving (util/json_tensor.cc, classifier.cc, regressor.cc) and, for what a model's own parsing of examples would refuse, of
 * TensorFlow's example parser. */
#include "serve/examples.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codec/base64.h"
#include "serve/json_tensor.h"

enum { KEY_SCRATCH = 256 };

typedef enum feature_kind { UNSET, FLOATS, INTS, BYTES } feature_kind;
static const char *const kind_names[] = {"UNKNOWN", "float", "int64", "bytes"}; /* in TensorFlow Serving's words … */
static const char *const type_names[] = {"invalid", "float", "int64", "string"}; /* … and in TensorFlow's */

typedef union cell {
  struct { double wide; float narrow; } real; /* each rounded once from the text */
  int64_t integer;
  ml_str bytes;
} cell;

typedef struct feature {
  const char *name;
  feature_kind kind;
  bool there;
  cell *cells; size_t capacity; /* bytes */
  size_t count;
} feature;

typedef struct rows { /* what an input gets */
  char *data; size_t bytes;
  size_t count, per_example;
} rows;

typedef struct work {
  ml_servable *servable;
  ml_examples_method method;
  const ml_signature *signature;
  ml_json_decoder decoder;      /* reader, messages */
  ml_arena *arena;              /* strings, tables */
  feature *own, *shared;        /* of the example at hand and of the context: one per input, then one per column */
  size_t n_features, n_inputs, last; /* last: where the feature before was found */
  bool columns;                 /* the one input is filled from columns */
  feature skipped;              /* features nobody asks for are checked all the same */
  rows *rows;                   /* by signature input */
  ml_view *views;               /* by graph input */
  size_t elements, examples;
  ml_json_writer *out;
} work;

static const char *text_of_kind(ml_json_kind kind) {
  static const char *const names[] = {"", "Null", "False", "True", "Number", "String", "Array", "Object"};
  return kind <= ML_JSON_OBJECT ? names[kind] : "";
}

/* ---------------------------------------------------------------- features ---- */
static ml_status read_string(work *w, ml_str *out, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  size_t length;
  ML_TRY(ml_json_string_length(reader, &length, err));
  char *text = ml_arena_alloc(w->arena, length + 1);
  if (!text) return ml_fail_memory(err, length, "a request");
  ML_TRY(ml_json_string_read(reader, text, &length, err));
  *out = (ml_str){text, length};
  return ML_OK;
}

static ml_status read_base64(work *w, ml_str *out, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more;
  ml_str text = {"", 0};
  ML_TRY(ml_json_enter_object(reader, err));
  ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
  ML_TRY(read_string(w, &text, err));
  ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
  char *bytes = ml_arena_alloc(w->arena, ml_base64_decoded_bound(text.length) + 1);
  if (!bytes) return ml_fail_memory(err, text.length, "a request");
  if (ml_base64_decode(text.bytes, text.length, bytes, &length, NULL) != ML_OK)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Unable to base64 decode");
  *out = (ml_str){bytes, length};
  return ML_OK;
}

static ml_status wrong_element(work *w, const feature *f, ml_json_kind kind, ml_error *err) {
  return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Feature: %.100s has element with unexpected JSON type: %s", f->name, text_of_kind(kind));
}

/* One element at the reader, behind those that f has. */
static ml_status read_element(work *w, feature *f, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  ml_json_kind json = ml_json_peek(reader);
  const ml_json_reader before = *reader;
  feature_kind kind = UNSET;
  ml_json_number number = {0};
  cell c = {.integer = 0};
  switch (json) {
    case ML_JSON_TRUE:
    case ML_JSON_FALSE:
      kind = INTS;
      c.integer = json == ML_JSON_TRUE;
      ML_TRY(ml_json_literal_read(reader, json, err));
      break;
    case ML_JSON_NUMBER:
      ML_TRY(ml_json_number_read(reader, &number, err));
      if (!number.integral && number.fits_uint64)
        return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Feature: %.100s has uint64 element. Only int64 is supported.", f->name);
      kind = number.integral ? INTS : FLOATS;
      if (kind == INTS) {
        c.integer = number.integer;
        break;
      }
      c.real.wide = number.value;
      ml_json_reader again = before;
      if (ml_json_float_read(&again, &c.real.narrow, NULL) != ML_OK) c.real.narrow = HUGE_VALF; /* append says so if it matters */
      break;
    case ML_JSON_STRING:
      kind = BYTES;
      ML_TRY(read_string(w, &c.bytes, err));
      break;
    case ML_JSON_OBJECT:
      if (!ml_json_is_base64(&w->decoder)) return wrong_element(w, f, json, err);
      kind = BYTES;
      ML_TRY(read_base64(w, &c.bytes, err));
      break;
    default: return wrong_element(w, f, json, err);
  }
  if (f->kind != UNSET && f->kind != kind)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Unexpected element type in feature: %.100s expecting type: %s", f->name,
                          kind_names[f->kind]);
  f->kind = kind;
  size_t need;
  if (!ml_mul_size(f->count + 1, sizeof c, &need)) return ml_fail_memory(err, SIZE_MAX, "a request");
  if (need > f->capacity) ML_TRY(ml_grow(&f->cells, &f->capacity, need, 1, "a request", err));
  f->cells[f->count++] = c;
  return ML_OK;
}

/* A scalar or a flat list at the reader. */
static ml_status read_feature(work *w, feature *f, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  bool first = true, more;
  f->there = true;
  f->kind = UNSET;
  f->count = 0;
  if (ml_json_peek(reader) != ML_JSON_ARRAY) return read_element(w, f, err);
  ML_TRY(ml_json_enter_array(reader, err));
  for (;;) {
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) return ML_OK;
    ML_TRY(read_element(w, f, err));
  }
}

/* Clients send the same order again and again: the one behind the last is looked at first. */
static feature *find_feature(work *w, feature *set, const char *name, size_t length) {
  for (size_t k = 0; k < w->n_features; k++) {
    size_t i = (w->last + 1 + k) % w->n_features;
    if (strlen(set[i].name) == length && memcmp(set[i].name, name, length) == 0) {
      w->last = i;
      return &set[i];
    }
  }
  return NULL;
}

static ml_status read_example(work *w, feature *set, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  char scratch[KEY_SCRATCH], name[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more;
  ml_json_kind kind = ml_json_peek(reader);
  if (kind != ML_JSON_OBJECT)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Example must be JSON object but got JSON %s", text_of_kind(kind));
  for (size_t i = 0; i < w->n_features; i++) set[i].there = false;
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) return ML_OK;
    feature *f = find_feature(w, set, key, length);
    if (!f) {
      snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), key);
      w->skipped.name = name;
      f = &w->skipped;
    }
    ML_TRY(read_feature(w, f, err));
  }
}

/* ---------------------------------------------------------------- inputs ---- */
static ml_status mismatch(work *w, const feature *f, ml_dtype dtype, ml_error *err) {
  return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT,
                        "Name: <unknown>, Key: %.100s, Index: %zu.  Data types don't match. Data type: %s but expected type: %s", f->name, w->examples,
                        type_names[f->kind], ml_tf_dtype_name(dtype));
}

static ml_status does_not_fit(work *w, const feature *f, ml_dtype dtype, const char *text, ml_error *err) {
  return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Name: <unknown>, Key: %.100s, Index: %zu.  Value %s does not fit into type: %s", f->name,
                        w->examples, text, ml_tf_dtype_name(dtype));
}

static ml_status store_float(work *w, const feature *f, const cell *c, float *to, ml_error *err) {
  char text[40];
  *to = f->kind == INTS ? (float)c->integer : c->real.narrow;
  if (f->kind == INTS || !isinf(*to) || isinf(c->real.wide)) return ML_OK;
  snprintf(text, sizeof text, "%g", c->real.wide);
  return does_not_fit(w, f, ML_FLOAT32, text, err);
}

static ml_status store_integer(work *w, const feature *f, ml_dtype dtype, int64_t value, char *to, ml_error *err) {
  int64_t low = 0, high = 0;
  switch (dtype) {
    case ML_INT8: low = INT8_MIN; high = INT8_MAX; break;
    case ML_INT16: low = INT16_MIN; high = INT16_MAX; break;
    case ML_INT32: low = INT32_MIN; high = INT32_MAX; break;
    case ML_INT64: low = INT64_MIN; high = INT64_MAX; break;
    case ML_UINT8: high = UINT8_MAX; break;
    case ML_UINT32: high = UINT32_MAX; break;
    case ML_UINT64: high = INT64_MAX; break;
    default: high = 1; break; /* bool */
  }
  if (value < low || value > high) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return does_not_fit(w, f, dtype, text, err);
  }
  switch (ml_dtype_size(dtype)) { /* two's complement: the low bytes are the value, signed or not */
    case 1: *(uint8_t *)to = (uint8_t)value; break;
    case 2: *(uint16_t *)(void *)to = (uint16_t)value; break;
    case 4: *(uint32_t *)(void *)to = (uint32_t)value; break;
    default: *(uint64_t *)(void *)to = (uint64_t)value; break;
  }
  return ML_OK;
}

/* The values of f behind those that the input has. */
static ml_status append(work *w, const feature *f, ml_dtype dtype, rows *r, ml_error *err) {
  size_t size = ml_dtype_size(dtype), need, most = ml_servable_max_elements(w->servable);
  bool real = dtype == ML_FLOAT32 || dtype == ML_FLOAT64;
  if (f->count > most - w->elements) return ml_json_refuse(&w->decoder, err, ML_RESOURCE_EXHAUSTED, "the request has more than %zu elements", most);
  if (f->kind != UNSET && (real ? f->kind == BYTES : dtype == ML_STRING ? f->kind != BYTES : f->kind != INTS)) return mismatch(w, f, dtype, err);
  if (!ml_add_size(r->count, f->count, &need) || !ml_mul_size(need, size, &need)) return ml_fail_memory(err, SIZE_MAX, "a request");
  if (need > r->bytes) ML_TRY(ml_grow(&r->data, &r->bytes, need, 1, "a request", err));
  for (size_t i = 0; i < f->count; i++) {
    const cell *c = &f->cells[i];
    char *to = r->data + (r->count + i) * size;
    if (dtype == ML_FLOAT32) ML_TRY(store_float(w, f, c, (float *)(void *)to, err));
    else if (dtype == ML_FLOAT64) *(double *)(void *)to = f->kind == INTS ? (double)c->integer : c->real.wide;
    else if (dtype == ML_STRING) *(ml_str *)(void *)to = c->bytes;
    else ML_TRY(store_integer(w, f, dtype, c->integer, to, err));
  }
  r->count += f->count;
  w->elements += f->count;
  return ML_OK;
}

static ml_status wrong_count(work *w, const feature *f, size_t expected, ml_error *err) {
  return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT,
                        "Name: <unknown>, Key: %.100s, Index: %zu.  Number of %s values != expected.  Values size: %zu but output shape: [%zu]", f->name,
                        w->examples, kind_names[f->kind], f->count, expected);
}

static ml_status missing(work *w, const char *name, ml_dtype dtype, ml_error *err) {
  return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Name: <unknown>, Feature: %.200s (data type: %s) is required but could not be found.", name,
                        ml_tf_dtype_name(dtype));
}

/* Elements of an example that an input has room for; SIZE_MAX: as many as the first example has. */
static ml_status size_of_example(work *w, const ml_signature_tensor *t, size_t *out, ml_error *err) {
  bool supported = ml_dtype_bits(t->dtype) >= 8 && !ml_dtype_is_small(t->dtype) && t->dtype != ML_FLOAT16 && t->dtype != ML_BFLOAT16 && t->dtype != ML_UINT16;
  size_t open = 0;
  if (!supported)
    return ml_json_refuse(&w->decoder, err, ML_UNIMPLEMENTED, "Conversion of feature: %s to type: %s", t->name, ml_tf_dtype_name(t->dtype));
  if (t->rank == 0)
    return ml_json_refuse(&w->decoder, err, ML_FAILED_PRECONDITION, "input '%s' is a scalar: it cannot hold one feature per example", t->name);
  *out = 1;
  for (int32_t k = 1; k < t->rank; k++) {
    if (t->dims[k] < 0) open++;
    else if (!ml_mul_size(*out, (size_t)t->dims[k], out)) return ml_fail_memory(err, SIZE_MAX, "a request");
  }
  if (open > 1)
    return ml_json_refuse(&w->decoder, err, ML_FAILED_PRECONDITION, "input '%s' has %zu open sizes: a feature, which is a flat list, cannot say them", t->name,
                          open);
  if (open == 1 || t->rank == ML_UNKNOWN) *out = SIZE_MAX;
  return ML_OK;
}

static const feature *given(const work *w, size_t i) { return w->own[i].there ? &w->own[i] : w->shared[i].there ? &w->shared[i] : NULL; }

static ml_status append_columns(work *w, ml_error *err) {
  ml_dtype dtype = w->signature->inputs[0].dtype;
  for (size_t i = 1; i < w->n_features; i++) {
    const feature *f = given(w, i);
    if (!f) return missing(w, w->own[i].name, dtype, err);
    if (f->count != 1) return wrong_count(w, f, 1, err);
    ML_TRY(append(w, f, dtype, &w->rows[0], err));
  }
  return ML_OK;
}

static ml_status append_inputs(work *w, ml_error *err) {
  for (size_t i = 0; i < w->n_inputs; i++) {
    const feature *f = given(w, i);
    rows *r = &w->rows[i];
    if (!f) return missing(w, w->own[i].name, w->signature->inputs[i].dtype, err);
    if (r->per_example == SIZE_MAX) r->per_example = f->count;
    if (f->count != r->per_example) return wrong_count(w, f, r->per_example, err);
    ML_TRY(append(w, f, w->signature->inputs[i].dtype, r, err));
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- request ---- */
static bool can_have_columns(const work *w) {
  const ml_signature_tensor *t = &w->signature->inputs[0];
  size_t n = ml_servable_n_features(w->servable);
  if (n == 0 || w->n_inputs != 1 || (t->dtype != ML_FLOAT32 && t->dtype != ML_FLOAT64)) return false;
  return t->rank == ML_UNKNOWN || (t->rank == 2 && (t->dims[1] < 0 || (size_t)t->dims[1] == n));
}

static ml_status prepare(work *w, ml_error *err) {
  size_t n = w->n_inputs = w->signature->n_inputs, columns = can_have_columns(w) ? ml_servable_n_features(w->servable) : 0;
  const char *const *names = ml_servable_features(w->servable);
  const ml_graph *g = ml_program_graph(ml_servable_program(w->servable));
  char text[96];
  for (size_t i = 0; i < g->n_inputs; i++)
    if (g->inputs[i]->type)
      return ml_json_refuse(&w->decoder, err, ML_UNIMPLEMENTED, "input '%s' is %s, which a request cannot hold", g->inputs[i]->name,
                            ml_type_format(g->inputs[i]->type, text, sizeof text));
  w->n_features = n + columns;
  w->own = ml_arena_alloc(w->arena, 2 * (w->n_features + 1) * sizeof *w->own);
  w->rows = ml_arena_alloc(w->arena, (n + 1) * sizeof *w->rows);
  w->views = ml_arena_alloc(w->arena, (n + 1) * sizeof *w->views);
  if (!w->own || !w->rows || !w->views) return ml_fail_memory(err, w->n_features * sizeof *w->own, "a request");
  w->shared = w->own + w->n_features;
  for (size_t i = 0; i < w->n_features; i++) w->own[i].name = w->shared[i].name = i < n ? w->signature->inputs[i].name : names[i - n];
  for (size_t i = 0; i < n; i++) ML_TRY(size_of_example(w, &w->signature->inputs[i], &w->rows[i].per_example, err));
  return ML_OK;
}

static ml_status read_examples(work *w, const char *root, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  char text[260];
  bool first = true, more;
  if (ml_json_peek(reader) != ML_JSON_ARRAY)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "JSON Value: %s Expecting 'examples' value to be an list/array",
                          ml_json_quote(&w->decoder, root, text));
  ML_TRY(ml_json_enter_array(reader, err));
  for (;; w->examples++) {
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) break;
    ML_TRY(read_example(w, w->own, err));
    if (w->examples == 0) w->columns = w->n_features > w->n_inputs && !given(w, 0);
    ML_TRY(w->columns ? append_columns(w, err) : append_inputs(w, err));
  }
  if (w->examples == 0)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "JSON Value: %s 'examples' value is an empty array", ml_json_quote(&w->decoder, root, text));
  return ML_OK;
}

typedef struct places { const char *root, *signature, *context, *examples; } places;

/* Where the values of the known keys begin: the first of each counts. Finds every syntax error up to the end of the root object. */
static ml_status walk_root(work *w, places *at, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  char scratch[KEY_SCRATCH], text[260];
  const char *key;
  size_t length;
  bool first = true, more;
  ml_json_kind kind = ml_json_peek(reader);
  if (kind == ML_JSON_END) return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "JSON Parse error: The document is empty");
  at->root = reader->at;
  if (kind != ML_JSON_OBJECT) {
    ML_TRY(ml_json_skip(reader, err));
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "JSON Value: %s Is not object", ml_json_quote(&w->decoder, at->root, text));
  }
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) return ML_OK;
    const char **to = length == 14 && memcmp(key, "signature_name", 14) == 0 ? &at->signature
                      : length == 7 && memcmp(key, "context", 7) == 0       ? &at->context
                      : length == 8 && memcmp(key, "examples", 8) == 0      ? &at->examples
                                                                            : NULL;
    ml_json_peek(reader);
    if (to && !*to) *to = reader->at;
    ML_TRY(ml_json_skip(reader, err));
  }
}

static void go_to(work *w, const char *at) {
  w->decoder.reader.at = at;
  w->decoder.reader.depth = 1;
}

static ml_status choose_signature(work *w, const places *at, ml_error *err) {
  ml_str name = {ML_SERVING_DEFAULT, strlen(ML_SERVING_DEFAULT)};
  char text[260];
  if (at->signature) {
    go_to(w, at->signature);
    if (ml_json_peek(&w->decoder.reader) != ML_JSON_STRING)
      return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "JSON Value: %s not formatted correctly. 'signature_name' key must be a string value.",
                            ml_json_quote(&w->decoder, at->root, text));
    ML_TRY(read_string(w, &name, err));
    if (name.length == 0) name = (ml_str){ML_SERVING_DEFAULT, strlen(ML_SERVING_DEFAULT)};
  }
  w->signature = ml_servable_signature(w->servable, name.bytes, name.length);
  if (w->signature) return ML_OK;
  return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "No signature was found with the name: %.*s", (int)(name.length < 200 ? name.length : 200),
                        name.bytes);
}

static ml_status read_request(work *w, ml_error *err) {
  places at = {0};
  char text[260];
  ML_TRY(walk_root(w, &at, err));
  ML_TRY(choose_signature(w, &at, err));
  ML_TRY(prepare(w, err));
  if (at.context) {
    go_to(w, at.context);
    ML_TRY(read_example(w, w->shared, err));
  }
  if (!at.examples)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "JSON Value: %s When method is classify, key 'examples' is expected and was not found",
                          ml_json_quote(&w->decoder, at.root, text));
  go_to(w, at.examples);
  return read_examples(w, at.root, err);
}

static ml_status make_views(work *w, ml_error *err) {
  const ml_signature *g = w->signature;
  for (size_t i = 0; i < g->n_inputs; i++) {
    const ml_signature_tensor *t = &g->inputs[i];
    ml_view *v = &w->views[t->index];
    rows *r = &w->rows[i];
    if (!r->data) ML_TRY(ml_grow(&r->data, &r->bytes, 1, 1, "a request", err)); /* examples of no elements */
    *v = (ml_view){.data = r->data, .dtype = t->dtype, .rank = t->rank == ML_UNKNOWN ? 2 : t->rank};
    v->dims[0] = (int64_t)w->examples;
    size_t fixed = 1, per_example = r->count / w->examples;
    for (int32_t k = 1; k < t->rank; k++) if (t->dims[k] >= 0) fixed *= (size_t)t->dims[k]; /* checked by size_of_example */
    for (int32_t k = 1; k < v->rank; k++) {
      if (t->rank != ML_UNKNOWN && t->dims[k] >= 0) v->dims[k] = t->dims[k];
      else if (fixed != 0 && per_example % fixed == 0) v->dims[k] = (int64_t)(per_example / fixed);
      else return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': %zu values do not fill rows of %zu", t->name, per_example, fixed);
    }
    ML_TRY(ml_shape_count(v->dims, v->rank, v->dtype, &v->count, err));
    if (v->count != r->count)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': %zu values for a shape of %zu", t->name, r->count, v->count);
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- results ---- */
static const ml_signature_tensor *named_output(const ml_signature *g, const char *name) {
  for (size_t i = 0; i < g->n_outputs; i++) if (strcmp(g->outputs[i].name, name) == 0) return &g->outputs[i];
  return NULL;
}

/* "a, b": what there is instead */
static const char *output_names(const ml_signature *g, char *text, size_t size) {
  size_t n = 0;
  text[0] = '\0';
  for (size_t i = 0; i < g->n_outputs && n < size; i++) n += (size_t)snprintf(text + n, size - n, "%s%s", i ? ", " : "", g->outputs[i].name);
  return text;
}

static bool is_real(const ml_view *v) { return !v->type && (v->dtype == ML_FLOAT32 || v->dtype == ML_FLOAT64); }
static bool is_label(const ml_view *v) { return !v->type && (v->dtype == ML_STRING || v->dtype == ML_INT64); }

static void put_real(ml_json_writer *out, const ml_view *v, size_t i) {
  ml_json_put_float(out, v->dtype == ML_FLOAT32 ? ((const float *)v->data)[i] : (float)((const double *)v->data)[i]);
}

static void put_label(ml_json_writer *out, const ml_view *v, size_t i) {
  if (v->dtype == ML_STRING) {
    const ml_str *s = (const ml_str *)v->data + i;
    ml_json_put_string(out, s->bytes, s->length);
  } else {
    ml_json_put_literal(out, "\"");
    ml_json_put_int64(out, ((const int64_t *)v->data)[i]);
    ml_json_put_literal(out, "\"");
  }
}

static ml_status expect_matrix(const work *w, const ml_view *v, const char *which, ml_error *err) {
  char shape[256];
  if (v->type || v->rank != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Expected Tensor shape: [batch_size num_classes] but got %s", ml_json_shape_text(v->dims, v->type ? 0 : v->rank, shape, sizeof shape));
  if ((size_t)v->dims[0] != w->examples)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Expected %s output batch size of %zu. Got: %lld", which, w->examples, (long long)v->dims[0]);
  return ML_OK;
}

/* Scores of n classes, labels from a matrix of their own, from the model's classes, or none. */
static ml_status put_matrix(work *w, const ml_view *classes, const ml_view *scores, ml_error *err) {
  ml_json_writer *out = w->out;
  size_t n = (size_t)(scores ? scores : classes)->dims[1], known;
  const char *const *labels = ml_servable_classes(w->servable, &known);
  size_t from = n == 1 && known == 2 ? 1 : 0; /* one score of two classes is the second one's */
  if (classes && scores && classes->dims[1] != scores->dims[1])
    return ml_fail(err, ML_INVALID_ARGUMENT, "Tensors class and score should match in dim_size(1). Got %lld vs. %lld", (long long)classes->dims[1],
                   (long long)scores->dims[1]);
  ml_json_put_literal(out, "{\n    \"results\": [");
  for (size_t i = 0; i < w->examples && out->status == ML_OK; i++) {
    ml_json_put_raw(out, i ? ", [" : "[", i ? 3 : 1);
    for (size_t c = 0; c < n; c++) {
      ml_json_put_raw(out, c ? ", [" : "[", c ? 3 : 1);
      if (classes) put_label(out, classes, i * n + c);
      else if (known == n || from) ml_json_put_string(out, labels[c + from], strlen(labels[c + from]));
      else ml_json_put_literal(out, "\"\"");
      ml_json_put_literal(out, ", ");
      if (scores) put_real(out, scores, i * n + c);
      else ml_json_put_literal(out, "0.0");
      ml_json_put_literal(out, "]");
    }
    ml_json_put_literal(out, "]");
  }
  ml_json_put_literal(out, "\n    ]\n}");
  return ML_OK;
}

/* One map of label to score for each example: what ZipMap makes. */
static ml_status put_maps(work *w, const ml_container *maps, ml_error *err) {
  ml_json_writer *out = w->out;
  if (maps->count != w->examples)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Expected scores output batch size of %zu. Got: %zu", w->examples, maps->count);
  ml_json_put_literal(out, "{\n    \"results\": [");
  for (size_t i = 0; i < maps->count && out->status == ML_OK; i++) {
    const ml_container *map = maps->items[i].container;
    const ml_view *keys = &map->items[0].tensor->view, *values = &map->items[1].tensor->view;
    ml_json_put_raw(out, i ? ", [" : "[", i ? 3 : 1);
    for (size_t c = 0; c < keys->count; c++) {
      ml_json_put_raw(out, c ? ", [" : "[", c ? 3 : 1);
      put_label(out, keys, c);
      ml_json_put_literal(out, ", ");
      put_real(out, values, c);
      ml_json_put_literal(out, "]");
    }
    ml_json_put_literal(out, "]");
  }
  ml_json_put_literal(out, "\n    ]\n}");
  return ML_OK;
}

static bool is_map_sequence(const ml_view *v) {
  if (ml_type_kind(v->type) != ML_KIND_SEQUENCE) return false;
  ml_kind inner = ml_type_kind(ml_type_inner(v->type));
  ml_dtype dtype = ml_type_dtype(v->type);
  return (inner == ML_KIND_MAP_INT64 || inner == ML_KIND_MAP_STRING) && (dtype == ML_FLOAT32 || dtype == ML_FLOAT64);
}

static ml_status put_classes(work *w, ml_session *session, ml_error *err) {
  const ml_signature *g = w->signature;
  const ml_signature_tensor *c = named_output(g, "classes"), *s = named_output(g, "scores");
  const ml_view *classes = c ? ml_session_output(session, c->index) : NULL, *scores = s ? ml_session_output(session, s->index) : NULL, *labels = NULL;
  char names[300];
  if (scores && is_map_sequence(scores)) return put_maps(w, ml_view_container(scores), err);
  if (classes || scores) { /* TensorFlow's convention */
    if (classes) ML_TRY(expect_matrix(w, classes, "classes", err));
    if (classes && !is_label(classes))
      return ml_fail(err, ML_INVALID_ARGUMENT, "Expected classes Tensor of DT_STRING. Got: %s", ml_tf_dtype_name(classes->dtype));
    if (scores) ML_TRY(expect_matrix(w, scores, "scores", err));
    if (scores && !is_real(scores))
      return ml_fail(err, ML_INVALID_ARGUMENT, "Expected scores Tensor of DT_FLOAT. Got: %s", ml_tf_dtype_name(scores->dtype));
    return put_matrix(w, classes, scores, err);
  }
  /* names are the model's own: the first output that holds a score per class, else the first that holds a label per example */
  for (size_t i = 0; i < g->n_outputs; i++) {
    const ml_view *v = ml_session_output(session, g->outputs[i].index);
    if (is_map_sequence(v)) return put_maps(w, ml_view_container(v), err);
    if (is_real(v) && v->rank == 2 && (size_t)v->dims[0] == w->examples) return put_matrix(w, NULL, v, err);
    if (!labels && is_label(v) && v->rank >= 1 && v->rank <= 2 && v->count == w->examples && (size_t)v->dims[0] == w->examples) labels = v;
  }
  if (labels) {
    ml_view matrix = *labels;
    matrix.rank = 2;
    matrix.dims[1] = 1;
    return put_matrix(w, &matrix, NULL, err);
  }
  return ml_fail(err, ML_FAILED_PRECONDITION,
                 "Expected classification signature outputs to contain at least one of \"classes\" or \"scores\". Signature was: %s", output_names(g, names, sizeof names));
}

static bool is_value_per_example(const work *w, const ml_view *v) {
  return is_real(v) && (v->rank == 1 || (v->rank == 2 && v->dims[1] == 1)) && (size_t)v->dims[0] == w->examples;
}

static ml_status put_values(work *w, ml_session *session, ml_error *err) {
  const ml_signature *g = w->signature;
  const ml_signature_tensor *o = named_output(g, "outputs");
  const ml_view *v = NULL;
  char names[300];
  if (!o && g->n_outputs == 1) o = &g->outputs[0];
  for (size_t i = 0; i < g->n_outputs && !o && !v; i++) {
    const ml_view *each = ml_session_output(session, g->outputs[i].index);
    if (is_value_per_example(w, each)) v = each;
  }
  if (o) v = ml_session_output(session, o->index);
  if (!v) return ml_fail(err, ML_FAILED_PRECONDITION, "No regression outputs found in SignatureDef: %s", output_names(g, names, sizeof names));
  if (v->type || !(v->rank == 1 || (v->rank == 2 && v->dims[1] == 1)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got %s",
                   ml_json_shape_text(v->dims, v->type ? 0 : v->rank, names, sizeof names));
  if ((size_t)v->dims[0] != w->examples)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Input batch size did not match output batch size: %zu vs. %lld", w->examples, (long long)v->dims[0]);
  if (!is_real(v)) return ml_fail(err, ML_INVALID_ARGUMENT, "Expected output Tensor of DT_FLOAT.  Got: %s", ml_tf_dtype_name(v->dtype));
  ml_json_put_literal(w->out, "{\n    \"results\": [");
  for (size_t i = 0; i < v->count && w->out->status == ML_OK; i++) {
    if (i) ml_json_put_literal(w->out, ", ");
    put_real(w->out, v, i);
  }
  ml_json_put_literal(w->out, "\n    ]\n}");
  return ML_OK;
}

static ml_status put_results(void *context, ml_session *session, ml_error *err) {
  work *w = context;
  return w->method == ML_CLASSIFY ? put_classes(w, session, err) : put_values(w, session, err);
}

static ml_status answer(work *w, ml_error *err) {
  ml_status status = read_request(w, err);
  const ml_json_reader *reader = &w->decoder.reader;
  if (status == ML_INVALID_ARGUMENT && !w->decoder.semantic) {
    ml_error syntax = *err;
    return ml_fail(err, status, "JSON Parse error: Invalid value. at offset: %zu (%s)", (size_t)(reader->at - reader->begin), syntax.message);
  }
  ML_TRY(status);
  ML_TRY(make_views(w, err));
  ML_TRY(ml_program_run(ml_servable_program(w->servable), w->views, put_results, w, err));
  return w->out->status == ML_OK ? ML_OK : ml_fail_memory(err, w->out->capacity, "a response");
}

ml_status ml_servable_examples_json(ml_servable *servable, ml_examples_method method, const char *body, size_t size, ml_json_writer *out, ml_error *err) {
  work w = {.servable = servable, .method = method, .out = out};
  ml_error local;
  if (!err) err = &local;
  ml_json_decoder_reset(&w.decoder, body, size, ml_servable_max_elements(servable));
  w.arena = ml_arena_new();
  ml_status status = w.arena ? answer(&w, err) : ml_fail_memory(err, 1, "a request");
  for (size_t i = 0; w.own && i < 2 * w.n_features; i++) ml_free(w.own[i].cells);
  for (size_t i = 0; w.rows && i < w.n_inputs; i++) ml_free(w.rows[i].data);
  ml_free(w.skipped.cells);
  ml_json_decoder_free(&w.decoder);
  ml_arena_free(w.arena);
  return status;
}
