/* mlserve.SigmoidCrossEntropyGrad: dz = dloss w (sigmoid(z) - t) / n, the gradient of mlserve.SigmoidCrossEntropy.
 * logits (N,…), target (same), dloss (rank 0), sample_weight (N) optional -> (N,…). */
#include "ops/loss.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__loss_grad_run(ctx, ML_LOSS_SIGMOID_CROSS_ENTROPY, err); }

const ml_op_def ml_op_sigmoid_cross_entropy_grad = {
  .name = "SigmoidCrossEntropyGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 4, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .types = { ML_MASK_F }, .formula = "dz = dloss w (sigmoid(z) - t) / n", .infer = ml__loss_grad_infer,
  .run = run,
};
