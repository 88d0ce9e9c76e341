/* The C API (mlserve.h) as a program uses it. Expected values: spec/golden (ONNX Runtime, NumPy, scikit-learn) and ONNX's node tests in
 * libonnx-testdata. Run from the root of the repository. The core is used for reading .pb files and for making allocations fail only. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/file.h"
#include "format/onnx.h"
#include "tensor/container.h"
#include "mlserve.h"
#include "tap.h"

#define GOLDEN "spec/golden/"
#define NODE "/usr/share/libonnx-testdata/data/node/test_"
#define NETWORK GOLDEN "onnx/network/model.onnx"
enum { MAX_IO = 12 };

static char message[MLSERVE_MESSAGE_MAX];
#define MESSAGE message, sizeof message

static bool fails(mlserve_status status, mlserve_status expected, const char *text) {
  return status == expected && strstr(message, text) != NULL;
}

/* ---------------------------------------------------------------- recorded cases ---- */

/* Neither tensor nor container: there is no such file. */
static ml_item recorded(const char *directory, const char *kind, size_t i, const mlserve_info *info) {
  char path[512];
  ml_file_map map;
  ml_error err;
  ml_item item = { NULL, NULL };
  uint32_t type;
  const char *name;
  size_t name_length;
  snprintf(path, sizeof path, "%s/test_data_set_0/%s_%zu.pb", directory, kind, i);
  if (!info || ml_file_open_map(path, &map, &err) != ML_OK) return item;
  if (!ok(ml_type_parse(mlserve_info_type(info), &type), "%s: %s is a type", path, mlserve_info_type(info))) type = 0;
  if (ml_onnx_value_read(map.bytes, map.size, path, type, &item, &name, &name_length, &err) != ML_OK) ok(false, "%s", err.message);
  ml_file_unmap(&map);
  return item;
}

static bool is_item(ml_item item) { return item.tensor || item.container; }

static mlserve_value *tensor_of(const ml_view *view) {
  mlserve_value *value = NULL;
  if (view->dtype == ML_STRING) {
    const char *strings[64] = { NULL };
    size_t lengths[64] = { 0 };
    for (size_t i = 0; i < view->count && i < 64; i++) {
      strings[i] = ((const ml_str *)view->data)[i].bytes;
      lengths[i] = ((const ml_str *)view->data)[i].length;
    }
    mlserve_value_strings(strings, lengths, view->dims, view->rank, &value, MESSAGE);
  } else {
    mlserve_value_wrap((mlserve_dtype)view->dtype, view->dims, view->rank, view->data, view->count * ml_dtype_size(view->dtype), &value, MESSAGE);
  }
  return value;
}

/* With the type, or for what is not empty with that of the items. */
static mlserve_value *value_of(const ml_item *item, bool typed) {
  const ml_container *c = item->container;
  mlserve_value *value = NULL, *items[MAX_IO] = { NULL };
  char type[128];
  if (!c) return tensor_of(&item->tensor->view);
  for (size_t i = 0; i < c->count && i < MAX_IO; i++) items[i] = value_of(&c->items[i], typed);
  ml_type_format(c->type, type, sizeof type);
  switch (ml_type_kind(c->type)) {
  case ML_KIND_SEQUENCE: mlserve_value_sequence(typed || c->count == 0 ? type : NULL, items, c->count, &value, MESSAGE); break;
  case ML_KIND_OPTIONAL: mlserve_value_optional(typed || c->count == 0 ? type : NULL, items[0], &value, MESSAGE); break;
  default: mlserve_value_map(items[0], items[1], &value, MESSAGE);
  }
  for (size_t i = 0; i < MAX_IO; i++) mlserve_value_free(items[i]); /* the whole has copies */
  ok(value && strcmp(mlserve_value_type(value), type) == 0, "a value of type %s: %s", type, message);
  return value;
}

static bool same_element(const mlserve_value *value, size_t i, const ml_view *expected, size_t j) {
  size_t size = ml_dtype_size(expected->dtype);
  if (expected->dtype == ML_STRING) {
    ml_str want = ((const ml_str *)expected->data)[j];
    const char *string;
    size_t length;
    if (mlserve_value_string(value, i, &string, &length, MESSAGE) != MLSERVE_OK) return false;
    return length == want.length && memcmp(string, want.bytes, length) == 0;
  }
  const char *data = mlserve_value_data(value);
  if (expected->dtype != ML_FLOAT32) return memcmp(data + i * size, (const char *)expected->data + j * size, size) == 0;
  double got = (double)((const float *)(const void *)data)[i], want = (double)((const float *)expected->data)[j];
  return fabs(got - want) <= 1e-6 + 1e-5 * fabs(want);
}

static bool same_tensor(const mlserve_value *value, const ml_view *expected) {
  bool strings = expected->dtype == ML_STRING;
  size_t size = strings ? 0 : ml_dtype_size(expected->dtype);
  if (mlserve_value_dtype(value) != (mlserve_dtype)expected->dtype || mlserve_value_rank(value) != expected->rank) return false;
  for (int32_t d = 0; d < expected->rank; d++) if (mlserve_value_dim(value, d) != expected->dims[d]) return false;
  if (mlserve_value_count(value) != expected->count || mlserve_value_bytes(value) != expected->count * size) return false;
  if (mlserve_dtype_size(mlserve_value_dtype(value)) != size || (strings && mlserve_value_data(value))) return false;
  for (size_t i = 0; i < expected->count; i++) if (!same_element(value, i, expected, i)) return false;
  return true;
}

/* The same keys with the same values, in any order. */
static bool same_map(const mlserve_value *map, const ml_view *expected_keys, const ml_view *expected_values) {
  mlserve_value *keys, *values;
  bool right = mlserve_value_keys(map, &keys, MESSAGE) == MLSERVE_OK;
  right = mlserve_value_values(map, &values, MESSAGE) == MLSERVE_OK && right && mlserve_value_items(map) == expected_keys->count;
  right = right && mlserve_value_count(keys) == expected_keys->count && mlserve_value_count(values) == expected_keys->count;
  for (size_t i = 0; right && i < expected_keys->count; i++) {
    size_t at = 0;
    while (at < expected_keys->count && !same_element(keys, at, expected_keys, i)) at++;
    right = at < expected_keys->count && same_element(values, at, expected_values, i);
  }
  mlserve_value_free(keys);
  mlserve_value_free(values);
  return right;
}

static bool same(const mlserve_value *value, const ml_item *expected) {
  const ml_container *c = expected->container;
  uint32_t type;
  if (!c) return same_tensor(value, &expected->tensor->view);
  if (!mlserve_value_type(value) || !ml_type_parse(mlserve_value_type(value), &type) || !ml_type_fits(type, c->type)) return false;
  if (mlserve_value_kind(value) == MLSERVE_KIND_MAP) return same_map(value, &c->items[0].tensor->view, &c->items[1].tensor->view);
  bool right = mlserve_value_items(value) == c->count;
  for (size_t i = 0; right && i < c->count; i++) {
    mlserve_value *part;
    right = mlserve_value_item(value, i, &part, MESSAGE) == MLSERVE_OK && same(part, &c->items[i]);
    mlserve_value_free(part);
  }
  return right && mlserve_value_rank(value) == -1 && mlserve_value_count(value) == 0 && !mlserve_value_data(value);
}

typedef struct test_case {
  const char *directory;
  mlserve_model *model;
  size_t n_in, n_out;
  ml_item in[MAX_IO], expected[MAX_IO];
  mlserve_value *inputs[MAX_IO];
} test_case;

static bool open_case(test_case *t, const char *directory, const mlserve_options *options) {
  char path[512];
  *t = (test_case){ .directory = directory };
  snprintf(path, sizeof path, "%s/model.onnx", directory);
  if (!ok(mlserve_load(path, options, &t->model, MESSAGE) == MLSERVE_OK && message[0] == '\0', "%s loads: %s", directory, message)) return false;
  while (t->n_in < MAX_IO && is_item(t->in[t->n_in] = recorded(directory, "input", t->n_in, mlserve_input(t->model, t->n_in)))) {
    t->inputs[t->n_in] = value_of(&t->in[t->n_in], t->n_in % 2 == 0);
    t->n_in++;
  }
  while (t->n_out < MAX_IO && is_item(t->expected[t->n_out] = recorded(directory, "output", t->n_out, mlserve_output(t->model, t->n_out))))
    t->n_out++;
  return ok(t->n_out > 0 && mlserve_inputs(t->model) == t->n_in && mlserve_outputs(t->model) == t->n_out, "%s: %zu inputs, %zu outputs", directory,
            t->n_in, t->n_out);
}

static void close_case(test_case *t) {
  for (size_t i = 0; i < MAX_IO; i++) {
    mlserve_value_free(t->inputs[i]);
    ml_tensor_release(t->in[i].tensor);
    ml_container_release(t->in[i].container);
    ml_tensor_release(t->expected[i].tensor);
    ml_container_release(t->expected[i].container);
  }
  mlserve_model_free(t->model);
}

/* By position into new values; by name, in reverse order; into the caller's memory, twice. */
static void check_case(const char *directory, int32_t level) {
  test_case t;
  mlserve_options options = MLSERVE_OPTIONS_INIT;
  options.level = level;
  if (open_case(&t, directory, &options)) {
    mlserve_value *out[MAX_IO] = { NULL }, *turned[MAX_IO] = { NULL };
    const char *names[MAX_IO], *out_names[MAX_IO];
    ok(mlserve_run(t.model, NULL, t.inputs, t.n_in, NULL, out, t.n_out, MESSAGE) == MLSERVE_OK, "%s runs: %s", directory, message);
    for (size_t i = 0; i < t.n_out; i++) {
      ok(same(out[i], &t.expected[i]), "%s, level %d: output %zu", directory, (int)level, i);
      mlserve_value_free(out[i]);
      out[i] = NULL;
    }
    for (size_t i = 0; i < t.n_in; i++) {
      turned[i] = t.inputs[t.n_in - 1 - i];
      names[i] = mlserve_info_name(mlserve_input(t.model, t.n_in - 1 - i));
    }
    for (size_t i = 0; i < t.n_out; i++) out_names[i] = mlserve_info_name(mlserve_output(t.model, t.n_out - 1 - i));
    ok(mlserve_run(t.model, names, turned, t.n_in, out_names, out, t.n_out, MESSAGE) == MLSERVE_OK, "%s runs by name: %s", directory, message);
    for (size_t i = 0; i < t.n_out; i++) {
      ok(same(out[i], &t.expected[t.n_out - 1 - i]), "%s: output '%s' by name", directory, out_names[i]);
      mlserve_value_free(out[i]);
      out[i] = NULL;
    }
    for (size_t i = 0; i < t.n_out; i++) {
      const ml_view *view = t.expected[i].tensor ? &t.expected[i].tensor->view : NULL;
      if (view && view->dtype != ML_STRING) mlserve_value_new((mlserve_dtype)view->dtype, view->dims, view->rank, &out[i], MESSAGE);
    }
    for (int again = 0; again < 2; again++)
      for (size_t i = 0; i < t.n_out; i++)
        if (out[i])
          ok(mlserve_run(t.model, NULL, t.inputs, t.n_in, (const char *[]){ out_names[t.n_out - 1 - i] }, &out[i], 1, MESSAGE) == MLSERVE_OK &&
             same(out[i], &t.expected[i]), "%s: output %zu into a value: %s", directory, i, message);
    for (size_t i = 0; i < t.n_out; i++) mlserve_value_free(out[i]);
  }
  close_case(&t);
}

static void test_cases(void) {
  static const char *const directories[] = {
    GOLDEN "onnx/network", GOLDEN "onnx/split_2", GOLDEN "onnx/external", GOLDEN "ml/skl_random_forest_strings", GOLDEN "ml/categories_to_ints",
    GOLDEN "ml/text_upper", NODE "cast_FLOAT_to_FLOAT16", NODE "cast_FLOAT16_to_DOUBLE", NODE "and2d", NODE "nonzero_example",
    NODE "concat_2d_axis_0", NODE "unique_sorted_without_axis", NODE "batchnorm_example", NODE "reduce_max_default_axes_keepdim_example",
    NODE "size_example", NODE "constant", GOLDEN "dtype/int4", GOLDEN "dtype/float4e2m1",
    GOLDEN "dtype/float6e3m2",
    GOLDEN "control/zipmap_string", GOLDEN "control/zipmap_int64", GOLDEN "control/sequence_out", GOLDEN "control/dictvectorizer",
    GOLDEN "control/castmap_sparse", GOLDEN "control/optional_empty", GOLDEN "control/optional_present", GOLDEN "control/sequence_edit",
    GOLDEN "control/sequence_strings", NODE "identity_sequence", NODE "identity_opt", NODE "optional_get_element_sequence",
    NODE "optional_has_element_empty", NODE "sequence_insert_at_back", NODE "loop13_seq", NODE "loop16_seq_none",
  };
  for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) check_case(directories[i], MLSERVE_LEVEL_DEFAULT);
  for (int32_t level = MLSERVE_LEVEL_NONE; level <= MLSERVE_LEVEL_FAST; level++) check_case(GOLDEN "onnx/network", level);
}

static void test_small_elements(void) {
  test_case t;
  if (open_case(&t, GOLDEN "dtype/int4", NULL)) {
    mlserve_value *out[MAX_IO] = { NULL };
    for (size_t i = 0; i < t.n_in; i++) {
      const mlserve_info *info = mlserve_input(t.model, i);
      if (mlserve_info_dtype(info) != MLSERVE_INT4) continue;
      ok(mlserve_dtype_size(MLSERVE_INT4) == 1, "an int4 takes a byte");
      ((signed char *)t.in[i].tensor->view.data)[2] = 100;
      mlserve_value_free(t.inputs[i]);
      t.inputs[i] = value_of(&t.in[i], true);
      mlserve_status status = mlserve_run(t.model, NULL, t.inputs, t.n_in, NULL, out, t.n_out, MESSAGE);
      ok(fails(status, MLSERVE_INVALID_ARGUMENT, "which is no int4"), "%s", message);
    }
  }
  close_case(&t);
}

/* ---------------------------------------------------------------- describing ---- */

static void test_library(void) {
  ok(mlserve_abi_version() == MLSERVE_ABI_VERSION, "the library has the header's binary interface");
  ok(sizeof(mlserve_options) == 32 && offsetof(mlserve_options, max_nodes) == 24, "options of interface 1 are 32 bytes: only their end may grow");
  ok(strchr(mlserve_version(), '.') != NULL, "version %s", mlserve_version());
  ok(strcmp(mlserve_status_name(MLSERVE_DATA_LOSS), "DATA_LOSS") == 0 && strcmp(mlserve_status_name(99), "UNKNOWN") == 0, "names of statuses");
  ok(strcmp(mlserve_dtype_name(MLSERVE_BFLOAT16), "bfloat16") == 0 && strcmp(mlserve_dtype_name(77), "none") == 0, "names of element types");
  ok(mlserve_dtype_size(MLSERVE_FLOAT16) == 2 && mlserve_dtype_size(MLSERVE_STRING) == 0 && mlserve_dtype_size(-1) == 0, "sizes of element types");
  int32_t before = mlserve_threads();
  ok(mlserve_set_threads(2, NULL, 0) == MLSERVE_OK && mlserve_threads() == 2, "threads are set");
  ok(mlserve_set_threads(0, NULL, 0) == MLSERVE_OK && mlserve_threads() == before, "and set back");
  ok(fails(mlserve_set_threads(-1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "-1"), "a negative number: %s", message);
}

static void test_describing(void) {
  mlserve_model *model;
  size_t length;
  mlserve_load(NETWORK, NULL, &model, MESSAGE);
  const mlserve_info *x = mlserve_input(model, 0), *p = mlserve_output(model, 0);
  ok(strcmp(mlserve_info_name(x), "x") == 0 && strcmp(mlserve_info_name(p), "p") == 0, "names");
  ok(mlserve_info_kind(x) == MLSERVE_KIND_TENSOR && mlserve_info_dtype(x) == MLSERVE_FLOAT32, "kind and element type");
  ok(mlserve_info_rank(x) == 2 && mlserve_info_dim(x, 0) == -1 && mlserve_info_dim(x, 1) == 4, "shape of the input");
  ok(mlserve_info_rank(p) == 2 && mlserve_info_dim(p, 0) == -1 && mlserve_info_dim(p, 1) == 3, "shape of the output");
  ok(mlserve_info_dim_name(x, 0) && strcmp(mlserve_info_dim_name(x, 0), "batch") == 0 && !mlserve_info_dim_name(x, 1), "name of a dimension");
  ok(mlserve_info_dim(x, 2) == -1 && mlserve_info_dim(x, -1) == -1 && !mlserve_info_dim_name(x, 9), "axes out of range");
  ok(!mlserve_input(model, 1) && !mlserve_output(model, SIZE_MAX), "no such input or output");
  ok(strcmp(mlserve_model_name(model), "golden") == 0 && strcmp(mlserve_model_producer(model), "golden") == 0, "name and producer");
  ok(strcmp(mlserve_model_doc(model), "a network") == 0 && mlserve_model_version(model) == 7, "description and version");
  ok(strcmp(mlserve_model_producer_version(model), "") == 0, "what the file does not say");
  ok(mlserve_model_opset(model, "") == 13 && mlserve_model_opset(model, "ai.onnx") == 13 && mlserve_model_opset(model, "ai.onnx.ml") == 0 &&
     mlserve_model_opset(model, "com.example") == 0, "operator sets");
  ok(mlserve_metadata_count(model) == 1 && strcmp(mlserve_metadata_key(model, 0), "author") == 0 && !mlserve_metadata_key(model, 1), "metadata keys");
  ok(strcmp(mlserve_metadata(model, "author", &length), "golden") == 0 && length == 6, "metadata");
  ok(!mlserve_metadata(model, "none", &length) && length == 0 && !mlserve_metadata(model, NULL, NULL), "no such metadata");
  mlserve_model_free(model);
  mlserve_load(GOLDEN "ml/skl_random_forest_strings/model.onnx", NULL, &model, MESSAGE);
  ok(mlserve_info_dtype(mlserve_output(model, 0)) == MLSERVE_STRING && mlserve_model_opset(model, "ai.onnx.ml") > 0, "strings and ai.onnx.ml");
  mlserve_model_free(model);
}

/* ---------------------------------------------------------------- values ---- */

static void test_values(void) {
  float numbers[6] = { 1, 2, 3, 4, 5, 6 };
  int64_t dims[2] = { 2, 3 };
  mlserve_value *v;
  const char *string;
  size_t length;
  ok(mlserve_value_wrap(MLSERVE_FLOAT32, dims, 2, numbers, sizeof numbers, &v, MESSAGE) == MLSERVE_OK && mlserve_value_data(v) == numbers,
     "a value on the caller's memory");
  ok(mlserve_value_kind(v) == MLSERVE_KIND_TENSOR && mlserve_value_count(v) == 6 && mlserve_value_bytes(v) == 24 && mlserve_value_dim(v, 1) == 3 &&
     mlserve_value_dim(v, 2) == -1, "its shape");
  ok(mlserve_value_set_dims(v, (int64_t[]){ 5 }, 1, MESSAGE) == MLSERVE_OK && mlserve_value_rank(v) == 1 && mlserve_value_count(v) == 5, "a smaller shape");
  ok(fails(mlserve_value_set_dims(v, (int64_t[]){ 7 }, 1, MESSAGE), MLSERVE_OUT_OF_RANGE, "28 bytes") && mlserve_value_count(v) == 5,
     "a larger one does not fit: %s", message);
  ok(fails(mlserve_value_set_dims(v, (int64_t[]){ -1 }, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "-1"), "an unknown dimension: %s", message);
  ok(fails(mlserve_value_set_dims(v, NULL, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "NULL"), "no dims: %s", message);
  ok(fails(mlserve_value_set_dims(NULL, dims, 2, MESSAGE), MLSERVE_INVALID_ARGUMENT, "NULL"), "no value: %s", message);
  ok(fails(mlserve_value_string(v, 0, &string, &length, MESSAGE), MLSERVE_INVALID_ARGUMENT, "float32") && !string, "no strings: %s", message);
  mlserve_value_free(v);

  ok(mlserve_value_wrap(MLSERVE_FLOAT32, NULL, 0, numbers, 4, &v, MESSAGE) == MLSERVE_OK && mlserve_value_count(v) == 1, "a scalar");
  mlserve_value_free(v);
  ok(mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 0, 3 }, 2, NULL, 0, &v, MESSAGE) == MLSERVE_OK && mlserve_value_count(v) == 0, "no rows");
  mlserve_value_free(v);
  ok(fails(mlserve_value_wrap(MLSERVE_FLOAT32, dims, 2, numbers, 23, &v, MESSAGE), MLSERVE_OUT_OF_RANGE, "24 bytes, there are 23") && !v, "%s", message);
  ok(fails(mlserve_value_wrap(MLSERVE_FLOAT32, dims, 2, (char *)numbers + 1, 24, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "aligned"), "%s", message);
  ok(fails(mlserve_value_wrap(MLSERVE_FLOAT32, dims, 2, NULL, 24, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "NULL"), "%s", message);
  ok(fails(mlserve_value_wrap(MLSERVE_FLOAT32, dims, 17, numbers, 24, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "rank 17"), "%s", message);
  ok(fails(mlserve_value_wrap(MLSERVE_FLOAT32, dims, -1, numbers, 24, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "rank"), "%s", message);
  ok(fails(mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ INT64_MAX, INT64_MAX }, 2, numbers, 24, &v, MESSAGE), MLSERVE_RESOURCE_EXHAUSTED, "overflow"), "%s", message);
  ok(fails(mlserve_value_wrap(99, dims, 2, numbers, 24, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "99"), "%s", message);
  ok(fails(mlserve_value_wrap(MLSERVE_STRING, dims, 2, numbers, 24, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "mlserve_value_strings"), "%s", message);
  ok(fails(mlserve_value_wrap(MLSERVE_FLOAT32, dims, 2, numbers, 24, NULL, MESSAGE), MLSERVE_INVALID_ARGUMENT, "value is NULL"), "%s", message);

  ok(mlserve_value_new(MLSERVE_INT64, dims, 2, &v, MESSAGE) == MLSERVE_OK && ((int64_t *)mlserve_value_data(v))[5] == 0, "a value of its own is zeroed");
  mlserve_value_free(v);
  ok(fails(mlserve_value_new(MLSERVE_STRING, dims, 2, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "mlserve_value_strings") && !v, "%s", message);

  const char *words[] = { "one", "", "drei\0vier" };
  ok(mlserve_value_strings(words, NULL, (int64_t[]){ 3 }, 1, &v, MESSAGE) == MLSERVE_OK && mlserve_value_string(v, 2, &string, &length, MESSAGE) == 0 &&
     length == 4 && memcmp(string, "drei", 4) == 0, "strings that end with NUL");
  mlserve_value_free(v);
  ok(mlserve_value_strings(words, (size_t[]){ 2, 0, 9 }, (int64_t[]){ 3 }, 1, &v, MESSAGE) == MLSERVE_OK, "strings with lengths");
  ok(mlserve_value_string(v, 2, &string, &length, MESSAGE) == 0 && length == 9 && memcmp(string, "drei\0vier", 9) == 0, "may hold NUL");
  ok(fails(mlserve_value_string(v, 3, &string, &length, MESSAGE), MLSERVE_OUT_OF_RANGE, "3") && !string && length == 0, "%s", message);
  ok(fails(mlserve_value_string(v, 0, NULL, &length, MESSAGE), MLSERVE_INVALID_ARGUMENT, "NULL"), "%s", message);
  mlserve_value_free(v);
  words[1] = NULL;
  ok(fails(mlserve_value_strings(words, NULL, (int64_t[]){ 3 }, 1, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "string 1 is NULL") && !v, "%s", message);
  ok(fails(mlserve_value_strings(NULL, NULL, (int64_t[]){ 3 }, 1, &v, MESSAGE), MLSERVE_INVALID_ARGUMENT, "NULL"), "%s", message);
}

/* ---------------------------------------------------------------- sequences, optionals and maps ---- */

static bool text_is(const mlserve_value *words, size_t i, const char *expected) {
  const char *string;
  size_t length;
  if (mlserve_value_string(words, i, &string, &length, MESSAGE) != MLSERVE_OK) return false;
  return length == strlen(expected) && memcmp(string, expected, length) == 0;
}

static bool refused(mlserve_status status, const char *text) { return fails(status, MLSERVE_INVALID_ARGUMENT, text); }

/* What scikit-learn's Pipeline exports: labels, and a map from class to probability a row. Expected: spec/golden/pipeline/expected.json. */
static void test_pipeline(void) {
  static const char *const islands[] = { "Torgersen", "Biscoe", "Dream", "Biscoe" }, *const labels[] = { "Adelie", "Gentoo", "Chinstrap", "Gentoo" };
  static const char *const classes[] = { "Adelie", "Chinstrap", "Gentoo" };
  static const double likely[4][3] = { { 0.9852584600448608, 0.012708242051303387, 0.0020332694984972477 },
                                       { 0.08781568706035614, 0.004113235045224428, 0.9080711007118225 },
                                       { 0.4644404351711273, 0.5334873795509338, 0.0020722176413983107 },
                                       { 0.00364774651825428, 0.0002377792407060042, 0.9961144924163818 } };
  float mass[4] = { 3750, 4725, 3675, 5450 };
  const char *names[2] = { "island", "mass" };
  mlserve_model *model;
  mlserve_value *in[2], *out[2] = { NULL, NULL }, *row, *keys, *values;
  mlserve_load(GOLDEN "pipeline/model.onnx", NULL, &model, MESSAGE);
  const mlserve_info *info = mlserve_output(model, 1);
  ok(mlserve_info_kind(info) == MLSERVE_KIND_SEQUENCE && strcmp(mlserve_info_type(info), "seq(map(string,tensor(float32)))") == 0 &&
     mlserve_info_dtype(info) == MLSERVE_FLOAT32 && mlserve_info_rank(info) == -1 && mlserve_info_dim(info, 0) == -1,
     "a sequence of maps is described");
  ok(mlserve_info_kind(mlserve_input(model, 0)) == MLSERVE_KIND_TENSOR && strcmp(mlserve_info_type(mlserve_input(model, 1)), "tensor(float32)") == 0,
     "and a tensor");
  mlserve_value_strings(islands, NULL, (int64_t[]){ 4, 1 }, 2, &in[0], MESSAGE);
  mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 4, 1 }, 2, mass, sizeof mass, &in[1], MESSAGE);
  ok(mlserve_run(model, names, in, 2, NULL, out, 2, MESSAGE) == MLSERVE_OK, "a pipeline runs: %s", message);
  mlserve_model_free(model);
  ok(mlserve_value_items(out[1]) == 4 && mlserve_value_kind(out[1]) == MLSERVE_KIND_SEQUENCE, "a map for each row");
  bool right = true;
  for (size_t i = 0; i < 4; i++) {
    right = right && text_is(out[0], i, labels[i]) && mlserve_value_item(out[1], i, &row, MESSAGE) == MLSERVE_OK;
    right = right && mlserve_value_keys(row, &keys, MESSAGE) == MLSERVE_OK && mlserve_value_values(row, &values, MESSAGE) == MLSERVE_OK;
    if (!right) break;
    mlserve_value_free(row); /* its parts live on */
    right = mlserve_value_count(keys) == 3 && mlserve_value_dtype(values) == MLSERVE_FLOAT32 && mlserve_value_rank(values) == 1;
    for (size_t j = 0; right && j < 3; j++)
      right = text_is(keys, j, classes[j]) && fabs((double)((float *)mlserve_value_data(values))[j] - likely[i][j]) < 1e-5;
    mlserve_value_free(keys);
    mlserve_value_free(values);
  }
  ok(right, "labels and probabilities are scikit-learn's, and outlive the model");
  for (int i = 0; i < 2; i++) {
    mlserve_value_free(in[i]);
    mlserve_value_free(out[i]);
  }
}

static void test_containers(void) {
  float numbers[3] = { 1, 2, 3 };
  unsigned char truth[3] = { 0, 1, 2 };
  mlserve_value *x, *y, *b, *words, *seq, *map, *opt, *part, *v, *deep[7] = { NULL };
  mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 3 }, 1, numbers, sizeof numbers, &x, MESSAGE);
  mlserve_value_new(MLSERVE_INT64, (int64_t[]){ 3 }, 1, &y, MESSAGE);
  mlserve_value_wrap(MLSERVE_BOOL, (int64_t[]){ 3 }, 1, truth, sizeof truth, &b, MESSAGE);
  mlserve_value_strings((const char *[]){ "a", "b", "c" }, NULL, (int64_t[]){ 3 }, 1, &words, MESSAGE);
  ok(strcmp(mlserve_value_type(x), "tensor(float32)") == 0 && strcmp(mlserve_value_type(words), "tensor(string)") == 0, "types of tensors");

  /* sequences */
  ok(mlserve_value_sequence(NULL, (mlserve_value *[]){ x, x }, 2, &seq, MESSAGE) == MLSERVE_OK && mlserve_value_items(seq) == 2 &&
     strcmp(mlserve_value_type(seq), "seq(tensor(float32))") == 0 && mlserve_value_dtype(seq) == MLSERVE_FLOAT32, "a sequence: %s", message);
  ok(mlserve_value_rank(seq) == -1 && mlserve_value_dim(seq, 0) == -1 && mlserve_value_count(seq) == 0 && mlserve_value_bytes(seq) == 0 &&
     !mlserve_value_data(seq), "it is no tensor");
  numbers[1] = 9;
  ok(mlserve_value_item(seq, 1, &part, MESSAGE) == MLSERVE_OK && ((float *)mlserve_value_data(part))[1] == 2, "has a copy of its items");
  ok(fails(mlserve_value_item(seq, 2, &v, MESSAGE), MLSERVE_OUT_OF_RANGE, "no item 2, the value has 2") && !v, "%s", message);
  ok(fails(mlserve_value_item(seq, SIZE_MAX, &v, MESSAGE), MLSERVE_OUT_OF_RANGE, "no item") && !v, "%s", message);
  ok(refused(mlserve_value_item(seq, 0, NULL, MESSAGE), "result is NULL"), "%s", message);
  ok(refused(mlserve_value_keys(seq, &v, MESSAGE), "seq(tensor(float32)), expected a map") && !v, "%s", message);
  ok(refused(mlserve_value_set_dims(seq, NULL, 0, MESSAGE), "no shape"), "%s", message);
  ok(refused(mlserve_value_string(seq, 0, &(const char *){ NULL }, &(size_t){ 0 }, MESSAGE), "seq("), "%s", message);
  mlserve_value_free(seq);
  ok(((float *)mlserve_value_data(part))[2] == 3, "an item outlives its sequence");
  ok(mlserve_value_set_dims(part, (int64_t[]){ 1, 2 }, 2, MESSAGE) == MLSERVE_OK &&
     mlserve_value_sequence(NULL, &part, 1, &seq, MESSAGE) == MLSERVE_OK && mlserve_value_item(seq, 0, &v, MESSAGE) == MLSERVE_OK &&
     mlserve_value_rank(v) == 2 && mlserve_value_count(v) == 2, "in another shape: %s", message);
  mlserve_value_free(v);
  mlserve_value_free(seq);
  mlserve_value_free(part);
  ok(refused(mlserve_value_sequence(NULL, (mlserve_value *[]){ x, y }, 2, &v, MESSAGE), "item 1 is tensor(int64), expected tensor(float32)") &&
     !v, "%s", message);
  ok(refused(mlserve_value_sequence(NULL, (mlserve_value *[]){ x, NULL }, 2, &v, MESSAGE), "item 1 is NULL"), "%s", message);
  ok(refused(mlserve_value_sequence(NULL, NULL, 2, &v, MESSAGE), "items is NULL"), "%s", message);
  ok(refused(mlserve_value_sequence(NULL, NULL, 0, &v, MESSAGE), "needs its type"), "%s", message);
  ok(refused(mlserve_value_sequence(NULL, &b, 1, &v, MESSAGE), "item 0: element 2 is 2") && !v, "%s", message);
  ok(refused(mlserve_value_sequence(NULL, &x, 1, NULL, MESSAGE), "value is NULL"), "%s", message);
  static const char *const wrong[] = { "", "tensor(float32)", "optional(tensor(float32))", "seq(tensor(float32)", "seq(tensor(float32)))",
                                       "seq(tensor(float))", "seq()", "seq(", "seq(tensor(float32", "map(float32,tensor(float32))",
                                       "seq(seq(seq(seq(seq(seq(seq(tensor(float32))))))))" };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    ok(refused(mlserve_value_sequence(wrong[i], NULL, 0, &v, MESSAGE), "is no type of a sequence") && !v, "%s", message);
  ok(mlserve_value_sequence("seq(map(int64,tensor(string)))", NULL, 0, &v, MESSAGE) == MLSERVE_OK && mlserve_value_items(v) == 0 &&
     mlserve_value_dtype(v) == MLSERVE_STRING, "a sequence of no maps: %s", message);
  mlserve_value_free(v);
  ok(mlserve_value_sequence("seq(tensor(any))", &y, 1, &v, MESSAGE) == MLSERVE_OK && mlserve_value_dtype(v) == MLSERVE_INT64, "the items say more");
  mlserve_value_free(v);
  bool nested = true;
  for (int i = 0; i < 6; i++) nested = mlserve_value_sequence(NULL, i == 0 ? &x : &deep[i - 1], 1, &deep[i], MESSAGE) == MLSERVE_OK && nested;
  ok(nested, "sequences of sequences: %s", mlserve_value_type(deep[5]));
  ok(refused(mlserve_value_sequence(NULL, &deep[5], 1, &deep[6], MESSAGE), "as deep as"), "%s", message);
  for (int i = 0; i < 7; i++) mlserve_value_free(deep[i]);

  /* maps */
  ok(mlserve_value_map(words, x, &map, MESSAGE) == MLSERVE_OK && strcmp(mlserve_value_type(map), "map(string,tensor(float32))") == 0 &&
     mlserve_value_items(map) == 3 && mlserve_value_kind(map) == MLSERVE_KIND_MAP, "a map: %s", message);
  ok(mlserve_value_keys(map, &v, MESSAGE) == MLSERVE_OK && text_is(v, 2, "c"), "its keys");
  mlserve_value_free(v);
  ok(refused(mlserve_value_item(map, 0, &v, MESSAGE), "expected a sequence or an optional") && !v, "%s", message);
  ok(refused(mlserve_value_map(x, y, &v, MESSAGE), "keys is float32, expected int64 or string") && !v, "%s", message);
  ok(refused(mlserve_value_map(y, map, &v, MESSAGE), "values is map("), "%s", message);
  ok(refused(mlserve_value_map(y, NULL, &v, MESSAGE), "values is NULL"), "%s", message);
  ok(refused(mlserve_value_map(NULL, y, &v, MESSAGE), "keys is NULL"), "%s", message);
  ok(refused(mlserve_value_map(y, x, NULL, MESSAGE), "value is NULL"), "%s", message);
  mlserve_value_set_dims(y, (int64_t[]){ 2 }, 1, MESSAGE);
  ok(refused(mlserve_value_map(y, x, &v, MESSAGE), "2 keys and 3 values"), "%s", message);
  mlserve_value_set_dims(y, (int64_t[]){ 1, 3 }, 2, MESSAGE);
  ok(refused(mlserve_value_map(y, x, &v, MESSAGE), "rank 2, expected a tensor of rank 1"), "%s", message);
  mlserve_value_free(map);

  /* optionals */
  ok(mlserve_value_optional(NULL, x, &opt, MESSAGE) == MLSERVE_OK && mlserve_value_items(opt) == 1 &&
     mlserve_value_kind(opt) == MLSERVE_KIND_OPTIONAL && mlserve_value_item(opt, 0, &v, MESSAGE) == MLSERVE_OK && mlserve_value_count(v) == 3,
     "an optional with a value: %s", message);
  mlserve_value_free(v);
  mlserve_value_free(opt);
  ok(mlserve_value_optional("optional(seq(tensor(float32)))", NULL, &opt, MESSAGE) == MLSERVE_OK && mlserve_value_items(opt) == 0,
     "one without: %s", message);
  ok(fails(mlserve_value_item(opt, 0, &v, MESSAGE), MLSERVE_OUT_OF_RANGE, "no item 0") && !v, "%s", message);
  mlserve_value_free(opt);
  ok(refused(mlserve_value_optional(NULL, NULL, &v, MESSAGE), "needs its type") && !v, "%s", message);
  ok(refused(mlserve_value_optional("optional(seq(tensor(float32)))", x, &v, MESSAGE), "expected seq(tensor(float32))"), "%s", message);
  ok(refused(mlserve_value_optional("optional(tensor(float32))", x, NULL, MESSAGE), "value is NULL"), "%s", message);

  /* what is none of them */
  ok(mlserve_value_items(x) == 0 && mlserve_value_items(NULL) == 0 && !mlserve_value_type(NULL) && !mlserve_info_type(NULL),
     "tensors and NULL have no items");
  ok(refused(mlserve_value_item(x, 0, &v, MESSAGE), "tensor(float32), expected a sequence") && !v, "%s", message);
  ok(refused(mlserve_value_values(x, &v, MESSAGE), "expected a map"), "%s", message);
  v = x;
  ok(refused(mlserve_value_item(NULL, 0, &v, MESSAGE), "NULL") && !v, "%s", message);
  mlserve_value_free(x);
  mlserve_value_free(y);
  mlserve_value_free(b);
  mlserve_value_free(words);
}

/* Values of the wrong kind in a run. */
static void test_container_runs(void) {
  test_case t;
  mlserve_value *v, *part, *out[1] = { NULL };
  float numbers[12] = { 0 };
  if (open_case(&t, GOLDEN "control/sequence_out", NULL)) {
    mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 3, 4 }, 2, numbers, sizeof numbers, &v, MESSAGE);
    ok(refused(mlserve_run(t.model, NULL, t.inputs, 1, NULL, &v, 1, MESSAGE), "'parts' is seq(tensor(float32)), which cannot be written"),
       "%s", message);
    mlserve_value_free(v);
    mlserve_value_sequence(NULL, t.inputs, 1, &v, MESSAGE);
    ok(refused(mlserve_run(t.model, NULL, &v, 1, NULL, out, 1, MESSAGE), "'x': expected tensor(float32), got seq(tensor(float32))") &&
       !out[0], "%s", message);
    ok(refused(mlserve_run(t.model, NULL, t.inputs, 1, NULL, &v, 1, MESSAGE), "only a tensor can be written into"), "%s", message);
    mlserve_value_free(v);
  }
  close_case(&t);
  if (open_case(&t, GOLDEN "control/dictvectorizer", NULL)) {
    mlserve_value *y = NULL, *keys, *map;
    mlserve_value_new(MLSERVE_INT64, (int64_t[]){ 2 }, 1, &keys, MESSAGE);
    mlserve_value_map(keys, keys, &map, MESSAGE);
    ok(refused(mlserve_run(t.model, NULL, &map, 1, NULL, out, 1, MESSAGE), "expected map(string,tensor(float32)), got map(int64,tensor(int64))") &&
       !out[0], "%s", message);
    ok(refused(mlserve_run(t.model, NULL, &keys, 1, NULL, out, 1, MESSAGE), "expected map(string,tensor(float32)), got tensor(int64)"),
       "%s", message);
    mlserve_value_free(keys);
    mlserve_value_free(map);
    mlserve_run(t.model, NULL, t.inputs, 1, NULL, &y, 1, MESSAGE);
    mlserve_value_sequence(NULL, &y, 1, &v, MESSAGE);
    mlserve_value_item(v, 0, &part, MESSAGE);
    ok(refused(mlserve_run(t.model, NULL, t.inputs, 1, NULL, &part, 1, MESSAGE), "a part of another value"), "%s", message);
    ok(mlserve_value_keys(t.inputs[0], &keys, MESSAGE) == MLSERVE_OK && mlserve_value_values(t.inputs[0], &out[0], MESSAGE) == MLSERVE_OK &&
       mlserve_value_map(keys, out[0], &map, MESSAGE) == MLSERVE_OK && mlserve_run(t.model, NULL, &map, 1, NULL, &y, 1, MESSAGE) == MLSERVE_OK &&
       same(y, &t.expected[0]), "a map of another one's parts: %s", message);
    mlserve_value_free(keys);
    mlserve_value_free(out[0]);
    mlserve_value_free(map);
    mlserve_value_free(part);
    mlserve_value_free(v);
    mlserve_value_free(y);
  }
  close_case(&t);
}

/* ---------------------------------------------------------------- misuse ---- */

static void test_null(void) {
  mlserve_value *v = NULL;
  ok(mlserve_inputs(NULL) == 0 && mlserve_outputs(NULL) == 0 && !mlserve_input(NULL, 0) && !mlserve_output(NULL, 0), "NULL has no inputs and outputs");
  ok(!mlserve_info_name(NULL) && mlserve_info_kind(NULL) == MLSERVE_KIND_NONE && mlserve_info_dtype(NULL) == MLSERVE_DTYPE_NONE &&
     mlserve_info_rank(NULL) == -1 && mlserve_info_dim(NULL, 0) == -1 && !mlserve_info_dim_name(NULL, 0), "NULL is no info");
  ok(strcmp(mlserve_model_name(NULL), "") == 0 && strcmp(mlserve_model_producer(NULL), "") == 0 && strcmp(mlserve_model_doc(NULL), "") == 0 &&
     strcmp(mlserve_model_producer_version(NULL), "") == 0 && mlserve_model_version(NULL) == 0 && mlserve_model_opset(NULL, "") == 0, "NULL has no texts");
  ok(mlserve_metadata_count(NULL) == 0 && !mlserve_metadata_key(NULL, 0) && !mlserve_metadata(NULL, "a", NULL), "NULL has no metadata");
  ok(mlserve_value_kind(NULL) == MLSERVE_KIND_NONE && mlserve_value_dtype(NULL) == MLSERVE_DTYPE_NONE && mlserve_value_rank(NULL) == -1 &&
     mlserve_value_dim(NULL, 0) == -1 && mlserve_value_count(NULL) == 0 && mlserve_value_bytes(NULL) == 0 && !mlserve_value_data(NULL), "NULL is no value");
  ok(fails(mlserve_run(NULL, NULL, &v, 1, NULL, &v, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "model is NULL"), "%s", message);
  mlserve_model_free(NULL);
  mlserve_value_free(NULL);
}

static void test_loading_errors(void) {
  mlserve_model *model = (mlserve_model *)&model;
  ok(fails(mlserve_load("spec/golden/none.onnx", NULL, &model, MESSAGE), MLSERVE_NOT_FOUND, "spec/golden/none.onnx") && !model, "%s", message);
  ok(fails(mlserve_load("spec/golden", NULL, &model, MESSAGE), MLSERVE_INVALID_ARGUMENT, "spec/golden"), "%s", message);
  ok(fails(mlserve_load(NULL, NULL, &model, MESSAGE), MLSERVE_INVALID_ARGUMENT, "path is NULL"), "%s", message);
  ok(fails(mlserve_load(NETWORK, NULL, NULL, MESSAGE), MLSERVE_INVALID_ARGUMENT, "model is NULL"), "%s", message);
  ok(mlserve_load("README.md", NULL, &model, MESSAGE) != MLSERVE_OK && strstr(message, "README.md") && !model, "no model: %s", message);
  ok(fails(mlserve_load_bytes(NULL, 4, NULL, &model, MESSAGE), MLSERVE_INVALID_ARGUMENT, "bytes is NULL"), "%s", message);
  ok(fails(mlserve_load_bytes("", 0, NULL, &model, MESSAGE), MLSERVE_DATA_LOSS, "empty"), "%s", message);
  ok(mlserve_load("spec/golden/none.onnx", NULL, &model, NULL, 0) == MLSERVE_NOT_FOUND, "a message need not be wanted");
  char small[8] = "1234567";
  ok(mlserve_load("spec/golden/none.onnx", NULL, &model, small, 5) == MLSERVE_NOT_FOUND && strcmp(small, "spec") == 0 && small[6] == '7', "or be cut");
  ok(mlserve_load("a\xC3\xA4", NULL, &model, small, 3) == MLSERVE_NOT_FOUND && strcmp(small, "a") == 0, "between characters");

  mlserve_options options = MLSERVE_OPTIONS_INIT;
  options.level = 4;
  ok(fails(mlserve_load(NETWORK, &options, &model, MESSAGE), MLSERVE_INVALID_ARGUMENT, "level 4"), "%s", message);
  options = (mlserve_options)MLSERVE_OPTIONS_INIT;
  options.abi++;
  ok(fails(mlserve_load(NETWORK, &options, &model, MESSAGE), MLSERVE_FAILED_PRECONDITION, "version 2"), "%s", message);
  options = (mlserve_options)MLSERVE_OPTIONS_INIT;
  options.struct_size = 0;
  ok(fails(mlserve_load(NETWORK, &options, &model, MESSAGE), MLSERVE_INVALID_ARGUMENT, "MLSERVE_OPTIONS_INIT"), "%s", message);
  options = (mlserve_options)MLSERVE_OPTIONS_INIT;
  options.reserved = 1;
  ok(fails(mlserve_load(NETWORK, &options, &model, MESSAGE), MLSERVE_INVALID_ARGUMENT, "reserved"), "%s", message);
  options = (mlserve_options)MLSERVE_OPTIONS_INIT;
  options.max_bytes = 100;
  ok(fails(mlserve_load(NETWORK, &options, &model, MESSAGE), MLSERVE_RESOURCE_EXHAUSTED, "100"), "%s", message);
  options.max_bytes = UINT64_MAX;
  options.max_nodes = 2;
  ok(fails(mlserve_load(NETWORK, &options, &model, MESSAGE), MLSERVE_RESOURCE_EXHAUSTED, "2 nodes"), "%s", message);

  /* programs built with a shorter and with a longer structure */
  struct { mlserve_options known; uint64_t later; } longer = { MLSERVE_OPTIONS_INIT, 0 };
  longer.known.struct_size = sizeof longer;
  ok(mlserve_load(NETWORK, &longer.known, &model, MESSAGE) == MLSERVE_OK, "options of a newer header: %s", message);
  mlserve_model_free(model);
  longer.later = 7;
  ok(fails(mlserve_load(NETWORK, &longer.known, &model, MESSAGE), MLSERVE_UNIMPLEMENTED, "too old"), "%s", message);
  uint32_t shortest[2] = { sizeof shortest, MLSERVE_ABI_VERSION };
  ok(mlserve_load(NETWORK, (const mlserve_options *)(const void *)shortest, &model, MESSAGE) == MLSERVE_OK, "options of an older header: %s", message);
  mlserve_model_free(model);
}

static void test_running_errors(void) {
  test_case t;
  if (!open_case(&t, GOLDEN "onnx/network", NULL)) return;
  float row[4] = { 1, 2, 3, 4 }, result[3];
  mlserve_value *x = t.inputs[0], *two[2] = { t.inputs[0], t.inputs[0] }, *out[2] = { NULL, NULL }, *v;
  const char *names[2] = { "x", "x" };
  ok(fails(mlserve_run(t.model, NULL, NULL, 0, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "1 inputs, 0"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, two, 2, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "1 inputs, 2"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, NULL, 1, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "inputs is NULL"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, &x, 1, NULL, NULL, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "outputs is NULL"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, out, 1, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "input 'x' is NULL"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, &x, 1, NULL, out, 2, MESSAGE), MLSERVE_INVALID_ARGUMENT, "1 outputs, 2"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, &x, 1, NULL, out, SIZE_MAX, MESSAGE), MLSERVE_RESOURCE_EXHAUSTED, "memory"), "%s", message);
  ok(fails(mlserve_run(t.model, (const char *[]){ "y" }, &x, 1, NULL, out, 1, MESSAGE), MLSERVE_NOT_FOUND, "input named 'y'"), "%s", message);
  ok(fails(mlserve_run(t.model, (const char *[]){ NULL }, &x, 1, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "NULL"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, &x, 1, names, out, 1, MESSAGE), MLSERVE_NOT_FOUND, "output named 'x'"), "%s", message);
  ok(fails(mlserve_run((mlserve_model *)(void *)x, NULL, &x, 1, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "no model"), "%s", message);
  v = (mlserve_value *)(void *)t.model;
  ok(fails(mlserve_run(t.model, NULL, &v, 1, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "no value"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, &x, 1, NULL, &v, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "no value"), "%s", message);
  ok(mlserve_run(t.model, NULL, &x, 1, NULL, NULL, 0, MESSAGE) == MLSERVE_OK, "no output need be asked for");

  mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 2, 2 }, 2, row, sizeof row, &v, MESSAGE);
  ok(fails(mlserve_run(t.model, NULL, &v, 1, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "(2, 2)") && strstr(message, "'x'") && !out[0], "%s", message);
  mlserve_value_set_dims(v, (int64_t[]){ 1, 4 }, 2, MESSAGE);
  mlserve_value *y, *same_value[2];
  mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 2 }, 1, result, 8, &y, MESSAGE);
  ok(fails(mlserve_run(t.model, NULL, &v, 1, NULL, &y, 1, MESSAGE), MLSERVE_OUT_OF_RANGE, "needs 12 bytes, its value has 8"), "%s", message);
  mlserve_value_free(y);
  mlserve_value_wrap(MLSERVE_INT32, (int64_t[]){ 3 }, 1, result, 12, &y, MESSAGE);
  ok(fails(mlserve_run(t.model, NULL, &v, 1, NULL, &y, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "'p' is float32, its value int32"), "%s", message);
  same_value[0] = same_value[1] = y;
  ok(fails(mlserve_run(t.model, NULL, &v, 1, (const char *[]){ "p", "p" }, same_value, 2, MESSAGE), MLSERVE_INVALID_ARGUMENT, "same value"), "%s", message);
  mlserve_value_free(y);
  ok(mlserve_run(t.model, NULL, &v, 1, (const char *[]){ "p", "p" }, out, 2, MESSAGE) == MLSERVE_OK && out[0] && out[1] && out[0] != out[1] &&
     memcmp(mlserve_value_data(out[0]), mlserve_value_data(out[1]), 12) == 0, "an output may be asked for twice");
  mlserve_value_free(out[0]);
  mlserve_value_free(out[1]);
  out[0] = out[1] = NULL;
  mlserve_value_strings((const char *[]){ "a" }, NULL, (int64_t[]){ 1 }, 1, &y, MESSAGE);
  ok(fails(mlserve_run(t.model, NULL, &v, 1, NULL, &y, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "strings"), "%s", message);
  ok(fails(mlserve_run(t.model, NULL, &y, 1, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "string"), "%s", message);
  mlserve_value_free(y);
  mlserve_value_free(v);
  close_case(&t);

  if (!open_case(&t, NODE "concat_2d_axis_0", NULL)) return;
  out[0] = NULL;
  const char *twice[2] = { mlserve_info_name(mlserve_input(t.model, 0)), mlserve_info_name(mlserve_input(t.model, 0)) };
  ok(fails(mlserve_run(t.model, twice, t.inputs, 2, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "given twice"), "%s", message);
  close_case(&t);

  if (!open_case(&t, NODE "and2d", NULL)) return;
  ((unsigned char *)mlserve_value_data(t.inputs[1]))[2] = 3;
  ok(fails(mlserve_run(t.model, NULL, t.inputs, 2, NULL, out, 1, MESSAGE), MLSERVE_INVALID_ARGUMENT, "element 2 is 3"), "%s", message);
  close_case(&t);
}

/* ---------------------------------------------------------------- more than a few, and state ---- */

/* out_k = Sum of all inputs + input k, so that places cannot be mixed up unnoticed. */
static void test_many(void) {
  enum { N = 11 };
  ml_graph *g;
  ml_error err;
  ml_value *in[N], *sum, *out;
  void *bytes = NULL;
  size_t size = 0;
  mlserve_model *model;
  ml_graph_new("many", &g, &err);
  for (int i = 0; i < N; i++) ml_graph_input(g, (char[]){ 'a', (char)('a' + i), 0 }, ML_FLOAT32, (int64_t[]){ 1 }, 1, &in[i], &err);
  ml_graph_node(g, ml_op_find("", "Sum"), NULL, NULL, 0, N, in, 1, NULL, &sum, &err);
  for (int i = 0; i < N; i++) {
    ml_graph_node(g, ml_op_find("", "Add"), NULL, NULL, 0, 2, (ml_value *[]){ sum, in[i] }, 1, NULL, &out, &err);
    ml_graph_output(g, out, &err);
  }
  bool made = ml_onnx_write(g, &bytes, &size, &err) == ML_OK && mlserve_load_bytes(bytes, size, NULL, &model, MESSAGE) == MLSERVE_OK;
  if (bytes) memset(bytes, 0xEE, size); /* the model needs the bytes no longer */
  ml_free(bytes);
  ml_graph_free(g);
  if (!ok(made, "a model of %d inputs and outputs from memory: %s", N, message)) return;
  mlserve_value *inputs[N], *outputs[N] = { NULL };
  float data[N];
  bool right = true;
  for (int i = 0; i < N; i++) {
    data[i] = (float)(1 << i);
    mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 1 }, 1, &data[i], sizeof data[i], &inputs[i], MESSAGE);
  }
  ok(mlserve_run(model, NULL, inputs, N, NULL, outputs, N, MESSAGE) == MLSERVE_OK, "runs: %s", message);
  for (int i = 0; i < N; i++) right = right && *(float *)mlserve_value_data(outputs[i]) == (float)((1 << N) - 1 + (1 << i));
  ok(right, "every input and output is in its place");
  /* a state: input 3 becomes output 3 */
  ok(mlserve_run(model, NULL, inputs, N, (const char *[]){ mlserve_info_name(mlserve_output(model, 3)) }, &inputs[3], 1, MESSAGE) == MLSERVE_OK &&
     data[3] == (float)((1 << N) - 1 + 8), "a value is input and output: %s", message);
  mlserve_model_free(model);
  right = *(float *)mlserve_value_data(outputs[0]) == (float)(1 << N);
  ok(right, "results outlive their model");
  for (int i = 0; i < N; i++) {
    mlserve_value_free(inputs[i]);
    mlserve_value_free(outputs[i]);
  }
}

/* An output that is an input of the model keeps its name, though compiling puts another value in its place. */
static void test_pass_through(void) {
  ml_graph *g;
  ml_error err;
  ml_value *x;
  void *bytes = NULL;
  size_t size = 0;
  mlserve_model *model;
  float data[2] = { 3, 4 };
  mlserve_value *v, *out[2] = { NULL, NULL };
  ml_graph_new("through", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ ML_UNKNOWN }, 1, &x, &err);
  ml_graph_output(g, x, &err);
  if (!ok(ml_onnx_write(g, &bytes, &size, &err) == ML_OK && mlserve_load_bytes(bytes, size, NULL, &model, MESSAGE) == MLSERVE_OK, "loads: %s", message)) return;
  mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 2 }, 1, data, sizeof data, &v, MESSAGE);
  ok(mlserve_run(model, (const char *[]){ "x" }, &v, 1, (const char *[]){ "x" }, out, 1, MESSAGE) == MLSERVE_OK &&
     memcmp(mlserve_value_data(out[0]), data, sizeof data) == 0, "an input is an output under its name: %s", message);
  mlserve_value_free(v);
  mlserve_value_free(out[0]);
  mlserve_model_free(model);
  ml_free(bytes);
  ml_graph_free(g);
}

static void test_no_allocation(void) {
  test_case t;
  if (!open_case(&t, GOLDEN "onnx/network", NULL)) return;
  mlserve_value *y;
  float result[64];
  mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 64 }, 1, result, sizeof result, &y, MESSAGE);
  mlserve_run(t.model, NULL, t.inputs, 1, NULL, &y, 1, MESSAGE);
  ok(same(y, &t.expected[0]), "an output takes the result's shape");
  uint64_t before = ml_alloc_get_stats().allocations;
  for (int i = 0; i < 100; i++) mlserve_run(t.model, NULL, t.inputs, 1, NULL, &y, 1, MESSAGE);
  ok(ml_alloc_get_stats().allocations == before, "a run with values for its outputs allocates nothing");
  mlserve_value_free(y);
  close_case(&t);
}

/* ---------------------------------------------------------------- memory that runs out ---- */

static mlserve_status whole_life(float *row) {
  mlserve_model *model = NULL;
  mlserve_value *x = NULL, *words = NULL, *out[2] = { NULL, NULL };
  mlserve_status status = mlserve_load(NETWORK, NULL, &model, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 1, 4 }, 2, row, 16, &x, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_strings((const char *[]){ "a", "b" }, NULL, (int64_t[]){ 2 }, 1, &words, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_run(model, NULL, &x, 1, (const char *[]){ "p", "p" }, out, 2, MESSAGE);
  if (status != MLSERVE_OK && (out[0] || out[1])) status = MLSERVE_UNKNOWN; /* all or none */
  mlserve_value_free(out[0]);
  mlserve_value_free(out[1]);
  mlserve_value_free(words);
  mlserve_value_free(x);
  mlserve_model_free(model);
  return status;
}

/* A map of words is taken apart, put together and run through a model; the same with a sequence and an optional. */
static mlserve_status life_of_containers(float *row) {
  mlserve_model *model = NULL, *zipmap = NULL;
  mlserve_value *x = NULL, *words = NULL, *map = NULL, *seq = NULL, *opt = NULL, *part = NULL, *keys = NULL, *out[2] = { NULL, NULL };
  mlserve_status status = mlserve_load(GOLDEN "control/dictvectorizer/model.onnx", NULL, &model, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_load(GOLDEN "control/zipmap_string/model.onnx", NULL, &zipmap, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 2 }, 1, row, 8, &x, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_strings((const char *[]){ "a", "b" }, NULL, (int64_t[]){ 2 }, 1, &words, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_map(words, x, &map, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_sequence(NULL, (mlserve_value *[]){ map, map }, 2, &seq, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_optional("optional(seq(map(string,tensor(float32))))", seq, &opt, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_item(seq, 1, &part, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_keys(part, &keys, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_run(model, NULL, &part, 1, NULL, &out[0], 1, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_value_set_dims(x, (int64_t[]){ 1, 2 }, 2, MESSAGE);
  if (status == MLSERVE_OK) status = mlserve_run(zipmap, NULL, &x, 1, NULL, &out[1], 1, MESSAGE);
  if (status != MLSERVE_OK && out[1]) status = MLSERVE_UNKNOWN;
  mlserve_value *all[] = { x, words, map, seq, opt, part, keys, out[0], out[1] };
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) mlserve_value_free(all[i]);
  mlserve_model_free(model);
  mlserve_model_free(zipmap);
  return status;
}

static void check_out_of_memory(mlserve_status (*life)(float *)) {
  float row[4] = { 1, 2, 3, 4 };
  uint64_t live = ml_alloc_get_stats().live_blocks;
  int n = 1, bad = 0;
  for (;; n++) {
    ml_alloc_fail_at((uint64_t)n, false);
    mlserve_status status = life(row);
    ml_alloc_fail_at(0, false);
    if (ml_alloc_get_stats().live_blocks != live) bad++;
    if (status == MLSERVE_OK) break;
    if (status != MLSERVE_RESOURCE_EXHAUSTED || !strstr(message, "memory")) bad++;
  }
  ok(n > 50 && bad == 0, "each of %d allocations may fail: a clean error, nothing leaks (%d)", n, bad);
}

static void test_out_of_memory(void) {
  check_out_of_memory(whole_life);
  check_out_of_memory(life_of_containers);
}

/* ---------------------------------------------------------------- threads ---- */

enum { THREADS = 4, RUNS = 200 };
typedef struct shared { test_case *t; int bad; int64_t rows; } shared;

/* One model; now and then the shared input whole, else one row by the thread's own values, so that shapes change all the time. */
static void *hammer(void *context) {
  shared *s = context;
  test_case *t = s->t;
  char text[MLSERVE_MESSAGE_MAX];
  float *x = mlserve_value_data(t->inputs[0]), result[3], *expected = t->expected[0].tensor->view.data;
  mlserve_value *in = NULL, *out = NULL;
  int bad = mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 1, 3 }, 2, result, sizeof result, &out, text, sizeof text) != MLSERVE_OK;
  for (int i = 0; i < RUNS; i++) {
    int64_t row = i % s->rows;
    mlserve_value *all = NULL;
    bad += mlserve_value_wrap(MLSERVE_FLOAT32, (int64_t[]){ 1, 4 }, 2, x + row * 4, 16, &in, text, sizeof text) != MLSERVE_OK;
    bad += mlserve_run(t->model, NULL, &in, 1, NULL, &out, 1, text, sizeof text) != MLSERVE_OK;
    for (int j = 0; j < 3; j++) bad += !(fabs((double)result[j] - (double)expected[row * 3 + j]) < 1e-6);
    mlserve_value_free(in);
    if (i % 3) continue;
    bad += mlserve_run(t->model, NULL, t->inputs, 1, NULL, &all, 1, text, sizeof text) != MLSERVE_OK;
    for (size_t j = 0; j < mlserve_value_count(all); j++) bad += !(fabs((double)((float *)mlserve_value_data(all))[j] - (double)expected[j]) < 1e-6);
    bad += mlserve_value_count(all) != (size_t)s->rows * 3;
    mlserve_value_free(all);
    all = NULL;
    bad += mlserve_run(t->model, NULL, NULL, 0, NULL, &all, 1, text, sizeof text) != MLSERVE_INVALID_ARGUMENT || !strstr(text, "inputs");
  }
  mlserve_value_free(out);
  __atomic_add_fetch(&s->bad, bad, __ATOMIC_RELAXED);
  return NULL;
}

/* One map is the input of all, and is taken apart and put together meanwhile. */
static void *hammer_maps(void *context) {
  shared *s = context;
  test_case *t = s->t;
  char text[MLSERVE_MESSAGE_MAX];
  const ml_view *expected = &t->expected[0].tensor->view;
  int bad = 0;
  for (int i = 0; i < RUNS; i++) {
    mlserve_value *out = NULL, *keys, *values, *map, *seq, *item;
    bad += mlserve_value_keys(t->inputs[0], &keys, text, sizeof text) != MLSERVE_OK;
    bad += mlserve_value_values(t->inputs[0], &values, text, sizeof text) != MLSERVE_OK;
    bad += mlserve_value_map(keys, values, &map, text, sizeof text) != MLSERVE_OK;
    bad += mlserve_value_sequence(NULL, (mlserve_value *[]){ t->inputs[0], map }, 2, &seq, text, sizeof text) != MLSERVE_OK;
    bad += mlserve_value_item(seq, (size_t)i % 2, &item, text, sizeof text) != MLSERVE_OK;
    bad += mlserve_run(t->model, NULL, i % 3 ? &item : t->inputs, 1, NULL, &out, 1, text, sizeof text) != MLSERVE_OK;
    bad += mlserve_value_bytes(out) == 0 || memcmp(mlserve_value_data(out), expected->data, mlserve_value_bytes(out)) != 0;
    mlserve_value *all[] = { out, keys, values, map, seq, item };
    for (size_t j = 0; j < sizeof all / sizeof *all; j++) mlserve_value_free(all[j]);
  }
  __atomic_add_fetch(&s->bad, bad, __ATOMIC_RELAXED);
  return NULL;
}

static void test_threads(void) {
  test_case t;
  pthread_t threads[THREADS];
  if (open_case(&t, GOLDEN "control/dictvectorizer", NULL)) {
    shared s = { .t = &t };
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, hammer_maps, &s);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    ok(s.bad == 0, "%d threads share a map (%d wrong)", THREADS, s.bad);
  }
  close_case(&t);
  if (open_case(&t, GOLDEN "onnx/network", NULL)) {
    shared s = { .t = &t, .rows = mlserve_value_dim(t.inputs[0], 0) };
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, hammer, &s);
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    ok(s.bad == 0 && s.rows > 1, "%d threads share a model and an input of %d rows (%d wrong)", THREADS, (int)s.rows, s.bad);
  }
  close_case(&t);
}

int main(void) {
  test_library();
  test_cases();
  test_small_elements();
  test_describing();
  test_values();
  test_pipeline();
  test_containers();
  test_container_runs();
  test_null();
  test_loading_errors();
  test_running_errors();
  test_many();
  test_pass_through();
  test_no_allocation();
  test_out_of_memory();
  test_threads();
  return done();
}
