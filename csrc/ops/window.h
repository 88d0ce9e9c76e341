/* Sliding windows: what convolutions and pools have in common.
 * Lives here: kernel, strides, dilations, pads and auto_pad of a node, checked; the size of the result; walking over windows.
 * May include: ops/movement.h, tensor, base. Ownership: nothing is kept.
 *
 * A tensor is (N, C, D1 … Dn). Output position o of dimension d looks at the input positions o*stride + k*dilation - begin for k
 * < kernel; those outside 0 … in-1 are padding. Every parameter is below 2^31 and extents below 2^40, so the arithmetic cannot
 * overflow. */
#ifndef ML_OPS_WINDOW_H
#define ML_OPS_WINDOW_H
#include "ops/movement.h"

#define ML__WINDOW_RANK (ML_MAX_RANK - 2)
#define ML__EXTENT_MAX (INT64_C(1) << 40)

typedef struct ml__window {
  int32_t n;                                         /* spatial dimensions */
  int64_t in[ML__WINDOW_RANK], out[ML__WINDOW_RANK]; /* ML_UNKNOWN: not known */
  int64_t kernel[ML__WINDOW_RANK];                   /* ML_UNKNOWN: not known (weights of unknown shape) */
  int64_t stride[ML__WINDOW_RANK], dilation[ML__WINDOW_RANK];
  int64_t begin[ML__WINDOW_RANK], end[ML__WINDOW_RANK]; /* padding */
} ml__window;

typedef enum ml__auto_pad { ML__PAD_EXPLICIT, ML__PAD_SAME_UPPER, ML__PAD_SAME_LOWER, ML__PAD_VALID } ml__auto_pad;

/* Attributes auto_pad, kernel_shape, strides, dilations and pads for x of rank n + 2. weights (rank n + 2, kernel in its last n
 * dimensions): kernel_shape may be left out and must agree. Does not compute `out`. */
ml_status ml__window_read(ml__window *w, ml__auto_pad *pad, const ml_attrs *attrs, const ml_view *x, const ml_view *weights,
                          ml_error *err);
/* The same, and the output size (auto_pad fills begin and end). ceil: windows that start inside the input or the padding in front
 * of it count even when they end beyond the padding behind it. */
ml_status ml__window_init(ml__window *w, const ml_attrs *attrs, const ml_view *x, const ml_view *weights, bool ceil,
                          ml_error *err);
static inline int64_t ml__window_extent(const ml__window *w, int32_t d) { return (w->kernel[d] - 1) * w->dilation[d] + 1; }
/* Product of n extents; all known. */
static inline size_t ml__window_count(const int64_t *dims, int32_t n) { return ml__extent(dims, 0, n); }
/* Fails unless extents are small enough for the arithmetic. */
ml_status ml__window_check_extent(const ml_view *x, const char *what, ml_error *err);
/* Outputs [*first, *last) of dimension d whose tap k lies in the input. */
static inline void ml__window_valid(const ml__window *w, int32_t d, int64_t k, int64_t *first, int64_t *last) {
  int64_t shift = k * w->dilation[d] - w->begin[d], s = w->stride[d];           /* input = o*s + shift */
  int64_t lo = shift >= 0 ? 0 : (-shift + s - 1) / s, limit = w->in[d] - shift; /* o*s < limit */
  int64_t hi = limit <= 0 ? 0 : (limit + s - 1) / s;
  if (lo > w->out[d]) lo = w->out[d];
  if (hi > w->out[d]) hi = w->out[d];
  *first = lo;
  *last = hi < lo ? lo : hi;
}
/* Does tap `tap` of output `at` lie in the input, as far as the outer dimensions 0 … n-2 go? *base is then the offset of input
 * row. */
static inline bool ml__window_row(const ml__window *w, const int64_t *at, const int64_t *tap, int64_t *base) {
  *base = 0;
  for (int32_t d = 0; d < w->n - 1; d++) {
    int64_t pos = at[d] * w->stride[d] + tap[d] * w->dilation[d] - w->begin[d];
    if (pos < 0 || pos >= w->in[d]) return false;
    *base = (*base + pos) * w->in[d + 1];
  }
  return true;
}
/* The next tap behind k, of which no output lies in the input (ml__window_valid gave lo), that may have one. A file may ask for a window of 2^31
 * taps: only those that read something are walked. */
static inline int64_t ml__window_skip(const ml__window *w, int32_t d, int64_t k, int64_t lo) {
  if (lo == 0) return w->kernel[d]; /* behind the input, and further taps lie further behind */
  int64_t position = (lo - 1) * w->stride[d] + k * w->dilation[d] - w->begin[d]; /* of the last output in front of it: negative */
  return k + (w->dilation[d] - 1 - position) / w->dilation[d];
}
/* Taps [first, end) of output o of dimension d that lie in the input. */
static inline void ml__window_taps(const ml__window *w, int32_t d, int64_t o, int64_t *first, int64_t *end) {
  int64_t start = o * w->stride[d] - w->begin[d], step = w->dilation[d];
  *first = start >= 0 ? 0 : (step - 1 - start) / step;
  *end = start >= w->in[d] ? 0 : (w->in[d] - start + step - 1) / step;
  if (*end > w->kernel[d]) *end = w->kernel[d];
}
/* Walks over the taps of output `at` that lie in the input, as far as its dimensions 0 … n-1 go: false: there are none. */
static inline bool ml__taps_begin(const ml__window *w, const int64_t *at, int32_t n, int64_t *first, int64_t *end, int64_t *tap) {
  for (int32_t d = 0; d < n; d++) {
    ml__window_taps(w, d, at[d], &first[d], &end[d]);
    if (first[d] >= end[d]) return false;
    tap[d] = first[d];
  }
  return true;
}
static inline bool ml__taps_next(int64_t *tap, const int64_t *first, const int64_t *end, int32_t n) {
  for (int32_t d = n - 1; d >= 0; d--) {
    if (++tap[d] < end[d]) return true;
    tap[d] = first[d];
  }
  return false;
}
/* The next index in row-major order over dims[0 … n-1]; false: there was none, index is all zeros again. */
static inline bool ml__next_index(int64_t *index, const int64_t *dims, int32_t n) {
  for (int32_t d = n - 1; d >= 0; d--) {
    if (++index[d] < dims[d]) return true;
    index[d] = 0;
  }
  return false;
}

/* ---- parallel loops: chunking by shape alone ---- */
/* Chunks for `units` equal pieces of `flops` operations each: at most `limit`, each worth waking a thread. */
size_t ml__unit_chunks(size_t units, double flops, size_t limit);
/* Pieces [*first, *last) of chunk i of `chunks`. */
static inline void ml__unit_range(size_t units, size_t chunks, size_t i, size_t *first, size_t *last) {
  *first = units / chunks * i + (i < units % chunks ? i : units % chunks);
  *last = *first + units / chunks + (i < units % chunks ? 1 : 0);
}

#endif
