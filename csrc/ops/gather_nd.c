/* GatherND: every tuple along the last dimension of indices names one slice of x; with batch_dims b the first b dimensions of
 * both go along. data (B…, d…), indices (B…, t…, k) int64 -> (B…, t…, d[k]…). Negative indices count from the end. Gradient:
 * mlserve.GatherNDGrad. Reference: ONNX GatherND-13. */
#include "ops/scatter.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "batch_dims", ML_ATTR_INT, false, "0 (default): leading dimensions shared by data and indices" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *indices = ctx->in[1];
  int64_t dims[2 * ML_MAX_RANK];
  int32_t rank = 0;
  ml__gather_nd plan = { .k = ML_UNKNOWN };
  if (x->rank != ML_UNKNOWN && indices->rank != ML_UNKNOWN) ML_TRY(ml__gather_nd_plan(ctx, x, indices, &plan, err));
  if (plan.k == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, dims, ML_UNKNOWN);
    return ML_OK;
  }
  for (int32_t i = 0; i + 1 < indices->rank; i++) dims[rank++] = indices->dims[i];
  for (int32_t i = plan.batch + (int32_t)plan.k; i < x->rank; i++) dims[rank++] = x->dims[i];
  if (rank > ML_MAX_RANK)
    return ml_fail(err, ML_INVALID_ARGUMENT, "data of rank %d and indices of rank %d make more than %d dimensions", (int)x->rank,
                   (int)indices->rank, ML_MAX_RANK);
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *indices = ctx->in[1], *y = ctx->out[0];
  ml__gather_nd plan;
  int64_t stride[ML_MAX_RANK];
  ML_TRY(ml__gather_nd_plan(ctx, x, indices, &plan, err));
  if (y->count == 0) return ML_OK;
  ml__strides(x->dims, x->rank, stride);
  const size_t bytes = plan.inner * ml_dtype_size(x->dtype), size = ml_dtype_size(x->dtype);
  for (size_t i = 0; i < plan.batches * plan.tuples; i++) {
    int64_t offset = 0;
    ML_TRY(ml__tuple_offset(indices, i, plan.k, x, plan.batch, stride, &offset, err));
    offset += (int64_t)(i / plan.tuples) * plan.batch_stride;
    memcpy((char *)y->data + i * bytes, (const char *)x->data + (size_t)offset * size, bytes);
  }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr batch = ml_attr_of_int("batch_dims", ml_attr_int(g->attrs, "batch_dims", 0));
  ml_value *in[3] = { g->dout[0], g->in[1], g->in[0] };
  if (g->needs[0]) g->din[0] = ml_gn(g, "mlserve.GatherNDGrad", &batch, 1, 3, in);
}

const ml_op_def ml_op_gather_nd = {
  .name = "GatherND", .domain = "", .since = 13, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y = slices of x by index tuples", .infer = infer, .run = run,
  .gradient = gradient,
};
