/* RoiAlign 22: each region of interest cut into output_height x output_width bins, each bin the mean (avg) or the largest (max)
 * of bilinearly interpolated samples.
 * X (N,C,H,W), rois (R,4: x1, y1, x2, y2), batch_indices (R) int64 -> Y (R,C,output_height,output_width). In mode max every
 * corner's weighted value competes, as ONNX's reference has it. He et al. 2017; ONNX operator specification. */
#include <math.h>
#include "base/thread.h"
#include "ops/window.h"

static const ml_attr_def attrs[] = {
  { "coordinate_transformation_mode", ML_ATTR_STRING, false,
    "half_pixel (default): coordinates are moved by -0.5; output_half_pixel: not" },
  { "mode", ML_ATTR_STRING, false, "avg (default) or max" },
  { "output_height", ML_ATTR_INT, false, "1 (default)" },
  { "output_width", ML_ATTR_INT, false, "1 (default)" },
  { "sampling_ratio", ML_ATTR_INT, false, "samples per bin and direction; 0 (default): as many as the bin has pixels" },
  { "spatial_scale", ML_ATTR_FLOAT, false, "1 (default): factor from rois to pixels of X" },
  { 0 },
};

enum { SAMPLES_MAX = 4096 }; /* per bin and direction */

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *rois = ctx->in[1], *images = ctx->in[2];
  int64_t height = ml_attr_int(ctx->attrs, "output_height", 1), width = ml_attr_int(ctx->attrs, "output_width", 1);
  int64_t ratio = ml_attr_int(ctx->attrs, "sampling_ratio", 0);
  char a[96], b[96], c[96];
  if (height < 1 || width < 1 || height > INT32_MAX || width > INT32_MAX)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attributes 'output_height' and 'output_width' are %lld and %lld", (long long)height,
                   (long long)width);
  if (ratio < 0 || ratio > SAMPLES_MAX)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'sampling_ratio' is %lld, expected 0 to %d", (long long)ratio,
                   SAMPLES_MAX);
  if (!ml_attr_is(ctx->attrs, "mode", "avg", "avg") && !ml_attr_is(ctx->attrs, "mode", "avg", "max"))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'mode': expected avg or max");
  if (!ml_attr_is(ctx->attrs, "coordinate_transformation_mode", "half_pixel", "half_pixel") &&
      !ml_attr_is(ctx->attrs, "coordinate_transformation_mode", "half_pixel", "output_half_pixel"))
    return ml_fail(err, ML_INVALID_ARGUMENT,
                   "attribute 'coordinate_transformation_mode': expected half_pixel or output_half_pixel");
  if (x->dtype != rois->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, rois is %s", ml_dtype_name(x->dtype), ml_dtype_name(rois->dtype));
  bool fits = (x->rank == ML_UNKNOWN || x->rank == 4) && (images->rank == ML_UNKNOWN || images->rank == 1) &&
              (rois->rank == ML_UNKNOWN || (rois->rank == 2 && (rois->dims[1] < 0 || rois->dims[1] == 4)));
  int64_t n = rois->rank == 2 ? rois->dims[0] : ML_UNKNOWN, m = images->rank == 1 ? images->dims[0] : ML_UNKNOWN;
  if (!fits || (n >= 0 && m >= 0 && n != m))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X %s, rois %s and batch_indices %s: expected (N, C, H, W), (R, 4) and (R)",
                   ml_shape_format(x->dims, x->rank, a, sizeof a), ml_shape_format(rois->dims, rois->rank, b, sizeof b),
                   ml_shape_format(images->dims, images->rank, c, sizeof c));
  int64_t dims[4] = { n >= 0 ? n : m, x->rank == 4 ? x->dims[1] : ML_UNKNOWN, height, width };
  ml_op_set(ctx->out[0], x->dtype, dims, 4);
  return ML_OK;
}

typedef struct region {
  double y, x, bin_height, bin_width; /* start and size of a bin in pixels of X */
  int64_t rows, cols;                 /* samples per bin */
} region;

static ml_status read_region(const ml_op_ctx *ctx, size_t r, region *out, ml_error *err) {
  const ml_view *rois = ctx->in[1];
  const double scale = (double)ml_attr_float(ctx->attrs, "spatial_scale", 1);
  const bool half = ml_attr_is(ctx->attrs, "coordinate_transformation_mode", "half_pixel", "half_pixel");
  const int64_t ratio = ml_attr_int(ctx->attrs, "sampling_ratio", 0);
  double corner[4];
  for (size_t i = 0; i < 4; i++) corner[i] = ml_element_get(rois->data, rois->dtype, r * 4 + i) * scale - (half ? 0.5 : 0);
  double height = corner[3] - corner[1], width = corner[2] - corner[0];
  if (!half) { /* regions turned inside out count as one pixel */
    height = fmax(height, 1);
    width = fmax(width, 1);
  }
  *out = (region){ .x = corner[0],
                   .y = corner[1],
                   .bin_height = height / (double)ctx->out[0]->dims[2],
                   .bin_width = width / (double)ctx->out[0]->dims[3],
                   .rows = ratio,
                   .cols = ratio };
  if (ratio > 0) return ML_OK;
  double rows = ceil(out->bin_height), cols = ceil(out->bin_width);
  if (!(rows <= SAMPLES_MAX) || !(cols <= SAMPLES_MAX))
    return ml_fail(err, ML_INVALID_ARGUMENT, "rois: region %zu is too large or not a number", r);
  out->rows = rows > 0 ? (int64_t)rows : 0;
  out->cols = cols > 0 ? (int64_t)cols : 0;
  return ML_OK;
}

/* Where one coordinate lies between two pixels; false: outside the image. */
static bool between(double at, int64_t n, int64_t *low, int64_t *high, double *fraction) {
  if (!(at >= -1) || at > (double)n) return false;
  if (at < 0) at = 0;
  *low = (int64_t)at;
  if (*low >= n - 1) {
    *low = *high = n - 1;
    *fraction = 0;
    return true;
  }
  *high = *low + 1;
  *fraction = at - (double)*low;
  return true;
}

#define DEFINE(T, NAME)                                                                                                          \
  static T NAME(const T *x, int64_t H, int64_t W, const region *r, int64_t row, int64_t col, bool max) {                         \
    double sum = 0, top = 0;                                                                                                     \
    for (int64_t i = 0; i < r->rows; i++)                                                                                        \
      for (int64_t j = 0; j < r->cols; j++) {                                                                                    \
        double y = r->y + (double)row * r->bin_height + ((double)i + 0.5) * r->bin_height / (double)r->rows;                     \
        double z = r->x + (double)col * r->bin_width + ((double)j + 0.5) * r->bin_width / (double)r->cols;                       \
        int64_t y0, y1, x0, x1;                                                                                                  \
        double fy, fx, v[4] = { 0 };                                                                                             \
        if (between(y, H, &y0, &y1, &fy) && between(z, W, &x0, &x1, &fx)) {                                                      \
          v[0] = (1 - fy) * (1 - fx) * (double)x[y0 * W + x0];                                                                   \
          v[1] = (1 - fy) * fx * (double)x[y0 * W + x1];                                                                         \
          v[2] = fy * (1 - fx) * (double)x[y1 * W + x0];                                                                         \
          v[3] = fy * fx * (double)x[y1 * W + x1];                                                                               \
        }                                                                                                                        \
        double best = fmax(fmax(v[0], v[1]), fmax(v[2], v[3]));                                                                  \
        sum += v[0] + v[1] + v[2] + v[3];                                                                                        \
        top = (i == 0 && j == 0) || best > top ? best : top;                                                                     \
      }                                                                                                                          \
    if (max) return (T)top;                                                                                                      \
    return (T)(r->rows * r->cols > 0 ? sum / (double)(r->rows * r->cols) : 0);                                                   \
  }
DEFINE(float, sample_f32)
DEFINE(double, sample_f64)

typedef struct job {
  const ml_op_ctx *ctx;
  size_t units, chunks;
} job;

/* Regions have been checked. */
static void chunk(void *context, size_t index) {
  const job *j = context;
  const ml_view *x = j->ctx->in[0], *y = j->ctx->out[0];
  const bool max = ml_attr_is(j->ctx->attrs, "mode", "avg", "max");
  const size_t channels = (size_t)x->dims[1], plane = (size_t)x->dims[2] * (size_t)x->dims[3];
  size_t first, end;
  ml__unit_range(j->units, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    region r = { 0 };
    size_t roi = u / channels, from;
    (void)read_region(j->ctx, roi, &r, NULL);
    from = ((size_t)((const int64_t *)j->ctx->in[2]->data)[roi] * channels + u % channels) * plane;
    for (int64_t row = 0; row < y->dims[2]; row++)
      for (int64_t col = 0; col < y->dims[3]; col++) {
        size_t at = u * (size_t)(y->dims[2] * y->dims[3]) + (size_t)(row * y->dims[3] + col);
        if (x->dtype == ML_FLOAT32)
          ((float *)y->data)[at] = sample_f32((const float *)x->data + from, x->dims[2], x->dims[3], &r, row, col, max);
        else ((double *)y->data)[at] = sample_f64((const double *)x->data + from, x->dims[2], x->dims[3], &r, row, col, max);
      }
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *images = ctx->in[2];
  double samples = 0;
  if (ctx->out[0]->count == 0) return ML_OK;
  if (x->count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "X has no pixels");
  if (images->count != (size_t)ctx->out[0]->dims[0] || ctx->in[1]->count != 4 * images->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "rois and batch_indices have %zu and %zu elements", ctx->in[1]->count,
                   images->count);
  for (size_t r = 0; r < images->count; r++) {
    int64_t image = ((const int64_t *)images->data)[r];
    region each;
    if (image < 0 || image >= x->dims[0])
      return ml_fail(err, ML_INVALID_ARGUMENT, "batch_indices: element %zu is %lld, expected 0 to %lld", r, (long long)image,
                     (long long)x->dims[0] - 1);
    ML_TRY(read_region(ctx, r, &each, err));
    samples += (double)each.rows * (double)each.cols;
  }
  job j = { .ctx = ctx, .units = images->count * (size_t)x->dims[1] };
  j.chunks =
      ml__unit_chunks(j.units, 30 * samples / (double)images->count * (double)(ctx->out[0]->dims[2] * ctx->out[0]->dims[3]), 64);
  ml_parallel(j.chunks, chunk, &j);
  return ML_OK;
}

const ml_op_def ml_op_roi_align = {
  .name = "RoiAlign", .domain = "", .since = 22, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F, ML_MASK_F, ML_BIT(ML_INT64) }, .formula = "Y = pooled bilinear samples of regions of X", .infer = infer,
  .run = run,
};
