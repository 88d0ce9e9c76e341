/* MaxRoiPool: each region of interest cut into pooled_shape bins of whole pixels, each bin its largest element.
 * X (N, C, H, W), rois (R, 5: image, x1, y1, x2, y2, corners included, times spatial_scale rounded to pixels)
 * -> Y (R, C, height, width); a bin outside the image gives 0, a region turned inside out counts as one pixel.
 * Not differentiated. Reference: ONNX MaxRoiPool-22; Girshick 2015, "Fast R-CNN". */
#include <math.h>
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *rois = ctx->in[1];
  const ml_attr *shape = ml_attr_find(ctx->attrs, "pooled_shape");
  char a[96], b[96];
  ML_TRY(ml__op_check_types(ctx, err));
  if (x->dtype != rois->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, rois is %s", ml_dtype_name(x->dtype), ml_dtype_name(rois->dtype));
  bool sizes = shape != NULL && shape->count == 2;
  for (size_t i = 0; i < 2 && sizes; i++) sizes = shape->as.ints[i] > 0 && shape->as.ints[i] <= INT32_MAX;
  if (!sizes) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'pooled_shape' is not two positive numbers");
  if ((x->rank != ML_UNKNOWN && x->rank != 4) ||
      (rois->rank != ML_UNKNOWN && (rois->rank != 2 || (rois->dims[1] >= 0 && rois->dims[1] != 5))))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X %s and rois %s: expected (N, C, H, W) and (R, 5)",
                   ml_shape_format(x->dims, x->rank, a, sizeof a), ml_shape_format(rois->dims, rois->rank, b, sizeof b));
  const int64_t dims[4] = { rois->rank == 2 ? rois->dims[0] : ML_UNKNOWN, x->rank == 4 ? x->dims[1] : ML_UNKNOWN,
                            shape->as.ints[0], shape->as.ints[1] };
  ml_op_set(ctx->out[0], x->dtype, dims, 4);
  return ML_OK;
}

/* a whole number of pixels, kept far from overflow; NaN gives 0 */
static int64_t pixel(double value) { return value != value ? 0 : (int64_t)round(fmin(fmax(value, -1e9), 1e9)); }

/* Bin number `bin` of `bins` of the region [first, last] in [0, limit). */
static void range(int64_t first, int64_t last, int64_t bin, int64_t bins, int64_t limit, int64_t *from, int64_t *to) {
  const double size = (double)(last - first + 1 > 1 ? last - first + 1 : 1) / (double)bins;
  *from = first + (int64_t)floor((double)bin * size);
  *to = first + (int64_t)ceil((double)(bin + 1) * size);
  if (*from < 0) *from = 0;
  if (*to > limit) *to = limit;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *rois = ctx->in[1], *y = ctx->out[0];
  const int64_t C = x->dims[1], H = x->dims[2], W = x->dims[3], height = y->dims[2], width = y->dims[3];
  const double scale = (double)ml_attr_float(ctx->attrs, "spatial_scale", 1);
  size_t at = 0;
  for (int64_t r = 0; r < rois->dims[0]; r++) {
    double roi[5];
    for (size_t i = 0; i < 5; i++) roi[i] = ml_element_get(rois->data, rois->dtype, (size_t)r * 5 + i);
    if (!(roi[0] >= 0 && roi[0] < (double)x->dims[0]))
      return ml_fail(err, ML_OUT_OF_RANGE, "rois: region %lld is of image %g, there are %lld", (long long)r, roi[0],
                     (long long)x->dims[0]);
    int64_t corner[4];
    for (int i = 0; i < 4; i++) corner[i] = pixel(roi[i + 1] * scale);
    for (int64_t c = 0; c < C; c++) {
      const size_t plane = (size_t)((int64_t)roi[0] * C + c) * (size_t)(H * W);
      for (int64_t bin = 0; bin < height * width; bin++, at++) {
        int64_t top, bottom, left, right;
        range(corner[1], corner[3], bin / width, height, H, &top, &bottom);
        range(corner[0], corner[2], bin % width, width, W, &left, &right);
        ML_SWITCH_FLOAT(x->dtype, {
          const T *from = (const T *)x->data + plane;
          T largest = top < bottom && left < right ? -(T)INFINITY : 0;
          for (int64_t h = top; h < bottom; h++)
            for (int64_t w = left; w < right; w++)
              if (from[h * W + w] > largest) largest = from[h * W + w];
          ((T *)y->data)[at] = largest;
        })
      }
    }
  }
  return ML_OK;
}

static const ml_attr_def attrs[] = {
  { "pooled_shape", ML_ATTR_INTS, true, "height and width of the result" },
  { "spatial_scale", ML_ATTR_FLOAT, false, "1 (default): factor from rois to pixels of X" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_max_roi_pool = {
  .name = "MaxRoiPool", .domain = "", .since = 22, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "Y = largest element of each bin of a region",
  .infer = infer,
  .run = run,
};
