/* dense_f32 in plain C: the oracle of the tests and the fallback on any processor. Sums start from the bias and run over k in
 * ascending order. */
#include "kernels/kernels_internal.h"

void ml__dense_f32_ref(const void *packed, size_t M, size_t K, size_t N, const float *X, size_t ldx, ml_activation act,
                       float alpha, float *Y, size_t ldy) {
  const float *const bias = ml__packed_bias(packed), *const W = ml__packed_weights(packed, N);
  const size_t padded = ml__round_up(K, ML__PANEL);
  for (size_t i = 0; i < M; i++, X += ldx, Y += ldy) {
    if (N <= ML__DOT_COLUMNS) {
      for (size_t n = 0; n < N; n++) {
        float sum = bias[n];
        for (size_t k = 0; k < K; k++) sum += X[k] * W[n * padded + k];
        Y[n] = sum;
      }
    } else {
      for (size_t n = 0; n < N; n += ML__PANEL) {
        const float *panel = W + n * K;
        float sum[ML__PANEL];
        for (size_t c = 0; c < ML__PANEL; c++) sum[c] = bias[n + c];
        for (size_t k = 0; k < K; k++) {
          for (size_t c = 0; c < ML__PANEL; c++) sum[c] += X[k] * panel[k * ML__PANEL + c];
        }
        for (size_t c = 0; c < ML__PANEL && n + c < N; c++) Y[n + c] = sum[c];
      }
    }
    if (act != ML_ACT_NONE) ml__unary_f32_ref(ml__activation_unary(act), Y, Y, N, alpha, ML__SELU_GAMMA);
  }
}
