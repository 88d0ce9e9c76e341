/* What LayerNormalization and its gradient share.
 * Lives here: the (rows, n) reading of a tensor and the scale spread over n. May include: tensor, base. Ownership: nothing is
 * kept. */
#ifndef ML_OPS_LAYER_NORM_H
#define ML_OPS_LAYER_NORM_H
#include "ops/movement.h"

typedef struct ml__rows {
  int32_t axis;
  size_t rows, n; /* x is (rows, n): the dimensions before axis and from it */
} ml__rows;

ml_status ml__rows_of(const ml_op_ctx *ctx, const ml_view *x, ml__rows *out, ml_error *err);
/* v broadcasts to the normalised dimensions of x and has its dtype; unknown dimensions pass */
ml_status ml__check_normalised(const ml_op_ctx *ctx, const ml_view *x, const ml_view *v, const char *what, ml_error *err);
/* The n values of v (NULL: NULL): v's own memory when it has n, else repeated into `room`. */
const void *ml__spread(const ml_view *x, const ml__rows *d, const ml_view *v, void *room);
/* Mean and 1/sqrt(population variance + eps) of n values. */
void ml__row_moments(const void *x, ml_dtype dtype, size_t n, double eps, double *mean, double *inv);

#endif
