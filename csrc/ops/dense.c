/* mlserve.Dense: Y = act(X W + B), a fully connected layer with its weights packed once per program.
 * X (…,K) float32, W (K,N) or (N,K) with transB, B (N) or (1,N) optional; W and B constant -> Y (…,N). Made by compile from
 * Gemm/MatMul, Add and an activation. State: the packed weights and the kernel table that packed them. */
#include <string.h>
#include "base/thread.h"
#include "ops/movement.h"
#include "ops/product.h"

static const ml_attr_def attrs[] = {
  { "activation", ML_ATTR_STRING, false, "\"\" (default, none), Relu, Sigmoid, Tanh, LeakyRelu, Elu, Selu, Softplus or Gelu" },
  { "alpha", ML_ATTR_FLOAT, false, "slope of LeakyRelu (default 0.01) and Elu (default 1)" },
  { "transB", ML_ATTR_INT, false, "0 (default): not 0: W is (N,K)" },
  { 0 },
};

static const struct {
  const char *name;
  ml_activation act;
  float alpha;
} activations[] = {
  { "", ML_ACT_NONE, 0 },
  { "Relu", ML_ACT_RELU, 0 },
  { "Sigmoid", ML_ACT_SIGMOID, 0 },
  { "Tanh", ML_ACT_TANH, 0 },
  { "LeakyRelu", ML_ACT_LEAKY_RELU, 0.01f },
  { "Elu", ML_ACT_ELU, 1 },
  { "Selu", ML_ACT_SELU, 1.67326319217681884765625f },
  { "Softplus", ML_ACT_SOFTPLUS, 0 },
  { "Gelu", ML_ACT_GELU, 0 },
};

typedef struct dense_state {
  const ml_kernels *kernels;
  ml_activation act;
  float alpha;
  size_t K, N;
  void *packed;
} dense_state;

static ml_status activation(const ml_attrs *list, ml_activation *act, float *alpha, ml_error *err) {
  ml_str name = ml_attr_str(list, "activation", "");
  for (size_t i = 0; i < sizeof activations / sizeof *activations; i++) {
    size_t n = strlen(activations[i].name);
    if (name.length != n || (n > 0 && memcmp(name.bytes, activations[i].name, n) != 0)) continue;
    *act = activations[i].act;
    *alpha = ml_attr_float(list, "alpha", activations[i].alpha);
    return ML_OK;
  }
  return ml_fail(err, ML_INVALID_ARGUMENT,
                 "attribute activation: '%.*s' is not one of Relu, Sigmoid, Tanh, LeakyRelu, Elu, Selu, Softplus, Gelu",
                 name.length > 64 ? 64 : (int)name.length, name.bytes);
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *X = ctx->in[0], *W = ctx->in[1], *B = ml__in(ctx, 2);
  bool transposed = ml_attr_int(ctx->attrs, "transB", 0) != 0;
  ml_activation act;
  float alpha;
  char text[128];
  ML_TRY(activation(ctx->attrs, &act, &alpha, err));
  if (W->rank != 2 || W->dims[0] < 1 || W->dims[1] < 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "W: expected a matrix, got shape %s",
                   ml_shape_format(W->dims, W->rank, text, sizeof text));
  int64_t K = W->dims[transposed ? 1 : 0], N = W->dims[transposed ? 0 : 1];
  if (B && (!ml_view_known(B) || B->count != (size_t)N || B->rank < 1 || B->dims[B->rank - 1] != N))
    return ml_fail(err, ML_INVALID_ARGUMENT, "B: expected %lld values, got shape %s", (long long)N,
                   ml_shape_format(B->dims, B->rank, text, sizeof text));
  if (X->rank == 0 || (X->rank > 0 && X->dims[X->rank - 1] >= 0 && X->dims[X->rank - 1] != K))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected %lld in the last dimension, got shape %s", (long long)K,
                   ml_shape_format(X->dims, X->rank, text, sizeof text));
  int64_t dims[ML_MAX_RANK];
  if (X->rank > 0) {
    memcpy(dims, X->dims, (size_t)X->rank * sizeof *dims);
    dims[X->rank - 1] = N;
  }
  ml_op_set(ctx->out[0], ML_FLOAT32, dims, X->rank);
  return ML_OK;
}

static void release(void *state) {
  dense_state *s = state;
  if (s) ml_free(s->packed);
  ml_free(s);
}

static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  const ml_view *W = ctx->in[1], *B = ml__in(ctx, 2);
  bool transposed = ml_attr_int(ctx->attrs, "transB", 0) != 0;
  if (!W->data || (B && !B->data)) return ml_fail(err, ML_FAILED_PRECONDITION, "%s must be constant", W->data ? "B" : "W");
  dense_state *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "packed weights");
  s->kernels = ml_kernel_table();
  s->K = (size_t)W->dims[transposed ? 1 : 0];
  s->N = (size_t)W->dims[transposed ? 0 : 1];
  ml_status status = activation(ctx->attrs, &s->act, &s->alpha, err);
  if (status == ML_OK) {
    size_t bytes = s->kernels->pack_bytes_f32(s->K, s->N);
    s->packed = ml_alloc(bytes);
    if (!s->packed) status = ml_fail_memory(err, bytes, "packed weights");
  }
  if (status != ML_OK) {
    release(s);
    return status;
  }
  s->kernels->pack_f32(W->data, transposed, s->K, s->N, B ? B->data : NULL, s->packed);
  *state = s;
  return ML_OK;
}

typedef struct task {
  const dense_state *state;
  const float *x;
  float *y;
  size_t rows, step;
} task;

static void chunk(void *context, size_t index) {
  const task *t = context;
  const dense_state *s = t->state;
  size_t begin = index * t->step, n = t->rows - begin < t->step ? t->rows - begin : t->step;
  s->kernels->dense_f32(s->packed, n, s->K, s->N, t->x + begin * s->K, s->K, s->act, s->alpha, t->y + begin * s->N, s->N);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const dense_state *s = ctx->state;
  ml_view *Y = ctx->out[0];
  (void)err;
  if (Y->count == 0) return ML_OK;
  task t = { s, ctx->in[0]->data, Y->data, Y->count / s->N, 0 };
  t.step = ml__rows_per_chunk(t.rows, 2.0 * (double)s->K * (double)s->N, 48);
  size_t chunks = (t.rows + t.step - 1) / t.step;
  if (chunks == 1) chunk(&t, 0);
  else ml_parallel(chunks, chunk, &t);
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  const ml_view *X = ctx->in[0];
  return X->rank < 1 ? 0 : 2.0 * (double)ctx->out[0]->count * (double)X->dims[X->rank - 1];
}

const ml_op_def ml_op_dense = {
  .name = "Dense", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 1, .flags = ML_OP_INTERNAL,
  .attrs = attrs, .types = { ML_BIT(ML_FLOAT32) }, .formula = "Y = act(X W + B)", .infer = infer, .prepare = prepare,
  .release = release, .run = run, .flops = flops,
};
