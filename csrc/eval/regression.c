/* Errors of predicted values. With several outputs a row, each output has its own value and the result is their plain mean
 * (so rmse is the mean of roots, as in scikit-learn, not the root of the mean).
 *   r2 = 1 - sum (y - f)² / sum (y - mean y)²; a constant target gives 1 when met exactly and 0 otherwise; one row gives NaN
 *   mape = mean |y - f| / max(|y|, epsilon of float64), a fraction, not per cent */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include "eval/metrics.h"

typedef struct columns {
  size_t rows, outputs;
} columns;

static columns columns_of(const ml_eval_data *data) {
  if (data->task == ML_EVAL_REGRESSION) return (columns){data->rows, data->outputs};
  return (columns){data->rows, data->task == ML_EVAL_BINARY ? 1 : data->classes};
}

static double target_at(const ml_eval_data *data, size_t row, size_t output, size_t outputs) {
  if (data->task == ML_EVAL_REGRESSION) return data->targets[row * outputs + output];
  return data->labels[row] == (data->task == ML_EVAL_BINARY ? 1 : output) ? 1.0 : 0.0;
}

static double miss_at(const ml_eval_data *data, size_t row, size_t output, size_t outputs) {
  const double *values = data->task == ML_EVAL_REGRESSION ? data->values : data->scores;
  return target_at(data, row, output, outputs) - values[row * outputs + output];
}

static ml_status check_scores(const ml_eval_data *data, const char *name, ml_error *err) {
  if (data->task != ML_EVAL_REGRESSION && data->scores == NULL)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s needs scores, the predictions are class ids", name);
  return ML_OK;
}

/* mean over outputs of fold(mean over rows of |miss|^power) */
static double mean_miss(const ml_eval_data *data, int power, bool root) {
  columns shape = columns_of(data);
  double total = 0.0;
  for (size_t output = 0; output < shape.outputs; ++output) {
    double sum = 0.0;
    for (size_t row = 0; row < shape.rows; ++row) {
      double miss = miss_at(data, row, output, shape.outputs);
      sum += power == 2 ? miss * miss : fabs(miss);
    }
    sum /= (double)shape.rows;
    total += root ? sqrt(sum) : sum;
  }
  return total / (double)shape.outputs;
}

ml_status ml_metric_mse(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  (void)options;
  ML_TRY(check_scores(data, "mse", err));
  result->value = mean_miss(data, 2, false);
  return ML_OK;
}

ml_status ml_metric_mae(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  (void)options;
  ML_TRY(check_scores(data, "mae", err));
  result->value = mean_miss(data, 1, false);
  return ML_OK;
}

ml_status ml_metric_rmse(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  (void)options;
  ML_TRY(check_scores(data, "rmse", err));
  result->value = mean_miss(data, 2, true);
  return ML_OK;
}

ml_status ml_metric_r2(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  (void)options, (void)err;
  double total = 0.0;
  if (data->rows < 2) {
    result->value = (double)NAN;
    (void)snprintf(result->note, sizeof result->note, "r2 is undefined for a single row");
    return ML_OK;
  }
  for (size_t output = 0; output < data->outputs; ++output) {
    double mean = 0.0, residual = 0.0, spread = 0.0;
    for (size_t row = 0; row < data->rows; ++row) mean += data->targets[row * data->outputs + output];
    mean /= (double)data->rows;
    for (size_t row = 0; row < data->rows; ++row) {
      double miss = miss_at(data, row, output, data->outputs), off = data->targets[row * data->outputs + output] - mean;
      residual += miss * miss;
      spread += off * off;
    }
    if (spread > 0.0) total += 1.0 - residual / spread;
    else total += residual > 0.0 ? 0.0 : 1.0;
  }
  result->value = total / (double)data->outputs;
  return ML_OK;
}

ml_status ml_metric_mape(const ml_eval_data *data, const ml_metric_options *options, ml_metric_result *result, ml_error *err) {
  (void)options, (void)err;
  size_t count = data->rows * data->outputs;
  double sum = 0.0;
  for (size_t i = 0; i < count; ++i)
    sum += fabs(data->targets[i] - data->values[i]) / fmax(fabs(data->targets[i]), DBL_EPSILON);
  result->value = sum / (double)count;
  return ML_OK;
}
