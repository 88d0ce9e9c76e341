/* Gather 13: y[…, i…, …] = x[…, indices[i…], …] along axis; negative indices count from the end. ONNX operator
 * specification. data (A…, n, B…), indices (I…) int32/int64 -> (A…, I…, B…). Gradient: mlserve.GatherGrad adds dy
 * into the rows it came from. */
#include "ops/gather.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "0 (default): dimension that is indexed" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *indices = ctx->in[1];
  int64_t dims[ML_MAX_RANK] = { 0 };
  int32_t axis, rank = 0;
  if (x->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "data has rank 0, expected 1 or more");
  if (x->rank == ML_UNKNOWN || indices->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, dims, ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, &axis, err));
  if (x->rank - 1 + indices->rank > ML_MAX_RANK)
    return ml_fail(err, ML_INVALID_ARGUMENT, "data of rank %d and indices of rank %d make more than %d dimensions", (int)x->rank,
                   (int)indices->rank, ML_MAX_RANK);
  for (int32_t i = 0; i < axis; i++) dims[rank++] = x->dims[i];
  for (int32_t i = 0; i < indices->rank; i++) dims[rank++] = indices->dims[i];
  for (int32_t i = axis + 1; i < x->rank; i++) dims[rank++] = x->dims[i];
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *indices = ctx->in[1];
  ml_view *y = ctx->out[0];
  int32_t axis;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, &axis, err));
  int64_t n = x->dims[axis];
  size_t outer = ml__extent(x->dims, 0, axis), bytes = ml__extent(x->dims, axis + 1, x->rank) * ml_dtype_size(x->dtype);
  for (size_t i = 0; i < indices->count; i++) {
    int64_t row = 0;
    ML_TRY(ml__gather_row(indices, i, n, &row, err));
    if (y->count == 0) continue;
    for (size_t o = 0; o < outer; o++)
      memcpy((char *)y->data + (o * indices->count + i) * bytes, (const char *)x->data + (o * (size_t)n + (size_t)row) * bytes,
             bytes);
  }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr axis = ml_attr_of_int("axis", ml_attr_int(g->attrs, "axis", 0));
  ml_value *in[3] = { g->dout[0], g->in[1], g->in[0] };
  if (g->needs[0]) g->din[0] = ml_gn(g, "mlserve.GatherGrad", &axis, 1, 3, in);
}

const ml_op_def ml_op_gather = {
  .name = "Gather", .domain = "", .since = 13, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT32) | ML_BIT(ML_INT64) }, .formula = "y = rows of x by index", .infer = infer, .run = run,
  .gradient = gradient,
};
