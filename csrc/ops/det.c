/* Det 22: determinant of every matrix of the last two dimensions, by Gaussian elimination with partial pivoting in double.
 * X (…,M,M) -> Y (…). ONNX operator specification. */
#include <math.h>
#include "ops/movement.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  char text[96];
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  int32_t r = x->rank;
  if (r < 2 || (x->dims[r - 1] >= 0 && x->dims[r - 2] >= 0 && x->dims[r - 1] != x->dims[r - 2]))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected square matrices, got shape %s",
                   ml_shape_format(x->dims, r, text, sizeof text));
  ml_op_set(ctx->out[0], x->dtype, x->dims, r - 2);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  const ml_view *x = ctx->in[0];
  size_t n = (size_t)x->dims[x->rank - 1];
  return ml_mul_size(n, n, bytes) && ml_mul_size(*bytes, sizeof(double), bytes)
             ? ML_OK
             : ml_fail(err, ML_RESOURCE_EXHAUSTED, "matrices of %zu rows are too large", n);
}

static double determinant(double *a, size_t n) {
  double det = 1;
  for (size_t k = 0; k < n; k++) {
    size_t pivot = k;
    for (size_t i = k + 1; i < n; i++)
      if (fabs(a[i * n + k]) > fabs(a[pivot * n + k])) pivot = i;
    double top = a[pivot * n + k];
    if (top == 0) return 0;
    if (pivot != k) {
      det = -det;
      for (size_t j = k; j < n; j++) {
        double t = a[k * n + j];
        a[k * n + j] = a[pivot * n + j];
        a[pivot * n + j] = t;
      }
    }
    det *= top;
    for (size_t i = k + 1; i < n; i++) {
      double f = a[i * n + k] / top;
      for (size_t j = k + 1; j < n; j++) a[i * n + j] -= f * a[k * n + j];
    }
  }
  return det;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  size_t n = (size_t)x->dims[x->rank - 1];
  double *a = ctx->workspace;
  (void)err;
  for (size_t m = 0; m < ctx->out[0]->count; m++) {
    for (size_t i = 0; i < n * n; i++) a[i] = ml_element_get(x->data, x->dtype, m * n * n + i);
    ml_element_set(ctx->out[0]->data, x->dtype, m, determinant(a, n));
  }
  return ML_OK;
}

const ml_op_def ml_op_det = {
  .name = "Det", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .types = { ML_MASK_F },
  .formula = "Y = det X", .infer = infer, .workspace = workspace, .run = run,
};
