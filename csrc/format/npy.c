/* .npy: magic, version, header length, a Python dictionary literal, data. The literal has exactly the keys descr, fortran_order
 * and shape, so a parser of its own for that one shape of text replaces any evaluation. */
#include "format/npy.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"

enum { MAGIC = 6, MAX_HEADER = 65536, DATA_ALIGN = 64 };
static const char magic[MAGIC] = {'\x93', 'N', 'U', 'M', 'P', 'Y'};

typedef struct npy_type { ml_dtype dtype; char kind; char size; } npy_type;
static const npy_type types[] = {
    /* bfloat16 has no letter in NumPy */
    {ML_FLOAT32, 'f', '4'}, {ML_FLOAT64, 'f', '8'}, {ML_FLOAT16, 'f', '2'}, {ML_INT8, 'i', '1'},
    {ML_INT16, 'i', '2'},   {ML_INT32, 'i', '4'},   {ML_INT64, 'i', '8'},   {ML_UINT8, 'u', '1'},
    {ML_UINT16, 'u', '2'},  {ML_UINT32, 'u', '4'},  {ML_UINT64, 'u', '8'},  {ML_BOOL, 'b', '1'},
};
enum { N_TYPES = sizeof types / sizeof *types };

typedef struct literal { const char *at, *end; } literal;

static void spaces(literal *l) {
  while (l->at < l->end && (*l->at == ' ' || *l->at == '\t' || *l->at == '\n' || *l->at == '\r')) l->at++;
}

static bool eat(literal *l, char c) {
  spaces(l);
  if (l->at == l->end || *l->at != c) return false;
  l->at++;
  return true;
}

static ml_status quoted(literal *l, ml_str *out, ml_error *err) {
  spaces(l);
  if (l->at == l->end || (*l->at != '\'' && *l->at != '"')) return ml_fail(err, ML_DATA_LOSS, "npy header: a string is expected");
  char quote = *l->at++;
  const char *begin = l->at;
  while (l->at < l->end && *l->at != quote && *l->at != '\\') l->at++;
  if (l->at == l->end || *l->at != quote) return ml_fail(err, ML_DATA_LOSS, "npy header: a string does not end");
  *out = (ml_str){begin, (size_t)(l->at++ - begin)};
  return ML_OK;
}

static bool is(ml_str s, const char *text) { return s.length == strlen(text) && memcmp(s.bytes, text, s.length) == 0; }

static bool word(literal *l, const char *text) {
  size_t n = strlen(text);
  spaces(l);
  if ((size_t)(l->end - l->at) < n || memcmp(l->at, text, n) != 0) return false;
  l->at += n;
  return true;
}

static ml_status read_descr(literal *l, ml_dtype *out, ml_error *err) {
  ml_str descr;
  spaces(l);
  if (l->at < l->end && *l->at == '[') return ml_fail(err, ML_UNIMPLEMENTED, "npy: structured arrays are not supported");
  ML_TRY(quoted(l, &descr, err));
  char order = descr.length == 3 ? descr.bytes[0] : '\0';
  for (size_t i = 0; i < N_TYPES && order; i++) {
    if (descr.bytes[1] != types[i].kind || descr.bytes[2] != types[i].size) continue;
    if (order == '<' || order == '|' || order == '=' || types[i].size == '1') {
      *out = types[i].dtype;
      return ML_OK;
    }
    return ml_fail(err, ML_UNIMPLEMENTED, "npy: big-endian arrays ('%.3s') are not supported", descr.bytes);
  }
  return ml_fail(err, ML_UNIMPLEMENTED, "npy: element type '%.*s' is not supported", (int)(descr.length < 40 ? descr.length : 40),
                 descr.bytes);
}

static ml_status read_shape(literal *l, int64_t *dims, int32_t *rank, ml_error *err) {
  if (!eat(l, '(')) return ml_fail(err, ML_DATA_LOSS, "npy header: shape is not a tuple");
  *rank = 0;
  while (!eat(l, ')')) {
    int64_t n = 0;
    spaces(l);
    const char *begin = l->at;
    for (; l->at < l->end && *l->at >= '0' && *l->at <= '9'; l->at++)
      if (__builtin_mul_overflow(n, 10, &n) || __builtin_add_overflow(n, *l->at - '0', &n))
        return ml_fail(err, ML_INVALID_ARGUMENT, "npy header: a dimension is too large");
    if (l->at == begin) return ml_fail(err, ML_DATA_LOSS, "npy header: a dimension is not a non-negative integer");
    if (l->at < l->end && *l->at == 'L') l->at++; /* Python 2 */
    if (*rank == ML_MAX_RANK) return ml_fail(err, ML_INVALID_ARGUMENT, "npy: rank over %d", ML_MAX_RANK);
    dims[(*rank)++] = n;
    bool comma = eat(l, ',');
    spaces(l);
    if (!comma && (l->at == l->end || *l->at != ')' || *rank == 1))
      return ml_fail(err, ML_DATA_LOSS, "npy header: shape is malformed");
  }
  return ML_OK;
}

typedef struct header { ml_dtype dtype; bool fortran; int64_t dims[ML_MAX_RANK]; int32_t rank; size_t data; } header;

static ml_status read_header(const uint8_t *bytes, size_t size, header *h, ml_error *err) {
  if (size < MAGIC + 4 || memcmp(bytes, magic, MAGIC) != 0) return ml_fail(err, ML_DATA_LOSS, "not an npy file");
  unsigned major = bytes[MAGIC];
  if (major < 1 || major > 3) return ml_fail(err, ML_UNIMPLEMENTED, "npy version %u is not supported", major);
  size_t prefix = major == 1 ? MAGIC + 4 : MAGIC + 6;
  if (size < prefix) return ml_fail(err, ML_DATA_LOSS, "npy header is cut short");
  size_t length = (size_t)bytes[MAGIC + 2] | (size_t)bytes[MAGIC + 3] << 8;
  if (major > 1) length |= (size_t)bytes[MAGIC + 4] << 16 | (size_t)bytes[MAGIC + 5] << 24;
  if (length > MAX_HEADER)
    return ml_fail(err, ML_DATA_LOSS, "npy header of %zu bytes is over the limit of %d", length, MAX_HEADER);
  if (length > size - prefix) return ml_fail(err, ML_DATA_LOSS, "npy header is cut short");
  h->data = prefix + length;
  literal l = {(const char *)bytes + prefix, (const char *)bytes + h->data};
  unsigned seen = 0;
  if (!eat(&l, '{')) return ml_fail(err, ML_DATA_LOSS, "npy header is not a dictionary");
  while (!eat(&l, '}')) {
    ml_str key;
    ML_TRY(quoted(&l, &key, err));
    if (!eat(&l, ':')) return ml_fail(err, ML_DATA_LOSS, "npy header: ':' is missing");
    unsigned bit = is(key, "descr") ? 1 : is(key, "fortran_order") ? 2 : is(key, "shape") ? 4 : 0;
    if (bit == 0 || (seen & bit))
      return ml_fail(err, ML_DATA_LOSS, "npy header: unexpected key '%.*s'", (int)(key.length < 40 ? key.length : 40), key.bytes);
    seen |= bit;
    if (bit == 1) ML_TRY(read_descr(&l, &h->dtype, err));
    if (bit == 2) {
      h->fortran = word(&l, "True");
      if (!h->fortran && !word(&l, "False"))
        return ml_fail(err, ML_DATA_LOSS, "npy header: fortran_order is neither True nor False");
    }
    if (bit == 4) ML_TRY(read_shape(&l, h->dims, &h->rank, err));
    spaces(&l);
    if (!eat(&l, ',') && (l.at == l.end || *l.at != '}')) return ml_fail(err, ML_DATA_LOSS, "npy header: ',' is missing");
  }
  spaces(&l);
  if (l.at != l.end) return ml_fail(err, ML_DATA_LOSS, "npy header: text after the dictionary");
  return seen == 7 ? ML_OK : ml_fail(err, ML_DATA_LOSS, "npy header: descr, fortran_order or shape is missing");
}

/* Element `i` in C order lies at sum(index[d] * stride[d]) with the first stride 1. */
static void from_fortran(const uint8_t *from, ml_tensor *to) {
  const ml_view *v = &to->view;
  size_t size = ml_dtype_size(v->dtype), index[ML_MAX_RANK] = {0}, stride[ML_MAX_RANK], offset = 0;
  size_t step = 1;
  for (int32_t d = 0; d < v->rank; d++) {
    stride[d] = step;
    step *= (size_t)v->dims[d];
  }
  for (size_t i = 0; i < v->count; i++) {
    memcpy((uint8_t *)v->data + i * size, from + offset * size, size);
    for (int32_t d = v->rank - 1; d >= 0; d--) {
      offset += stride[d];
      if (++index[d] < (size_t)v->dims[d]) break;
      offset -= stride[d] * (size_t)v->dims[d];
      index[d] = 0;
    }
  }
}

/* storage NULL: copy */
static ml_status decode(const uint8_t *bytes, size_t size, ml_storage *storage, ml_tensor **out, ml_error *err) {
  header h = {0};
  size_t count;
  ML_TRY(read_header(bytes, size, &h, err));
  ML_TRY(ml_shape_count(h.dims, h.rank, h.dtype, &count, err));
  size_t element = ml_dtype_size(h.dtype), need = count * element;
  if (need != size - h.data)
    return ml_fail(err, ML_DATA_LOSS, "npy: %zu bytes of data, the shape needs %zu", size - h.data, need);
  const uint8_t *data = bytes + h.data;
  if (storage && !h.fortran && count > 0 && h.dtype != ML_BOOL && (uintptr_t)data % element == 0)
    return ml_tensor_on(storage, h.data, h.dtype, h.dims, h.rank, out, err);
  ML_TRY(ml_tensor_new(h.dtype, h.dims, h.rank, out, err));
  uint8_t *to = (*out)->view.data;
  if (h.fortran && h.rank > 1) from_fortran(data, *out);
  else if (need > 0) memcpy(to, data, need);
  if (h.dtype == ML_BOOL) for (size_t i = 0; i < count; i++) to[i] = to[i] != 0;
  return ML_OK;
}

ml_status ml_npy_read(const void *bytes, size_t size, const char *what, ml_tensor **out, ml_error *err) {
  *out = NULL;
  ml_status status = decode(bytes, size, NULL, out, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", what);
}

static void unmap(void *context) {
  ml_file_unmap(context);
  ml_free(context);
}

ml_status ml_npy_load(const char *path, ml_tensor **out, ml_error *err) {
  *out = NULL;
  ml_file_map *map = ml_alloc_zero(1, sizeof *map);
  if (!map) return ml_fail_memory(err, sizeof *map, path);
  ml_status status = ml_file_open_map(path, map, err);
  ml_storage *storage = status == ML_OK ? ml_storage_wrap((void *)(uintptr_t)map->bytes, map->size, unmap, map) : NULL;
  if (status == ML_OK && !storage) status = ml_fail_memory(err, sizeof *map, path);
  if (status == ML_OK) status = decode(map->bytes, map->size, storage, out, err);
  if (!storage) unmap(map);
  ml_storage_release(storage);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", path);
}

ml_status ml_npy_write(const ml_tensor *tensor, void **bytes, size_t *size, ml_error *err) {
  const ml_view *v = &tensor->view;
  size_t i = 0;
  *bytes = NULL;
  while (i < N_TYPES && types[i].dtype != v->dtype) i++;
  if (i == N_TYPES) return ml_fail(err, ML_INVALID_ARGUMENT, "npy: %s tensors cannot be written", ml_dtype_name(v->dtype));
  char text[256 + 24 * ML_MAX_RANK];
  int n = snprintf(text, sizeof text, "{'descr': '%c%c%c', 'fortran_order': False, 'shape': (", types[i].size == '1' ? '|' : '<',
                   types[i].kind, types[i].size);
  for (int32_t d = 0; d < v->rank; d++)
    n += snprintf(text + n, sizeof text - (size_t)n, "%s%lld%s", d ? " " : "", (long long)v->dims[d],
                  d + 1 < v->rank || v->rank == 1 ? "," : "");
  n += snprintf(text + n, sizeof text - (size_t)n, "), }");
  size_t used = MAGIC + 4 + (size_t)n + 1, head = (used + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN; /* data begins aligned */
  size_t data = v->count * ml_dtype_size(v->dtype);
  if (!ml_add_size(head, data, size)) return ml_fail_memory(err, SIZE_MAX, "an npy file");
  uint8_t *to = ml_alloc(*size);
  if (!to) return ml_fail_memory(err, *size, "an npy file");
  size_t length = head - MAGIC - 4;
  memcpy(to, magic, MAGIC);
  to[MAGIC] = 1;
  to[MAGIC + 1] = 0;
  to[MAGIC + 2] = (uint8_t)length;
  to[MAGIC + 3] = (uint8_t)(length >> 8);
  memset(to + MAGIC + 4, ' ', length);
  memcpy(to + MAGIC + 4, text, (size_t)n);
  to[head - 1] = '\n';
  if (data > 0) memcpy(to + head, v->data, data);
  *bytes = to;
  return ML_OK;
}

ml_status ml_npy_save(const char *path, const ml_tensor *tensor, ml_error *err) {
  void *bytes;
  size_t size;
  ml_status status = ml_npy_write(tensor, &bytes, &size, err);
  if (status == ML_OK) status = ml_file_write(path, bytes, size, err);
  ml_free(bytes);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", path);
}
