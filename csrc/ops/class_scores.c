/* Post transforms and labels. Softmax is shifted by the largest score; SOFTMAX_ZERO leaves scores of about zero out of the
 * exponential; PROBIT is the inverse of the normal distribution by Winitzki's approximation of erf^-1 (2008) with a = 0.147, the
 * one ONNX Runtime uses: part of the operators' meaning, so it is not made more exact here. */
#include "ops/class_scores.h"
#include <float.h>
#include <math.h>
#include <string.h>

ml_status ml__transform_of(const ml_attrs *attrs, ml__transform *out, ml_error *err) {
  static const char *const names[] = { "NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT" };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (ml_attr_is(attrs, "post_transform", "NONE", names[i])) {
      *out = (ml__transform)i;
      return ML_OK;
    }
  ml_str s = ml_attr_str(attrs, "post_transform", "");
  return ml_fail(err, ML_INVALID_ARGUMENT,
                 "attribute post_transform is '%.*s', expected NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT",
                 s.length > 40 ? 40 : (int)s.length, s.bytes ? s.bytes : "");
}

float ml__logistic(float v) {
  float y = 1 / (1 + expf(-fabsf(v)));
  return v < 0 ? 1 - y : y;
}

static double logistic(double v) {
  double y = 1 / (1 + exp(-fabs(v)));
  return v < 0 ? 1 - y : y;
}

static float probit(float p) {
  float x = 2 * p - 1, sign = x < 0 ? -1.0f : 1.0f, ln = logf((1 - x) * (1 + x));
  float v = 2 / (3.14159f * 0.147f) + 0.5f * ln, w = 1 / 0.147f * ln;
  return 1.41421356f * sign * sqrtf(sqrtf(v * v - w) - v);
}

#define TRANSFORM(NAME, T, EXP, LOGISTIC, LOWEST)                                        \
  void NAME(ml__transform transform, T *s, size_t n) {                                   \
    if (transform == ML__TRANSFORM_LOGISTIC)                                             \
      for (size_t i = 0; i < n; i++) s[i] = LOGISTIC(s[i]);                              \
    if (transform == ML__TRANSFORM_PROBIT)                                               \
      for (size_t i = 0; i < n; i++) s[i] = (T)probit((float)s[i]);                      \
    if (n < 2 || (transform != ML__TRANSFORM_SOFTMAX && transform != ML__TRANSFORM_SOFTMAX_ZERO)) return; \
    bool skip = transform == ML__TRANSFORM_SOFTMAX_ZERO;                                 \
    T top = LOWEST, sum = 0;                                                             \
    for (size_t i = 0; i < n; i++) if (s[i] > top) top = s[i];                           \
    for (size_t i = 0; i < n; i++) {                                                     \
      bool zero = skip && s[i] <= (T)1e-7 && s[i] >= -(T)1e-7;                           \
      s[i] = zero ? s[i] * EXP(-top) : EXP(s[i] - top);                                  \
      if (!zero) sum += s[i];                                                            \
    }                                                                                    \
    for (size_t i = 0; i < n; i++) s[i] /= sum;                                          \
  }
TRANSFORM(ml__transform_f32, float, expf, ml__logistic, -FLT_MAX)
TRANSFORM(ml__transform_f64, double, exp, logistic, -DBL_MAX)

ml_status ml__labels_of(const ml_attrs *attrs, const char *ints, const char *strings, ml_view *out, ml_error *err) {
  ml_view a = { 0 }, b = { 0 };
  bool has_ints = ml__attr_list(attrs, ints, &a) && a.count > 0, has_strings = ml__attr_list(attrs, strings, &b) && b.count > 0;
  if (has_ints == has_strings)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attributes %s and %s: expected one of them, got %s", ints, strings,
                   has_ints ? "both" : "neither");
  *out = has_ints ? a : b;
  return ML_OK;
}

ml_status ml__infer_classifier(ml_op_ctx *ctx, const ml_view *labels, int64_t scores, ml_error *err) {
  int64_t rows, features;
  ML_TRY(ml__matrix_of(ctx->in[0], &rows, &features, err));
  ml_op_set(ml__out(ctx, 0), labels->dtype, (int64_t[]) { rows }, 1);
  ml_op_set(ml__out(ctx, 1), ML_FLOAT32, (int64_t[]) { rows, scores }, 2);
  return ML_OK;
}

ml_status ml__matrix_of(const ml_view *x, int64_t *rows, int64_t *features, ml_error *err) {
  char text[96];
  *rows = *features = ML_UNKNOWN;
  if (x->rank == ML_UNKNOWN) return ML_OK;
  if (x->rank != 1 && x->rank != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected shape (rows, features), got %s",
                   ml_shape_format(x->dims, x->rank, text, sizeof text));
  *rows = x->rank == 1 ? 1 : x->dims[0];
  *features = x->dims[x->rank - 1];
  return ML_OK;
}

ml_status ml__room_add(size_t *bytes, size_t count, size_t size, ml_error *err) {
  size_t more;
  if (!ml_mul_size(count, size, &more) || !ml_add_size(more, 63, &more) || !ml_add_size(*bytes, ml__room_up(more - 63), bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu intermediate values do not fit into memory", count);
  return ML_OK;
}

ml_status ml__matrix_room(const ml_view *x, ml_dtype to, size_t *bytes, ml_error *err) {
  *bytes = 0;
  return x->dtype == to ? ML_OK : ml__room_add(bytes, x->count, ml_dtype_size(to), err);
}
