/* ScatterElements: y = x, then y[i, indices[i, j, k], k] = updates[i, j, k] (for axis 1), or combined with what is there
 * (reduction). data (d…), indices and updates (i…) of the same rank, no larger than data but along the axis -> (d…). Negative
 * indices count from the end; of equal indices the last one counts. Reads Scatter-9 and -11 too, which it replaced.
 * Gradient: none: dx = dy but 0 at the places written, dupdates = dy there; add: dx = dy, dupdates the same.
 * Reference: ONNX ScatterElements-18. */
#include "ops/scatter.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "0 (default): dimension that is indexed" },
  { "reduction", ML_ATTR_STRING, false, "none (default): replace; or add, mul, max, min" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *indices = ctx->in[1], *updates = ctx->in[2];
  ml__scatter reduction;
  char a[128], b[128];
  ML_TRY(ml__scatter_reduction(ctx, &reduction, err));
  if (x->dtype != updates->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "data is %s, updates are %s", ml_dtype_name(x->dtype),
                   ml_dtype_name(updates->dtype));
  ML_TRY(ml__index_check(x, indices, ml_attr_int(ctx->attrs, "axis", 0), err));
  if (ml_view_known(indices) && ml_view_known(updates) &&
      !ml_shape_equal(indices->dims, indices->rank, updates->dims, updates->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "indices have shape %s, updates %s, expected equal shapes",
                   ml_shape_format(indices->dims, indices->rank, a, sizeof a),
                   ml_shape_format(updates->dims, updates->rank, b, sizeof b));
  ml_op_like(ctx->out[0], x);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *indices = ctx->in[1], *updates = ctx->in[2], *y = ctx->out[0];
  ml__index_walk w;
  ml__scatter reduction = ML__SCATTER_NONE;
  ML_TRY(ml__scatter_reduction(ctx, &reduction, err));
  ML_TRY(ml__run_copy(ctx, err));
  if (updates->count == 0) return ML_OK;
  ML_TRY(ml__index_walk_start(&w, x, indices, ml_attr_int(ctx->attrs, "axis", 0), err));
  const size_t size = ml_dtype_size(x->dtype);
  size_t at = 0;
  do {
    for (int64_t j = 0; j < w.length; j++, at++) {
      int64_t row = 0;
      ML_TRY(ml__gather_row(indices, at, w.extent, &row, err));
      size_t to = (size_t)(w.offset + j * w.last_stride + row * w.axis_stride);
      const char *from = (const char *)updates->data + at * size;
      if (reduction == ML__SCATTER_NONE) ml__copy1((char *)y->data + to * size, from, size);
      else ml__scatter_combine(reduction, x->dtype, (char *)y->data + to * size, from, 1);
    }
  } while (ml__index_walk_next(&w));
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr axis = ml_attr_of_int("axis", ml_attr_int(g->attrs, "axis", 0));
  ml_value *dy = g->dout[0], *indices = g->in[1];
  bool add = ml_attr_is(g->attrs, "reduction", "none", "add");
  if (!add && !ml_attr_is(g->attrs, "reduction", "none", "none")) {
    ml_g_fail(g, "only for reduction none or add");
    return;
  }
  if (g->needs[0])
    g->din[0] = add ? dy : ml_gn(g, "ScatterElements", &axis, 1, 3, (ml_value *const[]){ dy, indices, ml__g_zeros_like(g,
        g->in[2]) });
  if (g->needs[2]) g->din[2] = ml_gn(g, "GatherElements", &axis, 1, 2, (ml_value *const[]){ dy, indices });
}

const ml_op_def ml_op_scatter_elements = {
  .name = "ScatterElements", .domain = "", .since = 18, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE, .attrs = attrs, .types = { ML_MASK_ANY, ML_BIT(ML_INT32) | ML_BIT(ML_INT64), ML_MASK_ANY },
  .formula = "y = x with y[i, indices[i, j]] = updates[i, j]", .infer = infer, .run = run, .gradient = gradient,
};
