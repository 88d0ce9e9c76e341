/* unary_f32, unary_grad_f32 and binary_f32 in plain C: the oracle of the tests and the fallback on any processor. */
#include <math.h>
#include "kernels/kernels_internal.h"

static float sigmoid(float x) {
  const float e = expf(-fabsf(x)); /* never overflows, and a small result keeps its precision */
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

/* max(x, 0) + log(1 + exp(-|x|)) */
static float softplus(float x) { return (x < 0.0f ? 0.0f : x) + log1pf(expf(-fabsf(x))); }

/* P(Z < x) for a standard normal Z; in double, as the tail would multiply the rounding error of its argument */
static double normal_cdf(float x) { return 0.5 * erfc(-(double)x * ML__SQRT_HALF); }

/* x P(Z < x) (Hendrycks & Gimpel 2016), the exact form; the limit at -infinity is 0 */
static float gelu(float x) { return x < -15.0f ? -0.0f : (float)((double)x * normal_cdf(x)); }

static float unary(ml_unary f, float x, float alpha, float gamma) {
  switch (f) {
    case ML_UN_NEG: return -x;
    case ML_UN_ABS: return fabsf(x);
    case ML_UN_SQRT: return sqrtf(x);
    case ML_UN_EXP: return expf(x);
    case ML_UN_LOG: return logf(x);
    case ML_UN_RECIPROCAL: return 1.0f / x;
    case ML_UN_RELU: return x < 0.0f ? 0.0f : x;
    case ML_UN_SIGMOID: return sigmoid(x);
    case ML_UN_TANH: return tanhf(x);
    case ML_UN_SOFTPLUS: return softplus(x);
    case ML_UN_ERF: return erff(x);
    case ML_UN_GELU: return gelu(x);
    case ML_UN_LEAKY_RELU: return x < 0.0f ? alpha * x : x;
    case ML_UN_ELU: return x < 0.0f ? alpha * expm1f(x) : x;
    case ML_UN_SELU: return gamma * (x < 0.0f ? alpha * expm1f(x) : x);
    case ML_UN_COUNT: break;
  }
  return x;
}

void ml__unary_f32_ref(ml_unary f, const float *x, float *y, size_t n, float alpha, float gamma) {
  for (size_t i = 0; i < n; i++) y[i] = unary(f, x[i], alpha, gamma);
}

/* Pointers of the forward pass that f does not use may be NULL, so they are read only where needed. */
void ml__unary_grad_f32_ref(ml_unary f, const float *x, const float *y, const float *dy, float *dx, size_t n, float alpha,
                            float gamma) {
  for (size_t i = 0; i < n; i++) {
    const float d = dy[i];
    float r = d;
    switch (f) {
      case ML_UN_NEG: r = -d; break;
      case ML_UN_ABS: r = x[i] == 0.0f ? 0.0f : copysignf(1.0f, x[i]) * d; break;
      case ML_UN_SQRT: r = 0.5f * d / y[i]; break;
      case ML_UN_EXP: r = d * y[i]; break;
      case ML_UN_LOG: r = d / x[i]; break;
      case ML_UN_RECIPROCAL: r = -d * (y[i] * y[i]); break;
      case ML_UN_RELU: r = y[i] <= 0.0f ? 0.0f : d; break;
      case ML_UN_SIGMOID: r = d * (y[i] * (1.0f - y[i])); break;
      case ML_UN_TANH: r = d * (1.0f - y[i] * y[i]); break;
      case ML_UN_SOFTPLUS: r = d * sigmoid(x[i]); break;
      case ML_UN_ERF: r = d * (1.12837916709551257f * expf(-x[i] * x[i])); break; /* 2 / sqrt(pi) */
      case ML_UN_GELU: { /* P(Z < x) + x exp(-x^2/2) / sqrt(2 pi) */
        const float b = fminf(fmaxf(x[i], -15.0f), 15.0f); /* the bell is 0 beyond; infinity * 0 would be NaN */
        r = d * ((float)normal_cdf(x[i]) + b * 0.398942280401432678f * expf(-0.5f * b * b));
        break;
      }
      case ML_UN_LEAKY_RELU: r = x[i] > 0.0f ? d : alpha * d; break;
      case ML_UN_ELU: r = x[i] > 0.0f ? d : d * (alpha * expf(x[i])); break;
      case ML_UN_SELU: r = gamma * (x[i] > 0.0f ? d : d * (alpha * expf(x[i]))); break;
      case ML_UN_COUNT: break;
    }
    dx[i] = r;
  }
}

void ml__binary_f32_ref(ml_binary op, const float *x, int sx, const float *y, int sy, float *z, size_t n) {
  if (n == 0) return;
  const float x0 = x[0], y0 = y[0]; /* z may be x or y */
  for (size_t i = 0; i < n; i++) {
    const float a = sx ? x[i] : x0, b = sy ? y[i] : y0;
    float r = a;
    switch (op) {
      case ML_BIN_ADD: r = a + b; break;
      case ML_BIN_SUB: r = a - b; break;
      case ML_BIN_MUL: r = a * b; break;
      case ML_BIN_DIV: r = a / b; break;
      case ML_BIN_MAX: r = isnan(a) || a > b ? a : b; break; /* NaN of either side wins, as NumPy's maximum */
      case ML_BIN_MIN: r = isnan(a) || a < b ? a : b; break;
      case ML_BIN_COUNT: break;
    }
    z[i] = r;
  }
}
