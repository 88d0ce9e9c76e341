/* SVMClassifier 1 (ai.onnx.ml): X (rows, features) float32/float64/int32/int64 -> labels Y (rows), scores Z float32.
 * With vectors_per_class (LIBSVM): one decision value d = sum of coefficient_j k(x, v_j) + rho for each pair of classes i < j, a
 * vote for i when d > 0, else for j; most votes win (of equals the first). coefficients is (classes - 1, vectors), the vectors in
 * order of class: row j - 1 holds what class i's vectors say about the pair (i, j), row i what class j's say.
 * With prob_a, prob_b: pairwise probabilities p_ij = 1 / (1 + exp(a d + b)) (Platt 2000; Lin, Lin & Weng 2007) are coupled to one
 * per class by the second method of Wu, Lin & Weng 2004 (JMLR 5:975): minimise sum over i, j of (p_ji p_i - p_ij p_j)^2 by its
 * fixed point iteration. Its stopping rule decides the last digits, so it is calculated in float32 as ONNX Runtime does.
 * Without them Z holds the decision values: (rows, pairs), or (-d, d) for two classes.
 * Without vectors_per_class (LIBLINEAR): scores X coefficients^T + rho, (rows, classes).
 * Calculated in float32. ONNX operator specification and, for the layout of Z and the ties, ONNX Runtime. */
#include <math.h>
#include <string.h>
#include "ops/svm.h"

static const ml_attr_def attrs[] = {
  { "classlabels_ints", ML_ATTR_INTS, false, "labels, one of the classlabels_* attributes" },
  { "classlabels_strings", ML_ATTR_STRINGS, false, "labels" },
  { "vectors_per_class", ML_ATTR_INTS, false, "number of support vectors of each class; none: a linear model" },
  { "support_vectors", ML_ATTR_FLOATS, false, "(vectors, features)" },
  { "coefficients", ML_ATTR_FLOATS, true, "(classes - 1, vectors), or (classes, features)" },
  { "rho", ML_ATTR_FLOATS, true, "constant of each pair of classes, or one" },
  { "prob_a", ML_ATTR_FLOATS, false, "slope of each pair's probability" },
  { "prob_b", ML_ATTR_FLOATS, false, "offset of each pair's probability" },
  { "kernel_type", ML_ATTR_STRING, false, "LINEAR (default), POLY, RBF or SIGMOID" },
  { "kernel_params", ML_ATTR_FLOATS, false, "gamma, coef0, degree" },
  { "post_transform", ML_ATTR_STRING, false, "NONE (default), SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT" },
  { 0 },
};

enum { MAX_CLASSES = 4096 }; /* pairs and the coupling's matrix grow with the square */

typedef struct model {
  ml_view labels, per_class, vectors, coefficients, rho, prob_a, prob_b;
  size_t classes, pairs, supports, features, scores; /* scores: columns of Z */
  ml__svm_kernel kernel;
  ml__transform transform;
} model;

static ml_status at_least(const ml_view *v, const char *name, size_t count, ml_error *err) {
  if (v->count >= count) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s has %zu values, expected %zu", name, v->count, count);
}

static ml_status pairwise_model(model *m, ml_error *err) {
  size_t count;
  if (m->classes < 2) return ml_fail(err, ML_INVALID_ARGUMENT, "one label, expected two or more");
  if (m->per_class.count != m->classes)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute vectors_per_class has %zu values for %zu labels", m->per_class.count,
                   m->classes);
  if (m->vectors.count == 0 || m->vectors.count % m->supports != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute support_vectors has %zu values, expected a multiple of %zu",
                   m->vectors.count,
                   m->supports);
  m->features = m->vectors.count / m->supports;
  if (!ml_mul_size(m->classes - 1, m->supports, &count)) count = SIZE_MAX;
  ML_TRY(at_least(&m->coefficients, "coefficients", count, err));
  ML_TRY(at_least(&m->rho, "rho", m->pairs, err));
  if (m->prob_a.count > 0) {
    ML_TRY(at_least(&m->prob_a, "prob_a", m->pairs, err));
    ML_TRY(at_least(&m->prob_b, "prob_b", m->pairs, err));
  }
  m->scores = m->prob_a.count > 0 || m->classes == 2 ? m->classes : m->pairs;
  return ML_OK;
}

static ml_status model_of(const ml_attrs *list, model *m, ml_error *err) {
  *m = (model) { .supports = 0 };
  ML_TRY(ml__labels_of(list, "classlabels_ints", "classlabels_strings", &m->labels, err));
  ML_TRY(ml__svm_kernel_of(list, &m->kernel, err));
  ML_TRY(ml__transform_of(list, &m->transform, err));
  (void)ml__attr_list(list, "vectors_per_class", &m->per_class);
  (void)ml__attr_list(list, "support_vectors", &m->vectors);
  (void)ml__attr_list(list, "coefficients", &m->coefficients);
  (void)ml__attr_list(list, "rho", &m->rho);
  (void)ml__attr_list(list, "prob_a", &m->prob_a);
  (void)ml__attr_list(list, "prob_b", &m->prob_b);
  m->classes = m->labels.count;
  if (m->classes > MAX_CLASSES) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu labels, at most %d", m->classes, MAX_CLASSES);
  m->pairs = m->classes * (m->classes - 1) / 2;
  if (m->prob_a.count != m->prob_b.count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute prob_a has %zu values, prob_b %zu", m->prob_a.count, m->prob_b.count);
  for (size_t i = 0; i < m->per_class.count; i++) {
    int64_t n = ((const int64_t *)m->per_class.data)[i];
    if (n < 0 || (uint64_t)n > m->vectors.count || !ml_add_size(m->supports, (size_t)n, &m->supports))
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute vectors_per_class[%zu] is %lld", i, (long long)n);
  }
  if (m->supports > 0) return pairwise_model(m, err);
  if (m->coefficients.count == 0 || m->coefficients.count % m->classes != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute coefficients has %zu values, expected a multiple of %zu",
                   m->coefficients.count,
                   m->classes);
  ML_TRY(at_least(&m->rho, "rho", 1, err));
  m->features = m->coefficients.count / m->classes;
  m->scores = m->classes;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  model m;
  int64_t rows, features;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(model_of(ctx->attrs, &m, err));
  ML_TRY(ml__matrix_of(ctx->in[0], &rows, &features, err));
  if (features >= 0 && (size_t)features != m.features)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X has %lld features, the model needs %zu", (long long)features, m.features);
  return ml__infer_classifier(ctx, &m.labels, (int64_t)m.scores, err);
}

/* X as float32; kernel values (rows, vectors) or scores (rows, classes); one row: decision values, votes, the coupling's r, Q,
 * Qp. */
static ml_status rooms(const model *m, const ml_view *x, size_t rows, size_t *products, size_t *row, size_t *bytes,
                       ml_error *err) {
  size_t count, square = m->classes * m->classes, of_row = 0;
  ML_TRY(ml__matrix_room(x, ML_FLOAT32, bytes, err));
  *products = *bytes;
  if (!ml_mul_size(rows, m->supports > 0 ? m->supports : m->classes, &count)) count = SIZE_MAX;
  ML_TRY(ml__room_add(bytes, count, sizeof(float), err));
  *row = *bytes;
  of_row = m->pairs + 3 * m->classes + 2 * square;
  return ml__room_add(bytes, of_row, sizeof(float), err);
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  model m;
  int64_t rows, features;
  size_t products, row;
  ML_TRY(model_of(ctx->attrs, &m, err));
  ML_TRY(ml__matrix_of(ctx->in[0], &rows, &features, err));
  return rooms(&m, ctx->in[0], (size_t)rows, &products, &row, bytes, err);
}

/* Probabilities p (k) of the classes from r (k, k), r_ij = P(i | i or j). Q (k, k), Qp (k): room. */
static void couple(const float *r, size_t k, float *p, float *Q, float *Qp) {
  const float tolerance = 0.005f / (float)k;
  for (size_t i = 0; i < k; i++) {
    p[i] = 1 / (float)k;
    Q[i * k + i] = 0;
    for (size_t j = 0; j < k; j++) {
      if (j == i) continue;
      Q[i * k + i] += r[j * k + i] * r[j * k + i];
      Q[i * k + j] = j < i ? Q[j * k + i] : -r[j * k + i] * r[i * k + j];
    }
  }
  for (int round = 0; round < 100; round++) {
    float pQp = 0, worst = 0;
    for (size_t i = 0; i < k; i++) {
      Qp[i] = 0;
      for (size_t j = 0; j < k; j++) Qp[i] += Q[i * k + j] * p[j];
      pQp += p[i] * Qp[i];
    }
    for (size_t i = 0; i < k; i++) {
      float e = fabsf(Qp[i] - pQp);
      if (e > worst) worst = e;
    }
    if (worst < tolerance) return;
    for (size_t i = 0; i < k; i++) {
      float step = (pQp - Qp[i]) / Q[i * k + i], scale = 1 + step;
      p[i] += step;
      pQp = (pQp + step * (step * Q[i * k + i] + 2 * Qp[i])) / scale / scale;
      for (size_t j = 0; j < k; j++) {
        Qp[j] = (Qp[j] + step * Q[i * k + j]) / scale;
        p[j] /= scale;
      }
    }
  }
}

/* The sum over n support vectors, added to the pair's decision value in float64. */
static double weighted(const float *coefficients, const float *products, size_t n, double sum) {
  for (size_t i = 0; i < n; i++) sum += (double)(coefficients[i] * products[i]);
  return sum;
}

/* One row of the pairwise model; gives the winner. room: see rooms(). */
static size_t decide(const model *m, const float *products, float *room, float *z) {
  const int64_t *per_class = m->per_class.data;
  const float *c = m->coefficients.data, *rho = m->rho.data, *a = m->prob_a.data, *b = m->prob_b.data;
  size_t k = m->classes, pair = 0, first_i = 0, winner = 0;
  float *d = room, *votes = d + m->pairs, *p = votes + k, *Qp = p + k, *r = Qp + k, *Q = r + k * k;
  for (size_t i = 0; i < k; i++) votes[i] = 0;
  for (size_t i = 0; i + 1 < k; first_i += (size_t)per_class[i++]) {
    size_t n_i = (size_t)per_class[i], first_j = first_i + n_i;
    for (size_t j = i + 1; j < k; first_j += (size_t)per_class[j++], pair++) {
      double sum = weighted(c + (j - 1) * m->supports + first_i, products + first_i, n_i, 0);
      sum = weighted(c + i * m->supports + first_j, products + first_j, (size_t)per_class[j], sum) + (double)rho[pair];
      d[pair] = (float)sum;
      votes[sum > 0 ? i : j] += 1;
      if (!a) continue;
      float one = 1 - ml__logistic(d[pair] * a[pair] + b[pair]);
      one = fminf(fmaxf(one, 1e-7f), 1 - 1e-7f);
      r[i * k + j] = one;
      r[j * k + i] = 1 - one;
    }
  }
  for (size_t i = 1; i < k; i++) if (votes[i] > votes[winner]) winner = i;
  if (!z) return winner;
  if (a) {
    couple(r, k, p, Q, Qp);
    memcpy(z, p, k * sizeof *z);
    ml__transform_f32(m->transform, z, k);
  } else if (k > 2) {
    memcpy(z, d, m->pairs * sizeof *z);
    ml__transform_f32(m->transform, z, m->pairs);
  } else if (m->transform == ML__TRANSFORM_PROBIT) {
    z[0] = z[1] = d[0];
    ml__transform_f32(m->transform, z, 2);
  } else { /* with another transform the value counts as a probability */
    z[0] = m->transform == ML__TRANSFORM_NONE ? -d[0] : 1 - d[0];
    z[1] = d[0];
  }
  return winner;
}

/* The linear model's winner; two classes may be decided by their sign. */
static size_t linear_winner(const model *m, const float *s, bool positive) {
  size_t winner = 0;
  for (size_t i = 1; i < m->classes; i++) if (s[i] > s[winner]) winner = i;
  if (m->classes != 2 || m->prob_a.count > 0) return winner;
  return positive ? (s[winner] >= 0.5f ? 1 : winner) : s[winner] > 0 ? 1 : winner;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ml__out(ctx, 0), *z = ml__out(ctx, 1);
  model m;
  int64_t rows, features;
  size_t products_at, row_at, bytes;
  bool positive = true;
  ML_TRY(model_of(ctx->attrs, &m, err));
  ML_TRY(ml__matrix_of(x, &rows, &features, err));
  ML_TRY(rooms(&m, x, (size_t)rows, &products_at, &row_at, &bytes, err));
  const float *values = ml__matrix_as(x, ML_FLOAT32, ctx->workspace);
  float *products = (float *)(void *)((char *)ctx->workspace + products_at);
  float *row = (float *)(void *)((char *)ctx->workspace + row_at);
  const float *c = m.coefficients.data;
  if (m.supports > 0)
    ml__svm_products(ctx->run->kernels, &m.kernel, values, (size_t)rows, m.vectors.data, m.supports, m.features, 0, products);
  else
    ml__svm_products(ctx->run->kernels, &(ml__svm_kernel) { .kind = ML__SVM_LINEAR }, values, (size_t)rows, c, m.classes,
                     m.features,
                     ((const float *)m.rho.data)[0], products);
  for (size_t i = 0; i < m.coefficients.count; i++) positive = positive && c[i] >= 0;
  for (size_t r = 0; r < (size_t)rows; r++) {
    float *to = z ? (float *)z->data + r * m.scores : NULL;
    size_t label;
    if (m.supports > 0) label = decide(&m, products + r * m.supports, row, to);
    else {
      label = linear_winner(&m, products + r * m.classes, positive);
      if (to) memcpy(to, products + r * m.classes, m.classes * sizeof *to);
      if (to) ml__transform_f32(m.transform, to, m.classes);
    }
    if (y) ml__label_put(&m.labels, label, y, r);
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_svm_classifier = {
  .name = "SVMClassifier", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 2,
  .attrs = attrs, .types = { ML__MASK_FEATURE }, .formula = "d_ij = sum of c_l k(x, v_l) + rho_ij, Y = label with most votes",
  .infer = infer, .workspace = workspace, .run = run,
};
