/* Accuracy: the share of rows whose predicted class is the label; the same within the k best-scored classes; and the mean over
 * classes of each class's own share (Brodersen et al., "The balanced accuracy and its posterior distribution", ICPR 2010). */
#include "eval/metrics.h"

ml_status ml_metric_accuracy(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                             ml_error *err) {
  (void)options, (void)err;
  uint64_t hits = 0;
  for (size_t c = 0; c < data->classes; ++c) hits += data->hits[c];
  result->value = (double)hits / (double)data->rows;
  return ML_OK;
}

/* A tie is broken towards the larger class id, as a stable ascending sort read backwards does. */
ml_status ml_metric_top_k_accuracy(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                                   ml_error *err) {
  size_t k = options->top_k, hits = 0;
  if (k == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "top_k_accuracy: k must be at least 1");
  if (k >= data->classes) { /* every class is among the best k */
    result->value = 1.0;
    return ML_OK;
  }
  if (k == 1 && data->task == ML_EVAL_BINARY) return ml_metric_accuracy(data, options, result, err);
  if (data->scores == NULL)
    return ml_fail(err, ML_INVALID_ARGUMENT, "top_k_accuracy needs a score per class, the predictions are class ids");
  for (size_t row = 0; row < data->rows; ++row) {
    const double *scores = data->scores + row * data->classes;
    size_t label = data->labels[row], better = 0;
    for (size_t c = 0; c < data->classes; ++c)
      better += scores[c] > scores[label] || (scores[c] == scores[label] && c > label) ? 1 : 0;
    hits += better < k ? 1 : 0;
  }
  result->value = (double)hits / (double)data->rows;
  return ML_OK;
}

ml_status ml_metric_balanced_accuracy(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                                      ml_error *err) {
  (void)options, (void)err;
  double sum = 0.0;
  size_t present = 0;
  for (size_t c = 0; c < data->classes; ++c) {
    if (data->support[c] == 0) continue;
    sum += (double)data->hits[c] / (double)data->support[c];
    ++present;
  }
  result->value = sum / (double)present;
  return ML_OK;
}
