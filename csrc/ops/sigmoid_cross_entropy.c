/* mlserve.SigmoidCrossEntropy: binary cross-entropy of logits z, the mean of max(z,0) - z t + log1p(exp(-|z|)), which never
 * overflows. pred (N,…), target (shape of pred), sample_weight (N) optional -> rank 0. Gradient by
 * mlserve.SigmoidCrossEntropyGrad. */
#include "ops/loss.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__loss_run(ctx, ML_LOSS_SIGMOID_CROSS_ENTROPY, err); }

static void gradient(ml_grad *g) { ml__loss_gradient(g, "mlserve.SigmoidCrossEntropyGrad"); }

const ml_op_def ml_op_sigmoid_cross_entropy = {
  .name = "SigmoidCrossEntropy", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .types = { ML_MASK_F }, .formula = "loss = mean max(z,0) - z t + log1p(exp(-|z|))",
  .infer = ml__loss_infer, .run = run, .gradient = gradient,
};
