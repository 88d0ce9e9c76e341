/* ArrayFeatureExtractor 1 (ai.onnx.ml): columns of the last dimension. X (…, C) of any type it is given and Y (n, or anything
 * with n elements) int64 -> Z (…, n); a rank-1 X counts as (1, C). Negative indices count from the end, as in ONNX's reference
 * implementation; skl2onnx writes -1 where a row has fewer neighbours than others. ONNX operator specification. */
#include <string.h>
#include "ops/movement.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->in[1];
  int64_t dims[ML_MAX_RANK] = { 1 };
  ML_TRY(ml__op_check_types(ctx, err));
  if (x->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 1 or more, got rank 0");
  int64_t n = ml_view_known(y) ? (int64_t)y->count : ML_UNKNOWN;
  if (n == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "Y is empty, expected one index or more");
  int32_t rank = x->rank == 1 ? 2 : x->rank;
  if (x->rank > 1) memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
  if (rank > 0) dims[rank - 1] = n;
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->in[1];
  const int64_t *index = y->data;
  size_t columns = (size_t)x->dims[x->rank - 1], size = ml_dtype_size(x->dtype), rows = columns ? x->count / columns : 0;
  for (size_t i = 0; i < y->count; i++)
    if (index[i] < -(int64_t)columns || index[i] >= (int64_t)columns)
      return ml_fail(err, ML_OUT_OF_RANGE, "Y[%zu] is %lld, X has %zu columns", i, (long long)index[i], columns);
  char *to = ctx->out[0]->data;
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < y->count; i++, to += size) {
      size_t column = index[i] < 0 ? columns - (size_t)-index[i] : (size_t)index[i];
      memcpy(to, (const char *)x->data + (r * columns + column) * size, size);
    }
  return ML_OK;
}

const ml_op_def ml_op_ml_array_feature_extractor = {
  .name = "ArrayFeatureExtractor", .domain = "ai.onnx.ml", .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_F | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) | ML_BIT(ML_STRING), ML_BIT(ML_INT64) },
  .formula = "Z = X[…, Y]", .infer = infer, .run = run,
};
