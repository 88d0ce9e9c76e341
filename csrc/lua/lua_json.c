/* core.json_encode(value[, {pretty, nonfinite}]) -> text;  core.json_decode(text[, {nonfinite}]) -> value | nil, message, code
 * core.json_array(table) -> the table, encoded as [] even when empty;  core.null: JSON's null.
 * Metadata inside models is written with these, so the text is the same for the same value: keys are sorted and an integral
 * number has no fraction on either Lua. Buffers are userdata, so that an error raised on the way frees them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "codec/json.h"
#include "lua/lua_core.h"

#define WRITER "mlserve.json_writer"
#define BUFFER "mlserve.json_buffer"
#define ARRAY "mlserve.json_array"

static void check_options(lua_State *L, int index, const char *known, const char *list)
{
  if (lua_isnoneornil(L, index)) return;
  luaL_checktype(L, index, LUA_TTABLE);
  lua_pushnil(L);
  while (lua_next(L, index)) {
    const char *key = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    const char *at = strstr(known, key);
    size_t n = strlen(key);
    if (n == 0 || !at || at == known || at[-1] != ' ' || at[n] != ' ') luaL_error(L, "unknown option '%s'; known: %s", key, list);
    lua_pop(L, 1);
  }
}

/* ---- encoding ---- */
typedef struct encoding {
  ml_json_writer *out;
  bool pretty, nonfinite;
} encoding;

static void new_line(const encoding *e, int depth)
{
  if (!e->pretty) return;
  ml_json_put_literal(e->out, "\n");
  for (int i = 0; i < depth; i++) ml_json_put_literal(e->out, "  ");
}

static void encode(lua_State *L, encoding *e, int index, int depth);

static void encode_number(lua_State *L, const encoding *e, int index)
{
#if LUA_VERSION_NUM >= 503
  if (lua_isinteger(L, index)) {
    ml_json_put_int64(e->out, (int64_t)lua_tointeger(L, index));
    return;
  }
#endif
  double v = lua_tonumber(L, index);
  if (isfinite(v) && v == floor(v) && fabs(v) <= 9007199254740992.0) ml_json_put_int64(e->out, (int64_t)v);
  else if (isfinite(v) || e->nonfinite) ml_json_put_double(e->out, v);
  else
    luaL_error(L, "json_encode: %s has no JSON form; say nonfinite = true for NaN and Infinity",
               isnan(v) ? "NaN" : "an infinity");
}

/* Length of a table that is an array (keys 1 … n); -1: it is none. */
static lua_Integer array_length(lua_State *L, int index)
{
  lua_Integer n = (lua_Integer)lua_rawlen(L, index), count = 0;
  bool marked = false;
  if (lua_getmetatable(L, index)) {
    luaL_getmetatable(L, ARRAY);
    marked = lua_rawequal(L, -1, -2);
    lua_pop(L, 2);
  }
  lua_pushnil(L);
  while (lua_next(L, index)) {
    lua_Number k = lua_type(L, -2) == LUA_TNUMBER ? lua_tonumber(L, -2) : 0;
    lua_pop(L, 1);
    if (k < 1 || k > (lua_Number)n || k != floor(k)) {
      lua_pop(L, 1);
      return -1;
    }
    count++;
  }
  return count == n && (n > 0 || marked) ? n : -1;
}

typedef struct key { const char *text; size_t length; } key;

static int by_text(const void *a, const void *b)
{
  const key *x = a, *y = b;
  int order = memcmp(x->text, y->text, x->length < y->length ? x->length : y->length);
  return order ? order : (x->length > y->length) - (x->length < y->length);
}

static void encode_object(lua_State *L, encoding *e, int index, int depth)
{
  size_t n = 0, i = 0;
  lua_pushnil(L);
  for (; lua_next(L, index); n++) {
    if (lua_type(L, -2) != LUA_TSTRING)
      luaL_error(L, "json_encode: a table with a key of type %s that is not a list 1 … n", luaL_typename(L, -2));
    lua_pop(L, 1);
  }
  key *keys = lua_newuserdatauv(L, (n + 1) * sizeof *keys, 0);
  lua_pushnil(L);
  for (; lua_next(L, index); i++) {
    keys[i].text = lua_tolstring(L, -2, &keys[i].length); /* the table keeps it alive */
    lua_pop(L, 1);
  }
  qsort(keys, n, sizeof *keys, by_text);
  ml_json_put_literal(e->out, "{");
  for (i = 0; i < n; i++) {
    if (i) ml_json_put_literal(e->out, ",");
    new_line(e, depth + 1);
    ml_json_put_string(e->out, keys[i].text, keys[i].length);
    if (e->pretty) ml_json_put_literal(e->out, ": ");
    else ml_json_put_literal(e->out, ":");
    lua_pushlstring(L, keys[i].text, keys[i].length);
    lua_rawget(L, index);
    encode(L, e, lua_gettop(L), depth + 1);
    lua_pop(L, 1);
  }
  if (n > 0) new_line(e, depth);
  ml_json_put_literal(e->out, "}");
  lua_pop(L, 1);
}

static void encode(lua_State *L, encoding *e, int index, int depth)
{
  size_t length;
  const char *text;
  if (depth > ML_JSON_MAX_DEPTH) luaL_error(L, "json_encode: nested deeper than %d levels (a cycle?)", ML_JSON_MAX_DEPTH);
  luaL_checkstack(L, 8, "json_encode");
  switch (lua_type(L, index)) {
    case LUA_TNIL: ml_json_put_literal(e->out, "null"); break;
    case LUA_TBOOLEAN:
      if (lua_toboolean(L, index)) ml_json_put_literal(e->out, "true");
      else ml_json_put_literal(e->out, "false");
      break;
    case LUA_TNUMBER: encode_number(L, e, index); break;
    case LUA_TSTRING:
      text = lua_tolstring(L, index, &length);
      ml_json_put_string(e->out, text, length);
      break;
    case LUA_TLIGHTUSERDATA:
      if (lua_touserdata(L, index) != NULL) luaL_error(L, "json_encode: a light userdata that is not core.null");
      ml_json_put_literal(e->out, "null");
      break;
    case LUA_TTABLE: {
      lua_Integer n = array_length(L, index);
      if (n < 0) {
        encode_object(L, e, index, depth);
        break;
      }
      ml_json_put_literal(e->out, "[");
      for (lua_Integer i = 1; i <= n; i++) {
        if (i > 1) ml_json_put_literal(e->out, ",");
        new_line(e, depth + 1);
        lua_rawgeti(L, index, (int)i);
        encode(L, e, lua_gettop(L), depth + 1);
        lua_pop(L, 1);
      }
      if (n > 0) new_line(e, depth);
      ml_json_put_literal(e->out, "]");
      break;
    }
    default: luaL_error(L, "json_encode: a value of type %s", luaL_typename(L, index));
  }
}

static int writer_gc(lua_State *L)
{
  ml_json_writer_free(luaL_checkudata(L, 1, WRITER));
  return 0;
}

static int json_encode(lua_State *L)
{
  luaL_checkany(L, 1);
  check_options(L, 2, " pretty nonfinite ", "pretty, nonfinite");
  lua_settop(L, 2);
  encoding e = {.pretty = ml__lua_opt_bool_field(L, 2, "pretty", false),
                .nonfinite = ml__lua_opt_bool_field(L, 2, "nonfinite", false)};
  e.out = lua_newuserdatauv(L, sizeof *e.out, 0);
  ml_json_writer_init(e.out);
  luaL_setmetatable(L, WRITER);
  encode(L, &e, 1, 0);
  if (e.out->status != ML_OK) {
    ml_error err;
    ml_fail_memory(&err, e.out->capacity, "JSON text");
    return ml__lua_fail(L, &err);
  }
  lua_pushlstring(L, e.out->text ? e.out->text : "", e.out->length);
  ml_json_writer_free(e.out); /* now, not when collected */
  return 1;
}

/* ---- decoding ---- */
enum { KEY_BYTES = 4096 };

typedef struct buffer { char *bytes; size_t size; } buffer;

static int buffer_gc(lua_State *L)
{
  buffer *b = luaL_checkudata(L, 1, BUFFER);
  ml_free(b->bytes);
  *b = (buffer){ NULL, 0 };
  return 0;
}

static ml_status decode(lua_State *L, ml_json_reader *r, buffer *b, ml_error *err);

static ml_status decode_string(lua_State *L, ml_json_reader *r, buffer *b, ml_error *err)
{
  size_t length;
  ML_TRY(ml_json_string_length(r, &length, err));
  ML_TRY(ml_grow(&b->bytes, &b->size, length + 1, 1, "a JSON string", err));
  ML_TRY(ml_json_string_read(r, b->bytes, &length, err));
  lua_pushlstring(L, b->bytes, length);
  return ML_OK;
}

static ml_status decode_list(lua_State *L, ml_json_reader *r, buffer *b, ml_error *err)
{
  bool first = true, more;
  ML_TRY(ml_json_enter_array(r, err));
  lua_newtable(L);
  for (int i = 1;; i++) {
    ML_TRY(ml_json_array_next(r, &first, &more, err));
    if (!more) break;
    ML_TRY(decode(L, r, b, err));
    lua_rawseti(L, -2, i);
  }
  if (lua_rawlen(L, -1) == 0) luaL_setmetatable(L, ARRAY); /* so that it is written back as a list */
  return ML_OK;
}

static ml_status decode_object(lua_State *L, ml_json_reader *r, buffer *b, ml_error *err)
{
  bool first = true, more;
  ML_TRY(ml_json_enter_object(r, err));
  lua_newtable(L);
  for (;;) {
    const char *text;
    size_t length;
    ML_TRY(ml_json_object_next(r, &first, &more, b->bytes, b->size, &text, &length, err));
    if (!more) return ML_OK;
    lua_pushlstring(L, text, length);
    ML_TRY(decode(L, r, b, err));
    lua_rawset(L, -3);
  }
}

static ml_status decode(lua_State *L, ml_json_reader *r, buffer *b, ml_error *err)
{
  ml_json_number number;
  luaL_checkstack(L, 8, "json_decode");
  ml_json_kind kind = ml_json_peek(r);
  switch (kind) {
    case ML_JSON_NULL:
      ML_TRY(ml_json_literal_read(r, kind, err));
      lua_pushlightuserdata(L, NULL);
      return ML_OK;
    case ML_JSON_TRUE: case ML_JSON_FALSE:
      ML_TRY(ml_json_literal_read(r, kind, err));
      lua_pushboolean(L, kind == ML_JSON_TRUE);
      return ML_OK;
    case ML_JSON_NUMBER:
      ML_TRY(ml_json_number_read(r, &number, err));
      if (number.integral && fabs(number.value) <= 9007199254740992.0) ml__lua_push_int(L, number.integer);
      else lua_pushnumber(L, number.value);
      return ML_OK;
    case ML_JSON_STRING: return decode_string(L, r, b, err);
    case ML_JSON_ARRAY: return decode_list(L, r, b, err);
    case ML_JSON_OBJECT: return decode_object(L, r, b, err);
    default: return ml_json_fail(r, err, kind == ML_JSON_END ? "a value is missing" : "no value begins here");
  }
}

static int json_decode(lua_State *L)
{
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length);
  check_options(L, 2, " nonfinite ", "nonfinite");
  lua_settop(L, 2);
  ml_json_reader reader;
  ml_error err;
  buffer *b = lua_newuserdatauv(L, sizeof *b, 0);
  *b = (buffer){ NULL, 0 };
  luaL_setmetatable(L, BUFFER);
  ml_json_reader_init(&reader, text, length);
  reader.allow_nonfinite = ml__lua_opt_bool_field(L, 2, "nonfinite", false);
  ml_status status = ml_grow(&b->bytes, &b->size, KEY_BYTES, 1, "JSON text", &err);
  if (status == ML_OK) status = decode(L, &reader, b, &err);
  if (status == ML_OK) status = ml_json_expect_end(&reader, &err);
  ml_free(b->bytes);
  *b = (buffer){ NULL, 0 };
  return status == ML_OK ? 1 : ml__lua_fail(L, &err);
}

static int json_array(lua_State *L)
{
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 1);
  luaL_setmetatable(L, ARRAY);
  return 1;
}

void ml__lua_open_json(lua_State *L)
{
  static const luaL_Reg none[] = { { NULL, NULL } };
  static const luaL_Reg functions[] = {{"json_encode", json_encode},
                                       {"json_decode", json_decode},
                                       {"json_array", json_array},
                                       {NULL, NULL}};
  ml__lua_class(L, WRITER, none, writer_gc, NULL);
  ml__lua_class(L, BUFFER, none, buffer_gc, NULL);
  luaL_newmetatable(L, ARRAY);
  lua_pop(L, 1);
  luaL_setfuncs(L, functions, 0);
  lua_pushlightuserdata(L, NULL);
  lua_setfield(L, -2, "null");
}
