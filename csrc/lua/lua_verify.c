/* core.verify_case: runs one case of ONNX's backend tests, a directory with model.onnx and test_data_set_N/{input,output}_N.pb.
 *
 * Comparison (ONNX's backend test runner): as many outputs, equal dtype and shape; strings and booleans equal; numbers |got -
 * expected| <= atol + rtol |expected|, NaN equal to NaN and an infinity to itself. Besides pass or fail the largest absolute
 * difference and the largest distance in units in the last place are reported, so that an operator that drifts shows before it
 * fails. A case that cannot be read or run is a failed case, not a Lua error: only wrong arguments raise. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "format/onnx.h"
#include "lua/lua_core.h"

#define MAX_IO 64
#define MAX_SETS 1024

typedef struct verification {
  char directory[2048];
  double rtol, atol;
  ml_graph *graph;
  ml_tensor *in[MAX_IO];
  int set;        /* the data set being run */
  size_t outputs; /* compared so far, over all data sets */
  double max_abs, max_ulp;
} verification;

/* ---------------------------------------------------------------- comparing ---- */
/* Position of a float among all floats of its width, so that neighbours differ by one and +0 and -0 are the same. */
static double ulp_position(const void *data, ml_dtype dtype, size_t i) {
  uint64_t bits, sign;
  switch (dtype) {
    case ML_FLOAT32: {
      uint32_t v;
      memcpy(&v, (const char *)data + i * 4, 4);
      bits = v & 0x7FFFFFFFu;
      sign = v >> 31;
    } break;
    case ML_FLOAT64: {
      uint64_t v;
      memcpy(&v, (const char *)data + i * 8, 8);
      bits = v & 0x7FFFFFFFFFFFFFFFu;
      sign = v >> 63;
    } break;
    default: {
      uint16_t v;
      memcpy(&v, (const char *)data + i * 2, 2);
      bits = v & 0x7FFFu;
      sign = v >> 15;
    } break;
  }
  return sign ? -(double)bits : (double)bits;
}

static bool equal_bits(const ml_view *a, const ml_view *b, size_t i) {
  size_t size = ml_dtype_size(a->dtype);
  return memcmp((const char *)a->data + i * size, (const char *)b->data + i * size, size) == 0;
}

static bool close_enough(verification *v, const ml_view *got, const ml_view *expected, size_t i) {
  if (equal_bits(got, expected, i)) return true;
  double a = ml_element_get(got->data, got->dtype, i), b = ml_element_get(expected->data, got->dtype, i);
  if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
  if (isinf(a) || isinf(b)) return a == b;
  double difference = fabs(a - b);
  if (difference > v->max_abs) v->max_abs = difference;
  if (ml_dtype_is_float(got->dtype)) {
    double ulp = fabs(ulp_position(got->data, got->dtype, i) - ulp_position(expected->data, got->dtype, i));
    if (ulp > v->max_ulp) v->max_ulp = ulp;
  }
  return got->dtype == ML_BOOL ? a == b : difference <= v->atol + v->rtol * fabs(b);
}

static ml_status difference_at(const verification *v, const char *name, const ml_view *got, size_t i, const char *a,
                               const char *b, size_t wrong, ml_error *err) {
  int64_t index[ML_MAX_RANK];
  char text[160];
  size_t rest = i;
  for (int32_t d = got->rank - 1; d >= 0; d--) {
    index[d] = (int64_t)(rest % (size_t)got->dims[d]);
    rest /= (size_t)got->dims[d];
  }
  return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' at %s: got %s, expected %s (%zu of %zu elements differ)",
                 v->set, name, ml_shape_format(index, got->rank, text, sizeof text), a, b, wrong, got->count);
}

static ml_status compare_strings(verification *v, const char *name, const ml_view *got, const ml_view *expected, ml_error *err) {
  const ml_str *a = got->data, *b = expected->data;
  size_t wrong = 0, first = 0;
  for (size_t i = got->count; i-- > 0;) {
    if (a[i].length == b[i].length && (a[i].length == 0 || memcmp(a[i].bytes, b[i].bytes, a[i].length) == 0)) continue;
    first = i;
    wrong++;
  }
  if (wrong == 0) return ML_OK;
  char left[64], right[64];
  snprintf(left, sizeof left, "'%.*s'", (int)(a[first].length < 50 ? a[first].length : 50),
           a[first].length ? a[first].bytes : "");
  snprintf(right, sizeof right, "'%.*s'", (int)(b[first].length < 50 ? b[first].length : 50),
           b[first].length ? b[first].bytes : "");
  return difference_at(v, name, got, first, left, right, wrong, err);
}

/* NumPy has no bfloat16, so files made with it hold the bits as uint16 where the model says bfloat16. */
static void take_bits(ml_view *file, ml_dtype model) {
  if (file->dtype == ML_UINT16 && model == ML_BFLOAT16) file->dtype = ML_BFLOAT16;
}

static ml_status compare(verification *v, const char *name, const ml_view *got, ml_view *expected, ml_error *err) {
  char left[128], right[128];
  take_bits(expected, got->dtype);
  if (got->dtype != expected->dtype)
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' is %s, expected %s", v->set, name,
                   ml_dtype_name(got->dtype), ml_dtype_name(expected->dtype));
  if (!ml_shape_equal(got->dims, got->rank, expected->dims, expected->rank))
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' has shape %s, expected %s", v->set, name,
                   ml_shape_format(got->dims, got->rank, left, sizeof left),
                   ml_shape_format(expected->dims, expected->rank, right, sizeof right));
  v->outputs++;
  if (got->dtype == ML_STRING) return compare_strings(v, name, got, expected, err);
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < got->count; i++) {
    if (close_enough(v, got, expected, i)) continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) return ML_OK;
  snprintf(left, sizeof left, "%.9g", ml_element_get(got->data, got->dtype, first));
  snprintf(right, sizeof right, "%.9g", ml_element_get(expected->data, expected->dtype, first));
  return difference_at(v, name, got, first, left, right, wrong, err);
}

/* ---------------------------------------------------------------- files ---- */
static ml_status join(const verification *v, char *path, size_t size, const char *kind, size_t index, ml_error *err) {
  int n = snprintf(path, size, "%s/test_data_set_%d/%s_%zu.pb", v->directory, v->set, kind, index);
  return n > 0 && (size_t)n < size ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "the path of %s_%zu.pb is too long", kind, index);
}

/* *out stays NULL when there is no such file. `name` gets the tensor's name, cut to fit. */
static ml_status read_tensor(const verification *v, const char *kind, size_t index, ml_tensor **out, char *name, size_t size,
                             ml_error *err) {
  char path[sizeof v->directory + 64];
  ml_file_map map;
  const char *given = NULL;
  size_t length = 0;
  *out = NULL;
  ML_TRY(join(v, path, sizeof path, kind, index, err));
  if (access(path, F_OK) != 0) return ML_OK;
  ML_TRY(ml_file_open_map(path, &map, err));
  ml_status status = ml_onnx_tensor_read(map.bytes, map.size, path, out, &given, &length, err);
  if (status == ML_OK && name) {
    size_t n = given && length < size ? length : 0;
    if (n) memcpy(name, given, n);
    name[n] = '\0';
  }
  ml_file_unmap(&map);
  return status;
}

/* ---------------------------------------------------------------- running ---- */
/* An input file belongs to the graph input of its name; else to the one of its number. One that has the name of an initialiser
 * replaces it. */
static ml_status take_input(verification *v, size_t index, const char *name, ml_tensor *tensor, ml_error *err) {
  ml_value *value = *name ? ml_graph_find(v->graph, name) : NULL;
  size_t at = index;
  if (value && value->init) {
    ml_status status = ml_graph_set_initializer(v->graph, value, tensor, err);
    ml_tensor_release(tensor);
    return status;
  }
  for (size_t i = 0; value && i < v->graph->n_inputs; i++)
    if (v->graph->inputs[i] == value) at = i;
  if (at >= v->graph->n_inputs || v->in[at]) {
    ml_tensor_release(tensor);
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: input_%zu.pb is for no input of the model", v->set, index);
  }
  take_bits(&tensor->view, v->graph->inputs[at]->dtype);
  v->in[at] = tensor;
  return ML_OK;
}

static ml_status take_outputs(void *context, ml_session *session, ml_error *err) {
  verification *v = context;
  for (size_t i = 0; i < v->graph->n_outputs; i++) {
    ml_tensor *expected;
    ML_TRY(read_tensor(v, "output", i, &expected, NULL, 0, err));
    if (!expected) return ml_fail(err, ML_NOT_FOUND, "test_data_set_%d: output_%zu.pb is missing", v->set, i);
    ml_status status = compare(v, v->graph->outputs[i]->name, ml_session_output(session, i), &expected->view, err);
    ml_tensor_release(expected);
    ML_TRY(status);
  }
  char path[sizeof v->directory + 64];
  ML_TRY(join(v, path, sizeof path, "output", v->graph->n_outputs, err));
  if (access(path, F_OK) == 0)
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: more outputs than the %zu of the model", v->set, v->graph->n_outputs);
  return ML_OK;
}

static ml_status run_set(verification *v, const ml_compile_options *options, ml_error *err) {
  ml_view views[MAX_IO];
  ml_program *program = NULL;
  for (size_t i = 0; i <= MAX_IO; i++) {
    ml_tensor *tensor;
    char name[256];
    ML_TRY(read_tensor(v, "input", i, &tensor, name, sizeof name, err));
    if (!tensor) break;
    ML_TRY(take_input(v, i, name, tensor, err));
  }
  for (size_t i = 0; i < v->graph->n_inputs; i++) {
    if (!v->in[i])
      return ml_fail(err, ML_NOT_FOUND, "test_data_set_%d: there is no file for input '%.80s'", v->set,
                     v->graph->inputs[i]->name);
    views[i] = v->in[i]->view;
  }
  ML_TRY(ml_program_new(v->graph, options, &program, err));
  ml_status status = ml_program_run(program, views, take_outputs, v, err);
  ml_program_release(program);
  return status;
}

/* The largest N of test_data_set_N; -1: none. */
static ml_status count_sets(const verification *v, int *last, ml_error *err) {
  DIR *directory = opendir(v->directory);
  *last = -1;
  if (!directory) return ml_fail(err, ML_NOT_FOUND, "%.300s: %s", v->directory, strerror(errno));
  for (struct dirent *entry; (entry = readdir(directory));) {
    static const char prefix[] = "test_data_set_";
    if (strncmp(entry->d_name, prefix, sizeof prefix - 1) != 0) continue;
    char *end;
    const char *digits = entry->d_name + sizeof prefix - 1;
    long n = strtol(digits, &end, 10);
    if (end != digits && *end == '\0' && n >= 0 && n < MAX_SETS && n > *last) *last = (int)n;
  }
  closedir(directory);
  return *last >= 0 ? ML_OK : ml_fail(err, ML_NOT_FOUND, "%.300s: no directory test_data_set_0", v->directory);
}

static ml_status run_case(verification *v, const ml_compile_options *options, ml_error *err) {
  char path[sizeof v->directory + 64];
  int last;
  ML_TRY(count_sets(v, &last, err));
  int n = snprintf(path, sizeof path, "%s/model.onnx", v->directory);
  if (n < 0 || (size_t)n >= sizeof path) return ml_fail(err, ML_INVALID_ARGUMENT, "the path is too long");
  ML_TRY(ml_onnx_load(path, NULL, &v->graph, err));
  if (v->graph->n_inputs > MAX_IO || v->graph->n_outputs > MAX_IO)
    return ml_fail(err, ML_UNIMPLEMENTED, "more than %d inputs or outputs", MAX_IO);
  for (v->set = 0; v->set <= last; v->set++) {
    snprintf(path, sizeof path, "%s/test_data_set_%d", v->directory, v->set);
    if (access(path, F_OK) != 0) continue;
    ml_status status = run_set(v, options, err);
    for (size_t i = 0; i < MAX_IO; i++) {
      ml_tensor_release(v->in[i]);
      v->in[i] = NULL;
    }
    ML_TRY(status);
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- binding ---- */
/* Distinct operators of the graph, in order of appearance. */
static void push_operators(lua_State *L, const ml_graph *graph) {
  int n = 0;
  lua_newtable(L);
  lua_newtable(L); /* seen */
  for (size_t i = 0; graph && i < graph->n_nodes; i++) {
    const char *name = graph->nodes[i]->op->name;
    lua_getfield(L, -1, name);
    bool seen = !lua_isnil(L, -1);
    lua_pop(L, 1);
    if (seen) continue;
    lua_pushboolean(L, 1);
    lua_setfield(L, -2, name);
    lua_pushstring(L, name);
    lua_rawseti(L, -3, ++n);
  }
  lua_pop(L, 1);
}

static void check_options(lua_State *L, int index) {
  static const char *const known[] = { "level", "rtol", "atol" };
  if (lua_isnoneornil(L, index)) return;
  luaL_checktype(L, index, LUA_TTABLE);
  lua_pushnil(L);
  while (lua_next(L, index)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(known[i], name) != 0) i++;
    if (i == sizeof known / sizeof *known) luaL_error(L, "unknown option '%s' (known: atol, level, rtol)", name);
    lua_pop(L, 1);
  }
}

/* The message without "DIRECTORY/model.onnx: " in front: the caller says which case it is. */
static const char *without_path(const char *message, const char *directory) {
  static const char file[] = "/model.onnx: ";
  size_t n = strlen(directory);
  if (strncmp(message, directory, n) != 0 || strncmp(message + n, file, sizeof file - 1) != 0) return message;
  return message + n + sizeof file - 1;
}

/* verify_case(directory[, {level = "fast", rtol = 1e-3, atol = 1e-7}])
 *   -> {passed, error = text or nil, max_abs, max_ulp, outputs = number compared, operators = array of names} */
static int verify_case(lua_State *L) {
  static const char *const levels[] = { "none", "exact", "fast" };
  size_t length, at = 0;
  const char *directory = luaL_checklstring(L, 1, &length);
  check_options(L, 2);
  const char *level = ml__lua_opt_string_field(L, 2, "level", "fast");
  while (at < 3 && strcmp(levels[at], level) != 0) at++;
  if (at == 3) return luaL_error(L, "option 'level': none, exact or fast expected, got '%s'", level);
  ml_compile_options options = { .level = (ml_level)at };
  double rtol = ml__lua_opt_number_field(L, 2, "rtol", 1e-3), atol = ml__lua_opt_number_field(L, 2, "atol", 1e-7);
  if (!(rtol >= 0) || !(atol >= 0)) return luaL_error(L, "options 'rtol' and 'atol': numbers of at least 0 expected");
  verification *v = ml_alloc_zero(1, sizeof *v);
  ml_error err;
  if (!v) {
    (void)ml_fail_memory(&err, sizeof *v, "a case");
    return ml__lua_fail(L, &err);
  }
  ml_status status = length < sizeof v->directory ? ML_OK : ml_fail(&err, ML_INVALID_ARGUMENT, "the path is too long");
  if (status == ML_OK) {
    memcpy(v->directory, directory, length + 1);
    v->rtol = rtol;
    v->atol = atol;
    status = run_case(v, &options, &err);
  }
  for (size_t i = 0; i < MAX_IO; i++) ml_tensor_release(v->in[i]);
  double max_abs = v->max_abs, max_ulp = v->max_ulp, outputs = (double)v->outputs;
  lua_createtable(L, 0, 6);
  push_operators(L, v->graph);
  ml_graph_free(v->graph);
  ml_free(v);
  lua_setfield(L, -2, "operators");
  lua_pushboolean(L, status == ML_OK);
  lua_setfield(L, -2, "passed");
  if (status != ML_OK) {
    lua_pushstring(L, without_path(err.message, directory));
    lua_setfield(L, -2, "error");
  }
  lua_pushnumber(L, max_abs);
  lua_setfield(L, -2, "max_abs");
  lua_pushnumber(L, max_ulp);
  lua_setfield(L, -2, "max_ulp");
  ml__lua_push_int(L, (int64_t)outputs);
  lua_setfield(L, -2, "outputs");
  return 1;
}

void ml__lua_open_verify(lua_State *L) {
  static const luaL_Reg functions[] = { { "verify_case", verify_case }, { NULL, NULL } };
  luaL_setfuncs(L, functions, 0);
}
