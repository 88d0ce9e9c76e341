/* Choosing rows and putting columns side by side. */
#include "data/rows.h"
#include <string.h>

ml_status ml_take_rows(const ml_view *from, const int64_t *rows, size_t count, ml_tensor **out, ml_error *err) {
  int64_t dims[ML_MAX_RANK];
  if (from->rank < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "a scalar has no rows to take");
  int64_t available = from->dims[0];
  for (size_t i = 0; i < count; ++i)
    if (rows[i] < 0 || rows[i] >= available)
      return ml_fail(err, ML_OUT_OF_RANGE, "row index %lld is outside the %lld rows", (long long)rows[i], (long long)available);
  memcpy(dims, from->dims, sizeof dims);
  dims[0] = (int64_t)count;
  size_t width = available > 0 ? from->count / (size_t)available : 0;

  if (from->dtype == ML_STRING) {
    size_t elements, bytes;
    ML_TRY(ml_shape_count(dims, from->rank, ML_STRING, &elements, err));
    if (!ml_mul_size(elements, sizeof(ml_str), &bytes)) return ml_fail_memory(err, SIZE_MAX, "rows of text");
    ml_str *strings = ml_alloc(bytes);
    if (strings == NULL) return ml_fail_memory(err, bytes, "rows of text");
    for (size_t i = 0; i < count && width > 0; ++i)
      memcpy(strings + i * width, (const ml_str *)from->data + (size_t)rows[i] * width, width * sizeof(ml_str));
    ml_status status = ml_tensor_from_strings(strings, dims, from->rank, out, err);
    ml_free(strings);
    return status;
  }

  ML_TRY(ml_tensor_new(from->dtype, dims, from->rank, out, err));
  size_t bytes = width * ml_dtype_size(from->dtype);
  for (size_t i = 0; i < count && bytes > 0; ++i)
    memcpy((char *)(*out)->view.data + i * bytes, (const char *)from->data + (size_t)rows[i] * bytes, bytes);
  return ML_OK;
}

ml_status ml_stack_columns(const ml_view *columns, size_t column_count, ml_dtype dtype, ml_tensor **out, ml_error *err) {
  if (column_count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "no columns to put side by side");
  if (dtype != ML_FLOAT32 && dtype != ML_FLOAT64)
    return ml_fail(err, ML_INVALID_ARGUMENT, "columns are put side by side as float32 or float64, not %s", ml_dtype_name(dtype));
  for (size_t c = 0; c < column_count; ++c) {
    if (columns[c].dtype == ML_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "column %zu holds text", c + 1);
    if (columns[c].rank < 1 || (int64_t)columns[c].count != columns[c].dims[0])
      return ml_fail(err, ML_INVALID_ARGUMENT, "column %zu must have one value a row", c + 1);
    if (columns[c].dims[0] != columns[0].dims[0])
      return ml_fail(err, ML_INVALID_ARGUMENT, "column %zu has %lld rows, column 1 has %lld", c + 1,
                     (long long)columns[c].dims[0], (long long)columns[0].dims[0]);
  }
  int64_t dims[2] = {columns[0].dims[0], (int64_t)column_count};
  ML_TRY(ml_tensor_new(dtype, dims, 2, out, err));
  size_t rows = (size_t)dims[0];
  for (size_t c = 0; c < column_count; ++c) {
    for (size_t row = 0; row < rows; ++row) {
      double value = ml_element_get(columns[c].data, columns[c].dtype, row);
      if (dtype == ML_FLOAT32) ((float *)(*out)->view.data)[row * column_count + c] = (float)value;
      else ((double *)(*out)->view.data)[row * column_count + c] = value;
    }
  }
  return ML_OK;
}

ml_status ml_select_column(const ml_view *from, size_t column, ml_tensor **out, ml_error *err) {
  if (from->rank != 2 || from->dtype == ML_STRING)
    return ml_fail(err, ML_INVALID_ARGUMENT, "a column is selected from numbers of shape (rows, columns)");
  if (column >= (size_t)from->dims[1])
    return ml_fail(err, ML_OUT_OF_RANGE, "column %zu of %lld", column + 1, (long long)from->dims[1]);
  ML_TRY(ml_tensor_new(from->dtype, from->dims, 1, out, err));
  size_t size = ml_dtype_size(from->dtype), stride = size * (size_t)from->dims[1];
  const char *source = (const char *)from->data + column * size;
  for (size_t row = 0; row < (size_t)from->dims[0]; ++row)
    memcpy((char *)(*out)->view.data + row * size, source + row * stride, size);
  return ML_OK;
}
