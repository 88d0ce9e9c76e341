/* core.servable(program[, options]) -> mlserve.servable: a compiled model behind its signatures.
 *   options: model, version, max_elements, features (names of the columns of the only input), classes (labels of scores),
 *            signatures = { NAME = { inputs = { PUBLIC = "graph name" }, outputs = …, method_name } }
 *   :predict_json(body[, signature]) -> text | nil, message, code       :classify_json(body), :regress_json(body): the same
 *   :infer(body[, json_size[, { model, version }]]) -> body, headers | nil, message, code: KServe's v2 infer request; json_size: how much of the body
 *   is JSON (nil: all); headers: nil when the answer is JSON only
 *   :predict_proto(bytes[, signature[, model[, version[, tensor_content]]]]) -> bytes | nil, message, code: a message of TensorFlow Serving's gRPC
 *   API. signature: for a request that names none; model, version: what the answer calls the model; tensor_content (boolean): answer in that field
 *   :classify_proto, :regress_proto, :multi_inference_proto(bytes[, signature[, model[, version]]]): the same with its other methods
 *   :infer_proto(bytes[, nil[, model[, version]]]): the same with KServe's ModelInfer
 *   :statistics([{ model, version }]) -> text     :max_batch() -> integer, 0 when the model takes no batches
 *   :io() -> inputs, outputs     :signatures()  :model()  :version() :handle() -> integer
 * for core.servable_at in another Lua state of the process; the model stays deployed until :close() or collection
 *   :give() -> integer: the same, but it stays deployed for servable_at(handle, true) to take; this object is closed
 *   :start_json, :start_infer, :start_proto, :batching, :batched, :batch_stats and :count_in: see lua_batch.c
 * core.peek_predict(bytes) -> name, version, label, signature (strings; nil: not given), nothing when the request has no model_spec | nil, message,
 *   code: whom a request of PredictionService asks   core.peek_multi_inference(bytes): the same of its first task
 * core.peek_infer(bytes) -> name, version (nil: not given) | nil, message, code
 * core.servable_at(handle[, take]) -> mlserve.servable | nil, message, code; take: the handle is no longer deployed */
#include <stdio.h>
#include <string.h>
#include "lua/lua_core.h"
#include "serve/examples_proto.h"
#include "serve/examples.h"
#include "lua/lua_servable.h"
#include "serve/infer_proto.h"
#include "serve/predict_proto.h"
#include "serve/registry.h"

#define SERVABLE "mlserve.servable"
enum { KEPT_TEXT = 1 << 20 };

typedef struct servable_box {
  ml_servable *servable;
  int64_t handle;     /* 0: not in the registry through this object */
  ml_json_writer out; /* reused, so that answers need no allocation of ours */
  ml_pb_writer bytes; /* the same */
} servable_box;

static servable_box *check_box(lua_State *L, int index)
{
  servable_box *box = luaL_checkudata(L, index, SERVABLE);
  luaL_argcheck(L, box->servable != NULL, index, "the servable has been closed");
  return box;
}

ml_servable *ml__lua_check_servable(lua_State *L, int index) { return check_box(L, index)->servable; }

static servable_box *new_box(lua_State *L)
{
  servable_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = (servable_box){ 0 };
  ml_json_writer_init(&box->out);
  ml_pb_writer_init(&box->bytes);
  luaL_setmetatable(L, SERVABLE);
  return box;
}

ml_servable **ml__lua_new_servable(lua_State *L) { return &new_box(L)->servable; }

static int servable_close(lua_State *L)
{
  servable_box *box = luaL_checkudata(L, 1, SERVABLE);
  if (box->handle) ml_registry_remove(box->handle);
  ml_servable_release(box->servable);
  ml_json_writer_free(&box->out);
  ml_pb_writer_free(&box->bytes);
  box->servable = NULL;
  box->handle = 0;
  return 0;
}

static int servable_tostring(lua_State *L)
{
  servable_box *box = luaL_checkudata(L, 1, SERVABLE);
  if (box->servable)
    lua_pushfstring(L, "servable '%s' version %d", ml_servable_model(box->servable), (int)ml_servable_version(box->servable));
  else lua_pushliteral(L, "servable (closed)");
  return 1;
}

/* ---- options ---- */
void ml__lua_check_keys(lua_State *L, int index, const char *what, const char *const *known)
{
  char list[400] = "";
  lua_pushnil(L);
  while (lua_next(L, index)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    size_t i = 0;
    while (known[i] && strcmp(known[i], key) != 0) i++;
    if (!known[i]) {
      for (i = 0; known[i]; i++) {
        strcat(list, i ? ", " : "");
        strcat(list, known[i]);
      }
      luaL_error(L, "%s: unknown option '%s'; known: %s", what, key, list);
    }
    lua_pop(L, 1);
  }
}

/* The table of public names on top of the stack; memory is Lua's, strings belong to the tables. */
static ml_signature_tensor *read_names(lua_State *L, const char *signature, const char *kind, int keep, size_t *n)
{
  *n = 0;
  lua_getfield(L, -1, kind);
  if (!lua_istable(L, -1)) luaL_error(L, "signature '%s': %s: table expected, got %s", signature, kind, luaL_typename(L, -1));
  lua_pushnil(L);
  for (; lua_next(L, -2); lua_pop(L, 1)) ++*n;
  ml_signature_tensor *list = lua_newuserdatauv(L, (*n + 1) * sizeof *list, 0);
  memset(list, 0, (*n + 1) * sizeof *list);
  lua_rawseti(L, keep, (int)lua_rawlen(L, keep) + 1);
  size_t i = 0;
  lua_pushnil(L);
  while (lua_next(L, -2)) {
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "signature '%s': %s: names expected as keys", signature, kind);
    list[i].name = lua_tostring(L, -2);
    if (lua_istable(L, -1)) { /* { name = graph name, … }, as signatures() gives it */
      lua_getfield(L, -1, "name");
      lua_remove(L, -2);
    }
    if (lua_type(L, -1) == LUA_TSTRING) list[i].value = lua_tostring(L, -1);
    else if (!lua_isnil(L, -1) && !lua_isboolean(L, -1))
      luaL_error(L, "signature '%s': %s '%s': graph name expected, got %s", signature, kind, list[i].name, luaL_typename(L, -1));
    lua_pop(L, 1);
    i++;
  }
  lua_pop(L, 1);
  return list;
}

static void read_signatures(lua_State *L, ml_servable_options *options)
{
  static const char *const known[] = { "inputs", "outputs", "method_name", NULL };
  lua_getfield(L, 2, "signatures");
  if (lua_isnil(L, -1)) {
    lua_pop(L, 1);
    return;
  }
  if (!lua_istable(L, -1)) luaL_error(L, "servable: option 'signatures': table expected, got %s", luaL_typename(L, -1));
  int table = lua_gettop(L), keep = table + 1; /* keep anchors the memory; both stay on the stack */
  size_t n = 0;
  lua_newtable(L);
  lua_pushnil(L);
  for (; lua_next(L, table); lua_pop(L, 1)) n++;
  ml_signature *list = lua_newuserdatauv(L, (n + 1) * sizeof *list, 0);
  lua_rawseti(L, keep, 1);
  size_t i = 0;
  lua_pushnil(L);
  while (lua_next(L, table)) {
    if (lua_type(L, -2) != LUA_TSTRING || !lua_istable(L, -1))
      luaL_error(L, "servable: option 'signatures': { NAME = { inputs, outputs } } expected");
    ml_signature *s = &list[i++];
    *s = (ml_signature){ .name = lua_tostring(L, -2) };
    ml__lua_check_keys(L, lua_gettop(L), "signature", known);
    s->method = ml__lua_opt_string_field(L, lua_gettop(L), "method_name", NULL);
    s->inputs = read_names(L, s->name, "inputs", keep, &s->n_inputs);
    s->outputs = read_names(L, s->name, "outputs", keep, &s->n_outputs);
    lua_pop(L, 1);
  }
  options->signatures = list;
  options->n_signatures = n;
}

/* An array of strings (numbers as text) under `name` of the options; its memory stays on the stack. */
static const char *const *read_list(lua_State *L, const char *name, size_t *n)
{
  lua_getfield(L, 2, name);
  *n = 0;
  if (lua_isnil(L, -1)) return NULL;
  if (!lua_istable(L, -1)) luaL_error(L, "servable: option '%s': array expected, got %s", name, luaL_typename(L, -1));
  size_t count = lua_rawlen(L, -1);
  const char **list = lua_newuserdatauv(L, (count + 1) * sizeof *list, 0);
  lua_createtable(L, (int)count, 0); /* keeps the strings made of numbers */
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, -3, (int)i + 1);
    if (!lua_isstring(L, -1)) luaL_error(L, "servable: option '%s': element %d: string expected, got %s", name, (int)i + 1, luaL_typename(L, -1));
    list[i] = lua_tostring(L, -1);
    lua_rawseti(L, -2, (int)i + 1);
  }
  *n = count;
  return list;
}

static int new_servable(lua_State *L)
{
  static const char *const known[] = { "model", "version", "max_elements", "signatures", "features", "classes", NULL };
  ml_program *program = ml__lua_check_program(L, 1);
  ml_servable_options options = { 0 };
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    ml__lua_check_keys(L, 2, "servable", known);
    options.model = ml__lua_opt_string_field(L, 2, "model", NULL);
    options.version = ml__lua_opt_int_field(L, 2, "version", 0);
    int64_t most = ml__lua_opt_int_field(L, 2, "max_elements", 0);
    if (most < 0) return luaL_error(L, "servable: option 'max_elements': a positive number expected");
    options.max_elements = (size_t)most;
    options.features = read_list(L, "features", &options.n_features);
    options.classes = read_list(L, "classes", &options.n_classes);
    read_signatures(L, &options);
  }
  servable_box *box = new_box(L);
  ml_error err;
  if (ml_servable_new(program, &options, &box->servable, &err) != ML_OK) return ml__lua_error(L, &err);
  return 1;
}

/* ---- methods ---- */
int ml__lua_servable_predict_json(lua_State *L)
{
  servable_box *box = check_box(L, 1);
  size_t size;
  const char *body = luaL_checklstring(L, 2, &size), *signature = luaL_optstring(L, 3, NULL);
  ml_error err;
  box->out.length = 0;
  box->out.status = ML_OK;
  ml_status status = ml_servable_predict_json(box->servable, body, size, signature, &box->out, &err);
  if (status == ML_OK) lua_pushlstring(L, box->out.text, box->out.length);
  if (box->out.capacity > KEPT_TEXT || box->out.status != ML_OK) ml_json_writer_free(&box->out);
  return status == ML_OK ? 1 : ml__lua_fail(L, &err);
}

/* What { model, version } at index says; strings belong to the table. */
ml_infer_options ml__lua_infer_options(lua_State *L, int index)
{
  static const char *const known[] = { "model", "version", NULL };
  if (lua_isnoneornil(L, index)) return (ml_infer_options){ 0 };
  luaL_checktype(L, index, LUA_TTABLE);
  ml__lua_check_keys(L, index, "infer", known);
  return (ml_infer_options){ ml__lua_opt_string_field(L, index, "model", NULL), ml__lua_opt_string_field(L, index, "version", NULL) };
}

int ml__lua_push_inferred(lua_State *L, const ml_json_writer *out, size_t json)
{
  lua_pushlstring(L, out->text, out->length);
  lua_pushnil(L);
  if (json != ML_INFER_JSON) {
    lua_createtable(L, 0, 2);
    lua_pushliteral(L, "application/octet-stream");
    lua_setfield(L, -2, "content-type");
    lua_pushfstring(L, "%d", (int)json);
    lua_setfield(L, -2, "inference-header-content-length");
    lua_replace(L, -2);
  }
  return 2;
}

size_t ml__lua_check_json_size(lua_State *L, int index)
{
  int64_t given = lua_isnoneornil(L, index) ? -1 : ml__lua_check_int(L, index);
  luaL_argcheck(L, given >= 0 || lua_isnoneornil(L, index), index, "a size expected");
  return given < 0 ? ML_INFER_JSON : (size_t)given;
}

int ml__lua_servable_infer(lua_State *L)
{
  servable_box *box = check_box(L, 1);
  size_t size, json = ML_INFER_JSON;
  const char *body = luaL_checklstring(L, 2, &size);
  size_t given = ml__lua_check_json_size(L, 3);
  ml_infer_options options = ml__lua_infer_options(L, 4);
  ml_error err;
  box->out.length = 0;
  box->out.status = ML_OK;
  ml_status status = ml_servable_infer(box->servable, body, size, given, &options, &box->out, &json, &err);
  if (status == ML_OK) ml__lua_push_inferred(L, &box->out, json);
  if (box->out.capacity > KEPT_TEXT || box->out.status != ML_OK) ml_json_writer_free(&box->out);
  return status == ML_OK ? 2 : ml__lua_fail(L, &err);
}

/* ---- binary protocols ---- */
static const struct { const char *name; const ml_call_codec *codec; } codecs[] = {
  { "predict_proto", &ml_predict_proto }, { "classify_proto", &ml_classify_proto }, { "regress_proto", &ml_regress_proto },
  { "multi_inference_proto", &ml_multi_inference_proto }, { "infer_proto", &ml_infer_proto } };

const ml_call_codec *ml__lua_check_codec(lua_State *L, int index)
{
  const char *name = luaL_checkstring(L, index);
  for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++) if (strcmp(codecs[i].name, name) == 0) return codecs[i].codec;
  luaL_argerror(L, index, "the name of a method of servables expected");
  return NULL;
}

ml_call_options ml__lua_call_options(lua_State *L, int signature, int names)
{
  return (ml_call_options){ .signature = luaL_optstring(L, signature, NULL),
                            .model = luaL_optstring(L, names, NULL),
                            .version = luaL_optstring(L, names + 1, NULL),
                            .content = lua_toboolean(L, names + 2) };
}

int ml__lua_servable_call(lua_State *L, const ml_call_codec *codec)
{
  servable_box *box = check_box(L, 1);
  size_t size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  ml_call_options options = ml__lua_call_options(L, 3, 4);
  ml_error err;
  box->bytes.size = 0;
  box->bytes.status = ML_OK;
  ml_status status = ml_servable_call(box->servable, codec, bytes, size, &options, &box->bytes, &err);
  if (status == ML_OK) lua_pushlstring(L, (const char *)box->bytes.bytes, box->bytes.size);
  if (box->bytes.capacity > KEPT_TEXT || box->bytes.status != ML_OK) ml_pb_writer_free(&box->bytes);
  return status == ML_OK ? 1 : ml__lua_fail(L, &err);
}

static int servable_predict_proto(lua_State *L) { return ml__lua_servable_call(L, &ml_predict_proto); }
static int servable_classify_proto(lua_State *L) { return ml__lua_servable_call(L, &ml_classify_proto); }
static int servable_regress_proto(lua_State *L) { return ml__lua_servable_call(L, &ml_regress_proto); }
static int servable_multi_inference_proto(lua_State *L) { return ml__lua_servable_call(L, &ml_multi_inference_proto); }
static int servable_infer_proto(lua_State *L) { return ml__lua_servable_call(L, &ml_infer_proto); }

static void push_text(lua_State *L, ml_str text)
{
  if (text.length > 0) lua_pushlstring(L, text.bytes, text.length);
  else lua_pushnil(L);
}

static int peek_spec(lua_State *L, bool task)
{
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  ml_model_spec spec;
  ml_error err;
  char version[24];
  if (ml_model_spec_peek(bytes, size, task, &spec, &err) != ML_OK) return ml__lua_fail(L, &err);
  if (!spec.given) return 0;
  lua_pushlstring(L, spec.name.bytes ? spec.name.bytes : "", spec.name.length);
  snprintf(version, sizeof version, "%lld", (long long)spec.version);
  push_text(L, (ml_str){ version, spec.versioned ? strlen(version) : 0 });
  if (spec.labelled) lua_pushlstring(L, spec.label.bytes, spec.label.length);
  else lua_pushnil(L);
  push_text(L, spec.signature);
  return 4;
}

static int peek_infer(lua_State *L)
{
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  ml_str model, version;
  ml_error err;
  if (ml_infer_peek(bytes, size, &model, &version, &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_pushlstring(L, model.bytes, model.length);
  push_text(L, version);
  return 2;
}

static int peek_predict(lua_State *L) { return peek_spec(L, false); }
static int peek_multi_inference(lua_State *L) { return peek_spec(L, true); }

static int servable_statistics(lua_State *L)
{
  servable_box *box = check_box(L, 1);
  ml_infer_options options = ml__lua_infer_options(L, 2);
  box->out.length = 0;
  box->out.status = ML_OK;
  ml_servable_put_statistics(box->servable, options.model, options.version, &box->out);
  if (box->out.status != ML_OK) {
    ml_error err;
    ml_json_writer_free(&box->out);
    ml_fail_memory(&err, 1, "statistics");
    return ml__lua_fail(L, &err);
  }
  lua_pushlstring(L, box->out.text, box->out.length);
  return 1;
}

static int servable_max_batch(lua_State *L)
{
  ml__lua_push_int(L, ml_servable_max_batch(check_box(L, 1)->servable));
  return 1;
}

static int examples_json(lua_State *L, ml_examples_method method)
{
  servable_box *box = check_box(L, 1);
  size_t size;
  const char *body = luaL_checklstring(L, 2, &size);
  ml_error err;
  box->out.length = 0;
  box->out.status = ML_OK;
  ml_status status = ml_servable_examples_json(box->servable, method, body, size, &box->out, &err);
  if (status == ML_OK) lua_pushlstring(L, box->out.text, box->out.length);
  if (box->out.capacity > KEPT_TEXT || box->out.status != ML_OK) ml_json_writer_free(&box->out);
  return status == ML_OK ? 1 : ml__lua_fail(L, &err);
}

static int servable_classify_json(lua_State *L) { return examples_json(L, ML_CLASSIFY); }
static int servable_regress_json(lua_State *L) { return examples_json(L, ML_REGRESS); }

static void push_tensors(lua_State *L, const ml_signature_tensor *tensors, size_t n)
{
  lua_createtable(L, 0, (int)n);
  for (size_t i = 0; i < n; i++) {
    lua_createtable(L, 0, 3);
    lua_pushstring(L, tensors[i].value);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, ml_dtype_name(tensors[i].dtype));
    lua_setfield(L, -2, "dtype");
    if (tensors[i].rank != ML_UNKNOWN) {
      ml__lua_push_dims(L, tensors[i].dims, tensors[i].rank);
      lua_setfield(L, -2, "shape");
    }
    lua_setfield(L, -2, tensors[i].name);
  }
}

static void push_io(lua_State *L, const ml_signature_tensor *tensors, size_t n)
{
  static const int64_t any[] = { ML_UNKNOWN };
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    bool known = tensors[i].rank != ML_UNKNOWN && tensors[i].dtype != ML_CONTAINER;
    lua_createtable(L, 0, 3);
    lua_pushstring(L, tensors[i].name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, ml_infer_dtype_name(tensors[i].dtype));
    lua_setfield(L, -2, "datatype");
    ml__lua_push_dims(L, known ? tensors[i].dims : any, known ? tensors[i].rank : 1);
    lua_setfield(L, -2, "shape");
    lua_rawseti(L, -2, (int)i + 1);
  }
}

/* What :infer takes and gives: arrays of { name, datatype (nil when the protocol has none), shape } in the model's order */
static int servable_io(lua_State *L)
{
  const ml_signature *g = ml_infer_signature(check_box(L, 1)->servable);
  push_io(L, g->inputs, g->n_inputs);
  push_io(L, g->outputs, g->n_outputs);
  return 2;
}

/* { NAME = { inputs = { PUBLIC = { name, dtype, shape } }, outputs = …, method_name } }; no shape when its rank is unknown */
static int servable_signatures(lua_State *L)
{
  const ml_servable *s = check_box(L, 1)->servable;
  lua_newtable(L);
  for (size_t i = 0; i < ml_servable_signatures(s); i++) {
    const ml_signature *g = ml_servable_signature_at(s, i);
    lua_createtable(L, 0, 3);
    push_tensors(L, g->inputs, g->n_inputs);
    lua_setfield(L, -2, "inputs");
    push_tensors(L, g->outputs, g->n_outputs);
    lua_setfield(L, -2, "outputs");
    lua_pushstring(L, g->method);
    lua_setfield(L, -2, "method_name");
    lua_setfield(L, -2, g->name);
  }
  return 1;
}

static int servable_handle(lua_State *L)
{
  servable_box *box = check_box(L, 1);
  ml_error err;
  if (!box->handle && ml_registry_add(box->servable, &box->handle, &err) != ML_OK) return ml__lua_fail(L, &err);
  ml__lua_push_int(L, box->handle);
  return 1;
}

static int servable_give(lua_State *L)
{
  servable_box *box = luaL_checkudata(L, 1, SERVABLE);
  int results = servable_handle(L);
  if (results != 1) return results;
  box->handle = 0; /* so that closing does not take it out of the registry */
  servable_close(L);
  return 1;
}

static int servable_model(lua_State *L)
{
  lua_pushstring(L, ml_servable_model(check_box(L, 1)->servable));
  return 1;
}

static int servable_version(lua_State *L)
{
  ml__lua_push_int(L, ml_servable_version(check_box(L, 1)->servable));
  return 1;
}

static int servable_at(lua_State *L)
{
  int64_t handle = ml__lua_check_int(L, 1);
  bool take = lua_toboolean(L, 2);
  servable_box *box = new_box(L);
  ml_error err;
  box->servable = ml_registry_get(handle);
  if (box->servable) {
    if (take) ml_registry_remove(handle);
    return 1;
  }
  ml_fail(&err, ML_NOT_FOUND, "no model is deployed under handle %lld", (long long)handle);
  return ml__lua_fail(L, &err);
}

void ml__lua_open_servable(lua_State *L)
{
  static const luaL_Reg methods[] = {
      {"predict_json", ml__lua_servable_predict_json},
      {"start_json", ml__lua_servable_start_json},
      {"batching", ml__lua_servable_batching},
      {"batched", ml__lua_servable_batched},
      {"batch_stats", ml__lua_servable_batch_stats},
      {"count_in", ml__lua_servable_count_in},
      {"infer", ml__lua_servable_infer},
      {"start_infer", ml__lua_servable_start_infer},
      {"predict_proto", servable_predict_proto},
      {"classify_proto", servable_classify_proto},
      {"regress_proto", servable_regress_proto},
      {"multi_inference_proto", servable_multi_inference_proto},
      {"infer_proto", servable_infer_proto},
      {"start_proto", ml__lua_servable_start_proto},
      {"statistics", servable_statistics},
      {"max_batch", servable_max_batch},
      {"io", servable_io},
      {"classify_json", servable_classify_json},
      {"regress_json", servable_regress_json},
      {"signatures", servable_signatures},
      {"handle", servable_handle},
      {"give", servable_give},
      {"model", servable_model},
      {"version", servable_version},
      {"close", servable_close},
      {NULL, NULL},
  };
  static const luaL_Reg functions[] = { { "servable", new_servable }, { "servable_at", servable_at }, { "peek_predict", peek_predict },
                                        { "peek_multi_inference", peek_multi_inference }, { "peek_infer", peek_infer }, { NULL, NULL } };
  ml__lua_class(L, SERVABLE, methods, servable_close, servable_tostring);
  luaL_setfuncs(L, functions, 0);
}
