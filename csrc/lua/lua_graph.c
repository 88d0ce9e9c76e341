/* mlserve.graph: building, inspecting and editing graphs. A value is named in Lua by its 1-based id or by its name. */
#include <string.h>
#include "format/opset.h"
#include "lua/lua_core.h"
#include "train/autodiff.h"

ml_graph *ml__lua_check_graph(lua_State *L, int index)
{
  ml_graph **box = luaL_checkudata(L, index, ML_LUA_GRAPH);
  luaL_argcheck(L, *box != NULL, index, "the graph has been closed");
  return *box;
}

void ml__lua_push_graph(lua_State *L, ml_graph *graph)
{
  ml_graph **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = graph;
  luaL_setmetatable(L, ML_LUA_GRAPH);
}

static ml_value *check_value(lua_State *L, const ml_graph *g, int index)
{
  if (lua_type(L, index) == LUA_TSTRING) {
    ml_value *v = ml_graph_find(g, lua_tostring(L, index));
    if (!v) luaL_argerror(L, index, lua_pushfstring(L, "the graph has no value named '%s'", lua_tostring(L, index)));
    return v;
  }
  int64_t id = ml__lua_check_int(L, index);
  if (id < 1 || (size_t)id > g->n_values) luaL_argerror(L, index, "not a value of this graph");
  return g->values[id - 1];
}

static void push_value(lua_State *L, const ml_value *v) { ml__lua_push_int(L, (int64_t)v->id + 1); }

void ml__lua_push_signature(lua_State *L, const ml_value *value)
{
  lua_createtable(L, 0, 3);
  lua_pushstring(L, value->name);
  lua_setfield(L, -2, "name");
  char type[96];
  lua_pushstring(L, value->type ? ml_type_format(value->type, type, sizeof type) : ml_dtype_name(value->dtype));
  lua_setfield(L, -2, "dtype");
  if (value->rank == ML_UNKNOWN || value->type) return;
  ml__lua_push_dims(L, value->dims, value->rank);
  lua_setfield(L, -2, "shape");
}

static int graph_gc(lua_State *L)
{
  ml_graph **box = luaL_checkudata(L, 1, ML_LUA_GRAPH);
  ml_graph_free(*box);
  *box = NULL;
  return 0;
}

static int graph_tostring(lua_State *L)
{
  ml_graph **box = luaL_checkudata(L, 1, ML_LUA_GRAPH);
  if (*box) lua_pushfstring(L, "graph '%s': %d nodes, %d parameters", (*box)->name, (int)(*box)->n_nodes, (int)ml_graph_parameters(*box, false));
  else lua_pushliteral(L, "graph (closed)");
  return 1;
}

/* input(name, dtype, shape) -> id */
static int graph_input(lua_State *L)
{
  ml_graph *g = ml__lua_check_graph(L, 1);
  const char *name = luaL_optstring(L, 2, NULL);
  ml_dtype dtype = ml_dtype_from_name(luaL_checkstring(L, 3));
  luaL_argcheck(L, dtype, 3, "unknown dtype");
  int64_t dims[ML_MAX_RANK];
  int32_t rank = ml__lua_check_dims(L, 4, dims);
  ml_value *out;
  ml_error err;
  if (ml_graph_input(g, name, dtype, dims, rank, &out, &err) != ML_OK) return ml__lua_error(L, &err);
  push_value(L, out);
  return 1;
}

/* initializer(name or nil, tensor[, trainable]) -> id */
static int graph_initializer(lua_State *L)
{
  ml_graph *g = ml__lua_check_graph(L, 1);
  ml_value *out;
  ml_error err;
  if (ml_graph_initializer(g, luaL_optstring(L, 2, NULL), ml__lua_check_tensor(L, 3), lua_toboolean(L, 4), &out, &err) != ML_OK) return ml__lua_error(L, &err);
  push_value(L, out);
  return 1;
}

/* ---- attributes: the definition says which type a Lua value becomes ---- */
static const ml_attr_def *attr_definition(const ml_op_def *op, const char *name)
{
  const ml_attr_def *def = op->attrs;
  while (def && def->name && strcmp(def->name, name) != 0) def++;
  return def && def->name ? def : NULL;
}

/* Converts the value on top of the stack; memory comes from arena. */
static void check_attr(lua_State *L, const ml_op_def *op, const char *name, ml_arena *arena, ml_attr *attr)
{
  const ml_attr_def *def = attr_definition(op, name);
  bool good = false;
  *attr = (ml_attr){ .name = name, .type = def ? def->type : ML_ATTR_NONE, .count = 1 };
  int type = lua_type(L, -1);
  size_t n = type == LUA_TTABLE ? lua_rawlen(L, -1) : 0;
  void *array = n || type == LUA_TTABLE ? ml_arena_alloc(arena, (n + 1) * sizeof(ml_str)) : NULL;
  switch (attr->type) {
    case ML_ATTR_INT:
      good = type == LUA_TNUMBER || type == LUA_TBOOLEAN;
      attr->as.i = type == LUA_TBOOLEAN ? lua_toboolean(L, -1) : (int64_t)lua_tonumber(L, -1);
      break;
    case ML_ATTR_FLOAT:
      good = type == LUA_TNUMBER;
      attr->as.f = (float)lua_tonumber(L, -1);
      break;
    case ML_ATTR_STRING:
      good = type == LUA_TSTRING;
      if (good) attr->as.s.bytes = lua_tolstring(L, -1, &attr->as.s.length);
      break;
    case ML_ATTR_TENSOR:
      attr->as.tensor = ml__lua_test_tensor(L, -1);
      good = attr->as.tensor != NULL;
      break;
    case ML_ATTR_INTS: case ML_ATTR_FLOATS: case ML_ATTR_STRINGS:
      good = array != NULL;
      attr->count = n;
      for (size_t i = 0; good && i < n; i++) {
        lua_rawgeti(L, -1, (int)i + 1);
        if (attr->type == ML_ATTR_STRINGS) {
          good = lua_type(L, -1) == LUA_TSTRING;
          if (good) ((ml_str *)array)[i].bytes = lua_tolstring(L, -1, &((ml_str *)array)[i].length);
        } else {
          good = lua_type(L, -1) == LUA_TNUMBER;
          if (attr->type == ML_ATTR_INTS) ((int64_t *)array)[i] = (int64_t)lua_tonumber(L, -1);
          else ((float *)array)[i] = (float)lua_tonumber(L, -1);
        }
        lua_pop(L, 1);
      }
      if (attr->type == ML_ATTR_INTS) attr->as.ints = array;
      if (attr->type == ML_ATTR_FLOATS) attr->as.floats = array;
      if (attr->type == ML_ATTR_STRINGS) attr->as.strings = array;
      break;
    default: break;
  }
  if (good) return;
  ml_arena_free(arena);
  if (!def) luaL_error(L, "%s: unknown attribute '%s'", op->name, name);
  luaL_error(L, "%s: attribute '%s' cannot be a %s", op->name, name, luaL_typename(L, -1));
}

#define MAX_ATTRS 32
#define MAX_VALUES 256

static size_t check_attrs(lua_State *L, int index, const ml_op_def *op, ml_arena *arena, ml_attr *attrs)
{
  size_t n = 0;
  if (lua_isnoneornil(L, index)) return 0;
  if (!lua_istable(L, index)) {
    ml_arena_free(arena);
    luaL_argerror(L, index, "attributes are a table");
  }
  for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
    if (lua_type(L, -2) != LUA_TSTRING || n == MAX_ATTRS) {
      ml_arena_free(arena);
      luaL_argerror(L, index, "attributes have string names, at most 32");
    }
    check_attr(L, op, lua_tostring(L, -2), arena, &attrs[n++]);
  }
  return n;
}

static const ml_op_def *check_op(lua_State *L, int index)
{
  const char *name = luaL_checkstring(L, index), *dot = strrchr(name, '.');
  char domain[64] = "";
  if (dot && (size_t)(dot - name) < sizeof domain) memcpy(domain, name, (size_t)(dot - name));
  const ml_op_def *op = ml_op_find(domain, dot ? dot + 1 : name);
  if (!op) luaL_argerror(L, index, lua_pushfstring(L, "unknown operator '%s'", name));
  return op;
}

static size_t check_values(lua_State *L, const ml_graph *g, int index, ml_value **values)
{
  luaL_checktype(L, index, LUA_TTABLE);
  size_t n = lua_rawlen(L, index);
  if (n > MAX_VALUES) luaL_argerror(L, index, "too many values");
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, index, (int)i + 1);
    values[i] = lua_toboolean(L, -1) ? check_value(L, g, lua_gettop(L)) : NULL; /* false: left out */
    lua_pop(L, 1);
  }
  return n;
}

/* node(op, inputs[, attributes[, outputs[, name]]]) -> ids. op "Relu" or "ai.onnx.ml.Scaler"; inputs: array of ids or names (false: left out);
 * outputs: their number (default 1) or an array of names. */
static int graph_node(lua_State *L)
{
  ml_graph *g = ml__lua_check_graph(L, 1);
  const ml_op_def *op = check_op(L, 2);
  ml_value *in[MAX_VALUES], *out[MAX_VALUES];
  const char *names[MAX_VALUES];
  size_t n_in = check_values(L, g, 3, in), n_out = 1;
  bool named = lua_istable(L, 5);
  if (named) {
    n_out = lua_rawlen(L, 5);
    luaL_argcheck(L, n_out <= MAX_VALUES, 5, "too many outputs");
    for (size_t i = 0; i < n_out; i++) {
      lua_rawgeti(L, 5, (int)i + 1);
      names[i] = lua_tostring(L, -1);
      lua_pop(L, 1);
    }
  } else {
    int64_t count = ml__lua_opt_int(L, 5, 1);
    luaL_argcheck(L, count >= 0 && count <= MAX_VALUES, 5, "too many outputs");
    n_out = (size_t)count;
  }
  const char *name = luaL_optstring(L, 6, NULL);
  ml_attr attrs[MAX_ATTRS];
  ml_error err;
  ml_arena *arena = ml_arena_new();
  if (!arena) return luaL_error(L, "out of memory");
  size_t n_attrs = check_attrs(L, 4, op, arena, attrs);
  ml_status status = ml_graph_node(g, op, name, attrs, n_attrs, n_in, in, n_out, named ? names : NULL, out, &err);
  ml_arena_free(arena);
  if (status != ML_OK) return ml__lua_error(L, &err);
  luaL_checkstack(L, (int)n_out, "outputs");
  for (size_t i = 0; i < n_out; i++) {
    if (out[i]) push_value(L, out[i]);
    else lua_pushboolean(L, 0);
  }
  return (int)n_out;
}

/* insert_after(value, op[, more inputs[, attributes]]) -> id: a node reading value (first) whose output takes value's place everywhere */
static int graph_insert_after(lua_State *L)
{
  ml_graph *g = ml__lua_check_graph(L, 1);
  ml_value *value = check_value(L, g, 2), *in[MAX_VALUES + 1], *out;
  const ml_op_def *op = check_op(L, 3);
  in[0] = value;
  size_t n_in = 1 + (lua_isnoneornil(L, 4) ? 0 : check_values(L, g, 4, in + 1)), n_nodes = g->n_nodes;
  size_t at = value->producer ? ml_graph_node_index(g, value->producer) + 1 : 0;
  ml_attr attrs[MAX_ATTRS];
  ml_error err;
  ml_arena *arena = ml_arena_new();
  if (!arena) return luaL_error(L, "out of memory");
  size_t n_attrs = check_attrs(L, 5, op, arena, attrs);
  ml_status status = ml_graph_node(g, op, NULL, attrs, n_attrs, n_in, in, 1, NULL, &out, &err);
  ml_arena_free(arena);
  if (status != ML_OK) return ml__lua_error(L, &err);
  ml_node *node = g->nodes[n_nodes];
  ml_graph_replace(g, value, out, true);
  node->in[0] = value;
  ml_graph_move_last(g, at);
  push_value(L, out);
  return 1;
}

/* output(value[, name]): marks a graph output, renaming the value when a name is given */
static int graph_output(lua_State *L)
{
  ml_graph *g = ml__lua_check_graph(L, 1);
  ml_value *v = check_value(L, g, 2);
  ml_error err;
  if (!lua_isnoneornil(L, 3) && ml_graph_rename(g, v, luaL_checkstring(L, 3), &err) != ML_OK) return ml__lua_error(L, &err);
  if (ml_graph_output(g, v, &err) != ML_OK) return ml__lua_error(L, &err);
  return 0;
}

/* clear_outputs(): no value is a graph output any more */
static int graph_clear_outputs(lua_State *L)
{
  ml_graph_clear_outputs(ml__lua_check_graph(L, 1));
  return 0;
}

/* rename(value, name) */
static int graph_rename(lua_State *L)
{
  ml_graph *g = ml__lua_check_graph(L, 1);
  ml_error err;
  if (ml_graph_rename(g, check_value(L, g, 2), luaL_checkstring(L, 3), &err) != ML_OK) return ml__lua_error(L, &err);
  return 0;
}

/* set_dim_name(value, axis from 0, name) */
static int graph_set_dim_name(lua_State *L)
{
  ml_graph *g = ml__lua_check_graph(L, 1);
  ml_error err;
  if (ml_graph_set_dim_name(g, check_value(L, g, 2), (int32_t)ml__lua_check_int(L, 3), luaL_checkstring(L, 4), &err) != ML_OK) return ml__lua_error(L, &err);
  return 0;
}

static int graph_find(lua_State *L)
{
  const ml_value *v = ml_graph_find(ml__lua_check_graph(L, 1), luaL_checkstring(L, 2));
  if (!v) return 0;
  push_value(L, v);
  return 1;
}

/* value(id or name) -> {name, dtype, shape, trainable, initializer} */
static int graph_value(lua_State *L)
{
  const ml_value *v = check_value(L, ml__lua_check_graph(L, 1), 2);
  ml__lua_push_signature(L, v);
  lua_pushboolean(L, v->trainable);
  lua_setfield(L, -2, "trainable");
  lua_pushboolean(L, v->init != NULL);
  lua_setfield(L, -2, "initializer");
  return 1;
}

static int push_values(lua_State *L, ml_value *const *values, size_t n)
{
  lua_createtable(L, (int)n, 0);
  for (size_t i = 0; i < n; i++) {
    ml__lua_push_signature(L, values[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int graph_inputs(lua_State *L)
{
  const ml_graph *g = ml__lua_check_graph(L, 1);
  return push_values(L, g->inputs, g->n_inputs);
}

static int graph_outputs(lua_State *L)
{
  const ml_graph *g = ml__lua_check_graph(L, 1);
  return push_values(L, g->outputs, g->n_outputs);
}

static int graph_initializers(lua_State *L)
{
  const ml_graph *g = ml__lua_check_graph(L, 1);
  int n = 0;
  lua_newtable(L);
  for (size_t i = 0; i < g->n_values; i++) {
    if (!g->values[i]->init) continue;
    ml__lua_push_signature(L, g->values[i]);
    lua_pushboolean(L, g->values[i]->trainable);
    lua_setfield(L, -2, "trainable");
    lua_rawseti(L, -2, ++n);
  }
  return 1;
}

static void push_attr(lua_State *L, const ml_attr *a)
{
  switch (a->type) {
    case ML_ATTR_INT: ml__lua_push_int(L, a->as.i); return;
    case ML_ATTR_FLOAT: lua_pushnumber(L, (double)a->as.f); return;
    case ML_ATTR_STRING: lua_pushlstring(L, a->as.s.bytes, a->as.s.length); return;
    case ML_ATTR_TENSOR: ml__lua_push_tensor(L, ml_tensor_retain(a->as.tensor)); return;
    case ML_ATTR_INTS: case ML_ATTR_FLOATS: case ML_ATTR_STRINGS: break;
    default: lua_pushliteral(L, "(subgraph)"); return;
  }
  lua_createtable(L, (int)a->count, 0);
  for (size_t i = 0; i < a->count; i++) {
    if (a->type == ML_ATTR_INTS) ml__lua_push_int(L, a->as.ints[i]);
    else if (a->type == ML_ATTR_FLOATS) lua_pushnumber(L, (double)a->as.floats[i]);
    else lua_pushlstring(L, a->as.strings[i].bytes, a->as.strings[i].length);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

static void push_names(lua_State *L, ml_value *const *values, int32_t n, const char *field)
{
  lua_createtable(L, n, 0);
  for (int32_t i = 0; i < n; i++) {
    lua_pushstring(L, values[i] ? values[i]->name : "");
    lua_rawseti(L, -2, i + 1);
  }
  lua_setfield(L, -2, field);
}

/* nodes() -> array of {op, domain, name, inputs, outputs, attributes} in topological order */
static int graph_nodes(lua_State *L)
{
  const ml_graph *g = ml__lua_check_graph(L, 1);
  lua_createtable(L, (int)g->n_nodes, 0);
  for (size_t i = 0; i < g->n_nodes; i++) {
    const ml_node *node = g->nodes[i];
    lua_createtable(L, 0, 6);
    lua_pushstring(L, node->op->name);
    lua_setfield(L, -2, "op");
    lua_pushstring(L, node->op->domain);
    lua_setfield(L, -2, "domain");
    lua_pushstring(L, node->name);
    lua_setfield(L, -2, "name");
    push_names(L, node->in, node->n_in, "inputs");
    push_names(L, node->out, node->n_out, "outputs");
    lua_createtable(L, 0, (int)node->attrs.count);
    for (size_t k = 0; k < node->attrs.count; k++) {
      push_attr(L, &node->attrs.items[k]);
      lua_setfield(L, -2, node->attrs.items[k].name);
    }
    lua_setfield(L, -2, "attributes");
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int graph_get_initializer(lua_State *L)
{
  const ml_value *v = check_value(L, ml__lua_check_graph(L, 1), 2);
  if (!v->init) return luaL_argerror(L, 2, "not an initialiser");
  ml__lua_push_tensor(L, ml_tensor_retain(v->init));
  return 1;
}

static int graph_set_initializer(lua_State *L)
{
  ml_graph *g = ml__lua_check_graph(L, 1);
  ml_error err;
  if (ml_graph_set_initializer(g, check_value(L, g, 2), ml__lua_check_tensor(L, 3), &err) != ML_OK) return ml__lua_error(L, &err);
  return 0;
}

/* set_trainable(value, boolean) */
static int graph_set_trainable(lua_State *L)
{
  ml_value *v = check_value(L, ml__lua_check_graph(L, 1), 2);
  if (!v->init) return luaL_argerror(L, 2, "not an initialiser");
  v->trainable = lua_toboolean(L, 3);
  return 0;
}

/* set_property(key, text); nil removes it */
static int graph_set_property(lua_State *L)
{
  size_t n;
  if (lua_isnil(L, 3)) {
    ml_graph_remove_property(ml__lua_check_graph(L, 1), luaL_checkstring(L, 2));
    return 0;
  }
  const char *key = luaL_checkstring(L, 2), *value = luaL_checklstring(L, 3, &n);
  ml_error err;
  if (ml_graph_set_property(ml__lua_check_graph(L, 1), key, value, n, &err) != ML_OK) return ml__lua_error(L, &err);
  return 0;
}

static int graph_properties(lua_State *L)
{
  const ml_graph *g = ml__lua_check_graph(L, 1);
  lua_createtable(L, 0, (int)g->n_properties);
  for (size_t i = 0; i < g->n_properties; i++) {
    lua_pushlstring(L, g->properties[i].value, g->properties[i].length);
    lua_setfield(L, -2, g->properties[i].key);
  }
  return 1;
}

static int graph_clone(lua_State *L)
{
  ml_graph *copy;
  ml_error err;
  if (ml_graph_clone(ml__lua_check_graph(L, 1), &copy, &err) != ML_OK) return ml__lua_error(L, &err);
  ml__lua_push_graph(L, copy);
  return 1;
}

static int graph_prune(lua_State *L)
{
  ml_error err;
  if (ml_graph_prune(ml__lua_check_graph(L, 1), &err) != ML_OK) return ml__lua_error(L, &err);
  return 0;
}

/* parameters([trainable_only]) -> number of elements */
static int graph_parameters(lua_State *L)
{
  ml__lua_push_int(L, (int64_t)ml_graph_parameters(ml__lua_check_graph(L, 1), lua_toboolean(L, 2)));
  return 1;
}

static int graph_name(lua_State *L)
{
  lua_pushstring(L, ml__lua_check_graph(L, 1)->name);
  return 1;
}

static int new_graph(lua_State *L)
{
  ml_graph *g;
  ml_error err;
  if (ml_graph_new(luaL_optstring(L, 1, NULL), &g, &err) != ML_OK) return ml__lua_error(L, &err);
  ml__lua_push_graph(L, g);
  return 1;
}

/* grad_check(graph, inputs[, h]) -> largest relative error, where, number of elements compared */
static int grad_check(lua_State *L)
{
  enum { MAX = 16 };
  const ml_graph *g = ml__lua_check_graph(L, 1);
  ml_tensor *tensors[MAX];
  ml_view views[MAX];
  ml_dtype wanted[MAX];
  ml_grad_check_result result;
  ml_error err;
  luaL_argcheck(L, g->n_inputs <= MAX, 1, "too many inputs");
  for (size_t i = 0; i < g->n_inputs; i++) wanted[i] = g->inputs[i]->dtype;
  ml_status status = ml__lua_to_tensors(L, 2, g->n_inputs, wanted, tensors, &err);
  for (size_t i = 0; i < g->n_inputs && status == ML_OK; i++) views[i] = tensors[i]->view;
  if (status == ML_OK) status = ml_grad_check(g, views, luaL_optnumber(L, 3, 0), &result, &err);
  for (size_t i = 0; i < g->n_inputs; i++) ml_tensor_release(tensors[i]);
  if (status != ML_OK) return ml__lua_error(L, &err);
  lua_pushnumber(L, result.max_error);
  lua_pushstring(L, result.where);
  ml__lua_push_int(L, (int64_t)result.elements);
  return 3;
}

/* Names of the dtypes of a mask; empty: any. */
static void push_types(lua_State *L, uint32_t mask)
{
  int n = 0;
  lua_newtable(L);
  if (mask == ML_MASK_ANY) return;
  for (int dtype = 1; dtype < (int)ML_CONTAINER; dtype++) {
    if (!(mask & ML_BIT(dtype)) || ml_dtype_size((ml_dtype)dtype) == 0) continue;
    lua_pushstring(L, ml_dtype_name((ml_dtype)dtype));
    lua_rawseti(L, -2, ++n);
  }
}

/* operators() -> array of {name, domain, introduced, since, newest (versions of the operator set), min_inputs, max_inputs, formula, differentiable, training, internal, variadic,
 *   containers = takes sequences, optionals or maps, attributes, types = for inputs 1, 2 … (the last for all further ones) an array of dtypes, empty: any} */
static int operators(lua_State *L)
{
  lua_createtable(L, (int)ml_op_count(), 0);
  for (size_t i = 0; i < ml_op_count(); i++) {
    const ml_op_def *op = ml_op_at(i);
    lua_createtable(L, 0, 15);
    lua_pushstring(L, op->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, op->domain);
    lua_setfield(L, -2, "domain");
    ml__lua_push_int(L, op->since);
    lua_setfield(L, -2, "since");
    ml__lua_push_int(L, ml__opset_introduced(op->domain, op->name));
    lua_setfield(L, -2, "introduced");
    const int32_t newest = ml__opset_newest(ml__opset_domain(op->domain));
    ml__lua_push_int(L, newest ? newest : op->since);
    lua_setfield(L, -2, "newest");
    lua_newtable(L);
    for (int k = 0; k < 4 && op->types[k]; k++) {
      push_types(L, op->types[k] | (ml_op_widens(op, k, ML_FLOAT16) ? ML_BIT(ML_FLOAT16) : 0) |
                      (ml_op_widens(op, k, ML_BFLOAT16) ? ML_BIT(ML_BFLOAT16) : 0));
      lua_rawseti(L, -2, k + 1);
    }
    lua_setfield(L, -2, "types");
    ml__lua_push_int(L, op->min_in);
    lua_setfield(L, -2, "min_inputs");
    ml__lua_push_int(L, op->max_in);
    lua_setfield(L, -2, "max_inputs");
    lua_pushstring(L, op->formula ? op->formula : "");
    lua_setfield(L, -2, "formula");
    lua_pushboolean(L, op->gradient != NULL);
    lua_setfield(L, -2, "differentiable");
    lua_pushboolean(L, (op->flags & ML_OP_TRAINING) != 0);
    lua_setfield(L, -2, "training");
    lua_pushboolean(L, (op->flags & ML_OP_INTERNAL) != 0);
    lua_setfield(L, -2, "internal");
    lua_pushboolean(L, (op->flags & ML_OP_VARIADIC) != 0);
    lua_setfield(L, -2, "variadic");
    lua_pushboolean(L, (op->flags & ML_OP_CONTAINERS) != 0);
    lua_setfield(L, -2, "containers");
    lua_newtable(L);
    for (int k = 0; op->attrs && op->attrs[k].name; k++) {
      lua_pushstring(L, op->attrs[k].name);
      lua_rawseti(L, -2, k + 1);
    }
    lua_setfield(L, -2, "attributes");
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

void ml__lua_open_graph(lua_State *L)
{
  static const luaL_Reg methods[] = {
    { "input", graph_input }, { "initializer", graph_initializer }, { "node", graph_node }, { "insert_after", graph_insert_after }, { "output", graph_output },
    { "clear_outputs", graph_clear_outputs },
    { "rename", graph_rename }, { "find", graph_find }, { "set_dim_name", graph_set_dim_name }, { "value", graph_value }, { "inputs", graph_inputs }, { "outputs", graph_outputs },
    { "initializers", graph_initializers }, { "nodes", graph_nodes }, { "get_initializer", graph_get_initializer }, { "set_initializer", graph_set_initializer },
    { "set_trainable", graph_set_trainable }, { "set_property", graph_set_property }, { "properties", graph_properties }, { "clone", graph_clone },
    { "prune", graph_prune }, { "parameters", graph_parameters }, { "name", graph_name }, { "close", graph_gc }, { NULL, NULL } };
  static const luaL_Reg functions[] = { { "graph", new_graph }, { "grad_check", grad_check }, { "operators", operators }, { NULL, NULL } };
  ml__lua_class(L, ML_LUA_GRAPH, methods, graph_gc, graph_tostring);
  luaL_setfuncs(L, functions, 0);
}
