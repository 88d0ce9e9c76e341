/* FeatureVectorizer 1 (ai.onnx.ml): the inputs side by side. Inputs (rows, c_i) or (c_i) float32/float64/int32/int64 -> Y (rows,
 * sum of inputdimensions) float32; an input with fewer columns than its inputdimensions is filled up with zeros, of a wider one
 * the first columns count (as ONNX Runtime does). Without inputdimensions: all columns. ONNX operator specification. */
#include <string.h>
#include "ops/class_scores.h"

static const ml_attr_def attrs[] = {
  { "inputdimensions", ML_ATTR_INTS, false, "columns taken from each input; default all" },
  { 0 },
};

enum { MAX_WIDTH = 1 << 24 }; /* a file's number decides how large the output is */

/* Columns input i gets in Y; ML_UNKNOWN when not known. */
static ml_status width_of(const ml_op_ctx *ctx, int32_t i, int64_t *rows, int64_t *columns, int64_t *width, ml_error *err) {
  ml_view list = { 0 };
  if (!ctx->in[i]) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", (int)i);
  ml_status status = ml__matrix_of(ctx->in[i], rows, columns, err);
  if (status != ML_OK) return ml_fail_in(err, status, "input %d", (int)i);
  *width = *columns;
  if (!ml__attr_list(ctx->attrs, "inputdimensions", &list) || list.count == 0) return ML_OK;
  if (list.count != (size_t)ctx->n_in)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute inputdimensions has %zu values for %d inputs", list.count,
                   (int)ctx->n_in);
  *width = ((const int64_t *)list.data)[i];
  if (*width < 0 || *width > MAX_WIDTH)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute inputdimensions[%d] is %lld", (int)i, (long long)*width);
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  int64_t total = 0, rows = ML_UNKNOWN;
  for (int32_t i = 0; i < ctx->n_in; i++) {
    int64_t n = 0, columns = 0, width = 0;
    ML_TRY(width_of(ctx, i, &n, &columns, &width, err));
    if (n >= 0 && rows >= 0 && n != rows)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has %lld rows, expected %lld", (int)i, (long long)n, (long long)rows);
    if (n >= 0) rows = n;
    total = total < 0 || width < 0 ? ML_UNKNOWN : total + width;
  }
  ml_op_set(ctx->out[0], ML_FLOAT32, (int64_t[]) { rows, total }, 2);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  size_t rows = (size_t)ctx->out[0]->dims[0], stride = (size_t)ctx->out[0]->dims[1];
  float *to = ctx->out[0]->data;
  for (int32_t i = 0; i < ctx->n_in; i++) {
    int64_t n = 0, columns = 0, width = 0;
    ML_TRY(width_of(ctx, i, &n, &columns, &width, err));
    const ml_view *x = ctx->in[i];
    size_t w = (size_t)width, c = (size_t)columns, copied = w < c ? w : c, size = ml_dtype_size(x->dtype);
    for (size_t r = 0; r < rows; r++) {
      if (copied > 0) ml_convert((const char *)x->data + r * c * size, x->dtype, to + r * stride, ML_FLOAT32, copied);
      for (size_t k = copied; k < w; k++) to[r * stride + k] = 0;
    }
    to += w;
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_feature_vectorizer = {
  .name = "FeatureVectorizer", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_VARIADIC, .attrs = attrs, .types = { ML__MASK_FEATURE }, .formula = "Y = inputs side by side", .infer = infer,
  .run = run,
};
