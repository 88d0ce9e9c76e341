/* core.base64_encode(bytes) -> text;  core.base64_decode(text) -> bytes | nil, message, code
 * The standard alphabet; encoding pads, decoding takes texts with padding and without. */
#include "codec/base64.h"
#include "lua/lua_core.h"

static int encode(lua_State *L)
{
  size_t size, characters;
  const char *bytes = luaL_checklstring(L, 1, &size);
  if (!ml_base64_encoded_size(size, &characters)) return luaL_error(L, "base64_encode: %s", "too large");
  char *text = lua_newuserdatauv(L, characters + 1, 0);
  ml_base64_encode(bytes, size, text);
  lua_pushlstring(L, text, characters);
  return 1;
}

static int decode(lua_State *L)
{
  size_t length, size;
  const char *text = luaL_checklstring(L, 1, &length);
  void *bytes = lua_newuserdatauv(L, ml_base64_decoded_bound(length) + 1, 0);
  ml_error err;
  if (ml_base64_decode(text, length, bytes, &size, &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_pushlstring(L, bytes, size);
  return 1;
}

void ml__lua_open_base64(lua_State *L)
{
  static const luaL_Reg functions[] = { { "base64_encode", encode }, { "base64_decode", decode }, { NULL, NULL } };
  luaL_setfuncs(L, functions, 0);
}
