/* QLinearMatMul: y = saturate(round((a - a_zero) (b - b_zero) a_scale b_scale / y_scale) + y_zero) of 8-bit integers, shapes
 * as MatMul. Scales and zero points of a and b: one value, one per row of a or per column of b, or those per batch; of y: one
 * value. a, a_scale, a_zero_point, b, b_scale, b_zero_point, y_scale, y_zero_point -> y of y_zero_point's type. No gradient.
 * Reference: ONNX QLinearMatMul-21. */
#include "ops/elementwise.h"
#include "ops/product.h"
#include "ops/quantize.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  for (int32_t i = 0; i < 8; i++) {
    const uint32_t mask = i == 1 || i == 4 || i == 6 ? ML__MASK_SCALE : ML__MASK_8BIT;
    const ml_dtype dtype = ctx->in[i]->dtype;
    if (dtype != ML_DTYPE_NONE && (ML_BIT(dtype) & mask) == 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has dtype %s, expected %s", (int)i, ml_dtype_name(dtype),
                     mask == ML__MASK_8BIT ? "int8 or uint8" : "float32, float16 or bfloat16");
  }
  if (ctx->in[2]->dtype != ctx->in[0]->dtype || ctx->in[5]->dtype != ctx->in[3]->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "a zero point has another type than its matrix");
  ML_TRY(ml__op_check_scalar(ctx->in[6], "y_scale", err));
  ML_TRY(ml__op_check_scalar(ctx->in[7], "y_zero_point", err));
  return ml__mat_mul_shape(ctx->in[0], ctx->in[3], ctx->in[7]->dtype, ctx->out[0], err);
}

static ml_status start(ml_op_ctx *ctx, ml__matmul_i8 *m, ml_error *err) {
  ML_TRY(ml__matmul_i8_init(m, ctx->in[0], ctx->in[3], ctx->in[2], ctx->in[5], ctx->out[0], err));
  ML_TRY(ml__per_row_check(ctx->in[1], m->batches, m->M, "a_scale", err));
  return ml__per_row_check(ctx->in[4], m->batches, m->N, "b_scale", err);
}

/* the products in int32, then what they need themselves */
static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__matmul_i8 m;
  size_t result;
  ML_TRY(start(ctx, &m, err));
  ML_TRY(ml__matmul_i8_workspace(&m, bytes, err));
  if (!ml_mul_size(m.M * m.N, sizeof(int32_t), &result) || !ml_add_size(*bytes, result, bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the matrices are too large");
  return ML_OK;
}

static float value(const ml_view *v, size_t i) { return (float)ml_element_get(v->data, v->dtype, i); }

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *a_scale = ctx->in[1], *b_scale = ctx->in[4], *y = ctx->out[0];
  const float y_scale = value(ctx->in[6], 0);
  const int32_t y_zero = ml__zero_at(ctx->in[7], 0);
  int32_t low, high, *sums = ctx->workspace;
  ml__matmul_i8 m;
  ML_TRY(start(ctx, &m, err));
  if (y->count == 0) return ML_OK;
  ml__quantized_range(y->dtype, &low, &high);
  for (size_t i = 0; i < m.batches; i++) {
    ml__matmul_i8_run(&m, i, sums, sums + m.M * m.N);
    for (size_t r = 0; r < m.M; r++) {
      const float row_scale = value(a_scale, ml__per_row(a_scale, m.M, i, r));
      uint8_t *to = (uint8_t *)y->data + (i * m.M + r) * m.N; /* the bytes are the same for int8 */
      const int32_t *from = sums + r * m.N;
      if (b_scale->count == 1) {
        const float scale = row_scale * value(b_scale, 0) / y_scale;
        for (size_t n = 0; n < m.N; n++) to[n] = (uint8_t)ml__quantized((float)from[n] * scale, y_zero, low, high);
      } else {
        for (size_t n = 0; n < m.N; n++) {
          const float scale = row_scale * value(b_scale, ml__per_row(b_scale, m.N, i, n)) / y_scale;
          to[n] = (uint8_t)ml__quantized((float)from[n] * scale, y_zero, low, high);
        }
      }
    }
  }
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const ml_view *A = ctx->in[0];
  return A->rank < 1 ? 0 : 2.0 * (double)ctx->out[0]->count * (double)A->dims[A->rank - 1];
}

const ml_op_def ml_op_q_linear_mat_mul = {
  .name = "QLinearMatMul", .domain = "", .since = 21, .min_in = 8, .max_in = 8, .min_out = 1, .max_out = 1,
  .formula = "y = quantised product of quantised matrices", .infer = infer, .workspace = workspace, .run = run, .flops = flops,
};
