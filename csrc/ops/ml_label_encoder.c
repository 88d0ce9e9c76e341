/* LabelEncoder 4 (ai.onnx.ml): y = values[position of x in keys], or the default where x is no key.
 * X (any shape) of the keys' type -> Y (same shape) of the values' type; keys and values come as one of the attributes keys_* and
 * values_*. prepare builds a hash table, run allocates nothing; string results point at the attribute's bytes. ONNX operator
 * specification. */
#include <string.h>
#include "ops/lookup.h"
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "keys_strings", ML_ATTR_STRINGS, false, "keys, one of the keys_* attributes" },
  { "keys_int64s", ML_ATTR_INTS, false, "keys" },
  { "keys_floats", ML_ATTR_FLOATS, false, "keys" },
  { "keys_tensor", ML_ATTR_TENSOR, false, "keys of any type" },
  { "values_strings", ML_ATTR_STRINGS, false, "values, one of the values_* attributes" },
  { "values_int64s", ML_ATTR_INTS, false, "values" },
  { "values_floats", ML_ATTR_FLOATS, false, "values" },
  { "values_tensor", ML_ATTR_TENSOR, false, "values of any type" },
  { "default_string", ML_ATTR_STRING, false, "\"_Unused\" (default): for an unknown key with string values" },
  { "default_int64", ML_ATTR_INT, false, "-1 (default): with integer values" },
  { "default_float", ML_ATTR_FLOAT, false, "-0.0 (default): with float values" },
  { "default_tensor", ML_ATTR_TENSOR, false, "one element of the values' type, instead of the others" },
  { 0 },
};

static ml_status list_of(const ml_attrs *list, const char *what, const char *const names[4], ml_view *out, ml_error *err) {
  const char *found = NULL;
  ml_view view;
  for (int32_t i = 0; i < 4; i++) {
    if (!ml__attr_list(list, names[i], &view)) continue;
    if (found) return ml_fail(err, ML_INVALID_ARGUMENT, "attributes %s and %s are both given, expected one", found, names[i]);
    found = names[i];
    *out = view;
  }
  if (!found)
    return ml_fail(err, ML_INVALID_ARGUMENT, "no %s: expected one of %s, %s, %s, %s", what, names[0], names[1], names[2],
                   names[3]);
  return ML_OK;
}

static ml_status keys_of(const ml_attrs *list, ml_view *out, ml_error *err) {
  static const char *const names[4] = { "keys_strings", "keys_int64s", "keys_floats", "keys_tensor" };
  return list_of(list, "keys", names, out, err);
}

static ml_status values_of(const ml_attrs *list, ml_view *out, ml_error *err) {
  static const char *const names[4] = { "values_strings", "values_int64s", "values_floats", "values_tensor" };
  return list_of(list, "values", names, out, err);
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_view keys = { 0 }, values = { 0 }, fallback;
  ML_TRY(keys_of(ctx->attrs, &keys, err));
  ML_TRY(values_of(ctx->attrs, &values, err));
  if (keys.count != values.count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%zu keys and %zu values, expected equal numbers", keys.count, values.count);
  if (ctx->in[0]->dtype != keys.dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, the keys are %s", ml_dtype_name(ctx->in[0]->dtype),
                   ml_dtype_name(keys.dtype));
  if (ml__attr_list(ctx->attrs, "default_tensor", &fallback) && (fallback.count != 1 || fallback.dtype != values.dtype))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute default_tensor: expected one element of type %s",
                   ml_dtype_name(values.dtype));
  ml_op_set(ctx->out[0], values.dtype, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  ml_view keys = { 0 };
  ml__lookup *table;
  ML_TRY(keys_of(ctx->attrs, &keys, err));
  ML_TRY(ml__lookup_new(&keys, &table, err));
  *state = table;
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0], values = { 0 }, fallback;
  union {
    ml_str s;
    uint64_t force[2];
  } other;
  ML_TRY(values_of(ctx->attrs, &values, err));
  if (ml__attr_list(ctx->attrs, "default_tensor", &fallback)) memcpy(&other, fallback.data, ml_dtype_size(values.dtype));
  else if (values.dtype == ML_STRING) other.s = ml_attr_str(ctx->attrs, "default_string", "_Unused");
  else if (ml_dtype_is_float(values.dtype))
    ml_element_set(&other, values.dtype, 0, (double)ml_attr_float(ctx->attrs, "default_float", -0.0f));
  else {
    int64_t v = ml_attr_int(ctx->attrs, "default_int64", -1);
    ml_convert(&v, ML_INT64, &other, values.dtype, 1);
  }
  size_t size = ml_dtype_size(values.dtype);
  for (size_t i = 0; i < x->count; i++) {
    size_t at = ml__lookup_find(ctx->state, x, i);
    memcpy((char *)y->data + i * size, at == SIZE_MAX ? (const char *)&other : (const char *)values.data + at * size, size);
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_label_encoder = {
  .name = "LabelEncoder", .domain = "ai.onnx.ml", .since = 4, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = attrs, .formula = "y = values[position of x in keys]", .infer = infer, .prepare = prepare, .release = ml__lookup_free,
  .run = run,
};
