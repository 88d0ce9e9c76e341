/* See random.h. */
#include "ops/random.h"
#include <math.h>
#include <string.h>

/* The finaliser of splitmix64 (Steele, Lea, Flood 2014), a bijection for a fixed stream: every step gets a stream of its own. */
static uint64_t mix(uint64_t stream, uint64_t step) {
  uint64_t z = stream * UINT64_C(0x9E3779B97F4A7C15) + step;
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}

ml__stream ml__stream_of(const ml_op_ctx *ctx) {
  const ml_attr *attr = ml_attr_find(ctx->attrs, "seed");
  ml__stream s = { ctx->run->seed, mix(ctx->stream, ctx->run->step) };
  if (attr != NULL && attr->type == ML_ATTR_FLOAT) {
    uint32_t bits;
    memcpy(&bits, &attr->as.f, sizeof bits);
    s.seed = bits;
  }
  return s;
}

double ml__uniform53(ml__stream s, uint64_t i) {
  uint32_t words[4];
  ml_philox(s.seed, s.stream, i / 2, words);
  const uint32_t *w = words + i % 2 * 2;
  return ((double)(w[0] >> 5) * 0x1p26 + (double)(w[1] >> 6)) * 0x1p-53;
}

ml_status ml__random_dtype(const ml_op_ctx *ctx, ml_dtype fallback, uint32_t mask, ml_dtype *out, ml_error *err) {
  const int64_t dtype = ml_attr_int(ctx->attrs, "dtype", fallback);
  *out = ML_DTYPE_NONE;
  if (dtype == ML_DTYPE_NONE) return ML_OK; /* of an input whose type is not known yet */
  if (dtype < 0 || dtype > 31 || (mask & ML_BIT(dtype)) == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "type %s (%lld) cannot be drawn",
                   dtype > 0 && dtype < 32 ? ml_dtype_name((ml_dtype)dtype) : "none", (long long)dtype);
  *out = (ml_dtype)dtype;
  return ML_OK;
}

ml_status ml__random_infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_attr *shape = ml_attr_find(ctx->attrs, "shape");
  ml_dtype dtype;
  ML_TRY(ml__random_dtype(ctx, ML_FLOAT32, ML__MASK_RANDOM, &dtype, err));
  if (shape == NULL || shape->type != ML_ATTR_INTS) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'shape' is missing");
  if (shape->count > ML_MAX_RANK)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'shape' has %zu dimensions, at most %d are possible", shape->count,
                   ML_MAX_RANK);
  for (size_t i = 0; i < shape->count; i++)
    if (shape->as.ints[i] < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'shape': dimension %zu is %lld", i, (long long)shape->as.ints[i]);
  ml_op_set(ctx->out[0], dtype, shape->as.ints, (int32_t)shape->count);
  return ML_OK;
}

ml_status ml__random_infer_like(ml_op_ctx *ctx, ml_error *err) {
  ml_dtype dtype;
  ML_TRY(ml__random_dtype(ctx, ctx->in[0]->dtype, ML__MASK_RANDOM, &dtype, err));
  ml_op_set(ctx->out[0], dtype, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

ml_status ml__random_uniform_run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *y = ctx->out[0];
  const float low = ml_attr_float(ctx->attrs, "low", 0), high = ml_attr_float(ctx->attrs, "high", 1);
  const ml__stream s = ml__stream_of(ctx);
  if (!(low <= high)) return ml_fail(err, ML_INVALID_ARGUMENT, "low is %g, high is %g", (double)low, (double)high);
  if (y->dtype == ML_FLOAT32) {
    ml_rng_uniform(s.seed, s.stream, low, high, y->data, y->count);
    return ML_OK;
  }
  for (size_t i = 0; i < y->count; i++)
    ml_element_set(y->data, y->dtype, i, (double)low + ((double)high - (double)low) * ml__uniform53(s, i));
  return ML_OK;
}

/* Box and Muller 1958: two uniform numbers make two normal ones, here for elements 2 i and 2 i + 1. */
ml_status ml__random_normal_run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *y = ctx->out[0];
  const float mean = ml_attr_float(ctx->attrs, "mean", 0), scale = ml_attr_float(ctx->attrs, "scale", 1);
  const ml__stream s = ml__stream_of(ctx);
  (void)err;
  if (y->dtype == ML_FLOAT32) {
    ml_rng_normal(s.seed, s.stream, mean, scale, 0, y->data, y->count);
    return ML_OK;
  }
  for (size_t i = 0; i < y->count; i += 2) {
    const double radius = sqrt(-2 * log(1 - ml__uniform53(s, i))), angle = 6.283185307179586477 * ml__uniform53(s, i + 1);
    ml_element_set(y->data, y->dtype, i, (double)mean + (double)scale * radius * cos(angle));
    if (i + 1 < y->count) ml_element_set(y->data, y->dtype, i + 1, (double)mean + (double)scale * radius * sin(angle));
  }
  return ML_OK;
}
