/* mlserve.HuberLoss: with e = pred - target the mean of e^2/2 where |e| <= delta and of delta (|e| - delta/2) elsewhere
 * (Huber 1964; Keras Huber).
 * pred (N,…), target (shape of pred), sample_weight (N) optional -> rank 0. Gradient by mlserve.PointwiseLossGrad. */
#include "ops/loss.h"

static const ml_attr_def attrs[] = {
  { "delta", ML_ATTR_FLOAT, false, "1 (default): where the parabola becomes a line, > 0" },
  { 0 },
};

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__loss_run(ctx, ML_LOSS_HUBER, err); }

static void gradient(ml_grad *g) { ml__loss_gradient(g, "mlserve.PointwiseLossGrad"); }

const ml_op_def ml_op_huber_loss = {
  .name = "HuberLoss", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F }, .formula = "loss = mean e^2/2 or delta (|e| - delta/2)",
  .infer = ml__loss_infer, .run = run, .gradient = gradient,
};
