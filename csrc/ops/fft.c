/* See fft.h. */
#include "ops/fft.h"
#include <math.h>
#include <stdint.h>
#include "base/alloc.h"

static ml__complex times(ml__complex a, ml__complex b) {
  return (ml__complex){ a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re };
}

/* e^(2 pi i numerator / denominator) */
static ml__complex turn(uint64_t numerator, uint64_t denominator) {
  const double angle = 6.283185307179586477 * ((double)numerator / (double)denominator);
  return (ml__complex){ cos(angle), sin(angle) };
}

static size_t inner_length(size_t n) {
  size_t m = 1;
  if (n == 0 || (n & (n - 1)) == 0) return n;
  while (m < 2 * n - 1) m *= 2;
  return m;
}

ml_status ml__fft_bytes(size_t n, size_t *bytes, ml_error *err) {
  if (n >= (size_t)1 << 31) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "a transform of length %zu is too long", n);
  const size_t m = inner_length(n);
  *bytes = (m / 2 + 1 + (m == n ? 0 : n + 2 * m)) * sizeof(ml__complex);
  return ML_OK;
}

/* length m, forward when sign is -1 */
static void power_of_two(ml__complex *x, size_t m, const ml__complex *turns, double sign) {
  for (size_t i = 1, j = 0; i < m; i++) { /* bit reversal */
    size_t bit = m >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i >= j) continue;
    const ml__complex t = x[i];
    x[i] = x[j];
    x[j] = t;
  }
  for (size_t half = 1; half < m; half *= 2) {
    const size_t step = m / (2 * half);
    for (size_t begin = 0; begin < m; begin += 2 * half)
      for (size_t k = 0; k < half; k++) {
        const ml__complex w = { turns[k * step].re, sign * turns[k * step].im };
        ml__complex *a = x + begin + k, *b = a + half;
        const ml__complex t = times(*b, w);
        *b = (ml__complex){ a->re - t.re, a->im - t.im };
        *a = (ml__complex){ a->re + t.re, a->im + t.im };
      }
  }
}

void ml__fft_plan(ml__fft *f, size_t n, bool inverse, void *memory) {
  const size_t m = inner_length(n);
  *f = (ml__fft){ .n = n, .m = m, .inverse = inverse, .turns = memory };
  for (size_t k = 0; k < m / 2; k++) f->turns[k] = turn(k, m);
  if (m == n) return;
  f->chirp = f->turns + m / 2;
  f->filter = f->chirp + n;
  f->work = f->filter + m;
  for (size_t k = 0; k < n; k++) { /* e^(-+ pi i k^2 / n), the square taken modulo 2n to keep its digits */
    f->chirp[k] = turn((uint64_t)k * k % (2 * (uint64_t)n), 2 * (uint64_t)n);
    if (!inverse) f->chirp[k].im = -f->chirp[k].im;
  }
  for (size_t k = 0; k < m; k++) f->filter[k] = (ml__complex){ 0, 0 };
  for (size_t k = 0; k < n; k++) {
    const ml__complex c = { f->chirp[k].re, -f->chirp[k].im };
    f->filter[k] = c;
    if (k > 0) f->filter[m - k] = c;
  }
  power_of_two(f->filter, m, f->turns, -1);
}

void ml__fft_run(const ml__fft *f, ml__complex *x) {
  const size_t n = f->n, m = f->m;
  if (m == n) {
    if (n > 1) power_of_two(x, n, f->turns, f->inverse ? 1 : -1);
    return;
  }
  for (size_t k = 0; k < n; k++) f->work[k] = times(x[k], f->chirp[k]);
  for (size_t k = n; k < m; k++) f->work[k] = (ml__complex){ 0, 0 };
  power_of_two(f->work, m, f->turns, -1);
  for (size_t k = 0; k < m; k++) f->work[k] = times(f->work[k], f->filter[k]);
  power_of_two(f->work, m, f->turns, 1);
  for (size_t k = 0; k < n; k++) {
    const ml__complex y = times(f->work[k], f->chirp[k]);
    x[k] = (ml__complex){ y.re / (double)m, y.im / (double)m };
  }
}
