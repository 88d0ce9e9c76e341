/* OptionalHasElement 18: is there a value: true for anything that is no optional, false without input. Bool scalar. ONNX operator specification. */
#include "ops/sequence.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml_op_set(ctx->out[0], ML_BOOL, NULL, 0);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  const ml_view *in = ctx->n_in > 0 ? ctx->in[0] : NULL;
  bool optional = in && ml_type_kind(in->type) == ML_KIND_OPTIONAL;
  *(unsigned char *)ctx->out[0]->data = in && (!optional || ml_view_container(in)->count > 0);
  return ML_OK;
}

const ml_op_def ml_op_optional_has_element = {
  .name = "OptionalHasElement", .domain = "", .since = 18, .min_in = 0, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS,
  .formula = "y = x is not empty", .infer = infer, .run = run,
};
