/* SwiGLU: y = a sigmoid(alpha a) b; gate A and value B of one shape, no broadcasting.
 * 16-bit floats are computed in float32. Gradient: dA = dy b swish'(a), dB = dy swish(a).
 * Reference: ONNX SwiGLU-28 (Shazeer 2020, "GLU variants improve transformer"). */
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *a = ctx->in[0], *b = ctx->in[1];
  char text[2][96];
  ML_TRY(ml_op_infer_same(ctx, err));
  if (a->dtype != b->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "A is %s, B is %s", ml_dtype_name(a->dtype), ml_dtype_name(b->dtype));
  if (ml_view_known(a) && ml_view_known(b) && !ml_shape_equal(a->dims, a->rank, b->dims, b->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "A has shape %s, B has shape %s",
                   ml_shape_format(a->dims, a->rank, text[0], sizeof text[0]),
                   ml_shape_format(b->dims, b->rank, text[1], sizeof text[1]));
  return ML_OK;
}

static void block_f32(const ml_kernels *kernels, const float *a, const float *b, float *y, size_t n, float alpha) {
  float gate[ML__BLOCK];
  gate[0] = 0; /* n is never 0, which no compiler knows */
  for (size_t i = 0; i < n; ++i) gate[i] = alpha * a[i];
  kernels->unary_f32(ML_UN_SIGMOID, gate, gate, n, 1.0f, 1.0f);
  for (size_t i = 0; i < n; ++i) y[i] = a[i] * gate[i] * b[i];
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *out = ctx->out[0];
  const char *from[2] = { ctx->in[0]->data, ctx->in[1]->data };
  char *to = out->data;
  const float alpha = ml_attr_float(ctx->attrs, "alpha", 1.0f);
  const size_t size = ml_dtype_size(out->dtype);
  (void)err;
  for (size_t done = 0; done < out->count; done += ML__BLOCK) {
    const size_t n = out->count - done < ML__BLOCK ? out->count - done : ML__BLOCK, at = done * size;
    if (out->dtype == ML_FLOAT64) {
      const double *a = (const double *)ctx->in[0]->data + done, *b = (const double *)ctx->in[1]->data + done;
      double *y = (double *)out->data + done;
      for (size_t i = 0; i < n; ++i) y[i] = a[i] / (1 + exp(-(double)alpha * a[i])) * b[i];
    } else if (out->dtype == ML_FLOAT32) {
      block_f32(ctx->run->kernels, (const float *)ctx->in[0]->data + done, (const float *)ctx->in[1]->data + done,
                (float *)out->data + done, n, alpha);
    } else {
      float wide[2][ML__BLOCK];
      for (int k = 0; k < 2; ++k) ml_convert(from[k] + at, out->dtype, wide[k], ML_FLOAT32, n);
      block_f32(ctx->run->kernels, wide[0], wide[1], wide[0], n, alpha);
      ml_convert(wide[0], ML_FLOAT32, to + at, out->dtype, n);
    }
  }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  const float alpha = ml_attr_float(g->attrs, "alpha", 1.0f);
  const ml_attr swish = ml_attr_of_float("alpha", alpha);
  if (g->needs[0]) g->din[0] = ml_g2(g, "Mul", ml__g_unary(g, "Swish", g->in[0], alpha, 0), g->in[1]);
  if (g->needs[1]) g->din[1] = ml_g2(g, "Mul", g->dout[0], ml_gn(g, "Swish", &swish, 1, 1, &g->in[0]));
}

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "default 1: scale inside the sigmoid" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_swiglu = {
  .name = "SwiGLU", .domain = "", .since = 28, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1,
  .attrs = attrs,
  .types = { ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16) },
  .formula = "y = a sigmoid(alpha a) b",
  .infer = infer,
  .run = run,
  .gradient = gradient,
};
