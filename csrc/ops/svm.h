/* Support vector machines. Lives here: the kernel functions SVMClassifier and SVMRegressor share. May include: tensor, kernels,
 * base. Ownership: nothing is kept. */
#ifndef ML_OPS_SVM_H
#define ML_OPS_SVM_H
#include "kernels/kernels.h"
#include "ops/class_scores.h"

typedef enum ml__svm_kind { ML__SVM_LINEAR = 0, ML__SVM_POLY, ML__SVM_RBF, ML__SVM_SIGMOID } ml__svm_kind;

typedef struct ml__svm_kernel {
  ml__svm_kind kind;
  float gamma, coef0, degree;
} ml__svm_kernel;

/* Attributes kernel_type (default LINEAR) and kernel_params. */
ml_status ml__svm_kernel_of(const ml_attrs *attrs, ml__svm_kernel *out, ml_error *err);
/* out (rows, vectors) = k(x_r, v_j) + constant for LINEAR (which alone has a constant). x (rows, features), v (vectors,
 * features). */
void ml__svm_products(const ml_kernels *kernels, const ml__svm_kernel *kernel, const float *x, size_t rows, const float *v,
                      size_t vectors, size_t features, float constant, float *out);

#endif
