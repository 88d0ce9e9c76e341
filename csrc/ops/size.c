/* Size 21: the number of elements of x, int64 of rank 0. ONNX operator specification. */
#include "ops/movement.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml_op_set(ctx->out[0], ML_INT64, NULL, 0);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  *(int64_t *)ctx->out[0]->data = (int64_t)ctx->in[0]->count;
  return ML_OK;
}

const ml_op_def ml_op_size = {
  .name = "Size", .domain = "", .since = 25, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .formula = "y = number of elements of x", .infer = infer, .run = run,
};
