/* Precision, recall and F1 of classes, and their averages.
 *   precision = hits / called     recall = hits / support     F1 = 2 hits / (called + support)        (0/0 counts as 0)
 * Averages run over the classes that occur among labels or predictions: a class in neither says nothing about the model. */
#include <stdio.h>
#include "eval/metrics.h"

static double ratio(double numerator, double denominator) { return denominator > 0.0 ? numerator / denominator : 0.0; }

static ml_class_scores scores_of(uint64_t hits, uint64_t called, uint64_t support) {
  ml_class_scores scores = {ratio((double)hits, (double)called), ratio((double)hits, (double)support),
                            ratio(2.0 * (double)hits, (double)called + (double)support), support};
  return scores;
}

ml_class_scores ml_eval_class(const ml_eval_data *data, size_t class_index) {
  return scores_of(data->hits[class_index], data->called[class_index], data->support[class_index]);
}

ml_class_scores ml_eval_class_average(const ml_eval_data *data, ml_eval_average average) {
  ml_class_scores sum = {0.0, 0.0, 0.0, data->rows};
  double weights = 0.0;
  uint64_t hits = 0;
  for (size_t c = 0; c < data->classes; ++c) {
    if (data->support[c] == 0 && data->called[c] == 0) continue;
    ml_class_scores one = ml_eval_class(data, c);
    double weight = average == ML_AVERAGE_WEIGHTED ? (double)one.support : 1.0;
    sum.precision += weight * one.precision;
    sum.recall += weight * one.recall;
    sum.f1 += weight * one.f1;
    weights += weight;
    hits += data->hits[c];
  }
  if (average == ML_AVERAGE_MICRO) return scores_of(hits, data->rows, data->rows);
  sum.precision /= weights;
  sum.recall /= weights;
  sum.f1 /= weights;
  return sum;
}

static ml_status averaged(const ml_eval_data *data, const ml_metric_options *options, const char *name, ml_class_scores *out,
                          ml_error *err) {
  ml_eval_average average = options->average;
  if (average == ML_AVERAGE_AUTO) average = data->classes == 2 ? ML_AVERAGE_BINARY : ML_AVERAGE_MACRO;
  if (average == ML_AVERAGE_BINARY) {
    if (data->classes != 2)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s: average \"binary\" needs two classes, there are %zu", name, data->classes);
    *out = ml_eval_class(data, 1);
  } else {
    *out = ml_eval_class_average(data, average);
  }
  return ML_OK;
}

ml_status ml_metric_precision(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                              ml_error *err) {
  ml_class_scores scores = {0};
  ML_TRY(averaged(data, options, "precision", &scores, err));
  result->value = scores.precision;
  if (data->classes == 2 && data->called[1] == 0)
    (void)snprintf(result->note, sizeof result->note, "no row is predicted positive");
  return ML_OK;
}

ml_status ml_metric_recall(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  ml_class_scores scores = {0};
  ML_TRY(averaged(data, options, "recall", &scores, err));
  result->value = scores.recall;
  if (data->classes == 2 && data->support[1] == 0)
    (void)snprintf(result->note, sizeof result->note, "no row is labelled positive");
  return ML_OK;
}

ml_status ml_metric_f1(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  ml_class_scores scores = {0};
  ML_TRY(averaged(data, options, "f1", &scores, err));
  result->value = scores.f1;
  return ML_OK;
}
