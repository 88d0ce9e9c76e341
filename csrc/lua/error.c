/* Errors and arguments: the one place where an ml_error becomes a Lua value. */
#include <math.h>
#include <string.h>
#include "lua/lua_core.h"

int ml__lua_raise(lua_State *L, const ml_error *err) { return luaL_error(L, "%s", err->message); }

int ml__lua_fail(lua_State *L, const ml_error *err)
{
  lua_pushnil(L);
  lua_pushstring(L, err->message);
  lua_pushstring(L, ml_status_name(err->code));
  return 3;
}

int ml__lua_error(lua_State *L, const ml_error *err)
{
  switch (err->code) {
    case ML_INVALID_ARGUMENT: case ML_OUT_OF_RANGE: case ML_FAILED_PRECONDITION: case ML_UNIMPLEMENTED: return ml__lua_raise(L, err);
    default: return ml__lua_fail(L, err);
  }
}

static bool integral(lua_Number v) { return v == floor(v) && fabs(v) <= 9007199254740992.0; }

int64_t ml__lua_check_int(lua_State *L, int index)
{
  lua_Number v = luaL_checknumber(L, index);
  if (!integral(v)) return luaL_argerror(L, index, lua_pushfstring(L, "integer expected, got %f", v));
  return (int64_t)v;
}

int64_t ml__lua_opt_int(lua_State *L, int index, int64_t fallback) { return lua_isnoneornil(L, index) ? fallback : ml__lua_check_int(L, index); }

static bool get_field(lua_State *L, int index, const char *field)
{
  if (!lua_istable(L, index)) return false;
  lua_getfield(L, index, field);
  if (!lua_isnil(L, -1)) return true;
  lua_pop(L, 1);
  return false;
}

static void bad_field(lua_State *L, const char *field, const char *expected)
{
  luaL_error(L, "option '%s': %s expected, got %s", field, expected, luaL_typename(L, -1));
}

double ml__lua_opt_number_field(lua_State *L, int index, const char *field, double fallback)
{
  if (!get_field(L, index, field)) return fallback;
  if (lua_type(L, -1) != LUA_TNUMBER) bad_field(L, field, "number");
  fallback = lua_tonumber(L, -1);
  lua_pop(L, 1);
  return fallback;
}

int64_t ml__lua_opt_int_field(lua_State *L, int index, const char *field, int64_t fallback)
{
  if (!get_field(L, index, field)) return fallback;
  if (lua_type(L, -1) != LUA_TNUMBER || !integral(lua_tonumber(L, -1))) bad_field(L, field, "integer");
  fallback = (int64_t)lua_tonumber(L, -1);
  lua_pop(L, 1);
  return fallback;
}

bool ml__lua_opt_bool_field(lua_State *L, int index, const char *field, bool fallback)
{
  if (!get_field(L, index, field)) return fallback;
  if (!lua_isboolean(L, -1)) bad_field(L, field, "boolean");
  fallback = lua_toboolean(L, -1);
  lua_pop(L, 1);
  return fallback;
}

const char *ml__lua_opt_string_field(lua_State *L, int index, const char *field, const char *fallback)
{
  if (!get_field(L, index, field)) return fallback;
  if (lua_type(L, -1) != LUA_TSTRING) bad_field(L, field, "string");
  fallback = lua_tostring(L, -1); /* stays alive in the table */
  lua_pop(L, 1);
  return fallback;
}

int32_t ml__lua_check_dims(lua_State *L, int index, int64_t *dims)
{
  luaL_checktype(L, index, LUA_TTABLE);
  size_t rank = lua_rawlen(L, index);
  luaL_argcheck(L, rank <= ML_MAX_RANK, index, "a shape has at most 16 dimensions");
  index = lua_absindex(L, index);
  for (size_t i = 0; i < rank; i++) {
    lua_rawgeti(L, index, (int)i + 1);
    if (lua_type(L, -1) != LUA_TNUMBER || !integral(lua_tonumber(L, -1))) luaL_argerror(L, index, "a shape is an array of integers");
    dims[i] = (int64_t)lua_tonumber(L, -1);
    lua_pop(L, 1);
  }
  return (int32_t)rank;
}

void ml__lua_push_int(lua_State *L, int64_t value) { lua_pushinteger(L, (lua_Integer)value); }

void ml__lua_push_dims(lua_State *L, const int64_t *dims, int32_t rank)
{
  lua_createtable(L, rank < 0 ? 0 : rank, 0);
  for (int32_t i = 0; i < rank; i++) {
    ml__lua_push_int(L, dims[i]);
    lua_rawseti(L, -2, i + 1);
  }
}

void ml__lua_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc, lua_CFunction tostring)
{
  luaL_newmetatable(L, name);
  lua_pushstring(L, name);
  lua_setfield(L, -2, "__name");
  lua_newtable(L);
  luaL_setfuncs(L, methods, 0);
  lua_setfield(L, -2, "__index");
  if (gc) {
    lua_pushcfunction(L, gc);
    lua_setfield(L, -2, "__gc");
  }
  if (tostring) {
    lua_pushcfunction(L, tostring);
    lua_setfield(L, -2, "__tostring");
  }
  lua_pop(L, 1);
}

#ifdef ML_LUA_PUC51
void luaL_setfuncs(lua_State *L, const luaL_Reg *functions, int upvalues)
{
  for (; functions->name; functions++) {
    for (int i = 0; i < upvalues; i++) lua_pushvalue(L, -upvalues);
    lua_pushcclosure(L, functions->func, upvalues);
    lua_setfield(L, -(upvalues + 2), functions->name);
  }
  lua_pop(L, upvalues);
}

void *luaL_testudata(lua_State *L, int index, const char *name)
{
  void *p = lua_touserdata(L, index);
  if (!p || !lua_getmetatable(L, index)) return NULL;
  luaL_getmetatable(L, name);
  bool same = lua_rawequal(L, -1, -2);
  lua_pop(L, 2);
  return same ? p : NULL;
}

void luaL_setmetatable(lua_State *L, const char *name)
{
  luaL_getmetatable(L, name);
  lua_setmetatable(L, -2);
}
#endif
