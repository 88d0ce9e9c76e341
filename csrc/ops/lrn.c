/* LRN 13 (local response normalisation across channels): Y = X / (bias + alpha / size * sum of X^2 over the channels c -
 * (size-1)/2 (rounded down) … c + (size-1)/2 (rounded up))^beta. X (N,C,D1…) -> Y. Krizhevsky et al. 2012; ONNX operator
 * specification. */
#include <math.h>
#include "base/thread.h"
#include "ops/window.h"

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "1e-4 (default)" },
  { "beta", ML_ATTR_FLOAT, false, "0.75 (default): exponent" },
  { "bias", ML_ATTR_FLOAT, false, "1 (default)" },
  { "size", ML_ATTR_INT, true, "number of channels summed" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_same(ctx, err));
  int64_t size = ml_attr_int(ctx->attrs, "size", 0);
  if (size < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'size' is %lld, expected 1 or more", (long long)size);
  if (ctx->in[0]->rank == 0 || ctx->in[0]->rank == 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 2 or more, got rank %d", (int)ctx->in[0]->rank);
  return ML_OK;
}

typedef struct job {
  const ml_op_ctx *ctx;
  size_t C, S, units, chunks;
} job;

static void chunk(void *context, size_t index) {
  const job *j = context;
  const ml_op_ctx *ctx = j->ctx;
  const double alpha = (double)ml_attr_float(ctx->attrs, "alpha", 1e-4f), beta = (double)ml_attr_float(ctx->attrs, "beta", 0.75f);
  const double bias = (double)ml_attr_float(ctx->attrs, "bias", 1.0f);
  const int64_t size = ml_attr_int(ctx->attrs, "size", 1), channels = (int64_t)j->C;
  size_t first, end;
  ml__unit_range(j->units, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    int64_t c = (int64_t)(u % j->C), before = (size - 1) / 2, after = size - 1 - before;
    int64_t low = before > c ? 0 : c - before, high = after >= channels - c ? channels - 1 : c + after;
    ML_SWITCH_FLOAT(ctx->in[0]->dtype, {
      const T *x = (const T *)ctx->in[0]->data + u * j->S;
      T *y = (T *)ctx->out[0]->data + u * j->S;
      for (size_t i = 0; i < j->S; i++) {
        double sum = 0;
        for (int64_t k = low; k <= high; k++) {
          const double v = (double)x[(k - c) * (int64_t)j->S + (int64_t)i];
          sum += v * v;
        }
        y[i] = (T)((double)x[i] * pow(bias + alpha / (double)size * sum, -beta));
      }
    })
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  (void)err;
  if (x->count == 0) return ML_OK;
  job j = { .ctx = ctx, .C = (size_t)x->dims[1], .S = ml__extent(x->dims, 2, x->rank), .units = ml__extent(x->dims, 0, 2) };
  j.chunks = ml__unit_chunks(j.units, 100 * (double)j.S, 64);
  if (j.chunks == 1) chunk(&j, 0);
  else ml_parallel(j.chunks, chunk, &j);
  return ML_OK;
}

const ml_op_def ml_op_lrn = {
  .name = "LRN", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "Y = X / (bias + alpha / size sum X^2)^beta", .infer = infer, .run = run,
};
