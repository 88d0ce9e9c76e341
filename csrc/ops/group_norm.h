/* What InstanceNormalization, GroupNormalization and their gradient share.
 * Lives here: the reading of a tensor as (images, groups, channels of a group, positions), the forward pass. May include:
 * ops/movement.h, tensor, base. Ownership: nothing is kept. An instance normalisation is a group normalisation with a group per
 * channel. */
#ifndef ML_OPS_GROUP_NORM_H
#define ML_OPS_GROUP_NORM_H
#include "ops/movement.h"

typedef struct ml__group_norm {
  size_t N, G, C, S; /* C: channels of one group */
  bool per_group; /* scale and bias have one value per group (GroupNormalization before version 21) instead of one per channel */
} ml__group_norm;

/* Checks x (N,C,D1…), scale and bias (may be NULL) for `groups` groups (0: one per channel). */
ml_status ml__group_norm_check(const ml_view *x, const ml_view *scale, const ml_view *bias, int64_t groups, ml_error *err);
/* The same with everything known. */
ml_status ml__group_norm_init(ml__group_norm *n, const ml_view *x, const ml_view *scale, const ml_view *bias, int64_t groups,
                              ml_error *err);
void ml__group_norm_run(const ml__group_norm *n, const ml_view *x, const ml_view *scale, const ml_view *bias, double epsilon,
                        ml_view *y);
/* Mean and 1/sqrt(variance + epsilon) of n elements. */
void ml__group_moments(ml_dtype dtype, const void *x, size_t n, double epsilon, double *mean, double *inverse);
/* node mlserve.GroupNormalizationGrad */
void ml__group_norm_gradient(ml_grad *g, int64_t groups, float epsilon);

#endif
