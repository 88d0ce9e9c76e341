/* mlserve.SliceGrad: dx = zeros in the shape of x with dx[start:end:step] = dy, the gradient of Slice.
 * dy (the part), x (any shape; only its shape counts), starts, ends, axes (optional), steps (optional) -> dx (shape of x). */
#include <string.h>
#include "ops/slice.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  if (ctx->in[0]->dtype != ctx->in[1]->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dy is %s, x is %s", ml_dtype_name(ctx->in[0]->dtype),
                   ml_dtype_name(ctx->in[1]->dtype));
  ml_op_like(ctx->out[0], ctx->in[1]);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *dy = ctx->in[0];
  ml_view *dx = ctx->out[0];
  ml__range r;
  bool known;
  ML_TRY(ml__slice_range(ctx, 2, dx->dims, dx->rank, &r, &known, err));
  if (!known || !ml_shape_equal(r.count, dx->rank, dy->dims, dy->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "dy does not have the shape of the slice");
  if (dx->count == 0) return ML_OK;
  size_t size = ml_dtype_size(dx->dtype);
  memset(dx->data, 0, dx->count * size);
  if (dy->count == 0) return ML_OK;
  int64_t own[ML_MAX_RANK], from[ML_MAX_RANK], to[ML_MAX_RANK], offset = 0;
  ml__strides(dx->dims, dx->rank, own);
  ml__strides(dy->dims, dy->rank, from);
  for (int32_t i = 0; i < dx->rank; i++) {
    offset += r.start[i] * own[i];
    to[i] = r.count[i] > 1 ? r.step[i] * own[i] : 0;
  }
  ml__move(dy->dims, dy->rank, size, dy->data, from, (char *)dx->data + (size_t)offset * size, to);
  return ML_OK;
}

const ml_op_def ml_op_slice_grad = {
  .name = "SliceGrad", .domain = "mlserve", .since = 1, .min_in = 4, .max_in = 6, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .types = { ML_MASK_F, ML_MASK_F, ML_BIT(ML_INT32) | ML_BIT(ML_INT64) },
  .formula = "dx = dy put back among zeros", .infer = infer, .run = run,
};
