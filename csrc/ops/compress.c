/* Compress: the slices along an axis (without the attribute: the elements of the flattened input) whose condition is true.
 * input (A…, n, B…), condition (up to n) bool -> (A…, number of true, B…). Slices beyond the condition's end are dropped; a
 * true one beyond the input's end is an error. Gradient: dx = the slices of dy at their places, zeros elsewhere. Reference:
 * ONNX Compress-28. */
#include "ops/movement.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "dimension of the slices; none: the input is flattened first" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *condition = ctx->in[1];
  const bool flat = ml_attr_find(ctx->attrs, "axis") == NULL;
  int64_t dims[ML_MAX_RANK] = { 0 }, n = ML_UNKNOWN;
  int32_t axis = 0, rank = flat ? 1 : x->rank;
  ML_TRY(ml__op_check_types(ctx, err));
  if (condition->rank != ML_UNKNOWN && condition->rank != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "condition has rank %d, expected 1", (int)condition->rank);
  if (ml_view_known(condition) && (condition->count == 0 || condition->data != NULL)) {
    n = 0;
    for (size_t i = 0; i < condition->count; i++) n += ((const uint8_t *)condition->data)[i] != 0;
  }
  if (!flat && rank != ML_UNKNOWN) {
    ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), rank, &axis, err));
    memcpy(dims, x->dims, (size_t)rank * sizeof dims[0]);
  }
  dims[axis] = n;
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *condition = ctx->in[1], *y = ctx->out[0];
  const bool flat = ml_attr_find(ctx->attrs, "axis") == NULL;
  int32_t axis = 0;
  if (!flat) ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, &axis, err));
  const size_t n = flat ? x->count : (size_t)x->dims[axis], outer = flat ? 1 : ml__extent(x->dims, 0, axis),
               bytes = (flat ? 1 : ml__extent(x->dims, axis + 1, x->rank)) * ml_dtype_size(x->dtype),
               kept = (size_t)y->dims[axis];
  size_t at = 0;
  for (size_t i = 0; i < condition->count; i++) {
    if (((const uint8_t *)condition->data)[i] == 0) continue;
    if (i >= n) return ml_fail(err, ML_OUT_OF_RANGE, "condition: element %zu is true, but there are only %zu slices", i, n);
    if (at == kept) return ml_fail(err, ML_INVALID_ARGUMENT, "condition has more than the planned %zu true elements", kept);
    for (size_t o = 0; o < outer && y->count > 0; o++)
      memcpy((char *)y->data + (o * kept + at) * bytes, (const char *)x->data + (o * n + i) * bytes, bytes);
    at++;
  }
  return at == kept ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "condition has %zu true elements, %zu are planned", at, kept);
}

static void gradient(ml_grad *g) {
  const bool flat = ml_attr_find(g->attrs, "axis") == NULL;
  const int64_t all = -1;
  if (!g->needs[0] || g->dout[0] == NULL) return;
  ml_attr axis = ml_attr_of_int("axis", ml_attr_int(g->attrs, "axis", 0));
  ml_value *x = flat ? ml_g2(g, "Reshape", g->in[0], g->ints(g, &all, 1)) : g->in[0];
  ml_value *rows = ml_g2(g, "Reshape", ml_g1(g, "NonZero", g->in[1]), g->ints(g, &all, 1));
  ml_value *dx = ml_gn(g, "mlserve.GatherGrad", &axis, 1, 3, (ml_value *const[]){ g->dout[0], rows, x });
  g->din[0] = flat ? ml__g_reshape_like(g, dx, g->in[0]) : dx;
}

const ml_op_def ml_op_compress = {
  .name = "Compress", .domain = "", .since = 28, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_ANY, ML_BIT(ML_BOOL) }, .formula = "y = slices of x where condition", .infer = infer, .run = run,
  .gradient = gradient,
};
