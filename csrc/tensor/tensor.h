/* Tensors: contiguous, row-major, reference-counted.
 * Lives here: shapes, views (borrowed) and tensors (owned). May include: kernels, base.
 * Ownership: ml_tensor_new and friends return one reference; ml_tensor_release drops it. An ml_view owns nothing. */
#ifndef ML_TENSOR_TENSOR_H
#define ML_TENSOR_TENSOR_H
#include "base/alloc.h"
#include "base/status.h"
#include "tensor/dtype.h"

#define ML_MAX_RANK 16
#define ML_UNKNOWN (-1) /* a dimension or a rank not known yet */

/* What operators and sessions work on: type, shape and a borrowed pointer. */
typedef struct ml_view {
  void *data;                 /* NULL: contents not known (shape inference) or count == 0 */
  size_t count;               /* elements; 0 while any dimension is unknown */
  ml_dtype dtype;
  int32_t rank;               /* ML_UNKNOWN: not known */
  int64_t dims[ML_MAX_RANK];  /* ML_UNKNOWN: not known */
  uint32_t type;              /* 0: a tensor; else what kind of container (tensor/container.h), and dtype is ML_CONTAINER */
} ml_view;

/* Product of dims (1 for rank 0), checked. Fails with the offending dimension: unknown, negative, overflow of size_t/PTRDIFF_MAX bytes. */
ml_status ml_shape_count(const int64_t *dims, int32_t rank, ml_dtype dtype, size_t *count, ml_error *err);
bool ml_shape_equal(const int64_t *a, int32_t rank_a, const int64_t *b, int32_t rank_b);
bool ml_view_known(const ml_view *view); /* rank and every dimension known */
/* "(2, -1, 3)" into text (always terminated); returns text */
const char *ml_shape_format(const int64_t *dims, int32_t rank, char *text, size_t size);
/* NumPy/ONNX multidirectional broadcasting; unknown dimensions stay unknown unless the other is > 1. Fails naming both shapes. */
ml_status ml_shape_broadcast(const int64_t *a, int32_t rank_a, const int64_t *b, int32_t rank_b, int64_t *out, int32_t *rank_out, ml_error *err);
/* Axis in [-rank, rank) to [0, rank); fails naming axis and rank. */
ml_status ml_axis_normalise(int64_t axis, int32_t rank, int32_t *out, ml_error *err);

/* Reference-counted bytes, possibly foreign (a mapped file). */
typedef struct ml_storage ml_storage;
ml_storage *ml_storage_new(size_t bytes);  /* zeroed */
/* Wraps memory; release(context) is called when the last reference goes. NULL on out of memory (release not called). */
ml_storage *ml_storage_wrap(void *data, size_t bytes, void (*release)(void *context), void *context);
void *ml_storage_data(const ml_storage *storage);
size_t ml_storage_bytes(const ml_storage *storage);
ml_storage *ml_storage_retain(ml_storage *storage);
void ml_storage_release(ml_storage *storage); /* NULL allowed */

typedef struct ml_tensor {
  ml_view view;         /* read-only for everybody but the owner */
  ml_storage *storage;  /* keeps view.data alive */
  uint32_t references;  /* private */
} ml_tensor;

/* Zeroed tensor (string elements empty). Errors: bad shape, out of memory. */
ml_status ml_tensor_new(ml_dtype dtype, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err);
/* Same with a copy of `data` (count elements; strings: ml_str array, bytes are copied too). */
ml_status ml_tensor_copy_of(const ml_view *view, ml_tensor **out, ml_error *err);
/* A tensor on `bytes` of an existing storage from `offset`; retains storage. Refuses string dtype and a range outside the storage. */
ml_status ml_tensor_on(ml_storage *storage, size_t offset, ml_dtype dtype, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err);
/* String tensor from an array of ml_str; bytes are copied into one block. */
ml_status ml_tensor_from_strings(const ml_str *strings, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err);
/* Same storage, other shape of equal count. */
ml_status ml_tensor_reshape(ml_tensor *tensor, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err);
/* Rows begin … end-1 along axis 0, sharing the storage. */
ml_status ml_tensor_rows(ml_tensor *tensor, int64_t begin, int64_t end, ml_tensor **out, ml_error *err);
/* Same shape, other numeric dtype (a retained reference when the dtype is the same). */
ml_status ml_tensor_cast(ml_tensor *tensor, ml_dtype dtype, ml_tensor **out, ml_error *err);
ml_tensor *ml_tensor_retain(ml_tensor *tensor);
void ml_tensor_release(ml_tensor *tensor); /* NULL allowed; thread-safe */

#endif
