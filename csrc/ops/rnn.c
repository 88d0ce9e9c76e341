/* RNN 22: H' = f(X W^T + H R^T + b) for every step, f being Tanh unless told otherwise and H' the next H. Shapes:
 * ops/recurrent.h. Elman 1990; ONNX operator specification. Gradient: mlserve.RecurrentGrad. */
#include "ops/recurrent.h"

static const ml_attr_def attrs[] = {
  ML__RECURRENT_ATTRS,
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) { return ml__recurrent_infer(ctx, ML__CELL_RNN, err); }
static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  return ml__recurrent_prepare(ctx, ML__CELL_RNN, state, err);
}
static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  return ml__recurrent_workspace(ctx, ML__CELL_RNN, bytes, err);
}
static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__recurrent_run(ctx, ML__CELL_RNN, err); }
static void gradient(ml_grad *g) { ml__recurrent_gradient(g, "RNN"); }
static double flops(const ml_op_ctx *ctx) { return ml__recurrent_flops(ctx, ML__CELL_RNN); }

const ml_op_def ml_op_rnn = {
  .name = "RNN", .domain = "", .since = 22, .min_in = 3, .max_in = 6, .min_out = 0, .max_out = 2, .attrs = attrs,
  .types = { ML_MASK_F, ML_MASK_F, ML_MASK_F, ML_MASK_F | ML_BIT(ML_INT32) }, .formula = "H' = f(X W' + H R' + b)",
  .infer = infer, .prepare = prepare, .release = ml__recurrent_release, .workspace = workspace, .run = run, .gradient = gradient,
  .flops = flops,
};
