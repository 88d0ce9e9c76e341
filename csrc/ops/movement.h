/* Moving elements without looking at them, and what shape operators share.
 * Lives here: strided block copies generic over the element size, small readers of inputs, gradient snippets. May include:
 * tensor, kernels, base. Ownership: nothing is kept. String elements (ml_str) move like any other 16-byte element; their bytes
 * stay where they are. */
#ifndef ML_OPS_MOVEMENT_H
#define ML_OPS_MOVEMENT_H
#include "ops/op.h"

#define ML__MOVE_RANK (2 * ML_MAX_RANK) /* Tile splits every dimension in two */

/* Row-major strides in elements. */
void ml__strides(const int64_t *dims, int32_t rank, int64_t *strides);
/* Strides in elements that read a tensor of shape dims as if it were broadcast to `rank` dimensions: 0 where it repeats. */
void ml__broadcast_strides(const int64_t *dims, int32_t from_rank, int32_t rank, int64_t *strides);
/* dst[sum i_k*dst_stride_k] = src[sum i_k*src_stride_k] for every index below dims; strides in elements of `size` bytes, source
 * strides may be zero or negative. rank <= ML__MOVE_RANK; the two blocks do not overlap. */
void ml__move(const int64_t *dims, int32_t rank, size_t size, const void *src, const int64_t *src_stride, void *dst,
              const int64_t *dst_stride);
/* count copies of one element */
void ml__fill(void *dst, const void *value, size_t size, size_t count);
/* The run() of operators whose output is the input's bytes (Reshape and its family): checks the counts, copies unless the memory
 * is shared. */
ml_status ml__run_copy(ml_op_ctx *ctx, ml_error *err);

/* Input i, or NULL when it was left out. */
static inline const ml_view *ml__in(const ml_op_ctx *ctx, int32_t i) { return i < ctx->n_in ? ctx->in[i] : NULL; }
static inline ml_view *ml__out(const ml_op_ctx *ctx, int32_t i) { return i < ctx->n_out ? ctx->out[i] : NULL; }
/* Product of dims[from … to-1]; all of them known. */
static inline size_t ml__extent(const int64_t *dims, int32_t from, int32_t to) {
  size_t n = 1;
  for (int32_t i = from; i < to; i++) n *= (size_t)dims[i];
  return n;
}
/* The integers of a rank-0 or rank-1 int32/int64 tensor as ml_op_ints gives them; an empty tensor counts as known. An input left
 * out: *known is true and *count 0. */
ml_status ml__ints(const ml_view *view, int64_t *out, size_t capacity, size_t *count, bool *known, const char *what,
                   ml_error *err);
/* Output 0 of dtype and as many unknown dimensions as the (rank-1) tensor `shape` has elements, unknown rank when that is not
 * known either. */
void ml__infer_unknown(ml_op_ctx *ctx, ml_dtype dtype, const ml_view *shape);
/* The set of axes of a rank-`rank` tensor that list names; fails on a repeated or impossible axis. */
ml_status ml__axes(const int64_t *list, size_t count, int32_t rank, bool *set, ml_error *err);

/* ---- gradients ---- */
ml_value *ml__g_reshape_like(ml_grad *g, ml_value *dy, ml_value *x); /* dy in the shape of x (same count) */
ml_value *ml__g_expand_like(ml_grad *g, ml_value *dy, ml_value *x);  /* dy broadcast to the shape of x */
ml_value *ml__g_zeros_like(ml_grad *g, ml_value *x);
ml_value *ml__g_cast(ml_grad *g, ml_value *x, ml_dtype dtype);

#endif
