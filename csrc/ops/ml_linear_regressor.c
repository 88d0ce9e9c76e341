/* LinearRegressor 1 (ai.onnx.ml): Y = transform(X coefficients^T + intercepts). X (rows, features) float32/float64/int32/int64 ->
 * Y (rows, targets) float32; coefficients (targets, features). Calculated in float32. ONNX operator specification. */
#include "ops/class_scores.h"
#include "ops/product.h"

static const ml_attr_def attrs[] = {
  { "coefficients", ML_ATTR_FLOATS, true, "(targets, features)" },
  { "intercepts", ML_ATTR_FLOATS, false, "one per target; default 0" },
  { "targets", ML_ATTR_INT, false, "1 (default): number of targets" },
  { "post_transform", ML_ATTR_STRING, false, "NONE (default), SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT" },
  { 0 },
};

typedef struct model {
  ml_view coefficients, intercepts;
  size_t targets, features;
  ml__transform transform;
} model;

static ml_status model_of(const ml_attrs *list, model *m, ml_error *err) {
  *m = (model) { .targets = 0 };
  int64_t targets = ml_attr_int(list, "targets", 1);
  ML_TRY(ml__transform_of(list, &m->transform, err));
  (void)ml__attr_list(list, "coefficients", &m->coefficients);
  (void)ml__attr_list(list, "intercepts", &m->intercepts);
  if (targets < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute targets is %lld, expected 1 or more", (long long)targets);
  m->targets = (size_t)targets;
  if (m->coefficients.count == 0 || m->coefficients.count % m->targets != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute coefficients has %zu values, expected a multiple of %zu",
                   m->coefficients.count, m->targets);
  if (m->intercepts.count != 0 && m->intercepts.count != m->targets)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute intercepts has %zu values, expected %zu", m->intercepts.count,
                   m->targets);
  m->features = m->coefficients.count / m->targets;
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
  ml_op_set(ctx->out[0], ML_FLOAT32, (int64_t[]) { rows, (int64_t)m.targets }, 2);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  return ml__matrix_room(ctx->in[0], ML_FLOAT32, bytes, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  model m;
  const ml_view *x = ctx->in[0];
  ML_TRY(model_of(ctx->attrs, &m, err));
  size_t n = m.targets, rows = ctx->out[0]->count / n;
  float *y = ctx->out[0]->data;
  const float *bias = m.intercepts.count ? m.intercepts.data : NULL;
  for (size_t r = 0; r < rows; r++)
    for (size_t i = 0; i < n; i++) y[r * n + i] = bias ? bias[i] : 0;
  ml__product(ctx->run->kernels, ML_FLOAT32, false, true, rows, n, m.features, 1, ml__matrix_as(x, ML_FLOAT32, ctx->workspace),
              m.features, m.coefficients.data, m.features, 1, y, n);
  for (size_t r = 0; r < rows; r++) ml__transform_f32(m.transform, y + r * n, n);
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  ml_view coefficients = { 0 };
  (void)ml__attr_list(ctx->attrs, "coefficients", &coefficients);
  return 2.0 * (double)coefficients.count * (double)(ctx->in[0]->rank == 2 ? ctx->in[0]->dims[0] : 1);
}

const ml_op_def ml_op_ml_linear_regressor = {
  .name = "LinearRegressor", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = attrs, .types = { ML__MASK_FEATURE }, .formula = "Y = transform(X C' + b)", .infer = infer, .workspace = workspace,
  .run = run, .flops = flops,
};
