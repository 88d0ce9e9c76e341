/* A request is walked twice: for everything but its inputs, and then from input to input, the raw contents, which stand behind all of them, in step.
 * Raw contents and packed floats stay where they are until the run. Answers are raw, whatever form the request has, as Triton's are. */
#include "serve/infer_proto.h"

#include <stdio.h>
#include <string.h>

#include "codec/utf8.h"
#include "serve/infer_model.h"

/* ---------------------------------------------------------------- small values ---- */
#define REFUSE(err, ...) ml_fail(err, ML_INVALID_ARGUMENT, __VA_ARGS__)

static bool is(ml_str text, const char *name) { return text.length == strlen(name) && memcmp(text.bytes, name, text.length) == 0; }

static int shown(ml_str text) { return (int)(text.length < 100 ? text.length : 100); }

ml_status ml_infer_peek(const void *bytes, size_t size, ml_str *model, ml_str *version, ml_error *err) {
  ml_pb_reader reader;
  ml_pb_field field;
  ml_status status;
  ml_error local;
  if (!err) err = &local;
  *model = *version = (ml_str){"", 0};
  ml_pb_reader_init(&reader, bytes, size);
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number == 1) ML_TRY(ml_call_malformed(ml_wire_text(&field, "model_name", model, err), err));
    else if (field.number == 2) ML_TRY(ml_call_malformed(ml_wire_text(&field, "model_version", version, err), err));
  }
  return ml_call_malformed(status, err);
}

/* ---------------------------------------------------------------- parameters ---- */
typedef enum choice { UNSET, BOOL, INT64, STRING, DOUBLE, UINT64 } choice; /* numbers of InferParameter's fields */

typedef struct parameter {
  ml_str name;
  choice choice;
  uint64_t value; /* BOOL, INT64, UINT64 */
} parameter;

/* An entry of a map of parameters. */
static ml_status read_parameter(ml_pb_reader reader, parameter *p, ml_error *err) {
  static const ml_pb_wire wires[] = {0, ML_PB_VARINT, ML_PB_VARINT, ML_PB_BYTES, ML_PB_FIXED64, ML_PB_VARINT};
  ml_pb_field field;
  ml_status status;
  ml_str value = {"", 0};
  *p = (parameter){.name = value};
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number == 1) ML_TRY(ml_wire_text(&field, "parameters.key", &p->name, err));
    else if (field.number == 2) ML_TRY(ml_wire_text(&field, "parameters.value", &value, err));
  }
  ML_TRY(status);
  ml_pb_reader choices = ml_wire_reader(value);
  while (ml_pb_next(&choices, &field, &status, err)) { /* the last one counts */
    if (field.number > UINT64) continue;
    ML_TRY(ml_pb_expect(&field, wires[field.number], "InferParameter", err));
    p->choice = (choice)field.number;
    p->value = field.integer;
  }
  return status;
}

static ml_status wrong_choice(const char *name, const char *expected, ml_error *err) {
  return REFUSE(err, "invalid value type for '%s' parameter, expected %s.", name, expected);
}

static ml_status request_parameter(ml_call *c, const parameter *p, ml_error *err) {
  if (is(p->name, "sequence_id"))
    return p->choice == INT64 || p->choice == STRING ? ML_OK : wrong_choice("sequence_id", "int64_param or string_param", err);
  if (is(p->name, "sequence_start")) return p->choice == BOOL ? ML_OK : wrong_choice("sequence_start", "bool_param", err);
  if (is(p->name, "sequence_end")) return p->choice == BOOL ? ML_OK : wrong_choice("sequence_end", "bool_param", err); /* models here keep no state */
  if (is(p->name, "priority")) {
    if (p->choice != INT64 && p->choice != UINT64) return wrong_choice("priority", "int64_param or uint64_param", err);
    if (p->choice == INT64 && (int64_t)p->value < 0) return REFUSE(err, "invalid value for 'priority', expected value >= 0.");
    c->priority = p->value;
    return ML_OK;
  }
  if (is(p->name, "timeout")) {
    if (p->choice != INT64) return wrong_choice("timeout", "int64_param", err);
    c->timeout_us = p->value;
    return ML_OK;
  }
  if (is(p->name, "triton_enable_empty_final_response"))
    return p->choice == BOOL ? ML_OK : wrong_choice("triton_enable_empty_final_response", "bool_param", err);
  if (p->name.length >= 7 && memcmp(p->name.bytes, "triton_", 7) == 0)
    return REFUSE(err, "parameter keys starting with 'triton_' are reserved for Triton usage. Only the following keys starting with 'triton_' are "
                  "allowed: triton_enable_empty_final_response");
  if (p->choice != UNSET && p->choice != UINT64) return ML_OK; /* others' business */
  return REFUSE(err, "invalid value type for '%.*s' parameter, expected int64_param, bool_param, or string_param.", shown(p->name), p->name.bytes);
}

static ml_status no_regions(ml_error *err) {
  return ml_fail(err, ML_UNIMPLEMENTED, "shared memory is not supported: data are sent in the message");
}

/* ---------------------------------------------------------------- inputs ---- */
typedef struct input {
  ml_str name, datatype, contents;
  bool has_contents, region, deep; /* deep: too many dimensions */
  int32_t rank;
  int64_t dims[ML_MAX_RANK];
} input;

static ml_status read_shape(const ml_pb_field *field, input *in, ml_error *err) {
  size_t count, stored;
  ML_TRY(ml_pb_packed_count(field, ML_PB_VARINT, &count, "InferInputTensor.shape", err));
  if (count > (size_t)(ML_MAX_RANK - in->rank)) {
    in->deep = true;
    return ML_OK;
  }
  if (field->wire == ML_PB_VARINT) {
    in->dims[in->rank++] = (int64_t)field->integer;
    return ML_OK;
  }
  const uint8_t *at = field->bytes;
  if (!ml_pb_varints(&at, at + field->size, in->dims + in->rank, sizeof *in->dims, count, &stored))
    return ml_fail(err, ML_DATA_LOSS, "InferInputTensor.shape: varint over 10 bytes or 64 bits");
  in->rank += (int32_t)stored;
  return ML_OK;
}

static ml_status read_input(ml_pb_reader reader, input *in, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  parameter p;
  in->name = in->datatype = in->contents = (ml_str){"", 0};
  in->has_contents = in->region = in->deep = false;
  in->rank = 0;
  while (ml_pb_next(&reader, &field, &status, err)) {
    switch (field.number) {
      case 1: ML_TRY(ml_wire_text(&field, "InferInputTensor.name", &in->name, err)); break;
      case 2: ML_TRY(ml_wire_text(&field, "InferInputTensor.datatype", &in->datatype, err)); break;
      case 3: ML_TRY(read_shape(&field, in, err)); break;
      case 4:
        ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, "InferInputTensor.parameters", err));
        ML_TRY(read_parameter(ml_pb_reader_sub(&reader, &field), &p, err));
        in->region = in->region || is(p.name, "shared_memory_region");
        break;
      case 5:
        ML_TRY(ml_wire_text(&field, "InferInputTensor.contents", &in->contents, err));
        in->has_contents = true;
        break;
      default: break;
    }
  }
  return status;
}

/* The type that a list of contents is taken for: lists of 32 bits serve the smaller integers, too. */
static ml_dtype list_dtype(uint32_t number, ml_dtype wanted) {
  static const uint8_t dtypes[] = {0, ML_BOOL, ML_INT32, ML_INT64, ML_UINT32, ML_UINT64, ML_FLOAT32, ML_FLOAT64, ML_STRING};
  if (number == 2 && (wanted == ML_INT8 || wanted == ML_INT16)) return wanted;
  if (number == 4 && (wanted == ML_UINT8 || wanted == ML_UINT16)) return wanted;
  return (ml_dtype)dtypes[number];
}

/* Typed contents of an accepted input. */
static ml_status take_contents(const ml_infer_asked *asked, const char *name, const ml_view *v, ml_str contents, ml_wire *wire, bool *prefixed,
                               ml_error *err) {
  ml_pb_reader reader = ml_wire_reader(contents);
  ml_pb_field field;
  ml_status status;
  *wire = (ml_wire){0};
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number > 8) continue;
    ml_dtype dtype = list_dtype(field.number, v->dtype);
    ml_pb_wire element = ml_wire_element(dtype);
    size_t count = 1;
    if (element == ML_PB_BYTES) ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "bytes_contents", err), err));
    else ML_TRY(ml_call_malformed(ml_pb_packed_count(&field, element, &count, "InferTensorContents", err), err));
    if (count == 0) continue;
    if (wire->field && wire->field != field.number)
      return REFUSE(err, "unexpected explicit tensor data for input tensor '%.100s' for model '%s', binary data was already supplied.", name,
                    asked->model);
    if (dtype != v->dtype)
      return REFUSE(err, "unexpected explicit tensor data for input tensor '%.100s' for model '%s' of type '%s', expected datatype '%s'", name,
                    asked->model, ml_infer_dtype_name(dtype), ml_infer_dtype_name(v->dtype));
    wire->field = field.number;
    wire->element = element;
    ML_TRY(ml_call_malformed(ml_wire_add(wire, &field, (const uint8_t *)contents.bytes, contents.length, err), err));
  }
  ML_TRY(ml_call_malformed(status, err));
  if (wire->given == v->count) return ML_OK;
  *prefixed = true;
  if (v->dtype == ML_STRING)
    return REFUSE(err, "expected %zu string elements for inference input '%.100s' for model '%s', got %zu", v->count, name, asked->model,
                  wire->given);
  return REFUSE(err, "input byte size mismatch for input '%.100s' for model '%s'. Expected %zu, got %zu", name, asked->model,
                v->count * ml_dtype_size(v->dtype), wire->given * ml_dtype_size(v->dtype));
}

typedef struct progress { /* from input to input */
  ml_pb_reader raw;       /* what of the message has not been searched for raw contents */
  bool any_raw;
  size_t n, elements;
  bool unknown, prefixed;
  char unknown_name[160]; /* the first that is no input of the model */
} progress;

static ml_status next_raw(progress *p, ml_str *raw, bool *found, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  *found = false;
  while (!*found && ml_pb_next(&p->raw, &field, &status, err)) {
    if (field.number != 7) continue;
    ML_TRY(ml_wire_text(&field, "raw_input_contents", raw, err));
    *found = true;
  }
  return ML_OK; /* the message has been walked before */
}

static ml_status take_input(ml_call *c, const input *in, progress *p, ml_error *err) {
  const ml_signature *g = c->signature;
  ml_infer_asked asked = {c->servable, ml_call_model(c)};
  size_t i = ml_infer_find(g->inputs, g->n_inputs, in->name.bytes, in->name.length);
  const ml_signature_tensor *t = i < g->n_inputs ? &g->inputs[i] : NULL;
  ml_str raw = {"", 0};
  bool found = false;
  p->n++;
  if (t && c->seen[i]) return REFUSE(err, "input '%.100s' already exists in request", t->name);
  if (in->region) return no_regions(err);
  if (in->deep) return REFUSE(err, "input '%.*s': more than %d dimensions", shown(in->name), in->name.bytes, ML_MAX_RANK);
  for (int32_t k = 0; k < in->rank; k++)
    if (in->dims[k] < 0)
      return REFUSE(err, "input '%.*s': %lld is no size of a dimension", shown(in->name), in->name.bytes, (long long)in->dims[k]);
  if (!in->has_contents) ML_TRY(next_raw(p, &raw, &found, err));
  if (in->has_contents && p->any_raw)
    return REFUSE(err, "contents field must not be specified when using raw_input_contents for '%.*s' for model '%s'", shown(in->name),
                  in->name.bytes, asked.model);
  if (!in->has_contents && !found)
    return REFUSE(err, "unable to find data for input tensor '%.*s' for model '%s' in request.", shown(in->name), in->name.bytes, asked.model);
  if (!t) {
    if (!p->unknown) snprintf(p->unknown_name, sizeof p->unknown_name, "%.*s", shown(in->name), in->name.bytes);
    p->unknown = true;
    return ML_OK;
  }
  c->seen[i] = true;
  ml_view *v = &c->views[t->index];
  ML_TRY(ml_infer_accept(&asked, t, ml_infer_dtype(in->datatype.bytes, in->datatype.length), in->dims, in->rank, &p->elements, v, &p->prefixed, err));
  if (in->has_contents) return take_contents(&asked, t->name, v, in->contents, &c->wires[t->index], &p->prefixed, err);
  return ml_infer_binary(&asked, t->name, v, raw.bytes, raw.length, &c->wires[t->index], &p->prefixed, err);
}

static ml_status read_inputs(ml_call *c, ml_pb_reader reader, progress *p, ml_error *err) {
  ml_infer_asked asked = {c->servable, ml_call_model(c)};
  ml_pb_field field;
  ml_status status;
  input in;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != 5) continue;
    ML_TRY(ml_call_malformed(read_input(ml_pb_reader_sub(&reader, &field), &in, err), err));
    ML_TRY(take_input(c, &in, p, err));
  }
  return ml_infer_check(&asked, c->signature, p->n, c->seen, p->unknown ? p->unknown_name : NULL, &p->prefixed, err);
}

/* ---------------------------------------------------------------- outputs ---- */
static ml_status read_output(ml_call *c, ml_pb_reader reader, ml_error *err) {
  const ml_signature *g = c->signature;
  ml_pb_field field;
  ml_status status;
  ml_str name = {"", 0};
  ml_wanted wanted = {0};
  parameter p;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number == 1) {
      ML_TRY(ml_call_malformed(ml_wire_text(&field, "InferRequestedOutputTensor.name", &name, err), err));
    } else if (field.number == 2) {
      ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "InferRequestedOutputTensor.parameters", err), err));
      ML_TRY(ml_call_malformed(read_parameter(ml_pb_reader_sub(&reader, &field), &p, err), err));
      if (is(p.name, "shared_memory_region")) return no_regions(err);
      if (!is(p.name, "classification")) continue;
      if (p.choice != INT64) return REFUSE(err, "invalid value type for 'classification' parameter, expected int64_param");
      if ((int64_t)p.value <= 0) return REFUSE(err, "invalid value for 'classification' parameter, expected >= 0");
      wanted.classes = p.value;
    }
  }
  ML_TRY(ml_call_malformed(status, err));
  wanted.index = ml_infer_find(g->outputs, g->n_outputs, name.bytes, name.length);
  if (wanted.index == g->n_outputs)
    return REFUSE(err, "unexpected inference output '%.*s' for model '%s'", shown(name), name.bytes, ml_call_model(c));
  for (size_t i = 0; i < c->n_wanted; i++) if (c->wanted[i].index == wanted.index) return ML_OK; /* asked for twice, given once */
  return ml_call_want(c, wanted, err);
}

/* ---------------------------------------------------------------- request ---- */
static ml_status read_rest(ml_call *c, ml_pb_reader reader, progress *p, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  ml_str id = {"", 0};
  parameter given;
  while (ml_pb_next(&reader, &field, &status, err)) {
    switch (field.number) {
      case 3:
        ML_TRY(ml_call_malformed(ml_wire_text(&field, "id", &id, err), err));
        if (!ml_utf8_valid(id.bytes, id.length, NULL)) return ml_fail(err, ML_INTERNAL, "the request is no message of this method: id is not UTF-8");
        c->id = id.bytes;
        c->id_length = id.length;
        break;
      case 4:
        ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "parameters", err), err));
        ML_TRY(ml_call_malformed(read_parameter(ml_pb_reader_sub(&reader, &field), &given, err), err));
        ML_TRY(request_parameter(c, &given, err));
        break;
      case 5: ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "inputs", err), err)); break;
      case 6:
        ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "outputs", err), err));
        ML_TRY(read_output(c, ml_pb_reader_sub(&reader, &field), err));
        break;
      case 7:
        ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "raw_input_contents", err), err));
        p->any_raw = true;
        break;
      default: break;
    }
  }
  return ml_call_malformed(status, err);
}

static ml_status decode(ml_call *c, const void *bytes, size_t size, ml_error *err) {
  ml_pb_reader reader;
  progress p;
  ml_pb_reader_init(&reader, bytes, size);
  p.raw = reader;
  p.any_raw = p.unknown = p.prefixed = false;
  p.n = p.elements = 0;
  c->signature = ml_infer_signature(c->servable);
  ML_TRY(read_rest(c, reader, &p, err));
  ml_status status = read_inputs(c, reader, &p, err);
  return status != ML_OK && p.prefixed ? ml_infer_with_id(c->id, c->id_length, status, err) : status;
}

/* ---------------------------------------------------------------- response ---- */
static size_t shape_size(const ml_view *v) {
  size_t size = 0;
  for (int32_t k = 0; k < v->rank; k++) size += ml_pb_varint_size((uint64_t)v->dims[k]);
  return size;
}

static uint8_t *put_answer(const ml_answer *a, uint8_t *to) {
  const char *datatype = ml_infer_dtype_name(a->view.dtype);
  to = ml_pb_varint(ml_pb_tag(to, 5, ML_PB_BYTES), a->whole);
  to = ml_wire_put_text(to, 1, a->name, strlen(a->name));
  to = ml_wire_put_text(to, 2, datatype, strlen(datatype));
  if (a->view.rank == 0) return to;
  to = ml_pb_varint(ml_pb_tag(to, 3, ML_PB_BYTES), shape_size(&a->view));
  for (int32_t k = 0; k < a->view.rank; k++) to = ml_pb_varint(to, (uint64_t)a->view.dims[k]);
  return to;
}

static ml_status encode(ml_call *c, ml_pb_writer *out, ml_error *err) {
  const ml_signature *g = c->signature;
  char text[24];
  const char *model = ml_call_model(c), *version = ml_call_version(c, text);
  size_t n = ml_call_n_outputs(c), size = ml_pb_bytes_size(1, strlen(model)) + ml_pb_bytes_size(2, strlen(version));
  if (c->id_length > 0) size += ml_pb_bytes_size(3, c->id_length);
  for (size_t i = 0; i < n; i++) {
    ml_wanted wanted = ml_call_wanted(c, i);
    const ml_signature_tensor *t = &g->outputs[wanted.index];
    ml_answer *a = &c->answers[i];
    ML_TRY(ml_infer_answer(c->servable, a, t->name, c->outputs[t->index], wanted.classes, err));
    ML_TRY(ml_infer_binary_size(a, &a->bytes, err));
    a->whole = ml_pb_bytes_size(1, strlen(a->name)) + ml_pb_bytes_size(2, strlen(ml_infer_dtype_name(a->view.dtype)));
    if (a->view.rank > 0) a->whole += ml_pb_bytes_size(3, shape_size(&a->view));
    if (!ml_add_size(size, ml_pb_bytes_size(5, a->whole) + ml_pb_bytes_size(6, a->bytes), &size)) size = SIZE_MAX;
  }
  if (size > INT32_MAX) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the answer has %zu bytes, a message at most %d", size, INT32_MAX);
  uint8_t *to = ml_pb_reserve(out, size);
  if (!to) return ml_fail_memory(err, size, "a response");
  to = ml_wire_put_text(to, 1, model, strlen(model));
  to = ml_wire_put_text(to, 2, version, strlen(version));
  if (c->id_length > 0) to = ml_wire_put_text(to, 3, c->id, c->id_length);
  for (size_t i = 0; i < n; i++) to = put_answer(&c->answers[i], to);
  for (size_t i = 0; i < n; i++) to = ml_infer_binary_write(&c->answers[i].view, ml_pb_varint(ml_pb_tag(to, 6, ML_PB_BYTES), c->answers[i].bytes));
  out->size = (size_t)(to - out->bytes);
  return ML_OK;
}

const ml_call_codec ml_infer_proto = {decode, encode, true};
