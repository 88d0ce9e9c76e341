/* OneHotEncoder 1 (ai.onnx.ml): y = 1 at the position of x among the categories, 0 elsewhere.
 * X (D…) string for cats_strings, else a number (truncated) for cats_int64s -> Y (D…, categories) float32. An unknown x makes
 * zeros, or an error with zeros=0. ONNX operator specification. */
#include <string.h>
#include "ops/lookup.h"
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "cats_int64s", ML_ATTR_INTS, false, "categories of numbers" },
  { "cats_strings", ML_ATTR_STRINGS, false, "categories of strings" },
  { "zeros", ML_ATTR_INT, false, "1 (default): an unknown value makes zeros; 0: it is an error" },
  { 0 },
};

static ml_status categories(const ml_attrs *list, ml_view *out, ml_error *err) {
  ml_view strings;
  bool ints = ml__attr_list(list, "cats_int64s", out), text = ml__attr_list(list, "cats_strings", &strings);
  if (ints == text) return ml_fail(err, ML_INVALID_ARGUMENT, "expected one of cats_int64s and cats_strings");
  if (text) *out = strings;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  ml_view cats = { 0 };
  int64_t dims[ML_MAX_RANK] = { 0 };
  ML_TRY(categories(ctx->attrs, &cats, err));
  if ((x->dtype == ML_STRING) != (cats.dtype == ML_STRING))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, the categories are %s", ml_dtype_name(x->dtype),
                   ml_dtype_name(cats.dtype));
  if (x->rank == ML_MAX_RANK)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: rank %d leaves no room for another dimension", ML_MAX_RANK);
  if (x->rank > 0) memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
  if (x->rank != ML_UNKNOWN) dims[x->rank] = (int64_t)cats.count;
  ml_op_set(ctx->out[0], ML_FLOAT32, dims, x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->rank + 1);
  return ML_OK;
}

static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  ml_view cats = { 0 };
  ml__lookup *table;
  ML_TRY(categories(ctx->attrs, &cats, err));
  ML_TRY(ml__lookup_new(&cats, &table, err));
  *state = table;
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  bool zeros = ml_attr_int(ctx->attrs, "zeros", 1) != 0;
  size_t n = (size_t)y->dims[y->rank - 1];
  float *to = y->data;
  if (y->count > 0) memset(to, 0, y->count * sizeof *to);
  for (size_t i = 0; i < x->count; i++) {
    size_t at = ml__lookup_find(ctx->state, x, i);
    if (at != SIZE_MAX) to[i * n + at] = 1;
    else if (!zeros && x->dtype == ML_STRING) {
      ml_str s = ((const ml_str *)x->data)[i];
      return ml_fail(err, ML_INVALID_ARGUMENT, "element %zu, '%.*s', is none of the categories", i,
                     s.length > 64 ? 64 : (int)s.length, s.bytes);
    } else if (!zeros)
      return ml_fail(err, ML_INVALID_ARGUMENT, "element %zu, %g, is none of the categories", i,
                     ml_element_get(x->data, x->dtype, i));
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_one_hot_encoder = {
  .name = "OneHotEncoder", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = attrs, .types = { ML_BIT(ML_STRING) | ML_BIT(ML_INT64) | ML_BIT(ML_INT32) | ML_MASK_F },
  .formula = "y = 1 at the position of x among the categories", .infer = infer, .prepare = prepare, .release = ml__lookup_free,
  .run = run,
};
