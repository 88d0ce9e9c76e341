/* Unsqueeze 21: x with dimensions of extent 1 put in so that they stand at `axes` of the result. ONNX operator specification.
 * data (any shape), axes (int64) -> data in more dimensions. Gradient: dy in the shape of x. */
#include "ops/movement.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *axes = ctx->in[1];
  int64_t list[ML_MAX_RANK], dims[ML_MAX_RANK];
  size_t count;
  bool known, set[ML_MAX_RANK];
  ML_TRY(ml__ints(axes, list, ML_MAX_RANK, &count, &known, "axes", err));
  for (int32_t i = 0; i < ML_MAX_RANK; i++) dims[i] = ML_UNKNOWN;
  bool length = known || (axes->rank == 1 && axes->dims[0] >= 0);
  size_t added = known ? count : length ? (size_t)axes->dims[0] : 0;
  if (x->rank == ML_UNKNOWN || !length) {
    ml_op_set(ctx->out[0], x->dtype, dims, ML_UNKNOWN);
    return ML_OK;
  }
  if (added > (size_t)(ML_MAX_RANK - x->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "axes: %zu more dimensions on rank %d are above rank %d", added, (int)x->rank,
                   ML_MAX_RANK);
  int32_t rank = x->rank + (int32_t)added, from = 0;
  if (known) {
    ML_TRY(ml__axes(list, count, rank, set, err));
    for (int32_t i = 0; i < rank; i++) dims[i] = set[i] ? 1 : x->dims[from++];
  }
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml__g_reshape_like(g, g->dout[0], g->in[0]);
}

const ml_op_def ml_op_unsqueeze = {
  .name = "Unsqueeze", .domain = "", .since = 25, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .flags = ML_OP_VIEW,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y = x with dimensions of extent 1 put in", .infer = infer,
  .run = ml__run_copy, .gradient = gradient,
};
