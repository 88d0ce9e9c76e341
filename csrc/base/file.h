/* Files: read by mapping, written by atomic replacement.
 * Lives here: every file the core opens. May include: base.
 * Ownership: an ml_file_map belongs to the caller until ml_file_unmap; an ml_writer until commit or abort. */
#ifndef ML_BASE_FILE_H
#define ML_BASE_FILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

typedef struct ml_file_map {
  const unsigned char *bytes; /* NULL when the file is empty */
  size_t size;
} ml_file_map;

/* Maps a regular file; writing to the bytes changes this process's copy only. Errors: NOT_FOUND, PERMISSION_DENIED, UNAVAILABLE, INVALID_ARGUMENT (not a regular file). */
ml_status ml_file_open_map(const char *path, ml_file_map *map, ml_error *err);
/* The same bytes, read into memory: what somebody does to the file afterwards changes nothing, while a mapping of a file that has become shorter
 * ends the process. UNAVAILABLE: it was changed while it was read. */
ml_status ml_file_open_copy(const char *path, ml_file_map *map, ml_error *err);
ml_status ml_file_copy(int file, size_t size, const char *path, ml_file_map *map, ml_error *err); /* of an open file; path is for messages */
void ml_file_unmap(ml_file_map *map);
/* Gives back the memory of pages that have been read; they are read again when needed. Only while nobody has written to the bytes. */
void ml_file_forget(const ml_file_map *map);

/* Atomic writer: bytes go to a temporary file beside `path`; commit does fsync, rename, fsync of the directory. Until then
 * readers see the old file; after abort, a failure or a kill the old file is whole. Missing directories are created. */
typedef struct ml_writer ml_writer;
ml_status ml_writer_open(const char *path, ml_writer **writer, ml_error *err);
ml_status ml_writer_write(ml_writer *writer, const void *bytes, size_t size, ml_error *err);
ml_status ml_writer_commit(ml_writer *writer, ml_error *err); /* frees writer, also on failure */
void ml_writer_abort(ml_writer *writer);                      /* frees writer, removes the temporary file; NULL allowed */

/* open + write + commit */
ml_status ml_file_write(const char *path, const void *bytes, size_t size, ml_error *err);
ml_status ml_make_directories(const char *path, ml_error *err); /* like mkdir -p */

#endif
