/* LinearClassifier 1 (ai.onnx.ml): scores = transform(X coefficients^T + intercepts), label = the class with the highest. X
 * (rows, features) float32/float64/int32/int64 -> labels Y (rows), scores Z (rows, classes) float32. coefficients (classes,
 * features). A single row of coefficients with two labels is a binary model: s > 0 is the second label, the scores are (1 - s,
 * s), or their logistic. Calculated in float32. ONNX operator specification. */
#include <string.h>
#include "ops/class_scores.h"
#include "ops/product.h"

static const ml_attr_def attrs[] = {
  { "coefficients", ML_ATTR_FLOATS, true, "(classes, features)" },
  { "intercepts", ML_ATTR_FLOATS, false, "one per class; default 0" },
  { "classlabels_ints", ML_ATTR_INTS, false, "labels, one of the classlabels_* attributes" },
  { "classlabels_strings", ML_ATTR_STRINGS, false, "labels" },
  { "multi_class", ML_ATTR_INT, false, "0 (default); without effect" },
  { "post_transform", ML_ATTR_STRING, false, "NONE (default), SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT" },
  { 0 },
};

typedef struct model {
  ml_view labels, coefficients, intercepts;
  size_t scores, features; /* rows and columns of the coefficients */
  ml__transform transform;
} model;

static ml_status model_of(const ml_attrs *list, model *m, ml_error *err) {
  *m = (model) { .scores = 0 };
  ML_TRY(ml__labels_of(list, "classlabels_ints", "classlabels_strings", &m->labels, err));
  ML_TRY(ml__transform_of(list, &m->transform, err));
  (void)ml__attr_list(list, "coefficients", &m->coefficients);
  (void)ml__attr_list(list, "intercepts", &m->intercepts);
  m->scores = m->intercepts.count ? m->intercepts.count : m->labels.count;
  if (m->scores != m->labels.count && !(m->scores == 1 && m->labels.count == 2))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute intercepts has %zu values for %zu labels", m->scores, m->labels.count);
  if (m->coefficients.count == 0 || m->coefficients.count % m->scores != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute coefficients has %zu values, expected a multiple of %zu",
                   m->coefficients.count, m->scores);
  m->features = m->coefficients.count / m->scores;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  model m;
  int64_t rows, features;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(model_of(ctx->attrs, &m, err));
  ML_TRY(ml__matrix_of(ctx->in[0], &rows, &features, err));
  if (features >= 0 && (size_t)features != m.features)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X has %lld features, the coefficients are for %zu", (long long)features,
                   m.features);
  return ml__infer_classifier(ctx, &m.labels, (int64_t)m.labels.count, err);
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  model m;
  int64_t rows, features;
  size_t count;
  ML_TRY(model_of(ctx->attrs, &m, err));
  ML_TRY(ml__matrix_of(ctx->in[0], &rows, &features, err));
  ML_TRY(ml__matrix_room(ctx->in[0], ML_FLOAT32, bytes, err));
  if (!ml_mul_size((size_t)rows, m.scores, &count)) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%lld rows are too many",
                                                                   (long long)rows);
  return ml__room_add(bytes, count, sizeof(float), err);
}

static size_t row_scores(const model *m, float *s, float *z) {
  size_t n = m->labels.count, winner = 0;
  if (m->scores == 1 && n == 2) {
    winner = s[0] > 0;
    if (z && m->transform == ML__TRANSFORM_LOGISTIC) {
      z[0] = ml__logistic(-s[0]);
      z[1] = ml__logistic(s[0]);
    } else if (z) {
      float v = s[0];
      if (m->transform == ML__TRANSFORM_PROBIT) ml__transform_f32(m->transform, &v, 1);
      z[0] = 1 - v;
      z[1] = v;
    }
    return winner;
  }
  for (size_t i = 1; i < n; i++) if (s[i] > s[winner]) winner = i;
  if (!z) return winner;
  memcpy(z, s, n * sizeof *z);
  ml__transform_f32(m->transform, z, n);
  return winner;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ml__out(ctx, 0), *z = ml__out(ctx, 1);
  model m;
  int64_t rows, features;
  size_t room = 0;
  ML_TRY(model_of(ctx->attrs, &m, err));
  ML_TRY(ml__matrix_of(x, &rows, &features, err));
  ML_TRY(ml__matrix_room(x, ML_FLOAT32, &room, err));
  const void *values = ml__matrix_as(x, ML_FLOAT32, ctx->workspace);
  float *s = (float *)(void *)((char *)ctx->workspace + room);
  const float *bias = m.intercepts.count ? m.intercepts.data : NULL;
  for (size_t r = 0; r < (size_t)rows; r++)
    for (size_t i = 0; i < m.scores; i++) s[r * m.scores + i] = bias ? bias[i] : 0;
  ml__product(ctx->run->kernels, ML_FLOAT32, false, true, (size_t)rows, m.scores, m.features, 1, values, m.features,
              m.coefficients.data, m.features, 1, s, m.scores);
  for (size_t r = 0; r < (size_t)rows; r++) {
    size_t label = row_scores(&m, s + r * m.scores, z ? (float *)z->data + r * m.labels.count : NULL);
    if (y) ml__label_put(&m.labels, label, y, r);
  }
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  ml_view coefficients = { 0 };
  (void)ml__attr_list(ctx->attrs, "coefficients", &coefficients);
  return 2.0 * (double)coefficients.count * (double)(ctx->in[0]->rank == 2 ? ctx->in[0]->dims[0] : 1);
}

const ml_op_def ml_op_ml_linear_classifier = {
  .name = "LinearClassifier", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 2,
  .attrs = attrs, .types = { ML__MASK_FEATURE }, .formula = "Z = transform(X C' + b), Y = label of the highest", .infer = infer,
  .workspace = workspace, .run = run, .flops = flops,
};
