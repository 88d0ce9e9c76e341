/* The list of metrics, and the decoding that all of them share.
 * Decoding turns whatever labels and predictions look like (class ids, one-hot rows, one score, a score per class, any numeric
 * dtype) into class ids, predicted ids, scores and counts per class, once, so that a metric is a short formula over known
 * arrays. */
#include "eval/metrics.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const ml_metric metric_table[] = {
#define X(name, tasks, larger, aliases) {#name, ml_metric_##name, (tasks), (larger) != 0, aliases},
    ML_METRIC_MAP(X)
#undef X
};

size_t ml_metric_count(void) { return sizeof metric_table / sizeof metric_table[0]; }

const ml_metric *ml_metric_at(size_t index) { return index < ml_metric_count() ? &metric_table[index] : NULL; }

static bool listed(const char *list, const char *name) {
  size_t length = strlen(name);
  for (const char *at = list; *at != '\0';) {
    size_t word = strcspn(at, ",");
    if (word == length && memcmp(at, name, length) == 0) return true;
    at += word;
    at += *at == ',' ? 1 : 0;
  }
  return false;
}

const ml_metric *ml_metric_find(const char *name) {
  for (size_t i = 0; i < ml_metric_count(); ++i)
    if (strcmp(metric_table[i].name, name) == 0 || listed(metric_table[i].aliases, name)) return &metric_table[i];
  return NULL;
}

static const char *const task_names[] = {"auto", "binary", "categorical", "regression"};
static const char *const average_names[] = {"auto", "binary", "macro", "micro", "weighted"};

const char *ml_eval_task_name(ml_eval_task task) { return (unsigned)task < 4 ? task_names[task] : "unknown"; }
const char *ml_eval_average_name(ml_eval_average average) { return (unsigned)average < 5 ? average_names[average] : "unknown"; }

bool ml_eval_task_from_name(const char *name, ml_eval_task *task) {
  for (int i = 0; i < 4; ++i)
    if (strcmp(name, task_names[i]) == 0) return *task = (ml_eval_task)i, true;
  return false;
}

bool ml_eval_average_from_name(const char *name, ml_eval_average *average) {
  for (int i = 0; i < 5; ++i)
    if (strcmp(name, average_names[i]) == 0) return *average = (ml_eval_average)i, true;
  return false;
}

ml_metric_options ml_metric_options_default(void) { return (ml_metric_options){ML_EVAL_AUTO, ML_AVERAGE_AUTO, 0.5, 5, 0}; }

/* ---- decoding ---- */

typedef struct matrix {
  double *at;
  size_t rows, columns;
} matrix;

/* Copies a view as doubles, (rows, everything else), and refuses what is not finite. */
static ml_status matrix_of(const ml_view *view, const char *what, ml_arena *arena, matrix *out, ml_error *err) {
  size_t bytes;
  if (view->dtype == ML_STRING || ml_dtype_size(view->dtype) == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s must be numeric, got %s", what, ml_dtype_name(view->dtype));
  if (view->rank < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "%s must have a row axis, got rank %d", what, (int)view->rank);
  if (view->count == 0 || view->data == NULL) return ml_fail(err, ML_INVALID_ARGUMENT, "%s is empty", what);
  out->rows = (size_t)view->dims[0];
  out->columns = view->count / out->rows;
  if (!ml_mul_size(view->count, sizeof(double), &bytes) || (out->at = ml_arena_alloc(arena, bytes)) == NULL)
    return ml_fail_memory(err, view->count, what);
  ml_convert(view->data, view->dtype, out->at, ML_FLOAT64, view->count);
  for (size_t i = 0; i < view->count; ++i)
    if (!isfinite(out->at[i]))
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s: row %zu holds %s", what, i / out->columns + 1,
                     isnan(out->at[i]) ? "NaN" : "an infinite value");
  return ML_OK;
}

/* A column of class ids. *largest is the largest id. */
static ml_status ids_of(const matrix *column, const char *what, ml_arena *arena, const uint32_t **out, uint32_t *largest,
                        ml_error *err) {
  uint32_t *ids = ml_arena_alloc(arena, column->rows * sizeof *ids);
  if (ids == NULL) return ml_fail_memory(err, column->rows * sizeof *ids, what);
  *largest = 0;
  for (size_t row = 0; row < column->rows; ++row) {
    double value = column->at[row];
    if (value < 0.0 || value >= (double)ML_EVAL_MAX_CLASSES || value != floor(value))
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s: row %zu holds %g, which is not a class id (0, 1, 2, …)", what, row + 1,
                     value);
    ids[row] = (uint32_t)value;
    if (ids[row] > *largest) *largest = ids[row];
  }
  *out = ids;
  return ML_OK;
}

static ml_status ids_from_one_hot(const matrix *rows, ml_arena *arena, const uint32_t **out, uint32_t *largest, ml_error *err) {
  uint32_t *ids = ml_arena_alloc(arena, rows->rows * sizeof *ids);
  if (ids == NULL) return ml_fail_memory(err, rows->rows * sizeof *ids, "labels");
  *largest = (uint32_t)(rows->columns - 1);
  for (size_t row = 0; row < rows->rows; ++row) {
    const double *at = rows->at + row * rows->columns;
    size_t ones = 0, others = 0;
    for (size_t c = 0; c < rows->columns; ++c) {
      if (at[c] == 1.0) ids[row] = (uint32_t)c, ++ones;
      else if (at[c] != 0.0) ++others;
    }
    if (ones != 1 || others != 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "y_true: row %zu is not one-hot (a single 1 among 0s)", row + 1);
  }
  *out = ids;
  return ML_OK;
}

static bool all_ids(const matrix *m, double largest) {
  for (size_t i = 0; i < m->rows * m->columns; ++i)
    if (m->at[i] < 0.0 || m->at[i] > largest || m->at[i] != floor(m->at[i])) return false;
  return true;
}

static ml_status infer_task(const matrix *y_true, const matrix *y_pred, size_t classes, ml_eval_task *task, ml_error *err) {
  if (classes > 2 || y_pred->columns > 1 || y_true->columns > 1) *task = ML_EVAL_CATEGORICAL;
  else if (all_ids(y_true, 1.0))
    *task = all_ids(y_pred, HUGE_VAL) && !all_ids(y_pred, 1.0) ? ML_EVAL_CATEGORICAL : ML_EVAL_BINARY;
  else if (all_ids(y_true, HUGE_VAL) && all_ids(y_pred, HUGE_VAL)) *task = ML_EVAL_CATEGORICAL;
  else
    return ml_fail(err, ML_INVALID_ARGUMENT, "cannot tell the task from these values; give task \"binary\", \"categorical\" or "
                                             "\"regression\"");
  return ML_OK;
}

static ml_status decode_classes(const matrix *y_true, const matrix *y_pred, const ml_metric_options *options, ml_eval_data *out,
                                ml_error *err) {
  uint32_t largest_label, largest_call = 0, *calls = NULL;
  if (y_true->columns > 1) ML_TRY(ids_from_one_hot(y_true, out->arena, &out->labels, &largest_label, err));
  else ML_TRY(ids_of(y_true, "y_true", out->arena, &out->labels, &largest_label, err));

  bool per_class = y_pred->columns > 1, binary = out->task == ML_EVAL_BINARY;
  if (binary && y_pred->columns > 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "task \"binary\" takes one or two columns of predictions, got %zu", y_pred->columns);
  if (!per_class && !binary) {
    ML_TRY(ids_of(y_pred, "y_pred", out->arena, &out->predicted, &largest_call, err));
  } else {
    calls = ml_arena_alloc(out->arena, out->rows * sizeof *calls);
    if (calls == NULL) return ml_fail_memory(err, out->rows * sizeof *calls, "predicted classes");
    out->predicted = calls;
  }

  if (binary) out->classes = 2;
  else if (per_class) out->classes = y_pred->columns;
  else if (options->classes != 0) out->classes = options->classes;
  else out->classes = (largest_label > largest_call ? largest_label : largest_call) + 1u;
  if (out->classes < 2) out->classes = 2; /* only class 0 occurs */
  if (out->classes > ML_EVAL_MAX_CLASSES) return ml_fail(err, ML_INVALID_ARGUMENT, "%zu classes are too many", out->classes);
  if (options->classes > 2 && options->classes != out->classes)
    return ml_fail(err, ML_INVALID_ARGUMENT, "y_pred has %zu classes, expected %zu", out->classes, options->classes);
  for (size_t row = 0; row < out->rows; ++row) {
    if (out->labels[row] >= out->classes)
      return ml_fail(err, ML_INVALID_ARGUMENT, "y_true: row %zu is class %" PRIu32 ", but there are %zu classes (0 … %zu)",
                     row + 1, out->labels[row], out->classes, out->classes - 1);
    if (!per_class && !binary && out->predicted[row] >= out->classes)
      return ml_fail(err, ML_INVALID_ARGUMENT, "y_pred: row %zu is class %" PRIu32 ", but there are %zu classes (0 … %zu)",
                     row + 1, out->predicted[row], out->classes, out->classes - 1);
  }

  if (per_class && out->classes == 2) {
    double *others = ml_arena_alloc(out->arena, out->rows * sizeof *others);
    if (others == NULL) return ml_fail_memory(err, out->rows * sizeof *others, "scores");
    for (size_t row = 0; row < out->rows; ++row) {
      double first = y_pred->at[2 * row], second = y_pred->at[2 * row + 1];
      calls[row] = binary ? second > options->threshold : second > first;
      others[row] = first;
      y_pred->at[row] = second; /* behind what is still to be read */
    }
    out->scores = y_pred->at;
    out->others = others;
  } else if (binary) {
    for (size_t row = 0; row < out->rows; ++row) calls[row] = y_pred->at[row] > options->threshold;
    out->scores = y_pred->at;
  } else if (per_class) {
    for (size_t row = 0; row < out->rows; ++row) {
      const double *scores = y_pred->at + row * out->classes;
      uint32_t best = 0;
      for (uint32_t c = 1; c < out->classes; ++c) best = scores[c] > scores[best] ? c : best;
      calls[row] = best;
    }
    out->scores = y_pred->at;
  }
  if (out->classes == 2) out->task = ML_EVAL_BINARY;

  uint64_t *counts = ml_arena_alloc(out->arena, 3 * out->classes * sizeof *counts);
  if (counts == NULL) return ml_fail_memory(err, 3 * out->classes * sizeof *counts, "class counts");
  uint64_t *support = counts, *called = counts + out->classes, *hits = called + out->classes;
  for (size_t row = 0; row < out->rows; ++row) {
    ++support[out->labels[row]];
    ++called[out->predicted[row]];
    if (out->labels[row] == out->predicted[row]) ++hits[out->labels[row]];
  }
  out->support = support, out->called = called, out->hits = hits;
  return ML_OK;
}

ml_status ml_eval_data_new(const ml_view *y_true, const ml_view *y_pred, const ml_metric_options *options, ml_eval_data *out,
                           ml_error *err) {
  matrix truth, predictions;
  ml_status status;
  memset(out, 0, sizeof *out);
  out->arena = ml_arena_new();
  if (out->arena == NULL) return ml_fail_memory(err, sizeof truth, "metric data");
  if ((status = matrix_of(y_true, "y_true", out->arena, &truth, err)) != ML_OK) goto failed;
  if ((status = matrix_of(y_pred, "y_pred", out->arena, &predictions, err)) != ML_OK) goto failed;
  if (truth.rows != predictions.rows) {
    status = ml_fail(err, ML_INVALID_ARGUMENT, "y_true has %zu rows, y_pred has %zu", truth.rows, predictions.rows);
    goto failed;
  }
  out->rows = truth.rows;
  out->dtype = y_pred->dtype;
  out->task = options->task;
  if (out->task == ML_EVAL_AUTO && (status = infer_task(&truth, &predictions, options->classes, &out->task, err)) != ML_OK)
    goto failed;
  if (out->task == ML_EVAL_REGRESSION) {
    if (truth.columns != predictions.columns) {
      status = ml_fail(err, ML_INVALID_ARGUMENT, "y_true has %zu values a row, y_pred has %zu", truth.columns,
                       predictions.columns);
      goto failed;
    }
    out->outputs = truth.columns;
    out->targets = truth.at;
    out->values = predictions.at;
  } else if ((status = decode_classes(&truth, &predictions, options, out, err)) != ML_OK) {
    goto failed;
  }
  return ML_OK;
failed:
  ml_eval_data_free(out);
  return status;
}

void ml_eval_data_free(ml_eval_data *data) {
  ml_arena_free(data->arena);
  memset(data, 0, sizeof *data);
}

/* ---- computing ---- */

ml_status ml_metric_compute(const ml_metric *metric, const ml_eval_data *data, const ml_metric_options *options,
                            ml_metric_result *result, ml_error *err) {
  result->value = (double)NAN;
  result->note[0] = '\0';
  if ((metric->tasks & 1u << data->task) == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "metric '%s' is not defined for task \"%s\"", metric->name,
                   ml_eval_task_name(data->task));
  return metric->compute(data, options, result, err);
}

ml_status ml_metric_evaluate(const ml_metric *metric, const ml_view *y_true, const ml_view *y_pred,
                             const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  ml_metric_options chosen = *options;
  ml_eval_data data;
  if (chosen.task == ML_EVAL_AUTO && (metric->tasks & ML_TASKS_VALUES) != 0) chosen.task = ML_EVAL_REGRESSION;
  ML_TRY(ml_eval_data_new(y_true, y_pred, &chosen, &data, err));
  ml_status status = ml_metric_compute(metric, &data, &chosen, result, err);
  ml_eval_data_free(&data);
  return status;
}
