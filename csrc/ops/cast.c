/* Cast 21: y = x as another element type. x (any shape) -> y (same shape). ONNX operator specification.
 * Float to integer truncates and saturates; numbers to text and back as convert.h says. Gradient, between floats: the gradient
 * cast back. */
#include "ops/convert.h"
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "to", ML_ATTR_INT, true, "number of the target element type" },
  { "saturate", ML_ATTR_INT, false, "1 (default); concerns float8 only, which we do not have" },
  { "round_mode", ML_ATTR_STRING, false, "\"up\" (default); concerns float8 only" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t to = ml_attr_int(ctx->attrs, "to", 0);
  if (to < 1 || to > 64 || ml_dtype_size((ml_dtype)to) == 0)
    return ml_fail(err, ML_UNIMPLEMENTED, "attribute to: element type %lld is not supported", (long long)to);
  ml_op_set(ctx->out[0], (ml_dtype)to, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_dtype from = g->shape_of(g, g->in[0])->dtype;
  if (g->needs[0] && ml_dtype_is_float(from) && ml_dtype_is_float((ml_dtype)ml_attr_int(g->attrs, "to", 0)))
    g->din[0] = ml__g_cast(g, g->dout[0], from);
}

const ml_op_def ml_op_cast = {
  .name = "Cast", .domain = "", .since = 28, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .formula = "y = x as another element type", .infer = infer, .run = ml__cast_run, .gradient = gradient,
};
