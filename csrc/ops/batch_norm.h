/* What BatchNormalization and its gradient share.
 * Lives here: the (N, C, S) reading of a tensor, batch statistics, checks. May include: tensor, base. Ownership: nothing is kept.
 */
#ifndef ML_OPS_BATCH_NORM_H
#define ML_OPS_BATCH_NORM_H
#include "ops/movement.h"

typedef struct ml__channels {
  size_t N, C, S; /* x is (N, C, S) with S the product of the dimensions after C; rank 1 is (N, 1, 1) */
} ml__channels;

ml__channels ml__channels_of(const ml_view *x);
/* `what` holds one value per channel of x and has its dtype */
ml_status ml__check_channel(const ml_view *x, const ml_view *v, const char *what, ml_error *err);
ml_status ml__check_channel_count(const ml_view *v, size_t C, const char *what, ml_error *err);
/* Mean and population variance per channel, in two passes. */
void ml__channel_moments(const ml_view *x, double *mean, double *var);
/* acc[c] = sum over n and s of x[n][c][s] */
void ml__channel_sums(const ml_view *x, double *acc);

#endif
