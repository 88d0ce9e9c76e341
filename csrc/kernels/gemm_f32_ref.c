/* gemm_f32 in plain C: the oracle of the tests and the fallback on any processor.
 * Sums run over k in ascending order. The inner loops run along contiguous memory, which any compiler vectorises. */
#include "kernels/kernels_internal.h"

void ml__gemm_f32_ref(bool trans_a, bool trans_b, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda,
                      const float *B, size_t ldb, float beta, float *C, size_t ldc) {
  for (size_t i = 0; i < M; i++) {
    float *c = C + i * ldc;
    for (size_t j = 0; j < N; j++) c[j] = beta == 0.0f ? 0.0f : beta * c[j];
    if (alpha == 0.0f) continue;
    if (trans_b) {
      for (size_t j = 0; j < N; j++) {
        float sum = 0.0f;
        for (size_t k = 0; k < K; k++) sum += (trans_a ? A[k * lda + i] : A[i * lda + k]) * B[j * ldb + k];
        c[j] += alpha * sum;
      }
      continue;
    }
    for (size_t k = 0; k < K; k++) {
      const float a = alpha * (trans_a ? A[k * lda + i] : A[i * lda + k]);
      for (size_t j = 0; j < N; j++) c[j] += a * B[k * ldb + j];
    }
  }
}
