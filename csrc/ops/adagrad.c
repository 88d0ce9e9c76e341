/* Adagrad of ai.onnx.preview.training: one step of n tensors X with gradients G and sums of squares H of earlier gradients.
 * g = G + norm_coefficient X, H' = H + g g, X' = X - R / (1 + T decay_factor) g / (sqrt(H') + epsilon).
 * Inputs R, T, X…, G…, H… -> X'…, H'…. Reference: ONNX Adagrad-1; Duchi, Hazan and Singer 2011. */
#include <math.h>
#include "ops/training_step.h"

enum { EPSILON, NORM };

static void adagrad(const ml__step *s, const double *in, double *out) {
  const double *k = s->k, g = k[NORM] * in[0] + in[1];
  out[1] = in[2] + g * g;
  out[0] = in[0] - s->rate * g / (sqrt(out[1]) + k[EPSILON]);
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) { return ml__step_infer(ctx, 3, 2, err); }

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml__step s = ml__step_init(ctx);
  (void)err;
  s.rate /= 1 + (double)s.count * (double)ml_attr_float(ctx->attrs, "decay_factor", 0);
  s.k[EPSILON] = (double)ml_attr_float(ctx->attrs, "epsilon", 1e-6f);
  s.k[NORM] = (double)ml_attr_float(ctx->attrs, "norm_coefficient", 0);
  ml__step_run(ctx, &s, 3, 2, adagrad);
  return ML_OK;
}

static const ml_attr_def attrs[] = {
  { "decay_factor", ML_ATTR_FLOAT, false, "default 0: the rate is R / (1 + T decay_factor)" },
  { "epsilon", ML_ATTR_FLOAT, false, "default 1e-6" },
  { "norm_coefficient", ML_ATTR_FLOAT, false, "default 0: L2 regularisation, part of the gradient" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_adagrad = {
  .name = "Adagrad", .domain = "ai.onnx.preview.training", .since = 1, .min_in = 5, .max_in = 5, .min_out = 1,
  .max_out = INT32_MAX,
  .flags = ML_OP_VARIADIC,
  .attrs = attrs,
  .types = { ML_MASK_F, ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "X -= R G / (sqrt(H + G G) + epsilon)",
  .infer = infer,
  .run = run,
};
