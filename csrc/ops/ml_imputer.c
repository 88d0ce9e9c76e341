/* Imputer 1 (ai.onnx.ml): y = the imputed value where x equals the replaced value (attribute), x elsewhere.
 * X (…, features) -> Y (same); one imputed value for all features or one per feature. ONNX operator specification. */
#include <math.h>
#include "ops/feature.h"

static const ml_attr_def attrs[] = {
  { "imputed_value_floats", ML_ATTR_FLOATS, false, "what to put in for float inputs: one value or one per feature" },
  { "replaced_value_float", ML_ATTR_FLOAT, false, "0 (default); NaN finds NaN" },
  { "imputed_value_int64s", ML_ATTR_INTS, false, "the same for integer inputs" },
  { "replaced_value_int64", ML_ATTR_INT, false, "0 (default)" },
  { 0 },
};

static ml_status values_of(const ml_op_ctx *ctx, ml_view *out, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const char *name = ml_dtype_is_float(x->dtype) ? "imputed_value_floats" : "imputed_value_int64s";
  ML_TRY(ml__feature_list(ctx->attrs, name, x, out, err));
  return out->count > 0
             ? ML_OK
             : ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s is missing for %s input", name, ml_dtype_name(x->dtype));
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ml_view values;
  ML_TRY(values_of(ctx, &values, err));
  ml_op_like(ctx->out[0], ctx->in[0]);
  return ML_OK;
}

#define IMPUTE(V, missing)                                            \
  {                                                                   \
    const V *with = values.data;                                      \
    const T *from = x->data;                                          \
    T *to = ctx->out[0]->data;                                        \
    for (size_t i = 0; i < x->count; i++) {                           \
      T v = from[i];                                                  \
      to[i] = (missing) ? (T)with[values.count == 1 ? 0 : i % n] : v; \
    }                                                                 \
  }

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view values;
  ML_TRY(values_of(ctx, &values, err));
  size_t n = (size_t)ml__features(x);
  float absent = ml_attr_float(ctx->attrs, "replaced_value_float", 0);
  int64_t absent_int = ml_attr_int(ctx->attrs, "replaced_value_int64", 0);
  bool nan = isnan(absent);
  switch (x->dtype) {
    case ML_FLOAT32: {
      typedef float T;
      IMPUTE(float, nan ? isnan(v) : v == absent)
    } break;
    case ML_FLOAT64: {
      typedef double T;
      IMPUTE(float, nan ? isnan(v) : v == (double)absent)
    } break;
    case ML_INT32: {
      typedef int32_t T;
      IMPUTE(int64_t, v == absent_int)
    } break;
    case ML_INT64: {
      typedef int64_t T;
      IMPUTE(int64_t, v == absent_int)
    } break;
    default: break;
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_imputer = {
  .name = "Imputer", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE, .attrs = attrs, .types = { ML__MASK_FEATURE },
  .formula = "y = imputed value where x is missing, else x", .infer = infer, .run = run,
};
