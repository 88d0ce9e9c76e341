/* Every table of kernels the processor has, against the defining formulas in double precision (C library functions).
 * Inputs end at a page that may not be touched, so that a read beyond the end is a crash even without a sanitiser; outputs lie in
 * rows wider than needed, whose padding must survive.
 *
 * Tolerances, with u = 2^-24:
 *   products and sums  rigorous forward bounds: (number of roundings) * u * sum of magnitudes
 *   elementary         relative, see `limits`; a subnormal reference counts as FLT_MIN, i.e. the error is absolute there
 *   optimisers         8 u of the magnitudes involved */
#define _GNU_SOURCE
#include <float.h>
#include <math.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/cpu.h"
#include "kernels/kernels.h"
#include "tap.h"

#define U 5.9604644775390625e-8
#define COUNT(a) (sizeof(a) / sizeof *(a))

static const ml_kernels *table;

/* ---- memory that ends at a forbidden page ---- */
typedef struct block {
  char *map;
  size_t bytes;
} block;
static block blocks[64];
static size_t block_count;

static float *floats(size_t n) {
  const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (n * sizeof(float) + page - 1) / page * page + page;
  char *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED || block_count == COUNT(blocks)) {
    printf("Bail out! no memory\n");
    exit(EXIT_FAILURE);
  }
  mprotect(map + bytes - page, page, PROT_NONE);
  blocks[block_count++] = (block){map, bytes};
  return (float *)(void *)(map + bytes - page) - n;
}
static void release(void) {
  while (block_count > 0) {
    block_count--;
    munmap(blocks[block_count].map, blocks[block_count].bytes);
  }
}

static unsigned seed = 1;
static unsigned next(void) { return (seed = seed * 1664525u + 1013904223u) >> 8; }
static float uniform(void) { return (float)next() / 8388608.0f - 1.0f; }
static float *random_floats(size_t n) {
  float *p = floats(n);
  for (size_t i = 0; i < n; i++) p[i] = uniform();
  return p;
}
static float from_bits(uint32_t b) {
  float f;
  memcpy(&f, &b, sizeof f);
  return f;
}

/* ---- products ---- */
static bool gemm_case(bool ta, bool tb, size_t M, size_t N, size_t K, float alpha, float beta, size_t pad) {
  const size_t lda = (ta ? M : K) + pad, ldb = (tb ? K : N) + pad, ldc = N + pad;
  const size_t a_rows = ta ? K : M, b_rows = tb ? N : K;
  float *A = random_floats(a_rows == 0 ? 0 : a_rows * lda - pad), *B = random_floats(b_rows == 0 ? 0 : b_rows * ldb - pad);
  float *C = random_floats(M * ldc - pad), *old = floats(M * ldc - pad);
  if (beta == 0.0f) {
    for (size_t i = 0; i < M; i++) {
      for (size_t j = 0; j < N; j++) C[i * ldc + j] = NAN; /* must not be read */
    }
  }
  memcpy(old, C, (M * ldc - pad) * sizeof(float));
  table->gemm_f32(ta, tb, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc);
  bool good = true;
  for (size_t i = 0; i < M && good; i++) {
    for (size_t j = 0; j < ldc - (i + 1 == M ? pad : 0) && good; j++) {
      const float got = C[i * ldc + j];
      if (j >= N) {
        good = got == old[i * ldc + j];
        continue;
      }
      double sum = 0, size = 0;
      for (size_t k = 0; k < K; k++) {
        const double p = (double)(ta ? A[k * lda + i] : A[i * lda + k]) * (double)(tb ? B[j * ldb + k] : B[k * ldb + j]);
        sum += p;
        size += fabs(p);
      }
      const double c = beta == 0.0f ? 0 : (double)beta * (double)old[i * ldc + j];
      const double want = (double)alpha * sum + c, bound = (double)(K + 4) * U * (fabs((double)alpha) * size + fabs(c));
      good = fabs((double)got - want) <= bound;
      if (!good) printf("# C[%zu][%zu] = %.9g, want %.9g +- %.3g\n", i, j, (double)got, want, bound);
    }
  }
  release();
  return good;
}

static void test_gemm(void) {
  static const size_t dims[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 15, 16, 17, 23, 31, 32, 33, 47, 48, 49, 63, 64, 65, 67, 70};
  static const float scales[][2] = {{1, 0}, {1, 1}, {0.5f, 0}, {-2, 0.25f}, {1, -1}, {0.75f, 1}, {0, 2}, {0, 0}};
  for (unsigned trans = 0; trans < 4; trans++) {
    unsigned bad = 0;
    for (unsigned i = 0; i < 260; i++) {
      const size_t M = dims[next() % COUNT(dims)], N = dims[next() % COUNT(dims)], K = dims[next() % COUNT(dims)];
      const float *s = scales[next() % COUNT(scales)];
      const size_t pad = next() % 3;
      if (!gemm_case(trans & 1, trans & 2, M, N, K, s[0], s[1], pad) && ++bad < 5) {
        printf("# M %zu N %zu K %zu alpha %g beta %g pad %zu\n", M, N, K, (double)s[0], (double)s[1], pad);
      }
    }
    ok(bad == 0, "%s: gemm, transposes %u, 260 random shapes", table->name, trans);
    static const size_t shapes[][3] = {{1, 300, 600},  {1, 130, 257},  {2, 257, 300},   {97, 130, 300}, {33, 257, 515},
                                       {101, 19, 777}, {300, 1, 600},  {513, 1, 40},    {64, 512, 33},  {200, 270, 260},
                                       {7, 16, 1030},  {40, 513, 256}, {264, 300, 280}, {100, 520, 31}};
    for (size_t i = 0; i < COUNT(shapes); i++) {
      const size_t *d = shapes[i];
      bool good = true;
      for (size_t s = 0; s < 4; s++)
        good = gemm_case(trans & 1, trans & 2, d[0], d[1], d[2], scales[s][0], scales[s][1], i % 2) && good;
      ok(good, "%s: gemm, transposes %u, %zu x %zu x %zu", table->name, trans, d[0], d[1], d[2]);
    }
    ok(gemm_case(trans & 1, trans & 2, 5, 7, 0, 1, 0.5f, 1) && gemm_case(trans & 1, trans & 2, 5, 7, 0, 1, 0, 0),
       "%s: gemm, K = 0", table->name);
  }
  ok(gemm_case(true, false, 130, 140, 50, 1, 0, 1000), "%s: gemm, transposed A with long rows", table->name);
}

/* Large enough for OpenBLAS, where the build has it; some elements are recomputed. */
static void test_large_gemm(void) {
  enum { M = 1030, N = 1025, K = 1027, PAD = 3 };
  float *A = random_floats((M + PAD) * (K + PAD)), *B = random_floats((K + PAD) * (N + PAD)), *C = floats(M * (N + PAD));
  for (unsigned trans = 0; trans < 4; trans++) {
    const size_t lda = (trans & 1 ? M : K) + PAD, ldb = (trans & 2 ? K : N) + PAD, ldc = N + PAD;
    for (size_t i = 0; i < M * ldc; i++) C[i] = 1;
    table->gemm_f32(trans & 1, trans & 2, M, N, K, 0.5f, A, lda, B, ldb, 2, C, ldc);
    unsigned bad = 0;
    for (unsigned s = 0; s < 300; s++) {
      const size_t i = s == 0 ? M - 1 : next() % M, j = s == 0 ? N - 1 : next() % N;
      double sum = 0, size = 0;
      for (size_t k = 0; k < K; k++) {
        const double p =
            (double)(trans & 1 ? A[k * lda + i] : A[i * lda + k]) * (double)(trans & 2 ? B[j * ldb + k] : B[k * ldb + j]);
        sum += p;
        size += fabs(p);
      }
      bad += (unsigned)!(fabs((double)C[i * ldc + j] - (0.5 * sum + 2)) <= (K + 4) * U * (0.5 * size + 2));
    }
    for (size_t i = 0; i < M; i++) bad += C[i * ldc + N] != 1;
    ok(bad == 0, "%s: gemm, transposes %u, %d x %d x %d", table->name, trans, M, N, K);
  }
  release();
}

/* ---- dense ---- */
static double activation(ml_activation act, double x, double alpha) {
  switch (act) {
    case ML_ACT_NONE: return x;
    case ML_ACT_RELU: return x > 0 ? x : 0;
    case ML_ACT_SIGMOID: return 1 / (1 + exp(-x));
    case ML_ACT_TANH: return tanh(x);
    case ML_ACT_LEAKY_RELU: return x < 0 ? alpha * x : x;
    case ML_ACT_ELU: return x < 0 ? alpha * expm1(x) : x;
    case ML_ACT_SELU: return 1.05070102214813232421875 * (x < 0 ? alpha * expm1(x) : x);
    case ML_ACT_SOFTPLUS: return (x > 0 ? x : 0) + log1p(exp(-fabs(x)));
    case ML_ACT_GELU: return 0.5 * x * erfc(-x / sqrt(2));
  }
  return NAN;
}

static bool dense_case(size_t M, size_t K, size_t N, bool transposed, bool with_bias, ml_activation act, size_t pad,
                       unsigned zeros) {
  const size_t ldx = K + pad, ldy = N + pad;
  float *X = random_floats(M * ldx - (M != 0 ? pad : 0)), *W = random_floats(K * N), *bias = random_floats(N),
        *Y = random_floats(M * ldy - pad);
  float *old = floats(M * ldy - pad), *row = random_floats(N);
  for (size_t i = 0; i < M * ldx - pad; i++) {
    if (next() % 100 < zeros) X[i] = 0;
  }
  const size_t bytes = table->pack_bytes_f32(K, N);
  float *packed = floats(bytes / sizeof(float));
  table->pack_f32(W, transposed, K, N, with_bias ? bias : NULL, packed);
  memcpy(old, Y, (M * ldy - pad) * sizeof(float));
  const float alpha = 0.3f;
  table->dense_f32(packed, M, K, N, X, ldx, act, alpha, Y, ldy);
  bool good = true;
  for (size_t i = 0; i < M && good; i++) {
    for (size_t j = 0; j < ldy - (i + 1 == M ? pad : 0) && good; j++) {
      const float got = Y[i * ldy + j];
      if (j >= N) {
        good = got == old[i * ldy + j];
        continue;
      }
      double sum = with_bias ? (double)bias[j] : 0, size = fabs(sum);
      for (size_t k = 0; k < K; k++) {
        const double p = (double)X[i * ldx + k] * (double)(transposed ? W[j * K + k] : W[k * N + j]);
        sum += p;
        size += fabs(p);
      }
      /* no activation here is steeper than 1.2 */
      const double want = activation(act, sum, (double)alpha),
                   bound = 1.2 * (double)(K + 8) * U * size + 16 * U * fabs(want) + 4 * U;
      good = fabs((double)got - want) <= bound;
      if (!good) printf("# Y[%zu][%zu] = %.9g, want %.9g +- %.3g\n", i, j, (double)got, want, bound);
    }
    /* the same row alone: the same bits (0 may change its sign) */
    table->dense_f32(packed, 1, K, N, X + i * ldx, ldx, act, alpha, row, N);
    for (size_t j = 0; j < N && good; j++) {
      good = row[j] == Y[i * ldy + j];
      if (!good)
        printf("# row %zu alone differs at %zu: %.9g, in the batch %.9g\n", i, j, (double)row[j], (double)Y[i * ldy + j]);
    }
  }
  release();
  return good;
}

static void test_dense(void) {
  static const size_t rows[] = {1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 32, 64},
                      inner[] = {1, 2, 3, 4, 5, 8, 15, 16, 17, 30, 31, 33, 64, 65, 70, 128};
  static const size_t columns[] = {1, 2, 3, 4, 5, 8, 10, 15, 16, 17, 31, 32, 33, 48, 64, 65, 70, 80, 128, 144, 200};
  unsigned bad = 0;
  for (unsigned i = 0; i < 400; i++) {
    const size_t M = rows[next() % COUNT(rows)], K = inner[next() % COUNT(inner)], N = columns[next() % COUNT(columns)];
    const ml_activation act = (ml_activation)(next() % (ML_ACT_GELU + 1));
    const bool transposed = next() & 1, bias = next() & 1;
    const size_t pad = next() % 3;
    if (!dense_case(M, K, N, transposed, bias, act, pad, next() % 2 * 50) && ++bad < 5) {
      printf("# M %zu K %zu N %zu transposed %d bias %d activation %d pad %zu\n", M, K, N, transposed, bias, (int)act, pad);
    }
  }
  ok(bad == 0, "%s: dense, 400 random shapes, rows alone as in the batch", table->name);
  for (size_t i = 0; i < COUNT(columns); i++) {
    ok(dense_case(3, 0, columns[i], false, true, ML_ACT_SIGMOID, 1, 0), "%s: dense, K = 0, N = %zu", table->name, columns[i]);
  }
  static const size_t shapes[][3] = {{3, 1100, 70}, {2, 2100, 1},  {7, 784, 128}, {100, 40, 20}, {2, 1024, 64},
                                     {2, 1025, 33}, {99, 520, 17}, {5, 2050, 10}, {97, 7, 3}};
  for (size_t i = 0; i < COUNT(shapes); i++) {
    const size_t *d = shapes[i];
    ok(dense_case(d[0], d[1], d[2], i % 2, true, ML_ACT_RELU, 1, 50) &&
           dense_case(d[0], d[1], d[2], i % 2, true, ML_ACT_TANH, 0, 0),
       "%s: dense, %zu x %zu x %zu", table->name, d[0], d[1], d[2]);
  }
  /* NaN reaches the output through relu, and 0 * infinity is NaN at every batch size */
  for (size_t i = 0; i < COUNT(columns); i++) {
    const size_t N = columns[i], K = 20;
    float *X = floats(3 * K), *W = random_floats(K * N), *Y = floats(3 * N),
          *packed = floats(table->pack_bytes_f32(K, N) / sizeof(float));
    for (size_t k = 0; k < 3 * K; k++) X[k] = k % 3 ? 0 : 1;
    X[K + 1] = NAN;
    W[7 * N + N - 1] = INFINITY;
    X[7] = 0;
    table->pack_f32(W, false, K, N, NULL, packed);
    table->dense_f32(packed, 3, K, N, X, K, ML_ACT_RELU, 0, Y, N);
    bool good = isnan(Y[N - 1]) && isnan(Y[N]);
    table->dense_f32(packed, 1, K, N, X, K, ML_ACT_RELU, 0, Y, N);
    good = good && isnan(Y[N - 1]);
    table->dense_f32(packed, 1, K, N, X + K, K, ML_ACT_RELU, 0, Y, N);
    ok(good && isnan(Y[0]), "%s: dense keeps NaN, N = %zu", table->name, N);
    release();
  }
}

/* ---- elementary functions ---- */
static double unary(ml_unary f, double x, double alpha, double gamma) {
  switch (f) {
    case ML_UN_NEG: return -x;
    case ML_UN_ABS: return fabs(x);
    case ML_UN_SQRT: return sqrt(x);
    case ML_UN_EXP: return exp(x);
    case ML_UN_LOG: return log(x);
    case ML_UN_RECIPROCAL: return 1 / x;
    case ML_UN_RELU: return activation(ML_ACT_RELU, x, 0);
    case ML_UN_SIGMOID: return activation(ML_ACT_SIGMOID, x, 0);
    case ML_UN_TANH: return tanh(x);
    case ML_UN_SOFTPLUS: return activation(ML_ACT_SOFTPLUS, x, 0);
    case ML_UN_ERF: return erf(x);
    case ML_UN_GELU: return activation(ML_ACT_GELU, x, 0);
    case ML_UN_LEAKY_RELU: return activation(ML_ACT_LEAKY_RELU, x, alpha);
    case ML_UN_ELU: return activation(ML_ACT_ELU, x, alpha);
    case ML_UN_SELU: return gamma * activation(ML_ACT_ELU, x, alpha);
    case ML_UN_COUNT: break;
  }
  return NAN;
}

static double derivative(ml_unary f, double x, double alpha, double gamma) {
  const double bell = exp(-x * x / 2) / sqrt(2 * acos(-1.0));
  switch (f) {
    case ML_UN_NEG: return -1;
    case ML_UN_ABS: return x > 0 ? 1 : x < 0 ? -1 : 0;
    case ML_UN_SQRT: return 0.5 / sqrt(x);
    case ML_UN_EXP: return exp(x);
    case ML_UN_LOG: return 1 / x;
    case ML_UN_RECIPROCAL: return -1 / (x * x);
    case ML_UN_RELU: return x > 0;
    case ML_UN_SIGMOID: return 1 / (1 + exp(-x)) / (1 + exp(x));
    case ML_UN_TANH: return 1 - tanh(x) * tanh(x);
    case ML_UN_SOFTPLUS: return 1 / (1 + exp(-x));
    case ML_UN_ERF: return 2 / sqrt(acos(-1.0)) * exp(-x * x);
    case ML_UN_GELU: return 0.5 * erfc(-x / sqrt(2)) + x * bell;
    case ML_UN_LEAKY_RELU: return x > 0 ? 1 : alpha;
    case ML_UN_ELU: return x > 0 ? 1 : alpha * exp(x);
    case ML_UN_SELU: return gamma * (x > 0 ? 1 : alpha * exp(x));
    case ML_UN_COUNT: break;
  }
  return NAN;
}

typedef struct limit {
  ml_unary f;
  const char *name;
  double from, to, relative, grad; /* of dy f', absolute for |dy| <= 1 */
} limit;
static const limit limits[] = {
    {ML_UN_NEG, "neg", -INFINITY, INFINITY, 0, 0},
    {ML_UN_ABS, "abs", -INFINITY, INFINITY, 0, 0},
    {ML_UN_SQRT, "sqrt", 0, INFINITY, 1 * U, 2e-7},
    {ML_UN_EXP, "exp", -INFINITY, INFINITY, 2.5 * U, 2e-7},
    {ML_UN_LOG, "log", 0, INFINITY, 3 * U, 2e-7},
    {ML_UN_RECIPROCAL, "reciprocal", -INFINITY, INFINITY, 1 * U, 4e-7},
    {ML_UN_RELU, "relu", -INFINITY, INFINITY, 0, 0},
    {ML_UN_SIGMOID, "sigmoid", -INFINITY, INFINITY, 4 * U, 2e-7},
    {ML_UN_TANH, "tanh", -INFINITY, INFINITY, 4.5 * U, 4e-7},
    {ML_UN_SOFTPLUS, "softplus", -INFINITY, INFINITY, 4 * U, 4e-7},
    {ML_UN_ERF, "erf", -INFINITY, INFINITY, 3 * U, 4e-7},
    {ML_UN_GELU, "gelu", -INFINITY, INFINITY, 1e-6, 4e-7},
    {ML_UN_LEAKY_RELU, "leaky_relu", -INFINITY, INFINITY, 1 * U, 1e-7},
    {ML_UN_ELU, "elu", -INFINITY, INFINITY, 4 * U, 4e-7},
    {ML_UN_SELU, "selu", -INFINITY, INFINITY, 5 * U, 6e-7},
};

static void test_unary(void) {
  enum { CHUNK = 1019, STRIDE = 30011 };
  const float alpha = 1.3f, gamma = 1.1f;
  ok(COUNT(limits) == ML_UN_COUNT, "every unary has its limits");
  for (size_t l = 0; l < COUNT(limits); l++) {
    const limit *t = &limits[l];
    float *x = floats(CHUNK), *y = floats(CHUNK), *dy = random_floats(CHUNK), *dx = floats(CHUNK), *alone = floats(1);
    double worst = 0, worst_grad = 0, worst_x = 0, worst_grad_x = 0;
    bool place = true;
    for (uint64_t bits = l; bits < 0x100000000u;) {
      size_t n = 0;
      for (; n < CHUNK && bits < 0x100000000u; bits += STRIDE) {
        const float v = from_bits((uint32_t)bits);
        if ((double)v >= t->from && (double)v <= t->to) x[CHUNK - 1 - n++] = v;
      }
      float *in = x + CHUNK - n, *out = y + CHUNK - n;
      table->unary_f32(t->f, in, out, n, alpha, gamma);
      table->unary_grad_f32(t->f, in, out, dy + CHUNK - n, dx + CHUNK - n, n, alpha, gamma);
      for (size_t i = 0; i < n; i++) {
        const double v = (double)in[i], want = unary(t->f, v, (double)alpha, (double)gamma), got = (double)out[i];
        if (fabs(want) > (double)FLT_MAX) { /* infinity, but for the last units before it */
          if (got != copysign(INFINITY, want) && fabs(want) > (double)FLT_MAX * (1 + 4 * U)) worst = INFINITY, worst_x = v;
          continue;
        }
        const double error = fabs(got - want) / fmax(fabs(want), (double)FLT_MIN);
        if (!(error <= worst)) worst = error, worst_x = v;
        const double slope = derivative(t->f, v, (double)alpha, (double)gamma) * (double)dy[CHUNK - n + i];
        if (fabs(slope) > 1e30 || fabs(v) < 1e-18) continue;
        const double grad_error = fabs((double)dx[CHUNK - n + i] - slope) / fmax(1, fabs(slope));
        if (!(grad_error <= worst_grad)) worst_grad = grad_error, worst_grad_x = v;
      }
      for (size_t i = 0; i < n; i += 97) {
        *alone = in[i];
        table->unary_f32(t->f, alone, alone, 1, alpha, gamma);
        place = place && memcmp(alone, &out[i], sizeof(float)) == 0;
      }
    }
    ok(worst <= t->relative, "%s: %s: relative error %.3g (%.2f u) at %.9g, allowed %.3g", table->name, t->name, worst, worst / U,
       worst_x, t->relative);
    ok(worst_grad <= t->grad, "%s: gradient of %s: error %.3g at %.9g, allowed %.3g", table->name, t->name, worst_grad,
       worst_grad_x, t->grad);
    ok(place, "%s: %s does not depend on the place", table->name, t->name);
    if (getenv("TAP_VERBOSE") != NULL) printf("# %s %s %.2f u, gradient %.2g\n", table->name, t->name, worst / U, worst_grad);
    release();
  }
}

static bool same(float a, float b) { return isnan(a) ? isnan(b) : a == b; }

static void test_special_values(void) {
  static const struct {
    ml_unary f;
    float x, y;
  } cases[] = {
      {ML_UN_EXP, INFINITY, INFINITY},
      {ML_UN_EXP, -INFINITY, 0},
      {ML_UN_EXP, 0, 1},
      {ML_UN_EXP, 89, INFINITY},
      {ML_UN_EXP, -104, 0},
      {ML_UN_EXP, 200, INFINITY},
      {ML_UN_EXP, -200, 0},
      {ML_UN_LOG, 0, -INFINITY},
      {ML_UN_LOG, -0.0f, -INFINITY},
      {ML_UN_LOG, -1, NAN},
      {ML_UN_LOG, -INFINITY, NAN},
      {ML_UN_LOG, INFINITY, INFINITY},
      {ML_UN_LOG, 1, 0},
      {ML_UN_LOG, -1e-42f, NAN},
      {ML_UN_SQRT, -1, NAN},
      {ML_UN_SQRT, INFINITY, INFINITY},
      {ML_UN_RECIPROCAL, 0, INFINITY},
      {ML_UN_RECIPROCAL, -0.0f, -INFINITY},
      {ML_UN_RECIPROCAL, INFINITY, 0},
      {ML_UN_SIGMOID, 0, 0.5f},
      {ML_UN_SIGMOID, INFINITY, 1},
      {ML_UN_SIGMOID, -INFINITY, 0},
      {ML_UN_SIGMOID, 1e30f, 1},
      {ML_UN_SIGMOID, -1e30f, 0},
      {ML_UN_TANH, 0, 0},
      {ML_UN_TANH, INFINITY, 1},
      {ML_UN_TANH, -INFINITY, -1},
      {ML_UN_TANH, 50, 1},
      {ML_UN_TANH, -50, -1},
      {ML_UN_TANH, 1e-40f, 1e-40f},
      {ML_UN_SOFTPLUS, INFINITY, INFINITY},
      {ML_UN_SOFTPLUS, -INFINITY, 0},
      {ML_UN_SOFTPLUS, 1000, 1000},
      {ML_UN_SOFTPLUS, -1000, 0},
      {ML_UN_ERF, 0, 0},
      {ML_UN_ERF, INFINITY, 1},
      {ML_UN_ERF, -INFINITY, -1},
      {ML_UN_ERF, 5, 1},
      {ML_UN_GELU, 0, 0},
      {ML_UN_GELU, INFINITY, INFINITY},
      {ML_UN_GELU, -INFINITY, 0},
      {ML_UN_GELU, 100, 100},
      {ML_UN_GELU, -1e30f, 0},
      {ML_UN_RELU, -INFINITY, 0},
      {ML_UN_RELU, INFINITY, INFINITY},
      {ML_UN_RELU, -1e-45f, 0},
      {ML_UN_RELU, 1e-45f, 1e-45f},
      {ML_UN_ELU, -INFINITY, -2},
      {ML_UN_ELU, INFINITY, INFINITY},
      {ML_UN_ELU, 0, 0},
      {ML_UN_ELU, -1e-40f, -2e-40f},
      {ML_UN_SELU, -INFINITY, -6},
      {ML_UN_SELU, 2, 6},
      {ML_UN_LEAKY_RELU, -3, -6},
      {ML_UN_LEAKY_RELU, -INFINITY, -INFINITY},
      {ML_UN_NEG, INFINITY, -INFINITY},
      {ML_UN_ABS, -INFINITY, INFINITY},
  };
  for (size_t i = 0; i < COUNT(cases); i++) {
    for (size_t n = 1; n < 40; n += 18) {
      float *x = floats(n), *y = floats(n);
      for (size_t k = 0; k < n; k++) x[k] = cases[i].x;
      table->unary_f32(cases[i].f, x, y, n, 2, 3);
      const float got = y[n - 1];
      const bool good = same(got, cases[i].y) || (fabsf(cases[i].y) < 1e-38f && fabsf(got - cases[i].y) < 1e-44f);
      ok(good && same(y[0], got), "%s: %s(%g) = %g, want %g", table->name, limits[cases[i].f].name, (double)cases[i].x,
         (double)got, (double)cases[i].y);
      release();
    }
  }
  for (int f = 0; f < ML_UN_COUNT; f++) {
    float x[19], y[19], dy[19], dx[19];
    for (size_t k = 0; k < 19; k++) x[k] = k % 2 ? NAN : 1, dy[k] = k == 4 ? NAN : 1;
    table->unary_f32((ml_unary)f, x, y, 19, 2, 3);
    bool good = true;
    for (size_t k = 0; k < 19; k++) good = good && isnan(y[k]) == isnan(x[k]);
    table->unary_grad_f32((ml_unary)f, x, y, dy, dx, 19, 2, 3);
    good = good && isnan(dx[4]) && !isnan(dx[6]);
    ok(good, "%s: NaN goes through %s", table->name, limits[f].name);
    const float far[4] = {INFINITY, -INFINITY, 1e30f, -1e30f};
    table->unary_f32((ml_unary)f, far, y, 4, 2, 3);
    for (size_t k = 0; k < 4; k++) dy[k] = 1;
    table->unary_grad_f32((ml_unary)f, far, y, dy, dx, 4, 2, 3);
    if (f == ML_UN_GELU)
      ok(dx[0] == 1 && dx[1] == 0 && dx[2] == 1 && dx[3] == 0, "%s: gradient of gelu at infinity", table->name);
    if (f == ML_UN_SOFTPLUS) ok(dx[0] == 1 && dx[1] == 0, "%s: gradient of softplus at infinity", table->name);
    if (f == ML_UN_ERF) ok(dx[0] == 0 && dx[1] == 0 && dx[2] == 0, "%s: gradient of erf at infinity", table->name);
  }
}

static void test_binary(void) {
  static const char *const names[] = {"add", "sub", "mul", "div", "max", "min"};
  for (int op = 0; op < ML_BIN_COUNT; op++) {
    unsigned bad = 0;
    for (size_t n = 0; n <= 70; n++) {
      for (int mode = 0; mode < 4; mode++) {
        const int sx = mode & 1, sy = mode >> 1;
        float *x = random_floats(sx ? n : 1), *y = random_floats(sy ? n : 1), *z = floats(n);
        if (sx && n > 3) x[n - 1] = NAN, x[1] = INFINITY;
        if (sy && n > 3) y[n - 2] = NAN, y[2] = 0;
        table->binary_f32((ml_binary)op, x, sx, y, sy, z, n);
        for (size_t i = 0; i < n; i++) {
          const float a = x[sx ? i : 0], b = y[sy ? i : 0];
          float want = 0;
          switch (op) {
            case ML_BIN_ADD: want = a + b; break;
            case ML_BIN_SUB: want = a - b; break;
            case ML_BIN_MUL: want = a * b; break;
            case ML_BIN_DIV: want = a / b; break;
            case ML_BIN_MAX: want = isnan(a) || isnan(b) ? NAN : fmaxf(a, b); break;
            default: want = isnan(a) || isnan(b) ? NAN : fminf(a, b); break;
          }
          if (!same(z[i], want)) bad++;
        }
        if (sx && n > 0) { /* in place */
          float *copy = floats(n);
          memcpy(copy, x, n * sizeof(float));
          table->binary_f32((ml_binary)op, copy, 1, y, sy, copy, n);
          for (size_t i = 0; i < n; i++) bad += !same(copy[i], z[i]);
        }
        release();
      }
    }
    ok(bad == 0, "%s: %s, lengths 0 to 70, all broadcasts", table->name, names[op]);
  }
}

/* ---- reductions ---- */
static void test_reductions(void) {
  static const size_t more[] = {127, 511, 512, 513, 1023, 1024, 1025, 2049, 4097, 10000, 100003};
  unsigned bad_sum = 0, bad_dot = 0, bad_max = 0, bad_axpy = 0;
  for (size_t l = 0; l < 71 + COUNT(more); l++) {
    const size_t n = l < 71 ? l : more[l - 71];
    float *x = random_floats(n), *y = random_floats(n), *z = floats(n);
    double sum = 0, size = 0, dot = 0, dot_size = 0;
    float largest = -INFINITY;
    for (size_t i = 0; i < n; i++) {
      sum += (double)x[i], size += fabs((double)x[i]);
      dot += (double)x[i] * (double)y[i], dot_size += fabs((double)x[i] * (double)y[i]);
      if (x[i] > largest) largest = x[i];
    }
    bad_sum += (unsigned)!(fabs((double)table->sum_f32(x, n) - sum) <= 40 * U * size);
    bad_dot += (unsigned)!(fabs((double)table->dot_f32(x, y, n) - dot) <= ((double)n / 16 + 12) * U * dot_size);
    if (n > 0) {
      bad_max += table->max_f32(x, n) != largest;
      for (size_t at = 0; at < n; at += n > 100 ? n / 7 : 1) {
        const float was = x[at];
        x[at] = NAN;
        bad_max += (unsigned)!isnan(table->max_f32(x, n));
        x[at] = 2;
        bad_max += table->max_f32(x, n) != 2;
        x[at] = was;
      }
      for (size_t i = 0; i < n; i++) z[i] = -INFINITY;
      bad_max += table->max_f32(z, n) != -INFINITY;
    }
    memcpy(z, y, n * sizeof(float));
    table->axpy_f32(0.3f, x, z, n);
    for (size_t i = 0; i < n; i++) bad_axpy += (unsigned)!(fabs((double)z[i] - ((double)y[i] + (double)0.3f * (double)x[i])) <= 2 * U);
    release();
  }
  ok(bad_sum == 0, "%s: sum", table->name);
  ok(bad_dot == 0, "%s: dot", table->name);
  ok(bad_max == 0, "%s: max, with NaN and -infinity", table->name);
  ok(bad_axpy == 0, "%s: axpy", table->name);

  enum { LARGE = 3000000 };
  float *ones = floats(LARGE);
  for (size_t i = 0; i < LARGE; i++) ones[i] = 0.1f;
  const double want = LARGE * (double)0.1f;
  ok(fabs((double)table->sum_f32(ones, LARGE) - want) <= 40 * U * want, "%s: the sum of 3 million equal numbers is still right",
     table->name);
  release();

  unsigned bad = 0;
  for (size_t cols = 1; cols <= 70; cols++) {
    for (size_t rows = 0; rows <= 150; rows += 37 + cols) {
      const size_t pad = (rows + cols) % 2, ld = cols + pad;
      float *x = random_floats(rows == 0 ? 0 : rows * ld - pad), *out = random_floats(cols), *old = floats(cols);
      memcpy(old, out, cols * sizeof(float));
      for (int accumulate = 0; accumulate < 2; accumulate++) {
        memcpy(out, old, cols * sizeof(float));
        table->column_sum_f32(x, rows, cols, ld, out, accumulate);
        for (size_t j = 0; j < cols; j++) {
          double s = accumulate ? (double)old[j] : 0, size = fabs(s);
          for (size_t i = 0; i < rows; i++) s += (double)x[i * ld + j], size += fabs((double)x[i * ld + j]);
          bad += (unsigned)!(fabs((double)out[j] - s) <= 68 * U * size);
        }
      }
      release();
    }
  }
  ok(bad == 0, "%s: column sums", table->name);
}

static void test_softmax(void) {
  unsigned bad = 0;
  for (size_t cols = 1; cols <= 70; cols++) {
    for (int take_log = 0; take_log < 2; take_log++) {
      const size_t rows = 3;
      float *x = random_floats(rows * cols), *y = floats(rows * cols);
      for (size_t i = 0; i < rows * cols; i++) x[i] = x[i] * 20 + (i < cols ? 1e4f : 0);
      if (cols > 2) x[cols + 1] = -INFINITY; /* a masked position */
      for (int in_place = 0; in_place < 2; in_place++) {
        if (in_place) memcpy(y, x, rows * cols * sizeof(float));
        table->softmax_f32(in_place ? y : x, y, rows, cols, take_log);
        for (size_t i = 0; i < rows; i++) {
          double m = -INFINITY, s = 0;
          for (size_t j = 0; j < cols; j++) m = fmax(m, (double)x[i * cols + j]);
          for (size_t j = 0; j < cols; j++) s += exp((double)x[i * cols + j] - m);
          for (size_t j = 0; j < cols; j++) {
            const double d = (double)x[i * cols + j] - m, want = take_log ? d - log(s) : exp(d) / s,
                         got = (double)y[i * cols + j];
            /* d is rounded, and exp multiplies that error by d; the log only adds */
            const double bound = take_log ? 2 * U * fabs(want) + 8 * U : (12 + fabs(d)) * U * want + (double)FLT_MIN;
            bad += d == -INFINITY ? got != want : !(fabs(got - want) <= bound);
          }
        }
      }
      release();
    }
  }
  ok(bad == 0, "%s: softmax and log-softmax, 1 to 70 columns", table->name);
  float x[20], y[20];
  for (size_t i = 0; i < 20; i++) x[i] = i == 18 ? NAN : 1;
  table->softmax_f32(x, y, 2, 10, false);
  ok(fabsf(y[0] - 0.1f) < 1e-7f && isnan(y[10]) && isnan(y[19]), "%s: NaN spoils its own row of a softmax only", table->name);
}

/* ---- optimisers ---- */
static double penalised(double g, double w, double l1, double l2) {
  g += 2 * l2 * w;
  if (l1 == 0 || w != 0) return g + (w > 0 ? l1 : w < 0 ? -l1 : 0);
  return g > l1 ? g - l1 : g < -l1 ? g + l1 : 0;
}

static double stepped(double w, double step, double lr, double l1, double decay) {
  const double to = w - (step + lr * decay * w);
  return l1 != 0 && ((w > 0 && to < 0) || (w < 0 && to > 0)) ? 0 : to;
}

static void test_optimizers(void) {
  static const float settings[][3] = {
      {0, 0, 0}, {0.01f, 0, 0}, {0, 0.02f, 0}, {0, 0, 0.05f}, {0.3f, 0.02f, 0.1f}}; /* l1, l2, decay */
  static const size_t lengths[] = {0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 70, 257};
  unsigned bad_adam = 0, bad_sgd = 0, bad_rmsprop = 0, bad_adagrad = 0;
  const float lr = 0.01f, eps = 1e-7f;
  for (size_t s = 0; s < COUNT(settings); s++) {
    const float l1 = settings[s][0], l2 = settings[s][1], decay = settings[s][2];
    for (size_t l = 0; l < COUNT(lengths); l++) {
      const size_t n = lengths[l];
      float *g = random_floats(n), *w0 = random_floats(n), *m0 = random_floats(n), *v0 = random_floats(n), *w = floats(n),
            *m = floats(n), *v = floats(n);
      for (size_t i = 0; i < n; i++) v0[i] = fabsf(v0[i]) * 0.1f;
      for (size_t i = 0; i < n; i += 3) w0[i] = i % 2 ? 0.0f : 1e-3f; /* at zero, and where the step crosses it */
#define START() (memcpy(w, w0, n * sizeof(float)), memcpy(m, m0, n * sizeof(float)), memcpy(v, v0, n * sizeof(float)))
#define NEAR(got, want) (fabs((double)(got) - (want)) <= 8 * U * fmax(1, fabs(want)))
      START();
      const float c1 = 1.9f, c2 = 3.1f;
      table->adam_f32(w, g, m, v, n, lr, 0.9f, 0.999f, eps, c1, c2, l1, l2, decay);
      for (size_t i = 0; i < n; i++) {
        const double gi = penalised((double)g[i], (double)w0[i], (double)l1, (double)l2),
                     mi = (double)0.9f * (double)m0[i] + (1 - (double)0.9f) * gi;
        const double vi = (double)0.999f * (double)v0[i] + (1 - (double)0.999f) * gi * gi;
        const double step = (double)lr * mi * (double)c1 / (sqrt(vi * (double)c2) + (double)eps);
        bad_adam +=
            !(NEAR(m[i], mi) && NEAR(v[i], vi) && NEAR(w[i], stepped((double)w0[i], step, (double)lr, (double)l1, (double)decay)));
      }
      for (int mode = 0; mode < 3; mode++) { /* plain, momentum, Nesterov */
        START();
        const double mu = mode == 0 ? 0 : (double)0.9f;
        table->sgd_f32(w, g, mode == 0 ? NULL : m, n, lr, (float)mu, mode == 2, l1, l2, decay);
        for (size_t i = 0; i < n; i++) {
          const double gi = penalised((double)g[i], (double)w0[i], (double)l1, (double)l2), vi = mu * (double)m0[i] + gi;
          const double d = mode == 0 ? gi : mode == 1 ? vi : gi + mu * vi;
          bad_sgd += !(NEAR(w[i], stepped((double)w0[i], (double)lr * d, (double)lr, (double)l1, (double)decay)) &&
                       (mode == 0 || NEAR(m[i], vi)));
        }
        START();
        table->rmsprop_f32(w, g, v, mode == 0 ? NULL : m, n, lr, 0.9f, (float)mu, eps, l1, l2, decay);
        for (size_t i = 0; i < n; i++) {
          const double gi = penalised((double)g[i], (double)w0[i], (double)l1, (double)l2),
                       si = (double)0.9f * (double)v0[i] + (1 - (double)0.9f) * gi * gi;
          double d = gi / (sqrt(si) + (double)eps);
          if (mode != 0) d += mu * (double)m0[i];
          bad_rmsprop +=
              !(NEAR(v[i], si) && NEAR(w[i], stepped((double)w0[i], (double)lr * d, (double)lr, (double)l1, (double)decay)) &&
                (mode == 0 || NEAR(m[i], d)));
        }
      }
      START();
      table->adagrad_f32(w, g, v, n, lr, eps, l1, l2, decay);
      for (size_t i = 0; i < n; i++) {
        const double gi = penalised((double)g[i], (double)w0[i], (double)l1, (double)l2), si = (double)v0[i] + gi * gi;
        bad_adagrad += !(NEAR(v[i], si) && NEAR(w[i], stepped((double)w0[i], (double)lr * gi / (sqrt(si) + (double)eps),
                                                             (double)lr, (double)l1, (double)decay)));
      }
      release();
    }
  }
  ok(bad_adam == 0, "%s: adam", table->name);
  ok(bad_sgd == 0, "%s: sgd, plain, momentum and Nesterov", table->name);
  ok(bad_rmsprop == 0, "%s: rmsprop", table->name);
  ok(bad_adagrad == 0, "%s: adagrad", table->name);
}

int main(void) {
  ok(ml_kernel_table() != NULL && ml_kernel_table() == ml_kernel_table(), "a table is chosen, once");
  const ml_kernels *best = ml_kernel_table_for((int)ml_cpu_isa());
  ok(strcmp(ml_kernel_table()->name, best == NULL ? "ref" : best->name) == 0, "the best one: %s", ml_kernel_table()->name);
  ok(ml_kernel_table_for(ML_ISA_REF) == ml_kernel_table_ref(), "the reference");
  ok(ml_kernel_table_for(-1) == NULL && ml_kernel_table_for(99) == NULL, "no table for an unknown instruction set");
  ok(strcmp(ml_blas_name(), "none") == 0 || strncmp(ml_blas_name(), "OpenBLAS ", 9) == 0, "BLAS is named: %s", ml_blas_name());
  for (int isa = ML_ISA_REF; isa <= ML_ISA_NEON; isa++) {
    table = ml_kernel_table_for(isa);
    if (table == NULL) continue;
    test_gemm();
    test_large_gemm();
    test_dense();
    test_unary();
    test_special_values();
    test_binary();
    test_reductions();
    test_softmax();
    test_optimizers();
  }
  return done();
}
