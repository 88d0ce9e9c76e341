/* AVX2 + FMA behind the names the templates use. Included only by NAME_avx2.c.
 * vf: 8 floats, vi: 8 int32, vb: a lane mask. *_n touches only the first n lanes (n may be 0 or beyond the width), memory beyond
 * them is neither read nor written; lanes not loaded are 0. */
#ifndef ML_KERNELS_SIMD_AVX2_H
#define ML_KERNELS_SIMD_AVX2_H
#include <immintrin.h>
#include "kernels/kernels_internal.h"

#define ML__ISA avx2
#define VW 8
#define TILE_PANELS 1     /* panels per tile with several rows: 6 x 16, 12 of 16 registers accumulate */
#define TILE_ROW_PANELS 4 /* panels per tile of a single row: 8 accumulators hide the FMA latency */

typedef __m256 vf;
typedef __m256i vi;
typedef __m256 vb;

static const int32_t ml__lanes[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
static inline vi v_lanes(size_t n) {
  return _mm256_loadu_si256((const __m256i *)(const void *)(ml__lanes + 8 - (n < 8 ? n : 8)));
}

static inline vf v_zero(void) { return _mm256_setzero_ps(); }
static inline vf v_set1(float x) { return _mm256_set1_ps(x); }
static inline vf v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf v) { _mm256_storeu_ps(p, v); }
static inline vf v_load_n(const float *p, size_t n) { return _mm256_maskload_ps(p, v_lanes(n)); }
static inline vf v_load_n_or(const float *p, size_t n, vf other) { /* lanes not loaded come from `other` */
  return _mm256_blendv_ps(other, v_load_n(p, n), _mm256_castsi256_ps(v_lanes(n)));
}
static inline void v_store_n(float *p, vf v, size_t n) { /* a masked store is microcoded on AMD: 12 cycles or more */
  if (n >= 8) _mm256_storeu_ps(p, v);
  else _mm256_maskstore_ps(p, v_lanes(n), v);
}

static inline vf v_add(vf a, vf b) { return _mm256_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm256_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }   /* a b + c */
static inline vf v_fms(vf a, vf b, vf c) { return _mm256_fmsub_ps(a, b, c); }   /* a b - c */
static inline vf v_fnma(vf a, vf b, vf c) { return _mm256_fnmadd_ps(a, b, c); } /* c - a b */
static inline vf v_max(vf a, vf b) { return _mm256_max_ps(a, b); }              /* b when either is NaN */
static inline vf v_min(vf a, vf b) { return _mm256_min_ps(a, b); }              /* b when either is NaN */
static inline vf v_sqrt(vf a) { return _mm256_sqrt_ps(a); }
static inline vf v_round(vf a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf v_sign_bits(vf a) { return _mm256_and_ps(a, _mm256_set1_ps(-0.0f)); }
static inline vf v_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf v_xor(vf a, vf b) { return _mm256_xor_ps(a, b); }

static inline vb v_lt(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
static inline vb v_le(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LE_OQ); }
static inline vb v_eq(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
static inline vb v_nan(vf a) { return _mm256_cmp_ps(a, a, _CMP_UNORD_Q); }
static inline vb vb_or(vb a, vb b) { return _mm256_or_ps(a, b); }
static inline vb vb_none(void) { return _mm256_setzero_ps(); }
static inline bool vb_any(vb m) { return _mm256_movemask_ps(m) != 0; }
static inline vf v_select(vb m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); } /* m ? a : b */

static inline vi v_bits(vf a) { return _mm256_castps_si256(a); }
static inline vf v_from_bits(vi a) { return _mm256_castsi256_ps(a); }
static inline vi v_to_int(vf a) { return _mm256_cvtps_epi32(a); }
static inline vf v_from_int(vi a) { return _mm256_cvtepi32_ps(a); }
static inline vi vi_set1(int32_t x) { return _mm256_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm256_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm256_sub_epi32(a, b); }
static inline vi vi_exponent(vi a) { return _mm256_srai_epi32(a, 23); }
static inline vi vi_to_exponent(vi a) { return _mm256_slli_epi32(a, 23); }
static inline vi vi_half(vi a) { return _mm256_srai_epi32(a, 1); }

/* p * 2^n for integral n in [-150, 128], p in [0.5, 2): two steps, so that neither factor leaves the range of normal numbers */
static inline vf v_scale2(vf p, vf n) {
  vi i = v_to_int(n), half = vi_half(i), rest = vi_sub(i, half), bias = vi_set1(127);
  p = v_mul(p, v_from_bits(vi_to_exponent(vi_add(half, bias))));
  return v_mul(p, v_from_bits(vi_to_exponent(vi_add(rest, bias))));
}

static inline float v_hsum(vf v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline float v_hmax(vf v) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

/* Appends first + i to list for every i < n with x[i] != 0 (NaN counts); list has room for VW more than that. Returns
 * the count. */
static inline size_t v_nonzero(const float *x, size_t n, uint32_t first, uint32_t *list) {
  size_t count = 0;
  for (size_t i = 0; i < n; i += VW) {
    unsigned bits = (unsigned)_mm256_movemask_ps(_mm256_cmp_ps(v_load_n(x + i, n - i), v_zero(), _CMP_NEQ_UQ));
    for (; bits != 0; bits &= bits - 1) list[count++] = first + (uint32_t)i + (uint32_t)__builtin_ctz(bits);
  }
  return count;
}

/* to[c*to_ld + r] = from[r*from_ld + c] for an 8 x 8 block */
static inline void v_transpose(const float *from, size_t from_ld, float *to, size_t to_ld) {
  __m256 r[8], t[8];
#pragma GCC unroll 8
  for (size_t i = 0; i < 4; i++) { /* rows i and i+4 in the two halves */
    r[i] =
        _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + i * from_ld)), _mm_loadu_ps(from + (i + 4) * from_ld), 1);
    r[i + 4] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from + i * from_ld + 4)),
                                    _mm_loadu_ps(from + (i + 4) * from_ld + 4), 1);
  }
#pragma GCC unroll 8
  for (size_t i = 0; i < 8; i += 4) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    t[i + 2] = _mm256_unpacklo_ps(r[i + 2], r[i + 3]);
    t[i + 3] = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
    v_store(to + i * to_ld, _mm256_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(1, 0, 1, 0)));
    v_store(to + (i + 1) * to_ld, _mm256_shuffle_ps(t[i], t[i + 2], _MM_SHUFFLE(3, 2, 3, 2)));
    v_store(to + (i + 2) * to_ld, _mm256_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(1, 0, 1, 0)));
    v_store(to + (i + 3) * to_ld, _mm256_shuffle_ps(t[i + 1], t[i + 3], _MM_SHUFFLE(3, 2, 3, 2)));
  }
}

#endif
