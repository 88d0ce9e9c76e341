/* Transpose 21: y_{i_perm[0] … } = x: dimension k of y is dimension perm[k] of x; perm defaults to the reverse order.
 * x (any shape) -> y. ONNX operator specification. Gradient: the inverse permutation. */
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "perm", ML_ATTR_INTS, false, "default: dimensions in reverse" },
  { 0 },
};

/* A checked permutation of 0 … rank-1 into out. */
static ml_status permutation(const ml_attrs *list, int32_t rank, int64_t *out, ml_error *err) {
  const ml_attr *perm = ml_attr_find(list, "perm");
  bool seen[ML_MAX_RANK] = { false };
  for (int32_t i = 0; i < rank; i++) out[i] = rank - 1 - i;
  if (!perm) return ML_OK;
  if (perm->count != (size_t)rank)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute perm has %zu entries, the input's rank is %d", perm->count, (int)rank);
  for (int32_t i = 0; i < rank; i++) {
    int32_t axis;
    ml_status status = ml_axis_normalise(perm->as.ints[i], rank, &axis, err);
    if (status != ML_OK) return ml_fail_in(err, status, "attribute perm, entry %d", (int)i);
    if (seen[axis]) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute perm names dimension %d twice", (int)axis);
    seen[axis] = true;
    out[i] = axis;
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const ml_attr *perm = ml_attr_find(ctx->attrs, "perm");
  int64_t order[ML_MAX_RANK], dims[ML_MAX_RANK];
  if (perm && perm->count > ML_MAX_RANK)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute perm has %zu entries, at most %d are possible", perm->count, ML_MAX_RANK);
  int32_t rank = x->rank != ML_UNKNOWN ? x->rank : perm ? (int32_t)perm->count : ML_UNKNOWN;
  if (rank != ML_UNKNOWN) ML_TRY(permutation(ctx->attrs, rank, order, err));
  for (int32_t i = 0; i < rank; i++) dims[i] = x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->dims[order[i]];
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  int64_t order[ML_MAX_RANK], own[ML_MAX_RANK], from[ML_MAX_RANK], to[ML_MAX_RANK];
  ML_TRY(permutation(ctx->attrs, x->rank, order, err));
  if (x->count == 0) return ML_OK;
  ml__strides(x->dims, x->rank, own);
  ml__strides(y->dims, y->rank, to);
  for (int32_t i = 0; i < x->rank; i++) from[i] = own[order[i]];
  ml__move(y->dims, y->rank, ml_dtype_size(x->dtype), x->data, from, y->data, to);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  const ml_attr *perm = ml_attr_find(g->attrs, "perm");
  int64_t inverse[ML_MAX_RANK] = { 0 };
  if (!g->needs[0]) return;
  for (size_t i = 0; perm && i < perm->count && i < ML_MAX_RANK; i++) {
    int64_t axis = perm->as.ints[i] < 0 ? perm->as.ints[i] + (int64_t)perm->count : perm->as.ints[i];
    if (axis >= 0 && axis < ML_MAX_RANK) inverse[axis] = (int64_t)i;
  }
  ml_attr list = ml_attr_of_ints("perm", inverse, perm ? perm->count : 0);
  g->din[0] = ml_gn(g, "Transpose", &list, perm ? 1 : 0, 1, &g->dout[0]);
}

const ml_op_def ml_op_transpose = {
  .name = "Transpose", .domain = "", .since = 25, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .formula = "y = x with permuted dimensions", .infer = infer, .run = run, .gradient = gradient,
};
