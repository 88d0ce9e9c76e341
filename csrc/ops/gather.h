/* What Gather and its gradient share.
 * Lives here: the checked row number. May include: tensor, base. Ownership: nothing is kept. */
#ifndef ML_OPS_GATHER_H
#define ML_OPS_GATHER_H
#include "ops/movement.h"

/* Index i of an int32/int64 tensor in [-n, n) brought to [0, n). */
static inline ml_status ml__gather_row(const ml_view *indices, size_t i, int64_t n, int64_t *row, ml_error *err) {
  int64_t v = indices->dtype == ML_INT64 ? ((const int64_t *)indices->data)[i] : ((const int32_t *)indices->data)[i];
  if (v < -n || v >= n)
    return ml_fail(err, ML_OUT_OF_RANGE, "indices: element %zu is %lld, expected %lld to %lld", i, (long long)v, -(long long)n,
                   (long long)n - 1);
  *row = v < 0 ? v + n : v;
  return ML_OK;
}

#endif
