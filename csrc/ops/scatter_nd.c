/* ScatterND: y = x, then the slice of y that each tuple along the last dimension of indices names becomes (or is combined with,
 * reduction) the slice of updates with the tuple's number. data (d…), indices (t…, k) int64, updates (t…, d[k]…) -> (d…).
 * Negative indices count from the end; of equal tuples the last one counts.
 * Gradient: none: dx = dy but 0 at the places written, dupdates = dy there; add: dx = dy, dupdates the same.
 * Reference: ONNX ScatterND-18. */
#include "ops/scatter.h"

static const ml_attr_def attrs[] = {
  { "reduction", ML_ATTR_STRING, false, "none (default): replace; or add, mul, max, min" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *indices = ctx->in[1], *updates = ctx->in[2];
  ml__scatter reduction;
  ML_TRY(ml__scatter_reduction(ctx, &reduction, err));
  ml_op_like(ctx->out[0], x);
  if (x->dtype != updates->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "data is %s, updates are %s", ml_dtype_name(x->dtype),
                   ml_dtype_name(updates->dtype));
  if (x->rank == ML_UNKNOWN || indices->rank == ML_UNKNOWN) return ML_OK;
  ml__gather_nd plan;
  ML_TRY(ml__gather_nd_plan(ctx, x, indices, &plan, err));
  if (plan.k == ML_UNKNOWN || updates->rank == ML_UNKNOWN) return ML_OK;
  int64_t dims[2 * ML_MAX_RANK];
  int32_t rank = 0;
  char a[128], b[128];
  for (int32_t i = 0; i + 1 < indices->rank; i++) dims[rank++] = indices->dims[i];
  for (int32_t i = (int32_t)plan.k; i < x->rank; i++) dims[rank++] = x->dims[i];
  bool fits = rank == updates->rank;
  for (int32_t i = 0; i < rank && fits; i++) fits = dims[i] < 0 || updates->dims[i] < 0 || dims[i] == updates->dims[i];
  if (fits) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "updates have shape %s, expected %s",
                 ml_shape_format(updates->dims, updates->rank, a, sizeof a), ml_shape_format(dims, rank, b, sizeof b));
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *indices = ctx->in[1], *updates = ctx->in[2], *y = ctx->out[0];
  ml__gather_nd plan;
  int64_t stride[ML_MAX_RANK];
  ml__scatter reduction = ML__SCATTER_NONE;
  ML_TRY(ml__scatter_reduction(ctx, &reduction, err));
  ML_TRY(ml__gather_nd_plan(ctx, y, indices, &plan, err));
  ML_TRY(ml__run_copy(ctx, err));
  if (updates->count == 0) return ML_OK;
  ml__strides(y->dims, y->rank, stride);
  const size_t size = ml_dtype_size(y->dtype);
  for (size_t i = 0; i < plan.tuples; i++) {
    int64_t offset = 0;
    ML_TRY(ml__tuple_offset(indices, i, plan.k, y, 0, stride, &offset, err));
    ml__scatter_combine(reduction, y->dtype, (char *)y->data + (size_t)offset * size,
                        (const char *)updates->data + i * plan.inner * size, plan.inner);
  }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *dy = g->dout[0], *indices = g->in[1];
  bool add = ml_attr_is(g->attrs, "reduction", "none", "add");
  if (!add && !ml_attr_is(g->attrs, "reduction", "none", "none")) {
    ml_g_fail(g, "only for reduction none or add");
    return;
  }
  if (g->needs[0]) g->din[0] = add ? dy : ml_g3(g, "ScatterND", dy, indices, ml__g_zeros_like(g, g->in[2]));
  if (g->needs[2]) g->din[2] = ml_g2(g, "GatherND", dy, indices);
}

const ml_op_def ml_op_scatter_nd = {
  .name = "ScatterND", .domain = "", .since = 18, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE, .attrs = attrs, .types = { ML_MASK_ANY, ML_BIT(ML_INT64), ML_MASK_ANY },
  .formula = "y = x with slices by index tuples replaced", .infer = infer, .run = run, .gradient = gradient,
};
