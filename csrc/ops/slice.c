/* Slice 13: y = x[start:end:step] along the named axes, NumPy's rules: negative positions count from the end, then both are
 * clamped, for a negative step to [-1, n-1]. data (any shape), starts, ends, axes (optional), steps (optional), all (k) int32 or
 * int64 -> the part. ONNX operator specification. Gradient: mlserve.SliceGrad puts dy back among zeros. */
#include "ops/slice.h"
#include <string.h>

static int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

ml_status ml__slice_range(const ml_op_ctx *ctx, int32_t first, const int64_t *dims, int32_t rank, ml__range *out, bool *known,
                          ml_error *err) {
  static const char *const what[4] = { "starts", "ends", "axes", "steps" };
  int64_t list[4][ML_MAX_RANK];
  size_t count[4];
  bool have[4], seen[ML_MAX_RANK] = { false };
  for (int32_t k = 0; k < 4; k++)
    ML_TRY(ml__ints(ml__in(ctx, first + k), list[k], ML_MAX_RANK, &count[k], &have[k], what[k], err));
  *known = have[0] && have[1] && have[2] && have[3];
  for (int32_t i = 0; i < rank; i++) {
    out->start[i] = 0;
    out->step[i] = 1;
    out->count[i] = have[2] && ml__in(ctx, first + 2) ? dims[i] : ML_UNKNOWN; /* with axes unknown, any dimension may shrink */
  }
  if (have[0] && have[2] && !ml__in(ctx, first + 2))
    for (int32_t i = 0; i < rank; i++) out->count[i] = (size_t)i < count[0] ? ML_UNKNOWN : dims[i];
  if (!*known) {
    if (have[2] && ml__in(ctx, first + 2))
      for (size_t k = 0; k < count[2]; k++) {
        int32_t axis;
        ML_TRY(ml_axis_normalise(list[2][k], rank, &axis, err));
        out->count[axis] = ML_UNKNOWN;
      }
    return ML_OK;
  }
  if (count[1] != count[0] || (ml__in(ctx, first + 2) && count[2] != count[0]) ||
      (ml__in(ctx, first + 3) && count[3] != count[0]))
    return ml_fail(err, ML_INVALID_ARGUMENT,
                   "starts, ends, axes and steps have %zu, %zu, %zu and %zu elements, expected equal numbers", count[0], count[1],
                   ml__in(ctx, first + 2) ? count[2] : count[0], ml__in(ctx, first + 3) ? count[3] : count[0]);
  for (size_t k = 0; k < count[0]; k++) {
    int32_t axis;
    ml_status status = ml_axis_normalise(ml__in(ctx, first + 2) ? list[2][k] : (int64_t)k, rank, &axis, err);
    if (status != ML_OK) return ml_fail_in(err, status, "axes, element %zu", k);
    if (seen[axis]) return ml_fail(err, ML_INVALID_ARGUMENT, "axes: axis %d is named twice", (int)axis);
    seen[axis] = true;
    int64_t step = ml__in(ctx, first + 3) ? list[3][k] : 1, n = dims[axis], start = list[0][k], end = list[1][k];
    if (step == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "steps: element %zu is 0", k);
    if (step < -INT64_MAX) step = -INT64_MAX;
    out->step[axis] = step;
    out->start[axis] = start;
    out->count[axis] = ML_UNKNOWN;
    if (n < 0) continue;
    if (start < 0) start = start < -n ? -1 : start + n; /* -1: before the first */
    if (end < 0) end = end < -n ? -1 : end + n;
    start = step > 0 ? clamp(start, 0, n) : clamp(start, -1, n - 1);
    end = step > 0 ? clamp(end, 0, n) : clamp(end, -1, n - 1);
    int64_t span = step > 0 ? end - start : start - end, by = step > 0 ? step : -step;
    out->start[axis] = start;
    out->count[axis] = span <= 0 ? 0 : (span - 1) / by + 1;
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  ml__range r;
  bool known;
  if (x->rank != ML_UNKNOWN) ML_TRY(ml__slice_range(ctx, 1, x->dims, x->rank, &r, &known, err));
  ml_op_set(ctx->out[0], x->dtype, r.count, x->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  ml__range r;
  bool known;
  ML_TRY(ml__slice_range(ctx, 1, x->dims, x->rank, &r, &known, err));
  if (!known || !ml_shape_equal(r.count, x->rank, y->dims, y->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "starts or ends do not give the planned shape");
  if (y->count == 0) return ML_OK;
  int64_t own[ML_MAX_RANK], from[ML_MAX_RANK], to[ML_MAX_RANK], offset = 0;
  ml__strides(x->dims, x->rank, own);
  ml__strides(y->dims, y->rank, to);
  for (int32_t i = 0; i < x->rank; i++) {
    offset += r.start[i] * own[i];
    from[i] = r.count[i] > 1 ? r.step[i] * own[i] : 0;
  }
  size_t size = ml_dtype_size(x->dtype);
  ml__move(y->dims, y->rank, size, (const char *)x->data + (size_t)offset * size, from, y->data, to);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *in[6] = { g->dout[0], g->in[0] };
  if (!g->needs[0]) return;
  for (int32_t i = 1; i < g->n_in; i++) in[i + 1] = g->in[i];
  size_t n = (size_t)g->n_in + 1;
  while (n > 0 && !in[n - 1]) n--;
  g->din[0] = ml_gn(g, "mlserve.SliceGrad", NULL, 0, n, in);
}

const ml_op_def ml_op_slice = {
  .name = "Slice", .domain = "", .since = 13, .min_in = 3, .max_in = 5, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT32) | ML_BIT(ML_INT64) }, .formula = "y = x[start:end:step]", .infer = infer, .run = run,
  .gradient = gradient,
};
