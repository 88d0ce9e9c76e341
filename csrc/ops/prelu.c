/* PRelu: y = x >= 0 ? x : s x; the slope s is broadcast to x (unidirectionally), y has the shape of x.
 * Gradient: dx = x > 0 ? dy : s dy; ds = x > 0 ? 0 : x dy, summed over repeated dimensions. Reference: ONNX PRelu-16. */
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_broadcast(ctx, err));
  const ml_view *x = ctx->in[0], *slope = ctx->in[1];
  if (x->rank >= 0 && slope->rank >= 0) {
    bool fits = slope->rank <= x->rank;
    for (int32_t d = 1; fits && d <= slope->rank; ++d) {
      const int64_t mine = slope->dims[slope->rank - d], other = x->dims[x->rank - d];
      fits = mine == 1 || mine == ML_UNKNOWN || other == ML_UNKNOWN || mine == other;
    }
    char from[128], to[128];
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "slope of shape %s does not broadcast to the input's shape %s",
                     ml_shape_format(slope->dims, slope->rank, from, sizeof from),
                     ml_shape_format(x->dims, x->rank, to, sizeof to));
  }
  ml_op_like(ctx->out[0], x);
  return ML_OK;
}

ML_BINARY_ROWS(rows, ML_CASES2_FLOAT(T, a < 0 ? a * b : a)
               ML_CASE2(ML_INT32, int32_t, T, a < 0 ? (uint32_t)a * (uint32_t)b : (uint32_t)a)
               ML_CASE2(ML_INT64, int64_t, T, a < 0 ? (uint64_t)a * (uint64_t)b : (uint64_t)a)
               ML_CASE2(ML_UINT32, uint32_t, T, ((void)b, a)) ML_CASE2(ML_UINT64, uint64_t, T, ((void)b, a)))
ML_BINARY_RUN(-1)

static void gradient(ml_grad *g) {
  ml_value *dy = g->dout[0], *positive = ml_g2(g, "Greater", g->in[0], g->constant(g, 0.0, g->in[0]));
  if (g->needs[0]) g->din[0] = ml_g3(g, "Where", positive, dy, ml_g2(g, "Mul", dy, g->in[1]));
  if (g->needs[1]) {
    ml_value *d = ml_g3(g, "Where", positive, g->constant(g, 0.0, dy), ml_g2(g, "Mul", dy, g->in[0]));
    g->din[1] = ml_g_reduce_to(g, d, g->in[1]);
  }
}

const ml_op_def ml_op_prelu = {
  .name = "PRelu", .domain = "", .since = 16, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) | ML_BIT(ML_UINT32) | ML_BIT(ML_UINT64) },
  .formula = "y = x >= 0 ? x : slope x",
  .infer = infer,
  .run = run,
  .gradient = gradient,
};
