/* What the kernel files say to one another; nobody outside csrc/kernels includes this.
 * Every kernel exists once per instruction set, the last word of its name: ml__gemm_f32_ref, ml__gemm_f32_avx2, ….
 * The vector forms come from one template each (NAME.inc.h), compiled by NAME_avx2.c and NAME_avx512.c on top of simd_avx2.h and
 * simd_avx512.h; the packed layout of a dense layer is one for all sets, so a packed buffer fits every table. */
#ifndef ML_KERNELS_KERNELS_INTERNAL_H
#define ML_KERNELS_KERNELS_INTERNAL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kernels/kernels.h"

#define ML__CAT3_(a, b, c) a##b##c
#define ML__CAT3(a, b, c) ML__CAT3_(a, b, c)

#define ML__PANEL 16      /* columns of a packed panel: one AVX-512 register, two AVX2 registers */
#define ML__DOT_COLUMNS 4 /* layers up to this wide are stored by column and computed as dot products */
#define ML__SQRT_HALF 0.70710678118654752440
#define ML__SELU_GAMMA 1.05070102214813232421875f /* ONNX's default; ml_activation carries no gamma */

static inline size_t ml__min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t ml__round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* ---- packed dense layer: header, bias, weights ----
 * bias: N floats padded with zeros to a multiple of ML__PANEL.
 * weights, N > ML__DOT_COLUMNS: panels of ML__PANEL columns, each [K][ML__PANEL], missing columns zero;
 *          N <= ML__DOT_COLUMNS: N columns, each K floats padded with zeros to a multiple of ML__PANEL. */
typedef struct ml__packed_header {
  uint32_t finite; /* no weight is NaN or infinite: 0 * w is 0 and a zero input may be skipped */
  uint32_t unused[15];
} ml__packed_header;

static inline const float *ml__packed_bias(const void *packed) { return (const float *)((const ml__packed_header *)packed + 1); }
static inline const float *ml__packed_weights(const void *packed, size_t N) {
  return ml__packed_bias(packed) + ml__round_up(N, ML__PANEL);
}

size_t ml__pack_bytes_f32(size_t K, size_t N);
void ml__pack_f32(const float *W, bool transposed, size_t K, size_t N, const float *bias, void *packed);

/* ---- one block of a product with B in panels: M rows by N columns, all of the given K; ml__block_f32_ISA computes it ----
 * acc = bias, or C, or 0; acc += A B, k ascending; C = act(alpha * acc + beta * C). */
typedef enum ml__tile_start { ML__START_ZERO, ML__START_BIAS, ML__START_C } ml__tile_start;
typedef struct ml__tile {
  size_t K;
  const float *A;           /* A[i*a_row + k*a_col] */
  size_t a_row, a_col;
  const float *B;           /* panel p, step k: 16 floats at B + p*b_panel + k*b_row */
  size_t b_row, b_panel;
  float *C;                 /* (rows, columns), columns may end inside the last panel */
  size_t ldc;
  size_t last;              /* columns of the last panel, 1..ML__PANEL */
  ml__tile_start start;
  const float *bias;        /* padded like the panels; ML__START_BIAS only */
  bool scale;               /* alpha and beta apply */
  float alpha, beta;
  ml_activation act;        /* NONE, RELU or LEAKY_RELU; others are applied to the finished rows by the caller */
  float slope;              /* of LEAKY_RELU */
  const uint32_t *steps;    /* the k to visit (K of them) instead of 0..K-1, rows == 1 only; or NULL */
} ml__tile;

/* ---- where gemm_f32 packs its operands: a kernel may not allocate, so each thread has room for one block of each ---- */
#define ML__GEMM_K_BLOCK 256
#define ML__GEMM_N_BLOCK 256 /* 256 KiB of B */
#define ML__GEMM_M_BLOCK 96  /* 96 KiB of A, a multiple of the rows of a tile */
typedef struct ml__gemm_block_buffers {
  float b[ML__GEMM_K_BLOCK * ML__GEMM_N_BLOCK] __attribute__((aligned(64)));
  float a[ML__GEMM_K_BLOCK * ML__GEMM_M_BLOCK] __attribute__((aligned(64)));
} ml__gemm_block_buffers;
extern _Thread_local ml__gemm_block_buffers ml__gemm_buffers;

/* The unary that is activation `act`. */
static inline ml_unary ml__activation_unary(ml_activation act) {
  switch (act) {
    case ML_ACT_SIGMOID: return ML_UN_SIGMOID;
    case ML_ACT_TANH: return ML_UN_TANH;
    case ML_ACT_LEAKY_RELU: return ML_UN_LEAKY_RELU;
    case ML_ACT_ELU: return ML_UN_ELU;
    case ML_ACT_SELU: return ML_UN_SELU;
    case ML_ACT_SOFTPLUS: return ML_UN_SOFTPLUS;
    case ML_ACT_GELU: return ML_UN_GELU;
    case ML_ACT_NONE:
    case ML_ACT_RELU: break;
  }
  return ML_UN_RELU;
}

/* Declares all kernels of one instruction set; the signatures are those of ml_kernels. */
#define ML__DECLARE_KERNELS(isa) \
  void ml__gemm_f32_##isa(bool trans_a, bool trans_b, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda, \
                          const float *B, size_t ldb, float beta, float *C, size_t ldc); \
  void ml__block_f32_##isa(const ml__tile *corner, size_t M, size_t N); \
  void ml__dense_f32_##isa(const void *packed, size_t M, size_t K, size_t N, const float *X, size_t ldx, ml_activation act, \
                           float alpha, float *Y, size_t ldy); \
  void ml__unary_f32_##isa(ml_unary f, const float *x, float *y, size_t n, float alpha, float gamma); \
  void ml__unary_grad_f32_##isa(ml_unary f, const float *x, const float *y, const float *dy, float *dx, size_t n, float alpha, \
                                float gamma); \
  void ml__binary_f32_##isa(ml_binary op, const float *x, int sx, const float *y, int sy, float *z, size_t n); \
  float ml__sum_f32_##isa(const float *x, size_t n); \
  float ml__max_f32_##isa(const float *x, size_t n); \
  float ml__dot_f32_##isa(const float *x, const float *y, size_t n); \
  void ml__axpy_f32_##isa(float a, const float *x, float *y, size_t n); \
  void ml__column_sum_f32_##isa(const float *x, size_t rows, size_t cols, size_t ld, float *out, bool accumulate); \
  void ml__softmax_f32_##isa(const float *x, float *y, size_t rows, size_t cols, bool log); \
  void ml__adam_f32_##isa(float *w, const float *g, float *m, float *v, size_t n, float lr, float beta1, float beta2, float eps, \
                          float c1, float c2, float l1, float l2, float decay); \
  void ml__sgd_f32_##isa(float *w, const float *g, float *velocity, size_t n, float lr, float momentum, bool nesterov, float l1, \
                         float l2, float decay); \
  void ml__rmsprop_f32_##isa(float *w, const float *g, float *s, float *velocity, size_t n, float lr, float rho, float momentum, \
                             float eps, float l1, float l2, float decay); \
  void ml__adagrad_f32_##isa(float *w, const float *g, float *s, size_t n, float lr, float eps, float l1, float l2, float decay)

ML__DECLARE_KERNELS(ref);
ML__DECLARE_KERNELS(avx2);
ML__DECLARE_KERNELS(avx512);

#endif
