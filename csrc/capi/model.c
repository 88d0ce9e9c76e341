/* Models of the C API: loading and describing. Infos are copied from the graph as it was read, since compiling a model may put another value in an
 * output's place. */
#include <string.h>
#include "capi/capi.h"
#include "format/onnx.h"

/* ---- options ---- */

/* A structure of an older header is shorter (the rest are defaults); one of a newer header is longer and may use only what is known here. */
static ml_status read_options(const mlserve_options *given, mlserve_options *options, ml_error *err) {
  *options = (mlserve_options)MLSERVE_OPTIONS_INIT;
  if (!given) return ML_OK;
  const size_t least = offsetof(mlserve_options, level), size = given->struct_size;
  if (size < least || size > 4096)
    return ml_fail(err, ML_INVALID_ARGUMENT, "options: struct_size is %zu, begin with MLSERVE_OPTIONS_INIT", size);
  if (given->abi != MLSERVE_ABI_VERSION)
    return ml_fail(err, ML_FAILED_PRECONDITION, "options: the program was built for version %u of the binary interface, the library has %u",
                   (unsigned)given->abi, (unsigned)MLSERVE_ABI_VERSION);
  for (size_t i = sizeof *options; i < size; i++)
    if (((const unsigned char *)given)[i] != 0) return ml_fail(err, ML_UNIMPLEMENTED, "options: byte %zu is set, this library is too old for it", i);
  memcpy(options, given, size < sizeof *options ? size : sizeof *options);
  if (options->level < MLSERVE_LEVEL_DEFAULT || options->level > MLSERVE_LEVEL_FAST)
    return ml_fail(err, ML_INVALID_ARGUMENT, "options: level %d is none of MLSERVE_LEVEL_NONE, EXACT and FAST", (int)options->level);
  if (options->reserved != 0) return ml_fail(err, ML_INVALID_ARGUMENT, "options: reserved has to be 0");
  return ML_OK;
}

static ml_compile_options compile_options(const mlserve_options *options) {
  static const ml_level levels[] = { ML_LEVEL_FAST, ML_LEVEL_NONE, ML_LEVEL_EXACT, ML_LEVEL_FAST };
  return (ml_compile_options){ .level = levels[options->level] };
}

static size_t limit(uint64_t wanted) { return wanted > SIZE_MAX ? SIZE_MAX : (size_t)wanted; }

/* ---- making ---- */

static ml_status describe(ml_arena *arena, ml_value *const *values, size_t n, mlserve_info **out, ml_error *err) {
  size_t bytes;
  if (!ml_mul_size(n + 1, sizeof(mlserve_info), &bytes)) return ml_fail_memory(err, SIZE_MAX, "a model");
  mlserve_info *infos = *out = ml_arena_alloc(arena, bytes);
  if (!infos) return ml_fail_memory(err, bytes, "a model");
  for (size_t i = 0; i < n; i++) {
    const ml_value *v = values[i];
    size_t rank = v->rank > 0 ? (size_t)v->rank : 0;
    const char *name = ml_arena_strndup(arena, v->name, strlen(v->name));
    int64_t *dims = ml_arena_alloc(arena, (rank + 1) * sizeof *dims);
    const char **dim_names = ml_arena_alloc(arena, (rank + 1) * sizeof *dim_names);
    uint32_t type = v->type ? v->type : ml_type_tensor(v->dtype);
    char text[ML__TYPE_TEXT];
    ml_type_format(type, text, sizeof text);
    const char *type_text = ml_arena_strndup(arena, text, strlen(text));
    if (!name || !dims || !dim_names || !type_text) return ml_fail_memory(err, bytes, "a model");
    for (size_t d = 0; d < rank; d++) {
      dims[d] = v->dims[d] < 0 ? -1 : v->dims[d];
      if (dims[d] < 0 && v->dim_names[d] && !(dim_names[d] = ml_arena_strndup(arena, v->dim_names[d], strlen(v->dim_names[d]))))
        return ml_fail_memory(err, bytes, "a model");
    }
    infos[i] = (mlserve_info){ .mark = ML__INFO_MARK, .type = type, .rank = v->rank < 0 || v->type ? -1 : v->rank, .name = name,
                               .type_text = type_text, .dims = dims, .dim_names = dim_names };
  }
  return ML_OK;
}

static ml_status make(const ml_graph *graph, const mlserve_options *options, mlserve_model **out, ml_error *err) {
  mlserve_model *model = ml_alloc_zero(1, sizeof *model);
  if (!model) return ml_fail_memory(err, sizeof *model, "a model");
  const ml_compile_options compile = compile_options(options);
  model->mark = ML__MODEL_MARK;
  model->n_inputs = graph->n_inputs;
  model->n_outputs = graph->n_outputs;
  model->arena = ml_arena_new();
  ml_status status = model->arena ? ML_OK : ml_fail_memory(err, 1, "a model");
  if (status == ML_OK) status = describe(model->arena, graph->inputs, graph->n_inputs, &model->inputs, err);
  if (status == ML_OK) status = describe(model->arena, graph->outputs, graph->n_outputs, &model->outputs, err);
  if (status == ML_OK) status = ml_program_new(graph, &compile, &model->program, err);
  if (status == ML_OK) *out = model;
  else mlserve_model_free(model);
  return status;
}

/* path NULL: from bytes */
static ml_status load(const char *path, const void *bytes, size_t size, const mlserve_options *given, mlserve_model **out, ml_error *err) {
  mlserve_options options;
  ml_graph *graph = NULL;
  ML_TRY(read_options(given, &options, err));
  const ml_onnx_limits limits = { .max_bytes = limit(options.max_bytes), .max_nodes = limit(options.max_nodes) };
  if (path) ML_TRY(ml_onnx_load(path, &limits, &graph, err));
  else ML_TRY(ml_onnx_read(bytes, size, "model", &limits, &graph, err));
  ml_status status = make(graph, &options, out, err);
  ml_graph_free(graph);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", path ? path : "model");
}

mlserve_status mlserve_load(const char *path, const mlserve_options *options, mlserve_model **model, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  if (model) *model = NULL;
  if (!path || !model) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_load: %s is NULL", path ? "model" : "path");
  else status = load(path, NULL, 0, options, model, &err);
  return ml__capi_end(status, &err, message, message_size);
}

mlserve_status mlserve_load_bytes(const void *bytes, size_t size, const mlserve_options *options, mlserve_model **model, char *message,
                                  size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  if (model) *model = NULL;
  if (!bytes || !model) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_load_bytes: %s is NULL", bytes ? "model" : "bytes");
  else status = load(NULL, bytes, size, options, model, &err);
  return ml__capi_end(status, &err, message, message_size);
}

void mlserve_model_free(mlserve_model *model) {
  if (!ml__capi_is_model(model)) return;
  model->mark = 0;
  ml_program_release(model->program);
  ml_arena_free(model->arena);
  ml_free(model);
}

/* ---- describing ---- */

static const ml_graph *graph_of(const mlserve_model *model) { return ml__capi_is_model(model) ? ml_program_graph(model->program) : NULL; }
static const mlserve_info *checked(const mlserve_info *info) { return info && info->mark == ML__INFO_MARK ? info : NULL; }
static const char *text_or_empty(const char *text) { return text ? text : ""; }

size_t mlserve_inputs(const mlserve_model *model) { return ml__capi_is_model(model) ? model->n_inputs : 0; }
size_t mlserve_outputs(const mlserve_model *model) { return ml__capi_is_model(model) ? model->n_outputs : 0; }

const mlserve_info *mlserve_input(const mlserve_model *model, size_t index) { return index < mlserve_inputs(model) ? &model->inputs[index] : NULL; }
const mlserve_info *mlserve_output(const mlserve_model *model, size_t index) { return index < mlserve_outputs(model) ? &model->outputs[index] : NULL; }

const char *mlserve_info_name(const mlserve_info *info) { return checked(info) ? info->name : NULL; }

int32_t mlserve_info_kind(const mlserve_info *info) { return checked(info) ? ml__capi_kind(info->type) : MLSERVE_KIND_NONE; }
const char *mlserve_info_type(const mlserve_info *info) { return checked(info) ? info->type_text : NULL; }

mlserve_dtype mlserve_info_dtype(const mlserve_info *info) {
  return checked(info) ? (mlserve_dtype)ml_type_dtype(info->type) : MLSERVE_DTYPE_NONE;
}

int32_t mlserve_info_rank(const mlserve_info *info) { return checked(info) ? info->rank : -1; }

int64_t mlserve_info_dim(const mlserve_info *info, int32_t axis) {
  return checked(info) && axis >= 0 && axis < info->rank ? info->dims[axis] : -1;
}

const char *mlserve_info_dim_name(const mlserve_info *info, int32_t axis) {
  return checked(info) && axis >= 0 && axis < info->rank ? info->dim_names[axis] : NULL;
}

const char *mlserve_model_name(const mlserve_model *model) {
  const ml_graph *graph = graph_of(model);
  return text_or_empty(graph ? graph->name : NULL);
}

const char *mlserve_model_producer(const mlserve_model *model) {
  const ml_graph *graph = graph_of(model);
  return text_or_empty(graph ? graph->producer_name : NULL);
}

const char *mlserve_model_producer_version(const mlserve_model *model) {
  const ml_graph *graph = graph_of(model);
  return text_or_empty(graph ? graph->producer_version : NULL);
}

const char *mlserve_model_doc(const mlserve_model *model) {
  const ml_graph *graph = graph_of(model);
  return text_or_empty(graph ? graph->doc : NULL);
}

int64_t mlserve_model_version(const mlserve_model *model) {
  const ml_graph *graph = graph_of(model);
  return graph ? graph->model_version : 0;
}

int64_t mlserve_model_opset(const mlserve_model *model, const char *domain) {
  const ml_graph *graph = graph_of(model);
  if (!graph || !domain) return 0;
  if (strcmp(domain, "") == 0 || strcmp(domain, "ai.onnx") == 0) return graph->onnx_opset;
  return strcmp(domain, "ai.onnx.ml") == 0 ? graph->onnx_ml_opset : 0;
}

size_t mlserve_metadata_count(const mlserve_model *model) {
  const ml_graph *graph = graph_of(model);
  return graph ? graph->n_properties : 0;
}

const char *mlserve_metadata_key(const mlserve_model *model, size_t index) {
  const ml_graph *graph = graph_of(model);
  return graph && index < graph->n_properties ? graph->properties[index].key : NULL;
}

const char *mlserve_metadata(const mlserve_model *model, const char *key, size_t *length) {
  const ml_graph *graph = graph_of(model);
  const ml_property *property = graph && key ? ml_graph_property(graph, key) : NULL;
  if (length) *length = property ? property->length : 0;
  return property ? property->value : NULL;
}
