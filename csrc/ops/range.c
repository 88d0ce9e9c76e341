/* Range: y = start, start + delta, start + 2 delta … up to, and without, limit: max(ceil((limit - start) / delta), 0)
 * elements, each computed as start + i delta so that errors do not add up. Inputs are scalars of one type. No gradient.
 * Reference: ONNX Range-27. */
#include <math.h>
#include "ops/elementwise.h"
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "stash_type", ML_ATTR_INT, false, "ignored: float16 and bfloat16 are computed in double" },
  { 0 },
};

static int64_t integer(const ml_view *view) {
  switch (view->dtype) {
    case ML_INT16: return *(const int16_t *)view->data;
    case ML_INT32: return *(const int32_t *)view->data;
    default: return *(const int64_t *)view->data;
  }
}

/* Number of elements; the three scalars have data. */
static ml_status length(const ml_op_ctx *ctx, int64_t *n, ml_error *err) {
  const ml_dtype dtype = ctx->in[0]->dtype;
  if (ml_dtype_is_float(dtype)) {
    double start = ml_element_get(ctx->in[0]->data, dtype, 0), limit = ml_element_get(ctx->in[1]->data, dtype, 0),
           delta = ml_element_get(ctx->in[2]->data, dtype, 0), count = ceil((limit - start) / delta);
    if (delta == 0 || !(count < 0x1p53))
      return ml_fail(err, ML_INVALID_ARGUMENT, "start %g, limit %g and delta %g do not make a range", start, limit, delta);
    *n = count > 0 ? (int64_t)count : 0;
    return ML_OK;
  }
  int64_t start = integer(ctx->in[0]), limit = integer(ctx->in[1]), delta = integer(ctx->in[2]);
  if (delta == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "delta is 0");
  /* unsigned, where the distance always fits */
  uint64_t step = delta > 0 ? (uint64_t)delta : -(uint64_t)delta, span = 0;
  if (delta > 0 ? limit > start : limit < start)
    span = delta > 0 ? (uint64_t)limit - (uint64_t)start : (uint64_t)start - (uint64_t)limit;
  uint64_t count = span / step + (span % step != 0);
  if (count > INT64_MAX) return ml_fail(err, ML_INVALID_ARGUMENT, "the range has too many elements");
  *n = (int64_t)count;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  static const char *const what[] = { "start", "limit", "delta" };
  int64_t n = ML_UNKNOWN;
  bool known = true;
  ML_TRY(ml__op_check_types(ctx, err));
  for (int32_t i = 0; i < 3; i++) {
    ML_TRY(ml__op_check_scalar(ctx->in[i], what[i], err));
    if (ctx->in[i]->dtype != ctx->in[0]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "start is %s, %s is %s", ml_dtype_name(ctx->in[0]->dtype), what[i],
                     ml_dtype_name(ctx->in[i]->dtype));
    known = known && ctx->in[i]->data != NULL && ctx->in[i]->count == 1;
  }
  if (known) ML_TRY(length(ctx, &n, err));
  ml_op_set(ctx->out[0], ctx->in[0]->dtype, &n, 1);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *y = ctx->out[0];
  int64_t n = 0;
  ML_TRY(length(ctx, &n, err));
  if ((size_t)n != y->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "the range has %lld elements, %zu are planned", (long long)n, y->count);
  if (ml_dtype_is_float(y->dtype)) {
    double start = ml_element_get(ctx->in[0]->data, y->dtype, 0), delta = ml_element_get(ctx->in[2]->data, y->dtype, 0);
    for (size_t i = 0; i < y->count; i++) ml_element_set(y->data, y->dtype, i, start + (double)i * delta);
    return ML_OK;
  }
  uint64_t value = (uint64_t)integer(ctx->in[0]), delta = (uint64_t)integer(ctx->in[2]);
  ML_SWITCH_NUMERIC(y->dtype, for (size_t i = 0; i < y->count; i++, value += delta) ((T *)y->data)[i] = (T)value;)
  return ML_OK;
}

const ml_op_def ml_op_range = {
  .name = "Range", .domain = "", .since = 27, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F | ML_BIT(ML_INT16) | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16) },
  .formula = "y[i] = start + i delta", .infer = infer, .run = run,
};
