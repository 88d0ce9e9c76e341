/* Values of the C API that are not tensors. A container never changes once it is filled, so what is taken out shares its tensors and containers;
 * what goes in is copied where its memory is the caller's to write. */
#include "capi/capi.h"

int32_t ml__capi_kind(uint32_t type) {
  static const int32_t kinds[] = { MLSERVE_KIND_TENSOR, MLSERVE_KIND_SEQUENCE, MLSERVE_KIND_OPTIONAL, MLSERVE_KIND_MAP, MLSERVE_KIND_MAP };
  return kinds[ml_type_kind(type)];
}

/* ---- making ---- */

static ml_status take(const mlserve_value *value, ml_item *out, ml_error *err) {
  const ml_tensor *tensor = value->item.tensor;
  if (value->part && tensor && ml_shape_equal(value->view.dims, value->view.rank, tensor->view.dims, tensor->view.rank)) {
    *out = ml_item_retain(value->item);
    return ML_OK;
  }
  if (!value->view.type) ML_TRY(ml__capi_check_elements(&value->view, err));
  return ml_item_of(&value->view, out, err);
}

/* The type of a sequence or an optional: as given, or as the items have it. An element type that the former leaves open is the items'. */
static ml_status type_of(ml_kind kind, const char *text, mlserve_value *const *items, size_t count, uint32_t *out, ml_error *err) {
  static const char *const names[] = { "a tensor", "a sequence", "an optional" };
  uint32_t type = 0;
  if (text && !(ml_type_parse(text, &type) && ml_type_kind(type) == kind))
    return ml_fail(err, ML_INVALID_ARGUMENT, "'%.100s' is no type of %s", text, names[kind]);
  if (!text && count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "%s without items needs its type, as mlserve_info_type writes it", names[kind]);
  if (count > 0 && !items) return ml_fail(err, ML_INVALID_ARGUMENT, "items is NULL, but there are to be %zu", count);
  for (size_t i = 0; i < count; i++) {
    if (!ml__capi_is_value(items[i])) return ml_fail(err, ML_INVALID_ARGUMENT, "item %zu is %s", i, items[i] ? "no value" : "NULL");
    uint32_t item = ml__capi_type(&items[i]->view);
    char expected[ML__TYPE_TEXT];
    if (!text && i == 0 && !(type = ml_type_of(kind, item)))
      return ml_fail(err, ML_INVALID_ARGUMENT, "item 0 is %s, which nests as deep as values may", mlserve_value_type(items[0]));
    if (!ml_type_fits(ml_type_inner(type), item))
      return ml_fail(err, ML_INVALID_ARGUMENT, "item %zu is %s, expected %s", i, mlserve_value_type(items[i]),
                     ml_type_format(ml_type_inner(type), expected, sizeof expected));
    if (ml_type_dtype(type) == ML_DTYPE_NONE) type |= (uint32_t)ml_type_dtype(item);
  }
  *out = type;
  return ML_OK;
}

/* A container of items that fit, as a value. */
static ml_status fill(uint32_t type, const mlserve_value *const *items, size_t count, mlserve_value **out, ml_error *err) {
  ml_container *made;
  ML_TRY(ml_container_new(type, count, &made, err));
  for (size_t i = 0; i < count; i++) {
    ml_status status = take(items[i], &made->items[i], err);
    if (status == ML_OK) continue;
    ml_container_release(made);
    return ml_fail_in(err, status, "item %zu", i);
  }
  return ml__capi_value_of((ml_item){ NULL, made }, false, out, err);
}

static ml_status make(ml_kind kind, const char *type_text, mlserve_value *const *items, size_t count, mlserve_value **out, ml_error *err) {
  uint32_t type;
  ML_TRY(type_of(kind, type_text, items, count, &type, err));
  return fill(type, (const mlserve_value *const *)items, count, out, err);
}

mlserve_status mlserve_value_sequence(const char *type, mlserve_value *const *items, size_t count, mlserve_value **value, char *message,
                                      size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  if (value) *value = NULL;
  if (!value) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_value_sequence: value is NULL");
  else status = make(ML_KIND_SEQUENCE, type, items, count, value, &err);
  return ml__capi_end(status, &err, message, message_size);
}

mlserve_status mlserve_value_optional(const char *type, const mlserve_value *item, mlserve_value **value, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  mlserve_value *const items[] = { (mlserve_value *)(uintptr_t)item }; /* only read */
  if (value) *value = NULL;
  if (!value) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_value_optional: value is NULL");
  else status = make(ML_KIND_OPTIONAL, type, items, item ? 1 : 0, value, &err);
  return ml__capi_end(status, &err, message, message_size);
}

static ml_status make_map(const mlserve_value *keys, const mlserve_value *values, mlserve_value **out, ml_error *err) {
  const mlserve_value *const items[] = { keys, values };
  static const char *const names[] = { "keys", "values" };
  for (int i = 0; i < 2; i++) {
    if (!ml__capi_is_value(items[i])) return ml__capi_no_value(items[i], names[i], err);
    if (items[i]->view.type || items[i]->view.rank != 1)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s of rank %d, expected a tensor of rank 1", names[i], mlserve_value_type(items[i]),
                     (int)mlserve_value_rank(items[i]));
  }
  ml_dtype key = keys->view.dtype;
  if (key != ML_INT64 && key != ML_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "keys is %s, expected int64 or string", ml_dtype_name(key));
  if (keys->view.count != values->view.count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "there are %zu keys and %zu values", keys->view.count, values->view.count);
  uint32_t type = ml_type_of(key == ML_STRING ? ML_KIND_MAP_STRING : ML_KIND_MAP_INT64, ml_type_tensor(values->view.dtype));
  return fill(type, items, 2, out, err);
}

mlserve_status mlserve_value_map(const mlserve_value *keys, const mlserve_value *values, mlserve_value **value, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status;
  if (value) *value = NULL;
  if (!value) status = ml_fail(&err, ML_INVALID_ARGUMENT, "mlserve_value_map: value is NULL");
  else status = make_map(keys, values, value, &err);
  return ml__capi_end(status, &err, message, message_size);
}

/* ---- looking ---- */

size_t mlserve_value_items(const mlserve_value *value) {
  switch (mlserve_value_kind(value)) {
  case MLSERVE_KIND_SEQUENCE:
  case MLSERVE_KIND_OPTIONAL: return value->item.container->count;
  case MLSERVE_KIND_MAP: return value->item.container->items[0].tensor->view.count;
  default: return 0;
  }
}

static ml_status get(const mlserve_value *value, size_t index, bool map, const char *what, mlserve_value **out, ml_error *err) {
  if (out) *out = NULL;
  if (!ml__capi_is_value(value)) return ml__capi_no_value(value, what, err);
  if (!out) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: the place of the result is NULL", what);
  if (!value->view.type || (mlserve_value_kind(value) == MLSERVE_KIND_MAP) != map)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s, expected %s", what, mlserve_value_type(value), map ? "a map" : "a sequence or an optional");
  ml_container *c = value->item.container;
  if (index >= c->count) return ml_fail(err, ML_OUT_OF_RANGE, "there is no item %zu, the value has %zu", index, c->count);
  return ml__capi_value_of(ml_item_retain(c->items[index]), true, out, err);
}

mlserve_status mlserve_value_item(const mlserve_value *value, size_t index, mlserve_value **item, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  return ml__capi_end(get(value, index, false, "mlserve_value_item: value", item, &err), &err, message, message_size);
}

mlserve_status mlserve_value_keys(const mlserve_value *map, mlserve_value **keys, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  return ml__capi_end(get(map, 0, true, "mlserve_value_keys: map", keys, &err), &err, message, message_size);
}

mlserve_status mlserve_value_values(const mlserve_value *map, mlserve_value **values, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  return ml__capi_end(get(map, 1, true, "mlserve_value_values: map", values, &err), &err, message, message_size);
}
