/* Graphs, passes, programs and sessions: what Lua cannot reach. Expected values are computed here in double by the definition of the operators. */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "base/rng.h"
#include "graph/program.h"
#include "tap.h"

enum { IN = 7, HIDDEN = 20, OUT = 3, ROWS = 5 };

static ml_tensor *random_tensor(int64_t rows, int64_t cols, uint64_t stream)
{
  ml_tensor *t = NULL;
  int64_t dims[2] = { rows, cols };
  if (ml_tensor_new(ML_FLOAT32, cols ? dims : dims, cols ? 2 : 1, &t, NULL) != ML_OK) return NULL;
  ml_rng_uniform(5, stream, -1, 1, t->view.data, t->view.count);
  return t;
}

static ml_status node(ml_graph *g, const char *op, size_t n, ml_value *const *in, ml_value **out, ml_error *err)
{
  return ml_graph_node(g, ml_op_find("", op), NULL, NULL, 0, n, in, 1, NULL, out, err);
}

static ml_status initializer(ml_graph *g, const char *name, int64_t rows, int64_t cols, uint64_t stream, ml_value **out, ml_error *err)
{
  ml_tensor *t = random_tensor(rows, cols, stream);
  if (!t) return ml_fail_memory(err, 1, "a test tensor");
  ml_status status = ml_graph_initializer(g, name, t, true, out, err);
  ml_tensor_release(t);
  return status;
}

/* (x W1 + b1) relu -> MatMul W2 + b2 -> Identity -> Softmax */
static ml_status build_mlp(ml_graph **graph, ml_error *err)
{
  ml_value *x, *w1, *b1, *w2, *b2, *h;
  int64_t dims[2] = { ML_UNKNOWN, IN };
  ML_TRY(ml_graph_new("mlp", graph, err));
  ml_graph *g = *graph;
  ML_TRY(ml_graph_input(g, "x", ML_FLOAT32, dims, 2, &x, err));
  ML_TRY(initializer(g, "w1", IN, HIDDEN, 1, &w1, err));
  ML_TRY(initializer(g, "b1", HIDDEN, 0, 2, &b1, err));
  ML_TRY(initializer(g, "w2", HIDDEN, OUT, 3, &w2, err));
  ML_TRY(initializer(g, "b2", OUT, 0, 4, &b2, err));
  ML_TRY(node(g, "Gemm", 3, (ml_value *[]){ x, w1, b1 }, &h, err));
  ML_TRY(node(g, "Relu", 1, &h, &h, err));
  ML_TRY(node(g, "MatMul", 2, (ml_value *[]){ h, w2 }, &h, err));
  ML_TRY(node(g, "Add", 2, (ml_value *[]){ h, b2 }, &h, err));
  ML_TRY(node(g, "Identity", 1, &h, &h, err));
  ML_TRY(node(g, "Softmax", 1, &h, &h, err));
  ML_TRY(ml_graph_rename(g, h, "y", err));
  return ml_graph_output(g, h, err);
}

/* The same by the definition, in double. */
static void expected_mlp(const float *x, double *y)
{
  float w1[IN * HIDDEN], b1[HIDDEN], w2[HIDDEN * OUT], b2[OUT];
  double h[HIDDEN], sum = 0;
  ml_rng_uniform(5, 1, -1, 1, w1, IN * HIDDEN);
  ml_rng_uniform(5, 2, -1, 1, b1, HIDDEN);
  ml_rng_uniform(5, 3, -1, 1, w2, HIDDEN * OUT);
  ml_rng_uniform(5, 4, -1, 1, b2, OUT);
  for (int j = 0; j < HIDDEN; j++) {
    h[j] = (double)b1[j];
    for (int k = 0; k < IN; k++) h[j] += (double)x[k] * (double)w1[k * HIDDEN + j];
    if (h[j] < 0) h[j] = 0;
  }
  for (int j = 0; j < OUT; j++) {
    y[j] = (double)b2[j];
    for (int k = 0; k < HIDDEN; k++) y[j] += h[k] * (double)w2[k * OUT + j];
    y[j] = exp(y[j]);
    sum += y[j];
  }
  for (int j = 0; j < OUT; j++) y[j] /= sum;
}

static ml_view rows_view(float *data, int64_t rows)
{
  return (ml_view){ .data = data, .count = (size_t)rows * IN, .dtype = ML_FLOAT32, .rank = 2, .dims = { rows, IN } };
}

static void test_levels(void)
{
  ml_error err = { 0 };
  ml_graph *g = NULL;
  float x[ROWS * IN];
  ml_rng_uniform(9, 1, -1, 1, x, ROWS * IN);
  ok(build_mlp(&g, &err) == ML_OK, "a graph is built: %s", err.message);
  const size_t steps[] = { 6, 3, 3 }; /* none: every node; else Dense, Dense, Softmax */
  for (int level = ML_LEVEL_NONE; level <= ML_LEVEL_FAST; level++) {
    ml_program *p = NULL;
    ml_session *s = NULL;
    ml_view view = rows_view(x, ROWS);
    ok(ml_program_new(g, &(ml_compile_options){ .level = (ml_level)level }, &p, &err) == ML_OK, "level %d compiles: %s", level, err.message);
    ok(ml_session_new(p, &view, &s, &err) == ML_OK, "level %d plans: %s", level, err.message);
    ok(ml_session_steps(s) >= (level ? 3 : 5) && ml_session_steps(s) <= steps[level], "level %d runs %zu steps", level, ml_session_steps(s));
    ml_session_bind_input(s, 0, x);
    ok(ml_session_run(s, &err) == ML_OK, "level %d runs: %s", level, err.message);
    double worst = 0, y[OUT];
    for (int r = 0; r < ROWS; r++) {
      expected_mlp(x + r * IN, y);
      for (int j = 0; j < OUT; j++) worst = fmax(worst, fabs(y[j] - (double)((float *)ml_session_output(s, 0)->data)[r * OUT + j]));
    }
    ok(worst < 1e-6, "level %d is right to 1e-6 (%g)", level, worst);
    float bound[ROWS * OUT];
    ml_session_bind_output(s, 0, bound);
    uint64_t before = ml_alloc_get_stats().allocations;
    for (int i = 0; i < 100; i++) ml_session_run(s, &err);
    ok(ml_alloc_get_stats().allocations == before, "level %d: a running session allocates nothing", level);
    expected_mlp(x, y);
    ok(fabs((double)bound[0] - y[0]) < 1e-6, "level %d writes into bound memory", level);
    ml_session_free(s);
    ml_program_release(p);
  }
  ml_graph_free(g);
}

static void test_wrong_inputs(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_program *p = NULL;
  ml_session *s = NULL;
  build_mlp(&g, &err);
  ml_program_new(g, NULL, &p, &err);
  ml_view view = { .dtype = ML_FLOAT32, .rank = 2, .dims = { 2, IN + 1 } };
  ok(ml_session_new(p, &view, &s, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "'x'") && strstr(err.message, "(-1, 7)") && strstr(err.message, "(2, 8)"),
     "a wrong shape names input, expected and got: %s", err.message);
  view = (ml_view){ .dtype = ML_FLOAT64, .rank = 2, .dims = { 2, IN } };
  ok(ml_session_new(p, &view, &s, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "float64"), "a wrong dtype is refused: %s", err.message);
  view = (ml_view){ .dtype = ML_FLOAT32, .rank = 2, .dims = { INT64_MAX / 2, IN } };
  ok(ml_session_new(p, &view, &s, &err) != ML_OK, "a batch beyond memory is refused: %s", err.message);
  view = (ml_view){ .dtype = ML_FLOAT32, .rank = 2, .dims = { 0, IN } };
  ok(ml_session_new(p, &view, &s, &err) == ML_OK && ml_session_run(s, &err) == ML_OK && ml_session_output(s, 0)->count == 0, "an empty batch gives an empty result");
  ml_session_free(s);
  ml_program_release(p);
  ml_graph_free(g);
}

static void test_building_errors(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_value *x, *y, *w;
  int64_t dims[2] = { ML_UNKNOWN, 4 };
  ml_graph_new("errors", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, dims, 2, &x, &err);
  ok(ml_graph_input(g, "x", ML_FLOAT32, dims, 2, &y, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "'x' is used twice"), "names are unique: %s", err.message);
  initializer(g, "w", 5, 3, 1, &w, &err);
  size_t nodes = g->n_nodes;
  ok(ml_graph_node(g, ml_op_find("", "MatMul"), "mm", NULL, 0, 2, (ml_value *[]){ x, w }, 1, NULL, &y, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "MatMul 'mm'"),
     "a shape error names operator and node: %s", err.message);
  ok(g->n_nodes == nodes, "a refused node is not in the graph");
  ok(node(g, "Add", 1, &x, &y, &err) == ML_INVALID_ARGUMENT, "too few inputs: %s", err.message);
  ml_attr unknown = ml_attr_of_int("colour", 3);
  ok(ml_graph_node(g, ml_op_find("", "Relu"), NULL, &unknown, 1, 1, &x, 1, NULL, &y, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "colour"), "unknown attribute: %s", err.message);
  ml_attr wrong = ml_attr_of_int("alpha", 3);
  ok(ml_graph_node(g, ml_op_find("", "LeakyRelu"), NULL, &wrong, 1, 1, &x, 1, NULL, &y, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "alpha"), "attribute of a wrong type: %s", err.message);
  ml_graph_free(g);
}

/* Reshape to a shape that is an input: known only when the data is. */
static void test_dynamic_shapes(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_value *x, *shape, *y;
  ml_program *p = NULL;
  ml_session *s = NULL;
  ml_graph_new("dynamic", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ ML_UNKNOWN }, 1, &x, &err);
  ml_graph_input(g, "shape", ML_INT64, (int64_t[]){ 2 }, 1, &shape, &err);
  node(g, "Neg", 1, &x, &y, &err);
  node(g, "Reshape", 2, (ml_value *[]){ y, shape }, &y, &err);
  node(g, "Exp", 1, &y, &y, &err);
  ml_graph_output(g, y, &err);
  ml_program_new(g, NULL, &p, &err);
  ml_view views[2] = { { .dtype = ML_FLOAT32, .rank = 1, .dims = { 12 } }, { .dtype = ML_INT64, .rank = 1, .dims = { 2 } } };
  ok(ml_session_new(p, views, &s, &err) == ML_OK, "a data-dependent shape plans: %s", err.message);
  float data[12];
  for (int i = 0; i < 12; i++) data[i] = (float)i / 8;
  ml_session_bind_input(s, 0, data);
  const int64_t shapes[][2] = { { 3, 4 }, { 2, -1 }, { 12, 1 } };
  for (int i = 0; i < 3; i++) {
    memcpy(ml_session_input(s, 1)->data, shapes[i], sizeof shapes[i]);
    ml_status status = ml_session_run(s, &err);
    const ml_view *out = ml_session_output(s, 0);
    ok(status == ML_OK && out->rank == 2 && out->dims[0] == shapes[i][0] && out->count == 12 && fabs((double)((float *)out->data)[11] - exp(-11.0 / 8)) < 1e-6,
       "reshaped at run time to %d rows", (int)shapes[i][0]);
  }
  memcpy(ml_session_input(s, 1)->data, (int64_t[]){ 5, 5 }, 16);
  ok(ml_session_run(s, &err) != ML_OK && strstr(err.message, "Reshape"), "a shape that does not fit is an error in the run: %s", err.message);
  ml_session_free(s);
  ml_program_release(p);
  ml_graph_free(g);
}

/* Shape -> Gather -> Concat -> Reshape, as exporters write it, is done when planning. */
static void test_shape_arithmetic(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_value *x, *shape, *first, *index, *rest, *target, *y;
  ml_program *p = NULL;
  ml_session *s = NULL;
  ml_tensor *zero, *minus;
  ml_graph_new("shapes", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ ML_UNKNOWN, 2, 3 }, 3, &x, &err);
  ml_tensor_new(ML_INT64, (int64_t[]){ 1 }, 1, &zero, &err);
  ml_tensor_new(ML_INT64, (int64_t[]){ 1 }, 1, &minus, &err);
  *(int64_t *)minus->view.data = -1;
  ml_graph_initializer(g, "zero", zero, false, &index, &err);
  ml_graph_initializer(g, "minus", minus, false, &rest, &err);
  node(g, "Shape", 1, &x, &shape, &err);
  node(g, "Gather", 2, (ml_value *[]){ shape, index }, &first, &err);
  ml_attr axis = ml_attr_of_int("axis", 0);
  ml_graph_node(g, ml_op_find("", "Concat"), NULL, &axis, 1, 2, (ml_value *[]){ first, rest }, 1, NULL, &target, &err);
  node(g, "Reshape", 2, (ml_value *[]){ x, target }, &y, &err);
  node(g, "Relu", 1, &y, &y, &err);
  ml_graph_output(g, y, &err);
  ml_program_new(g, NULL, &p, &err);
  ml_view view = { .dtype = ML_FLOAT32, .rank = 3, .dims = { 4, 2, 3 } };
  ok(ml_session_new(p, &view, &s, &err) == ML_OK && ml_session_steps(s) == 1, "only Relu is left to run: %s", err.message);
  const ml_view *out = ml_session_output(s, 0);
  ok(out->rank == 2 && out->dims[0] == 4 && out->dims[1] == 6, "the shape is known before the run");
  for (int i = 0; i < 24; i++) ((float *)ml_session_input(s, 0)->data)[i] = (float)(i - 12);
  ok(ml_session_run(s, &err) == ML_OK && ((float *)out->data)[23] == 11 && ((float *)out->data)[0] == 0, "a view of the input is read");
  float other[24] = { 0 };
  other[5] = 3;
  ml_session_bind_input(s, 0, other);
  ok(ml_session_run(s, &err) == ML_OK && ((float *)out->data)[5] == 3 && ((float *)out->data)[23] == 0, "binding an input moves its views");
  ml_session_free(s);
  ml_program_release(p);
  ml_tensor_release(zero);
  ml_tensor_release(minus);
  ml_graph_free(g);
}

static ml_status whole_life(const float *x, ml_error *err)
{
  ml_graph *g = NULL, *copy = NULL;
  ml_program *p = NULL;
  ml_session *s = NULL;
  ml_view view = rows_view((float *)(uintptr_t)x, ROWS);
  ml_status status = build_mlp(&g, err);
  if (status == ML_OK) status = ml_graph_clone(g, &copy, err);
  if (status == ML_OK) status = ml_program_new(copy, NULL, &p, err);
  if (status == ML_OK) status = ml_session_new(p, &view, &s, err);
  if (status == ML_OK) ml_session_bind_input(s, 0, (void *)(uintptr_t)x);
  if (status == ML_OK) status = ml_session_run(s, err);
  ml_session_free(s);
  ml_program_release(p);
  ml_graph_free(copy);
  ml_graph_free(g);
  return status;
}

static void test_out_of_memory(void)
{
  ml_error err;
  float x[ROWS * IN] = { 0 };
  uint64_t live = ml_alloc_get_stats().live_blocks;
  int n = 1, leaks = 0;
  for (;; n++) {
    ml_alloc_fail_at((uint64_t)n, false);
    ml_status status = whole_life(x, &err);
    ml_alloc_fail_at(0, false);
    leaks += ml_alloc_get_stats().live_blocks != live;
    if (status == ML_OK) break;
    if (status != ML_RESOURCE_EXHAUSTED) leaks += 1000;
  }
  ok(n > 50 && leaks == 0, "each of %d allocations may fail: a clean error, nothing leaks (%d)", n, leaks);
}

/* ---- one program, several threads ---- */
typedef struct shared { ml_program *program; int bad; } shared;

static ml_status take(void *context, ml_session *session, ml_error *err)
{
  (void)err;
  memcpy(context, ml_session_output(session, 0)->data, OUT * sizeof(float));
  return ML_OK;
}

static void *hammer(void *context)
{
  shared *s = context;
  for (int i = 0; i < 500; i++) {
    float x[IN], y[OUT];
    double e[OUT];
    ml_rng_uniform(17, (uint64_t)i, -1, 1, x, IN);
    ml_view view = rows_view(x, 1);
    if (ml_program_run(s->program, &view, take, y, NULL) != ML_OK) __atomic_add_fetch(&s->bad, 1, __ATOMIC_RELAXED);
    expected_mlp(x, e);
    for (int j = 0; j < OUT; j++) if (fabs(e[j] - (double)y[j]) > 1e-6) __atomic_add_fetch(&s->bad, 1, __ATOMIC_RELAXED);
  }
  return NULL;
}

static void test_sharing(void)
{
  ml_error err;
  ml_graph *g = NULL;
  shared s = { 0 };
  pthread_t threads[4];
  build_mlp(&g, &err);
  ml_program_new(g, NULL, &s.program, &err);
  ml_graph_free(g);
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, hammer, &s);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  ok(s.bad == 0, "four threads share a program (%d wrong)", s.bad);
  ml_program_release(s.program);
}

/* Values live at the same time never share memory: a long chain with skips, at every size of batch. */
static void test_arena(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_value *x, *kept[6], *h;
  ml_graph_new("skips", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ ML_UNKNOWN }, 1, &x, &err);
  h = x;
  for (int i = 0; i < 6; i++) {
    node(g, "Sigmoid", 1, &h, &h, &err);
    kept[i] = h;
    node(g, "Exp", 1, &h, &h, &err);
    node(g, "Neg", 1, &h, &h, &err);
  }
  for (int i = 0; i < 6; i++) node(g, "Add", 2, (ml_value *[]){ h, kept[(i * 5) % 6] }, &h, &err);
  ml_graph_output(g, h, &err);
  ml_graph_output(g, kept[2], &err);
  for (int64_t n = 1; n < 200; n += 33) {
    ml_program *p = NULL;
    ml_session *s = NULL;
    ml_view view = { .dtype = ML_FLOAT32, .rank = 1, .dims = { n } };
    ml_program_new(g, NULL, &p, &err);
    ml_session_new(p, &view, &s, &err);
    double worst = 0;
    for (int64_t i = 0; i < n; i++) ((float *)ml_session_input(s, 0)->data)[i] = (float)i / 50 - 1;
    ml_session_run(s, &err);
    for (int64_t i = 0; i < n; i++) {
      double v = (double)((float)i / 50 - 1), k[6], sum;
      for (int j = 0; j < 6; j++) {
        k[j] = 1 / (1 + exp(-v));
        v = -exp(k[j]);
      }
      sum = v;
      for (int j = 0; j < 6; j++) sum += k[j];
      worst = fmax(worst, fabs(sum - (double)((float *)ml_session_output(s, 0)->data)[i]));
      worst = fmax(worst, fabs(k[2] - (double)((float *)ml_session_output(s, 1)->data)[i]));
    }
    ok(worst < 1e-5, "skips over %d elements (%g)", (int)n, worst);
    ok(ml_session_arena_bytes(s) <= 12 * ((size_t)n * 4 + 64), "the arena reuses memory: %zu bytes", ml_session_arena_bytes(s));
    ml_session_free(s);
    ml_program_release(p);
  }
  ml_graph_free(g);
}

/* Outputs that are inputs, initialisers or the same value twice. */
static void test_odd_outputs(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_value *x, *w, *y;
  ml_program *p = NULL;
  ml_session *s = NULL;
  ml_graph_new("odd", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ 4 }, 1, &x, &err);
  initializer(g, "w", 4, 0, 1, &w, &err);
  node(g, "Add", 2, (ml_value *[]){ x, w }, &y, &err);
  ml_graph_output(g, x, &err);
  ml_graph_output(g, w, &err);
  ml_graph_output(g, y, &err);
  ml_graph_output(g, y, &err);
  ok(ml_program_new(g, NULL, &p, &err) == ML_OK, "odd outputs compile: %s", err.message);
  ml_view view = { .dtype = ML_FLOAT32, .rank = 1, .dims = { 4 } };
  ml_session_new(p, &view, &s, &err);
  float in[4] = { 1, 2, 3, 4 }, *out[4];
  ml_session_bind_input(s, 0, in);
  ml_session_run(s, &err);
  for (size_t i = 0; i < 4; i++) out[i] = ml_session_output(s, i)->data;
  ok(out[0][2] == 3 && out[1][2] == ((float *)w->init->view.data)[2] && out[2][2] == out[3][2] && fabsf(out[2][2] - 3 - out[1][2]) < 1e-6f,
     "input, initialiser and one value twice come out");
  ok(out[2] != out[3] && out[0] != in, "each output has memory of its own");
  ml_session_free(s);
  ml_program_release(p);
  ml_graph_free(g);
}

int main(void)
{
  test_levels();
  test_wrong_inputs();
  test_building_errors();
  test_dynamic_shapes();
  test_shape_arithmetic();
  test_arena();
  test_odd_outputs();
  test_sharing();
  test_out_of_memory();
  return done();
}
