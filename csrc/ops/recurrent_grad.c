/* mlserve.RecurrentGrad: the gradient of LSTM, GRU and RNN (attribute operator) by back-propagation through time. Inputs: the
 * forward operator's eight (X, W, R, B, sequence_lens, initial_h, initial_c, P, left out where it has none), then dY, dY_h, dY_c,
 * each of which may be left out; outputs dX, dW, dR, dB, dinitial_h, dinitial_c, dP, of the shapes of what they are the gradients
 * of. The forward pass is calculated again: its gates need not live from one pass to the other. Formulas: ops/recurrent.inc.h. */
#include "ops/recurrent.h"

static const ml_attr_def attrs[] = {
  ML__RECURRENT_ATTRS,
  { "input_forget", ML_ATTR_INT, false, "LSTM's" },
  { "linear_before_reset", ML_ATTR_INT, false, "GRU's" },
  { "operator", ML_ATTR_STRING, true, "LSTM, GRU or RNN" },
  { 0 },
};

static ml__cell cell_of(const ml_op_ctx *ctx) {
  return ml_attr_is(ctx->attrs, "operator", "", "LSTM") ? ML__CELL_LSTM
         : ml_attr_is(ctx->attrs, "operator", "", "GRU") ? ML__CELL_GRU : ML__CELL_RNN;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  static const int32_t of[7] = { ML__REC_X, ML__REC_W, ML__REC_R, ML__REC_B, ML__REC_H0, ML__REC_C0, ML__REC_P };
  ml__recurrent m;
  ML_TRY(ml__recurrent_of(ctx, cell_of(ctx), &m, NULL, err));
  for (int32_t i = 0; i < 7; i++) {
    const ml_view *in = ml__in(ctx, of[i]);
    ml_view *out = ml__out(ctx, i);
    if (!out) continue;
    if (in) ml_op_like(out, in);
    else ml_op_set(out, m.dtype, (int64_t[]) { 0 }, 1); /* nobody asks for it */
  }
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  return ml__recurrent_grad_workspace(ctx, cell_of(ctx), bytes, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__recurrent_grad_run(ctx, cell_of(ctx), err); }

const ml_op_def ml_op_recurrent_grad = {
  .name = "RecurrentGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = ML__REC_INPUTS + 3, .min_out = 0, .max_out = 7,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F, ML_MASK_F, ML_MASK_F, ML_MASK_F | ML_BIT(ML_INT32) },
  .formula = "gradients of LSTM, GRU and RNN", .infer = infer, .workspace = workspace, .run = run,
};
