/* Expand 13: x broadcast with a tensor of the given shape (both ways: a 1 in shape keeps x's dimension). ONNX operator
 * specification. input (any shape), shape (r) int64 -> broadcast shape. Gradient: dy summed to the shape of x. */
#include "ops/movement.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *shape = ctx->in[1];
  int64_t want[ML_MAX_RANK], dims[ML_MAX_RANK];
  size_t count;
  bool known;
  int32_t rank;
  ML_TRY(ml__ints(shape, want, ML_MAX_RANK, &count, &known, "shape", err));
  if (!known || x->rank == ML_UNKNOWN) {
    int64_t length = known ? (int64_t)count : shape->rank == 1 ? shape->dims[0] : ML_UNKNOWN;
    for (int32_t i = 0; i < ML_MAX_RANK; i++) dims[i] = ML_UNKNOWN;
    bool ranked = x->rank != ML_UNKNOWN && length >= 0 && length <= ML_MAX_RANK;
    ml_op_set(ctx->out[0], x->dtype, dims, !ranked ? ML_UNKNOWN : length > x->rank ? (int32_t)length : x->rank);
    return ML_OK;
  }
  for (size_t i = 0; i < count; i++)
    if (want[i] < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "shape: element %zu is %lld, expected 0 or more", i, (long long)want[i]);
  ML_TRY(ml_shape_broadcast(x->dims, x->rank, want, (int32_t)count, dims, &rank, err));
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  int64_t from[ML_MAX_RANK], to[ML_MAX_RANK];
  (void)err;
  if (y->count == 0) return ML_OK;
  ml__broadcast_strides(x->dims, x->rank, y->rank, from);
  ml__strides(y->dims, y->rank, to);
  ml__move(y->dims, y->rank, ml_dtype_size(x->dtype), x->data, from, y->data, to);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml_g_reduce_to(g, g->dout[0], g->in[0]);
}

const ml_op_def ml_op_expand = {
  .name = "Expand", .domain = "", .since = 13, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y = x broadcast to a shape", .infer = infer, .run = run,
  .gradient = gradient,
};
