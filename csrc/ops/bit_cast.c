/* BitCast: the same bits read as another type of the same size; y has the shape of x. No gradient. Reference: ONNX BitCast-26. */
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "to", ML_ATTR_INT, true, "element type of y, of the same size as the input's" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const int64_t to = ml_attr_int(ctx->attrs, "to", 0);
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_dtype dtype = ml_dtype_is_element(to) ? (ml_dtype)to : ML_DTYPE_NONE;
  if (ml_dtype_size(dtype) == 0 || dtype == ML_STRING)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'to' is %lld, which is no numeric type", (long long)to);
  if (x->dtype != ML_DTYPE_NONE && ml_dtype_bits(dtype) != ml_dtype_bits(x->dtype))
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s has elements of %zu bits, %s of %zu", ml_dtype_name(x->dtype),
                   ml_dtype_bits(x->dtype), ml_dtype_name(dtype), ml_dtype_bits(dtype));
  ml_op_set(ctx->out[0], dtype, x->dims, x->rank);
  return ML_OK;
}

/* A bool has to be 0 or 1 wherever it came from. */
static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__run_copy(ctx, err));
  const ml_view *y = ctx->out[0];
  if (y->dtype == ML_BOOL)
    for (size_t i = 0; i < y->count; i++) ((uint8_t *)y->data)[i] = ((const uint8_t *)y->data)[i] != 0;
  ml_mask_small(y->data, y->dtype, y->count);
  return ML_OK;
}

const ml_op_def ml_op_bit_cast = {
  .name = "BitCast", .domain = "", .since = 26, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_ANY & ~ML_BIT(ML_STRING) }, .formula = "y = the bits of x as another type", .infer = infer, .run = run,
};
