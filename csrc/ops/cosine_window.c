/* See cosine_window.h. */
#include "ops/cosine_window.h"
#include <math.h>

const ml_attr_def ml__cosine_window_attrs[] = {
  { "output_datatype", ML_ATTR_INT, false, "float32 by default" },
  { "periodic", ML_ATTR_INT, false, "1 (default): one period less its last element; 0: symmetric" },
  { 0 },
};

ml_status ml__output_datatype(const ml_op_ctx *ctx, ml_dtype *out, ml_error *err) {
  const int64_t dtype = ml_attr_int(ctx->attrs, "output_datatype", ML_FLOAT32);
  if (dtype < 1 || dtype > 31 || ((ML_MASK_N | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16)) & ML_BIT(dtype)) == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'output_datatype' is %lld, which is no numeric type", (long long)dtype);
  *out = (ml_dtype)dtype;
  return ML_OK;
}

ml_status ml__scalar_int(const ml_view *view, int64_t least, const char *what, int64_t *out, ml_error *err) {
  size_t count;
  bool known;
  *out = ML_UNKNOWN;
  ML_TRY(ml__op_check_scalar(view, what, err));
  ML_TRY(ml__ints(view, out, 1, &count, &known, what, err));
  if (!known) {
    *out = ML_UNKNOWN;
    return ML_OK;
  }
  if (count != 1) return ml_fail(err, ML_INVALID_ARGUMENT, "%s has no value", what);
  if (*out < least)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %lld, expected %lld or more", what, (long long)*out, (long long)least);
  return ML_OK;
}

ml_status ml__cosine_window_infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t size = ML_UNKNOWN;
  ml_dtype dtype = ML_FLOAT32;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__output_datatype(ctx, &dtype, err));
  ML_TRY(ml__scalar_int(ctx->in[0], 0, "size", &size, err));
  ml_op_set(ctx->out[0], dtype, &size, 1);
  return ML_OK;
}

ml_status ml__cosine_window_run(ml_op_ctx *ctx, double a, double b, double c, ml_error *err) {
  const ml_view *y = ctx->out[0];
  const bool periodic = ml_attr_int(ctx->attrs, "periodic", 1) != 0;
  const double period = (double)(periodic ? y->count : y->count - 1), turn = 6.283185307179586477;
  (void)err;
  if (!periodic && y->count == 1) { /* the middle of a window of one element */
    ml_element_set(y->data, y->dtype, 0, 1);
    return ML_OK;
  }
  for (size_t i = 0; i < y->count; i++) {
    const double angle = turn * ((double)i / period);
    ml_element_set(y->data, y->dtype, i, a - b * cos(angle) + c * cos(2 * angle));
  }
  return ML_OK;
}
