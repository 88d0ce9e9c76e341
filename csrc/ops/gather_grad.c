/* mlserve.GatherGrad: dx = zeros in the shape of x, plus every row of dy at the row of x it was gathered from (repeated indices
 * add up, in the order of the indices). dy (A…, I…, B…), indices (I…), x (A…, n, B…; only its shape counts) -> dx
 * (A…, n, B…). Gradient of Gather. */
#include <string.h>
#include "kernels/kernels.h"
#include "ops/gather.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "0 (default): Gather's" },
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
  const ml_view *dy = ctx->in[0], *indices = ctx->in[1];
  ml_view *dx = ctx->out[0];
  int32_t axis;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), dx->rank, &axis, err));
  int64_t n = dx->dims[axis];
  size_t outer = ml__extent(dx->dims, 0, axis), inner = ml__extent(dx->dims, axis + 1, dx->rank);
  if (dy->count != outer * indices->count * inner)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dy has %zu elements, expected %zu", dy->count, outer * indices->count * inner);
  if (dx->count > 0) memset(dx->data, 0, dx->count * ml_dtype_size(dx->dtype));
  for (size_t i = 0; i < indices->count; i++) {
    int64_t row = 0;
    ML_TRY(ml__gather_row(indices, i, n, &row, err));
    if (dx->count == 0) continue;
    for (size_t o = 0; o < outer; o++) {
      size_t from = (o * indices->count + i) * inner, to = (o * (size_t)n + (size_t)row) * inner;
      if (dx->dtype == ML_FLOAT32) ctx->run->kernels->axpy_f32(1, (const float *)dy->data + from, (float *)dx->data + to, inner);
      else
        for (size_t k = 0; k < inner; k++) ((double *)dx->data)[to + k] += ((const double *)dy->data)[from + k];
    }
  }
  return ML_OK;
}

const ml_op_def ml_op_gather_grad = {
  .name = "GatherGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F, ML_BIT(ML_INT32) | ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "dx = dy added into rows by index", .infer = infer, .run = run,
};
