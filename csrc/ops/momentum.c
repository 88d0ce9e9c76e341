/* Momentum of ai.onnx.preview.training: one step of n tensors X with gradients G and momenta V.
 * g = G + norm_coefficient X, V' = alpha V + b g with b = beta, 1 in the first step (T = 0);
 * standard: X' = X - R V', nesterov: X' = X - R (g + alpha V').
 * Inputs R, T, X…, G…, V… -> X'…, V'…. Reference: ONNX Momentum-1. */
#include "ops/training_step.h"

enum { ALPHA, BETA, NORM, NESTEROV };

static void momentum(const ml__step *s, const double *in, double *out) {
  const double *k = s->k, g = k[NORM] * in[0] + in[1];
  out[1] = k[ALPHA] * in[2] + k[BETA] * g;
  out[0] = in[0] - s->rate * (k[NESTEROV] != 0 ? g + k[ALPHA] * out[1] : out[1]);
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  if (!ml_attr_is(ctx->attrs, "mode", "", "standard") && !ml_attr_is(ctx->attrs, "mode", "", "nesterov"))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'mode' is neither standard nor nesterov");
  return ml__step_infer(ctx, 3, 2, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml__step s = ml__step_init(ctx);
  (void)err;
  s.k[ALPHA] = (double)ml_attr_float(ctx->attrs, "alpha", 0);
  s.k[BETA] = s.count > 0 ? (double)ml_attr_float(ctx->attrs, "beta", 1) : 1;
  s.k[NORM] = (double)ml_attr_float(ctx->attrs, "norm_coefficient", 0);
  s.k[NESTEROV] = ml_attr_is(ctx->attrs, "mode", "", "nesterov");
  ml__step_run(ctx, &s, 3, 2, momentum);
  return ML_OK;
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, true, "what is kept of the momentum" },
  { "beta", ML_ATTR_FLOAT, true, "weight of the gradient after the first step" },
  { "mode", ML_ATTR_STRING, true, "standard or nesterov" },
  { "norm_coefficient", ML_ATTR_FLOAT, true, "L2 regularisation, part of the gradient" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_momentum = {
  .name = "Momentum", .domain = "ai.onnx.preview.training", .since = 1, .min_in = 5, .max_in = 5, .min_out = 1,
  .max_out = INT32_MAX,
  .flags = ML_OP_VARIADIC,
  .attrs = attrs,
  .types = { ML_MASK_F, ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "X -= R V', V' = alpha V + beta G",
  .infer = infer,
  .run = run,
};
