/* mlserve.PointwiseLossGrad: dpred = dloss w l'(pred, target) / n, the gradient of SquaredError, AbsoluteError, HuberLoss and
 * BinaryCrossEntropy. pred (N,…), target (same), dloss (rank 0), sample_weight (N) optional -> (N,…). Clipped probabilities
 * get no gradient. */
#include <string.h>
#include "ops/loss.h"

static const ml_attr_def attrs[] = {
  { "loss", ML_ATTR_STRING, true, "name of the loss operator" },
  { "delta", ML_ATTR_FLOAT, false, "1 (default): HuberLoss's" },
  { 0 },
};

static ml_status kind_of(const ml_attrs *list, ml_pointwise *out, ml_error *err) {
  static const struct {
    const char *name;
    ml_pointwise loss;
  } names[] = {
    { "SquaredError", ML_LOSS_SQUARED },
    { "AbsoluteError", ML_LOSS_ABSOLUTE },
    { "HuberLoss", ML_LOSS_HUBER },
    { "BinaryCrossEntropy", ML_LOSS_BINARY_CROSS_ENTROPY },
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (ml_attr_is(list, "loss", "", names[i].name)) {
      *out = names[i].loss;
      return ML_OK;
    }
  return ml_fail(err, ML_INVALID_ARGUMENT,
                 "attribute loss: expected SquaredError, AbsoluteError, HuberLoss or BinaryCrossEntropy");
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ml_pointwise loss = ML_LOSS_SQUARED;
  ML_TRY(kind_of(ctx->attrs, &loss, err));
  return ml__loss_grad_infer(ctx, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_pointwise loss = ML_LOSS_SQUARED;
  ML_TRY(kind_of(ctx->attrs, &loss, err));
  return ml__loss_grad_run(ctx, loss, err);
}

const ml_op_def ml_op_pointwise_loss_grad = {
  .name = "PointwiseLossGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 4, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F }, .formula = "dpred = dloss w l'(pred, target) / n",
  .infer = infer, .run = run,
};
