/* GRU 22: with f, g the activations (Sigmoid, Tanh)
 *   z = f(X Wz^T + H Rz^T + bz)   r = f(X Wr^T + H Rr^T + br)
 *   n = g(X Wh^T + (r.H) Rh^T + bh), or g(X Wh^T + r.(H Rh^T + Rbh) + Wbh) with linear_before_reset
 *   H' = (1 - z).n + z.H
 * for every step, H' being the next H. Shapes and the order of gates: ops/recurrent.h. Cho et al. 2014; ONNX operator
 * specification. Gradient: mlserve.RecurrentGrad. */
#include "ops/recurrent.h"

static const ml_attr_def attrs[] = {
  ML__RECURRENT_ATTRS,
  { "linear_before_reset", ML_ATTR_INT, false, "0 (default); 1: the reset gate comes after the product" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) { return ml__recurrent_infer(ctx, ML__CELL_GRU, err); }
static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  return ml__recurrent_prepare(ctx, ML__CELL_GRU, state, err);
}
static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  return ml__recurrent_workspace(ctx, ML__CELL_GRU, bytes, err);
}
static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__recurrent_run(ctx, ML__CELL_GRU, err); }
static void gradient(ml_grad *g) { ml__recurrent_gradient(g, "GRU"); }
static double flops(const ml_op_ctx *ctx) { return ml__recurrent_flops(ctx, ML__CELL_GRU); }

const ml_op_def ml_op_gru = {
  .name = "GRU", .domain = "", .since = 22, .min_in = 3, .max_in = 6, .min_out = 0, .max_out = 2, .attrs = attrs,
  .types = { ML_MASK_F, ML_MASK_F, ML_MASK_F, ML_MASK_F | ML_BIT(ML_INT32) },
  .formula = "H' = (1 - z) g(...) + z H, gates z r of X and H",
  .infer = infer, .prepare = prepare, .release = ml__recurrent_release, .workspace = workspace, .run = run, .gradient = gradient,
  .flops = flops,
};
