/* Multinomial: sample_size classes per row, drawn with replacement with probabilities softmax(x). x (batch, classes),
 * unnormalised log-probabilities -> (batch, sample_size) int32 or int64. Drawn by inversion (cumulative sums, binary search)
 * from the Philox stream that run seed (or the attribute seed), node and run step make. No gradient. Reference: ONNX
 * Multinomial-22. */
#include <math.h>
#include "ops/random.h"

static const ml_attr_def attrs[] = {
  { "dtype", ML_ATTR_INT, false, "int32 (default) or int64" },
  { "sample_size", ML_ATTR_INT, false, "1 (default): draws per row" },
  { "seed", ML_ATTR_FLOAT, false, "the run's by default" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_dtype dtype;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__random_dtype(ctx, ML_INT32, ML_BIT(ML_INT32) | ML_BIT(ML_INT64), &dtype, err));
  if (x->rank != ML_UNKNOWN && x->rank != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "input has rank %d, expected 2", (int)x->rank);
  int64_t dims[2] = { x->rank == 2 ? x->dims[0] : ML_UNKNOWN, ml_attr_int(ctx->attrs, "sample_size", 1) };
  if (dims[1] < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'sample_size' is %lld", (long long)dims[1]);
  ml_op_set(ctx->out[0], dtype, dims, 2);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  if (!ml_mul_size((size_t)ctx->in[0]->dims[1], sizeof(double), bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "too many classes");
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  const size_t rows = (size_t)x->dims[0], classes = (size_t)x->dims[1], draws = (size_t)y->dims[1];
  const ml__stream s = ml__stream_of(ctx);
  double *below = ctx->workspace; /* below[c]: sum of e^x up to and with class c */
  if (y->count == 0) return ML_OK;
  if (classes == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "there are no classes to draw from");
  for (size_t r = 0; r < rows; r++) {
    double largest = -INFINITY, sum = 0;
    for (size_t c = 0; c < classes; c++) largest = fmax(largest, ml_element_get(x->data, x->dtype, r * classes + c));
    for (size_t c = 0; c < classes; c++) {
      const double p = exp(ml_element_get(x->data, x->dtype, r * classes + c) - largest);
      below[c] = sum += p;
    }
    if (!(sum > 0 && sum < INFINITY)) return ml_fail(err, ML_INVALID_ARGUMENT, "row %zu gives no probabilities", r);
    for (size_t d = 0; d < draws; d++) {
      const double u = ml__uniform53(s, r * draws + d) * sum;
      size_t low = 0, high = classes - 1; /* the first class whose sum exceeds u */
      while (low < high) {
        const size_t middle = low + (high - low) / 2;
        if (below[middle] > u) high = middle;
        else low = middle + 1;
      }
      if (y->dtype == ML_INT64) ((int64_t *)y->data)[r * draws + d] = (int64_t)low;
      else ((int32_t *)y->data)[r * draws + d] = (int32_t)low;
    }
  }
  return ML_OK;
}

const ml_op_def ml_op_multinomial = {
  .name = "Multinomial", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_RANDOM,
  .attrs = attrs, .types = { ML__MASK_RANDOM }, .formula = "y = classes drawn from softmax(x)", .infer = infer,
  .workspace = workspace, .run = run,
};
