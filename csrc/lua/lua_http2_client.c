/* Part of mlserve.net: a session of HTTP/2 for clients (net/http2_client.h).
 *   client = net.http2_client { max_head =, max_fields =, stream_window =, connection_window = }
 *   client:request({ name, value, … }, body, more) -> id | nil, message      pseudo header fields first; more: write goes on
 *   client:write(id, bytes, more) -> boolean             false: nobody takes it any more
 *   client:get(id) -> status | nil, ended, error | nil, buffered, queued     error: the stream is over; 0: in order
 *   client:head(id), client:trailers(id) -> table of name -> value (repeated fields joined by ", ")
 *   client:read(id) -> bytes ("": none)
 *   client:reset(id, code);  client:forget(id)
 *   client:pull(fd) -> true | false: nothing there | nil [, message]: the connection has ended
 *   client:receive(bytes) -> true | nil, message
 *   client:flush(fd) -> true: all sent | false: the kernel takes no more now | nil [, message]
 *   client:output() -> bytes        for a transport of another kind
 *   client:next() -> id | nil       a stream of which there is news
 *   client:usable() -> boolean      for new requests
 *   client:finished() -> boolean    nothing will come
 *   client:close() */
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <sys/socket.h>
#include "lua/lua_http2.h"
#include "net/http2_client.h"

#define CLIENT "mlserve.net.http2_client"
#define RECEIVE_MOST 65536
#define MOST_FIELDS 64

typedef struct box { ml_http2_client *client; } box;

static ml_http2_client *check_client(lua_State *L) {
  const box *b = luaL_checkudata(L, 1, CLIENT);
  luaL_argcheck(L, b->client != NULL, 1, "the session is closed");
  return b->client;
}

static int32_t check_id(lua_State *L) {
  const double id = luaL_checknumber(L, 2);
  luaL_argcheck(L, id >= 1 && id <= INT32_MAX, 2, "stream identifier expected");
  return (int32_t)id;
}

static int check_fd(lua_State *L) {
  const double fd = luaL_checknumber(L, 2);
  luaL_argcheck(L, fd >= 0 && fd <= INT_MAX, 2, "descriptor expected");
  return (int)fd;
}

static int fail(lua_State *L, const ml_error *err) {
  lua_pushnil(L);
  lua_pushstring(L, err->message);
  return 2;
}

static uint32_t limit(lua_State *L, const char *name, double most) {
  lua_getfield(L, 1, name);
  const double value = luaL_checknumber(L, -1);
  if (!(value >= 1 && value <= most)) luaL_error(L, "http2_client: option '%s' out of range", name);
  lua_pop(L, 1);
  return (uint32_t)value;
}

static int client_new(lua_State *L) {
  ml_error err;
  luaL_checktype(L, 1, LUA_TTABLE);
  const ml_http2_client_limits limits = {
    .max_head = limit(L, "max_head", 1 << 20), .max_fields = limit(L, "max_fields", 10000),
    .stream_window = limit(L, "stream_window", INT32_MAX), .connection_window = limit(L, "connection_window", INT32_MAX),
  };
  box *b = lua_newuserdatauv(L, sizeof(*b), 0);
  b->client = NULL;
  luaL_setmetatable(L, CLIENT);
  if (ml_http2_client_new(&limits, &b->client, &err) != ML_OK) return luaL_error(L, "%s", err.message);
  return 1;
}

static int client_close(lua_State *L) {
  box *b = luaL_checkudata(L, 1, CLIENT);
  ml_http2_client_free(b->client);
  b->client = NULL;
  return 0;
}

static int client_request(lua_State *L) {
  ml_http2_client *c = check_client(L);
  ml_http2_field fields[MOST_FIELDS / 2];
  size_t length, count;
  int32_t id = 0;
  ml_error err;
  luaL_checktype(L, 2, LUA_TTABLE);
  const char *body = luaL_checklstring(L, 3, &length);
  const bool more = lua_toboolean(L, 4);
  count = lua_rawlen(L, 2);
  luaL_argcheck(L, count % 2 == 0 && count <= MOST_FIELDS, 2, "names and values of at most 32 fields expected");
  luaL_checkstack(L, MOST_FIELDS + 8, "header fields");
  for (size_t i = 0; i < count / 2; ++i) {
    lua_rawgeti(L, 2, (int)(2 * i) + 1);
    lua_rawgeti(L, 2, (int)(2 * i) + 2);
    if (lua_type(L, -1) != LUA_TSTRING || lua_type(L, -2) != LUA_TSTRING) return luaL_argerror(L, 2, "strings expected");
    fields[i].name.text = lua_tolstring(L, -2, &fields[i].name.length); /* the table keeps them */
    fields[i].value.text = lua_tolstring(L, -1, &fields[i].value.length);
  }
  if (ml_http2_client_request(c, fields, count / 2, body, length, more, &id, &err) != ML_OK) return fail(L, &err);
  lua_pushinteger(L, id);
  return 1;
}

static int client_write(lua_State *L) {
  ml_http2_client *c = check_client(L);
  size_t length;
  bool taken = false;
  ml_error err;
  const int32_t id = check_id(L);
  const char *bytes = luaL_checklstring(L, 3, &length);
  if (ml_http2_client_write(c, id, bytes, length, lua_toboolean(L, 4), &taken, &err) != ML_OK) return luaL_error(L, "%s", err.message);
  lua_pushboolean(L, taken);
  return 1;
}

static int client_get(lua_State *L) {
  ml_http2_answer answer;
  if (!ml_http2_client_get(check_client(L), check_id(L), &answer)) return luaL_error(L, "no such stream");
  if (answer.status != 0) lua_pushinteger(L, answer.status);
  else lua_pushnil(L);
  lua_pushboolean(L, answer.ended);
  if (answer.closed) lua_pushnumber(L, answer.error);
  else lua_pushnil(L);
  lua_pushnumber(L, (lua_Number)answer.buffered);
  lua_pushnumber(L, (lua_Number)answer.queued);
  return 5;
}

static int push_fields(lua_State *L, const ml_http2_field *fields, size_t count) {
  lua_createtable(L, 0, (int)count);
  for (size_t i = 0; i < count; ++i) {
    lua_pushlstring(L, fields[i].name.text, fields[i].name.length);
    lua_pushvalue(L, -1);
    lua_rawget(L, -3);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_pushlstring(L, fields[i].value.text, fields[i].value.length);
    } else {
      lua_pushliteral(L, ", ");
      lua_pushlstring(L, fields[i].value.text, fields[i].value.length);
      lua_concat(L, 3);
    }
    lua_rawset(L, -3);
  }
  return 1;
}

static int client_head(lua_State *L) {
  ml_http2_answer answer;
  ml_http2_client_get(check_client(L), check_id(L), &answer);
  return push_fields(L, answer.fields, answer.field_count);
}

static int client_trailers(lua_State *L) {
  ml_http2_answer answer;
  ml_http2_client_get(check_client(L), check_id(L), &answer);
  return push_fields(L, answer.trailers, answer.trailer_count);
}

static int client_read(lua_State *L) {
  const ml_http2_text text = ml_http2_client_read(check_client(L), check_id(L));
  lua_pushlstring(L, text.text, text.length);
  return 1;
}

static int client_reset(lua_State *L) {
  ml_error err;
  const double code = luaL_checknumber(L, 3);
  luaL_argcheck(L, code >= 0 && code <= UINT32_MAX, 3, "error code expected");
  if (ml_http2_client_reset(check_client(L), check_id(L), (uint32_t)code, &err) != ML_OK) return luaL_error(L, "%s", err.message);
  return 0;
}

static int client_forget(lua_State *L) {
  ml_http2_client_forget(check_client(L), check_id(L));
  return 0;
}

static int take(lua_State *L, ml_http2_client *c, const char *bytes, size_t length) {
  ml_error err;
  if (ml_http2_client_receive(c, bytes, length, &err) != ML_OK) return fail(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

static int client_pull(lua_State *L) {
  char bytes[RECEIVE_MOST];
  ml_http2_client *c = check_client(L);
  const int fd = check_fd(L);
  ssize_t n;
  do n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n > 0) return take(L, c, bytes, (size_t)n);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) lua_pushboolean(L, 0);
  else lua_pushnil(L);
  return 1;
}

static int client_receive(lua_State *L) {
  ml_http2_client *c = check_client(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  return take(L, c, bytes, length);
}

static int client_flush(lua_State *L) {
  ml_http2_client *c = check_client(L);
  const int fd = check_fd(L);
  for (;;) {
    const char *bytes;
    size_t length;
    ml_error err;
    const ml_status status = ml_http2_client_output(c, &bytes, &length, &err);
    if (length == 0) {
      if (status != ML_OK) return fail(L, &err);
      lua_pushboolean(L, 1);
      return 1;
    }
    ssize_t n;
    do n = send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
      if (errno != EAGAIN && errno != EWOULDBLOCK) return 0;
      lua_pushboolean(L, 0);
      return 1;
    }
    ml_http2_client_sent(c, (size_t)n);
  }
}

static int client_output(lua_State *L) {
  ml_http2_client *c = check_client(L);
  const char *bytes;
  size_t length;
  ml_error err;
  (void)ml_http2_client_output(c, &bytes, &length, &err); /* a failure shows in finished */
  lua_pushlstring(L, bytes, length);
  ml_http2_client_sent(c, length);
  return 1;
}

static int client_next(lua_State *L) {
  const int32_t id = ml_http2_client_next(check_client(L));
  if (id == 0) return 0;
  lua_pushinteger(L, id);
  return 1;
}

static int client_usable(lua_State *L) {
  lua_pushboolean(L, ml_http2_client_usable(check_client(L)));
  return 1;
}

static int client_finished(lua_State *L) {
  lua_pushboolean(L, ml_http2_client_finished(check_client(L)));
  return 1;
}

void ml__lua_open_http2_client(lua_State *L) {
  static const luaL_Reg methods[] = {
    { "request", client_request }, { "write", client_write },     { "get", client_get },       { "head", client_head },
    { "trailers", client_trailers }, { "read", client_read },     { "reset", client_reset },   { "forget", client_forget },
    { "pull", client_pull },       { "receive", client_receive }, { "flush", client_flush },   { "output", client_output },
    { "next", client_next },       { "usable", client_usable },   { "finished", client_finished }, { "close", client_close },
    { NULL, NULL },
  };
  luaL_newmetatable(L, CLIENT);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, client_close);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  lua_pushcfunction(L, client_new);
  lua_setfield(L, -2, "http2_client");
}
