/* RandomUniformLike: uniform numbers in [low, high), from place to place of the Philox stream that run seed (or the attribute
 * seed), node and run step make. In the shape (and, without the attribute dtype, the type) of the input. No gradient.
 * Reference: ONNX RandomUniformLike-22. */
#include "ops/random.h"

static const ml_attr_def attrs[] = {
  { "dtype", ML_ATTR_INT, false, "element type, a float; the input's by default" },
  { "high", ML_ATTR_FLOAT, false, "1 (default): not drawn, but a 16-bit type may round up to it" },
  { "low", ML_ATTR_FLOAT, false, "0 (default)" },
  { "seed", ML_ATTR_FLOAT, false, "the run's by default" },
  { 0 },
};

const ml_op_def ml_op_random_uniform_like = {
  .name = "RandomUniformLike", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_RANDOM,
  .attrs = attrs, .formula = "y = uniform(low, high)", .infer = ml__random_infer_like, .run = ml__random_uniform_run,
};
