/* mlserve.SquaredError: the mean squared error, sum_i w (pred_i - target_i)^2 / n (Keras MeanSquaredError).
 * pred (N,…), target (shape of pred), sample_weight (N) optional -> rank 0. Gradient by mlserve.PointwiseLossGrad. */
#include "ops/loss.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__loss_run(ctx, ML_LOSS_SQUARED, err); }

static void gradient(ml_grad *g) { ml__loss_gradient(g, "mlserve.PointwiseLossGrad"); }

const ml_op_def ml_op_squared_error = {
  .name = "SquaredError", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .types = { ML_MASK_F }, .formula = "loss = mean (pred - target)^2", .infer = ml__loss_infer,
  .run = run, .gradient = gradient,
};
