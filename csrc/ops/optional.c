/* Optional 15: the input as an optional value; without one, an empty optional of the attribute's type. ONNX operator specification. */
#include "ops/sequence.h"

static const ml_attr_def attrs[] = {
  { "type", ML_ATTR_TYPE, false, "type of the value that is not there; needed without input" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *in = ctx->n_in > 0 ? ctx->in[0] : NULL;
  const ml_attr *type = ml_attr_find(ctx->attrs, "type");
  if (!in && !type) return ml_fail(err, ML_INVALID_ARGUMENT, "neither an input nor the attribute type is given");
  uint32_t made = ml_type_of(ML_KIND_OPTIONAL, in ? ml_view_type(in) : (uint32_t)type->as.i);
  if (!made) return ml_fail(err, ML_UNIMPLEMENTED, "a type of more than %d constructors", ML_TYPE_DEPTH);
  ml_op_set_type(ctx->out[0], made);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  return ml__edit_sequence(ctx, NULL, 0, ctx->n_in > 0 ? ctx->in[0] : NULL, 0, err);
}

const ml_op_def ml_op_optional = {
  .name = "Optional", .domain = "", .since = 15, .min_in = 0, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS, .attrs = attrs,
  .formula = "y = x or nothing", .infer = infer, .run = run,
};
