/* MatMul 13: NumPy's matmul. A (…,M,K), B (…,K,N) -> (…,M,N), the leading dimensions broadcast; a rank-1 A counts as (1,K),
 * a rank-1 B as (K,1), and the added dimension goes again. Gradient: dA = dY B^T, dB = A^T dY, summed over what was broadcast;
 * with matrices these are Gemm nodes, so no transposed copy is made. */
#include "base/thread.h"
#include "ops/movement.h"
#include "ops/product.h"

/* ---------------------------------------------------------------- shapes ---- */
ml_status ml__mat_mul_shape(const ml_view *A, const ml_view *B, ml_dtype dtype, ml_view *Y, ml_error *err) {
  int64_t dims[ML_MAX_RANK + 2] = { 0 };
  int32_t rank;
  if (A->rank == ML_UNKNOWN || B->rank == ML_UNKNOWN) {
    ml_op_set(Y, dtype, dims, ML_UNKNOWN);
    return ML_OK;
  }
  if (A->rank == 0 || B->rank == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected rank 1 or more, got rank 0", A->rank == 0 ? "A" : "B");
  char a_text[96], b_text[96];
  ml_shape_format(A->dims, A->rank, a_text, sizeof a_text);
  ml_shape_format(B->dims, B->rank, b_text, sizeof b_text);
  int64_t ka = A->dims[A->rank - 1], kb = B->dims[B->rank == 1 ? 0 : B->rank - 2];
  if (ka >= 0 && kb >= 0 && ka != kb)
    return ml_fail(err, ML_INVALID_ARGUMENT, "inner dimensions differ: A %s, B %s", a_text, b_text);
  int32_t batch_a = A->rank > 2 ? A->rank - 2 : 0, batch_b = B->rank > 2 ? B->rank - 2 : 0;
  ml_status status = ml_shape_broadcast(A->dims, batch_a, B->dims, batch_b, dims, &rank, err);
  if (status != ML_OK) return ml_fail_in(err, status, "batch dimensions of A %s and B %s", a_text, b_text);
  if (A->rank > 1) dims[rank++] = A->dims[A->rank - 2];
  if (B->rank > 1) dims[rank++] = B->dims[B->rank - 1];
  ml_op_set(Y, dtype, dims, rank);
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *A = ctx->in[0], *B = ctx->in[1];
  if (A->dtype != B->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "A is %s, B is %s, expected one type", ml_dtype_name(A->dtype),
                   ml_dtype_name(B->dtype));
  return ml__mat_mul_shape(A, B, A->dtype, ctx->out[0], err);
}

/* ---------------------------------------------------------------- forward ---- */
typedef struct batch {
  const ml_kernels *kernels;
  ml_dtype dtype;
  int32_t rank; /* of the batch dimensions */
  const int64_t *dims;
  int64_t a_stride[ML_MAX_RANK], b_stride[ML_MAX_RANK]; /* in matrices */
  size_t count, per_chunk, M, N, K;
  const char *A, *B;
  char *Y;
} batch;

static void some(void *context, size_t index) {
  const batch *t = context;
  size_t end = (index + 1) * t->per_chunk, size = ml_dtype_size(t->dtype);
  if (end > t->count) end = t->count;
  for (size_t i = index * t->per_chunk; i < end; i++) {
    int64_t a = 0, b = 0;
    size_t rest = i;
    for (int32_t d = t->rank - 1; d >= 0; d--) {
      int64_t at = (int64_t)(rest % (size_t)t->dims[d]);
      rest /= (size_t)t->dims[d];
      a += at * t->a_stride[d];
      b += at * t->b_stride[d];
    }
    ml__product(t->kernels, t->dtype, false, false, t->M, t->N, t->K, 1, t->A + (size_t)a * t->M * t->K * size, t->K,
                t->B + (size_t)b * t->K * t->N * size, t->N, 0, t->Y + i * t->M * t->N * size, t->N);
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *A = ctx->in[0], *B = ctx->in[1];
  ml_view *Y = ctx->out[0];
  (void)err;
  if (Y->count == 0) return ML_OK;
  batch t = { .kernels = ctx->run->kernels, .dtype = Y->dtype, .dims = Y->dims, .A = A->data, .B = B->data, .Y = Y->data };
  t.K = (size_t)A->dims[A->rank - 1];
  t.M = A->rank > 1 ? (size_t)A->dims[A->rank - 2] : 1;
  t.N = B->rank > 1 ? (size_t)B->dims[B->rank - 1] : 1;
  int32_t batch_a = A->rank > 2 ? A->rank - 2 : 0, batch_b = B->rank > 2 ? B->rank - 2 : 0;
  if (batch_b == 0) { /* one B for all: the rows of every A are one tall matrix */
    size_t rows = t.K > 0 ? A->count / t.K : Y->count / t.N;
    ml__product(t.kernels, t.dtype, false, false, rows, t.N, t.K, 1, t.A, t.K, t.B, t.N, 0, t.Y, t.N);
    return ML_OK;
  }
  t.rank = batch_a > batch_b ? batch_a : batch_b;
  ml__broadcast_strides(A->dims, batch_a, t.rank, t.a_stride);
  ml__broadcast_strides(B->dims, batch_b, t.rank, t.b_stride);
  t.count = ml__extent(Y->dims, 0, t.rank);
  t.per_chunk = ml__rows_per_chunk(t.count, 2.0 * (double)t.M * (double)t.N * (double)t.K, 1);
  ml_parallel((t.count + t.per_chunk - 1) / t.per_chunk, some, &t);
  return ML_OK;
}

/* ---------------------------------------------------------------- gradient ---- */
static ml_value *gemm(ml_grad *g, ml_value *a, bool ta, ml_value *b, bool tb) {
  ml_attr list[2] = { ml_attr_of_int("transA", ta), ml_attr_of_int("transB", tb) };
  ml_value *in[2] = { a, b };
  return ml_gn(g, "Gemm", list, 2, 2, in);
}

static ml_value *rows_of(ml_grad *g, ml_value *x, int64_t cols) {
  int64_t shape[2] = { -1, cols };
  return ml_g2(g, "Reshape", x, g->ints(g, shape, 2));
}

static ml_value *swap_last(ml_grad *g, ml_value *x, int32_t rank) {
  int64_t perm[ML_MAX_RANK];
  for (int32_t i = 0; i < rank; i++) perm[i] = i;
  perm[rank - 2] = rank - 1;
  perm[rank - 1] = rank - 2;
  ml_attr list = ml_attr_of_ints("perm", perm, (size_t)rank);
  return ml_gn(g, "Transpose", &list, 1, 1, &x);
}

static ml_value *unsqueeze(ml_grad *g, ml_value *x, int64_t axis) { return ml_g2(g, "Unsqueeze", x, g->ints(g, &axis, 1)); }

/* dX in the shape of x; a rank-1 x was widened at `axis`, which is summed over the batch by ReduceTo of the widened x. */
static ml_value *narrow(ml_grad *g, ml_value *dx, ml_value *wide, ml_value *x) {
  dx = ml_g_reduce_to(g, dx, wide);
  return wide == x ? dx : ml__g_reshape_like(g, dx, x);
}

static void gradient(ml_grad *g) {
  ml_value *A = g->in[0], *B = g->in[1], *dY = g->dout[0];
  const ml_view *a = g->shape_of(g, A), *b = g->shape_of(g, B);
  if (!a || !b) return;
  if (a->rank == ML_UNKNOWN || b->rank == ML_UNKNOWN) {
    ml_g_fail(g, "an operand has unknown rank");
    return;
  }
  int32_t ra = a->rank, rb = b->rank;
  int64_t k = b->dims[0], n = rb > 1 ? b->dims[rb - 1] : 1;
  if (ra == 2 && rb == 2) {
    if (g->needs[0]) g->din[0] = gemm(g, dY, false, B, true);
    if (g->needs[1]) g->din[1] = gemm(g, A, true, dY, false);
    return;
  }
  if (ra > 2 && rb == 2 && k > 0 && n > 0) { /* a dense layer over leading dimensions */
    ml_value *rows = rows_of(g, dY, n);
    if (g->needs[0]) g->din[0] = ml__g_reshape_like(g, gemm(g, rows, false, B, true), A);
    if (g->needs[1]) g->din[1] = gemm(g, rows_of(g, A, k), true, rows, false);
    return;
  }
  ml_value *wa = A, *wb = B; /* every operand as a (batch of) matrices */
  if (rb == 1) {
    wb = unsqueeze(g, B, 1);
    dY = unsqueeze(g, dY, -1);
    rb = 2;
  }
  if (ra == 1) {
    wa = unsqueeze(g, A, 0);
    dY = unsqueeze(g, dY, -2);
    ra = 2;
  }
  if (g->needs[0]) g->din[0] = narrow(g, ml_g2(g, "MatMul", dY, swap_last(g, wb, rb)), wa, A);
  if (g->needs[1]) g->din[1] = narrow(g, ml_g2(g, "MatMul", swap_last(g, wa, ra), dY), wb, B);
}

static double flops(const ml_op_ctx *ctx) {
  const ml_view *A = ctx->in[0];
  return A->rank < 1 ? 0 : 2.0 * (double)ctx->out[0]->count * (double)A->dims[A->rank - 1];
}

const ml_op_def ml_op_mat_mul = {
  .name = "MatMul", .domain = "", .since = 13, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .types = { ML__MASK_PRODUCT }, .formula = "Y = A B over the last two dimensions", .infer = infer, .run = run,
  .gradient = gradient, .flops = flops,
};
