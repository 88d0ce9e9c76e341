/* Files: core.onnx_load(path[, limits]) -> graph   core.onnx_parse(bytes, what[, limits]) -> graph   core.onnx_save(graph, path[, opset])
 *   core.onnx_bytes(graph[, opset]) -> bytes   core.tensor_pb_load(path) -> tensor, name      a TensorProto alone, as in ONNX's test data
 *   core.tensor_pb_save(path, tensor[, name])
 *   core.safetensors_load(path) -> { name = tensor }, { key = string }     core.safetensors_save(path, tensors[, metadata])
 *   core.npy_load(path) -> tensor   core.npy_save(path, tensor)
 *   core.file_write(path, bytes)   core.make_directories(path)
 * What saves gives true; every failure is nil, message, code. Files appear whole or not at all. */
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/file.h"
#include "format/npy.h"
#include "format/onnx.h"
#include "format/safetensors.h"
#include "lua/lua_core.h"

#define OWNER "mlserve.owner"

/* Frees C memory when an error is raised before it has become a Lua value. */
typedef struct owner { void *bytes; ml_safetensors *file; ml_file_map map; } owner;

static void drop(owner *o)
{
  ml_free(o->bytes);
  ml_safetensors_free(o->file);
  if (o->map.bytes) ml_file_unmap(&o->map);
  *o = (owner){ 0 };
}

static int owner_gc(lua_State *L)
{
  drop(luaL_checkudata(L, 1, OWNER));
  return 0;
}

static owner *new_owner(lua_State *L)
{
  owner *o = lua_newuserdatauv(L, sizeof *o, 0);
  *o = (owner){ 0 };
  luaL_setmetatable(L, OWNER);
  return o;
}

static int done(lua_State *L, ml_status status, const ml_error *err)
{
  if (status != ML_OK) return ml__lua_fail(L, err);
  lua_pushboolean(L, 1);
  return 1;
}

/* ---- ONNX ---- */
/* { bytes, nodes, depth }: each may be left out */
static ml_onnx_limits limits_of(lua_State *L, int index)
{
  return (ml_onnx_limits){ .max_bytes = (size_t)ml__lua_opt_int_field(L, index, "bytes", 0), .max_nodes = (size_t)ml__lua_opt_int_field(L, index, "nodes", 0),
                           .max_depth = (size_t)ml__lua_opt_int_field(L, index, "depth", 0) };
}

static int onnx_load(lua_State *L)
{
  ml_graph *graph;
  ml_error err;
  ml_onnx_limits limits = limits_of(L, 2);
  if (ml_onnx_load(luaL_checkstring(L, 1), &limits, &graph, &err) != ML_OK) return ml__lua_fail(L, &err);
  ml__lua_push_graph(L, graph);
  return 1;
}

static int onnx_parse(lua_State *L)
{
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  ml_graph *graph;
  ml_error err;
  ml_onnx_limits limits = limits_of(L, 3);
  if (ml_onnx_read(bytes, size, luaL_optstring(L, 2, "ONNX bytes"), &limits, &graph, &err) != ML_OK) return ml__lua_fail(L, &err);
  ml__lua_push_graph(L, graph);
  return 1;
}

static int onnx_save(lua_State *L)
{
  ml_error err;
  const ml_graph *graph = ml__lua_check_graph(L, 1);
  return done(L, ml_onnx_save_as(graph, (int32_t)ml__lua_opt_int(L, 3, 0), luaL_checkstring(L, 2), &err), &err);
}

static int onnx_bytes(lua_State *L)
{
  const ml_graph *graph = ml__lua_check_graph(L, 1);
  int32_t opset = (int32_t)ml__lua_opt_int(L, 2, 0);
  owner *o = new_owner(L);
  size_t size;
  ml_error err;
  if (ml_onnx_write_as(graph, opset, &o->bytes, &size, &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_pushlstring(L, o->bytes, size);
  drop(o);
  return 1;
}

static int tensor_pb_load(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1), *name = NULL;
  owner *o = new_owner(L);
  size_t length = 0;
  ml_tensor *tensor;
  ml_error err;
  if (ml_file_open_map(path, &o->map, &err) != ML_OK ||
      ml_onnx_tensor_read(o->map.bytes, o->map.size, path, &tensor, &name, &length, &err) != ML_OK) return ml__lua_fail(L, &err);
  ml__lua_push_tensor(L, tensor);
  lua_pushlstring(L, name ? name : "", length);
  drop(o);
  return 2;
}

static int tensor_pb_save(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1), *name = luaL_optstring(L, 3, NULL);
  const ml_tensor *tensor = ml__lua_check_tensor(L, 2);
  owner *o = new_owner(L);
  size_t size;
  ml_error err;
  ml_status status = ml_onnx_tensor_write(tensor, name, &o->bytes, &size, &err);
  if (status == ML_OK) status = ml_file_write(path, o->bytes, size, &err);
  drop(o);
  return done(L, status, &err);
}

/* ---- safetensors ---- */
static int safetensors_load(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  owner *o = new_owner(L);
  ml_error err;
  if (ml_safetensors_load(path, &o->file, &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_createtable(L, 0, (int)o->file->n_tensors);
  for (size_t i = 0; i < o->file->n_tensors; i++) {
    ml__lua_push_tensor(L, ml_tensor_retain(o->file->tensors[i].tensor));
    lua_setfield(L, -2, o->file->tensors[i].name);
  }
  lua_createtable(L, 0, (int)o->file->n_metadata);
  for (size_t i = 0; i < o->file->n_metadata; i++) {
    lua_pushstring(L, o->file->metadata[i].value);
    lua_setfield(L, -2, o->file->metadata[i].key);
  }
  drop(o);
  return 2;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const ml_named_tensor *)a)->name, ((const ml_named_tensor *)b)->name);
}
static int by_key(const void *a, const void *b) { return strcmp(((const ml_metadata *)a)->key, ((const ml_metadata *)b)->key); }

static const char *string_at(lua_State *L, int index, const char *what)
{
  size_t length;
  if (lua_type(L, index) != LUA_TSTRING)
    luaL_error(L, "safetensors_save: %s: string expected, got %s", what, luaL_typename(L, index));
  const char *text = lua_tolstring(L, index, &length);
  if (strlen(text) != length) luaL_error(L, "safetensors_save: %s contains NUL", what);
  return text;
}

static int count_entries(lua_State *L, int index)
{
  int n = 0;
  lua_pushnil(L);
  for (; lua_next(L, index); n++) lua_pop(L, 1);
  return n;
}

static int safetensors_save(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_settop(L, 3);
  if (lua_isnil(L, 3)) {
    lua_newtable(L);
    lua_replace(L, 3);
  }
  luaL_checktype(L, 3, LUA_TTABLE);
  size_t n = (size_t)count_entries(L, 2), m = (size_t)count_entries(L, 3), i = 0;
  ml_named_tensor *tensors = lua_newuserdatauv(L, (n + 1) * sizeof *tensors, 0);
  ml_metadata *metadata = lua_newuserdatauv(L, (m + 1) * sizeof *metadata, 0);
  lua_pushnil(L);
  for (; lua_next(L, 2); lua_pop(L, 1)) {
    const char *name = string_at(L, -2, "name of a tensor");
    ml_tensor *tensor = ml__lua_test_tensor(L, lua_gettop(L));
    if (!tensor) return luaL_error(L, "safetensors_save: '%s': tensor expected, got %s", name, luaL_typename(L, -1));
    tensors[i++] = (ml_named_tensor){ name, tensor }; /* the table keeps both alive */
  }
  i = 0;
  lua_pushnil(L);
  for (; lua_next(L, 3); lua_pop(L, 1)) {
    const char *key = string_at(L, -2, "key of metadata");
    metadata[i++] = (ml_metadata){ key, string_at(L, -1, key) };
  }
  qsort(tensors, n, sizeof *tensors, by_name); /* the same tables give the same file */
  qsort(metadata, m, sizeof *metadata, by_key);
  ml_error err;
  return done(L, ml_safetensors_save(path, tensors, n, metadata, m, &err), &err);
}

/* ---- npy, plain files ---- */
static int npy_load(lua_State *L)
{
  ml_tensor *tensor;
  ml_error err;
  if (ml_npy_load(luaL_checkstring(L, 1), &tensor, &err) != ML_OK) return ml__lua_fail(L, &err);
  ml__lua_push_tensor(L, tensor);
  return 1;
}

/* (path, tensor), or (tensor, path) for tensor:save_npy(path) */
static int npy_save(lua_State *L)
{
  ml_error err;
  int path = lua_type(L, 1) == LUA_TSTRING ? 1 : 2;
  const ml_tensor *tensor = ml__lua_check_tensor(L, 3 - path);
  return done(L, ml_npy_save(luaL_checkstring(L, path), tensor, &err), &err);
}

static int file_write(lua_State *L)
{
  size_t size;
  ml_error err;
  const char *path = luaL_checkstring(L, 1), *bytes = luaL_checklstring(L, 2, &size);
  return done(L, ml_file_write(path, bytes, size, &err), &err);
}

static int make_directories(lua_State *L)
{
  ml_error err;
  return done(L, ml_make_directories(luaL_checkstring(L, 1), &err), &err);
}

void ml__lua_open_format(lua_State *L)
{
  static const luaL_Reg none[] = { { NULL, NULL } };
  static const luaL_Reg functions[] = {
      {"onnx_load", onnx_load},
      {"onnx_parse", onnx_parse},
      {"onnx_save", onnx_save},
      {"onnx_bytes", onnx_bytes},
      {"tensor_pb_load", tensor_pb_load},
      {"tensor_pb_save", tensor_pb_save},
      {"safetensors_load", safetensors_load},
      {"safetensors_save", safetensors_save},
      {"npy_load", npy_load},
      {"npy_save", npy_save},
      {"file_write", file_write},
      {"make_directories", make_directories},
      {NULL, NULL},
  };
  ml__lua_class(L, OWNER, none, owner_gc, NULL);
  luaL_setfuncs(L, functions, 0);
}
