/* TopK: the k largest (or smallest) elements along an axis and their indices, best first; of equal elements the one with the
 * lower index comes first, NaN counts as larger than everything. X (A…, n, B…), K (one int64) -> Values (A…, k, B…), Indices
 * (the same, int64). The attribute sorted only permits another order; the result is always sorted.
 * A heap of the k best so far with the worst on top makes it n log k steps per row.
 * Gradient: dX = dValues added to zeros at Indices. Reference: ONNX TopK-24. */
#include "ops/elementwise.h"
#include "ops/movement.h"
#include "ops/order.h"

typedef struct entry {
  uint64_t key; /* larger is better */
  int64_t index;
} entry;

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "-1 (default): dimension that is searched" },
  { "largest", ML_ATTR_INT, false, "1 (default): the largest; 0: the smallest" },
  { "sorted", ML_ATTR_INT, false, "ignored: the result is sorted" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  int64_t k = ML_UNKNOWN, dims[ML_MAX_RANK] = { 0 };
  int32_t axis;
  size_t count;
  bool known;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__op_check_scalar(ctx->in[1], "K", err));
  ML_TRY(ml__ints(ctx->in[1], &k, 1, &count, &known, "K", err));
  if (x->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "X has rank 0, expected 1 or more");
  if (x->rank != ML_UNKNOWN) {
    ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
    for (int32_t i = 0; i < x->rank; i++) dims[i] = x->dims[i];
    dims[axis] = ML_UNKNOWN;
    if (known && count == 1) {
      if (k < 0 || (x->dims[axis] >= 0 && k > x->dims[axis]))
        return ml_fail(err, ML_OUT_OF_RANGE, "K is %lld, expected 0 to %lld", (long long)k, (long long)x->dims[axis]);
      dims[axis] = k;
    }
  }
  ml_op_set(ctx->out[0], x->dtype, dims, x->rank);
  ml_op_set(ml__out(ctx, 1), ML_INT64, dims, x->rank);
  return ML_OK;
}

static const ml_view *result(const ml_op_ctx *ctx) { return ctx->out[0] != NULL ? ctx->out[0] : ml__out(ctx, 1); }

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  int32_t axis;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), ctx->in[0]->rank, &axis, err));
  const ml_view *y = result(ctx);
  *bytes = 0;
  if (y == NULL || y->rank < 1 || y->dims[axis] < 0) return ML_OK;
  if (!ml_mul_size((size_t)y->dims[axis], sizeof(entry), bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "K is %lld", (long long)y->dims[axis]);
  return ML_OK;
}

static bool worse(entry a, entry b) { return a.key < b.key || (a.key == b.key && a.index > b.index); }

/* Restores the heap (the worst on top) below `at`. */
static void sift(entry *heap, size_t n, size_t at) {
  const entry moved = heap[at];
  for (size_t child; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && worse(heap[child + 1], heap[child])) child++;
    if (!worse(heap[child], moved)) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = result(ctx), *values = ctx->out[0], *indices = ml__out(ctx, 1);
  int32_t axis = 0;
  if (y == NULL || y->count == 0) return ML_OK;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
  const size_t n = (size_t)x->dims[axis], k = (size_t)y->dims[axis], outer = ml__extent(x->dims, 0, axis),
               inner = ml__extent(x->dims, axis + 1, x->rank), size = ml_dtype_size(x->dtype);
  const uint64_t flip = ml_attr_int(ctx->attrs, "largest", 1) != 0 ? 0 : UINT64_MAX;
  entry *heap = ctx->workspace;
  if (k > n) return ml_fail(err, ML_OUT_OF_RANGE, "K is %zu, expected 0 to %zu", k, n);
  for (size_t o = 0; o < outer * inner; o++) {
    const size_t from = o / inner * n * inner + o % inner, to = o / inner * k * inner + o % inner;
    for (size_t i = 0; i < k; i++) heap[i] = (entry){ ml__order_key(x->data, x->dtype, from + i * inner) ^ flip, (int64_t)i };
    for (size_t i = k / 2; i-- > 0;) sift(heap, k, i);
    for (size_t i = k; i < n; i++) {
      const entry e = { ml__order_key(x->data, x->dtype, from + i * inner) ^ flip, (int64_t)i };
      if (!worse(heap[0], e)) continue;
      heap[0] = e;
      sift(heap, k, 0);
    }
    for (size_t left = k; left > 0; left--) { /* the worst of those left goes to the end */
      const int64_t index = heap[0].index;
      const size_t place = to + (left - 1) * inner;
      if (indices != NULL) ((int64_t *)indices->data)[place] = index;
      if (values != NULL)
        memcpy((char *)values->data + place * size, (const char *)x->data + (from + (size_t)index * inner) * size, size);
      heap[0] = heap[left - 1];
      if (left > 1) sift(heap, left - 1, 0);
    }
  }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  if (!g->needs[0] || g->dout[0] == NULL) return;
  ml_value *both[2] = { NULL, g->n_out > 1 ? g->out[1] : NULL };
  int64_t axis = ml_attr_int(g->attrs, "axis", -1);
  ml_attr same[] = { ml_attr_of_int("axis", axis), ml_attr_of_int("largest", ml_attr_int(g->attrs, "largest", 1)) };
  if (both[1] == NULL) g->emit(g, "TopK", same, 2, 2, g->in, 2, both); /* nobody asked for the indices */
  ml_attr a[] = { ml_attr_of_int("axis", axis), ml_attr_of_str("reduction", "add") };
  g->din[0] = ml_gn(g, "ScatterElements", a, 2, 3, (ml_value *const[]){ ml__g_zeros_like(g, g->in[0]), both[1], g->dout[0] });
}

const ml_op_def ml_op_top_k = {
  .name = "TopK", .domain = "", .since = 24, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 2, .attrs = attrs,
  .types = { ML_MASK_N | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16), ML_BIT(ML_INT64) },
  .formula = "the k largest and their indices",
  .infer = infer, .workspace = workspace, .run = run, .gradient = gradient,
};
