/* The process around the core: threads, clock, interrupts, and the allocator's counters for tests. */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/cpu.h"
#include "base/interrupt.h"
#include "base/thread.h"
#include "kernels/kernels.h"
#include "lua/lua_core.h"
#include "mlserve_version.h"

/* set_threads(n): threads a parallel loop may use; 0 restores the default */
static int set_threads(lua_State *L)
{
  int64_t n = ml__lua_check_int(L, 1);
  luaL_argcheck(L, n >= 0 && n <= 1024, 1, "0 to 1024 expected");
  ml_set_threads((int)n);
  return 0;
}

static int threads(lua_State *L)
{
  ml__lua_push_int(L, ml_threads());
  return 1;
}

/* info() -> {version, isa, blas, threads, lua} */
static int info(lua_State *L)
{
  lua_createtable(L, 0, 5);
  lua_pushliteral(L, MLSERVE_VERSION);
  lua_setfield(L, -2, "version");
  lua_pushstring(L, ml_kernel_table()->name);
  lua_setfield(L, -2, "isa");
  lua_pushstring(L, ml_blas_name());
  lua_setfield(L, -2, "blas");
  ml__lua_push_int(L, ml_threads());
  lua_setfield(L, -2, "threads");
  lua_getglobal(L, "jit");
  if (lua_istable(L, -1)) lua_getfield(L, -1, "version");
  else lua_getglobal(L, "_VERSION");
  lua_setfield(L, -3, "lua");
  lua_pop(L, 1);
  return 1;
}

/* clock() -> seconds of a monotonic clock */
static int monotonic(lua_State *L)
{
  lua_pushnumber(L, (double)ml_clock_ns() * 1e-9);
  return 1;
}

/* is_terminal(fd) */
static int is_terminal(lua_State *L)
{
  lua_pushboolean(L, isatty((int)ml__lua_check_int(L, 1)));
  return 1;
}

static int interrupt_begin(lua_State *L)
{
  (void)L;
  ml_interrupt_begin();
  return 0;
}

static int interrupt_end(lua_State *L)
{
  (void)L;
  ml_interrupt_end();
  return 0;
}

static int interrupted(lua_State *L)
{
  lua_pushboolean(L, *ml_interrupt_flag() != 0);
  return 1;
}

/* list_directory(path) -> array of names, sorted by nothing, without . and ..; nil, message */
static int list_directory(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  DIR *directory = opendir(path);
  if (!directory) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, strerror(errno));
    return 2;
  }
  lua_newtable(L);
  int n = 0;
  errno = 0; /* readdir says by it alone that a listing is not whole */
  for (const struct dirent *entry = readdir(directory); entry; errno = 0, entry = readdir(directory)) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    lua_pushstring(L, entry->d_name);
    lua_rawseti(L, -2, ++n);
  }
  int number = errno;
  closedir(directory);
  if (number == 0) return 1;
  lua_pushnil(L);
  lua_pushfstring(L, "%s: %s", path, strerror(number));
  return 2;
}

/* file_id(path) -> text that names a file or directory as long as it exists, whatever it is called; nil, message */
static int file_id(lua_State *L)
{
  const char *path = luaL_checkstring(L, 1);
  struct stat status;
  if (stat(path, &status) != 0) {
    lua_pushnil(L);
    lua_pushfstring(L, "%s: %s", path, strerror(errno));
    return 2;
  }
  char text[64];
  snprintf(text, sizeof text, "%llx:%llx", (unsigned long long)status.st_dev, (unsigned long long)status.st_ino);
  lua_pushstring(L, text);
  return 1;
}

/* alloc_stats() -> allocations so far, live blocks, live bytes */
static int alloc_stats(lua_State *L)
{
  ml_alloc_stats stats = ml_alloc_get_stats();
  ml__lua_push_int(L, (int64_t)stats.allocations);
  ml__lua_push_int(L, (int64_t)stats.live_blocks);
  ml__lua_push_int(L, (int64_t)stats.live_bytes);
  return 3;
}

/* alloc_fail_at(n[, persistent]): the n-th allocation of the core from now fails; 0 switches it off */
static int alloc_fail_at(lua_State *L)
{
  int64_t n = ml__lua_check_int(L, 1);
  luaL_argcheck(L, n >= 0, 1, "a count expected");
  ml_alloc_fail_at((uint64_t)n, lua_toboolean(L, 2));
  return 0;
}

void ml__lua_open_system(lua_State *L)
{
  static const luaL_Reg functions[] = {
    { "set_threads", set_threads }, { "threads", threads }, { "info", info }, { "clock", monotonic }, { "is_terminal", is_terminal },
    { "interrupt_begin", interrupt_begin }, { "interrupt_end", interrupt_end }, { "interrupted", interrupted },
    { "list_directory", list_directory }, { "file_id", file_id }, { "alloc_stats", alloc_stats }, { "alloc_fail_at", alloc_fail_at }, { NULL, NULL } };
  luaL_setfuncs(L, functions, 0);
}
