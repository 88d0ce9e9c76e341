/* SequenceInsert 11: the sequence with the tensor in front of position (default: at the end), in [-n, n]. ONNX operator specification. */
#include "ops/sequence.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  uint32_t inner;
  ML_TRY(ml__expect_kind(ctx, 0, ML_KIND_SEQUENCE, &inner, err));
  if (!ml_type_fits(inner, ml_view_type(ctx->in[1]))) {
    char a[96], b[96];
    return ml_fail(err, ML_INVALID_ARGUMENT, "a sequence of %s takes no %s", ml_type_format(inner, a, sizeof a), ml_type_format(ml_view_type(ctx->in[1]), b, sizeof b));
  }
  ml_op_set_type(ctx->out[0], ml_type_of(ML_KIND_SEQUENCE, ml_view_type(ctx->in[1])));
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_container *from = ml_view_container(ctx->in[0]);
  int64_t position;
  size_t at;
  ML_TRY(ml__position(ctx, 2, (int64_t)from->count, &position, err));
  ML_TRY(ml__in_sequence(position, from->count, 1, &at, err));
  return ml__edit_sequence(ctx, from, from->count, ctx->in[1], at, err);
}

const ml_op_def ml_op_sequence_insert = {
  .name = "SequenceInsert", .domain = "", .since = 11, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS,
  .formula = "y = s with x in front of position", .infer = infer, .run = run,
};
