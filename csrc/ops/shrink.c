/* Shrink: y = x + bias below -lambd, x - bias above lambd, 0 between (integers: computed in double, truncated); y has the shape
 * of x. Gradient: dx = |x| > lambd ? dy : 0. Reference: ONNX Shrink-9. */
#include "ops/elementwise.h"

#define SHRINK (x < -lambd ? x + bias : x > lambd ? x - bias : 0)

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const void *from = ctx->in[0]->data;
  void *to = ctx->out[0]->data;
  const size_t n = ctx->out[0]->count;
  const float lambd32 = ml_attr_float(ctx->attrs, "lambd", 0.5f), bias32 = ml_attr_float(ctx->attrs, "bias", 0);
  const double lambd64 = (double)lambd32, bias64 = (double)bias32;
  (void)err;
  if (n == 0) return ML_OK;
  if (ctx->in[0]->dtype == ML_FLOAT32) {
    const float lambd = lambd32, bias = bias32, *xs = from;
    float *ys = to;
    for (size_t i = 0; i < n; ++i) {
      const float x = xs[i];
      ys[i] = SHRINK;
    }
    return ML_OK;
  }
  for (size_t i = 0; i < n; ++i) {
    const double lambd = lambd64, bias = bias64, x = ml_element_get(from, ctx->in[0]->dtype, i);
    ml_element_set(to, ctx->in[0]->dtype, i, SHRINK);
  }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  g->din[0] = ml__g_unary(g, "Shrink", g->in[0], ml_attr_float(g->attrs, "lambd", 0.5f), 0);
}

static const ml_attr_def attrs[] = {
  { "lambd", ML_ATTR_FLOAT, false, "default 0.5: half width of the band that becomes 0" },
  { "bias", ML_ATTR_FLOAT, false, "default 0: what is taken off outside the band" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_shrink = {
  .name = "Shrink", .domain = "", .since = 9, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_N | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16) },
  .formula = "y = x < -lambd ? x + bias : x > lambd ? x - bias : 0",
  .infer = ml_op_infer_same,
  .run = run,
  .gradient = gradient,
};
