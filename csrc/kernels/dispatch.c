/* The tables of kernels and the choice among them: the only place that knows which instruction set runs.
 * The chosen table is one of the three process-wide mutables DESIGN allows: an atomic pointer that every thread would set to the
 * same value, so no lock is needed. */
#include <stdatomic.h>
#include "base/cpu.h"
#include "kernels/kernels.h"
#include "kernels/kernels_internal.h"

#if defined(__x86_64__)
#define HAS_X86 1
#else
#define HAS_X86 0
#endif

#ifdef ML_BLAS_OPENBLAS
#include <cblas.h>
#include <limits.h>
#include <stdio.h>
void openblas_set_num_threads(int threads); /* a generic cblas.h lacks these two */
char *openblas_get_config(void);
int blas_thread_shutdown_(void) __attribute__((weak)); /* absent from builds without threads */

static char blas_name[64];

/* One thread: the callers split the work. The idle workers OpenBLAS started when it was loaded are ended: they would survive no fork, and the
 * kernel could hand them signals the program waits for elsewhere. The first two words of the configuration are name and version. */
__attribute__((constructor)) static void blas_start(void) {
  openblas_set_num_threads(1);
  if (blas_thread_shutdown_) blas_thread_shutdown_();
  const char *config = openblas_get_config();
  int length = 0;
  for (int words = 0; config[length] != '\0'; length++) {
    if (config[length] == ' ' && ++words == 2) break;
  }
  snprintf(blas_name, sizeof blas_name, "%.*s", length, config);
}

const char *ml_blas_name(void) {
  return blas_name;
}

/* OpenBLAS is used where every dimension is at least `least`: measured on Zen 4 against its own kernels for the same instruction
 * set (bench_kernels). Below that ours are equal or faster, by 5 to 50 % where a dimension is small. */
static bool blas_gemm(size_t least, bool trans_a, bool trans_b, size_t M, size_t N, size_t K, float alpha, const float *A,
                      size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc) {
  if (M < least || N < least || K < least) return false;
  if (M > INT_MAX || N > INT_MAX || K > INT_MAX || lda > INT_MAX || ldb > INT_MAX || ldc > INT_MAX) return false;
  cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans, (int)M, (int)N, (int)K,
              alpha, A, (int)lda, B, (int)ldb, beta, C, (int)ldc);
  return true;
}

#define GEMM(isa) gemm_f32_##isa
#define DEFINE_GEMM(isa, least) \
  static void gemm_f32_##isa(bool trans_a, bool trans_b, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda, \
                             const float *B, size_t ldb, float beta, float *C, size_t ldc) { \
    if (blas_gemm(least, trans_a, trans_b, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc)) return; \
    ml__gemm_f32_##isa(trans_a, trans_b, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc); \
  }
DEFINE_GEMM(ref, 16)
#if HAS_X86
DEFINE_GEMM(avx2, 768)
DEFINE_GEMM(avx512, 1024)
#endif
#else
#define GEMM(isa) ml__gemm_f32_##isa
const char *ml_blas_name(void) { return "none"; }
#endif

#define TABLE(isa, gemm) \
  { \
    .name = #isa, .gemm_f32 = gemm, .pack_bytes_f32 = ml__pack_bytes_f32, .pack_f32 = ml__pack_f32, \
    .dense_f32 = ml__dense_f32_##isa, .unary_f32 = ml__unary_f32_##isa, .binary_f32 = ml__binary_f32_##isa, \
    .sum_f32 = ml__sum_f32_##isa, .max_f32 = ml__max_f32_##isa, .dot_f32 = ml__dot_f32_##isa, .axpy_f32 = ml__axpy_f32_##isa, \
    .column_sum_f32 = ml__column_sum_f32_##isa, .softmax_f32 = ml__softmax_f32_##isa, \
    .unary_grad_f32 = ml__unary_grad_f32_##isa, .adam_f32 = ml__adam_f32_##isa, .sgd_f32 = ml__sgd_f32_##isa, \
    .rmsprop_f32 = ml__rmsprop_f32_##isa, .adagrad_f32 = ml__adagrad_f32_##isa \
  }

/* The reference stays free of OpenBLAS: it is the oracle. */
static const ml_kernels table_ref = TABLE(ref, ml__gemm_f32_ref);
static const ml_kernels table_portable = TABLE(ref, GEMM(ref)); /* for processors without a table of their own */
#if HAS_X86
static const ml_kernels table_avx2 = TABLE(avx2, GEMM(avx2));
static const ml_kernels table_avx512 = TABLE(avx512, GEMM(avx512));
#endif

const ml_kernels *ml_kernel_table_ref(void) { return &table_ref; }

const ml_kernels *ml_kernel_table_for(int isa) {
  if (isa == ML_ISA_REF) return &table_ref;
#if HAS_X86
  const ml_isa best = ml_cpu_isa();
  if (isa == ML_ISA_AVX2 && (best == ML_ISA_AVX2 || best == ML_ISA_AVX512)) return &table_avx2;
  if (isa == ML_ISA_AVX512 && best == ML_ISA_AVX512) return &table_avx512;
#endif
  return NULL;
}

const ml_kernels *ml_kernel_table(void) {
  static _Atomic(const ml_kernels *) chosen;
  const ml_kernels *table = atomic_load_explicit(&chosen, memory_order_acquire);
  if (table == NULL) {
    const ml_isa isa = ml_cpu_isa();
    table = isa == ML_ISA_REF ? NULL : ml_kernel_table_for((int)isa);
    if (table == NULL) table = &table_portable;
    atomic_store_explicit(&chosen, table, memory_order_release);
  }
  return table;
}
