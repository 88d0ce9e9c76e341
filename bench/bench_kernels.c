/* Times the kernels of every table on one core: bench_kernels [avx512|avx2|ref [milliseconds per case]].
 * Each line: what, minimum and median microseconds per call, GFLOP/s at the minimum. Built with ML_BLAS_OPENBLAS the products are
 * also timed through OpenBLAS (one thread), beside our own kernel, so that the limits in dispatch.c can be chosen. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/cpu.h"
#include "kernels/kernels.h"
#include "kernels/kernels_internal.h"
#ifdef ML_BLAS_OPENBLAS
#include <cblas.h>
void openblas_set_num_threads(int threads);
#endif

enum { SAMPLES = 400 };
static const ml_kernels *table;
static double budget_ns = 30e6;

typedef struct stopwatch {
  double samples[SAMPLES];
  int count;
  unsigned repeat;
  double began, sample_began;
  unsigned done;
} stopwatch;
static stopwatch watch;

static int ascending(const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double now(void) { return (double)ml_clock_ns(); }

/* for (start(); running();) body: repeats the body for the budget and keeps the time of each handful of runs */
static void start(void) {
  watch = (stopwatch){.repeat = 1};
  watch.began = watch.sample_began = now();
}
static bool running(void) {
  __asm__ volatile("" ::: "memory");
  if (watch.done++ < watch.repeat) return true;
  const double t = now(), took = t - watch.sample_began;
  if (took < 20e3 && watch.count == 0) { /* a sample shall last 20 us or more */
    watch.repeat *= 2;
  } else {
    watch.samples[watch.count++] = took / watch.repeat;
  }
  watch.done = 1;
  watch.sample_began = now();
  return watch.count < SAMPLES && (t - watch.began < budget_ns || watch.count < 3);
}
static void report(const char *what, double flops) {
  qsort(watch.samples, (size_t)watch.count, sizeof(double), ascending);
  const double least = watch.samples[0], median = watch.samples[watch.count / 2];
  printf("%-6s %-46s min %10.3f us  median %10.3f us", table == NULL ? "blas" : table->name, what, least / 1e3, median / 1e3);
  if (flops > 0) printf("  %7.1f GFLOP/s", flops / least);
  printf("\n");
}

static float *floats(size_t n) {
  float *p = aligned_alloc(64, (n * sizeof(float) + 127) / 64 * 64);
  if (p == NULL) exit(EXIT_FAILURE);
  static unsigned seed = 1;
  for (size_t i = 0; i < n; i++) p[i] = (float)((seed = seed * 1664525u + 1013904223u) >> 8) / 8388608.0f - 1.0f;
  return p;
}

/* ---- inference ---- */
static void bench_mlp(const char *name, const size_t *d, size_t layers, const ml_activation *act, unsigned zeros) {
  enum { ROWS = 64 };
  void *packed[4];
  float *h[5];
  double flops = 0;
  h[0] = floats(ROWS * d[0]);
  for (size_t i = 0; i < ROWS * d[0]; i++) {
    if ((i * 7919u) % 100 < zeros) h[0][i] = 0;
  }
  for (size_t l = 0; l < layers; l++) {
    float *W = floats(d[l] * d[l + 1]), *b = floats(d[l + 1]);
    packed[l] = floats(table->pack_bytes_f32(d[l], d[l + 1]) / sizeof(float));
    for (size_t i = 0; i < d[l] * d[l + 1]; i++) W[i] *= 2.0f / (float)d[l];
    table->pack_f32(W, false, d[l], d[l + 1], b, packed[l]);
    h[l + 1] = floats(ROWS * d[l + 1]);
    flops += 2.0 * (double)d[l] * (double)d[l + 1];
    free(W);
    free(b);
  }
  for (size_t M = 1; M <= ROWS; M *= 8) {
    size_t row = 0;
    for (start(); running();) {
      const float *x = h[0] + (M == 1 ? row++ % ROWS * d[0] : 0); /* other rows, so that branches are not learnt by heart */
      for (size_t l = 0; l < layers; l++) {
        table->dense_f32(packed[l], M, d[l], d[l + 1], l == 0 ? x : h[l], d[l], act[l], 0, h[l + 1], d[l + 1]);
      }
    }
    char what[96];
    snprintf(what, sizeof what, "%s b%zu", name, M);
    report(what, flops * (double)M);
  }
  for (size_t l = 0; l < layers; l++) free(packed[l]);
  for (size_t l = 0; l <= layers; l++) free(h[l]);
}

/* ---- products ---- */
typedef void gemm_function(bool ta, bool tb, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda,
                           const float *B, size_t ldb, float beta, float *C, size_t ldc);

#ifdef ML_BLAS_OPENBLAS
static void blas(bool ta, bool tb, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda, const float *B,
                 size_t ldb, float beta, float *C, size_t ldc) {
  cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)M, (int)N, (int)K, alpha, A,
              (int)lda, B, (int)ldb, beta, C, (int)ldc);
}
#endif

static gemm_function *own_gemm(void) {
#if defined(__x86_64__)
  if (strcmp(table->name, "avx512") == 0) return ml__gemm_f32_avx512;
  if (strcmp(table->name, "avx2") == 0) return ml__gemm_f32_avx2;
#endif
  return ml__gemm_f32_ref;
}

static double bench_gemm(gemm_function *gemm, const char *name, bool ta, bool tb, size_t M, size_t N, size_t K) {
  float *A = floats(M * K), *B = floats(K * N), *C = floats(M * N);
  for (start(); running();) gemm(ta, tb, M, N, K, 1, A, ta ? M : K, B, tb ? K : N, 0, C, N);
  char what[96];
  snprintf(what, sizeof what, "%s %c%c %zux%zux%zu", name, ta ? 'T' : 'N', tb ? 'T' : 'N', M, N, K);
  report(what, 2.0 * (double)M * (double)N * (double)K);
  free(A);
  free(B);
  free(C);
  return watch.samples[0];
}

static void bench_training(gemm_function *gemm, const char *name, const size_t *d, size_t layers, size_t batch) {
  double total = 0;
  for (size_t l = 0; l < layers; l++) total += bench_gemm(gemm, "forward", false, false, batch, d[l + 1], d[l]);
  for (size_t l = layers; l-- > 0;) {
    total += bench_gemm(gemm, "dW", true, false, d[l], d[l + 1], batch);
    if (l > 0) total += bench_gemm(gemm, "dX", false, true, batch, d[l], d[l + 1]);
  }
  printf("%-6s %s, products of a training step, batch %zu: %.2f us\n", table == NULL ? "blas" : table->name, name, batch,
         total / 1e3);
}

static const size_t seed_mlp[] = {30, 128, 64, 1}, mnist_mlp[] = {784, 512, 256, 10};

static void bench_products(gemm_function *gemm) {
  bench_training(gemm, "30-128-64-1", seed_mlp, 3, 32);
  bench_training(gemm, "784-512-256-10", mnist_mlp, 3, 64);
  static const size_t squares[] = {16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536};
  for (size_t i = 0; i < sizeof squares / sizeof *squares; i++) {
    const size_t n = squares[i];
    for (int trans = 0; trans < 4; trans++) bench_gemm(gemm, "square", trans & 1, trans & 2, n, n, n);
  }
  static const size_t shapes[][3] = {{1, 512, 784},     {8, 512, 784},    {16, 512, 784},  {32, 512, 784}, {64, 1024, 1024},
                                     {128, 1024, 1024}, {256, 256, 2304}, {1024, 64, 576}, {4096, 64, 64}, {100, 100, 100}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
    bench_gemm(gemm, "shape", false, false, shapes[i][0], shapes[i][1], shapes[i][2]);
}

/* ---- the rest ---- */
static void bench_elementwise(void) {
  enum { N = 8192 };
  static const char *const names[] = {"neg",  "abs",      "sqrt", "exp",  "log",        "reciprocal", "relu", "sigmoid",
                                      "tanh", "softplus", "erf",  "gelu", "leaky_relu", "elu",        "selu"};
  float *x = floats(N), *y = floats(N), *m = floats(N), *v = floats(N);
  char what[64];
  for (int f = 0; f < ML_UN_COUNT; f++) {
    for (start(); running();) table->unary_f32((ml_unary)f, x, y, N, 0.1f, 1);
    snprintf(what, sizeof what, "%s of %d", names[f], N);
    report(what, N);
  }
  memset(v, 0, N * sizeof(float));
  for (start(); running();) table->adam_f32(y, x, m, v, N, 1e-6f, 0.9f, 0.999f, 1e-8f, 1, 1, 0, 0, 0);
  report("adam of 8192", N);
  for (start(); running();) table->softmax_f32(x, y, 64, 10, false);
  report("softmax 64 x 10", 640);
  for (start(); running();) table->softmax_f32(x, y, 64, 128, false);
  report("softmax 64 x 128", N);
  for (start(); running();) table->column_sum_f32(x, 64, 128, 128, y, false);
  report("column sum 64 x 128", N);
  volatile float sink = 0;
  for (start(); running();) sink = table->sum_f32(x, N);
  report("sum of 8192", N);
  for (start(); running();) sink = table->max_f32(x, N);
  report("max of 8192", N);
  for (start(); running();) sink = table->dot_f32(x, m, N);
  report("dot of 8192", 2 * N);
  (void)sink;
  free(x);
  free(y);
  free(m);
  free(v);
}

int main(int argc, char **argv) {
  if (argc > 2) budget_ns = strtod(argv[2], NULL) * 1e6;
  for (int isa = ML_ISA_NEON; isa >= ML_ISA_REF; isa--) {
    table = ml_kernel_table_for(isa);
    if (table == NULL || (argc > 1 && strcmp(argv[1], table->name) != 0)) continue;
    bench_mlp("30-128-64-1", seed_mlp, 3, (const ml_activation[]){ML_ACT_RELU, ML_ACT_RELU, ML_ACT_SIGMOID}, 0);
    bench_mlp("784-512-256-10", mnist_mlp, 3, (const ml_activation[]){ML_ACT_RELU, ML_ACT_RELU, ML_ACT_NONE}, 0);
    bench_mlp("784-512-256-10, 80 % zeros", mnist_mlp, 3, (const ml_activation[]){ML_ACT_RELU, ML_ACT_RELU, ML_ACT_NONE}, 80);
    bench_products(own_gemm());
    bench_elementwise();
  }
#ifdef ML_BLAS_OPENBLAS
  if (argc == 1 || strcmp(argv[1], "blas") == 0) {
    table = NULL;
    openblas_set_num_threads(1);
    printf("%s\n", ml_blas_name());
    bench_products(blas);
  }
#endif
  return EXIT_SUCCESS;
}
