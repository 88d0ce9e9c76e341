/* GroupNormalization 21: Y = scale (X - mean) / sqrt(var + epsilon) + bias, mean and population variance over each group of
 * C/num_groups channels of each image. X (N,C,D1…), scale, bias (C; one value per group, as before version 21, is accepted too)
 * -> Y. Wu & He 2018; ONNX operator specification. Gradient: mlserve.GroupNormalizationGrad. */
#include "ops/group_norm.h"

static const ml_attr_def attrs[] = {
  { "epsilon", ML_ATTR_FLOAT, false, "1e-5 (default): added to the variance" },
  { "num_groups", ML_ATTR_INT, true, "number of groups; divides the number of channels" },
  { "stash_type", ML_ATTR_INT, false, "type of the sums; without effect: they are float64" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  int64_t groups = ml_attr_int(ctx->attrs, "num_groups", 0);
  if (groups < 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'num_groups' is %lld, expected 1 or more", (long long)groups);
  ML_TRY(ml__group_norm_check(ctx->in[0], ctx->in[1], ctx->in[2], groups, err));
  ml_op_like(ctx->out[0], ctx->in[0]);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml__group_norm n;
  ML_TRY(ml__group_norm_init(&n, ctx->in[0], ctx->in[1], ctx->in[2], ml_attr_int(ctx->attrs, "num_groups", 0), err));
  ml__group_norm_run(&n, ctx->in[0], ctx->in[1], ctx->in[2], (double)ml_attr_float(ctx->attrs, "epsilon", 1e-5f), ctx->out[0]);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml__group_norm_gradient(g, ml_attr_int(g->attrs, "num_groups", 0), ml_attr_float(g->attrs, "epsilon", 1e-5f));
}

const ml_op_def ml_op_group_normalization = {
  .name = "GroupNormalization", .domain = "", .since = 21, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs, .types = { ML_MASK_F }, .formula = "Y = scale (X - mean) / sqrt(var + epsilon) + bias per image and group",
  .infer = infer,
  .run = run, .gradient = gradient,
};
