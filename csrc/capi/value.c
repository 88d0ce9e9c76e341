/* Values of the C API: tensors on the caller's memory or on their own. A value remembers how much memory it has, so that its shape can change
 * within it. Sequences, optionals and maps: container.c. */
#include <string.h>
#include "capi/capi.h"

/* ---- making ---- */

static ml_status check_shape(mlserve_dtype dtype, const int64_t *dims, int32_t rank, size_t *count, ml_error *err) {
  if (!ml__capi_is_dtype(dtype)) return ml_fail(err, ML_INVALID_ARGUMENT, "%d is no element type", (int)dtype);
  if (rank > 0 && !dims) return ml_fail(err, ML_INVALID_ARGUMENT, "dims is NULL, but the rank is %d", (int)rank);
  return ml_shape_count(dims, rank, (ml_dtype)dtype, count, err);
}

static void set_shape(ml_view *view, const int64_t *dims, int32_t rank, size_t count) {
  view->count = count;
  view->rank = rank;
  for (int32_t d = 0; d < rank; d++) view->dims[d] = dims[d];
}

static ml_status make(const ml_view *view, size_t capacity, size_t text, mlserve_value **out, ml_error *err) {
  mlserve_value *value = ml_alloc_zero(1, sizeof *value + text);
  if (!value) return ml_fail_memory(err, sizeof *value, "a value");
  value->mark = ML__VALUE_MARK;
  value->view = *view;
  value->capacity = capacity;
  *out = value;
  return ML_OK;
}

static void drop(ml_item item) {
  ml_tensor_release(item.tensor);
  ml_container_release(item.container);
}

ml_status ml__capi_value_of(ml_item item, bool part, mlserve_value **out, ml_error *err) {
  mlserve_value *value = NULL;
  ml_view view;
  ml_item_view(&item, &view);
  ml_status status = make(&view, view.type ? 0 : view.count * ml_dtype_size(view.dtype), view.type ? ML__TYPE_TEXT : 0, &value, err);
  if (status != ML_OK) {
    drop(item);
    return status;
  }
  value->item = item;
  value->part = part;
  if (view.type) {
    ml_view_of_container(&value->item.container, &value->view); /* where the slot is to stay */
    ml_type_format(view.type, value->type, ML__TYPE_TEXT);
  }
  *out = value;
  return ML_OK;
}

static ml_status wrap(mlserve_dtype dtype, const int64_t *dims, int32_t rank, void *data, size_t bytes, mlserve_value **out, ml_error *err) {
  ml_view view = { .data = data, .dtype = (ml_dtype)dtype };
  size_t count;
  ML_TRY(check_shape(dtype, dims, rank, &count, err));
  if (dtype == MLSERVE_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "strings cannot be wrapped; use mlserve_value_strings");
  size_t size = ml_dtype_size(view.dtype);
  if (!data && bytes > 0) return ml_fail(err, ML_INVALID_ARGUMENT, "data is NULL, but bytes is %zu", bytes);
  if ((uintptr_t)data % size != 0) return ml_fail(err, ML_INVALID_ARGUMENT, "data is not aligned for %s", ml_dtype_name(view.dtype));
  if (count * size > bytes) {
    char text[160];
    return ml_fail(err, ML_OUT_OF_RANGE, "%s %s needs %zu bytes, there are %zu", ml_dtype_name(view.dtype),
                   ml_shape_format(dims, rank, text, sizeof text), count * size, bytes);
  }
  set_shape(&view, dims, rank, count);
  return make(&view, bytes, 0, out, err);
}

mlserve_status mlserve_value_wrap(mlserve_dtype dtype, const int64_t *dims, int32_t rank, void *data, size_t bytes, mlserve_value **value,
                                  char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  if (value) *value = NULL;
  if (!value) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_value_wrap: value is NULL");
  else status = wrap(dtype, dims, rank, data, bytes, value, &err);
  return ml__capi_end(status, &err, message, message_size);
}

static ml_status make_owned(mlserve_dtype dtype, const int64_t *dims, int32_t rank, mlserve_value **out, ml_error *err) {
  ml_tensor *tensor;
  size_t count;
  ML_TRY(check_shape(dtype, dims, rank, &count, err));
  if (dtype == MLSERVE_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "strings are given when the value is made; use mlserve_value_strings");
  ML_TRY(ml_tensor_new((ml_dtype)dtype, dims, rank, &tensor, err));
  return ml__capi_value_of((ml_item){ tensor, NULL }, false, out, err);
}

mlserve_status mlserve_value_new(mlserve_dtype dtype, const int64_t *dims, int32_t rank, mlserve_value **value, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  if (value) *value = NULL;
  if (!value) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_value_new: value is NULL");
  else status = make_owned(dtype, dims, rank, value, &err);
  return ml__capi_end(status, &err, message, message_size);
}

static ml_status make_strings(const char *const *strings, const size_t *lengths, const int64_t *dims, int32_t rank, mlserve_value **out,
                              ml_error *err) {
  ml_tensor *tensor = NULL;
  size_t count;
  ML_TRY(check_shape(MLSERVE_STRING, dims, rank, &count, err));
  if (count > 0 && !strings) return ml_fail(err, ML_INVALID_ARGUMENT, "strings is NULL, but there are to be %zu", count);
  for (size_t i = 0; i < count; i++)
    if (!strings[i] && !(lengths && lengths[i] == 0)) return ml_fail(err, ML_INVALID_ARGUMENT, "string %zu is NULL", i);
  ml_str *views = ml_alloc_zero(count, sizeof *views);
  if (!views) return ml_fail_memory(err, count * sizeof *views, "strings");
  for (size_t i = 0; i < count; i++) views[i] = (ml_str){ strings[i], lengths ? lengths[i] : strlen(strings[i]) };
  ml_status status = ml_tensor_from_strings(views, dims, rank, &tensor, err);
  ml_free(views);
  return status == ML_OK ? ml__capi_value_of((ml_item){ tensor, NULL }, false, out, err) : status;
}

mlserve_status mlserve_value_strings(const char *const *strings, const size_t *lengths, const int64_t *dims, int32_t rank, mlserve_value **value,
                                     char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  if (value) *value = NULL;
  if (!value) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_value_strings: value is NULL");
  else status = make_strings(strings, lengths, dims, rank, value, &err);
  return ml__capi_end(status, &err, message, message_size);
}

void mlserve_value_free(mlserve_value *value) {
  if (!ml__capi_is_value(value)) return;
  value->mark = 0;
  drop(value->item);
  ml_free(value);
}

/* ---- changing ---- */

ml_status ml__capi_no_value(const mlserve_value *value, const char *what, ml_error *err) {
  return ml_fail(err, ML_INVALID_ARGUMENT, value ? "%s is no value" : "%s is NULL", what);
}

static ml_status set_dims(mlserve_value *value, const int64_t *dims, int32_t rank, ml_error *err) {
  size_t count;
  if (!ml__capi_is_value(value)) return ml__capi_no_value(value, "mlserve_value_set_dims: value", err);
  if (value->view.type) return ml_fail(err, ML_INVALID_ARGUMENT, "the value is %s and has no shape", value->type);
  ML_TRY(check_shape((mlserve_dtype)value->view.dtype, dims, rank, &count, err));
  size_t bytes = count * ml_dtype_size(value->view.dtype);
  if (bytes > value->capacity) {
    char text[160];
    return ml_fail(err, ML_OUT_OF_RANGE, "%s %s needs %zu bytes, the value has %zu", ml_dtype_name(value->view.dtype),
                   ml_shape_format(dims, rank, text, sizeof text), bytes, value->capacity);
  }
  set_shape(&value->view, dims, rank, count);
  return ML_OK;
}

mlserve_status mlserve_value_set_dims(mlserve_value *value, const int64_t *dims, int32_t rank, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  return ml__capi_end(set_dims(value, dims, rank, &err), &err, message, message_size);
}

ml_status ml__capi_value_store(mlserve_value *value, const ml_view *result, const char *name, ml_error *err) {
  char type[ML__TYPE_TEXT];
  if (result->type)
    return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is %s, which cannot be written into a value; give NULL", name,
                   ml_type_format(result->type, type, sizeof type));
  if (value->view.dtype != result->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is %s, its value %s", name, ml_dtype_name(result->dtype), ml_dtype_name(value->view.dtype));
  size_t bytes = result->count * ml_dtype_size(result->dtype);
  if (bytes > value->capacity) {
    char text[160];
    return ml_fail(err, ML_OUT_OF_RANGE, "output '%s' of shape %s needs %zu bytes, its value has %zu", name,
                   ml_shape_format(result->dims, result->rank, text, sizeof text), bytes, value->capacity);
  }
  if (bytes > 0) memcpy(value->view.data, result->data, bytes);
  set_shape(&value->view, result->dims, result->rank, result->count);
  return ML_OK;
}

/* ---- looking ---- */

int32_t mlserve_value_kind(const mlserve_value *value) {
  return ml__capi_is_value(value) ? ml__capi_kind(ml__capi_type(&value->view)) : MLSERVE_KIND_NONE;
}

const char *mlserve_value_type(const mlserve_value *value) {
  if (!ml__capi_is_value(value)) return NULL;
  if (value->view.type) return value->type;
  switch (value->view.dtype) {
#define X(name, number, bytes, text) case ML_##name: return "tensor(" text ")";
    ML_DTYPE_MAP(X)
#undef X
  default: return NULL; /* no tensor is of another type */
  }
}

mlserve_dtype mlserve_value_dtype(const mlserve_value *value) {
  return ml__capi_is_value(value) ? (mlserve_dtype)ml_type_dtype(ml__capi_type(&value->view)) : MLSERVE_DTYPE_NONE;
}

int32_t mlserve_value_rank(const mlserve_value *value) { return ml__capi_is_tensor(value) ? value->view.rank : -1; }

int64_t mlserve_value_dim(const mlserve_value *value, int32_t axis) {
  return ml__capi_is_tensor(value) && axis >= 0 && axis < value->view.rank ? value->view.dims[axis] : -1;
}

size_t mlserve_value_count(const mlserve_value *value) { return ml__capi_is_tensor(value) ? value->view.count : 0; }

static bool is_raw(const mlserve_value *value) { return ml__capi_is_tensor(value) && value->view.dtype != ML_STRING; }

size_t mlserve_value_bytes(const mlserve_value *value) { return is_raw(value) ? value->view.count * ml_dtype_size(value->view.dtype) : 0; }
void *mlserve_value_data(const mlserve_value *value) { return is_raw(value) ? value->view.data : NULL; }

static ml_status get_string(const mlserve_value *value, size_t index, const char **string, size_t *length, ml_error *err) {
  if (!ml__capi_is_value(value)) return ml__capi_no_value(value, "mlserve_value_string: value", err);
  if (value->view.dtype != ML_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "the value is %s, tensor(string) expected", mlserve_value_type(value));
  if (index >= value->view.count) return ml_fail(err, ML_OUT_OF_RANGE, "there is no string %zu, the value has %zu", index, value->view.count);
  const ml_str *element = (const ml_str *)value->view.data + index;
  *string = element->bytes;
  *length = element->length;
  return ML_OK;
}

mlserve_status mlserve_value_string(const mlserve_value *value, size_t index, const char **string, size_t *length, char *message,
                                    size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  if (string) *string = NULL;
  if (length) *length = 0;
  if (!string || !length) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_value_string: %s is NULL", string ? "length" : "string");
  else status = get_string(value, index, string, length, &err);
  return ml__capi_end(status, &err, message, message_size);
}
