/* Counters shared by processes, and the log several processes append to. */
#include "serve/counters.h"
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "serve/line_log.h"
#include "tap.h"

static ml_error err;

/* Sum over processes of what has this name. */
static ml_counters_sample total(ml_counters *c, ml_counters_kind kind, const char *name, size_t length) {
  ml_counters_sample sum = {.kind = kind}, one;
  for (size_t at = 0; ml_counters_next(c, &at, &one);) {
    if (one.kind != kind || one.length != length || memcmp(one.name, name, length) != 0) continue;
    sum.sum += one.sum;
    sum.count += one.count;
    sum.bytes_in += one.bytes_in;
    sum.bytes_out += one.bytes_out;
    for (size_t b = 0; b < ML_COUNTERS_BUCKETS; ++b) sum.buckets[b] += one.buckets[b];
  }
  return sum;
}

static int64_t in_flight(ml_counters *c, size_t *processes) {
  ml_counters_process one;
  int64_t sum = 0;
  *processes = 0;
  for (size_t at = 0; ml_counters_next_process(c, &at, &one); ++*processes) sum += one.in_flight;
  return sum;
}

static void test_bounds(void) {
  size_t n;
  const uint64_t *times = ml_counters_bounds(ML_COUNTERS_SECONDS, &n), *sizes;
  bool same = n == 33;
  for (size_t i = 0; i < n; ++i) same = same && times[i] == (uint64_t)floorl(10000.0L * powl(1.8L, (long double)i) + 1e-6L);
  ok(same, "bounds of times are 10 us * 1.8^i");
  sizes = ml_counters_bounds(ML_COUNTERS_SIZE, &n);
  same = n == 14;
  for (size_t i = 0; i < n; ++i) same = same && sizes[i] == (uint64_t)1 << i;
  ok(same, "bounds of sizes are 2^i");
  ok(ml_counters_bounds(ML_COUNTERS_COUNT, &n) == NULL && n == 0, "counts have no buckets");
  ml_counters *c;
  if (!ok(ml_counters_new(0, &c, &err) == ML_OK, "counters")) return;
  uint32_t series = ml_counters_series(c, ML_COUNTERS_SIZE, "s", 1);
  static const uint64_t values[] = {0, 1, 2, 3, 8192, 8193, UINT64_MAX / 2};
  for (size_t i = 0; i < sizeof values / sizeof *values; ++i) ml_counters_observe(c, series, values[i]);
  ml_counters_sample s = total(c, ML_COUNTERS_SIZE, "s", 1);
  ok(s.count == 7 && s.buckets[0] == 2 && s.buckets[1] == 1 && s.buckets[2] == 1 && s.buckets[13] == 1 && s.buckets[14] == 2,
     "a bound belongs to its bucket, what is larger to the last one");
  ml_counters_release(c);
}

static void test_processes(void) {
  enum { TIMES = 20000 };
  ml_counters *c;
  size_t processes = 0;
  pid_t children[2];
  if (!ok(ml_counters_new(0, &c, &err) == ML_OK, "counters")) return;
  time_t now = time(NULL);
  ok(ml_counters_started(c) > (double)now - 600 && ml_counters_started(c) < (double)now + 2, "the start of this process");
  uint32_t mine = ml_counters_series(c, ML_COUNTERS_COUNT, "f\0m", 3);
  ml_counters_add(c, mine, 5);
  int go[2], ready[2];
  char byte = 0;
  ok(pipe(go) == 0 && pipe(ready) == 0, "pipes");
  for (int i = 0; i < 2; ++i) {
    children[i] = fork();
    if (children[i] != 0) continue;
    uint32_t count = ml_counters_series(c, ML_COUNTERS_COUNT, "f\0m", 3), gauge = ml_counters_series(c, ML_COUNTERS_GAUGE, "g", 1);
    uint32_t requests = ml_counters_series(c, ML_COUNTERS_REQUESTS, "r", 1);
    if (count == mine) _exit(1); /* each process has its own */
    for (int k = 0; k < TIMES; ++k) {
      ml_counters_add(c, count, 1);
      ml_counters_add(c, mine, 1); /* both children fight for the parent's */
      ml_counters_end(c, requests, ml_counters_begin(c), 3, 7);
    }
    ml_counters_add(c, gauge, 4);
    ml_counters_begin(c); /* dies in the middle of this one */
    if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  ok(read(ready[0], &byte, 1) == 1 && read(ready[0], &byte, 1) == 1, "both have counted");
  ok(total(c, ML_COUNTERS_COUNT, "f\0m", 3).sum == 5 + 4 * TIMES, "nothing is lost between two processes");
  ml_counters_sample r = total(c, ML_COUNTERS_REQUESTS, "r", 1);
  ok(r.count == 2 * TIMES && r.bytes_in == 6 * TIMES && r.bytes_out == 14 * TIMES && r.sum > 0, "requests and their bytes");
  ok(total(c, ML_COUNTERS_GAUGE, "g", 1).sum == 8, "gauges of both");
  ok(in_flight(c, &processes) == 2 && processes == 3, "two in flight, three processes");
  ml_counters_process one;
  size_t at = 0;
  ok(ml_counters_next_process(c, &at, &one) && one.pid == getpid() && one.resident_bytes > 100000, "this one's memory");
  kill(children[0], SIGKILL);
  int status;
  siginfo_t info;
  waitid(P_PID, (id_t)children[0], &info, WEXITED | WNOWAIT); /* a zombie by now */
  ok(in_flight(c, &processes) == 1 && processes == 2, "a killed process is not in flight, even before it is reaped");
  waitpid(children[0], &status, 0);
  ok(total(c, ML_COUNTERS_COUNT, "f\0m", 3).sum == 5 + 4 * TIMES, "a killed process leaves its counts");
  ok(total(c, ML_COUNTERS_GAUGE, "g", 1).sum == 4, "… and takes its gauges along");
  pid_t child = fork(); /* takes the dead one's row */
  if (child == 0) {
    uint32_t gauge = ml_counters_series(c, ML_COUNTERS_GAUGE, "g", 1);
    ml_counters_add(c, gauge, 1);
    ml_counters_add(c, ml_counters_series(c, ML_COUNTERS_COUNT, "f\0m", 3), 1);
    if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1) _exit(1);
    _exit(0);
  }
  ok(read(ready[0], &byte, 1) == 1, "a new process");
  ok(total(c, ML_COUNTERS_GAUGE, "g", 1).sum == 5, "its gauges begin at zero");
  ok(total(c, ML_COUNTERS_COUNT, "f\0m", 3).sum == 6 + 4 * TIMES, "counts go on");
  ok(in_flight(c, &processes) == 1 && processes == 3, "and it has nothing in flight");
  ok(write(go[1], &byte, 1) == 1 && write(go[1], &byte, 1) == 1, "go");
  waitpid(children[1], &status, 0);
  ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the second child did all it should");
  waitpid(child, &status, 0);
  ok(WIFEXITED(status) && WEXITSTATUS(status) == 0, "and the third");
  close(go[0]), close(go[1]), close(ready[0]), close(ready[1]);
  ml_counters_release(c);
}

static void test_overflow(void) {
  ml_counters *c;
  char name[300];
  ok(ml_counters_new(ML_COUNTERS_KINDS, &c, &err) == ML_INVALID_ARGUMENT && c == NULL, "too few series");
  ok(ml_counters_new((size_t)1 << 40, &c, &err) == ML_INVALID_ARGUMENT && c == NULL, "too many");
  if (!ok(ml_counters_new(ML_COUNTERS_KINDS + 3, &c, &err) == ML_OK, "room for three")) return;
  uint64_t live = ml_alloc_get_stats().allocations;
  for (int i = 0; i < 1000; ++i) {
    int length = snprintf(name, sizeof name, "n%d", i);
    ml_counters_add(c, ml_counters_series(c, ML_COUNTERS_COUNT, name, (size_t)length), 1);
    ml_counters_end(c, ml_counters_series(c, ML_COUNTERS_REQUESTS, name, (size_t)length), ml_counters_begin(c), 1, 1);
  }
  uint64_t counts = 0, requests = 0;
  size_t series = 0;
  ml_counters_sample one;
  for (size_t at = 0; ml_counters_next(c, &at, &one); ++series) {
    if (one.kind == ML_COUNTERS_COUNT) counts += (uint64_t)one.sum;
    if (one.kind == ML_COUNTERS_REQUESTS) requests += one.count;
  }
  ok(counts == 1000 && requests == 1000 && series == 5, "all are counted, three by name, the others in one per kind: %zu", series);
  ok(total(c, ML_COUNTERS_COUNT, "", 0).sum == 998 && total(c, ML_COUNTERS_REQUESTS, "", 0).count == 999, "the unnamed ones");
  memset(name, 'x', sizeof name);
  ml_counters_add(c, ml_counters_series(c, ML_COUNTERS_COUNT, name, sizeof name), 1);
  ok(total(c, ML_COUNTERS_COUNT, "", 0).sum == 999, "a name too long to keep");
  ok(ml_alloc_get_stats().allocations == live, "counting allocates nothing");
  ml_counters_release(c);
  ml_alloc_fail_at(1, false);
  ok(ml_counters_new(0, &c, &err) == ML_RESOURCE_EXHAUSTED && c == NULL, "out of memory");
  ml_alloc_fail_at(0, false);
}

typedef struct worker { ml_counters *counters; pthread_t thread; } worker;

static void *count_names(void *arg) {
  ml_counters *c = ((worker *)arg)->counters;
  for (int i = 0; i < 2000; ++i) {
    uint32_t number = (uint32_t)i % 200;
    ml_counters_add(c, ml_counters_series(c, ML_COUNTERS_COUNT, (const char *)&number, sizeof number), 1);
  }
  return NULL;
}

static void test_threads(void) {
  worker workers[4];
  size_t series = 0;
  bool right = true;
  ml_counters *c;
  ml_counters_sample one;
  if (!ok(ml_counters_new(0, &c, &err) == ML_OK, "counters")) return;
  for (int i = 0; i < 4; ++i) {
    workers[i].counters = c;
    pthread_create(&workers[i].thread, NULL, count_names, &workers[i]);
  }
  for (int i = 0; i < 4; ++i) pthread_join(workers[i].thread, NULL);
  for (size_t at = 0; ml_counters_next(c, &at, &one); ++series) right = right && one.sum == 40;
  ok(right && series == 200, "threads that make the same series at the same time get one: %zu", series);
  ml_counters_release(c);
}

static size_t slurp(const char *path, char *out, size_t size) {
  FILE *file = fopen(path, "rb");
  size_t n = file == NULL ? 0 : fread(out, 1, size - 1, file);
  if (file != NULL) fclose(file);
  out[n] = '\0';
  return n;
}

static void test_log(void) {
  static char text[1 << 20];
  char directory[] = "/tmp/mlserve-log-XXXXXX", path[80], moved[80];
  ml_line_log *log;
  if (!ok(mkdtemp(directory) != NULL, "directory")) return;
  snprintf(path, sizeof path, "%s/log", directory);
  snprintf(moved, sizeof moved, "%s/moved", directory);
  if (!ok(ml_line_log_open(path, &log, &err) == ML_OK, "open")) return;
  ml_line_log_add(log, "\"n\":1}", 6);
  ok(slurp(path, text, sizeof text) == 0, "kept until it is flushed");
  ok(ml_line_log_flush(log, &err) == ML_OK && slurp(path, text, sizeof text) == 42, "one line");
  int year, month, day, hour, minute, second, milli;
  ok(sscanf(text, "{\"time\":\"%4d-%2d-%2dT%2d:%2d:%2d.%3dZ\",\"n\":1}\n", &year, &month, &day, &hour, &minute, &second, &milli) == 7, "%s", text);
  time_t now = time(NULL);
  struct tm parts = {.tm_year = year - 1900, .tm_mon = month - 1, .tm_mday = day, .tm_hour = hour, .tm_min = minute, .tm_sec = second};
  ok(llabs((long long)(now - timegm(&parts))) <= 2, "the time is now");
  struct stat info;
  ok(stat(path, &info) == 0 && (info.st_mode & 0777 & ~0640u) == 0, "not readable for everybody");
  rename(path, moved);
  ml_line_log_add(log, "2}", 2);
  ok(ml_line_log_flush(log, &err) == ML_OK && slurp(path, text, sizeof text) == 38 && slurp(moved, text, sizeof text) == 42,
     "a moved log is begun anew");
  unlink(path);
  ml_line_log_add(log, "3}", 2);
  ok(ml_line_log_reopen(log, &err) == ML_OK && slurp(path, text, sizeof text) == 38, "a removed one too");
  char *large = ml_alloc(70000);
  if (large != NULL) {
    memset(large, 'x', 70000);
    ml_line_log_add(log, large, 70000);
    ok(ml_line_log_lost(log) == 1 && ml_line_log_lost(log) == 0, "a line that is too long is lost, and counted");
    ml_line_log_add(log, large, 65000);
    ml_line_log_add(log, large, 65000);
    ok(slurp(path, text, sizeof text) == 38 + 65036, "a full buffer is written");
    ml_free(large);
  }
  ml_line_log_close(log);
  ok(slurp(path, text, sizeof text) == 38 + 2 * 65036, "closing writes the rest");
  unlink(path);
  /* two processes, one file: whole lines */
  pid_t children[2];
  for (int i = 0; i < 2; ++i) {
    children[i] = fork();
    if (children[i] != 0) continue;
    char line[120];
    memset(line, 'a' + i, sizeof line);
    if (ml_line_log_open(path, &log, &err) != ML_OK) _exit(1);
    for (int k = 0; k < 2000; ++k) ml_line_log_add(log, line, sizeof line);
    ml_line_log_close(log);
    _exit(0);
  }
  for (int i = 0; i < 2; ++i) waitpid(children[i], NULL, 0);
  size_t n = slurp(path, text, sizeof text), lines = 0;
  bool whole = n == 2 * 2000 * 156;
  for (size_t at = 0; whole && at < n; at += 156, ++lines) {
    whole = memcmp(text + at, "{\"time\":\"", 9) == 0 && text[at + 155] == '\n';
    for (size_t k = 35; k < 155; ++k) whole = whole && text[at + k] == text[at + 35];
  }
  ok(whole && lines == 4000, "lines of two processes do not mix: %zu bytes", n);
  unlink(path);
  unlink(moved);
  ok(ml_line_log_open(directory, &log, &err) == ML_UNAVAILABLE && log == NULL, "a directory is no file: %s", err.message);
  ok(mkfifo(path, 0600) == 0 && ml_line_log_open(path, &log, &err) == ML_UNAVAILABLE && log == NULL, "a pipe nobody reads");
  unlink(path);
  rmdir(directory);
  if (access("/dev/full", W_OK) == 0 && ok(ml_line_log_open("/dev/full", &log, &err) == ML_OK, "a full disk")) {
    ml_line_log_add(log, "1}", 2);
    ml_line_log_add(log, "2}", 2);
    ok(ml_line_log_flush(log, &err) == ML_UNAVAILABLE && ml_line_log_lost(log) == 2, "costs the lines, not the server: %s", err.message);
    ml_line_log_close(log);
  }
}

int main(void) {
  test_bounds();
  test_processes();
  test_overflow();
  test_threads();
  test_log();
  return done();
}
