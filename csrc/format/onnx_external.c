/* External data of ONNX models: weights in files beside the model.
 * The location comes from an untrusted file, and every reader that checked it piecemeal has been tricked (.., symbolic links in a
 * parent, hard links, FIFOs, a second code path). So there is one opener: the location is refused by its text first (absolute,
 * empty, dot or dot-dot components), then resolved by the kernel beneath the model's directory without following any symbolic
 * link, and the open file must be regular with a single name. Ranges are checked against the size of the mapping, never against
 * what the model says. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#if defined(__linux__) && defined(SYS_openat2)
#include <linux/openat2.h>
#endif
#include "base/file.h"
#include "format/onnx_proto.h"

static ml_status refuse_text(const char *location, ml_error *err) {
  size_t length = strlen(location);
  if (length == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "external data: the location is empty");
  if (length >= 4096) return ml_fail(err, ML_INVALID_ARGUMENT, "external data: the location is %zu bytes long", length);
  if (location[0] == '/') return ml_fail(err, ML_INVALID_ARGUMENT, "external data '%s': the location is absolute", location);
  for (const char *part = location;;) {
    const char *slash = strchr(part, '/');
    size_t n = slash ? (size_t)(slash - part) : strlen(part);
    if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
      return ml_fail(err, ML_INVALID_ARGUMENT, "external data '%s': the location leaves or leads around the model's directory",
                     location);
    if (!slash) return ML_OK;
    part = slash + 1;
  }
}

#define OPEN_FLAGS (O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY) /* not blocking: it may be a FIFO */

/* For kernels without openat2 (before 5.6, or a sandbox that forbids it): one component at a time, no symbolic links. */
static int open_by_component(int directory, const char *location) {
  char part[256];
  int at = directory;
  for (;;) {
    const char *slash = strchr(location, '/');
    size_t n = slash ? (size_t)(slash - location) : strlen(location);
    int next = -1;
    if (n >= sizeof part) errno = ENAMETOOLONG;
    else {
      memcpy(part, location, n);
      part[n] = '\0';
      do next = openat(at, part, slash ? OPEN_FLAGS | O_DIRECTORY : OPEN_FLAGS);
      while (next < 0 && errno == EINTR);
      struct stat info; /* a link where a directory should be is "not a directory": say what it is */
      if (next < 0 && errno == ENOTDIR) errno = fstatat(at, part, &info, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(info.st_mode) ? ELOOP : ENOTDIR;
    }
    int saved = errno;
    if (at != directory) close(at);
    errno = saved;
    if (next < 0 || !slash) return next;
    at = next;
    location = slash + 1;
  }
}

static int open_beneath(int directory, const char *location) {
#if defined(__linux__) && defined(SYS_openat2)
  struct open_how how = {.flags = OPEN_FLAGS, .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
  long file;
  int tries = 0;
  do file = syscall(SYS_openat2, directory, location, &how, sizeof how);
  while (file < 0 && (errno == EINTR || (errno == EAGAIN && ++tries < 64))); /* EAGAIN: something was renamed during the walk */
  if (file >= 0 || (errno != ENOSYS && errno != EPERM && errno != E2BIG)) return (int)file;
#endif
  return open_by_component(directory, location);
}

static ml_status fail_open(const char *location, ml_error *err) {
  int number = errno;
  ml_status code = ML_UNAVAILABLE;
  if (number == ENOENT || number == ENOTDIR) code = ML_NOT_FOUND;
  else if (number == EACCES || number == EPERM) code = ML_PERMISSION_DENIED;
  else if (number == ENOMEM || number == EMFILE || number == ENFILE) code = ML_RESOURCE_EXHAUSTED;
  else if (number == ELOOP || number == EXDEV)
    return ml_fail(err, ML_INVALID_ARGUMENT,
                   "external data '%s': symbolic links and paths out of the model's directory are not followed", location);
  return ml_fail(err, code, "external data '%s': cannot open: %s", location, strerror(number));
}

static void unmap(void *context) {
  ml_file_map *map = context;
  ml_file_unmap(map);
  ml_free(map);
}

static ml_status map_file(const ml__onnx_source *source, int file, const char *location, ml_storage **out, ml_error *err) {
  struct stat info;
  if (fstat(file, &info) != 0) return fail_open(location, err);
  if (!S_ISREG(info.st_mode)) return ml_fail(err, ML_INVALID_ARGUMENT, "external data '%s' is not a regular file", location);
  if (info.st_nlink != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "external data '%s' has %ju names (hard links); copy it", location,
                   (uintmax_t)info.st_nlink);
  if ((uintmax_t)info.st_size > source->limits.max_bytes - source->total)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "external data '%s': the model is over the limit of %zu bytes", location,
                   source->limits.max_bytes);
  ml_file_map *map = ml_alloc_zero(1, sizeof *map);
  if (!map) return ml_fail_memory(err, sizeof *map, "external data");
  if (source->limits.copy) {
    ml_status status = ml_file_copy(file, (size_t)info.st_size, location, map, err);
    if (status != ML_OK) {
      ml_free(map);
      return status;
    }
  } else if (info.st_size > 0) {
    map->size = (size_t)info.st_size;
    void *bytes = mmap(NULL, map->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    if (bytes == MAP_FAILED) {
      ml_free(map);
      return fail_open(location, err);
    }
    map->bytes = bytes;
  }
  *out = ml_storage_wrap((void *)(uintptr_t)map->bytes, map->size, unmap, map);
  if (*out) return ML_OK;
  unmap(map);
  return ml_fail_memory(err, sizeof *map, "external data");
}

ml_status ml__onnx_external(ml__onnx_source *source, const char *location, ml_storage **out, ml_error *err) {
  if (!source->directory)
    return ml_fail(err, ML_INVALID_ARGUMENT, "external data '%s': a model read from memory has no files beside it", location);
  for (const ml__onnx_file *f = source->files; f; f = f->next)
    if (strcmp(f->location, location) == 0) {
      *out = f->storage;
      return ML_OK;
    }
  ML_TRY(refuse_text(location, err));
  ml__onnx_file *entry = ml_arena_alloc(source->scratch, sizeof *entry);
  if (!entry || !(entry->location = ml_arena_strndup(source->scratch, location, strlen(location))))
    return ml_fail_memory(err, sizeof *entry, "external data");
  int directory;
  do directory = open(source->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  while (directory < 0 && errno == EINTR);
  if (directory < 0) return fail_open(location, err);
  int file = open_beneath(directory, location);
  ml_status status = file < 0 ? fail_open(location, err) : map_file(source, file, location, &entry->storage, err);
  if (file >= 0) close(file);
  close(directory);
  if (status != ML_OK) return status;
  source->total += ml_storage_bytes(entry->storage);
  entry->next = source->files;
  source->files = entry;
  *out = entry->storage;
  return ML_OK;
}

void ml__onnx_external_close(ml__onnx_source *source) {
  for (ml__onnx_file *f = source->files; f; f = f->next) ml_storage_release(f->storage);
  source->files = NULL;
}
