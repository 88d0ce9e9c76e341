/* What Slice and its gradient share.
 * Lives here: turning starts/ends/axes/steps into ranges. May include: tensor, base. Ownership: nothing is kept. */
#ifndef ML_OPS_SLICE_H
#define ML_OPS_SLICE_H
#include "ops/movement.h"

typedef struct ml__range {
  int64_t start[ML_MAX_RANK], step[ML_MAX_RANK], count[ML_MAX_RANK]; /* count ML_UNKNOWN: not known */
} ml__range;

/* From the inputs first … first+3 (starts, ends, axes, steps) for a tensor of shape dims; *known false: some of them are not
 * known yet. */
ml_status ml__slice_range(const ml_op_ctx *ctx, int32_t first, const int64_t *dims, int32_t rank, ml__range *out, bool *known,
                          ml_error *err);

#endif
