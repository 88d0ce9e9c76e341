/* The features of each example are gathered into the call's buffers, one row of each input after the other, so a call can wait in a batch like any
 * other. A message that comes in pieces is not merged: of two inputs, or two features of a name, the last one counts. */
#include "serve/examples_proto.h"

#include <string.h>

#include "serve/examples_model.h"
#include "serve/predict_proto.h"

#define CLASSIFY "tensorflow/serving/classify"
#define REGRESS "tensorflow/serving/regress"

static int shown(ml_str text) { return (int)(text.length < 200 ? text.length : 200); }

/* ---------------------------------------------------------------- features ---- */
/* One of the fields of a BytesList, FloatList or Int64List: one or several values. */
static ml_status read_values(const ml_pb_field *field, ml_feature *f, ml_error *err) {
  static const ml_pb_wire wires[] = {0, ML_PB_FIXED32, ML_PB_VARINT};
  size_t count = 1, stored;
  if (f->kind == ML_FEATURE_BYTES) ML_TRY(ml_pb_expect(field, ML_PB_BYTES, "BytesList.value", err));
  else ML_TRY(ml_pb_packed_count(field, wires[f->kind], &count, "Feature", err));
  const uint8_t *at = field->bytes, *end = field->bytes ? at + field->size : NULL;
  for (size_t i = 0; i < count; i++) {
    ml_feature_cell *cell = ml_feature_room(f, err);
    if (!cell) return ML_RESOURCE_EXHAUSTED;
    if (f->kind == ML_FEATURE_BYTES) {
      cell->bytes = (ml_str){(const char *)field->bytes, field->size};
    } else if (f->kind == ML_FEATURE_FLOATS) {
      if (at) memcpy(&cell->real.narrow, at + i * sizeof(float), sizeof(float));
      else cell->real.narrow = ml_pb_float(field);
      cell->real.wide = (double)cell->real.narrow;
    } else {
      cell->integer = (int64_t)field->integer;
      if (at && (!ml_pb_varints(&at, end, &cell->integer, sizeof cell->integer, 1, &stored) || stored == 0))
        return ml_fail(err, ML_DATA_LOSS, "Int64List.value: varint over 10 bytes or 64 bits");
    }
    f->count++;
  }
  return ML_OK;
}

/* A Feature; one without a list is none. */
static ml_status read_feature(ml_pb_reader reader, ml_feature *f, ml_error *err) {
  static const ml_feature_kind kinds[] = {ML_FEATURE_UNSET, ML_FEATURE_BYTES, ML_FEATURE_FLOATS, ML_FEATURE_INTS};
  ml_pb_field field;
  ml_status status;
  ml_str list = {"", 0};
  f->kind = ML_FEATURE_UNSET;
  f->count = 0;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number > 3) continue;
    ML_TRY(ml_wire_text(&field, "Feature", &list, err));
    f->kind = kinds[field.number];
  }
  ML_TRY(status);
  f->there = f->kind != ML_FEATURE_UNSET;
  reader = ml_wire_reader(list);
  while (ml_pb_next(&reader, &field, &status, err)) if (field.number == 1) ML_TRY(read_values(&field, f, err));
  return status;
}

static ml_status read_features(ml_examples *w, ml_feature *set, ml_pb_reader reader, ml_error *err) {
  ml_pb_field field, part;
  ml_status status, inner;
  while (ml_pb_next(&reader, &field, &status, err)) {
    ml_str name = {"", 0}, value = {"", 0};
    if (field.number != 1) continue;
    ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, "Features.feature", err));
    ml_pb_reader entry = ml_pb_reader_sub(&reader, &field);
    while (ml_pb_next(&entry, &part, &inner, err)) {
      if (part.number == 1) ML_TRY(ml_wire_text(&part, "Features.feature.key", &name, err));
      else if (part.number == 2) ML_TRY(ml_wire_text(&part, "Features.feature.value", &value, err));
    }
    ML_TRY(inner);
    ml_feature *f = ml_examples_find(w, set, name.bytes, name.length);
    if (f) ML_TRY(read_feature(ml_wire_reader(value), f, err));
  }
  return status;
}

static ml_status read_example(ml_examples *w, ml_feature *set, ml_pb_reader reader, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  ml_examples_begin(w, set);
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != 1) continue;
    ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, "Example.features", err));
    ML_TRY(read_features(w, set, ml_pb_reader_sub(&reader, &field), err));
  }
  return status;
}

/* ---------------------------------------------------------------- input ---- */
/* The examples of an ExampleList or ExampleListWithContext. */
static ml_status read_list(ml_examples *w, ml_pb_reader reader, bool has_context, ml_error *err) {
  ml_pb_reader again = reader;
  ml_pb_field field;
  ml_status status = ML_OK;
  while (has_context && ml_pb_next(&again, &field, &status, err)) {
    if (field.number != 2) continue;
    ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "context", err), err));
    ML_TRY(ml_call_malformed(read_example(w, w->shared, ml_pb_reader_sub(&again, &field), err), err));
  }
  ML_TRY(ml_call_malformed(status, err));
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != 1) continue;
    ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "examples", err), err));
    ML_TRY(ml_call_malformed(read_example(w, w->own, ml_pb_reader_sub(&reader, &field), err), err));
    ML_TRY(ml_examples_add(w, err));
  }
  ML_TRY(ml_call_malformed(status, err));
  return w->count > 0 ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "Input is empty.");
}

/* Field 2 of every request. */
static ml_status read_input(ml_examples *w, ml_pb_reader reader, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  ml_str input = {"", 0}, list = {"", 0};
  bool has_context = false;
  while (ml_pb_next(&reader, &field, &status, err))
    if (field.number == 2) ML_TRY(ml_call_malformed(ml_wire_text(&field, "input", &input, err), err));
  ML_TRY(ml_call_malformed(status, err));
  reader = ml_wire_reader(input);
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number > 2) continue;
    ML_TRY(ml_call_malformed(ml_wire_text(&field, "Input", &list, err), err));
    has_context = field.number == 2;
  }
  ML_TRY(ml_call_malformed(status, err));
  return read_list(w, ml_wire_reader(list), has_context, err);
}

static ml_status gather(ml_call *c, ml_examples *w, ml_pb_reader reader, ml_error *err) {
  const ml_signature *g = c->signature;
  ML_TRY(ml_examples_prepare(w, err));
  for (size_t i = 0; i < g->n_inputs; i++) { /* the memory of an earlier call */
    struct ml_call_buffer *buffer = &c->buffers[g->inputs[i].index];
    w->rows[i].data = buffer->data;
    w->rows[i].bytes = buffer->bytes;
  }
  ml_status status = read_input(w, reader, err);
  if (status == ML_OK) status = ml_examples_views(w, err);
  for (size_t i = 0; i < g->n_inputs; i++) {
    size_t index = g->inputs[i].index;
    ml_example_rows *rows = &w->rows[i];
    c->buffers[index] = (struct ml_call_buffer){rows->data, rows->bytes};
    if (status == ML_OK) {
      c->views[index] = w->views[index];
      c->wires[index] = (ml_wire){.form = ML_WIRE_ELEMENTS, .bytes = rows->data, .size = rows->bytes, .given = rows->count};
    }
    rows->data = NULL;
  }
  return status;
}

static ml_status read_examples(ml_call *c, ml_pb_reader reader, ml_error *err) {
  ml_examples w = {.servable = c->servable, .signature = c->signature, .arena = ml_arena_new()};
  if (!w.arena) return ml_fail_memory(err, 1, "a request");
  ml_status status = gather(c, &w, reader, err);
  ml_examples_clear(&w);
  ml_arena_free(w.arena);
  return status;
}

/* ---------------------------------------------------------------- results ---- */
typedef struct sink {
  ml_results base;
  ml_pb_writer *out;
  size_t mark;       /* of the example */
} sink;

static void put_example(ml_results *results, size_t index, bool end) {
  sink *s = (sink *)(void *)results;
  (void)index;
  if (end) ml_pb_close(s->out, s->mark);
  else s->mark = ml_pb_open(s->out, 1);
}

static void put_float(ml_pb_writer *out, uint32_t number, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (bits) ml_pb_put_float(out, number, value); /* zero is what is meant without it; not so negative zero */
}

static void put_class(ml_results *results, size_t index, ml_str label, float score) {
  sink *s = (sink *)(void *)results;
  size_t mark = ml_pb_open(s->out, 1);
  (void)index;
  if (label.length > 0) ml_pb_put_bytes(s->out, 1, label.bytes, label.length);
  put_float(s->out, 2, score);
  ml_pb_close(s->out, mark);
}

static void put_value(ml_results *results, size_t index, float value) {
  sink *s = (sink *)(void *)results;
  size_t mark = ml_pb_open(s->out, 1);
  (void)index;
  put_float(s->out, 1, value);
  ml_pb_close(s->out, mark);
}

/* A ClassificationResult or RegressionResult as field `number`. */
static ml_status put_result(const ml_call *c, const ml_signature *g, bool regress, uint32_t number, ml_pb_writer *out, ml_error *err) {
  sink s = {{c->servable, g, (size_t)c->views[g->inputs[0].index].dims[0], c->outputs, put_example, put_class, put_value}, out, 0};
  size_t mark = ml_pb_open(out, number);
  ML_TRY(regress ? ml_results_values(&s.base, err) : ml_results_classes(&s.base, err));
  ml_pb_close(out, mark);
  return ML_OK;
}

static void put_spec(const ml_call *c, const ml_signature *g, uint32_t number, ml_pb_writer *out) {
  uint8_t *to = ml_pb_reserve(out, ml_model_spec_size(c, g->name, number));
  if (to) out->size = (size_t)(ml_model_spec_write(c, g->name, number, to) - out->bytes);
}

static ml_status finish(ml_pb_writer *out, size_t begin, ml_status status, ml_error *err) {
  if (status == ML_OK && out->status == ML_OK && out->size - begin > INT32_MAX)
    status = ml_fail(err, ML_RESOURCE_EXHAUSTED, "the answer has %zu bytes, a message at most %d", out->size - begin, INT32_MAX);
  if (status != ML_OK || out->status != ML_OK) out->size = begin;
  return status;
}

/* ---------------------------------------------------------------- classify, regress ---- */
static ml_status decode(ml_call *c, const void *bytes, size_t size, ml_error *err) {
  ml_model_spec spec;
  ml_pb_reader reader;
  ml_str name;
  ML_TRY(ml_model_spec_peek(bytes, size, false, &spec, err));
  const ml_signature *g = ml_model_spec_signature(c, spec.signature, &name);
  if (!g) return ml_fail(err, ML_INVALID_ARGUMENT, "No signature was found with the name: %.*s", shown(name), name.bytes);
  c->signature = g;
  ml_pb_reader_init(&reader, bytes, size);
  return read_examples(c, reader, err);
}

static ml_status encode(ml_call *c, bool regress, ml_pb_writer *out, ml_error *err) {
  size_t begin = out->size;
  ml_status status = put_result(c, c->signature, regress, 1, out, err);
  put_spec(c, c->signature, 2, out);
  return finish(out, begin, status, err);
}

static ml_status encode_classes(ml_call *c, ml_pb_writer *out, ml_error *err) { return encode(c, false, out, err); }
static ml_status encode_values(ml_call *c, ml_pb_writer *out, ml_error *err) { return encode(c, true, out, err); }

const ml_call_codec ml_classify_proto = {decode, encode_classes, false};
const ml_call_codec ml_regress_proto = {decode, encode_values, false};

/* ---------------------------------------------------------------- multi-inference ---- */
typedef struct task {
  ml_model_spec spec;
  ml_str method;
} task;

static ml_status read_task(const ml_pb_field *task_field, task *t, ml_error *err) {
  ml_pb_reader reader;
  ml_pb_field field;
  ml_status status;
  t->method = (ml_str){"", 0};
  ML_TRY(ml_pb_expect(task_field, ML_PB_BYTES, "tasks", err));
  ML_TRY(ml_model_spec_peek(task_field->bytes, task_field->size, false, &t->spec, err));
  ml_pb_reader_init(&reader, task_field->bytes, task_field->size);
  while (ml_pb_next(&reader, &field, &status, err)) if (field.number == 2) ML_TRY(ml_wire_text(&field, "InferenceTask.method_name", &t->method, err));
  return status;
}

static bool is(ml_str text, const char *name) { return text.length == strlen(name) && memcmp(text.bytes, name, text.length) == 0; }

/* Do features mean the same to both? */
static bool same_inputs(const ml_signature *a, const ml_signature *b) {
  for (size_t i = 0; i < a->n_inputs; i++) {
    size_t k = 0;
    while (k < b->n_inputs && strcmp(a->inputs[i].name, b->inputs[k].name) != 0) k++;
    if (k == b->n_inputs || a->inputs[i].index != b->inputs[k].index) return false;
  }
  return true;
}

static ml_status take_task(ml_call *c, const task *t, ml_str *model, ml_error *err) {
  ml_str name;
  size_t index = 0;
  if (t->spec.name.length == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "Found ModelSpec with an empty model name.");
  if (!model->bytes) *model = t->spec.name;
  if (model->length != t->spec.name.length || memcmp(model->bytes, t->spec.name.bytes, model->length) != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "All ModelSpecs in a MultiInferenceRequest must access the same model name.");
  const ml_signature *g = ml_model_spec_signature(c, t->spec.signature, &name);
  if (!g) return ml_fail(err, ML_INVALID_ARGUMENT, "Requested signature not found in model graph: %.*s", shown(name), name.bytes);
  while (ml_servable_signature_at(c->servable, index) != g) index++;
  for (size_t i = 0; i < c->n_wanted; i++)
    if (c->wanted[i].index == index) return ml_fail(err, ML_INVALID_ARGUMENT, "Duplicate evaluation of signature: %s", g->name);
  bool regress = is(t->method, REGRESS);
  if (!regress && !is(t->method, CLASSIFY))
    return ml_fail(err, ML_UNIMPLEMENTED, "Unsupported signature method_name: %.*s", shown(t->method), t->method.bytes);
  if (!c->signature) c->signature = g;
  if (!same_inputs(c->signature, g)) return ml_fail(err, ML_INVALID_ARGUMENT, "Input tensor must be the same for all Signatures.");
  return ml_call_want(c, (ml_wanted){index, regress}, err);
}

/* The tasks are the call's `wanted`: index of a signature, and whether it regresses. */
static ml_status decode_tasks(ml_call *c, const void *bytes, size_t size, ml_error *err) {
  ml_pb_reader reader, again;
  ml_pb_field field;
  ml_status status;
  ml_str model = {NULL, 0};
  task t;
  ml_pb_reader_init(&reader, bytes, size);
  again = reader;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != 1) continue;
    ML_TRY(ml_call_malformed(read_task(&field, &t, err), err));
    ML_TRY(take_task(c, &t, &model, err));
  }
  ML_TRY(ml_call_malformed(status, err));
  if (!c->signature) return ml_fail(err, ML_INVALID_ARGUMENT, "ModelSpec has no name specified.");
  return read_examples(c, again, err);
}

static ml_status encode_tasks(ml_call *c, ml_pb_writer *out, ml_error *err) {
  size_t begin = out->size;
  ml_status status = ML_OK;
  for (size_t i = 0; status == ML_OK && i < c->n_wanted; i++) {
    const ml_signature *g = ml_servable_signature_at(c->servable, c->wanted[i].index);
    size_t mark = ml_pb_open(out, 1);
    put_spec(c, g, 1, out);
    status = put_result(c, g, c->wanted[i].classes != 0, c->wanted[i].classes ? 3 : 2, out, err);
    if (status == ML_OK) ml_pb_close(out, mark);
  }
  return finish(out, begin, status, err);
}

const ml_call_codec ml_multi_inference_proto = {decode_tasks, encode_tasks, false};
