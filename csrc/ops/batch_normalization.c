/* BatchNormalization 15: Y = (X - mean) scale / sqrt(var + epsilon) + B per channel (dimension 1).
 * X (N,C,D…), scale, B, input_mean, input_var (C) -> Y (N,C,D…); with training_mode=1 mean and var are those of the batch
 * (population variance, 1/n) and running_mean, running_var (C) = input momentum + batch (1 - momentum) are further outputs. Ioffe
 * & Szegedy 2015; ONNX operator specification. Gradient: mlserve.BatchNormalizationGrad. */
#include <math.h>
#include "ops/batch_norm.h"

static const ml_attr_def attrs[] = {
  { "epsilon", ML_ATTR_FLOAT, false, "1e-5 (default): added to the variance" },
  { "momentum", ML_ATTR_FLOAT, false, "0.9 (default): share of the old running statistics" },
  { "training_mode", ML_ATTR_INT, false, "0 (default): use input_mean and input_var; 1: those of the batch" },
  { 0 },
};

/* ---------------------------------------------------------------- shared with the gradient ---- */
ml__channels ml__channels_of(const ml_view *x) {
  ml__channels d = { x->rank > 0 ? (size_t)x->dims[0] : 1, x->rank > 1 ? (size_t)x->dims[1] : 1, 1 };
  if (x->rank > 2) d.S = ml__extent(x->dims, 2, x->rank);
  return d;
}

ml_status ml__check_channel(const ml_view *x, const ml_view *v, const char *what, ml_error *err) {
  char a[96], b[96];
  if (v->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s, X is %s", what, ml_dtype_name(v->dtype), ml_dtype_name(x->dtype));
  int64_t C = x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->rank > 1 ? x->dims[1] : 1;
  if (v->rank != ML_UNKNOWN && (v->rank != 1 || (v->dims[0] >= 0 && C >= 0 && v->dims[0] != C)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected one value per channel of X %s, got shape %s", what,
                   ml_shape_format(x->dims, x->rank, a, sizeof a), ml_shape_format(v->dims, v->rank, b, sizeof b));
  return ML_OK;
}

ml_status ml__check_channel_count(const ml_view *v, size_t C, const char *what, ml_error *err) {
  return v->count == C ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "%s has %zu values for %zu channels", what, v->count, C);
}

void ml__channel_sums(const ml_view *x, double *acc) {
  ml__channels d = ml__channels_of(x);
  for (size_t c = 0; c < d.C; c++) acc[c] = 0;
  ML_SWITCH_FLOAT(x->dtype, {
    const T *v = x->data;
    for (size_t n = 0; n < d.N; n++)
      for (size_t c = 0; c < d.C; c++, v += d.S) {
        double s = 0;
        for (size_t i = 0; i < d.S; i++) s += (double)v[i];
        acc[c] += s;
      }
  })
}

void ml__channel_moments(const ml_view *x, double *mean, double *var) {
  ml__channels d = ml__channels_of(x);
  double n = (double)d.N * (double)d.S;
  ml__channel_sums(x, mean);
  for (size_t c = 0; c < d.C; c++) {
    mean[c] /= n;
    var[c] = 0;
  }
  ML_SWITCH_FLOAT(x->dtype, {
    const T *v = x->data;
    for (size_t k = 0; k < d.N; k++)
      for (size_t c = 0; c < d.C; c++, v += d.S) {
        double s = 0;
        for (size_t i = 0; i < d.S; i++) {
          double e = (double)v[i] - mean[c];
          s += e * e;
        }
        var[c] += s;
      }
  })
  for (size_t c = 0; c < d.C; c++) var[c] /= n;
}

/* ---------------------------------------------------------------- operator ---- */
static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  static const char *const names[5] = { "X", "scale", "B", "input_mean", "input_var" };
  const ml_view *x = ctx->in[0];
  bool training = ml_attr_int(ctx->attrs, "training_mode", 0) != 0;
  if (x->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 1 or more, got rank 0");
  for (int32_t i = 1; i < 5; i++) ML_TRY(ml__check_channel(x, ctx->in[i], names[i], err));
  if (!training && (ml__out(ctx, 1) || ml__out(ctx, 2)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "running_mean and running_var need training_mode=1");
  ml_op_like(ctx->out[0], x);
  if (ml__out(ctx, 1)) ml_op_like(ctx->out[1], ctx->in[3]);
  if (ml__out(ctx, 2)) ml_op_like(ctx->out[2], ctx->in[4]);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  size_t C = ml__channels_of(ctx->in[0]).C;
  return ml_mul_size(C, 2 * sizeof(double), bytes) ? ML_OK : ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu channels are too many", C);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  static const char *const names[5] = { "X", "scale", "B", "input_mean", "input_var" };
  const ml_view *x = ctx->in[0], *const *in = (const ml_view *const *)ctx->in;
  ml__channels d = ml__channels_of(x);
  double eps = (double)ml_attr_float(ctx->attrs, "epsilon", 1e-5f),
         momentum = (double)ml_attr_float(ctx->attrs, "momentum", 0.9f);
  double *factor = ctx->workspace, *shift = factor + d.C; /* first variance and mean */
  for (int32_t i = 1; i < 5; i++) ML_TRY(ml__check_channel_count(in[i], d.C, names[i], err));
  if (ml_attr_int(ctx->attrs, "training_mode", 0) != 0) {
    ml__channel_moments(x, shift, factor);
    for (int32_t k = 1; k < 3; k++) {
      ml_view *out = ml__out(ctx, k);
      const double *batch = k == 1 ? shift : factor;
      for (size_t c = 0; out && c < d.C; c++)
        ml_element_set(out->data, out->dtype, c,
                       ml_element_get(in[k + 2]->data, out->dtype, c) * momentum + batch[c] * (1 - momentum));
    }
  } else {
    for (size_t c = 0; c < d.C; c++) {
      shift[c] = ml_element_get(in[3]->data, x->dtype, c);
      factor[c] = ml_element_get(in[4]->data, x->dtype, c);
    }
  }
  for (size_t c = 0; c < d.C; c++) {
    factor[c] = ml_element_get(in[1]->data, x->dtype, c) / sqrt(factor[c] + eps);
    shift[c] = ml_element_get(in[2]->data, x->dtype, c) - shift[c] * factor[c];
  }
  if (x->count == 0) return ML_OK;
  ML_SWITCH_FLOAT(x->dtype, {
    const T *from = x->data;
    T *to = ctx->out[0]->data;
    for (size_t n = 0; n < d.N; n++)
      for (size_t c = 0; c < d.C; c++, from += d.S, to += d.S)
        for (size_t i = 0; i < d.S; i++) to[i] = (T)((double)from[i] * factor[c] + shift[c]);
  })
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr list[2] = { ml_attr_of_float("epsilon", ml_attr_float(g->attrs, "epsilon", 1e-5f)),
                      ml_attr_of_int("training_mode", ml_attr_int(g->attrs, "training_mode", 0)) };
  ml_value *in[5] = { g->dout[0], g->in[0], g->in[1], g->in[3], g->in[4] }, *out[3] = { NULL, NULL, NULL };
  if (!g->dout[0]) return;
  (void)g->emit(g, "mlserve.BatchNormalizationGrad", list, 2, 5, in, 3, out);
  for (int32_t i = 0; i < 3; i++)
    if (g->needs[i]) g->din[i] = out[i];
}

const ml_op_def ml_op_batch_normalization = {
  .name = "BatchNormalization", .domain = "", .since = 15, .min_in = 5, .max_in = 5, .min_out = 1, .max_out = 3,
  .flags = ML_OP_INPLACE, .attrs = attrs, .types = { ML_MASK_F }, .like = { 0, 3, 4 },
  .formula = "Y = (X - mean) scale / sqrt(var + epsilon) + B", .infer = infer, .workspace = workspace, .run = run, .gradient = gradient,
};
