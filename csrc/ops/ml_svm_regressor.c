/* SVMRegressor 1 (ai.onnx.ml): y = sum of coefficient_j k(x, v_j) + rho, or x.coefficients + rho without support vectors; with
 * one_class +1 where that is positive, else -1. X (rows, features) float32/float64/int32/int64 -> Y (rows, 1) float32. Calculated
 * in float32. ONNX operator specification. */
#include "ops/product.h"
#include "ops/svm.h"

static const ml_attr_def attrs[] = {
  { "n_supports", ML_ATTR_INT, false, "0 (default): linear; number of support vectors" },
  { "support_vectors", ML_ATTR_FLOATS, false, "(n_supports, features)" },
  { "coefficients", ML_ATTR_FLOATS, true, "one per support vector, or per feature" },
  { "rho", ML_ATTR_FLOATS, true, "constant: one value" },
  { "kernel_type", ML_ATTR_STRING, false, "LINEAR (default), POLY, RBF or SIGMOID" },
  { "kernel_params", ML_ATTR_FLOATS, false, "gamma, coef0, degree" },
  { "one_class", ML_ATTR_INT, false, "0 (default); not 0: only the sign" },
  { "post_transform", ML_ATTR_STRING, false, "NONE (default), LOGISTIC or PROBIT; SOFTMAX does nothing to one value" },
  { 0 },
};

typedef struct model {
  ml_view vectors, coefficients, rho;
  size_t supports, features;
  ml__svm_kernel kernel;
  ml__transform transform;
} model;

static ml_status model_of(const ml_attrs *list, model *m, ml_error *err) {
  *m = (model) { .supports = 0 };
  int64_t supports = ml_attr_int(list, "n_supports", 0);
  ML_TRY(ml__svm_kernel_of(list, &m->kernel, err));
  ML_TRY(ml__transform_of(list, &m->transform, err));
  (void)ml__attr_list(list, "support_vectors", &m->vectors);
  (void)ml__attr_list(list, "coefficients", &m->coefficients);
  (void)ml__attr_list(list, "rho", &m->rho);
  if (supports < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute n_supports is %lld", (long long)supports);
  if (m->rho.count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute rho is empty");
  if (m->coefficients.count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute coefficients is empty");
  m->supports = (size_t)supports;
  if (supports == 0) {
    m->features = m->coefficients.count;
    return ML_OK;
  }
  if (m->coefficients.count != m->supports)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute coefficients has %zu values for %zu support vectors",
                   m->coefficients.count,
                   m->supports);
  if (m->vectors.count == 0 || m->vectors.count % m->supports != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute support_vectors has %zu values, expected a multiple of %zu",
                   m->vectors.count,
                   m->supports);
  m->features = m->vectors.count / m->supports;
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
  ml_op_set(ctx->out[0], ML_FLOAT32, (int64_t[]) { rows, 1 }, 2);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  model m;
  size_t count;
  ML_TRY(model_of(ctx->attrs, &m, err));
  ML_TRY(ml__matrix_room(ctx->in[0], ML_FLOAT32, bytes, err));
  if (!ml_mul_size(ctx->out[0]->count, m.supports, &count))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu rows are too many", ctx->out[0]->count);
  return ml__room_add(bytes, count, sizeof(float), err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  model m;
  const ml_view *x = ctx->in[0];
  const ml_kernels *kernels = ctx->run->kernels;
  size_t rows = ctx->out[0]->count, room = 0;
  float *y = ctx->out[0]->data;
  ML_TRY(model_of(ctx->attrs, &m, err));
  ML_TRY(ml__matrix_room(x, ML_FLOAT32, &room, err));
  const float *values = ml__matrix_as(x, ML_FLOAT32, ctx->workspace);
  const float rho = ((const float *)m.rho.data)[0];
  float *products = (float *)(void *)((char *)ctx->workspace + room);
  if (m.supports > 0) {
    ml__svm_products(kernels, &m.kernel, values, rows, m.vectors.data, m.supports, m.features, 0, products);
    for (size_t r = 0; r < rows; r++) y[r] = rho;
    ml__product(kernels, ML_FLOAT32, false, true, rows, 1, m.supports, 1, products, m.supports, m.coefficients.data,
                m.supports, 1, y, 1);
  } else {
    ml__svm_products(kernels, &(ml__svm_kernel) { .kind = ML__SVM_LINEAR }, values, rows, m.coefficients.data, 1, m.features,
                     rho, y);
  }
  bool one_class = ml_attr_int(ctx->attrs, "one_class", 0) != 0;
  for (size_t r = 0; r < rows; r++) {
    if (one_class) y[r] = y[r] > 0 ? 1 : -1;
    else ml__transform_f32(m.transform, y + r, 1);
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_svm_regressor = {
  .name = "SVMRegressor", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = attrs, .types = { ML__MASK_FEATURE }, .formula = "y = sum of c_j k(x, v_j) + rho", .infer = infer,
  .workspace = workspace, .run = run,
};
