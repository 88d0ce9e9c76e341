/* CastLike 21: y = x as the element type of the second input. x (any shape), target (any shape) -> y (shape of x). ONNX operator
 * specification. */
#include "ops/convert.h"
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "saturate", ML_ATTR_INT, false, "1 (default); concerns float8 only, which we do not have" },
  { "round_mode", ML_ATTR_STRING, false, "\"up\" (default); concerns float8 only" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml_op_set(ctx->out[0], ctx->in[1]->dtype, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_dtype from = g->shape_of(g, g->in[0])->dtype;
  if (g->needs[0] && ml_dtype_is_float(from) && ml_dtype_is_float(g->shape_of(g, g->in[1])->dtype))
    g->din[0] = ml__g_cast(g, g->dout[0], from);
}

const ml_op_def ml_op_cast_like = {
  .name = "CastLike", .domain = "", .since = 25, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .formula = "y = x as the element type of the second input", .infer = infer, .run = ml__cast_run, .gradient = gradient,
};
