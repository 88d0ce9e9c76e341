#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* SOCK_CLOEXEC */
#endif
#include "net/listen.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static ml_status failed(const char *path, const char *what, int code, ml_error *err) {
  ml_status status = code == EACCES || code == EPERM || code == EROFS ? ML_PERMISSION_DENIED
    : code == ENOENT || code == ENOTDIR                                ? ML_NOT_FOUND
    : code == EADDRINUSE                                               ? ML_ALREADY_EXISTS
                                                                       : ML_UNAVAILABLE;
  return ml_fail(err, status, "Unix socket '%s': %s: %s", path, what, strerror(code));
}

/* Removes what a server that died has left. Only a refused connection proves that nobody listens: a full backlog, say, does not. */
static ml_status remove_stale(const struct sockaddr_un *address, ml_error *err) {
  const char *path = address->sun_path;
  struct stat found;
  if (lstat(path, &found) != 0) return errno == ENOENT ? ML_OK : failed(path, "stat", errno, err);
  if (!S_ISSOCK(found.st_mode)) return ml_fail(err, ML_ALREADY_EXISTS, "Unix socket '%s': the file is there and is no socket", path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return failed(path, "socket", errno, err);
  int code = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ? 0 : errno;
  close(fd);
  if (code == ENOENT) return ML_OK;
  if (code == 0 || code == EAGAIN) return ml_fail(err, ML_ALREADY_EXISTS, "Unix socket '%s': another server listens there", path);
  if (code != ECONNREFUSED) return failed(path, "connect", code, err);
  if (unlink(path) != 0 && errno != ENOENT) return failed(path, "unlink", errno, err);
  return ML_OK;
}

ml_status ml_listen_unix(const char *path, unsigned mode, int *descriptor, ml_listen_file *file, ml_error *err) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  size_t length = strlen(path);
  if (length == 0 || length >= sizeof address.sun_path) {
    return ml_fail(err, ML_INVALID_ARGUMENT, "Unix socket '%s': the path must have 1 to %zu bytes, not %zu", path, sizeof address.sun_path - 1,
                   length);
  }
  memcpy(address.sun_path, path, length);
  ml_status status = remove_stale(&address, err);
  if (status != ML_OK) return status;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return failed(path, "socket", errno, err);
  if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
    int code = errno;
    close(fd);
    return failed(path, "bind", code, err);
  }
  /* nobody can connect before listen(), so the permissions hold from the first connection on */
  struct stat made;
  const char *what = "chmod";
  int code = chmod(path, (mode_t)(mode & 07777u)) == 0 ? 0 : errno;
  if (code == 0 && stat(path, &made) != 0) what = "stat", code = errno;
  if (code == 0 && listen(fd, SOMAXCONN) != 0) what = "listen", code = errno;
  if (code != 0) {
    unlink(path);
    close(fd);
    return failed(path, what, code, err);
  }
  *file = (ml_listen_file){ .device = (uint64_t)made.st_dev, .inode = (uint64_t)made.st_ino };
  *descriptor = fd;
  return ML_OK;
}

void ml_listen_remove(const char *path, const ml_listen_file *file) {
  struct stat found;
  if (lstat(path, &found) == 0 && (uint64_t)found.st_dev == file->device && (uint64_t)found.st_ino == file->inode) unlink(path);
}

ml_status ml_listen_adopt(int descriptor, ml_listen_family *family, ml_error *err) {
  int type = 0, listening = 0;
  socklen_t size = sizeof type;
  struct sockaddr_storage address;
  if (getsockopt(descriptor, SOL_SOCKET, SO_TYPE, &type, &size) != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "descriptor %d: %s", descriptor, strerror(errno));
  size = sizeof listening;
  if (type != SOCK_STREAM || getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) != 0 || !listening)
    return ml_fail(err, ML_INVALID_ARGUMENT, "descriptor %d: not a listening stream socket", descriptor);
  size = sizeof address;
  if (getsockname(descriptor, (struct sockaddr *)&address, &size) != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "descriptor %d: %s", descriptor, strerror(errno));
  int flags = fcntl(descriptor, F_GETFL);
  if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(descriptor, F_SETFD, FD_CLOEXEC) != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "descriptor %d: %s", descriptor, strerror(errno));
  *family = address.ss_family == AF_UNIX ? ML_LISTEN_UNIX
    : address.ss_family == AF_INET       ? ML_LISTEN_INET
    : address.ss_family == AF_INET6      ? ML_LISTEN_INET6
                                         : ML_LISTEN_OTHER;
  return ML_OK;
}
