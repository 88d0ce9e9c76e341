/* core.verify_case, core.verify_cases: run cases of ONNX's backend tests, directories with model.onnx and
 * test_data_set_N/{input,output}_N.pb; several at a time on the thread pool.
 *
 * Comparison (ONNX's backend test runner): as many outputs, equal dtype and shape; strings and booleans equal; numbers |got -
 * expected| <= atol + rtol |expected|, NaN equal to NaN and an infinity to itself; rtol is at least two units in the
 * last place of 16-bit floats, 2^-6 for bfloat16 (ONNX's runner) and 2^-9 for float16: chains that round at every step. Besides pass
 * or fail the largest absolute and relative differences and the largest distance in units in the last place are reported, so that
 * an operator that drifts shows before it fails. A case that cannot be read or run is a failed case, not a Lua error: only wrong
 * arguments raise.
 *
 * Outputs that hang on drawn numbers (Bernoulli, RandomNormal …, Dropout while it trains with a ratio above 0) cannot equal those
 * of another generator. They are found by following the draws through the graph, and compared by type, shape and distribution:
 * the model runs RUNS times with different numbers, and the expected output must look like one run more (see judge). */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "base/thread.h"
#include "codec/json.h"
#include "format/onnx.h"
#include "lua/lua_core.h"

#define CASE "mlserve.cases"

enum {
  MAX_PATH = 4096,
  MAX_SETS = 1024,
  RUNS = 127,   /* of a model whose outputs are random */
  SAMPLE = 1024 /* elements of an output, spread over it, whose distribution is looked at */
};

/* A random output: rows of n elements, row 0 the expected one, then those of the runs. */
typedef struct sample {
  size_t n, step;
  double *rows;
} sample;

/* The first element that differs; for reports. */
typedef struct difference {
  int set;
  char output[96], index[160], got[64], expected[64];
} difference;

typedef struct verification {
  const char *directory; /* the caller's */
  ml_compile_options options;
  double rtol, atol; /* negative: the case's data.json, else ONNX's own */
  ml_graph *graph;
  ml_program *program; /* NULL: to be compiled; anew when a data set has changed the graph */
  ml_item *in;         /* of the data set, by graph input */
  ml_view *views;
  bool *random;        /* by value id: hangs on drawn numbers */
  sample *samples;     /* by graph output; rows NULL: not random */
  int set;             /* the data set being run */
  bool loaded, drawn;
  size_t outputs;      /* compared so far, over all data sets */
  double max_abs, max_rel, max_ulp;
  difference first;
  const ml_op_def **ops; /* distinct operators of the graph */
  size_t n_ops, cap_ops;
  ml_status status;
  ml_error err;
} verification;

typedef struct verifications { size_t count; verification *items; } verifications;

/* ---------------------------------------------------------------- comparing ---- */
/* Position of a float among all floats of its width, so that neighbours differ by one and +0 and -0 are the same. */
static double ulp_position(const void *data, ml_dtype dtype, size_t i) {
  const size_t size = ml_dtype_size(dtype), width = ml_dtype_bits(dtype);
  uint64_t bits = 0;
  memcpy(&bits, (const char *)data + i * size, size); /* little-endian, as everywhere */
  const uint64_t sign = UINT64_C(1) << (width - 1);
  return bits & sign ? -(double)(bits - sign) : (double)bits;
}

static bool equal_bits(const ml_view *a, const ml_view *b, size_t i) {
  size_t size = ml_dtype_size(a->dtype);
  return memcmp((const char *)a->data + i * size, (const char *)b->data + i * size, size) == 0;
}

static bool within(const verification *v, double a, double b, double rtol) {
  return a == b || fabs(a - b) <= v->atol + rtol * fabs(b);
}

static bool close_enough(verification *v, const ml_view *got, const ml_view *expected, size_t i) {
  if (equal_bits(got, expected, i)) return true;
  double a = ml_element_get(got->data, got->dtype, i), b = ml_element_get(expected->data, got->dtype, i);
  if (isnan(a) || isnan(b)) return isnan(a) && isnan(b);
  if (isinf(a) || isinf(b)) return a == b;
  double away = fabs(a - b);
  if (away > v->max_abs) v->max_abs = away;
  if (b != 0 && away / fabs(b) > v->max_rel) v->max_rel = away / fabs(b);
  if (ml_dtype_is_float(got->dtype)) {
    double ulp = fabs(ulp_position(got->data, got->dtype, i) - ulp_position(expected->data, got->dtype, i));
    if (ulp > v->max_ulp) v->max_ulp = ulp;
  }
  if (got->dtype == ML_BOOL) return a == b;
  return within(v, a, b, fmax(v->rtol, got->dtype == ML_BFLOAT16 ? 0x1p-6 : got->dtype == ML_FLOAT16 ? 0x1p-9 : 0));
}

static ml_status difference_at(verification *v, const char *name, const ml_view *got, size_t i, size_t wrong, ml_error *err) {
  int64_t index[ML_MAX_RANK];
  size_t rest = i;
  difference *d = &v->first;
  for (int32_t k = got->rank - 1; k >= 0; k--) {
    index[k] = (int64_t)(rest % (size_t)got->dims[k]);
    rest /= (size_t)got->dims[k];
  }
  d->set = v->set;
  snprintf(d->output, sizeof d->output, "%s", name);
  ml_shape_format(index, got->rank, d->index, sizeof d->index);
  return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' at %s: got %s, expected %s (%zu of %zu elements differ)", v->set, name,
                 d->index, d->got, d->expected, wrong, got->count);
}

static void quote(char *text, size_t size, ml_str s) {
  snprintf(text, size, "'%.*s'", (int)(s.length < 50 ? s.length : 50), s.length ? s.bytes : "");
}

static ml_status compare_strings(verification *v, const char *name, const ml_view *got, const ml_view *expected, ml_error *err) {
  const ml_str *a = got->data, *b = expected->data;
  size_t wrong = 0, first = 0;
  for (size_t i = got->count; i-- > 0;) {
    if (a[i].length == b[i].length && (a[i].length == 0 || memcmp(a[i].bytes, b[i].bytes, a[i].length) == 0)) continue;
    first = i;
    wrong++;
  }
  if (wrong == 0) return ML_OK;
  quote(v->first.got, sizeof v->first.got, a[first]);
  quote(v->first.expected, sizeof v->first.expected, b[first]);
  return difference_at(v, name, got, first, wrong, err);
}

/* NumPy has no bfloat16, so files made with it hold the bits as uint16 where the model says bfloat16. */
static void take_bits(ml_view *file, ml_dtype model) {
  if (file->dtype == ML_UINT16 && model == ML_BFLOAT16) file->dtype = ML_BFLOAT16;
}

static ml_status compare_types(const verification *v, const char *name, const ml_view *got, ml_view *expected, ml_error *err) {
  char left[128], right[128];
  take_bits(expected, got->dtype);
  if (got->dtype != expected->dtype)
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' is %s, expected %s", v->set, name,
                   ml_dtype_name(got->dtype), ml_dtype_name(expected->dtype));
  if (!ml_shape_equal(got->dims, got->rank, expected->dims, expected->rank))
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' has shape %s, expected %s", v->set, name,
                   ml_shape_format(got->dims, got->rank, left, sizeof left),
                   ml_shape_format(expected->dims, expected->rank, right, sizeof right));
  return ML_OK;
}

static ml_status compare_tensors(verification *v, const char *name, const ml_view *got, const ml_view *expected, ml_error *err) {
  if (got->dtype == ML_STRING) return compare_strings(v, name, got, expected, err);
  size_t wrong = 0, first = 0;
  for (size_t i = 0; i < got->count; i++) {
    if (close_enough(v, got, expected, i)) continue;
    if (wrong++ == 0) first = i;
  }
  if (wrong == 0) return ML_OK;
  snprintf(v->first.got, sizeof v->first.got, "%.9g", ml_element_get(got->data, got->dtype, first));
  snprintf(v->first.expected, sizeof v->first.expected, "%.9g", ml_element_get(expected->data, expected->dtype, first));
  return difference_at(v, name, got, first, wrong, err);
}

/* ---------------------------------------------------------------- random outputs ---- */
/* Whether the values that a case holds for it, or the model itself, are all zero (false). */
static bool is_zero(const verification *v, const ml_value *value) {
  const ml_tensor *known = value->init;
  for (size_t i = 0; !known && i < v->graph->n_inputs; i++)
    if (v->graph->inputs[i] == value) known = v->in[i].tensor;
  if (!known || known->view.dtype == ML_STRING) return false;
  for (size_t i = 0; i < known->view.count; i++)
    if (ml_element_get(known->view.data, known->view.dtype, i) != 0) return false;
  return true;
}

/* Calls visit for every node of the graph and of the graphs in it, until one says true. */
static bool any_node(const ml_graph *graph, bool (*visit)(verification *v, const ml_node *node), verification *v) {
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const ml_node *node = graph->nodes[i];
    if (visit(v, node)) return true;
    for (size_t k = 0; k < node->attrs.count; k++) {
      const ml_attr *attr = &node->attrs.items[k];
      if (attr->type == ML_ATTR_GRAPH && any_node(attr->as.graph, visit, v)) return true;
    }
  }
  return false;
}

/* Dropout draws only where it trains with a ratio above 0; the other random operators always do. */
static bool draws(verification *v, const ml_node *node) {
  if (!(node->op->flags & ML_OP_RANDOM)) return false;
  if (strcmp(node->op->name, "Dropout") != 0) return true;
  if (node->n_in < 3 || !node->in[2] || is_zero(v, node->in[2])) return false;
  return !node->in[1] || !is_zero(v, node->in[1]);
}

static bool draws_within(verification *v, const ml_node *node) {
  if (draws(v, node)) return true;
  for (size_t k = 0; k < node->attrs.count; k++) {
    const ml_attr *attr = &node->attrs.items[k];
    if (attr->type == ML_ATTR_GRAPH && any_node(attr->as.graph, draws, v)) return true;
  }
  return false;
}

/* Marks the values that hang on drawn numbers. What a subgraph reads is among its node's inputs. */
static ml_status follow_draws(verification *v, ml_error *err) {
  const ml_graph *graph = v->graph;
  ml_free(v->random);
  v->random = ml_alloc_zero(graph->n_values + 1, sizeof *v->random);
  if (!v->random) return ml_fail_memory(err, graph->n_values, "a case");
  for (size_t i = 0; i < graph->n_nodes; i++) {
    const ml_node *node = graph->nodes[i];
    bool random = draws_within(v, node);
    for (int32_t k = 0; k < node->n_in && !random; k++) random = node->in[k] && v->random[node->in[k]->id];
    for (int32_t k = 0; k < node->n_out && random; k++)
      if (node->out[k]) v->random[node->out[k]->id] = true;
  }
  return ML_OK;
}

static void fill_row(const sample *s, size_t row, const ml_view *view) {
  for (size_t i = 0; i < s->n; i++) {
    double value = ml_element_get(view->data, view->dtype, i * s->step);
    s->rows[row * s->n + i] = isnan(value) ? INFINITY : value;
  }
}

static ml_status begin_sample(sample *s, const ml_view *expected, ml_error *err) {
  s->n = expected->dtype == ML_STRING ? 0 : expected->count < SAMPLE ? expected->count : SAMPLE;
  s->step = s->n ? expected->count / s->n : 1;
  s->rows = ml_alloc_zero((s->n + 1) * (RUNS + 1), sizeof *s->rows);
  if (!s->rows) return ml_fail_memory(err, s->n * sizeof *s->rows, "the runs of a random model");
  fill_row(s, 0, expected);
  return ML_OK;
}

enum { SHIFT, SPREAD, OUTSIDE, NEW, FIGURES };
static const char *const figure_names[] = { "the sum of the ranks", "the distance of the ranks", "the number outside all runs",
                                            "the number of values that no run has" };

/* Permutation test (Fisher 1935): were the expected output one more run, any of the RUNS + 1 rows might as well be the odd one out.
 * For each row, how far its elements lie from the middle of the same element of all other rows (by rank: on the average with
 * sign, and without), how many lie outside all of them, and how many have a value that none of them has (which says something
 * where the values are few); the expected row must not be half as far again as the farthest run (and a little more, since few
 * elements leave much to chance).
 * Elements may hang together in any way, since the rows are compared as wholes. */
static ml_status judge(const verification *v, const char *name, const sample *s, ml_error *err) {
  double figures[RUNS + 1][FIGURES] = { { 0 } }, most[FIGURES] = { 0 };
  for (size_t i = 0; i < s->n; i++)
    for (size_t r = 0; r <= RUNS; r++) {
      double own = s->rows[r * s->n + i], rank = 0, low = INFINITY, high = -INFINITY;
      bool met = false;
      for (size_t k = 0; k <= RUNS; k++) {
        double other = s->rows[k * s->n + i];
        if (k == r) continue;
        bool same = within(v, own, other, v->rtol);
        met = met || same;
        rank += same ? 0.5 : other < own;
        low = fmin(low, other);
        high = fmax(high, other);
      }
      rank = rank / RUNS - 0.5;
      figures[r][SHIFT] += rank;
      figures[r][SPREAD] += fabs(rank);
      figures[r][NEW] += !met;
      figures[r][OUTSIDE] += !met && (own < low || own > high);
    }
  for (size_t r = 1; r <= RUNS; r++)
    for (size_t k = 0; k < FIGURES; k++) most[k] = fmax(most[k], fabs(figures[r][k]));
  for (size_t k = 0; k < FIGURES; k++)
    if (fabs(figures[0][k]) > 1.5 * most[k] + (k >= OUTSIDE ? 1 : 1 / (double)s->n))
      return ml_fail(err, ML_DATA_LOSS,
                     "test_data_set_%d: random output '%.80s' is distributed otherwise than expected: %s is %.3g for its %zu elements, "
                     "%.3g at most in %d runs", v->set, name, figure_names[k], fabs(figures[0][k]), s->n, most[k], RUNS);
  return ML_OK;
}

static void drop_samples(verification *v) {
  for (size_t i = 0; v->samples && i < v->graph->n_outputs; i++) {
    ml_free(v->samples[i].rows);
    v->samples[i] = (sample){ 0 };
  }
}

/* The further runs, in the session of the first. */
static ml_status run_samples(verification *v, ml_session *session, ml_error *err) {
  for (size_t run = 1; run <= RUNS; run++) {
    ml_session_seed(session, 0, run);
    ML_TRY(ml_session_run(session, err));
    for (size_t i = 0; i < v->graph->n_outputs; i++) {
      const ml_view *got = ml_session_output(session, i);
      sample *s = &v->samples[i];
      if (s->n == 0) continue;
      if ((s->n - 1) * s->step >= got->count) s->n = 0; /* its shape is random too */
      else fill_row(s, run, got);
    }
  }
  for (size_t i = 0; i < v->graph->n_outputs; i++)
    if (v->samples[i].n > 0) ML_TRY(judge(v, v->graph->outputs[i]->name, &v->samples[i], err));
  return ML_OK;
}

/* ---------------------------------------------------------------- values ---- */
/* The one place where the bytes of a .pb file become a value, by the type that the model declares (NULL: no such input or output;
 * its name then decides). *name points into the bytes. */
static ml_status read_value(const ml_value *declared, const ml_file_map *file, const char *path, ml_item *out, const char **name,
                            size_t *length, ml_error *err) {
  ML_TRY(ml_onnx_value_read(file->bytes, file->size, path, declared ? declared->type : 0, out, name, length, err));
  if (declared && out->tensor) take_bits(&out->tensor->view, declared->dtype);
  return ML_OK;
}

static ml_view element_of(const ml_tensor *tensor, size_t i) {
  size_t size = ml_dtype_size(tensor->view.dtype);
  return (ml_view){ .data = (char *)tensor->view.data + i * size, .count = 1, .dtype = tensor->view.dtype };
}

static bool same_key(const ml_view *a, const ml_view *b) {
  if (a->dtype != ML_STRING) return *(const int64_t *)a->data == *(const int64_t *)b->data;
  const ml_str *x = a->data, *y = b->data;
  return x->length == y->length && (x->length == 0 || memcmp(x->bytes, y->bytes, x->length) == 0);
}

/* The order of the keys means nothing. */
static ml_status compare_maps(verification *v, const char *name, const ml_container *got, const ml_container *expected, ml_error *err) {
  size_t n = got->items[0].tensor->view.count, want = expected->items[0].tensor->view.count;
  if (n != want) return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' has %zu keys, expected %zu", v->set, name, n, want);
  for (size_t i = 0; i < n; i++) {
    ml_view key = element_of(expected->items[0].tensor, i), at, value;
    size_t k = 0;
    while (k < n && (at = element_of(got->items[0].tensor, k), !same_key(&at, &key))) k++;
    if (k == n) return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' lacks key %zu of those expected", v->set, name, i);
    at = element_of(got->items[1].tensor, k);
    value = element_of(expected->items[1].tensor, i);
    ML_TRY(compare_types(v, name, &at, &value, err));
    ML_TRY(compare_tensors(v, name, &at, &value, err));
  }
  return ML_OK;
}

/* Sequences and optionals element by element. */
static ml_status compare_containers(verification *v, const char *name, ml_container *got, ml_container *expected, ml_error *err) {
  char a[96], b[96];
  if (!ml_type_fits(got->type, expected->type))
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' is %s, expected %s", v->set, name, ml_type_format(got->type, a, sizeof a),
                   ml_type_format(expected->type, b, sizeof b));
  ml_kind kind = ml_type_kind(got->type);
  if (kind == ML_KIND_MAP_INT64 || kind == ML_KIND_MAP_STRING) return compare_maps(v, name, got, expected, err);
  if (got->count != expected->count)
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' has %zu elements, expected %zu", v->set, name, got->count, expected->count);
  for (size_t i = 0; i < got->count; i++) {
    ml_status status;
    if (got->items[i].container) {
      status = compare_containers(v, name, got->items[i].container, expected->items[i].container, err);
    } else {
      status = compare_types(v, name, &got->items[i].tensor->view, &expected->items[i].tensor->view, err);
      if (status == ML_OK) status = compare_tensors(v, name, &got->items[i].tensor->view, &expected->items[i].tensor->view, err);
    }
    if (status != ML_OK) return ml_fail_in(err, status, "element %zu", i);
  }
  return ML_OK;
}

/* The one place where an output is compared. A random one is only noted here; run_samples looks at its distribution. */
static ml_status compare_value(verification *v, size_t index, const ml_view *got, ml_item *item, ml_error *err) {
  const ml_value *declared = v->graph->outputs[index];
  ml_tensor *expected = item->tensor;
  if (got->type && item->container) {
    v->outputs++;
    return compare_containers(v, declared->name, ml_view_container(got), item->container, err);
  }
  if (got->type || !expected) return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: output '%.80s' is %s tensor", v->set, declared->name, got->type ? "no" : "a");
  ML_TRY(compare_types(v, declared->name, got, &expected->view, err));
  v->outputs++;
  if (!v->random[declared->id]) return compare_tensors(v, declared->name, got, &expected->view, err);
  v->drawn = true;
  return begin_sample(&v->samples[index], &expected->view, err);
}

/* ---------------------------------------------------------------- files ---- */
static ml_status join(const verification *v, char *path, const char *kind, size_t index, ml_error *err) {
  int n = snprintf(path, MAX_PATH, "%s/test_data_set_%d/%s_%zu.pb", v->directory, v->set, kind, index);
  return n > 0 && n < MAX_PATH ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "the path of %s_%zu.pb is too long", kind, index);
}

/* *out stays empty when there is no such file. `name` gets the value's name, cut to fit. */
static ml_status read_file(const verification *v, const char *kind, size_t index, const ml_value *declared, ml_item *out, char *name,
                           size_t size, ml_error *err) {
  char path[MAX_PATH];
  ml_file_map map;
  const char *given = NULL;
  size_t length = 0;
  *out = (ml_item){ NULL, NULL };
  ML_TRY(join(v, path, kind, index, err));
  if (access(path, F_OK) != 0) return ML_OK;
  ML_TRY(ml_file_open_map(path, &map, err));
  const char *what = strstr(path + strlen(v->directory), "test_data_set_");
  ml_status status = read_value(declared, &map, what, out, &given, &length, err);
  if (status == ML_OK && name) {
    size_t n = given && length < size ? length : 0;
    if (n) memcpy(name, given, n);
    name[n] = '\0';
  }
  ml_file_unmap(&map);
  return status;
}

/* ---------------------------------------------------------------- running ---- */
/* An input file belongs to the graph input of its name; else to the one of its number. One that has the name of an initialiser
 * replaces it. */
static ml_status take_input(verification *v, size_t index, const char *name, ml_item *item, ml_error *err) {
  ml_value *value = *name ? ml_graph_find(v->graph, name) : NULL;
  size_t at = index;
  if (value && value->init && item->tensor) {
    ml_status status = ml_graph_set_initializer(v->graph, value, item->tensor, err);
    ml__lua_release_items(item, 1);
    ml_program_release(v->program);
    v->program = NULL;
    return status;
  }
  for (size_t i = 0; value && i < v->graph->n_inputs; i++)
    if (v->graph->inputs[i] == value) at = i;
  if (at >= v->graph->n_inputs || v->in[at].tensor || v->in[at].container) {
    ml__lua_release_items(item, 1);
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: input_%zu.pb is for no input of the model", v->set, index);
  }
  if (item->tensor) take_bits(&item->tensor->view, v->graph->inputs[at]->dtype);
  v->in[at] = *item;
  return ML_OK;
}

static ml_status take_inputs(verification *v, ml_error *err) {
  const ml_graph *graph = v->graph;
  for (size_t i = 0;; i++) {
    ml_item item;
    char name[256];
    ML_TRY(read_file(v, "input", i, i < graph->n_inputs ? graph->inputs[i] : NULL, &item, name, sizeof name, err));
    if (!item.tensor && !item.container) break;
    ML_TRY(take_input(v, i, name, &item, err));
  }
  for (size_t i = 0; i < graph->n_inputs; i++) {
    if (!v->in[i].tensor && !v->in[i].container)
      return ml_fail(err, ML_NOT_FOUND, "test_data_set_%d: there is no file for input '%.80s'", v->set, graph->inputs[i]->name);
    ml_item_view(&v->in[i], &v->views[i]);
  }
  return ML_OK;
}

/* ONNX's runner does not hold a case's data against the shapes that its model declares, and those of CastLike in ONNX 1.12 differ:
 * the data are right. */
static ml_status take_shapes(verification *v, ml_error *err) {
  bool changed = false;
  for (size_t i = 0; i < v->graph->n_inputs; i++) {
    ml_value *input = v->graph->inputs[i];
    const ml_view *view = &v->views[i];
    bool fits = input->rank == ML_UNKNOWN || input->rank == view->rank;
    for (int32_t k = 0; fits && k < input->rank; k++) fits = input->dims[k] == ML_UNKNOWN || input->dims[k] == view->dims[k];
    if (fits) continue;
    input->rank = view->rank;
    memcpy(input->dims, view->dims, sizeof input->dims);
    changed = true;
  }
  if (!changed) return ML_OK;
  ml_program_release(v->program);
  v->program = NULL;
  return ml_graph_infer(v->graph, err);
}

static ml_status take_outputs(void *context, ml_session *session, ml_error *err) {
  verification *v = context;
  char path[MAX_PATH];
  bool random = false;
  for (size_t i = 0; i < v->graph->n_outputs; i++) {
    ml_item expected;
    ML_TRY(read_file(v, "output", i, v->graph->outputs[i], &expected, NULL, 0, err));
    if (!expected.tensor && !expected.container) return ml_fail(err, ML_NOT_FOUND, "test_data_set_%d: output_%zu.pb is missing", v->set, i);
    ml_status status = compare_value(v, i, ml_session_output(session, i), &expected, err);
    ml__lua_release_items(&expected, 1);
    ML_TRY(status);
    random = random || v->samples[i].rows;
  }
  ML_TRY(join(v, path, "output", v->graph->n_outputs, err));
  if (access(path, F_OK) == 0)
    return ml_fail(err, ML_DATA_LOSS, "test_data_set_%d: more outputs than the %zu of the model", v->set, v->graph->n_outputs);
  return random ? run_samples(v, session, err) : ML_OK;
}

static ml_status run_set(verification *v, ml_error *err) {
  ML_TRY(take_inputs(v, err));
  ML_TRY(take_shapes(v, err));
  ML_TRY(follow_draws(v, err));
  if (!v->program) ML_TRY(ml_program_new(v->graph, &v->options, &v->program, err));
  v->loaded = true;
  return ml_program_run(v->program, v->views, take_outputs, v, err);
}

/* The largest N of test_data_set_N. */
static ml_status count_sets(const verification *v, int *last, ml_error *err) {
  DIR *directory = opendir(v->directory);
  *last = -1;
  if (!directory) return ml_fail(err, ML_NOT_FOUND, "%.300s: %s", v->directory, strerror(errno));
  for (struct dirent *entry; (entry = readdir(directory));) {
    static const char prefix[] = "test_data_set_";
    if (strncmp(entry->d_name, prefix, sizeof prefix - 1) != 0) continue;
    char *end;
    const char *digits = entry->d_name + sizeof prefix - 1;
    long n = strtol(digits, &end, 10);
    if (end != digits && *end == '\0' && n >= 0 && n < MAX_SETS && n > *last) *last = (int)n;
  }
  closedir(directory);
  return *last >= 0 ? ML_OK : ml_fail(err, ML_NOT_FOUND, "%.300s: no directory test_data_set_0", v->directory);
}

/* rtol and atol of data.json, where the caller gave none */
static ml_status parse_tolerances(verification *v, const ml_file_map *file, double *rtol, double *atol, ml_error *err) {
  ml_json_reader reader;
  bool first = true, more;
  char scratch[256];
  const char *key;
  size_t length;
  (void)v;
  ml_json_reader_init(&reader, (const char *)file->bytes, file->size);
  ML_TRY(ml_json_enter_object(&reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(&reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) return ml_json_expect_end(&reader, err);
    double *out = length != 4 ? NULL : memcmp(key, "rtol", 4) == 0 ? rtol : memcmp(key, "atol", 4) == 0 ? atol : NULL;
    if (!out) {
      ML_TRY(ml_json_skip(&reader, err));
      continue;
    }
    ML_TRY(ml_json_double_read(&reader, out, err));
    if (!(*out >= 0)) return ml_json_fail(&reader, err, "%.4s is %g, expected at least 0", key, *out);
  }
}

static ml_status take_tolerances(verification *v, ml_error *err) {
  char path[MAX_PATH];
  double rtol = 1e-3, atol = 1e-7;
  int n = snprintf(path, sizeof path, "%s/data.json", v->directory);
  if (n > 0 && n < MAX_PATH && access(path, F_OK) == 0) {
    ml_file_map file;
    ML_TRY(ml_file_open_map(path, &file, err));
    ml_status status = parse_tolerances(v, &file, &rtol, &atol, err);
    ml_file_unmap(&file);
    if (status != ML_OK) return ml_fail_in(err, status, "data.json");
  }
  if (v->rtol < 0) v->rtol = rtol;
  if (v->atol < 0) v->atol = atol;
  return ML_OK;
}

/* Always false: every node is wanted. */
static bool note_operator(verification *v, const ml_node *node) {
  for (size_t i = 0; i < v->n_ops; i++)
    if (v->ops[i] == node->op) return false;
  if (ml_grow(&v->ops, &v->cap_ops, v->n_ops + 1, sizeof *v->ops, "operators", NULL) == ML_OK) v->ops[v->n_ops++] = node->op;
  return false;
}

static void drop_inputs(verification *v) {
  for (size_t i = 0; v->in && i < v->graph->n_inputs; i++) {
    ml__lua_release_items(&v->in[i], 1);
    v->in[i] = (ml_item){ NULL, NULL };
  }
}

static ml_status run_case(verification *v, ml_error *err) {
  char path[MAX_PATH];
  int last;
  ML_TRY(count_sets(v, &last, err));
  ML_TRY(take_tolerances(v, err));
  int n = snprintf(path, sizeof path, "%s/model.onnx", v->directory);
  if (n < 0 || n >= MAX_PATH) return ml_fail(err, ML_INVALID_ARGUMENT, "the path is too long");
  ML_TRY(ml_onnx_load(path, NULL, &v->graph, err));
  (void)any_node(v->graph, note_operator, v);
  v->in = ml_alloc_zero(v->graph->n_inputs + 1, sizeof *v->in);
  v->views = ml_alloc_zero(v->graph->n_inputs + 1, sizeof *v->views);
  v->samples = ml_alloc_zero(v->graph->n_outputs + 1, sizeof *v->samples);
  if (!v->in || !v->views || !v->samples) return ml_fail_memory(err, v->graph->n_inputs * sizeof *v->views, "a case");
  for (v->set = 0; v->set <= last; v->set++) {
    n = snprintf(path, sizeof path, "%s/test_data_set_%d", v->directory, v->set);
    if (n < 0 || n >= MAX_PATH || access(path, F_OK) != 0) continue;
    ml_status status = run_set(v, err);
    drop_inputs(v);
    drop_samples(v);
    ML_TRY(status);
  }
  return ML_OK;
}

/* Runs one case and lets go of everything but what is reported. */
static void run_one(void *context, size_t index) {
  verification *v = &((verifications *)context)->items[index];
  v->status = run_case(v, &v->err);
  ml_program_release(v->program);
  ml_free(v->in);
  ml_free(v->views);
  ml_free(v->random);
  ml_free(v->samples);
  ml_graph_free(v->graph);
  v->graph = NULL;
}

/* ---------------------------------------------------------------- binding ---- */
static int cases_gc(lua_State *L) {
  verifications *all = luaL_checkudata(L, 1, CASE);
  for (size_t i = 0; i < all->count; i++) ml_free(all->items[i].ops);
  ml_free(all->items);
  *all = (verifications){ 0 };
  return 0;
}

static void check_options(lua_State *L, int index) {
  static const char *const known[] = { "level", "rtol", "atol" };
  if (lua_isnoneornil(L, index)) return;
  luaL_checktype(L, index, LUA_TTABLE);
  lua_pushnil(L);
  while (lua_next(L, index)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
    size_t i = 0;
    while (i < sizeof known / sizeof *known && strcmp(known[i], name) != 0) i++;
    if (i == sizeof known / sizeof *known) luaL_error(L, "unknown option '%s' (known: atol, level, rtol)", name);
    lua_pop(L, 1);
  }
}

/* -1 when it is not given */
static double tolerance(lua_State *L, int index, const char *name) {
  double value = ml__lua_opt_number_field(L, index, name, -1);
  if (value >= 0) return value;
  if (!lua_isnoneornil(L, index)) {
    lua_getfield(L, index, name);
    if (!lua_isnil(L, -1)) luaL_error(L, "option '%s': a number of at least 0 expected", name);
    lua_pop(L, 1);
  }
  return -1;
}

/* The message without "DIRECTORY/model.onnx: " in front: the caller says which case it is. */
static const char *without_path(const char *message, const char *directory) {
  static const char file[] = "/model.onnx: ";
  size_t n = strlen(directory);
  if (strncmp(message, directory, n) != 0 || strncmp(message + n, file, sizeof file - 1) != 0) return message;
  return message + n + sizeof file - 1;
}

static void set_number(lua_State *L, const char *name, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, name);
}

static void set_string(lua_State *L, const char *name, const char *value) {
  lua_pushstring(L, value);
  lua_setfield(L, -2, name);
}

static void set_flag(lua_State *L, const char *name, bool value) {
  lua_pushboolean(L, value);
  lua_setfield(L, -2, name);
}

static void push_result(lua_State *L, const verification *v) {
  lua_createtable(L, 0, 12);
  lua_createtable(L, (int)v->n_ops, 0);
  for (size_t i = 0; i < v->n_ops; i++) {
    lua_pushstring(L, v->ops[i]->name);
    lua_rawseti(L, -2, (int)i + 1);
  }
  lua_setfield(L, -2, "operators");
  set_flag(L, "passed", v->status == ML_OK);
  set_flag(L, "refused", v->status != ML_OK && !v->loaded);
  set_flag(L, "random", v->drawn);
  if (v->status != ML_OK) set_string(L, "error", without_path(v->err.message, v->directory));
  if (v->first.output[0]) {
    lua_createtable(L, 0, 5);
    set_number(L, "set", v->first.set);
    set_string(L, "output", v->first.output);
    set_string(L, "index", v->first.index);
    set_string(L, "got", v->first.got);
    set_string(L, "expected", v->first.expected);
    lua_setfield(L, -2, "difference");
  }
  set_number(L, "max_abs", v->max_abs);
  set_number(L, "max_rel", v->max_rel);
  set_number(L, "max_ulp", v->max_ulp);
  ml__lua_push_int(L, (int64_t)v->outputs);
  lua_setfield(L, -2, "outputs");
}

/* Cases of the array of directories at 1, with the options at 2; pushes the array of results. */
static void run_cases(lua_State *L) {
  static const char *const levels[] = { "none", "exact", "fast" };
  size_t at = 0, count = (size_t)lua_rawlen(L, 1);
  check_options(L, 2);
  const char *level = ml__lua_opt_string_field(L, 2, "level", "fast");
  while (at < 3 && strcmp(levels[at], level) != 0) at++;
  if (at == 3) luaL_error(L, "option 'level': none, exact or fast expected, got '%s'", level);
  double rtol = tolerance(L, 2, "rtol"), atol = tolerance(L, 2, "atol");
  verifications *all = lua_newuserdatauv(L, sizeof *all, 0);
  *all = (verifications){ 0 };
  luaL_setmetatable(L, CASE);
  all->items = ml_alloc_zero(count + 1, sizeof *all->items);
  if (!all->items) luaL_error(L, "out of memory");
  all->count = count;
  for (size_t i = 0; i < count; i++) {
    lua_rawgeti(L, 1, (int)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "directory %d: string expected, got %s", (int)i + 1, luaL_typename(L, -1));
    all->items[i] = (verification){ .directory = lua_tostring(L, -1), .rtol = rtol, .atol = atol, .options = { .level = (ml_level)at } };
    lua_pop(L, 1); /* the array keeps it */
  }
  ml_parallel(count, run_one, all);
  lua_createtable(L, (int)count, 0);
  for (size_t i = 0; i < count; i++) {
    push_result(L, &all->items[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
}

/* verify_cases(directories[, {level = "fast", rtol = …, atol = …}]) -> array of results, in the order of the directories:
 *   {passed, refused = it failed before it could run, random = outputs were compared by distribution, error = text or nil,
 *    difference = nil or the first one {set, output, index, got, expected}, max_abs, max_rel, max_ulp, outputs = number compared,
 *    operators = array of names}
 * The tolerances are those of the case's data.json, else ONNX's (1e-3, 1e-7), unless given. Runs as many cases at a time as
 * set_threads() says. */
static int verify_cases(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  lua_settop(L, 2);
  run_cases(L);
  return 1;
}

/* verify_case(directory[, options]) -> result */
static int verify_case(lua_State *L) {
  luaL_checkstring(L, 1);
  lua_settop(L, 2);
  lua_createtable(L, 1, 0);
  lua_pushvalue(L, 1);
  lua_rawseti(L, -2, 1);
  lua_replace(L, 1);
  run_cases(L);
  lua_rawgeti(L, -1, 1);
  return 1;
}

void ml__lua_open_verify(lua_State *L) {
  static const luaL_Reg none[] = { { NULL, NULL } };
  static const luaL_Reg functions[] = { { "verify_case", verify_case }, { "verify_cases", verify_cases }, { NULL, NULL } };
  ml__lua_class(L, CASE, none, cases_gc, NULL);
  luaL_setfuncs(L, functions, 0);
}
