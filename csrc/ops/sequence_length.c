/* SequenceLength 11: how many tensors a sequence has, int64 scalar. ONNX operator specification. */
#include "ops/sequence.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  uint32_t inner;
  ML_TRY(ml__expect_kind(ctx, 0, ML_KIND_SEQUENCE, &inner, err));
  ml_op_set(ctx->out[0], ML_INT64, NULL, 0);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  *(int64_t *)ctx->out[0]->data = (int64_t)ml_view_container(ctx->in[0])->count;
  return ML_OK;
}

const ml_op_def ml_op_sequence_length = {
  .name = "SequenceLength", .domain = "", .since = 11, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS,
  .formula = "y = number of elements of s", .infer = infer, .run = run,
};
