/* NegativeLogLikelihoodLoss 22: l = -w_t x_t of log-probabilities x, reduced. x (N,C,D…), labels (N,D…), weights (C) optional
 * -> loss (rank 0, or the labels' shape with reduction none). ONNX operator specification; cross_entropy.h. Gradient:
 * mlserve.NegativeLogLikelihoodLossGrad. */
#include "ops/cross_entropy.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__cross_entropy_run(ctx, false, err); }

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml__cross_entropy_gradient(g, "mlserve.NegativeLogLikelihoodLossGrad");
}

const ml_op_def ml_op_negative_log_likelihood_loss = {
  .name = "NegativeLogLikelihoodLoss", .domain = "", .since = 22, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
  .attrs = ml__cross_entropy_attrs, .types = { ML_MASK_F, ML_BIT(ML_INT32) | ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "loss = -w_t x_t, reduced", .infer = ml__cross_entropy_infer, .run = run, .gradient = gradient,
};
