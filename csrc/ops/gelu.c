/* Gelu: y = x Phi(x); y has the shape of x. approximate = "none": Phi(x) = (1 + erf(x / sqrt 2)) / 2;
 * "tanh": Phi(x) ~ (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2.
 * Gradient: dx = dy (Phi(x) + x Phi'(x)) of the form chosen. Reference: ONNX Gelu-20 (Hendrycks, Gimpel 2016). */
#include "ops/elementwise.h"

#define ROOT_2_PI 0.79788456080286535588 /* sqrt(2/pi) */
#define ROOT_HALF 0.70710678118654752440 /* sqrt(1/2) */

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_same(ctx, err));
  const ml_str form = ml_attr_str(ctx->attrs, "approximate", "none");
  if (!ml_attr_is(ctx->attrs, "approximate", "none", "none") && !ml_attr_is(ctx->attrs, "approximate", "none", "tanh"))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute approximate must be \"none\" or \"tanh\", got \"%.*s\"",
                   (int)(form.length < 64 ? form.length : 64), form.bytes);
  return ML_OK;
}

static void erf_f32(const ml_kernels *kernels, const void *from, void *to, size_t n, float alpha, float gamma) {
  kernels->unary_f32(ML_UN_GELU, from, to, n, alpha, gamma);
}

ML__UNARY_LOOP(erf_f64, double, (T)0.5 * x * (1 + erf(x * (T)ROOT_HALF)))
ML__INSIDE_LOOP(tanh_f32, (T)ROOT_2_PI * (x + (T)0.044715 * x * x * x), ML_UN_TANH, (T)0.5 * x * (1 + t))
ML__UNARY_LOOP(tanh_f64, double, (T)0.5 * x * (1 + tanh((T)ROOT_2_PI * (x + (T)0.044715 * x * x * x))))

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  if (ml_attr_is(ctx->attrs, "approximate", "none", "tanh")) ml__unary_run(ctx, tanh_f32, tanh_f64, 0, 0);
  else ml__unary_run(ctx, erf_f32, erf_f64, 0, 0);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  const bool fast = ml_attr_is(g->attrs, "approximate", "none", "tanh");
  g->din[0] = ml__g_unary(g, fast ? "GeluTanh" : "Gelu", g->in[0], 0, 0);
}

static const ml_attr_def attrs[] = {
  { "approximate", ML_ATTR_STRING, false, "default \"none\": exact; \"tanh\": the approximation" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_gelu = {
  .name = "Gelu", .domain = "", .since = 20, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "y = x Phi(x)",
  .infer = infer,
  .run = run,
  .gradient = gradient,
};
