/* Packs the weights and bias of a dense layer; one layout for every instruction set (kernels_internal.h describes it). */
#include <math.h>
#include <string.h>
#include "kernels/kernels_internal.h"

/* SIZE_MAX when the size does not fit: no allocation of that much succeeds. */
size_t ml__pack_bytes_f32(size_t K, size_t N) {
  if (N > SIZE_MAX - ML__PANEL || K > SIZE_MAX - ML__PANEL) return SIZE_MAX;
  const size_t padded = ml__round_up(N, ML__PANEL);
  const bool by_column = N <= ML__DOT_COLUMNS;
  size_t floats;
  if (__builtin_mul_overflow(by_column ? N : padded, by_column ? ml__round_up(K, ML__PANEL) : K, &floats) ||
      __builtin_add_overflow(floats, padded, &floats) || floats > (SIZE_MAX - sizeof(ml__packed_header)) / sizeof(float)) {
    return SIZE_MAX;
  }
  return sizeof(ml__packed_header) + floats * sizeof(float);
}

void ml__pack_f32(const float *W, bool transposed, size_t K, size_t N, const float *bias, void *packed) {
  memset(packed, 0, ml__pack_bytes_f32(K, N));
  ml__packed_header *header = packed;
  float *const to_bias = (float *)(header + 1);
  float *const to = to_bias + ml__round_up(N, ML__PANEL);
  if (bias != NULL && N != 0) memcpy(to_bias, bias, N * sizeof(float));
  const size_t by_k = transposed ? 1 : N, by_n = transposed ? K : 1;
  const size_t padded_k = ml__round_up(K, ML__PANEL);
  bool finite = true;
  for (size_t n = 0; n < N; n++) {
    float *column = N <= ML__DOT_COLUMNS ? to + n * padded_k : to + n / ML__PANEL * ML__PANEL * K + n % ML__PANEL;
    const size_t step = N <= ML__DOT_COLUMNS ? 1 : ML__PANEL;
    for (size_t k = 0; k < K; k++) {
      const float w = W[k * by_k + n * by_n];
      finite = finite && isfinite(w);
      column[k * step] = w;
    }
  }
  header->finite = finite;
}
