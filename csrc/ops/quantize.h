/* Linear quantisation: real = (integer - zero point) * scale.
 * Lives here: which scale belongs to which element, rounding and saturation, products of 8-bit integers. May include: kernels,
 * tensor, base. Ownership: nothing is kept; workspaces are the caller's. */
#ifndef ML_OPS_QUANTIZE_H
#define ML_OPS_QUANTIZE_H
#include "ops/movement.h"

/* integers and floats of 2 to 16 bits: all but float8e8m0, which is a type of scales */
#define ML__MASK_QUANTIZED                                                                                                      \
  (ML_BIT(ML_INT8) | ML_BIT(ML_UINT8) | ML_BIT(ML_INT16) | ML_BIT(ML_UINT16) | ML_BIT(ML_INT4) | ML_BIT(ML_UINT4) |             \
   ML_BIT(ML_INT2) | ML_BIT(ML_UINT2) | ML_BIT(ML_FLOAT8E4M3FN) | ML_BIT(ML_FLOAT8E4M3FNUZ) | ML_BIT(ML_FLOAT8E5M2) |           \
   ML_BIT(ML_FLOAT8E5M2FNUZ) | ML_BIT(ML_FLOAT4E2M1) | ML_BIT(ML_FLOAT6E2M3) | ML_BIT(ML_FLOAT6E3M2))
#define ML__MASK_REAL (ML_BIT(ML_FLOAT32) | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16))
#define ML__MASK_SCALE (ML__MASK_REAL | ML_BIT(ML_FLOAT8E8M0))
#define ML__MASK_8BIT (ML_BIT(ML_INT8) | ML_BIT(ML_UINT8))

/* ---- scales ---- */
typedef struct ml__scales {
  size_t outer, extent, inner; /* the tensor around the axis */
  size_t block, blocks;        /* block 0: one scale for the tensor (blocks 0) or for each place along the axis */
} ml__scales;
/* Does the shape of `scale` (and of `zero`, which may be NULL) fit x; attributes axis and block_size. Shapes that are not
 * known yet fit; *out is then meaningless. */
ml_status ml__scales_init(const ml_op_ctx *ctx, const ml_view *x, const ml_view *scale, const ml_view *zero, ml__scales *out,
                          ml_error *err);
/* Calls row for runs of n elements from `at` on, whose scales are number s, s + t, s + 2 t … (t is 0 or 1). */
void ml__scales_rows(const ml__scales *q, void (*row)(void *context, size_t at, size_t n, size_t s, size_t t), void *context);

/* ---- rounding ---- */
/* Smallest and largest value of an integer type of at most 16 bits. */
void ml__quantized_range(ml_dtype dtype, int32_t *low, int32_t *high);
/* value to the nearest integer, ties to even, plus zero, brought into [low, high]; NaN gives low. Adding and taking off 1.5
 * 2^23 leaves the integer part as the processor rounds it; the clamp before keeps that exact and free of overflow. */
static inline int32_t ml__quantized(float value, int32_t zero, int32_t low, int32_t high) {
  const float magic = 12582912.0f;
  value = value > -131072.0f ? value : -131072.0f;
  value = value < 131072.0f ? value : 131072.0f;
  const int32_t q = (int32_t)((value + magic) - magic) + zero;
  return q < low ? low : q > high ? high : q;
}
static inline int32_t ml__zero_at(const ml_view *zero, size_t i) {
  return zero == NULL ? 0 : (int32_t)ml_element_get(zero->data, zero->dtype, i);
}

/* ---- products ---- */
/* to[i * to_step] = from[i * from_step] - zero for n elements of int8 or uint8 */
void ml__widen(const void *from, ml_dtype dtype, size_t from_step, int32_t zero, int16_t *to, size_t n);
/* c[m * ldc + n] = sum over k of a[m * K + k] b[n * K + k], modulo 2^32 */
void ml__product_i16(const int16_t *a, const int16_t *b, size_t M, size_t N, size_t K, int32_t *c, size_t ldc);

/* A matrix product of 8-bit integers as MatMul's, with zero points per tensor, per row of A or per column of B. */
typedef struct ml__matmul_i8 {
  const ml_view *A, *B, *a_zero, *b_zero; /* zero points may be NULL */
  size_t batches, M, N, K;
  int32_t batch_rank;
  int64_t dims[ML_MAX_RANK], a_stride[ML_MAX_RANK], b_stride[ML_MAX_RANK]; /* of the batches, in matrices */
} ml__matmul_i8;
ml_status ml__matmul_i8_init(ml__matmul_i8 *m, const ml_view *A, const ml_view *B, const ml_view *a_zero, const ml_view *b_zero,
                             const ml_view *Y, ml_error *err);
ml_status ml__matmul_i8_workspace(const ml__matmul_i8 *m, size_t *bytes, ml_error *err);
/* Batch `i` into c (M,N); workspace as above. */
void ml__matmul_i8_run(const ml__matmul_i8 *m, size_t i, int32_t *c, void *workspace);
/* Fails unless a scale or zero point has one value, one per row (or column), or one per batch and row; what names it. */
ml_status ml__per_row_check(const ml_view *v, size_t batches, size_t rows, const char *what, ml_error *err);
/* The number of the value for this batch and row. */
static inline size_t ml__per_row(const ml_view *v, size_t rows, size_t batch, size_t row) {
  return v->count == 1 ? 0 : v->count == rows ? row : batch * rows + row;
}

#endif
