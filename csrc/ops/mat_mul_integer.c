/* MatMulInteger: Y = (A - a_zero_point) (B - b_zero_point) of 8-bit integers in int32, shapes as MatMul. Zero points: one
 * value, one per row of A or per column of B, or those per batch. A sum beyond 32 bits wraps. No gradient. Reference: ONNX
 * MatMulInteger-10. */
#include "ops/product.h"
#include "ops/quantize.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  static const char *const names[] = { "a_zero_point", "b_zero_point" };
  ML_TRY(ml__op_check_types(ctx, err));
  for (int32_t i = 0; i < 2; i++) {
    const ml_view *zero = ml__in(ctx, i + 2);
    if (zero != NULL && zero->dtype != ctx->in[i]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s, the matrix is %s", names[i], ml_dtype_name(zero->dtype),
                     ml_dtype_name(ctx->in[i]->dtype));
  }
  return ml__mat_mul_shape(ctx->in[0], ctx->in[1], ML_INT32, ctx->out[0], err);
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__matmul_i8 m;
  ML_TRY(ml__matmul_i8_init(&m, ctx->in[0], ctx->in[1], ml__in(ctx, 2), ml__in(ctx, 3), ctx->out[0], err));
  return ml__matmul_i8_workspace(&m, bytes, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml__matmul_i8 m;
  ML_TRY(ml__matmul_i8_init(&m, ctx->in[0], ctx->in[1], ml__in(ctx, 2), ml__in(ctx, 3), ctx->out[0], err));
  if (ctx->out[0]->count == 0) return ML_OK;
  for (size_t i = 0; i < m.batches; i++)
    ml__matmul_i8_run(&m, i, (int32_t *)ctx->out[0]->data + i * m.M * m.N, ctx->workspace);
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const ml_view *A = ctx->in[0];
  return A->rank < 1 ? 0 : 2.0 * (double)ctx->out[0]->count * (double)A->dims[A->rank - 1];
}

const ml_op_def ml_op_mat_mul_integer = {
  .name = "MatMulInteger", .domain = "", .since = 10, .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1,
  .types = { ML__MASK_8BIT }, .formula = "Y = (A - a_zero) (B - b_zero)", .infer = infer, .workspace = workspace, .run = run,
  .flops = flops,
};
