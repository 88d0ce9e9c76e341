/* UnaryGrad (ours): dx = dy f'(.), the derivative of the element-wise `function`, computed from the forward pass's input x or
 * output y, whichever the table below says. One operator instead of one per activation; dx has the shape of dy. alpha and
 * gamma are the forward attributes (HardSigmoid's beta travels as gamma).
 * At the kinks: Abs, Relu and ThresholdedRelu take 0; LeakyRelu and Elu the left derivative. */
#include "ops/elementwise.h"
#include "base/thread.h"

#define ROOT_HALF 0.70710678118654752440       /* sqrt(1/2) */
#define ROOT_2_PI 0.79788456080286535588       /* sqrt(2/pi) */
#define TWO_BY_ROOT_PI 1.12837916709551257390  /* 2/sqrt(pi) */
#define DENSITY 0.39894228040143267794         /* 1/sqrt(2 pi) */

/* dx[i] = dy[i] f'(value[i]) */
typedef void loop(const ml_kernels *kernels, const void *value, const void *dy, void *dx, size_t n, float alpha, float gamma);

static double logistic(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }

#define LOOP(NAME, TYPE, DERIVATIVE)                                                                                       \
  static void NAME(const ml_kernels *kernels, const void *value, const void *dy, void *dx, size_t n,                       \
                   float alpha_, float gamma_) {                                                                           \
    typedef TYPE T;                                                                                                        \
    const T alpha __attribute__((unused)) = (T)alpha_, gamma __attribute__((unused)) = (T)gamma_;                          \
    const T *vs = value;                                                                                                   \
    const T *ds = dy;                                                                                                      \
    T *xs = dx;                                                                                                            \
    (void)kernels;                                                                                                         \
    for (size_t i = 0; i < n; ++i) {                                                                                       \
      const T v = vs[i];                                                                                                   \
      xs[i] = ds[i] * (T)(DERIVATIVE);                                                                                     \
    }                                                                                                                      \
  }
/* plain C in both precisions */
#define PLAIN(name, DERIVATIVE) LOOP(name##_f32, float, DERIVATIVE) LOOP(name##_f64, double, DERIVATIVE)
/* the kernels have it; FROM_X: the value is the input x, else the output y */
#define KERNEL(name, FUNCTION, FROM_X, DERIVATIVE)                                                                         \
  static void name##_f32(const ml_kernels *kernels, const void *value, const void *dy, void *dx, size_t n,                 \
                         float alpha, float gamma) {                                                                       \
    kernels->unary_grad_f32(FUNCTION, FROM_X ? value : NULL, FROM_X ? NULL : value, dy, dx, n, alpha, gamma);              \
  }                                                                                                                        \
  LOOP(name##_f64, double, DERIVATIVE)
/* float32 with a kernel inside: t = FUNCTION(BEFORE(v)) block by block, f' = AFTER(v, t) */
#define INSIDE(name, BEFORE, FUNCTION, AFTER, DERIVATIVE)                                                                  \
  static void name##_f32(const ml_kernels *kernels, const void *value, const void *dy, void *dx, size_t n,                 \
                         float alpha_, float gamma_) {                                                                     \
    typedef float T;                                                                                                       \
    const T alpha __attribute__((unused)) = alpha_, gamma __attribute__((unused)) = gamma_;                                \
    float inner[ML__BLOCK];                                                                                                \
    for (size_t done = 0; done < n; done += ML__BLOCK) {                                                                   \
      const size_t m = n - done < ML__BLOCK ? n - done : ML__BLOCK;                                                        \
      const float *vs = (const float *)value + done;                                                                       \
      const float *ds = (const float *)dy + done;                                                                          \
      float *xs = (float *)dx + done;                                                                                      \
      for (size_t i = 0; i < m; ++i) {                                                                                     \
        const T v = vs[i];                                                                                                 \
        inner[i] = (T)(BEFORE);                                                                                            \
      }                                                                                                                    \
      kernels->unary_f32(FUNCTION, inner, inner, m, 1.0f, 1.0f);                                                           \
      for (size_t i = 0; i < m; ++i) {                                                                                     \
        const T v __attribute__((unused)) = vs[i], t = inner[i];                                                           \
        xs[i] = ds[i] * (T)(AFTER);                                                                                        \
      }                                                                                                                    \
    }                                                                                                                      \
  }                                                                                                                        \
  LOOP(name##_f64, double, DERIVATIVE)

PLAIN(d_abs, (v > 0) - (v < 0))
PLAIN(d_acos, -1 / sqrt(1 - v * v))
PLAIN(d_acosh, 1 / sqrt((v - 1) * (v + 1)))
PLAIN(d_asin, 1 / sqrt(1 - v * v))
PLAIN(d_asinh, 1 / sqrt(v * v + 1))
PLAIN(d_atan, 1 / (1 + v * v))
PLAIN(d_atanh, 1 / (1 - v * v))
PLAIN(d_cos, -sin(v))
PLAIN(d_cosh, sinh(v))
PLAIN(d_hard_sigmoid, alpha * v + gamma > 0 && alpha * v + gamma < 1 ? alpha : 0)
PLAIN(d_hard_swish, v <= -3 ? 0 : v < 3 ? v / 3 + (T)0.5 : 1)
PLAIN(d_reciprocal, -v * v)
PLAIN(d_shrink, v < -alpha || v > alpha ? 1 : 0)
PLAIN(d_sin, cos(v))
PLAIN(d_sinh, cosh(v))
PLAIN(d_softsign, 1 / ((1 + fabs(v)) * (1 + fabs(v))))
PLAIN(d_sqrt, (T)0.5 / v)
PLAIN(d_tan, 1 + v * v)
PLAIN(d_thresholded_relu, v > alpha ? 1 : 0)

KERNEL(d_elu, ML_UN_ELU, true, v > 0 ? 1 : alpha * exp(v))
KERNEL(d_erf, ML_UN_ERF, true, TWO_BY_ROOT_PI * exp(-v * v))
KERNEL(d_gelu, ML_UN_GELU, true, 0.5 * (1 + erf(v * ROOT_HALF)) + v * DENSITY * exp(-0.5 * v * v))
KERNEL(d_leaky_relu, ML_UN_LEAKY_RELU, true, v > 0 ? 1 : alpha)
KERNEL(d_relu, ML_UN_RELU, false, v > 0 ? 1 : 0)
KERNEL(d_selu, ML_UN_SELU, true, gamma * (v > 0 ? 1 : alpha * exp(v)))
KERNEL(d_sigmoid, ML_UN_SIGMOID, false, v * (1 - v))
KERNEL(d_softplus, ML_UN_SOFTPLUS, true, logistic(v))
KERNEL(d_tanh, ML_UN_TANH, false, 1 - v * v)

INSIDE(d_celu, v > 0 ? 0 : v / alpha, ML_UN_EXP, t, v > 0 ? 1 : exp(v / alpha))
INSIDE(d_swish, alpha * v, ML_UN_SIGMOID, t + alpha * v * t * (1 - t),
       logistic(alpha * v) * (1 + alpha * v * (1 - logistic(alpha * v))))
#define CUBIC(v) ((T)ROOT_2_PI * ((v) + (T)0.044715 * (v) * (v) * (v)))
#define CUBIC_SLOPE(v) ((T)ROOT_2_PI * (1 + (T)0.134145 * (v) * (v)))
INSIDE(d_gelu_tanh, CUBIC(v), ML_UN_TANH, (T)0.5 * (1 + t + v * (1 - t * t) * CUBIC_SLOPE(v)),
       0.5 * (1 + tanh(CUBIC(v)) + v * (1 - tanh(CUBIC(v)) * tanh(CUBIC(v))) * CUBIC_SLOPE(v)))
/* with t = e^v and w = t (t + 2): tanh(softplus(v)) = w / (w + 2), 1 - tanh^2 = 4 (w + 1) / (w + 2)^2,
 * sigmoid(v) = t / (1 + t); beyond v = 20 nothing changes any more */
#define MISH_W (t * (t + 2))
INSIDE(d_mish, v > 20 ? 20 : v, ML_UN_EXP,
       MISH_W / (MISH_W + 2) + v * (t / (1 + t)) * (4 * (MISH_W + 1) / (MISH_W + 2) / (MISH_W + 2)),
       tanh(log1p(exp(-fabs(v))) + (v > 0 ? v : 0)) + v * logistic(v) / pow(cosh(log1p(exp(-fabs(v))) + (v > 0 ? v : 0)), 2))

typedef struct function {
  const char *name;
  loop *f32, *f64;
} function;

static const function functions[] = { /* marked y: the value is the output of the forward operator, else its input */
#define ROW(name, stem) { name, stem##_f32, stem##_f64 },
  ROW("Relu", d_relu) /* y */
  ROW("Sigmoid", d_sigmoid) /* y */
  ROW("Tanh", d_tanh) /* y */
  ROW("Gelu", d_gelu)
  ROW("LeakyRelu", d_leaky_relu)
  ROW("Elu", d_elu)
  ROW("Selu", d_selu)
  ROW("Softplus", d_softplus)
  ROW("Erf", d_erf)
  ROW("Abs", d_abs)
  ROW("Acos", d_acos)
  ROW("Acosh", d_acosh)
  ROW("Asin", d_asin)
  ROW("Asinh", d_asinh)
  ROW("Atan", d_atan)
  ROW("Atanh", d_atanh)
  ROW("Celu", d_celu)
  ROW("Cos", d_cos)
  ROW("Cosh", d_cosh)
  ROW("GeluTanh", d_gelu_tanh)
  ROW("HardSigmoid", d_hard_sigmoid)
  ROW("HardSwish", d_hard_swish)
  ROW("Mish", d_mish)
  ROW("Reciprocal", d_reciprocal) /* y */
  ROW("Shrink", d_shrink)
  ROW("Sin", d_sin)
  ROW("Sinh", d_sinh)
  ROW("Softsign", d_softsign)
  ROW("Sqrt", d_sqrt) /* y */
  ROW("Swish", d_swish)
  ROW("Tan", d_tan) /* y */
  ROW("ThresholdedRelu", d_thresholded_relu)
#undef ROW
};

static const function *find(const ml_attrs *attributes) {
  for (size_t i = 0; i < sizeof functions / sizeof functions[0]; ++i)
    if (ml_attr_is(attributes, "function", "", functions[i].name)) return &functions[i];
  return NULL;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_present(ctx, 2, err));
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *value = ctx->in[0], *dy = ctx->in[1];
  if (find(ctx->attrs) == NULL) {
    const ml_str name = ml_attr_str(ctx->attrs, "function", "");
    return ml_fail(err, ML_INVALID_ARGUMENT, "unknown function \"%.*s\"", (int)(name.length < 64 ? name.length : 64), name.bytes);
  }
  if (value->dtype != dy->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "inputs must have one dtype, got %s and %s", ml_dtype_name(value->dtype),
                   ml_dtype_name(dy->dtype));
  char a[128], b[128];
  if (ml_view_known(value) && ml_view_known(dy) && !ml_shape_equal(value->dims, value->rank, dy->dims, dy->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "the value has shape %s but dy has shape %s",
                   ml_shape_format(value->dims, value->rank, a, sizeof a), ml_shape_format(dy->dims, dy->rank, b, sizeof b));
  ml_op_like(ctx->out[0], ml_view_known(value) ? value : dy);
  return ML_OK;
}

/* The name is looked up once per program; the table is constant, so there is nothing to release. */
static ml_status prepare(ml_op_ctx *ctx, void **state, ml_error *err) {
  (void)err;
  *state = (void *)(uintptr_t)find(ctx->attrs);
  return ML_OK;
}

typedef struct job {
  const function *f;
  const ml_kernels *kernels;
  const void *value, *dy;
  void *dx;
  size_t size, n; /* bytes per element, elements */
  float alpha, gamma;
} job;

static void span(const job *j, size_t begin, size_t n) {
  const size_t at = begin * j->size;
  (j->size == sizeof(float) ? j->f->f32 : j->f->f64)(j->kernels, (const char *)j->value + at, (const char *)j->dy + at,
                                                     (char *)j->dx + at, n, j->alpha, j->gamma);
}

static void chunk(void *context, size_t index) {
  const job *j = context;
  const size_t begin = index * ML__CHUNK;
  span(j, begin, j->n - begin < ML__CHUNK ? j->n - begin : ML__CHUNK);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const size_t n = ctx->out[0]->count;
  const function *f = ctx->state != NULL ? ctx->state : find(ctx->attrs);
  if (f == NULL) return ml_fail(err, ML_INVALID_ARGUMENT, "unknown function");
  if (n == 0) return ML_OK;
  job j = { .f = f, .kernels = ctx->run->kernels, .value = ctx->in[0]->data, .dy = ctx->in[1]->data, .dx = ctx->out[0]->data,
            .size = ml_dtype_size(ctx->in[1]->dtype), .n = n, .alpha = ml_attr_float(ctx->attrs, "alpha", 0),
            .gamma = ml_attr_float(ctx->attrs, "gamma", 0) };
  if (n < ML__PARALLEL) span(&j, 0, n);
  else ml_parallel((n + ML__CHUNK - 1) / ML__CHUNK, chunk, &j);
  return ML_OK;
}

static const ml_attr_def attrs[] = {
  { "function", ML_ATTR_STRING, true, "ONNX name of the forward operator, or GeluTanh" },
  { "alpha", ML_ATTR_FLOAT, false, "of the forward operator" },
  { "gamma", ML_ATTR_FLOAT, false, "of the forward operator; HardSigmoid's beta" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_unary_grad = {
  .name = "UnaryGrad", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1 | ML_OP_TRAINING,
  .attrs = attrs,
  .types = { ML_MASK_F },
  .formula = "dx = dy f'(x or y)",
  .infer = infer,
  .prepare = prepare,
  .run = run,
};
