/* Part of mlserve.net. May include: compat.h. */
#ifndef ML_LUA_COMPRESS_H
#define ML_LUA_COMPRESS_H
#include "lua/compat.h"

void ml__lua_open_compress(lua_State *L); /* adds inflate and deflate to the table on top of the stack */

#endif
