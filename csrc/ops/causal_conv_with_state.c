/* CausalConvWithState: every channel convolved with its own taps over past positions only, the last k - 1 inputs carried over.
 * p = past_state then X along the positions (zeros without one), Y[b, c, t] = act(B[c] + sum_j W[c, 0, j] p[b, c, t + j]).
 * X (N, C, L), W (C, 1, k), B (C) and past_state (N, C, k - 1) optional -> Y like X, present_state (N, C, k - 1): the end of p.
 * activation: none, or silu (= swish): y sigmoid(y). 16-bit floats are computed in float32, rounded before the activation as in
 * the operator's function body. Gradient: that of Conv on p with as many groups as channels, p's gradient cut into past and X.
 * Reference: ONNX CausalConvWithState-27. */
#include <math.h>
#include <string.h>
#include "base/thread.h"
#include "ops/elementwise.h"
#include "ops/movement.h"

enum { SLICES = 16 }; /* of the rows, for the thread pool */

#define MASK (ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16))

static bool has_activation(const ml_attrs *attrs) { return !ml_attr_is(attrs, "activation", "none", "none"); }

static ml_status expect_shape(const ml_view *x, const char *what, const int64_t *dims, int32_t rank, ml_error *err) {
  if (x == NULL || x->rank == ML_UNKNOWN) return ML_OK;
  bool fits = x->rank == rank;
  for (int32_t d = 0; d < rank && fits; d++) fits = x->dims[d] == ML_UNKNOWN || dims[d] == ML_UNKNOWN || x->dims[d] == dims[d];
  if (fits) return ML_OK;
  char text[2][96];
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s has shape %s, expected %s", what,
                 ml_shape_format(x->dims, x->rank, text[0], sizeof text[0]), ml_shape_format(dims, rank, text[1],
                                                                                             sizeof text[1]));
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  static const char *const names[] = { "X", "W", "B", "past_state" };
  const ml_view *x = ctx->in[0], *w = ctx->in[1];
  ML_TRY(ml__op_check_present(ctx, 2, err));
  ML_TRY(ml__op_check_types(ctx, err));
  if (has_activation(ctx->attrs) && !ml_attr_is(ctx->attrs, "activation", "none", "silu") &&
      !ml_attr_is(ctx->attrs, "activation", "none", "swish"))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'activation' is none of none, silu and swish");
  for (int32_t i = 1; i < ctx->n_in; i++)
    if (ctx->in[i] != NULL && ctx->in[i]->dtype != x->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, %s is %s", ml_dtype_name(x->dtype), names[i],
                     ml_dtype_name(ctx->in[i]->dtype));
  const int64_t any[3] = { ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN };
  ML_TRY(expect_shape(x, names[0], any, 3, err));
  const int64_t batch = x->rank == 3 ? x->dims[0] : ML_UNKNOWN, channels = x->rank == 3 ? x->dims[1] : ML_UNKNOWN;
  ML_TRY(expect_shape(w, names[1], (const int64_t[]){ channels, 1, ML_UNKNOWN }, 3, err));
  const int64_t taps = w->rank == 3 ? w->dims[2] : ML_UNKNOWN, carried = taps == ML_UNKNOWN ? ML_UNKNOWN : taps - 1;
  if (taps == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "W has no taps");
  const int64_t state[3] = { batch, channels, carried };
  ML_TRY(expect_shape(ml__in(ctx, 2), names[2], &channels, 1, err));
  ML_TRY(expect_shape(ml__in(ctx, 3), names[3], state, 3, err));
  ml_op_set(ctx->out[0], x->dtype, x->dims, x->rank);
  ml_op_set(ml__out(ctx, 1), x->dtype, state, 3);
  return ML_OK;
}

/* ---------------------------------------------------------------- forward ---- */
typedef struct job {
  const ml_op_ctx *ctx;
  size_t channels, length, taps, rows, slices;
  ml_dtype dtype; /* of the computation */
  size_t size;
  size_t per_slice; /* bytes: p, taps, a row of y */
} job;

static ml_status measure(const ml_op_ctx *ctx, job *j, ml_error *err) {
  const ml_view *x = ctx->in[0];
  *j = (job){ .ctx = ctx, .channels = (size_t)x->dims[1], .length = (size_t)x->dims[2], .taps = (size_t)ctx->in[1]->dims[2],
              .rows = (size_t)x->dims[0] * (size_t)x->dims[1], .dtype = x->dtype == ML_FLOAT64 ? ML_FLOAT64 : ML_FLOAT32 };
  j->size = ml_dtype_size(j->dtype);
  j->slices = j->rows < SLICES ? j->rows : SLICES;
  size_t n;
  if (!ml_add_size(j->length, j->taps, &n) || !ml_mul_size(n, 2 * j->size, &n) || n > SIZE_MAX / (2 * SLICES))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the rows are too long");
  j->per_slice = (n + ML_ALIGN - 1) / ML_ALIGN * ML_ALIGN;
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  job j;
  ML_TRY(measure(ctx, &j, err));
  *bytes = j.slices * j.per_slice;
  return ML_OK;
}

/* count elements of a tensor from element `at` on, in the type of the computation; zeros when there is no tensor */
static void load(const job *j, const ml_view *from, size_t at, size_t count, void *to) {
  if (count == 0) return;
  if (from == NULL) memset(to, 0, count * j->size);
  else ml_convert((const char *)from->data + at * ml_dtype_size(from->dtype), from->dtype, to, j->dtype, count);
}

static void store(const job *j, const void *from, const ml_view *to, size_t at, size_t count) {
  if (to == NULL || count == 0) return;
  ml_convert(from, j->dtype, (char *)to->data + at * ml_dtype_size(to->dtype), to->dtype, count);
}

static void one_row(const job *j, size_t row, char *memory) {
  const ml_op_ctx *ctx = j->ctx;
  const size_t carried = j->taps - 1, channel = row % j->channels;
  char *padded = memory, *taps = padded + (carried + j->length) * j->size, *result = taps + j->taps * j->size;
  load(j, ml__in(ctx, 3), row * carried, carried, padded);
  load(j, ctx->in[0], row * j->length, j->length, padded + carried * j->size);
  load(j, ctx->in[1], channel * j->taps, j->taps, taps);
  store(j, padded + j->length * j->size, ml__out(ctx, 1), row * carried, carried);
  if (ctx->out[0] == NULL) return;
  ML_SWITCH_FLOAT(j->dtype, {
    const T *p = (const T *)(const void *)padded, *w = (const T *)(const void *)taps;
    T *y = (T *)(void *)result, bias = 0;
    if (ml__in(ctx, 2) != NULL) load(j, ctx->in[2], channel, 1, &bias);
    for (size_t t = 0; t < j->length; t++) y[t] = bias;
    for (size_t k = 0; k < j->taps; k++)
      for (size_t t = 0; t < j->length; t++) y[t] += w[k] * p[t + k];
    if (has_activation(ctx->attrs)) {
      if (ctx->out[0]->dtype != j->dtype) { /* the activation sees what a Conv of this type gives */
        store(j, y, ctx->out[0], row * j->length, j->length);
        load(j, ctx->out[0], row * j->length, j->length, y);
      }
      for (size_t t = 0; t < j->length; t++) y[t] /= 1 + (T)exp(-y[t]);
    }
  })
  store(j, result, ctx->out[0], row * j->length, j->length);
}

static void slice(void *context, size_t index) {
  const job *j = context;
  for (size_t row = index * j->rows / j->slices; row < (index + 1) * j->rows / j->slices; row++)
    one_row(j, row, (char *)j->ctx->workspace + index * j->per_slice);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  job j;
  ML_TRY(measure(ctx, &j, err));
  if (j.slices > 1 && (double)j.rows * (double)j.length * (double)j.taps >= 1e6) ml_parallel(j.slices, slice, &j);
  else
    for (size_t i = 0; i < j.slices; i++) slice(&j, i);
  return ML_OK;
}

/* ---------------------------------------------------------------- gradient ---- */
/* x[:, :, from : to] */
static ml_value *cut(ml_grad *g, ml_value *x, int64_t from, int64_t to) {
  const int64_t axis = 2;
  return ml_gn(g, "Slice", NULL, 0, 4, (ml_value *const[]){ x, g->ints(g, &from, 1), g->ints(g, &to, 1), g->ints(g, &axis, 1) });
}

static void gradient(ml_grad *g) {
  const ml_view *w = g->shape_of(g, g->in[1]);
  if (w == NULL) return;
  if (w->rank != 3 || w->dims[0] < 1 || w->dims[2] < 1) {
    ml_g_fail(g, "weights of unknown shape");
    return;
  }
  const int64_t channels = w->dims[0], carried = w->dims[2] - 1, pads[6] = { 0, 0, carried, 0, 0, 0 }, end = INT64_MAX;
  ml_value *past = g->n_in > 3 ? g->in[3] : NULL, *dy = g->dout[0], *padded, *dp = NULL;
  const ml_attr axis = ml_attr_of_int("axis", 2), group = ml_attr_of_int("group", channels);
  padded = past ? ml_gn(g, "Concat", &axis, 1, 2, (ml_value *const[]){ past, g->in[0] })
                : ml_g2(g, "Pad", g->in[0], g->ints(g, pads, 6));
  if (dy != NULL) {
    if (has_activation(g->attrs)) { /* through the activation: its input is computed again */
      ml_value *z = ml_gn(g, "CausalConvWithState", NULL, 0, (size_t)g->n_in, g->in);
      const ml_attr of[] = { ml_attr_of_str("function", "Swish"), ml_attr_of_float("alpha", 1), ml_attr_of_float("gamma", 0) };
      dy = ml_gn(g, "mlserve.UnaryGrad", of, 3, 2, (ml_value *const[]){ z, dy });
    }
    ml_value *out[2] = { NULL, NULL };
    if (g->emit(g, "mlserve.ConvGrad", &group, 1, 3, (ml_value *const[]){ dy, padded, g->in[1] }, 2, out) != ML_OK) return;
    dp = out[0];
    if (g->needs[1]) g->din[1] = out[1];
    if (g->n_in > 2 && g->in[2] != NULL && g->needs[2]) {
      const int64_t axes[] = { 0, 2 };
      const ml_attr keep = ml_attr_of_int("keepdims", 0);
      g->din[2] = ml_gn(g, "ReduceSum", &keep, 1, 2, (ml_value *const[]){ dy, g->ints(g, axes, 2) });
    }
  }
  if (g->n_out > 1 && g->dout[1] != NULL && carried > 0) {
    const int64_t from = -carried, last = 2;
    ml_value *back = ml_gn(g, "mlserve.SliceGrad", NULL, 0, 5,
                           (ml_value *const[]){ g->dout[1], padded, g->ints(g, &from, 1), g->ints(g, &end, 1),
                                                g->ints(g, &last, 1) });
    dp = dp != NULL ? ml_g2(g, "Add", dp, back) : back;
  }
  if (dp == NULL) return;
  if (g->needs[0]) g->din[0] = cut(g, dp, carried, end);
  if (past != NULL && g->needs[3]) g->din[3] = cut(g, dp, 0, carried);
}

static const ml_attr_def attrs[] = {
  { "activation", ML_ATTR_STRING, false, "none (default); silu or swish: y sigmoid(y)" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

static double flops(const ml_op_ctx *ctx) { return 2.0 * (double)ctx->in[0]->count * (double)ctx->in[1]->dims[2]; }

const ml_op_def ml_op_causal_conv_with_state = {
  .name = "CausalConvWithState", .domain = "", .since = 27, .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 2,
  .attrs = attrs,
  .types = { MASK },
  .formula = "Y = act(sum of taps of W past and X + B)",
  .infer = infer,
  .workspace = workspace,
  .run = run,
  .gradient = gradient,
  .flops = flops,
};
