/* IsInf: y = is x infinite (with a sign that is asked for), bool; y has the shape of x. No gradient. Reference: ONNX IsInf-10. */
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_same(ctx, err));
  if (ctx->out[0] != NULL) ml_op_set(ctx->out[0], ML_BOOL, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const bool negative = ml_attr_int(ctx->attrs, "detect_negative", 1) != 0,
             positive = ml_attr_int(ctx->attrs, "detect_positive", 1) != 0;
  const void *from = ctx->in[0]->data;
  void *to = ctx->out[0]->data;
  const size_t n = ctx->out[0]->count;
  (void)err;
  switch (ctx->in[0]->dtype) {
    ML_CASES1_FLOAT(uint8_t, (positive && x > 0 && isinf(x)) || (negative && x < 0 && isinf(x)))
    default: break;
  }
  return ML_OK;
}

static const ml_attr_def attrs[] = {
  { "detect_negative", ML_ATTR_INT, false, "default 1: -inf counts" },
  { "detect_positive", ML_ATTR_INT, false, "default 1: +inf counts" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_is_inf = {
  .name = "IsInf", .domain = "", .since = 20, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = isinf(x)",
  .infer = infer,
  .run = run,
};
