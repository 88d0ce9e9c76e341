/* Log loss (cross-entropy) and Brier score: how far probabilities are from what happened.
 *   log loss = -mean log p(label), p clipped to [eps, 1 - eps] with the epsilon of the predictions' dtype
 *   Brier    = mean sum over classes (p - y)², halved for two classes (Brier, Monthly Weather Review 78, 1950) */
#include <float.h>
#include <math.h>
#include "eval/metrics.h"

static ml_status fail_outside(const char *name, size_t row, double score, ml_error *err) {
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s needs probabilities in [0, 1], row %zu of the predictions holds %g", name,
                 row + 1, score);
}

static ml_status check_probabilities(const ml_eval_data *data, const char *name, ml_error *err) {
  size_t columns = data->task == ML_EVAL_BINARY ? 1 : data->classes;
  if (data->scores == NULL)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s needs probabilities, the predictions are class ids", name);
  for (size_t i = 0; i < data->rows * columns; ++i)
    if (data->scores[i] < 0.0 || data->scores[i] > 1.0)
      return fail_outside(name, i / columns, data->scores[i], err);
  for (size_t row = 0; data->others != NULL && row < data->rows; ++row)
    if (data->others[row] < 0.0 || data->others[row] > 1.0) return fail_outside(name, row, data->others[row], err);
  return ML_OK;
}

static double epsilon_of(ml_dtype dtype) {
  switch (dtype) {
    case ML_FLOAT16: return 0x1p-10;
    case ML_BFLOAT16: return 0x1p-7;
    case ML_FLOAT32: return (double)FLT_EPSILON;
    default: return DBL_EPSILON;
  }
}

ml_status ml_metric_log_loss(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                             ml_error *err) {
  (void)options;
  double epsilon = epsilon_of(data->dtype), sum = 0.0;
  ML_TRY(check_probabilities(data, "log_loss", err));
  for (size_t row = 0; row < data->rows; ++row) {
    size_t label = data->labels[row];
    double p;
    if (data->task == ML_EVAL_BINARY && label == 1) p = data->scores[row];
    else if (data->task == ML_EVAL_BINARY) p = data->others != NULL ? data->others[row] : 1.0 - data->scores[row];
    else p = data->scores[row * data->classes + label];
    sum -= log(fmin(fmax(p, epsilon), 1.0 - epsilon));
  }
  result->value = sum / (double)data->rows;
  return ML_OK;
}

ml_status ml_metric_brier_score(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result,
                                ml_error *err) {
  (void)options;
  double sum = 0.0;
  ML_TRY(check_probabilities(data, "brier_score", err));
  if (data->task == ML_EVAL_BINARY) {
    for (size_t row = 0; row < data->rows; ++row) {
      double y = (double)data->labels[row], miss = data->scores[row] - y;
      double other = data->others != NULL ? data->others[row] - (1.0 - y) : miss;
      sum += 0.5 * (miss * miss + other * other);
    }
  } else {
    for (size_t row = 0; row < data->rows; ++row)
      for (size_t c = 0; c < data->classes; ++c) {
        double miss = data->scores[row * data->classes + c] - (data->labels[row] == c ? 1.0 : 0.0);
        sum += miss * miss;
      }
  }
  result->value = sum / (double)data->rows;
  return ML_OK;
}
