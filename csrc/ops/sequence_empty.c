/* SequenceEmpty 11: a sequence of no tensors, of element type dtype. ONNX operator specification. */
#include "ops/sequence.h"

static const ml_attr_def attrs[] = {
  { "dtype", ML_ATTR_INT, false, "element type of the tensors to come; default 1 (float32)" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t dtype = ml_attr_int(ctx->attrs, "dtype", ML_FLOAT32);
  if (!ml_dtype_is_element(dtype)) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute dtype: %lld is no element type", (long long)dtype);
  ml_op_set_type(ctx->out[0], ml_type_of(ML_KIND_SEQUENCE, ml_type_tensor((ml_dtype)dtype)));
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__edit_sequence(ctx, NULL, 0, NULL, 0, err); }

const ml_op_def ml_op_sequence_empty = {
  .name = "SequenceEmpty", .domain = "", .since = 11, .min_in = 0, .max_in = 0, .min_out = 1, .max_out = 1, .attrs = attrs, .formula = "y = []",
  .infer = infer, .run = run,
};
