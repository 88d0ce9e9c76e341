/* Shape 21: the dimensions [start, end) of x as int64; both count from the end when negative and are clamped. ONNX operator
 * specification. */
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "start", ML_ATTR_INT, false, "0 (default): first dimension wanted" },
  { "end", ML_ATTR_INT, false, "default the rank: one past the last dimension wanted" },
  { 0 },
};

static int64_t clamp(int64_t v, int64_t rank) {
  if (v < 0) v = v < -rank ? 0 : v + rank;
  return v > rank ? rank : v;
}

static void range(const ml_op_ctx *ctx, int64_t *start, int64_t *end) {
  int64_t rank = ctx->in[0]->rank;
  *start = clamp(ml_attr_int(ctx->attrs, "start", 0), rank);
  *end = clamp(ml_attr_int(ctx->attrs, "end", rank), rank);
  if (*end < *start) *end = *start;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t start, end, length = ML_UNKNOWN;
  (void)err;
  if (ctx->in[0]->rank != ML_UNKNOWN) {
    range(ctx, &start, &end);
    length = end - start;
  }
  ml_op_set(ctx->out[0], ML_INT64, &length, 1);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  int64_t start, end, *y = ctx->out[0]->data;
  (void)err;
  range(ctx, &start, &end);
  for (int64_t i = start; i < end; i++) y[i - start] = ctx->in[0]->dims[i];
  return ML_OK;
}

const ml_op_def ml_op_shape = {
  .name = "Shape", .domain = "", .since = 25, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .formula = "y = dimensions of x", .infer = infer, .run = run,
};
