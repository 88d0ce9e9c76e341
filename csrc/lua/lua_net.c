/* Lua module mlserve.net: what the stand-alone server needs from C besides the model core.
 * Lives here: bindings of csrc/net. Its own shared object (net.so), so that an embedder of core.so does not carry it.
 * May include: net, base, compat.h.
 *
 *   parser = net.http1_parser([max_head [, max_fields]])
 *   method, path, query, headers, length, keep_alive, expect_continue, next, minor = parser:head(buffer, init)
 *     One call per request. length is the body's size or -1 (chunked); next is the index behind the head. headers maps
 *     lower-case names to values, repeated fields joined by ", " ("; " for cookie) as RFC 9110 5.3 allows.
 *     nil: the head is not complete, call again with more bytes behind the same ones; false, status, message: refuse.
 *   parser = net.http1_response([max_head [, max_fields]])
 *   status, headers, length, keep_alive, next = parser:head(buffer, init)      the same for a client; length -2: until the connection ends
 *   body = net.http1_chunked(limit)
 *   piece, next, done = body:feed(buffer, init)      or nil, status, message
 *   net.receive(fd, most) -> bytes | nil, again      without waiting; again: nothing there yet; else the connection has ended
 *   net.send(fd, bytes, from) -> number of bytes the kernel took (0: none yet) | nil: the connection has ended
 *   net.shutdown(fd, "r"|"w"|"rw")
 *   net.fork() -> pid | nil, message, code           net.kill(pid, signal) -> true | nil, message, code
 *   net.exec(end_with_parent, program, argument, …)  becomes the program; nil, message, code when it cannot
 *   net.reap([pid]) -> pid, "exit"|"signal", number | false (nobody yet) | nil, message, code      net.getpid() -> pid
 *   net.end_with(parent, signal) -> true | nil, message, code    the signal comes when the parent dies
 *   a, b = net.pair()                                 two connected descriptors; nil, message, code
 *   net.wait(seconds, fd, …) -> boolean               without an event loop; negative: for ever; a signal ends it as well
 *   net.close(fd)
 *   net.descriptors(wanted) -> limit                  raised to what is wanted where that is allowed
 *   net.notify(path, text) -> true | nil, message, code          systemd's NOTIFY_SOCKET
 *   fd, file = net.listen_unix(path, mode)            or nil, message, code; file says which file it is, for
 *   net.remove_unix(path, file)
 *   net.adopt(fd) -> "unix"|"inet"|"inet6"|"other" | nil, message, code: a listening socket inherited
 *   signals = net.catch_signals(number, …)            or nil, message, code: they no longer end the process
 *   net.http2_session(limits)                         see lua_http2.c
 *   signals:take() -> number | nil; signals:close() puts things back; pollfd, events and timeout let cqueues wait for it.
 *   watch = net.inotify()                             or nil, message, code: told when directories change
 *   watch:add(path) -> true | nil, message, code      watch:take() -> whether something has changed; pollfd, events, timeout, close */
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include "lua/compat.h"
#include "lua/lua_compress.h"
#include "lua/lua_http2.h"
#include "net/http1.h"
#include "net/listen.h"
#include "net/inotify.h"
#include "net/process.h"

#define PARSER "mlserve.net.http1_parser"
#define RESPONSE "mlserve.net.http1_response"
#define CHUNKED "mlserve.net.http1_chunked"
#define SIGNALS "mlserve.net.signals"
#define INOTIFY "mlserve.net.inotify"

static int fail(lua_State *L, const ml_error *err) {
  lua_pushnil(L);
  lua_pushstring(L, err->message);
  lua_pushstring(L, ml_status_name(err->code));
  return 3;
}

/* an integral argument within [low, high] */
static int64_t check_integer(lua_State *L, int index, double low, double high) {
  double number = luaL_checknumber(L, index);
  if (!(number >= low && number <= high) || (double)(int64_t)number != number) luaL_argerror(L, index, "integer out of range");
  return (int64_t)number;
}

/* the buffer and the zero-based place where reading begins (at most its length) */
static const char *check_buffer(lua_State *L, size_t *length, size_t *at) {
  const char *text = luaL_checklstring(L, 2, length);
  lua_Integer init = luaL_optinteger(L, 3, 1);
  luaL_argcheck(L, init >= 1 && (size_t)init <= *length + 1, 3, "index outside the buffer");
  *at = (size_t)init - 1;
  return text;
}

static int new_parser(lua_State *L, bool response) {
  const int64_t max_head = lua_isnoneornil(L, 1) ? ML_HTTP1_MAX_HEAD : check_integer(L, 1, 16, ML_HTTP1_MAX_HEAD);
  const int64_t max_fields = lua_isnoneornil(L, 2) ? ML_HTTP1_MAX_FIELDS : check_integer(L, 2, 1, ML_HTTP1_MAX_FIELDS);
  ml_http1_parser *parser = lua_newuserdatauv(L, sizeof(*parser), 0);
  ml_http1_parser_init(parser);
  parser->max_head = (uint32_t)max_head;
  parser->max_fields = (uint32_t)max_fields;
  parser->response = response;
  luaL_setmetatable(L, response ? RESPONSE : PARSER);
  return 1;
}

static int parser_new(lua_State *L) { return new_parser(L, false); }
static int response_new(lua_State *L) { return new_parser(L, true); }

static void push_span(lua_State *L, const char *text, ml_http1_span span) { lua_pushlstring(L, text + span.at, span.length); }

/* Table of lower-case name -> value. A 64-bit filter of the names seen says when a name is surely new, which spares the
 * look-up for nearly all fields. */
static void push_headers(lua_State *L, const ml_http1_parser *parser, const char *text) {
  uint64_t seen = 0;
  char name[ML_HTTP1_MAX_NAME];
  lua_createtable(L, 0, (int)parser->field_count);
  for (uint32_t f = 0; f < parser->field_count; ++f) {
    const ml_http1_field *field = &parser->fields[f];
    unsigned hash = field->name.length;
    for (uint32_t i = 0; i < field->name.length; ++i) {
      char c = text[field->name.at + i];
      if (c >= 'A' && c <= 'Z') c = (char)(c + ('a' - 'A'));
      name[i] = c;
      hash = hash * 33 + (unsigned char)c;
    }
    uint64_t bit = (uint64_t)1 << (hash >> 3 & 63);
    lua_pushlstring(L, name, field->name.length);
    if ((seen & bit) != 0) {
      lua_pushvalue(L, -1);
      lua_rawget(L, -3);
      if (!lua_isnil(L, -1)) {
        lua_pushstring(L, field->name.length == 6 && memcmp(name, "cookie", 6) == 0 ? "; " : ", ");
        push_span(L, text, field->value);
        lua_concat(L, 3);
        lua_rawset(L, -3);
        continue;
      }
      lua_pop(L, 1);
    }
    seen |= bit;
    push_span(L, text, field->value);
    lua_rawset(L, -3);
  }
}

static int parser_head(lua_State *L) {
  ml_http1_parser *parser = luaL_checkudata(L, 1, PARSER);
  size_t length, at;
  const char *text = check_buffer(L, &length, &at) + at;
  switch (ml_http1_parse(parser, text, length - at)) {
  case ML_HTTP1_MORE:
    lua_pushnil(L);
    return 1;
  case ML_HTTP1_DONE:
    break;
  default:
    lua_pushboolean(L, 0);
    lua_pushinteger(L, parser->status);
    lua_pushstring(L, parser->message);
    return 3;
  }
  push_span(L, text, parser->method);
  if (parser->path.length != 0) push_span(L, text, parser->path);
  else lua_pushlstring(L, "/", 1);
  if (parser->has_query) push_span(L, text, parser->query);
  else lua_pushnil(L);
  push_headers(L, parser, text);
  lua_pushinteger(L, parser->chunked ? -1 : (lua_Integer)parser->content_length);
  lua_pushboolean(L, parser->keep_alive);
  lua_pushboolean(L, parser->expect_continue);
  lua_pushinteger(L, (lua_Integer)(at + parser->head_length + 1));
  lua_pushinteger(L, parser->minor);
  ml_http1_parser_next(parser);
  return 9;
}

static int response_head(lua_State *L) {
  ml_http1_parser *parser = luaL_checkudata(L, 1, RESPONSE);
  size_t length, at;
  const char *text = check_buffer(L, &length, &at) + at;
  switch (ml_http1_parse(parser, text, length - at)) {
  case ML_HTTP1_MORE:
    lua_pushnil(L);
    return 1;
  case ML_HTTP1_DONE:
    break;
  default:
    lua_pushboolean(L, 0);
    lua_pushinteger(L, parser->status);
    lua_pushstring(L, parser->message);
    return 3;
  }
  lua_pushinteger(L, parser->code);
  push_headers(L, parser, text);
  lua_pushinteger(L, parser->until_close ? -2 : parser->chunked ? -1 : (lua_Integer)parser->content_length);
  lua_pushboolean(L, parser->keep_alive);
  lua_pushinteger(L, (lua_Integer)(at + parser->head_length + 1));
  ml_http1_parser_next(parser);
  return 5;
}

static int chunked_new(lua_State *L) {
  int64_t limit = check_integer(L, 1, 0, 9007199254740992.0);
  ml_http1_chunked *body = lua_newuserdatauv(L, sizeof(*body), 0);
  ml_http1_chunked_init(body, (uint64_t)limit);
  luaL_setmetatable(L, CHUNKED);
  return 1;
}

/* The pieces of one buffer are joined here: a million chunks of one byte make a few Lua strings, not a million. */
static int chunked_feed(lua_State *L) {
  ml_http1_chunked *body = luaL_checkudata(L, 1, CHUNKED);
  size_t length, at, size = 0;
  const char *text = check_buffer(L, &length, &at), *data = NULL;
  ml_http1_result result = ml_http1_chunked_next(body, text, length, &at, &data, &size);
  if (result == ML_HTTP1_DATA && at == length) {
    lua_pushlstring(L, data, size);
  } else {
    luaL_Buffer joined;
    luaL_buffinit(L, &joined);
    while (result == ML_HTTP1_DATA) {
      luaL_addlstring(&joined, data, size);
      result = ml_http1_chunked_next(body, text, length, &at, &data, &size);
    }
    luaL_pushresult(&joined);
  }
  if (result == ML_HTTP1_BAD) {
    lua_pushnil(L);
    lua_pushinteger(L, body->status);
    lua_pushstring(L, body->message);
    return 3;
  }
  lua_pushinteger(L, (lua_Integer)at + 1);
  lua_pushboolean(L, result == ML_HTTP1_DONE);
  return 3;
}

#define RECEIVE_MOST 65536

static int socket_receive(lua_State *L) {
  char bytes[RECEIVE_MOST];
  const int fd = (int)check_integer(L, 1, 0, INT_MAX);
  const size_t most = (size_t)check_integer(L, 2, 1, RECEIVE_MOST);
  ssize_t n;
  do n = recv(fd, bytes, most, MSG_DONTWAIT);
  while (n < 0 && errno == EINTR);
  if (n > 0) {
    lua_pushlstring(L, bytes, (size_t)n);
    return 1;
  }
  lua_pushnil(L);
  lua_pushboolean(L, n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK));
  return 2;
}

static int socket_send(lua_State *L) {
  size_t size;
  const int fd = (int)check_integer(L, 1, 0, INT_MAX);
  const char *bytes = luaL_checklstring(L, 2, &size);
  const size_t from = (size_t)check_integer(L, 3, 1, (double)size + 1) - 1;
  ssize_t n;
  do n = send(fd, bytes + from, size - from, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK) return 0;
  lua_pushinteger(L, n < 0 ? 0 : (lua_Integer)n);
  return 1;
}

static int socket_shutdown(lua_State *L) {
  static const char *const directions[] = {"r", "w", "rw", NULL};
  static const int how[] = {SHUT_RD, SHUT_WR, SHUT_RDWR};
  shutdown((int)check_integer(L, 1, 0, INT_MAX), how[luaL_checkoption(L, 2, NULL, directions)]); /* fails only when the other side was first */
  return 0;
}

static int process_fork(lua_State *L) {
  ml_error err;
  pid_t child = 0;
  if (ml_process_fork(&child, &err) != ML_OK) return fail(L, &err);
  lua_pushinteger(L, child);
  return 1;
}

static int process_kill(lua_State *L) {
  ml_error err;
  pid_t pid = (pid_t)check_integer(L, 1, 1, INT_MAX);
  int number = (int)check_integer(L, 2, 0, 64);
  if (ml_process_kill(pid, number, &err) != ML_OK) return fail(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

static int process_reap(lua_State *L) {
  ml_error err;
  ml_process_end end;
  pid_t pid = lua_isnoneornil(L, 1) ? -1 : (pid_t)check_integer(L, 1, 1, INT_MAX);
  if (ml_process_reap(pid, &end, &err) != ML_OK) return fail(L, &err);
  if (end.pid == 0) {
    lua_pushboolean(L, 0);
    return 1;
  }
  lua_pushinteger(L, end.pid);
  lua_pushstring(L, end.signaled ? "signal" : "exit");
  lua_pushinteger(L, end.code);
  return 3;
}

static int process_exec(lua_State *L) {
  char *arguments[32];
  int count = lua_gettop(L) - 1;
  ml_error err;
  luaL_argcheck(L, count >= 1 && count < 32, 2, "program and at most 30 arguments expected");
  for (int i = 0; i < count; ++i) arguments[i] = (char *)(uintptr_t)luaL_checkstring(L, i + 2); /* execvp does not write to them */
  arguments[count] = NULL;
  ml_process_exec(arguments, lua_toboolean(L, 1), &err);
  return fail(L, &err);
}

static int process_getpid(lua_State *L) {
  lua_pushinteger(L, getpid());
  return 1;
}

static int process_end_with(lua_State *L) {
  ml_error err;
  pid_t parent = (pid_t)check_integer(L, 1, 1, INT_MAX);
  if (ml_process_end_with(parent, (int)check_integer(L, 2, 1, 64), &err) != ML_OK) return fail(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

static int descriptor_pair(lua_State *L) {
  ml_error err;
  int ends[2];
  if (ml_process_pair(ends, &err) != ML_OK) return fail(L, &err);
  lua_pushinteger(L, ends[0]);
  lua_pushinteger(L, ends[1]);
  return 2;
}

static int descriptor_wait(lua_State *L) {
  int fds[ML_PROCESS_MAX_WAIT], count = lua_gettop(L) - 1;
  double seconds = luaL_checknumber(L, 1);
  luaL_argcheck(L, count >= 0 && count <= (int)ML_PROCESS_MAX_WAIT, 2, "too many descriptors");
  for (int i = 0; i < count; ++i) fds[i] = (int)check_integer(L, i + 2, 0, INT_MAX);
  /* rounded up: waking a moment too early would make the caller spin */
  int milliseconds = !(seconds >= 0) ? -1 : seconds > 1e6 ? 1000000000 : (int)(seconds * 1000.0 + 0.999);
  lua_pushboolean(L, ml_process_wait(fds, (size_t)count, milliseconds));
  return 1;
}

static int descriptor_close(lua_State *L) {
  close((int)check_integer(L, 1, 0, INT_MAX));
  return 0;
}

static int descriptor_limit(lua_State *L) {
  lua_pushnumber(L, (lua_Number)ml_process_raise_descriptors(check_integer(L, 1, 0, 9007199254740992.0)));
  return 1;
}

static int process_notify(lua_State *L) {
  ml_error err;
  if (ml_process_notify(luaL_checkstring(L, 1), luaL_checkstring(L, 2), &err) != ML_OK) return fail(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

static int listen_unix(lua_State *L) {
  ml_error err;
  int fd = -1;
  ml_listen_file file;
  size_t length;
  const char *path = luaL_checklstring(L, 1, &length);
  luaL_argcheck(L, strlen(path) == length, 1, "path with a zero byte");
  unsigned mode = (unsigned)check_integer(L, 2, 0, 07777);
  if (ml_listen_unix(path, mode, &fd, &file, &err) != ML_OK) return fail(L, &err);
  lua_pushinteger(L, fd);
  lua_pushlstring(L, (const char *)&file, sizeof file);
  return 2;
}

static int remove_unix(lua_State *L) {
  size_t size;
  ml_listen_file file;
  const char *path = luaL_checkstring(L, 1), *bytes = luaL_checklstring(L, 2, &size);
  luaL_argcheck(L, size == sizeof file, 2, "not what listen_unix returned");
  memcpy(&file, bytes, sizeof file);
  ml_listen_remove(path, &file);
  return 0;
}

static int listen_adopt(lua_State *L) {
  static const char *const names[] = { "other", "unix", "inet", "inet6" };
  ml_error err;
  ml_listen_family family = ML_LISTEN_OTHER;
  if (ml_listen_adopt((int)check_integer(L, 1, 0, INT_MAX), &family, &err) != ML_OK) return fail(L, &err);
  lua_pushstring(L, names[family]);
  return 1;
}

/* The userdata is the descriptor; -1 when closed. What it stands for is process-wide, so there is one at a time. */
static int catch_signals(lua_State *L) {
  int numbers[8], count = lua_gettop(L);
  ml_error err;
  luaL_argcheck(L, count >= 1 && count <= 8, 1, "one to eight signal numbers expected");
  for (int i = 0; i < count; ++i) numbers[i] = (int)check_integer(L, i + 1, 1, 64);
  int *descriptor = lua_newuserdatauv(L, sizeof(*descriptor), 0);
  *descriptor = -1;
  luaL_setmetatable(L, SIGNALS);
  if (ml_process_catch_signals(numbers, (size_t)count, descriptor, &err) != ML_OK) return fail(L, &err);
  return 1;
}

static int signals_take(lua_State *L) {
  const int *descriptor = luaL_checkudata(L, 1, SIGNALS);
  int number = *descriptor < 0 ? 0 : ml_process_caught_signal();
  if (number == 0) lua_pushnil(L);
  else lua_pushinteger(L, number);
  return 1;
}

static int signals_close(lua_State *L) {
  int *descriptor = luaL_checkudata(L, 1, SIGNALS);
  if (*descriptor >= 0) ml_process_release_signals();
  *descriptor = -1;
  return 0;
}

static int signals_pollfd(lua_State *L) {
  const int *descriptor = luaL_checkudata(L, 1, SIGNALS);
  if (*descriptor < 0) lua_pushnil(L);
  else lua_pushinteger(L, *descriptor);
  return 1;
}

static int signals_events(lua_State *L) {
  lua_pushliteral(L, "r");
  return 1;
}

static int signals_timeout(lua_State *L) {
  lua_pushnil(L);
  return 1;
}

static void signals_class(lua_State *L) {
  static const luaL_Reg methods[] = {
    { "take", signals_take },     { "close", signals_close },     { "pollfd", signals_pollfd },
    { "events", signals_events }, { "timeout", signals_timeout }, { NULL, NULL },
  };
  luaL_newmetatable(L, SIGNALS);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, signals_close);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

/* The userdata is the descriptor; -1 when closed. */
static int *check_inotify(lua_State *L) { return luaL_checkudata(L, 1, INOTIFY); }

static int inotify_new(lua_State *L) {
  ml_error err;
  int *descriptor = lua_newuserdatauv(L, sizeof(*descriptor), 0);
  *descriptor = -1;
  luaL_setmetatable(L, INOTIFY);
  return ml_inotify_open(descriptor, &err) == ML_OK ? 1 : fail(L, &err);
}

static int inotify_add(lua_State *L) {
  ml_error err;
  const int *descriptor = check_inotify(L);
  const char *path = luaL_checkstring(L, 2);
  luaL_argcheck(L, *descriptor >= 0, 1, "closed");
  if (ml_inotify_add(*descriptor, path, &err) != ML_OK) return fail(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

static int inotify_take(lua_State *L) {
  const int *descriptor = check_inotify(L);
  lua_pushboolean(L, *descriptor >= 0 && ml_inotify_take(*descriptor));
  return 1;
}

static int inotify_close(lua_State *L) {
  int *descriptor = check_inotify(L);
  if (*descriptor >= 0) close(*descriptor);
  *descriptor = -1;
  return 0;
}

static int inotify_pollfd(lua_State *L) {
  const int *descriptor = check_inotify(L);
  if (*descriptor < 0) lua_pushnil(L);
  else lua_pushinteger(L, *descriptor);
  return 1;
}

static void inotify_class(lua_State *L) {
  static const luaL_Reg methods[] = {
    { "add", inotify_add },       { "take", inotify_take },       { "close", inotify_close }, { "pollfd", inotify_pollfd },
    { "events", signals_events }, { "timeout", signals_timeout }, { NULL, NULL },
  };
  luaL_newmetatable(L, INOTIFY);
  luaL_newlib(L, methods);
  lua_setfield(L, -2, "__index");
  lua_pushcfunction(L, inotify_close);
  lua_setfield(L, -2, "__gc");
  lua_pop(L, 1);
}

/* takes the method's upvalues from the stack */
static void class(lua_State *L, const char *name, const char *method, lua_CFunction function, int upvalues) {
  lua_pushcclosure(L, function, upvalues);
  luaL_newmetatable(L, name);
  lua_createtable(L, 0, 1);
  lua_pushvalue(L, -3);
  lua_setfield(L, -2, method);
  lua_setfield(L, -2, "__index");
  lua_pop(L, 2);
}

/* Names nearly every request has. As upvalue of the parser's method they stay alive, so that pushing one is a look-up
 * instead of a new string. */
static void push_common_names(lua_State *L) {
  static const char *const names[] = { "host", "user-agent", "accept", "accept-encoding", "accept-language", "content-type",
    "content-length", "transfer-encoding", "connection", "cookie", "origin", "referer", "x-forwarded-for", "x-request-id",
    "traceparent", "authorization", "te", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding", "trailers", "application/grpc", "GET",
    "POST", "/" };
  lua_createtable(L, sizeof(names) / sizeof(names[0]), 0);
  for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); ++i) {
    lua_pushstring(L, names[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

static const luaL_Reg functions[] = {
    {"receive", socket_receive},
    {"send", socket_send},
    {"shutdown", socket_shutdown},
  { "http1_response", response_new },
  { "http1_parser", parser_new }, { "http1_chunked", chunked_new }, { "fork", process_fork }, { "kill", process_kill },
  { "reap", process_reap },       { "getpid", process_getpid },     { "exec", process_exec },         { "catch_signals", catch_signals },
  { "end_with", process_end_with }, { "pair", descriptor_pair },    { "wait", descriptor_wait },
  { "close", descriptor_close },    { "notify", process_notify },   { "listen_unix", listen_unix },
  { "remove_unix", remove_unix },   { "adopt", listen_adopt },      { "descriptors", descriptor_limit },
  { "reap", process_reap },       { "getpid", process_getpid }, { "exec", process_exec },
      { "catch_signals", catch_signals },
  { "inotify", inotify_new },
  { NULL, NULL },
};

__attribute__((visibility("default"))) int luaopen_mlserve_net(lua_State *L);
int luaopen_mlserve_net(lua_State *L) {
  push_common_names(L);
  class(L, PARSER, "head", parser_head, 1);
  class(L, RESPONSE, "head", response_head, 0);
  class(L, CHUNKED, "feed", chunked_feed, 0);
  signals_class(L);
  inotify_class(L);
  luaL_newlib(L, functions);
  ml__lua_open_compress(L);
  ml__lua_open_http2(L);
  ml__lua_open_http2_client(L);
  return 1;
}
