/* Time of one call of a compiled model, from C, beside ONNX Runtime's in the same process: bench_infer MODEL [LIBONNXRUNTIME].
 * Both on one thread, input and output memory given in advance, rounds interleaved; the median of each is reported. The model's input is "x" of 30
 * floats a row, its output "y". Lines: what, mlserve's microseconds, unit, peer, the peer's microseconds; separated by tabs.
 *
 * ONNX Runtime's C API is a table of functions whose order never changes; only the slots used here are named, so no header of it is needed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cpu.h"
#include "base/rng.h"
#include "base/thread.h"
#include "format/onnx.h"
#include "graph/program.h"

enum { FEATURES = 30, MOST_ROWS = 64, ROUNDS = 60 };

typedef void ort_status; /* NULL is success */
enum ort_slot { ORT_ERROR_MESSAGE = 2, ORT_CREATE_ENV = 3, ORT_CREATE_SESSION = 7, ORT_RUN = 9, ORT_CREATE_OPTIONS = 10, ORT_SET_LEVEL = 23,
                ORT_SET_THREADS = 24, ORT_CREATE_TENSOR = 49, ORT_CREATE_CPU_MEMORY = 69, ORT_SLOTS = 70 };
typedef struct ort_base {
  const void *const *(*api)(uint32_t version);
  const char *(*version)(void);
} ort_base;

typedef struct peer {
  const void *const *table;
  const char *version;
  void *session, *memory;
} peer;

static float x[MOST_ROWS * FEATURES], ours[MOST_ROWS], theirs[MOST_ROWS];

static void must(int condition, const char *what, const char *why)
{
  if (condition) return;
  fprintf(stderr, "bench_infer: %s: %s\n", what, why);
  exit(1);
}

#define ORT(p, slot, type) ((type)(uintptr_t)(p)->table[slot])
static void ort_must(const peer *p, ort_status *status, const char *what)
{
  must(status == NULL, what, status ? ORT(p, ORT_ERROR_MESSAGE, const char *(*)(const ort_status *))(status) : "");
}

static void peer_open(peer *p, const char *library, const char *model)
{
  void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL), *env, *options;
  must(handle != NULL, library, handle ? "" : dlerror());
  const ort_base *(*base)(void) = (const ort_base *(*)(void))(uintptr_t)dlsym(handle, "OrtGetApiBase");
  must(base != NULL, library, "no OrtGetApiBase");
  p->table = base()->api(11);
  p->version = base()->version();
  must(p->table != NULL, library, "no API of version 11");
  ort_must(p, ORT(p, ORT_CREATE_ENV, ort_status *(*)(int, const char *, void **))(3, "bench", &env), "environment");
  ort_must(p, ORT(p, ORT_CREATE_OPTIONS, ort_status *(*)(void **))(&options), "options");
  ort_must(p, ORT(p, ORT_SET_LEVEL, ort_status *(*)(void *, int))(options, 99), "optimisation level");
  ort_must(p, ORT(p, ORT_SET_THREADS, ort_status *(*)(void *, int))(options, 1), "threads");
  ort_must(p, ORT(p, ORT_CREATE_SESSION, ort_status *(*)(void *, const char *, void *, void **))(env, model, options, &p->session), model);
  ort_must(p, ORT(p, ORT_CREATE_CPU_MEMORY, ort_status *(*)(int, int, void **))(1, 0, &p->memory), "memory");
}

static void *peer_tensor(const peer *p, float *data, int64_t rows, int64_t columns)
{
  void *tensor;
  int64_t dims[2] = { rows, columns };
  enum { FLOAT = 1 };
  ort_must(p, ORT(p, ORT_CREATE_TENSOR, ort_status *(*)(void *, void *, size_t, const int64_t *, size_t, int, void **))(
                p->memory, data, (size_t)(rows * columns) * sizeof *data, dims, 2, FLOAT, &tensor), "tensor");
  return tensor;
}

typedef struct contest {
  ml_session *session;
  const peer *other;
  void *in, *out;
} contest;

static void run_ours(contest *c)
{
  ml_error err;
  must(ml_session_run(c->session, &err) == ML_OK, "run", err.message);
}

static void run_theirs(contest *c)
{
  static const char *const in_names[] = { "x" }, *const out_names[] = { "y" };
  const void *in[] = { c->in };
  void *out[] = { c->out };
  ort_must(c->other, ORT(c->other, ORT_RUN, ort_status *(*)(void *, void *, const char *const *, const void *const *, size_t, const char *const *, size_t,
                                                            void **))(c->other->session, NULL, in_names, in, 1, out_names, 1, out), "run");
}

/* Mean microseconds of a call over about a millisecond of calls. */
static double sample(void (*run)(contest *), contest *c, unsigned calls)
{
  uint64_t begin = ml_clock_ns();
  for (unsigned i = 0; i < calls; i++) run(c);
  return (double)(ml_clock_ns() - begin) * 1e-3 / calls;
}

static int ascending(const void *a, const void *b)
{
  double p = *(const double *)a, q = *(const double *)b;
  return (p > q) - (p < q);
}

static void compare(ml_program *program, const peer *other, int64_t rows)
{
  double mine[ROUNDS], others[ROUNDS];
  ml_error err;
  ml_view view = { .dtype = ML_FLOAT32, .rank = 2, .dims = { rows, FEATURES }, .count = (size_t)rows * FEATURES, .data = x };
  contest c = { .other = other };
  must(ml_session_new(program, &view, &c.session, &err) == ML_OK, "session", err.message);
  ml_session_bind_input(c.session, 0, x);
  ml_session_bind_output(c.session, 0, ours);
  if (other) {
    c.in = peer_tensor(other, x, rows, FEATURES);
    c.out = peer_tensor(other, theirs, rows, 1);
  }
  unsigned calls = (unsigned)(1000 / sample(run_ours, &c, 200)) + 1, other_calls = other ? (unsigned)(1000 / sample(run_theirs, &c, 200)) + 1 : 0;
  for (int r = 0; r < ROUNDS; r++) {
    mine[r] = sample(run_ours, &c, calls);
    if (other) others[r] = sample(run_theirs, &c, other_calls);
  }
  qsort(mine, ROUNDS, sizeof *mine, ascending);
  printf("predict from C, batch %d\t%.3f\tus", (int)rows, mine[ROUNDS / 2]);
  if (other) {
    qsort(others, ROUNDS, sizeof *others, ascending);
    printf("\tONNX Runtime %s\t%.3f", other->version, others[ROUNDS / 2]);
    for (int64_t i = 0; i < rows; i++) must(fabsf(ours[i] - theirs[i]) <= 1e-5f, "outputs", "they differ from ONNX Runtime's");
  }
  printf("\n");
  ml_session_free(c.session);
}

int main(int argc, char **argv)
{
  ml_graph *graph;
  ml_program *program;
  ml_error err;
  peer other;
  must(argc > 1, "usage", "bench_infer MODEL [LIBONNXRUNTIME]");
  ml_set_threads(1);
  ml_rng_uniform(1, 1, -1, 1, x, MOST_ROWS * FEATURES);
  must(ml_onnx_load(argv[1], NULL, &graph, &err) == ML_OK, argv[1], err.message);
  must(ml_program_new(graph, NULL, &program, &err) == ML_OK, argv[1], err.message);
  if (argc > 2) peer_open(&other, argv[2], argv[1]);
  for (int64_t rows = 1; rows <= MOST_ROWS; rows *= 8) compare(program, argc > 2 ? &other : NULL, rows);
  ml_program_release(program);
  ml_graph_free(graph);
  return 0;
}
