/* GatherElements: y[i, j, k] = x[i, indices[i, j, k], k] (for axis 1); negative indices count from the end. data (d…), indices
 * (i…) of the same rank, no larger than data but along the axis -> (i…). Gradient: dy added to zeros at the same places
 * (ScatterElements). Reference: ONNX GatherElements-13. */
#include "ops/scatter.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "0 (default): dimension that is indexed" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__index_check(ctx->in[0], ctx->in[1], ml_attr_int(ctx->attrs, "axis", 0), err));
  ml_op_set(ctx->out[0], ctx->in[0]->dtype, ctx->in[1]->dims, ctx->in[1]->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *indices = ctx->in[1];
  const ml_view *y = ctx->out[0];
  ml__index_walk w;
  if (y->count == 0) return ML_OK;
  ML_TRY(ml__index_walk_start(&w, x, indices, ml_attr_int(ctx->attrs, "axis", 0), err));
  const size_t size = ml_dtype_size(x->dtype);
  size_t at = 0;
  do {
    for (int64_t j = 0; j < w.length; j++, at++) {
      int64_t row = 0;
      ML_TRY(ml__gather_row(indices, at, w.extent, &row, err));
      size_t from = (size_t)(w.offset + j * w.last_stride + row * w.axis_stride);
      ml__copy1((char *)y->data + at * size, (const char *)x->data + from * size, size);
    }
  } while (ml__index_walk_next(&w));
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr a[] = { ml_attr_of_int("axis", ml_attr_int(g->attrs, "axis", 0)), ml_attr_of_str("reduction", "add") };
  ml_value *in[3] = { ml__g_zeros_like(g, g->in[0]), g->in[1], g->dout[0] };
  if (g->needs[0]) g->din[0] = ml_gn(g, "ScatterElements", a, 2, 3, in);
}

const ml_op_def ml_op_gather_elements = {
  .name = "GatherElements", .domain = "", .since = 13, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT32) | ML_BIT(ML_INT64) }, .formula = "y[i, j] = x[i, indices[i, j]]", .infer = infer,
  .run = run, .gradient = gradient,
};
