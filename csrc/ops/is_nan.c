/* IsNaN: y = is x not a number, bool; y has the shape of x. No gradient. Reference: ONNX IsNaN-13. */
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_same(ctx, err));
  if (ctx->out[0] != NULL) ml_op_set(ctx->out[0], ML_BOOL, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

ML_UNARY_CASES(-1, ML_CASES1_FLOAT(uint8_t, x != x))

const ml_op_def ml_op_is_nan = {
  .name = "IsNaN", .domain = "", .since = 20, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_F },
  .formula = "y = isnan(x)",
  .infer = infer,
  .run = run,
};
