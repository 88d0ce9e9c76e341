/* BitShift: y = x shifted by `shift` bits in the direction of the attribute, with broadcasting. A right shift of a signed type
 * repeats the sign; a negative shift, or one of at least the type's width, leaves nothing but what the sign repeats (-1 or 0).
 * No gradient. Reference: ONNX BitShift-28. */
#include "ops/elementwise.h"

#define WIDE(b) ((b) < 0 || (uint64_t)(b) >= 8 * sizeof(T))
#define LEFT(a, b) (WIDE(b) ? 0 : (T)((uint64_t)(a) << (b)))
#define RIGHT_SIGNED(a, b) (WIDE(b) ? ((a) < 0 ? -1 : 0) : (a) >> (b))
#define RIGHT_UNSIGNED(a, b) ((uint64_t)(b) >= 8 * sizeof(T) ? 0 : (a) >> (b))
#define LEFT_UNSIGNED(a, b) ((uint64_t)(b) >= 8 * sizeof(T) ? 0 : (T)((uint64_t)(a) << (b)))

ML_BINARY_ROWS(rows_left, ML_CASES2_SIGNED(T, LEFT(a, b)) ML_CASES2_UNSIGNED(T, LEFT_UNSIGNED(a, b)))
ML_BINARY_ROWS(rows_right, ML_CASES2_SIGNED(T, RIGHT_SIGNED(a, b)) ML_CASES2_UNSIGNED(T, RIGHT_UNSIGNED(a, b)))

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  if (!ml_attr_is(ctx->attrs, "direction", "", "LEFT") && !ml_attr_is(ctx->attrs, "direction", "", "RIGHT")) {
    const ml_str given = ml_attr_str(ctx->attrs, "direction", "");
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'direction' is \"%.*s\", expected LEFT or RIGHT",
                   (int)(given.length < 40 ? given.length : 40), given.bytes);
  }
  return ml_op_infer_broadcast(ctx, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml__binary_run(ctx, -1, ml_attr_is(ctx->attrs, "direction", "", "LEFT") ? rows_left : rows_right);
  return ML_OK;
}

static const ml_attr_def attrs[] = {
  { "direction", ML_ATTR_STRING, true, "LEFT or RIGHT" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_bit_shift = {
  .name = "BitShift", .domain = "", .since = 28, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1,
  .attrs = attrs,
  .types = { ML_MASK_I },
  .formula = "y = x << shift or x >> shift",
  .infer = infer,
  .run = run,
};
