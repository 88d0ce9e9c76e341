/* CategoryMapper 1 (ai.onnx.ml): strings to their integers or integers to their strings. X (any shape) string -> Y int64 of the
 * same shape, default_int64 for an unknown string; or int64 -> string with default_string. X's type decides. ONNX operator
 * specification. */
#include <string.h>
#include "ops/lookup.h"

static const ml_attr_def attrs[] = {
  { "cats_strings", ML_ATTR_STRINGS, true, "the strings" },
  { "cats_int64s", ML_ATTR_INTS, true, "the integers, in the same order" },
  { "default_int64", ML_ATTR_INT, false, "-1 (default): for an unknown string" },
  { "default_string", ML_ATTR_STRING, false, "\"_Unused\" (default): for an unknown integer" },
  { 0 },
};

static ml_status sides(const ml_op_ctx *ctx, ml_view *keys, ml_view *values, ml_error *err) {
  ml_view strings = { 0 }, ints = { 0 };
  (void)ml__attr_list(ctx->attrs, "cats_strings", &strings);
  (void)ml__attr_list(ctx->attrs, "cats_int64s", &ints);
  if (strings.count != ints.count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute cats_strings has %zu values, cats_int64s %zu", strings.count, ints.count);
  bool from_strings = ctx->in[0]->dtype == ML_STRING;
  *keys = from_strings ? strings : ints;
  *values = from_strings ? ints : strings;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_view keys, values;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(sides(ctx, &keys, &values, err));
  ml_op_set(ctx->out[0], ctx->in[0]->dtype == ML_STRING ? ML_INT64 : ML_STRING, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  ml_view keys, values;
  ml__lookup *table;
  ML_TRY(sides(ctx, &keys, &values, err));
  keys.dtype = ctx->in[0]->dtype == ML_STRING ? ML_STRING : ML_INT64; /* an empty list has no type */
  ML_TRY(ml__lookup_new(&keys, &table, err));
  *state = table;
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view keys, values;
  ML_TRY(sides(ctx, &keys, &values, err));
  int64_t unknown = ml_attr_int(ctx->attrs, "default_int64", -1);
  ml_str other = ml_attr_str(ctx->attrs, "default_string", "_Unused");
  for (size_t i = 0; i < x->count; i++) {
    size_t at = ml__lookup_find(ctx->state, x, i);
    if (x->dtype == ML_STRING) ((int64_t *)ctx->out[0]->data)[i] = at == SIZE_MAX ? unknown : ((const int64_t *)values.data)[at];
    else ((ml_str *)ctx->out[0]->data)[i] = at == SIZE_MAX ? other : ((const ml_str *)values.data)[at];
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_category_mapper = {
  .name = "CategoryMapper", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = attrs, .types = { ML_BIT(ML_STRING) | ML_BIT(ML_INT64) }, .formula = "y = the other side of x in the list",
  .infer = infer, .prepare = prepare, .release = ml__lookup_free, .run = run,
};
