/* Losses that compare a prediction with a target of the same shape, element by element.
 * Lives here: their one forward and backward engine. May include: tensor, kernels, base. Ownership: nothing is kept.
 * (pred, target[, sample_weight]) -> rank 0: sum_i w_row(i) l(pred_i, target_i) / n, n the number of elements (Keras's
 * sum_over_batch_size); sample_weight holds one value per row (first dimension). Gradients flow to pred only. */
#ifndef ML_OPS_LOSS_H
#define ML_OPS_LOSS_H
#include "ops/movement.h"

typedef enum ml_pointwise {
  ML_LOSS_SQUARED,
  ML_LOSS_ABSOLUTE,
  ML_LOSS_HUBER,
  ML_LOSS_BINARY_CROSS_ENTROPY,
  ML_LOSS_SIGMOID_CROSS_ENTROPY
} ml_pointwise;

ml_status ml__loss_infer(ml_op_ctx *ctx, ml_error *err);
ml_status ml__loss_run(ml_op_ctx *ctx, ml_pointwise loss, ml_error *err);
/* (pred, target, dloss[, sample_weight]) -> dpred */
ml_status ml__loss_grad_infer(ml_op_ctx *ctx, ml_error *err);
ml_status ml__loss_grad_run(ml_op_ctx *ctx, ml_pointwise loss, ml_error *err);
/* Emits the gradient node `op` ("mlserve.PointwiseLossGrad" gets the attributes loss and delta). */
void ml__loss_gradient(ml_grad *g, const char *op);

#endif
