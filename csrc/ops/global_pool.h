/* What the global pools share.
 * Lives here: shape inference and a parallel loop over planes, and the templates of run(). May include: ops/window.h, kernels,
 * base. Ownership: nothing is kept. X (N,C,D1…) -> Y (N,C,1…); a plane of X is one value of Y. */
#ifndef ML_OPS_GLOBAL_POOL_H
#define ML_OPS_GLOBAL_POOL_H
#include "kernels/kernels.h"
#include "ops/window.h"

ml_status ml__global_pool_infer(ml_op_ctx *ctx, ml_error *err);
/* value(ctx, x, n, index): computes Y[index] from the n elements of its plane. Fails when a plane has no elements. */
ml_status ml__global_pool_run(ml_op_ctx *ctx, void (*value)(const ml_op_ctx *ctx, size_t n, size_t index), ml_error *err);
double ml__global_pool_flops(const ml_op_ctx *ctx);

#endif
