/* AVX-512 (F, BW, DQ, VL) behind the names the templates use. Included only by NAME_avx512.c. The contract is simd_avx2.h's, with
 * 16 lanes. */
#ifndef ML_KERNELS_SIMD_AVX512_H
#define ML_KERNELS_SIMD_AVX512_H
#include <immintrin.h>
#include "kernels/kernels_internal.h"

#define ML__ISA avx512
#define VW 16
#define TILE_PANELS 4     /* panels per tile with several rows: 6 x 64, 24 of 32 registers accumulate */
#define TILE_ROW_PANELS 8 /* panels per tile of a single row */

typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vb;

static inline __mmask16 v_lanes(size_t n) { return _cvtu32_mask16(n < 16 ? (1u << n) - 1u : 0xffffu); }

static inline vf v_zero(void) { return _mm512_setzero_ps(); }
static inline vf v_set1(float x) { return _mm512_set1_ps(x); }
static inline vf v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf v) { _mm512_storeu_ps(p, v); }
static inline vf v_load_n(const float *p, size_t n) { return _mm512_maskz_loadu_ps(v_lanes(n), p); }
static inline vf v_load_n_or(const float *p, size_t n, vf other) { return _mm512_mask_loadu_ps(other, v_lanes(n), p); }
static inline void v_store_n(float *p, vf v, size_t n) { _mm512_mask_storeu_ps(p, v_lanes(n), v); }

static inline vf v_add(vf a, vf b) { return _mm512_add_ps(a, b); }
static inline vf v_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
static inline vf v_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
static inline vf v_div(vf a, vf b) { return _mm512_div_ps(a, b); }
static inline vf v_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf v_fms(vf a, vf b, vf c) { return _mm512_fmsub_ps(a, b, c); }
static inline vf v_fnma(vf a, vf b, vf c) { return _mm512_fnmadd_ps(a, b, c); }
static inline vf v_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf v_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline vf v_sqrt(vf a) { return _mm512_sqrt_ps(a); }
static inline vf v_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf v_sign_bits(vf a) { return _mm512_and_ps(a, _mm512_set1_ps(-0.0f)); }
static inline vf v_abs(vf a) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), a); }
static inline vf v_xor(vf a, vf b) { return _mm512_xor_ps(a, b); }

static inline vb v_lt(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
static inline vb v_le(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
static inline vb v_eq(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
static inline vb v_nan(vf a) { return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q); }
static inline vb vb_or(vb a, vb b) { return (vb)(a | b); }
static inline vb vb_none(void) { return 0; }
static inline bool vb_any(vb m) { return m != 0; }
static inline vf v_select(vb m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }

static inline vi v_bits(vf a) { return _mm512_castps_si512(a); }
static inline vf v_from_bits(vi a) { return _mm512_castsi512_ps(a); }
static inline vf v_from_int(vi a) { return _mm512_cvtepi32_ps(a); }
static inline vi v_to_int(vf a) { return _mm512_cvtps_epi32(a); }
static inline vi vi_set1(int32_t x) { return _mm512_set1_epi32(x); }
static inline vi vi_add(vi a, vi b) { return _mm512_add_epi32(a, b); }
static inline vi vi_sub(vi a, vi b) { return _mm512_sub_epi32(a, b); }
static inline vi vi_exponent(vi a) { return _mm512_srai_epi32(a, 23); }
static inline vi vi_to_exponent(vi a) { return _mm512_slli_epi32(a, 23); }

static inline vf v_scale2(vf p, vf n) { return _mm512_scalef_ps(p, n); }

static inline float v_hsum(vf v) { return _mm512_reduce_add_ps(v); }
static inline float v_hmax(vf v) { return _mm512_reduce_max_ps(v); }

static inline size_t v_nonzero(const float *x, size_t n, uint32_t first, uint32_t *list) {
  size_t count = 0;
  vi index = vi_add(vi_set1((int32_t)first), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  for (size_t i = 0; i < n; i += VW) { /* compress in the register: to memory it is microcoded on Zen 4 */
    __mmask16 bits = _mm512_cmp_ps_mask(v_load_n(x + i, n - i), v_zero(), _CMP_NEQ_UQ);
    _mm512_storeu_si512(list + count, _mm512_maskz_compress_epi32(bits, index));
    count += (size_t)__builtin_popcount(bits);
    index = vi_add(index, vi_set1(VW));
  }
  return count;
}

/* to[c*to_ld + r] = from[r*from_ld + c] for a 16 x 16 block */
static inline void v_transpose(const float *from, size_t from_ld, float *to, size_t to_ld) {
  __m512 r[16], t[16];
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; i++) r[i] = v_load(from + i * from_ld);
#pragma GCC unroll 16
  for (size_t i = 0; i < 16; i += 4) { /* 4 x 4 blocks within 128-bit lanes */
    __m512 a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
    __m512 c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
    t[i] = _mm512_shuffle_ps(a, c, _MM_SHUFFLE(1, 0, 1, 0));
    t[i + 1] = _mm512_shuffle_ps(a, c, _MM_SHUFFLE(3, 2, 3, 2));
    t[i + 2] = _mm512_shuffle_ps(b, d, _MM_SHUFFLE(1, 0, 1, 0));
    t[i + 3] = _mm512_shuffle_ps(b, d, _MM_SHUFFLE(3, 2, 3, 2));
  }
#pragma GCC unroll 16
  for (size_t i = 0; i < 4; i++) { /* then the 4 x 4 lanes: column 4l + i from lane l of t[i], t[i+4], t[i+8], t[i+12] */
    __m512 a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x44), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xee);
    __m512 c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x44), d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xee);
    v_store(to + i * to_ld, _mm512_shuffle_f32x4(a, c, 0x88));
    v_store(to + (i + 4) * to_ld, _mm512_shuffle_f32x4(a, c, 0xdd));
    v_store(to + (i + 8) * to_ld, _mm512_shuffle_f32x4(b, d, 0x88));
    v_store(to + (i + 12) * to_ld, _mm512_shuffle_f32x4(b, d, 0xdd));
  }
}

#endif
