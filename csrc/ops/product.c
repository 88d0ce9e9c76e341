/* float32 goes to the kernels; float64 and integers, which no hot path has, to plain blocked loops. Work is cut along the longer
 * side of C into chunks whose size depends on the shape only, so the result does not depend on the number of threads. */
#include "ops/product.h"
#include <string.h>
#include "base/thread.h"

size_t ml__rows_per_chunk(size_t total, double flops_per_row, size_t multiple) {
  if (total == 0) return 1;
  double rows = flops_per_row > 0 ? ML__CHUNK_FLOPS / flops_per_row : (double)total;
  size_t least = (total + 63) / 64, n = rows >= (double)total ? total : (size_t)rows + 1;
  if (n < least) n = least;
  n = (n + multiple - 1) / multiple * multiple;
  return n < total ? n : total;
}

/* Blocks of K keep a stripe of B in the cache; the innermost loop runs along a row of C. B transposed is gathered into a small
 * tile first. */
#define DEFINE_PRODUCT(name, T)                                                                                             \
  static void name(bool ta, bool tb, size_t M, size_t N, size_t K, T alpha, const T *A, size_t lda, const T *B, size_t ldb, \
                   T beta, T *C, size_t ldc) {                                                                              \
    enum { KB = 32, NB = 64 };                                                                                              \
    T tile[KB * NB];                                                                                                        \
    for (size_t i = 0; i < M; i++)                                                                                          \
      for (size_t j = 0; j < N; j++) C[i * ldc + j] = beta == 0 ? (T)0 : (T)(beta * C[i * ldc + j]);                        \
    for (size_t j0 = 0; j0 < N; j0 += NB)                                                                                   \
      for (size_t k0 = 0; k0 < K; k0 += KB) {                                                                               \
        size_t nb = N - j0 < NB ? N - j0 : NB, kb = K - k0 < KB ? K - k0 : KB;                                              \
        for (size_t k = 0; k < kb; k++)                                                                                     \
          for (size_t j = 0; j < nb; j++) tile[k * NB + j] = tb ? B[(j0 + j) * ldb + k0 + k] : B[(k0 + k) * ldb + j0 + j];  \
        for (size_t i = 0; i < M; i++) {                                                                                    \
          T *c = C + i * ldc + j0;                                                                                          \
          for (size_t k = 0; k < kb; k++) {                                                                                 \
            T a = (T)(alpha * (ta ? A[(k0 + k) * lda + i] : A[i * lda + k0 + k]));                                          \
            const T *b = tile + k * NB;                                                                                     \
            for (size_t j = 0; j < nb; j++) c[j] = (T)(c[j] + a * b[j]);                                                    \
          }                                                                                                                 \
        }                                                                                                                   \
      }                                                                                                                     \
  }
DEFINE_PRODUCT(product_f64, double)
DEFINE_PRODUCT(product_u32, uint32_t) /* two's complement: the same bits for int32 */
DEFINE_PRODUCT(product_u64, uint64_t)

typedef struct task {
  const ml_kernels *kernels;
  ml_dtype dtype;
  bool ta, tb, by_rows;
  size_t M, N, K, lda, ldb, ldc, step;
  double alpha, beta;
  const char *A, *B;
  char *C;
} task;

static void product(const task *t, size_t M, size_t N, const void *A, const void *B, void *C) {
  switch (t->dtype) {
    case ML_FLOAT32:
      t->kernels->gemm_f32(t->ta, t->tb, M, N, t->K, (float)t->alpha, A, t->lda, B, t->ldb, (float)t->beta, C, t->ldc);
      break;
    case ML_FLOAT64: product_f64(t->ta, t->tb, M, N, t->K, t->alpha, A, t->lda, B, t->ldb, t->beta, C, t->ldc); break;
    case ML_INT32:
    case ML_UINT32:
      product_u32(t->ta, t->tb, M, N, t->K, (uint32_t)(int64_t)t->alpha, A, t->lda, B, t->ldb, (uint32_t)(int64_t)t->beta, C,
                  t->ldc);
      break;
    default:
      product_u64(t->ta, t->tb, M, N, t->K, (uint64_t)(int64_t)t->alpha, A, t->lda, B, t->ldb, (uint64_t)(int64_t)t->beta, C,
                  t->ldc);
      break;
  }
}

static void chunk(void *context, size_t index) {
  const task *t = context;
  size_t size = ml_dtype_size(t->dtype), begin = index * t->step, total = t->by_rows ? t->M : t->N;
  size_t n = total - begin < t->step ? total - begin : t->step;
  if (t->by_rows) product(t, n, t->N, t->A + begin * (t->ta ? 1 : t->lda) * size, t->B, t->C + begin * t->ldc * size);
  else product(t, t->M, n, t->A, t->B + begin * (t->tb ? t->ldb : 1) * size, t->C + begin * size);
}

void ml__product(const ml_kernels *kernels, ml_dtype dtype, bool trans_a, bool trans_b, size_t M, size_t N, size_t K,
                 double alpha, const void *A, size_t lda, const void *B, size_t ldb, double beta, void *C, size_t ldc) {
  if (M == 0 || N == 0) return;
  if (K == 0) {
    if (beta == 1) return;
    if (beta == 0 || dtype != ML_FLOAT32) {
      task t = { .dtype = dtype, .alpha = alpha, .beta = beta, .lda = 1, .ldb = 1, .ldc = ldc };
      if (dtype != ML_FLOAT32) product(&t, M, N, C, C, C);
      else
        for (size_t i = 0; i < M; i++) memset((float *)C + i * ldc, 0, N * sizeof(float));
      return;
    }
    for (size_t i = 0; i < M; i++)
      for (size_t j = 0; j < N; j++) ((float *)C)[i * ldc + j] *= (float)beta;
    return;
  }
  task t = { kernels, dtype, trans_a, trans_b, M >= N, M, N, K, lda, ldb, ldc, 0, alpha, beta, A, B, C };
  size_t total = t.by_rows ? M : N;
  t.step = ml__rows_per_chunk(total, 2.0 * (double)K * (double)(t.by_rows ? N : M), 48);
  size_t chunks = (total + t.step - 1) / t.step;
  if (chunks == 1) chunk(&t, 0);
  else ml_parallel(chunks, chunk, &t);
}
