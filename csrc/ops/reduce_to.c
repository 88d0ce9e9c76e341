/* ReduceTo (ours): dx = dy summed over the dimensions along which x was repeated to get dy's shape: the inverse of
 * broadcasting. The second input x counts only by its shape, which dx has. Sums run in a fixed order on one thread: bit for
 * bit repeatable.
 * float32: column sums for (N,C) -> (C), row sums for (N,C) -> (N,1), else one pass over the rows of dy.
 * Gradient: Expand would undo it; no gradient of a gradient is asked for. */
#include "ops/elementwise.h"
#include <string.h>

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_present(ctx, 2, err));
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *dy = ctx->in[0], *x = ctx->in[1];
  if (dy->rank >= 0 && x->rank >= 0) {
    bool fits = x->rank <= dy->rank;
    for (int32_t d = 1; fits && d <= x->rank; ++d) {
      const int64_t mine = x->dims[x->rank - d], other = dy->dims[dy->rank - d];
      fits = mine == 1 || mine == ML_UNKNOWN || other == ML_UNKNOWN || mine == other;
    }
    char a[128], b[128];
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "shape %s cannot be summed to shape %s",
                     ml_shape_format(dy->dims, dy->rank, a, sizeof a), ml_shape_format(x->dims, x->rank, b, sizeof b));
  }
  ml_op_set(ctx->out[0], dy->dtype, x->dims, x->rank);
  return ML_OK;
}

typedef struct sum_job {
  const ml_kernels *kernels;
  ml_dtype dtype;
  const void *from;
  void *to;
  size_t n;
  bool keep; /* inner dimension of x is not repeated */
} sum_job;

/* one row of dy onto x: offset[0] is the place in x, out_offset the place in dy */
static void sum_row(void *context, const size_t *offset, size_t out_offset) {
  const sum_job *j = context;
  if (j->dtype == ML_FLOAT32) {
    const float *from = (const float *)j->from + out_offset;
    float *to = (float *)j->to + offset[0];
    if (j->keep) j->kernels->axpy_f32(1.0f, from, to, j->n);
    else *to += j->kernels->sum_f32(from, j->n);
  } else {
    const double *from = (const double *)j->from + out_offset;
    double *to = (double *)j->to + offset[0];
    for (size_t i = 0; i < j->n; ++i) to[j->keep ? i : 0] += from[i];
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *dy = ctx->in[0], *dx = ctx->out[0];
  (void)err;
  if (dx->count == 0) return ML_OK;
  if (dx->count == dy->count) {
    ml__copy_run(ctx);
    return ML_OK;
  }
  ml_bcast b;
  ml_bcast_init(&b, dy, (const ml_view *const[]){ dx }, 1);
  const int32_t last = b.rank - 1;
  const bool keep = b.stride[0][last] != 0;
  if (b.rank == 2 && keep && dy->dtype == ML_FLOAT32 && dy->count > 0) { /* then the outer dimension is the repeated one */
    const size_t cols = (size_t)b.dims[1];
    ctx->run->kernels->column_sum_f32(dy->data, (size_t)b.dims[0], cols, cols, dx->data, false);
    return ML_OK;
  }
  memset(dx->data, 0, dx->count * ml_dtype_size(dx->dtype));
  sum_job j = {
    .kernels = ctx->run->kernels, .dtype = dy->dtype, .from = dy->data, .to = dx->data, .n = (size_t)b.dims[last], .keep = keep
  };
  ml_bcast_rows(&b, 1, sum_row, &j);
  return ML_OK;
}

const ml_op_def ml_op_reduce_to = {
  .name = "ReduceTo", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_TRAINING,
  .types = { ML_MASK_F, ML_MASK_ANY },
  .formula = "dx = sum of dy over broadcast dimensions",
  .infer = infer,
  .run = run,
};
