/* OneHot 11: y = on where the position along a new axis equals the index, off elsewhere. indices (I…) numeric, depth (one
 * element), values (2) = (off, on) -> (I… with depth at axis). Indices are in [-depth, depth-1]; others make an all-off row.
 * ONNX operator specification. */
#include <math.h>
#include <string.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "-1 (default, last): where the new dimension stands in the result" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *indices = ctx->in[0], *depth = ctx->in[1], *values = ctx->in[2];
  int64_t dims[ML_MAX_RANK] = { 0 }, n = ML_UNKNOWN;
  int32_t axis;
  if (values->rank != ML_UNKNOWN && (values->rank != 1 || (values->dims[0] >= 0 && values->dims[0] != 2)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "values: expected shape (2)");
  if (depth->rank > 1 || (depth->rank == 1 && depth->dims[0] >= 0 && depth->dims[0] != 1))
    return ml_fail(err, ML_INVALID_ARGUMENT, "depth: expected one element");
  if (depth->data && depth->count == 1) {
    double d = ml_element_get(depth->data, depth->dtype, 0);
    if (!(d >= 1 && d <= 9e15)) return ml_fail(err, ML_INVALID_ARGUMENT, "depth is %g, expected 1 or more", d);
    n = (int64_t)d;
  }
  if (indices->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], values->dtype, dims, ML_UNKNOWN);
    return ML_OK;
  }
  if (indices->rank == ML_MAX_RANK)
    return ml_fail(err, ML_INVALID_ARGUMENT, "indices: rank %d leaves no room for another dimension", ML_MAX_RANK);
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), indices->rank + 1, &axis, err));
  for (int32_t i = 0, from = 0; i <= indices->rank; i++) dims[i] = i == axis ? n : indices->dims[from++];
  ml_op_set(ctx->out[0], values->dtype, dims, indices->rank + 1);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *indices = ctx->in[0], *values = ctx->in[2];
  ml_view *y = ctx->out[0];
  int32_t axis;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), y->rank, &axis, err));
  if (y->count == 0) return ML_OK;
  size_t size = ml_dtype_size(y->dtype), depth = (size_t)y->dims[axis], inner = ml__extent(y->dims, axis + 1, y->rank);
  const char *off = values->data, *on = off + size;
  ml__fill(y->data, off, size, y->count);
  for (size_t i = 0; i < indices->count; i++) {
    double v = ml_element_get(indices->data, indices->dtype, i);
    if (!(v >= -(double)depth && v < (double)depth)) continue;
    int64_t at = (int64_t)floor(v);
    if (at < 0) at += (int64_t)depth;
    memcpy((char *)y->data + ((i / inner * depth + (size_t)at) * inner + i % inner) * size, on, size);
  }
  return ML_OK;
}

const ml_op_def ml_op_one_hot = {
  .name = "OneHot", .domain = "", .since = 11, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_N, ML_MASK_N, ML_MASK_ANY }, .like = { 2 }, .formula = "y = on where the position equals the index, else off",
  .infer = infer, .run = run,
};
