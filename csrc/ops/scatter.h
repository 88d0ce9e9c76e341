/* What the gathering and scattering operators by element and by tuple share.
 * Lives here: their checks, walking rows of an index tensor, combining one element into another. May include: tensor, base.
 * Ownership: nothing is kept. */
#ifndef ML_OPS_SCATTER_H
#define ML_OPS_SCATTER_H
#include "ops/gather.h"

/* Every dtype that ml_element_get knows: all but string. */
#define ML__MASK_NUMERIC (ML_MASK_N | ML_BIT(ML_BOOL) | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16))

typedef enum ml__scatter {
  ML__SCATTER_NONE,
  ML__SCATTER_ADD,
  ML__SCATTER_MUL,
  ML__SCATTER_MAX,
  ML__SCATTER_MIN
} ml__scatter;

/* The attribute `reduction`; fails on an unknown name and on strings with anything but none. */
ml_status ml__scatter_reduction(const ml_op_ctx *ctx, ml__scatter *out, ml_error *err);
/* to[i] = to[i] combined with from[i], n elements of dtype; NaN wins in max and min, bool adds as or and multiplies as and. */
void ml__scatter_combine(ml__scatter reduction, ml_dtype dtype, void *to, const void *from, size_t n);

/* Offsets, in elements of `data`, of the rows of an index tensor that walks data without its axis (GatherElements,
 * ScatterElements): row r covers the positions r*length … of the index tensor. */
typedef struct ml__index_walk {
  int32_t rank, axis;
  int64_t extent;       /* of data along axis */
  int64_t axis_stride;  /* of data along axis */
  int64_t last_stride;  /* step of the offset along a row: 1, or 0 when the axis is the last dimension */
  int64_t length;       /* of a row */
  int64_t dims[ML_MAX_RANK], stride[ML_MAX_RANK], index[ML_MAX_RANK];
  int64_t offset;       /* of the current row */
} ml__index_walk;
ml_status ml__index_walk_start(ml__index_walk *w, const ml_view *data, const ml_view *indices, int64_t axis, ml_error *err);
bool ml__index_walk_next(ml__index_walk *w); /* false: there are no more rows */

/* Shape inference of both: ranks agree, indices fit into data. */
ml_status ml__index_check(const ml_view *data, const ml_view *indices, int64_t axis, ml_error *err);

/* The offset, in elements of `data` (strides given), that the k-tuple number `tuple` of indices names from dimension `first`
 * on. */
static inline ml_status ml__tuple_offset(const ml_view *indices, size_t tuple, int64_t k, const ml_view *data, int32_t first,
                                         const int64_t *stride, int64_t *offset, ml_error *err) {
  int64_t sum = 0;
  for (int64_t i = 0; i < k; i++) {
    int64_t row = 0;
    ML_TRY(ml__gather_row(indices, tuple * (size_t)k + (size_t)i, data->dims[first + i], &row, err));
    sum += row * stride[first + i];
  }
  *offset = sum;
  return ML_OK;
}

/* One element of `size` bytes; the sizes there are become plain moves. */
static inline void ml__copy1(char *to, const char *from, size_t size) {
  switch (size) {
    case 1: *to = *from; break;
    case 2: __builtin_memcpy(to, from, 2); break;
    case 4: __builtin_memcpy(to, from, 4); break;
    case 8: __builtin_memcpy(to, from, 8); break;
    default: __builtin_memcpy(to, from, 16); break;
  }
}

/* GatherND and its gradient: `batch` leading dimensions go along, then tuples of k indices name slices of `inner` elements. */
typedef struct ml__gather_nd {
  size_t batches, tuples, inner; /* tuples per batch */
  int64_t k, batch_stride;       /* elements of data per batch */
  int32_t batch;
} ml__gather_nd;
ml_status ml__gather_nd_plan(const ml_op_ctx *ctx, const ml_view *data, const ml_view *indices, ml__gather_nd *out,
                             ml_error *err);

#endif
