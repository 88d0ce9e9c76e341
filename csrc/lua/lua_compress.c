/* Part of mlserve.net: bodies compressed and back.
 *   net.inflate("gzip"|"deflate", bytes, most, ratio) -> bytes | nil, message, code      most, ratio: 0 is no limit
 *   net.deflate("gzip"|"deflate", bytes, level) -> bytes | nil, message, code
 * May include: net, base, compat.h. */
#include "lua/lua_compress.h"
#include "base/alloc.h"
#include "net/compress.h"

static const char *const codings[] = { "gzip", "deflate", NULL };

static int answer(lua_State *L, ml_status status, char *text, size_t size, const ml_error *err) {
  if (status != ML_OK) {
    lua_pushnil(L);
    lua_pushstring(L, err->message);
    lua_pushstring(L, ml_status_name(err->code));
    return 3;
  }
  lua_pushlstring(L, text ? text : "", size);
  ml_free(text);
  return 1;
}

static size_t check_limit(lua_State *L, int index) {
  double number = luaL_checknumber(L, index);
  luaL_argcheck(L, number >= 0 && number <= 9007199254740992.0, index, "a limit of 0 or more expected");
  return (size_t)number;
}

static int inflate_body(lua_State *L) {
  ml_coding coding = (ml_coding)luaL_checkoption(L, 1, NULL, codings);
  size_t size, out_size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  ml_inflate_limits limits = { .bytes = check_limit(L, 3), .ratio = check_limit(L, 4) };
  char *out;
  ml_error err;
  ml_status status = ml_inflate(coding, bytes, size, limits, &out, &out_size, &err);
  return answer(L, status, out, out_size, &err);
}

static int deflate_body(lua_State *L) {
  ml_coding coding = (ml_coding)luaL_checkoption(L, 1, NULL, codings);
  size_t size, out_size;
  const char *bytes = luaL_checklstring(L, 2, &size);
  int level = (int)luaL_checkinteger(L, 3);
  char *out;
  ml_error err;
  ml_status status = ml_deflate(coding, bytes, size, level, &out, &out_size, &err);
  return answer(L, status, out, out_size, &err);
}

void ml__lua_open_compress(lua_State *L) {
  static const luaL_Reg functions[] = { { "inflate", inflate_body }, { "deflate", deflate_body }, { NULL, NULL } };
  luaL_setfuncs(L, functions, 0);
}
