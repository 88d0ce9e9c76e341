/* Part of mlserve.net: HTTP/2 sessions. May include: compat.h. */
#ifndef ML_LUA_HTTP2_H
#define ML_LUA_HTTP2_H
#include "lua/compat.h"

/* Adds http2_session to the table on the stack. */
void ml__lua_open_http2(lua_State *L);

#endif
