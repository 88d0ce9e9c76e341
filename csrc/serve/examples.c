/* The body is walked twice: once for its keys (and its syntax, which comes before every other refusal), then example by example. Texts are those of
 * tensorflow/serving's util/json_tensor.cc. */
#include "serve/examples_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "codec/base64.h"
#include "serve/json_tensor.h"

enum { KEY_SCRATCH = 256 };

typedef struct work {
  ml_examples base;
  ml_examples_method method;
  ml_json_decoder decoder;      /* reader, messages */
  ml_feature skipped;           /* features nobody asks for are checked all the same */
  ml_json_writer *out;
} work;

typedef struct sink { /* where results go */
  ml_results base;
  ml_json_writer *out;
} sink;

static const char *text_of_kind(ml_json_kind kind) {
  static const char *const names[] = {"", "Null", "False", "True", "Number", "String", "Array", "Object"};
  return kind <= ML_JSON_OBJECT ? names[kind] : "";
}

/* ---------------------------------------------------------------- features ---- */
static ml_status read_string(work *w, ml_str *out, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  size_t length;
  ML_TRY(ml_json_string_length(reader, &length, err));
  char *text = ml_arena_alloc(w->base.arena, length + 1);
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
  char *bytes = ml_arena_alloc(w->base.arena, ml_base64_decoded_bound(text.length) + 1);
  if (!bytes) return ml_fail_memory(err, text.length, "a request");
  if (ml_base64_decode(text.bytes, text.length, bytes, &length, NULL) != ML_OK)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Unable to base64 decode");
  *out = (ml_str){bytes, length};
  return ML_OK;
}

static ml_status wrong_element(work *w, const ml_feature *f, ml_json_kind kind, ml_error *err) {
  return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Feature: %.100s has element with unexpected JSON type: %s", f->name, text_of_kind(kind));
}

/* One element at the reader, behind those that f has. */
static ml_status read_element(work *w, ml_feature *f, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  ml_json_kind json = ml_json_peek(reader);
  const ml_json_reader before = *reader;
  ml_feature_kind kind = ML_FEATURE_UNSET;
  ml_json_number number = {0};
  ml_feature_cell c = {.integer = 0};
  switch (json) {
    case ML_JSON_TRUE:
    case ML_JSON_FALSE:
      kind = ML_FEATURE_INTS;
      c.integer = json == ML_JSON_TRUE;
      ML_TRY(ml_json_literal_read(reader, json, err));
      break;
    case ML_JSON_NUMBER:
      ML_TRY(ml_json_number_read(reader, &number, err));
      if (!number.integral && number.fits_uint64)
        return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Feature: %.100s has uint64 element. Only int64 is supported.", f->name);
      kind = number.integral ? ML_FEATURE_INTS : ML_FEATURE_FLOATS;
      if (kind == ML_FEATURE_INTS) {
        c.integer = number.integer;
        break;
      }
      c.real.wide = number.value;
      ml_json_reader again = before;
      if (ml_json_float_read(&again, &c.real.narrow, NULL) != ML_OK) c.real.narrow = HUGE_VALF; /* append says so if it matters */
      break;
    case ML_JSON_STRING:
      kind = ML_FEATURE_BYTES;
      ML_TRY(read_string(w, &c.bytes, err));
      break;
    case ML_JSON_OBJECT:
      if (!ml_json_is_base64(&w->decoder)) return wrong_element(w, f, json, err);
      kind = ML_FEATURE_BYTES;
      ML_TRY(read_base64(w, &c.bytes, err));
      break;
    default: return wrong_element(w, f, json, err);
  }
  if (f->kind != ML_FEATURE_UNSET && f->kind != kind)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Unexpected element type in feature: %.100s expecting type: %s", f->name,
                          ml_feature_kinds[f->kind]);
  f->kind = kind;
  ml_feature_cell *to = ml_feature_room(f, err);
  if (!to) return ML_RESOURCE_EXHAUSTED;
  *to = c;
  f->count++;
  return ML_OK;
}

/* A scalar or a flat list at the reader. */
static ml_status read_feature(work *w, ml_feature *f, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  bool first = true, more;
  f->there = true;
  f->kind = ML_FEATURE_UNSET;
  f->count = 0;
  if (ml_json_peek(reader) != ML_JSON_ARRAY) return read_element(w, f, err);
  ML_TRY(ml_json_enter_array(reader, err));
  for (;;) {
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) return ML_OK;
    ML_TRY(read_element(w, f, err));
  }
}

static ml_status read_example(work *w, ml_feature *set, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  char scratch[KEY_SCRATCH], name[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more;
  ml_json_kind kind = ml_json_peek(reader);
  if (kind != ML_JSON_OBJECT)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "Example must be JSON object but got JSON %s", text_of_kind(kind));
  ml_examples_begin(&w->base, set);
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) return ML_OK;
    ml_feature *f = ml_examples_find(&w->base, set, key, length);
    if (!f) {
      snprintf(name, sizeof name, "%.*s", (int)(length < sizeof name ? length : sizeof name - 1), key);
      w->skipped.name = name;
      f = &w->skipped;
    }
    ML_TRY(read_feature(w, f, err));
  }
}

/* ---------------------------------------------------------------- request ---- */
static ml_status read_examples(work *w, const char *root, ml_error *err) {
  ml_json_reader *reader = &w->decoder.reader;
  char text[260];
  bool first = true, more;
  if (ml_json_peek(reader) != ML_JSON_ARRAY)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "JSON Value: %s Expecting 'examples' value to be an list/array",
                          ml_json_quote(&w->decoder, root, text));
  ML_TRY(ml_json_enter_array(reader, err));
  for (;;) {
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) break;
    ML_TRY(read_example(w, w->base.own, err));
    ML_TRY(ml_examples_add(&w->base, err));
  }
  if (w->base.count == 0)
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
  w->base.signature = ml_servable_signature(w->base.servable, name.bytes, name.length);
  if (w->base.signature) return ML_OK;
  return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "No signature was found with the name: %.*s", (int)(name.length < 200 ? name.length : 200),
                        name.bytes);
}

static ml_status read_request(work *w, ml_error *err) {
  places at = {0};
  char text[260];
  ML_TRY(walk_root(w, &at, err));
  ML_TRY(choose_signature(w, &at, err));
  ML_TRY(ml_examples_prepare(&w->base, err));
  if (at.context) {
    go_to(w, at.context);
    ML_TRY(read_example(w, w->base.shared, err));
  }
  if (!at.examples)
    return ml_json_refuse(&w->decoder, err, ML_INVALID_ARGUMENT, "JSON Value: %s When method is classify, key 'examples' is expected and was not found",
                          ml_json_quote(&w->decoder, at.root, text));
  go_to(w, at.examples);
  return read_examples(w, at.root, err);
}

/* ---------------------------------------------------------------- results ---- */
static ml_json_writer *out_of(ml_results *results) { return ((sink *)(void *)results)->out; }

static void put_example(ml_results *results, size_t index, bool end) {
  if (end) ml_json_put_literal(out_of(results), "]");
  else ml_json_put_raw(out_of(results), index ? ", [" : "[", index ? 3 : 1);
}

static void put_class(ml_results *results, size_t index, ml_str label, float score) {
  ml_json_writer *out = out_of(results);
  ml_json_put_raw(out, index ? ", [" : "[", index ? 3 : 1);
  ml_json_put_string(out, label.bytes, label.length);
  ml_json_put_literal(out, ", ");
  ml_json_put_float(out, score);
  ml_json_put_literal(out, "]");
}

static void put_value(ml_results *results, size_t index, float value) {
  if (index) ml_json_put_literal(out_of(results), ", ");
  ml_json_put_float(out_of(results), value);
}

static ml_status put_results(void *context, ml_session *session, ml_error *err) {
  work *w = context;
  size_t n = ml_program_graph(ml_servable_program(w->base.servable))->n_outputs, begin = w->out->length;
  const ml_view **outputs = ml_arena_alloc(w->base.arena, (n + 1) * sizeof *outputs);
  if (!outputs) return ml_fail_memory(err, n * sizeof *outputs, "a response");
  for (size_t i = 0; i < n; i++) outputs[i] = ml_session_output(session, i);
  sink results = {{w->base.servable, w->base.signature, w->base.count, outputs, put_example, put_class, put_value}, w->out};
  ml_json_put_literal(w->out, "{\n    \"results\": [");
  ml_status status = w->method == ML_CLASSIFY ? ml_results_classes(&results.base, err) : ml_results_values(&results.base, err);
  if (status == ML_OK) ml_json_put_literal(w->out, "\n    ]\n}");
  else w->out->length = begin; /* nothing of it */
  return status;
}

static ml_status answer(work *w, ml_error *err) {
  ml_status status = read_request(w, err);
  const ml_json_reader *reader = &w->decoder.reader;
  if (status == ML_INVALID_ARGUMENT && !w->decoder.semantic && !w->base.refused) {
    ml_error syntax = *err;
    return ml_fail(err, status, "JSON Parse error: Invalid value. at offset: %zu (%s)", (size_t)(reader->at - reader->begin), syntax.message);
  }
  ML_TRY(status);
  ML_TRY(ml_examples_views(&w->base, err));
  ML_TRY(ml_program_run(ml_servable_program(w->base.servable), w->base.views, put_results, w, err));
  return w->out->status == ML_OK ? ML_OK : ml_fail_memory(err, w->out->capacity, "a response");
}

ml_status ml_servable_examples_json(ml_servable *servable, ml_examples_method method, const char *body, size_t size, ml_json_writer *out, ml_error *err) {
  work w = {.base.servable = servable, .method = method, .out = out};
  ml_error local;
  if (!err) err = &local;
  ml_json_decoder_reset(&w.decoder, body, size, ml_servable_max_elements(servable));
  w.base.arena = ml_arena_new();
  ml_status status = w.base.arena ? answer(&w, err) : ml_fail_memory(err, 1, "a request");
  ml_examples_clear(&w.base);
  ml_free(w.skipped.cells);
  ml_json_decoder_free(&w.decoder);
  ml_arena_free(w.base.arena);
  return status;
}
