/* Summary of a numeric column: moments in two passes (no cancellation), order statistics by sorting. The quantile at q of n
 * sorted values is interpolated linearly at position q (n - 1): type 7 of Hyndman and Fan, "Sample quantiles in statistical
 * packages", The American Statistician 50 (1996), the default of NumPy, pandas and R. */
#include <math.h>
#include <stdlib.h>
#include "data/rows.h"

static int ascending(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

static double quantile(const double *sorted, size_t count, double q) {
  double position = q * (double)(count - 1);
  size_t below = (size_t)position;
  double part = position - (double)below;
  if (below + 1 >= count || part == 0.0) return sorted[below];
  return sorted[below] + part * (sorted[below + 1] - sorted[below]);
}

ml_status ml_column_describe(const ml_view *view, size_t column, ml_column_stats *out, ml_error *err) {
  if (view->rank < 1 || view->dtype == ML_STRING)
    return ml_fail(err, ML_INVALID_ARGUMENT, "only numeric columns can be described");
  size_t rows = (size_t)view->dims[0], columns = rows > 0 ? view->count / rows : 0, bytes;
  if (column >= columns) return ml_fail(err, ML_OUT_OF_RANGE, "column %zu of %zu", column + 1, columns);
  if (!ml_mul_size(rows, sizeof(double), &bytes)) return ml_fail_memory(err, SIZE_MAX, "a column summary");
  double *values = ml_alloc(bytes), nothing = (double)NAN, sum = 0.0, squares = 0.0;
  if (values == NULL) return ml_fail_memory(err, bytes, "a column summary");
  *out = (ml_column_stats){0, 0, nothing, nothing, nothing, nothing, nothing, nothing, nothing};
  size_t count = 0;
  for (size_t row = 0; row < rows; ++row) {
    double value = ml_element_get(view->data, view->dtype, row * columns + column);
    if (isnan(value)) continue;
    values[count++] = value;
    sum += value;
  }
  out->count = count;
  out->missing = rows - count;
  if (count > 0) {
    out->mean = sum / (double)count;
    for (size_t i = 0; i < count; ++i) squares += (values[i] - out->mean) * (values[i] - out->mean);
    if (count > 1) out->stddev = sqrt(squares / (double)(count - 1));
    qsort(values, count, sizeof *values, ascending);
    out->min = values[0];
    out->quartile_1 = quantile(values, count, 0.25);
    out->median = quantile(values, count, 0.5);
    out->quartile_3 = quantile(values, count, 0.75);
    out->max = values[count - 1];
  }
  ml_free(values);
  return ML_OK;
}
