/* Refusals repeat the words of Triton's core and front ends, because clients match on them. */
#include "serve/infer_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "serve/statistics.h"

enum { CLASS_ELEMENTS = 1000000 };

#define REFUSE(err, ...) ml_fail(err, ML_INVALID_ARGUMENT, __VA_ARGS__)
#define REFUSE_WITH_ID(err, ...) (*prefixed = true, ml_fail(err, ML_INVALID_ARGUMENT, __VA_ARGS__))

/* ---------------------------------------------------------------- names ---- */
static const struct { ml_dtype dtype; const char *name;
} dtypes[] = {
    {ML_BOOL, "BOOL"},     {ML_UINT8, "UINT8"},     {ML_UINT16, "UINT16"}, {ML_UINT32, "UINT32"}, {ML_UINT64, "UINT64"},
    {ML_INT8, "INT8"},     {ML_INT16, "INT16"},     {ML_INT32, "INT32"},   {ML_INT64, "INT64"},   {ML_FLOAT16, "FP16"},
    {ML_BFLOAT16, "BF16"}, {ML_FLOAT32, "FP32"},    {ML_FLOAT64, "FP64"},  {ML_STRING, "BYTES"},  {ML_CONTAINER, "BYTES"},
};

const char *ml_infer_dtype_name(ml_dtype dtype) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) if (dtypes[i].dtype == dtype) return dtypes[i].name;
  return NULL;
}

static bool is(const char *key, size_t length, const char *text) { return length == strlen(text) && memcmp(key, text, length) == 0; }

ml_dtype ml_infer_dtype(const char *name, size_t length) {
  for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) if (is(name, length, dtypes[i].name)) return dtypes[i].dtype;
  return ML_DTYPE_NONE;
}

const ml_signature *ml_infer_signature(const ml_servable *servable) {
  const ml_signature *g = ml_servable_signature(servable, ML_SERVING_DEFAULT, strlen(ML_SERVING_DEFAULT));
  return g ? g : ml_servable_signature_at(servable, 0);
}

static bool any_size(const ml_value *v) {
  return v->type ? ml_type_kind(v->type) == ML_KIND_SEQUENCE : v->rank > 0 && v->dims[0] == ML_UNKNOWN;
}

bool ml_servable_batches(const ml_servable *servable) {
  const ml_graph *g = ml_program_graph(ml_servable_program(servable));
  for (size_t i = 0; i < g->n_inputs; i++) if (g->inputs[i]->type || !any_size(g->inputs[i])) return false;
  for (size_t i = 0; i < g->n_outputs; i++) if (!any_size(g->outputs[i])) return false;
  return g->n_inputs > 0;
}

int32_t ml_servable_max_batch(const ml_servable *servable) {
  const ml_graph *g = ml_program_graph(ml_servable_program(servable));
  size_t most = ml_servable_max_elements(servable), row = 0;
  if (!ml_servable_batches(servable)) return 0;
  for (size_t i = 0; i < g->n_inputs; i++) {
    size_t size = 1;
    for (int32_t k = 1; k < g->inputs[i]->rank; k++)
      if (g->inputs[i]->dims[k] > 0 && !ml_mul_size(size, (size_t)g->inputs[i]->dims[k], &size)) return 1;
    if (!ml_add_size(row, size, &row)) return 1;
  }
  size_t batch = most / row;
  return batch < 1 ? 1 : batch > INT32_MAX ? INT32_MAX : (int32_t)batch;
}

size_t ml_infer_find(const ml_signature_tensor *list, size_t n, const char *name, size_t length) {
  size_t i = 0;
  while (i < n && !is(name, length, list[i].name)) i++;
  return i;
}

/* ---------------------------------------------------------------- inputs ---- */
/* "[-1,3]" */
static const char *dims_text(const int64_t *dims, int32_t rank, char *text, size_t size) { return ml_json_shape_text(dims, rank, text, size); }

ml_status ml_infer_accept(const ml_infer_asked *asked, const ml_signature_tensor *t, ml_dtype dtype, const int64_t *dims, int32_t rank,
                          size_t *elements, ml_view *v, bool *prefixed, ml_error *err) {
  ml_error detail;
  char a[340], b[340];
  bool same = t->rank == ML_UNKNOWN || t->rank == rank;
  const char *expected = ml_infer_dtype_name(t->dtype);
  if (t->dtype == ML_CONTAINER || !expected)
    return ml_fail(err, ML_UNIMPLEMENTED, "input '%.100s' of model '%s' has a type that the protocol does not know (%s)", t->name,
                          asked->model, t->dtype == ML_CONTAINER ? "a sequence or map" : ml_dtype_name(t->dtype));
  if (dtype == ML_DTYPE_NONE) return REFUSE(err, "invalid datatype for input %.100s", t->name);
  if (dtype != t->dtype)
    return REFUSE_WITH_ID(err, "inference input '%.100s' data-type is '%s', but model '%s' expects '%s'", t->name, ml_infer_dtype_name(dtype),
                          asked->model, expected);
  for (int32_t k = 0; same && t->rank != ML_UNKNOWN && k < rank; k++) same = t->dims[k] == ML_UNKNOWN || t->dims[k] == dims[k];
  if (!same)
    return REFUSE_WITH_ID(err, "unexpected shape for input '%.60s' for model '%s'. Expected %.120s, got %.120s. ", t->name, asked->model,
                          dims_text(t->dims, t->rank, a, sizeof a), dims_text(dims, rank, b, sizeof b));
  *v = (ml_view){.dtype = dtype, .rank = rank};
  if (rank > 0) memcpy(v->dims, dims, (size_t)rank * sizeof *dims);
  if (ml_shape_count(dims, rank, dtype, &v->count, &detail) != ML_OK)
    return REFUSE(err, "invalid shape for input '%.60s': shape %.120s causes total element count to exceed maximum size of %lld", t->name,
                  dims_text(dims, rank, b, sizeof b), (long long)INT64_MAX);
  size_t most = ml_servable_max_elements(asked->servable);
  if (v->count > most - *elements)
    return REFUSE(err, "input '%.100s': the request has more than %zu elements", t->name, most);
  *elements += v->count;
  return ML_OK;
}

/* Are these the strings of the view? */
static ml_status check_strings(const ml_infer_asked *asked, const char *name, const ml_view *v, const uint8_t *bytes, size_t size, bool *prefixed,
                               ml_error *err) {
  size_t n = 0;
  while (size > 0) {
    uint32_t length;
    if (size < sizeof length)
      return REFUSE_WITH_ID(err, "incomplete string length indicator for inference input '%.100s' for model '%s', expecting 4 bytes but only %zu "
                            "bytes available. Please make sure the string length indicator is in one buffer.", name, asked->model, size);
    if (n == v->count)
      return REFUSE_WITH_ID(err, "unexpected number of string elements %zu for inference input '%.100s' for model '%s', expecting %zu", n + 1,
                            name, asked->model, v->count);
    memcpy(&length, bytes, sizeof length);
    bytes += sizeof length;
    size -= sizeof length;
    if (length > size)
      return REFUSE_WITH_ID(err, "incomplete string data for inference input '%.100s' for model '%s', expecting string of length %u but only %zu "
                            "bytes available", name, asked->model, length, size);
    n++;
    bytes += length;
    size -= length;
  }
  if (n != v->count)
    return REFUSE_WITH_ID(err, "expected %zu string elements for inference input '%.100s' for model '%s', got %zu", v->count, name, asked->model, n);
  return ML_OK;
}

ml_status ml_infer_binary(const ml_infer_asked *asked, const char *name, const ml_view *v, const void *bytes, size_t size, ml_wire *wire,
                          bool *prefixed, ml_error *err) {
  size_t each = ml_dtype_size(v->dtype), expected = v->count * each; /* ml_shape_count has checked it */
  *wire = (ml_wire){.form = v->dtype == ML_STRING ? ML_WIRE_PREFIXED : ML_WIRE_ELEMENTS, .bytes = bytes, .size = size, .given = v->count};
  if (v->dtype == ML_STRING) return check_strings(asked, name, v, bytes, size, prefixed, err);
  if (size == expected) return ML_OK;
  return REFUSE_WITH_ID(err, "input byte size mismatch for input '%.100s' for model '%s'. Expected %zu, got %zu", name, asked->model, expected, size);
}

/* "['a','b']" of the inputs that are there, or of those that are missing */
static const char *input_names(const ml_signature *g, const bool *given, bool seen, const char *unknown, char *text, size_t size) {
  size_t n = (size_t)snprintf(text, size, "[");
  for (size_t i = 0; i < g->n_inputs && n < size; i++)
    if (given[i] == seen) n += (size_t)snprintf(text + n, size - n, "%s'%.40s'", n > 1 ? "," : "", g->inputs[i].name);
  if (seen && unknown && n < size) n += (size_t)snprintf(text + n, size - n, "%s'%.40s'", n > 1 ? "," : "", unknown);
  if (n < size) snprintf(text + n, size - n, "]");
  return text;
}

ml_status ml_infer_check(const ml_infer_asked *asked, const ml_signature *g, size_t n_given, const bool *seen, const char *unknown, bool *prefixed,
                         ml_error *err) {
  char have[120], missing[120];
  if (n_given != g->n_inputs)
    return REFUSE_WITH_ID(err, "expected %zu inputs but got %zu inputs for model '%s'. Got input(s) %s, but missing required input(s) %s. Please "
                          "provide all required input(s).", g->n_inputs, n_given, asked->model,
                          input_names(g, seen, true, unknown, have, sizeof have), input_names(g, seen, false, unknown, missing, sizeof missing));
  if (unknown) return REFUSE(err, "unexpected inference input '%s' for model '%s'", unknown, asked->model);
  return ML_OK;
}

ml_status ml_infer_with_id(const char *id, size_t length, ml_status status, ml_error *err) {
  ml_error plain = *err;
  return ml_fail(err, status, "[request id: %.*s] %.400s", length ? (int)(length < 100 ? length : 100) : 12, length ? id : "<id_unknown>", plain.message);
}

/* ---------------------------------------------------------------- classification ---- */
typedef struct ranked { uint64_t key; size_t index; } ranked;

/* Unsigned numbers in the order of the elements; NaN comes before all others. */
static uint64_t order_key(const ml_view *v, size_t at) {
  const uint64_t top = UINT64_C(1) << 63;
  uint64_t bits;
  if (v->dtype == ML_UINT64) return ((const uint64_t *)v->data)[at];
  if (v->dtype == ML_INT64) return ((const uint64_t *)v->data)[at] ^ top;
  double value = ml_element_get(v->data, v->dtype, at) + 0.0; /* -0 is 0 */
  if (value != value) return 0;
  memcpy(&bits, &value, sizeof bits);
  return bits & top ? ~bits : bits | top;
}

/* Larger first, then by index. */
static int compare(const void *left, const void *right) {
  const ranked *a = left, *b = right;
  if (a->key != b->key) return a->key < b->key ? 1 : -1;
  return (a->index > b->index) - (a->index < b->index);
}

/* "value:index" as Triton prints them: floats with six digits behind the point. */
static size_t print_class(const ml_view *v, size_t at, size_t index, char *text, size_t size) {
  int n;
  if (ml_dtype_is_float(v->dtype)) n = snprintf(text, size, "%f:%zu", ml_element_get(v->data, v->dtype, at), index);
  else if (v->dtype == ML_UINT64) n = snprintf(text, size, "%llu:%zu", (unsigned long long)((const uint64_t *)v->data)[at], index);
  else if (v->dtype == ML_INT64) n = snprintf(text, size, "%lld:%zu", (long long)((const int64_t *)v->data)[at], index);
  else n = snprintf(text, size, "%.0f:%zu", ml_element_get(v->data, v->dtype, at), index);
  return (size_t)n;
}

/* Appends ":label" when the model knows a name for the class: its property "mlserve.classes" is a list of texts or numbers. */
static void put_label(const ml_servable *s, size_t index, ml_json_writer *out) {
  const ml_property *classes = ml_graph_property(ml_program_graph(ml_servable_program(s)), "mlserve.classes");
  ml_json_reader reader;
  bool first = true, more;
  if (!classes) return;
  ml_json_reader_init(&reader, classes->value, classes->length);
  if (ml_json_peek(&reader) != ML_JSON_ARRAY || ml_json_enter_array(&reader, NULL) != ML_OK) return;
  for (size_t i = 0; ml_json_array_next(&reader, &first, &more, NULL) == ML_OK && more; i++) {
    ml_json_kind kind = ml_json_peek(&reader);
    const char *begin = reader.at;
    size_t length;
    if (i < index || (kind != ML_JSON_STRING && kind != ML_JSON_NUMBER)) {
      if (i == index || ml_json_skip(&reader, NULL) != ML_OK) return;
      continue;
    }
    if (kind == ML_JSON_NUMBER) {
      if (ml_json_skip(&reader, NULL) != ML_OK) return;
      ml_json_put_literal(out, ":");
      ml_json_put_raw(out, begin, (size_t)(reader.at - begin));
      return;
    }
    char *text = ml_json_string_length(&reader, &length, NULL) == ML_OK ? ml_alloc(length) : NULL;
    if (text && ml_json_string_read(&reader, text, &length, NULL) == ML_OK) {
      ml_json_put_literal(out, ":");
      ml_json_put_raw(out, text, length);
    }
    ml_free(text);
    return;
  }
}

static ml_status from_classes(const ml_servable *servable, ml_answer *a, const ml_view *v, uint64_t classes, ml_error *err) {
  bool batch = v->rank > 0 && ml_servable_batches(servable);
  size_t rows = batch ? (size_t)v->dims[0] : 1, each = rows ? v->count / rows : 0;
  const char *name = ml_infer_dtype_name(v->dtype);
  if (!name || v->type || v->dtype == ML_STRING || v->dtype == ML_BOOL || v->dtype == ML_FLOAT16 || v->dtype == ML_BFLOAT16)
    return ml_fail(err, ML_INVALID_ARGUMENT, "class result not available for output due to unsupported type '%s'",
                   name ? name : ml_dtype_name(v->dtype));
  if (each > CLASS_ELEMENTS) return ml_fail(err, ML_INVALID_ARGUMENT, "classification output tensor too large");
  size_t k = classes < each ? (size_t)classes : each;
  ranked *all = ml_alloc((each + 1) * sizeof *all);
  if (!all) return ml_fail_memory(err, each * sizeof *all, "a response");
  ml_status status = ml_answer_strings(a, rows * k, err);
  for (size_t row = 0; status == ML_OK && row < rows; row++) {
    for (size_t i = 0; i < each; i++) all[i] = (ranked){order_key(v, row * each + i), i};
    qsort(all, each, sizeof *all, compare);
    for (size_t i = 0; i < k; i++) {
      char text[400]; /* a float64 has up to 309 digits before the point */
      ml_json_put_raw(&a->text, text, print_class(v, row * each + all[i].index, all[i].index, text, sizeof text));
      put_label(servable, all[i].index, &a->text);
      ml_answer_end_string(a, row * k + i);
    }
  }
  ml_free(all);
  ML_TRY(status);
  a->view.rank = batch ? 2 : 1;
  if (batch) a->view.dims[0] = (int64_t)rows;
  a->view.dims[a->view.rank - 1] = (int64_t)k;
  return ml_answer_place(a, err);
}

ml_status ml_infer_answer(const ml_servable *servable, ml_answer *a, const char *name, const ml_view *output, uint64_t classes, ml_error *err) {
  a->name = name;
  if (classes > 0) ML_TRY(from_classes(servable, a, output, classes, err));
  else ML_TRY(ml_answer_set(a, name, output, err));
  if (!ml_infer_dtype_name(a->view.dtype))
    return ml_fail(err, ML_UNIMPLEMENTED, "output '%.100s' has a type that the protocol does not know (%s)", name, ml_dtype_name(a->view.dtype));
  return ML_OK;
}

ml_status ml_infer_binary_size(const ml_answer *a, size_t *size, ml_error *err) {
  const ml_str *strings = a->view.data;
  *size = a->view.dtype == ML_STRING ? 0 : a->view.count * ml_dtype_size(a->view.dtype);
  for (size_t i = 0; a->view.dtype == ML_STRING && i < a->view.count; i++)
    if (strings[i].length > UINT32_MAX || !ml_add_size(*size, strings[i].length + sizeof(uint32_t), size))
      return ml_fail(err, ML_INVALID_ARGUMENT, "output '%.100s': a string is too long", a->name);
  return ML_OK;
}

uint8_t *ml_infer_binary_write(const ml_view *v, uint8_t *to) {
  const ml_str *strings = v->data;
  if (v->dtype != ML_STRING) {
    size_t size = v->count * ml_dtype_size(v->dtype);
    if (size > 0) memcpy(to, v->data, size);
    return to + size;
  }
  for (size_t i = 0; i < v->count; i++) {
    uint32_t length = (uint32_t)strings[i].length;
    memcpy(to, &length, sizeof length);
    if (length > 0) memcpy(to + sizeof length, strings[i].bytes, length);
    to += sizeof length + length;
  }
  return to;
}

/* ---------------------------------------------------------------- statistics ---- */
static void put_counter(ml_json_writer *out, const char *key, const atomic_uint_least64_t *counter) {
  ml_json_put_string(out, key, strlen(key));
  ml_json_put_literal(out, ": ");
  ml_json_put_uint64(out, atomic_load_explicit(counter, memory_order_relaxed));
}

static void put_duration(ml_json_writer *out, const char *key, const atomic_uint_least64_t *count, const atomic_uint_least64_t *ns) {
  static const atomic_uint_least64_t none;
  ml_json_put_string(out, key, strlen(key));
  ml_json_put_literal(out, ": {");
  put_counter(out, "count", count ? count : &none);
  ml_json_put_literal(out, ", ");
  put_counter(out, "ns", ns ? ns : &none);
  ml_json_put_literal(out, "}");
}

void ml_infer_put_version(const ml_servable *servable, const char *version, ml_json_writer *out) {
  char text[24];
  snprintf(text, sizeof text, "%lld", (long long)ml_servable_version(servable));
  ml_json_put_string(out, version ? version : text, strlen(version ? version : text));
}

void ml_servable_put_statistics(const ml_servable *servable, const char *model, const char *version, ml_json_writer *out) {
  const ml_statistics *s = ml_servable_statistics(servable);
  bool any = false;
  if (!model) model = ml_servable_model(servable);
  ml_json_put_literal(out, "{\"name\": ");
  ml_json_put_string(out, model, strlen(model));
  ml_json_put_literal(out, ", \"version\": ");
  ml_infer_put_version(servable, version, out);
  ml_json_put_literal(out, ", ");
  put_counter(out, "last_inference", &s->last_ms);
  ml_json_put_literal(out, ", ");
  put_counter(out, "inference_count", &s->inferences);
  ml_json_put_literal(out, ", ");
  put_counter(out, "execution_count", &s->executions);
  const struct { const char *key; const atomic_uint_least64_t *count, *ns;
  } durations[] = {
      {"success", &s->successes, &s->success_ns},     {"fail", &s->failures, &s->failure_ns},
      {"queue", &s->successes, NULL},                 {"compute_input", &s->successes, &s->input_ns},
      {"compute_infer", &s->successes, &s->infer_ns}, {"compute_output", &s->successes, &s->output_ns},
      {"cache_hit", NULL, NULL},                      {"cache_miss", NULL, NULL},
  };
  ml_json_put_literal(out, ", \"inference_stats\": {");
  for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
    if (i) ml_json_put_literal(out, ", ");
    put_duration(out, durations[i].key, durations[i].count, durations[i].ns);
  }
  ml_json_put_literal(out, "}, \"response_stats\": {}, \"batch_stats\": [");
  for (size_t i = 0; i < ML_STATISTICS_SIZES && atomic_load(&s->batches[i].size) > 0; i++) {
    if (any) ml_json_put_literal(out, ", ");
    any = true;
    ml_json_put_literal(out, "{");
    put_counter(out, "batch_size", &s->batches[i].size);
    ml_json_put_literal(out, ", ");
    put_duration(out, "compute_input", &s->batches[i].count, &s->batches[i].input_ns);
    ml_json_put_literal(out, ", ");
    put_duration(out, "compute_infer", &s->batches[i].count, &s->batches[i].infer_ns);
    ml_json_put_literal(out, ", ");
    put_duration(out, "compute_output", &s->batches[i].count, &s->batches[i].output_ns);
    ml_json_put_literal(out, "}");
  }
  ml_json_put_literal(out, "], \"memory_usage\": []}");
}
