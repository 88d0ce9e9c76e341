/* LayerNormalization 17: Y = (X - mean) InvStdDev Scale + B with mean and InvStdDev = 1/sqrt(var + epsilon) over the dimensions
 * from axis on. X (D…, n…), Scale, B (optional), both broadcast to (n…) -> Y (D…, n…), Mean, InvStdDev (D…, 1…) in
 * the type of stash_type. Ba, Kiros & Hinton 2016; ONNX operator specification. Gradient: mlserve.LayerNormalizationGrad, which
 * makes the statistics again. */
#include "ops/layer_norm.h"
#include <math.h>
#include <string.h>
#include "base/thread.h"

enum { CHUNK = 1 << 16 }; /* elements per parallel chunk */

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "-1 (default): first of the normalised dimensions" },
  { "epsilon", ML_ATTR_FLOAT, false, "1e-5 (default): added to the variance" },
  { "stash_type", ML_ATTR_INT, false, "1 (default, float32): element type of Mean and InvStdDev; also 11 (float64), 10 and 16" },
  { 0 },
};

/* ---------------------------------------------------------------- shared with the gradient ---- */
ml_status ml__rows_of(const ml_op_ctx *ctx, const ml_view *x, ml__rows *out, ml_error *err) {
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &out->axis, err));
  out->rows = ml__extent(x->dims, 0, out->axis);
  out->n = ml__extent(x->dims, out->axis, x->rank);
  return ML_OK;
}

ml_status ml__check_normalised(const ml_op_ctx *ctx, const ml_view *x, const ml_view *v, const char *what, ml_error *err) {
  int32_t axis;
  char a[96], b[96];
  if (v->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s, X is %s", what, ml_dtype_name(v->dtype), ml_dtype_name(x->dtype));
  if (x->rank == ML_UNKNOWN || v->rank == ML_UNKNOWN) return ML_OK;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
  bool fits = v->rank <= x->rank;
  for (int32_t i = 0; fits && i < v->rank; i++) {
    int32_t k = i + x->rank - v->rank;
    fits = v->dims[i] < 0 || v->dims[i] == 1 || (k >= axis && (x->dims[k] < 0 || x->dims[k] == v->dims[i]));
  }
  if (fits) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s: shape %s does not broadcast to the dimensions of X %s from axis %d on", what,
                 ml_shape_format(v->dims, v->rank, a, sizeof a), ml_shape_format(x->dims, x->rank, b, sizeof b), (int)axis);
}

const void *ml__spread(const ml_view *x, const ml__rows *d, const ml_view *v, void *room) {
  if (!v || v->count == d->n) return v ? v->data : NULL;
  int64_t from[ML_MAX_RANK], to[ML_MAX_RANK];
  int32_t rank = x->rank - d->axis, skip = v->rank > rank ? v->rank - rank : 0; /* leading 1s */
  ml__broadcast_strides(v->dims + skip, v->rank - skip, rank, from);
  ml__strides(x->dims + d->axis, rank, to);
  ml__move(x->dims + d->axis, rank, ml_dtype_size(x->dtype), v->data, from, room, to);
  return room;
}

#define ROW_MOMENTS(T)                                                                                             \
  {                                                                                                                \
    const T *v = x;                                                                                                \
    double lane[8] = { 0 }, square[8] = { 0 }, m, s;                                                               \
    size_t i = 0;                                                                                                  \
    for (; i + 8 <= n; i += 8)                                                                                     \
      for (size_t k = 0; k < 8; k++) lane[k] += (double)v[i + k];                                                  \
    for (; i < n; i++) lane[i % 8] += (double)v[i];                                                                \
    m = ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));                 \
    m /= (double)n;                                                                                                \
    for (i = 0; i + 8 <= n; i += 8)                                                                                \
      for (size_t k = 0; k < 8; k++) square[k] += ((double)v[i + k] - m) * ((double)v[i + k] - m);                 \
    for (; i < n; i++) square[i % 8] += ((double)v[i] - m) * ((double)v[i] - m);                                   \
    s = ((square[0] + square[4]) + (square[2] + square[6])) + ((square[1] + square[5]) + (square[3] + square[7])); \
    *mean = m;                                                                                                     \
    *inv = 1 / sqrt(s / (double)n + eps);                                                                          \
  }

void ml__row_moments(const void *x, ml_dtype dtype, size_t n, double eps, double *mean, double *inv) {
  if (dtype == ML_FLOAT32) ROW_MOMENTS(float)
  else ROW_MOMENTS(double)
}

/* ---------------------------------------------------------------- operator ---- */
static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  int64_t stash = ml_attr_int(ctx->attrs, "stash_type", 1), dims[ML_MAX_RANK] = { 0 };
  int32_t axis = 0;
  if (stash != ML_FLOAT32 && stash != ML_FLOAT64 && stash != ML_FLOAT16 && stash != ML_BFLOAT16)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute stash_type is %lld, expected a float type: 1, 10, 11 or 16",
                   (long long)stash);
  ML_TRY(ml__check_normalised(ctx, x, ctx->in[1], "Scale", err));
  if (ml__in(ctx, 2)) ML_TRY(ml__check_normalised(ctx, x, ctx->in[2], "B", err));
  if (x->rank != ML_UNKNOWN) {
    ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
    for (int32_t i = 0; i < x->rank; i++) dims[i] = i < axis ? x->dims[i] : 1;
  }
  ml_op_like(ctx->out[0], x);
  ml_op_set(ml__out(ctx, 1), (ml_dtype)stash, dims, x->rank);
  ml_op_set(ml__out(ctx, 2), (ml_dtype)stash, dims, x->rank);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  const ml_view *x = ctx->in[0], *b = ml__in(ctx, 2);
  ml__rows d;
  *bytes = 0;
  ML_TRY(ml__rows_of(ctx, x, &d, err));
  if (ctx->in[1]->count != d.n || (b && b->count != d.n))
    *bytes = 2 * d.n * ml_dtype_size(x->dtype); /* n is bounded by x's own bytes */
  return ML_OK;
}

typedef struct task {
  ml_op_ctx *ctx;
  ml__rows d;
  size_t step;
  double eps;
  const void *scale, *bias;
} task;

static void chunk(void *context, size_t index) {
  const task *t = context;
  const ml_view *x = t->ctx->in[0];
  ml_view *means = ml__out(t->ctx, 1), *invs = ml__out(t->ctx, 2);
  size_t begin = index * t->step, end = begin + t->step < t->d.rows ? begin + t->step : t->d.rows, n = t->d.n;
  ML_SWITCH_FLOAT(x->dtype, {
    const T *scale = t->scale;
    const T *bias = t->bias;
    for (size_t r = begin; r < end; r++) {
      const T *from = (const T *)x->data + r * n;
      T *to = (T *)t->ctx->out[0]->data + r * n;
      double mean;
      double inv;
      ml__row_moments(from, x->dtype, n, t->eps, &mean, &inv);
      if (means) ml_element_set(means->data, means->dtype, r, mean);
      if (invs) ml_element_set(invs->data, invs->dtype, r, inv);
      if (bias)
        for (size_t i = 0; i < n; i++) to[i] = (T)(((double)from[i] - mean) * inv * (double)scale[i] + (double)bias[i]);
      else
        for (size_t i = 0; i < n; i++) to[i] = (T)(((double)from[i] - mean) * inv * (double)scale[i]);
    }
  })
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  task t = { .ctx = ctx, .eps = (double)ml_attr_float(ctx->attrs, "epsilon", 1e-5f) };
  ML_TRY(ml__rows_of(ctx, x, &t.d, err));
  ML_TRY(ml__check_normalised(ctx, x, ctx->in[1], "Scale", err));
  if (ml__in(ctx, 2)) ML_TRY(ml__check_normalised(ctx, x, ctx->in[2], "B", err));
  if (x->count == 0) return ML_OK;
  t.scale = ml__spread(x, &t.d, ctx->in[1], ctx->workspace);
  t.bias = ml__spread(x, &t.d, ml__in(ctx, 2), (char *)ctx->workspace + (ctx->workspace ? t.d.n * ml_dtype_size(x->dtype) : 0));
  t.step = t.d.n >= CHUNK ? 1 : CHUNK / t.d.n;
  size_t chunks = (t.d.rows + t.step - 1) / t.step;
  if (chunks == 1) chunk(&t, 0);
  else ml_parallel(chunks, chunk, &t);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr list[2] = { ml_attr_of_float("epsilon", ml_attr_float(g->attrs, "epsilon", 1e-5f)),
                      ml_attr_of_int("axis", ml_attr_int(g->attrs, "axis", -1)) };
  ml_value *in[3] = { g->dout[0], g->in[0], g->in[1] }, *out[3] = { NULL, NULL, NULL };
  bool stats = (g->n_out > 1 && g->dout[1]) || (g->n_out > 2 && g->dout[2]);
  if (stats) ml_g_fail(g, "not through Mean or InvStdDev");
  if (!g->dout[0]) return;
  (void)g->emit(g, "mlserve.LayerNormalizationGrad", list, 2, 3, in, 3, out);
  if (g->needs[0]) g->din[0] = out[0];
  if (g->needs[1]) g->din[1] = ml_g_reduce_to(g, out[1], g->in[1]);
  if (g->n_in > 2 && g->in[2] && g->needs[2]) g->din[2] = ml_g_reduce_to(g, out[2], g->in[2]);
}

const ml_op_def ml_op_layer_normalization = {
  .name = "LayerNormalization", .domain = "", .since = 17, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 3, .attrs = attrs,
  .types = { ML_MASK_F }, .like = { 0, ML_OP_OWN, ML_OP_OWN },
  .formula = "Y = (X - mean) / sqrt(var + epsilon) Scale + B", .infer = infer, .workspace = workspace, .run = run, .gradient = gradient,
};
