/* The confusion matrix and what needs only its margins and diagonal.
 * Matthews correlation for K classes: Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient",
 * Computational Biology and Chemistry 28 (2004). With t, p the margins, h the diagonal's sum and n the rows:
 *   MCC = (h n - sum t p) / sqrt((n² - sum p²)(n² - sum t²)),  0 when the root is 0.
 * Cohen's kappa ("A coefficient of agreement for nominal scales", 1960): (observed - expected) / (1 - expected) agreement. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "eval/metrics.h"

void ml_eval_confusion(const ml_eval_data *data, uint64_t *counts) {
  memset(counts, 0, data->classes * data->classes * sizeof *counts);
  for (size_t row = 0; row < data->rows; ++row) ++counts[(size_t)data->labels[row] * data->classes + data->predicted[row]];
}

typedef struct margins {
  double rows, hits, cross, true_squares, called_squares;
} margins;

static margins margins_of(const ml_eval_data *data) {
  margins m = {(double)data->rows, 0.0, 0.0, 0.0, 0.0};
  for (size_t c = 0; c < data->classes; ++c) {
    double t = (double)data->support[c], p = (double)data->called[c];
    m.hits += (double)data->hits[c];
    m.cross += t * p;
    m.true_squares += t * t;
    m.called_squares += p * p;
  }
  return m;
}

ml_status ml_metric_matthews_corrcoef(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                                      ml_error *err) {
  (void)options, (void)err;
  margins m = margins_of(data);
  double square = (m.rows * m.rows - m.called_squares) * (m.rows * m.rows - m.true_squares);
  result->value = square > 0.0 ? (m.hits * m.rows - m.cross) / sqrt(square) : 0.0;
  return ML_OK;
}

ml_status ml_metric_cohen_kappa(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                                ml_error *err) {
  (void)options, (void)err;
  margins m = margins_of(data);
  double beyond = m.rows - m.cross / m.rows; /* rows that chance would leave in disagreement */
  if (beyond > 0.0) {
    result->value = 1.0 - (m.rows - m.hits) / beyond;
  } else {
    result->value = (double)NAN;
    (void)snprintf(result->note, sizeof result->note, "labels and predictions hold one and the same class: kappa is undefined");
  }
  return ML_OK;
}
