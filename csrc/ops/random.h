/* What the random operators share.
 * Lives here: their stream of Philox words, shapes and types, filling with uniform or normal numbers. May include: base,
 * tensor. Ownership: nothing is kept. A number is a function of (seed, node, run step, place): the same for any number of
 * threads. */
#ifndef ML_OPS_RANDOM_H
#define ML_OPS_RANDOM_H
#include "base/rng.h"
#include "ops/movement.h"

#define ML__MASK_RANDOM (ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16))

/* The attribute seed, when given, replaces the run's; the step moves the stream on either way, so that runs differ. */
typedef struct ml__stream {
  uint64_t seed, stream;
} ml__stream;
ml__stream ml__stream_of(const ml_op_ctx *ctx);
/* Uniform in [0, 1) with 53 random bits: number i of the stream. */
double ml__uniform53(ml__stream s, uint64_t i);

/* The attribute dtype, or fallback; fails unless it is in mask. */
ml_status ml__random_dtype(const ml_op_ctx *ctx, ml_dtype fallback, uint32_t mask, ml_dtype *out, ml_error *err);
/* Output 0 of the attributes shape and dtype (RandomNormal, RandomUniform). */
ml_status ml__random_infer(ml_op_ctx *ctx, ml_error *err);
/* Output 0 in the shape of input 0, of its type or of the attribute dtype. */
ml_status ml__random_infer_like(ml_op_ctx *ctx, ml_error *err);
ml_status ml__random_uniform_run(ml_op_ctx *ctx, ml_error *err); /* attributes low, high */
ml_status ml__random_normal_run(ml_op_ctx *ctx, ml_error *err);  /* attributes mean, scale */

#endif
