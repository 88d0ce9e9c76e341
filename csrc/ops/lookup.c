/* Open addressing with linear probing, at most half full; made once, read-only afterwards. A number is its 64 bits: an integer as
 * int64, a float as a double with -0 and NaN made unique. Strings hash by FNV-1a (Fowler, Noll, Vo), numbers by the finaliser of
 * SplitMix64 (Steele et al. 2014). */
#include "ops/lookup.h"
#include <math.h>
#include <string.h>

typedef enum kind { KIND_STRING, KIND_INT, KIND_REAL } kind;

typedef struct key {
  ml_str text;
  uint64_t bits;
} key;

typedef struct slot {
  key key;
  uint64_t hash;
  size_t position; /* SIZE_MAX: free */
} slot;

struct ml__lookup {
  kind kind;
  size_t mask;
  slot slots[];
};

static uint64_t real_bits(double v) {
  uint64_t bits;
  if (v == 0) v = 0;
  if (isnan(v)) return UINT64_C(0x7ff8000000000000);
  memcpy(&bits, &v, sizeof bits);
  return v == 0 ? 0 : bits;
}

static int64_t whole(const ml_view *x, size_t i) {
  int64_t v;
  if (x->dtype == ML_INT64) return ((const int64_t *)x->data)[i];
  if (x->dtype == ML_INT32) return ((const int32_t *)x->data)[i];
  double real = ml_element_get(x->data, x->dtype, i);
  ml_convert(&real, ML_FLOAT64, &v, ML_INT64, 1);
  return v;
}

static key key_of(kind k, const ml_view *x, size_t i) {
  key out = { { NULL, 0 }, 0 };
  if (k == KIND_STRING) out.text = ((const ml_str *)x->data)[i];
  else if (k == KIND_INT) out.bits = (uint64_t)whole(x, i);
  else out.bits = real_bits(ml_element_get(x->data, x->dtype, i));
  return out;
}

static uint64_t hash_of(kind k, key v) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  if (k == KIND_STRING) {
    for (size_t i = 0; i < v.text.length; i++) h = (h ^ (unsigned char)v.text.bytes[i]) * UINT64_C(0x100000001b3);
  } else {
    h = v.bits + UINT64_C(0x9e3779b97f4a7c15);
  }
  h = (h ^ (h >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  h = (h ^ (h >> 27)) * UINT64_C(0x94d049bb133111eb);
  return h ^ (h >> 31);
}

static bool equal(kind k, key a, key b) {
  if (k != KIND_STRING) return a.bits == b.bits;
  return a.text.length == b.text.length && (a.text.length == 0 || memcmp(a.text.bytes, b.text.bytes, a.text.length) == 0);
}

/* The slot that holds v or the free one where it belongs. */
static size_t probe(const ml__lookup *t, key v, uint64_t hash) {
  size_t at = (size_t)hash & t->mask;
  while (t->slots[at].position != SIZE_MAX && (t->slots[at].hash != hash || !equal(t->kind, t->slots[at].key, v)))
    at = (at + 1) & t->mask;
  return at;
}

ml_status ml__lookup_new(const ml_view *keys, ml__lookup **out, ml_error *err) {
  size_t capacity = 8, bytes;
  while (capacity / 2 < keys->count && capacity < SIZE_MAX / 2) capacity *= 2;
  if (!ml_mul_size(capacity, sizeof(slot), &bytes) || !ml_add_size(bytes, sizeof(ml__lookup), &bytes))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu keys are too many", keys->count);
  ml__lookup *t = ml_alloc(bytes);
  if (!t) return ml_fail_memory(err, bytes, "a table of keys");
  t->kind = keys->dtype == ML_STRING ? KIND_STRING : ml_dtype_is_float(keys->dtype) ? KIND_REAL : KIND_INT;
  t->mask = capacity - 1;
  for (size_t i = 0; i < capacity; i++) t->slots[i].position = SIZE_MAX;
  for (size_t i = 0; i < keys->count; i++) {
    key v = key_of(t->kind, keys, i);
    uint64_t hash = hash_of(t->kind, v);
    size_t at = probe(t, v, hash);
    if (t->slots[at].position == SIZE_MAX) t->slots[at] = (slot) { v, hash, i };
  }
  *out = t;
  return ML_OK;
}

void ml__lookup_free(void *lookup) { ml_free(lookup); }

size_t ml__lookup_find(const ml__lookup *t, const ml_view *x, size_t i) {
  key v = key_of(t->kind, x, i);
  return t->slots[probe(t, v, hash_of(t->kind, v))].position;
}

bool ml__attr_list(const ml_attrs *attrs, const char *name, ml_view *out) {
  const ml_attr *a = ml_attr_find(attrs, name);
  if (!a) return false;
  memset(out, 0, sizeof *out);
  if (a->type == ML_ATTR_TENSOR) {
    if (!a->as.tensor) return false;
    *out = a->as.tensor->view;
    return true;
  }
  out->count = a->count;
  out->rank = 1;
  out->dims[0] = (int64_t)a->count;
  switch (a->type) {
    case ML_ATTR_FLOATS:
      out->dtype = ML_FLOAT32;
      out->data = (void *)(uintptr_t)a->as.floats;
      return true;
    case ML_ATTR_INTS:
      out->dtype = ML_INT64;
      out->data = (void *)(uintptr_t)a->as.ints;
      return true;
    case ML_ATTR_STRINGS:
      out->dtype = ML_STRING;
      out->data = (void *)(uintptr_t)a->as.strings;
      return true;
    default: return false;
  }
}
