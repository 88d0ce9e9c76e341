/* ConstantOfShape 21: a tensor of the given shape filled with one value (attribute value, a one-element tensor; default float32
 * 0). input (r) int64 -> (that shape). ONNX operator specification. */
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "value", ML_ATTR_TENSOR, false, "one element: the value and the element type; default float32 0" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_attr *value = ml_attr_find(ctx->attrs, "value");
  int64_t dims[ML_MAX_RANK];
  size_t rank;
  bool known;
  if (value && (!value->as.tensor || value->as.tensor->view.count != 1))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute value: expected one element");
  ml_dtype dtype = value ? value->as.tensor->view.dtype : ML_FLOAT32;
  ML_TRY(ml__ints(ctx->in[0], dims, ML_MAX_RANK, &rank, &known, "shape", err));
  if (!known) {
    ml__infer_unknown(ctx, dtype, ctx->in[0]);
    return ML_OK;
  }
  for (size_t i = 0; i < rank; i++)
    if (dims[i] < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "shape: element %zu is %lld, expected 0 or more", i, (long long)dims[i]);
  ml_op_set(ctx->out[0], dtype, dims, (int32_t)rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_attr *value = ml_attr_find(ctx->attrs, "value");
  static const float zero = 0;
  ml_view *y = ctx->out[0];
  (void)err;
  ml__fill(y->data, value ? value->as.tensor->view.data : &zero, ml_dtype_size(y->dtype), y->count);
  return ML_OK;
}

const ml_op_def ml_op_constant_of_shape = {
  .name = "ConstantOfShape", .domain = "", .since = 25, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_BIT(ML_INT64) }, .formula = "y = value everywhere", .infer = infer, .run = run,
};
