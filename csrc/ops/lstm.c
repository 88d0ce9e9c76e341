/* LSTM 22: with f, g, h the activations (Sigmoid, Tanh, Tanh)
 *   i = f(X Wi^T + H Ri^T + Pi.C + bi)   o = f(X Wo^T + H Ro^T + Po.C' + bo)   F = f(X Wf^T + H Rf^T + Pf.C + bf)
 *   c = g(X Wc^T + H Rc^T + bc)          C' = F.C + i.c                        H' = o.h(C')
 * for every step, C' and H' being the next C and H. Shapes and the order of gates: ops/recurrent.h. Hochreiter & Schmidhuber
 * 1997; ONNX operator specification. Gradient: mlserve.RecurrentGrad. */
#include "ops/recurrent.h"

static const ml_attr_def attrs[] = {
  ML__RECURRENT_ATTRS,
  { "input_forget", ML_ATTR_INT, false, "0 (default); 1: the forget gate is 1 - i" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) { return ml__recurrent_infer(ctx, ML__CELL_LSTM, err); }
static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  return ml__recurrent_prepare(ctx, ML__CELL_LSTM, state, err);
}
static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  return ml__recurrent_workspace(ctx, ML__CELL_LSTM, bytes, err);
}
static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__recurrent_run(ctx, ML__CELL_LSTM, err); }
static void gradient(ml_grad *g) { ml__recurrent_gradient(g, "LSTM"); }
static double flops(const ml_op_ctx *ctx) { return ml__recurrent_flops(ctx, ML__CELL_LSTM); }

const ml_op_def ml_op_lstm = {
  .name = "LSTM", .domain = "", .since = 22, .min_in = 3, .max_in = 8, .min_out = 0, .max_out = 3, .attrs = attrs,
  .types = { ML_MASK_F, ML_MASK_F, ML_MASK_F, ML_MASK_F | ML_BIT(ML_INT32) },
  .formula = "H' = o h(f C + i g(...)), gates i o f of X and H",
  .infer = infer, .prepare = prepare, .release = ml__recurrent_release, .workspace = workspace, .run = run, .gradient = gradient,
  .flops = flops,
};
