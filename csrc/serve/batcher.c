/* Each thread takes jobs from the front of the queue (higher priority first, then first come first served) as long as they fit together
 * and into one run; when the run is not full it waits until the oldest of them has waited long enough. Inputs are gathered along axis 0
 * into the session's own memory, outputs are split into tensors of each job. A job that does not fit, and whatever cannot be merged
 * (rank 0, unequal first dimensions), waits for a run of its own.
 *
 * When a merged run fails, its jobs run again one by one, so that a bad row fails the request that has it and no other. When the rows of an
 * output do not follow those of the inputs, the model is no longer merged at all.
 *
 * One lock per batcher guards its queue and its jobs' states; inputs and outputs of a job are touched outside of it, by at most one thread
 * for each row. A job is over when its last run has ended; from then on the batcher does not touch it. Lock order: batcher, then port.
 * Nothing is allocated between taking a job and its run but the session and the results: a thread's lists are as long as a run can be. */
#include "serve/batcher.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/cpu.h"

typedef struct slice { ml_batch_job *job; size_t begin, count; } slice;

typedef struct worker {
  ml_batcher *batcher;
  pthread_t thread;
  slice *slices;   /* max_run_rows */
  ml_view *views;  /* of the merged inputs */
  bool mixed;      /* the last run's outputs do not follow its rows */
} worker;

struct ml_batcher {
  ml_program *program;
  ml_batch_options options;
  int64_t *allowed;
  size_t n_in, n_out;
  bool splits;              /* options.split, and no output is of strings or containers */
  bool merges;              /* under the lock */
  pthread_mutex_t lock;
  pthread_cond_t work, over; /* over: broadcast when a job somebody waits for ends */
  ml_batch_job *first, *last;
  size_t waiters, idle, started;
  size_t running;           /* rows of the runs under way */
  uint64_t row_ns;          /* what a row takes in a run: mean of the last runs, the latest counting most; 0: none has ended */
  bool closing;
  pid_t process;            /* whose threads these are */
  ml_batch_stats stats;
  worker *workers;
  ml_counters *counters;    /* NULL: nobody wants to know */
  char *labels;
  size_t labels_length;
  uint32_t sizes, times, length, refused, expired; /* this process's series */
};

/* ---------------------------------------------------------------- port ---- */
struct ml_batch_port {
  uint32_t references;
  int descriptor;
  pthread_mutex_t lock;
  uint64_t *ids;            /* a ring of `capacity`, at least `expected` */
  size_t first, count, expected, capacity;
};

ml_status ml_batch_port_new(ml_batch_port **out, ml_error *err)
{
  *out = NULL;
  ml_batch_port *p = ml_alloc_zero(1, sizeof *p);
  if (!p) return ml_fail_memory(err, sizeof *p, "a port");
  p->descriptor = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (p->descriptor < 0) {
    int code = errno;
    ml_free(p);
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "eventfd: %s", strerror(code));
  }
  p->references = 1;
  pthread_mutex_init(&p->lock, NULL);
  *out = p;
  return ML_OK;
}

ml_batch_port *ml_batch_port_retain(ml_batch_port *port)
{
  __atomic_fetch_add(&port->references, 1, __ATOMIC_RELAXED);
  return port;
}

void ml_batch_port_release(ml_batch_port *port)
{
  if (!port || __atomic_fetch_sub(&port->references, 1, __ATOMIC_ACQ_REL) != 1) return;
  close(port->descriptor);
  pthread_mutex_destroy(&port->lock);
  ml_free(port->ids);
  ml_free(port);
}

int ml_batch_port_descriptor(const ml_batch_port *port) { return port->descriptor; }

/* Room for one more, so that telling cannot fail. */
static ml_status expect(ml_batch_port *p, ml_error *err)
{
  ml_status status = ML_OK;
  pthread_mutex_lock(&p->lock);
  if (p->expected == p->capacity) {
    size_t capacity = p->capacity ? 2 * p->capacity : 16;
    uint64_t *ids = ml_alloc(capacity * sizeof *ids);
    if (ids) {
      for (size_t i = 0; i < p->count; i++) ids[i] = p->ids[(p->first + i) % p->capacity];
      ml_free(p->ids);
      p->ids = ids;
      p->first = 0;
      p->capacity = capacity;
    } else {
      status = ml_fail_memory(err, capacity * sizeof *ids, "a port");
    }
  }
  if (status == ML_OK) p->expected++;
  pthread_mutex_unlock(&p->lock);
  return status;
}

static void forget(ml_batch_port *p)
{
  pthread_mutex_lock(&p->lock);
  p->expected--;
  pthread_mutex_unlock(&p->lock);
}

static void tell(ml_batch_port *p, uint64_t id)
{
  pthread_mutex_lock(&p->lock);
  p->ids[(p->first + p->count++) % p->capacity] = id;
  if (p->count == 1) {
    uint64_t one = 1;
    ssize_t written = write(p->descriptor, &one, sizeof one); /* cannot block: the counter is 0 or 1 */
    (void)written;
  }
  pthread_mutex_unlock(&p->lock);
}

bool ml_batch_port_take(ml_batch_port *p, uint64_t *id)
{
  pthread_mutex_lock(&p->lock);
  bool any = p->count > 0;
  if (any) {
    *id = p->ids[p->first];
    p->first = (p->first + 1) % p->capacity;
    p->expected--;
    if (--p->count == 0) {
      uint64_t counter;
      ssize_t got = read(p->descriptor, &counter, sizeof counter);
      (void)got;
    }
  }
  pthread_mutex_unlock(&p->lock);
  return any;
}

/* ---------------------------------------------------------------- life ---- */
static ml_status check(const ml_batch_options *o, ml_error *err)
{
  if (o->max_rows > ML_BATCH_MAX_ROWS) return ml_fail(err, ML_INVALID_ARGUMENT, "max_batch_size: at most %d expected, got %zu", ML_BATCH_MAX_ROWS, o->max_rows);
  if (o->max_run_rows > o->max_rows)
    return ml_fail(err, ML_INVALID_ARGUMENT, "max_execution_batch_size should be less than or equal to max_batch_size, got %zu and %zu", o->max_run_rows,
                   o->max_rows);
  if (o->max_run_rows < o->max_rows && !o->split)
    return ml_fail(err, ML_INVALID_ARGUMENT, "max_execution_batch_size is for enable_large_batch_splitting");
  if (o->max_batches > (size_t)1 << 20) return ml_fail(err, ML_INVALID_ARGUMENT, "max_enqueued_batches: at most %d expected, got %zu", 1 << 20, o->max_batches);
  if (o->timeout_us > 3600000000u)
    return ml_fail(err, ML_INVALID_ARGUMENT, "batch_timeout_micros: at most an hour expected, got %llu", (unsigned long long)o->timeout_us);
  if (o->max_wait_us > 3600000000u)
    return ml_fail(err, ML_INVALID_ARGUMENT, "max_queue_micros: at most an hour expected, got %llu", (unsigned long long)o->max_wait_us);
  if (o->threads > ML_BATCH_MAX_THREADS)
    return ml_fail(err, ML_INVALID_ARGUMENT, "num_batch_threads: 1 to %d expected, got %zu", ML_BATCH_MAX_THREADS, o->threads);
  for (size_t i = 0; i < o->n_allowed; i++)
    if (o->allowed[i] < 1 || (i > 0 && o->allowed[i] <= o->allowed[i - 1]))
      return ml_fail(err, ML_INVALID_ARGUMENT, "allowed_batch_sizes entries must be positive and monotonically increasing");
  if (o->n_allowed > 0 && (size_t)o->allowed[o->n_allowed - 1] != o->max_run_rows)
    return ml_fail(err, ML_INVALID_ARGUMENT, "the last entry in allowed_batch_sizes must equal %s, %zu; got %lld",
                   o->max_run_rows < o->max_rows ? "max_execution_batch_size" : "max_batch_size", o->max_run_rows,
                   (long long)o->allowed[o->n_allowed - 1]);
  return ML_OK;
}

static void init_locks(ml_batcher *b)
{
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* deadlines do not move with the wall clock */
  pthread_mutex_init(&b->lock, NULL);
  pthread_cond_init(&b->work, &attributes);
  pthread_cond_init(&b->over, &attributes);
  pthread_condattr_destroy(&attributes);
}

static void destroy(ml_batcher *b)
{
  if (b->started == 0 || b->process == getpid()) { /* else threads that this process does not have wait on them */
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->work);
    pthread_cond_destroy(&b->over);
  }
  for (size_t i = 0; b->workers && i < b->options.threads; i++) {
    ml_free(b->workers[i].slices);
    ml_free(b->workers[i].views);
  }
  ml_free(b->workers);
  ml_free(b->allowed);
  ml_free(b->labels);
  ml_counters_release(b->counters);
  ml_program_release(b->program);
  ml_free(b);
}

ml_status ml_batcher_new(ml_program *program, const ml_batch_options *options, ml_batcher **out, ml_error *err)
{
  const ml_graph *g = ml_program_graph(program);
  ml_batch_options o = *options;
  *out = NULL;
  if (o.max_rows == 0) o.max_rows = ML_BATCH_DEFAULT_ROWS;
  if (o.max_run_rows == 0) o.max_run_rows = o.max_rows;
  if (o.max_batches == 0) o.max_batches = ML_BATCH_DEFAULT_QUEUE;
  if (o.threads == 0) o.threads = 1;
  ML_TRY(check(&o, err));
  ml_batcher *b = ml_alloc_zero(1, sizeof *b);
  if (!b) return ml_fail_memory(err, sizeof *b, "a batcher");
  init_locks(b);
  b->program = ml_program_retain(program);
  b->options = o;
  b->n_in = g->n_inputs;
  b->n_out = g->n_outputs;
  b->merges = o.merge;
  b->splits = o.split;
  for (size_t i = 0; i < g->n_outputs; i++)
    if (g->outputs[i]->type || g->outputs[i]->dtype == ML_STRING || g->outputs[i]->dtype == ML_DTYPE_NONE) b->splits = false; /* their elements cannot be put together afterwards */
  b->allowed = ml_alloc((o.n_allowed + 1) * sizeof *b->allowed);
  b->workers = ml_alloc_zero(o.threads, sizeof *b->workers);
  bool complete = b->allowed && b->workers;
  for (size_t i = 0; complete && i < o.threads; i++) {
    worker *w = &b->workers[i];
    w->batcher = b;
    w->slices = ml_alloc(o.max_run_rows * sizeof *w->slices);
    w->views = ml_alloc_zero(b->n_in + 1, sizeof *w->views);
    complete = w->slices && w->views;
  }
  if (!complete) {
    destroy(b);
    return ml_fail_memory(err, o.threads * o.max_run_rows * sizeof(slice), "a batcher");
  }
  if (o.n_allowed > 0) memcpy(b->allowed, o.allowed, o.n_allowed * sizeof *b->allowed);
  b->options.allowed = b->allowed;
  *out = b;
  return ML_OK;
}

void ml_batcher_free(ml_batcher *b)
{
  if (!b) return;
  if (b->started > 0 && b->process == getpid()) { /* else they are the parent's */
    pthread_mutex_lock(&b->lock);
    b->closing = true;
    pthread_cond_broadcast(&b->work);
    pthread_mutex_unlock(&b->lock);
    for (size_t i = 0; i < b->started; i++) pthread_join(b->workers[i].thread, NULL);
  }
  destroy(b);
}

ml_batch_stats ml_batcher_stats(ml_batcher *b)
{
  pthread_mutex_lock(&b->lock);
  ml_batch_stats stats = b->stats;
  pthread_mutex_unlock(&b->lock);
  return stats;
}

const ml_batch_options *ml_batcher_options(const ml_batcher *b) { return &b->options; }

void ml_batch_job_clear(ml_batch_job *job, size_t n_outputs)
{
  for (size_t i = 0; i < n_outputs; i++) {
    ml_tensor_release(job->outputs[i].tensor);
    ml_container_release(job->outputs[i].container);
    job->outputs[i] = (ml_item){ NULL, NULL };
  }
}

/* ---------------------------------------------------------------- queue (under the lock) ---- */
static void enqueue(ml_batcher *b, ml_batch_job *job)
{
  ml_batch_job *after = b->last;
  while (after && after->priority > job->priority) after = after->previous;
  job->previous = after;
  job->next = after ? after->next : b->first;
  *(job->next ? &job->next->previous : &b->last) = job;
  *(after ? &after->next : &b->first) = job;
  b->stats.waiting_jobs++;
  if (b->counters) ml_counters_add(b->counters, b->length, 1);
  b->stats.waiting_rows += job->rows - job->taken;
}

static void unlink_job(ml_batcher *b, ml_batch_job *job)
{
  *(job->previous ? &job->previous->next : &b->first) = job->next;
  *(job->next ? &job->next->previous : &b->last) = job->previous;
  job->next = job->previous = NULL;
  b->stats.waiting_jobs--;
  if (b->counters) ml_counters_add(b->counters, b->length, -1);
  b->stats.waiting_rows -= job->rows - job->taken;
  job->taken = job->rows;
}

/* The job is over: after this it may be gone. */
static void finish(ml_batcher *b, ml_batch_job *job, bool told)
{
  ml_batch_port *port = job->port;
  job->state = ML_BATCH_DONE;
  if (job->status == ML_OK) {
    b->stats.jobs++;
    b->stats.queue_ns += job->queue_ns;
  } else if (job->status != ML_CANCELLED && job->status != ML_DEADLINE_EXCEEDED) {
    b->stats.failed++;
  }
  if (port && told) tell(port, job->id);
  else if (port) forget(port);
  if (b->waiters > 0) pthread_cond_broadcast(&b->over);
}

static void drop(ml_batcher *b, ml_batch_job *job, ml_status status, bool told)
{
  unlink_job(b, job);
  if (status == ML_CANCELLED) b->stats.cancelled++;
  else b->stats.expired++;
  if (b->counters && status != ML_CANCELLED) ml_counters_add(b->counters, b->expired, 1);
  job->status = status == ML_CANCELLED ? ml_fail(&job->error, status, "the request was cancelled")
                                       : ml_fail(&job->error, status, "the request's time was up before it left the queue");
  finish(b, job, told);
}

static bool is_late(const ml_batch_job *job, uint64_t now) { return job->deadline_ns && job->taken == 0 && now >= job->deadline_ns; }

static void drop_late(ml_batcher *b, uint64_t now)
{
  for (ml_batch_job *job = b->first, *next; job; job = next) {
    next = job->next;
    if (is_late(job, now)) drop(b, job, ML_DEADLINE_EXCEEDED, true);
  }
}

/* May rows of both stand in one tensor? */
static bool fits(const ml_batcher *b, const ml_batch_job *x, const ml_batch_job *y)
{
  for (size_t i = 0; i < b->n_in; i++) {
    const ml_view *p = &x->inputs[i], *q = &y->inputs[i];
    if (p->dtype != q->dtype || p->rank != q->rank) return false;
    if (b->options.pad && p->count > 0 && q->count > 0) continue;
    if (!ml_shape_equal(p->dims + 1, p->rank - 1, q->dims + 1, q->rank - 1)) return false;
  }
  return true;
}

/* What would run now from the front of the queue; *full: nothing that may come can be added to it. */
static size_t collect(ml_batcher *b, slice *slices, size_t *rows, bool *full)
{
  size_t n = 0, most = b->options.max_run_rows;
  *rows = 0;
  *full = false;
  for (ml_batch_job *job = b->first; job && !*full; job = job->next) {
    if (n > 0 && (job->alone || !fits(b, slices[0].job, job))) continue;
    size_t left = job->rows - job->taken, room = most - *rows;
    if (!b->merges && job->taken == 0) {
      if (n > 0) break;
      job->alone = true;
    }
    if (job->alone) {
      slices[n++] = (slice){ job, 0, job->rows };
      *rows = job->rows;
      *full = true;
    } else if (left <= room || b->splits) {
      size_t count = left < room ? left : room;
      slices[n++] = (slice){ job, job->taken, count };
      *rows += count;
      *full = *rows == most;
    } else {
      *full = true;
    }
  }
  return n;
}

/* ---------------------------------------------------------------- run ---- */
/* Rows of `from` into `to`, whose inner dimensions are as large or larger; what is added holds `filling`. */
static void copy_padded(char *to, const int64_t *to_dims, const char *from, const int64_t *from_dims, int32_t rank, size_t width, const char *filling)
{
  size_t to_step = width, from_step = width;
  if (rank == 0) {
    memcpy(to, from, width);
    return;
  }
  for (int32_t k = 1; k < rank; k++) {
    to_step *= (size_t)to_dims[k];
    from_step *= (size_t)from_dims[k];
  }
  for (int64_t i = 0; i < from_dims[0]; i++, to += to_step, from += from_step) copy_padded(to, to_dims + 1, from, from_dims + 1, rank - 1, width, filling);
  for (size_t left = (size_t)(to_dims[0] - from_dims[0]) * (to_step / width); left > 0; left--, to += width) memcpy(to, filling, width);
}

static void gather(const ml_view *to, size_t input, const slice *slices, size_t n)
{
  size_t width = ml_dtype_size(to->dtype), row = to->dims[0] ? to->count / (size_t)to->dims[0] * width : 0;
  char *at = to->data, *begin = at;
  if (to->count == 0) return;
  for (size_t i = 0; i < n; i++) {
    const ml_view *from = &slices[i].job->inputs[input];
    if (ml_shape_equal(from->dims + 1, from->rank - 1, to->dims + 1, to->rank - 1)) {
      memcpy(at, (const char *)from->data + slices[i].begin * row, slices[i].count * row);
    } else {
      size_t own = from->count / (size_t)from->dims[0] * width;
      const char *source = (const char *)from->data + slices[i].begin * own;
      for (size_t k = 0; k < slices[i].count; k++)
        copy_padded(at + k * row, to->dims + 1, source + k * own, from->dims + 1, to->rank - 1, width, from->data);
    }
    at += slices[i].count * row;
  }
  for (char *end = begin + to->count * width; at < end; at += row) memcpy(at, begin, row); /* up to an allowed size */
}

static size_t run_size(const ml_batcher *b, size_t rows)
{
  for (size_t i = 0; i < b->options.n_allowed; i++)
    if ((size_t)b->allowed[i] >= rows) return (size_t)b->allowed[i];
  return rows;
}

static ml_status merge_views(const ml_batcher *b, ml_view *views, const slice *slices, size_t n, size_t rows, ml_error *err)
{
  for (size_t i = 0; i < b->n_in; i++) {
    ml_view *v = &views[i];
    *v = slices[0].job->inputs[i];
    if (slices[0].job->alone) continue;
    v->dims[0] = (int64_t)rows;
    for (size_t s = 1; b->options.pad && s < n; s++)
      for (int32_t k = 1; k < v->rank; k++)
        if (slices[s].job->inputs[i].dims[k] > v->dims[k]) v->dims[k] = slices[s].job->inputs[i].dims[k];
    ML_TRY(ml_shape_count(v->dims, v->rank, v->dtype, &v->count, err));
  }
  return ML_OK;
}

/* The results of a job that has the session to itself. */
static ml_status keep_outputs(const ml_batcher *b, ml_batch_job *job, ml_session *session, ml_error *err)
{
  for (size_t i = 0; i < b->n_out; i++) ML_TRY(ml_item_of(ml_session_output(session, i), &job->outputs[i], err));
  return ML_OK;
}

static ml_status mixed(ml_error *err)
{
  return ml_fail(err, ML_FAILED_PRECONDITION, "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the input tensors");
}

static bool follows(const ml_batcher *b, ml_session *session, size_t rows)
{
  for (size_t i = 0; i < b->n_out; i++) {
    const ml_view *v = ml_session_output(session, i);
    if (v->type || v->rank < 1 || v->dims[0] != (int64_t)rows) return false;
  }
  return true;
}

/* Tensors of a job's own for all of its rows, made by the first of its runs. */
static ml_status make_outputs(ml_batcher *b, ml_batch_job *job, ml_session *session, ml_error *err)
{
  ml_status status = ML_OK;
  pthread_mutex_lock(&b->lock);
  for (size_t i = 0; status == ML_OK && i < b->n_out; i++) {
    ml_view v = *ml_session_output(session, i);
    const ml_tensor *have = job->outputs[i].tensor;
    v.dims[0] = (int64_t)job->rows;
    if (!have) status = ml_tensor_new(v.dtype, v.dims, v.rank, &job->outputs[i].tensor, err);
    else if (have->view.dtype != v.dtype || !ml_shape_equal(v.dims, v.rank, have->view.dims, have->view.rank)) status = mixed(err);
  }
  pthread_mutex_unlock(&b->lock);
  return status;
}

static ml_status scatter(ml_batcher *b, const slice *part, size_t from, ml_session *session, ml_error *err)
{
  bool strings = false;
  for (size_t i = 0; i < b->n_out; i++) strings = strings || ml_session_output(session, i)->dtype == ML_STRING;
  if (!strings) ML_TRY(make_outputs(b, part->job, session, err));
  for (size_t i = 0; i < b->n_out; i++) {
    ml_view v = *ml_session_output(session, i);
    size_t row = v.count / (size_t)v.dims[0], bytes = row * ml_dtype_size(v.dtype);
    v.data = v.data ? (char *)v.data + from * bytes : NULL;
    v.dims[0] = (int64_t)part->count;
    v.count = row * part->count;
    if (strings) ML_TRY(ml_tensor_copy_of(&v, &part->job->outputs[i].tensor, err)); /* whole jobs: strings are not split */
    else if (v.count > 0) memcpy((char *)part->job->outputs[i].tensor->view.data + part->begin * bytes, v.data, part->count * bytes);
  }
  return ML_OK;
}

static ml_status run_session(worker *w, ml_session *session, const slice *slices, size_t n, size_t size, ml_error *err)
{
  ml_batcher *b = w->batcher;
  const ml_batch_job *first = slices[0].job;
  for (size_t i = 0; i < b->n_in; i++) {
    const ml_view *to = ml_session_input(session, i);
    if (!first->alone) gather(to, i, slices, n);
    else if (to->count > 0) memcpy(to->data, first->inputs[i].data, to->count * ml_dtype_size(to->dtype));
  }
  ML_TRY(ml_session_run(session, err));
  if (n == 1 && slices[0].count == first->rows && (first->alone || size == first->rows)) return keep_outputs(b, slices[0].job, session, err);
  w->mixed = !follows(b, session, size);
  if (w->mixed) return mixed(err);
  for (size_t i = 0, from = 0; i < n; from += slices[i++].count) ML_TRY(scatter(b, &slices[i], from, session, err));
  return ML_OK;
}

static void count_run(ml_batcher *b, size_t rows, size_t size, uint64_t ns)
{
  pthread_mutex_lock(&b->lock);
  b->stats.runs++;
  b->stats.rows += rows;
  if (b->counters) ml_counters_observe(b->counters, b->sizes, rows);
  b->stats.filled += size - rows;
  if (rows > b->stats.largest) b->stats.largest = rows;
  b->stats.run_ns += ns;
  ns /= rows ? rows : 1;
  b->row_ns = b->row_ns == 0 ? ns : (7 * b->row_ns + ns) / 8;
  pthread_mutex_unlock(&b->lock);
}

static ml_status run_slices(worker *w, const slice *slices, size_t n, ml_error *err)
{
  ml_batcher *b = w->batcher;
  ml_session *session = NULL;
  size_t rows = 0;
  for (size_t i = 0; i < n; i++) rows += slices[i].count;
  size_t size = slices[0].job->alone ? rows : run_size(b, rows);
  uint64_t begin = ml_clock_ns();
  w->mixed = false;
  ML_TRY(merge_views(b, w->views, slices, n, size, err));
  ML_TRY(ml_program_acquire(b->program, w->views, &session, err));
  ml_status status = run_session(w, session, slices, n, size, err);
  ml_program_return(b->program, session);
  count_run(b, rows, size, ml_clock_ns() - begin);
  return status;
}

/* Ends the run for a job; the last one ends the job. Under the lock. */
static void leave(ml_batcher *b, const slice *part, size_t jobs, size_t rows, ml_status status, const ml_error *error)
{
  ml_batch_job *job = part->job;
  job->in_flight--;
  b->running -= part->count;
  if (rows > job->run_rows) job->run_rows = rows;
  if (status != ML_OK && job->status == ML_OK) {
    job->status = status;
    job->error = *error;
    if (job->taken < job->rows) unlink_job(b, job); /* the rest is not worth running */
  }
  if (job->taken < job->rows || job->in_flight > 0) return;
  if (jobs > 1 && job->status == ML_OK) b->stats.merged++;
  finish(b, job, true);
}

static void run_batch(worker *w, size_t n, size_t rows)
{
  ml_batcher *b = w->batcher;
  ml_error error;
  ml_status status = run_slices(w, w->slices, n, &error);
  bool mixes = w->mixed;
  if (mixes) {
    pthread_mutex_lock(&b->lock);
    b->merges = false;
    pthread_mutex_unlock(&b->lock);
  }
  if (status == ML_OK || (n == 1 && !mixes)) {
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; i < n; i++) leave(b, &w->slices[i], n, rows, status, &error);
    pthread_mutex_unlock(&b->lock);
    return;
  }
  for (size_t i = 0; i < n; i++) { /* whose fault was it? */
    ml_error own;
    ml_batch_job *job = w->slices[i].job;
    for (size_t k = 0; w->slices[i].count == job->rows && k < b->n_out; k++) { /* what the failed run left */
      ml_tensor_release(job->outputs[k].tensor);
      job->outputs[k].tensor = NULL;
    }
    if (mixes && w->slices[i].count == job->rows) job->alone = true;
    ml_status alone = run_slices(w, &w->slices[i], 1, &own);
    pthread_mutex_lock(&b->lock);
    leave(b, &w->slices[i], 1, w->slices[i].count, alone, &own);
    pthread_mutex_unlock(&b->lock);
  }
}

static struct timespec at_ns(uint64_t ns) { return (struct timespec){ .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) }; }

/* When the batch that is gathering must run: waiting for others takes at most half of the time that a job has. */
static uint64_t wake_time(const ml_batcher *b, const slice *slices, size_t n)
{
  uint64_t wake = UINT64_MAX;
  for (size_t i = 0; i < n; i++) {
    const ml_batch_job *job = slices[i].job;
    uint64_t most = b->options.timeout_us * 1000;
    if (job->deadline_ns > job->begin_ns && (job->deadline_ns - job->begin_ns) / 2 < most) most = (job->deadline_ns - job->begin_ns) / 2;
    if (job->begin_ns + most < wake) wake = job->begin_ns + most;
  }
  return wake;
}

static void *work(void *argument)
{
  worker *w = argument;
  ml_batcher *b = w->batcher;
  pthread_mutex_lock(&b->lock);
  for (;;) {
    uint64_t now = ml_clock_ns();
    size_t rows;
    bool full;
    drop_late(b, now);
    size_t n = collect(b, w->slices, &rows, &full);
    if (n == 0) {
      if (b->closing) break;
      b->idle++;
      pthread_cond_wait(&b->work, &b->lock);
      b->idle--;
      continue;
    }
    uint64_t wake = full || b->closing || b->options.timeout_us == 0 ? 0 : wake_time(b, w->slices, n);
    if (now < wake) {
      struct timespec until = at_ns(wake);
      b->idle++;
      pthread_cond_timedwait(&b->work, &b->lock, &until);
      b->idle--;
      continue;
    }
    for (size_t i = 0; i < n; i++) {
      ml_batch_job *job = w->slices[i].job;
      if (job->taken == 0) {
        job->queue_ns = now - job->begin_ns;
        if (b->counters) ml_counters_observe(b->counters, b->times, job->queue_ns);
      }
      if (job->taken + w->slices[i].count == job->rows) {
        unlink_job(b, job);
      } else {
        job->taken += w->slices[i].count;
        b->stats.waiting_rows -= w->slices[i].count;
      }
      job->in_flight++;
    }
    if (b->first && b->idle > 0) pthread_cond_signal(&b->work);
    b->running += rows;
    pthread_mutex_unlock(&b->lock);
    run_batch(w, n, rows);
    pthread_mutex_lock(&b->lock);
  }
  pthread_mutex_unlock(&b->lock);
  return NULL;
}

/* ---------------------------------------------------------------- submitting ---- */
/* Under the lock. */
static ml_status start_threads(ml_batcher *b, ml_error *err)
{
  sigset_t all, before;
  int code = 0;
  sigfillset(&all); /* signals are for the program's own threads */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  while (b->started < b->options.threads && code == 0) {
    code = pthread_create(&b->workers[b->started].thread, NULL, work, &b->workers[b->started]);
    if (code == 0) b->started++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return b->started > 0 ? ML_OK : ml_fail(err, ML_RESOURCE_EXHAUSTED, "cannot start a thread: %s", strerror(code));
}

static uint32_t series_of(const ml_batcher *b, ml_counters_kind kind, const char *family)
{
  char name[320];
  size_t n = strlen(family) + 1;
  if (b->labels_length > sizeof name - n) return ml_counters_series(b->counters, kind, "", 0);
  memcpy(name, family, n);
  memcpy(name + n, b->labels, b->labels_length);
  return ml_counters_series(b->counters, kind, name, n + b->labels_length);
}

/* Each process has series of its own. */
static void find_series(ml_batcher *b)
{
  b->sizes = series_of(b, ML_COUNTERS_SIZE, "batch_size");
  b->times = series_of(b, ML_COUNTERS_SECONDS, "queue_seconds");
  b->length = series_of(b, ML_COUNTERS_GAUGE, "queue_length");
  b->refused = series_of(b, ML_COUNTERS_COUNT, "queue_rejected");
  b->expired = series_of(b, ML_COUNTERS_COUNT, "queue_expired");
}

ml_status ml_batcher_count(ml_batcher *b, ml_counters *counters, const char *labels, size_t length, ml_error *err)
{
  if (b->counters) return ml_fail(err, ML_FAILED_PRECONDITION, "the batcher is counted already");
  b->labels = ml_strndup(labels, length);
  if (!b->labels) return ml_fail_memory(err, length + 1, "labels of a batcher");
  b->labels_length = length;
  b->counters = ml_counters_retain(counters);
  b->process = 0;
  return ML_OK;
}

/* Rows of the inputs; 0: they do not agree, or there are none. */
static size_t rows_of(const ml_batcher *b, const ml_batch_job *job)
{
  int64_t rows = b->n_in > 0 && job->inputs[0].rank > 0 ? job->inputs[0].dims[0] : 0;
  for (size_t i = 0; i < b->n_in; i++)
    if (job->inputs[i].type || job->inputs[i].rank < 1 || job->inputs[i].dims[0] != rows) return 0;
  return (size_t)rows;
}

static ml_status refuse(ml_batcher *b)
{
  b->stats.refused++;
  if (b->counters) ml_counters_add(b->counters, b->refused, 1);
  return ML_UNAVAILABLE;
}

/* How long a job of this priority would wait, when runs go on as they did lately. What runs now is taken for half done. */
static uint64_t expected_wait(const ml_batcher *b, uint32_t priority)
{
  size_t rows = b->stats.waiting_rows;
  for (const ml_batch_job *job = b->last; job && job->priority > priority; job = job->previous) rows -= job->rows - job->taken;
  return (uint64_t)(((double)rows + (double)b->running / 2) * (double)b->row_ns / (double)b->options.threads);
}

/* Under the lock. */
static ml_status admit(ml_batcher *b, ml_batch_job *job, ml_error *err)
{
  const ml_batch_options *o = &b->options;
  size_t rows = rows_of(b, job);
  bool large = rows > o->max_run_rows && !b->splits;
  if (o->merge && rows > o->max_rows && !o->split)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Task size %zu is larger than maximum input batch size %zu", rows, o->max_rows);
  job->alone = rows == 0 || large || !b->merges;
  job->rows = rows == 0 ? 1 : rows;
  job->taken = job->in_flight = job->run_rows = 0;
  job->status = ML_OK;
  if (!job->priority) job->priority = ML_BATCH_PRIORITY;
  size_t most = o->max_batches * o->max_rows;
  size_t asked = job->rows < o->max_rows ? job->rows : o->max_rows; /* one that is spread over many runs would never find room */
  if (b->first && (b->stats.waiting_rows >= most || asked > most - b->stats.waiting_rows))
    return ml_fail(err, refuse(b), "The batch scheduling queue to which this task was submitted is full");
  if (b->first && o->max_wait_us) { /* with nobody in front it runs next, however long that takes */
    uint64_t wait = expected_wait(b, job->priority);
    if (wait / 1000 > o->max_wait_us)
      return ml_fail(err, refuse(b), "The request would wait about %.1f ms to be run, at most %.1f are allowed", (double)wait * 1e-6, (double)o->max_wait_us * 1e-3);
  }
  if (b->started < o->threads) ML_TRY(start_threads(b, err));
  return job->port ? expect(job->port, err) : ML_OK;
}

ml_status ml_batcher_submit(ml_batcher *b, ml_batch_job *job, ml_error *err)
{
  pid_t process = getpid();
  job->state = ML_BATCH_NEW;
  job->begin_ns = ml_clock_ns();
  pthread_mutex_lock(&b->lock);
  if (b->started == 0) {
    if (b->process != process && b->counters) find_series(b);
    b->process = process;
  }
  ml_status status = ML_OK;
  if (b->process != process) status = ml_fail(err, ML_FAILED_PRECONDITION, "the model's threads are those of the process that forked this one");
  if (status == ML_OK) status = admit(b, job, err);
  if (status == ML_OK) {
    bool first = b->first == NULL;
    job->state = ML_BATCH_QUEUED;
    enqueue(b, job);
    if (b->idle > 0 && (first || b->options.timeout_us == 0 || b->stats.waiting_rows >= b->options.max_run_rows || job->alone || job->deadline_ns))
      pthread_cond_signal(&b->work);
  }
  pthread_mutex_unlock(&b->lock);
  return status;
}

ml_status ml_batcher_wait(ml_batcher *b, ml_batch_job *job)
{
  pthread_mutex_lock(&b->lock);
  b->waiters++;
  while (job->state == ML_BATCH_QUEUED) {
    if (!job->deadline_ns || job->taken > 0) {
      pthread_cond_wait(&b->over, &b->lock);
    } else if (is_late(job, ml_clock_ns())) {
      drop(b, job, ML_DEADLINE_EXCEEDED, true);
    } else {
      struct timespec until = at_ns(job->deadline_ns);
      pthread_cond_timedwait(&b->over, &b->lock, &until);
    }
  }
  b->waiters--;
  ml_status status = job->status;
  pthread_mutex_unlock(&b->lock);
  return status;
}

bool ml_batcher_over(ml_batcher *b, ml_batch_job *job)
{
  pthread_mutex_lock(&b->lock);
  bool over = job->state == ML_BATCH_DONE;
  pthread_mutex_unlock(&b->lock);
  return over;
}

bool ml_batcher_cancel(ml_batcher *b, ml_batch_job *job)
{
  pthread_mutex_lock(&b->lock);
  bool waiting = job->state == ML_BATCH_QUEUED && job->in_flight == 0;
  if (waiting) {
    drop(b, job, ML_CANCELLED, false);
  } else if (job->state == ML_BATCH_QUEUED && job->taken < job->rows) {
    unlink_job(b, job);
    job->status = ml_fail(&job->error, ML_CANCELLED, "the request was cancelled");
    b->stats.cancelled++;
  }
  pthread_mutex_unlock(&b->lock);
  return waiting;
}

bool ml_batcher_expire(ml_batcher *b, ml_batch_job *job)
{
  pthread_mutex_lock(&b->lock);
  bool late = job->state == ML_BATCH_QUEUED && is_late(job, ml_clock_ns());
  if (late) drop(b, job, ML_DEADLINE_EXCEEDED, false);
  pthread_mutex_unlock(&b->lock);
  return late;
}
