/* The passes of a resize (contract: ops/resize.h). Coordinates: ONNX operator specification of Resize; cubic weights: Keys 1981.
 */
#include <math.h>
#include <string.h>
#include "base/thread.h"
#include "ops/resize.h"
#include "ops/window.h"

const ml_attr_def ml__resize_attrs[] = {
  { "antialias", ML_ATTR_INT, false, "0 (default); 1: linear and cubic filters are stretched when the size shrinks" },
  { "axes", ML_ATTR_INTS, false, "dimensions that roi, scales and sizes speak of; default: all" },
  { "coordinate_transformation_mode", ML_ATTR_STRING, false,
    "half_pixel (default), half_pixel_symmetric, pytorch_half_pixel, align_corners, asymmetric or tf_crop_and_resize" },
  { "cubic_coeff_a", ML_ATTR_FLOAT, false, "-0.75 (default): a of the cubic filter" },
  { "exclude_outside", ML_ATTR_INT, false, "0 (default); 1: positions outside the input weigh nothing" },
  { "extrapolation_value", ML_ATTR_FLOAT, false, "0 (default): value outside the input, for tf_crop_and_resize" },
  { "keep_aspect_ratio_policy", ML_ATTR_STRING, false, "of sizes: stretch (default), not_larger or not_smaller" },
  { "mode", ML_ATTR_STRING, false, "nearest (default), linear or cubic" },
  { "nearest_mode", ML_ATTR_STRING, false, "round_prefer_floor (default), round_prefer_ceil, floor or ceil" },
  { 0 },
};

enum { HALF_PIXEL, HALF_PIXEL_SYMMETRIC, PYTORCH_HALF_PIXEL, ALIGN_CORNERS, ASYMMETRIC, CROP_AND_RESIZE, HALF_PIXEL_NEAREST };
enum { PREFER_FLOOR, PREFER_CEIL, FLOOR, CEIL };
enum { STRETCH, NOT_LARGER, NOT_SMALLER };

/* Position of a string attribute in a list ended by NULL. */
static ml_status choice(const ml_attrs *attrs, const char *name, const char *const *names, int *out, ml_error *err) {
  for (int i = 0; names[i]; i++)
    if (ml_attr_is(attrs, name, names[0], names[i])) {
      *out = i;
      return ML_OK;
    }
  ml_str s = ml_attr_str(attrs, name, "");
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is '%.*s', which is not known", name,
                 (int)(s.length < 60 ? s.length : 60), s.bytes);
}

static ml_status options(const ml_attrs *attrs, ml__resize *r, int *policy, ml_error *err) {
  static const char *const modes[] = { "nearest", "linear", "cubic", NULL };
  static const char *const coordinates[] = { "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel",   "align_corners",
                                             "asymmetric", "tf_crop_and_resize",   "tf_half_pixel_for_nn", NULL };
  static const char *const roundings[] = { "round_prefer_floor", "round_prefer_ceil", "floor", "ceil", NULL };
  static const char *const policies[] = { "stretch", "not_larger", "not_smaller", NULL };
  int mode = 0;
  ML_TRY(choice(attrs, "mode", modes, &mode, err));
  ML_TRY(choice(attrs, "coordinate_transformation_mode", coordinates, &r->coordinates, err));
  ML_TRY(choice(attrs, "nearest_mode", roundings, &r->rounding, err));
  ML_TRY(choice(attrs, "keep_aspect_ratio_policy", policies, policy, err));
  r->mode = (ml__resize_mode)mode;
  r->antialias = ml_attr_int(attrs, "antialias", 0) != 0 && r->mode != ML__RESIZE_NEAREST;
  r->exclude_outside = ml_attr_int(attrs, "exclude_outside", 0) != 0 && r->mode != ML__RESIZE_NEAREST;
  r->cubic_a = (double)ml_attr_float(attrs, "cubic_coeff_a", -0.75f);
  r->extrapolation = (double)ml_attr_float(attrs, "extrapolation_value", 0);
  return ML_OK;
}

/* An empty input counts as left out. */
static const ml_view *given(const ml_op_ctx *ctx, int32_t i) {
  const ml_view *v = ml__in(ctx, i);
  return v && v->rank == 1 && v->dims[0] == 0 ? NULL : v;
}

static ml_status check_count(const ml_view *v, size_t expected, const char *what, ml_error *err) {
  if (v->rank != ML_UNKNOWN && (v->rank != 1 || (v->dims[0] >= 0 && v->dims[0] != (int64_t)expected)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected %zu values", what, expected);
  return ML_OK;
}

static ml_status from_scales(ml__resize *r, const ml_view *scales, const int32_t *axes, size_t n, ml_error *err) {
  for (size_t i = 0; i < n; i++) {
    int32_t d = axes[i];
    double scale = ml_element_get(scales->data, scales->dtype, i);
    if (!(scale > 0) || !(scale < 1e9))
      return ml_fail(err, ML_INVALID_ARGUMENT, "scales: value %zu is %g, expected a number above 0", i, scale);
    r->axis[d].scale = scale;
    if (r->in[d] < 0) continue;
    float size = floorf((float)r->in[d] * (float)scale); /* in single precision, as scales are: 0.7 * 10 is 7 */
    if (!(size < 1e12f)) return ml_fail(err, ML_INVALID_ARGUMENT, "scales: value %zu makes dimension %d too large", i, (int)d);
    r->out[d] = (int64_t)size;
  }
  return ML_OK;
}

static ml_status from_sizes(ml__resize *r, const int64_t *sizes, const int32_t *axes, size_t n, int policy, ml_error *err) {
  double common = 0;
  for (size_t i = 0; i < n; i++) {
    int32_t d = axes[i];
    if (sizes[i] < 0 || sizes[i] > ML__EXTENT_MAX)
      return ml_fail(err, ML_INVALID_ARGUMENT, "sizes: value %zu is %lld", i, (long long)sizes[i]);
    if (r->in[d] < 0 && policy == STRETCH) r->out[d] = sizes[i];
    if (r->in[d] < 0) continue;
    if (r->in[d] == 0 && sizes[i] > 0) return ml_fail(err, ML_INVALID_ARGUMENT, "sizes: dimension %d of X is empty", (int)d);
    double scale = r->in[d] ? (double)sizes[i] / (double)r->in[d] : 1;
    if (i == 0 || (policy == NOT_LARGER ? scale < common : scale > common)) common = scale;
    r->axis[d].scale = scale;
    r->out[d] = sizes[i];
  }
  if (policy == STRETCH) return ML_OK;
  bool known = true;
  for (size_t i = 0; i < n; i++) known = known && r->in[axes[i]] >= 0;
  for (size_t i = 0; i < n; i++) {
    int32_t d = axes[i];
    if (known && common * (double)r->in[d] > (double)ML__EXTENT_MAX)
      return ml_fail(err, ML_INVALID_ARGUMENT, "sizes: dimension %d becomes too large", (int)d);
    r->axis[d].scale = common;
    r->out[d] = known ? (int64_t)(common * (double)r->in[d] + 0.5) : ML_UNKNOWN;
  }
  return ML_OK;
}

ml_status ml__resize_read(const ml_op_ctx *ctx, const ml_view *x, int32_t first, ml__resize *r, bool *known, ml_error *err) {
  const ml_view *roi = given(ctx, first), *scales = given(ctx, first + 1), *sizes = given(ctx, first + 2);
  const ml_attr *list = ml_attr_find(ctx->attrs, "axes");
  int32_t axes[ML_MAX_RANK];
  int policy = STRETCH;
  size_t n = (size_t)x->rank;
  bool set[ML_MAX_RANK];
  memset(r, 0, sizeof *r);
  r->rank = x->rank;
  ML_TRY(options(ctx->attrs, r, &policy, err));
  if (list && list->count > 0) {
    ML_TRY(ml__axes(list->as.ints, list->count, x->rank, set, err));
    n = list->count;
    for (size_t i = 0; i < n; i++) axes[i] = (int32_t)(list->as.ints[i] < 0 ? list->as.ints[i] + x->rank : list->as.ints[i]);
  } else {
    for (int32_t d = 0; d < x->rank; d++) axes[d] = d;
  }
  for (int32_t d = 0; d < x->rank; d++) {
    if (x->dims[d] > ML__EXTENT_MAX) return ml_fail(err, ML_INVALID_ARGUMENT, "X: dimension %d is too large", (int)d);
    r->in[d] = r->out[d] = x->dims[d];
    r->axis[d] = (ml__resize_axis){ .scale = 1, .end = 1 };
  }
  for (size_t i = 0; i < n; i++) r->out[axes[i]] = ML_UNKNOWN;
  if (!scales == !sizes) return ml_fail(err, ML_INVALID_ARGUMENT, "exactly one of scales and sizes must be given");
  if (scales) ML_TRY(check_count(scales, n, "scales", err));
  if (sizes) ML_TRY(check_count(sizes, n, "sizes", err));
  if (roi && r->coordinates == CROP_AND_RESIZE) ML_TRY(check_count(roi, 2 * n, "roi", err));
  *known = scales ? scales->data != NULL : sizes->data != NULL;
  if (*known && scales) {
    if (scales->count != n) return ml_fail(err, ML_INVALID_ARGUMENT, "scales: expected %zu values, got %zu", n, scales->count);
    ML_TRY(from_scales(r, scales, axes, n, err));
  } else if (*known) {
    int64_t values[ML_MAX_RANK];
    size_t count;
    bool have;
    ML_TRY(ml__ints(sizes, values, ML_MAX_RANK, &count, &have, "sizes", err));
    if (count != n) return ml_fail(err, ML_INVALID_ARGUMENT, "sizes: expected %zu values, got %zu", n, count);
    ML_TRY(from_sizes(r, values, axes, n, policy, err));
  }
  if (r->coordinates == CROP_AND_RESIZE) {
    if (!roi) return ml_fail(err, ML_INVALID_ARGUMENT, "roi is needed for coordinate_transformation_mode tf_crop_and_resize");
    for (size_t i = 0; i < n && roi->data && roi->count == 2 * n; i++) {
      r->axis[axes[i]].start = ml_element_get(roi->data, roi->dtype, i);
      r->axis[axes[i]].end = ml_element_get(roi->data, roi->dtype, i + n);
    }
  }
  for (int32_t d = 0; d < r->rank; d++) {
    ml__resize_axis *a = &r->axis[d];
    a->active = r->in[d] != r->out[d] || a->scale != 1 || a->start != 0 || a->end != 1;
    if (r->in[d] == 0 && r->out[d] > 0) return ml_fail(err, ML_INVALID_ARGUMENT, "dimension %d of X is empty", (int)d);
    double stretch = r->antialias && a->scale < 1 ? a->scale : 1;
    int64_t reach = r->mode == ML__RESIZE_CUBIC ? 2 : 1;
    double taps = 2 - 2 * (floor(-(double)reach / stretch) + 1);
    a->taps = r->mode == ML__RESIZE_NEAREST ? 1 : taps < 4.0 * (double)ML__EXTENT_MAX ? (int64_t)taps : ML__EXTENT_MAX;
  }
  return ML_OK;
}

ml_status ml__resize_table_bytes(const ml__resize *r, size_t *bytes, ml_error *err) {
  size_t total = 0, n;
  for (int32_t d = 0; d < r->rank; d++) {
    if (!r->axis[d].active) continue;
    if (!ml_mul_size((size_t)r->out[d], (size_t)r->axis[d].taps, &n) || !ml_mul_size(n, sizeof(int64_t) + sizeof(double), &n) ||
        !ml_add_size(total, n, &total))
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "dimension %d needs too many weights", (int)d);
  }
  *bytes = total;
  return ML_OK;
}

/* Output position o of axis d in input coordinates; false: outside (tf_crop_and_resize). */
static bool coordinate(const ml__resize *r, int32_t d, int64_t o, double *x) {
  const ml__resize_axis *a = &r->axis[d];
  const double in = (double)r->in[d], at = (double)o, scale = a->scale, length = scale * in;
  switch (r->coordinates) {
    case ALIGN_CORNERS: *x = length == 1 ? 0 : at * (in - 1) / (length - 1); break;
    case ASYMMETRIC: *x = at / scale; break;
    case PYTORCH_HALF_PIXEL: *x = length == 1 ? -0.5 : (at + 0.5) / scale - 0.5; break;
    case HALF_PIXEL_NEAREST: *x = (at + 0.5) / scale; break;
    case HALF_PIXEL_SYMMETRIC: *x = in / 2 * (1 - (double)r->out[d] / length) + (at + 0.5) / scale - 0.5; break;
    case CROP_AND_RESIZE:
      *x = a->start * (in - 1) +
           (length == 1 ? (a->end - a->start) * (in - 1) / 2 : at * (a->end - a->start) * (in - 1) / (length - 1));
      return *x >= 0 && *x <= in - 1;
    default: *x = (at + 0.5) / scale - 0.5; break;
  }
  return true;
}

static int64_t clamp(double v, int64_t n) { return !(v > 0) ? 0 : v >= (double)n ? n - 1 : (int64_t)v; }

static double filter(const ml__resize *r, double x) {
  const double a = r->cubic_a;
  x = fabs(x);
  if (r->mode == ML__RESIZE_LINEAR) return x < 1 ? 1 - x : 0;
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

static void nearest(const ml__resize *r, int32_t d, double x, int64_t *index, double *weight) {
  double at;
  switch (r->rounding) {
    case PREFER_FLOOR: at = ceil(x - 0.5); break;
    case PREFER_CEIL: at = floor(x + 0.5); break;
    case FLOOR: at = floor(x); break;
    default: at = ceil(x); break;
  }
  *index = clamp(at, r->in[d]);
  *weight = 1;
}

/* Taps base + first … around x, where base < x <= base + 1. */
static void weigh(const ml__resize *r, int32_t d, double x, int64_t *index, double *weight) {
  const ml__resize_axis *a = &r->axis[d];
  const double stretch = r->antialias && a->scale < 1 ? a->scale : 1, base = ceil(x) - 1;
  const int64_t first = 1 - a->taps / 2;
  double sum = 0;
  for (int64_t k = 0; k < a->taps; k++) {
    const double at = base + (double)(first + k);
    double w = filter(r, (x - at) * stretch);
    if (r->exclude_outside && (at < 0 || at > (double)(r->in[d] - 1))) w = 0;
    index[k] = clamp(at, r->in[d]);
    weight[k] = w;
    sum += w;
  }
  if ((stretch == 1 && !r->exclude_outside) || sum == 0) return;
  for (int64_t k = 0; k < a->taps; k++) weight[k] /= sum;
}

void ml__resize_tables(ml__resize *r, void *memory) {
  char *at = memory;
  for (int32_t d = 0; d < r->rank; d++) {
    ml__resize_axis *a = &r->axis[d];
    if (!a->active) continue;
    size_t n = (size_t)r->out[d] * (size_t)a->taps;
    a->index = (int64_t *)(void *)at;
    a->weight = (double *)(void *)(at + n * sizeof(int64_t));
    at += n * (sizeof(int64_t) + sizeof(double));
    for (int64_t o = 0; o < r->out[d]; o++) {
      double x;
      bool inside = coordinate(r, d, o, &x);
      if (r->mode == ML__RESIZE_NEAREST) nearest(r, d, x, a->index + o, a->weight + o);
      else weigh(r, d, x, a->index + o * a->taps, a->weight + o * a->taps);
      if (!inside) a->index[o * a->taps] = -1;
    }
  }
}

/* ---------------------------------------------------------------- passes ---- */
typedef struct pass {
  const ml__resize *r;
  const ml__resize_axis *a;
  const void *src;
  void *dst;
  size_t in, out, outer, inner, chunks; /* in, out: of the resize, whichever way the pass goes */
} pass;

#define DEFINE(T, NAME)                                                                                                          \
  static void NAME##_forward(void *context, size_t chunk) {                                                                      \
    const pass *p = context;                                                                                                     \
    const size_t n = p->inner, taps = (size_t)p->a->taps;                                                                        \
    size_t first, end;                                                                                                           \
    ml__unit_range(p->outer * p->out, p->chunks, chunk, &first, &end);                                                           \
    for (size_t u = first; u < end; u++) {                                                                                       \
      const size_t o = u % p->out;                                                                                               \
      const int64_t *index = p->a->index + o * taps;                                                                             \
      const double *weight = p->a->weight + o * taps;                                                                            \
      const T *src = (const T *)p->src + u / p->out * p->in * n;                                                                 \
      T *dst = (T *)p->dst + u * n;                                                                                              \
      if (index[0] < 0) {                                                                                                        \
        for (size_t i = 0; i < n; i++) dst[i] = (T)p->r->extrapolation;                                                          \
        continue;                                                                                                                \
      }                                                                                                                          \
      for (size_t k = 0; k < taps; k++) {                                                                                        \
        const T w = (T)weight[k];                                                                                                \
        const T *row = src + (size_t)index[k] * n;                                                                               \
        if (k == 0)                                                                                                              \
          for (size_t i = 0; i < n; i++) dst[i] = w * row[i];                                                                    \
        else                                                                                                                     \
          for (size_t i = 0; i < n; i++) dst[i] += w * row[i];                                                                   \
      }                                                                                                                          \
    }                                                                                                                            \
  }                                                                                                                              \
  static void NAME##_transposed(void *context, size_t chunk) {                                                                   \
    const pass *p = context;                                                                                                     \
    const size_t n = p->inner, taps = (size_t)p->a->taps;                                                                        \
    size_t first, end;                                                                                                           \
    ml__unit_range(p->outer, p->chunks, chunk, &first, &end);                                                                    \
    for (size_t u = first; u < end; u++) {                                                                                       \
      const T *src = (const T *)p->src + u * p->out * n;                                                                         \
      T *dst = (T *)p->dst + u * p->in * n;                                                                                      \
      memset(dst, 0, p->in * n * sizeof(T));                                                                                     \
      for (size_t o = 0; o < p->out; o++) {                                                                                      \
        if (p->a->index[o * taps] < 0) continue;                                                                                 \
        for (size_t k = 0; k < taps; k++) {                                                                                      \
          const T w = (T)p->a->weight[o * taps + k];                                                                             \
          T *row = dst + (size_t)p->a->index[o * taps + k] * n;                                                                  \
          for (size_t i = 0; i < n; i++) row[i] += w * src[o * n + i];                                                           \
        }                                                                                                                        \
      }                                                                                                                          \
    }                                                                                                                            \
  }
DEFINE(float, f32)
DEFINE(double, f64)

void ml__resize_pass(const ml__resize *r, int32_t axis, const int64_t *dims, bool transposed, ml_dtype dtype, const void *src,
                     void *dst) {
  pass p = { .r = r,
             .a = &r->axis[axis],
             .src = src,
             .dst = dst,
             .in = (size_t)r->in[axis],
             .out = (size_t)r->out[axis],
             .outer = ml__extent(dims, 0, axis),
             .inner = ml__extent(dims, axis + 1, r->rank) };
  size_t units = transposed ? p.outer : p.outer * p.out;
  if (units == 0 || p.inner == 0) return;
  double flops = 4 * (double)p.inner * (double)p.a->taps * (transposed ? (double)p.out : 1);
  p.chunks = ml__unit_chunks(units, flops, 64);
  if (dtype == ML_FLOAT32) ml_parallel(p.chunks, transposed ? f32_transposed : f32_forward, &p);
  else ml_parallel(p.chunks, transposed ? f64_transposed : f64_forward, &p);
}

ml_status ml__resize_between(const ml__resize *r, bool transposed, size_t *elements, int32_t *passes, ml_error *err) {
  int64_t dims[ML_MAX_RANK];
  int32_t total = 0, done = 0;
  *elements = 0;
  memcpy(dims, transposed ? r->out : r->in, sizeof dims);
  for (int32_t d = 0; d < r->rank; d++) total += r->axis[d].active;
  for (int32_t i = 0; i < r->rank; i++) {
    int32_t d = transposed ? i : r->rank - 1 - i;
    if (!r->axis[d].active) continue;
    dims[d] = transposed ? r->in[d] : r->out[d];
    if (++done == total) break;
    size_t count;
    ML_TRY(ml_shape_count(dims, r->rank, ML_FLOAT64, &count, err));
    if (count > *elements) *elements = count;
  }
  *passes = total;
  return ML_OK;
}

void ml__resize_all(const ml__resize *r, bool transposed, ml_dtype dtype, const void *src, void *dst, void *between,
                    size_t elements) {
  int64_t dims[ML_MAX_RANK];
  int32_t total = 0, done = 0;
  size_t size = ml_dtype_size(dtype);
  memcpy(dims, transposed ? r->out : r->in, sizeof dims);
  for (int32_t d = 0; d < r->rank; d++) total += r->axis[d].active;
  if (total == 0) {
    memcpy(dst, src, ml__extent(dims, 0, r->rank) * size);
    return;
  }
  for (int32_t i = 0; i < r->rank; i++) {
    int32_t d = transposed ? i : r->rank - 1 - i;
    if (!r->axis[d].active) continue;
    void *to = done + 1 == total ? dst : (char *)between + (done % 2 ? elements * size : 0);
    ml__resize_pass(r, d, dims, transposed, dtype, src, to);
    dims[d] = transposed ? r->in[d] : r->out[d];
    src = to;
    done++;
  }
}
