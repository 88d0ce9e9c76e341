/* GlobalLpPool 22: Y = (sum of |X|^p over everything but batch and channel)^(1/p). X (N,C,D1…) -> Y (N,C,1…).
 * ONNX operator specification. */
#include <math.h>
#include "ops/global_pool.h"

static const ml_attr_def attrs[] = {
  { "p", ML_ATTR_INT, false, "2 (default): exponent, 1 or more" },
  { 0 },
};

static void value(const ml_op_ctx *ctx, size_t n, size_t index) {
  double power = (double)ml_attr_int(ctx->attrs, "p", 2), sum = 0;
  ML_SWITCH_FLOAT(ctx->in[0]->dtype, {
    const T *x = (const T *)ctx->in[0]->data + index * n;
    for (size_t i = 0; i < n; i++) sum += power == 2 ? (double)x[i] * (double)x[i] : pow(fabs((double)x[i]), power);
    ((T *)ctx->out[0]->data)[index] = (T)pow(sum, 1 / power);
  })
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t power = ml_attr_int(ctx->attrs, "p", 2);
  if (power < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'p' is %lld, expected 1 or more", (long long)power);
  return ml__global_pool_infer(ctx, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__global_pool_run(ctx, value, err); }

const ml_op_def ml_op_global_lp_pool = {
  .name = "GlobalLpPool", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F }, .formula = "Y = (sum |X|^p)^(1/p) per channel", .infer = infer, .run = run,
  .flops = ml__global_pool_flops,
};
