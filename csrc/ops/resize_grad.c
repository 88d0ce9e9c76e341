/* mlserve.ResizeGrad: the transpose of Resize, which is linear in X: every output gives its gradient back to the inputs it was
 * made of, with the same weights. dY, X (only its shape counts), roi (optional), scales (optional), sizes (optional) -> dX (shape
 * of X). */
#include <string.h>
#include "ops/resize.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  if (ctx->in[0]->dtype != ctx->in[1]->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dY is %s, X is %s", ml_dtype_name(ctx->in[0]->dtype),
                   ml_dtype_name(ctx->in[1]->dtype));
  ml_op_like(ctx->out[0], ctx->in[1]);
  return ML_OK;
}

static ml_status read(const ml_op_ctx *ctx, ml__resize *r, ml_error *err) {
  bool known;
  ML_TRY(ml__resize_read(ctx, ctx->in[1], 2, r, &known, err));
  if (!known || !ml_shape_equal(r->out, r->rank, ctx->in[0]->dims, ctx->in[0]->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "dY does not have the shape of the resized X");
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__resize r;
  size_t elements, n;
  int32_t passes;
  *bytes = 0;
  if (ctx->in[0]->count == 0) return ML_OK;
  ML_TRY(read(ctx, &r, err));
  ML_TRY(ml__resize_table_bytes(&r, bytes, err));
  ML_TRY(ml__resize_between(&r, true, &elements, &passes, err));
  return ml_mul_size(elements, 2 * sizeof(double), &n) && ml_add_size(*bytes, n, bytes)
             ? ML_OK
             : ml_fail(err, ML_RESOURCE_EXHAUSTED, "X is too large to be resized");
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *dy = ctx->in[0];
  ml_view *dx = ctx->out[0];
  ml__resize r;
  size_t tables, elements;
  int32_t passes;
  if (dx->count == 0) return ML_OK;
  if (dy->count == 0) {
    memset(dx->data, 0, dx->count * ml_dtype_size(dx->dtype));
    return ML_OK;
  }
  ML_TRY(read(ctx, &r, err));
  ML_TRY(ml__resize_table_bytes(&r, &tables, err));
  ML_TRY(ml__resize_between(&r, true, &elements, &passes, err));
  ml__resize_tables(&r, ctx->workspace);
  ml__resize_all(&r, true, dy->dtype, dy->data, dx->data, (char *)ctx->workspace + tables, elements);
  return ML_OK;
}

const ml_op_def ml_op_resize_grad = {
  .name = "ResizeGrad", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 5, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING,
  .attrs = ml__resize_attrs, .types = { ML_MASK_F, ML_MASK_F, ML_MASK_F | ML_BIT(ML_FLOAT16), ML_MASK_F | ML_BIT(ML_INT64) },
  .formula = "dX = transposed resampling of dY", .infer = infer, .workspace = workspace, .run = run,
};
