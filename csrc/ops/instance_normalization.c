/* InstanceNormalization 22: output = scale (input - mean) / sqrt(var + epsilon) + B, mean and population variance over the
 * positions of each channel of each image. input (N,C,D1…), scale, B (C) -> output. Ulyanov et al. 2016; ONNX operator
 * specification. Gradient: mlserve.GroupNormalizationGrad with a group per channel. */
#include "ops/group_norm.h"

static const ml_attr_def attrs[] = {
  { "epsilon", ML_ATTR_FLOAT, false, "1e-5 (default): added to the variance" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__group_norm_check(ctx->in[0], ctx->in[1], ctx->in[2], 0, err));
  ml_op_like(ctx->out[0], ctx->in[0]);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml__group_norm n;
  ML_TRY(ml__group_norm_init(&n, ctx->in[0], ctx->in[1], ctx->in[2], 0, err));
  ml__group_norm_run(&n, ctx->in[0], ctx->in[1], ctx->in[2], (double)ml_attr_float(ctx->attrs, "epsilon", 1e-5f), ctx->out[0]);
  return ML_OK;
}

static void gradient(ml_grad *g) { ml__group_norm_gradient(g, 0, ml_attr_float(g->attrs, "epsilon", 1e-5f)); }

const ml_op_def ml_op_instance_normalization = {
  .name = "InstanceNormalization", .domain = "", .since = 22, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs, .types = { ML_MASK_F }, .formula = "y = scale (x - mean) / sqrt(var + epsilon) + B per image and channel",
  .infer = infer,
  .run = run, .gradient = gradient,
};
