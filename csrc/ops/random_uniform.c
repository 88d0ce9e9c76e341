/* RandomUniform: uniform numbers in [low, high), from place to place of the Philox stream that run seed (or the attribute
 * seed), node and run step make. The output has the shape of the attribute. No gradient. Reference: ONNX RandomUniform-22. */
#include "ops/random.h"

static const ml_attr_def attrs[] = {
  { "dtype", ML_ATTR_INT, false, "element type, a float; float32 by default" },
  { "high", ML_ATTR_FLOAT, false, "1 (default): not drawn, but a 16-bit type may round up to it" },
  { "low", ML_ATTR_FLOAT, false, "0 (default)" },
  { "seed", ML_ATTR_FLOAT, false, "the run's by default" },
  { "shape", ML_ATTR_INTS, true, "of the output" },
  { 0 },
};

const ml_op_def ml_op_random_uniform = {
  .name = "RandomUniform", .domain = "", .since = 22, .min_in = 0, .max_in = 0, .min_out = 1, .max_out = 1, .flags = ML_OP_RANDOM,
  .attrs = attrs, .formula = "y = uniform(low, high)", .infer = ml__random_infer, .run = ml__random_uniform_run,
};
