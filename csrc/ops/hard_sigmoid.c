/* HardSigmoid: y = max(0, min(1, alpha x + beta)); y has the shape of x.
 * Gradient: dx = 0 < alpha x + beta < 1 ? alpha dy : 0. Reference: ONNX HardSigmoid-6. */
#include "ops/elementwise.h"

/* beta travels in the slot named gamma */
#define LINE (alpha * x + gamma)
ML_UNARY_FLOAT(LINE < 0 ? 0 : LINE > 1 ? 1 : LINE, ml_attr_float(ctx->attrs, "alpha", 0.2f),
               ml_attr_float(ctx->attrs, "beta", 0.5f))

static void gradient(ml_grad *g) {
  const float alpha = ml_attr_float(g->attrs, "alpha", 0.2f), beta = ml_attr_float(g->attrs, "beta", 0.5f);
  g->din[0] = ml__g_unary(g, "HardSigmoid", g->in[0], alpha, beta);
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 0.2: slope" },
  { "beta", ML_ATTR_FLOAT, false, "default 0.5: value at 0" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_hard_sigmoid = {
  .name = "HardSigmoid", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = max(0, min(1, alpha x + beta))",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
