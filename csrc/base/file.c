/* Files: mapping and atomic replacement.
 * The writer's steps are those that survive a crash at any point: temporary file in the same directory (rename does not cross
 * file systems), all bytes, fsync, rename, fsync of the directory (the rename itself is only durable after that). A symbolic
 * link at `path` is replaced, not followed. After a failed write the writer stays failed: commit cannot publish half a file. */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"

enum {
  BUFFER_BYTES = 32768,
  NAME_KEPT = 200, /* bytes of the name that the temporary name repeats; directory entries end at 255 */
  SHOWN = 300,     /* bytes of a path in a message */
  TEMPORARY_TRIES = 10000
};

struct ml_writer {
  char *path;
  char *temporary;
  int file;
  ml_status failed; /* ML_OK until a write fails */
  size_t used;
  unsigned char buffer[BUFFER_BYTES];
};

/* The failure of a system call on path; `number` is errno from right after it. */
static ml_status fail_errno(ml_error *err, int number, const char *action, const char *path) {
  ml_status code = ML_UNAVAILABLE;
  switch (number) {
    case ENOENT:
    case ENOTDIR: code = ML_NOT_FOUND; break;
    case EACCES:
    case EPERM:
    case EROFS: code = ML_PERMISSION_DENIED; break;
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL: code = ML_INVALID_ARGUMENT; break;
    case EEXIST: code = ML_ALREADY_EXISTS; break;
    case ENOMEM:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case EMFILE:
    case ENFILE: code = ML_RESOURCE_EXHAUSTED; break;
    default: break;
  }
  size_t length = strlen(path); /* of a long path the end: it says more, and the reason must fit behind it */
  bool cut = length > SHOWN;
  return ml_fail(err, code, "cannot %s '%s%s': %s", action, cut ? "..." : "", cut ? path + length - SHOWN : path,
                 strerror(number));
}

static int open_retry(const char *path, int flags, mode_t mode) {
  int file;
  do file = open(path, flags | O_CLOEXEC, mode);
  while (file < 0 && errno == EINTR);
  return file;
}

/* ---- mapping ---- */

ml_status ml_file_copy(int file, size_t size, const char *path, ml_file_map *map, ml_error *err) {
  *map = (ml_file_map){NULL, 0};
  if (size == 0) return ML_OK;
  unsigned char *bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (bytes == MAP_FAILED) return ml_fail_memory(err, size, path);
  size_t have = 0;
  ssize_t n = 1;
  while (have < size && n > 0) {
    do n = pread(file, bytes + have, size - have, (off_t)have);
    while (n < 0 && errno == EINTR);
    if (n > 0) have += (size_t)n;
  }
  if (have == size) {
    *map = (ml_file_map){bytes, size};
    return ML_OK;
  }
  ml_status status = n < 0 ? fail_errno(err, errno, "read", path) : ml_fail(err, ML_UNAVAILABLE, "'%s' became shorter while it was read", path);
  munmap(bytes, size);
  return status;
}

static ml_status open_file(const char *path, bool copy, ml_file_map *map, ml_error *err) {
  *map = (ml_file_map){NULL, 0};
  int file = open_retry(path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0); /* not blocking: path may be a FIFO */
  if (file < 0) return fail_errno(err, errno, "open", path);
  struct stat info;
  ml_status status = ML_OK;
  if (fstat(file, &info) != 0) status = fail_errno(err, errno, "examine", path);
  else if (!S_ISREG(info.st_mode)) status = ml_fail(err, ML_INVALID_ARGUMENT, "'%s' is not a regular file", path);
  else if ((uintmax_t)info.st_size > PTRDIFF_MAX) status = ml_fail(err, ML_RESOURCE_EXHAUSTED, "'%s' is too large to map", path);
  else if (copy) status = ml_file_copy(file, (size_t)info.st_size, path, map, err);
  else if (info.st_size > 0) {
    /* writable, copy on write: tensors on a mapping may be changed like any other, the file never is */
    void *bytes = mmap(NULL, (size_t)info.st_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (bytes == MAP_FAILED) status = fail_errno(err, errno, "map", path);
    else *map = (ml_file_map){bytes, (size_t)info.st_size};
  }
  close(file); /* the mapping stays */
  return status;
}

ml_status ml_file_open_map(const char *path, ml_file_map *map, ml_error *err) { return open_file(path, false, map, err); }
ml_status ml_file_open_copy(const char *path, ml_file_map *map, ml_error *err) { return open_file(path, true, map, err); }

void ml_file_unmap(ml_file_map *map) {
  if (map->bytes != NULL) munmap((void *)(uintptr_t)map->bytes, map->size);
  *map = (ml_file_map){NULL, 0};
}

void ml_file_forget(const ml_file_map *map) {
  if (map->bytes != NULL) madvise((void *)(uintptr_t)map->bytes, map->size, MADV_DONTNEED);
}

/* ---- directories ---- */

/* Length of path's directory part without the slash; 0: none, or the root alone. */
static size_t directory_length(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? 0 : (size_t)(slash - path);
}

/* Makes entries of the directory that holds path durable. Some file systems cannot: that is no failure. */
static ml_status sync_parent(const char *path, ml_error *err) {
  size_t length = directory_length(path);
  char *parent = length > 0 ? ml_strndup(path, length) : ml_strndup(path[0] == '/' ? "/" : ".", 1);
  if (parent == NULL) return ml_fail_memory(err, length + 1, "a path");
  ml_status status = ML_OK;
  int file = open_retry(parent, O_RDONLY | O_DIRECTORY, 0);
  if (file < 0) {
    if (errno != EACCES) status = fail_errno(err, errno, "open directory", parent); /* writable but not readable */
  } else {
    int result;
    do result = fsync(file);
    while (result != 0 && errno == EINTR);
    if (result != 0 && errno != EINVAL && errno != ENOTSUP && errno != EROFS) {
      status = fail_errno(err, errno, "sync directory", parent);
    }
    close(file);
  }
  ml_free(parent);
  return status;
}

static bool is_directory(const char *path) {
  struct stat info;
  return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

ml_status ml_make_directories(const char *path, ml_error *err) {
  if (path[0] == '\0') return ml_fail(err, ML_INVALID_ARGUMENT, "the path of a directory is empty");
  if (is_directory(path)) return ML_OK;
  size_t length = strlen(path);
  char *prefix = ml_strndup(path, length);
  if (prefix == NULL) return ml_fail_memory(err, length + 1, "a path");
  ml_status status = ML_OK;
  for (size_t i = 1; i <= length && status == ML_OK; ++i) {
    if (i < length && path[i] != '/') continue;
    if (path[i - 1] == '/') continue; /* doubled or trailing slash */
    prefix[i] = '\0';
    if (mkdir(prefix, 0777) == 0) {
      status = sync_parent(prefix, err);
    } else {
      int number = errno;
      /* an existing parent may also answer EROFS or EACCES; somebody else may have made it at the same time */
      if (!is_directory(prefix)) status = fail_errno(err, number == EEXIST ? ENOTDIR : number, "make directory", prefix);
    }
    prefix[i] = path[i];
  }
  ml_free(prefix);
  return status;
}

/* ---- writer ---- */

static void writer_free(ml_writer *writer) {
  ml_free(writer->path);
  ml_free(writer->temporary);
  ml_free(writer);
}

/* Opens a new file `.NAME.tmp-PID-COUNTER` in path's directory. */
static ml_status open_temporary(ml_writer *writer, ml_error *err) {
  const char *path = writer->path;
  size_t directory = directory_length(path), name_at = strrchr(path, '/') == NULL ? 0 : directory + 1;
  size_t name = strlen(path) - name_at, size = strlen(path) + 64;
  writer->temporary = ml_alloc(size);
  if (writer->temporary == NULL) return ml_fail_memory(err, size, "a path");
  if (name > NAME_KEPT) name = NAME_KEPT;
  memcpy(writer->temporary, path, name_at);
  for (int counter = 0; counter < TEMPORARY_TRIES; ++counter) { /* taken: another thread, or left behind by a killed process */
    snprintf(writer->temporary + name_at, size - name_at, ".%.*s.tmp-%ld-%d", (int)name, path + name_at, (long)getpid(), counter);
    writer->file = open_retry(writer->temporary, O_WRONLY | O_CREAT | O_EXCL, 0644);
    if (writer->file >= 0) return ML_OK;
    if (errno != EEXIST) break;
  }
  return fail_errno(err, errno, "create", writer->temporary);
}

ml_status ml_writer_open(const char *path, ml_writer **out, ml_error *err) {
  size_t length = strlen(path), directory = directory_length(path);
  if (length == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "the path of a file is empty");
  if (path[length - 1] == '/' || is_directory(path)) {
    return ml_fail(err, ML_INVALID_ARGUMENT, "cannot write '%s': it is a directory", path);
  }
  ml_writer *writer = ml_alloc(sizeof *writer);
  if (writer == NULL) return ml_fail_memory(err, sizeof *writer, "a file writer");
  writer->temporary = NULL;
  writer->file = -1;
  writer->failed = ML_OK;
  writer->used = 0;
  writer->path = ml_strndup(path, length);
  ml_status status = writer->path == NULL ? ml_fail_memory(err, length + 1, "a path") : ML_OK;
  if (status == ML_OK && directory > 0) {
    writer->path[directory] = '\0';
    status = ml_make_directories(writer->path, err);
    writer->path[directory] = '/';
  }
  if (status == ML_OK) status = open_temporary(writer, err);
  if (status != ML_OK) {
    writer_free(writer);
    return status;
  }
  *out = writer;
  return ML_OK;
}

static ml_status write_all(ml_writer *writer, const unsigned char *bytes, size_t size, ml_error *err) {
  while (size > 0) {
    ssize_t written = write(writer->file, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) {
      writer->failed = fail_errno(err, written < 0 ? errno : EIO, "write", writer->temporary);
      return writer->failed;
    }
    bytes += written;
    size -= (size_t)written;
  }
  return ML_OK;
}

static ml_status flush(ml_writer *writer, ml_error *err) {
  size_t used = writer->used;
  writer->used = 0;
  return write_all(writer, writer->buffer, used, err);
}

ml_status ml_writer_write(ml_writer *writer, const void *bytes, size_t size, ml_error *err) {
  if (writer->failed != ML_OK) return ml_fail(err, writer->failed, "an earlier write to '%s' failed", writer->temporary);
  if (size > BUFFER_BYTES - writer->used) ML_TRY(flush(writer, err));
  if (size >= BUFFER_BYTES) return write_all(writer, bytes, size, err);
  if (size > 0) memcpy(writer->buffer + writer->used, bytes, size);
  writer->used += size;
  return ML_OK;
}

ml_status ml_writer_commit(ml_writer *writer, ml_error *err) {
  ml_status status = writer->failed == ML_OK ? flush(writer, err)
                                             : ml_fail(err, writer->failed, "an earlier write to '%s' failed", writer->temporary);
  if (status == ML_OK) {
    int result;
    do result = fsync(writer->file);
    while (result != 0 && errno == EINTR);
    if (result != 0 && errno != EINVAL && errno != ENOTSUP) status = fail_errno(err, errno, "sync", writer->temporary);
  }
  /* close can report a write that failed late; EINTR leaves the descriptor closed on Linux */
  if (close(writer->file) != 0 && errno != EINTR && status == ML_OK) status = fail_errno(err, errno, "close", writer->temporary);
  if (status == ML_OK && rename(writer->temporary, writer->path) != 0) status = fail_errno(err, errno, "replace", writer->path);
  if (status != ML_OK) unlink(writer->temporary);
  else status = sync_parent(writer->path, err);
  writer_free(writer);
  return status;
}

void ml_writer_abort(ml_writer *writer) {
  if (writer == NULL) return;
  close(writer->file);
  unlink(writer->temporary);
  writer_free(writer);
}

ml_status ml_file_write(const char *path, const void *bytes, size_t size, ml_error *err) {
  ml_writer *writer;
  ML_TRY(ml_writer_open(path, &writer, err));
  ml_status status = ml_writer_write(writer, bytes, size, err);
  if (status != ML_OK) {
    ml_writer_abort(writer);
    return status;
  }
  return ml_writer_commit(writer, err);
}
