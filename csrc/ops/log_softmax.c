/* LogSoftmax: y = x - m - ln sum e^(x - m) along one axis (default -1), m being the largest element; y has the shape of x.
 * Gradient: dx = dy - e^y sum(dy), node mlserve.SoftmaxGrad. Reference: ONNX LogSoftmax-13. The body is in softmax.c. */
#include "ops/elementwise.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__softmax_run(ctx, true, err); }

static void gradient(ml_grad *g) { ml__softmax_gradient(g, true); }

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "default -1: the axis whose exponentials sum to 1" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_log_softmax = {
  .name = "LogSoftmax", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = ln(exp(x) / sum(exp(x), axis))",
  .infer = ml__softmax_infer,
  .run = run,
  .gradient = gradient,
};
