/* safetensors: u64 length, JSON header, one buffer of all tensors' bytes.
 * The header is read once, into rows; the rules that make the format safe (every byte of the buffer belongs to exactly one
 * tensor, no name comes twice) are then checked on sorted rows, so that a hostile file costs n log n. Written files keep wide
 * elements before narrow ones: with an aligned buffer every tensor is aligned, and a reader can use the mapping in place. */
#include "format/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "codec/json.h"

enum { PREFIX = 8, ALIGN = 8, KEY_SCRATCH = 4096 };
#define MAX_HEADER ((uint64_t)100000000)

static const struct { ml_dtype dtype; const char *name;
} types[] = {
    {ML_FLOAT64, "F64"}, {ML_FLOAT32, "F32"}, {ML_FLOAT16, "F16"}, {ML_BFLOAT16, "BF16"}, {ML_INT64, "I64"},
    {ML_INT32, "I32"},   {ML_INT16, "I16"},   {ML_INT8, "I8"},     {ML_UINT64, "U64"},    {ML_UINT32, "U32"},
    {ML_UINT16, "U16"},  {ML_UINT8, "U8"},    {ML_BOOL, "BOOL"},   {ML_FLOAT8E4M3FN, "F8_E4M3"},
    {ML_FLOAT8E5M2, "F8_E5M2"}, {ML_FLOAT8E8M0, "F8_E8M0"},
};
enum { N_TYPES = sizeof types / sizeof *types };

typedef struct row {
  const char *name;
  ml_dtype dtype;
  int32_t rank;
  int64_t dims[ML_MAX_RANK];
  size_t begin, end;
} row;

typedef struct reading {
  ml_safetensors *file;
  row *rows; size_t n, capacity;
  size_t cap_metadata;
  char *scratch; /* KEY_SCRATCH bytes for keys with escapes */
  ml_json_reader json;
} reading;

/* A JSON string at the reader into the arena; NUL is refused, because names are C strings here. */
static ml_status read_string(reading *r, const char **out, ml_error *err) {
  size_t length;
  ML_TRY(ml_json_string_length(&r->json, &length, err));
  char *copy = ml_arena_alloc(r->file->arena, length + 1);
  if (!copy) return ml_fail_memory(err, length + 1, "a safetensors header");
  ML_TRY(ml_json_string_read(&r->json, copy, &length, err));
  if (memchr(copy, 0, length)) return ml_json_fail(&r->json, err, "NUL in a string");
  *out = copy;
  return ML_OK;
}

static ml_status read_size(reading *r, uint64_t limit, uint64_t *out, ml_error *err) {
  ml_json_number number;
  if (ml_json_peek(&r->json) != ML_JSON_NUMBER) return ml_json_fail(&r->json, err, "a non-negative integer is expected");
  ML_TRY(ml_json_number_read(&r->json, &number, err));
  if (!number.integral || number.integer < 0 || (uint64_t)number.integer > limit)
    return ml_json_fail(&r->json, err, "a non-negative integer is expected");
  *out = (uint64_t)number.integer;
  return ML_OK;
}

static bool key_is(const char *key, size_t length, const char *text) {
  return length == strlen(text) && memcmp(key, text, length) == 0;
}

static ml_status read_field(reading *r, row *t, const char *key, size_t length, unsigned *seen, ml_error *err) {
  unsigned bit = key_is(key, length, "dtype")          ? 1
                 : key_is(key, length, "shape")        ? 2
                 : key_is(key, length, "data_offsets") ? 4
                                                       : 0;
  if (bit == 0 || (*seen & bit))
    return ml_json_fail(&r->json, err, "unexpected key '%.*s'", (int)(length < 40 ? length : 40), key);
  *seen |= bit;
  bool first = true, more;
  uint64_t n = 0;
  if (bit == 1) {
    char name[32];
    if (ml_json_peek(&r->json) != ML_JSON_STRING) return ml_json_fail(&r->json, err, "dtype is not a string");
    ML_TRY(ml_json_string_length(&r->json, &length, err));
    if (length >= sizeof name) return ml_json_fail(&r->json, err, "unknown dtype");
    ML_TRY(ml_json_string_read(&r->json, name, &length, err));
    for (size_t i = 0; i < N_TYPES; i++) if (key_is(name, length, types[i].name)) t->dtype = types[i].dtype;
    return t->dtype != ML_DTYPE_NONE ? ML_OK : ml_json_fail(&r->json, err, "dtype '%.*s' is not supported", (int)length, name);
  }
  size_t count = 0;
  if (ml_json_peek(&r->json) != ML_JSON_ARRAY) return ml_json_fail(&r->json, err, "an array is expected");
  ML_TRY(ml_json_enter_array(&r->json, err));
  for (;; count++) {
    ML_TRY(ml_json_array_next(&r->json, &first, &more, err));
    if (!more) break;
    if (count == (bit == 2 ? ML_MAX_RANK : 2))
      return ml_json_fail(&r->json, err, bit == 2 ? "rank over %d" : "more than %d offsets", bit == 2 ? ML_MAX_RANK : 2);
    ML_TRY(read_size(r, bit == 2 ? INT64_MAX : SIZE_MAX, &n, err));
    if (bit == 2) t->dims[count] = (int64_t)n;
    else *(count == 0 ? &t->begin : &t->end) = (size_t)n;
  }
  if (bit == 2) t->rank = (int32_t)count;
  else if (count != 2) return ml_json_fail(&r->json, err, "two offsets are expected");
  return ML_OK;
}

static ml_status read_row(reading *r, const char *name, ml_error *err) {
  ML_TRY(ml_grow(&r->rows, &r->capacity, r->n + 1, sizeof *r->rows, "a safetensors header", err));
  row *t = &r->rows[r->n];
  *t = (row){.name = name};
  unsigned seen = 0;
  bool first = true, more;
  if (ml_json_peek(&r->json) != ML_JSON_OBJECT) return ml_json_fail(&r->json, err, "tensor '%s' is not an object", name);
  ML_TRY(ml_json_enter_object(&r->json, err));
  for (;;) {
    const char *key;
    size_t length;
    ML_TRY(ml_json_object_next(&r->json, &first, &more, r->scratch, KEY_SCRATCH, &key, &length, err));
    if (!more) break;
    ml_status status = read_field(r, t, key, length, &seen, err);
    if (status != ML_OK) return ml_fail_in(err, status, "tensor '%s'", name);
  }
  if (seen != 7) return ml_json_fail(&r->json, err, "tensor '%s': dtype, shape or data_offsets is missing", name);
  r->n++;
  return ML_OK;
}

static ml_status read_metadata(reading *r, ml_error *err) {
  bool first = true, more;
  ml_safetensors *file = r->file;
  if (file->metadata) return ml_json_fail(&r->json, err, "__metadata__ is given twice");
  if (ml_json_peek(&r->json) != ML_JSON_OBJECT) return ml_json_fail(&r->json, err, "__metadata__ is not an object");
  ML_TRY(ml_json_enter_object(&r->json, err));
  for (;;) {
    const char *key, *value = "";
    size_t length;
    ML_TRY(ml_json_object_next(&r->json, &first, &more, r->scratch, KEY_SCRATCH, &key, &length, err));
    if (!more) return ML_OK;
    if (memchr(key, 0, length)) return ml_json_fail(&r->json, err, "NUL in a string");
    if (!(key = ml_arena_strndup(file->arena, key, length))) return ml_fail_memory(err, length, "a safetensors header");
    if (ml_json_peek(&r->json) != ML_JSON_STRING) return ml_json_fail(&r->json, err, "__metadata__ '%s' is not a string", key);
    ML_TRY(read_string(r, &value, err));
    ML_TRY(ml_grow(&file->metadata, &r->cap_metadata, file->n_metadata + 1, sizeof *file->metadata, "a safetensors header", err));
    file->metadata[file->n_metadata++] = (ml_metadata){key, value};
  }
}

static ml_status read_header(reading *r, ml_error *err) {
  bool first = true, more;
  if (ml_json_peek(&r->json) != ML_JSON_OBJECT) return ml_json_fail(&r->json, err, "the header is not an object");
  ML_TRY(ml_json_enter_object(&r->json, err));
  for (;;) {
    const char *key;
    size_t length;
    ML_TRY(ml_json_object_next(&r->json, &first, &more, r->scratch, KEY_SCRATCH, &key, &length, err));
    if (!more) break;
    if (key_is(key, length, "__metadata__")) {
      ML_TRY(read_metadata(r, err));
      continue;
    }
    if (memchr(key, 0, length)) return ml_json_fail(&r->json, err, "NUL in a string");
    if (!(key = ml_arena_strndup(r->file->arena, key, length))) return ml_fail_memory(err, length, "a safetensors header");
    ML_TRY(read_row(r, key, err));
  }
  return ml_json_expect_end(&r->json, err);
}

static int by_name(const void *a, const void *b) {
  return strcmp((*(const row *const *)a)->name, (*(const row *const *)b)->name);
}

static int by_offset(const void *a, const void *b) {
  const row *x = *(const row *const *)a, *y = *(const row *const *)b;
  if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
  return x->end < y->end ? -1 : x->end > y->end;
}

static int by_key(const void *a, const void *b) { return strcmp(((const ml_metadata *)a)->key, ((const ml_metadata *)b)->key); }

static ml_status check_rows(const reading *r, size_t buffer, ml_error *err) {
  const row **order = ml_alloc((r->n + 1) * sizeof *order);
  if (!order) return ml_fail_memory(err, r->n * sizeof *order, "a safetensors header");
  ml_status status = ML_OK;
  for (size_t i = 0; i < r->n; i++) order[i] = &r->rows[i];
  qsort(order, r->n, sizeof *order, by_name);
  for (size_t i = 1; i < r->n && status == ML_OK; i++)
    if (strcmp(order[i]->name, order[i - 1]->name) == 0)
      status = ml_fail(err, ML_DATA_LOSS, "tensor '%s' is given twice", order[i]->name);
  qsort(order, r->n, sizeof *order, by_offset);
  size_t at = 0, count;
  for (size_t i = 0; i < r->n && status == ML_OK; i++) {
    const row *t = order[i];
    if (t->begin != at || t->end < t->begin)
      status = ml_fail(err, ML_DATA_LOSS, "tensor '%s': data_offsets [%zu, %zu] leave a hole or overlap; %zu is next", t->name,
                       t->begin, t->end, at);
    else if (t->end > buffer)
      status = ml_fail(err, ML_DATA_LOSS, "tensor '%s': data_offsets [%zu, %zu] lie outside the %zu bytes of data", t->name,
                       t->begin, t->end, buffer);
    else if ((status = ml_shape_count(t->dims, t->rank, t->dtype, &count, err)) != ML_OK)
      ml_fail_in(err, status, "tensor '%s'", t->name);
    else if (count * ml_dtype_size(t->dtype) != t->end - t->begin)
      status = ml_fail(err, ML_DATA_LOSS, "tensor '%s': %zu bytes of data, the shape needs %zu", t->name, t->end - t->begin,
                       count * ml_dtype_size(t->dtype));
    at = t->end;
  }
  if (status == ML_OK && at != buffer) status = ml_fail(err, ML_DATA_LOSS, "%zu bytes of data belong to no tensor", buffer - at);
  ml_free(order);
  return status;
}

/* One tensor of the buffer at `data`, which is at `offset` of storage (NULL: copy). */
static ml_status make_tensor(const row *t, const uint8_t *data, ml_storage *storage, size_t offset, ml_tensor **out,
                             ml_error *err) {
  const uint8_t *from = data + t->begin;
  size_t size = t->end - t->begin;
  if (storage && size > 0 && t->dtype != ML_BOOL && (uintptr_t)from % ml_dtype_size(t->dtype) == 0)
    return ml_tensor_on(storage, offset + t->begin, t->dtype, t->dims, t->rank, out, err);
  ML_TRY(ml_tensor_new(t->dtype, t->dims, t->rank, out, err));
  uint8_t *to = (*out)->view.data;
  if (t->dtype == ML_BOOL) for (size_t i = 0; i < size; i++) to[i] = from[i] != 0; /* any other byte would not be a bool */
  else if (size > 0) memcpy(to, from, size);
  return ML_OK;
}

static ml_status decode(reading *r, const uint8_t *bytes, size_t size, ml_storage *storage, ml_error *err) {
  uint64_t length;
  ml_safetensors *file = r->file;
  if (size < PREFIX) return ml_fail(err, ML_DATA_LOSS, "%zu bytes are no safetensors file", size);
  memcpy(&length, bytes, PREFIX);
  if (length > MAX_HEADER || length > size - PREFIX)
    return ml_fail(err, ML_DATA_LOSS, "the header claims %llu bytes, %zu are left", (unsigned long long)length, size - PREFIX);
  if (length == 0 || bytes[PREFIX] != '{') return ml_fail(err, ML_DATA_LOSS, "the header does not begin with '{'");
  ml_json_reader_init(&r->json, (const char *)bytes + PREFIX, (size_t)length);
  ml_status status = read_header(r, err);
  if (status != ML_OK) return ml_fail_in(err, status, "header");
  size_t data = PREFIX + (size_t)length;
  ML_TRY(check_rows(r, size - data, err));
  if (file->n_metadata > 1) qsort(file->metadata, file->n_metadata, sizeof *file->metadata, by_key);
  for (size_t i = 1; i < file->n_metadata; i++)
    if (strcmp(file->metadata[i].key, file->metadata[i - 1].key) == 0)
      return ml_fail(err, ML_DATA_LOSS, "__metadata__ '%s' is given twice", file->metadata[i].key);
  file->tensors = ml_arena_alloc(file->arena, (r->n + 1) * sizeof *file->tensors);
  if (!file->tensors) return ml_fail_memory(err, r->n * sizeof *file->tensors, "a safetensors file");
  for (size_t i = 0; i < r->n; i++) {
    ml_named_tensor *to = &file->tensors[i];
    to->name = r->rows[i].name;
    ML_TRY(make_tensor(&r->rows[i], bytes + data, storage, data, &to->tensor, err));
    file->n_tensors++;
  }
  return ML_OK;
}

static ml_status read_file(const uint8_t *bytes, size_t size, ml_storage *storage, ml_safetensors **out, ml_error *err) {
  reading r = {.file = ml_alloc_zero(1, sizeof *r.file), .scratch = ml_alloc(KEY_SCRATCH)};
  if (r.file) r.file->arena = ml_arena_new();
  ml_status status = r.file && r.file->arena && r.scratch ? decode(&r, bytes, size, storage, err)
                                                          : ml_fail_memory(err, KEY_SCRATCH, "a safetensors file");
  ml_free(r.rows);
  ml_free(r.scratch);
  if (status == ML_OK) *out = r.file;
  else ml_safetensors_free(r.file);
  return status;
}

ml_status ml_safetensors_read(const void *bytes, size_t size, const char *what, ml_safetensors **out, ml_error *err) {
  *out = NULL;
  ml_status status = read_file(bytes, size, NULL, out, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", what);
}

static void unmap(void *context) {
  ml_file_unmap(context);
  ml_free(context);
}

ml_status ml_safetensors_load(const char *path, ml_safetensors **out, ml_error *err) {
  *out = NULL;
  ml_file_map *map = ml_alloc_zero(1, sizeof *map);
  if (!map) return ml_fail_memory(err, sizeof *map, path);
  ml_status status = ml_file_open_map(path, map, err);
  ml_storage *storage = status == ML_OK ? ml_storage_wrap((void *)(uintptr_t)map->bytes, map->size, unmap, map) : NULL;
  if (status == ML_OK && !storage) status = ml_fail_memory(err, sizeof *map, path);
  if (status == ML_OK) status = read_file(map->bytes, map->size, storage, out, err);
  if (!storage) unmap(map);
  ml_storage_release(storage); /* tensors in place keep it alive */
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", path);
}

void ml_safetensors_free(ml_safetensors *file) {
  if (!file) return;
  for (size_t i = 0; i < file->n_tensors; i++) ml_tensor_release(file->tensors[i].tensor);
  ml_free(file->metadata);
  ml_arena_free(file->arena);
  ml_free(file);
}

ml_tensor *ml_safetensors_find(const ml_safetensors *file, const char *name) {
  for (size_t i = 0; i < file->n_tensors; i++) if (strcmp(file->tensors[i].name, name) == 0) return file->tensors[i].tensor;
  return NULL;
}

const char *ml_safetensors_metadata(const ml_safetensors *file, const char *key) {
  for (size_t i = 0; i < file->n_metadata; i++) if (strcmp(file->metadata[i].key, key) == 0) return file->metadata[i].value;
  return NULL;
}

/* ---------------------------------------------------------------- writing ---- */
static const char *type_name(ml_dtype dtype) {
  for (size_t i = 0; i < N_TYPES; i++) if (types[i].dtype == dtype) return types[i].name;
  return NULL;
}

/* Wide elements first; the given order within a width. */
static void layout(const ml_named_tensor *tensors, size_t n, const ml_named_tensor **order) {
  size_t k = 0;
  for (size_t width = 8; width > 0; width /= 2)
    for (size_t i = 0; i < n; i++) if (ml_dtype_size(tensors[i].tensor->view.dtype) == width) order[k++] = &tensors[i];
}

static ml_status put_header(ml_json_writer *w, const ml_named_tensor *const *order, size_t n, const ml_metadata *metadata,
                            size_t n_metadata, ml_error *err) {
  size_t at = 0;
  bool comma = n_metadata > 0;
  ml_json_put_literal(w, "{");
  for (size_t i = 0; i < n_metadata; i++) {
    if (i == 0) ml_json_put_literal(w, "\"__metadata__\":{");
    else ml_json_put_literal(w, ",");
    ml_json_put_string(w, metadata[i].key, strlen(metadata[i].key));
    ml_json_put_literal(w, ":");
    ml_json_put_string(w, metadata[i].value, strlen(metadata[i].value));
    if (i + 1 == n_metadata) ml_json_put_literal(w, "}");
  }
  for (size_t i = 0; i < n; i++, comma = true) {
    const ml_view *v = &order[i]->tensor->view;
    const char *type = type_name(v->dtype);
    if (comma) ml_json_put_literal(w, ",");
    ml_json_put_string(w, order[i]->name, strlen(order[i]->name));
    ml_json_put_literal(w, ":{\"dtype\":");
    ml_json_put_string(w, type, strlen(type));
    ml_json_put_literal(w, ",\"shape\":[");
    for (int32_t d = 0; d < v->rank; d++) {
      if (d) ml_json_put_literal(w, ",");
      ml_json_put_int64(w, v->dims[d]);
    }
    ml_json_put_literal(w, "],\"data_offsets\":[");
    ml_json_put_uint64(w, at);
    if (!ml_add_size(at, v->count * ml_dtype_size(v->dtype), &at)) return ml_fail_memory(err, SIZE_MAX, "a safetensors file");
    ml_json_put_literal(w, ",");
    ml_json_put_uint64(w, at);
    ml_json_put_literal(w, "]}");
  }
  ml_json_put_literal(w, "}");
  while (w->status == ML_OK && w->length % ALIGN != 0) ml_json_put_literal(w, " ");
  return w->status == ML_OK ? ML_OK : ml_fail_memory(err, w->capacity, "a safetensors header");
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

static ml_status check_names(const ml_named_tensor *tensors, size_t n, const ml_metadata *metadata, size_t n_metadata,
                             ml_error *err) {
  size_t most = n > n_metadata ? n : n_metadata;
  const char **names = ml_alloc((most + 1) * sizeof *names);
  if (!names) return ml_fail_memory(err, most * sizeof *names, "a safetensors file");
  ml_status status = ML_OK;
  for (size_t i = 0; i < n && status == ML_OK; i++) {
    names[i] = tensors[i].name;
    if (!type_name(tensors[i].tensor->view.dtype))
      status = ml_fail(err, ML_INVALID_ARGUMENT, "tensor '%s': %s cannot be written", names[i],
                       ml_dtype_name(tensors[i].tensor->view.dtype));
    else if (strcmp(names[i], "__metadata__") == 0)
      status = ml_fail(err, ML_INVALID_ARGUMENT, "a tensor cannot be named __metadata__");
  }
  if (status == ML_OK) qsort(names, n, sizeof *names, by_text);
  for (size_t i = 1; i < n && status == ML_OK; i++)
    if (strcmp(names[i], names[i - 1]) == 0) status = ml_fail(err, ML_INVALID_ARGUMENT, "tensor '%s' is given twice", names[i]);
  if (status == ML_OK) {
    for (size_t i = 0; i < n_metadata; i++) names[i] = metadata[i].key;
    qsort(names, n_metadata, sizeof *names, by_text);
  }
  for (size_t i = 1; i < n_metadata && status == ML_OK; i++)
    if (strcmp(names[i], names[i - 1]) == 0) status = ml_fail(err, ML_INVALID_ARGUMENT, "metadata '%s' is given twice", names[i]);
  ml_free(names);
  return status;
}

static ml_status write_all(ml_writer *writer, const ml_json_writer *header, const ml_named_tensor *const *order, size_t n,
                           ml_error *err) {
  uint64_t length = header->length;
  ML_TRY(ml_writer_write(writer, &length, PREFIX, err));
  ML_TRY(ml_writer_write(writer, header->text, header->length, err));
  for (size_t i = 0; i < n; i++) {
    const ml_view *v = &order[i]->tensor->view;
    if (v->count > 0) ML_TRY(ml_writer_write(writer, v->data, v->count * ml_dtype_size(v->dtype), err));
  }
  return ML_OK;
}

static ml_status save(const char *path, const ml_named_tensor *tensors, size_t n, const ml_metadata *metadata, size_t n_metadata,
                      ml_error *err) {
  ML_TRY(check_names(tensors, n, metadata, n_metadata, err));
  const ml_named_tensor **order = ml_alloc((n + 1) * sizeof *order);
  if (!order) return ml_fail_memory(err, n * sizeof *order, "a safetensors file");
  layout(tensors, n, order);
  ml_json_writer header;
  ml_json_writer_init(&header);
  ml_writer *writer = NULL;
  ml_status status = put_header(&header, order, n, metadata, n_metadata, err);
  if (status == ML_OK) status = ml_writer_open(path, &writer, err);
  if (status == ML_OK) {
    status = write_all(writer, &header, order, n, err);
    if (status == ML_OK) status = ml_writer_commit(writer, err);
    else ml_writer_abort(writer);
  }
  ml_json_writer_free(&header);
  ml_free(order);
  return status;
}

ml_status ml_safetensors_save(const char *path, const ml_named_tensor *tensors, size_t n_tensors, const ml_metadata *metadata,
                              size_t n_metadata, ml_error *err) {
  ml_status status = save(path, tensors, n_tensors, metadata, n_metadata, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", path);
}
