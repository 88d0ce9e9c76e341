/* Strided copies. One engine serves Transpose, Slice, Expand, Tile, Concat and Split: dimensions of extent one go, neighbours
 * that are contiguous on both sides merge, and what is left runs as memcpy of whole rows, as a strided loop of a fixed element
 * size, or, when the source is contiguous along another dimension than the destination (a transposition), in square tiles so that
 * both sides stay in the cache. */
#include "ops/movement.h"
#include <string.h>

enum { TILE = 16 };

void ml__strides(const int64_t *dims, int32_t rank, int64_t *strides) {
  uint64_t s = 1; /* wraps only for tensors without elements, whose strides nobody uses */
  for (int32_t i = rank - 1; i >= 0; i--) {
    strides[i] = (int64_t)s;
    s *= (uint64_t)dims[i];
  }
}

void ml__broadcast_strides(const int64_t *dims, int32_t from_rank, int32_t rank, int64_t *strides) {
  int64_t own[ML_MAX_RANK];
  ml__strides(dims, from_rank, own);
  for (int32_t i = 0; i < rank; i++) {
    int32_t k = i - (rank - from_rank);
    strides[i] = k < 0 || dims[k] == 1 ? 0 : own[k];
  }
}

/* ---- one row ---- */
static inline __attribute__((always_inline)) void row_of(size_t size, int64_t n, const char *s, int64_t ss, char *d, int64_t ds) {
  for (int64_t i = 0; i < n; i++) memcpy(d + i * ds, s + i * ss, size);
}

/* Strides in bytes. */
static void row(size_t size, int64_t n, const char *s, int64_t ss, char *d, int64_t ds) {
  if (ss == (int64_t)size && ds == (int64_t)size && (size_t)n * size > 64) {
    memcpy(d, s, (size_t)n * size);
    return;
  }
  switch (size) {
    case 1: row_of(1, n, s, ss, d, ds); break;
    case 2: row_of(2, n, s, ss, d, ds); break;
    case 4: row_of(4, n, s, ss, d, ds); break;
    case 8: row_of(8, n, s, ss, d, ds); break;
    case 16: row_of(16, n, s, ss, d, ds); break;
    default: row_of(size, n, s, ss, d, ds); break;
  }
}

/* (rows, cols) with the source contiguous along rows, the destination along cols. */
static void tiles(size_t size, int64_t rows, int64_t cols, const char *s, int64_t s_row, int64_t s_col, char *d, int64_t d_row,
                  int64_t d_col) {
  for (int64_t r = 0; r < rows; r += TILE)
    for (int64_t c = 0; c < cols; c += TILE) {
      int64_t r_end = r + TILE < rows ? r + TILE : rows, n = c + TILE < cols ? TILE : cols - c;
      for (int64_t i = r; i < r_end; i++) row(size, n, s + i * s_row + c * s_col, s_col, d + i * d_row + c * d_col, d_col);
    }
}

typedef struct block {
  int32_t rank;
  int64_t dims[ML__MOVE_RANK], src[ML__MOVE_RANK], dst[ML__MOVE_RANK]; /* strides in bytes */
} block;

/* false: nothing to move */
static bool merge(block *b, const int64_t *dims, int32_t rank, size_t size, const int64_t *src, const int64_t *dst) {
  b->rank = 0;
  for (int32_t i = 0; i < rank; i++) {
    if (dims[i] <= 0) return false;
    if (dims[i] == 1) continue;
    int64_t s = src[i] * (int64_t)size, d = dst[i] * (int64_t)size;
    int32_t k = b->rank - 1;
    if (k >= 0 && b->src[k] == s * dims[i] && b->dst[k] == d * dims[i]) {
      b->dims[k] *= dims[i];
      b->src[k] = s;
      b->dst[k] = d;
    } else {
      b->dims[b->rank] = dims[i];
      b->src[b->rank] = s;
      b->dst[b->rank++] = d;
    }
  }
  return true;
}

/* The dimension, other than the last, along which the source is contiguous while it is not along the last; -1: none. */
static int32_t transposed_dim(const block *b, size_t size) {
  if (b->rank < 2 || b->src[b->rank - 1] == (int64_t)size) return -1;
  for (int32_t i = b->rank - 2; i >= 0; i--)
    if (b->src[i] == (int64_t)size) return i;
  return -1;
}

static void remove_dim(block *b, int32_t at) {
  b->rank--;
  for (int32_t i = at; i < b->rank; i++) {
    b->dims[i] = b->dims[i + 1];
    b->src[i] = b->src[i + 1];
    b->dst[i] = b->dst[i + 1];
  }
}

void ml__move(const int64_t *dims, int32_t rank, size_t size, const void *src, const int64_t *src_stride, void *dst,
              const int64_t *dst_stride) {
  block b;
  if (!merge(&b, dims, rank, size, src_stride, dst_stride)) return;
  const char *s = src;
  char *d = dst;
  if (b.rank == 0) {
    memcpy(d, s, size);
    return;
  }
  int32_t other = transposed_dim(&b, size), last = b.rank - 1;
  int64_t rows = 1, s_row = 0, d_row = 0, cols = b.dims[last], s_col = b.src[last], d_col = b.dst[last];
  b.rank--;
  if (other >= 0) {
    rows = b.dims[other];
    s_row = b.src[other];
    d_row = b.dst[other];
    remove_dim(&b, other);
  }
  int64_t index[ML__MOVE_RANK] = { 0 };
  for (;;) {
    if (rows > 1) tiles(size, rows, cols, s, s_row, s_col, d, d_row, d_col);
    else row(size, cols, s, s_col, d, d_col);
    int32_t k = b.rank - 1;
    for (; k >= 0; k--) {
      s += b.src[k];
      d += b.dst[k];
      if (++index[k] < b.dims[k]) break;
      s -= b.src[k] * b.dims[k];
      d -= b.dst[k] * b.dims[k];
      index[k] = 0;
    }
    if (k < 0) return;
  }
}

void ml__fill(void *dst, const void *value, size_t size, size_t count) {
  if (count == 0) return;
  row(size, (int64_t)count, value, 0, dst, (int64_t)size);
}

ml_status ml__run_copy(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  if (x->count != y->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "output has %zu elements, input has %zu", y->count, x->count);
  if (x->count > 0 && x->data != y->data) memmove(y->data, x->data, x->count * ml_dtype_size(x->dtype));
  return ML_OK;
}

ml_status ml__ints(const ml_view *view, int64_t *out, size_t capacity, size_t *count, bool *known, const char *what,
                   ml_error *err) {
  *count = 0;
  *known = true;
  if (!view) return ML_OK;
  if (view->dtype != ML_INT32 && view->dtype != ML_INT64)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected int32 or int64, got %s", what, ml_dtype_name(view->dtype));
  if (view->rank > 1) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected rank 0 or 1, got rank %d", what, (int)view->rank);
  if (view->rank == 1 && view->dims[0] == 0) return ML_OK;
  return ml_op_ints(view, out, capacity, count, known, what, err);
}

void ml__infer_unknown(ml_op_ctx *ctx, ml_dtype dtype, const ml_view *shape) {
  int64_t dims[ML_MAX_RANK];
  int32_t rank = ML_UNKNOWN;
  for (int32_t i = 0; i < ML_MAX_RANK; i++) dims[i] = ML_UNKNOWN;
  if (shape && shape->rank == 1 && shape->dims[0] >= 0 && shape->dims[0] <= ML_MAX_RANK) rank = (int32_t)shape->dims[0];
  ml_op_set(ctx->out[0], dtype, dims, rank);
}

ml_status ml__axes(const int64_t *list, size_t count, int32_t rank, bool *set, ml_error *err) {
  memset(set, 0, ML_MAX_RANK * sizeof *set);
  for (size_t i = 0; i < count; i++) {
    int32_t axis;
    ML_TRY(ml_axis_normalise(list[i], rank, &axis, err));
    if (set[axis]) return ml_fail(err, ML_INVALID_ARGUMENT, "axes: axis %lld is named twice", (long long)list[i]);
    set[axis] = true;
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- gradients ---- */
/* The shape of x as a constant when it is known but for at most `unknowns` dimensions (which become -1), else as a Shape node. */
static ml_value *shape_value(ml_grad *g, ml_value *x, int32_t unknowns) {
  const ml_view *view = x ? g->shape_of(g, x) : NULL;
  if (!view) return NULL;
  bool zero = false;
  int32_t missing = 0;
  for (int32_t i = 0; i < view->rank; i++) {
    missing += view->dims[i] < 0;
    zero = zero || view->dims[i] == 0;
  }
  if (view->rank != ML_UNKNOWN && missing <= unknowns && !zero) return g->ints(g, view->dims, (size_t)view->rank);
  return ml_g1(g, "Shape", x);
}

ml_value *ml__g_reshape_like(ml_grad *g, ml_value *dy, ml_value *x) { return ml_g2(g, "Reshape", dy, shape_value(g, x, 1)); }

ml_value *ml__g_expand_like(ml_grad *g, ml_value *dy, ml_value *x) {
  const ml_view *a = dy ? g->shape_of(g, dy) : NULL, *b = x ? g->shape_of(g, x) : NULL;
  if (a && b && ml_view_known(a) && ml_view_known(b) && ml_shape_equal(a->dims, a->rank, b->dims, b->rank)) return dy;
  return ml_g2(g, "Expand", dy, shape_value(g, x, 0));
}

ml_value *ml__g_zeros_like(ml_grad *g, ml_value *x) {
  return x ? ml_g2(g, "Expand", g->constant(g, 0, x), shape_value(g, x, 0)) : NULL;
}

ml_value *ml__g_cast(ml_grad *g, ml_value *x, ml_dtype dtype) {
  ml_attr to = ml_attr_of_int("to", dtype);
  return ml_gn(g, "Cast", &to, 1, 1, &x);
}
