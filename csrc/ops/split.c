/* Split 18: x cut along axis into the sizes of `split`, or into num_outputs equal parts (the last one smaller when it does not
 * divide). input (…, n, …), split (optional int64) -> (…, n_i, …) each. ONNX operator specification. Gradient: the parts
 * joined again. */
#include <string.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "0 (default): dimension that is cut" },
  { "num_outputs", ML_ATTR_INT, false, "number of parts when split is left out" },
  { 0 },
};

/* Size of part i; ML_UNKNOWN when n or the split is. n: extent along the axis. */
static ml_status part(const ml_op_ctx *ctx, int64_t n, int32_t i, int64_t *size, ml_error *err) {
  const ml_view *split = ml__in(ctx, 1);
  if (split) {
    if (split->data) *size = ((const int64_t *)split->data)[i];
    else *size = ML_UNKNOWN;
    if (split->data && *size < 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "split: element %d is %lld, expected 0 or more", (int)i, (long long)*size);
    return ML_OK;
  }
  int64_t parts = ml_attr_int(ctx->attrs, "num_outputs", ctx->n_out), chunk = n / parts + (n % parts != 0), begin = 0;
  *size = ML_UNKNOWN;
  if (n < 0) return ML_OK;
  if (__builtin_mul_overflow(chunk, (int64_t)i, &begin) || begin > n) begin = n;
  *size = n - begin < chunk ? n - begin : chunk;
  return ML_OK;
}

static ml_status check(const ml_op_ctx *ctx, int64_t n, ml_error *err) {
  const ml_view *split = ml__in(ctx, 1);
  const ml_attr *count = ml_attr_find(ctx->attrs, "num_outputs");
  if (split && (split->dtype != ML_INT64 || (split->rank != ML_UNKNOWN && split->rank != 1)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "split: expected an int64 tensor of rank 1");
  if (split && split->rank == 1 && split->dims[0] >= 0 && split->dims[0] != ctx->n_out)
    return ml_fail(err, ML_INVALID_ARGUMENT, "split has %lld elements for %d outputs", (long long)split->dims[0],
                   (int)ctx->n_out);
  if (!split && count && count->as.i != ctx->n_out)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute num_outputs is %lld, the node has %d outputs", (long long)count->as.i,
                   (int)ctx->n_out);
  if (!split || !split->data || n < 0) return ML_OK;
  int64_t sum = 0, size;
  for (int32_t i = 0; i < ctx->n_out; i++) {
    ML_TRY(part(ctx, n, i, &size, err));
    if (__builtin_add_overflow(sum, size, &sum))
      return ml_fail(err, ML_INVALID_ARGUMENT, "split: the sum overflows at element %d", (int)i);
  }
  if (sum != n)
    return ml_fail(err, ML_INVALID_ARGUMENT, "split: the elements add up to %lld, the dimension is %lld", (long long)sum,
                   (long long)n);
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  int64_t dims[ML_MAX_RANK];
  int32_t axis = 0;
  if (x->rank != ML_UNKNOWN) {
    ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, &axis, err));
    memcpy(dims, x->dims, (size_t)x->rank * sizeof *dims);
  }
  ML_TRY(check(ctx, x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->dims[axis], err));
  for (int32_t i = 0; i < ctx->n_out; i++) {
    if (x->rank != ML_UNKNOWN) ML_TRY(part(ctx, x->dims[axis], i, &dims[axis], err));
    ml_op_set(ctx->out[i], x->dtype, dims, x->rank);
  }
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  int32_t axis;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, &axis, err));
  ML_TRY(check(ctx, x->dims[axis], err));
  if (x->count == 0) return ML_OK;
  size_t size = ml_dtype_size(x->dtype), inner = ml__extent(x->dims, axis + 1, x->rank), outer = ml__extent(x->dims, 0, axis);
  int64_t x_row = x->dims[axis] * (int64_t)inner, at;
  const char *from = x->data;
  for (int32_t i = 0; i < ctx->n_out; i++) {
    ML_TRY(part(ctx, x->dims[axis], i, &at, err));
    int64_t row = at * (int64_t)inner, dims[2] = { (int64_t)outer, row }, step[2] = { x_row, 1 }, to[2] = { row, 1 };
    ml_view *y = ctx->out[i];
    if (y && y->count != outer * (size_t)row)
      return ml_fail(err, ML_INVALID_ARGUMENT, "split: output %d has %zu elements, expected %zu", (int)i, y->count,
                     outer * (size_t)row);
    if (y) ml__move(dims, 2, size, from, step, y->data, to);
    from += (size_t)row * size;
  }
  return ML_OK;
}

enum { SMALL = 16 };

static void gradient(ml_grad *g) {
  ml_value *few[SMALL], **parts = few;
  size_t n = (size_t)g->n_out;
  if (!g->needs[0]) return;
  if (n > SMALL && !(parts = ml_alloc_zero(n, sizeof *parts))) {
    ml_g_fail(g, "out of memory");
    return;
  }
  ml_attr axis = ml_attr_of_int("axis", ml_attr_int(g->attrs, "axis", 0));
  bool whole = true;
  for (size_t i = 0; i < n; i++) {
    parts[i] = g->dout[i] ? g->dout[i] : ml__g_zeros_like(g, g->out[i]);
    whole = whole && g->out[i];
  }
  if (whole) g->din[0] = ml_gn(g, "Concat", &axis, 1, n, parts);
  else ml_g_fail(g, "an output is left out");
  if (n > SMALL) ml_free(parts);
}

const ml_op_def ml_op_split = {
  .name = "Split", .domain = "", .since = 18, .min_in = 1, .max_in = 2, .min_out = 1, .max_out = INT32_MAX, .attrs = attrs,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y_i = consecutive parts of x along axis", .infer = infer, .run = run,
  .gradient = gradient,
};
