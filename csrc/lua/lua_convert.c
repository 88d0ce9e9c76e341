/* Rewriting graphs for their files, in place; after an error the graph is to be dropped, so Lua works on a clone (mlserve.convert).
 *   core.graph_extract(graph, inputs, outputs)   arrays of names, nil: the graph's own
 *   core.graph_batch(graph, n)   core.graph_fold(graph)   core.graph_simplify(graph)
 *   core.graph_half(graph, keep_io) -> array of { name, saturated, tiny, largest }: initialisers that float16 does not hold as they were */
#include "graph/convert.h"
#include "lua/lua_core.h"

static int done(lua_State *L, ml_status status, const ml_error *err) {
  if (status != ML_OK) return ml__lua_error(L, err);
  lua_pushboolean(L, 1);
  return 1;
}

/* Names at index as a C array, which lives in a userdata left on the stack. */
static const char *const *names_at(lua_State *L, int index, size_t *n) {
  *n = 0;
  if (lua_isnoneornil(L, index)) return NULL;
  luaL_checktype(L, index, LUA_TTABLE);
  *n = lua_rawlen(L, index);
  const char **names = lua_newuserdatauv(L, (*n + 1) * sizeof *names, 0);
  for (size_t i = 0; i < *n; i++) {
    lua_rawgeti(L, index, (int)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING) luaL_argerror(L, index, "names are strings");
    names[i] = lua_tostring(L, -1); /* the table keeps it */
    lua_pop(L, 1);
  }
  return names;
}

static int extract(lua_State *L) {
  ml_graph *g = ml__lua_check_graph(L, 1);
  size_t n_in, n_out;
  ml_error err;
  lua_settop(L, 3);
  const char *const *in = names_at(L, 2, &n_in), *const *out = names_at(L, 3, &n_out);
  return done(L, ml_graph_extract(g, in, n_in, out, n_out, &err), &err);
}

static int batch(lua_State *L) {
  ml_error err;
  return done(L, ml_graph_set_batch(ml__lua_check_graph(L, 1), ml__lua_check_int(L, 2), &err), &err);
}

static int fold(lua_State *L) {
  ml_error err;
  return done(L, ml_graph_fold(ml__lua_check_graph(L, 1), &err), &err);
}

static int simplify(lua_State *L) {
  ml_error err;
  return done(L, ml_graph_simplify(ml__lua_check_graph(L, 1), &err), &err);
}

static int half(lua_State *L) {
  ml_graph *g = ml__lua_check_graph(L, 1);
  ml_half_report report = {NULL, 0, 0};
  ml_error err;
  if (ml_graph_to_half(g, lua_toboolean(L, 2), &report, &err) != ML_OK) {
    ml_free(report.notes);
    return ml__lua_error(L, &err);
  }
  lua_createtable(L, (int)report.n, 0);
  for (size_t i = 0; i < report.n; i++) {
    const ml_half_note *note = &report.notes[i];
    lua_createtable(L, 0, 4);
    lua_pushstring(L, note->name);
    lua_setfield(L, -2, "name");
    ml__lua_push_int(L, (int64_t)note->saturated);
    lua_setfield(L, -2, "saturated");
    ml__lua_push_int(L, (int64_t)note->tiny);
    lua_setfield(L, -2, "tiny");
    lua_pushnumber(L, note->largest);
    lua_setfield(L, -2, "largest");
    lua_rawseti(L, -2, (int)i + 1);
  }
  ml_free(report.notes);
  return 1;
}

void ml__lua_open_convert(lua_State *L) {
  static const luaL_Reg functions[] = {{"graph_extract", extract}, {"graph_batch", batch}, {"graph_fold", fold}, {"graph_simplify", simplify},
                                       {"graph_half", half},       {NULL, NULL}};
  luaL_setfuncs(L, functions, 0);
}
