/* LeakyRelu: y = x >= 0 ? x : alpha x; y has the shape of x. Gradient: dx = x > 0 ? dy : alpha dy.
 * Reference: ONNX LeakyRelu-16. */
#include "ops/elementwise.h"

ML_UNARY_KERNEL(ML_UN_LEAKY_RELU, x < 0 ? alpha * x : x, ml_attr_float(ctx->attrs, "alpha", 0.01f), 0)

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "LeakyRelu", g->in[0], ml_attr_float(g->attrs, "alpha", 0.01f), 0);
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 0.01: slope below 0" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_leaky_relu = {
  .name = "LeakyRelu", .domain = "", .since = 16, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = x >= 0 ? x : alpha x",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
