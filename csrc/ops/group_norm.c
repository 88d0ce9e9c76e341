/* What InstanceNormalization, GroupNormalization and their gradient share (contract: ops/group_norm.h). Sums are in double, in
 * two passes: the mean, then the squared distances from it. */
#include "ops/group_norm.h"
#include <math.h>
#include "base/thread.h"
#include "ops/window.h"

ml_status ml__group_norm_check(const ml_view *x, const ml_view *scale, const ml_view *bias, int64_t groups, ml_error *err) {
  char a[96], b[96];
  if (x->rank == 0 || x->rank == 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 2 or more (batch, channels …), got rank %d", (int)x->rank);
  int64_t channels = x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->dims[1];
  if (groups < 0 || (groups > 0 && channels >= 0 && channels % groups != 0))
    return ml_fail(err, ML_INVALID_ARGUMENT, "%lld channels do not divide into %lld groups", (long long)channels,
                   (long long)groups);
  for (int i = 0; i < 2; i++) {
    const ml_view *v = i ? bias : scale;
    if (!v) continue;
    if (v->dtype != x->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s, X is %s", i ? "bias" : "scale", ml_dtype_name(v->dtype),
                     ml_dtype_name(x->dtype));
    bool fits =
        v->rank == ML_UNKNOWN ||
        (v->rank == 1 && (v->dims[0] < 0 || channels < 0 || v->dims[0] == channels || (groups > 0 && v->dims[0] == groups)));
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected one value per channel of X %s, got shape %s", i ? "bias" : "scale",
                     ml_shape_format(x->dims, x->rank, a, sizeof a), ml_shape_format(v->dims, v->rank, b, sizeof b));
  }
  return ML_OK;
}

ml_status ml__group_norm_init(ml__group_norm *n, const ml_view *x, const ml_view *scale, const ml_view *bias, int64_t groups,
                              ml_error *err) {
  ML_TRY(ml__group_norm_check(x, scale, bias, groups, err));
  size_t channels = (size_t)x->dims[1];
  *n = (ml__group_norm){ .N = (size_t)x->dims[0], .G = groups ? (size_t)groups : channels, .S = ml__extent(x->dims, 2, x->rank) };
  n->C = n->G ? channels / n->G : 0;
  n->per_group = scale->count != channels;
  size_t expected = n->per_group ? n->G : channels;
  if (scale->count != expected || (bias && bias->count != expected))
    return ml_fail(err, ML_INVALID_ARGUMENT, "scale and bias have %zu and %zu values, expected %zu", scale->count,
                   bias ? bias->count : expected, channels);
  return ML_OK;
}

void ml__group_moments(ml_dtype dtype, const void *x, size_t n, double epsilon, double *mean, double *inverse) {
  double sum = 0, squares = 0;
  ML_SWITCH_FLOAT(dtype, {
    const T *v = x;
    for (size_t i = 0; i < n; i++) sum += (double)v[i];
    sum /= (double)n;
    for (size_t i = 0; i < n; i++) squares += ((double)v[i] - sum) * ((double)v[i] - sum);
  })
  *mean = sum;
  *inverse = 1 / sqrt(squares / (double)n + epsilon);
}

typedef struct job {
  const ml__group_norm *n;
  const ml_view *x, *scale, *bias;
  ml_view *y;
  double epsilon;
  size_t chunks;
} job;

static void chunk(void *context, size_t index) {
  const job *j = context;
  const ml__group_norm *n = j->n;
  size_t first, end, block = n->C * n->S;
  ml__unit_range(n->N * n->G, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    double mean, inverse;
    size_t group = u % n->G;
    ML_SWITCH_FLOAT(j->x->dtype, {
      const T *x = (const T *)j->x->data + u * block;
      T *y = (T *)j->y->data + u * block;
      ml__group_moments(j->x->dtype, x, block, j->epsilon, &mean, &inverse);
      for (size_t c = 0; c < n->C; c++, x += n->S, y += n->S) {
        size_t at = n->per_group ? group : group * n->C + c;
        double factor = (double)((const T *)j->scale->data)[at] * inverse;
        double shift = (j->bias ? (double)((const T *)j->bias->data)[at] : 0) - mean * factor;
        for (size_t i = 0; i < n->S; i++) y[i] = (T)((double)x[i] * factor + shift);
      }
    })
  }
}

void ml__group_norm_run(const ml__group_norm *n, const ml_view *x, const ml_view *scale, const ml_view *bias, double epsilon,
                        ml_view *y) {
  if (x->count == 0) return;
  job j = { .n = n, .x = x, .scale = scale, .bias = bias, .y = y, .epsilon = epsilon };
  j.chunks = ml__unit_chunks(n->N * n->G, 16 * (double)n->C * (double)n->S, 64);
  if (j.chunks == 1) chunk(&j, 0);
  else ml_parallel(j.chunks, chunk, &j);
}

void ml__group_norm_gradient(ml_grad *g, int64_t groups, float epsilon) {
  ml_attr list[2] = { ml_attr_of_float("epsilon", epsilon), ml_attr_of_int("num_groups", groups) };
  ml_value *in[3] = { g->dout[0], g->in[0], g->in[1] }, *out[3] = { NULL, NULL, NULL };
  if (!g->dout[0]) return;
  (void)g->emit(g, "mlserve.GroupNormalizationGrad", list, 2, 3, in, 3, out);
  for (int32_t i = 0; i < 3; i++)
    if (g->needs[i]) g->din[i] = out[i];
}
