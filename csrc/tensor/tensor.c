/* Shapes, storage and tensors.
 *
 * A storage is one block: its header, then (64 bytes behind the start) the data, unless it wraps foreign memory.
 * A string tensor's data is the ml_str array followed by the bytes those point at, so it is one block too and elements stay
 * valid as long as the storage does. Counts are checked so that neither the elements nor any partial product of dimensions
 * overflows, a shape with a zero dimension included. */
#include "tensor/tensor.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { SHAPE_TEXT = 192 }; /* enough of a shape for a message */

/* ---- shapes ---- */

static ml_status check_rank(int32_t rank, ml_error *err) {
  if (rank == ML_UNKNOWN) return ml_fail(err, ML_INVALID_ARGUMENT, "rank is not known");
  if (rank < 0 || rank > ML_MAX_RANK) {
    return ml_fail(err, ML_INVALID_ARGUMENT, "rank %d is out of range, expected 0 to %d", (int)rank, ML_MAX_RANK);
  }
  return ML_OK;
}

ml_status ml_shape_count(const int64_t *dims, int32_t rank, ml_dtype dtype, size_t *count, ml_error *err) {
  size_t size = ml_dtype_size(dtype);
  if (size == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "dtype %d is not an element type", (int)dtype);
  ML_TRY(check_rank(rank, err));
  size_t total = size; /* bytes, zero dimensions left out */
  bool empty = false;
  char text[SHAPE_TEXT];
  for (int32_t i = 0; i < rank; ++i) {
    if (dims[i] < 0) {
      return ml_fail(err, ML_INVALID_ARGUMENT, "dimension %d of shape %s is %s", (int)i,
                     ml_shape_format(dims, rank, text, sizeof text), dims[i] == ML_UNKNOWN ? "not known" : "negative");
    }
    if (dims[i] == 0) empty = true;
    else if ((uint64_t)dims[i] > SIZE_MAX || !ml_mul_size(total, (size_t)dims[i], &total) || total > PTRDIFF_MAX) {
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "shape %s of %s is too large: overflow at dimension %d",
                     ml_shape_format(dims, rank, text, sizeof text), ml_dtype_name(dtype), (int)i);
    }
  }
  *count = empty ? 0 : total / size;
  return ML_OK;
}

bool ml_shape_equal(const int64_t *a, int32_t rank_a, const int64_t *b, int32_t rank_b) {
  if (rank_a != rank_b) return false;
  for (int32_t i = 0; i < rank_a; ++i) {
    if (a[i] != b[i]) return false;
  }
  return true;
}

bool ml_view_known(const ml_view *view) {
  for (int32_t i = 0; i < view->rank; ++i) {
    if (view->dims[i] < 0) return false;
  }
  return view->rank >= 0;
}

const char *ml_shape_format(const int64_t *dims, int32_t rank, char *text, size_t size) {
  if (size == 0) return text;
  if (rank < 0) {
    snprintf(text, size, "(unknown rank)");
    return text;
  }
  size_t used = 0;
  snprintf(text, size, "(");
  for (int32_t i = 0; i < rank && (used = strlen(text)) + 1 < size; ++i) {
    snprintf(text + used, size - used, "%s%lld", i > 0 ? ", " : "", (long long)dims[i]);
  }
  used = strlen(text);
  snprintf(text + used, size - used, ")");
  return text;
}

ml_status ml_shape_broadcast(const int64_t *a, int32_t rank_a, const int64_t *b, int32_t rank_b, int64_t *out,
                             int32_t *rank_out, ml_error *err) {
  if (rank_a < 0 || rank_b < 0) {
    *rank_out = ML_UNKNOWN;
    return ML_OK;
  }
  ML_TRY(check_rank(rank_a, err));
  ML_TRY(check_rank(rank_b, err));
  int32_t rank = rank_a > rank_b ? rank_a : rank_b;
  int64_t dims[ML_MAX_RANK]; /* apart from out, which may be a or b */
  for (int32_t i = 1; i <= rank; ++i) { /* from the last dimension */
    int64_t x = i <= rank_a ? a[rank_a - i] : 1, y = i <= rank_b ? b[rank_b - i] : 1, z;
    if (x == y || y == 1) z = x;
    else if (x == 1) z = y;
    else if (x < 0 || y < 0) z = x > 1 ? x : y > 1 ? y : ML_UNKNOWN;
    else {
      char left[SHAPE_TEXT], right[SHAPE_TEXT];
      return ml_fail(err, ML_INVALID_ARGUMENT, "shapes %s and %s cannot be broadcast: dimensions %lld and %lld",
                     ml_shape_format(a, rank_a, left, sizeof left), ml_shape_format(b, rank_b, right, sizeof right),
                     (long long)x, (long long)y);
    }
    dims[rank - i] = z < 0 ? ML_UNKNOWN : z;
  }
  if (rank > 0) memcpy(out, dims, (size_t)rank * sizeof dims[0]);
  *rank_out = rank;
  return ML_OK;
}

ml_status ml_axis_normalise(int64_t axis, int32_t rank, int32_t *out, ml_error *err) {
  if (rank <= 0) {
    return ml_fail(err, ML_INVALID_ARGUMENT, "axis %lld given, but the tensor %s", (long long)axis,
                   rank == 0 ? "is a scalar (rank 0)" : "has an unknown rank");
  }
  if (axis < -(int64_t)rank || axis >= rank) {
    return ml_fail(err, ML_INVALID_ARGUMENT, "axis %lld is out of range for rank %d, expected %d to %d", (long long)axis,
                   (int)rank, -(int)rank, (int)rank - 1);
  }
  *out = (int32_t)(axis < 0 ? axis + rank : axis);
  return ML_OK;
}

/* ---- storage ---- */

struct ml_storage {
  void *data;
  size_t bytes;
  void (*release)(void *context); /* (optional) NULL: data follows this header */
  void *context;
  _Atomic uint32_t references;
};

static_assert(sizeof(ml_storage) <= ML_ALIGN, "data starts ML_ALIGN bytes behind the header");

ml_storage *ml_storage_new(size_t bytes) {
  size_t total;
  ml_storage *storage = ml_add_size(bytes, ML_ALIGN, &total) ? ml_alloc_zero(1, total) : NULL;
  if (storage == NULL) return NULL;
  storage->data = (unsigned char *)storage + ML_ALIGN;
  storage->bytes = bytes;
  atomic_init(&storage->references, 1);
  return storage;
}

ml_storage *ml_storage_wrap(void *data, size_t bytes, void (*release)(void *context), void *context) {
  ml_storage *storage = ml_alloc_zero(1, sizeof *storage);
  if (storage == NULL) return NULL;
  storage->data = data;
  storage->bytes = bytes;
  storage->release = release;
  storage->context = context;
  atomic_init(&storage->references, 1);
  return storage;
}

void *ml_storage_data(const ml_storage *storage) { return storage->data; }
size_t ml_storage_bytes(const ml_storage *storage) { return storage->bytes; }

ml_storage *ml_storage_retain(ml_storage *storage) {
  atomic_fetch_add_explicit(&storage->references, 1, memory_order_relaxed);
  return storage;
}

void ml_storage_release(ml_storage *storage) {
  if (storage == NULL) return;
  uint32_t before = atomic_fetch_sub_explicit(&storage->references, 1, memory_order_acq_rel);
  assert(before > 0);
  if (before != 1) return;
  if (storage->release != NULL) storage->release(storage->context);
  ml_free(storage);
}

/* ---- tensors ---- */

/* Takes over the reference to storage, also on failure. */
static ml_status tensor_make(ml_storage *storage, void *data, ml_dtype dtype, const int64_t *dims, int32_t rank, size_t count,
                             ml_tensor **out, ml_error *err) {
  ml_tensor *tensor = ml_alloc_zero(1, sizeof *tensor);
  if (tensor == NULL) {
    ml_storage_release(storage);
    return ml_fail_memory(err, sizeof *tensor, "a tensor");
  }
  tensor->view.data = data;
  tensor->view.count = count;
  tensor->view.dtype = dtype;
  tensor->view.rank = rank;
  if (rank > 0) memcpy(tensor->view.dims, dims, (size_t)rank * sizeof dims[0]);
  tensor->storage = storage;
  tensor->references = 1;
  *out = tensor;
  return ML_OK;
}

ml_status ml_tensor_new(ml_dtype dtype, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err) {
  size_t count;
  ML_TRY(ml_shape_count(dims, rank, dtype, &count, err));
  size_t bytes = count * ml_dtype_size(dtype);
  ml_storage *storage = ml_storage_new(bytes);
  if (storage == NULL) return ml_fail_memory(err, bytes, "a tensor");
  if (dtype == ML_STRING) {
    ml_str *strings = storage->data;
    for (size_t i = 0; i < count; ++i) strings[i].bytes = "";
  }
  return tensor_make(storage, storage->data, dtype, dims, rank, count, out, err);
}

ml_status ml_tensor_copy_of(const ml_view *view, ml_tensor **out, ml_error *err) {
  size_t count;
  ML_TRY(ml_shape_count(view->dims, view->rank, view->dtype, &count, err));
  if (count > 0 && view->data == NULL) {
    return ml_fail(err, ML_INVALID_ARGUMENT, "cannot copy a tensor whose contents are not known");
  }
  if (view->dtype == ML_STRING) return ml_tensor_from_strings(view->data, view->dims, view->rank, out, err);
  ml_tensor *copy = NULL;
  ML_TRY(ml_tensor_new(view->dtype, view->dims, view->rank, &copy, err));
  if (count > 0) memcpy(copy->view.data, view->data, count * ml_dtype_size(view->dtype));
  *out = copy;
  return ML_OK;
}

ml_status ml_tensor_on(ml_storage *storage, size_t offset, ml_dtype dtype, const int64_t *dims, int32_t rank, ml_tensor **out,
                       ml_error *err) {
  size_t count;
  ML_TRY(ml_shape_count(dims, rank, dtype, &count, err));
  if (dtype == ML_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "a string tensor cannot lie on existing storage");
  size_t size = ml_dtype_size(dtype), bytes = count * size;
  if (offset > storage->bytes || bytes > storage->bytes - offset) {
    return ml_fail(err, ML_OUT_OF_RANGE, "a tensor of %zu bytes at offset %zu does not fit a storage of %zu bytes", bytes, offset,
                   storage->bytes);
  }
  unsigned char *data = storage->data == NULL ? NULL : (unsigned char *)storage->data + offset;
  if ((uintptr_t)data % size != 0) {
    return ml_fail(err, ML_INVALID_ARGUMENT, "offset %zu is not aligned for %s", offset, ml_dtype_name(dtype));
  }
  return tensor_make(ml_storage_retain(storage), data, dtype, dims, rank, count, out, err);
}

ml_status ml_tensor_from_strings(const ml_str *strings, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err) {
  size_t count;
  ML_TRY(ml_shape_count(dims, rank, ML_STRING, &count, err));
  size_t bytes = count * sizeof *strings;
  for (size_t i = 0; i < count; ++i) {
    if (!ml_add_size(bytes, strings[i].length, &bytes)) return ml_fail_memory(err, SIZE_MAX, "a string tensor");
  }
  ml_storage *storage = ml_storage_new(bytes);
  if (storage == NULL) return ml_fail_memory(err, bytes, "a string tensor");
  ml_str *element = storage->data;
  char *text = (char *)(element + count);
  for (size_t i = 0; i < count; ++i) {
    size_t length = strings[i].length;
    if (length > 0) memcpy(text, strings[i].bytes, length);
    element[i] = (ml_str){length > 0 ? text : "", length};
    text += length;
  }
  return tensor_make(storage, storage->data, ML_STRING, dims, rank, count, out, err);
}

ml_status ml_tensor_reshape(ml_tensor *tensor, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err) {
  const ml_view *view = &tensor->view;
  size_t count;
  ML_TRY(ml_shape_count(dims, rank, view->dtype, &count, err));
  if (count != view->count) {
    char from[SHAPE_TEXT], to[SHAPE_TEXT];
    return ml_fail(err, ML_INVALID_ARGUMENT, "cannot reshape %s (%zu elements) to %s (%zu elements)",
                   ml_shape_format(view->dims, view->rank, from, sizeof from), view->count,
                   ml_shape_format(dims, rank, to, sizeof to), count);
  }
  return tensor_make(ml_storage_retain(tensor->storage), view->data, view->dtype, dims, rank, count, out, err);
}

ml_status ml_tensor_rows(ml_tensor *tensor, int64_t begin, int64_t end, ml_tensor **out, ml_error *err) {
  const ml_view *view = &tensor->view;
  if (view->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "a scalar has no rows");
  int64_t rows = view->dims[0];
  if (begin < 0 || end < begin || end > rows) {
    return ml_fail(err, ML_OUT_OF_RANGE, "rows %lld to %lld are out of range for %lld rows", (long long)begin, (long long)end,
                   (long long)rows);
  }
  int64_t dims[ML_MAX_RANK];
  memcpy(dims, view->dims, sizeof dims);
  dims[0] = end - begin;
  size_t row = rows == 0 ? 0 : view->count / (size_t)rows;
  void *data = view->data;
  if (row > 0 && end > begin) data = (unsigned char *)data + (size_t)begin * row * ml_dtype_size(view->dtype);
  return tensor_make(ml_storage_retain(tensor->storage), data, view->dtype, dims, view->rank, row * (size_t)dims[0], out, err);
}

ml_status ml_tensor_cast(ml_tensor *tensor, ml_dtype dtype, ml_tensor **out, ml_error *err) {
  const ml_view *view = &tensor->view;
  if (dtype == view->dtype) {
    *out = ml_tensor_retain(tensor);
    return ML_OK;
  }
  if (view->dtype == ML_STRING || dtype == ML_STRING) {
    return ml_fail(err, ML_INVALID_ARGUMENT, "cannot cast %s to %s", ml_dtype_name(view->dtype), ml_dtype_name(dtype));
  }
  ml_tensor *made = NULL;
  ML_TRY(ml_tensor_new(dtype, view->dims, view->rank, &made, err));
  ml_convert(view->data, view->dtype, made->view.data, dtype, view->count);
  *out = made;
  return ML_OK;
}

ml_tensor *ml_tensor_retain(ml_tensor *tensor) {
  __atomic_fetch_add(&tensor->references, 1, __ATOMIC_RELAXED);
  return tensor;
}

void ml_tensor_release(ml_tensor *tensor) {
  if (tensor == NULL) return;
  uint32_t before = __atomic_fetch_sub(&tensor->references, 1, __ATOMIC_ACQ_REL);
  assert(before > 0);
  if (before != 1) return;
  ml_storage_release(tensor->storage);
  ml_free(tensor);
}
