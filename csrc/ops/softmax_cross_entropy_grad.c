/* mlserve.SoftmaxCrossEntropyGrad: dx = dloss w_t (softmax(x) - onehot(t)) / n with n = 1, or the sum of w_t for reduction mean.
 * x (N,C,D…), labels (N,D…), dloss (shape of the loss), weights (C) optional -> (N,C,D…); x are scores or log-probabilities
 * (their softmax is the same). Gradient of SoftmaxCrossEntropyLoss; see cross_entropy.h. */
#include "ops/cross_entropy.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__cross_entropy_grad_run(ctx, true, err); }

const ml_op_def ml_op_softmax_cross_entropy_grad = {
  .name = "SoftmaxCrossEntropyGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 4, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .attrs = ml__cross_entropy_attrs,
  .types = { ML_MASK_F, ML_BIT(ML_INT32) | ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "dx = dloss w_t (softmax(x) - onehot(t)) / n", .infer = ml__cross_entropy_grad_infer, .run = run,
};
