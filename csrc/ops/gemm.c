/* Gemm 13: Y = alpha A' B' + beta C with A' = A or its transpose (transA), B' likewise.
 * A (M,K) or (K,M), B (K,N) or (N,K), C (optional) broadcast to (M,N) -> Y (M,N). BLAS level 3; ONNX operator specification.
 * Gradient: dA = alpha dY B'^T, dB = alpha A'^T dY (each transposed back where the flag says so), dC = beta sum of dY over what C
 * repeats. */
#include <math.h>
#include <string.h>
#include "ops/movement.h"
#include "ops/product.h"

static const ml_attr_def attrs[] = {
  { "alpha", ML_ATTR_FLOAT, false, "1 (default): factor of the product" },
  { "beta", ML_ATTR_FLOAT, false, "1 (default): factor of C" },
  { "transA", ML_ATTR_INT, false, "0 (default): not 0 transposes A" },
  { "transB", ML_ATTR_INT, false, "0 (default): not 0 transposes B" },
  { 0 },
};

/* dims of the operand after the optional transposition */
static ml_status matrix(const ml_view *v, bool transpose, const char *what, int64_t *dims, ml_error *err) {
  if (v->rank == ML_UNKNOWN) {
    dims[0] = dims[1] = ML_UNKNOWN;
    return ML_OK;
  }
  char text[128];
  if (v->rank != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected rank 2, got shape %s", what,
                   ml_shape_format(v->dims, v->rank, text, sizeof text));
  dims[0] = v->dims[transpose ? 1 : 0];
  dims[1] = v->dims[transpose ? 0 : 1];
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *A = ctx->in[0], *B = ctx->in[1], *C = ml__in(ctx, 2);
  bool ta = ml_attr_int(ctx->attrs, "transA", 0) != 0, tb = ml_attr_int(ctx->attrs, "transB", 0) != 0;
  int64_t a[2] = { 0 }, b[2] = { 0 };
  if (A->dtype != B->dtype || (C && C->dtype != A->dtype))
    return ml_fail(err, ML_INVALID_ARGUMENT, "A is %s, B is %s, C is %s, expected one type", ml_dtype_name(A->dtype),
                   ml_dtype_name(B->dtype), C ? ml_dtype_name(C->dtype) : "left out");
  float alpha = ml_attr_float(ctx->attrs, "alpha", 1), beta = ml_attr_float(ctx->attrs, "beta", 1);
  if (!ml_dtype_is_float(A->dtype) &&
      !(fabsf(alpha) < 1e9f && fabsf(beta) < 1e9f && alpha == truncf(alpha) && beta == truncf(beta)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "alpha %g and beta %g: expected whole numbers for %s", (double)alpha, (double)beta,
                   ml_dtype_name(A->dtype));
  ML_TRY(matrix(A, ta, "A", a, err));
  ML_TRY(matrix(B, tb, "B", b, err));
  char ta_text[96], tb_text[96];
  if (a[1] >= 0 && b[0] >= 0 && a[1] != b[0])
    return ml_fail(err, ML_INVALID_ARGUMENT, "inner dimensions differ: A %s%s, B %s%s",
                   ml_shape_format(A->dims, A->rank, ta_text, sizeof ta_text), ta ? " transposed" : "",
                   ml_shape_format(B->dims, B->rank, tb_text, sizeof tb_text), tb ? " transposed" : "");
  int64_t dims[2] = { a[0], b[1] };
  if (C && C->rank != ML_UNKNOWN) {
    bool fits = C->rank <= 2;
    for (int32_t i = 0; fits && i < C->rank; i++) {
      int64_t want = dims[i + 2 - C->rank], got = C->dims[i];
      fits = got < 0 || want < 0 || got == 1 || got == want;
    }
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "C %s does not broadcast to the product's shape %s",
                     ml_shape_format(C->dims, C->rank, ta_text, sizeof ta_text),
                     ml_shape_format(dims, 2, tb_text, sizeof tb_text));
  }
  ml_op_set(ctx->out[0], A->dtype, dims, 2);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *A = ctx->in[0], *B = ctx->in[1], *C = ml__in(ctx, 2);
  ml_view *Y = ctx->out[0];
  bool ta = ml_attr_int(ctx->attrs, "transA", 0) != 0, tb = ml_attr_int(ctx->attrs, "transB", 0) != 0;
  double alpha = (double)ml_attr_float(ctx->attrs, "alpha", 1), beta = (double)ml_attr_float(ctx->attrs, "beta", 1);
  size_t M = (size_t)Y->dims[0], N = (size_t)Y->dims[1], K = (size_t)A->dims[ta ? 0 : 1];
  (void)err;
  if (Y->count == 0) return ML_OK;
  if (!C) beta = 0;
  if (beta != 0) {
    int64_t from[2], to[2];
    ml__broadcast_strides(C->dims, C->rank, 2, from);
    ml__strides(Y->dims, 2, to);
    ml__move(Y->dims, 2, ml_dtype_size(Y->dtype), C->data, from, Y->data, to);
  }
  ml__product(ctx->run->kernels, Y->dtype, ta, tb, M, N, K, alpha, A->data, (size_t)A->dims[1], B->data, (size_t)B->dims[1], beta,
              Y->data, N);
  return ML_OK;
}

static ml_value *product(ml_grad *g, ml_value *a, bool ta, ml_value *b, bool tb, float alpha) {
  ml_attr list[3] = { ml_attr_of_int("transA", ta), ml_attr_of_int("transB", tb), ml_attr_of_float("alpha", alpha) };
  ml_value *in[2] = { a, b };
  return ml_gn(g, "Gemm", list, 3, 2, in);
}

static void gradient(ml_grad *g) {
  ml_value *A = g->in[0], *B = g->in[1], *dY = g->dout[0];
  bool ta = ml_attr_int(g->attrs, "transA", 0) != 0, tb = ml_attr_int(g->attrs, "transB", 0) != 0;
  float alpha = ml_attr_float(g->attrs, "alpha", 1), beta = ml_attr_float(g->attrs, "beta", 1);
  if (g->needs[0]) g->din[0] = ta ? product(g, B, tb, dY, true, alpha) : product(g, dY, false, B, !tb, alpha);
  if (g->needs[1]) g->din[1] = tb ? product(g, dY, true, A, ta, alpha) : product(g, A, !ta, dY, false, alpha);
  if (g->n_in > 2 && g->in[2] && g->needs[2]) {
    ml_value *dC = ml_g_reduce_to(g, dY, g->in[2]);
    g->din[2] = beta == 1 ? dC : ml_g2(g, "Mul", dC, g->constant(g, (double)beta, g->in[2]));
  }
}

static double flops(const ml_op_ctx *ctx) {
  bool ta = ml_attr_int(ctx->attrs, "transA", 0) != 0;
  return 2.0 * (double)ctx->out[0]->count * (double)ctx->in[0]->dims[ta ? 0 : 1];
}

const ml_op_def ml_op_gemm = {
  .name = "Gemm", .domain = "", .since = 13, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML__MASK_PRODUCT }, .formula = "Y = alpha A' B' + beta C", .infer = infer, .run = run, .gradient = gradient,
  .flops = flops,
};
