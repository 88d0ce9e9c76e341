/* Running sums and products; see cumulate.h. The neighbours of the axis's inside are handled together, row after row, so that
 * memory is read in order. float16 and bfloat16 are computed in float and rounded at every step; integers wrap. */
#include "ops/cumulate.h"

const ml_attr_def ml__cumulate_attrs[] = {
  { "exclusive", ML_ATTR_INT, false, "0 (default); 1: element i leaves itself out" },
  { "reverse", ML_ATTR_INT, false, "0 (default); 1: from the end" },
  { 0 },
};

ml_status ml__cumulate_axis(const ml_view *axis, int32_t rank, int32_t *out, ml_error *err) {
  int64_t value = 0;
  size_t count;
  bool known;
  ML_TRY(ml__ints(axis, &value, 1, &count, &known, "axis", err));
  if (count != 1) return ml_fail(err, ML_INVALID_ARGUMENT, "axis has %zu elements, expected one", count);
  return ml_axis_normalise(value, rank, out, err);
}

ml_status ml__cumulate_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_same(ctx, err));
  ML_TRY(ml__op_check_scalar(ctx->in[1], "axis", err));
  int32_t axis;
  if (ctx->in[1]->data == NULL || ctx->in[0]->rank == ML_UNKNOWN) return ML_OK;
  return ml__cumulate_axis(ctx->in[1], ctx->in[0]->rank, &axis, err);
}

/* y[i] = y[i - 1] op x[i] (or x[i - 1], exclusive) over `length` rows of `inner` elements, `step` rows apart */
#define RUN(T, COMBINE)                                                                  \
  for (size_t o = 0; o < outer; o++) {                                                   \
    const T *xs = (const T *)x->data + (o * length + first) * inner;                     \
    T *ys = (T *)y->data + (o * length + first) * inner;                                 \
    for (size_t j = 0; j < inner; j++) ys[j] = exclusive ? (T)neutral : xs[j];           \
    for (size_t i = 1; i < length; i++, xs += step, ys += step)                          \
      for (size_t j = 0; j < inner; j++) {                                               \
        const T a = ys[j], b = exclusive ? xs[j] : xs[step + (ptrdiff_t)j];              \
        ys[step + (ptrdiff_t)j] = (T)(COMBINE);                                          \
      }                                                                                  \
  }
#define CASES(ADD, MULTIPLY, T) \
  if (product) RUN(T, MULTIPLY) \
  else RUN(T, ADD)
#define CASE_FLOAT(DTYPE, T) case DTYPE: { CASES(a + b, a * b, T) } break;
#define CASE_INTEGER(DTYPE, T) case DTYPE: { CASES((uint64_t)a + (uint64_t)b, (uint64_t)a * (uint64_t)b, T) } break;

static void run_half(const ml_view *x, const ml_view *y, size_t outer, size_t length, size_t inner, size_t first, ptrdiff_t step,
                     bool exclusive, bool product) {
  const float neutral = product ? 1 : 0;
  for (size_t o = 0; o < outer; o++)
    for (size_t j = 0; j < inner; j++) {
      size_t at = (o * length + first) * inner + j;
      float sum = neutral;
      for (size_t i = 0; i < length; i++, at = (size_t)((ptrdiff_t)at + step)) {
        const float value = (float)ml_element_get(x->data, x->dtype, at);
        if (exclusive) ml_element_set(y->data, y->dtype, at, (double)sum);
        sum = product ? sum * value : sum + value;
        if (!exclusive) ml_element_set(y->data, y->dtype, at, (double)sum);
        else continue;
        sum = (float)ml_element_get(y->data, y->dtype, at);
      }
    }
}

ml_status ml__cumulate_run(ml_op_ctx *ctx, bool product, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  int32_t axis = 0;
  ML_TRY(ml__cumulate_axis(ctx->in[1], x->rank, &axis, err));
  if (y->count == 0) return ML_OK;
  const bool exclusive = ml_attr_int(ctx->attrs, "exclusive", 0) != 0, reverse = ml_attr_int(ctx->attrs, "reverse", 0) != 0;
  const size_t outer = ml__extent(x->dims, 0, axis), length = (size_t)x->dims[axis],
               inner = ml__extent(x->dims, axis + 1, x->rank), first = reverse ? length - 1 : 0;
  const ptrdiff_t step = reverse ? -(ptrdiff_t)inner : (ptrdiff_t)inner;
  const int neutral = product ? 1 : 0;
  switch (x->dtype) {
    CASE_FLOAT(ML_FLOAT32, float)
    CASE_FLOAT(ML_FLOAT64, double)
    CASE_INTEGER(ML_INT32, int32_t)
    CASE_INTEGER(ML_INT64, int64_t)
    CASE_INTEGER(ML_UINT32, uint32_t)
    CASE_INTEGER(ML_UINT64, uint64_t)
    default: run_half(x, y, outer, length, inner, first, step, exclusive, product); break;
  }
  return ML_OK;
}
