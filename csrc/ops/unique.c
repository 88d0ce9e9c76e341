/* Unique: the distinct elements of the flattened input, or its distinct slices along an axis, with the index of the first of
 * each, the number of the distinct one for every element or slice, and how often each occurs. X (d…) -> Y (n) or (A…, n, B…),
 * indices (n), inverse_indices (elements or slices), counts (n), the last three int64 and optional. Sorted in ascending order
 * (slices lexicographically), or, with sorted = 0, by first occurrence. All NaN are one value. No gradient. Reference: ONNX
 * Unique-28.
 *
 * A stable merge sort of the numbers of the slices brings equal ones together, the first occurrence first. How many there are
 * is only known then: run() sets the shapes of the outputs itself. */
#include "ops/movement.h"
#include "ops/order.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "dimension of the slices; none: the elements of the flattened input" },
  { "sorted", ML_ATTR_INT, false, "1 (default): ascending; 0: by first occurrence" },
  { 0 },
};

typedef struct slices { /* slice i consists of the elements (o * n + i) * inner + k for o < outer, k < inner */
  const ml_view *x;
  size_t n, outer, inner;
} slices;

static ml_status split(const ml_op_ctx *ctx, slices *s, int32_t *axis, ml_error *err) {
  const ml_view *x = ctx->in[0];
  *axis = 0;
  *s = (slices){ .x = x, .n = x->count, .outer = 1, .inner = 1 };
  if (ml_attr_find(ctx->attrs, "axis") == NULL) return ML_OK;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, axis, err));
  s->n = (size_t)x->dims[*axis];
  if (x->count == 0) { /* slices without elements are all equal */
    s->outer = 0;
    return ML_OK;
  }
  s->outer = ml__extent(x->dims, 0, *axis);
  s->inner = ml__extent(x->dims, *axis + 1, x->rank);
  return ML_OK;
}

static int compare_elements(const ml_view *x, size_t a, size_t b) {
  if (x->dtype == ML_STRING) {
    const ml_str s = ((const ml_str *)x->data)[a], t = ((const ml_str *)x->data)[b];
    const size_t n = s.length < t.length ? s.length : t.length;
    const int order = n > 0 ? memcmp(s.bytes, t.bytes, n) : 0;
    return order != 0 ? order : (s.length > t.length) - (s.length < t.length);
  }
  const uint64_t p = ml__order_key(x->data, x->dtype, a), q = ml__order_key(x->data, x->dtype, b);
  return (p > q) - (p < q);
}

static int compare(const slices *s, size_t a, size_t b) {
  for (size_t o = 0; o < s->outer; o++)
    for (size_t k = 0; k < s->inner; k++) {
      const int order = compare_elements(s->x, (o * s->n + a) * s->inner + k, (o * s->n + b) * s->inner + k);
      if (order != 0) return order;
    }
  return 0;
}

/* Merges runs of doubling width between the two arrays; gives the one that holds the result. */
static size_t *sort(const slices *s, size_t *from, size_t *to) {
  for (size_t i = 0; i < s->n; i++) from[i] = i;
  for (size_t width = 1; width < s->n; width *= 2) {
    for (size_t begin = 0; begin < s->n; begin += 2 * width) {
      const size_t middle = begin + width < s->n ? begin + width : s->n, end = middle + width < s->n ? middle + width : s->n;
      size_t a = begin, b = middle;
      for (size_t k = begin; k < end; k++)
        to[k] = b >= end || (a < middle && compare(s, from[a], from[b]) <= 0) ? from[a++] : from[b++];
    }
    size_t *swap = from;
    from = to;
    to = swap;
  }
  return from;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const int64_t unknown = ML_UNKNOWN;
  int64_t dims[ML_MAX_RANK] = { ML_UNKNOWN }, all = ML_UNKNOWN;
  int32_t axis, rank = 1;
  ML_TRY(ml__op_check_types(ctx, err));
  if (ml_attr_find(ctx->attrs, "axis") == NULL) {
    if (ml_view_known(x)) all = (int64_t)x->count;
  } else {
    rank = x->rank;
    if (rank != ML_UNKNOWN) {
      ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), rank, &axis, err));
      memcpy(dims, x->dims, (size_t)rank * sizeof dims[0]);
      all = dims[axis];
      dims[axis] = ML_UNKNOWN;
    }
  }
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  ml_op_set(ml__out(ctx, 1), ML_INT64, &unknown, 1);
  ml_op_set(ml__out(ctx, 2), ML_INT64, &all, 1);
  ml_op_set(ml__out(ctx, 3), ML_INT64, &unknown, 1);
  return ML_OK;
}

/* two arrays to sort, the group of every slice, and per group: first slice, number of slices, number in the output */
static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  slices s;
  int32_t axis;
  ML_TRY(split(ctx, &s, &axis, err));
  if (!ml_mul_size(s.n, 6 * sizeof(size_t), bytes)) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "too many elements");
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  slices s;
  int32_t axis = 0;
  ML_TRY(split(ctx, &s, &axis, err));
  const ml_view *x = ctx->in[0];
  size_t *space = ctx->workspace, *group = space + 2 * s.n, *first = space + 3 * s.n, *counts = space + 4 * s.n,
         *place = space + 5 * s.n, groups = 0;
  const size_t *order = sort(&s, space, space + s.n);
  for (size_t i = 0; i < s.n; i++) {
    if (i == 0 || compare(&s, order[i - 1], order[i]) != 0) {
      first[groups] = order[i];
      counts[groups++] = 0;
    }
    group[order[i]] = groups - 1;
    counts[groups - 1]++;
  }
  if (ml_attr_int(ctx->attrs, "sorted", 1) != 0) {
    for (size_t k = 0; k < groups; k++) place[k] = k;
  } else {
    size_t seen = 0;
    for (size_t i = 0; i < s.n; i++)
      if (first[group[i]] == i) place[group[i]] = seen++;
  }
  int64_t dims[ML_MAX_RANK], n_groups = (int64_t)groups, n_all = (int64_t)s.n;
  const bool flat = ml_attr_find(ctx->attrs, "axis") == NULL;
  if (!flat) memcpy(dims, x->dims, (size_t)x->rank * sizeof dims[0]);
  dims[axis] = n_groups;
  ml_view *y = ctx->out[0], *indices = ml__out(ctx, 1), *inverse = ml__out(ctx, 2), *number = ml__out(ctx, 3);
  if (y != NULL) ML_TRY(ctx->run->resize(ctx->run, y, dims, flat ? 1 : x->rank, err));
  if (indices != NULL) ML_TRY(ctx->run->resize(ctx->run, indices, &n_groups, 1, err));
  if (inverse != NULL) ML_TRY(ctx->run->resize(ctx->run, inverse, &n_all, 1, err));
  if (number != NULL) ML_TRY(ctx->run->resize(ctx->run, number, &n_groups, 1, err));
  const size_t bytes = s.inner * ml_dtype_size(x->dtype);
  for (size_t k = 0; k < groups; k++) {
    for (size_t o = 0; o < s.outer && y != NULL; o++)
      memcpy((char *)y->data + (o * groups + place[k]) * bytes, (const char *)x->data + (o * s.n + first[k]) * bytes, bytes);
    if (indices != NULL) ((int64_t *)indices->data)[place[k]] = (int64_t)first[k];
    if (number != NULL) ((int64_t *)number->data)[place[k]] = (int64_t)counts[k];
  }
  for (size_t i = 0; i < s.n && inverse != NULL; i++) ((int64_t *)inverse->data)[i] = (int64_t)place[group[i]];
  return ML_OK;
}

const ml_op_def ml_op_unique = {
  .name = "Unique", .domain = "", .since = 28, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 4, .attrs = attrs,
  .types = { ML_MASK_ANY }, .formula = "y = distinct elements or slices of x", .infer = infer, .workspace = workspace, .run = run,
};
