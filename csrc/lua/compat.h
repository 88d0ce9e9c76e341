/* Lua 5.4 and LuaJIT (Lua 5.1 API) from one source.
 * Lives here: the few names one of the two lacks. May include: lua.h, lauxlib.h.
 * Not available on both, so not used: luaL_Buffer with preset size, integer subtypes, user values, __gc or __len on tables. */
#ifndef ML_LUA_COMPAT_H
#define ML_LUA_COMPAT_H
#include <lauxlib.h>
#include <lua.h>

#if LUA_VERSION_NUM < 502
#define lua_rawlen(L, i) lua_objlen((L), (i))
static inline int ml__lua_absindex(lua_State *L, int i) { return i > 0 || i <= LUA_REGISTRYINDEX ? i : lua_gettop(L) + i + 1; }
#define lua_absindex(L, i) ml__lua_absindex((L), (i))
#ifndef luaL_newlib /* PUC Lua 5.1 has none of these; LuaJIT has all */
#define luaL_newlibtable(L, l) lua_createtable((L), 0, (int)(sizeof(l) / sizeof((l)[0]) - 1))
#define luaL_newlib(L, l) (luaL_newlibtable((L), (l)), luaL_setfuncs((L), (l), 0))
#define ML_LUA_PUC51 1
void luaL_setfuncs(lua_State *L, const luaL_Reg *functions, int upvalues);
void *luaL_testudata(lua_State *L, int index, const char *name);
void luaL_setmetatable(lua_State *L, const char *name);
#endif
#endif
#if LUA_VERSION_NUM < 504
#define lua_newuserdatauv(L, size, values) lua_newuserdata((L), (size))
#endif

#endif
