/* MaxUnpool 22: Y = zeros with every X put where the index of MaxPool's second output says. Indices count in the tensor of the
 * size a pool with these attributes would have come from; output_shape only adds zeros behind it.
 * X, I (N,C,D1…), output_shape (optional int64) -> Y (N,C,O1…) with O = stride (D - 1) + kernel - pads. ONNX operator
 * specification. */
#include <string.h>
#include "ops/window.h"

static const ml_attr_def attrs[] = {
  { "kernel_shape", ML_ATTR_INTS, true, "size of the window, per spatial dimension" },
  { "pads", ML_ATTR_INTS, false, "0 (default): all beginnings, then all ends" },
  { "strides", ML_ATTR_INTS, false, "1 (default), per spatial dimension" },
  { 0 },
};

/* Sizes the pool came from (dims[2 …]); ML_UNKNOWN where X is not known. */
static ml_status pooled_from(const ml_op_ctx *ctx, int64_t *dims, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml__window w;
  ml__auto_pad pad;
  ML_TRY(ml__window_read(&w, &pad, ctx->attrs, x, NULL, err));
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  for (int32_t d = 0; d < w.n; d++) {
    dims[d + 2] = ML_UNKNOWN;
    if (w.in[d] < 0) continue;
    if (w.in[d] > 0 && w.stride[d] > ML__EXTENT_MAX / w.in[d])
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'strides': %lld makes dimension %d too large", (long long)w.stride[d],
                     (int)d + 2);
    dims[d + 2] = (w.in[d] - 1) * w.stride[d] + w.kernel[d] - w.begin[d] - w.end[d];
    if (dims[d + 2] < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'pads' leaves nothing of dimension %d", (int)d + 2);
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *places = ctx->in[1], *shape = ml__in(ctx, 2);
  int64_t from[ML_MAX_RANK], dims[ML_MAX_RANK];
  size_t count;
  bool known;
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  if (ml_view_known(x) && ml_view_known(places) && !ml_shape_equal(x->dims, x->rank, places->dims, places->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "I must have the shape of X");
  ML_TRY(pooled_from(ctx, from, err));
  ML_TRY(ml__ints(shape, dims, ML_MAX_RANK, &count, &known, "output_shape", err));
  if (shape && known && count != (size_t)x->rank)
    return ml_fail(err, ML_INVALID_ARGUMENT, "output_shape: expected %d values, got %zu", (int)x->rank, count);
  for (int32_t d = 0; d < x->rank; d++) {
    if (!shape) dims[d] = from[d];
    else if (!known) dims[d] = ML_UNKNOWN;
    else if (dims[d] < 0 || (from[d] >= 0 && (dims[d] < from[d] || (d < 2 && dims[d] != from[d]))))
      return ml_fail(err, ML_INVALID_ARGUMENT, "output_shape: dimension %d is %lld, expected at least %lld", (int)d,
                     (long long)dims[d], (long long)from[d]);
  }
  ml_op_set(ctx->out[0], x->dtype, dims, x->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *places = ctx->in[1];
  ml_view *y = ctx->out[0];
  int64_t from[ML_MAX_RANK];
  size_t size = ml_dtype_size(x->dtype), total;
  if (places->count != x->count) return ml_fail(err, ML_INVALID_ARGUMENT, "I must have the shape of X");
  ML_TRY(pooled_from(ctx, from, err));
  ML_TRY(ml_shape_count(from, x->rank, x->dtype, &total, err));
  if (y->count) memset(y->data, 0, y->count * size);
  for (size_t i = 0; i < x->count; i++) {
    int64_t place = ((const int64_t *)places->data)[i], at = 0, weight = 1;
    if (place < 0 || (uint64_t)place >= total)
      return ml_fail(err, ML_INVALID_ARGUMENT, "I: element %zu is %lld, expected 0 to %zu", i, (long long)place,
                     total ? total - 1 : 0);
    for (int32_t d = x->rank - 1; d >= 0; d--) {
      at += place % from[d] * weight;
      place /= from[d];
      weight *= y->dims[d];
    }
    if ((uint64_t)at < y->count) memcpy((char *)y->data + (size_t)at * size, (const char *)x->data + i * size, size);
  }
  return ML_OK;
}

const ml_op_def ml_op_max_unpool = {
  .name = "MaxUnpool", .domain = "", .since = 22, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F, ML_BIT(ML_INT64), ML_BIT(ML_INT64) }, .formula = "Y[I] = X, else 0", .infer = infer, .run = run,
};
