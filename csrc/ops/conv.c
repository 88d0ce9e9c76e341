/* Conv 22: Y[n][m][o] = B[m] + sum over channels c of the group and taps k of W[m][c][k] X[n][c][o stride + k dilation - pad].
 * X (N,C,D1…), W (M,C/group,k1…), B (M, optional) -> Y (N,M,O1…). ONNX operator specification.
 * Gradient: mlserve.ConvGrad for X and W; dB is the sum of dY over everything but the channel. */
#include "ops/conv.h"

const ml_attr_def ml__conv_attrs[] = {
  { "auto_pad", ML_ATTR_STRING, false, "NOTSET (default: pads), SAME_UPPER, SAME_LOWER or VALID" },
  { "dilations", ML_ATTR_INTS, false, "1 (default): distance of taps, per spatial dimension" },
  { "group", ML_ATTR_INT, false, "1 (default): groups of channels that are convolved apart" },
  { "kernel_shape", ML_ATTR_INTS, false, "default: taken from W" },
  { "pads", ML_ATTR_INTS, false, "0 (default): all beginnings, then all ends" },
  { "strides", ML_ATTR_INTS, false, "1 (default), per spatial dimension" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *weights = ctx->in[1];
  int64_t groups, dims[ML_MAX_RANK];
  ml__window w;
  ML_TRY(ml__conv_groups(ctx->attrs, x, weights, false, &groups, err));
  int64_t filters = weights->rank == ML_UNKNOWN ? ML_UNKNOWN : weights->dims[0];
  ML_TRY(ml__conv_check_bias(ml__in(ctx, 2), x, filters, err));
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(ml__window_init(&w, ctx->attrs, x, weights, false, err));
  dims[0] = x->dims[0];
  dims[1] = filters;
  for (int32_t d = 0; d < w.n; d++) dims[d + 2] = w.out[d];
  ml_op_set(ctx->out[0], x->dtype, dims, x->rank);
  return ML_OK;
}

static ml_status geometry(const ml_op_ctx *ctx, ml__conv *c, ml_error *err) {
  const ml_view *x = ctx->in[0], *weights = ctx->in[1];
  int64_t groups;
  ml__window w;
  ML_TRY(ml__conv_groups(ctx->attrs, x, weights, false, &groups, err));
  ML_TRY(ml__window_init(&w, ctx->attrs, x, weights, false, err));
  ml__conv_set(c, &w, x->dims[0], groups, x->dims[1], weights->dims[0]);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__conv c;
  *bytes = 0;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(geometry(ctx, &c, err));
  return ml__conv_workspace(&c, ML__CONV_FORWARD, ctx->in[0]->dtype, bytes, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *bias = ml__in(ctx, 2);
  ml__conv c;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(geometry(ctx, &c, err));
  if (bias && bias->count != c.G * c.M)
    return ml_fail(err, ML_INVALID_ARGUMENT, "B has %zu values for %zu channels", bias->count, c.G * c.M);
  ml__conv_forward(&c, ctx->run->kernels, x->dtype, x->data, ctx->in[1]->data, bias ? bias->data : NULL, ctx->out[0]->data,
                   ctx->workspace);
  return ML_OK;
}

static void gradient(ml_grad *g) { ml__conv_gradient(g, "mlserve.ConvGrad"); }

static double flops(const ml_op_ctx *ctx) {
  const ml_view *weights = ctx->in[1];
  return weights->dims[0] ? 2.0 * (double)ctx->out[0]->count * (double)(weights->count / (size_t)weights->dims[0]) : 0;
}

const ml_op_def ml_op_conv = {
  .name = "Conv", .domain = "", .since = 22, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = ml__conv_attrs,
  .types = { ML_MASK_F }, .formula = "Y = sum over channels and taps of W X + B", .infer = infer, .workspace = workspace,
  .run = run,
  .gradient = gradient, .flops = flops,
};
