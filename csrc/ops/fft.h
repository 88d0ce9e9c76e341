/* The discrete Fourier transform of any length, in double.
 * Lives here: planning and running one transform. May include: base. Ownership: tables live in memory of the caller.
 *
 * y_k = sum over j of e^(-+ 2 pi i j k / n) x_j. A power of two: decimation in time (Cooley, Tukey 1965). Any other length n:
 * the chirp transform (Bluestein 1970), j k = (j^2 + k^2 - (k - j)^2) / 2 makes it a convolution, done by powers of two of at
 * least 2n - 1. Cost n log n for every n. */
#ifndef ML_OPS_FFT_H
#define ML_OPS_FFT_H
#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"

typedef struct ml__complex {
  double re, im;
} ml__complex;

typedef struct ml__fft {
  size_t n, m;        /* m: length of the inner transforms, n itself when that is a power of two */
  bool inverse;       /* sign of the exponent; nothing is divided by n */
  ml__complex *turns; /* m / 2 */
  ml__complex *chirp, *filter, *work; /* n, m, m; only when m != n */
} ml__fft;

ml_status ml__fft_bytes(size_t n, size_t *bytes, ml_error *err); /* of the tables */
void ml__fft_plan(ml__fft *f, size_t n, bool inverse, void *memory);
void ml__fft_run(const ml__fft *f, ml__complex *x); /* in place, n numbers */

#endif
