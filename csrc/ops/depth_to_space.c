/* DepthToSpace 13: blocks of channels become blocks of pixels. input (N, C b b, H, W) -> output (N, C, H b, W b); see
 * ops/depth_space.h for the order. ONNX operator specification. Gradient: SpaceToDepth. */
#include "ops/depth_space.h"

const ml_attr_def ml__depth_space_attrs[] = {
  { "blocksize", ML_ATTR_INT, true, "b: side of a block of pixels" },
  { "mode", ML_ATTR_STRING, false, "DCR (default): block index before channel; CRD: channel before block index" },
  { 0 },
};

ml_status ml__depth_space_infer(ml_op_ctx *ctx, bool to_space, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  int64_t b = ml_attr_int(ctx->attrs, "blocksize", 0);
  char text[96];
  if (b < 1 || b > INT16_MAX)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'blocksize' is %lld, expected 1 to %d", (long long)b, INT16_MAX);
  if (!ml_attr_is(ctx->attrs, "mode", "DCR", "DCR") && !ml_attr_is(ctx->attrs, "mode", "DCR", "CRD"))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'mode': expected DCR or CRD");
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, (const int64_t[]){ ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN }, 4);
    return ML_OK;
  }
  ml_shape_format(x->dims, x->rank, text, sizeof text);
  if (x->rank != 4) return ml_fail(err, ML_INVALID_ARGUMENT, "input: expected rank 4, got shape %s", text);
  int64_t dims[4] = { x->dims[0], x->dims[1], x->dims[2], x->dims[3] };
  for (int d = 1; d < 4; d++) {
    if (dims[d] < 0) continue;
    bool divided = (d == 1) == to_space;
    int64_t by = d == 1 ? b * b : b;
    if (divided ? dims[d] % by != 0 : dims[d] > INT64_MAX / by)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %s does not divide into blocks of %lld", text, (long long)b);
    dims[d] = divided ? dims[d] / by : dims[d] * by;
  }
  ml_op_set(ctx->out[0], x->dtype, dims, 4);
  return ML_OK;
}

ml_status ml__depth_space_run(ml_op_ctx *ctx, bool to_space, ml_error *err) {
  const ml_view *deep = to_space ? ctx->in[0] : ctx->out[0], *wide = to_space ? ctx->out[0] : ctx->in[0];
  const int64_t b = ml_attr_int(ctx->attrs, "blocksize", 1), C = wide->dims[1], H = deep->dims[2], W = deep->dims[3];
  const bool crd = ml_attr_is(ctx->attrs, "mode", "DCR", "CRD");
  (void)err;
  if (wide->count == 0) return ML_OK;
  /* index (n, c, h, i, w, j): pixel (h b + i, w b + j) of channel c */
  const int64_t dims[6] = { wide->dims[0], C, H, b, W, b };
  const int64_t plane = H * W, channel = crd ? b * b * plane : plane, step = crd ? plane : C * plane;
  const int64_t in_deep[6] = { C * b * b * plane, channel, W, b * step, 1, step };
  const int64_t in_wide[6] = { C * b * b * plane, b * b * plane, b * W * b, W * b, b, 1 };
  ml__move(dims, 6, ml_dtype_size(wide->dtype), ctx->in[0]->data, to_space ? in_deep : in_wide, ctx->out[0]->data,
           to_space ? in_wide : in_deep);
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) { return ml__depth_space_infer(ctx, true, err); }
static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__depth_space_run(ctx, true, err); }

static void gradient(ml_grad *g) {
  if (g->needs[0] && g->dout[0])
    g->din[0] = ml_gn(g, "SpaceToDepth", g->attrs->items, g->attrs->count, 1, (ml_value *const[]){ g->dout[0] });
}

const ml_op_def ml_op_depth_to_space = {
  .name = "DepthToSpace", .domain = "", .since = 28, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = ml__depth_space_attrs,
  .types = { ML_MASK_ANY }, .formula = "y = channels rearranged to pixels", .infer = infer, .run = run, .gradient = gradient,
};
