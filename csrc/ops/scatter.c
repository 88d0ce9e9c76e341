/* Checks and inner loops of GatherElements, GatherND, ScatterElements and ScatterND; see scatter.h. */
#include "ops/scatter.h"
#include <string.h>

ml_status ml__scatter_reduction(const ml_op_ctx *ctx, ml__scatter *out, ml_error *err) {
  static const char *const names[] = { "none", "add", "mul", "max", "min" };
  for (int32_t i = 0; i < 5; i++) {
    if (!ml_attr_is(ctx->attrs, "reduction", "none", names[i])) continue;
    if (i > 0 && ctx->in[0]->dtype == ML_STRING)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'reduction' is %s, which strings do not have", names[i]);
    *out = (ml__scatter)i;
    return ML_OK;
  }
  ml_str given = ml_attr_str(ctx->attrs, "reduction", "none");
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'reduction' is \"%.*s\", expected none, add, mul, max or min",
                 (int)(given.length < 40 ? given.length : 40), given.bytes);
}

#define COMBINE(T, EXPRESSION)                     \
  for (size_t i = 0; i < n; i++) {                 \
    const T a = ((T *)to)[i], b = ((const T *)from)[i]; \
    ((T *)to)[i] = (T)(EXPRESSION);                \
  }
#define ORDERED(T)                                             \
  case ML__SCATTER_MAX: COMBINE(T, b > a || b != b ? b : a) break; \
  case ML__SCATTER_MIN: COMBINE(T, b < a || b != b ? b : a) break; \
  case ML__SCATTER_NONE: break;
/* sums and products of integers wrap */
#define INTEGER(DTYPE, T)                                                         \
  case DTYPE:                                                                     \
    switch (reduction) {                                                          \
      case ML__SCATTER_ADD: COMBINE(T, (uint64_t)a + (uint64_t)b) break;          \
      case ML__SCATTER_MUL: COMBINE(T, (uint64_t)a * (uint64_t)b) break;          \
      ORDERED(T)                                                                  \
    }                                                                             \
    break;
#define FLOATING(DTYPE, T)                             \
  case DTYPE:                                          \
    switch (reduction) {                               \
      case ML__SCATTER_ADD: COMBINE(T, a + b) break;   \
      case ML__SCATTER_MUL: COMBINE(T, a * b) break;   \
      ORDERED(T)                                       \
    }                                                  \
    break;

/* Types without arithmetic of their own: in float, rounded after every step */
static void combine_narrow(ml__scatter reduction, ml_dtype dtype, void *to, const void *from, size_t n) {
  for (size_t i = 0; i < n; i++) {
    float a = (float)ml_element_get(to, dtype, i), b = (float)ml_element_get(from, dtype, i);
    ml__scatter_combine(reduction, ML_FLOAT32, &a, &b, 1);
    ml_element_set(to, dtype, i, (double)a);
  }
}

void ml__scatter_combine(ml__scatter reduction, ml_dtype dtype, void *to, const void *from, size_t n) {
  if (reduction == ML__SCATTER_NONE) {
    if (n > 0) memcpy(to, from, n * ml_dtype_size(dtype));
    return;
  }
  switch (dtype) {
    FLOATING(ML_FLOAT32, float)
    FLOATING(ML_FLOAT64, double)
    INTEGER(ML_INT8, int8_t)
    INTEGER(ML_INT16, int16_t)
    INTEGER(ML_INT32, int32_t)
    INTEGER(ML_INT64, int64_t)
    INTEGER(ML_UINT8, uint8_t)
    INTEGER(ML_UINT16, uint16_t)
    INTEGER(ML_UINT32, uint32_t)
    INTEGER(ML_UINT64, uint64_t)
    case ML_BOOL:
      if (reduction == ML__SCATTER_ADD || reduction == ML__SCATTER_MAX) COMBINE(uint8_t, a | b)
      else COMBINE(uint8_t, a & b)
      break;
    case ML_STRING:
    case ML_DTYPE_NONE: break;
    default: combine_narrow(reduction, dtype, to, from, n); break;
  }
}

/* ---- by element ---- */
ml_status ml__index_check(const ml_view *data, const ml_view *indices, int64_t axis, ml_error *err) {
  int32_t at;
  if (data->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "data has rank 0, expected 1 or more");
  if (data->rank == ML_UNKNOWN || indices->rank == ML_UNKNOWN) return ML_OK;
  ML_TRY(ml_axis_normalise(axis, data->rank, &at, err));
  if (indices->rank != data->rank)
    return ml_fail(err, ML_INVALID_ARGUMENT, "indices have rank %d, data has rank %d, expected equal ranks", (int)indices->rank,
                   (int)data->rank);
  for (int32_t i = 0; i < data->rank; i++)
    if (i != at && data->dims[i] >= 0 && indices->dims[i] > data->dims[i])
      return ml_fail(err, ML_INVALID_ARGUMENT, "indices have extent %lld in dimension %d, data only %lld",
                     (long long)indices->dims[i], (int)i, (long long)data->dims[i]);
  return ML_OK;
}

ml_status ml__index_walk_start(ml__index_walk *w, const ml_view *data, const ml_view *indices, int64_t axis, ml_error *err) {
  *w = (ml__index_walk){ .rank = data->rank };
  ML_TRY(ml_axis_normalise(axis, data->rank, &w->axis, err));
  int64_t own[ML_MAX_RANK];
  ml__strides(data->dims, data->rank, own);
  memcpy(w->dims, indices->dims, (size_t)w->rank * sizeof w->dims[0]);
  for (int32_t i = 0; i < w->rank; i++) w->stride[i] = i == w->axis ? 0 : own[i];
  w->extent = data->dims[w->axis];
  w->axis_stride = own[w->axis];
  w->last_stride = w->stride[w->rank - 1];
  w->length = w->dims[w->rank - 1];
  return ML_OK;
}

bool ml__index_walk_next(ml__index_walk *w) {
  for (int32_t d = w->rank - 2; d >= 0; d--) {
    w->offset += w->stride[d];
    if (++w->index[d] < w->dims[d]) return true;
    w->offset -= w->stride[d] * w->dims[d];
    w->index[d] = 0;
  }
  return false;
}

/* ---- by tuple ---- */
ml_status ml__gather_nd_plan(const ml_op_ctx *ctx, const ml_view *data, const ml_view *indices, ml__gather_nd *out,
                             ml_error *err) {
  int64_t batch = ml_attr_int(ctx->attrs, "batch_dims", 0);
  if (data->rank < 1 || indices->rank < 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "data and indices have ranks %d and %d, expected 1 or more", (int)data->rank,
                   (int)indices->rank);
  if (batch < 0 || batch >= data->rank || batch >= indices->rank)
    return ml_fail(err, ML_INVALID_ARGUMENT,
                   "attribute 'batch_dims' is %lld, expected 0 or more and less than the ranks %d and %d",
                   (long long)batch, (int)data->rank, (int)indices->rank);
  int64_t k = indices->dims[indices->rank - 1];
  if (k != ML_UNKNOWN && (k < 1 || k > data->rank - batch))
    return ml_fail(err, ML_INVALID_ARGUMENT, "indices come in tuples of %lld, expected 1 to %lld", (long long)k,
                   (long long)(data->rank - batch));
  for (int32_t i = 0; i < batch; i++)
    if (data->dims[i] >= 0 && indices->dims[i] >= 0 && data->dims[i] != indices->dims[i])
      return ml_fail(err, ML_INVALID_ARGUMENT, "batch dimension %d is %lld in data but %lld in indices", (int)i,
                     (long long)data->dims[i], (long long)indices->dims[i]);
  *out = (ml__gather_nd){ .k = k, .batch = (int32_t)batch };
  if (k == ML_UNKNOWN || !ml_view_known(data) || !ml_view_known(indices)) return ML_OK; /* inference needs no more */
  out->batches = ml__extent(data->dims, 0, out->batch);
  out->tuples = ml__extent(indices->dims, out->batch, indices->rank - 1);
  out->inner = ml__extent(data->dims, out->batch + (int32_t)k, data->rank);
  out->batch_stride = (int64_t)ml__extent(data->dims, out->batch, data->rank);
  return ML_OK;
}
