#include "net/inotify.h"

#ifdef __linux__
#include <errno.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

ml_status ml_inotify_open(int *descriptor, ml_error *err) {
  *descriptor = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (*descriptor >= 0) return ML_OK;
  return ml_fail(err, ML_RESOURCE_EXHAUSTED, "inotify: %s", strerror(errno));
}

ml_status ml_inotify_add(int descriptor, const char *path, ml_error *err) {
  const uint32_t mask = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR;
  if (inotify_add_watch(descriptor, path, mask) >= 0) return ML_OK;
  int number = errno;
  return ml_fail(err, number == ENOENT || number == ENOTDIR ? ML_NOT_FOUND : number == ENOSPC ? ML_RESOURCE_EXHAUSTED : ML_UNAVAILABLE,
                 "cannot watch %s: %s", path, strerror(number));
}

bool ml_inotify_take(int descriptor) {
  char buffer[4096] __attribute__((aligned(8)));
  bool any = false;
  for (;;) {
    ssize_t n = read(descriptor, buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return any;
    any = true;
    for (ssize_t at = 0; at + (ssize_t)sizeof(struct inotify_event) <= n;) {
      struct inotify_event event;
      memcpy(&event, buffer + at, sizeof event);
      if (event.mask & IN_MOVE_SELF) inotify_rm_watch(descriptor, event.wd);
      at += (ssize_t)sizeof event + (ssize_t)event.len;
    }
  }
}
#else
ml_status ml_inotify_open(int *descriptor, ml_error *err) {
  *descriptor = -1;
  return ml_fail(err, ML_UNIMPLEMENTED, "inotify: not on this system");
}

ml_status ml_inotify_add(int descriptor, const char *path, ml_error *err) {
  (void)descriptor;
  return ml_fail(err, ML_UNIMPLEMENTED, "cannot watch %s: not on this system", path);
}

bool ml_inotify_take(int descriptor) {
  (void)descriptor;
  return false;
}
#endif
