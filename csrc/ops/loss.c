/* Per-element losses; see loss.h. Sums run in double over eight independent partial sums, in an order fixed by the shape. */
#include "ops/loss.h"
#include <math.h>
#include <string.h>
#include "kernels/kernels.h"

enum { LANES = 8, BLOCK = 256 };
#define EPSILON 1e-7 /* Keras's clipping of probabilities */

/* ---------------------------------------------------------------- shapes ---- */
/* Equal but for trailing dimensions of 1: (N) and (N,1) hold the same rows. Unknown dimensions match. */
static bool same_rows(const ml_view *a, const ml_view *b) {
  if (a->rank == ML_UNKNOWN || b->rank == ML_UNKNOWN) return true;
  int32_t most = a->rank > b->rank ? a->rank : b->rank;
  for (int32_t i = 0; i < most; i++) {
    int64_t x = i < a->rank ? a->dims[i] : 1, y = i < b->rank ? b->dims[i] : 1;
    if (x >= 0 && y >= 0 && x != y) return false;
  }
  return true;
}

static ml_status check(const ml_op_ctx *ctx, const ml_view *weight, ml_error *err) {
  const ml_view *pred = ctx->in[0], *target = ctx->in[1];
  char a[96], b[96];
  if (target->dtype != pred->dtype || (weight && weight->dtype != pred->dtype))
    return ml_fail(err, ML_INVALID_ARGUMENT, "predictions are %s, targets %s, weights %s, expected one type",
                   ml_dtype_name(pred->dtype), ml_dtype_name(target->dtype), weight ? ml_dtype_name(weight->dtype) : "left out");
  if (!same_rows(pred, target))
    return ml_fail(err, ML_INVALID_ARGUMENT, "target %s: expected the shape of the predictions, %s",
                   ml_shape_format(target->dims, target->rank, a, sizeof a),
                   ml_shape_format(pred->dims, pred->rank, b, sizeof b));
  if (weight && weight->rank != ML_UNKNOWN) {
    ml_view rows = { .rank = pred->rank == ML_UNKNOWN ? ML_UNKNOWN
                             : pred->rank > 0         ? 1
                                                      : 0,
                     .dims = { pred->rank > 0 ? pred->dims[0] : 1 } };
    if (!same_rows(&rows, weight))
      return ml_fail(err, ML_INVALID_ARGUMENT, "sample_weight %s: expected one value per row of %s",
                     ml_shape_format(weight->dims, weight->rank, a, sizeof a),
                     ml_shape_format(pred->dims, pred->rank, b, sizeof b));
  }
  float delta = ml_attr_float(ctx->attrs, "delta", 1);
  if (!(delta > 0)) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute delta is %g, expected more than 0", (double)delta);
  return ML_OK;
}

/* run() sees shapes that were partly unknown to infer */
static ml_status check_counts(const ml_view *pred, const ml_view *target, const ml_view *weight, size_t *rows, ml_error *err) {
  *rows = weight ? (pred->rank > 0 ? (size_t)pred->dims[0] : 1) : 1;
  if (target->count != pred->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "target has %zu elements, predictions %zu", target->count, pred->count);
  if (weight && weight->count != *rows)
    return ml_fail(err, ML_INVALID_ARGUMENT, "sample_weight has %zu elements, expected %zu", weight->count, *rows);
  return ML_OK;
}

ml_status ml__loss_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(check(ctx, ml__in(ctx, 2), err));
  ml_op_set(ctx->out[0], ctx->in[0]->dtype, NULL, 0);
  return ML_OK;
}

ml_status ml__loss_grad_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(check(ctx, ml__in(ctx, 3), err));
  if (ctx->in[2]->dtype != ctx->in[0]->dtype || ctx->in[2]->rank > 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dloss: expected a %s of rank 0", ml_dtype_name(ctx->in[0]->dtype));
  ml_op_like(ctx->out[0], ctx->in[0]);
  return ML_OK;
}

/* ---------------------------------------------------------------- forward ---- */
static inline __attribute__((always_inline)) double value_of(ml_pointwise loss, double p, double t, double low, double high,
                                                             double delta) {
  switch (loss) {
    case ML_LOSS_SQUARED: return (p - t) * (p - t);
    case ML_LOSS_ABSOLUTE: return fabs(p - t);
    case ML_LOSS_HUBER: {
      double e = fabs(p - t);
      return e <= delta ? 0.5 * e * e : delta * (e - 0.5 * delta);
    }
    case ML_LOSS_BINARY_CROSS_ENTROPY:
      p = p < low ? low : p > high ? high : p; /* a NaN stays */
      return -(t * log(p) + (1 - t) * log(1 - p));
    default: return fmax(p, 0) - p * t + log1p(exp(-fabs(p)));
  }
}

#define SUM_OF(T, loss, low, high)                                                                                        \
  do {                                                                                                                    \
    const T *p = (const T *)pred + begin, *t = (const T *)target + begin;                                                 \
    double lane[LANES] = { 0 };                                                                                           \
    size_t i = 0;                                                                                                         \
    for (; i + LANES <= n; i += LANES)                                                                                    \
      for (size_t k = 0; k < LANES; k++) lane[k] += value_of(loss, (double)p[i + k], (double)t[i + k], low, high, delta); \
    for (; i < n; i++) lane[i % LANES] += value_of(loss, (double)p[i], (double)t[i], low, high, delta);                   \
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));                     \
  } while (0)

/* max(z,0) - z t + log1p(exp(-|z|)), the last term by the vector kernel as softplus(-|z|) */
static double sigmoid_sum_f32(const ml_kernels *kernels, const float *z, const float *t, size_t n) {
  float tail[BLOCK];
  double sum = 0;
  for (size_t at = 0; at < n; at += BLOCK) {
    size_t m = n - at < BLOCK ? n - at : BLOCK;
    for (size_t i = 0; i < m; i++) tail[i] = -fabsf(z[at + i]);
    kernels->unary_f32(ML_UN_SOFTPLUS, tail, tail, m, 0, 0);
    for (size_t i = 0; i < m; i++) {
      double v = (double)z[at + i];
      sum += (v > 0 ? v : 0) - v * (double)t[at + i] + (double)tail[i];
    }
  }
  return sum;
}

static double sum_of(const ml_kernels *kernels, ml_dtype dtype, ml_pointwise loss, const void *pred, const void *target,
                     size_t begin, size_t n, double delta) {
  const double low_f = (double)(float)EPSILON, high_f = (double)(float)(1 - EPSILON); /* as float32 arithmetic clips */
  if (dtype == ML_FLOAT32) {
    switch (loss) {
      case ML_LOSS_SQUARED: SUM_OF(float, ML_LOSS_SQUARED, 0, 1);
      case ML_LOSS_ABSOLUTE: SUM_OF(float, ML_LOSS_ABSOLUTE, 0, 1);
      case ML_LOSS_HUBER: SUM_OF(float, ML_LOSS_HUBER, 0, 1);
      case ML_LOSS_BINARY_CROSS_ENTROPY: SUM_OF(float, ML_LOSS_BINARY_CROSS_ENTROPY, low_f, high_f);
      default: return sigmoid_sum_f32(kernels, (const float *)pred + begin, (const float *)target + begin, n);
    }
  }
  SUM_OF(double, loss, EPSILON, 1 - EPSILON);
}

ml_status ml__loss_run(ml_op_ctx *ctx, ml_pointwise loss, ml_error *err) {
  const ml_view *pred = ctx->in[0], *target = ctx->in[1], *weight = ml__in(ctx, 2);
  double delta = (double)ml_attr_float(ctx->attrs, "delta", 1), sum = 0;
  size_t rows, row;
  ML_TRY(check_counts(pred, target, weight, &rows, err));
  row = rows > 0 ? pred->count / rows : 0;
  for (size_t r = 0; r < rows && row > 0; r++) {
    double s = sum_of(ctx->run->kernels, pred->dtype, loss, pred->data, target->data, r * row, row, delta);
    sum += weight ? ml_element_get(weight->data, weight->dtype, r) * s : s;
  }
  ml_element_set(ctx->out[0]->data, pred->dtype, 0, sum / (double)pred->count);
  return ML_OK;
}

/* ---------------------------------------------------------------- backward ---- */
static inline __attribute__((always_inline)) double slope_of(ml_pointwise loss, double p, double t, double low, double high,
                                                             double delta) {
  double e = p - t;
  switch (loss) {
    case ML_LOSS_SQUARED: return 2 * e;
    case ML_LOSS_ABSOLUTE: return e > 0 ? 1 : e < 0 ? -1 : e; /* 0 at 0; a NaN stays */
    case ML_LOSS_HUBER: return e > delta ? delta : e < -delta ? -delta : e;
    case ML_LOSS_BINARY_CROSS_ENTROPY: return p < low || p > high ? 0 : e / (p * (1 - p));
    default: return (p >= 0 ? 1 / (1 + exp(-p)) : exp(p) / (1 + exp(p))) - t;
  }
}

#define SLOPES(T, loss, low, high)                                                                                   \
  do {                                                                                                               \
    const T *p = (const T *)pred + begin, *t = (const T *)target + begin;                                            \
    T *d = (T *)dpred + begin;                                                                                       \
    for (size_t i = 0; i < n; i++) d[i] = (T)(scale * slope_of(loss, (double)p[i], (double)t[i], low, high, delta)); \
    return;                                                                                                          \
  } while (0)

static void slopes(const ml_kernels *kernels, ml_dtype dtype, ml_pointwise loss, const void *pred, const void *target,
                   void *dpred, size_t begin, size_t n, double scale, double delta) {
  if (dtype == ML_FLOAT32) {
    switch (loss) {
      case ML_LOSS_SQUARED: SLOPES(float, ML_LOSS_SQUARED, 0, 1);
      case ML_LOSS_ABSOLUTE: SLOPES(float, ML_LOSS_ABSOLUTE, 0, 1);
      case ML_LOSS_HUBER: SLOPES(float, ML_LOSS_HUBER, 0, 1);
      case ML_LOSS_BINARY_CROSS_ENTROPY:
        SLOPES(float, ML_LOSS_BINARY_CROSS_ENTROPY, (double)(float)EPSILON, (double)(float)(1 - EPSILON));
      default: break;
    }
    const float *t = (const float *)target + begin;
    float *d = (float *)dpred + begin, s = (float)scale;
    kernels->unary_f32(ML_UN_SIGMOID, (const float *)pred + begin, d, n, 0, 0);
    for (size_t i = 0; i < n; i++) d[i] = s * (d[i] - t[i]);
    return;
  }
  SLOPES(double, loss, EPSILON, 1 - EPSILON);
}

ml_status ml__loss_grad_run(ml_op_ctx *ctx, ml_pointwise loss, ml_error *err) {
  const ml_view *pred = ctx->in[0], *target = ctx->in[1], *weight = ml__in(ctx, 3);
  double delta = (double)ml_attr_float(ctx->attrs, "delta", 1);
  double scale = ml_element_get(ctx->in[2]->data, ctx->in[2]->dtype, 0) / (double)pred->count;
  size_t rows;
  ML_TRY(check_counts(pred, target, weight, &rows, err));
  if (pred->count == 0) return ML_OK;
  size_t row = pred->count / rows;
  for (size_t r = 0; r < rows; r++)
    slopes(ctx->run->kernels, pred->dtype, loss, pred->data, target->data, ctx->out[0]->data, r * row, row,
           weight ? scale * ml_element_get(weight->data, weight->dtype, r) : scale, delta);
  return ML_OK;
}

void ml__loss_gradient(ml_grad *g, const char *op) {
  ml_value *in[4] = { g->in[0], g->in[1], g->dout[0], g->n_in > 2 ? g->in[2] : NULL };
  ml_attr list[2] = { ml_attr_of_str("loss", g->op->name), ml_attr_of_float("delta", ml_attr_float(g->attrs, "delta", 1)) };
  if (!g->needs[0]) return;
  size_t n_attrs = strcmp(op, "mlserve.PointwiseLossGrad") == 0 ? 2 : 0;
  g->din[0] = ml_gn(g, op, list, n_attrs, in[3] ? 4 : 3, in);
}
