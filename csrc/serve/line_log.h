/* A log of one JSON object per line that several processes may write to.
 * Lives here: a buffer of whole lines, and the file. May include: base. Lines of one process stay in order and lines of several do
 * not mix: each write appends whole lines. Not thread-safe: one per Lua state. What cannot be written is dropped and counted:
 * a full disk must not stop the server. */
#ifndef ML_SERVE_LINE_LOG_H
#define ML_SERVE_LINE_LOG_H
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

typedef struct ml_line_log ml_line_log;

/* path "-" is standard output. The file is made when it is not there, readable for owner and group. */
ml_status ml_line_log_open(const char *path, ml_line_log **out, ml_error *err);
void ml_line_log_close(ml_line_log *log); /* flushes; NULL allowed */
/* Adds {"time":"2026-01-31T12:00:00.123Z",REST and a line feed; `rest` is the remainder of the object. Lines over 64 KiB are
 * dropped. Writes only when the buffer is full. */
void ml_line_log_add(ml_line_log *log, const char *rest, size_t length);
/* Writes what is there, into a new file of the same name when the old one was moved or removed. */
ml_status ml_line_log_flush(ml_line_log *log, ml_error *err);
/* The same, and opens the file anew in any case. On failure the old one is kept. */
ml_status ml_line_log_reopen(ml_line_log *log, ml_error *err);
/* Lines dropped since the last call. */
uint64_t ml_line_log_lost(ml_line_log *log);

#endif
