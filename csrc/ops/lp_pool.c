/* LpPool 22: Y = (sum of |X|^p in each window)^(1/p); padding counts as zeros.
 * X (N,C,D1…) -> Y (N,C,O1…). ONNX operator specification. */
#include <math.h>
#include "ops/pool.h"

static const ml_attr_def attrs[] = {
  ML__POOL_ATTRS,
  { "p", ML_ATTR_INT, false, "2 (default): exponent, 1 or more" },
  { 0 },
};

#define DEFINE(NAME, T, ABS, POW)                                                                                                \
  static void NAME(const ml__planes *p, size_t index) {                                                                          \
    const ml__window *w = &p->w;                                                                                                 \
    const int64_t power = ml_attr_int(p->ctx->attrs, "p", 2);                                                                    \
    const int32_t last = w->n - 1;                                                                                               \
    const int64_t width = w->out[last], step = w->stride[last];                                                                  \
    const T *from = (const T *)p->ctx->in[0]->data + index * p->in;                                                              \
    T *y = (T *)p->ctx->out[0]->data + index * p->out;                                                                           \
    int64_t at[ML__WINDOW_RANK] = { 0 };                                                                                         \
    do {                                                                                                                         \
      int64_t tap[ML__WINDOW_RANK], first[ML__WINDOW_RANK], end[ML__WINDOW_RANK], base;                                         \
      for (int64_t o = 0; o < width; o++) y[o] = 0;                                                                              \
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
          if (power == 2)                                                                                                        \
            for (int64_t o = lo; o < hi; o++) y[o] += x[o * step] * x[o * step];                                                 \
          else                                                                                                                   \
            for (int64_t o = lo; o < hi; o++) y[o] += POW(ABS(x[o * step]), (T)power);                                           \
        }                                                                                                                        \
      }                                                                                                                         \
      for (int64_t o = 0; o < width; o++) y[o] = POW(y[o], 1 / (T)power);                                                        \
      y += width;                                                                                                                \
    } while (ml__next_index(at, w->out, last));                                                                                  \
  }
DEFINE(plane_f32, float, fabsf, powf)
DEFINE(plane_f64, double, fabs, pow)

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t power = ml_attr_int(ctx->attrs, "p", 2);
  if (power < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'p' is %lld, expected 1 or more", (long long)power);
  return ml__pool_infer(ctx, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml__planes p = { .ctx = ctx, .plane = x->dtype == ML_FLOAT32 ? plane_f32 : plane_f64 };
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(ml__pool_window(ctx->attrs, x, &p.w, err));
  size_t planes = (size_t)x->dims[0] * (size_t)x->dims[1];
  ml__planes_run(&p, planes, ml__pool_flops(ctx) / (double)planes * 4);
  return ML_OK;
}

const ml_op_def ml_op_lp_pool = {
  .name = "LpPool", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F }, .formula = "Y = (sum |X|^p)^(1/p) in each window", .infer = infer, .run = run, .flops = ml__pool_flops,
};
