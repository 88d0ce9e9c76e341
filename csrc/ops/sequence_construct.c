/* SequenceConstruct 11: the inputs, of one element type, as a sequence. ONNX operator specification. */
#include "ops/sequence.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  for (int32_t i = 0; i < ctx->n_in; i++) {
    if (!ctx->in[i]) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", i);
    if (ctx->in[i]->dtype != ctx->in[0]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is %s, input 0 %s", i, ml_dtype_name(ctx->in[i]->dtype), ml_dtype_name(ctx->in[0]->dtype));
  }
  ml_op_set_type(ctx->out[0], ml_type_of(ML_KIND_SEQUENCE, ml_type_tensor(ctx->in[0]->dtype)));
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_container *made;
  ML_TRY(ml_container_new(ctx->out[0]->type, (size_t)ctx->n_in, &made, err));
  ml_status status = ML_OK;
  for (int32_t i = 0; i < ctx->n_in && status == ML_OK; i++) status = ml_item_of(ctx->in[i], &made->items[i], err);
  if (status == ML_OK) return ctx->run->give(ctx->run, ctx->out[0], made, err);
  ml_container_release(made);
  return status;
}

const ml_op_def ml_op_sequence_construct = {
  .name = "SequenceConstruct", .domain = "", .since = 11, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_VARIADIC,
  .formula = "y = [x_0, x_1, …]", .infer = infer, .run = run,
};
