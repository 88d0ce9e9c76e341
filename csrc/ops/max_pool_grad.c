/* mlserve.MaxPoolGrad: dX = zeros with every dY added where MaxPool found its value (the first largest one; NaN is the largest).
 * dY (N,C,O1…), X (N,C,D1…) -> dX (shape of X). Attributes are MaxPool's. */
#include <string.h>
#include "ops/pool.h"

static const ml_attr_def attrs[] = {
  ML__POOL_ATTRS,
  { "storage_order", ML_ATTR_INT, false, "without effect" },
  { 0 },
};

#define DEFINE(NAME, T)                                                                                                          \
  static void NAME(const ml__planes *p, size_t index) {                                                                          \
    const ml__window *w = &p->w;                                                                                                 \
    const int32_t last = w->n - 1;                                                                                               \
    const T *dy = (const T *)p->ctx->in[0]->data + index * p->out, *x = (const T *)p->ctx->in[1]->data + index * p->in;          \
    T *dx = (T *)p->ctx->out[0]->data + index * p->in;                                                                           \
    int64_t at[ML__WINDOW_RANK] = { 0 };                                                                                         \
    memset(dx, 0, p->in * sizeof(T));                                                                                            \
    do {                                                                                                                         \
      int64_t tap[ML__WINDOW_RANK], first[ML__WINDOW_RANK], end[ML__WINDOW_RANK], base, where = -1;                             \
      T best = 0;                                                                                                                \
      bool more = ml__taps_begin(w, at, last, first, end, tap);                                                                 \
      for (; more; more = ml__taps_next(tap, first, end, last)) {                                                               \
        if (!ml__window_row(w, at, tap, &base)) continue;                                                                        \
        int64_t begin, stop;                                                                                                    \
        ml__window_taps(w, last, at[last], &begin, &stop);                                                                      \
        for (int64_t k = begin; k < stop; k++) {                                                                                \
          const int64_t pos = at[last] * w->stride[last] + k * w->dilation[last] - w->begin[last];                               \
          const T v = x[base + pos];                                                                                             \
          if (where >= 0 && !(v > best || (v != v && best == best))) continue;                                                   \
          best = v;                                                                                                              \
          where = base + pos;                                                                                                    \
        }                                                                                                                        \
      }                                                                                                                         \
      if (where >= 0) dx[where] += *dy;                                                                                          \
      dy++;                                                                                                                      \
    } while (ml__next_index(at, w->out, w->n));                                                                                  \
  }
DEFINE(plane_f32, float)
DEFINE(plane_f64, double)

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[1];
  ml__planes p = { .ctx = ctx, .plane = x->dtype == ML_FLOAT32 ? plane_f32 : plane_f64 };
  ML_TRY(ml__pool_grad_window(ctx, &p.w, err));
  if (ctx->in[0]->count == 0) {
    if (x->count) memset(ctx->out[0]->data, 0, x->count * ml_dtype_size(x->dtype));
    return ML_OK;
  }
  size_t planes = (size_t)x->dims[0] * (size_t)x->dims[1];
  ml__planes_run(&p, planes, ml__pool_flops(ctx) / (double)planes * 8);
  return ML_OK;
}

const ml_op_def ml_op_max_pool_grad = {
  .name = "MaxPoolGrad", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .attrs = attrs, .types = { ML_MASK_F }, .formula = "dX = dY where Y came from",
  .infer = ml__pool_grad_infer,
  .run = run, .flops = ml__pool_flops,
};
