/* Reductions and softmax in plain C: the oracle of the tests and the fallback on any processor. Sums are kept in double, which is
 * both the plainest and the most accurate way. */
#include <math.h>
#include "kernels/kernels_internal.h"

float ml__sum_f32_ref(const float *x, size_t n) {
  double s = 0.0;
  for (size_t i = 0; i < n; i++) s += (double)x[i];
  return (float)s;
}

float ml__max_f32_ref(const float *x, size_t n) {
  float m = x[0];
  for (size_t i = 0; i < n; i++) {
    if (isnan(x[i])) return x[i];
    m = x[i] > m ? x[i] : m;
  }
  return m;
}

float ml__dot_f32_ref(const float *x, const float *y, size_t n) {
  double s = 0.0;
  for (size_t i = 0; i < n; i++) s += (double)x[i] * (double)y[i];
  return (float)s;
}

void ml__axpy_f32_ref(float a, const float *x, float *y, size_t n) {
  for (size_t i = 0; i < n; i++) y[i] += a * x[i];
}

void ml__column_sum_f32_ref(const float *x, size_t rows, size_t cols, size_t ld, float *out, bool accumulate) {
  for (size_t j = 0; j < cols; j++) {
    double s = 0.0;
    for (size_t i = 0; i < rows; i++) s += (double)x[i * ld + j];
    out[j] = accumulate ? out[j] + (float)s : (float)s;
  }
}

void ml__softmax_f32_ref(const float *x, float *y, size_t rows, size_t cols, bool log) {
  if (cols == 0) return;
  for (size_t i = 0; i < rows; i++, x += cols, y += cols) {
    const float m = ml__max_f32_ref(x, cols);
    double s = 0.0;
    for (size_t j = 0; j < cols; j++) s += (double)expf(x[j] - m);
    const float log_s = logf((float)s), scale = (float)(1.0 / s);
    for (size_t j = 0; j < cols; j++) y[j] = log ? x[j] - m - log_s : expf(x[j] - m) * scale;
  }
}
