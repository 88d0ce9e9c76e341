/* The table of everything mlserve.core offers. */
#include "lua/lua_core.h"
#include "mlserve_version.h"

__attribute__((visibility("default"))) int luaopen_mlserve_core(lua_State *L);

int luaopen_mlserve_core(lua_State *L)
{
  lua_newtable(L);
  lua_pushliteral(L, MLSERVE_VERSION);
  lua_setfield(L, -2, "_VERSION");
#define X(noun) ml__lua_open_##noun(L);
  ML_LUA_NOUNS(X)
#undef X
  return 1;
}
