/* Pad 25: the data with elements put before and after each axis; negative pads take elements away (before the others are added).
 * data (any shape, any type), pads (2k: k beginnings, then k ends), constant_value (optional), axes (k, optional) -> output.
 * mode constant: constant_value (zero, empty string, false); edge: the nearest element; reflect: mirrored at the edge element,
 * which is not repeated; wrap: as if the data went round. ONNX operator specification; numpy.pad.
 * Gradient (mode constant): the same operator with the pads negated, which cuts away what was added and gives zeros to what was
 * taken away. */
#include <string.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "mode", ML_ATTR_STRING, false, "constant (default), edge, reflect or wrap" },
  { 0 },
};

typedef enum mode { CONSTANT, EDGE, REFLECT, WRAP } mode;

static ml_status read_mode(const ml_attrs *list, mode *out, ml_error *err) {
  static const char *const names[] = { "constant", "edge", "reflect", "wrap" };
  for (int i = 0; i < 4; i++)
    if (ml_attr_is(list, "mode", "constant", names[i])) {
      *out = (mode)i;
      return ML_OK;
    }
  ml_str s = ml_attr_str(list, "mode", "");
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'mode' is '%.*s', expected constant, edge, reflect or wrap",
                 (int)(s.length < 40 ? s.length : 40), s.bytes);
}

/* Pads of every dimension; *known false: they are not known yet, and `touched` says which dimensions may change. */
static ml_status read_pads(const ml_op_ctx *ctx, int32_t rank, int64_t *begin, int64_t *end, bool *touched, bool *known,
                           ml_error *err) {
  int64_t pads[2 * ML_MAX_RANK], axes[ML_MAX_RANK];
  const ml_view *list = ml__in(ctx, 3);
  size_t n_pads, n_axes;
  bool have_pads, have_axes, set[ML_MAX_RANK];
  ML_TRY(ml__ints(ctx->in[1], pads, 2 * ML_MAX_RANK, &n_pads, &have_pads, "pads", err));
  ML_TRY(ml__ints(list, axes, ML_MAX_RANK, &n_axes, &have_axes, "axes", err));
  *known = have_pads && have_axes;
  for (int32_t d = 0; d < rank; d++) {
    begin[d] = end[d] = 0;
    touched[d] = true;
    if (!list) axes[d] = d;
  }
  if (!list) n_axes = (size_t)rank;
  if (!have_axes) return ML_OK;
  ML_TRY(ml__axes(axes, n_axes, rank, set, err));
  for (int32_t d = 0; d < rank; d++) touched[d] = set[d];
  if (!have_pads) return ML_OK;
  if (n_pads != 2 * n_axes)
    return ml_fail(err, ML_INVALID_ARGUMENT, "pads: expected %zu values (two for each of %zu axes), got %zu", 2 * n_axes, n_axes,
                   n_pads);
  for (size_t i = 0; i < n_axes; i++) {
    int64_t axis = axes[i] < 0 ? axes[i] + rank : axes[i];
    begin[axis] = pads[i];
    end[axis] = pads[i + n_axes];
  }
  return ML_OK;
}

/* What is left after the negative pads: from `skip` on, `count` elements. */
static void kept(int64_t n, int64_t begin, int64_t end, int64_t *skip, int64_t *count) {
  *skip = begin < 0 ? (begin < -n ? n : -begin) : 0;
  int64_t drop = end < 0 ? (end < -n ? n : -end) : 0;
  *count = n - *skip - drop < 0 ? 0 : n - *skip - drop;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *value = ml__in(ctx, 2);
  int64_t begin[ML_MAX_RANK], end[ML_MAX_RANK], dims[ML_MAX_RANK];
  bool touched[ML_MAX_RANK], known;
  mode m = CONSTANT;
  ML_TRY(read_mode(ctx->attrs, &m, err));
  if (value && value->dtype != x->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "constant_value is %s, data is %s", ml_dtype_name(value->dtype),
                   ml_dtype_name(x->dtype));
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(read_pads(ctx, x->rank, begin, end, touched, &known, err));
  for (int32_t d = 0; d < x->rank; d++) {
    dims[d] = touched[d] && !known ? ML_UNKNOWN : x->dims[d];
    if (!known || x->dims[d] < 0) continue;
    if (__builtin_add_overflow(dims[d], begin[d], &dims[d]) || __builtin_add_overflow(dims[d], end[d], &dims[d]) || dims[d] < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "pads: %lld and %lld do not fit dimension %d of %lld", (long long)begin[d],
                     (long long)end[d], (int)d, (long long)x->dims[d]);
    int64_t skip, count;
    kept(x->dims[d], begin[d], end[d], &skip, &count);
    if (m != CONSTANT && count == 0 && dims[d] > 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "pads: dimension %d has no elements to repeat", (int)d);
  }
  for (int32_t d = 0; d < x->rank && known; d++)
    if (x->dims[d] < 0 && (begin[d] != 0 || end[d] != 0)) dims[d] = ML_UNKNOWN;
  ml_op_set(ctx->out[0], x->dtype, dims, x->rank);
  return ML_OK;
}

/* The element of n kept ones that stands at position i, which may lie outside. */
static int64_t source(mode m, int64_t i, int64_t n) {
  if (i >= 0 && i < n) return i;
  if (m == EDGE || n == 1) return i < 0 ? 0 : n - 1;
  int64_t period = m == WRAP ? n : 2 * (n - 1);
  i %= period;
  if (i < 0) i += period;
  return m == REFLECT && i >= n ? period - i : i;
}

static void fill_constant(const ml_view *x, const ml_view *y, const ml_view *value, const int64_t *begin, const int64_t *end) {
  size_t size = ml_dtype_size(x->dtype);
  static const ml_str zero; /* zero bytes are the zero of every type, and the empty string */
  int64_t own[ML_MAX_RANK], to[ML_MAX_RANK], dims[ML_MAX_RANK], from_offset = 0, to_offset = 0;
  bool whole = true;
  ml__strides(x->dims, x->rank, own);
  ml__strides(y->dims, y->rank, to);
  for (int32_t d = 0; d < x->rank; d++) {
    int64_t skip, count;
    kept(x->dims[d], begin[d], end[d], &skip, &count);
    int64_t at = begin[d] > 0 ? begin[d] : 0;
    if (at > y->dims[d]) at = y->dims[d]; /* a negative end reaches into the padding */
    if (count > y->dims[d] - at) count = y->dims[d] - at;
    whole = whole && count == y->dims[d];
    dims[d] = count;
    from_offset += skip * own[d];
    to_offset += at * to[d];
  }
  if (!whole || x->rank == 0) ml__fill(y->data, value ? value->data : (const void *)&zero, size, y->count);
  for (int32_t d = 0; d < x->rank; d++)
    if (dims[d] <= 0) return;
  ml__move(dims, x->rank, size, (const char *)x->data + (size_t)from_offset * size, own,
           (char *)y->data + (size_t)to_offset * size, to);
}

static void fill_repeated(const ml_view *x, const ml_view *y, mode m, const int64_t *begin, const int64_t *end) {
  size_t size = ml_dtype_size(x->dtype);
  int64_t own[ML_MAX_RANK], skip[ML_MAX_RANK], count[ML_MAX_RANK], index[ML_MAX_RANK] = { 0 };
  const int32_t last = x->rank - 1;
  ml__strides(x->dims, x->rank, own);
  for (int32_t d = 0; d <= last; d++) kept(x->dims[d], begin[d], end[d], &skip[d], &count[d]);
  char *to = y->data;
  const int64_t width = y->dims[last], before = begin[last] > 0 ? begin[last] : 0;
  for (size_t row = 0; row < y->count / (size_t)width; row++) {
    int64_t offset = skip[last];
    for (int32_t d = 0; d < last; d++)
      offset += (skip[d] + source(m, index[d] - (begin[d] > 0 ? begin[d] : 0), count[d])) * own[d];
    const char *from = (const char *)x->data + (size_t)offset * size;
    for (int64_t i = 0; i < width; i++, to += size) {
      if (i == before && count[last] > 1 && count[last] <= width - i) { /* the middle in one piece */
        memcpy(to, from, (size_t)count[last] * size);
        to += (size_t)(count[last] - 1) * size;
        i += count[last] - 1;
        continue;
      }
      memcpy(to, from + (size_t)source(m, i - before, count[last]) * size, size);
    }
    for (int32_t d = last - 1; d >= 0; d--) {
      if (++index[d] < y->dims[d]) break;
      index[d] = 0;
    }
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *value = ml__in(ctx, 2);
  ml_view *y = ctx->out[0];
  int64_t begin[ML_MAX_RANK], end[ML_MAX_RANK];
  bool touched[ML_MAX_RANK], known;
  mode m = CONSTANT;
  ML_TRY(read_mode(ctx->attrs, &m, err));
  ML_TRY(read_pads(ctx, x->rank, begin, end, touched, &known, err));
  if (!known) return ml_fail(err, ML_INVALID_ARGUMENT, "pads or axes have no values");
  for (int32_t d = 0; d < x->rank; d++)
    if (x->dims[d] + begin[d] + end[d] != y->dims[d])
      return ml_fail(err, ML_INVALID_ARGUMENT, "pads do not give the planned shape");
  if (value && value->count == 0) value = NULL;
  if (value && value->count != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "constant_value has %zu elements, expected 1", value->count);
  if (y->count == 0) return ML_OK;
  if (m == CONSTANT || x->rank == 0) fill_constant(x, y, value, begin, end);
  else fill_repeated(x, y, m, begin, end);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *in[4] = { g->dout[0], NULL, NULL, g->n_in > 3 ? g->in[3] : NULL };
  if (!g->needs[0] || !g->dout[0]) return;
  if (!ml_attr_is(g->attrs, "mode", "constant", "constant")) {
    ml_g_fail(g, "Pad gradient of a mode other than constant");
    return;
  }
  in[1] = ml_g1(g, "Neg", g->in[1]);
  g->din[0] = ml_gn(g, "Pad", NULL, 0, in[3] ? 4 : 2, in);
}

const ml_op_def ml_op_pad = {
  .name = "Pad", .domain = "", .since = 25, .min_in = 2, .max_in = 4, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT64), ML_MASK_ANY, ML_BIT(ML_INT32) | ML_BIT(ML_INT64) },
  .formula = "y = x with elements before and after", .infer = infer, .run = run, .gradient = gradient,
};
