/* mlserve.GatherNDGrad: dx = zeros in the shape of x, plus every slice of dy at the place it was gathered from (repeated tuples
 * add up, in their order). dy (B…, t…, d[k]…), indices (B…, t…, k), x (only its shape counts) -> dx. Gradient of GatherND. */
#include "ops/scatter.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "batch_dims", ML_ATTR_INT, false, "0 (default): GatherND's" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  if (ctx->in[0]->dtype != ctx->in[2]->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dy is %s, x is %s", ml_dtype_name(ctx->in[0]->dtype),
                   ml_dtype_name(ctx->in[2]->dtype));
  ml_op_like(ctx->out[0], ctx->in[2]);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *dy = ctx->in[0], *indices = ctx->in[1], *dx = ctx->out[0];
  ml__gather_nd plan;
  int64_t stride[ML_MAX_RANK];
  ML_TRY(ml__gather_nd_plan(ctx, dx, indices, &plan, err));
  if (dy->count != plan.batches * plan.tuples * plan.inner)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dy has %zu elements, expected %zu", dy->count,
                   plan.batches * plan.tuples * plan.inner);
  if (dx->count == 0) return ML_OK;
  ml__strides(dx->dims, dx->rank, stride);
  const size_t size = ml_dtype_size(dx->dtype);
  memset(dx->data, 0, dx->count * size);
  for (size_t i = 0; i < plan.batches * plan.tuples; i++) {
    int64_t offset = 0;
    ML_TRY(ml__tuple_offset(indices, i, plan.k, dx, plan.batch, stride, &offset, err));
    offset += (int64_t)(i / plan.tuples) * plan.batch_stride;
    ml__scatter_combine(ML__SCATTER_ADD, dx->dtype, (char *)dx->data + (size_t)offset * size,
                        (const char *)dy->data + i * plan.inner * size, plan.inner);
  }
  return ML_OK;
}

const ml_op_def ml_op_gather_nd_grad = {
  .name = "GatherNDGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F, ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "dx = dy added into slices by index tuples", .infer = infer, .run = run,
};
