/* What mlserve.client needs of C: see serve/reply.h.
 *   core.request_json(tensor[, row[, plain]]) -> text | nil, message, code       row counts from 1; nil: all
 *   core.request_bytes(tensor) -> bytes | nil, message, code
 *   core.reply_predict(body[, dtypes]) -> value, named | nil, message, code
 *     value: a tensor (or the JSON text of what is no tensor), or when named a table of such by name; dtypes: { name = dtype }, or one for all
 *   core.reply_tensor(bytes, datatype, shape) -> tensor | nil, message, code     raw contents of KServe's gRPC: datatype "FP32"
 *   core.tensor_proto(tensor) -> bytes | nil, message, code;  core.tensor_from_proto(bytes) -> tensor | nil, message, code     tensorflow.TensorProto
 *   core.reply_infer(body[, json_size]) -> array of { name, value }, version, id | nil, message, code */
#include <string.h>
#include "lua/lua_core.h"
#include "serve/predict_proto.h"
#include "serve/reply.h"

#define REPLY "mlserve.reply"
#define TEXT "mlserve.request_text"
#define BYTES "mlserve.request_bytes"

static int reply_gc(lua_State *L)
{
  ml_reply_free(luaL_checkudata(L, 1, REPLY));
  return 0;
}

static int text_gc(lua_State *L)
{
  ml_json_writer_free(luaL_checkudata(L, 1, TEXT));
  return 0;
}

static ml_reply *new_reply(lua_State *L)
{
  ml_reply *reply = lua_newuserdatauv(L, sizeof *reply, 0);
  *reply = (ml_reply){ 0 };
  luaL_setmetatable(L, REPLY);
  return reply;
}

static ml_json_writer *new_text(lua_State *L)
{
  ml_json_writer *out = lua_newuserdatauv(L, sizeof *out, 0);
  ml_json_writer_init(out);
  luaL_setmetatable(L, TEXT);
  return out;
}

static int push_text(lua_State *L, ml_json_writer *out, ml_status status, const ml_error *err)
{
  if (status == ML_OK) lua_pushlstring(L, out->text ? out->text : "", out->length);
  ml_json_writer_free(out);
  return status == ML_OK ? 1 : ml__lua_fail(L, err);
}

static int request_json(lua_State *L)
{
  ml_error err;
  ml_tensor *tensor = ml__lua_check_tensor(L, 1);
  int64_t row = ml__lua_opt_int(L, 2, 0);
  bool plain = lua_toboolean(L, 3);
  luaL_argcheck(L, row >= 0, 2, "a row expected");
  ml_json_writer *out = new_text(L);
  return push_text(L, out, ml_request_json(tensor, row - 1, plain, out, &err), &err);
}

static int request_bytes(lua_State *L)
{
  ml_error err;
  ml_tensor *tensor = ml__lua_check_tensor(L, 1);
  ml_json_writer *out = new_text(L);
  return push_text(L, out, ml_request_bytes(&tensor->view, out, &err), &err);
}

/* index 2 of the stack: a table of dtypes by name, checked before, or a dtype for all, or nil */
static ml_dtype wanted(void *context, const char *name, size_t length)
{
  lua_State *L = context;
  ml_dtype dtype;
  if (lua_type(L, 2) == LUA_TSTRING) return ml_dtype_from_name(lua_tostring(L, 2));
  if (!lua_istable(L, 2) || !name || strlen(name) != length) return ML_DTYPE_NONE;
  lua_pushnil(L);
  while (lua_next(L, 2)) { /* a look-up would make a string, which may fail here */
    size_t size;
    const char *key = lua_tolstring(L, -2, &size);
    if (size == length && memcmp(key, name, length) == 0) {
      dtype = ml_dtype_from_name(lua_tostring(L, -1));
      lua_pop(L, 2);
      return dtype;
    }
    lua_pop(L, 1);
  }
  return ML_DTYPE_NONE;
}

static void check_dtypes(lua_State *L)
{
  if (lua_isnoneornil(L, 2)) return;
  if (lua_type(L, 2) == LUA_TSTRING) {
    luaL_argcheck(L, ml_dtype_from_name(lua_tostring(L, 2)), 2, "unknown dtype");
    return;
  }
  luaL_checktype(L, 2, LUA_TTABLE);
  lua_pushnil(L);
  while (lua_next(L, 2)) {
    luaL_argcheck(L, lua_type(L, -2) == LUA_TSTRING && lua_type(L, -1) == LUA_TSTRING && ml_dtype_from_name(lua_tostring(L, -1)), 2,
                  "dtypes by output name expected");
    lua_pop(L, 1);
  }
}

static void push_value(lua_State *L, ml_reply_value *value)
{
  if (value->tensor) {
    ml_tensor *tensor = value->tensor;
    ml__lua_push_tensor(L, tensor);
    value->tensor = NULL; /* Lua's now */
  } else {
    lua_pushlstring(L, value->text, value->length);
  }
}

static int reply_predict(lua_State *L)
{
  ml_error err;
  size_t size;
  const char *body = luaL_checklstring(L, 1, &size);
  check_dtypes(L);
  lua_settop(L, 2);
  luaL_checkstack(L, 8, "an answer");
  ml_reply *reply = new_reply(L);
  if (ml_reply_predict(body, size, lua_isnil(L, 2) ? NULL : wanted, L, reply, &err) != ML_OK) return ml__lua_fail(L, &err);
  if (!reply->named) {
    push_value(L, &reply->values[0]);
  } else {
    lua_createtable(L, 0, (int)reply->n);
    for (size_t i = 0; i < reply->n; i++) {
      lua_pushlstring(L, reply->values[i].name, reply->values[i].name_length);
      push_value(L, &reply->values[i]);
      lua_rawset(L, -3);
    }
  }
  lua_pushboolean(L, reply->named);
  ml_reply_free(reply); /* now, not when collected */
  return 2;
}

static int reply_infer(lua_State *L)
{
  ml_error err;
  size_t size;
  const char *body = luaL_checklstring(L, 1, &size);
  int64_t json = ml__lua_opt_int(L, 2, (int64_t)size);
  luaL_argcheck(L, json >= 0, 2, "a size expected");
  ml_reply *reply = new_reply(L);
  if (ml_reply_infer(body, size, (size_t)json, reply, &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_createtable(L, (int)reply->n, 0);
  for (size_t i = 0; i < reply->n; i++) {
    lua_createtable(L, 0, 2);
    lua_pushlstring(L, reply->values[i].name, reply->values[i].name_length);
    lua_setfield(L, -2, "name");
    push_value(L, &reply->values[i]);
    lua_setfield(L, -2, "value");
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_pushstring(L, reply->version); /* NULL is nil */
  lua_pushstring(L, reply->id);
  ml_reply_free(reply);
  return 3;
}

static int bytes_gc(lua_State *L)
{
  ml_pb_writer_free(luaL_checkudata(L, 1, BYTES));
  return 0;
}

static int tensor_proto(lua_State *L)
{
  ml_error err;
  ml_tensor *tensor = ml__lua_check_tensor(L, 1);
  ml_pb_writer *out = lua_newuserdatauv(L, sizeof *out, 0);
  ml_pb_writer_init(out);
  luaL_setmetatable(L, BYTES);
  if (ml_tensor_proto_write(&tensor->view, out, &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_pushlstring(L, (const char *)out->bytes, out->size);
  ml_pb_writer_free(out);
  return 1;
}

static int push_tensor(lua_State *L, ml_status status, ml_tensor *tensor, const ml_error *err)
{
  if (status != ML_OK) return ml__lua_fail(L, err);
  ml__lua_push_tensor(L, tensor);
  return 1;
}

static int tensor_from_proto(lua_State *L)
{
  ml_error err;
  size_t size;
  const char *bytes = luaL_checklstring(L, 1, &size);
  ml_tensor *tensor = NULL;
  ml_status status = ml_tensor_proto_read(bytes, size, &tensor, &err);
  return push_tensor(L, status, tensor, &err);
}

static int reply_tensor(lua_State *L)
{
  ml_error err;
  size_t size;
  int64_t dims[ML_MAX_RANK];
  const char *bytes = luaL_checklstring(L, 1, &size), *datatype = luaL_checkstring(L, 2);
  int32_t rank = ml__lua_check_dims(L, 3, dims);
  ml_tensor *tensor = NULL;
  ml_status status = ml_reply_tensor(bytes, size, datatype, dims, rank, &tensor, &err);
  return push_tensor(L, status, tensor, &err);
}

void ml__lua_open_reply(lua_State *L)
{
  static const luaL_Reg none[] = { { NULL, NULL } };
  static const luaL_Reg functions[] = { { "request_json", request_json }, { "request_bytes", request_bytes }, { "reply_predict", reply_predict },
                                        { "reply_infer", reply_infer }, { "reply_tensor", reply_tensor }, { "tensor_proto", tensor_proto },
                                        { "tensor_from_proto", tensor_from_proto }, { NULL, NULL } };
  ml__lua_class(L, REPLY, none, reply_gc, NULL);
  ml__lua_class(L, TEXT, none, text_gc, NULL);
  ml__lua_class(L, BYTES, none, bytes_gc, NULL);
  luaL_setfuncs(L, functions, 0);
}
