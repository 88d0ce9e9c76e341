/* SequenceErase 11: the sequence without the tensor at position (default: the last), in [-n, n-1]. ONNX operator specification. */
#include "ops/sequence.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  uint32_t inner;
  ML_TRY(ml__expect_kind(ctx, 0, ML_KIND_SEQUENCE, &inner, err));
  ml_op_like(ctx->out[0], ctx->in[0]);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_container *from = ml_view_container(ctx->in[0]);
  int64_t position;
  size_t at;
  ML_TRY(ml__position(ctx, 1, -1, &position, err));
  ML_TRY(ml__in_sequence(position, from->count, 0, &at, err));
  return ml__edit_sequence(ctx, from, at, NULL, 0, err);
}

const ml_op_def ml_op_sequence_erase = {
  .name = "SequenceErase", .domain = "", .since = 11, .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS,
  .formula = "y = s without its element at position", .infer = infer, .run = run,
};
