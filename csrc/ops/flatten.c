/* Flatten 21: (d_0 … d_{n-1}) -> (d_0*…*d_{axis-1}, d_axis*…*d_{n-1}); axis in [-n, n]. ONNX operator specification. */
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "1 (default): dimensions before it become the rows" },
  { 0 },
};

/* ML_UNKNOWN when a factor is; a known zero wins. */
static ml_status product(const int64_t *dims, int32_t from, int32_t to, int64_t *out, ml_error *err) {
  int64_t p = 1;
  bool unknown = false;
  for (int32_t i = from; i < to; i++) {
    if (dims[i] < 0) unknown = true;
    else if (__builtin_mul_overflow(p, dims[i], &p))
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "input shape overflows at dimension %d", (int)i);
  }
  *out = unknown && p != 0 ? ML_UNKNOWN : p;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  int64_t dims[2] = { ML_UNKNOWN, ML_UNKNOWN }, axis = ml_attr_int(ctx->attrs, "axis", 1);
  if (x->rank != ML_UNKNOWN) {
    if (axis < -x->rank || axis > x->rank)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute axis is %lld, expected %d to %d for rank %d", (long long)axis,
                     -(int)x->rank, (int)x->rank, (int)x->rank);
    if (axis < 0) axis += x->rank;
    ML_TRY(product(x->dims, 0, (int32_t)axis, &dims[0], err));
    ML_TRY(product(x->dims, (int32_t)axis, x->rank, &dims[1], err));
  }
  ml_op_set(ctx->out[0], x->dtype, dims, 2);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml__g_reshape_like(g, g->dout[0], g->in[0]);
}

const ml_op_def ml_op_flatten = {
  .name = "Flatten", .domain = "", .since = 25, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_VIEW,
  .attrs = attrs, .formula = "y = x as a matrix, split before axis", .infer = infer, .run = ml__run_copy, .gradient = gradient,
};
