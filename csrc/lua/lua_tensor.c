/* mlserve.tensor: userdata holding one reference on a tensor. Indices are 1-based in Lua. */
#include <stdio.h>
#include <string.h>
#include "lua/lua_core.h"

ml_tensor *ml__lua_test_tensor(lua_State *L, int index)
{
  ml_tensor **box = luaL_testudata(L, index, ML_LUA_TENSOR);
  return box ? *box : NULL;
}

ml_tensor *ml__lua_check_tensor(lua_State *L, int index)
{
  ml_tensor **box = luaL_checkudata(L, index, ML_LUA_TENSOR);
  luaL_argcheck(L, *box != NULL, index, "the tensor has been closed");
  return *box;
}

void ml__lua_push_tensor(lua_State *L, ml_tensor *tensor)
{
  ml_tensor **box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = tensor;
  luaL_setmetatable(L, ML_LUA_TENSOR);
}

static ml_dtype opt_dtype(lua_State *L, int index, ml_dtype fallback)
{
  if (lua_isnoneornil(L, index)) return fallback;
  const char *name = luaL_checkstring(L, index);
  ml_dtype dtype = ml_dtype_from_name(name);
  if (!dtype) luaL_argerror(L, index, lua_pushfstring(L, "unknown dtype '%s'", name));
  return dtype;
}

/* ---- nested tables to tensors ---- */
typedef struct nested {
  lua_State *L;
  int64_t dims[ML_MAX_RANK];
  int32_t rank;
  ml_dtype dtype;
  char *data;
  size_t at;        /* elements stored */
  ml_error *err;
  int64_t path[ML_MAX_RANK];
} nested;

static ml_status fail_at(nested *n, int32_t depth, const char *what)
{
  char place[128] = "";
  size_t length = 0;
  for (int32_t i = 0; i < depth && length < sizeof place - 24; i++) length += (size_t)snprintf(place + length, sizeof place - length, "[%lld]", (long long)n->path[i]);
  return ml_fail(n->err, ML_INVALID_ARGUMENT, "%s%s%s", what, depth ? " at element " : "", place);
}

static void measure(nested *n)
{
  lua_State *L = n->L;
  int top = lua_gettop(L);
  lua_pushvalue(L, top);
  while (lua_istable(L, -1) && n->rank < ML_MAX_RANK) {
    n->dims[n->rank++] = (int64_t)lua_rawlen(L, -1);
    lua_rawgeti(L, -1, 1);
  }
  if (n->dtype == ML_DTYPE_NONE) n->dtype = lua_type(L, -1) == LUA_TSTRING ? ML_STRING : lua_isboolean(L, -1) ? ML_BOOL : ML_FLOAT32;
  lua_settop(L, top);
}

static ml_status store(nested *n, int32_t depth)
{
  lua_State *L = n->L;
  int type = lua_type(L, -1);
  if (n->dtype == ML_STRING) {
    if (type != LUA_TSTRING) return fail_at(n, depth, lua_pushfstring(L, "string expected, got %s", luaL_typename(L, -1)));
    ml_str *s = (ml_str *)(void *)n->data + n->at++;
    s->bytes = lua_tolstring(L, -1, &s->length); /* stays alive in the table */
    return ML_OK;
  }
  if (type != LUA_TNUMBER && type != LUA_TBOOLEAN) return fail_at(n, depth, lua_pushfstring(L, "number expected, got %s", luaL_typename(L, -1)));
  double value = type == LUA_TBOOLEAN ? lua_toboolean(L, -1) : lua_tonumber(L, -1);
  if (n->dtype == ML_FLOAT32) ((float *)(void *)n->data)[n->at++] = (float)value;
#if LUA_VERSION_NUM >= 503
  else if (n->dtype == ML_INT64 && lua_isinteger(L, -1)) ((int64_t *)(void *)n->data)[n->at++] = (int64_t)lua_tointeger(L, -1);
#endif
  else ml_element_set(n->data, n->dtype, n->at++, value);
  return ML_OK;
}

static ml_status walk(nested *n, int32_t depth)
{
  lua_State *L = n->L;
  if (depth == n->rank) return store(n, depth);
  if (!lua_istable(L, -1)) return fail_at(n, depth, lua_pushfstring(L, "array expected, got %s", luaL_typename(L, -1)));
  if ((int64_t)lua_rawlen(L, -1) != n->dims[depth])
    return fail_at(n, depth, lua_pushfstring(L, "array of %d elements expected, got %d", (int)n->dims[depth], (int)lua_rawlen(L, -1)));
  int top = lua_gettop(L);
  for (int64_t i = 0; i < n->dims[depth]; i++) {
    n->path[depth] = i + 1;
    lua_rawgeti(L, top, (int)i + 1);
    ML_TRY(walk(n, depth + 1));
    lua_settop(L, top);
  }
  return ML_OK;
}

static ml_status from_nested(lua_State *L, ml_dtype dtype, ml_tensor **out, ml_error *err)
{
  nested n = { .L = L, .dtype = dtype, .err = err };
  luaL_checkstack(L, ML_MAX_RANK + 8, "a nested array");
  measure(&n);
  if (n.dtype != ML_STRING) {
    ML_TRY(ml_tensor_new(n.dtype, n.dims, n.rank, out, err));
    n.data = (*out)->view.data;
    ml_status status = walk(&n, 0);
    if (status != ML_OK) {
      ml_tensor_release(*out);
      *out = NULL;
    }
    return status;
  }
  size_t count;
  ML_TRY(ml_shape_count(n.dims, n.rank, ML_STRING, &count, err));
  ml_str *strings = ml_alloc_zero(count + 1, sizeof *strings);
  if (!strings) return ml_fail_memory(err, count * sizeof *strings, "strings");
  n.data = (char *)strings;
  ml_status status = walk(&n, 0);
  if (status == ML_OK) status = ml_tensor_from_strings(strings, n.dims, n.rank, out, err);
  ml_free(strings);
  return status;
}

ml_status ml__lua_to_tensor(lua_State *L, int index, ml_dtype dtype, ml_tensor **out, ml_error *err)
{
  *out = NULL;
  ml_tensor *tensor = ml__lua_test_tensor(L, index);
  if (tensor) {
    if (dtype == ML_DTYPE_NONE || dtype == tensor->view.dtype) {
      *out = ml_tensor_retain(tensor);
      return ML_OK;
    }
    if (dtype == ML_STRING || tensor->view.dtype == ML_STRING)
      return ml_fail(err, ML_INVALID_ARGUMENT, "expected a %s tensor, got %s", ml_dtype_name(dtype), ml_dtype_name(tensor->view.dtype));
    return ml_tensor_cast(tensor, dtype, out, err);
  }
  int type = lua_type(L, index);
  if (type != LUA_TTABLE && type != LUA_TNUMBER && type != LUA_TBOOLEAN && type != LUA_TSTRING)
    return ml_fail(err, ML_INVALID_ARGUMENT, "a tensor or an array expected, got %s", luaL_typename(L, index));
  int top = lua_gettop(L);
  lua_pushvalue(L, index);
  ml_status status = from_nested(L, dtype, out, err);
  lua_settop(L, top);
  return status;
}

ml_status ml__lua_to_tensors(lua_State *L, int index, size_t n, const ml_dtype *wanted, ml_tensor **out, ml_error *err)
{
  for (size_t i = 0; i < n; i++) out[i] = NULL;
  index = lua_absindex(L, index);
  if (!lua_istable(L, index)) return ml_fail(err, ML_INVALID_ARGUMENT, "an array of tensors expected, got %s", luaL_typename(L, index));
  if (lua_rawlen(L, index) != n) return ml_fail(err, ML_INVALID_ARGUMENT, "%d tensors expected, got %d", (int)n, (int)lua_rawlen(L, index));
  for (size_t i = 0; i < n; i++) {
    lua_rawgeti(L, index, (int)i + 1);
    ml_status status = ml__lua_to_tensor(L, -1, wanted ? wanted[i] : ML_DTYPE_NONE, &out[i], err);
    lua_pop(L, 1);
    if (status != ML_OK) return ml_fail_in(err, status, "tensor %d", (int)i + 1);
  }
  return ML_OK;
}

/* ---- tensors to nested tables ---- */
void ml__lua_push_element(lua_State *L, const ml_view *view, size_t i)
{
  switch (view->dtype) {
    case ML_STRING: {
      const ml_str *s = (const ml_str *)view->data + i;
      lua_pushlstring(L, s->length ? s->bytes : "", s->length);
      break;
    }
    case ML_BOOL: lua_pushboolean(L, ((const uint8_t *)view->data)[i]); break;
    case ML_INT64: ml__lua_push_int(L, ((const int64_t *)view->data)[i]); break;
    default:
      if (ml_dtype_is_integer(view->dtype)) ml__lua_push_int(L, (int64_t)ml_element_get(view->data, view->dtype, i));
      else lua_pushnumber(L, ml_element_get(view->data, view->dtype, i));
  }
}

static size_t push_axis(lua_State *L, const ml_view *view, int32_t axis, size_t at)
{
  if (axis == view->rank) {
    ml__lua_push_element(L, view, at);
    return at + 1;
  }
  lua_createtable(L, (int)(view->dims[axis] < 1 << 24 ? view->dims[axis] : 1 << 24), 0);
  for (int64_t i = 0; i < view->dims[axis]; i++) {
    at = push_axis(L, view, axis + 1, at);
    lua_rawseti(L, -2, (int)i + 1);
  }
  return at;
}

void ml__lua_push_nested(lua_State *L, const ml_view *view)
{
  luaL_checkstack(L, ML_MAX_RANK + 8, "a nested array");
  push_axis(L, view, 0, 0);
}

/* ---- methods ---- */
static int push_or_error(lua_State *L, ml_status status, ml_tensor *tensor, const ml_error *err)
{
  if (status != ML_OK) return ml__lua_error(L, err);
  ml__lua_push_tensor(L, tensor);
  return 1;
}

static int tensor_gc(lua_State *L)
{
  ml_tensor **box = luaL_checkudata(L, 1, ML_LUA_TENSOR);
  ml_tensor_release(*box);
  *box = NULL;
  return 0;
}

static int tensor_shape(lua_State *L)
{
  const ml_view *view = &ml__lua_check_tensor(L, 1)->view;
  ml__lua_push_dims(L, view->dims, view->rank);
  return 1;
}

static int tensor_dtype(lua_State *L)
{
  lua_pushstring(L, ml_dtype_name(ml__lua_check_tensor(L, 1)->view.dtype));
  return 1;
}

static int tensor_count(lua_State *L)
{
  ml__lua_push_int(L, (int64_t)ml__lua_check_tensor(L, 1)->view.count);
  return 1;
}

static int tensor_totable(lua_State *L)
{
  ml__lua_push_nested(L, &ml__lua_check_tensor(L, 1)->view);
  return 1;
}

static int tensor_item(lua_State *L)
{
  const ml_view *view = &ml__lua_check_tensor(L, 1)->view;
  if (view->count != 1) return luaL_error(L, "item() needs a tensor of one element, this one has %d", (int)view->count);
  ml__lua_push_element(L, view, 0);
  return 1;
}

static int tensor_reshape(lua_State *L)
{
  ml_tensor *tensor = ml__lua_check_tensor(L, 1), *out = NULL;
  int64_t dims[ML_MAX_RANK];
  int32_t rank = ml__lua_check_dims(L, 2, dims), unknown = -1;
  size_t rest = 1;
  for (int32_t i = 0; i < rank; i++) {
    if (dims[i] < 0) {
      if (unknown >= 0) return luaL_argerror(L, 2, "at most one dimension may be -1");
      unknown = i;
    } else if (!ml_mul_size(rest, (size_t)dims[i], &rest)) return luaL_argerror(L, 2, "the shape is too large");
  }
  if (unknown >= 0) dims[unknown] = rest ? (int64_t)(tensor->view.count / rest) : 0;
  ml_error err;
  ml_status status = ml_tensor_reshape(tensor, dims, rank, &out, &err);
  return push_or_error(L, status, out, &err);
}

static int tensor_tobytes(lua_State *L)
{
  const ml_view *view = &ml__lua_check_tensor(L, 1)->view;
  if (view->dtype == ML_STRING) return luaL_error(L, "a string tensor has no bytes of fixed size");
  lua_pushlstring(L, view->count ? view->data : "", view->count * ml_dtype_size(view->dtype));
  return 1;
}

/* get(i, j, …): one element; indices count from 1 */
static size_t element_index(lua_State *L, const ml_view *view)
{
  size_t index = 0;
  for (int32_t i = 0; i < view->rank; i++) {
    int64_t at = ml__lua_check_int(L, i + 2);
    if (at < 1 || at > view->dims[i]) luaL_argerror(L, i + 2, lua_pushfstring(L, "index %d outside 1…%d", (int)at, (int)view->dims[i]));
    index = index * (size_t)view->dims[i] + (size_t)(at - 1);
  }
  return index;
}

static int tensor_get(lua_State *L)
{
  const ml_view *view = &ml__lua_check_tensor(L, 1)->view;
  ml__lua_push_element(L, view, element_index(L, view));
  return 1;
}

/* set(i, j, …, value) */
static int tensor_set(lua_State *L)
{
  const ml_view *view = &ml__lua_check_tensor(L, 1)->view;
  size_t at = element_index(L, view);
  int value = view->rank + 2;
  if (view->dtype == ML_STRING) return luaL_error(L, "elements of a string tensor cannot be set");
  ml_element_set(view->data, view->dtype, at, lua_isboolean(L, value) ? lua_toboolean(L, value) : luaL_checknumber(L, value));
  return 0;
}

static int tensor_rows(lua_State *L)
{
  ml_tensor *tensor = ml__lua_check_tensor(L, 1), *out = NULL;
  int64_t rows = tensor->view.rank ? tensor->view.dims[0] : 0, begin = ml__lua_check_int(L, 2), end = ml__lua_opt_int(L, 3, rows);
  ml_error err;
  ml_status status = ml_tensor_rows(tensor, begin - 1, end, &out, &err);
  return push_or_error(L, status, out, &err);
}

static int tensor_cast(lua_State *L)
{
  ml_tensor *tensor = ml__lua_check_tensor(L, 1), *out = NULL;
  ml_dtype dtype = opt_dtype(L, 2, ML_FLOAT32);
  ml_error err;
  ml_status status = dtype == ML_STRING || (tensor->view.dtype == ML_STRING && dtype != ML_STRING)
                       ? ml_fail(&err, ML_INVALID_ARGUMENT, "cannot cast %s to %s", ml_dtype_name(tensor->view.dtype), ml_dtype_name(dtype))
                       : ml_tensor_cast(tensor, dtype, &out, &err);
  return push_or_error(L, status, out, &err);
}

static int tensor_copy(lua_State *L)
{
  ml_tensor *tensor = ml__lua_check_tensor(L, 1), *out = NULL;
  ml_error err;
  ml_status status = ml_tensor_copy_of(&tensor->view, &out, &err);
  return push_or_error(L, status, out, &err);
}

static int tensor_len(lua_State *L)
{
  const ml_view *view = &ml__lua_check_tensor(L, 1)->view;
  ml__lua_push_int(L, view->rank ? view->dims[0] : 0);
  return 1;
}

static int tensor_tostring(lua_State *L)
{
  ml_tensor **box = luaL_checkudata(L, 1, ML_LUA_TENSOR);
  if (!*box) {
    lua_pushliteral(L, "tensor (closed)");
    return 1;
  }
  const ml_view *view = &(*box)->view;
  char shape[200];
  lua_pushfstring(L, "tensor %s %s", ml_dtype_name(view->dtype), ml_shape_format(view->dims, view->rank, shape, sizeof shape));
  int parts = 1;
  for (size_t i = 0; i < view->count && i < 6; i++) {
    lua_pushstring(L, i ? ", " : " [");
    ml__lua_push_element(L, view, i);
    const char *text = lua_isboolean(L, -1) ? (lua_toboolean(L, -1) ? "true" : "false") : lua_tostring(L, -1);
    lua_pushstring(L, text);
    lua_remove(L, -2);
    parts += 2;
  }
  if (view->count) {
    lua_pushstring(L, view->count > 6 ? ", …]" : "]");
    parts++;
  }
  lua_concat(L, parts);
  return 1;
}

/* ---- constructors ---- */
/* tensor(nested_table_or_tensor[, dtype]) */
static int new_tensor(lua_State *L)
{
  ml_tensor *out = NULL;
  ml_error err;
  luaL_checkany(L, 1);
  ml_status status = ml__lua_to_tensor(L, 1, opt_dtype(L, 2, ML_DTYPE_NONE), &out, &err);
  return push_or_error(L, status, out, &err);
}

static int new_full(lua_State *L, int dtype_index, double value)
{
  int64_t dims[ML_MAX_RANK];
  int32_t rank = ml__lua_check_dims(L, 1, dims);
  ml_tensor *out = NULL;
  ml_error err;
  ml_status status = ml_tensor_new(opt_dtype(L, dtype_index, ML_FLOAT32), dims, rank, &out, &err);
  if (status == ML_OK && value != 0)
    for (size_t i = 0; i < out->view.count; i++) ml_element_set(out->view.data, out->view.dtype, i, value);
  return push_or_error(L, status, out, &err);
}

static int zeros(lua_State *L) { return new_full(L, 2, 0); }

/* full(shape, value[, dtype]) */
static int full(lua_State *L)
{
  double value = luaL_checknumber(L, 2);
  if (opt_dtype(L, 3, ML_FLOAT32) == ML_STRING) return luaL_argerror(L, 3, "a string tensor cannot be filled with a number");
  return new_full(L, 3, value);
}

/* arange(n) or arange(start, stop[, step[, dtype]]): start, start+step … below stop */
static int arange(lua_State *L)
{
  bool one = lua_isnoneornil(L, 2);
  double start = one ? 0 : luaL_checknumber(L, 1), stop = luaL_checknumber(L, one ? 1 : 2), by = luaL_optnumber(L, 3, 1);
  if (by == 0) return luaL_argerror(L, 3, "the step is 0");
  double n = (stop - start) / by;
  int64_t count = n > 0 ? (int64_t)n + ((double)(int64_t)n < n) : 0;
  ml_tensor *out = NULL;
  ml_error err;
  ml_status status = ml_tensor_new(opt_dtype(L, 4, ML_FLOAT32), &count, 1, &out, &err);
  for (int64_t i = 0; status == ML_OK && i < count; i++) ml_element_set(out->view.data, out->view.dtype, (size_t)i, start + (double)i * by);
  return push_or_error(L, status, out, &err);
}

/* from_bytes(string, dtype, shape) */
static int from_bytes(lua_State *L)
{
  size_t size, bytes;
  const char *data = luaL_checklstring(L, 1, &size);
  ml_dtype dtype = opt_dtype(L, 2, ML_FLOAT32);
  int64_t dims[ML_MAX_RANK];
  int32_t rank = ml__lua_check_dims(L, 3, dims);
  ml_tensor *out = NULL;
  ml_error err;
  if (dtype == ML_STRING) return luaL_argerror(L, 2, "a string tensor has no bytes of fixed size");
  ml_status status = ml_tensor_new(dtype, dims, rank, &out, &err);
  if (status != ML_OK) return ml__lua_error(L, &err);
  bytes = out->view.count * ml_dtype_size(dtype);
  if (bytes != size) {
    ml_tensor_release(out);
    return luaL_argerror(L, 1, lua_pushfstring(L, "%d bytes expected for this shape, got %d", (int)bytes, (int)size));
  }
  if (size) memcpy(out->view.data, data, size);
  ml_mask_small(out->view.data, dtype, size);
  ml__lua_push_tensor(L, out);
  return 1;
}

void ml__lua_open_tensor(lua_State *L)
{
  static const luaL_Reg methods[] = {
    { "shape", tensor_shape }, { "dtype", tensor_dtype }, { "count", tensor_count }, { "totable", tensor_totable }, { "item", tensor_item },
    { "reshape", tensor_reshape }, { "tobytes", tensor_tobytes }, { "get", tensor_get }, { "set", tensor_set }, { "rows", tensor_rows },
    { "cast", tensor_cast }, { "copy", tensor_copy }, { "close", tensor_gc }, { NULL, NULL } };
  static const luaL_Reg functions[] = { { "tensor", new_tensor }, { "zeros", zeros }, { "full", full }, { "arange", arange }, { "from_bytes", from_bytes }, { NULL, NULL } };
  ml__lua_class(L, ML_LUA_TENSOR, methods, tensor_gc, tensor_tostring);
  luaL_getmetatable(L, ML_LUA_TENSOR);
  lua_pushcfunction(L, tensor_len);
  lua_setfield(L, -2, "__len");
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
}
