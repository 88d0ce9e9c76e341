/* Tile 13: x repeated repeats[i] times along dimension i. ONNX operator specification.
 * input (d_0 …), repeats (rank) int64 -> (d_i repeats_i). Gradient: dy as (r_0, d_0, r_1, d_1, …) summed over the r. */
#include "ops/movement.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *repeats = ctx->in[1];
  int64_t times[ML_MAX_RANK], dims[ML_MAX_RANK];
  size_t count;
  bool known;
  ML_TRY(ml__ints(repeats, times, ML_MAX_RANK, &count, &known, "repeats", err));
  int64_t length = known ? (int64_t)count : repeats->rank == 1 ? repeats->dims[0] : ML_UNKNOWN;
  int32_t rank = x->rank != ML_UNKNOWN ? x->rank : length >= 0 && length <= ML_MAX_RANK ? (int32_t)length : ML_UNKNOWN;
  if (rank != ML_UNKNOWN && length >= 0 && length != rank)
    return ml_fail(err, ML_INVALID_ARGUMENT, "repeats has %lld elements, the input's rank is %d", (long long)length, (int)rank);
  for (int32_t i = 0; i < rank; i++) {
    dims[i] = ML_UNKNOWN;
    if (!known) continue;
    if (times[i] < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "repeats: element %d is %lld, expected 0 or more", (int)i, (long long)times[i]);
    if (times[i] == 0) dims[i] = 0;
    else if (x->rank != ML_UNKNOWN && x->dims[i] >= 0 && __builtin_mul_overflow(x->dims[i], times[i], &dims[i]))
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "dimension %d: %lld times %lld overflows", (int)i, (long long)x->dims[i],
                     (long long)times[i]);
  }
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  int64_t own[ML_MAX_RANK], out[ML_MAX_RANK], dims[ML__MOVE_RANK], from[ML__MOVE_RANK], to[ML__MOVE_RANK];
  if (y->count == 0) return ML_OK;
  ml__strides(x->dims, x->rank, own);
  ml__strides(y->dims, y->rank, out);
  for (int32_t i = 0; i < x->rank; i++) {
    if (x->dims[i] == 0 || y->dims[i] % x->dims[i])
      return ml_fail(err, ML_INVALID_ARGUMENT, "repeats do not give the planned shape");
    dims[2 * i] = y->dims[i] / x->dims[i];
    dims[2 * i + 1] = x->dims[i];
    from[2 * i] = 0;
    from[2 * i + 1] = own[i];
    to[2 * i] = out[i] * x->dims[i];
    to[2 * i + 1] = out[i];
  }
  ml__move(dims, 2 * x->rank, ml_dtype_size(x->dtype), x->data, from, y->data, to);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  const ml_view *x = g->shape_of(g, g->in[0]);
  if (!g->needs[0] || !x) return;
  if (x->rank == ML_UNKNOWN || x->rank > ML_MAX_RANK / 2) {
    ml_g_fail(g, "the rank of the input is unknown or above 8");
    return;
  }
  int64_t axes[ML_MAX_RANK], one = 1, all = -1;
  for (int32_t i = 0; i < x->rank; i++) axes[i] = 2 * i;
  ml_value *last = g->ints(g, &one, 1); /* (r_0, d_0, r_1, …): repeats and shape as columns, read by rows */
  ml_value *columns[2] = { ml_g2(g, "Unsqueeze", g->in[1], last), ml_g2(g, "Unsqueeze", ml_g1(g, "Shape", g->in[0]), last) };
  ml_attr along = ml_attr_of_int("axis", 1), keep = ml_attr_of_int("keepdims", 0);
  ml_value *shape = ml_g2(g, "Reshape", ml_gn(g, "Concat", &along, 1, 2, columns), g->ints(g, &all, 1));
  ml_value *in[2] = { ml_g2(g, "Reshape", g->dout[0], shape), g->ints(g, axes, (size_t)x->rank) };
  if (x->rank == 0) g->din[0] = g->dout[0];
  else g->din[0] = ml__g_reshape_like(g, ml_gn(g, "ReduceSum", &keep, 1, 2, in), g->in[0]);
}

const ml_op_def ml_op_tile = {
  .name = "Tile", .domain = "", .since = 13, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y = x repeated along each dimension", .infer = infer, .run = run,
  .gradient = gradient,
};
