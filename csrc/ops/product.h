/* Matrix products on tensors.
 * Lives here: what Gemm, MatMul and Dense share: one product for every dtype they take, split over threads by shape alone. May
 * include: tensor, kernels, base. Ownership: nothing is kept. */
#ifndef ML_OPS_PRODUCT_H
#define ML_OPS_PRODUCT_H
#include "kernels/kernels.h"
#include "ops/op.h"

/* Floating-point operations one parallel chunk should have at least (some 100 us of one core). */
#define ML__CHUNK_FLOPS 8e6

/* C (M,N) = alpha op(A) op(B) + beta C, row-major, dtype float32, float64 or a 32/64-bit integer (modulo 2^n). beta == 0: C is
 * not read. */
void ml__product(const ml_kernels *kernels, ml_dtype dtype, bool trans_a, bool trans_b, size_t M, size_t N, size_t K,
                 double alpha, const void *A, size_t lda, const void *B, size_t ldb, double beta, void *C, size_t ldc);
/* A parallel loop over `total` rows in equal chunks of about ML__CHUNK_FLOPS (at most 64 chunks); rows_per_chunk depends on the
 * arguments only. */
size_t ml__rows_per_chunk(size_t total, double flops_per_row, size_t multiple);

/* The shape of MatMul's result (mat_mul.c), of element type dtype. */
ml_status ml__mat_mul_shape(const ml_view *A, const ml_view *B, ml_dtype dtype, ml_view *Y, ml_error *err);

#define ML__MASK_PRODUCT (ML_MASK_F | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) | ML_BIT(ML_UINT32) | ML_BIT(ML_UINT64))

#endif
