/* What the global pools share (contract: ops/global_pool.h). */
#include "ops/global_pool.h"
#include "base/thread.h"

ml_status ml__global_pool_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  int64_t dims[ML_MAX_RANK];
  if (x->rank == 0 || x->rank == 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 2 or more, got rank %d", (int)x->rank);
  for (int32_t d = 0; d < x->rank; d++) dims[d] = d < 2 ? x->dims[d] : 1;
  ml_op_set(ctx->out[0], x->dtype, dims, x->rank);
  return ML_OK;
}

typedef struct job {
  const ml_op_ctx *ctx;
  void (*value)(const ml_op_ctx *ctx, size_t n, size_t index);
  size_t n, count, chunks;
} job;

static void chunk(void *context, size_t index) {
  const job *j = context;
  size_t first, end;
  ml__unit_range(j->count, j->chunks, index, &first, &end);
  for (size_t i = first; i < end; i++) j->value(j->ctx, j->n, i);
}

ml_status ml__global_pool_run(ml_op_ctx *ctx, void (*value)(const ml_op_ctx *ctx, size_t n, size_t index), ml_error *err) {
  job j = { .ctx = ctx, .value = value, .count = ctx->out[0]->count };
  if (j.count == 0) return ML_OK;
  j.n = ctx->in[0]->count / j.count;
  if (j.n == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "X has no elements to pool");
  j.chunks = ml__unit_chunks(j.count, 4 * (double)j.n, 64);
  if (j.chunks == 1) chunk(&j, 0);
  else ml_parallel(j.chunks, chunk, &j);
  return ML_OK;
}

double ml__global_pool_flops(const ml_op_ctx *ctx) { return (double)ctx->in[0]->count; }
