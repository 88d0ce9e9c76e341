/* The JSON of a request is walked once. An input's data are decoded where they stand when name, type and shape came before them, as every client
 * writes them, and otherwise after its object has ended. The buffer of a JSON input is as large as its shape says, which a body can not make larger
 * than itself times the size of an element; binary inputs stay where they are in the body, except booleans (any byte but 0 is true) and strings
 * (their places are kept). Refusals repeat the words of Triton's HTTP front end and core, because clients match on them; as its server parses
 * everything first, a syntax error anywhere in the JSON comes before any of them. */
#include "serve/infer.h"

#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "serve/json_tensor.h"
#include "serve/statistics.h"

enum { KEY_SCRATCH = 256, NAME = 1024 };

typedef struct wanted { /* an output of the response */
  size_t index;         /* among the signature's */
  uint64_t classes;     /* 0: the tensor itself */
  int binary;           /* -1: as the request says */
} wanted;

struct ml_infer {
  ml_servable *servable;
  ml_ticket ticket;             /* of a request in a batch */
  uint64_t begin_ns, decoded_ns; /* of one, for the statistics */
  const ml_signature *signature;
  const char *model, *version;
  ml_json_decoder decoder;      /* its reader and its mark of refusals; not its buffers */
  const char *binary, *end;     /* binary data not yet taken */
  char *strings;                /* bytes of JSON strings */
  size_t strings_used, elements, n_given, name_size;
  char *id, *name;              /* name: room for any string of the JSON */
  size_t id_length;
  bool has_id, prefixed, binary_output, unknown;
  char unknown_name[160];       /* the first that is no input of the model */
  uint64_t priority, timeout;
  void **owned;                 /* by signature input: what was made of its data */
  bool *seen;                   /* by signature input */
  wanted *wanted;
  size_t n_wanted, wanted_capacity;
  ml_view *views;               /* by graph input */
};

/* ---------------------------------------------------------------- refusals ---- */
#define REFUSE(r, err, ...) ml_json_refuse(&(r)->decoder, err, ML_INVALID_ARGUMENT, __VA_ARGS__)

/* The same with "[request id: …] " in front, once the id is known. */
#define REFUSE_WITH_ID(r, err, ...) ((r)->prefixed = true, REFUSE(r, err, __VA_ARGS__))

__attribute__((cold)) static ml_status wrong_kind(ml_infer *r, const char *field, const char *kind, ml_error *err) {
  return REFUSE(r, err, "Unable to parse '%s': attempt to access JSON non-%s as %s", field, kind, kind);
}

__attribute__((cold)) static ml_status absent(ml_infer *r, const char *field, ml_error *err) {
  return REFUSE(r, err, "Unable to parse '%s': attempt to access non-existing object member '%s'", field, field);
}

/* A refusal of infer_model's. */
static ml_status refused(ml_infer *r, ml_status status) {
  r->decoder.semantic = r->decoder.semantic || status == ML_INVALID_ARGUMENT || status == ML_UNIMPLEMENTED;
  return status;
}

static ml_infer_asked asked(const ml_infer *r) { return (ml_infer_asked){r->servable, r->model}; }

/* ---------------------------------------------------------------- small values ---- */
static bool is(const char *key, size_t length, const char *text) { return length == strlen(text) && memcmp(key, text, length) == 0; }

/* The string at the reader into r->name, with a NUL behind it. */
static ml_status read_text(ml_infer *r, const char *field, size_t *length, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  size_t bound;
  if (ml_json_peek(reader) != ML_JSON_STRING) return wrong_kind(r, field, "string", err);
  ML_TRY(ml_json_string_length(reader, &bound, err));
  if (bound >= r->name_size) ML_TRY(ml_grow(&r->name, &r->name_size, bound + 1, 1, "a request", err));
  ML_TRY(ml_json_string_read(reader, r->name, length, err));
  r->name[*length] = '\0';
  return ML_OK;
}

static ml_status read_unsigned(ml_infer *r, const char *field, uint64_t *out, ml_error *err) {
  ml_json_number number;
  if (ml_json_peek(&r->decoder.reader) != ML_JSON_NUMBER) return wrong_kind(r, field, "unsigned-integer", err);
  ML_TRY(ml_json_number_read(&r->decoder.reader, &number, err));
  if (!number.fits_uint64) return wrong_kind(r, field, "unsigned-integer", err);
  *out = number.magnitude;
  return ML_OK;
}

static ml_status read_boolean(ml_infer *r, const char *field, bool *out, ml_error *err) {
  ml_json_kind kind = ml_json_peek(&r->decoder.reader);
  if (kind != ML_JSON_TRUE && kind != ML_JSON_FALSE) return wrong_kind(r, field, "boolean", err);
  *out = kind == ML_JSON_TRUE;
  return ml_json_literal_read(&r->decoder.reader, kind, err);
}

/* ---------------------------------------------------------------- parameters ---- */
typedef struct parameters {
  bool size_given, region, binary_given, binary;
  uint64_t size, classes;
} parameters;

/* Of an input or an output. What is not known is for others. */
static ml_status read_parameters(ml_infer *r, parameters *p, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more;
  if (ml_json_peek(reader) != ML_JSON_OBJECT) return wrong_kind(r, "parameters", "object", err);
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) return ML_OK;
    if (is(key, length, "binary_data_size")) {
      ML_TRY(read_unsigned(r, "binary_data_size", &p->size, err));
      p->size_given = true;
    } else if (is(key, length, "classification")) {
      ML_TRY(read_unsigned(r, "classification", &p->classes, err));
    } else if (is(key, length, "binary_data")) {
      ML_TRY(read_boolean(r, "binary_data", &p->binary, err));
      p->binary_given = true;
    } else {
      p->region = p->region || is(key, length, "shared_memory_region");
      ML_TRY(ml_json_skip(reader, err));
    }
  }
}

static ml_status no_regions(ml_infer *r, ml_error *err) {
  return ml_json_refuse(&r->decoder, err, ML_UNIMPLEMENTED, "shared memory is not supported: data are sent in the body");
}

static ml_status read_request_parameters(ml_infer *r, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more, ignored;
  if (ml_json_peek(reader) != ML_JSON_OBJECT) return wrong_kind(r, "parameters", "object", err);
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) return ML_OK;
    ml_json_kind kind = ml_json_peek(reader);
    if (is(key, length, "binary_data_output")) {
      ML_TRY(read_boolean(r, "binary_data_output", &r->binary_output, err));
    } else if (is(key, length, "priority")) {
      ML_TRY(read_unsigned(r, "priority", &r->priority, err));
    } else if (is(key, length, "timeout")) {
      ML_TRY(read_unsigned(r, "timeout", &r->timeout, err));
    } else if (is(key, length, "sequence_start") || is(key, length, "sequence_end")) {
      ML_TRY(read_boolean(r, is(key, length, "sequence_end") ? "sequence_end" : "sequence_start", &ignored, err)); /* models here keep no state */
    } else if (length >= 7 && memcmp(key, "triton_", 7) == 0) {
      return REFUSE(r, err, "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.");
    } else if (kind == ML_JSON_OBJECT || kind == ML_JSON_ARRAY || kind == ML_JSON_NULL) {
      return REFUSE(r, err, "parameter '%.*s' has invalid type. It should be either 'int', 'bool', or 'string'.", (int)(length < 100 ? length : 100),
                    key);
    } else {
      ML_TRY(ml_json_skip(reader, err));
    }
  }
}

/* ---------------------------------------------------------------- JSON data ---- */
static ml_status wrong_element(ml_infer *r, const char *kind, ml_error *err) { return wrong_kind(r, "data", kind, err); }

static ml_status read_integer(ml_infer *r, ml_dtype dtype, void *to, ml_error *err) {
  size_t size = ml_dtype_size(dtype);
  bool is_unsigned = dtype == ML_UINT8 || dtype == ML_UINT16 || dtype == ML_UINT32 || dtype == ML_UINT64;
  const char *kind = is_unsigned ? "unsigned-integer" : "signed-integer";
  ml_json_number number;
  if (ml_json_peek(&r->decoder.reader) != ML_JSON_NUMBER) return wrong_element(r, kind, err);
  ML_TRY(ml_json_number_read(&r->decoder.reader, &number, err));
  if (is_unsigned) {
    if (!number.fits_uint64) return wrong_element(r, kind, err);
    if (number.magnitude > UINT64_MAX >> (64 - 8 * size))
      return REFUSE(r, err, "Unable to parse 'data': %llu is out of range for %s", (unsigned long long)number.magnitude, ml_infer_dtype_name(dtype));
    memcpy(to, &number.magnitude, size); /* the lowest bytes come first */
    return ML_OK;
  }
  if (!number.integral) return wrong_element(r, kind, err);
  int64_t most = INT64_MAX >> (64 - 8 * size);
  if (number.integer > most || number.integer < -most - 1)
    return REFUSE(r, err, "Unable to parse 'data': %lld is out of range for %s", (long long)number.integer, ml_infer_dtype_name(dtype));
  memcpy(to, &number.integer, size);
  return ML_OK;
}

static ml_status read_string(ml_infer *r, ml_str *to, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  size_t size = (size_t)(reader->end - reader->begin), length;
  if (ml_json_peek(reader) != ML_JSON_STRING) return wrong_element(r, "string", err);
  if (!r->strings) { /* all strings of a text are shorter than the text, so this never moves */
    r->strings = ml_alloc(size);
    if (!r->strings) return ml_fail_memory(err, size, "a request");
  }
  ML_TRY(ml_json_string_length(reader, &length, err));
  if (length > size - r->strings_used) return ml_fail(err, ML_INTERNAL, "string bytes outgrew the request");
  ML_TRY(ml_json_string_read(reader, r->strings + r->strings_used, &length, err));
  *to = (ml_str){r->strings + r->strings_used, length};
  r->strings_used += length;
  return ML_OK;
}

static ml_status read_element(ml_infer *r, const ml_view *v, size_t i, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  char *to = (char *)v->data + i * ml_dtype_size(v->dtype);
  double wide = 0;
  bool flag = false;
  switch (v->dtype) {
    case ML_BOOL:
      ML_TRY(read_boolean(r, "data", &flag, err));
      *to = flag;
      return ML_OK;
    case ML_STRING: return read_string(r, (ml_str *)(void *)to, err);
    case ML_FLOAT32:
    case ML_FLOAT64:
    case ML_FLOAT16:
    case ML_BFLOAT16:
      if (ml_json_peek(reader) != ML_JSON_NUMBER) return wrong_element(r, "number", err);
      if (v->dtype == ML_FLOAT32) return ml_json_float_read(reader, (float *)(void *)to, err);
      ML_TRY(ml_json_double_read(reader, &wide, err));
      ml_convert(&wide, ML_FLOAT64, to, v->dtype, 1);
      return ML_OK;
    default: return read_integer(r, v->dtype, to, err);
  }
}

/* The elements of a list, nested in any way, which is what Triton takes; *at of v->count are there. */
static ml_status read_list(ml_infer *r, const ml_view *v, size_t *at, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  bool first = true, more;
  ML_TRY(ml_json_enter_array(reader, err));
  if (v->dtype == ML_FLOAT32 && ml_json_peek(reader) == ML_JSON_NUMBER) { /* nearly always: numbers only */
    ml_json_reader before = *reader;
    size_t count;
    if (ml_json_floats_read(reader, (float *)v->data + *at, v->count - *at, &count, NULL) == ML_OK) {
      *at += count;
      return ML_OK;
    }
    *reader = before;
  }
  for (;;) {
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) return ML_OK;
    if (ml_json_peek(reader) == ML_JSON_ARRAY) {
      ML_TRY(read_list(r, v, at, err));
      continue;
    }
    if (*at == v->count) return REFUSE(r, err, "Unable to parse 'data': Shape does not match true shape of 'data' field");
    ML_TRY(read_element(r, v, *at, err));
    ++*at;
  }
}

static ml_status read_data(ml_infer *r, size_t i, ml_error *err) {
  ml_view *v = &r->views[r->signature->inputs[i].index];
  ml_json_reader *reader = &r->decoder.reader;
  size_t at = 0, bytes;
  if (ml_json_peek(reader) != ML_JSON_ARRAY) return wrong_kind(r, "data", "array", err);
  if (v->count > (size_t)(reader->end - reader->at) || !ml_mul_size(v->count, ml_dtype_size(v->dtype), &bytes))
    return REFUSE(r, err, "Unable to parse 'data': Shape does not match true shape of 'data' field"); /* an element takes a byte at least */
  r->owned[i] = v->data = ml_alloc(bytes);
  if (!v->data) return ml_fail_memory(err, bytes, "a request");
  ML_TRY(read_list(r, v, &at, err));
  if (at != v->count) return REFUSE(r, err, "Failed to parse 'data' field: shape does not match true shape");
  return ML_OK;
}

/* ---------------------------------------------------------------- binary data ---- */
static ml_status take_binary(ml_infer *r, size_t i, const char *bytes, size_t size, ml_error *err) {
  const ml_signature_tensor *t = &r->signature->inputs[i];
  ml_view *v = &r->views[t->index];
  ml_infer_asked whom = asked(r);
  ml_wire wire;
  ML_TRY(refused(r, ml_infer_binary(&whom, t->name, v, bytes, size, &wire, &r->prefixed, err)));
  if (ml_wire_in_place(&wire, v->dtype, v->count)) {
    v->data = (void *)(uintptr_t)bytes; /* read only */
    return ML_OK;
  }
  r->owned[i] = v->data = ml_alloc(v->count * ml_dtype_size(v->dtype));
  if (!v->data) return ml_fail_memory(err, v->count * ml_dtype_size(v->dtype), "a request");
  return ml_wire_copy(&wire, v->dtype, v->count, v->data, err);
}

/* ---------------------------------------------------------------- inputs ---- */
static ml_status accept(ml_infer *r, size_t i, ml_dtype dtype, const int64_t *dims, int32_t rank, ml_error *err) {
  const ml_signature_tensor *t = &r->signature->inputs[i];
  ml_infer_asked whom = asked(r);
  return refused(r, ml_infer_accept(&whom, t, dtype, dims, rank, &r->elements, &r->views[t->index], &r->prefixed, err));
}

static ml_status read_shape(ml_infer *r, int64_t *dims, int32_t *rank, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  bool first = true, more;
  uint64_t size = 0;
  if (ml_json_peek(reader) != ML_JSON_ARRAY) return wrong_kind(r, "shape", "array", err);
  ML_TRY(ml_json_enter_array(reader, err));
  for (*rank = 0;; ++*rank) {
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) return ML_OK;
    if (*rank == ML_MAX_RANK) return REFUSE(r, err, "Unable to parse 'shape': more than %d dimensions", ML_MAX_RANK);
    ML_TRY(read_unsigned(r, "shape", &size, err));
    if (size > INT64_MAX) return REFUSE(r, err, "Unable to parse 'shape': %llu is too large", (unsigned long long)size);
    dims[*rank] = (int64_t)size;
  }
}

/* Exactly one place for the data. */
static ml_status check_source(ml_infer *r, bool data, const parameters *p, ml_error *err) {
  if (data + p->size_given + p->region == 1) return ML_OK;
  return REFUSE(r, err, "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', 'shared_memory_region' in "
                "'parameters'. But%s%s%s%s", data || p->size_given || p->region ? " set" : " no field is set", data ? " 'data'" : "",
                p->size_given ? " 'binary_data_size'" : "", p->region ? " 'shared_memory_region'" : "");
}

typedef struct input { /* what is known so far of the object being read */
  bool named, typed, shaped, data, read;
  size_t index;        /* n_inputs: no input of the model */
  ml_dtype dtype;
  int32_t rank;
  int64_t dims[ML_MAX_RANK];
  parameters parameters;
} input;

static ml_status read_input_name(ml_infer *r, input *in, ml_error *err) {
  const ml_signature *g = r->signature;
  size_t length;
  ML_TRY(read_text(r, "name", &length, err));
  in->named = true;
  in->index = ml_infer_find(g->inputs, g->n_inputs, r->name, length);
  if (in->index < g->n_inputs) {
    if (r->seen[in->index]) return REFUSE(r, err, "input '%.100s' already exists in request", r->name);
    r->seen[in->index] = true;
  } else if (!r->unknown) {
    r->unknown = true;
    snprintf(r->unknown_name, sizeof r->unknown_name, "%s", r->name);
  }
  return ML_OK;
}

static ml_status read_input(ml_infer *r, ml_error *err) {
  const ml_signature *g = r->signature;
  ml_json_reader *reader = &r->decoder.reader, data = {0};
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more, type_given = false, parameters_given = false;
  input in = {.index = g->n_inputs};
  if (ml_json_peek(reader) != ML_JSON_OBJECT) return wrong_kind(r, "inputs", "object", err);
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    if (is(key, length, "name") && !in.named) {
      ML_TRY(read_input_name(r, &in, err));
    } else if (is(key, length, "datatype") && !type_given) {
      ML_TRY(read_text(r, "datatype", &length, err));
      in.dtype = ml_infer_dtype(r->name, length);
      in.typed = type_given = true;
    } else if (is(key, length, "shape") && !in.shaped) {
      ML_TRY(read_shape(r, in.dims, &in.rank, err));
      in.shaped = true;
    } else if (is(key, length, "parameters") && !parameters_given) {
      ML_TRY(read_parameters(r, &in.parameters, err));
      parameters_given = true;
    } else if (is(key, length, "data") && !in.data) {
      in.data = true;
      data = *reader;
      if (in.named && in.typed && in.shaped && in.index < g->n_inputs && !in.parameters.size_given) {
        ML_TRY(accept(r, in.index, in.dtype, in.dims, in.rank, err));
        ML_TRY(read_data(r, in.index, err));
        in.read = true;
      } else {
        ML_TRY(ml_json_skip(reader, err));
      }
    } else {
      ML_TRY(ml_json_skip(reader, err));
    }
  }
  r->n_given++;
  ML_TRY(check_source(r, in.data, &in.parameters, err));
  if (!in.named) return absent(r, "name", err);
  if (!in.typed) return absent(r, "datatype", err);
  if (!in.shaped) return absent(r, "shape", err);
  if (in.parameters.region) return no_regions(r, err);
  const char *bytes = r->binary;
  if (in.parameters.size_given) {
    size_t left = (size_t)(r->end - r->binary);
    if (in.parameters.size > left)
      return REFUSE(r, err, "unexpected size for input '%.100s', expecting %llu additional bytes for model '%s'",
                    in.index < g->n_inputs ? g->inputs[in.index].name : r->unknown_name, (unsigned long long)(in.parameters.size - left), r->model);
    r->binary += in.parameters.size;
  }
  if (in.read || in.index == g->n_inputs) return ML_OK;
  ML_TRY(accept(r, in.index, in.dtype, in.dims, in.rank, err));
  if (in.parameters.size_given) return take_binary(r, in.index, bytes, (size_t)in.parameters.size, err);
  ml_json_reader after = *reader;
  *reader = data;
  ML_TRY(read_data(r, in.index, err));
  *reader = after;
  return ML_OK;
}

/* ---------------------------------------------------------------- outputs ---- */
static ml_status read_output(ml_infer *r, ml_error *err) {
  const ml_signature *g = r->signature;
  ml_json_reader *reader = &r->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length, index = g->n_outputs;
  bool first = true, more, named = false, parameters_given = false;
  parameters p = {0};
  if (ml_json_peek(reader) != ML_JSON_OBJECT) return wrong_kind(r, "outputs", "object", err);
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    if (is(key, length, "name") && !named) {
      ML_TRY(read_text(r, "name", &length, err));
      named = true;
      index = ml_infer_find(g->outputs, g->n_outputs, r->name, length);
      if (index == g->n_outputs) return REFUSE(r, err, "unexpected inference output '%.100s' for model '%s'", r->name, r->model);
    } else if (is(key, length, "parameters") && !parameters_given) {
      ML_TRY(read_parameters(r, &p, err));
      parameters_given = true;
    } else {
      ML_TRY(ml_json_skip(reader, err));
    }
  }
  if (!named) return absent(r, "name", err);
  if (p.region) return no_regions(r, err);
  for (size_t i = 0; i < r->n_wanted; i++) if (r->wanted[i].index == index) return ML_OK; /* asked for twice, given once */
  ML_TRY(ml_grow(&r->wanted, &r->wanted_capacity, r->n_wanted + 1, sizeof *r->wanted, "a request", err));
  r->wanted[r->n_wanted++] = (wanted){index, p.classes, p.binary_given ? p.binary : -1};
  return ML_OK;
}

static ml_status read_objects(ml_infer *r, const char *field, ml_status (*read)(ml_infer *, ml_error *), ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  bool first = true, more;
  if (ml_json_peek(reader) != ML_JSON_ARRAY) return wrong_kind(r, field, "array", err);
  ML_TRY(ml_json_enter_array(reader, err));
  for (;;) {
    ML_TRY(ml_json_array_next(reader, &first, &more, err));
    if (!more) return ML_OK;
    ML_TRY(read(r, err));
  }
}

/* ---------------------------------------------------------------- root ---- */
static ml_status read_id(ml_infer *r, ml_error *err) {
  size_t length;
  ML_TRY(read_text(r, "id", &length, err));
  r->id = ml_strndup(r->name, length);
  if (!r->id) return ml_fail_memory(err, length, "a request");
  r->id_length = length;
  r->has_id = true;
  return ML_OK;
}

static ml_status check_given(ml_infer *r, ml_error *err) {
  ml_infer_asked whom = asked(r);
  if (r->binary != r->end) return REFUSE(r, err, "unexpected additional input data for model '%s'", r->model);
  return refused(r, ml_infer_check(&whom, r->signature, r->n_given, r->seen, r->unknown ? r->unknown_name : NULL, &r->prefixed, err));
}

static ml_status read_root(ml_infer *r, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more, inputs = false, outputs = false, parameters_given = false;
  if (ml_json_peek(reader) != ML_JSON_OBJECT) return wrong_kind(r, "inputs", "object", err);
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    if (is(key, length, "id") && !r->has_id) {
      ML_TRY(read_id(r, err));
    } else if (is(key, length, "parameters") && !parameters_given) {
      ML_TRY(read_request_parameters(r, err));
      parameters_given = true;
    } else if (is(key, length, "inputs") && !inputs) {
      ML_TRY(read_objects(r, "inputs", read_input, err));
      inputs = true;
    } else if (is(key, length, "outputs") && !outputs) {
      ML_TRY(read_objects(r, "outputs", read_output, err));
      outputs = true;
    } else {
      ML_TRY(ml_json_skip(reader, err));
    }
  }
  ML_TRY(ml_json_expect_end(reader, err));
  if (!inputs) return absent(r, "inputs", err);
  return check_given(r, err);
}

/* The id behind the place of the failure, for the message. */
static void find_id(ml_infer *r) {
  ml_json_reader *reader = &r->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length;
  bool first = true, more;
  reader->at = reader->begin;
  reader->depth = 0;
  if (r->has_id || reader->at == reader->end || ml_json_peek(reader) != ML_JSON_OBJECT || ml_json_enter_object(reader, NULL) != ML_OK) return;
  for (;;) {
    if (ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, NULL) != ML_OK || !more) return;
    if (is(key, length, "id")) {
      if (ml_json_peek(reader) == ML_JSON_STRING) read_id(r, NULL);
      return;
    }
    if (ml_json_skip(reader, NULL) != ML_OK) return;
  }
}

__attribute__((cold)) static ml_status finish_failure(ml_infer *r, ml_status status, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  ml_error syntax = {0};
  if (status != ML_INVALID_ARGUMENT && status != ML_UNIMPLEMENTED) return status;
  if (r->decoder.semantic) {
    reader->at = reader->begin;
    reader->depth = 0;
    if (reader->begin == reader->end || ml_json_peek(reader) == ML_JSON_END)
      return ml_fail(err, ML_INVALID_ARGUMENT, "failed to parse the request JSON buffer: The document is empty. at 0");
    if (ml_json_skip(reader, &syntax) == ML_OK && ml_json_expect_end(reader, &syntax) == ML_OK) {
      if (!r->prefixed) return status;
      find_id(r);
      return ml_infer_with_id(r->id, r->id_length, status, err);
    }
  } else {
    syntax = *err;
  }
  return ml_fail(err, ML_INVALID_ARGUMENT, "failed to parse the request JSON buffer: %.300s at %zu", syntax.message,
                 (size_t)(reader->at - reader->begin));
}

/* ---------------------------------------------------------------- raw requests ---- */
/* All of the body is the one input of a batch of one. */
static ml_status take_raw(ml_infer *r, const char *body, size_t size, ml_error *err) {
  const ml_signature_tensor *t = &r->signature->inputs[0];
  int64_t dims[ML_MAX_RANK];
  size_t each = ml_dtype_size(t->dtype), known = each;
  int32_t variable = -1;
  r->binary_output = true;
  if (r->signature->n_inputs != 1)
    return REFUSE_WITH_ID(r, err, "Raw request must only have 1 input (found 1) to be deduced but got %zu inputs in '%s' model configuration",
                          r->signature->n_inputs, r->model);
  bool batch = ml_servable_batches(r->servable);
  for (int32_t k = 0; k < t->rank; k++) {
    dims[k] = k == 0 && batch ? 1 : t->dims[k];
    if (dims[k] == ML_UNKNOWN && variable >= 0) break;
    if (dims[k] == ML_UNKNOWN) variable = k;
    else if (!ml_mul_size(known, (size_t)dims[k], &known)) known = SIZE_MAX;
    if (k == t->rank - 1) goto deduced;
  }
  if (t->rank != 0)
    return REFUSE_WITH_ID(r, err, "The shape of the raw input '%.100s' can not be deduced because there are more than one variable-sized dimension",
                          t->name);
deduced:
  if (t->dtype == ML_STRING && (variable >= 0 || known != each))
    return REFUSE_WITH_ID(r, err, "For BYTE datatype raw input '%.100s', the model must have input shape [1]", t->name);
  if (variable >= 0) dims[variable] = known > 0 ? (int64_t)(size / known) : 0;
  ML_TRY(accept(r, 0, t->dtype, dims, t->rank, err));
  if (t->dtype != ML_STRING) return take_binary(r, 0, body, size, err);
  ml_view *v = &r->views[t->index];
  r->owned[0] = v->data = ml_alloc(each);
  if (!v->data) return ml_fail_memory(err, each, "a request");
  *(ml_str *)v->data = (ml_str){body, size};
  return ML_OK;
}

/* ---------------------------------------------------------------- life ---- */
void ml_infer_free(ml_infer *request) {
  if (!request) return;
  ml_servable *last = ml_ticket_leave(&request->ticket);
  ml_ticket_free(&request->ticket);
  for (size_t i = 0; request->owned && i < request->signature->n_inputs; i++) ml_free(request->owned[i]);
  ml_free(request->owned);
  ml_free(request->seen);
  ml_free(request->views);
  ml_free(request->wanted);
  ml_free(request->strings);
  ml_free(request->name);
  ml_free(request->id);
  ml_free(request);
  ml_servable_release(last);
}

static ml_status new_request(ml_servable *servable, const ml_infer_options *options, ml_infer **out, ml_error *err) {
  ml_infer *r = ml_alloc_zero(1, sizeof *r);
  if (!r) return ml_fail_memory(err, sizeof *r, "a request");
  size_t n = ml_program_graph(ml_servable_program(servable))->n_inputs;
  r->servable = servable;
  r->begin_ns = ml_clock_ns();
  r->signature = ml_infer_signature(servable);
  r->model = options && options->model ? options->model : ml_servable_model(servable);
  r->version = options ? options->version : NULL;
  r->owned = ml_alloc_zero(n + 1, sizeof *r->owned);
  r->seen = ml_alloc_zero(n + 1, sizeof *r->seen);
  r->views = ml_alloc_zero(n + 1, sizeof *r->views);
  r->name = ml_alloc(NAME);
  r->name_size = NAME;
  *out = r;
  return r->owned && r->seen && r->views && r->name ? ML_OK : ml_fail_memory(err, n * sizeof *r->views, "a request");
}

ml_status ml_infer_decode(ml_servable *servable, const char *body, size_t size, size_t json_size, const ml_infer_options *options, ml_infer **out,
                          ml_error *err) {
  ml_error local;
  ml_infer *r = NULL;
  if (!err) err = &local;
  ml_status status = new_request(servable, options, &r, err);
  if (status == ML_OK) {
    size_t json = json_size == ML_INFER_JSON ? size : json_size;
    if (json > size) {
      status = ml_fail(err, ML_INVALID_ARGUMENT, "inference header size should be in range (0, %zu), got: %zu", size, json);
    } else if (json == 0 && json_size != ML_INFER_JSON) {
      status = take_raw(r, body, size, err);
      if (status != ML_OK && r->prefixed) status = ml_infer_with_id(r->id, r->id_length, status, err);
    } else {
      ml_json_reader_init(&r->decoder.reader, body, json);
      r->decoder.reader.allow_nonfinite = true;
      r->binary = body + json;
      r->end = body + size;
      status = read_root(r, err);
      if (status != ML_OK) status = finish_failure(r, status, err);
    }
  }
  if (status != ML_OK) {
    ml_infer_free(r);
    r = NULL;
  }
  *out = r;
  return status;
}

const ml_view *ml_infer_inputs(const ml_infer *request) { return request->views; }
uint64_t ml_infer_priority(const ml_infer *request) { return request->priority; }
uint64_t ml_infer_timeout(const ml_infer *request) { return request->timeout; }

size_t ml_infer_rows(const ml_infer *request) {
  return ml_servable_batches(request->servable) ? (size_t)request->views[0].dims[0] : 1;
}

/* ---------------------------------------------------------------- response ---- */
typedef struct answer { /* one output of the response */
  ml_answer output;
  bool binary;
} answer;

static ml_status prepare(const ml_infer *r, const wanted *w, const ml_view *view, answer *a, ml_error *err) {
  a->binary = w->binary < 0 ? r->binary_output : w->binary != 0;
  ML_TRY(ml_infer_answer(r->servable, &a->output, r->signature->outputs[w->index].name, view, w->classes, err));
  return a->binary ? ml_infer_binary_size(&a->output, &a->output.bytes, err) : ML_OK;
}

static void put_elements(const ml_view *v, ml_json_writer *out) {
  float some[128];
  size_t size = ml_dtype_size(v->dtype);
  if (v->dtype != ML_FLOAT16 && v->dtype != ML_BFLOAT16 && v->dtype != ML_UINT16) { /* not TensorFlow Serving's */
    ml_view flat = *v;
    flat.rank = 1;
    flat.dims[0] = (int64_t)v->count;
    ml_json_put_tensor(out, &flat, false);
    return;
  }
  ml_json_put_literal(out, "[");
  for (size_t at = 0; at < v->count; at += sizeof some / sizeof *some) {
    size_t n = v->count - at < sizeof some / sizeof *some ? v->count - at : sizeof some / sizeof *some;
    ml_convert((const char *)v->data + at * size, v->dtype, some, ML_FLOAT32, n);
    for (size_t i = 0; i < n; i++) {
      if (at + i) ml_json_put_literal(out, ", ");
      if (v->dtype == ML_UINT16) ml_json_put_int64(out, (int64_t)some[i]);
      else ml_json_put_float(out, some[i]);
    }
  }
  ml_json_put_literal(out, "]");
}

static void put_member(ml_json_writer *out, const char *key, const char *text) {
  ml_json_put_string(out, key, strlen(key));
  ml_json_put_literal(out, ": ");
  ml_json_put_string(out, text, strlen(text));
}

static void put_answer(const answer *a, ml_json_writer *out) {
  const ml_view *v = &a->output.view;
  ml_json_put_literal(out, "{");
  put_member(out, "name", a->output.name);
  ml_json_put_literal(out, ", ");
  put_member(out, "datatype", ml_infer_dtype_name(v->dtype));
  ml_json_put_literal(out, ", \"shape\": [");
  for (int32_t k = 0; k < v->rank; k++) {
    if (k) ml_json_put_literal(out, ", ");
    ml_json_put_int64(out, v->dims[k]);
  }
  ml_json_put_literal(out, "], ");
  if (a->binary) {
    ml_json_put_literal(out, "\"parameters\": {\"binary_data_size\": ");
    ml_json_put_uint64(out, a->output.bytes);
    ml_json_put_literal(out, "}}");
  } else {
    ml_json_put_literal(out, "\"data\": ");
    put_elements(v, out);
    ml_json_put_literal(out, "}");
  }
}

static void put_binary(const ml_view *v, ml_json_writer *out) {
  if (v->dtype != ML_STRING) {
    if (v->count > 0) ml_json_put_raw(out, v->data, v->count * ml_dtype_size(v->dtype));
    return;
  }
  const ml_str *strings = v->data;
  for (size_t i = 0; i < v->count; i++) {
    uint32_t length = (uint32_t)strings[i].length;
    ml_json_put_raw(out, (const char *)&length, sizeof length);
    if (length > 0) ml_json_put_raw(out, strings[i].bytes, length);
  }
}

static void put_response(const ml_infer *r, const answer *answers, size_t n, ml_json_writer *out, size_t *json_size) {
  size_t begin = out->length, bytes = 0;
  ml_json_put_literal(out, "{");
  if (r->has_id && r->id_length > 0) {
    ml_json_put_literal(out, "\"id\": ");
    ml_json_put_string(out, r->id, r->id_length);
    ml_json_put_literal(out, ", ");
  }
  put_member(out, "model_name", r->model);
  ml_json_put_literal(out, ", \"model_version\": ");
  ml_infer_put_version(r->servable, r->version, out);
  ml_json_put_literal(out, ", \"outputs\": [");
  for (size_t i = 0; i < n; i++) {
    if (i) ml_json_put_literal(out, ", ");
    put_answer(&answers[i], out);
    bytes += answers[i].binary ? answers[i].output.bytes : 0;
  }
  ml_json_put_literal(out, "]}");
  *json_size = bytes > 0 ? out->length - begin : ML_INFER_JSON;
  for (size_t i = 0; i < n && bytes > 0; i++) if (answers[i].binary) put_binary(&answers[i].output.view, out);
}

ml_status ml_infer_encode(const ml_infer *request, const ml_view *const *outputs, ml_json_writer *out, size_t *json_size, ml_error *err) {
  const ml_signature *g = request->signature;
  size_t n = request->n_wanted ? request->n_wanted : g->n_outputs;
  answer *answers = ml_alloc_zero(n + 1, sizeof *answers);
  ml_status status = answers ? ML_OK : ml_fail_memory(err, n * sizeof *answers, "a response");
  for (size_t i = 0; status == ML_OK && i < n; i++) {
    wanted w = request->n_wanted ? request->wanted[i] : (wanted){i, 0, -1};
    status = prepare(request, &w, outputs[g->outputs[w.index].index], &answers[i], err);
  }
  if (status == ML_OK) {
    put_response(request, answers, n, out, json_size);
    if (out->status != ML_OK) status = ml_fail_memory(err, out->capacity, "a response");
  }
  for (size_t i = 0; answers && i < n; i++) ml_answer_clear(&answers[i].output);
  ml_free(answers);
  return status;
}

/* ---------------------------------------------------------------- all at once ---- */
static ml_status run(const ml_infer *r, ml_session *session, ml_json_writer *out, size_t *json_size, uint64_t *ran, ml_error *err) {
  const ml_graph *g = ml_program_graph(ml_servable_program(r->servable));
  for (size_t i = 0; i < g->n_inputs; i++) {
    const ml_view *from = &r->views[i];
    if (from->count > 0) memcpy(ml_session_input(session, i)->data, from->data, from->count * ml_dtype_size(from->dtype));
  }
  ML_TRY(ml_session_run(session, err));
  *ran = ml_clock_ns();
  const ml_view **outputs = ml_alloc((g->n_outputs + 1) * sizeof *outputs);
  if (!outputs) return ml_fail_memory(err, g->n_outputs * sizeof *outputs, "a response");
  for (size_t i = 0; i < g->n_outputs; i++) outputs[i] = ml_session_output(session, i);
  ml_status status = ml_infer_encode(r, outputs, out, json_size, err);
  ml_free(outputs);
  return status;
}

ml_status ml_servable_infer(ml_servable *servable, const char *body, size_t size, size_t json_size, const ml_infer_options *options,
                            ml_json_writer *out, size_t *out_json_size, ml_error *err) {
  ml_program *program = ml_servable_program(servable);
  ml_statistics *statistics = ml_servable_statistics(servable);
  ml_session *session = NULL;
  ml_infer *r = NULL;
  uint64_t begin = ml_clock_ns(), decoded = begin, ran = begin;
  ml_status status = ml_infer_decode(servable, body, size, json_size, options, &r, err);
  if (status == ML_OK) status = ml_program_acquire(program, r->views, &session, err);
  decoded = ml_clock_ns();
  if (status == ML_OK) {
    status = run(r, session, out, out_json_size, &ran, err);
    ml_program_return(program, session);
  }
  uint64_t end = ml_clock_ns();
  if (status == ML_OK) ml_statistics_success(statistics, ml_infer_rows(r), (uint64_t[]){decoded - begin, ran - decoded, end - ran});
  else ml_statistics_failure(statistics, end - begin);
  ml_infer_free(r);
  return status;
}

/* ---------------------------------------------------------------- batched ---- */
ml_ticket *ml_infer_ticket(ml_infer *r) { return &r->ticket; }

ml_status ml_infer_submit(ml_infer *r, const ml_request_options *options, ml_error *err) {
  ml_request_options own = *options;
  uint64_t now = ml_clock_ns();
  r->decoded_ns = now;
  if (r->priority > 0) own.priority = r->priority < UINT32_MAX ? (uint32_t)r->priority : UINT32_MAX;
  if (r->timeout > 0 && r->timeout < UINT32_MAX) {
    uint64_t deadline = now + r->timeout * 1000;
    if (!own.deadline_ns || deadline < own.deadline_ns) own.deadline_ns = deadline;
  }
  ml_status status = ml_ticket_submit(&r->ticket, r->servable, r->views, &own, err);
  if (status != ML_OK) ml_statistics_failure(ml_servable_statistics(r->servable), now - r->begin_ns);
  return status;
}

ml_status ml_infer_finish(ml_infer *r, ml_json_writer *out, size_t *json_size, ml_error *err) {
  ml_statistics *statistics = ml_servable_statistics(r->servable);
  ml_status status = ml_ticket_wait(&r->ticket, err);
  uint64_t ran = ml_clock_ns();
  if (status == ML_OK) status = ml_infer_encode(r, r->ticket.outputs, out, json_size, err);
  uint64_t end = ml_clock_ns();
  if (status == ML_OK)
    ml_statistics_success(statistics, ml_infer_rows(r), (uint64_t[]){r->decoded_ns - r->begin_ns, ran - r->decoded_ns, end - ran});
  else ml_statistics_failure(statistics, end - r->begin_ns);
  return status;
}
