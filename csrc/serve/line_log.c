#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "serve/line_log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"

enum { BUFFER = 65536, STAMP = 36 }; /* {"time":"2026-01-31T12:00:00.123Z", */

struct ml_line_log {
  int file;
  char *path; /* NULL: standard output */
  uint64_t lost;
  size_t used;
  time_t second; /* the one `stamp` was made for */
  char stamp[STAMP + 1];
  char buffer[BUFFER];
};

/* O_NONBLOCK: a pipe nobody reads is an error, not a wait. */
static ml_status open_file(const char *path, int *file, ml_error *err) {
  int opened;
  do opened = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0640);
  while (opened < 0 && errno == EINTR);
  if (opened < 0) return ml_fail(err, ML_UNAVAILABLE, "cannot open log '%s': %s", path, strerror(errno));
  *file = opened;
  return ML_OK;
}

ml_status ml_line_log_open(const char *path, ml_line_log **out, ml_error *err) {
  ml_line_log *log = ml_alloc_zero(1, sizeof *log);
  ml_status status = ML_OK;
  *out = NULL;
  if (log == NULL) return ml_fail_memory(err, sizeof *log, "a log");
  log->file = STDOUT_FILENO;
  log->second = -1;
  if (strcmp(path, "-") != 0) {
    log->file = -1;
    log->path = ml_strndup(path, strlen(path));
    status = log->path == NULL ? ml_fail_memory(err, strlen(path) + 1, "a log") : open_file(path, &log->file, err);
  }
  if (status != ML_OK) ml_line_log_close(log);
  else *out = log;
  return status;
}

void ml_line_log_close(ml_line_log *log) {
  if (log == NULL) return;
  if (log->used > 0) (void)ml_line_log_flush(log, NULL);
  if (log->path != NULL && log->file >= 0) close(log->file);
  ml_free(log->path);
  ml_free(log);
}

/* Bytes go out or are lost; the buffer is empty afterwards. */
static ml_status write_out(ml_line_log *log, ml_error *err) {
  const char *at = log->buffer;
  size_t left = log->used;
  ml_status status = ML_OK;
  while (left > 0) {
    ssize_t n = write(log->file, at, left);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      status = ml_fail(err, ML_UNAVAILABLE, "cannot write log '%s': %s", log->path == NULL ? "-" : log->path, strerror(errno));
      for (size_t i = 0; i < left; ++i) log->lost += at[i] == '\n';
      break;
    }
    at += n;
    left -= (size_t)n;
  }
  log->used = 0;
  return status;
}

/* Whether the file we write to is no longer the one of that name. */
static bool moved(const ml_line_log *log) {
  struct stat ours, named;
  if (log->path == NULL || fstat(log->file, &ours) != 0) return false;
  if (stat(log->path, &named) != 0) return errno == ENOENT;
  return ours.st_dev != named.st_dev || ours.st_ino != named.st_ino;
}

static ml_status flush(ml_line_log *log, bool anew, ml_error *err) {
  ml_status opened = ML_OK;
  if (anew && log->path != NULL) {
    int file = -1;
    opened = open_file(log->path, &file, err);
    if (opened == ML_OK) {
      close(log->file);
      log->file = file;
    }
  }
  ml_status written = write_out(log, opened == ML_OK ? err : NULL);
  return opened != ML_OK ? opened : written;
}

ml_status ml_line_log_flush(ml_line_log *log, ml_error *err) { return flush(log, moved(log), err); }

ml_status ml_line_log_reopen(ml_line_log *log, ml_error *err) { return flush(log, true, err); }

uint64_t ml_line_log_lost(ml_line_log *log) {
  uint64_t lost = log->lost;
  log->lost = 0;
  return lost;
}

/* The text before the rest of a line; only the milliseconds change within a second. */
static const char *stamp(ml_line_log *log) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec != log->second) {
    struct tm parts;
    gmtime_r(&now.tv_sec, &parts);
    if (strftime(log->stamp, sizeof log->stamp, "{\"time\":\"%Y-%m-%dT%H:%M:%S.000Z\",", &parts) != STAMP - 1)
      memcpy(log->stamp, "{\"time\":\"0000-00-00T00:00:00.000Z\",", STAMP);
    log->second = now.tv_sec;
  }
  int milliseconds = (int)(now.tv_nsec / 1000000);
  char *digits = log->stamp + sizeof "{\"time\":\"2026-01-31T12:00:00." - 1;
  digits[0] = (char)('0' + milliseconds / 100);
  digits[1] = (char)('0' + milliseconds / 10 % 10);
  digits[2] = (char)('0' + milliseconds % 10);
  return log->stamp;
}

void ml_line_log_add(ml_line_log *log, const char *rest, size_t length) {
  const size_t before = STAMP - 1;
  if (length > BUFFER - STAMP) {
    ++log->lost;
    return;
  }
  if (log->used + before + length + 1 > BUFFER) (void)write_out(log, NULL);
  memcpy(log->buffer + log->used, stamp(log), before);
  memcpy(log->buffer + log->used + before, rest, length);
  log->used += before + length;
  log->buffer[log->used++] = '\n';
}
