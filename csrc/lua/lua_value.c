/* Values of any type between Lua and the core: tensors as everywhere; a sequence is an array, a map a table from key to value, an optional its value
 * or false (so that arrays of inputs and outputs have no holes). */
#include <string.h>
#include "lua/lua_core.h"

static ml_status to_value(lua_State *L, int index, uint32_t type, ml_item *out, ml_error *err);

static ml_status wrong(lua_State *L, int index, uint32_t type, ml_error *err)
{
  char text[96];
  return ml_fail(err, ML_INVALID_ARGUMENT, "a table for %s expected, got %s", ml_type_format(type, text, sizeof text), luaL_typename(L, index));
}

static ml_status to_sequence(lua_State *L, int index, uint32_t type, ml_container **out, ml_error *err)
{
  ml_container *made;
  if (!lua_istable(L, index)) return wrong(L, index, type, err);
  ML_TRY(ml_container_new(type, lua_rawlen(L, index), &made, err));
  for (size_t i = 0; i < made->count; i++) {
    lua_rawgeti(L, index, (int)i + 1);
    ml_status status = to_value(L, lua_gettop(L), ml_type_inner(type), &made->items[i], err);
    lua_pop(L, 1);
    if (status == ML_OK) continue;
    ml_container_release(made);
    return ml_fail_in(err, status, "element %d", (int)i + 1);
  }
  *out = made;
  return ML_OK;
}

/* Keys and values collected in two Lua arrays on top of the stack, which become tensors. */
static ml_status to_map(lua_State *L, int index, uint32_t type, ml_container **out, ml_error *err)
{
  bool text = ml_type_kind(type) == ML_KIND_MAP_STRING;
  int n = 0;
  ml_container *made;
  if (!lua_istable(L, index)) return wrong(L, index, type, err);
  lua_newtable(L);
  lua_newtable(L);
  for (lua_pushnil(L); lua_next(L, index);) {
    bool fits = text ? lua_type(L, -2) == LUA_TSTRING : lua_type(L, -2) == LUA_TNUMBER;
    if (!fits) {
      ml_fail(err, ML_INVALID_ARGUMENT, "a key of a map is a %s, expected %s", luaL_typename(L, -2), text ? "string" : "integer");
      lua_pop(L, 4);
      return ML_INVALID_ARGUMENT;
    }
    n++;
    lua_rawseti(L, -3, n); /* value */
    lua_pushvalue(L, -1);
    lua_rawseti(L, -4, n); /* key */
  }
  ml_status status = ml_container_new(type, 2, &made, err);
  if (status == ML_OK) {
    int values = lua_gettop(L);
    status = ml__lua_to_tensor(L, values - 1, text ? ML_STRING : ML_INT64, &made->items[0].tensor, err);
    if (status == ML_OK) status = ml__lua_to_tensor(L, values, ml_type_dtype(type), &made->items[1].tensor, err);
    if (status == ML_OK && made->items[1].tensor->view.rank != 1 && n > 0) status = ml_fail(err, ML_INVALID_ARGUMENT, "the values of a map must be scalars");
    if (status == ML_OK) *out = made;
    else ml_container_release(made);
  }
  lua_pop(L, 2);
  return status;
}

static ml_status to_value(lua_State *L, int index, uint32_t type, ml_item *out, ml_error *err)
{
  *out = (ml_item) { NULL, NULL };
  luaL_checkstack(L, 8, "a nested value");
  switch (ml_type_kind(type)) {
    case ML_KIND_TENSOR: return ml__lua_to_tensor(L, index, ml_type_dtype(type), &out->tensor, err);
    case ML_KIND_SEQUENCE: return to_sequence(L, index, type, &out->container, err);
    case ML_KIND_OPTIONAL: {
      bool empty = lua_isnil(L, index) || (lua_isboolean(L, index) && !lua_toboolean(L, index));
      ML_TRY(ml_container_new(type, empty ? 0 : 1, &out->container, err));
      if (empty) return ML_OK;
      ml_status status = to_value(L, index, ml_type_inner(type), &out->container->items[0], err);
      if (status == ML_OK) return ML_OK;
      ml_container_release(out->container);
      out->container = NULL;
      return status;
    }
    default: return to_map(L, index, type, &out->container, err);
  }
}

ml_status ml__lua_to_items(lua_State *L, int index, size_t n, ml_value *const *values, ml_item *out, ml_error *err)
{
  for (size_t i = 0; i < n; i++) out[i] = (ml_item) { NULL, NULL };
  index = lua_absindex(L, index);
  if (!lua_istable(L, index)) return ml_fail(err, ML_INVALID_ARGUMENT, "an array of inputs expected, got %s", luaL_typename(L, index));
  if (lua_rawlen(L, index) != n) return ml_fail(err, ML_INVALID_ARGUMENT, "%d inputs expected, got %d", (int)n, (int)lua_rawlen(L, index));
  for (size_t i = 0; i < n; i++) {
    uint32_t type = values[i]->type ? values[i]->type : ml_type_tensor(values[i]->dtype);
    lua_rawgeti(L, index, (int)i + 1);
    ml_status status = to_value(L, lua_gettop(L), type, &out[i], err);
    lua_pop(L, 1);
    if (status != ML_OK) return ml_fail_in(err, status, "input '%s'", values[i]->name);
  }
  return ML_OK;
}

void ml__lua_release_items(ml_item *items, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    ml_tensor_release(items[i].tensor);
    ml_container_release(items[i].container);
  }
}

static void push_map(lua_State *L, const ml_container *map)
{
  const ml_view *keys = &map->items[0].tensor->view, *values = &map->items[1].tensor->view;
  lua_createtable(L, 0, (int)keys->count);
  for (size_t i = 0; i < keys->count; i++) {
    ml__lua_push_element(L, keys, i);
    ml__lua_push_element(L, values, i);
    lua_rawset(L, -3);
  }
}

void ml__lua_push_item(lua_State *L, const ml_item *item)
{
  luaL_checkstack(L, 4, "a nested value");
  if (item->tensor) {
    ml__lua_push_tensor(L, ml_tensor_retain(item->tensor));
    return;
  }
  const ml_container *c = item->container;
  switch (ml_type_kind(c->type)) {
    case ML_KIND_MAP_INT64:
    case ML_KIND_MAP_STRING: push_map(L, c); return;
    case ML_KIND_OPTIONAL:
      if (c->count) ml__lua_push_item(L, &c->items[0]);
      else lua_pushboolean(L, 0);
      return;
    default: break;
  }
  lua_createtable(L, (int)c->count, 0);
  for (size_t i = 0; i < c->count; i++) {
    ml__lua_push_item(L, &c->items[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
}
