/* Checking and sizing of sliding windows (contract: ops/window.h; rules: ONNX operator specification of Conv and AveragePool). */
#include "ops/window.h"
#include "ops/product.h"

enum { PARAMETER_MAX = INT32_MAX };

size_t ml__unit_chunks(size_t units, double flops, size_t limit) {
  double total = (double)units * flops;
  size_t chunks = total >= (double)limit * ML__CHUNK_FLOPS ? limit : (size_t)(total / ML__CHUNK_FLOPS) + 1;
  if (chunks > units) chunks = units;
  return chunks ? chunks : 1;
}

ml_status ml__window_check_extent(const ml_view *x, const char *what, ml_error *err) {
  for (int32_t d = 2; d < x->rank; d++)
    if (x->dims[d] > ML__EXTENT_MAX)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s: dimension %d is %lld, which is too large", what, (int)d,
                     (long long)x->dims[d]);
  return ML_OK;
}

/* A list of `count` integers from `least` to PARAMETER_MAX; `fallback` everywhere when the attribute is absent. */
static ml_status list(const ml_attrs *attrs, const char *name, int32_t count, int64_t least, int64_t fallback, int64_t *out,
                      ml_error *err) {
  const ml_attr *a = ml_attr_find(attrs, name);
  for (int32_t i = 0; i < count; i++) out[i] = fallback;
  if (!a || (a->count == 0 && least == 0)) return ML_OK;
  if (a->count != (size_t)count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' has %zu values, expected %d", name, a->count, (int)count);
  for (int32_t i = 0; i < count; i++) {
    out[i] = a->as.ints[i];
    if (out[i] < least || out[i] > PARAMETER_MAX)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s': value %d is %lld, expected %lld to %d", name, (int)i,
                     (long long)out[i], (long long)least, PARAMETER_MAX);
  }
  return ML_OK;
}

static ml_status read_auto_pad(const ml_attrs *attrs, ml__auto_pad *pad, ml_error *err) {
  static const char *const names[] = { "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID" };
  for (int i = 0; i < 4; i++) {
    if (!ml_attr_is(attrs, "auto_pad", "NOTSET", names[i])) continue;
    *pad = (ml__auto_pad)i;
    return ML_OK;
  }
  ml_str s = ml_attr_str(attrs, "auto_pad", "");
  if (s.length == 0) {
    *pad = ML__PAD_EXPLICIT;
    return ML_OK;
  }
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'auto_pad' is '%.*s', expected NOTSET, SAME_UPPER, SAME_LOWER or VALID",
                 (int)(s.length < 40 ? s.length : 40), s.bytes);
}

static ml_status read_kernel(ml__window *w, const ml_attrs *attrs, const ml_view *weights, ml_error *err) {
  bool given = ml_attr_find(attrs, "kernel_shape") != NULL;
  if (!given && !weights) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'kernel_shape' is missing");
  if (given) ML_TRY(list(attrs, "kernel_shape", w->n, 1, 1, w->kernel, err));
  if (!weights || weights->rank == ML_UNKNOWN) {
    for (int32_t d = 0; d < w->n && !given; d++) w->kernel[d] = ML_UNKNOWN;
    return ML_OK;
  }
  for (int32_t d = 0; d < w->n; d++) {
    int64_t k = weights->dims[d + 2];
    if (given && k >= 0 && k != w->kernel[d])
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'kernel_shape': value %d is %lld, the weights have %lld", (int)d,
                     (long long)w->kernel[d], (long long)k);
    if (k == 0 || k > PARAMETER_MAX)
      return ml_fail(err, ML_INVALID_ARGUMENT, "the weights' dimension %d is %lld, expected 1 to %d", (int)d + 2, (long long)k,
                     PARAMETER_MAX);
    if (k >= 0 || !given) w->kernel[d] = k;
  }
  return ML_OK;
}

ml_status ml__window_read(ml__window *w, ml__auto_pad *pad, const ml_attrs *attrs, const ml_view *x, const ml_view *weights,
                          ml_error *err) {
  int64_t pads[2 * ML__WINDOW_RANK];
  *w = (ml__window){ .n = x->rank - 2 };
  if (w->n < 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected rank 3 or more (batch, channels, at least one more), got rank %d",
                   (int)x->rank);
  ML_TRY(ml__window_check_extent(x, "X", err));
  for (int32_t d = 0; d < w->n; d++) {
    w->in[d] = x->dims[d + 2];
    w->out[d] = ML_UNKNOWN;
  }
  ML_TRY(read_auto_pad(attrs, pad, err));
  ML_TRY(read_kernel(w, attrs, weights, err));
  ML_TRY(list(attrs, "strides", w->n, 1, 1, w->stride, err));
  ML_TRY(list(attrs, "dilations", w->n, 1, 1, w->dilation, err));
  ML_TRY(list(attrs, "pads", 2 * w->n, 0, 0, pads, err));
  for (int32_t d = 0; d < w->n; d++) {
    w->begin[d] = *pad == ML__PAD_EXPLICIT ? pads[d] : 0;
    w->end[d] = *pad == ML__PAD_EXPLICIT ? pads[d + w->n] : 0;
  }
  return ML_OK;
}

ml_status ml__window_init(ml__window *w, const ml_attrs *attrs, const ml_view *x, const ml_view *weights, bool ceil,
                          ml_error *err) {
  ml__auto_pad pad;
  ML_TRY(ml__window_read(w, &pad, attrs, x, weights, err));
  for (int32_t d = 0; d < w->n; d++) {
    int64_t in = w->in[d], s = w->stride[d];
    if (in < 0 || w->kernel[d] < 0) continue;
    int64_t extent = ml__window_extent(w, d);
    if (pad == ML__PAD_SAME_UPPER || pad == ML__PAD_SAME_LOWER) {
      w->out[d] = (in + s - 1) / s;
      int64_t total = (w->out[d] - 1) * s + extent - in;
      if (total < 0 || w->out[d] == 0) total = 0;
      w->begin[d] = pad == ML__PAD_SAME_UPPER ? total / 2 : total - total / 2;
      w->end[d] = total - w->begin[d];
      continue;
    }
    int64_t room = in + w->begin[d] + w->end[d] - extent;
    if (room < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT,
                     "the window of %lld does not fit into dimension %d of %lld with pads %lld and %lld", (long long)extent,
                     (int)d + 2, (long long)in, (long long)w->begin[d], (long long)w->end[d]);
    w->out[d] = room / s + 1;
    if (ceil && room % s != 0 && w->out[d] * s < in + w->begin[d]) w->out[d]++;
  }
  return ML_OK;
}
