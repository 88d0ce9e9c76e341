/* Kernel functions: LINEAR x.v, POLY (gamma x.v + coef0)^degree, RBF exp(-gamma |x - v|^2), SIGMOID tanh(gamma x.v + coef0);
 * Chang & Lin 2011 (LIBSVM). RBF sums squared differences, not |x|^2 + |v|^2 - 2 x.v, which cancels for close points. */
#include "ops/svm.h"
#include <math.h>
#include "ops/product.h"

ml_status ml__svm_kernel_of(const ml_attrs *attrs, ml__svm_kernel *out, ml_error *err) {
  static const char *const names[] = { "LINEAR", "POLY", "RBF", "SIGMOID" };
  ml_view params = { 0 };
  size_t kind = 0;
  while (kind < 4 && !ml_attr_is(attrs, "kernel_type", "LINEAR", names[kind])) kind++;
  if (kind == 4) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute kernel_type: expected LINEAR, POLY, RBF or SIGMOID");
  *out = (ml__svm_kernel) { .kind = (ml__svm_kind)kind };
  if (!ml__attr_list(attrs, "kernel_params", &params) || params.count == 0) return ML_OK;
  if (params.count != 3)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute kernel_params has %zu values, expected gamma, coef0, degree",
                   params.count);
  const float *p = params.data;
  out->gamma = p[0];
  out->coef0 = p[1];
  out->degree = p[2];
  return ML_OK;
}

static float squared_distance(const float *a, const float *b, size_t n) {
  float part[8] = { 0 }, rest = 0;
  size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (size_t k = 0; k < 8; k++) {
      float d = a[i + k] - b[i + k];
      part[k] += d * d;
    }
  for (; i < n; i++) rest += (a[i] - b[i]) * (a[i] - b[i]);
  return ((part[0] + part[4]) + (part[1] + part[5])) + ((part[2] + part[6]) + (part[3] + part[7])) + rest;
}

static void power(float *v, size_t n, float degree) {
  if (degree == 2) for (size_t i = 0; i < n; i++) v[i] = v[i] * v[i];
  else if (degree == 3) for (size_t i = 0; i < n; i++) v[i] = v[i] * v[i] * v[i];
  else for (size_t i = 0; i < n; i++) v[i] = powf(v[i], degree);
}

void ml__svm_products(const ml_kernels *kernels, const ml__svm_kernel *kernel, const float *x, size_t rows, const float *v,
                      size_t vectors, size_t features, float constant, float *out) {
  size_t n = rows * vectors;
  if (n == 0) return;
  if (kernel->kind == ML__SVM_RBF) {
    for (size_t r = 0; r < rows; r++)
      for (size_t j = 0; j < vectors; j++)
        out[r * vectors + j] = -kernel->gamma * squared_distance(x + r * features, v + j * features, features);
    kernels->unary_f32(ML_UN_EXP, out, out, n, 0, 0);
    return;
  }
  bool linear = kernel->kind == ML__SVM_LINEAR;
  float c = linear ? constant : kernel->coef0;
  for (size_t i = 0; i < n; i++) out[i] = c;
  ml__product(kernels, ML_FLOAT32, false, true, rows, vectors, features, linear ? 1 : (double)kernel->gamma, x, features, v,
              features,
              1, out, vectors);
  if (kernel->kind == ML__SVM_POLY) power(out, n, kernel->degree);
  if (kernel->kind == ML__SVM_SIGMOID) kernels->unary_f32(ML_UN_TANH, out, out, n, 0, 0);
}
