/* Losses on class labels.
 * Lives here: what SoftmaxCrossEntropyLoss, NegativeLogLikelihoodLoss and their gradients share. May include: tensor, kernels,
 * base. Ownership: nothing is kept. scores (N,C,D…), labels (N,D…) int32/int64, weights (C) optional. Element (n,d) with
 * label t costs l = -w_t log p_t; labels equal to ignore_index cost nothing. reduction none: l per element; sum: sum l; mean: sum
 * l / sum w_t. */
#ifndef ML_OPS_CROSS_ENTROPY_H
#define ML_OPS_CROSS_ENTROPY_H
#include "ops/movement.h"

extern const ml_attr_def ml__cross_entropy_attrs[];
/* log_prob (second output) only for SoftmaxCrossEntropyLoss */
ml_status ml__cross_entropy_infer(ml_op_ctx *ctx, ml_error *err);
ml_status ml__cross_entropy_workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err);
/* softmax: input 0 holds scores; otherwise log-probabilities */
ml_status ml__cross_entropy_run(ml_op_ctx *ctx, bool softmax, ml_error *err);
/* (scores, labels, dloss[, weights]) -> dscores */
ml_status ml__cross_entropy_grad_infer(ml_op_ctx *ctx, ml_error *err);
ml_status ml__cross_entropy_grad_run(ml_op_ctx *ctx, bool softmax, ml_error *err);
/* The gradient node `op` for scores with the forward node's attributes; NULL when no gradient of the loss flows. */
ml_value *ml__cross_entropy_gradient(ml_grad *g, const char *op);

#endif
