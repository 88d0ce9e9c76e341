/* DFT: the discrete Fourier transform along one axis, y_k = sum over j of e^(-2 pi i j k / n) x_j, or, inverse, e^(+...) and
 * divided by n. input (…, 1) real or (…, 2) complex, dft_length n (optional scalar: the axis is cut or filled with zeros to
 * it), axis (optional scalar, -2 by default) -> (…, 2). onesided: only the first n / 2 + 1 values; inverse and onesided: those
 * values in, n real ones out, (…, 1). Computed in double whatever the type. No gradient. Reference: ONNX DFT-20. */
#include "ops/cosine_window.h"
#include "ops/fft.h"

static const ml_attr_def attrs[] = {
  { "inverse", ML_ATTR_INT, false, "0 (default); 1: the inverse transform" },
  { "onesided", ML_ATTR_INT, false, "0 (default); 1: only the first n / 2 + 1 values, which determine a real signal" },
  { 0 },
};

typedef struct shape {
  int32_t axis;           /* ML_UNKNOWN: not known */
  int64_t n, out;         /* length of the transform; extent of the output's axis */
  bool inverse, onesided;
} shape;

static ml_status measure(const ml_op_ctx *ctx, shape *s, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const int64_t last = x->dims[x->rank - 1];
  int64_t axis = -2;
  size_t count;
  bool known;
  *s = (shape){ .axis = ML_UNKNOWN, .n = ML_UNKNOWN, .out = ML_UNKNOWN, .inverse = ml_attr_int(ctx->attrs, "inverse", 0) != 0,
                .onesided = ml_attr_int(ctx->attrs, "onesided", 0) != 0 };
  if (last != ML_UNKNOWN && last != 1 && last != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "the last dimension is %lld, expected 1 (real) or 2 (complex)", (long long)last);
  ML_TRY(ml__op_check_scalar(ml__in(ctx, 2), "axis", err));
  ML_TRY(ml__ints(ml__in(ctx, 2), &axis, 1, &count, &known, "axis", err));
  if (!known) return ML_OK;
  ML_TRY(ml_axis_normalise(axis, x->rank, &s->axis, err));
  if (s->axis == x->rank - 1) return ml_fail(err, ML_INVALID_ARGUMENT, "axis %lld holds the parts of complex numbers",
                                             (long long)axis);
  if (x->dims[s->axis] > INT32_MAX) return ml_fail(err, ML_INVALID_ARGUMENT, "a signal of %lld values",
                                                   (long long)x->dims[s->axis]);
  const ml_view *length = ml__in(ctx, 1);
  if (length != NULL) ML_TRY(ml__scalar_int(length, 1, "dft_length", &s->n, err));
  else if (x->dims[s->axis] >= 0) s->n = s->inverse && s->onesided ? 2 * (x->dims[s->axis] - 1) : x->dims[s->axis];
  if (s->n == ML_UNKNOWN) return ML_OK;
  if (s->n < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "a transform of length %lld", (long long)s->n);
  s->out = s->onesided && !s->inverse ? s->n / 2 + 1 : s->n;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  int64_t dims[ML_MAX_RANK];
  shape s;
  ML_TRY(ml__op_check_types(ctx, err));
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, dims, ML_UNKNOWN);
    return ML_OK;
  }
  if (x->rank < 2) return ml_fail(err, ML_INVALID_ARGUMENT, "input has rank %d, expected 2 or more", (int)x->rank);
  ML_TRY(measure(ctx, &s, err));
  for (int32_t i = 0; i < x->rank; i++) dims[i] = s.axis == ML_UNKNOWN ? ML_UNKNOWN : i == s.axis ? s.out : x->dims[i];
  dims[x->rank - 1] = s.inverse && s.onesided ? 1 : 2;
  ml_op_set(ctx->out[0], x->dtype, dims, x->rank);
  return ML_OK;
}

/* one line of the axis, then the tables */
static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  shape s;
  *bytes = 0;
  ML_TRY(measure(ctx, &s, err));
  if (s.n == ML_UNKNOWN) return ML_OK;
  ML_TRY(ml__fft_bytes((size_t)s.n, bytes, err));
  *bytes += (size_t)s.n * sizeof(ml__complex);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  shape s;
  if (y->count == 0) return ML_OK;
  ML_TRY(measure(ctx, &s, err));
  if (s.n == ML_UNKNOWN || s.out != y->dims[s.axis]) return ml_fail(err, ML_INVALID_ARGUMENT,
                                                                    "the planned length is another one");
  const size_t n = (size_t)s.n, given = (size_t)x->dims[s.axis], out = (size_t)s.out, outer = ml__extent(x->dims, 0, s.axis),
               inner = ml__extent(x->dims, s.axis + 1, x->rank - 1), parts = (size_t)x->dims[x->rank - 1],
               parts_out = (size_t)y->dims[y->rank - 1], half = s.inverse && s.onesided ? n / 2 + 1 : n,
               used = given < half ? given : half;
  const double scale = s.inverse ? 1 / (double)n : 1;
  ml__complex *line = ctx->workspace;
  ml__fft f;
  ml__fft_plan(&f, n, s.inverse, line + n);
  for (size_t i = 0; i < outer * inner; i++) {
    const size_t from = (i / inner * given * inner + i % inner) * parts, to = (i / inner * out * inner + i % inner) * parts_out;
    for (size_t k = 0; k < n; k++) line[k] = (ml__complex){ 0, 0 };
    for (size_t k = 0; k < used; k++) {
      const size_t at = from + k * inner * parts;
      line[k].re = ml_element_get(x->data, x->dtype, at);
      if (parts == 2) line[k].im = ml_element_get(x->data, x->dtype, at + 1);
    }
    if (half < n || (s.inverse && s.onesided)) /* the spectrum of a real signal: the other half is the conjugate */
      for (size_t k = half; k < n; k++) line[k] = (ml__complex){ line[n - k].re, -line[n - k].im };
    ml__fft_run(&f, line);
    for (size_t k = 0; k < out; k++) {
      const size_t at = to + k * inner * parts_out;
      ml_element_set(y->data, y->dtype, at, line[k].re * scale);
      if (parts_out == 2) ml_element_set(y->data, y->dtype, at + 1, line[k].im * scale);
    }
  }
  return ML_OK;
}

const ml_op_def ml_op_dft = {
  .name = "DFT", .domain = "", .since = 20, .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16), ML_BIT(ML_INT32) | ML_BIT(ML_INT64) },
  .formula = "y[k] = sum of exp(-2 pi i j k / n) x[j]", .infer = infer, .workspace = workspace, .run = run,
};
