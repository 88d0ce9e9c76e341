/* AveragePool 22: Y = mean of X in each window. Padding counts as zeros with count_include_pad, else it is left out of the mean;
 * what a last window (ceil_mode) covers beyond the padding never counts.
 * X (N,C,D1…) -> Y (N,C,O1…). ONNX operator specification. Gradient: mlserve.AveragePoolGrad. */
#include "ops/average_pool.h"

const ml_attr_def ml__average_pool_attrs[] = {
  ML__POOL_ATTRS,
  { "count_include_pad", ML_ATTR_INT, false, "0 (default); 1: padding counts as zeros" },
  { 0 },
};

int64_t ml__average_taps(const ml__window *w, int32_t d, int64_t o, bool padding) {
  int64_t count = 0, low = padding ? -w->begin[d] : 0, high = w->in[d] + (padding ? w->end[d] : 0);
  int64_t start = o * w->stride[d] - w->begin[d], step = w->dilation[d];
  int64_t first = start >= low ? 0 : (low - start + step - 1) / step;  /* first tap at or above low */
  int64_t last = start >= high ? 0 : (high - start + step - 1) / step; /* taps below high */
  if (last > w->kernel[d]) last = w->kernel[d];
  if (last > first) count = last - first;
  return count;
}

/* a dilated window can lie in the padding alone: its mean is 0 */
static int64_t at_least_1(int64_t taps) { return taps > 0 ? taps : 1; }

#define DEFINE(NAME, T)                                                                                                          \
  static void NAME(const ml__planes *p, size_t index) {                                                                          \
    const ml__window *w = &p->w;                                                                                                 \
    const bool padding = ml_attr_int(p->ctx->attrs, "count_include_pad", 0) != 0;                                                \
    const int32_t last = w->n - 1;                                                                                               \
    const int64_t width = w->out[last], step = w->stride[last];                                                                  \
    const T *from = (const T *)p->ctx->in[0]->data + index * p->in;                                                              \
    T *y = (T *)p->ctx->out[0]->data + index * p->out;                                                                           \
    int64_t at[ML__WINDOW_RANK] = { 0 };                                                                                         \
    do {                                                                                                                         \
      int64_t tap[ML__WINDOW_RANK], first[ML__WINDOW_RANK], end[ML__WINDOW_RANK], base, taps = 1;                               \
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
          for (int64_t o = lo; o < hi; o++) y[o] += x[o * step];                                                                 \
        }                                                                                                                        \
      }                                                                                                                         \
      for (int32_t d = 0; d < last; d++) taps *= ml__average_taps(w, d, at[d], padding);                                         \
      for (int64_t o = 0; o < width; o++) y[o] /= (T)at_least_1(taps * ml__average_taps(w, last, o, padding));                   \
      y += width;                                                                                                                \
    } while (ml__next_index(at, w->out, last));                                                                                  \
  }
DEFINE(plane_f32, float)
DEFINE(plane_f64, double)

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml__planes p = { .ctx = ctx, .plane = x->dtype == ML_FLOAT32 ? plane_f32 : plane_f64 };
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(ml__pool_window(ctx->attrs, x, &p.w, err));
  size_t planes = (size_t)x->dims[0] * (size_t)x->dims[1];
  ml__planes_run(&p, planes, ml__pool_flops(ctx) / (double)planes);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *in[2] = { g->dout[0], g->in[0] };
  if (g->needs[0] && g->dout[0]) g->din[0] = ml_gn(g, "mlserve.AveragePoolGrad", g->attrs->items, g->attrs->count, 2, in);
}

const ml_op_def ml_op_average_pool = {
  .name = "AveragePool", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = ml__average_pool_attrs, .types = { ML_MASK_F }, .formula = "Y = mean of X in each window", .infer = ml__pool_infer,
  .run = run,
  .gradient = gradient, .flops = ml__pool_flops,
};
