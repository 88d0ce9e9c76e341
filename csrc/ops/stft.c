/* STFT: the Fourier transform of frames of a signal: frame f covers the frame_length values from f frame_step on, each
 * multiplied by the window's value. signal (batch, length) or (batch, length, 1) real, or (batch, length, 2) complex;
 * frame_step (scalar); window (frame_length, optional, 1 everywhere by default); frame_length (optional scalar: the window's
 * length, else the signal's)
 * -> (batch, frames, frame_length / 2 + 1 or, not onesided, frame_length, 2). Computed in double whatever the type. No
 * gradient. Reference: ONNX STFT-17. */
#include "ops/cosine_window.h"
#include "ops/fft.h"

static const ml_attr_def attrs[] = {
  { "onesided", ML_ATTR_INT, false, "1 (default): only the first half of the spectrum, which determines a real signal" },
  { 0 },
};

typedef struct frames {
  int64_t step, length, count, bins; /* ML_UNKNOWN: not known */
} frames;

static ml_status measure(const ml_op_ctx *ctx, frames *f, ml_error *err) {
  const ml_view *x = ctx->in[0], *window = ml__in(ctx, 2), *length = ml__in(ctx, 3);
  *f = (frames){ ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN };
  if (x->rank != 2 && x->rank != 3) return ml_fail(err, ML_INVALID_ARGUMENT, "signal has rank %d, expected 2 or 3", (int)x->rank);
  if (x->rank == 3 && x->dims[2] != ML_UNKNOWN && x->dims[2] != 1 && x->dims[2] != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "the last dimension is %lld, expected 1 (real) or 2 (complex)",
                   (long long)x->dims[2]);
  if (window != NULL && window->rank != ML_UNKNOWN && window->rank != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "window has rank %d, expected 1", (int)window->rank);
  if (window != NULL && window->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "signal is %s, window is %s", ml_dtype_name(x->dtype), ml_dtype_name(window->dtype));
  const int64_t window_length = window != NULL && window->rank == 1 ? window->dims[0] : ML_UNKNOWN;
  ML_TRY(ml__scalar_int(ctx->in[1], 1, "frame_step", &f->step, err));
  if (length != NULL) ML_TRY(ml__scalar_int(length, 1, "frame_length", &f->length, err));
  else f->length = window != NULL ? window_length : x->dims[1];
  if (f->length == ML_UNKNOWN) return ML_OK;
  if (window_length != ML_UNKNOWN && window_length != f->length)
    return ml_fail(err, ML_INVALID_ARGUMENT, "window has %lld values, frame_length is %lld", (long long)window_length,
                   (long long)f->length);
  f->bins = ml_attr_int(ctx->attrs, "onesided", 1) != 0 ? f->length / 2 + 1 : f->length;
  if (x->dims[1] == ML_UNKNOWN || f->step == ML_UNKNOWN) return ML_OK;
  if (f->length < 1 || f->length > x->dims[1])
    return ml_fail(err, ML_INVALID_ARGUMENT, "frames of %lld values of a signal of %lld", (long long)f->length,
                   (long long)x->dims[1]);
  f->count = (x->dims[1] - f->length) / f->step + 1;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  frames f = { ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN };
  ML_TRY(ml__op_check_types(ctx, err));
  if (x->rank != ML_UNKNOWN) ML_TRY(measure(ctx, &f, err));
  int64_t dims[4] = { x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->dims[0], f.count, f.bins, 2 };
  ml_op_set(ctx->out[0], x->dtype, dims, 4);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  frames f;
  *bytes = 0;
  ML_TRY(measure(ctx, &f, err));
  if (f.length == ML_UNKNOWN) return ML_OK;
  ML_TRY(ml__fft_bytes((size_t)f.length, bytes, err));
  *bytes += (size_t)f.length * sizeof(ml__complex);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *window = ml__in(ctx, 2), *y = ctx->out[0];
  frames f;
  if (y->count == 0) return ML_OK;
  ML_TRY(measure(ctx, &f, err));
  if (f.count != y->dims[1] || f.bins != y->dims[2]) return ml_fail(err, ML_INVALID_ARGUMENT,
                                                                    "the planned frames are other ones");
  const size_t n = (size_t)f.length, length = (size_t)x->dims[1], parts = x->rank == 3 ? (size_t)x->dims[2] : 1,
               count = (size_t)f.count, bins = (size_t)f.bins;
  ml__complex *line = ctx->workspace;
  ml__fft plan;
  ml__fft_plan(&plan, n, false, line + n);
  for (size_t i = 0; i < (size_t)x->dims[0] * count; i++) {
    const size_t from = (i / count * length + i % count * (size_t)f.step) * parts;
    for (size_t k = 0; k < n; k++) {
      const double weight = window != NULL ? ml_element_get(window->data, window->dtype, k) : 1;
      line[k].re = weight * ml_element_get(x->data, x->dtype, from + k * parts);
      line[k].im = parts == 2 ? weight * ml_element_get(x->data, x->dtype, from + k * parts + 1) : 0;
    }
    ml__fft_run(&plan, line);
    for (size_t k = 0; k < bins; k++) {
      ml_element_set(y->data, y->dtype, (i * bins + k) * 2, line[k].re);
      ml_element_set(y->data, y->dtype, (i * bins + k) * 2 + 1, line[k].im);
    }
  }
  return ML_OK;
}

const ml_op_def ml_op_stft = {
  .name = "STFT", .domain = "", .since = 17, .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16), ML_BIT(ML_INT32) | ML_BIT(ML_INT64),
             ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16), ML_BIT(ML_INT32) | ML_BIT(ML_INT64) },
  .formula = "y = DFT of windowed frames", .infer = infer, .workspace = workspace, .run = run,
};
