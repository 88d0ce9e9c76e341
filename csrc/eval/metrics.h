/* Metrics: how good predictions are, as pure functions of labels and predictions.
 * Lives here: the list of metrics, the decoding of labels and predictions into what they work on, and what follows from counts
 * (confusion matrix, classification report). One metric family = one file. May include: tensor, base.
 * Ownership: views are borrowed; an ml_eval_data belongs to the caller until ml_eval_data_free; results are plain values.
 * Everything is accumulated in double whatever the dtype of the input, and follows scikit-learn's definitions, undefined
 * cases included: precision without a positive prediction is 0, ROC AUC with one class is NaN (with a note saying why).
 * Thread-safe: no state. */
#ifndef ML_EVAL_METRICS_H
#define ML_EVAL_METRICS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "tensor/tensor.h"

#define ML_EVAL_MAX_CLASSES ((size_t)1 << 20)
#define ML_EVAL_NOTE_MAX 160

typedef enum ml_eval_task { ML_EVAL_AUTO = 0, ML_EVAL_BINARY, ML_EVAL_CATEGORICAL, ML_EVAL_REGRESSION } ml_eval_task;
const char *ml_eval_task_name(ml_eval_task task); /* "auto", "binary", "categorical", "regression" */
/* False when the name is unknown. "classification" is AUTO among the two class tasks and therefore not in this list. */
bool ml_eval_task_from_name(const char *name, ml_eval_task *task);

/* How per-class values become one: AUTO is BINARY with two classes and MACRO with more. BINARY looks at class 1 only. */
typedef enum ml_eval_average {
  ML_AVERAGE_AUTO = 0, ML_AVERAGE_BINARY, ML_AVERAGE_MACRO, ML_AVERAGE_MICRO, ML_AVERAGE_WEIGHTED
} ml_eval_average;
const char *ml_eval_average_name(ml_eval_average average);
bool ml_eval_average_from_name(const char *name, ml_eval_average *average);

typedef struct ml_metric_options {
  ml_eval_task task;        /* AUTO: from shapes and values, see ml_eval_data_new */
  ml_eval_average average;
  double threshold;         /* binary: class 1 where score > threshold */
  size_t top_k;             /* top_k_accuracy */
  size_t classes;           /* 0: from the predictions' columns, else from the largest class id */
} ml_metric_options;
ml_metric_options ml_metric_options_default(void); /* AUTO, AUTO, 0.5, 5, 0 */

/* Labels and predictions, checked and decoded. Everything is read-only after ml_eval_data_new. */
typedef struct ml_eval_data {
  ml_eval_task task;         /* never AUTO */
  ml_dtype dtype;            /* of the predictions; log_loss clips by its epsilon */
  size_t rows;               /* >= 1 */
  size_t classes;            /* binary 2, categorical >= 2, regression 0 */
  size_t outputs;            /* regression: values per row, else 0 */
  const uint32_t *labels;    /* (rows) true class; NULL for regression */
  const uint32_t *predicted; /* (rows) predicted class; NULL for regression */
  const double *scores;      /* binary (rows): score of class 1; categorical (rows, classes); NULL when class ids are predicted */
  const double *others;      /* binary (rows): score of class 0 where the predictions had a column for it, else NULL */
  const double *targets;     /* regression (rows, outputs) */
  const double *values;      /* regression (rows, outputs) */
  const uint64_t *support;   /* (classes) rows whose label is the class */
  const uint64_t *called;    /* (classes) rows predicted as the class */
  const uint64_t *hits;      /* (classes) rows where both hold */
  ml_arena *arena;           /* private: owns the arrays */
} ml_eval_data;

/* Decodes. Predictions: float scores (N) or (N,1) for class 1, or (N,C) per class, or class ids in any numeric dtype; labels:
 * class ids (N) or (N,1), or one-hot (N,C). AUTO: two or more columns of predictions, or a class id above 1, mean classes; one
 * column means scores of class 1 when every label is 0 or 1. Two classes are decoded as binary, the second one being positive.
 * Predicted class: the largest score (the first of equals), binary: score > threshold.
 * Errors (INVALID_ARGUMENT, naming the row): no rows, rows that do not match, NaN or infinite values, labels outside. */
ml_status ml_eval_data_new(const ml_view *y_true, const ml_view *y_pred, const ml_metric_options *options, ml_eval_data *out,
                           ml_error *err);
void ml_eval_data_free(ml_eval_data *data); /* a zeroed struct is allowed */

typedef struct ml_metric_result {
  double value;                /* NaN: undefined for these data, note says why */
  char note[ML_EVAL_NOTE_MAX]; /* empty, or what the reader should know */
} ml_metric_result;
typedef ml_status (*ml_metric_fn)(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                                  ml_error *err);

/* name, tasks it is defined for, whether larger is better, other names (comma-separated) */
#define ML_METRIC_MAP(X)                                                                                                         \
  X(accuracy, ML_TASKS_CLASS, 1, "acc,binary_accuracy,categorical_accuracy,sparse_categorical_accuracy")                         \
  X(top_k_accuracy, ML_TASKS_CLASS, 1, "top_k_categorical_accuracy,sparse_top_k_categorical_accuracy")                           \
  X(balanced_accuracy, ML_TASKS_CLASS, 1, "")                                                                                    \
  X(precision, ML_TASKS_CLASS, 1, "")                                                                                            \
  X(recall, ML_TASKS_CLASS, 1, "sensitivity")                                                                                    \
  X(f1, ML_TASKS_CLASS, 1, "f1_score")                                                                                           \
  X(roc_auc, ML_TASKS_CLASS, 1, "auc")                                                                                           \
  X(log_loss, ML_TASKS_CLASS, 0, "binary_crossentropy,categorical_crossentropy,sparse_categorical_crossentropy")                 \
  X(brier_score, ML_TASKS_CLASS, 0, "brier")                                                                                     \
  X(matthews_corrcoef, ML_TASKS_CLASS, 1, "mcc")                                                                                 \
  X(cohen_kappa, ML_TASKS_CLASS, 1, "kappa")                                                                                     \
  X(mse, ML_TASKS_ALL, 0, "mean_squared_error")                                                                                  \
  X(mae, ML_TASKS_ALL, 0, "mean_absolute_error")                                                                                 \
  X(rmse, ML_TASKS_ALL, 0, "root_mean_squared_error")                                                                            \
  X(r2, ML_TASKS_VALUES, 1, "r2_score")                                                                                          \
  X(mape, ML_TASKS_VALUES, 0, "mean_absolute_percentage_error")

/* Metrics of TASKS_ALL see class data as regression of the scores on 0/1 (one-hot) labels. */
#define ML_TASKS_CLASS (1u << ML_EVAL_BINARY | 1u << ML_EVAL_CATEGORICAL)
#define ML_TASKS_VALUES (1u << ML_EVAL_REGRESSION)
#define ML_TASKS_ALL (ML_TASKS_CLASS | ML_TASKS_VALUES)

typedef struct ml_metric {
  const char *name;
  ml_metric_fn compute;
  unsigned tasks;          /* bit 1 << ml_eval_task */
  bool larger_is_better;
  const char *aliases;     /* comma-separated, may be empty */
} ml_metric;

size_t ml_metric_count(void);
const ml_metric *ml_metric_at(size_t index);        /* NULL past the end */
const ml_metric *ml_metric_find(const char *name);  /* name or alias; NULL when unknown */

/* Computes one metric; fails when it is not defined for data->task. */
ml_status ml_metric_compute(const ml_metric *metric, const ml_eval_data *data, const ml_metric_options *options,
                            ml_metric_result *result, ml_error *err);
/* Decodes and computes in one go. With task AUTO, metrics that are only defined on values decode as regression. */
ml_status ml_metric_evaluate(const ml_metric *metric, const ml_view *y_true, const ml_view *y_pred,
                             const ml_metric_options *options, ml_metric_result *result, ml_error *err);

/* counts[t * classes + p] = rows of class t predicted as p; counts has classes² elements, zeroed here. */
void ml_eval_confusion(const ml_eval_data *data, uint64_t *counts);
typedef struct ml_class_scores {
  double precision, recall, f1;
  uint64_t support;
} ml_class_scores;
ml_class_scores ml_eval_class(const ml_eval_data *data, size_t class_index);
/* Average over the classes that occur among labels or predictions; support is the number of rows. MACRO, MICRO or WEIGHTED. */
ml_class_scores ml_eval_class_average(const ml_eval_data *data, ml_eval_average average);

/* the metrics, for the table in metrics.c and for callers that know which one they want */
#define X(name, tasks, larger, aliases)                                                                                    \
  ml_status ml_metric_##name(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err);
ML_METRIC_MAP(X)
#undef X

#endif
