/* Concat 13: the inputs one after the other along axis; they agree in every other dimension. ONNX operator specification.
 * inputs (…, n_i, …) -> (…, sum n_i, …). Gradient: dy split again. */
#include <string.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, true, "dimension along which the inputs are joined" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *first = NULL;
  int64_t dims[ML_MAX_RANK] = { 0 };
  int32_t axis = 0;
  for (int32_t i = 0; i < ctx->n_in; i++) {
    const ml_view *x = ctx->in[i];
    if (!x) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", (int)i);
    if (x->dtype != ctx->in[0]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is %s, input 0 is %s", (int)i, ml_dtype_name(x->dtype),
                     ml_dtype_name(ctx->in[0]->dtype));
    if (x->rank == ML_UNKNOWN || first) continue;
    first = x;
    if (x->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has rank 0, expected 1 or more", (int)i);
    ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, &axis, err));
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
    dims[axis] = 0;
  }
  if (!first) {
    ml_op_set(ctx->out[0], ctx->in[0]->dtype, dims, ML_UNKNOWN);
    return ML_OK;
  }
  for (int32_t i = 0; i < ctx->n_in; i++) {
    const ml_view *x = ctx->in[i];
    char a[96], b[96];
    bool fits = x->rank == first->rank || x->rank == ML_UNKNOWN;
    for (int32_t d = 0; fits && d < x->rank; d++) {
      if (d == axis) continue;
      fits = x->dims[d] == dims[d] || x->dims[d] < 0 || dims[d] < 0;
      if (dims[d] < 0) dims[d] = x->dims[d];
    }
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has shape %s, which differs from %s in more than axis %d", (int)i,
                     ml_shape_format(x->dims, x->rank, a, sizeof a), ml_shape_format(first->dims, first->rank, b, sizeof b),
                     (int)axis);
    if (x->rank == ML_UNKNOWN || x->dims[axis] < 0) dims[axis] = ML_UNKNOWN;
    else if (dims[axis] >= 0 && __builtin_add_overflow(dims[axis], x->dims[axis], &dims[axis]))
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the sum of dimension %d overflows at input %d", (int)axis, (int)i);
  }
  ml_op_set(ctx->out[0], first->dtype, dims, first->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_view *y = ctx->out[0];
  int32_t axis;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), y->rank, &axis, err));
  if (y->count == 0) return ML_OK;
  size_t size = ml_dtype_size(y->dtype), inner = ml__extent(y->dims, axis + 1, y->rank), outer = ml__extent(y->dims, 0, axis);
  int64_t y_row = y->dims[axis] * (int64_t)inner;
  char *to = y->data;
  for (int32_t i = 0; i < ctx->n_in; i++) {
    const ml_view *x = ctx->in[i];
    int64_t row = x->dims[axis] * (int64_t)inner, dims[2] = { (int64_t)outer, row }, from[2] = { row, 1 }, step[2] = { y_row, 1 };
    ml__move(dims, 2, size, x->data, from, to, step);
    to += (size_t)row * size;
  }
  return ML_OK;
}

enum { SMALL = 16 };

/* Sizes along axis as an int64 vector: constant where all are known, else made of Shape nodes. */
static ml_value *sizes_of(ml_grad *g, int64_t axis, ml_value **parts, int64_t *known) {
  bool all = true;
  for (int32_t i = 0; i < g->n_in; i++) {
    const ml_view *x = g->shape_of(g, g->in[i]);
    int64_t a = axis < 0 && x ? axis + x->rank : axis;
    known[i] = x && x->rank != ML_UNKNOWN && a >= 0 && a < x->rank ? x->dims[a] : ML_UNKNOWN;
    all = all && known[i] >= 0;
  }
  if (all) return g->ints(g, known, (size_t)g->n_in);
  ml_attr range[2] = { ml_attr_of_int("start", axis), ml_attr_of_int("end", axis + 1) };
  for (int32_t i = 0; i < g->n_in; i++) parts[i] = ml_gn(g, "Shape", range, axis == -1 ? 1 : 2, 1, &g->in[i]);
  ml_attr zero = ml_attr_of_int("axis", 0);
  return ml_gn(g, "Concat", &zero, 1, (size_t)g->n_in, parts);
}

static void gradient(ml_grad *g) {
  ml_value *few[SMALL], **parts = few;
  int64_t few_sizes[SMALL], *sizes = few_sizes;
  size_t n = (size_t)g->n_in;
  if (n > SMALL) {
    parts = ml_alloc_zero(n, sizeof *parts);
    sizes = ml_alloc_zero(n, sizeof *sizes);
    if (!parts || !sizes) {
      ml_g_fail(g, "out of memory");
      ml_free(parts);
      ml_free(sizes);
      return;
    }
  }
  ml_attr axis = ml_attr_of_int("axis", ml_attr_int(g->attrs, "axis", 0));
  ml_value *in[2] = { g->dout[0], sizes_of(g, axis.as.i, parts, sizes) };
  memset(parts, 0, n * sizeof *parts);
  (void)g->emit(g, "Split", &axis, 1, 2, in, n, parts);
  for (int32_t i = 0; i < g->n_in; i++) g->din[i] = g->needs[i] ? parts[i] : NULL;
  if (n > SMALL) {
    ml_free(parts);
    ml_free(sizes);
  }
}

const ml_op_def ml_op_concat = {
  .name = "Concat", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_VARIADIC,
  .attrs = attrs, .formula = "y = the inputs joined along axis", .infer = infer, .run = run, .gradient = gradient,
};
