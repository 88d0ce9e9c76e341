/* See quantize.h. Products widen both sides to int16 with the zero points taken off: the inner loop is then a dot product of
 * int16, which every x86-64 processor does eight or more at a time. */
#include "ops/quantize.h"
#include "base/thread.h"

/* ---------------------------------------------------------------- scales ---- */
ml_status ml__scales_init(const ml_op_ctx *ctx, const ml_view *x, const ml_view *scale, const ml_view *zero, ml__scales *out,
                          ml_error *err) {
  const int64_t block = ml_attr_int(ctx->attrs, "block_size", 0);
  char a[128], b[128];
  *out = (ml__scales){ .outer = 1, .extent = x->count, .inner = 1 };
  if (block < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'block_size' is %lld", (long long)block);
  if (zero != NULL && ml_view_known(scale) && ml_view_known(zero) && zero->count != scale->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "the scale has shape %s, the zero point %s",
                   ml_shape_format(scale->dims, scale->rank, a, sizeof a), ml_shape_format(zero->dims, zero->rank, b, sizeof b));
  if (!ml_view_known(scale) || x->rank == ML_UNKNOWN) return ML_OK;
  if (block == 0 && (scale->rank == 0 || (scale->rank == 1 && scale->dims[0] == 1))) return ML_OK;
  int32_t axis;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 1), x->rank, &axis, err));
  if (!ml_view_known(x)) return ML_OK;
  bool fits = block == 0 ? scale->rank == 1 && scale->dims[0] == x->dims[axis] : scale->rank == x->rank;
  for (int32_t i = 0; i < x->rank && fits && block > 0; i++)
    fits = scale->dims[i] == (i == axis ? x->dims[i] / block + (x->dims[i] % block != 0) : x->dims[i]);
  if (!fits)
    return ml_fail(err, ML_INVALID_ARGUMENT,
                   "a scale of shape %s does not fit a tensor of shape %s along axis %d (block_size %lld)",
                   ml_shape_format(scale->dims, scale->rank, a, sizeof a), ml_shape_format(x->dims, x->rank, b, sizeof b),
                   (int)axis,
                   (long long)block);
  *out = (ml__scales){ .outer = ml__extent(x->dims, 0, axis), .extent = (size_t)x->dims[axis],
                       .inner = ml__extent(x->dims, axis + 1, x->rank), .block = (size_t)block,
                       .blocks = (size_t)scale->dims[block == 0 ? 0 : axis] };
  return ML_OK;
}

void ml__scales_rows(const ml__scales *q, void (*row)(void *context, size_t at, size_t n, size_t s, size_t t), void *context) {
  if (q->outer == 0 || q->extent == 0 || q->inner == 0) return;
  if (q->blocks == 0) {
    row(context, 0, q->extent, 0, 0);
    return;
  }
  for (size_t o = 0; o < q->outer; o++) {
    if (q->inner == 1 && q->block == 0) row(context, o * q->extent, q->extent, 0, 1);
    else if (q->inner == 1)
      for (size_t b = 0; b < q->blocks; b++) {
        const size_t begin = b * q->block, n = q->extent - begin < q->block ? q->extent - begin : q->block;
        row(context, o * q->extent + begin, n, o * q->blocks + b, 0);
      }
    else
      for (size_t a = 0; a < q->extent; a++) {
        const size_t at = (o * q->extent + a) * q->inner;
        if (q->block == 0) row(context, at, q->inner, a, 0);
        else row(context, at, q->inner, (o * q->blocks + a / q->block) * q->inner, 1);
      }
  }
}

void ml__quantized_range(ml_dtype dtype, int32_t *low, int32_t *high) {
  const int32_t levels = 1 << ml_dtype_bits(dtype);
  const bool has_sign = dtype == ML_INT16 || dtype == ML_INT8 || dtype == ML_INT4 || dtype == ML_INT2;
  *low = has_sign ? -(levels / 2) : 0;
  *high = *low + levels - 1;
}

/* ---------------------------------------------------------------- products ---- */
void ml__widen(const void *from, ml_dtype dtype, size_t from_step, int32_t zero, int16_t *to, size_t n) {
  if (dtype == ML_INT8)
    for (size_t i = 0; i < n; i++) to[i] = (int16_t)(((const int8_t *)from)[i * from_step] - zero);
  else
    for (size_t i = 0; i < n; i++) to[i] = (int16_t)(((const uint8_t *)from)[i * from_step] - zero);
}

enum {
  EXACT = 16384, /* products of two 9-bit numbers whose sum fits into int32 */
  STRIPE = 64    /* rows of b that stay in the cache */
};

static int32_t dot(const int16_t *a, const int16_t *b, size_t n) {
  uint32_t total = 0;
  for (size_t begin = 0; begin < n; begin += EXACT) {
    const size_t m = n - begin < EXACT ? n - begin : EXACT;
    int32_t sum = 0;
    for (size_t i = 0; i < m; i++) sum += a[begin + i] * b[begin + i];
    total += (uint32_t)sum;
  }
  return (int32_t)total;
}

typedef struct task {
  const int16_t *a, *b;
  size_t M, N, K, ldc, rows;
  int32_t *c;
} task;

static void some_rows(void *context, size_t chunk) {
  const task *t = context;
  const size_t begin = chunk * t->rows, end = begin + t->rows < t->M ? begin + t->rows : t->M;
  for (size_t stripe = 0; stripe < t->N; stripe += STRIPE) {
    const size_t last = stripe + STRIPE < t->N ? stripe + STRIPE : t->N;
    for (size_t m = begin; m < end; m++)
      for (size_t n = stripe; n < last; n++) t->c[m * t->ldc + n] = dot(t->a + m * t->K, t->b + n * t->K, t->K);
  }
}

void ml__product_i16(const int16_t *a, const int16_t *b, size_t M, size_t N, size_t K, int32_t *c, size_t ldc) {
  if (M == 0 || N == 0) return;
  task t = { .a = a, .b = b, .M = M, .N = N, .K = K, .ldc = ldc, .rows = M, .c = c };
  const double work = (double)M * (double)N * (double)K; /* a chunk should be worth waking a thread */
  if (work > 4e6) {
    const double chunks = work / 2e6 < 64 ? work / 2e6 : 64;
    t.rows = (size_t)((double)M / chunks) + 1;
  }
  const size_t n = (M + t.rows - 1) / t.rows;
  if (n == 1) some_rows(&t, 0);
  else ml_parallel(n, some_rows, &t);
}

/* ---------------------------------------------------------------- matrices ---- */
ml_status ml__per_row_check(const ml_view *v, size_t batches, size_t rows, const char *what, ml_error *err) {
  char text[128];
  if (v == NULL || v->count == 1 || v->count == rows || v->count == batches * rows) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s has shape %s, expected one value or %zu", what,
                 ml_shape_format(v->dims, v->rank, text, sizeof text), rows);
}

ml_status ml__matmul_i8_init(ml__matmul_i8 *m, const ml_view *A, const ml_view *B, const ml_view *a_zero, const ml_view *b_zero,
                             const ml_view *Y, ml_error *err) {
  *m = (ml__matmul_i8){ .A = A, .B = B, .a_zero = a_zero, .b_zero = b_zero };
  m->K = (size_t)A->dims[A->rank - 1];
  m->M = A->rank > 1 ? (size_t)A->dims[A->rank - 2] : 1;
  m->N = B->rank > 1 ? (size_t)B->dims[B->rank - 1] : 1;
  const int32_t batch_a = A->rank > 2 ? A->rank - 2 : 0, batch_b = B->rank > 2 ? B->rank - 2 : 0;
  m->batch_rank = batch_a > batch_b ? batch_a : batch_b;
  for (int32_t i = 0; i < m->batch_rank; i++) m->dims[i] = Y->dims[i];
  ml__broadcast_strides(A->dims, batch_a, m->batch_rank, m->a_stride);
  ml__broadcast_strides(B->dims, batch_b, m->batch_rank, m->b_stride);
  m->batches = ml__extent(Y->dims, 0, m->batch_rank);
  ML_TRY(ml__per_row_check(a_zero, m->batches, m->M, "a_zero_point", err));
  return ml__per_row_check(b_zero, m->batches, m->N, "b_zero_point", err);
}

ml_status ml__matmul_i8_workspace(const ml__matmul_i8 *m, size_t *bytes, ml_error *err) {
  size_t rows;
  if (!ml_add_size(m->M, m->N, &rows) || !ml_mul_size(rows, m->K, &rows) || !ml_mul_size(rows, sizeof(int16_t), bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the matrices are too large");
  return ML_OK;
}

void ml__matmul_i8_run(const ml__matmul_i8 *m, size_t i, int32_t *c, void *workspace) {
  int16_t *a = workspace, *b = a + m->M * m->K;
  size_t at_a = 0, at_b = 0, rest = i;
  for (int32_t d = m->batch_rank - 1; d >= 0; d--) {
    const size_t index = rest % (size_t)m->dims[d];
    rest /= (size_t)m->dims[d];
    at_a += index * (size_t)m->a_stride[d];
    at_b += index * (size_t)m->b_stride[d];
  }
  const char *A = (const char *)m->A->data + at_a * m->M * m->K, *B = (const char *)m->B->data + at_b * m->K * m->N;
  for (size_t r = 0; r < m->M; r++) {
    const int32_t zero = m->a_zero ? ml__zero_at(m->a_zero, ml__per_row(m->a_zero, m->M, i, r)) : 0;
    ml__widen(A + r * m->K, m->A->dtype, 1, zero, a + r * m->K, m->K);
  }
  for (size_t n = 0; n < m->N; n++) {
    const int32_t zero = m->b_zero ? ml__zero_at(m->b_zero, ml__per_row(m->b_zero, m->N, i, n)) : 0;
    ml__widen(B + n, m->B->dtype, m->N, zero, b + n * m->K, m->K);
  }
  ml__product_i16(a, b, m->M, m->N, m->K, c, m->N);
}
