/* From label values to class ids. Distinct values are found by sorting; the two kinds of label, text and number, differ only in
 * how they compare and how they are spelt. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "data/rows.h"
#include "data/table.h"

static int compare_text(const void *a, const void *b) {
  const ml_str *left = a, *right = b;
  size_t shorter = left->length < right->length ? left->length : right->length;
  int order = shorter > 0 ? memcmp(left->bytes, right->bytes, shorter) : 0;
  return order != 0 ? order : (left->length > right->length) - (left->length < right->length);
}

static int compare_number(const void *a, const void *b) {
  double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

/* Distinct values in order; returns how many. */
static size_t distinct(char *values, size_t count, size_t size, int (*compare)(const void *, const void *)) {
  size_t kept = 0;
  qsort(values, count, size, compare);
  for (size_t i = 0; i < count; ++i) {
    if (kept > 0 && compare(values + (kept - 1) * size, values + i * size) == 0) continue;
    if (kept != i) memcpy(values + kept * size, values + i * size, size);
    ++kept;
  }
  return kept;
}

typedef struct keyed { /* a class value and its id, sorted by value for lookup */
  ml_str text;
  double number;
  uint32_t id;
} keyed;

static int compare_keyed_text(const void *a, const void *b) { return compare_text(&((const keyed *)a)->text,
                                                                                  &((const keyed *)b)->text); }
static int compare_keyed_number(const void *a, const void *b) {
  return compare_number(&((const keyed *)a)->number, &((const keyed *)b)->number);
}

static ml_status check_present(const ml_view *labels, size_t rows, ml_error *err) {
  for (size_t row = 0; row < rows; ++row) {
    bool missing;
    if (labels->dtype == ML_STRING) missing = ((const ml_str *)labels->data)[row].length == 0;
    else missing = isnan(ml_element_get(labels->data, labels->dtype, row));
    if (missing) return ml_fail(err, ML_INVALID_ARGUMENT, "row %zu has no label", row + 1);
  }
  return ML_OK;
}

static const char *number_name(double value, ml_arena *arena) {
  return value == floor(value) && fabs(value) <= 0x1p53 ? ml_arena_printf(arena, "%lld", (long long)value)
                                                       : ml_arena_printf(arena, "%.15g", value);
}

static ml_status find_names(const ml_view *labels, size_t rows, ml_classes *out, ml_error *err) {
  bool text = labels->dtype == ML_STRING;
  size_t size = text ? sizeof(ml_str) : sizeof(double), bytes;
  if (!ml_mul_size(rows, size, &bytes)) return ml_fail_memory(err, SIZE_MAX, "labels");
  char *values = ml_alloc(bytes);
  if (values == NULL) return ml_fail_memory(err, bytes, "labels");
  if (text) memcpy(values, labels->data, bytes);
  else ml_convert(labels->data, labels->dtype, values, ML_FLOAT64, rows);
  out->count = distinct(values, rows, size, text ? compare_text : compare_number);
  out->names = ml_arena_alloc(out->arena, out->count * sizeof *out->names);
  ml_status status = out->names != NULL ? ML_OK : ml_fail_memory(err, out->count * sizeof *out->names, "class names");
  for (size_t c = 0; c < out->count && status == ML_OK; ++c) {
    const ml_str *name = (const ml_str *)(const void *)values + c;
    out->names[c].bytes = text ? ml_arena_strndup(out->arena, name->bytes, name->length)
                               : number_name(((const double *)(const void *)values)[c], out->arena);
    if (out->names[c].bytes == NULL) status = ml_fail_memory(err, 32, "a class name");
    else out->names[c].length = text ? name->length : strlen(out->names[c].bytes);
  }
  ml_free(values);
  return status;
}

static ml_status copy_names(const ml_str *fixed, size_t count, ml_classes *out, ml_error *err) {
  out->count = count;
  out->names = ml_arena_alloc(out->arena, count * sizeof *out->names);
  if (out->names == NULL) return ml_fail_memory(err, count * sizeof *out->names, "class names");
  for (size_t c = 0; c < count; ++c) {
    out->names[c].bytes = ml_arena_strndup(out->arena, fixed[c].bytes, fixed[c].length);
    if (out->names[c].bytes == NULL) return ml_fail_memory(err, fixed[c].length, "a class name");
    out->names[c].length = fixed[c].length;
  }
  return ML_OK;
}

static ml_status assign_ids(const ml_view *labels, size_t rows, ml_classes *out, ml_error *err) {
  bool text = labels->dtype == ML_STRING;
  int (*compare)(const void *, const void *) = text ? compare_keyed_text : compare_keyed_number;
  keyed *keys = ml_arena_alloc(out->arena, out->count * sizeof *keys);
  size_t usable = 0;
  if (keys == NULL) return ml_fail_memory(err, out->count * sizeof *keys, "class names");
  for (size_t c = 0; c < out->count; ++c) {
    keyed key = {out->names[c], 0.0, (uint32_t)c};
    if (text || ml_parse_number(key.text.bytes, key.text.length, &key.number)) keys[usable++] = key;
  }
  qsort(keys, usable, sizeof *keys, compare);
  for (size_t c = 1; c < usable; ++c)
    if (compare(&keys[c - 1], &keys[c]) == 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "class '%.*s' is listed twice", (int)keys[c].text.length, keys[c].text.bytes);
  for (size_t row = 0; row < rows; ++row) {
    keyed wanted = {{"", 0}, 0.0, 0};
    if (text) wanted.text = ((const ml_str *)labels->data)[row];
    else wanted.number = ml_element_get(labels->data, labels->dtype, row);
    const keyed *found = usable > 0 ? bsearch(&wanted, keys, usable, sizeof *keys, compare) : NULL;
    if (found == NULL) {
      char list[200] = "", value[64];
      for (size_t c = 0, used = 0; c < out->count && used < sizeof list - 1; ++c) {
        int written = snprintf(list + used, sizeof list - used, "%s%.*s", c == 0 ? "" : ", ", (int)out->names[c].length,
                               out->names[c].bytes);
        used += written > 0 ? (size_t)written : 0;
      }
      if (text)
        (void)snprintf(value, sizeof value, "%.*s", (int)(wanted.text.length < 60 ? wanted.text.length : 60), wanted.text.bytes);
      else (void)snprintf(value, sizeof value, "%.15g", wanted.number);
      return ml_fail(err, ML_INVALID_ARGUMENT, "row %zu: label '%s' is none of the classes %s", row + 1, value, list);
    }
    out->ids[row] = found->id;
    ++out->counts[found->id];
  }
  return ML_OK;
}

ml_status ml_classes_encode(const ml_view *labels, const ml_str *fixed, size_t fixed_count, ml_classes *out, ml_error *err) {
  memset(out, 0, sizeof *out);
  if (labels->rank < 1 || labels->count == 0 || (int64_t)labels->count != labels->dims[0])
    return ml_fail(err, ML_INVALID_ARGUMENT, "labels must have one value a row, and a row at least");
  size_t rows = labels->count;
  ML_TRY(check_present(labels, rows, err));
  out->arena = ml_arena_new();
  if (out->arena == NULL) return ml_fail_memory(err, sizeof *out, "classes");
  ml_status status = fixed != NULL ? copy_names(fixed, fixed_count, out, err) : find_names(labels, rows, out, err);
  if (status == ML_OK) {
    out->ids = ml_arena_alloc(out->arena, rows * sizeof *out->ids);
    out->counts = ml_arena_alloc(out->arena, out->count * sizeof *out->counts);
    if (out->ids == NULL || out->counts == NULL) status = ml_fail_memory(err, rows * sizeof *out->ids, "class ids");
    else status = assign_ids(labels, rows, out, err);
  }
  if (status != ML_OK) ml_classes_free(out);
  return status;
}

void ml_classes_free(ml_classes *classes) {
  ml_arena_free(classes->arena);
  memset(classes, 0, sizeof *classes);
}
