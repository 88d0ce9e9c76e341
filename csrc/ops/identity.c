/* Identity 21: y = x. */
#include "ops/movement.h"

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = g->dout[0];
}

const ml_op_def ml_op_identity = {
  .name = "Identity", .domain = "", .since = 25, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_VIEW | ML_OP_INPLACE | ML_OP_CONTAINERS, .formula = "y = x", .infer = ml_op_infer_same, .run = ml__run_copy, .gradient = gradient,
};
