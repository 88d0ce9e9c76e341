/* MaxPool 22: Y = largest X in each window; padding never wins, NaN does.
 * X (N,C,D1…) -> Y (N,C,O1…), Indices (N,C,O1…) int64: where in X, flattened, the first largest value lies; storage_order 1
 * counts the spatial dimensions in column-major order. ONNX operator specification. Gradient: mlserve.MaxPoolGrad gives dY to
 * that place. */
#include "ops/pool.h"

static const ml_attr_def attrs[] = {
  ML__POOL_ATTRS,
  { "storage_order", ML_ATTR_INT, false, "of Indices: 0 (default) row-major, 1 column-major" },
  { 0 },
};

/* Offset in the plane that tap `tap` of output `at` reads; -1: padding. */
static int64_t input_at(const ml__window *w, const int64_t *at, const int64_t *tap, bool columns) {
  int64_t i = 0;
  for (int32_t k = 0; k < w->n; k++) {
    int32_t d = columns ? w->n - 1 - k : k;
    int64_t pos = at[d] * w->stride[d] + tap[d] * w->dilation[d] - w->begin[d];
    if (pos < 0 || pos >= w->in[d]) return -1;
    i = i * w->in[d] + pos;
  }
  return i;
}

#define DEFINE(NAME, T, START)                                                                                                   \
  static void NAME##_values(const ml__planes *p, size_t index) {                                                                 \
    const ml__window *w = &p->w;                                                                                                 \
    const T *from = (const T *)p->ctx->in[0]->data + index * p->in;                                                              \
    T *y = (T *)p->ctx->out[0]->data + index * p->out;                                                                           \
    const int32_t last = w->n - 1;                                                                                               \
    const int64_t width = w->out[last], step = w->stride[last];                                                                  \
    int64_t at[ML__WINDOW_RANK] = { 0 };                                                                                         \
    do {                                                                                                                         \
      int64_t tap[ML__WINDOW_RANK], first[ML__WINDOW_RANK], end[ML__WINDOW_RANK], base;                                         \
      for (int64_t o = 0; o < width; o++) y[o] = START;                                                                          \
      bool more = ml__taps_begin(w, at, last, first, end, tap);                                                                 \
      for (; more; more = ml__taps_next(tap, first, end, last)) {                                                               \
        if (!ml__window_row(w, at, tap, &base)) continue;                                                                        \
        for (int64_t k = 0; k < w->kernel[last]; k++) {                                                                          \
          int64_t lo, hi;                                                                                                        \
          const T *x = from + base + k * w->dilation[last] - w->begin[last];                                                     \
          ml__window_valid(w, last, k, &lo, &hi);                                                                               \
          if (lo >= hi) {                                                                                                       \
            k = ml__window_skip(w, last, k, lo) - 1;                                                                            \
            continue;                                                                                                           \
          }                                                                                                                     \
          for (int64_t o = lo; o < hi; o++) {                                                                                    \
            const T v = x[o * step];                                                                                             \
            y[o] = v > y[o] || v != v ? v : y[o];                                                                                \
          }                                                                                                                      \
        }                                                                                                                        \
      }                                                                                                                         \
      y += width;                                                                                                                \
    } while (ml__next_index(at, w->out, last));                                                                                  \
  }                                                                                                                              \
  static void NAME##_places(const ml__planes *p, size_t index) {                                                                 \
    const ml__window *w = &p->w;                                                                                                 \
    const bool columns = ml_attr_int(p->ctx->attrs, "storage_order", 0) != 0;                                                    \
    const T *from = (const T *)p->ctx->in[0]->data + index * p->in;                                                              \
    T *y = (T *)p->ctx->out[0]->data + index * p->out;                                                                           \
    int64_t at[ML__WINDOW_RANK] = { 0 }, *place = (int64_t *)p->ctx->out[1]->data + index * p->out;                              \
    do {                                                                                                                         \
      int64_t tap[ML__WINDOW_RANK], first[ML__WINDOW_RANK], end[ML__WINDOW_RANK], where = -1;                                   \
      T best = START;                                                                                                            \
      bool more = ml__taps_begin(w, at, w->n, first, end, tap);                                                                 \
      for (; more; more = ml__taps_next(tap, first, end, w->n)) {                                                               \
        const int64_t i = input_at(w, at, tap, false);                                                                           \
        if (i < 0) continue;                                                                                                     \
        const T v = from[i];                                                                                                     \
        if (where >= 0 && !(v > best || (v != v && best == best))) continue;                                                     \
        best = v;                                                                                                                \
        where = columns ? input_at(w, at, tap, true) : i;                                                                        \
      }                                                                                                                         \
      *y++ = best;                                                                                                               \
      *place++ = where < 0 ? -1 : (int64_t)(index * p->in) + where;                                                              \
    } while (ml__next_index(at, w->out, w->n));                                                                                  \
  }

DEFINE(f32, float, -__builtin_inff())
DEFINE(f64, double, -__builtin_inf())
DEFINE(i8, int8_t, INT8_MIN)
DEFINE(u8, uint8_t, 0)

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__pool_infer(ctx, err));
  int64_t order = ml_attr_int(ctx->attrs, "storage_order", 0);
  if (order != 0 && order != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'storage_order' is %lld, expected 0 or 1", (long long)order);
  if (ml__out(ctx, 1)) ml_op_set(ctx->out[1], ML_INT64, ctx->out[0]->dims, ctx->out[0]->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const bool places = ml__out(ctx, 1) != NULL;
  ml__planes p = { .ctx = ctx };
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(ml__pool_window(ctx->attrs, x, &p.w, err));
  switch (x->dtype) {
    case ML_FLOAT32: p.plane = places ? f32_places : f32_values; break;
    case ML_FLOAT64: p.plane = places ? f64_places : f64_values; break;
    case ML_INT8: p.plane = places ? i8_places : i8_values; break;
    default: p.plane = places ? u8_places : u8_values; break;
  }
  size_t planes = (size_t)x->dims[0] * (size_t)x->dims[1];
  ml__planes_run(&p, planes, ml__pool_flops(ctx) / (double)planes * (places ? 8 : 1));
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *in[2] = { g->dout[0], g->in[0] };
  if (g->needs[0] && g->dout[0]) g->din[0] = ml_gn(g, "mlserve.MaxPoolGrad", g->attrs->items, g->attrs->count, 2, in);
}

const ml_op_def ml_op_max_pool = {
  .name = "MaxPool", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 2, .attrs = attrs,
  .types = { ML_MASK_F | ML_BIT(ML_INT8) | ML_BIT(ML_UINT8) }, .formula = "Y = max of X in each window", .infer = infer,
  .run = run,
  .gradient = gradient, .flops = ml__pool_flops,
};
