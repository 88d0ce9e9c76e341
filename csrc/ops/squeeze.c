/* Squeeze 21: x without the dimensions of extent 1 that axes names (all of them when axes is left out). ONNX operator
 * specification. data (any shape), axes (optional int64) -> data in fewer dimensions. Gradient: dy in the shape of x. */
#include "ops/movement.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *axes = ml__in(ctx, 1);
  int64_t list[ML_MAX_RANK], dims[ML_MAX_RANK];
  size_t count;
  bool known, set[ML_MAX_RANK];
  int32_t rank = 0;
  ML_TRY(ml__ints(axes, list, ML_MAX_RANK, &count, &known, "axes", err));
  for (int32_t i = 0; i < ML_MAX_RANK; i++) dims[i] = ML_UNKNOWN;
  if (x->rank == ML_UNKNOWN || !known) {
    bool length = x->rank != ML_UNKNOWN && axes->rank == 1 && axes->dims[0] >= 0 && axes->dims[0] <= x->rank;
    ml_op_set(ctx->out[0], x->dtype, dims, length ? x->rank - (int32_t)axes->dims[0] : ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(ml__axes(list, count, x->rank, set, err));
  for (int32_t i = 0; i < x->rank; i++) {
    if (!axes && x->dims[i] < 0) { /* it may or may not be 1 */
      ml_op_set(ctx->out[0], x->dtype, dims, ML_UNKNOWN);
      return ML_OK;
    }
    bool drop = axes ? set[i] : x->dims[i] == 1;
    if (drop && x->dims[i] != 1 && x->dims[i] >= 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "axes: dimension %d is %lld, only 1 can be squeezed", (int)i,
                     (long long)x->dims[i]);
    if (!drop) dims[rank++] = x->dims[i];
  }
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml__g_reshape_like(g, g->dout[0], g->in[0]);
}

const ml_op_def ml_op_squeeze = {
  .name = "Squeeze", .domain = "", .since = 25, .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1, .flags = ML_OP_VIEW,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y = x without dimensions of extent 1", .infer = infer,
  .run = ml__run_copy, .gradient = gradient,
};
