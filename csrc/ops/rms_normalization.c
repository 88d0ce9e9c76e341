/* RMSNormalization 23: Y = X / sqrt(mean(X^2) + epsilon) scale, the mean over the dimensions from axis on.
 * X (any shape), scale (broadcasts to X) -> Y (shape of X). Zhang & Sennrich 2019; ONNX operator specification.
 * Gradient, in nodes: with r = 1/sqrt(mean(X^2) + epsilon) and g = scale dY: dX = r (g - X r^2 mean(g X)), dscale = sum of dY X
 * r. */
#include <math.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "-1 (default): first of the normalised dimensions" },
  { "epsilon", ML_ATTR_FLOAT, false, "1e-5 (default): added to the mean square" },
  { "stash_type", ML_ATTR_INT, false, "type of the sums; without effect: they are float64" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *scale = ctx->in[1];
  int32_t axis;
  char a[96], b[96];
  if (x->dtype != scale->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, scale is %s", ml_dtype_name(x->dtype), ml_dtype_name(scale->dtype));
  if (x->rank != ML_UNKNOWN) {
    if (x->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 1 or more, got rank 0");
    ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
    bool fits = scale->rank <= x->rank;
    for (int32_t d = 0; fits && d < scale->rank; d++) {
      int64_t have = scale->dims[d], want = x->dims[d + x->rank - scale->rank];
      fits = have == 1 || have < 0 || want < 0 || have == want;
    }
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "scale %s does not broadcast to X %s",
                     ml_shape_format(scale->dims, scale->rank, a, sizeof a), ml_shape_format(x->dims, x->rank, b, sizeof b));
  }
  ml_op_like(ctx->out[0], x);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *scale = ctx->in[1];
  int64_t step[ML_MAX_RANK], index[ML_MAX_RANK] = { 0 }, at = 0;
  int32_t axis;
  double epsilon = (double)ml_attr_float(ctx->attrs, "epsilon", 1e-5f);
  if (x->count == 0) return ML_OK;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
  ml__broadcast_strides(scale->dims, scale->rank, x->rank, step);
  const int32_t last = x->rank - 1;
  const size_t n = ml__extent(x->dims, axis, x->rank), width = (size_t)x->dims[last];
  ML_SWITCH_FLOAT(x->dtype, {
    const T *from = x->data;
    T *to = ctx->out[0]->data;
    for (size_t row = 0; row < x->count; row += n, from += n, to += n) {
      double sum = 0;
      for (size_t i = 0; i < n; i++) sum += (double)from[i] * (double)from[i];
      const double r = 1 / sqrt(sum / (double)n + epsilon);
      for (size_t done = 0; done < n; done += width) {
        const T *s = (const T *)scale->data + at;
        for (size_t i = 0; i < width; i++) to[done + i] = (T)((double)from[done + i] * r * (double)s[(int64_t)i * step[last]]);
        for (int32_t d = last - 1; d >= 0; d--) { /* the scale of the next line */
          at += step[d];
          if (++index[d] < x->dims[d]) break;
          at -= step[d] * x->dims[d];
          index[d] = 0;
        }
      }
    }
  })
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *x = g->in[0], *scale = g->in[1], *dy = g->dout[0];
  const ml_view *view = x ? g->shape_of(g, x) : NULL;
  int64_t axes[ML_MAX_RANK];
  int32_t axis, n = 0;
  if (!dy || !view) return;
  if (view->rank == ML_UNKNOWN || ml_axis_normalise(ml_attr_int(g->attrs, "axis", -1), view->rank, &axis, NULL) != ML_OK) {
    ml_g_fail(g, "RMSNormalization gradient with an input of unknown rank");
    return;
  }
  for (int32_t d = axis; d < view->rank; d++) axes[n++] = d;
  ml_value *over = g->ints(g, axes, (size_t)n);
  ml_value *square = ml_g2(g, "ReduceMean", ml_g2(g, "Mul", x, x), over);
  ml_value *epsilon = g->constant(g, (double)ml_attr_float(g->attrs, "epsilon", 1e-5f), x);
  ml_value *r = ml_g1(g, "Reciprocal", ml_g1(g, "Sqrt", ml_g2(g, "Add", square, epsilon)));
  ml_value *h = ml_g2(g, "Mul", x, r);
  if (g->needs[0]) {
    ml_value *gs = ml_g2(g, "Mul", dy, scale), *mean = ml_g2(g, "ReduceMean", ml_g2(g, "Mul", gs, h), over);
    g->din[0] = ml_g2(g, "Mul", r, ml_g2(g, "Sub", gs, ml_g2(g, "Mul", h, mean)));
  }
  if (g->needs[1]) g->din[1] = ml_g_reduce_to(g, ml_g2(g, "Mul", dy, h), scale);
}

const ml_op_def ml_op_rms_normalization = {
  .name = "RMSNormalization", .domain = "", .since = 23, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs, .types = { ML_MASK_F }, .formula = "Y = X / sqrt(mean(X^2) + epsilon) scale", .infer = infer, .run = run,
  .gradient = gradient,
};
