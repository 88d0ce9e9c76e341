/* RandomNormal: normal numbers of the given mean and standard deviation, from place to place of the Philox stream that run
 * seed (or the attribute seed), node and run step make. The output has the shape of the attribute. No gradient. Reference:
 * ONNX RandomNormal-22. */
#include "ops/random.h"

static const ml_attr_def attrs[] = {
  { "dtype", ML_ATTR_INT, false, "element type, a float; float32 by default" },
  { "mean", ML_ATTR_FLOAT, false, "0 (default)" },
  { "scale", ML_ATTR_FLOAT, false, "1 (default): standard deviation" },
  { "seed", ML_ATTR_FLOAT, false, "the run's by default" },
  { "shape", ML_ATTR_INTS, true, "of the output" },
  { 0 },
};

const ml_op_def ml_op_random_normal = {
  .name = "RandomNormal", .domain = "", .since = 22, .min_in = 0, .max_in = 0, .min_out = 1, .max_out = 1, .flags = ML_OP_RANDOM,
  .attrs = attrs, .formula = "y = normal(mean, scale)", .infer = ml__random_infer, .run = ml__random_normal_run,
};
