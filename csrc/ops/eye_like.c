/* EyeLike: ones on diagonal k of a matrix in the shape of the input, zeros elsewhere; only the shape (and, without the
 * attribute dtype, the type) of the input counts. Reference: ONNX EyeLike-22. */
#include "ops/scatter.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "dtype", ML_ATTR_INT, false, "element type; the input's by default" },
  { "k", ML_ATTR_INT, false, "0 (default): the main diagonal; above it for k > 0, below it for k < 0" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ML_TRY(ml__op_check_types(ctx, err));
  int64_t dtype = ml_attr_int(ctx->attrs, "dtype", x->dtype);
  if (dtype < 1 || dtype > 31 || (ML__MASK_NUMERIC & ML_BIT(dtype)) == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'dtype' is %lld, which is no numeric type", (long long)dtype);
  if (x->rank != ML_UNKNOWN && x->rank != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "input has rank %d, expected 2", (int)x->rank);
  ml_op_set(ctx->out[0], (ml_dtype)dtype, x->dims, x->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *y = ctx->out[0];
  const int64_t rows = y->dims[0], cols = y->dims[1], k = ml_attr_int(ctx->attrs, "k", 0);
  (void)err;
  if (y->count == 0) return ML_OK;
  memset(y->data, 0, y->count * ml_dtype_size(y->dtype));
  if (k <= -rows || k >= cols) return ML_OK;
  for (int64_t r = k < 0 ? -k : 0; r < rows && r + k < cols; r++) ml_element_set(y->data, y->dtype, (size_t)(r * cols + r + k),
                                                                                 1);
  return ML_OK;
}

const ml_op_def ml_op_eye_like = {
  .name = "EyeLike", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML__MASK_NUMERIC }, .formula = "y[i, i + k] = 1", .infer = infer, .run = run,
};
