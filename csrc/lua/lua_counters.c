/* Counters and the request log in Lua.
 *   counters = core.counters([slots])               shared with processes forked later
 *   series = counters:series(kind, name)            kinds and names: csrc/serve/counters.h
 *   counters:add(series, n)   counters:observe(series, value: nanoseconds or a size)
 *   begin, finish = counters:functions()            for each request, so without look-ups:
 *     begun = begin()   seconds = finish(series, begun, bytes_in, bytes_out)
 *   counters:samples() -> { { kind, name, sum, count, bytes_in, bytes_out, buckets = { … } | nil }, … }, one per process and name
 *   counters:processes() -> { { pid, in_flight, resident_bytes }, … }
 *   counters:started() -> seconds since the epoch   core.counters_bounds(kind) -> { … }
 *   log = core.line_log(path) | nil, message        log:add(rest)   log:flush() | log:reopen() -> true | nil, message
 *   log:lost() -> lines dropped since the last call */
#include <string.h>
#include "lua/lua_core.h"
#include "lua/lua_servable.h"
#include "serve/counters.h"
#include "serve/line_log.h"

#define COUNTERS "mlserve.counters"
#define LINE_LOG "mlserve.line_log"

static void push_box(lua_State *L, const char *class) {
  void **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = NULL;
  luaL_setmetatable(L, class);
}

ml_counters *ml__lua_check_counters(lua_State *L, int index) { return *(ml_counters **)luaL_checkudata(L, index, COUNTERS); }

static ml_counters *check_counters(lua_State *L) { return ml__lua_check_counters(L, 1); }

static ml_line_log *check_log(lua_State *L) { return *(ml_line_log **)luaL_checkudata(L, 1, LINE_LOG); }

/* A number of bytes, nanoseconds, rows; what is no such number counts as nothing: counting must not fail. */
static uint64_t amount(lua_State *L, int index) {
  double number = lua_tonumber(L, index);
  return number >= 0 && number < 9.2e18 ? (uint64_t)number : 0;
}

static uint32_t series_at(lua_State *L, int index) {
  double number = luaL_checknumber(L, index);
  return number >= 0 && number < 4294967295.0 ? (uint32_t)number : 0;
}

static ml_counters_kind check_kind(lua_State *L, int index) {
  const char *name = luaL_checkstring(L, index);
  for (ml_counters_kind kind = 0; kind < ML_COUNTERS_KINDS; ++kind)
    if (strcmp(ml_counters_kind_name(kind), name) == 0) return kind;
  luaL_error(L, "unknown kind of series '%s'; known: requests, count, gauge, seconds, size", name);
  return ML_COUNTERS_KINDS;
}

static int counters_new(lua_State *L) {
  ml_error err;
  int64_t slots = ml__lua_opt_int(L, 1, 0);
  luaL_argcheck(L, slots >= 0, 1, "number of series expected");
  push_box(L, COUNTERS);
  if (ml_counters_new((size_t)slots, lua_touserdata(L, -1), &err) != ML_OK) return ml__lua_error(L, &err);
  return 1;
}

static int counters_gc(lua_State *L) {
  ml_counters **box = luaL_checkudata(L, 1, COUNTERS);
  ml_counters_release(*box);
  *box = NULL;
  return 0;
}

static int counters_series(lua_State *L) {
  size_t length;
  ml_counters *counters = check_counters(L);
  ml_counters_kind kind = check_kind(L, 2);
  const char *name = luaL_checklstring(L, 3, &length);
  ml__lua_push_int(L, ml_counters_series(counters, kind, name, length));
  return 1;
}

static int counters_add(lua_State *L) {
  ml_counters *counters = check_counters(L);
  double by = luaL_checknumber(L, 3);
  luaL_argcheck(L, by > -9.2e18 && by < 9.2e18, 3, "integer expected");
  ml_counters_add(counters, series_at(L, 2), (int64_t)by);
  return 0;
}

static int counters_observe(lua_State *L) {
  ml_counters_observe(check_counters(L), series_at(L, 2), amount(L, 3));
  return 0;
}

/* The upvalue is the userdata, which lives as long as the functions do. */
static ml_counters *upvalue(lua_State *L) { return *(ml_counters **)lua_touserdata(L, lua_upvalueindex(1)); }

static int counters_begin(lua_State *L) {
  lua_pushnumber(L, (double)ml_counters_begin(upvalue(L)));
  return 1;
}

static int counters_finish(lua_State *L) {
  uint64_t took = ml_counters_end(upvalue(L), series_at(L, 1), amount(L, 2), amount(L, 3), amount(L, 4));
  lua_pushnumber(L, (double)took * 1e-9);
  return 1;
}

static int counters_functions(lua_State *L) {
  check_counters(L);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, counters_begin, 1);
  lua_pushvalue(L, 1);
  lua_pushcclosure(L, counters_finish, 1);
  return 2;
}

static void set_number(lua_State *L, const char *field, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, field);
}

static int counters_samples(lua_State *L) {
  ml_counters *counters = check_counters(L);
  ml_counters_sample sample;
  size_t at = 0, n;
  lua_newtable(L);
  for (int i = 1; ml_counters_next(counters, &at, &sample); ++i) {
    lua_createtable(L, 0, 7);
    lua_pushstring(L, ml_counters_kind_name(sample.kind));
    lua_setfield(L, -2, "kind");
    lua_pushlstring(L, sample.name, sample.length);
    lua_setfield(L, -2, "name");
    set_number(L, "sum", (double)sample.sum);
    set_number(L, "count", (double)sample.count);
    set_number(L, "bytes_in", (double)sample.bytes_in);
    set_number(L, "bytes_out", (double)sample.bytes_out);
    if (ml_counters_bounds(sample.kind, &n) != NULL) {
      lua_createtable(L, (int)n + 1, 0);
      for (size_t b = 0; b <= n; ++b) {
        lua_pushnumber(L, (double)sample.buckets[b]);
        lua_rawseti(L, -2, (int)b + 1);
      }
      lua_setfield(L, -2, "buckets");
    }
    lua_rawseti(L, -2, i);
  }
  return 1;
}

static int counters_processes(lua_State *L) {
  ml_counters *counters = check_counters(L);
  ml_counters_process process;
  size_t at = 0;
  lua_newtable(L);
  for (int i = 1; ml_counters_next_process(counters, &at, &process); ++i) {
    lua_createtable(L, 0, 3);
    ml__lua_push_int(L, process.pid);
    lua_setfield(L, -2, "pid");
    set_number(L, "in_flight", (double)process.in_flight);
    set_number(L, "resident_bytes", (double)process.resident_bytes);
    lua_rawseti(L, -2, i);
  }
  return 1;
}

static int counters_started(lua_State *L) {
  lua_pushnumber(L, ml_counters_started(check_counters(L)));
  return 1;
}

/* counters_bounds(kind) -> array of the buckets' upper bounds; empty for a kind without */
static int counters_bounds(lua_State *L) {
  size_t n;
  const uint64_t *bounds = ml_counters_bounds(check_kind(L, 1), &n);
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; ++i) {
    lua_pushnumber(L, (double)bounds[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int line_log(lua_State *L) {
  ml_error err;
  const char *path = luaL_checkstring(L, 1);
  push_box(L, LINE_LOG);
  if (ml_line_log_open(path, lua_touserdata(L, -1), &err) != ML_OK) return ml__lua_fail(L, &err);
  return 1;
}

static int log_gc(lua_State *L) {
  ml_line_log **box = luaL_checkudata(L, 1, LINE_LOG);
  ml_line_log_close(*box);
  *box = NULL;
  return 0;
}

static int log_add(lua_State *L) {
  size_t length;
  ml_line_log *log = check_log(L);
  const char *rest = luaL_checklstring(L, 2, &length);
  ml_line_log_add(log, rest, length);
  return 0;
}

static int log_done(lua_State *L, ml_status status, const ml_error *err) {
  if (status != ML_OK) return ml__lua_fail(L, err);
  lua_pushboolean(L, 1);
  return 1;
}

static int log_flush(lua_State *L) {
  ml_error err;
  return log_done(L, ml_line_log_flush(check_log(L), &err), &err);
}

static int log_reopen(lua_State *L) {
  ml_error err;
  return log_done(L, ml_line_log_reopen(check_log(L), &err), &err);
}

static int log_lost(lua_State *L) {
  ml__lua_push_int(L, (int64_t)ml_line_log_lost(check_log(L)));
  return 1;
}

void ml__lua_open_counters(lua_State *L) {
  static const luaL_Reg functions[] = {{"counters", counters_new}, {"counters_bounds", counters_bounds}, {"line_log", line_log}, {NULL, NULL}};
  static const luaL_Reg methods[] = {
    {"series", counters_series}, {"add", counters_add}, {"observe", counters_observe}, {"functions", counters_functions},
    {"samples", counters_samples}, {"processes", counters_processes}, {"started", counters_started}, {NULL, NULL},
  };
  static const luaL_Reg log_methods[] = {
    {"add", log_add}, {"flush", log_flush}, {"reopen", log_reopen}, {"lost", log_lost}, {NULL, NULL},
  };
  ml__lua_class(L, COUNTERS, methods, counters_gc, NULL);
  ml__lua_class(L, LINE_LOG, log_methods, log_gc, NULL);
  luaL_setfuncs(L, functions, 0);
}
