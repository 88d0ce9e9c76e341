/* NumPy's .npy files (numpy.lib.format, versions 1.0, 2.0 and 3.0).
 * Lives here: bounded reader, atomic writer. May include: tensor, base.
 * Numeric and boolean arrays in little-endian order; Fortran order is turned into C order. Objects, records, strings, complex
 * numbers and dates are refused, so nothing in a file is ever executed. */
#ifndef ML_FORMAT_NPY_H
#define ML_FORMAT_NPY_H
#include "tensor/tensor.h"

/* Maps the file; aligned C-order data stays in place. Errors begin with the path. */
ml_status ml_npy_load(const char *path, ml_tensor **out, ml_error *err);
/* Copies. `what` names the source in messages. */
ml_status ml_npy_read(const void *bytes, size_t size, const char *what, ml_tensor **out, ml_error *err);
/* Version 1.0 file of a numeric tensor. *bytes: ml_free. */
ml_status ml_npy_write(const ml_tensor *tensor, void **bytes, size_t *size, ml_error *err);
ml_status ml_npy_save(const char *path, const ml_tensor *tensor, ml_error *err);

#endif
