/* ConvInteger: the convolution of x - x_zero_point with w - w_zero_point, 8-bit integers, in int32; padding is x's zero point.
 * x (N,C,D1…), w (M,C/group,k1…), x_zero_point (scalar, optional), w_zero_point (scalar or (M), optional) -> (N,M,O1…). No
 * gradient. Reference: ONNX ConvInteger-10. */
#include "ops/conv_integer.h"
#include <string.h>

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  return ml__conv_i8_infer(ctx, ctx->in[0], ctx->in[1], ML_INT32, ctx->out[0], err);
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__conv_i8 c;
  ML_TRY(ml__conv_i8_init(&c, ctx, ctx->in[0], ctx->in[1], ml__in(ctx, 2), ml__in(ctx, 3), err));
  return ml__conv_i8_workspace(&c, bytes, err);
}

typedef struct target {
  int32_t *y;
  size_t filters, outputs;
} target;

static void store(void *context, size_t image, size_t filter, size_t filters, size_t position, size_t n, const int32_t *sums,
                  size_t ld) {
  const target *t = context;
  for (size_t f = 0; f < filters; f++)
    memcpy(t->y + (image * t->filters + filter + f) * t->outputs + position, sums + f * ld, n * sizeof *sums);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml__conv_i8 c;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(ml__conv_i8_init(&c, ctx, ctx->in[0], ctx->in[1], ml__in(ctx, 2), ml__in(ctx, 3), err));
  target t = { ctx->out[0]->data, c.groups * c.filters, c.outputs };
  ml__conv_i8_run(&c, store, &t, ctx->workspace);
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const ml_view *w = ctx->in[1];
  return w->rank < 1 || w->dims[0] < 1 ? 0 : 2.0 * (double)ctx->out[0]->count * (double)w->count / (double)w->dims[0];
}

const ml_op_def ml_op_conv_integer = {
  .name = "ConvInteger", .domain = "", .since = 10, .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1, .attrs = ml__conv_attrs,
  .types = { ML__MASK_8BIT }, .formula = "y = (x - x_zero) convolved with (w - w_zero)", .infer = infer, .workspace = workspace,
  .run = run, .flops = flops,
};
