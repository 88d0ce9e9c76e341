/* AffineGrid 20: sampling positions for GridSample: grid[n][p] = theta[n] (q, 1) for every output pixel p, q its position in [-1,
 * 1], innermost dimension first. theta (N,2,3) with size (N,C,H,W) -> grid (N,H,W,2); theta (N,3,4) with size (N,C,D,H,W) -> grid
 * (N,D,H,W,3). Jaderberg et al. 2015; ONNX operator specification. */
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "align_corners", ML_ATTR_INT, false,
    "0 (default): -1 and 1 are the edges of the image; 1: the centres of the corner pixels" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *theta = ctx->in[0], *size = ctx->in[1];
  int64_t values[5], dims[5] = { ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN };
  size_t count;
  bool known;
  char text[96];
  ML_TRY(ml__ints(size, values, 5, &count, &known, "size", err));
  int64_t length = known ? (int64_t)count : size->rank == 1 ? size->dims[0] : ML_UNKNOWN;
  if (length < 0 && theta->rank == 3 && theta->dims[1] > 0) length = theta->dims[1] + 2;
  if (length < 0) {
    ml_op_set(ctx->out[0], theta->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  if (length != 4 && length != 5)
    return ml_fail(err, ML_INVALID_ARGUMENT, "size: expected 4 or 5 values, got %lld", (long long)length);
  const int64_t n = length - 2;
  bool fits = theta->rank == ML_UNKNOWN || (theta->rank == 3 && (theta->dims[1] < 0 || theta->dims[1] == n) &&
                                            (theta->dims[2] < 0 || theta->dims[2] == n + 1));
  if (fits && known && theta->rank == 3 && theta->dims[0] >= 0) fits = theta->dims[0] == values[0];
  if (!fits)
    return ml_fail(err, ML_INVALID_ARGUMENT, "theta: expected shape (N, %lld, %lld), got %s", (long long)n, (long long)n + 1,
                   ml_shape_format(theta->dims, theta->rank, text, sizeof text));
  if (known) {
    dims[0] = values[0];
    for (int64_t d = 0; d < n; d++) dims[d + 1] = values[d + 2];
    for (int64_t d = 0; d <= n; d++)
      if (dims[d] < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "size: a value is %lld", (long long)dims[d]);
  } else if (theta->rank == 3) {
    dims[0] = theta->dims[0];
  }
  dims[n + 1] = n;
  ml_op_set(ctx->out[0], theta->dtype, dims, (int32_t)n + 2);
  return ML_OK;
}

static double position(int64_t i, int64_t n, bool corners) {
  if (corners) return n > 1 ? -1 + 2 * (double)i / (double)(n - 1) : -1;
  return (2 * (double)i + 1) / (double)n - 1;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *theta = ctx->in[0];
  ml_view *y = ctx->out[0];
  const int32_t n = y->rank - 2;
  const bool corners = ml_attr_int(ctx->attrs, "align_corners", 0) != 0;
  int64_t index[4] = { 0 };
  if (y->count == 0) return ML_OK;
  if (theta->count != (size_t)y->dims[0] * (size_t)n * (size_t)(n + 1))
    return ml_fail(err, ML_INVALID_ARGUMENT, "theta has %zu elements for %lld images", theta->count, (long long)y->dims[0]);
  ML_SWITCH_FLOAT(y->dtype, {
    T *to = y->data;
    for (size_t i = 0; i < y->count; i += (size_t)n) {
      const T *map = (const T *)theta->data + index[0] * n * (n + 1);
      for (int32_t row = 0; row < n; row++, map += n + 1) {
        double sum = (double)map[n];
        for (int32_t k = 0; k < n; k++) { /* the innermost dimension comes first */
          int32_t d = n - k;
          sum += (double)map[k] * position(index[d], y->dims[d], corners);
        }
        *to++ = (T)sum;
      }
      for (int32_t d = n; d >= 0; d--) {
        if (++index[d] < y->dims[d]) break;
        index[d] = 0;
      }
    }
  })
  return ML_OK;
}

const ml_op_def ml_op_affine_grid = {
  .name = "AffineGrid", .domain = "", .since = 20, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F, ML_BIT(ML_INT64) }, .formula = "grid = theta (position, 1)", .infer = infer, .run = run,
};
