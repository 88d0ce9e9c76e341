/* The vector form of dense_f32; included by dense_f32_avx2.c and dense_f32_avx512.c after their simd header.
 *
 * Three shapes, chosen by N alone, so that a row's result is bit for bit the same at every batch size:
 * - N <= ML__DOT_COLUMNS: dot products over contiguous columns of W (lanes run along K);
 * - N <= ML__PANEL: one panel; four interleaved chains over k (k mod 4) hide the latency of the FMA;
 * - wider: the register tiles of gemm_f32, one chain over k that starts from the bias. A single row visits only the k whose input
 *   is not zero (half of them after a Relu): adding 0 * w changes nothing when w is finite, which pack_f32 has checked.
 * K is cut into blocks for the cache; the partial sums wait in Y as they are, so this changes no result either. */
#include "kernels/kernels_internal.h"

#define NAME(f) ML__CAT3(f, _, ML__ISA)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define PANEL_VECTORS (ML__PANEL / VW)

enum {
  CHAINS = 4,
  STEP_CHUNK = 1024, /* inputs looked at for zeros at a time */
  SKIP_MIN_COLUMNS = 32,
  DENSE_K_BLOCK = 512,
  DENSE_M_BLOCK = 96
};

/* ---- activations that no tile applies: over finished rows, while they are in the cache ---- */
static void activate(ml_activation act, float alpha, size_t rows, size_t N, float *Y, size_t ldy) {
  const ml_unary f = ml__activation_unary(act);
  if (ldy == N || rows == 1) {
    NAME(ml__unary_f32)(f, Y, Y, rows * N, alpha, ML__SELU_GAMMA);
    return;
  }
  for (size_t i = 0; i < rows; i++) NAME(ml__unary_f32)(f, Y + i * ldy, Y + i * ldy, N, alpha, ML__SELU_GAMMA);
}

static bool fused(ml_activation act) { return act == ML_ACT_NONE || act == ML_ACT_RELU || act == ML_ACT_LEAKY_RELU; }

/* ---- N <= ML__DOT_COLUMNS ---- */
ALWAYS_INLINE void dot_rows(const size_t N, const float *bias, const float *W, size_t M, size_t K, const float *X, size_t ldx,
                            float *Y, size_t ldy) {
  const size_t padded = ml__round_up(K, ML__PANEL);
  const size_t chains = N == 1 ? CHAINS : N == 2 ? 2 : 1;
  for (size_t i = 0; i < M; i++, X += ldx) {
    vf acc[ML__DOT_COLUMNS][CHAINS];
#pragma GCC unroll 8
    for (size_t n = 0; n < N; n++) {
#pragma GCC unroll 8
      for (size_t c = 0; c < chains; c++) acc[n][c] = v_zero();
    }
    size_t k = 0;
    for (; k + chains * VW <= K; k += chains * VW) {
#pragma GCC unroll 8
      for (size_t c = 0; c < chains; c++) {
        const vf x = v_load(X + k + c * VW);
#pragma GCC unroll 8
        for (size_t n = 0; n < N; n++) acc[n][c] = v_fma(x, v_load(W + n * padded + k + c * VW), acc[n][c]);
      }
    }
    for (; k < K; k += VW) {
      const vf x = v_load_n(X + k, K - k);
#pragma GCC unroll 8
      for (size_t n = 0; n < N; n++) acc[n][0] = v_fma(x, v_load(W + n * padded + k), acc[n][0]);
    }
#pragma GCC unroll 8
    for (size_t n = 0; n < N; n++) {
      vf s = acc[n][0];
      if (chains == 2) s = v_add(s, acc[n][1]);
      if (chains == 4) s = v_add(v_add(s, acc[n][1]), v_add(acc[n][2], acc[n][3]));
      Y[i * ldy + n] = bias[n] + v_hsum(s);
    }
  }
}

/* ---- one panel ---- */
ALWAYS_INLINE void narrow_rows(const size_t rows, const float *bias, const float *W, size_t K, size_t N, const float *X,
                               size_t ldx, float *Y, size_t ldy) {
  vf acc[6][CHAINS][PANEL_VECTORS];
#pragma GCC unroll 8
  for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
    for (size_t v = 0; v < PANEL_VECTORS; v++) {
      acc[i][0][v] = v_load(bias + v * VW);
      acc[i][1][v] = acc[i][2][v] = acc[i][3][v] = v_zero();
    }
  }
  size_t k = 0;
  for (; k + CHAINS <= K; k += CHAINS, W += CHAINS * ML__PANEL) {
#pragma GCC unroll 8
    for (size_t c = 0; c < CHAINS; c++) {
#pragma GCC unroll 8
      for (size_t i = 0; i < rows; i++) {
        const vf x = v_set1(X[i * ldx + k + c]);
#pragma GCC unroll 8
        for (size_t v = 0; v < PANEL_VECTORS; v++) acc[i][c][v] = v_fma(x, v_load(W + c * ML__PANEL + v * VW), acc[i][c][v]);
      }
    }
  }
  for (; k < K; k++, W += ML__PANEL) {
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
      const vf x = v_set1(X[i * ldx + k]);
#pragma GCC unroll 8
      for (size_t v = 0; v < PANEL_VECTORS; v++) acc[i][0][v] = v_fma(x, v_load(W + v * VW), acc[i][0][v]);
    }
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
    for (size_t v = 0; v < PANEL_VECTORS; v++) {
      const vf s = v_add(v_add(acc[i][0][v], acc[i][1][v]), v_add(acc[i][2][v], acc[i][3][v]));
      v_store_n(Y + i * ldy + v * VW, s, N - ml__min(N, v * VW));
    }
  }
}

static void narrow(const float *bias, const float *W, size_t M, size_t K, size_t N, const float *X, size_t ldx, float *Y,
                   size_t ldy) {
  size_t i = 0;
#if PANEL_VECTORS == 1 /* room for several rows' chains, which then share the loads of W */
  for (; i + 6 <= M; i += 6) narrow_rows(6, bias, W, K, N, X + i * ldx, ldx, Y + i * ldy, ldy);
  for (; i + 2 <= M; i += 2) narrow_rows(2, bias, W, K, N, X + i * ldx, ldx, Y + i * ldy, ldy);
#endif
  for (; i < M; i++) narrow_rows(1, bias, W, K, N, X + i * ldx, ldx, Y + i * ldy, ldy);
}

/* ---- wider ---- */
/* One row: block by block over K, only the steps whose input is not zero. */
static void wide_row(ml__tile t, size_t K, size_t N) {
  uint32_t list[STEP_CHUNK + VW];
  const float *const x = t.A, *const W = t.B;
  const ml_activation act = t.act;
  size_t k = 0;
  do {
    const size_t kb = ml__min(STEP_CHUNK, K - k);
    const size_t steps = v_nonzero(x + k, kb, 0, list);
    t.K = steps;
    t.steps = steps < kb ? list : NULL;
    t.start = k == 0 ? ML__START_BIAS : ML__START_C;
    t.A = x + k;
    t.B = W + k * ML__PANEL;
    k += kb;
    t.act = k == K ? act : ML_ACT_NONE;
    NAME(ml__block_f32)(&t, 1, N);
  } while (k < K);
}

/* At most DENSE_M_BLOCK rows. */
static void wide_rows(ml__tile t, size_t M, size_t K, size_t N) {
  const float *const X = t.A, *const W = t.B;
  const ml_activation act = t.act;
  size_t k = 0;
  do {
    t.K = ml__min(DENSE_K_BLOCK, K - k);
    t.A = X + k;
    t.B = W + k * ML__PANEL;
    t.start = k == 0 ? ML__START_BIAS : ML__START_C;
    k += t.K;
    t.act = k == K ? act : ML_ACT_NONE;
    NAME(ml__block_f32)(&t, M, N);
  } while (k < K);
}

void NAME(ml__dense_f32)(const void *packed, size_t M, size_t K, size_t N, const float *X, size_t ldx, ml_activation act,
                         float alpha, float *Y, size_t ldy) {
  if (M == 0 || N == 0) return;
  const float *const bias = ml__packed_bias(packed), *const W = ml__packed_weights(packed, N);
  if (N > ML__PANEL) {
    const ml__tile t = {.A = X, .a_row = ldx, .a_col = 1, .B = W, .b_row = ML__PANEL, .b_panel = K * ML__PANEL, .C = Y,
                        .ldc = ldy, .bias = bias, .act = fused(act) ? act : ML_ACT_NONE, .slope = alpha};
    const bool skip = M == 1 && N >= SKIP_MIN_COLUMNS && ((const ml__packed_header *)packed)->finite != 0;
    /* blocks of rows, so that an activation finds its rows in the cache */
    for (size_t m = 0; m < M; m += DENSE_M_BLOCK) {
      const size_t rows = ml__min(DENSE_M_BLOCK, M - m);
      ml__tile b = t;
      b.A = X + m * ldx;
      b.C = Y + m * ldy;
      if (skip) wide_row(b, K, N);
      else wide_rows(b, rows, K, N);
      if (!fused(act)) activate(act, alpha, rows, N, b.C, ldy);
    }
    return;
  }
  for (size_t m = 0; m < M; m += DENSE_M_BLOCK) {
    const size_t rows = ml__min(DENSE_M_BLOCK, M - m);
    const float *x = X + m * ldx;
    float *y = Y + m * ldy;
    switch (N) {
      case 1: dot_rows(1, bias, W, rows, K, x, ldx, y, ldy); break;
      case 2: dot_rows(2, bias, W, rows, K, x, ldx, y, ldy); break;
      case 3: dot_rows(3, bias, W, rows, K, x, ldx, y, ldy); break;
      case 4: dot_rows(4, bias, W, rows, K, x, ldx, y, ldy); break;
      default: narrow(bias, W, rows, K, N, x, ldx, y, ldy); break;
    }
    if (act != ML_ACT_NONE) activate(act, alpha, rows, N, y, ldy);
  }
}
