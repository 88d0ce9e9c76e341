/* Changes of directories, told by the kernel: what is told, what is not, and what ends a watch. */
#include "net/inotify.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "tap.h"

#ifdef __linux__
static ml_error err;
static char root[64];

static const char *path_of(const char *name) {
  static char paths[4][256];
  static unsigned next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", root, name);
  return path;
}

static void put(const char *name) {
  int file = open(path_of(name), O_WRONLY | O_CREAT, 0600);
  if (file < 0 || write(file, "x", 1) != 1 || close(file) != 0) ok(false, "%s is written", name);
}

/* Has the kernel something to tell? Takes it all. */
static bool told(int descriptor) {
  struct pollfd wait = { .fd = descriptor, .events = POLLIN };
  bool ready = poll(&wait, 1, 0) == 1, any = ml_inotify_take(descriptor);
  if (ready != any) ok(false, "readable when, and only when, there is something to take");
  return any;
}

static void test_changes(int watch) {
  ok(!told(watch), "nothing yet");
  ok(ml_inotify_add(watch, root, &err) == ML_OK && !told(watch), "watched");
  mkdir(path_of("1"), 0700);
  ok(told(watch) && !told(watch), "a directory appears; told once");
  ok(ml_inotify_add(watch, path_of("1"), &err) == ML_OK && ml_inotify_add(watch, path_of("1"), &err) == ML_OK, "another one, twice");
  put("1/model.onnx");
  ok(told(watch) && !told(watch), "a file is written in it");
  rename(path_of("1/model.onnx"), path_of("1/other.onnx"));
  ok(told(watch), "renamed");
  unlink(path_of("1/other.onnx"));
  ok(told(watch), "removed");
  int file = open(path_of("1/open"), O_WRONLY | O_CREAT, 0600);
  told(watch);
  ok(write(file, "half", 4) == 4 && !told(watch), "bytes alone are no news");
  close(file);
  ok(told(watch), "their end is");
  mkdir(path_of("1/deep"), 0700);
  told(watch);
  put("1/deep/file");
  ok(!told(watch), "folders of a watched directory are not watched");
  for (int i = 0; i < 1000; i++) {
    put("1/many");
    unlink(path_of("1/many"));
  }
  ok(told(watch) && !told(watch), "many at once are taken at once");
}

static void test_moves(int watch) {
  rename(path_of("1"), path_of("moved"));
  ok(told(watch), "a watched directory is moved away");
  put("moved/file");
  ok(!told(watch), "which ends its watch");
  mkdir(path_of("1"), 0700);
  told(watch);
  ok(ml_inotify_add(watch, path_of("1"), &err) == ML_OK, "another one takes its place");
  put("1/model.onnx");
  ok(told(watch), "and is watched");
  unlink(path_of("1/model.onnx"));
  told(watch);
  rmdir(path_of("1"));
  ok(told(watch), "it is removed");
}

static void test_errors(int watch) {
  ok(ml_inotify_add(watch, path_of("none"), &err) == ML_NOT_FOUND && strstr(err.message, "/none"), "%s", err.message);
  put("file");
  ok(ml_inotify_add(watch, path_of("file"), &err) == ML_NOT_FOUND, "a file: %s", err.message);
  ok(ml_inotify_add(-1, root, &err) == ML_UNAVAILABLE, "no descriptor: %s", err.message);
  ok(!ml_inotify_take(-1), "nothing is taken from it");
  struct rlimit former, few;
  int none = 0;
  getrlimit(RLIMIT_NOFILE, &former);
  few = former;
  few.rlim_cur = 3;
  setrlimit(RLIMIT_NOFILE, &few);
  ml_status status = ml_inotify_open(&none, &err);
  setrlimit(RLIMIT_NOFILE, &former);
  ok(status == ML_RESOURCE_EXHAUSTED && none < 0, "no descriptor is left: %s", err.message);
}

int main(void) {
  int watch = -1;
  snprintf(root, sizeof root, "/tmp/mlserve-inotify-XXXXXX");
  if (!mkdtemp(root)) return 1;
  ok(ml_inotify_open(&watch, &err) == ML_OK && watch >= 0, "opened: %s", err.message);
  ok(fcntl(watch, F_GETFD) == FD_CLOEXEC && (fcntl(watch, F_GETFL) & O_NONBLOCK), "closed in programs that are started, and never waits");
  test_changes(watch);
  test_moves(watch);
  test_errors(watch);
  close(watch);
  char command[128];
  snprintf(command, sizeof command, "rm -rf %s", root);
  if (system(command) != 0) return 1;
  return done();
}
#else
int main(void) {
  ml_error err;
  int watch = 0;
  ok(ml_inotify_open(&watch, &err) == ML_UNIMPLEMENTED && watch == -1 && ml_inotify_add(watch, "/", &err) == ML_UNIMPLEMENTED && !ml_inotify_take(watch), "not here");
  return done();
}
#endif
