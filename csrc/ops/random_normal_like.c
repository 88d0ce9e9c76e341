/* RandomNormalLike: normal numbers of the given mean and standard deviation, from place to place of the Philox stream that run
 * seed (or the attribute seed), node and run step make. In the shape (and, without the attribute dtype, the type) of the
 * input. No gradient. Reference: ONNX RandomNormalLike-22. */
#include "ops/random.h"

static const ml_attr_def attrs[] = {
  { "dtype", ML_ATTR_INT, false, "element type, a float; the input's by default" },
  { "mean", ML_ATTR_FLOAT, false, "0 (default)" },
  { "scale", ML_ATTR_FLOAT, false, "1 (default): standard deviation" },
  { "seed", ML_ATTR_FLOAT, false, "the run's by default" },
  { 0 },
};

const ml_op_def ml_op_random_normal_like = {
  .name = "RandomNormalLike", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_RANDOM,
  .attrs = attrs, .formula = "y = normal(mean, scale)", .infer = ml__random_infer_like, .run = ml__random_normal_run,
};
