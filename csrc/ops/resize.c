/* Resize 19: Y = X resampled to another size, axis by axis: nearest, linear or cubic, with ONNX's coordinate transformations,
 * antialiasing and aspect ratio policies.
 * X (any shape), roi (optional), scales (optional float32), sizes (optional int64) -> Y; exactly one of scales and sizes is
 * given. Integers are interpolated in double and rounded. ONNX operator specification. Gradient: mlserve.ResizeGrad (every mode).
 */
#include <math.h>
#include <string.h>
#include "ops/resize.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  ml__resize r;
  bool known;
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(ml__resize_read(ctx, x, 1, &r, &known, err));
  if (r.mode != ML__RESIZE_NEAREST && !(ml_dtype_is_integer(x->dtype) || x->dtype == ML_FLOAT32 || x->dtype == ML_FLOAT64))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, which only mode nearest takes", ml_dtype_name(x->dtype));
  ml_op_set(ctx->out[0], x->dtype, r.out, x->rank);
  return ML_OK;
}

typedef struct memory { /* offsets into the workspace */
  size_t between, elements, converted, total;
  ml_dtype dtype; /* of the arithmetic */
} memory;

static ml_status plan(const ml__resize *r, const ml_view *x, const ml_view *y, memory *m, ml_error *err) {
  int32_t passes;
  size_t n;
  *m = (memory){ .dtype = ml_dtype_is_integer(x->dtype) ? ML_FLOAT64 : x->dtype };
  ML_TRY(ml__resize_table_bytes(r, &m->between, err));
  m->converted = m->total = m->between;
  if (r->mode == ML__RESIZE_NEAREST) return ML_OK;
  ML_TRY(ml__resize_between(r, false, &m->elements, &passes, err));
  bool fits = ml_mul_size(m->elements, 2 * sizeof(double), &n) && ml_add_size(m->between, n, &m->converted);
  m->total = m->converted;
  if (fits && m->dtype != x->dtype)
    fits = ml_add_size(x->count, y->count, &n) && ml_mul_size(n, sizeof(double), &n) && ml_add_size(m->total, n, &m->total);
  return fits ? ML_OK : ml_fail(err, ML_RESOURCE_EXHAUSTED, "X is too large to be resized");
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  ml__resize r;
  memory m;
  bool known;
  *bytes = 0;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(ml__resize_read(ctx, ctx->in[0], 1, &r, &known, err));
  if (!known) return ml_fail(err, ML_INVALID_ARGUMENT, "scales or sizes have no values");
  ML_TRY(plan(&r, ctx->in[0], ctx->out[0], &m, err));
  *bytes = m.total;
  return ML_OK;
}

/* Every output is one input (or the extrapolation value): a gather of elements of any type. */
static void gather(const ml__resize *r, const ml_view *x, const ml_view *y) {
  size_t size = ml_dtype_size(x->dtype);
  int64_t own[ML_MAX_RANK], index[ML_MAX_RANK] = { 0 };
  const int32_t last = r->rank - 1;
  const ml__resize_axis *a = &r->axis[last];
  ml_str outside = { 0 }; /* room for any element */
  if (x->dtype != ML_STRING) ml_element_set(&outside, x->dtype, 0, r->extrapolation);
  ml__strides(x->dims, x->rank, own);
  char *to = y->data;
  const size_t width = (size_t)r->out[last];
  for (size_t row = 0; row < y->count / width; row++) {
    int64_t offset = 0;
    for (int32_t d = 0; d < last && offset >= 0; d++) {
      int64_t at = r->axis[d].active ? r->axis[d].index[index[d]] : index[d];
      offset = at < 0 ? -1 : offset + at * own[d];
    }
    const char *from = (const char *)x->data + (offset < 0 ? 0 : (size_t)offset * size);
    if (offset < 0) ml__fill(to, &outside, size, width);
    else if (!a->active) memcpy(to, from, width * size);
    else if (size == 4)
      for (size_t i = 0; i < width; i++)
        memcpy(to + i * 4, a->index[i] < 0 ? (const char *)&outside : from + (size_t)a->index[i] * 4, 4);
    else
      for (size_t i = 0; i < width; i++)
        memcpy(to + i * size, a->index[i] < 0 ? (const char *)&outside : from + (size_t)a->index[i] * size, size);
    to += width * size;
    for (int32_t d = last - 1; d >= 0; d--) {
      if (++index[d] < r->out[d]) break;
      index[d] = 0;
    }
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  ml__resize r;
  memory m;
  bool known;
  if (y->count == 0) return ML_OK;
  ML_TRY(ml__resize_read(ctx, x, 1, &r, &known, err));
  if (!known || !ml_shape_equal(r.out, r.rank, y->dims, y->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "scales or sizes do not give the planned shape");
  if (r.rank == 0) {
    memcpy(y->data, x->data, ml_dtype_size(x->dtype));
    return ML_OK;
  }
  ML_TRY(plan(&r, x, y, &m, err));
  char *memory_at = ctx->workspace;
  ml__resize_tables(&r, memory_at);
  if (r.mode == ML__RESIZE_NEAREST) {
    gather(&r, x, y);
    return ML_OK;
  }
  if (m.dtype == x->dtype) {
    ml__resize_all(&r, false, m.dtype, x->data, y->data, memory_at + m.between, m.elements);
    return ML_OK;
  }
  double *from = (double *)(void *)(memory_at + m.converted), *to = from + x->count;
  ml_convert(x->data, x->dtype, from, ML_FLOAT64, x->count);
  ml__resize_all(&r, false, ML_FLOAT64, from, to, memory_at + m.between, m.elements);
  for (size_t i = 0; i < y->count; i++) to[i] = rint(to[i]);
  ml_convert(to, ML_FLOAT64, y->data, y->dtype, y->count);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *in[5] = { g->dout[0], g->in[0] };
  if (!g->needs[0] || !g->dout[0]) return;
  for (int32_t i = 1; i < g->n_in; i++) in[i + 1] = g->in[i];
  g->din[0] = ml_gn(g, "mlserve.ResizeGrad", g->attrs->items, g->attrs->count, (size_t)g->n_in + 1, in);
}

const ml_op_def ml_op_resize = {
  .name = "Resize", .domain = "", .since = 19, .min_in = 1, .max_in = 4, .min_out = 1, .max_out = 1, .attrs = ml__resize_attrs,
  .types = { ML_MASK_ANY, ML_MASK_F | ML_BIT(ML_FLOAT16), ML_BIT(ML_FLOAT32), ML_BIT(ML_INT64) }, .formula = "Y = X resampled",
  .infer = infer,
  .workspace = workspace, .run = run, .gradient = gradient,
};
