/* mlserve.BinaryCrossEntropy: -mean (t log p + (1 - t) log(1 - p)) of probabilities p, clipped to [1e-7, 1 - 1e-7] (Keras).
 * pred (N,…), target (shape of pred), sample_weight (N) optional -> rank 0. Gradient by mlserve.PointwiseLossGrad. */
#include "ops/loss.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__loss_run(ctx, ML_LOSS_BINARY_CROSS_ENTROPY, err); }

static void gradient(ml_grad *g) { ml__loss_gradient(g, "mlserve.PointwiseLossGrad"); }

const ml_op_def ml_op_binary_cross_entropy = {
  .name = "BinaryCrossEntropy", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .types = { ML_MASK_F }, .formula = "loss = -mean t log p + (1-t) log(1-p)", .infer = ml__loss_infer,
  .run = run, .gradient = gradient,
};
