/* Area under the ROC curve by ranks: with midranks r over all rows (equal scores share their mean rank), n1 positives, n0 others,
 *   AUC = (sum of the positives' r - n1 (n1 + 1) / 2) / (n1 n0),
 * the Mann-Whitney statistic, equal to the trapezoidal area with ties (Hanley and McNeil, Radiology 143, 1982).
 * More than two classes: one class against the rest, then averaged; micro pools every (row, class) pair. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "eval/metrics.h"

typedef struct ranked {
  double score;
  bool positive;
} ranked;

static int by_score(const void *a, const void *b) {
  double left = ((const ranked *)a)->score, right = ((const ranked *)b)->score;
  return (left > right) - (left < right);
}

/* NaN when one of the two sides is empty. Sorts pairs. */
static double area(ranked *pairs, size_t count) {
  double rank_sum = 0.0, positives = 0.0;
  qsort(pairs, count, sizeof *pairs, by_score);
  for (size_t begin = 0, end; begin < count; begin = end) {
    double tied = 0.0;
    for (end = begin; end < count && pairs[end].score == pairs[begin].score; ++end) tied += pairs[end].positive ? 1.0 : 0.0;
    rank_sum += tied * ((double)begin + (double)end + 1.0) / 2.0; /* ranks begin+1 … end */
    positives += tied;
  }
  double others = (double)count - positives;
  if (positives == 0.0 || others == 0.0) return (double)NAN;
  return (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * others);
}

ml_status ml_metric_roc_auc(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  bool binary = data->task == ML_EVAL_BINARY, micro = options->average == ML_AVERAGE_MICRO && !binary;
  size_t count = data->rows, bytes;
  if (data->scores == NULL) return ml_fail(err, ML_INVALID_ARGUMENT, "roc_auc needs scores, the predictions are class ids");
  if (options->average == ML_AVERAGE_BINARY && !binary)
    return ml_fail(err, ML_INVALID_ARGUMENT, "roc_auc: average \"binary\" needs two classes, there are %zu", data->classes);
  if (micro && !ml_mul_size(count, data->classes, &count)) return ml_fail_memory(err, SIZE_MAX, "roc_auc");
  if (!ml_mul_size(count, sizeof(ranked), &bytes)) return ml_fail_memory(err, SIZE_MAX, "roc_auc");
  ranked *pairs = ml_alloc(bytes);
  if (pairs == NULL) return ml_fail_memory(err, bytes, "roc_auc");

  if (binary) {
    for (size_t row = 0; row < count; ++row) pairs[row] = (ranked){data->scores[row], data->labels[row] == 1};
    result->value = area(pairs, count);
    if (isnan(result->value))
      (void)snprintf(result->note, sizeof result->note, "only class %u occurs among the labels: roc_auc is undefined",
                     data->labels[0]);
  } else if (micro) {
    for (size_t i = 0; i < count; ++i)
      pairs[i] = (ranked){data->scores[i], data->labels[i / data->classes] == i % data->classes};
    result->value = area(pairs, count);
  } else {
    double sum = 0.0, weights = 0.0;
    for (size_t c = 0; c < data->classes; ++c) {
      double weight = options->average == ML_AVERAGE_WEIGHTED ? (double)data->support[c] : 1.0, one;
      for (size_t row = 0; row < count; ++row) pairs[row] = (ranked){data->scores[row * data->classes + c],
                                                                     data->labels[row] == c};
      one = area(pairs, count);
      if (isnan(one) && result->note[0] == '\0')
        (void)snprintf(result->note, sizeof result->note, "class %zu is the label of %s row: roc_auc is undefined", c,
                       data->support[c] == 0 ? "no" : "every");
      sum += weight * one;
      weights += weight;
    }
    result->value = sum / weights;
  }
  ml_free(pairs);
  return ML_OK;
}
