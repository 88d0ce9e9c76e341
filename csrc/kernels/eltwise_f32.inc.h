/* The vector forms of unary_f32, unary_grad_f32 and binary_f32; included by eltwise_f32_avx2.c and eltwise_f32_avx512.c after
 * their simd header. Full vectors and the masked tail go through the same instructions, so an element's result does not depend on
 * its place. Formulas are in eltwise_f32_ref.c. */
#include "kernels/kernels_internal.h"
#include "kernels/vector_math.inc.h"

#define NAME(f) ML__CAT3(f, _, ML__ISA)
#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* f is a constant at each call below */
ALWAYS_INLINE vf apply(const ml_unary f, vf x, vf alpha, vf gamma) {
  const vf zero = v_zero(), one = v_set1(1.0f);
  vf gauss;
  switch (f) {
    case ML_UN_NEG: return v_xor(x, v_set1(-0.0f));
    case ML_UN_ABS: return v_abs(x);
    case ML_UN_SQRT: return v_sqrt(x);
    case ML_UN_EXP: return v_exp(x);
    case ML_UN_LOG: return v_log(x);
    case ML_UN_RECIPROCAL: return v_div(one, x);
    case ML_UN_RELU: return v_max(zero, x);
    case ML_UN_SIGMOID: return v_sigmoid(x);
    case ML_UN_TANH: return v_tanh(x);
    case ML_UN_SOFTPLUS: return v_softplus(x);
    case ML_UN_ERF: return v_erf(x);
    case ML_UN_GELU: {
      vf cdf = v_normal_cdf(x, &gauss);
      return v_mul(v_max(v_set1(-15.0f), x), cdf); /* -infinity * 0 would be NaN */
    }
    case ML_UN_LEAKY_RELU: return v_select(v_lt(x, zero), v_mul(alpha, x), x);
    case ML_UN_ELU: return v_select(v_lt(x, zero), v_mul(alpha, v_expm1_negative(v_min(zero, x))), x);
    case ML_UN_SELU: return v_mul(gamma, v_select(v_lt(x, zero), v_mul(alpha, v_expm1_negative(v_min(zero, x))), x));
    case ML_UN_COUNT: break;
  }
  return x;
}

void NAME(ml__unary_f32)(ml_unary f, const float *x, float *y, size_t n, float alpha, float gamma) {
  const vf a = v_set1(alpha), c = v_set1(gamma);
  switch (f) {
#define CASE(kind) \
  case kind: { \
    size_t i = 0; \
    for (; i + VW <= n; i += VW) v_store(y + i, apply(kind, v_load(x + i), a, c)); \
    if (i < n) v_store_n(y + i, apply(kind, v_load_n(x + i, n - i), a, c), n - i); \
    break; \
  }
    CASE(ML_UN_NEG)
    CASE(ML_UN_ABS)
    CASE(ML_UN_SQRT)
    CASE(ML_UN_EXP)
    CASE(ML_UN_LOG)
    CASE(ML_UN_RECIPROCAL)
    CASE(ML_UN_RELU)
    CASE(ML_UN_SIGMOID)
    CASE(ML_UN_TANH)
    CASE(ML_UN_SOFTPLUS)
    CASE(ML_UN_ERF)
    CASE(ML_UN_GELU)
    CASE(ML_UN_LEAKY_RELU)
    CASE(ML_UN_ELU)
    CASE(ML_UN_SELU)
#undef CASE
    case ML_UN_COUNT: break;
  }
}

/* v: x or y of the forward pass, whichever the derivative needs */
ALWAYS_INLINE vf derivative(const ml_unary f, vf v, vf d, vf alpha, vf gamma) {
  const vf zero = v_zero(), one = v_set1(1.0f);
  vf gauss;
  switch (f) {
    case ML_UN_NEG: return v_xor(d, v_set1(-0.0f));
    case ML_UN_ABS: return v_select(v_eq(v, zero), zero, v_xor(d, v_sign_bits(v)));
    case ML_UN_SQRT: return v_div(v_mul(v_set1(0.5f), d), v);
    case ML_UN_EXP: return v_mul(d, v);
    case ML_UN_LOG: return v_div(d, v);
    case ML_UN_RECIPROCAL: return v_xor(v_mul(d, v_mul(v, v)), v_set1(-0.0f));
    case ML_UN_RELU: return v_select(v_le(v, zero), zero, d);
    case ML_UN_SIGMOID: return v_mul(d, v_mul(v, v_sub(one, v)));
    case ML_UN_TANH: return v_mul(d, v_fnma(v, v, one));
    case ML_UN_SOFTPLUS: return v_mul(d, v_sigmoid(v));
    case ML_UN_ERF: return v_mul(d, v_mul(v_set1(1.12837916709551257f), v_exp(v_xor(v_mul(v, v), v_set1(-0.0f)))));
    case ML_UN_GELU: {
      vf cdf = v_normal_cdf(v, &gauss);
      vf bounded = v_max(v_set1(-15.0f), v_min(v_set1(15.0f), v)); /* infinity * 0 would be NaN */
      return v_mul(d, v_fma(v_mul(bounded, v_set1(0.398942280401432678f)), gauss, cdf));
    }
    case ML_UN_LEAKY_RELU: return v_select(v_lt(zero, v), d, v_mul(alpha, d));
    case ML_UN_ELU: return v_select(v_lt(zero, v), d, v_mul(d, v_mul(alpha, v_exp(v_min(zero, v)))));
    case ML_UN_SELU: return v_mul(gamma, v_select(v_lt(zero, v), d, v_mul(d, v_mul(alpha, v_exp(v_min(zero, v))))));
    case ML_UN_COUNT: break;
  }
  return d;
}

void NAME(ml__unary_grad_f32)(ml_unary f, const float *x, const float *y, const float *dy, float *dx, size_t n, float alpha,
                              float gamma) {
  const vf a = v_set1(alpha), c = v_set1(gamma);
  switch (f) {
#define CASE(kind, from) \
  case kind: { \
    size_t i = 0; \
    for (; i + VW <= n; i += VW) v_store(dx + i, derivative(kind, v_load((from) + i), v_load(dy + i), a, c)); \
    if (i < n) v_store_n(dx + i, derivative(kind, v_load_n((from) + i, n - i), v_load_n(dy + i, n - i), a, c), n - i); \
    break; \
  }
    CASE(ML_UN_NEG, dy)
    CASE(ML_UN_ABS, x)
    CASE(ML_UN_SQRT, y)
    CASE(ML_UN_EXP, y)
    CASE(ML_UN_LOG, x)
    CASE(ML_UN_RECIPROCAL, y)
    CASE(ML_UN_RELU, y)
    CASE(ML_UN_SIGMOID, y)
    CASE(ML_UN_TANH, y)
    CASE(ML_UN_SOFTPLUS, x)
    CASE(ML_UN_ERF, x)
    CASE(ML_UN_GELU, x)
    CASE(ML_UN_LEAKY_RELU, x)
    CASE(ML_UN_ELU, x)
    CASE(ML_UN_SELU, x)
#undef CASE
    case ML_UN_COUNT: break;
  }
}

ALWAYS_INLINE vf combine(const ml_binary op, vf x, vf y) {
  switch (op) {
    case ML_BIN_ADD: return v_add(x, y);
    case ML_BIN_SUB: return v_sub(x, y);
    case ML_BIN_MUL: return v_mul(x, y);
    case ML_BIN_DIV: return v_div(x, y);
    case ML_BIN_MAX: return v_select(v_nan(x), x, v_max(x, y)); /* the second operand's NaN comes through by itself */
    case ML_BIN_MIN: return v_select(v_nan(x), x, v_min(x, y));
    case ML_BIN_COUNT: break;
  }
  return x;
}

ALWAYS_INLINE void binary(const ml_binary op, const float *x, int sx, const float *y, int sy, float *z, size_t n) {
  const vf x0 = v_set1(x[0]), y0 = v_set1(y[0]);
  size_t i = 0;
  for (; i + VW <= n; i += VW) v_store(z + i, combine(op, sx ? v_load(x + i) : x0, sy ? v_load(y + i) : y0));
  if (i < n) v_store_n(z + i, combine(op, sx ? v_load_n(x + i, n - i) : x0, sy ? v_load_n(y + i, n - i) : y0), n - i);
}

void NAME(ml__binary_f32)(ml_binary op, const float *x, int sx, const float *y, int sy, float *z, size_t n) {
  if (n == 0) return;
  switch (op) {
    case ML_BIN_ADD: binary(ML_BIN_ADD, x, sx, y, sy, z, n); break;
    case ML_BIN_SUB: binary(ML_BIN_SUB, x, sx, y, sy, z, n); break;
    case ML_BIN_MUL: binary(ML_BIN_MUL, x, sx, y, sy, z, n); break;
    case ML_BIN_DIV: binary(ML_BIN_DIV, x, sx, y, sy, z, n); break;
    case ML_BIN_MAX: binary(ML_BIN_MAX, x, sx, y, sy, z, n); break;
    case ML_BIN_MIN: binary(ML_BIN_MIN, x, sx, y, sy, z, n); break;
    case ML_BIN_COUNT: break;
  }
}
