/* The convolution engine (contract: ops/conv.h). How the work is cut depends on shapes only, so results do not depend on threads.
 */
#include <string.h>
#include "base/thread.h"
#include "ops/conv.h"
#include "ops/product.h"

enum {
  BUFFER = 65536,   /* elements of a block of columns: 256 KiB of float32, the second-level cache */
  COLUMNS = 512,    /* outputs in a block */
  CHUNKS = 32,      /* parallel chunks, each with a buffer of its own */
  DIRECT_ROWS = 64, /* rows of a kernel that the direct loop takes */
  WANTED = 8,       /* pieces of work worth having when there is enough of it */
  LEAST_ROWS = 32   /* rows of the weights in a piece: below, making the columns again costs too much */
};

typedef struct blocks {
  bool whole;              /* forward: all columns of an image are made before any is used */
  bool plain;              /* one tap, no stride, no padding: x itself is the matrix of columns */
  size_t cols, col_blocks; /* outputs */
  size_t channels, channel_blocks;
  size_t rows, row_blocks; /* output channels */
  size_t units, buffer;    /* pieces of work; elements of one buffer */
} blocks;

typedef struct job {
  const ml__conv *c;
  const ml_kernels *kernels;
  const void *x, *weights, *bias;
  void *y, *workspace;
  size_t chunks, at; /* at: image and group, where all threads work on one */
  blocks blocks;
} job;

static size_t ceil_div(size_t a, size_t b) { return (a + b - 1) / b; }
static size_t at_least_1(size_t n) { return n ? n : 1; }

static bool is_plain(const ml__conv *c) {
  if (c->P != 1) return false;
  for (int32_t d = 0; d < c->w.n; d++)
    if (c->w.stride[d] != 1 || c->w.begin[d] != 0 || c->w.in[d] != c->w.out[d]) return false;
  return true;
}

static double flops_of(const ml__conv *c) {
  return 2.0 * (double)c->N * (double)c->G * (double)c->M * (double)c->C * (double)c->P * (double)c->O;
}

static void plan(const ml__conv *c, ml__conv_kind kind, blocks *b, size_t *chunks) {
  *b = (blocks){ .plain = is_plain(c) };
  b->cols = c->O < COLUMNS ? at_least_1(c->O) : COLUMNS;
  if (c->P > BUFFER / b->cols) b->cols = at_least_1(BUFFER / c->P);
  b->channels = BUFFER / b->cols / c->P;
  if (b->channels > c->C) b->channels = c->C;
  b->channels = at_least_1(b->channels);
  b->rows = at_least_1(c->M);
  b->row_blocks = 1;
  b->col_blocks = ceil_div(c->O, b->cols);
  size_t images = c->N * c->G;
  double work = flops_of(c);
  bool large = work > 2 * ML__CHUNK_FLOPS;
  if (kind == ML__CONV_DATA && large && images && images * ceil_div(c->C, b->channels) < WANTED)
    b->channels = at_least_1(ceil_div(c->C, ceil_div(WANTED, images)));
  b->channel_blocks = ceil_div(c->C, b->channels);
  size_t pieces = kind == ML__CONV_FORWARD ? images * b->col_blocks : c->G * b->channel_blocks;
  b->whole = kind == ML__CONV_FORWARD && !b->plain && large && pieces < WANTED && c->M >= 2 * LEAST_ROWS;
  if (kind != ML__CONV_DATA && large && pieces && pieces < WANTED && c->M >= 2 * LEAST_ROWS) {
    b->rows = ceil_div(c->M, ceil_div(WANTED, pieces));
    if (b->rows < LEAST_ROWS) b->rows = LEAST_ROWS;
    b->row_blocks = ceil_div(c->M, b->rows);
  }
  switch (kind) {
    case ML__CONV_FORWARD: b->units = images * b->row_blocks * b->col_blocks; break;
    case ML__CONV_DATA: b->units = images * b->channel_blocks; break;
    case ML__CONV_WEIGHTS: b->units = c->G * b->row_blocks * b->channel_blocks; break;
  }
  if (!b->plain) b->buffer = b->whole ? c->C * c->P * c->O : b->channels * c->P * b->cols;
  *chunks = b->whole ? 1 : ml__unit_chunks(b->units, b->units ? work / (double)b->units : 0, CHUNKS);
}

static bool is_direct(const ml__conv *c, ml__conv_kind kind) {
  return kind == ML__CONV_FORWARD && c->C == 1 && c->M <= 4 && c->P / (size_t)c->w.kernel[c->w.n - 1] <= DIRECT_ROWS;
}

void ml__conv_set(ml__conv *c, const ml__window *w, int64_t images, int64_t groups, int64_t channels_x, int64_t channels_y) {
  *c = (ml__conv){
    .w = *w, .N = (size_t)images, .G = (size_t)groups, .C = (size_t)(channels_x / groups), .M = (size_t)(channels_y / groups)
  };
  c->P = ml__window_count(w->kernel, w->n);
  c->I = ml__window_count(w->in, w->n);
  c->O = ml__window_count(w->out, w->n);
}

ml_status ml__conv_workspace(const ml__conv *c, ml__conv_kind kind, ml_dtype dtype, size_t *bytes, ml_error *err) {
  blocks b;
  size_t chunks, elements;
  *bytes = 0;
  if (c->N == 0 || is_direct(c, kind)) return ML_OK;
  plan(c, kind, &b, &chunks);
  if (!ml_mul_size(b.buffer, chunks, &elements) || !ml_mul_size(elements, ml_dtype_size(dtype), bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "a kernel of %zu taps is too large", c->P);
  return ML_OK;
}

static inline void gemm_f32(const ml_kernels *k, bool ta, bool tb, size_t M, size_t N, size_t K, const float *A, size_t lda,
                            const float *B, size_t ldb, bool add, float *C, size_t ldc) {
  k->gemm_f32(ta, tb, M, N, K, 1, A, lda, B, ldb, add ? 1.0f : 0.0f, C, ldc);
}

static inline void gemm_f64(const ml_kernels *k, bool ta, bool tb, size_t M, size_t N, size_t K, const double *A, size_t lda,
                            const double *B, size_t ldb, bool add, double *C, size_t ldc) {
  ml__product(k, ML_FLOAT64, ta, tb, M, N, K, 1, A, lda, B, ldb, add ? 1.0 : 0.0, C, ldc);
}

typedef float vector_f32 __attribute__((vector_size(16)));
typedef double vector_f64 __attribute__((vector_size(16)));

#define T float
#define VECTOR vector_f32
#define NAME(f) f##_f32
#define GEMM gemm_f32
#include "ops/conv_engine.inc.h"
#undef T
#undef VECTOR
#undef NAME
#undef GEMM
#define T double
#define VECTOR vector_f64
#define NAME(f) f##_f64
#define GEMM gemm_f64
#include "ops/conv_engine.inc.h"
#undef T
#undef VECTOR
#undef NAME
#undef GEMM

static void go(job *j, void (*f32)(void *, size_t), void (*f64)(void *, size_t), ml_dtype dtype) {
  ml_parallel(j->chunks, dtype == ML_FLOAT32 ? f32 : f64, j);
}

void ml__conv_forward(const ml__conv *c, const ml_kernels *kernels, ml_dtype dtype, const void *x, const void *weights,
                      const void *bias, void *y, void *workspace) {
  job j = { .c = c, .kernels = kernels, .x = x, .weights = weights, .bias = bias, .y = y, .workspace = workspace };
  if (c->N == 0 || c->G * c->M == 0 || c->O == 0) return;
  if (is_direct(c, ML__CONV_FORWARD)) {
    j.chunks = ml__unit_chunks(c->N * c->G * c->M, 8 * (double)c->P * (double)c->O, CHUNKS);
    go(&j, direct_chunk_f32, direct_chunk_f64, dtype);
    return;
  }
  plan(c, ML__CONV_FORWARD, &j.blocks, &j.chunks);
  for (size_t i = 0; i < c->N * c->G && j.blocks.whole; i++) {
    j.at = i;
    j.chunks = c->C < WANTED ? c->C : WANTED;
    go(&j, columns_chunk_f32, columns_chunk_f64, dtype);
    j.chunks = j.blocks.row_blocks;
    go(&j, rows_chunk_f32, rows_chunk_f64, dtype);
  }
  if (j.blocks.whole) return;
  go(&j, forward_chunk_f32, forward_chunk_f64, dtype);
}

void ml__conv_data(const ml__conv *c, const ml_kernels *kernels, ml_dtype dtype, const void *dy, const void *weights,
                   const void *bias, void *dx, void *workspace) {
  job j = { .c = c, .kernels = kernels, .x = dy, .weights = weights, .bias = bias, .y = dx, .workspace = workspace };
  if (c->N == 0 || c->G * c->C == 0 || c->I == 0) return;
  plan(c, ML__CONV_DATA, &j.blocks, &j.chunks);
  go(&j, data_chunk_f32, data_chunk_f64, dtype);
}

void ml__conv_weights(const ml__conv *c, const ml_kernels *kernels, ml_dtype dtype, const void *dy, const void *x, void *dw,
                      void *workspace) {
  job j = { .c = c, .kernels = kernels, .x = x, .weights = dy, .y = dw, .workspace = workspace };
  if (c->G * c->M * c->C == 0) return;
  plan(c, ML__CONV_WEIGHTS, &j.blocks, &j.chunks);
  go(&j, weights_chunk_f32, weights_chunk_f64, dtype);
}

void ml__conv_scatter(const ml__conv *c, ml_dtype dtype, const void *cols, void *x) {
  if (c->O == 0) return;
  if (dtype == ML_FLOAT32) scatter_f32(c, cols, c->C, 0, c->O, x);
  else scatter_f64(c, cols, c->C, 0, c->O, x);
}

/* ---------------------------------------------------------------- nodes ---- */
ml_status ml__conv_groups(const ml_attrs *attrs, const ml_view *x, const ml_view *weights, bool transposed, int64_t *groups,
                          ml_error *err) {
  char a[128], b[128];
  int64_t group = ml_attr_int(attrs, "group", 1);
  *groups = group;
  if (group < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'group' is %lld, expected 1 or more", (long long)group);
  if (x->dtype != weights->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, W is %s", ml_dtype_name(x->dtype), ml_dtype_name(weights->dtype));
  if (x->rank == ML_UNKNOWN || weights->rank == ML_UNKNOWN) return ML_OK;
  ml_shape_format(x->dims, x->rank, a, sizeof a);
  ml_shape_format(weights->dims, weights->rank, b, sizeof b);
  if (weights->rank != x->rank) return ml_fail(err, ML_INVALID_ARGUMENT, "X %s and W %s must have one rank", a, b);
  int64_t channels = x->dims[1], grouped = weights->dims[transposed ? 0 : 1], filters = weights->dims[0];
  bool fits = transposed ? channels < 0 || grouped < 0 || channels == grouped
                         : channels < 0 || grouped < 0 || (channels % group == 0 && channels / group == grouped);
  if (fits && transposed) fits = grouped < 0 || grouped % group == 0;
  if (fits && !transposed) fits = filters < 0 || filters % group == 0;
  if (!fits)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X %s and W %s do not go together in %lld group%s", a, b, (long long)group,
                   group == 1 ? "" : "s");
  return ML_OK;
}

ml_status ml__conv_check_bias(const ml_view *bias, const ml_view *x, int64_t channels, ml_error *err) {
  char text[128];
  if (!bias) return ML_OK;
  if (bias->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "B is %s, X is %s", ml_dtype_name(bias->dtype), ml_dtype_name(x->dtype));
  if (bias->rank != ML_UNKNOWN && (bias->rank != 1 || (bias->dims[0] >= 0 && channels >= 0 && bias->dims[0] != channels)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "B: expected one value for each of %lld channels, got shape %s", (long long)channels,
                   ml_shape_format(bias->dims, bias->rank, text, sizeof text));
  return ML_OK;
}

static ml_value *bias_gradient(ml_grad *g) {
  int64_t axes[ML_MAX_RANK];
  const ml_view *view = g->shape_of(g, g->in[0]);
  ml_attr keep = ml_attr_of_int("keepdims", 0);
  int32_t n = 0;
  if (view->rank == ML_UNKNOWN) {
    ml_g_fail(g, "convolution bias gradient with an input of unknown rank");
    return NULL;
  }
  for (int32_t d = 0; d < view->rank; d++)
    if (d != 1) axes[n++] = d;
  ml_value *in[2] = { g->dout[0], g->ints(g, axes, (size_t)n) };
  return ml_gn(g, "ReduceSum", &keep, 1, 2, in);
}

void ml__conv_gradient(ml_grad *g, const char *op) {
  ml_value *in[3] = { g->dout[0], g->in[0], g->in[1] }, *out[2] = { NULL, NULL };
  if (!g->dout[0]) return;
  if (g->needs[0] || g->needs[1]) (void)g->emit(g, op, g->attrs->items, g->attrs->count, 3, in, 2, out);
  if (g->needs[0]) g->din[0] = out[0];
  if (g->needs[1]) g->din[1] = out[1];
  if (g->n_in > 2 && g->in[2] && g->needs[2]) g->din[2] = bias_gradient(g);
}
