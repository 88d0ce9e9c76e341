/* Inputs are random: floats in [-1, 1), integers and booleans 0 or 1 (small enough for an index), strings "a"; dimensions that the graph
 * leaves open are 8, or 1 where 8 does not run. */
#include "serve/probe.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "base/rng.h"

enum { ROWS = 3, MANY_ROWS = 16, RUNS = 5, MAX_ELEMENTS = 1 << 26 }; /* many: kernels choose by size */
#define CHEAP_NS 2000000u
#define ENOUGH_NS 20000000u

typedef struct kept { ml_tensor **tensors; size_t n; } kept;

static void no(ml_probe *p, bool contradicted, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void no(ml_probe *p, bool contradicted, const char *format, ...)
{
  va_list arguments;
  p->mergeable = p->exact = false;
  p->contradicted = contradicted;
  va_start(arguments, format);
  vsnprintf(p->reason, sizeof p->reason, format, arguments);
  va_end(arguments);
}

static void look(const ml_graph *g, ml_probe *p)
{
  const char *name = NULL;
  p->mergeable = p->exact = true;
  if (g->n_inputs == 0) no(p, true, "the model has no inputs");
  for (size_t i = 0; i < g->n_inputs + g->n_outputs && p->mergeable; i++) {
    bool input = i < g->n_inputs;
    const ml_value *v = input ? g->inputs[i] : g->outputs[i - g->n_inputs];
    const char *kind = input ? "input" : "output";
    if (v->type) no(p, true, "%s '%s' is no tensor", kind, v->name);
    else if (v->rank == 0) no(p, true, "%s '%s' has no dimension of rows", kind, v->name);
    else if (v->rank > 0 && v->dims[0] != ML_UNKNOWN) no(p, true, "the first dimension of %s '%s' is fixed", kind, v->name);
    else if (input && v->rank == ML_UNKNOWN) no(p, false, "the rank of input '%s' is not known", v->name);
    else if (v->rank > 0 && v->dim_names[0]) {
      if (name && strcmp(name, v->dim_names[0]) != 0)
        no(p, true, "the first dimensions have different names, '%s' and '%s'", name, v->dim_names[0]);
      name = v->dim_names[0];
    }
  }
}

static ml_status make_input(const ml_value *v, size_t stream, int64_t open, ml_tensor **out, ml_error *err)
{
  int64_t dims[ML_MAX_RANK];
  ml_tensor *numbers = NULL;
  size_t count;
  *out = NULL;
  if (v->type || v->rank == ML_UNKNOWN) return ml_fail(err, ML_UNIMPLEMENTED, "input '%s' cannot be made up", v->name);
  for (int32_t k = 0; k < v->rank; k++) dims[k] = v->dims[k] != ML_UNKNOWN ? v->dims[k] : k == 0 ? MANY_ROWS : open;
  ML_TRY(ml_shape_count(dims, v->rank, v->dtype, &count, err));
  if (count > MAX_ELEMENTS) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "input '%s' is too large to be made up", v->name);
  if (v->dtype == ML_STRING) {
    ML_TRY(ml_tensor_new(v->dtype, dims, v->rank, out, err));
    for (size_t i = 0; i < count; i++) ((ml_str *)(*out)->view.data)[i] = (ml_str){ "a", 1 };
    return ML_OK;
  }
  ML_TRY(ml_tensor_new(ML_FLOAT32, dims, v->rank, &numbers, err));
  float *x = numbers->view.data;
  bool floats = v->dtype == ML_FLOAT32 || v->dtype == ML_FLOAT64 || v->dtype == ML_FLOAT16 || v->dtype == ML_BFLOAT16;
  if (floats) ml_rng_uniform(1, stream, -1, 1, x, count);
  else for (size_t i = 0; i < count; i++) x[i] = (float)(ml_rng_u32(1, stream, i) & 1);
  ml_status status = ml_tensor_cast(numbers, v->dtype, out, err);
  ml_tensor_release(numbers);
  return status;
}

static ml_status keep(void *context, ml_session *session, ml_error *err)
{
  kept *k = context;
  for (size_t i = 0; i < k->n; i++) {
    const ml_view *v = ml_session_output(session, i);
    if (v->type) continue;
    ml_tensor_release(k->tensors[i]);
    k->tensors[i] = NULL;
    ML_TRY(ml_tensor_copy_of(v, &k->tensors[i], err));
  }
  return ML_OK;
}

/* Rows `row` … row+count-1 of every input whose first dimension is open. */
static void take_rows(const ml_graph *g, ml_tensor *const *inputs, size_t row, size_t count, ml_view *views)
{
  for (size_t i = 0; i < g->n_inputs; i++) {
    views[i] = inputs[i]->view;
    if (g->inputs[i]->rank < 1 || g->inputs[i]->dims[0] != ML_UNKNOWN) continue;
    size_t one = views[i].count / MANY_ROWS;
    views[i].dims[0] = (int64_t)count;
    views[i].count = one * count;
    if (views[i].data) views[i].data = (char *)views[i].data + row * one * ml_dtype_size(views[i].dtype);
  }
}

static bool same_elements(const ml_view *a, const char *b)
{
  if (a->dtype != ML_STRING) return memcmp(a->data, b, a->count * ml_dtype_size(a->dtype)) == 0;
  const ml_str *x = a->data, *y = (const ml_str *)(const void *)b;
  for (size_t i = 0; i < a->count; i++)
    if (x[i].length != y[i].length || memcmp(x[i].bytes, y[i].bytes, x[i].length) != 0) return false;
  return true;
}

/* Equal but for rounding: 1e-4 of the largest. */
static bool near_elements(const ml_view *a, const char *b)
{
  double largest = 0, difference = 0;
  if (a->dtype != ML_FLOAT32 && a->dtype != ML_FLOAT64) return false;
  for (size_t i = 0; i < a->count; i++) {
    double x = a->dtype == ML_FLOAT32 ? (double)((const float *)a->data)[i] : ((const double *)a->data)[i];
    double y = a->dtype == ML_FLOAT32 ? (double)((const float *)(const void *)b)[i] : ((const double *)(const void *)b)[i];
    if (fabs(x) > largest) largest = fabs(x);
    if (!(fabs(x - y) <= difference)) difference = fabs(x - y);
  }
  return difference <= 1e-4 * largest;
}

static void compare(const ml_graph *g, const kept *all, size_t rows, const kept *one, size_t row, ml_probe *p)
{
  for (size_t i = 0; i < all->n && p->mergeable; i++) {
    const ml_view *a = &one->tensors[i]->view, *b = &all->tensors[i]->view;
    const char *name = g->outputs[i]->name;
    if (a->rank < 1 || a->dims[0] != 1 || b->rank != a->rank || b->dims[0] != (int64_t)rows || !ml_shape_equal(a->dims + 1, a->rank - 1, b->dims + 1, b->rank - 1)) {
      no(p, true, "the first dimension of output '%s' does not follow the number of rows", name);
      return;
    }
    const char *part = b->data ? (const char *)b->data + row * a->count * ml_dtype_size(b->dtype) : NULL;
    if (a->count == 0 || same_elements(a, part)) continue;
    if (near_elements(a, part)) {
      p->exact = false;
      snprintf(p->reason, sizeof p->reason, "output '%s' differs in its last bits between a row by itself and among others", name);
    } else {
      no(p, true, "the rows of output '%s' depend on each other", name);
    }
  }
}

static ml_status try(ml_program *program, int64_t open, ml_tensor **inputs, ml_view *views, kept *all, kept *one, ml_probe *p, ml_error *err)
{
  const ml_graph *g = ml_program_graph(program);
  for (size_t i = 0; i < g->n_inputs; i++) {
    ml_tensor_release(inputs[i]);
    ML_TRY(make_input(g->inputs[i], i, open, &inputs[i], err));
  }
  take_rows(g, inputs, 0, 1, views);
  ML_TRY(ml_program_run(program, views, keep, one, err)); /* builds the session */
  uint64_t spent = 0, best = UINT64_MAX;
  for (int run = 0; run < RUNS && spent < ENOUGH_NS; run++) {
    uint64_t begin = ml_clock_ns();
    ML_TRY(ml_program_run(program, views, keep, one, err));
    uint64_t ns = ml_clock_ns() - begin;
    spent += ns;
    if (ns < best) best = ns;
  }
  p->run_ns = best ? best : 1;
  if (!p->mergeable) return ML_OK;
  size_t rows = best < CHEAP_NS ? MANY_ROWS : ROWS;
  take_rows(g, inputs, 0, rows, views);
  ML_TRY(ml_program_run(program, views, keep, all, err));
  for (size_t row = 0; row < ROWS && p->mergeable; row++) {
    take_rows(g, inputs, row, 1, views);
    ML_TRY(ml_program_run(program, views, keep, one, err));
    compare(g, all, rows, one, row, p);
  }
  return ML_OK;
}

static void forget(ml_tensor **tensors, size_t n)
{
  for (size_t i = 0; tensors && i < n; i++) ml_tensor_release(tensors[i]);
  ml_free(tensors);
}

void ml_probe_program(ml_program *program, ml_probe *p)
{
  const ml_graph *g = ml_program_graph(program);
  ml_error err;
  memset(p, 0, sizeof *p);
  look(g, p);
  ml_tensor **inputs = ml_alloc_zero(g->n_inputs + 1, sizeof *inputs);
  ml_view *views = ml_alloc_zero(g->n_inputs + 1, sizeof *views);
  kept all = { ml_alloc_zero(g->n_outputs + 1, sizeof *all.tensors), g->n_outputs };
  kept one = { ml_alloc_zero(g->n_outputs + 1, sizeof *one.tensors), g->n_outputs };
  ml_status status = inputs && views && all.tensors && one.tensors ? ML_OK : ml_fail_memory(&err, 1, "a trial run");
  if (status == ML_OK) {
    status = try(program, 8, inputs, views, &all, &one, p, &err);
    if (status != ML_OK && p->run_ns == 0) status = try(program, 1, inputs, views, &all, &one, p, &err);
  }
  if (status != ML_OK && p->mergeable) no(p, false, "it could not be tried with made-up inputs: %.180s", err.message);
  forget(inputs, g->n_inputs);
  forget(all.tensors, all.n);
  forget(one.tensors, one.n);
  ml_free(views);
}
