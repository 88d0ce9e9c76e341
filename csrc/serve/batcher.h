/* Dynamic batching: requests that arrive one by one run together.
 * Lives here: the queue of one model, the threads that merge what waits in it, run it and split the results, and the port through
 * which an event loop hears what has finished. Knows neither protocols nor servables. May include: graph, tensor, base, counters.
 * Ownership: a job and its inputs belong to the submitter until ml_batcher_wait, ml_batcher_cancel or `done` says that it is over;
 * its outputs are the submitter's to release with ml_batch_job_clear. Every function may be called from any thread. Threads start
 * with the first job, so a batcher made before a fork works in the child. */
#ifndef ML_SERVE_BATCHER_H
#define ML_SERVE_BATCHER_H
#include "graph/program.h"
#include "serve/counters.h"
#include "tensor/container.h"

typedef struct ml_batcher ml_batcher;
typedef struct ml_batch_port ml_batch_port;

enum { ML_BATCH_DEFAULT_ROWS = 32, ML_BATCH_DEFAULT_QUEUE = 100, ML_BATCH_MAX_ROWS = 1 << 16, ML_BATCH_MAX_THREADS = 256 };

typedef struct ml_batch_options {
  size_t max_rows;        /* of a request; 0: ML_BATCH_DEFAULT_ROWS */
  size_t max_run_rows;    /* of a run; smaller than max_rows only with split; 0: max_rows */
  uint64_t timeout_us;    /* how long the first of a batch waits for others; 0: what is there runs */
  size_t max_batches;     /* max_rows times this many rows may wait (a larger request counts as max_rows when it comes); 0: ML_BATCH_DEFAULT_QUEUE */
  uint64_t max_wait_us;   /* a job that would wait longer for its run, by what runs have taken lately, is refused; 0: only max_batches counts */
  size_t threads;         /* runs at the same time; 0: 1 */
  const int64_t *allowed; /* ascending sizes of a run, the last is max_run_rows: smaller ones are filled up by repeating a row */
  size_t n_allowed;
  bool pad;               /* other dimensions may differ: they are filled up with the first element of the request's tensor */
  bool split;             /* a request may be spread over several runs, and may have more than max_rows rows */
  bool merge;             /* false: every request runs by itself (its rows influence each other) */
} ml_batch_options;

typedef enum ml_batch_state { ML_BATCH_NEW, ML_BATCH_QUEUED, ML_BATCH_DONE } ml_batch_state;

typedef struct ml_batch_job {
  /* what to run */
  const ml_view *inputs;   /* one per input of the graph */
  uint32_t priority;       /* 1 runs before 2 …; 0: ML_BATCH_PRIORITY */
  uint64_t deadline_ns;    /* of ml_clock_ns, for the beginning of the run; 0: none */
  ml_batch_port *port;     /* told when the job is over; NULL: nobody is */
  uint64_t id;             /* what the port is told */
  /* what came of it, once it is over */
  ml_status status;
  ml_error error;
  ml_item *outputs;        /* n outputs of the graph; memory of the submitter's, zeroed */
  uint64_t queue_ns;       /* from submission to the beginning of the first run */
  size_t run_rows;         /* of the largest run that the job had part in, rows that fill up not counted */
  /* private */
  ml_batch_state state;
  size_t rows, taken, in_flight; /* rows; those given to runs; runs that have not ended */
  bool alone;
  uint64_t begin_ns;
  struct ml_batch_job *next, *previous;
} ml_batch_job;

enum { ML_BATCH_PRIORITY = 100 };

typedef struct ml_batch_stats {
  uint64_t runs, rows, filled;         /* runs, their rows, rows added to reach an allowed size */
  uint64_t jobs, merged;               /* jobs that ended well; those that shared a run with another */
  uint64_t refused, expired, cancelled, failed;
  uint64_t largest;                    /* rows of the largest run */
  uint64_t queue_ns, run_ns;           /* sums */
  size_t waiting_jobs, waiting_rows;   /* now */
} ml_batch_stats;

/* Retains program, copies options. Errors: a wrong option. */
ml_status ml_batcher_new(ml_program *program, const ml_batch_options *options, ml_batcher **out, ml_error *err);
/* No job may be left. Joins the threads. NULL allowed. */
void ml_batcher_free(ml_batcher *batcher);
ml_batch_stats ml_batcher_stats(ml_batcher *batcher);
/* From now on sizes of runs, times in the queue, its length and what it refused or dropped are counted too, under `labels` (model and
 * version, a NUL between them). Retains counters; only once, before the first job. */
ml_status ml_batcher_count(ml_batcher *batcher, ml_counters *counters, const char *labels, size_t length, ml_error *err);
const ml_batch_options *ml_batcher_options(const ml_batcher *batcher);

/* UNAVAILABLE when the queue is full or too long, INVALID_ARGUMENT when the request is too large; the job is then not in the queue. */
ml_status ml_batcher_submit(ml_batcher *batcher, ml_batch_job *job, ml_error *err);
/* Blocks until the job is over; one whose deadline passes in the queue is over then. Returns its status. */
ml_status ml_batcher_wait(ml_batcher *batcher, ml_batch_job *job);
bool ml_batcher_over(ml_batcher *batcher, ml_batch_job *job);
/* Takes a job that has not begun out of the queue: it is over with CANCELLED (its port is not told). false: it runs, or is over. Of a job
 * that is spread over several runs the rest is taken out. */
bool ml_batcher_cancel(ml_batcher *batcher, ml_batch_job *job);
/* The same for a job whose deadline has passed: DEADLINE_EXCEEDED. */
bool ml_batcher_expire(ml_batcher *batcher, ml_batch_job *job);
/* Releases the outputs. */
void ml_batch_job_clear(ml_batch_job *job, size_t n_outputs);

/* ---- port: reference-counted ---- */
ml_status ml_batch_port_new(ml_batch_port **out, ml_error *err);
ml_batch_port *ml_batch_port_retain(ml_batch_port *port);
void ml_batch_port_release(ml_batch_port *port);     /* NULL allowed; closes the descriptor with the last reference */
int ml_batch_port_descriptor(const ml_batch_port *port); /* readable while there is something to take */
bool ml_batch_port_take(ml_batch_port *port, uint64_t *id); /* false: nothing has finished */

#endif
