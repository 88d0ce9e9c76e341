/* ConvTranspose 22: the transpose of the linear map of a convolution: Y[n][m] = B[m] + sum over channels c, positions i and taps
 * k with o = i stride + k dilation - pad of W[c][m][k] X[n][c][i], added at o.
 * X (N,C,D1…), W (C,M/group,k1…), B (M, optional) -> Y (N,M,O1…) with O = stride (D - 1) + output_padding + extent of the kernel
 * - pads; output_shape, when given, fixes O and the pads follow from it. ONNX operator specification.
 * Gradient: mlserve.ConvTransposeGrad for X and W; dB is the sum of dY over everything but the channel. */
#include "ops/conv.h"

const ml_attr_def ml__conv_transpose_attrs[] = {
  { "auto_pad", ML_ATTR_STRING, false, "NOTSET (default: pads), SAME_UPPER, SAME_LOWER (output = input * stride) or VALID" },
  { "dilations", ML_ATTR_INTS, false, "1 (default): distance of taps, per spatial dimension" },
  { "group", ML_ATTR_INT, false, "1 (default): groups of channels that are convolved apart" },
  { "kernel_shape", ML_ATTR_INTS, false, "default: taken from W" },
  { "output_padding", ML_ATTR_INTS, false, "0 (default): added to one side of the output" },
  { "output_shape", ML_ATTR_INTS, false, "spatial size of Y; default: from the pads" },
  { "pads", ML_ATTR_INTS, false, "0 (default): all beginnings, then all ends" },
  { "strides", ML_ATTR_INTS, false, "1 (default), per spatial dimension" },
  { 0 },
};

enum { SIZE_LIMIT = INT32_MAX };

/* output_shape may also hold batch and channels in front */
static ml_status optional_list(const ml_attrs *attrs, const char *name, int32_t n, bool with_channels, const int64_t **out,
                               ml_error *err) {
  const ml_attr *a = ml_attr_find(attrs, name);
  *out = NULL;
  if (!a || a->count == 0) return ML_OK;
  *out = a->as.ints;
  if (with_channels && a->count == (size_t)n + 2) *out += 2;
  else if (a->count != (size_t)n)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has %zu values, expected %d", name, a->count, (int)n);
  for (int32_t d = 0; d < n; d++)
    if ((*out)[d] < 0 || (*out)[d] > SIZE_LIMIT)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s': value %lld is out of range", name, (long long)(*out)[d]);
  return ML_OK;
}

ml_status ml__conv_transpose_window(const ml_attrs *attrs, const ml_view *x, const ml_view *weights, ml__window *w,
                                    ml_error *err) {
  ml__auto_pad pad;
  const int64_t *extra, *shape;
  ML_TRY(ml__window_read(w, &pad, attrs, x, weights, err));
  ML_TRY(optional_list(attrs, "output_padding", w->n, false, &extra, err));
  ML_TRY(optional_list(attrs, "output_shape", w->n, true, &shape, err));
  for (int32_t d = 0; d < w->n; d++) {
    int64_t in = w->in[d], s = w->stride[d], size = ML_UNKNOWN;
    w->out[d] = in;
    w->in[d] = shape ? shape[d] : ML_UNKNOWN;
    if (in < 0 || w->kernel[d] < 0) continue;
    if (in > 0 && s > ML__EXTENT_MAX / in)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'strides': %lld makes dimension %d too large", (long long)s,
                     (int)d + 2);
    int64_t full = s * (in - 1) + (extra ? extra[d] : 0) + ml__window_extent(w, d); /* without padding */
    bool same = pad == ML__PAD_SAME_UPPER || pad == ML__PAD_SAME_LOWER;
    if (shape) size = shape[d];
    else if (same) size = in * s;
    else size = full - w->begin[d] - w->end[d];
    if (size < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "dimension %d of the output would be %lld: the pads are too large", (int)d + 2,
                     (long long)size);
    if (shape || same) { /* negative padding: the output is larger than what the input reaches */
      int64_t total = full - size, half = total >= 0 ? total / 2 : -((1 - total) / 2);
      w->begin[d] = pad == ML__PAD_SAME_UPPER ? half : total - half;
      w->end[d] = total - w->begin[d];
    }
    w->in[d] = size;
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *weights = ctx->in[1];
  int64_t groups, dims[ML_MAX_RANK], filters = ML_UNKNOWN;
  ml__window w;
  ML_TRY(ml__conv_groups(ctx->attrs, x, weights, true, &groups, err));
  if (weights->rank != ML_UNKNOWN && weights->dims[1] >= 0 && __builtin_mul_overflow(weights->dims[1], groups, &filters))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'group' is %lld, which is too large", (long long)groups);
  ML_TRY(ml__conv_check_bias(ml__in(ctx, 2), x, filters, err));
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(ml__conv_transpose_window(ctx->attrs, x, weights, &w, err));
  dims[0] = x->dims[0];
  dims[1] = filters;
  for (int32_t d = 0; d < w.n; d++) dims[d + 2] = w.in[d];
  ml_op_set(ctx->out[0], x->dtype, dims, x->rank);
  return ML_OK;
}

static ml_status geometry(const ml_op_ctx *ctx, ml__conv *c, ml_error *err) {
  const ml_view *x = ctx->in[0], *weights = ctx->in[1];
  int64_t groups;
  ml__window w;
  ML_TRY(ml__conv_groups(ctx->attrs, x, weights, true, &groups, err));
  ML_TRY(ml__conv_transpose_window(ctx->attrs, x, weights, &w, err));
  ml__conv_set(c, &w, x->dims[0], groups, weights->dims[1] * groups, x->dims[1]);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__conv c;
  *bytes = 0;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(geometry(ctx, &c, err));
  return ml__conv_workspace(&c, ML__CONV_DATA, ctx->in[0]->dtype, bytes, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *bias = ml__in(ctx, 2);
  ml__conv c;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(geometry(ctx, &c, err));
  if (bias && bias->count != c.G * c.C)
    return ml_fail(err, ML_INVALID_ARGUMENT, "B has %zu values for %zu channels", bias->count, c.G * c.C);
  ml__conv_data(&c, ctx->run->kernels, x->dtype, x->data, ctx->in[1]->data, bias ? bias->data : NULL, ctx->out[0]->data,
                ctx->workspace);
  return ML_OK;
}

static void gradient(ml_grad *g) { ml__conv_gradient(g, "mlserve.ConvTransposeGrad"); }

static double flops(const ml_op_ctx *ctx) {
  const ml_view *weights = ctx->in[1];
  return weights->dims[0] ? 2.0 * (double)ctx->in[0]->count * (double)(weights->count / (size_t)weights->dims[0]) : 0;
}

const ml_op_def ml_op_conv_transpose = {
  .name = "ConvTranspose", .domain = "", .since = 22, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1,
  .attrs = ml__conv_transpose_attrs, .types = { ML_MASK_F }, .formula = "Y = W' X scattered, + B", .infer = infer,
  .workspace = workspace,
  .run = run, .gradient = gradient, .flops = flops,
};
