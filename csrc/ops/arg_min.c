/* ArgMin 13: index of the smallest element along an axis; the first of equal ones, or the last with select_last_index.
 * data (any shape) -> int64, without the axis (extent 1 with keepdims). ONNX operator specification. No gradient. */
#include "ops/reduce.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__arg_run(ctx, false, err); }

const ml_op_def ml_op_arg_min = {
  .name = "ArgMin", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = ml__arg_attrs,
  .types = { ML_MASK_N }, .formula = "y = index of the smallest x along axis", .infer = ml__arg_infer, .run = run,
};
