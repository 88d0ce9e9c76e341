/* Adam of ai.onnx.preview.training: one step of n tensors X with gradients G, means V and mean squares H of earlier gradients.
 * g = G + norm_coefficient X, V' = alpha V + (1 - alpha) g, H' = beta H + (1 - beta) g g,
 * X' = (1 - norm_coefficient_post) (X - r V' / (sqrt(H') + epsilon)), r = R sqrt(1 - beta^T) / (1 - alpha^T), or R for T = 0.
 * Inputs R, T, X…, G…, V…, H… -> X'…, V'…, H'…. Reference: ONNX Adam-1; Kingma and Ba 2014. */
#include <math.h>
#include "ops/training_step.h"

enum { ALPHA, BETA, EPSILON, NORM, KEEP, RATE };

static void adam(const ml__step *s, const double *in, double *out) {
  const double *k = s->k, g = k[NORM] * in[0] + in[1];
  out[1] = k[ALPHA] * in[2] + (1 - k[ALPHA]) * g;
  out[2] = k[BETA] * in[3] + (1 - k[BETA]) * g * g;
  out[0] = k[KEEP] * (in[0] - k[RATE] * out[1] / (sqrt(out[2]) + k[EPSILON]));
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) { return ml__step_infer(ctx, 4, 3, err); }

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml__step s = ml__step_init(ctx);
  const double alpha = (double)ml_attr_float(ctx->attrs, "alpha", 0.9f), t = (double)s.count,
               beta = (double)ml_attr_float(ctx->attrs, "beta", 0.999f);
  (void)err;
  s.k[ALPHA] = alpha;
  s.k[BETA] = beta;
  s.k[EPSILON] = (double)ml_attr_float(ctx->attrs, "epsilon", 1e-6f);
  s.k[NORM] = (double)ml_attr_float(ctx->attrs, "norm_coefficient", 0);
  s.k[KEEP] = 1 - (double)ml_attr_float(ctx->attrs, "norm_coefficient_post", 0);
  s.k[RATE] = s.count > 0 ? s.rate * sqrt(1 - pow(beta, t)) / (1 - pow(alpha, t)) : s.rate;
  ml__step_run(ctx, &s, 4, 3, adam);
  return ML_OK;
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 0.9: of the mean of gradients" },
  { "beta", ML_ATTR_FLOAT, false, "default 0.999: of the mean of squares" },
  { "epsilon", ML_ATTR_FLOAT, false, "default 1e-6" },
  { "norm_coefficient", ML_ATTR_FLOAT, false, "default 0: L2 regularisation, part of the gradient" },
  { "norm_coefficient_post", ML_ATTR_FLOAT, false, "default 0: L2 regularisation after the step" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_adam = {
  .name = "Adam", .domain = "ai.onnx.preview.training", .since = 1, .min_in = 6, .max_in = 6, .min_out = 1,
  .max_out = INT32_MAX,
  .flags = ML_OP_VARIADIC,
  .attrs = attrs,
  .types = { ML_MASK_F, ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "X -= R' V' / (sqrt(H') + epsilon)",
  .infer = infer,
  .run = run,
};
