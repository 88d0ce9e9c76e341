/* The vector forms of the reductions and softmax; included by reduce_f32_avx2.c and reduce_f32_avx512.c after their simd header.
 * The order of every sum depends on the length alone. */
#include "kernels/kernels_internal.h"
#include "kernels/vector_math.inc.h"

#define NAME(f) ML__CAT3(f, _, ML__ISA)

enum {
  SUM_BLOCK = 64 * VW, /* summed in four chains of 16 additions */
  ROW_BLOCK = 64,      /* rows of column_sum added up before they join the total */
  LEVELS = 64          /* of the pairwise tree: more than any length needs */
};

static float sum_block(const float *x, size_t n) {
  vf a = v_zero(), b = v_zero(), c = v_zero(), d = v_zero();
  size_t i = 0;
  for (; i + 4 * VW <= n; i += 4 * VW) {
    a = v_add(a, v_load(x + i));
    b = v_add(b, v_load(x + i + VW));
    c = v_add(c, v_load(x + i + 2 * VW));
    d = v_add(d, v_load(x + i + 3 * VW));
  }
  for (; i < n; i += VW) a = v_add(a, v_load_n(x + i, n - i));
  return v_hsum(v_add(v_add(a, b), v_add(c, d)));
}

/* Blocks join like the carries of a binary counter: level l holds the sum of 2^l blocks. */
float NAME(ml__sum_f32)(const float *x, size_t n) {
  if (n <= SUM_BLOCK) return sum_block(x, n);
  float level[LEVELS];
  size_t blocks = 0, depth = 0;
  for (size_t i = 0; i < n; i += SUM_BLOCK) {
    float s = sum_block(x + i, ml__min(SUM_BLOCK, n - i));
    for (size_t carry = blocks++; carry & 1; carry >>= 1) s += level[--depth];
    level[depth++] = s;
  }
  float s = level[--depth];
  while (depth > 0) s += level[--depth];
  return s;
}

float NAME(ml__max_f32)(const float *x, size_t n) {
  const vf lowest = v_set1(-__builtin_inff());
  vf a = lowest, b = lowest;
  vb nan = vb_none();
  size_t i = 0;
  for (; i + 2 * VW <= n; i += 2 * VW) {
    vf u = v_load(x + i), w = v_load(x + i + VW);
    nan = vb_or(nan, vb_or(v_nan(u), v_nan(w)));
    a = v_max(u, a);
    b = v_max(w, b);
  }
  for (; i < n; i += VW) {
    vf u = v_load_n_or(x + i, n - i, lowest);
    nan = vb_or(nan, v_nan(u));
    a = v_max(u, a);
  }
  return vb_any(nan) ? __builtin_nanf("") : v_hmax(v_max(a, b));
}

float NAME(ml__dot_f32)(const float *x, const float *y, size_t n) {
  vf a = v_zero(), b = v_zero(), c = v_zero(), d = v_zero();
  size_t i = 0;
  for (; i + 4 * VW <= n; i += 4 * VW) {
    a = v_fma(v_load(x + i), v_load(y + i), a);
    b = v_fma(v_load(x + i + VW), v_load(y + i + VW), b);
    c = v_fma(v_load(x + i + 2 * VW), v_load(y + i + 2 * VW), c);
    d = v_fma(v_load(x + i + 3 * VW), v_load(y + i + 3 * VW), d);
  }
  for (; i < n; i += VW) a = v_fma(v_load_n(x + i, n - i), v_load_n(y + i, n - i), a);
  return v_hsum(v_add(v_add(a, b), v_add(c, d)));
}

void NAME(ml__axpy_f32)(float a, const float *x, float *y, size_t n) {
  const vf s = v_set1(a);
  size_t i = 0;
  for (; i + VW <= n; i += VW) v_store(y + i, v_fma(s, v_load(x + i), v_load(y + i)));
  if (i < n) v_store_n(y + i, v_fma(s, v_load_n(x + i, n - i), v_load_n(y + i, n - i)), n - i);
}

void NAME(ml__column_sum_f32)(const float *x, size_t rows, size_t cols, size_t ld, float *out, bool accumulate) {
  if (cols == 1 && ld == 1) {
    const float s = NAME(ml__sum_f32)(x, rows);
    out[0] = accumulate ? out[0] + s : s;
    return;
  }
  for (size_t j = 0; j < cols; j += 4 * VW) {
    const size_t left = cols - j;
    vf total[4];
    for (size_t v = 0; v < 4; v++) total[v] = v_zero();
    for (size_t r = 0; r < rows; r += ROW_BLOCK) {
      const size_t end = ml__min(rows, r + ROW_BLOCK);
      vf s0 = v_zero(), s1 = v_zero(), s2 = v_zero(), s3 = v_zero();
      if (left >= 4 * VW) {
        for (size_t i = r; i < end; i++) {
          const float *p = x + i * ld + j;
          s0 = v_add(s0, v_load(p));
          s1 = v_add(s1, v_load(p + VW));
          s2 = v_add(s2, v_load(p + 2 * VW));
          s3 = v_add(s3, v_load(p + 3 * VW));
        }
      } else {
        for (size_t i = r; i < end; i++) {
          const float *p = x + i * ld + j;
          s0 = v_add(s0, v_load_n(p, left));
          if (left > VW) s1 = v_add(s1, v_load_n(p + VW, left - VW));
          if (left > 2 * VW) s2 = v_add(s2, v_load_n(p + 2 * VW, left - 2 * VW));
          if (left > 3 * VW) s3 = v_add(s3, v_load_n(p + 3 * VW, left - 3 * VW));
        }
      }
      total[0] = v_add(total[0], s0);
      total[1] = v_add(total[1], s1);
      total[2] = v_add(total[2], s2);
      total[3] = v_add(total[3], s3);
    }
    for (size_t v = 0; v < 4 && v * VW < left; v++) {
      const size_t lanes = left - v * VW;
      float *o = out + j + v * VW;
      v_store_n(o, accumulate ? v_add(v_load_n(o, lanes), total[v]) : total[v], lanes);
    }
  }
}

/* y = exp(x - max) / sum, or x - max - log(sum) */
static void softmax_row(const float *x, float *y, size_t n, bool take_log) {
  const float m = NAME(ml__max_f32)(x, n);
  const vf shift = v_set1(m), lowest = v_set1(-__builtin_inff());
  vf a = v_zero();
  for (size_t i = 0; i < n; i += VW) {
    const size_t left = n - i;
    vf e = v_exp(v_sub(v_load_n_or(x + i, left, lowest), shift)); /* 0 beyond the row */
    a = v_add(a, e);
    if (!take_log) v_store_n(y + i, e, left);
  }
  const float sum = v_hsum(a);
  if (take_log) {
    float lanes[VW];
    v_store(lanes, v_log(v_set1(sum)));
    const vf log_sum = v_set1(lanes[0]);
    for (size_t i = 0; i < n; i += VW) v_store_n(y + i, v_sub(v_sub(v_load_n(x + i, n - i), shift), log_sum), n - i);
    return;
  }
  const vf scale = v_set1(1.0f / sum);
  for (size_t i = 0; i < n; i += VW) v_store_n(y + i, v_mul(v_load_n(y + i, n - i), scale), n - i);
}

void NAME(ml__softmax_f32)(const float *x, float *y, size_t rows, size_t cols, bool log) {
  if (cols == 0) return;
  for (size_t i = 0; i < rows; i++) softmax_row(x + i * cols, y + i * cols, cols, log);
}
