/* Bernoulli: y = 1 with probability x, else 0; y has the shape of x and its type or that of the attribute. Drawn from the
 * Philox stream that run seed (or the attribute seed), node and run step make. No gradient. Reference: ONNX Bernoulli-22. */
#include "ops/random.h"
#include "ops/scatter.h"

static const ml_attr_def attrs[] = {
  { "dtype", ML_ATTR_INT, false, "element type; the input's by default" },
  { "seed", ML_ATTR_FLOAT, false, "the run's by default" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_dtype dtype;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__random_dtype(ctx, ctx->in[0]->dtype, ML__MASK_NUMERIC, &dtype, err));
  ml_op_set(ctx->out[0], dtype, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  const ml__stream s = ml__stream_of(ctx);
  for (size_t i = 0; i < y->count; i++) {
    const double p = ml_element_get(x->data, x->dtype, i);
    if (!(p >= 0 && p <= 1)) return ml_fail(err, ML_OUT_OF_RANGE, "element %zu is %g, expected a probability", i, p);
    ml_element_set(y->data, y->dtype, i, ml__uniform53(s, i) < p);
  }
  return ML_OK;
}

const ml_op_def ml_op_bernoulli = {
  .name = "Bernoulli", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_RANDOM,
  .attrs = attrs, .types = { ML__MASK_RANDOM }, .formula = "y = uniform(0, 1) < x", .infer = infer, .run = run,
};
