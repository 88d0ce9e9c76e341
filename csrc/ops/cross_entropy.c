/* Losses on class labels; see cross_entropy.h. log softmax is x - max - log sum exp(x - max); rows of float32 (no D) go to the
 * kernel, blocks of ROWS at a time through the workspace when nobody wants the log-probabilities. */
#include "ops/cross_entropy.h"
#include <math.h>
#include <string.h>
#include "kernels/kernels.h"

enum { ROWS = 32 };

const ml_attr_def ml__cross_entropy_attrs[] = {
  { "reduction", ML_ATTR_STRING, false, "\"mean\" (default), \"sum\" or \"none\"" },
  { "ignore_index", ML_ATTR_INT, false, "label that costs nothing; may be outside [0, C)" },
  { 0 },
};

/* ---------------------------------------------------------------- shapes ---- */
static ml_status check(const ml_op_ctx *ctx, const ml_view *weights, ml_error *err) {
  const ml_view *x = ctx->in[0], *labels = ctx->in[1];
  char a[96], b[96];
  ml_shape_format(x->dims, x->rank, a, sizeof a);
  ml_shape_format(labels->dims, labels->rank, b, sizeof b);
  if (labels->dtype != ML_INT32 && labels->dtype != ML_INT64)
    return ml_fail(err, ML_INVALID_ARGUMENT, "labels: expected int32 or int64, got %s", ml_dtype_name(labels->dtype));
  if (!ml_attr_is(ctx->attrs, "reduction", "mean", "mean") && !ml_attr_is(ctx->attrs, "reduction", "mean", "sum") &&
      !ml_attr_is(ctx->attrs, "reduction", "mean", "none")) {
    ml_str s = ml_attr_str(ctx->attrs, "reduction", "mean");
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute reduction: expected mean, sum or none, got '%.*s'",
                   s.length > 64 ? 64 : (int)s.length, s.bytes);
  }
  if (weights && weights->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "weights are %s, scores %s, expected one type", ml_dtype_name(weights->dtype),
                   ml_dtype_name(x->dtype));
  if (x->rank != ML_UNKNOWN && x->rank < 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "scores: expected (N, C, …), got shape %s", a);
  if (x->rank != ML_UNKNOWN && labels->rank != ML_UNKNOWN) {
    bool fits = labels->rank == x->rank - 1;
    for (int32_t i = 0; fits && i < labels->rank; i++) {
      int64_t want = x->dims[i == 0 ? 0 : i + 1], got = labels->dims[i];
      fits = want < 0 || got < 0 || want == got;
    }
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "labels %s: expected the shape of the scores %s without its second dimension", b,
                     a);
  }
  if (weights && weights->rank != ML_UNKNOWN &&
      (weights->rank != 1 || (x->rank > 1 && x->dims[1] >= 0 && weights->dims[0] >= 0 && weights->dims[0] != x->dims[1])))
    return ml_fail(err, ML_INVALID_ARGUMENT, "weights %s: expected one value per class of scores %s",
                   ml_shape_format(weights->dims, weights->rank, b, sizeof b), a);
  return ML_OK;
}

/* dims of the labels as far as scores or labels tell */
static int32_t label_dims(const ml_op_ctx *ctx, int64_t *dims) {
  const ml_view *x = ctx->in[0], *labels = ctx->in[1];
  int32_t rank = labels->rank != ML_UNKNOWN ? labels->rank : x->rank != ML_UNKNOWN ? x->rank - 1 : ML_UNKNOWN;
  for (int32_t i = 0; i < rank; i++) {
    dims[i] = labels->rank != ML_UNKNOWN ? labels->dims[i] : ML_UNKNOWN;
    if (dims[i] < 0 && x->rank != ML_UNKNOWN) dims[i] = x->dims[i == 0 ? 0 : i + 1];
  }
  return rank;
}

ml_status ml__cross_entropy_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  int64_t dims[ML_MAX_RANK] = { 0 };
  ML_TRY(check(ctx, ml__in(ctx, 2), err));
  int32_t rank = ml_attr_is(ctx->attrs, "reduction", "mean", "none") ? label_dims(ctx, dims) : 0;
  ml_op_set(ml__out(ctx, 0), ctx->in[0]->dtype, dims, rank);
  if (ml__out(ctx, 1)) ml_op_like(ctx->out[1], ctx->in[0]);
  return ML_OK;
}

ml_status ml__cross_entropy_grad_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  int64_t dims[ML_MAX_RANK] = { 0 };
  const ml_view *dloss = ctx->in[2];
  char text[96];
  ML_TRY(check(ctx, ml__in(ctx, 3), err));
  int32_t rank = ml_attr_is(ctx->attrs, "reduction", "mean", "none") ? label_dims(ctx, dims) : 0;
  bool fits = dloss->rank == ML_UNKNOWN || rank == ML_UNKNOWN || dloss->rank == rank;
  for (int32_t i = 0; fits && i < rank; i++)
    fits = dims[i] < 0 || dloss->rank == ML_UNKNOWN || dloss->dims[i] < 0 || dims[i] == dloss->dims[i];
  if (!fits || dloss->dtype != ctx->in[0]->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dloss: expected a %s of the loss's shape, got %s %s",
                   ml_dtype_name(ctx->in[0]->dtype), ml_dtype_name(dloss->dtype),
                   ml_shape_format(dloss->dims, dloss->rank, text, sizeof text));
  ml_op_like(ctx->out[0], ctx->in[0]);
  return ML_OK;
}

/* ---------------------------------------------------------------- labels ---- */
typedef struct problem {
  size_t N, C, D;
  const ml_view *labels;
  const ml_view *weights; /* NULL: all 1 */
  bool ignores;
  int64_t ignored;
} problem;

static ml_status problem_of(const ml_op_ctx *ctx, const ml_view *weights, problem *p, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const ml_attr *ignore = ml_attr_find(ctx->attrs, "ignore_index");
  *p = (problem) { (size_t)x->dims[0], (size_t)x->dims[1],       ml__extent(x->dims, 2, x->rank), ctx->in[1], weights,
                   ignore != NULL,     ignore ? ignore->as.i : 0 };
  if (p->labels->count != p->N * p->D)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%zu labels, expected %zu", p->labels->count, p->N * p->D);
  if (weights && weights->count != p->C)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%zu weights, expected %zu", weights->count, p->C);
  return ML_OK;
}

/* Class and weight of element i; *label is -1 and *weight 0 for an ignored one. */
static ml_status label_at(const problem *p, size_t i, int64_t *label, double *weight, ml_error *err) {
  int64_t t = p->labels->dtype == ML_INT64 ? ((const int64_t *)p->labels->data)[i] : ((const int32_t *)p->labels->data)[i];
  *weight = 0;
  *label = -1;
  if (p->ignores && t == p->ignored) return ML_OK;
  if (t < 0 || (uint64_t)t >= p->C)
    return ml_fail(err, ML_OUT_OF_RANGE, "label %zu is %lld, expected 0 to %lld", i, (long long)t, (long long)p->C - 1);
  *label = t;
  *weight = p->weights ? ml_element_get(p->weights->data, p->weights->dtype, (size_t)t) : 1;
  return ML_OK;
}

/* ---------------------------------------------------------------- forward ---- */
/* max and log sum exp(x - max) of the C scores at x, stride D */
#define LOG_SUM_EXP(T, x, C, D, top, sum)                                   \
  double top = -INFINITY, sum = 0;                                          \
  for (size_t c = 0; c < (C); c++) {                                        \
    double score = (double)(x)[c * (D)];                                    \
    if (score > top || score != score) top = score;                         \
  }                                                                         \
  if (isinf(top) && top < 0) top = 0; /* all -inf: no probability at all */ \
  for (size_t c = 0; c < (C); c++) sum += exp((double)(x)[c * (D)] - top);

ml_status ml__cross_entropy_workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  const ml_view *x = ctx->in[0];
  *bytes = 0;
  if (x->dtype != ML_FLOAT32 || x->rank != 2 || ml__out(ctx, 1)) return ML_OK;
  if (!ml_mul_size((size_t)x->dims[1], ROWS * sizeof(float), bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%lld classes are too many", (long long)x->dims[1]);
  return ML_OK;
}

/* Sums of cost and weight over the elements; each cost too when `each` is given. */
typedef struct tally {
  double cost, weight;
  void *each;
} tally;

static void count_element(ml_dtype dtype, size_t i, int64_t label, double weight, double log_p, tally *t) {
  double l = label < 0 ? 0 : -weight * log_p;
  t->cost += l;
  t->weight += weight;
  if (t->each) ml_element_set(t->each, dtype, i, l);
}

/* logs: log-probabilities of elements [begin, end) when D is 1, of everything (begin 0) otherwise */
static ml_status tally_logs(const problem *p, ml_dtype dtype, const void *logs, size_t begin, size_t end, tally *t,
                            ml_error *err) {
  for (size_t i = begin; i < end; i++) {
    int64_t label;
    double weight;
    ML_TRY(label_at(p, i, &label, &weight, err));
    size_t at = ((i - begin) / p->D * p->C + (size_t)(label < 0 ? 0 : label)) * p->D + (i - begin) % p->D;
    count_element(dtype, i, label, weight, label < 0 ? 0 : ml_element_get(logs, dtype, at), t);
  }
  return ML_OK;
}

static void log_softmax(const problem *p, const ml_kernels *kernels, ml_dtype dtype, const void *from, void *to) {
  if (dtype == ML_FLOAT32 && p->D == 1) {
    kernels->softmax_f32(from, to, p->N, p->C, true);
    return;
  }
  ML_SWITCH_FLOAT(dtype, {
    for (size_t i = 0; i < p->N * p->D; i++) {
      const T *x = (const T *)from + i / p->D * p->C * p->D + i % p->D;
      T *y = (T *)to + (x - (const T *)from);
      LOG_SUM_EXP(T, x, p->C, p->D, top, sum)
      double shift = top + log(sum);
      for (size_t c = 0; c < p->C; c++) y[c * p->D] = (T)((double)x[c * p->D] - shift);
    }
  })
}

/* No log-probabilities wanted: scores of one element at a time, or blocks of rows through the workspace. */
static ml_status tally_scores(const problem *p, ml_op_ctx *ctx, tally *t, ml_error *err) {
  const ml_view *x = ctx->in[0];
  if (x->dtype == ML_FLOAT32 && x->rank == 2) {
    for (size_t n = 0; n < p->N; n += ROWS) {
      size_t rows = p->N - n < ROWS ? p->N - n : ROWS;
      ctx->run->kernels->softmax_f32((const float *)x->data + n * p->C, ctx->workspace, rows, p->C, true);
      ML_TRY(tally_logs(p, ML_FLOAT32, ctx->workspace, n, n + rows, t, err));
    }
    return ML_OK;
  }
  ML_SWITCH_FLOAT(x->dtype, {
    for (size_t i = 0; i < p->N * p->D; i++) {
      const T *v = (const T *)x->data + i / p->D * p->C * p->D + i % p->D;
      int64_t label;
      double weight;
      ML_TRY(label_at(p, i, &label, &weight, err));
      LOG_SUM_EXP(T, v, p->C, p->D, top, sum)
      count_element(x->dtype, i, label, weight, label < 0 ? 0 : (double)v[(size_t)label * p->D] - top - log(sum), t);
    }
  })
  return ML_OK;
}

ml_status ml__cross_entropy_run(ml_op_ctx *ctx, bool softmax, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *loss = ml__out(ctx, 0), *logs = ml__out(ctx, 1);
  bool none = ml_attr_is(ctx->attrs, "reduction", "mean", "none");
  problem p;
  ML_TRY(problem_of(ctx, ml__in(ctx, 2), &p, err));
  tally t = { 0, 0, none && loss ? loss->data : NULL };
  if (x->count > 0) {
    if (logs) log_softmax(&p, ctx->run->kernels, x->dtype, x->data, logs->data);
    if (logs || !softmax) ML_TRY(tally_logs(&p, x->dtype, logs ? logs->data : x->data, 0, p.N * p.D, &t, err));
    else ML_TRY(tally_scores(&p, ctx, &t, err));
  }
  if (!none && loss)
    ml_element_set(loss->data, x->dtype, 0, ml_attr_is(ctx->attrs, "reduction", "mean", "mean") ? t.cost / t.weight : t.cost);
  return ML_OK;
}

/* ---------------------------------------------------------------- backward ---- */
ml_status ml__cross_entropy_grad_run(ml_op_ctx *ctx, bool softmax, ml_error *err) {
  const ml_view *x = ctx->in[0], *dloss = ctx->in[2];
  ml_view *dx = ctx->out[0];
  bool none = ml_attr_is(ctx->attrs, "reduction", "mean", "none");
  problem p;
  int64_t label;
  double weight, total = 0;
  ML_TRY(problem_of(ctx, ml__in(ctx, 3), &p, err));
  if (dloss->count != (none ? p.N * p.D : 1)) return ml_fail(err, ML_INVALID_ARGUMENT, "dloss has %zu elements", dloss->count);
  for (size_t i = 0; i < p.N * p.D && p.C > 0; i++) { /* every label is checked before anything is written */
    ML_TRY(label_at(&p, i, &label, &weight, err));
    total += weight;
  }
  if (x->count == 0) return ML_OK;
  if (!ml_attr_is(ctx->attrs, "reduction", "mean", "mean")) total = 1;
  bool rows = softmax && x->dtype == ML_FLOAT32 && p.D == 1;
  if (rows) ctx->run->kernels->softmax_f32(x->data, dx->data, p.N, p.C, false);
  ML_SWITCH_FLOAT(x->dtype, {
    for (size_t i = 0; i < p.N * p.D; i++) {
      size_t base = i / p.D * p.C * p.D + i % p.D;
      const T *v = (const T *)x->data + base;
      T *d = (T *)dx->data + base;
      ML_TRY(label_at(&p, i, &label, &weight, err));
      double scale = label < 0 ? 0 : weight * ml_element_get(dloss->data, dloss->dtype, none ? i : 0) / total;
      if (!softmax || label < 0) {
        for (size_t c = 0; c < p.C; c++) d[c * p.D] = 0;
      } else if (rows) {
        for (size_t c = 0; c < p.C; c++) d[c] = (T)((T)scale * d[c]);
      } else {
        LOG_SUM_EXP(T, v, p.C, p.D, top, sum)
        for (size_t c = 0; c < p.C; c++) d[c * p.D] = (T)(scale * exp((double)v[c * p.D] - top) / sum);
      }
      if (label >= 0) d[(size_t)label * p.D] -= (T)scale;
    }
  })
  return ML_OK;
}

ml_value *ml__cross_entropy_gradient(ml_grad *g, const char *op) {
  ml_value *in[4] = { g->in[0], g->in[1], g->dout[0], g->n_in > 2 ? g->in[2] : NULL };
  if (!g->dout[0]) return NULL;
  return ml_gn(g, op, g->attrs->items, g->attrs->count, in[3] ? 4 : 3, in);
}
