/* Part of mlserve.net: HTTP/2 sessions. May include: compat.h. */
#ifndef ML_LUA_HTTP2_H
#define ML_LUA_HTTP2_H
#include "lua/compat.h"

/* Add http2_session, and http2_client, to the table on the stack. */
void ml__lua_open_http2(lua_State *L);
void ml__lua_open_http2_client(lua_State *L);

#endif
