/* CenterCropPad 18: the middle of the input where it is larger than asked for, the input amid zeros where it is smaller. An odd
 * element more is cut from, or added to, the end. input_data (any shape, any type), shape (int64) -> output_data. ONNX operator
 * specification. */
#include <string.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axes", ML_ATTR_INTS, false, "dimensions that shape speaks of; default: all" },
  { 0 },
};

/* Output extents; ML_UNKNOWN where not known. */
static ml_status target(const ml_op_ctx *ctx, int64_t *dims, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const ml_attr *axes = ml_attr_find(ctx->attrs, "axes");
  int64_t values[ML_MAX_RANK];
  size_t count, n = axes ? axes->count : (size_t)x->rank;
  bool known, set[ML_MAX_RANK];
  if (axes) ML_TRY(ml__axes(axes->as.ints, axes->count, x->rank, set, err));
  ML_TRY(ml__ints(ctx->in[1], values, ML_MAX_RANK, &count, &known, "shape", err));
  if (known && count != n) return ml_fail(err, ML_INVALID_ARGUMENT, "shape: expected %zu values, got %zu", n, count);
  for (int32_t d = 0; d < x->rank; d++) dims[d] = x->dims[d];
  for (size_t i = 0; i < n; i++) {
    int64_t d = axes ? axes->as.ints[i] : (int64_t)i;
    if (known && values[i] < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "shape: value %zu is %lld", i, (long long)values[i]);
    dims[d < 0 ? d + x->rank : d] = known ? values[i] : ML_UNKNOWN;
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  int64_t dims[ML_MAX_RANK];
  if (ctx->in[0]->rank != ML_UNKNOWN) ML_TRY(target(ctx, dims, err));
  ml_op_set(ctx->out[0], ctx->in[0]->dtype, dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  int64_t dims[ML_MAX_RANK], own[ML_MAX_RANK], to[ML_MAX_RANK], from_offset = 0, to_offset = 0;
  size_t size = ml_dtype_size(x->dtype);
  ML_TRY(target(ctx, dims, err));
  if (!ml_shape_equal(dims, x->rank, y->dims, y->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "shape does not give the planned shape");
  if (y->count == 0) return ML_OK;
  memset(y->data, 0, y->count * size);
  ml__strides(x->dims, x->rank, own);
  ml__strides(y->dims, y->rank, to);
  for (int32_t d = 0; d < x->rank; d++) {
    int64_t more = y->dims[d] - x->dims[d];
    if (more > 0) to_offset += more / 2 * to[d];
    else from_offset += -more / 2 * own[d];
    dims[d] = more > 0 ? x->dims[d] : y->dims[d];
    if (dims[d] == 0) return ML_OK;
  }
  ml__move(dims, x->rank, size, (const char *)x->data + (size_t)from_offset * size, own,
           (char *)y->data + (size_t)to_offset * size, to);
  return ML_OK;
}

const ml_op_def ml_op_center_crop_pad = {
  .name = "CenterCropPad", .domain = "", .since = 18, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT32) | ML_BIT(ML_INT64) }, .formula = "y = middle of x, or x amid zeros", .infer = infer,
  .run = run,
};
