/* The vector form of gemm_f32; included by gemm_f32_avx2.c and gemm_f32_avx512.c after their simd header.
 *
 * Design (Goto & van de Geijn 2008, "Anatomy of high-performance matrix multiplication", with two simplifications):
 * - a register tile is up to 6 rows by TILE_PANELS panels of 16 columns; A is read in place by broadcast (either orientation),
 *   B from panels [k][16] or, when it is small and not transposed, in place;
 * - larger products run over blocks of K_BLOCK x N_BLOCK of B, packed once into a per-thread buffer that stays in the L2 cache.
 * A kernel may not allocate, so the buffers have a fixed size. The sum of an output element runs over k in ascending order within
 * a K block, and over the blocks in order: it depends on K only, not on M, N, the element's place, or the tile it falls into. */
#include "kernels/kernels_internal.h"

#define NAME(f) ML__CAT3(f, _, ML__ISA)
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#define PANEL_VECTORS (ML__PANEL / VW)
#define TILE_ROWS 6
#define MAX_VECTORS (TILE_ROW_PANELS * PANEL_VECTORS)

enum {
  B_IN_PLACE_ROWS = 128,     /* up to this M packing B costs more than it gains … */
  B_IN_PLACE_FLOATS = 16384, /* … and B this small is in the L1 or L2 cache anyway */
  COPY_LDA = 640,            /* rows of A this far apart cost a TLB entry each … */
  COPY_LDA_TRANSPOSED = 512, /* … and when A is transposed a cache line per step, */
  COPY_COLUMNS = 128,        /* so A is copied where that many columns use it again */
  COLUMN_CHUNK = 256         /* outputs of a matrix-vector product kept on the stack */
};
enum { K_BLOCK = ML__GEMM_K_BLOCK, N_BLOCK = ML__GEMM_N_BLOCK, M_BLOCK = ML__GEMM_M_BLOCK };

/* ---- the register tile ---- */
/* rows, panels and `listed` are constants at every call, so all arrays live in registers; without the unroll pragmas gcc 12 would
 * keep the accumulators in memory. */
ALWAYS_INLINE void tile_body(const size_t rows, const size_t panels, const bool listed, const ml__tile *t) {
  const size_t vectors = panels * PANEL_VECTORS;
  vf acc[TILE_ROWS][MAX_VECTORS];
  const size_t row_step = t->a_row, ldc = t->ldc, last = t->last;
  float *const C = t->C;
  const size_t edge = vectors - PANEL_VECTORS; /* vectors from here on may be partial */

  if (t->start == ML__START_BIAS) {
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) acc[i][v] = v_load(t->bias + v * VW);
    }
  } else if (t->start == ML__START_C) {
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) {
        const size_t left = v < edge ? VW : last - ml__min(last, (v - edge) * VW);
        acc[i][v] = v_load_n(C + i * ldc + v * VW, left);
      }
    }
  } else {
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) acc[i][v] = v_zero();
    }
  }

  if (t->scale && t->beta != 0.0f) { /* C is wanted at the end: let it come meanwhile */
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t p = 0; p < panels; p++) __builtin_prefetch(C + i * ldc + p * ML__PANEL);
    }
  }

  const float *a = t->A, *b = t->B;
  const size_t a_step = t->a_col, b_step = t->b_row, b_panel = t->b_panel;
  const uint32_t *const steps = t->steps;
  for (size_t k = t->K, at = 0; k != 0; k--, at++) {
    const float *ak = listed ? a + steps[at] * a_step : a, *bk = listed ? b + steps[at] * b_step : b;
    vf bv[MAX_VECTORS];
#pragma GCC unroll 8
    for (size_t v = 0; v < vectors; v++) bv[v] = v_load(bk + (v / PANEL_VECTORS) * b_panel + (v % PANEL_VECTORS) * VW);
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
      const vf x = v_set1(ak[i * row_step]);
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) acc[i][v] = v_fma(x, bv[v], acc[i][v]);
    }
    if (!listed) {
      a += a_step;
      b += b_step;
    }
  }

  if (t->scale) {
    const vf alpha = v_set1(t->alpha), beta = v_set1(t->beta);
    const bool read = t->beta != 0.0f;
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) {
        const size_t left = v < edge ? VW : last - ml__min(last, (v - edge) * VW);
        acc[i][v] = v_mul(alpha, acc[i][v]);
        if (read) acc[i][v] = v_fma(beta, v_load_n(C + i * ldc + v * VW, left), acc[i][v]);
      }
    }
  }
  if (t->act == ML_ACT_RELU) {
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) acc[i][v] = v_max(v_zero(), acc[i][v]);
    }
  } else if (t->act == ML_ACT_LEAKY_RELU) {
    const vf slope = v_set1(t->slope);
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) acc[i][v] = v_select(v_lt(acc[i][v], v_zero()), v_mul(slope, acc[i][v]), acc[i][v]);
    }
  }
  if (last == ML__PANEL) {
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) v_store(C + i * ldc + v * VW, acc[i][v]);
    }
  } else {
#pragma GCC unroll 8
    for (size_t i = 0; i < rows; i++) {
#pragma GCC unroll 8
      for (size_t v = 0; v < vectors; v++) {
        const size_t left = v < edge ? VW : last - ml__min(last, (v - edge) * VW);
        v_store_n(C + i * ldc + v * VW, acc[i][v], left);
      }
    }
  }
}

typedef void tile_function(const ml__tile *t);
#define TILE(r, p) static void tile_##r##x##p(const ml__tile *t) { tile_body(r, p, false, t); }
#define LIST(p) static void list_##p(const ml__tile *t) { tile_body(1, p, true, t); }
TILE(1, 1) TILE(1, 2) TILE(1, 3) TILE(1, 4)
LIST(1) LIST(2) LIST(3) LIST(4)
TILE(2, 1) TILE(3, 1) TILE(4, 1) TILE(5, 1) TILE(6, 1)
#if TILE_ROW_PANELS == 8
TILE(1, 5) TILE(1, 6) TILE(1, 7) TILE(1, 8)
LIST(5) LIST(6) LIST(7) LIST(8)
#define UP_TO_8(name) , name##5, name##6, name##7, name##8
#else
#define UP_TO_8(name)
#endif
static tile_function *const row_tiles[2][TILE_ROW_PANELS] = { /* all steps; listed steps */
  {tile_1x1, tile_1x2, tile_1x3, tile_1x4 UP_TO_8(tile_1x)},
  {list_1, list_2, list_3, list_4 UP_TO_8(list_)},
};
#if TILE_PANELS == 4
#define TILE_4(r) TILE(r, 2) TILE(r, 3) TILE(r, 4)
TILE_4(2) TILE_4(3) TILE_4(4) TILE_4(5) TILE_4(6)
#define TILE_ROW(r) {tile_##r##x1, tile_##r##x2, tile_##r##x3, tile_##r##x4}
#else
#define TILE_ROW(r) {tile_##r##x1}
#endif
static tile_function *const tiles[TILE_ROWS - 1][TILE_PANELS] = {TILE_ROW(2), TILE_ROW(3), TILE_ROW(4), TILE_ROW(5), TILE_ROW(6)};

/* ---- blocks ---- */
/* All tiles of an M x N block of C; t describes its upper left corner. The rows and the panels are cut into tiles of nearly equal
 * size, so that no thin tile is left over. */
void NAME(ml__block_f32)(const ml__tile *corner, size_t M, size_t N) {
  const size_t panels = (N + ML__PANEL - 1) / ML__PANEL, widest = M == 1 ? TILE_ROW_PANELS : TILE_PANELS;
  const size_t groups = (panels + widest - 1) / widest, strips = (M + TILE_ROWS - 1) / TILE_ROWS;
  ml__tile t = *corner;
  for (size_t g = 0, p = 0; g < groups; g++) {
    const size_t width = panels / groups + (g < panels % groups);
    t.B = corner->B + p * corner->b_panel;
    if (corner->start == ML__START_BIAS) t.bias = corner->bias + p * ML__PANEL;
    t.last = p + width == panels ? N - (panels - 1) * ML__PANEL : ML__PANEL;
    if (M == 1) {
      t.C = corner->C + p * ML__PANEL;
      row_tiles[t.steps != NULL][width - 1](&t);
    }
    for (size_t s = 0, i = 0; s < strips && M > 1; s++) {
      const size_t height = M / strips + (s < M % strips);
      t.A = corner->A + i * corner->a_row;
      t.C = corner->C + i * corner->ldc + p * ML__PANEL;
      tiles[height - 2][width - 1](&t);
      i += height;
    }
    p += width;
  }
}

/* B(k0.., j0..), kb x nb of op(B), into panels [k][16] with zero columns at the end. */
static void pack_b(const float *B, size_t ldb, bool trans, size_t kb, size_t nb, float *to) {
  for (size_t j = 0; j < nb; j += ML__PANEL, to += kb * ML__PANEL) {
    const size_t columns = ml__min(ML__PANEL, nb - j);
    if (!trans) {
      for (size_t k = 0; k < kb; k++) {
        for (size_t c = 0; c < ML__PANEL; c += VW) {
          const size_t left = columns - ml__min(columns, c);
          v_store(to + k * ML__PANEL + c, v_load_n(B + k * ldb + j + c, left));
        }
      }
      continue;
    }
    for (size_t k = 0; k < kb; k += VW) {
      const size_t steps = ml__min(VW, kb - k);
      for (size_t c = 0; c < ML__PANEL; c += VW) {
        const size_t left = ml__min(VW, columns - ml__min(columns, c));
        const float *from = B + (j + c) * ldb + k;
        if (left == VW && steps == VW) {
          v_transpose(from, ldb, to + k * ML__PANEL + c, ML__PANEL);
          continue;
        }
        float in[VW * VW] __attribute__((aligned(64))), out[VW * VW] __attribute__((aligned(64)));
        for (size_t i = 0; i < VW; i++) v_store(in + i * VW, i < left ? v_load_n(from + i * ldb, steps) : v_zero());
        v_transpose(in, VW, out, VW);
        for (size_t i = 0; i < steps; i++) v_store(to + (k + i) * ML__PANEL + c, v_load(out + i * VW));
      }
    }
  }
}

/* The panel of the last N % 16 columns of B in place cannot be loaded whole: it is copied, padded. One K block at most. */
static void in_place(const ml__tile *corner, size_t M, size_t N) {
  const size_t whole = N / ML__PANEL * ML__PANEL;
  if (whole != 0) NAME(ml__block_f32)(corner, M, whole);
  if (whole == N) return;
  float spare[K_BLOCK * ML__PANEL] __attribute__((aligned(64)));
  ml__tile t = *corner;
  pack_b(corner->B + whole, corner->b_row, false, corner->K, N - whole, spare);
  t.B = spare;
  t.b_row = ML__PANEL;
  t.C = corner->C + whole;
  NAME(ml__block_f32)(&t, M, N - whole);
}

/* Every K block is summed by itself and then added to C. */
static void set_scale(ml__tile *t, bool first, float alpha, float beta) {
  t->alpha = alpha;
  t->beta = first ? beta : 1.0f;
  t->scale = alpha != 1.0f || t->beta != 0.0f;
}

static void copy_rows(const float *from, size_t from_ld, size_t rows, size_t columns, float *to, size_t to_ld) {
  for (size_t i = 0; i < rows; i++) {
    const float *row = from + i * from_ld;
    for (size_t j = 0; j < columns; j += VW) v_store_n(to + i * to_ld + j, v_load_n(row + j, columns - j), columns - j);
  }
}

static void scale_c(size_t M, size_t N, float beta, float *C, size_t ldc) {
  for (size_t i = 0; i < M; i++) {
    for (size_t j = 0; j < N; j++) C[i * ldc + j] = beta == 0.0f ? 0.0f : beta * C[i * ldc + j];
  }
}

/* One column of output: dot products with the rows of op(A), or, when A is transposed, one row of output of B^T A. */
static void one_column(bool trans_a, size_t M, size_t K, float alpha, const float *A, size_t lda, const float *b, size_t b_step,
                       float beta, float *C, size_t ldc) {
  float part[COLUMN_CHUNK] __attribute__((aligned(64)));
  float gathered[K_BLOCK];
  for (size_t i0 = 0; i0 < M; i0 += COLUMN_CHUNK) {
    const size_t rows = ml__min(COLUMN_CHUNK, M - i0);
    for (size_t k0 = 0; k0 < K; k0 += K_BLOCK) {
      const size_t kb = ml__min(K_BLOCK, K - k0);
      if (trans_a) {
        ml__tile t = {.K = kb, .A = b + k0 * b_step, .a_row = 0, .a_col = b_step, .B = A + k0 * lda + i0, .b_row = lda,
                      .b_panel = ML__PANEL, .C = part, .ldc = rows, .start = k0 == 0 ? ML__START_ZERO : ML__START_C};
        in_place(&t, 1, rows);
        continue;
      }
      const float *x = b + k0 * b_step;
      if (b_step != 1) {
        for (size_t k = 0; k < kb; k++) gathered[k] = x[k * b_step];
        x = gathered;
      }
      for (size_t i = 0; i < rows; i++) {
        const float s = NAME(ml__dot_f32)(A + (i0 + i) * lda + k0, x, kb);
        part[i] = k0 == 0 ? s : part[i] + s;
      }
    }
    for (size_t i = 0; i < rows; i++) {
      float *c = C + (i0 + i) * ldc;
      *c = alpha * part[i] + (beta == 0.0f ? 0.0f : beta * *c);
    }
  }
}

void NAME(ml__gemm_f32)(bool trans_a, bool trans_b, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda,
                        const float *B, size_t ldb, float beta, float *C, size_t ldc) {
  if (M == 0 || N == 0) return;
  if (K == 0 || alpha == 0.0f) {
    scale_c(M, N, beta, C, ldc);
    return;
  }
  if (N == 1) {
    one_column(trans_a, M, K, alpha, A, lda, B, trans_b ? 1 : ldb, beta, C, ldc);
    return;
  }
  if (ldb == 1) { /* op(B) is one row, contiguous either way */
    trans_b = false;
    ldb = N;
  }
  ml__tile t = {.a_row = trans_a ? 1 : lda, .a_col = trans_a ? lda : 1, .b_panel = ML__PANEL, .ldc = ldc, .start = ML__START_ZERO,
                .act = ML_ACT_NONE};
  if (!trans_b && (M <= B_IN_PLACE_ROWS || (K <= B_IN_PLACE_FLOATS && N <= B_IN_PLACE_FLOATS / K))) {
    t.b_row = ldb;
    for (size_t k0 = 0; k0 < K; k0 += K_BLOCK) {
      t.K = ml__min(K_BLOCK, K - k0);
      set_scale(&t, k0 == 0, alpha, beta);
      t.A = A + k0 * t.a_col;
      t.B = B + k0 * ldb;
      t.C = C;
      in_place(&t, M, N);
    }
    return;
  }
  const bool copy_a = lda >= (trans_a ? COPY_LDA_TRANSPOSED : COPY_LDA) && N >= COPY_COLUMNS;
  float *const packed_b = ml__gemm_buffers.b, *const copied_a = ml__gemm_buffers.a;
  t.b_row = ML__PANEL;
  for (size_t j0 = 0; j0 < N; j0 += N_BLOCK) {
    const size_t nb = ml__min(N_BLOCK, N - j0);
    for (size_t k0 = 0; k0 < K; k0 += K_BLOCK) {
      const size_t kb = ml__min(K_BLOCK, K - k0);
      pack_b(trans_b ? B + j0 * ldb + k0 : B + k0 * ldb + j0, ldb, trans_b, kb, nb, packed_b);
      t.K = kb;
      t.B = packed_b;
      t.b_panel = kb * ML__PANEL;
      set_scale(&t, k0 == 0, alpha, beta);
      for (size_t i0 = 0; i0 < M; i0 += M_BLOCK) {
        const size_t mb = ml__min(M_BLOCK, M - i0);
        t.A = A + i0 * t.a_row + k0 * t.a_col;
        t.C = C + i0 * ldc + j0;
        if (copy_a) {
          const size_t step = trans_a ? M_BLOCK : K_BLOCK;
          copy_rows(t.A, lda, trans_a ? kb : mb, trans_a ? mb : kb, copied_a, step);
          ml__tile copied = t;
          copied.A = copied_a;
          copied.a_row = trans_a ? 1 : step;
          copied.a_col = trans_a ? step : 1;
          NAME(ml__block_f32)(&copied, mb, nb);
        } else {
          NAME(ml__block_f32)(&t, mb, nb);
        }
      }
    }
  }
}
