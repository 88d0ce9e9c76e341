/* core.load_servable(path[, options]) -> servable, report | nil, message, code: reads, compiles and warms up a model in this thread
 *   options: model, version (number or digits), warm_up (file of request bodies), warm_up_runs (1; 0: none),
 *   limits = { bytes, nodes, depth, memory, loop };  report: { load, warm_up, run (seconds), requests }
 * core.loader() -> loader: the same in a thread of its own, one model at a time
 *   loader:start(path[, options]) -> true | nil, message, code    loader:busy()    loader:pollfd() :events() :timeout() for cqueues
 *   loader:take() -> servable, report | nil (nothing has ended) | false, message, code    loader:close() waits for a load under way
 * core.look(directory) -> { model, stamp, bytes, age } | nil, message, code: what lies in a version directory
 * core.release_memory(): memory that was freed goes back to the system */
#include <stdio.h>
#include <stdlib.h>
#include "lua/lua_core.h"
#include "serve/loader.h"

#define LOADER "mlserve.loader"

static int64_t version_field(lua_State *L, int index)
{
  lua_getfield(L, index, "version");
  int64_t version = 0;
  if (lua_type(L, -1) == LUA_TSTRING) version = strtoll(lua_tostring(L, -1), NULL, 10); /* LuaJIT has no number for it */
  else if (!lua_isnil(L, -1)) version = ml__lua_check_int(L, -1);
  lua_pop(L, 1);
  return version;
}

/* Texts are borrowed from the table at index, which stays on the stack. */
static ml_load load_of(lua_State *L, int path, int index)
{
  ml_load what = { .path = luaL_checkstring(L, path), .warm_up_runs = 1 };
  if (lua_isnoneornil(L, index)) return what;
  luaL_checktype(L, index, LUA_TTABLE);
  what.model = ml__lua_opt_string_field(L, index, "model", NULL);
  what.version = version_field(L, index);
  what.warm_up = ml__lua_opt_string_field(L, index, "warm_up", NULL);
  int64_t runs = ml__lua_opt_int_field(L, index, "warm_up_runs", 1);
  luaL_argcheck(L, runs >= 0 && runs <= 1000000, index, "warm_up_runs: 0 to 1,000,000 expected");
  what.warm_up_runs = (uint32_t)runs;
  lua_getfield(L, index, "limits");
  if (lua_istable(L, -1)) {
    int limits = lua_gettop(L);
    what.limits = (ml_onnx_limits){ .max_bytes = (size_t)ml__lua_opt_int_field(L, limits, "bytes", 0),
                                    .max_nodes = (size_t)ml__lua_opt_int_field(L, limits, "nodes", 0),
                                    .max_depth = (size_t)ml__lua_opt_int_field(L, limits, "depth", 0) };
    what.max_memory = (size_t)ml__lua_opt_int_field(L, limits, "memory", 0);
    what.max_loop = (uint64_t)ml__lua_opt_int_field(L, limits, "loop", 0);
  }
  lua_pop(L, 1);
  return what;
}

static void push_report(lua_State *L, const ml_load_report *report)
{
  lua_createtable(L, 0, 4);
  lua_pushnumber(L, (double)report->load_ns * 1e-9);
  lua_setfield(L, -2, "load");
  lua_pushnumber(L, (double)report->warm_up_ns * 1e-9);
  lua_setfield(L, -2, "warm_up");
  if (report->run_ns) {
    lua_pushnumber(L, (double)report->run_ns * 1e-9);
    lua_setfield(L, -2, "run");
  }
  ml__lua_push_int(L, (int64_t)report->requests);
  lua_setfield(L, -2, "requests");
}

static int load_servable(lua_State *L)
{
  ml_load what = load_of(L, 1, 2);
  ml_servable **box = ml__lua_new_servable(L);
  ml_load_report report;
  ml_error err;
  if (ml_load_servable(&what, box, &report, &err) != ML_OK) return ml__lua_fail(L, &err);
  push_report(L, &report);
  return 2;
}

/* ---- loader ---- */
static ml_loader *check_loader(lua_State *L)
{
  ml_loader **box = luaL_checkudata(L, 1, LOADER);
  luaL_argcheck(L, *box != NULL, 1, "the loader has been closed");
  return *box;
}

static int new_loader(lua_State *L)
{
  ml_loader **box = lua_newuserdatauv(L, sizeof *box, 0);
  ml_error err;
  *box = NULL;
  luaL_setmetatable(L, LOADER);
  return ml_loader_new(box, &err) == ML_OK ? 1 : ml__lua_fail(L, &err);
}

static int loader_close(lua_State *L)
{
  ml_loader **box = luaL_checkudata(L, 1, LOADER);
  ml_loader_free(*box);
  *box = NULL;
  return 0;
}

static int loader_start(lua_State *L)
{
  ml_loader *loader = check_loader(L);
  ml_load what = load_of(L, 2, 3);
  ml_error err;
  if (ml_loader_start(loader, &what, &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

static int loader_busy(lua_State *L)
{
  lua_pushboolean(L, ml_loader_busy(check_loader(L)));
  return 1;
}

static int loader_take(lua_State *L)
{
  ml_loader *loader = check_loader(L);
  ml_servable **box = ml__lua_new_servable(L);
  ml_load_report report;
  ml_status status;
  ml_error err;
  if (!ml_loader_take(loader, box, &report, &status, &err)) {
    lua_pushnil(L);
    return 1;
  }
  if (status == ML_OK) {
    push_report(L, &report);
    return 2;
  }
  ml__lua_fail(L, &err);
  lua_pushboolean(L, 0);
  lua_replace(L, -4);
  return 3;
}

static int loader_pollfd(lua_State *L)
{
  lua_pushinteger(L, ml_loader_descriptor(check_loader(L)));
  return 1;
}

static int loader_events(lua_State *L)
{
  lua_pushliteral(L, "r");
  return 1;
}

static int loader_timeout(lua_State *L)
{
  lua_pushnil(L);
  return 1;
}

static int look(lua_State *L)
{
  ml_version_stamp stamp;
  ml_error err;
  char text[40];
  if (ml_version_look(luaL_checkstring(L, 1), &stamp, &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_createtable(L, 0, 4);
  lua_pushboolean(L, stamp.model);
  lua_setfield(L, -2, "model");
  snprintf(text, sizeof text, "%016llx", (unsigned long long)stamp.hash);
  lua_pushstring(L, text);
  lua_setfield(L, -2, "stamp");
  lua_pushnumber(L, (double)stamp.bytes);
  lua_setfield(L, -2, "bytes");
  lua_pushnumber(L, stamp.age);
  lua_setfield(L, -2, "age");
  return 1;
}

static int release_memory(lua_State *L)
{
  (void)L;
  ml_release_memory();
  return 0;
}

void ml__lua_open_loader(lua_State *L)
{
  static const luaL_Reg methods[] = { { "start", loader_start },   { "busy", loader_busy },       { "take", loader_take }, { "pollfd", loader_pollfd },
                                      { "events", loader_events }, { "timeout", loader_timeout }, { "close", loader_close }, { NULL, NULL } };
  static const luaL_Reg functions[] = { { "load_servable", load_servable }, { "loader", new_loader }, { "look", look },
                                        { "release_memory", release_memory }, { NULL, NULL } };
  ml__lua_class(L, LOADER, methods, loader_close, NULL);
  luaL_setfuncs(L, functions, 0);
}
