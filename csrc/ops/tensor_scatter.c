/* TensorScatter: past_cache with update written along the sequence axis, for every batch entry b from write_indices[b] (0 by
 * default) on; in circular mode positions wrap around. past_cache (B, …, max length, …), update (B, …, length, …),
 * write_indices ((B) int64, optional) -> like past_cache, whose memory it takes over where nobody else needs it. No gradient.
 * Reference: ONNX TensorScatter-24. */
#include "ops/movement.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "-2 (default): the sequence dimension, not the first" },
  { "mode", ML_ATTR_STRING, false, "linear (default) or circular" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *cache = ctx->in[0], *update = ctx->in[1], *start = ml__in(ctx, 2);
  int32_t axis;
  char a[128], b[128];
  ML_TRY(ml__op_check_types(ctx, err));
  if (!ml_attr_is(ctx->attrs, "mode", "linear", "linear") && !ml_attr_is(ctx->attrs, "mode", "linear", "circular"))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'mode' is neither linear nor circular");
  if (cache->dtype != update->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "past_cache is %s, update is %s", ml_dtype_name(cache->dtype),
                   ml_dtype_name(update->dtype));
  ml_op_like(ctx->out[0], cache);
  if (cache->rank == ML_UNKNOWN) return ML_OK;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -2), cache->rank, &axis, err));
  if (axis == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'axis' names the batch dimension");
  bool fits = update->rank == ML_UNKNOWN || update->rank == cache->rank;
  for (int32_t i = 0; i < cache->rank && update->rank != ML_UNKNOWN && fits; i++)
    fits = cache->dims[i] < 0 || update->dims[i] < 0 ||
           (i == axis ? update->dims[i] <= cache->dims[i] : update->dims[i] == cache->dims[i]);
  if (!fits)
    return ml_fail(err, ML_INVALID_ARGUMENT, "an update of shape %s does not fit a cache of shape %s along axis %d",
                   ml_shape_format(update->dims, update->rank, a, sizeof a), ml_shape_format(cache->dims, cache->rank, b,
                                                                                             sizeof b),
                   (int)axis);
  if (start != NULL && start->rank != ML_UNKNOWN &&
      (start->rank != 1 || (start->dims[0] >= 0 && cache->dims[0] >= 0 && start->dims[0] != cache->dims[0])))
    return ml_fail(err, ML_INVALID_ARGUMENT, "write_indices has shape %s, expected (%lld)",
                   ml_shape_format(start->dims, start->rank, a, sizeof a), (long long)cache->dims[0]);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *cache = ctx->in[0], *update = ctx->in[1], *start = ml__in(ctx, 2), *y = ctx->out[0];
  const bool circular = ml_attr_is(ctx->attrs, "mode", "linear", "circular");
  int32_t axis = 0;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -2), cache->rank, &axis, err));
  ML_TRY(ml__run_copy(ctx, err));
  if (update->count == 0) return ML_OK;
  const int64_t batches = cache->dims[0], length = update->dims[axis], room = cache->dims[axis];
  const size_t outer = ml__extent(cache->dims, 1, axis),
               bytes = ml__extent(cache->dims, axis + 1, cache->rank) * ml_dtype_size(cache->dtype);
  for (int64_t b = 0; b < batches; b++) {
    const int64_t at = start != NULL ? ((const int64_t *)start->data)[b] : 0;
    if (at < 0 || (!circular && at > room - length))
      return ml_fail(err, ML_OUT_OF_RANGE, "write_indices: element %lld is %lld, expected 0 to %lld", (long long)b, (long long)at,
                     (long long)(room - length));
    for (size_t o = 0; o < outer; o++) {
      const size_t row = (size_t)b * outer + o;
      for (int64_t i = 0; i < length; i++) {
        const int64_t to = circular ? (at % room + i) % room : at + i;
        memcpy((char *)y->data + (row * (size_t)room + (size_t)to) * bytes,
               (const char *)update->data + (row * (size_t)length + (size_t)i) * bytes, bytes);
      }
    }
  }
  return ML_OK;
}

const ml_op_def ml_op_tensor_scatter = {
  .name = "TensorScatter", .domain = "", .since = 24, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs, .types = { ML_MASK_ANY, ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y = cache with update written into it",
  .infer = infer, .run = run,
};
