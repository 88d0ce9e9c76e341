/* OptionalGetElement 18: the value of an optional, an error when there is none; anything else as it is. ONNX operator specification. */
#include "ops/sequence.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  const ml_view *in = ctx->in[0];
  if (ml_type_kind(in->type) == ML_KIND_OPTIONAL) ml_op_set_type(ctx->out[0], ml_type_inner(in->type));
  else ml_op_like(ctx->out[0], in);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *in = ctx->in[0];
  if (ml_type_kind(in->type) != ML_KIND_OPTIONAL) return ml_op_pass(ctx, ctx->out[0], in, err);
  ml_container *optional = ml_view_container(in);
  if (optional->count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "the optional is empty");
  return ml__pass_item(ctx, ctx->out[0], &optional->items[0], err);
}

const ml_op_def ml_op_optional_get_element = {
  .name = "OptionalGetElement", .domain = "", .since = 18, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS,
  .formula = "y = the value of x", .infer = infer, .run = run,
};
