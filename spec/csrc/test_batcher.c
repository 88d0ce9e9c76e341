/* The batcher: merging and splitting, order, full queues, deadlines, cancellation, failures of one among many, allocation failures, threads.
 * Models add and copy, so expected numbers are worked out by hand. Run under ThreadSanitizer by `make test-tsan`. */
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "serve/batcher.h"
#include "serve/probe.h"
#include "serve/servable.h"
#include "tap.h"

static ml_error err;
#define MS 1000000u

static ml_value *node(ml_graph *g, const char *op, ml_value *a, ml_value *b, const char *out)
{
  ml_value *v = NULL, *in[] = { a, b };
  if (ml_graph_node(g, ml_op_find("", op), NULL, NULL, 0, b ? 2 : 1, in, 1, &out, &v, &err) != ML_OK) ok(false, "%s", err.message);
  return v;
}

static ml_value *input(ml_graph *g, ml_dtype dtype, int64_t rows, int64_t width)
{
  ml_value *v = NULL;
  ml_graph_input(g, "x", dtype, (int64_t[]){ rows, width }, 2, &v, &err);
  return v;
}

static ml_program *compile(ml_graph *g)
{
  ml_program *p = NULL;
  if (ml_program_new(g, NULL, &p, &err) != ML_OK) ok(false, "%s", err.message);
  ml_graph_free(g);
  return p;
}

/* y = x + x, of any width; strings are copied */
static ml_program *doubler(ml_dtype dtype)
{
  ml_graph *g = NULL;
  ml_graph_new("doubler", &g, &err);
  ml_value *x = input(g, dtype, ML_UNKNOWN, ML_UNKNOWN);
  ml_graph_output(g, dtype == ML_STRING ? node(g, "Identity", x, NULL, "y") : node(g, "Add", x, x, "y"), &err);
  return compile(g);
}

/* y[i] = table[x[i]]: an index that is not there fails */
static ml_program *lookup(void)
{
  ml_graph *g = NULL;
  ml_tensor *t = NULL;
  ml_value *table = NULL;
  ml_graph_new("lookup", &g, &err);
  ml_tensor_new(ML_FLOAT32, (int64_t[]){ 4 }, 1, &t, &err);
  for (int i = 0; i < 4; i++) ((float *)t->view.data)[i] = (float)(10 * i);
  ml_graph_initializer(g, "table", t, false, &table, &err);
  ml_tensor_release(t);
  ml_graph_output(g, node(g, "Gather", table, input(g, ML_INT64, ML_UNKNOWN, 1), "y"), &err);
  return compile(g);
}

/* y = x · ones(200, 200), 300 times: some milliseconds */
static ml_program *slow(void)
{
  ml_graph *g = NULL;
  ml_tensor *t = NULL;
  ml_value *m = NULL;
  ml_graph_new("slow", &g, &err);
  ml_tensor_new(ML_FLOAT32, (int64_t[]){ 200, 200 }, 2, &t, &err);
  ml_graph_initializer(g, "m", t, false, &m, &err);
  ml_tensor_release(t);
  ml_value *x = input(g, ML_FLOAT32, ML_UNKNOWN, 200);
  for (int i = 0; i < 300; i++) {
    char name[16];
    snprintf(name, sizeof name, "y%d", i);
    x = node(g, "MatMul", x, m, name);
  }
  ml_graph_output(g, x, &err);
  return compile(g);
}

static ml_batcher *batcher(ml_program *p, ml_batch_options o)
{
  ml_batcher *b = NULL;
  o.merge = true;
  if (ml_batcher_new(p, &o, &b, &err) != ML_OK) ok(false, "%s", err.message);
  return b;
}

/* A job of rows × width floats: first, first + 1, … */
typedef struct work {
  ml_batch_job job;
  ml_view view;
  ml_item output[1];
  float numbers[4096];
} work;

static work *make(size_t rows, size_t width, float first)
{
  work *w = ml_alloc_zero(1, sizeof *w);
  w->view = (ml_view){ .data = w->numbers, .dtype = ML_FLOAT32, .rank = 2, .dims = { (int64_t)rows, (int64_t)width }, .count = rows * width };
  for (size_t i = 0; i < rows * width; i++) w->numbers[i] = first + (float)i;
  w->job.inputs = &w->view;
  w->job.outputs = w->output;
  return w;
}

static bool doubled(const work *w)
{
  const ml_tensor *t = w->output[0].tensor;
  if (!t || !ml_shape_equal(t->view.dims, t->view.rank, w->view.dims, w->view.rank)) return false;
  for (size_t i = 0; i < w->view.count; i++)
    if (((const float *)t->view.data)[i] != 2 * w->numbers[i]) return false;
  return true;
}

static void end(work *w)
{
  ml_batch_job_clear(&w->job, 1);
  ml_free(w);
}

static void submit(ml_batcher *b, work *w)
{
  if (ml_batcher_submit(b, &w->job, &err) != ML_OK) ok(false, "%s", err.message);
}

/* Jobs of 1, 2, 3 … rows in one queue; each gets its own rows back. */
static void merge(const char *what, ml_batch_options o, size_t n, size_t runs, size_t largest, size_t filled)
{
  ml_program *p = doubler(ML_FLOAT32);
  ml_batcher *b = batcher(p, o);
  work *w[32];
  bool right = true;
  for (size_t i = 0; i < n; i++) submit(b, w[i] = make(i + 1, 3, (float)(100 * i)));
  for (size_t i = 0; i < n; i++) right = ml_batcher_wait(b, &w[i]->job) == ML_OK && doubled(w[i]) && right;
  ml_batch_stats s = ml_batcher_stats(b);
  ok(right, "%s: every job has its rows", what);
  ok(s.runs == runs && s.largest == largest && s.filled == filled && s.rows == n * (n + 1) / 2 && s.jobs == n && s.waiting_rows == 0 && s.waiting_jobs == 0,
     "%s: %llu runs, largest %llu, filled %llu", what, (unsigned long long)s.runs, (unsigned long long)s.largest, (unsigned long long)s.filled);
  for (size_t i = 0; i < n; i++) end(w[i]);
  ml_batcher_free(b);
  ml_program_release(p);
}

static void test_merging(void)
{
  /* rows 1 2 3 4 5 | 6 … with a time-out long enough for all to arrive, runs begin when they are full */
  merge("whole", (ml_batch_options){ .max_rows = 15, .timeout_us = 2000000 }, 5, 1, 15, 0);
  merge("split", (ml_batch_options){ .max_rows = 7, .timeout_us = 2000000, .split = true, .max_batches = 9 }, 6, 3, 7, 0);
  merge("more than a run", (ml_batch_options){ .max_rows = 8, .max_run_rows = 3, .timeout_us = 2000000, .split = true, .max_batches = 9 }, 8, 12, 3, 0);
  merge("filled up", (ml_batch_options){ .max_rows = 16, .timeout_us = 300000, .allowed = (int64_t[]){ 4, 16 }, .n_allowed = 2 }, 3, 1, 6, 10);
  merge("one by one", (ml_batch_options){ .max_rows = 1, .split = true, .max_batches = 50 }, 4, 10, 1, 0);
}

static void test_shapes(void)
{
  ml_program *p = doubler(ML_FLOAT32);
  ml_batcher *b = batcher(p, (ml_batch_options){ .timeout_us = 100000 });
  work *w[] = { make(2, 3, 1), make(2, 5, 50), make(1, 3, 90), make(3, 5, 7) };
  bool right = true;
  for (int i = 0; i < 4; i++) submit(b, w[i]);
  for (int i = 0; i < 4; i++) right = ml_batcher_wait(b, &w[i]->job) == ML_OK && doubled(w[i]) && right;
  ml_batch_stats s = ml_batcher_stats(b);
  ok(right && s.runs == 2 && s.merged == 4, "widths do not mix: %llu runs", (unsigned long long)s.runs);
  for (int i = 0; i < 4; i++) end(w[i]);
  work *scalar = make(1, 1, 4);
  scalar->view.rank = 1; /* of another rank than the graph's: the error is the job's own */
  submit(b, scalar);
  ok(ml_batcher_wait(b, &scalar->job) == ML_INVALID_ARGUMENT, "a wrong rank: %s", scalar->job.error.message);
  end(scalar);
  work *none = make(0, 3, 0);
  submit(b, none);
  ok(ml_batcher_wait(b, &none->job) == ML_OK && none->output[0].tensor->view.dims[0] == 0, "no rows: %s", none->job.error.message);
  end(none);
  ml_batcher_free(b);

  b = batcher(p, (ml_batch_options){ .timeout_us = 2000000, .max_rows = 4, .pad = true });
  work *narrow = make(2, 2, 1), *wide = make(2, 3, 5);
  submit(b, narrow);
  submit(b, wide);
  ml_batcher_wait(b, &narrow->job);
  ml_batcher_wait(b, &wide->job);
  const float expected[] = { 2, 4, 2, 6, 8, 2 }; /* 1 2 | 3 4, filled up with the first element */
  const ml_view *v = &narrow->output[0].tensor->view;
  ok(v->count == 6 && memcmp(v->data, expected, sizeof expected) == 0 && doubled(wide), "other dimensions are filled up");
  end(narrow);
  end(wide);
  ml_batcher_free(b);
  ml_program_release(p);

  p = doubler(ML_STRING);
  b = batcher(p, (ml_batch_options){ .timeout_us = 2000000, .max_rows = 2, .split = true });
  work *s1 = make(1, 1, 0), *s2 = make(1, 1, 0);
  ml_str one = { "one", 3 }, other = { "another", 7 };
  s1->view.dtype = s2->view.dtype = ML_STRING;
  s1->view.data = &one;
  s2->view.data = &other;
  submit(b, s1);
  submit(b, s2);
  ml_batcher_wait(b, &s1->job);
  ml_batcher_wait(b, &s2->job);
  const ml_str *got = s2->output[0].tensor->view.data;
  ok(got->length == 7 && memcmp(got->bytes, "another", 7) == 0 && got->bytes != other.bytes, "strings are copied");
  end(s1);
  end(s2);
  work *s3 = make(3, 1, 0);
  ml_str three[] = { { "a", 1 }, { "b", 1 }, { "c", 1 } };
  s3->view.dtype = ML_STRING;
  s3->view.data = three;
  submit(b, s3);
  ok(ml_batcher_wait(b, &s3->job) == ML_OK && s3->output[0].tensor->view.count == 3, "too many strings for a run go alone");
  end(s3);
  ml_batcher_free(b);
  ml_program_release(p);
}

static void test_queue(void)
{
  ml_program *p = doubler(ML_FLOAT32);
  ml_batcher *b = batcher(p, (ml_batch_options){ .max_rows = 4, .timeout_us = 400000, .max_batches = 1 });
  work *w[4];
  ml_batch_port *port = NULL;
  uint64_t id;
  ml_batch_port_new(&port, &err);
  for (int i = 0; i < 3; i++) {
    w[i] = make(1, 2, (float)i);
    w[i]->job.port = port;
    w[i]->job.id = (uint64_t)i + 1;
    submit(b, w[i]);
  }
  work *more = make(2, 2, 0), *large = make(5, 2, 0);
  ok(ml_batcher_submit(b, &more->job, &err) == ML_UNAVAILABLE, "full: %s", err.message);
  ok(ml_batcher_submit(b, &large->job, &err) == ML_INVALID_ARGUMENT, "large: %s", err.message);
  ok(strcmp(err.message, "Task size 5 is larger than maximum input batch size 4") == 0, "in TensorFlow Serving's words");
  ok(ml_batcher_cancel(b, &w[1]->job) && w[1]->job.status == ML_CANCELLED, "cancelled in the queue");
  ok(!ml_batcher_cancel(b, &w[1]->job), "once");
  ok(!ml_batch_port_take(port, &id), "the port was not told");
  ml_batcher_wait(b, &w[0]->job);
  ml_batcher_wait(b, &w[2]->job);
  struct pollfd pfd = { .fd = ml_batch_port_descriptor(port), .events = POLLIN };
  ok(poll(&pfd, 1, 2000) == 1, "the descriptor is readable");
  bool first = ml_batch_port_take(port, &id) && id == 1, second = ml_batch_port_take(port, &id) && id == 3;
  ok(first && second && !ml_batch_port_take(port, &id) && poll(&pfd, 1, 0) == 0, "two are over, in their order");
  ok(doubled(w[0]) && doubled(w[2]) && ml_batcher_stats(b).runs == 1 && w[0]->job.run_rows == 2 && w[0]->job.queue_ns >= 300 * MS, "they ran together");
  for (int i = 0; i < 3; i++) end(w[i]);
  end(more);
  end(large);
  ml_batch_port_release(port);
  ml_batcher_free(b);
  ml_program_release(p);
}

/* What would wait too long, by what a row has taken, is refused at once. */
static void test_long_queue(void)
{
  ml_program *p = slow();
  ml_batcher *b = batcher(p, (ml_batch_options){ .max_rows = 4, .timeout_us = 400000, .max_wait_us = 1 });
  work *w[] = { make(3, 200, 0), make(1, 200, 0), make(4, 200, 0), make(1, 200, 0), make(1, 200, 0), make(1, 200, 0) };
  submit(b, w[0]);
  ok(ml_batcher_submit(b, &w[1]->job, &err) == ML_OK, "nobody knows yet how long a row takes");
  ml_batcher_wait(b, &w[0]->job);
  ml_batcher_wait(b, &w[1]->job);
  submit(b, w[3]);
  ok(ml_batcher_submit(b, &w[2]->job, &err) == ML_UNAVAILABLE && strncmp(err.message, "The request would wait about ", 29) == 0, "%s", err.message);
  w[4]->job.priority = 1;
  ok(ml_batcher_submit(b, &w[4]->job, &err) == ML_OK, "who goes before the others does not wait for them");
  ok(ml_batcher_cancel(b, &w[3]->job) && ml_batcher_cancel(b, &w[4]->job), "both had not begun");
  ok(ml_batcher_submit(b, &w[5]->job, &err) == ML_OK && ml_batcher_wait(b, &w[5]->job) == ML_OK, "with nobody in front one is taken");
  ok(ml_batcher_stats(b).refused == 1 && ml_batcher_stats(b).jobs == 3, "counted");
  for (int i = 0; i < 6; i++) end(w[i]);
  ml_batcher_free(b);
  ok(ml_batcher_new(p, &(ml_batch_options){ .max_wait_us = UINT64_C(3600000001) }, &b, &err) == ML_INVALID_ARGUMENT, "%s", err.message);
  ml_program_release(p);
}

/* While the only thread is busy, who comes next? */
static void test_order(void)
{
  ml_program *p = slow();
  ml_batcher *b;
  ml_batch_port *port = NULL;
  work *w[5];
  const uint32_t priorities[] = { 1, 0, 200, 5, 0 };
  uint64_t order[5] = { 9, 9, 9, 9, 9 };
  for (int attempt = 0;; attempt++) { /* on a machine that is busy itself, the first may be over before the last has come */
    b = batcher(p, (ml_batch_options){ .max_rows = 1, .max_batches = 50 });
    ml_batch_port_new(&port, &err);
    for (int i = 0; i < 5; i++) {
      w[i] = make(1, 200, 0);
      w[i]->job.priority = priorities[i];
      w[i]->job.port = port;
      w[i]->job.id = (uint64_t)i;
      if (i == 4) w[i]->job.deadline_ns = ml_clock_ns() + 1;
      submit(b, w[i]);
    }
    bool busy = !ml_batcher_over(b, &w[0]->job);
    for (int i = 0; i < 5; i++) ml_batcher_wait(b, &w[i]->job);
    for (int i = 0; i < 5; i++) ml_batch_port_take(port, &order[i]);
    if (busy || attempt == 100) break;
    for (int i = 0; i < 5; i++) end(w[i]);
    ml_batcher_free(b);
    ml_batch_port_release(port);
  }
  size_t at[5] = { 0 };
  for (size_t i = 0; i < 5; i++) at[order[i] % 5] = i;
  ok(at[0] < at[3] && at[3] < at[1] && at[1] < at[2], "by priority, then by time");
  ok(w[4]->job.status == ML_DEADLINE_EXCEEDED && !w[4]->output[0].tensor && ml_batcher_stats(b).expired == 1, "late: %s", w[4]->job.error.message);
  for (int i = 0; i < 5; i++) end(w[i]);
  /* dropped by whoever waits, long before the queue moves */
  work *busy = make(1, 200, 0), *late = make(1, 200, 0), *told = make(1, 200, 0);
  submit(b, busy);
  late->job.deadline_ns = told->job.deadline_ns = ml_clock_ns() + MS / 10;
  submit(b, late);
  submit(b, told);
  while (ml_clock_ns() < told->job.deadline_ns) {}
  bool expired = ml_batcher_expire(b, &told->job);
  ok(expired ? told->job.status == ML_DEADLINE_EXCEEDED : ml_batcher_wait(b, &told->job) != ML_CANCELLED, "expired by a timer");
  ml_batcher_wait(b, &late->job);
  ml_batcher_wait(b, &busy->job);
  ok(busy->job.status == ML_OK && ml_batcher_over(b, &late->job), "the one that ran is well");
  end(busy);
  end(late);
  end(told);
  ml_batch_port_release(port);
  ml_batcher_free(b);
  ml_program_release(p);
}

static void test_deadline_ends_gathering(void)
{
  ml_program *p = doubler(ML_FLOAT32);
  ml_batcher *b = batcher(p, (ml_batch_options){ .timeout_us = 60000000 });
  work *w = make(1, 2, 3);
  uint64_t begin = ml_clock_ns();
  w->job.deadline_ns = begin + 2000 * (uint64_t)MS;
  submit(b, w);
  ok(ml_batcher_wait(b, &w->job) == ML_OK && doubled(w) && ml_clock_ns() < w->job.deadline_ns + 10000 * (uint64_t)MS,
     "a request in a hurry does not wait a minute for others");
  end(w);
  ml_batcher_free(b);
  ml_program_release(p);
}

static void test_one_bad(void)
{
  ml_program *p = lookup();
  ml_batcher *b = batcher(p, (ml_batch_options){ .timeout_us = 2000000, .max_rows = 3 });
  int64_t index[] = { 3, 99, 1 };
  work *w[3];
  for (int i = 0; i < 3; i++) {
    w[i] = make(1, 1, 0);
    w[i]->view.dtype = ML_INT64;
    w[i]->view.data = &index[i];
    submit(b, w[i]);
  }
  for (int i = 0; i < 3; i++) ml_batcher_wait(b, &w[i]->job);
  ok(w[0]->job.status == ML_OK && *(float *)w[0]->output[0].tensor->view.data == 30 && w[2]->job.status == ML_OK &&
       *(float *)w[2]->output[0].tensor->view.data == 10, "its neighbours are served");
  ok(w[1]->job.status != ML_OK && ml_batcher_stats(b).failed == 1, "the bad one fails: %s", w[1]->job.error.message);
  for (int i = 0; i < 3; i++) end(w[i]);
  ml_batcher_free(b);
  ml_program_release(p);
}

/* y = the number of elements: does not follow the rows */
static void test_mixing(void)
{
  ml_graph *g = NULL;
  ml_graph_new("size", &g, &err);
  ml_graph_output(g, node(g, "Shape", input(g, ML_FLOAT32, ML_UNKNOWN, ML_UNKNOWN), NULL, "y"), &err);
  ml_program *p = compile(g);
  ml_batcher *b = batcher(p, (ml_batch_options){ .timeout_us = 2000000, .max_rows = 6 });
  work *w[] = { make(4, 3, 0), make(2, 3, 0), make(1, 3, 0) };
  submit(b, w[0]);
  submit(b, w[1]);
  ml_batcher_wait(b, &w[0]->job);
  ml_batcher_wait(b, &w[1]->job);
  submit(b, w[2]);
  ml_batcher_wait(b, &w[2]->job);
  bool right = true;
  for (int i = 0; i < 3; i++) right = right && w[i]->job.status == ML_OK && ((int64_t *)w[i]->output[0].tensor->view.data)[0] == w[i]->view.dims[0];
  ok(right && ml_batcher_stats(b).merged == 0, "outputs that do not follow the rows are not split; nothing is merged any more");
  for (int i = 0; i < 3; i++) end(w[i]);
  ml_batcher_free(b);
  ml_probe probe;
  ml_probe_program(p, &probe);
  ok(!probe.mergeable && probe.contradicted && probe.run_ns > 0, "the probe says so: %s", probe.reason);
  ml_program_release(p);
  p = doubler(ML_FLOAT32);
  ml_probe_program(p, &probe);
  ok(probe.mergeable && probe.exact && probe.run_ns > 0, "rows that go their own ways: %s", probe.reason);
  ml_program_release(p);
  ml_graph_new("fixed", &g, &err);
  ml_graph_output(g, node(g, "Relu", input(g, ML_FLOAT32, 2, 3), NULL, "y"), &err);
  p = compile(g);
  ml_probe_program(p, &probe);
  ok(!probe.mergeable && probe.run_ns > 0 && strcmp(probe.reason, "the first dimension of input 'x' is fixed") == 0, "%s", probe.reason);
  ml_program_release(p);
}

/* ---- threads: many submit, wait, cancel at once ---- */
typedef struct client { ml_batcher *b; unsigned number; unsigned right, dropped, wrong; } client;

static void *run_client(void *argument)
{
  client *c = argument;
  for (unsigned i = 0; i < 60; i++) {
    work *w = make(1 + (c->number + i) % 5, 1 + i % 2, (float)(1000 * c->number + i));
    ml_error e;
    if (i % 7 == 3) w->job.deadline_ns = ml_clock_ns() + 50000;
    w->job.priority = i % 3;
    if (ml_batcher_submit(c->b, &w->job, &e) != ML_OK) {
      c->dropped++;
      ml_free(w);
      continue;
    }
    if (i % 5 == 4) ml_batcher_cancel(c->b, &w->job);
    ml_status status = ml_batcher_wait(c->b, &w->job);
    if (status == ML_OK) *(doubled(w) ? &c->right : &c->wrong) += 1;
    else *(status == ML_CANCELLED || status == ML_DEADLINE_EXCEEDED ? &c->dropped : &c->wrong) += 1;
    end(w);
  }
  return NULL;
}

static void test_threads(void)
{
  ml_program *p = doubler(ML_FLOAT32);
  ml_batcher *b = batcher(p, (ml_batch_options){ .max_rows = 6, .max_run_rows = 4, .split = true, .threads = 3, .timeout_us = 100, .max_batches = 4 });
  client clients[8];
  pthread_t threads[8];
  unsigned right = 0, dropped = 0, wrong = 0;
  for (unsigned i = 0; i < 8; i++) {
    clients[i] = (client){ .b = b, .number = i };
    pthread_create(&threads[i], NULL, run_client, &clients[i]);
  }
  for (unsigned i = 0; i < 8; i++) {
    pthread_join(threads[i], NULL);
    right += clients[i].right;
    dropped += clients[i].dropped;
    wrong += clients[i].wrong;
  }
  ml_batch_stats s = ml_batcher_stats(b);
  ok(wrong == 0 && right + dropped == 480 && right > 100, "eight clients: %u right, %u dropped, %u wrong", right, dropped, wrong);
  ok(s.jobs == right && s.waiting_jobs == 0 && s.waiting_rows == 0 && s.refused + s.expired + s.cancelled >= dropped, "the counters agree");
  ml_batcher_free(b);
  ml_program_release(p);
}

/* ---- a servable's requests ---- */
static void test_requests(void)
{
  ml_program *p = doubler(ML_FLOAT32);
  ml_servable *s = NULL;
  ml_request *r[3] = { NULL };
  ml_json_writer alone, merged;
  const char *body = "{\"instances\":[[0.1,2],[3,4]]}";
  ml_request_options options = { 0 };
  ml_servable_new(p, NULL, &s, &err);
  ml_json_writer_init(&alone);
  ml_json_writer_init(&merged);
  ml_servable_predict_json(s, body, strlen(body), NULL, &alone, &err);
  ml_request_decode_json(s, body, strlen(body), NULL, &r[0], &err);
  ok(ml_request_submit(r[0], &options, &err) == ML_FAILED_PRECONDITION, "without a batcher: %s", err.message);
  ml_servable_set_batcher(s, batcher(p, (ml_batch_options){ .timeout_us = 2000000, .max_rows = 6 }), &err);
  for (int i = 0; i < 3; i++) {
    if (!r[i]) ml_request_decode_json(s, body, strlen(body), NULL, &r[i], &err);
    ml_request_submit(r[i], &options, &err);
  }
  ml_servable_release(s); /* its requests keep it */
  for (int i = 0; i < 3; i++) {
    merged.length = 0;
    bool good = ml_request_wait(r[i], &err) == ML_OK && ml_request_encode_json(r[i], &merged, &err) == ML_OK;
    ok(good && merged.length == alone.length && memcmp(merged.text, alone.text, alone.length) == 0, "to the last byte: %.*s", (int)merged.length, merged.text);
    if (i == 0) ok(ml_batcher_stats(ml_servable_batcher(s)).largest == 6, "one run");
    ml_request_free(r[i]);
  }
  ml_json_writer_free(&alone);
  ml_json_writer_free(&merged);
  ml_program_release(p);
}

static void test_memory(void)
{
  bool leaked = false, odd = false;
  uint64_t n = 1, live = ml_alloc_get_stats().live_blocks;
  for (; n < 500; n++) {
    ml_program *p = doubler(ML_FLOAT32);
    ml_batcher *b = NULL;
    ml_batch_port *port = NULL;
    work *w = make(2, 2, 1), *v = make(1, 2, 5);
    ml_batch_options o = { .merge = true, .max_rows = 3, .timeout_us = 2000000 };
    uint64_t id;
    ml_alloc_fail_at(n, false);
    ml_status status = ml_batcher_new(p, &o, &b, &err);
    if (status == ML_OK) status = ml_batch_port_new(&port, &err);
    w->job.port = v->job.port = port;
    bool one = status == ML_OK && (status = ml_batcher_submit(b, &w->job, &err)) == ML_OK;
    bool two = status == ML_OK && (status = ml_batcher_submit(b, &v->job, &err)) == ML_OK;
    if (one && !two) ml_batcher_cancel(b, &w->job);
    if (one && two) {
      ml_status first = ml_batcher_wait(b, &w->job), second = ml_batcher_wait(b, &v->job);
      status = first != ML_OK ? first : second;
      if ((first == ML_OK && !doubled(w)) || (second == ML_OK && !doubled(v))) odd = true;
    }
    ml_alloc_fail_at(0, false);
    while (port && ml_batch_port_take(port, &id)) {}
    end(w);
    end(v);
    ml_batch_port_release(port);
    ml_batcher_free(b);
    ml_program_release(p);
    leaked = leaked || ml_alloc_get_stats().live_blocks != live;
    if (status != ML_OK && status != ML_RESOURCE_EXHAUSTED) odd = true;
    if (n > 6 && status == ML_OK && ml_alloc_get_stats().allocations > 0) {
      /* a failed merged run is run again one by one: nobody notices */
      static int good;
      if (++good == 40) break;
    }
  }
  ok(!leaked && !odd && n < 500, "each allocation may fail, up to %llu", (unsigned long long)n);
}

int main(void)
{
  test_merging();
  test_shapes();
  test_queue();
  test_long_queue();
  test_order();
  test_deadline_ends_gathering();
  test_one_bad();
  test_mixing();
  test_threads();
  test_requests();
  test_memory();
  ok(ml_alloc_get_stats().live_blocks == 0, "nothing leaks: %llu blocks", (unsigned long long)ml_alloc_get_stats().live_blocks);
  return done();
}
