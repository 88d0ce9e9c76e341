/* Col2Im 18: an image put together from the columns of its blocks; where blocks overlap they are added.
 * input (N, C * product of block_shape, L), image_shape (n), block_shape (n) int64 -> output (N, C, image_shape). L is the number
 * of block positions. ONNX operator specification. */
#include <string.h>
#include "ops/conv.h"

static const ml_attr_def attrs[] = {
  { "dilations", ML_ATTR_INTS, false, "1 (default): distance of the elements of a block" },
  { "pads", ML_ATTR_INTS, false, "0 (default): all beginnings, then all ends" },
  { "strides", ML_ATTR_INTS, false, "1 (default): distance of blocks" },
  { 0 },
};

/* The convolution that cuts the image into these columns. *known false: image_shape or block_shape has no values yet. */
static ml_status geometry(const ml_op_ctx *ctx, ml__conv *c, int32_t *n, bool *known, ml_error *err) {
  const ml_view *x = ctx->in[0];
  int64_t image[ML__WINDOW_RANK], block[ML__WINDOW_RANK];
  size_t n_image, n_block;
  bool have_image, have_block;
  ML_TRY(ml__ints(ctx->in[1], image, ML__WINDOW_RANK, &n_image, &have_image, "image_shape", err));
  ML_TRY(ml__ints(ctx->in[2], block, ML__WINDOW_RANK, &n_block, &have_block, "block_shape", err));
  *known = have_image && have_block;
  const ml_view *shape = have_image || ctx->in[1]->rank == 1 ? ctx->in[1] : ctx->in[2];
  *n = have_image                                              ? (int32_t)n_image
       : shape->rank == 1 && shape->dims[0] <= ML__WINDOW_RANK ? (int32_t)shape->dims[0]
                                                               : ML_UNKNOWN;
  if (!*known) return ML_OK;
  if (n_image != n_block || n_image == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "image_shape and block_shape have %zu and %zu values, expected equal numbers",
                   n_image, n_block);
  ml_view like = { .rank = (int32_t)n_image + 2, .dtype = x->dtype, .dims = { 1, 1 } }, taps = like;
  for (size_t d = 0; d < n_image; d++) {
    if (image[d] < 0 || block[d] < 1)
      return ml_fail(err, ML_INVALID_ARGUMENT, "image_shape and block_shape: value %zu is %lld and %lld", d, (long long)image[d],
                     (long long)block[d]);
    like.dims[d + 2] = image[d];
    taps.dims[d + 2] = block[d];
  }
  ml__window w;
  size_t count;
  ML_TRY(ml__window_init(&w, ctx->attrs, &like, &taps, false, err));
  ML_TRY(ml_shape_count(w.kernel, w.n, x->dtype, &count, err));
  ML_TRY(ml_shape_count(w.in, w.n, x->dtype, &count, err));
  ML_TRY(ml_shape_count(w.out, w.n, x->dtype, &count, err));
  ml__conv_set(c, &w, 1, 1, 1, 1);
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  int64_t dims[ML_MAX_RANK];
  ml__conv c;
  int32_t n;
  bool known;
  ML_TRY(geometry(ctx, &c, &n, &known, err));
  for (int32_t d = 0; d < ML_MAX_RANK; d++) dims[d] = ML_UNKNOWN;
  if (x->rank != ML_UNKNOWN && x->rank != 3)
    return ml_fail(err, ML_INVALID_ARGUMENT, "input: expected rank 3, got rank %d", (int)x->rank);
  if (x->rank == 3) dims[0] = x->dims[0];
  if (known) {
    if (x->rank == 3 && x->dims[1] >= 0) {
      if (x->dims[1] % (int64_t)c.P != 0)
        return ml_fail(err, ML_INVALID_ARGUMENT, "input: dimension 1 is %lld, expected a multiple of %zu", (long long)x->dims[1],
                       c.P);
      dims[1] = x->dims[1] / (int64_t)c.P;
    }
    if (x->rank == 3 && x->dims[2] >= 0 && x->dims[2] != (int64_t)c.O)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input: dimension 2 is %lld, expected %zu blocks", (long long)x->dims[2], c.O);
    for (int32_t d = 0; d < n; d++) dims[d + 2] = c.w.in[d];
  }
  ml_op_set(ctx->out[0], x->dtype, dims, n == ML_UNKNOWN ? ML_UNKNOWN : n + 2);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  ml__conv c;
  int32_t n;
  bool known;
  if (y->count == 0) return ML_OK;
  ML_TRY(geometry(ctx, &c, &n, &known, err));
  size_t planes = ml__extent(y->dims, 0, 2), size = ml_dtype_size(x->dtype);
  if (!known || y->count != planes * c.I || x->count != planes * c.P * c.O)
    return ml_fail(err, ML_INVALID_ARGUMENT, "image_shape or block_shape do not give the planned shape");
  memset(y->data, 0, y->count * size);
  for (size_t i = 0; i < planes; i++)
    ml__conv_scatter(&c, x->dtype, (const char *)x->data + i * c.P * c.O * size, (char *)y->data + i * c.I * size);
  return ML_OK;
}

const ml_op_def ml_op_col2im = {
  .name = "Col2Im", .domain = "", .since = 18, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F, ML_BIT(ML_INT64) }, .formula = "y = blocks put back and added", .infer = infer, .run = run,
};
