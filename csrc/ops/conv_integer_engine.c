/* See conv_integer.h. A block of output positions at a time, the inputs each of them sees are laid side by side, widened to
 * int16 with the zero point taken off (padding is then 0), and multiplied with the widened filters. */
#include "ops/conv_integer.h"
#include <string.h>

enum { BLOCK = 256 }; /* positions */

/* Sides of different signedness are one type to the checks of a float convolution. */
static ml_status read_groups(const ml_op_ctx *ctx, const ml_view *x, const ml_view *w, int64_t *groups, ml_error *err) {
  ml_view same = *w;
  same.dtype = x->dtype;
  return ml__conv_groups(ctx->attrs, x, &same, false, groups, err);
}

ml_status ml__conv_i8_infer(const ml_op_ctx *ctx, const ml_view *x, const ml_view *w, ml_dtype dtype, ml_view *y, ml_error *err) {
  int64_t groups, dims[ML_MAX_RANK];
  ml__window window;
  ML_TRY(read_groups(ctx, x, w, &groups, err));
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(y, dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(ml__window_init(&window, ctx->attrs, x, w, false, err));
  dims[0] = x->dims[0];
  dims[1] = w->rank == ML_UNKNOWN ? ML_UNKNOWN : w->dims[0];
  for (int32_t d = 0; d < window.n; d++) dims[d + 2] = window.out[d];
  ml_op_set(y, dtype, dims, x->rank);
  return ML_OK;
}

ml_status ml__conv_i8_init(ml__conv_i8 *c, const ml_op_ctx *ctx, const ml_view *x, const ml_view *w, const ml_view *x_zero,
                           const ml_view *w_zero, ml_error *err) {
  int64_t groups;
  *c = (ml__conv_i8){ .x = x, .w = w, .x_zero = x_zero, .w_zero = w_zero };
  ML_TRY(read_groups(ctx, x, w, &groups, err));
  ML_TRY(ml__window_init(&c->window, ctx->attrs, x, w, false, err));
  c->images = (size_t)x->dims[0];
  c->groups = (size_t)groups;
  c->channels = (size_t)x->dims[1] / c->groups;
  c->filters = (size_t)w->dims[0] / c->groups;
  c->taps = ml__window_count(c->window.kernel, c->window.n);
  c->inputs = ml__window_count(c->window.in, c->window.n);
  c->outputs = ml__window_count(c->window.out, c->window.n);
  if (x_zero != NULL && x_zero->count != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "the zero point of x has %zu values, expected one", x_zero->count);
  if (w_zero != NULL && w_zero->count != 1 && w_zero->count != (size_t)w->dims[0])
    return ml_fail(err, ML_INVALID_ARGUMENT, "the zero point of w has %zu values, expected one or %lld", w_zero->count,
                   (long long)w->dims[0]);
  return ML_OK;
}

/* sums of a block, then the widened filters of a group, then the inputs of a block */
ml_status ml__conv_i8_workspace(const ml__conv_i8 *c, size_t *bytes, ml_error *err) {
  size_t k, rows, sums;
  if (!ml_mul_size(c->channels, c->taps, &k) || !ml_add_size(c->filters, BLOCK, &rows) || !ml_mul_size(rows, k, &rows) ||
      !ml_mul_size(rows, sizeof(int16_t), &rows) || !ml_mul_size(c->filters, BLOCK * sizeof(int32_t), &sums) ||
      !ml_add_size(rows, sums, bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the convolution is too large");
  return ML_OK;
}

/* The inputs that `n` positions from `position` on see: to (n, channels * taps). */
static void columns(const ml__conv_i8 *c, const char *x, size_t position, size_t n, int32_t zero, int16_t *to) {
  const ml__window *w = &c->window;
  const bool is_signed = c->x->dtype == ML_INT8;
  const size_t k = c->channels * c->taps;
  int64_t at[ML__WINDOW_RANK], tap[ML__WINDOW_RANK];
  memset(to, 0, n * k * sizeof *to);
  for (size_t i = 0; i < n; i++, to += k) {
    size_t rest = position + i;
    for (int32_t d = w->n - 1; d >= 0; d--) {
      at[d] = (int64_t)(rest % (size_t)w->out[d]);
      rest /= (size_t)w->out[d];
    }
    memset(tap, 0, sizeof tap);
    for (size_t t = 0; t < c->taps; t++, ml__next_index(tap, w->kernel, w->n)) {
      int64_t offset = 0;
      const int32_t last = w->n - 1;
      if (!ml__window_row(w, at, tap, &offset)) continue;
      const int64_t in_row = at[last] * w->stride[last] + tap[last] * w->dilation[last] - w->begin[last];
      if (in_row < 0 || in_row >= w->in[last]) continue;
      const char *from = x + offset + in_row;
      for (size_t ch = 0; ch < c->channels; ch++, from += c->inputs)
        to[ch * c->taps + t] = (int16_t)((is_signed ? *(const int8_t *)from : *(const uint8_t *)from) - zero);
    }
  }
}

void ml__conv_i8_run(const ml__conv_i8 *c, ml__conv_i8_store *store, void *context, void *workspace) {
  const size_t k = c->channels * c->taps;
  int32_t *sums = workspace;
  int16_t *filters = (int16_t *)(sums + c->filters * BLOCK), *seen = filters + c->filters * k;
  const int32_t x_zero = ml__zero_at(c->x_zero, 0);
  for (size_t g = 0; g < c->groups; g++) {
    for (size_t f = 0; f < c->filters; f++) {
      const size_t filter = g * c->filters + f;
      const int32_t zero = c->w_zero ? ml__zero_at(c->w_zero, c->w_zero->count == 1 ? 0 : filter) : 0;
      ml__widen((const char *)c->w->data + filter * k, c->w->dtype, 1, zero, filters + f * k, k);
    }
    for (size_t image = 0; image < c->images; image++) {
      const char *x = (const char *)c->x->data + (image * c->groups + g) * c->channels * c->inputs;
      for (size_t begin = 0; begin < c->outputs; begin += BLOCK) {
        const size_t n = c->outputs - begin < BLOCK ? c->outputs - begin : BLOCK;
        columns(c, x, begin, n, x_zero, seen);
        ml__product_i16(filters, seen, c->filters, n, k, sums, BLOCK);
        store(context, image, g * c->filters, c->filters, begin, n, sums, BLOCK);
      }
    }
  }
}
