/* What a server counts, in memory that processes forked later share.
 * Lives here: a table of series (a kind, a text that names it, some sums and buckets) and one row per process. May include: base.
 * Adding takes no lock and allocates nothing. A process that dies leaves what it has counted; what it was just doing (requests in
 * flight, gauges) goes with it. The table has a fixed size: what does not fit any more is counted in one series per kind whose
 * name is empty. Each process has series of its own, so that processors do not fight for cache lines; readers sum them by name.
 * Thread-safe. Ownership: reference counted per process; the mapping goes when the last process lets go. */
#ifndef ML_SERVE_COUNTERS_H
#define ML_SERVE_COUNTERS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/status.h"

typedef struct ml_counters ml_counters;

/* The name of a series is the name of its family and the values of its labels, each followed by a NUL but the last; for REQUESTS
 * the labels alone. */
#define ML_COUNTERS_KIND_MAP(X)                                                    \
  X(REQUESTS, "requests") /* latency, bytes in and out; see ml_counters_end */     \
  X(COUNT, "count")       /* grows */                                              \
  X(GAUGE, "gauge")       /* grows and shrinks */                                  \
  X(SECONDS, "seconds")   /* histogram of nanoseconds */                           \
  X(SIZE, "size")         /* histogram of small numbers */
typedef enum ml_counters_kind {
#define X(name, text) ML_COUNTERS_##name,
  ML_COUNTERS_KIND_MAP(X)
#undef X
  ML_COUNTERS_KINDS
} ml_counters_kind;

const char *ml_counters_kind_name(ml_counters_kind kind);

/* Upper bounds (inclusive) of a kind's buckets, one more bucket takes the rest. 10 us * 1.8^i, as TensorFlow Serving's; 2^i. */
enum { ML_COUNTERS_TIMES = 33, ML_COUNTERS_SIZES = 14, ML_COUNTERS_BUCKETS = ML_COUNTERS_TIMES + 1 };
const uint64_t *ml_counters_bounds(ml_counters_kind kind, size_t *n); /* NULL, 0: a kind without buckets */

/* slots: how many series there may be over all processes, 0 for the usual number. Make it before the fork. */
ml_status ml_counters_new(size_t slots, ml_counters **out, ml_error *err);
ml_counters *ml_counters_retain(ml_counters *counters);
void ml_counters_release(ml_counters *counters); /* NULL allowed */

/* This process's series of that name, made when it is not there; never fails. Ask once and keep the number: it stays good, but a
 * process should ask for its own gauges again after a fork. */
uint32_t ml_counters_series(ml_counters *counters, ml_counters_kind kind, const char *name, size_t length);

void ml_counters_add(ml_counters *counters, uint32_t series, int64_t amount);      /* COUNT, GAUGE */
void ml_counters_observe(ml_counters *counters, uint32_t series, uint64_t value);  /* SECONDS (in nanoseconds), SIZE */
/* A request begins: one more in flight. Returns the time, for the end. */
uint64_t ml_counters_begin(ml_counters *counters);
/* … and ends; series is of the kind REQUESTS. Returns the nanoseconds it took. */
uint64_t ml_counters_end(ml_counters *counters, uint32_t series, uint64_t begun, uint64_t bytes_in, uint64_t bytes_out);

/* ---- reading ---- */
typedef struct ml_counters_sample {
  ml_counters_kind kind;
  const char *name; /* borrowed from the table; length 0: what did not fit */
  size_t length;
  int64_t sum;      /* COUNT and GAUGE: the value; else the sum of what was observed (nanoseconds, rows) */
  uint64_t count, bytes_in, bytes_out;
  uint64_t buckets[ML_COUNTERS_BUCKETS]; /* not cumulative; their sum is count */
} ml_counters_sample;
/* The next sample; *at begins with 0. The same name comes once per process that counted; gauges of ended ones do not come. */
bool ml_counters_next(ml_counters *counters, size_t *at, ml_counters_sample *out);

typedef struct ml_counters_process {
  pid_t pid;
  int64_t in_flight;
  uint64_t resident_bytes;
} ml_counters_process;
/* The next process that has counted and lives. */
bool ml_counters_next_process(ml_counters *counters, size_t *at, ml_counters_process *out);

/* When the process that made the table was started, in seconds since the epoch. */
double ml_counters_started(const ml_counters *counters);

#endif
