/* What the pools share (contract: ops/pool.h). */
#include "ops/pool.h"
#include "base/thread.h"

ml_status ml__pool_window(const ml_attrs *attrs, const ml_view *x, ml__window *w, ml_error *err) {
  ML_TRY(ml__window_init(w, attrs, x, NULL, ml_attr_int(attrs, "ceil_mode", 0) != 0, err));
  for (int32_t d = 0; d < w->n; d++) /* else a window could lie in the padding alone */
    if (w->begin[d] >= ml__window_extent(w, d) || w->end[d] >= ml__window_extent(w, d))
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'pads': dimension %d has %lld and %lld, the window is only %lld long",
                     (int)d + 2, (long long)w->begin[d], (long long)w->end[d], (long long)ml__window_extent(w, d));
  return ML_OK;
}

ml_status ml__pool_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  int64_t dims[ML_MAX_RANK];
  ml__window w;
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(ml__pool_window(ctx->attrs, x, &w, err));
  dims[0] = x->dims[0];
  dims[1] = x->dims[1];
  for (int32_t d = 0; d < w.n; d++) dims[d + 2] = w.out[d];
  ml_op_set(ctx->out[0], x->dtype, dims, x->rank);
  return ML_OK;
}

ml_status ml__pool_grad_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  if (ctx->in[0]->dtype != ctx->in[1]->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dY is %s, X is %s", ml_dtype_name(ctx->in[0]->dtype),
                   ml_dtype_name(ctx->in[1]->dtype));
  ml_op_like(ctx->out[0], ctx->in[1]);
  return ML_OK;
}

ml_status ml__pool_grad_window(const ml_op_ctx *ctx, ml__window *w, ml_error *err) {
  const ml_view *dy = ctx->in[0], *x = ctx->in[1];
  ML_TRY(ml__pool_window(ctx->attrs, x, w, err));
  bool fits = dy->rank == x->rank && dy->dims[0] == x->dims[0] && dy->dims[1] == x->dims[1];
  for (int32_t d = 0; fits && d < w->n; d++) fits = dy->dims[d + 2] == w->out[d];
  return fits ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "dY does not have the shape of the pool's output");
}

double ml__pool_flops(const ml_op_ctx *ctx) {
  const ml_attr *kernel = ml_attr_find(ctx->attrs, "kernel_shape");
  double taps = 1;
  for (size_t i = 0; kernel && i < kernel->count; i++) taps *= (double)kernel->as.ints[i];
  return taps * (double)ctx->out[0]->count;
}

static void chunk(void *context, size_t index) {
  const ml__planes *p = context;
  size_t first, end;
  ml__unit_range(p->count, p->chunks, index, &first, &end);
  for (size_t i = first; i < end; i++) p->plane(p, i);
}

void ml__planes_run(ml__planes *p, size_t count, double flops) {
  if (count == 0) return;
  p->in = ml__window_count(p->w.in, p->w.n);
  p->out = ml__window_count(p->w.out, p->w.n);
  p->count = count;
  p->chunks = ml__unit_chunks(count, flops, 64);
  if (p->chunks == 1) chunk(p, 0);
  else ml_parallel(p->chunks, chunk, p);
}
