/* mlserve.ConvGrad: the gradients of Conv. dX = the transposed convolution of dY with W, dW = the correlation of dY with X.
 * dY (N,M,O1…), X (N,C,D1…), W (M,C/group,k1…) -> dX (shape of X), dW (shape of W). Attributes are Conv's. */
#include <string.h>
#include "ops/conv.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  if (ctx->in[0]->dtype != ctx->in[1]->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dY is %s, X is %s", ml_dtype_name(ctx->in[0]->dtype),
                   ml_dtype_name(ctx->in[1]->dtype));
  int64_t groups;
  ML_TRY(ml__conv_groups(ctx->attrs, ctx->in[1], ctx->in[2], false, &groups, err));
  for (int32_t i = 0; i < 2; i++)
    if (ml__out(ctx, i)) ml_op_like(ctx->out[i], ctx->in[i + 1]);
  return ML_OK;
}

static ml_status geometry(const ml_op_ctx *ctx, ml__conv *c, ml_error *err) {
  const ml_view *dy = ctx->in[0], *x = ctx->in[1], *weights = ctx->in[2];
  int64_t groups;
  ml__window w;
  ML_TRY(ml__conv_groups(ctx->attrs, x, weights, false, &groups, err));
  ML_TRY(ml__window_init(&w, ctx->attrs, x, weights, false, err));
  bool fits = dy->rank == x->rank && dy->dims[0] == x->dims[0] && dy->dims[1] == weights->dims[0];
  for (int32_t d = 0; fits && d < w.n; d++) fits = dy->dims[d + 2] == w.out[d];
  if (!fits) return ml_fail(err, ML_INVALID_ARGUMENT, "dY does not have the shape of the convolution's output");
  ml__conv_set(c, &w, x->dims[0], groups, x->dims[1], weights->dims[0]);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__conv c;
  size_t data = 0, weights = 0;
  ML_TRY(geometry(ctx, &c, err));
  if (ml__out(ctx, 0)) ML_TRY(ml__conv_workspace(&c, ML__CONV_DATA, ctx->in[0]->dtype, &data, err));
  if (ml__out(ctx, 1)) ML_TRY(ml__conv_workspace(&c, ML__CONV_WEIGHTS, ctx->in[0]->dtype, &weights, err));
  *bytes = data > weights ? data : weights;
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *dy = ctx->in[0], *x = ctx->in[1], *weights = ctx->in[2];
  ml_view *dx = ml__out(ctx, 0), *dw = ml__out(ctx, 1);
  ml__conv c;
  ML_TRY(geometry(ctx, &c, err));
  if (dx) ml__conv_data(&c, ctx->run->kernels, x->dtype, dy->data, weights->data, NULL, dx->data, ctx->workspace);
  if (dw) ml__conv_weights(&c, ctx->run->kernels, x->dtype, dy->data, x->data, dw->data, ctx->workspace);
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const ml_view *dy = ctx->in[0], *weights = ctx->in[2];
  double one = weights->dims[0] ? 2.0 * (double)dy->count * (double)(weights->count / (size_t)weights->dims[0]) : 0;
  return one * ((ml__out(ctx, 0) ? 1 : 0) + (ml__out(ctx, 1) ? 1 : 0));
}

const ml_op_def ml_op_conv_grad = {
  .name = "ConvGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 2,
  .flags = ML_OP_TRAINING,
  .attrs = ml__conv_attrs, .types = { ML_MASK_F }, .formula = "dX = W' dY, dW = dY X'", .infer = infer, .workspace = workspace,
  .run = run,
  .flops = flops,
};
