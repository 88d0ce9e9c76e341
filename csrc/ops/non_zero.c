/* NonZero: the indices of the elements that are not zero, in row-major order: column j of y is the index of the j-th such
 * element. x (d0 … dr-1) -> (r, number of them) int64. A NaN is not zero. Reference: ONNX NonZero-13. */
#include "ops/movement.h"

#define COUNT(T) for (size_t i = 0; i < x->count; i++) n += ((const T *)x->data)[i] != 0;

static size_t count_of(const ml_view *x) {
  size_t n = 0;
  switch (x->dtype) {
    case ML_BOOL:
    case ML_UINT8:
    case ML_INT8: COUNT(uint8_t) break;
    case ML_INT32:
    case ML_UINT32: COUNT(uint32_t) break;
    case ML_INT64:
    case ML_UINT64: COUNT(uint64_t) break;
    case ML_FLOAT32: COUNT(float) break;
    case ML_STRING:
      for (size_t i = 0; i < x->count; i++) n += ((const ml_str *)x->data)[i].length > 0;
      break;
    default:
      for (size_t i = 0; i < x->count; i++) n += ml_element_get(x->data, x->dtype, i) != 0;
      break;
  }
  return n;
}

static bool is_set(const ml_view *x, size_t i) {
  if (x->dtype == ML_STRING) return ((const ml_str *)x->data)[i].length > 0;
  return ml_element_get(x->data, x->dtype, i) != 0; /* an integer never rounds to zero */
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ML_TRY(ml__op_check_types(ctx, err));
  bool known = ml_view_known(x) && (x->count == 0 || x->data != NULL);
  int64_t dims[2] = { x->rank, known ? (int64_t)count_of(x) : ML_UNKNOWN };
  ml_op_set(ctx->out[0], ML_INT64, dims, 2);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  const size_t columns = (size_t)y->dims[1];
  int64_t index[ML_MAX_RANK] = { 0 }, *to = y->data;
  size_t j = 0;
  if (y->count == 0) return ML_OK;
  for (size_t i = 0; i < x->count; i++) {
    if (is_set(x, i)) {
      if (j == columns) return ml_fail(err, ML_INVALID_ARGUMENT, "more than the planned %zu elements are not zero", columns);
      for (int32_t d = 0; d < x->rank; d++) to[(size_t)d * columns + j] = index[d];
      j++;
    }
    for (int32_t d = x->rank - 1; d >= 0 && ++index[d] == x->dims[d]; d--) index[d] = 0;
  }
  return j == columns ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "%zu elements are not zero, %zu are planned", j, columns);
}

const ml_op_def ml_op_non_zero = {
  .name = "NonZero", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .types = { ML_MASK_ANY },
  .formula = "y = indices of x != 0", .infer = infer, .run = run,
};
