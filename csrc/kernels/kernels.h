/* Inner loops on raw pointers.
 * Lives here: the table of kernels; kernels/dispatch.c fills it once per process for the best instruction set (base/cpu.h).
 * May include: base. Nothing here allocates, checks or knows tensors; sizes are trusted by contract with ops and graph.
 * Files: NAME_ref.c is plain C, obviously right, the oracle and the fallback; NAME_avx2.c, NAME_avx512.c the fast forms. */
#ifndef ML_KERNELS_KERNELS_H
#define ML_KERNELS_KERNELS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a matrix product does to each output element before it is stored. */
typedef enum ml_activation {
  ML_ACT_NONE = 0, ML_ACT_RELU, ML_ACT_SIGMOID, ML_ACT_TANH, ML_ACT_LEAKY_RELU, ML_ACT_ELU, ML_ACT_SELU, ML_ACT_SOFTPLUS, ML_ACT_GELU
} ml_activation;

typedef enum ml_unary {
  ML_UN_NEG, ML_UN_ABS, ML_UN_SQRT, ML_UN_EXP, ML_UN_LOG, ML_UN_RECIPROCAL, ML_UN_RELU, ML_UN_SIGMOID, ML_UN_TANH, ML_UN_SOFTPLUS,
  ML_UN_ERF, ML_UN_GELU, ML_UN_LEAKY_RELU, ML_UN_ELU, ML_UN_SELU, ML_UN_COUNT
} ml_unary;

typedef enum ml_binary { ML_BIN_ADD, ML_BIN_SUB, ML_BIN_MUL, ML_BIN_DIV, ML_BIN_MAX, ML_BIN_MIN, ML_BIN_COUNT } ml_binary;


typedef struct ml_kernels {
  const char *name; /* "ref", "avx2", "avx512" */

  /* C(M,N) = alpha * op(A) op(B) + beta * C, row-major; op transposes when the flag is set. beta == 0: C is not read.
   * Uses OpenBLAS (one thread) where built with it and the product is large enough to gain. */
  void (*gemm_f32)(bool trans_a, bool trans_b, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda,
                   const float *B, size_t ldb, float beta, float *C, size_t ldc);

  /* dense layer with packed weights: Y(M,N) = act(X(M,K) W + b). pack gives the bytes needed; W is (K,N), or (N,K) when transposed. */
  size_t (*pack_bytes_f32)(size_t K, size_t N);
  void (*pack_f32)(const float *W, bool transposed, size_t K, size_t N, const float *bias /* (N) or NULL */, void *packed);
  void (*dense_f32)(const void *packed, size_t M, size_t K, size_t N, const float *X, size_t ldx, ml_activation act, float alpha,
                    float *Y, size_t ldy);

  /* y[i] = f(x[i]); y may be x. alpha is LeakyRelu's/Elu's/Selu's slope, gamma Selu's scale; others ignore them. */
  void (*unary_f32)(ml_unary f, const float *x, float *y, size_t n, float alpha, float gamma);
  /* z[i] = x[i*sx] op y[i*sy] with sx, sy in {0, 1} (0: one value for all) */
  void (*binary_f32)(ml_binary op, const float *x, int sx, const float *y, int sy, float *z, size_t n);

  float (*sum_f32)(const float *x, size_t n);                       /* pairwise/blocked: error O(log n), order fixed */
  float (*max_f32)(const float *x, size_t n);                       /* n >= 1; NaN wins */
  float (*dot_f32)(const float *x, const float *y, size_t n);
  void (*axpy_f32)(float a, const float *x, float *y, size_t n);    /* y += a x */
  void (*column_sum_f32)(const float *x, size_t rows, size_t cols, size_t ld, float *out, bool accumulate);
  void (*softmax_f32)(const float *x, float *y, size_t rows, size_t cols, bool log); /* over the last, contiguous axis */

  /* dx[i] = dy[i] f'(…), from the input x and output y of the forward pass; either may be NULL where f' does not need it:
   * relu (y), sigmoid (y), tanh (y), leaky_relu (x), elu (x), selu (x), softplus (x), gelu (x), erf (x). dx may be dy. */
  void (*unary_grad_f32)(ml_unary f, const float *x, const float *y, const float *dy, float *dx, size_t n, float alpha, float gamma);

  /* One fused pass over flat parameters. g is the gradient of the loss; l2 adds 2*l2*w to it and l1 adds l1*sign(w) (Keras's penalties
   * l2*sum w^2 and l1*sum |w|). With l1 a step ends at zero rather than beyond it, and at zero the subgradient nearest to zero counts, so weights
   * become exactly zero (Andrew, Gao: "Scalable training of L1-regularized log-linear models", ICML 2007). decay (AdamW, decoupled):
   * w -= lr*decay*w.
   * adam (Kingma & Ba 2015, as Keras/PyTorch): c1 = 1/(1-beta1^t), c2 = 1/(1-beta2^t); w -= lr * (m c1) / (sqrt(v c2) + eps). */
  void (*adam_f32)(float *w, const float *g, float *m, float *v, size_t n, float lr, float beta1, float beta2, float eps,
                   float c1, float c2, float l1, float l2, float decay);
  /* velocity = momentum*velocity + g; w -= lr * (nesterov ? g + momentum*velocity : velocity); velocity may be NULL when momentum == 0 (PyTorch's form) */
  void (*sgd_f32)(float *w, const float *g, float *velocity, size_t n, float lr, float momentum, bool nesterov, float l1, float l2, float decay);
  /* s = rho*s + (1-rho)*g^2; w -= lr*g/(sqrt(s)+eps) (Tieleman & Hinton 2012, PyTorch's form); velocity may be NULL */
  void (*rmsprop_f32)(float *w, const float *g, float *s, float *velocity, size_t n, float lr, float rho, float momentum, float eps, float l1, float l2, float decay);
  /* s += g^2; w -= lr*g/(sqrt(s)+eps) (Duchi et al. 2011) */
  void (*adagrad_f32)(float *w, const float *g, float *s, size_t n, float lr, float eps, float l1, float l2, float decay);
} ml_kernels;

/* The table for this processor. First call chooses; thread-safe; never NULL. */
const ml_kernels *ml_kernel_table(void);
/* The reference table, whatever the processor (the `none` optimisation level and the oracle of the tests). */
const ml_kernels *ml_kernel_table_ref(void);
/* A given table, or NULL when the processor or the build lacks it; isa as in base/cpu.h. For tests and bench. */
const ml_kernels *ml_kernel_table_for(int isa);
/* "OpenBLAS 0.3.21" or "none" */
const char *ml_blas_name(void);

#endif
