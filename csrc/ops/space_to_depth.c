/* SpaceToDepth 28: blocks of pixels become blocks of channels, the inverse of DepthToSpace. input (N, C, H b, W b) -> output
 * (N, C b b, H, W); see ops/depth_space.h for the order. ONNX operator specification (mode CRD is new in version 28).
 * Gradient: DepthToSpace. */
#include "ops/depth_space.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) { return ml__depth_space_infer(ctx, false, err); }
static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__depth_space_run(ctx, false, err); }

static void gradient(ml_grad *g) {
  if (g->needs[0] && g->dout[0])
    g->din[0] = ml_gn(g, "DepthToSpace", g->attrs->items, g->attrs->count, 1, (ml_value *const[]){ g->dout[0] });
}

const ml_op_def ml_op_space_to_depth = {
  .name = "SpaceToDepth", .domain = "", .since = 28, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = ml__depth_space_attrs,
  .types = { ML_MASK_ANY }, .formula = "y = pixels rearranged to channels", .infer = infer, .run = run, .gradient = gradient,
};
