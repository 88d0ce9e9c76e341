/* HTTP/2 sessions for Lua, a part of mlserve.net.
 * Lives here: the binding of net/http2.h, and the socket calls that spare a copy through Lua strings. May include: net, base, compat.h.
 *
 *   session = net.http2_session(limits)              fields of ml_http2_limits by name; absent ones have their defaults
 *   session:pull(fd, room) -> true, full             what the kernel has (full: there may be more) is taken in
 *                             false                  nothing there
 *                             nil [, message]        the connection has ended, or the client broke it
 *   session:receive(bytes, room) -> true | nil, message
 *   session:next() -> kind, id, …                    nil: nothing
 *       1 request: method, path, query, headers, body       2 head: method, path       3 data       4 closed
 *       5 refused: status, message
 *   session:stream(id) -> method, path, query, headers | nil     its body will be read with
 *   session:read(id) -> bytes | nil (none yet) | false (no more)
 *   session:respond(id, status, headers, body, trailers, date, head_only) -> boolean: false when the stream is gone
 *   session:start(id, status, headers, date) -> boolean;  session:write(id, bytes) -> bytes in the queue | nil
 *   session:finish(id, trailers) -> boolean;  session:queued(id) -> bytes;  session:reset(id, code)
 *   session:flush(fd) -> true: all sent | false, sent: the kernel takes no more now | nil [, message]: the connection has ended
 *   session:output() -> bytes                         for a transport of another kind
 *   session:notice();  session:goaway()
 *   session:state() -> streams, buffered bytes, deadline | nil, finished, events waiting
 *   session:expire() -> boolean
 *   session:close() */
#include "lua/lua_http2.h"
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include "net/http2.h"

#define SESSION "mlserve.net.http2_session"
#define RECEIVE_MOST 65536

typedef struct session { ml_http2 *http2; } session;

/* what cqueues.monotime tells */
static double monotonic(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static ml_http2 *check_session(lua_State *L) {
  const session *s = luaL_checkudata(L, 1, SESSION);
  luaL_argcheck(L, s->http2 != NULL, 1, "the session is closed");
  return s->http2;
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

static uint64_t check_room(lua_State *L) {
  const double room = luaL_checknumber(L, 3);
  return !(room > 0) ? 0 : room < 9007199254740992.0 ? (uint64_t)room : UINT64_MAX;
}

/* ---- limits ---- */

static double limit(lua_State *L, const char *name, double given, double most) {
  lua_getfield(L, 1, name);
  const double value = luaL_optnumber(L, -1, given);
  if (!(value >= 0 && value <= most)) luaL_error(L, "http2_session: option '%s' out of range", name);
  lua_pop(L, 1);
  return value;
}

static int session_new(lua_State *L) {
  ml_http2_limits limits;
  ml_error err;
  luaL_checktype(L, 1, LUA_TTABLE);
  ml_http2_default_limits(&limits);
  limits.max_streams = (uint32_t)limit(L, "max_streams", limits.max_streams, 65536);
  limits.max_head = (uint32_t)limit(L, "max_head", limits.max_head, 65536);
  limits.max_fields = (uint32_t)limit(L, "max_fields", limits.max_fields, 1024);
  limits.stream_window = (uint32_t)limit(L, "stream_window", limits.stream_window, INT32_MAX);
  limits.connection_window = (uint32_t)limit(L, "connection_window", limits.connection_window, INT32_MAX);
  limits.max_body = (uint64_t)limit(L, "max_body", (double)limits.max_body, 9007199254740992.0);
  limits.head_timeout = limit(L, "head_timeout", limits.head_timeout, 1e9);
  limits.body_timeout = limit(L, "body_timeout", limits.body_timeout, 1e9);
  limits.write_timeout = limit(L, "write_timeout", limits.write_timeout, 1e9);
  session *s = lua_newuserdatauv(L, sizeof(*s), 0);
  s->http2 = NULL;
  luaL_setmetatable(L, SESSION);
  if (ml_http2_new(&limits, monotonic(), &s->http2, &err) != ML_OK) return luaL_error(L, "%s", err.message);
  return 1;
}

static int session_close(lua_State *L) {
  session *s = luaL_checkudata(L, 1, SESSION);
  ml_http2_free(s->http2);
  s->http2 = NULL;
  return 0;
}

/* ---- input ---- */

static int take(lua_State *L, ml_http2 *h, const char *bytes, size_t length) {
  ml_error err;
  if (ml_http2_receive(h, bytes, length, monotonic(), check_room(L), &err) != ML_OK) {
    lua_pushnil(L);
    lua_pushstring(L, err.message);
    return 2;
  }
  lua_pushboolean(L, 1);
  lua_pushboolean(L, length == RECEIVE_MOST);
  return 2;
}

static int session_pull(lua_State *L) {
  char bytes[RECEIVE_MOST];
  ml_http2 *h = check_session(L);
  const int fd = check_fd(L);
  ssize_t n;
  do n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n > 0) return take(L, h, bytes, (size_t)n);
  if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) lua_pushboolean(L, 0);
  else lua_pushnil(L);
  return 1;
}

static int session_receive(lua_State *L) {
  ml_http2 *h = check_session(L);
  size_t length;
  const char *bytes = luaL_checklstring(L, 2, &length);
  return take(L, h, bytes, length);
}

/* ---- events ---- */

static void push_text(lua_State *L, ml_http2_text text) { lua_pushlstring(L, text.text, text.length); }

/* Table of name -> value; repeated fields are joined as RFC 9110 5.3 allows, cookies as RFC 9113 8.2.3 does. The filter says when a
 * name is surely new. */
static void push_headers(lua_State *L, const ml_http2_event *event) {
  uint64_t seen = 0;
  lua_createtable(L, 0, (int)event->field_count);
  for (size_t f = 0; f < event->field_count; ++f) {
    const ml_http2_field *field = &event->fields[f];
    unsigned hash = (unsigned)field->name.length;
    for (size_t i = 0; i < field->name.length; ++i) hash = hash * 33 + (unsigned char)field->name.text[i];
    const uint64_t bit = (uint64_t)1 << (hash >> 3 & 63);
    push_text(L, field->name);
    if ((seen & bit) != 0) {
      lua_pushvalue(L, -1);
      lua_rawget(L, -3);
      if (!lua_isnil(L, -1)) {
        lua_pushstring(L, field->name.length == 6 && memcmp(field->name.text, "cookie", 6) == 0 ? "; " : ", ");
        push_text(L, field->value);
        lua_concat(L, 3);
        lua_rawset(L, -3);
        continue;
      }
      lua_pop(L, 1);
    }
    seen |= bit;
    push_text(L, field->value);
    lua_rawset(L, -3);
  }
}

static void push_head(lua_State *L, const ml_http2_event *event) {
  push_text(L, event->method);
  push_text(L, event->path);
  if (event->query.text != NULL) push_text(L, event->query);
  else lua_pushnil(L);
  push_headers(L, event);
}

static int session_next(lua_State *L) {
  ml_http2 *h = check_session(L);
  ml_http2_event event;
  ml_error err;
  if (ml_http2_next(h, &event, &err) != ML_OK) return luaL_error(L, "%s", err.message);
  if (event.kind == ML_HTTP2_NONE) return 0;
  lua_pushinteger(L, event.kind);
  lua_pushinteger(L, event.id);
  switch (event.kind) {
  case ML_HTTP2_REQUEST:
    push_head(L, &event);
    push_text(L, event.body);
    return 7;
  case ML_HTTP2_HEAD:
    push_text(L, event.method);
    push_text(L, event.path);
    return 4;
  case ML_HTTP2_REFUSED:
    lua_pushinteger(L, event.status);
    lua_pushstring(L, event.message);
    return 4;
  default:
    return 2;
  }
}

static int session_stream(lua_State *L) {
  ml_http2 *h = check_session(L);
  ml_http2_event event;
  if (!ml_http2_stream_body(h, check_id(L), &event)) return 0;
  push_head(L, &event);
  return 4;
}

static int session_read(lua_State *L) {
  ml_http2 *h = check_session(L);
  ml_http2_text bytes;
  bool ended = true;
  if (!ml_http2_read(h, check_id(L), &bytes, &ended)) lua_pushboolean(L, 0);
  else if (bytes.length != 0) push_text(L, bytes);
  else if (ended) lua_pushboolean(L, 0);
  else lua_pushnil(L);
  return 1;
}

/* ---- answers ---- */

typedef struct fields {
  ml_http2_field list[ML_HTTP2_MAX_RESPONSE_FIELDS];
  size_t count;
} fields;

static void add(lua_State *L, fields *f, const char *name, size_t name_length, const char *value, size_t value_length) {
  if (f->count == ML_HTTP2_MAX_RESPONSE_FIELDS) luaL_error(L, "more than %d response header fields", (int)ML_HTTP2_MAX_RESPONSE_FIELDS);
  f->list[f->count++] = (ml_http2_field){ { name, name_length }, { value, value_length } };
}

/* Fields that describe the framing are the transport's alone, and some have no place in HTTP/2. */
static bool is_ours(const char *name, size_t length) {
  static const char *const names[] = { "content-length", "date", "connection", "transfer-encoding", "keep-alive", "upgrade", "proxy-connection" };
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i)
    if (length == strlen(names[i]) && memcmp(name, names[i], length) == 0) return true;
  return false;
}

/* a string with its characters replaced stays on the stack, below the two values of lua_next */
static const char *changed(lua_State *L, const char *text, size_t length, bool name) {
  luaL_Buffer b;
  luaL_buffinit(L, &b);
  for (size_t i = 0; i < length; ++i) {
    char c = text[i];
    if (name && c >= 'A' && c <= 'Z') c = (char)(c + ('a' - 'A'));
    if (!name && (((unsigned char)c < ' ' && c != '\t') || c == 0x7f)) c = ' ';
    luaL_addchar(&b, c);
  }
  luaL_pushresult(&b);
  const char *result = lua_tostring(L, -1);
  lua_insert(L, -3);
  return result;
}

/* The fields of a table (or none). The strings are kept alive by the table, or on the stack. */
static void collect(lua_State *L, int index, fields *f) {
  if (lua_isnoneornil(L, index)) return;
  luaL_checktype(L, index, LUA_TTABLE);
  luaL_checkstack(L, 2 * (int)ML_HTTP2_MAX_RESPONSE_FIELDS + 8, "response header fields");
  lua_pushnil(L);
  while (lua_next(L, index) != 0) {
    size_t name_length, value_length;
    if (lua_type(L, -2) != LUA_TSTRING) luaL_error(L, "invalid response header name (a %s)", luaL_typename(L, -2));
    if (lua_type(L, -1) != LUA_TSTRING) { /* as tostring has it: the key's table is not touched */
      lua_getglobal(L, "tostring");
      lua_insert(L, -2);
      lua_call(L, 1, 1);
      lua_pushvalue(L, -1);
      lua_insert(L, -3);
    }
    const char *name = lua_tolstring(L, -2, &name_length), *value = lua_tolstring(L, -1, &value_length);
    if (value == NULL) luaL_error(L, "invalid value of response header '%s'", name);
    bool upper = false, control = false;
    for (size_t i = 0; i < name_length; ++i) upper = upper || (name[i] >= 'A' && name[i] <= 'Z');
    for (size_t i = 0; i < value_length; ++i) control = control || ((unsigned char)value[i] < ' ' && value[i] != '\t') || value[i] == 0x7f;
    if (upper) name = changed(L, name, name_length, true);
    if (control) value = changed(L, value, value_length, false);
    while (value_length != 0 && (*value == ' ' || *value == '\t')) ++value, --value_length; /* RFC 9113 8.2.1 */
    while (value_length != 0 && (value[value_length - 1] == ' ' || value[value_length - 1] == '\t')) --value_length;
    if (!is_ours(name, name_length)) add(L, f, name, name_length, value, value_length);
    lua_pop(L, 1);
  }
}

static int check_status(lua_State *L) {
  const double status = luaL_checknumber(L, 3);
  luaL_argcheck(L, status >= 200 && status <= 999, 3, "response status out of range");
  return (int)status;
}

static int outcome(lua_State *L, ml_status status, bool sent, const ml_error *err) {
  if (status != ML_OK) return luaL_error(L, "%s", err->message);
  lua_pushboolean(L, sent);
  return 1;
}

static int session_respond(lua_State *L) {
  ml_http2 *h = check_session(L);
  fields head = { .count = 0 }, tail = { .count = 0 };
  size_t length = 0, date_length = 0;
  char digits[24];
  bool sent = false;
  ml_error err;
  lua_settop(L, 8);
  const int32_t id = check_id(L);
  const int status = check_status(L);
  const char *body = luaL_optlstring(L, 5, "", &length), *date = luaL_optlstring(L, 7, NULL, &date_length);
  const bool head_only = lua_toboolean(L, 8) != 0, with_trailers = !lua_isnil(L, 6), bodiless = status == 204 || status == 304;
  if (date != NULL) add(L, &head, "date", 4, date, date_length);
  collect(L, 4, &head);
  collect(L, 6, &tail);
  if (!with_trailers && !bodiless) {
    size_t at = sizeof(digits), rest = length;
    do digits[--at] = (char)('0' + rest % 10);
    while ((rest /= 10) != 0);
    add(L, &head, "content-length", 14, digits + at, sizeof(digits) - at);
  }
  if (head_only || bodiless) length = 0;
  const ml_status result = ml_http2_respond(h, id, status, head.list, head.count, body, length, tail.list, tail.count, &sent, &err);
  return outcome(L, result, sent, &err);
}

static int session_start(lua_State *L) {
  ml_http2 *h = check_session(L);
  fields head = { .count = 0 };
  size_t date_length = 0;
  bool sent = false;
  ml_error err;
  lua_settop(L, 5);
  const int32_t id = check_id(L);
  const int status = check_status(L);
  const char *date = luaL_optlstring(L, 5, NULL, &date_length);
  if (date != NULL) add(L, &head, "date", 4, date, date_length);
  collect(L, 4, &head);
  const ml_status result = ml_http2_start(h, id, status, head.list, head.count, &sent, &err);
  return outcome(L, result, sent, &err);
}

static int session_write(lua_State *L) {
  ml_http2 *h = check_session(L);
  size_t length, queued = 0;
  bool sent = false;
  ml_error err;
  const int32_t id = check_id(L);
  const char *bytes = luaL_checklstring(L, 3, &length);
  if (ml_http2_write(h, id, bytes, length, &queued, &sent, &err) != ML_OK) return luaL_error(L, "%s", err.message);
  if (sent) lua_pushinteger(L, (lua_Integer)queued);
  else lua_pushnil(L);
  return 1;
}

static int session_finish(lua_State *L) {
  ml_http2 *h = check_session(L);
  fields tail = { .count = 0 };
  bool sent = false;
  ml_error err;
  lua_settop(L, 3);
  const int32_t id = check_id(L);
  collect(L, 3, &tail);
  const ml_status result = ml_http2_finish(h, id, tail.list, tail.count, &sent, &err);
  return outcome(L, result, sent, &err);
}

static int session_queued(lua_State *L) {
  ml_http2 *h = check_session(L);
  lua_pushinteger(L, (lua_Integer)ml_http2_queued(h, check_id(L)));
  return 1;
}

static int session_reset(lua_State *L) {
  ml_http2 *h = check_session(L);
  ml_error err;
  const double code = luaL_checknumber(L, 3);
  luaL_argcheck(L, code >= 0 && code <= UINT32_MAX, 3, "error code expected");
  if (ml_http2_reset(h, check_id(L), (uint32_t)code, &err) != ML_OK) return luaL_error(L, "%s", err.message);
  return 0;
}

/* ---- output ---- */

static int session_flush(lua_State *L) {
  ml_http2 *h = check_session(L);
  const int fd = check_fd(L);
  const double now = monotonic();
  for (size_t all = 0;;) {
    const char *bytes;
    size_t length;
    ml_error err;
    const ml_status status = ml_http2_output(h, now, &bytes, &length, &err);
    if (length == 0) {
      if (status == ML_OK) {
        lua_pushboolean(L, 1);
        return 1;
      }
      lua_pushnil(L);
      lua_pushstring(L, err.message);
      return 2;
    }
    ssize_t n;
    do n = send(fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0) {
      if (errno != EAGAIN && errno != EWOULDBLOCK) return 0;
      lua_pushboolean(L, 0);
      lua_pushinteger(L, (lua_Integer)all);
      return 2;
    }
    ml_http2_sent(h, (size_t)n);
    all += (size_t)n;
  }
}

static int session_output(lua_State *L) {
  ml_http2 *h = check_session(L);
  const char *bytes;
  size_t length;
  ml_error err;
  (void)ml_http2_output(h, monotonic(), &bytes, &length, &err); /* a failure shows in state: finished */
  lua_pushlstring(L, bytes, length);
  ml_http2_sent(h, length);
  return 1;
}

static int session_notice(lua_State *L) {
  ml_error err;
  if (ml_http2_shutdown_notice(check_session(L), &err) != ML_OK) return luaL_error(L, "%s", err.message);
  return 0;
}

static int session_goaway(lua_State *L) {
  ml_error err;
  if (ml_http2_goaway(check_session(L), &err) != ML_OK) return luaL_error(L, "%s", err.message);
  return 0;
}

static int session_state(lua_State *L) {
  ml_http2_state state;
  ml_http2_get_state(check_session(L), &state);
  lua_pushinteger(L, (lua_Integer)state.streams);
  lua_pushnumber(L, (lua_Number)state.buffered);
  if (state.deadline >= 0) lua_pushnumber(L, state.deadline);
  else lua_pushnil(L);
  lua_pushboolean(L, state.finished);
  lua_pushboolean(L, state.events);
  return 5;
}

static int session_expire(lua_State *L) {
  lua_pushboolean(L, ml_http2_expire(check_session(L), monotonic()));
  return 1;
}

void ml__lua_open_http2(lua_State *L) {
  static const luaL_Reg methods[] = {
    { "pull", session_pull },     { "receive", session_receive }, { "next", session_next },     { "stream", session_stream },
    { "read", session_read },     { "respond", session_respond }, { "start", session_start },   { "write", session_write },
    { "finish", session_finish }, { "queued", session_queued },   { "reset", session_reset },   { "flush", session_flush },
    { "output", session_output }, { "notice", session_notice },   { "goaway", session_goaway }, { "state", session_state },
    { "expire", session_expire }, { "close", session_close },     { NULL, NULL },
  };
  luaL_newmetatable(L, SESSION);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, session_close);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
  lua_pushcfunction(L, session_new);
  lua_setfield(L, -2, "http2_session");
}
