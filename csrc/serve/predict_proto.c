/* A request is walked twice: past everything but its ModelSpec, because the signature decides what the inputs are, and then from input to input.
 * Elements stay where they are in the bytes until the run (serve/wire_tensor.h). The answer's size is known before its first byte is written, so
 * that nested messages are written where they belong.
 *
 * A message of proto3 may come in pieces, to be merged; of tensors, which no encoder splits, the last piece counts alone. */
#include "serve/predict_proto.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum { FILLED = 1 << 20, NAMES = 32 };

#define REFUSE(err, ...) ml_fail(err, ML_INVALID_ARGUMENT, __VA_ARGS__)

/* ---------------------------------------------------------------- element types ---- */
/* tensorflow.DataType and the field of TensorProto that lists its elements */
static const struct { uint8_t dtype, number, field;
} types[] = {
    {ML_FLOAT32, 1, 5},       {ML_FLOAT64, 2, 6},       {ML_INT32, 3, 7},         {ML_UINT8, 4, 7},         {ML_INT16, 5, 7},
    {ML_INT8, 6, 7},          {ML_STRING, 7, 8},        {ML_INT64, 9, 10},        {ML_BOOL, 10, 11},        {ML_BFLOAT16, 14, 13},
    {ML_UINT16, 17, 7},       {ML_FLOAT16, 19, 13},     {ML_UINT32, 22, 16},      {ML_UINT64, 23, 17},      {ML_FLOAT8E5M2, 24, 18},
    {ML_FLOAT8E4M3FN, 25, 18}, {ML_FLOAT8E4M3FNUZ, 26, 18}, {ML_FLOAT8E5M2FNUZ, 28, 18}, {ML_INT4, 29, 7},  {ML_UINT4, 30, 7},
    {ML_INT2, 31, 7},         {ML_UINT2, 32, 7},
};

static size_t type_of(ml_dtype dtype) {
  size_t i = 0;
  while (i < sizeof types / sizeof *types && types[i].dtype != dtype) i++;
  return i;
}

static bool has_type(ml_dtype dtype) { return type_of(dtype) < sizeof types / sizeof *types; }

static const char *name_of_number(uint64_t number, char text[32]) {
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (types[i].number != number) continue;
    const char *name = ml_tf_dtype_name(types[i].dtype);
    return strcmp(name, "invalid") == 0 ? ml_dtype_name(types[i].dtype) : name;
  }
  snprintf(text, 32, "DataType %llu", (unsigned long long)number);
  return text;
}

/* ---------------------------------------------------------------- model spec ---- */
static ml_status read_version(ml_pb_reader reader, int64_t *version, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != 1) continue;
    ML_TRY(ml_pb_expect(&field, ML_PB_VARINT, "Int64Value.value", err));
    *version = (int64_t)field.integer;
  }
  return status;
}

static ml_status read_spec(ml_pb_reader reader, ml_model_spec *spec, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  spec->given = true;
  while (ml_pb_next(&reader, &field, &status, err)) {
    switch (field.number) {
      case 1: ML_TRY(ml_wire_text(&field, "ModelSpec.name", &spec->name, err)); break;
      case 2: /* of version and label the last one counts */
        ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, "ModelSpec.version", err));
        if (!spec->versioned) spec->version = 0;
        ML_TRY(read_version(ml_pb_reader_sub(&reader, &field), &spec->version, err));
        spec->versioned = true;
        spec->labelled = false;
        break;
      case 3: ML_TRY(ml_wire_text(&field, "ModelSpec.signature_name", &spec->signature, err)); break;
      case 4:
        ML_TRY(ml_wire_text(&field, "ModelSpec.version_label", &spec->label, err));
        spec->labelled = true;
        spec->versioned = false;
        break;
      default: break;
    }
  }
  return status;
}

static ml_status peek(ml_pb_reader reader, bool task, ml_model_spec *spec, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != 1) continue;
    ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, task ? "tasks" : "model_spec", err));
    if (task) return peek(ml_pb_reader_sub(&reader, &field), false, spec, err);
    ML_TRY(read_spec(ml_pb_reader_sub(&reader, &field), spec, err));
  }
  return status;
}

ml_status ml_model_spec_peek(const void *bytes, size_t size, bool task, ml_model_spec *out, ml_error *err) {
  ml_pb_reader reader;
  ml_error local;
  if (!err) err = &local;
  *out = (ml_model_spec){0};
  ml_pb_reader_init(&reader, bytes, size);
  return ml_call_malformed(peek(reader, task, out, err), err);
}

const ml_signature *ml_model_spec_signature(const ml_call *c, ml_str asked, ml_str *name) {
  const char *otherwise = c->options.signature ? c->options.signature : ML_SERVING_DEFAULT;
  *name = asked.length > 0 ? asked : (ml_str){otherwise, strlen(otherwise)};
  return ml_servable_signature(c->servable, name->bytes, name->length);
}

/* The version of an answer. */
static uint64_t version_of(const ml_call *c) {
  return c->options.version ? strtoull(c->options.version, NULL, 10) : (uint64_t)ml_servable_version(c->servable);
}

static size_t spec_contents(const ml_call *c, const char *signature) {
  uint64_t version = version_of(c);
  size_t wrapped = version ? 1 + ml_pb_varint_size(version) : 0;
  return ml_pb_bytes_size(1, strlen(ml_call_model(c))) + ml_pb_bytes_size(2, wrapped) + ml_pb_bytes_size(3, strlen(signature));
}

size_t ml_model_spec_size(const ml_call *c, const char *signature, uint32_t number) { return ml_pb_bytes_size(number, spec_contents(c, signature)); }

uint8_t *ml_model_spec_write(const ml_call *c, const char *signature, uint32_t number, uint8_t *to) {
  uint64_t version = version_of(c);
  to = ml_pb_varint(ml_pb_tag(to, number, ML_PB_BYTES), spec_contents(c, signature));
  to = ml_wire_put_text(to, 1, ml_call_model(c), strlen(ml_call_model(c)));
  to = ml_pb_varint(ml_pb_tag(to, 2, ML_PB_BYTES), version ? 1 + ml_pb_varint_size(version) : 0);
  if (version) to = ml_pb_varint(ml_pb_tag(to, 1, ML_PB_VARINT), version);
  return ml_wire_put_text(to, 3, signature, strlen(signature));
}

/* ---------------------------------------------------------------- names ---- */
static size_t find(const ml_signature_tensor *list, size_t n, ml_str name) {
  size_t i = 0;
  while (i < n && !(strlen(list[i].name) == name.length && memcmp(list[i].name, name.bytes, name.length) == 0)) i++;
  return i;
}

static int compare(const void *left, const void *right) {
  const ml_str *a = left, *b = right;
  int order = memcmp(a->bytes, b->bytes, a->length < b->length ? a->length : b->length);
  return order ? order : (a->length > b->length) - (a->length < b->length);
}

/* In order, each once. */
static size_t unique(ml_str *names, size_t n) {
  size_t kept = 0;
  qsort(names, n, sizeof *names, compare);
  for (size_t i = 0; i < n; i++) if (kept == 0 || compare(&names[kept - 1], &names[i]) != 0) names[kept++] = names[i];
  return kept;
}

static size_t names_of(const ml_signature_tensor *list, size_t n, ml_str *names) {
  if (n > NAMES) n = NAMES;
  for (size_t i = 0; i < n; i++) names[i] = (ml_str){list[i].name, strlen(list[i].name)};
  return unique(names, n);
}

/* "a,b" of those names that are not among `without` */
static const char *join(const ml_str *names, size_t n, const ml_str *without, size_t n_without, char *text, size_t size) {
  size_t length = 0;
  text[0] = '\0';
  for (size_t i = 0; i < n && length < size; i++) {
    if (n_without > 0 && bsearch(&names[i], without, n_without, sizeof *without, compare)) continue;
    int shown = (int)(names[i].length < 60 ? names[i].length : 60);
    length += (size_t)snprintf(text + length, size - length, "%s%.*s", length ? "," : "", shown, names[i].bytes);
  }
  return text;
}

/* ---------------------------------------------------------------- tensors ---- */
typedef struct tensor { /* a TensorProto, as far as it is needed */
  uint64_t number;      /* of its type */
  int32_t rank;
  bool wrong;           /* its shape is none */
  const uint8_t *content; size_t content_size;
  int64_t dims[ML_MAX_RANK];
} tensor;

static ml_status read_dim(ml_pb_reader reader, int64_t *size, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  *size = 0;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != 1) continue;
    ML_TRY(ml_pb_expect(&field, ML_PB_VARINT, "TensorShapeProto.Dim.size", err));
    *size = (int64_t)field.integer;
  }
  return status;
}

static ml_status read_shape(ml_pb_reader reader, tensor *t, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  t->rank = 0;
  while (ml_pb_next(&reader, &field, &status, err)) {
    int64_t size;
    if (field.number != 2) continue; /* TensorFlow ignores unknown_rank here */
    ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, "TensorShapeProto.dim", err));
    ML_TRY(read_dim(ml_pb_reader_sub(&reader, &field), &size, err));
    if (t->rank == ML_MAX_RANK || size < 0) t->wrong = true;
    else t->dims[t->rank++] = size;
  }
  return status;
}

/* Of an input of this type; its elements' place goes to wire. */
static ml_status read_tensor(ml_pb_reader reader, ml_dtype dtype, tensor *t, ml_wire *wire, ml_error *err) {
  const uint8_t *message = reader.at;
  size_t size = (size_t)(reader.end - reader.at);
  ml_pb_field field;
  ml_status status;
  *t = (tensor){0};
  *wire = (ml_wire){.field = types[type_of(dtype)].field, .element = ml_wire_element(dtype)};
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number == 1) {
      ML_TRY(ml_pb_expect(&field, ML_PB_VARINT, "TensorProto.dtype", err));
      t->number = field.integer;
    } else if (field.number == 2) {
      ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, "TensorProto.tensor_shape", err));
      ML_TRY(read_shape(ml_pb_reader_sub(&reader, &field), t, err));
    } else if (field.number == 4) {
      ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, "TensorProto.tensor_content", err));
      t->content = field.bytes;
      t->content_size = field.size;
    } else if (field.number == wire->field) {
      if (ml_dtype_is_small(dtype)) {
        ML_TRY(ml_pb_expect(&field, ML_PB_BYTES, "TensorProto.float8_val", err));
        *wire = (ml_wire){.form = ML_WIRE_ELEMENTS, .bytes = field.bytes, .size = field.size, .given = field.size, .field = field.number};
      } else {
        ML_TRY(ml_wire_add(wire, &field, message, size, err));
      }
    }
  }
  return status;
}

/* tensor_content counts for more than the list. */
static bool take_content(const tensor *t, ml_dtype dtype, size_t count, ml_wire *wire) {
  *wire = (ml_wire){.bytes = t->content, .size = t->content_size};
  if (dtype == ML_STRING) {
    wire->form = ML_WIRE_LENGTHS;
    wire->given = count;
    return count <= t->content_size; /* a length takes a byte */
  }
  wire->given = t->content_size / ml_dtype_size(dtype);
  return wire->given == count && t->content_size % ml_dtype_size(dtype) == 0;
}

static bool fits(const ml_signature_tensor *in, const tensor *t) {
  if (in->rank == ML_UNKNOWN) return true;
  bool same = in->rank == t->rank;
  for (int32_t k = 0; same && k < t->rank; k++) same = in->dims[k] == ML_UNKNOWN || in->dims[k] == t->dims[k];
  return same;
}

/* Input i of the signature: what read_inputs has found of it. */
static ml_status read_input(ml_call *c, size_t i, size_t *elements, ml_error *err) {
  const ml_signature_tensor *in = &c->signature->inputs[i];
  ml_wire *wire = &c->wires[in->index];
  ml_view *v = &c->views[in->index];
  size_t most = ml_servable_max_elements(c->servable);
  ml_pb_reader reader;
  tensor t;
  char a[128], b[128];
  if (!has_type(in->dtype))
    return ml_fail(err, ML_UNIMPLEMENTED, "input '%.100s' is %s, which a request cannot hold", in->name,
                   in->dtype == ML_CONTAINER ? "a sequence or map" : ml_dtype_name(in->dtype));
  ml_pb_reader_init(&reader, wire->bytes, wire->size);
  ML_TRY(ml_call_malformed(read_tensor(reader, in->dtype, &t, wire, err), err));
  *v = (ml_view){.dtype = in->dtype, .rank = t.rank};
  memcpy(v->dims, t.dims, (size_t)t.rank * sizeof *t.dims);
  if (t.number == 0 || t.wrong || ml_shape_count(v->dims, v->rank, v->dtype, &v->count, NULL) != ML_OK)
    return REFUSE(err, "tensor parsing error: %.200s", in->name);
  if (t.number != types[type_of(in->dtype)].number)
    return REFUSE(err, "Expects arg[%zu] to be %s but %s is provided", in->index, name_of_number(types[type_of(in->dtype)].number, a),
                  name_of_number(t.number, b));
  if (!fits(in, &t))
    return REFUSE(err, "input '%.100s': expected shape %s, got %s", in->name, ml_shape_format(in->dims, in->rank, a, sizeof a),
                   ml_shape_format(t.dims, t.rank, b, sizeof b));
  if (v->count > most - *elements) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the request has more than %zu elements", most);
  *elements += v->count;
  if (t.content_size > 0) {
    if (!take_content(&t, in->dtype, v->count, wire)) return REFUSE(err, "tensor parsing error: %.200s", in->name);
  } else if (v->count > wire->given && v->count > FILLED) { /* a few bytes shall not cost gigabytes */
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "input '%.100s' has %zu elements, of which the request holds %zu: more than %d are not filled up",
                   in->name, v->count, wire->given, FILLED);
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- request ---- */
/* Name and TensorProto of an entry of `inputs`. */
static ml_status read_entry(ml_pb_reader reader, ml_str *name, ml_str *value, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  *name = *value = (ml_str){"", 0};
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number == 1) ML_TRY(ml_wire_text(&field, "inputs.key", name, err));
    else if (field.number == 2) ML_TRY(ml_wire_text(&field, "inputs.value", value, err));
  }
  return status;
}

/* The inputs are not those of the signature. */
__attribute__((cold)) static ml_status wrong_inputs(const ml_call *c, ml_pb_reader reader, ml_error *err) {
  const ml_signature *g = c->signature;
  ml_str sent[NAMES], known[NAMES], value;
  ml_pb_field field;
  ml_status status;
  char a[128], b[128], extra[96], missing[96];
  size_t n = 0;
  while (n < NAMES && ml_pb_next(&reader, &field, &status, NULL))
    if (field.number == 2 && read_entry(ml_pb_reader_sub(&reader, &field), &sent[n], &value, NULL) == ML_OK) n++;
  n = unique(sent, n);
  size_t n_known = names_of(g->inputs, g->n_inputs, known);
  if (n == n_known)
    for (size_t i = 0; i < n; i++)
      if (!bsearch(&known[i], sent, n, sizeof *sent, compare))
        return REFUSE(err, "Signature input alias: %.60s(feed name: %.60s:0) not found in request and no default value provided. Inputs expected to be "
                      "in the request {%s}, or default input alias set: ", known[i].bytes, g->inputs[find(g->inputs, g->n_inputs, known[i])].value,
                      join(sent, n, NULL, 0, a, sizeof a));
  return REFUSE(err, "input size does not match signature: %zu!=%zu len({%s}) != len({%s}). Sent extra: {%s}. Missing but required: {%s}.",
                n, g->n_inputs, join(sent, n, NULL, 0, a, sizeof a), join(known, n_known, NULL, 0, b, sizeof b),
                join(sent, n, known, n_known, extra, sizeof extra), join(known, n_known, sent, n, missing, sizeof missing));
}

static ml_status read_filter(ml_call *c, ml_str alias, ml_error *err) {
  const ml_signature *g = c->signature;
  ml_str known[NAMES];
  char text[256];
  size_t index = find(g->outputs, g->n_outputs, alias);
  int shown = (int)(alias.length < 100 ? alias.length : 100);
  if (index == g->n_outputs)
    return REFUSE(err, "output tensor alias not found in signature: %.*s Outputs expected to be in the set {%s}.", shown, alias.bytes,
                  join(known, names_of(g->outputs, g->n_outputs, known), NULL, 0, text, sizeof text));
  for (size_t i = 0; i < c->n_wanted; i++)
    if (c->wanted[i].index == index) return REFUSE(err, "duplicate output tensor alias: %.*s", shown, alias.bytes);
  return ml_call_want(c, (ml_wanted){index, 0}, err);
}

static ml_status decode(ml_call *c, const void *bytes, size_t size, ml_error *err) {
  ml_model_spec spec;
  ml_pb_reader reader, again;
  ml_pb_field field;
  ml_status status;
  ml_str name, value;
  size_t found = 0, elements = 0;
  bool extra = false;
  ML_TRY(ml_model_spec_peek(bytes, size, false, &spec, err));
  const ml_signature *g = ml_model_spec_signature(c, spec.signature, &name);
  if (!g)
    return ml_fail(err, ML_FAILED_PRECONDITION, "Serving signature key \"%.*s\" not found.", (int)(name.length < 200 ? name.length : 200),
                   name.bytes);
  c->signature = g;
  ml_pb_reader_init(&reader, bytes, size);
  again = reader;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number == 3) ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "output_filter", err), err));
    if (field.number != 2) continue;
    ML_TRY(ml_call_malformed(ml_pb_expect(&field, ML_PB_BYTES, "inputs", err), err));
    ML_TRY(ml_call_malformed(read_entry(ml_pb_reader_sub(&reader, &field), &name, &value, err), err));
    size_t i = find(g->inputs, g->n_inputs, name);
    if (i == g->n_inputs) {
      extra = true;
      continue;
    }
    ml_wire *wire = &c->wires[g->inputs[i].index]; /* of an input that comes twice the last one counts */
    if (!wire->bytes) found++;
    *wire = (ml_wire){.bytes = (const uint8_t *)value.bytes, .size = value.length};
  }
  if (extra || found < g->n_inputs) return wrong_inputs(c, again, err);
  for (size_t i = 0; i < g->n_inputs; i++) ML_TRY(read_input(c, i, &elements, err));
  while (ml_pb_next(&again, &field, &status, err))
    if (field.number == 3) ML_TRY(read_filter(c, (ml_str){(const char *)field.bytes, field.size}, err));
  return ML_OK;
}

/* ---------------------------------------------------------------- response ---- */
static size_t shape_size(const ml_view *v) {
  size_t size = 0;
  for (int32_t k = 0; k < v->rank; k++) size += ml_pb_bytes_size(2, v->dims[k] ? 1 + ml_pb_varint_size((uint64_t)v->dims[k]) : 0);
  return size;
}

static size_t content_size(const ml_view *v) {
  size_t size = v->count * ml_dtype_size(v->dtype);
  if (v->dtype != ML_STRING) return size;
  size = 0;
  for (size_t i = 0; i < v->count; i++) size += ml_pb_varint_size(((const ml_str *)v->data)[i].length) + ((const ml_str *)v->data)[i].length;
  return size;
}

static uint8_t *put_content(const ml_view *v, uint8_t *to) {
  const ml_str *strings = v->data;
  if (v->dtype != ML_STRING) {
    size_t size = v->count * ml_dtype_size(v->dtype);
    memcpy(to, v->data, size);
    return to + size;
  }
  for (size_t i = 0; i < v->count; i++) to = ml_pb_varint(to, strings[i].length);
  for (size_t i = 0; i < v->count; i++) {
    if (strings[i].length > 0) memcpy(to, strings[i].bytes, strings[i].length);
    to += strings[i].length;
  }
  return to;
}

/* The answer's sizes, innermost first. */
static ml_status measure(ml_call *c, ml_answer *a, ml_error *err) {
  const ml_view *v = &a->view;
  size_t type = type_of(v->dtype), list = 0;
  if (type == sizeof types / sizeof *types)
    return ml_fail(err, ML_UNIMPLEMENTED, "output '%.100s' has a type that TensorFlow does not know (%s)", a->name, ml_dtype_name(v->dtype));
  a->bytes = c->options.content ? content_size(v) : ml_wire_list_size(v, types[type].field);
  if (v->count > 0) {
    if (c->options.content) list = ml_pb_bytes_size(4, a->bytes);
    else list = v->dtype == ML_STRING ? a->bytes : ml_pb_bytes_size(types[type].field, a->bytes);
  }
  a->whole = 1 + ml_pb_varint_size(types[type].number) + ml_pb_bytes_size(2, shape_size(v)) + list;
  return ML_OK;
}

static size_t entry_size(const ml_answer *a) { return ml_pb_bytes_size(1, strlen(a->name)) + ml_pb_bytes_size(2, a->whole); }

static uint8_t *put_answer(const ml_call *c, const ml_answer *a, uint8_t *to) {
  const ml_view *v = &a->view;
  size_t type = type_of(v->dtype);
  to = ml_pb_varint(ml_pb_tag(to, 1, ML_PB_BYTES), entry_size(a));
  to = ml_wire_put_text(to, 1, a->name, strlen(a->name));
  to = ml_pb_varint(ml_pb_tag(to, 2, ML_PB_BYTES), a->whole);
  to = ml_pb_varint(ml_pb_tag(to, 1, ML_PB_VARINT), types[type].number);
  to = ml_pb_varint(ml_pb_tag(to, 2, ML_PB_BYTES), shape_size(v));
  for (int32_t k = 0; k < v->rank; k++) {
    uint64_t dim = (uint64_t)v->dims[k];
    to = ml_pb_varint(ml_pb_tag(to, 2, ML_PB_BYTES), dim ? 1 + ml_pb_varint_size(dim) : 0);
    if (dim) to = ml_pb_varint(ml_pb_tag(to, 1, ML_PB_VARINT), dim);
  }
  if (v->count == 0) return to;
  if (c->options.content) return put_content(v, ml_pb_varint(ml_pb_tag(to, 4, ML_PB_BYTES), a->bytes));
  if (v->dtype != ML_STRING) to = ml_pb_varint(ml_pb_tag(to, types[type].field, ML_PB_BYTES), a->bytes);
  return ml_wire_list_write(v, types[type].field, to);
}

static ml_status encode(ml_call *c, ml_pb_writer *out, ml_error *err) {
  const ml_signature *g = c->signature;
  size_t n = ml_call_n_outputs(c), size = ml_model_spec_size(c, g->name, 2);
  for (size_t i = 0; i < n; i++) {
    const ml_signature_tensor *t = &g->outputs[ml_call_wanted(c, i).index];
    ML_TRY(ml_answer_set(&c->answers[i], t->name, c->outputs[t->index], err));
    ML_TRY(measure(c, &c->answers[i], err));
    if (!ml_add_size(size, ml_pb_bytes_size(1, entry_size(&c->answers[i])), &size)) size = SIZE_MAX;
  }
  if (size > INT32_MAX) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the answer has %zu bytes, a message at most %d", size, INT32_MAX);
  uint8_t *to = ml_pb_reserve(out, size);
  if (!to) return ml_fail_memory(err, size, "a response");
  for (size_t i = 0; i < n; i++) to = put_answer(c, &c->answers[i], to);
  to = ml_model_spec_write(c, g->name, 2, to);
  out->size = (size_t)(to - out->bytes);
  return ML_OK;
}

const ml_call_codec ml_predict_proto = {decode, encode, false};

/* ---------------------------------------------------------------- a tensor alone ---- */
static ml_status no_tensor(ml_error *err) { return ml_fail(err, ML_DATA_LOSS, "a tensor whose type, shape and elements do not agree"); }

/* Its type is wanted before its elements are looked for. */
static ml_status read_number(ml_pb_reader reader, ml_dtype *dtype, ml_error *err) {
  ml_pb_field field;
  ml_status status;
  *dtype = ML_DTYPE_NONE;
  while (ml_pb_next(&reader, &field, &status, err)) {
    if (field.number != 1) continue;
    ML_TRY(ml_pb_expect(&field, ML_PB_VARINT, "TensorProto.dtype", err));
    *dtype = ML_DTYPE_NONE;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) if (types[i].number == field.integer) *dtype = types[i].dtype;
  }
  return status;
}

static ml_status read_strings(const ml_wire *wire, const tensor *t, size_t count, ml_tensor **out, ml_error *err) {
  ml_str *strings = ml_alloc_zero(count + 1, sizeof *strings);
  if (!strings) return ml_fail_memory(err, count * sizeof *strings, "an answer");
  ml_status status = ml_wire_copy(wire, ML_STRING, count, strings, err);
  if (status == ML_OK) status = ml_tensor_from_strings(strings, t->dims, t->rank, out, err);
  ml_free(strings);
  return status;
}

ml_status ml_tensor_proto_read(const void *bytes, size_t size, ml_tensor **out, ml_error *err) {
  ml_pb_reader reader;
  ml_dtype dtype;
  tensor t;
  ml_wire wire;
  size_t count;
  *out = NULL;
  ml_pb_reader_init(&reader, bytes, size);
  ML_TRY(read_number(reader, &dtype, err));
  if (!dtype) return no_tensor(err);
  ML_TRY(read_tensor(reader, dtype, &t, &wire, err));
  if (t.wrong || ml_shape_count(t.dims, t.rank, dtype, &count, NULL) != ML_OK) return no_tensor(err);
  if (t.content_size > 0) {
    if (!take_content(&t, dtype, count, &wire)) return no_tensor(err);
  } else if (count > wire.given && count > FILLED) { /* a few bytes shall not cost gigabytes */
    return no_tensor(err);
  }
  if (dtype == ML_STRING) return read_strings(&wire, &t, count, out, err);
  ML_TRY(ml_tensor_new(dtype, t.dims, t.rank, out, err));
  ml_status status = ml_wire_copy(&wire, dtype, count, (*out)->view.data, err);
  if (status == ML_OK) return ML_OK;
  ml_tensor_release(*out);
  *out = NULL;
  return status;
}

ml_status ml_tensor_proto_write(const ml_view *view, ml_pb_writer *out, ml_error *err) {
  if (!has_type(view->dtype)) return ml_fail(err, ML_INVALID_ARGUMENT, "TensorFlow has no element type %s", ml_dtype_name(view->dtype));
  ml_pb_put_varint(out, 1, types[type_of(view->dtype)].number);
  size_t shape = ml_pb_open(out, 2);
  for (int32_t k = 0; k < view->rank; k++) {
    size_t dim = ml_pb_open(out, 2);
    ml_pb_put_varint(out, 1, (uint64_t)view->dims[k]);
    ml_pb_close(out, dim);
  }
  ml_pb_close(out, shape);
  if (view->dtype == ML_STRING) {
    const ml_str *strings = view->data;
    for (size_t i = 0; i < view->count; i++) ml_pb_put_bytes(out, 8, strings[i].bytes, strings[i].length);
  } else if (view->count > 0) {
    ml_pb_put_bytes(out, 4, view->data, view->count * ml_dtype_size(view->dtype));
  }
  return out->status == ML_OK ? ML_OK : ml_fail_memory(err, out->size, "a request");
}
