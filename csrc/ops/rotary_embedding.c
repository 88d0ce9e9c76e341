/* RotaryEmbedding (RoPE; Su et al. 2021): pairs of features of every head are rotated by angles that depend on the position:
 * (a, b) -> (a cos - b sin, a sin + b cos). Pairs are i and i + r/2 (default) or 2i and 2i + 1 (interleaved), r being
 * rotary_embedding_dim (the head size by default); features beyond r stay. X (B, heads, S, size) or (B, S, heads * size),
 * cos_cache and sin_cache (positions, r/2) with position_ids (B, S) int64, or (B, S, r/2) without -> like X.
 * Gradient: dy rotated back. Reference: ONNX RotaryEmbedding-23. */
#include "ops/movement.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "interleaved", ML_ATTR_INT, false, "0 (default): pairs i and i + r/2; 1: pairs 2i and 2i + 1" },
  { "num_heads", ML_ATTR_INT, false, "heads; needed for an X of rank 3" },
  { "rotary_embedding_dim", ML_ATTR_INT, false, "features that are rotated; the head size by default" },
  { 0 },
};

#define MASK (ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16))

typedef struct geometry {
  int64_t batch, heads, length, size, rotated; /* ML_UNKNOWN: not known */
} geometry;

/* The two caches have one shape that fits. */
static ml_status check_caches(const ml_op_ctx *ctx, const geometry *g, ml_error *err) {
  const ml_view *ids = ml__in(ctx, 3);
  char text[128];
  for (int32_t i = 1; i < 3; i++) {
    const ml_view *cache = ctx->in[i];
    if (cache->rank == ML_UNKNOWN) continue;
    const int64_t want[3] = { g->batch, g->length, g->rotated == ML_UNKNOWN ? ML_UNKNOWN : g->rotated / 2 };
    bool fits = cache->rank == (ids != NULL ? 2 : 3);
    for (int32_t d = 0; d < cache->rank && fits; d++) {
      const int64_t expected = ids == NULL ? want[d] : d == 1 ? want[2] : ML_UNKNOWN;
      fits = expected < 0 || cache->dims[d] < 0 || cache->dims[d] == expected;
    }
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s has shape %s, expected (%s, %lld)", i == 1 ? "cos_cache" : "sin_cache",
                     ml_shape_format(cache->dims, cache->rank, text, sizeof text), ids != NULL ? "positions" : "batch, length",
                     (long long)want[2]);
  }
  if (ids == NULL) return ML_OK;
  if (ids->rank != ML_UNKNOWN &&
      (ids->rank != 2 || (ids->dims[0] >= 0 && g->batch >= 0 && ids->dims[0] != g->batch) ||
       (ids->dims[1] >= 0 && g->length >= 0 && ids->dims[1] != g->length)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "position_ids has shape %s, expected (%lld, %lld)",
                   ml_shape_format(ids->dims, ids->rank, text, sizeof text), (long long)g->batch, (long long)g->length);
  if (ml_view_known(ctx->in[1]) && ml_view_known(ctx->in[2]) && ctx->in[1]->count != ctx->in[2]->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "cos_cache and sin_cache have %zu and %zu elements", ctx->in[1]->count,
                   ctx->in[2]->count);
  return ML_OK;
}

static ml_status measure(const ml_op_ctx *ctx, geometry *g, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const int64_t heads = ml_attr_int(ctx->attrs, "num_heads", 0), rotated = ml_attr_int(ctx->attrs, "rotary_embedding_dim", 0);
  if (x->rank != 3 && x->rank != 4) return ml_fail(err, ML_INVALID_ARGUMENT, "X has rank %d, expected 3 or 4", (int)x->rank);
  if (x->rank == 4) {
    *g = (geometry){ x->dims[0], x->dims[1], x->dims[2], x->dims[3], 0 };
  } else {
    if (heads < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'num_heads' is needed for an X of rank 3");
    if (x->dims[2] >= 0 && x->dims[2] % heads != 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%lld features do not make %lld heads", (long long)x->dims[2], (long long)heads);
    *g = (geometry){ x->dims[0], heads, x->dims[1], x->dims[2] < 0 ? ML_UNKNOWN : x->dims[2] / heads, 0 };
  }
  g->rotated = rotated != 0 ? rotated : g->size;
  if (rotated < 0 || (g->rotated != ML_UNKNOWN && g->rotated % 2 != 0) || (g->size != ML_UNKNOWN && rotated > g->size))
    return ml_fail(err, ML_INVALID_ARGUMENT, "%lld of %lld features cannot be rotated in pairs", (long long)g->rotated,
                   (long long)g->size);
  return check_caches(ctx, g, err);
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  geometry g;
  ML_TRY(ml__op_check_types(ctx, err));
  for (int32_t i = 1; i < 3; i++)
    if (ctx->in[i]->dtype != x->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, a cache is %s", ml_dtype_name(x->dtype),
                     ml_dtype_name(ctx->in[i]->dtype));
  if (x->rank != ML_UNKNOWN) ML_TRY(measure(ctx, &g, err));
  ml_op_like(ctx->out[0], x);
  return ML_OK;
}

/* One head of one token: half pairs, `apart` between the parts of a pair, `step` between pairs. */
#define ROTATE(T)                                                                                                    \
  {                                                                                                                  \
    const T *from = (const T *)x->data + at, *c = (const T *)ctx->in[1]->data + row, *s = (const T *)ctx->in[2]->data + row; \
    T *to = (T *)y->data + at;                                                                                       \
    for (size_t i = 0; i < half; i++) {                                                                              \
      const T a = from[i * step], b = from[i * step + apart];                                                        \
      to[i * step] = a * c[i] - b * s[i];                                                                            \
      to[i * step + apart] = a * s[i] + b * c[i];                                                                    \
    }                                                                                                                \
  }

static void rotate(const ml_op_ctx *ctx, size_t at, size_t row, size_t half, size_t step, size_t apart) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  if (x->dtype == ML_FLOAT32) ROTATE(float)
  else if (x->dtype == ML_FLOAT64) ROTATE(double)
  else
    for (size_t i = 0; i < half; i++) {
      const float a = (float)ml_element_get(x->data, x->dtype, at + i * step),
                  b = (float)ml_element_get(x->data, x->dtype, at + i * step + apart),
                  c = (float)ml_element_get(ctx->in[1]->data, x->dtype, row + i),
                  s = (float)ml_element_get(ctx->in[2]->data, x->dtype, row + i);
      ml_element_set(y->data, y->dtype, at + i * step, (double)(a * c - b * s));
      ml_element_set(y->data, y->dtype, at + i * step + apart, (double)(a * s + b * c));
    }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *ids = ml__in(ctx, 3);
  geometry g;
  ML_TRY(measure(ctx, &g, err));
  ML_TRY(ml__run_copy(ctx, err));
  if (x->count == 0) return ML_OK;
  const bool interleaved = ml_attr_int(ctx->attrs, "interleaved", 0) != 0, by_head = x->rank == 4;
  const size_t half = (size_t)g.rotated / 2, heads = (size_t)g.heads, length = (size_t)g.length, size = (size_t)g.size;
  for (size_t b = 0; b < (size_t)g.batch; b++)
    for (size_t t = 0; t < length; t++) {
      size_t row = b * length + t;
      if (ids != NULL) {
        const int64_t id = ((const int64_t *)ids->data)[row], positions = ctx->in[1]->dims[0];
        if (id < 0 || id >= positions)
          return ml_fail(err, ML_OUT_OF_RANGE, "position_ids: element %zu is %lld, expected 0 to %lld", row, (long long)id,
                         (long long)positions - 1);
        row = (size_t)id;
      }
      for (size_t h = 0; h < heads; h++) {
        const size_t at = (by_head ? (b * heads + h) * length + t : (b * length + t) * heads + h) * size;
        rotate(ctx, at, row * half, half, interleaved ? 2 : 1, interleaved ? 1 : half);
      }
    }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr a[] = { ml_attr_of_int("interleaved", ml_attr_int(g->attrs, "interleaved", 0)),
                  ml_attr_of_int("num_heads", ml_attr_int(g->attrs, "num_heads", 0)),
                  ml_attr_of_int("rotary_embedding_dim", ml_attr_int(g->attrs, "rotary_embedding_dim", 0)) };
  if (g->needs[1] || g->needs[2]) ml_g_fail(g, "its caches cannot be trained");
  if (!g->needs[0]) return;
  ml_value *in[4] = { g->dout[0], g->in[1], ml_g1(g, "Neg", g->in[2]), g->n_in > 3 ? g->in[3] : NULL };
  g->din[0] = ml_gn(g, "RotaryEmbedding", a, 3, in[3] != NULL ? 4 : 3, in);
}

const ml_op_def ml_op_rotary_embedding = {
  .name = "RotaryEmbedding", .domain = "", .since = 23, .min_in = 3, .max_in = 4, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE, .attrs = attrs, .types = { MASK, MASK, MASK, ML_BIT(ML_INT64) },
  .formula = "y = pairs of x rotated by their position", .infer = infer, .run = run, .gradient = gradient,
};
