/* Elementary functions on vectors, for the templates; include after a simd header.
 *
 * Accuracy: at most a few units in the last place over the whole range, subnormal results included; limits are exact, NaN goes
 * through. The polynomials are minimax fits of our own (Lawson's iteration at 400 Chebyshev nodes, coefficients rounded to
 * float); the error given is relative to the function, before rounding. Range reduction is Cody & Waite's (1980): x = n ln 2 +
 * r. */
#ifndef ML_KERNELS_VECTOR_MATH_INC_H
#define ML_KERNELS_VECTOR_MATH_INC_H

#define MATH static inline __attribute__((always_inline)) vf

/* expm1(r) for |r| <= ln(2)/2, 1.8e-8 */
MATH v_expm1_reduced(vf r) {
  vf p = v_fma(v_set1(1.388250384e-03f), r, v_set1(8.366581053e-03f));
  p = v_fma(p, r, v_set1(4.166720062e-02f));
  p = v_fma(p, r, v_set1(1.666654348e-01f));
  p = v_fma(p, r, v_set1(4.999999702e-01f));
  return v_fma(p, v_mul(r, r), r);
}

/* x = n ln 2 + r; ln 2 in two parts, n * the first is exact */
MATH v_reduce_exp(vf x, vf *n) {
  *n = v_round(v_mul(x, v_set1(1.44269504088896341f)));
  return v_fnma(*n, v_set1(-2.12194440054690583e-04f), v_fnma(*n, v_set1(0.693359375f), x));
}

MATH v_exp(vf x) {
  vf n;
  x = v_max(v_set1(-104.0f), v_min(v_set1(89.0f), x)); /* beyond these 0 and infinity; NaN stays */
  vf r = v_reduce_exp(x, &n);
  return v_scale2(v_add(v_set1(1.0f), v_expm1_reduced(r)), n);
}

/* expm1(x) for x <= 0 (and NaN): 2^n expm1(r) + (2^n - 1), which cancels nowhere */
MATH v_expm1_negative(vf x) {
  vf n;
  x = v_max(v_set1(-87.0f), x);
  vf q = v_expm1_reduced(v_reduce_exp(x, &n));
  vf s = v_from_bits(vi_to_exponent(vi_add(v_to_int(n), vi_set1(127))));
  return v_fma(s, q, v_sub(s, v_set1(1.0f)));
}

/* log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)], 5.4e-9 */
MATH v_log1p_reduced(vf f) {
  vf p = v_fma(v_set1(-7.622108608e-02f), f, v_set1(1.290469021e-01f));
  p = v_fma(p, f, v_set1(-1.324297637e-01f));
  p = v_fma(p, f, v_set1(1.418177933e-01f));
  p = v_fma(p, f, v_set1(-1.660907716e-01f));
  p = v_fma(p, f, v_set1(2.000197619e-01f));
  p = v_fma(p, f, v_set1(-2.500158250e-01f));
  p = v_fma(p, f, v_set1(3.333332539e-01f));
  p = v_fma(p, f, v_set1(-4.999998808e-01f));
  return v_fma(p, v_mul(f, f), f);
}

MATH v_log(vf x) {
  const vf tiny = v_set1(1.17549435e-38f), infinity = v_set1(__builtin_inff());
  vb subnormal = v_lt(x, tiny);
  vf y = v_select(subnormal, v_mul(x, v_set1(33554432.0f)), x); /* 2^25 */
  /* y = 2^e m with m in [sqrt(1/2), sqrt(2)) */
  vi e = vi_exponent(vi_sub(v_bits(y), vi_set1(0x3f3504f3)));
  vf f = v_sub(v_from_bits(vi_sub(v_bits(y), vi_to_exponent(e))), v_set1(1.0f));
  vf n = v_sub(v_from_int(e), v_select(subnormal, v_set1(25.0f), v_zero()));
  vf r = v_fma(n, v_set1(-2.12194440054690583e-04f), v_log1p_reduced(f));
  r = v_fma(n, v_set1(0.693359375f), r);
  r = v_select(v_eq(x, infinity), infinity, r);
  r = v_select(v_eq(x, v_zero()), v_set1(-__builtin_inff()), r);
  return v_select(vb_or(v_lt(x, v_zero()), v_nan(x)), v_set1(__builtin_nanf("")), r);
}

/* log(1 + e) for e in [0, 1] (and NaN); halved above sqrt(2), where 1 + e = 2 (1 + (e - 1)/2) and e - 1 is exact */
MATH v_log1p_unit(vf e) {
  vb high = v_lt(v_set1(0.41421356f), e);
  vf f = v_select(high, v_mul(v_set1(0.5f), v_sub(e, v_set1(1.0f))), e);
  vf k = v_select(high, v_set1(0.69314718056f), v_zero());
  return v_add(k, v_log1p_reduced(f));
}

/* 1 / (1 + exp(-x)), from exp(-|x|) so that small results keep their precision */
MATH v_sigmoid(vf x) {
  vf e = v_exp(v_xor(v_abs(x), v_set1(-0.0f)));
  return v_div(v_select(v_lt(x, v_zero()), e, v_set1(1.0f)), v_add(v_set1(1.0f), e));
}

/* tanh(|x|) = -m / (2 + m) with m = expm1(-2 |x|) */
MATH v_tanh(vf x) {
  vf m = v_expm1_negative(v_mul(v_set1(-2.0f), v_abs(x)));
  return v_xor(v_div(v_abs(m), v_add(v_set1(2.0f), m)), v_sign_bits(x));
}

MATH v_softplus(vf x) {
  vf e = v_exp(v_xor(v_abs(x), v_set1(-0.0f)));
  return v_add(v_max(v_zero(), x), v_log1p_unit(e));
}

/* |x| < 1: x + x P(x^2), 4e-9. Beyond: 1 - exp(Q(|x|) - x^2), 6e-9 of the result, and 1 from 4 on. */
MATH v_erf(vf x) {
  vf t = v_abs(x), z = v_mul(x, x);
  vf p = v_fma(v_set1(7.853854186e-05f), z, v_set1(-8.010191377e-04f));
  p = v_fma(p, z, v_set1(5.188327283e-03f));
  p = v_fma(p, z, v_set1(-2.685381100e-02f));
  p = v_fma(p, z, v_set1(1.128358543e-01f));
  p = v_fma(p, z, v_set1(-3.761262596e-01f));
  p = v_fma(p, z, v_set1(1.283791661e-01f));
  p = v_fma(p, x, x);
  vf u = v_min(v_set1(4.0f), t);
  vf q = v_fma(v_set1(1.863800862e-04f), u, v_set1(-2.947666682e-03f));
  q = v_fma(q, u, v_set1(2.183809690e-02f));
  q = v_fma(q, u, v_set1(-1.031068191e-01f));
  q = v_fma(q, u, v_set1(3.618552387e-01f));
  q = v_fma(q, u, v_set1(-1.127089262e+00f));
  q = v_fma(q, u, v_set1(-3.415125830e-04f));
  q = v_sub(v_set1(1.0f), v_exp(v_fnma(u, u, q)));
  return v_select(v_lt(t, v_set1(1.0f)), p, v_xor(q, v_sign_bits(x)));
}

/* The upper tail of the normal distribution, P(Z > t) for t >= 0, and exp(-t^2/2). With s = t / sqrt(2) and u = 1 / (1 + s/2):
 * erfc(s) = exp(-s^2) u P(u), 4.7e-8. The rounding error of t^2 is put back: it would be multiplied by t^2. */
MATH v_normal_tail(vf t, vf *gauss) {
  t = v_min(v_set1(15.0f), t); /* both are 0 from there on */
  vf square = v_mul(t, t), lost = v_fms(t, t, square);
  vf e = v_exp(v_mul(v_set1(-0.5f), square));
  e = v_fnma(e, v_mul(v_set1(0.5f), lost), e);
  vf u = v_div(v_set1(1.0f), v_fma(t, v_set1((float)(0.5 * ML__SQRT_HALF)), v_set1(1.0f)));
  vf p = v_fma(v_set1(-5.893144384e-02f), u, v_set1(2.839013934e-01f));
  p = v_fma(p, u, v_set1(-4.857991040e-01f));
  p = v_fma(p, u, v_set1(2.764566243e-01f));
  p = v_fma(p, u, v_set1(-2.550987713e-02f));
  p = v_fma(p, u, v_set1(2.022116780e-01f));
  p = v_fma(p, u, v_set1(2.432247698e-01f));
  p = v_fma(p, u, v_set1(2.823585272e-01f));
  p = v_fma(p, u, v_set1(2.820873857e-01f));
  *gauss = e;
  return v_mul(v_mul(v_set1(0.5f), e), v_mul(u, p));
}

/* P(Z < x) */
MATH v_normal_cdf(vf x, vf *gauss) {
  vf tail = v_normal_tail(v_abs(x), gauss);
  return v_select(v_lt(x, v_zero()), tail, v_sub(v_set1(1.0f), tail));
}

#undef MATH
#endif
