/* Containers and the types of values. */
#include "tensor/container.h"
#include <stdio.h>
#include <string.h>

enum { BASE_BITS = 8, KIND_BITS = 4, KIND_MASK = 15 };

static int depth_of(uint32_t type)
{
  int depth = 0;
  for (type >>= BASE_BITS; type; type >>= KIND_BITS) depth++;
  return depth;
}

uint32_t ml_type_of(ml_kind kind, uint32_t inner)
{
  int depth = depth_of(inner);
  return depth < ML_TYPE_DEPTH ? inner | (uint32_t)kind << (BASE_BITS + KIND_BITS * depth) : 0;
}

ml_kind ml_type_kind(uint32_t type)
{
  int depth = depth_of(type);
  return depth ? (ml_kind)(type >> (BASE_BITS + KIND_BITS * (depth - 1)) & KIND_MASK) : ML_KIND_TENSOR;
}

uint32_t ml_type_inner(uint32_t type)
{
  int depth = depth_of(type);
  return depth ? type & ((UINT32_C(1) << (BASE_BITS + KIND_BITS * (depth - 1))) - 1) : type;
}

bool ml_type_fits(uint32_t a, uint32_t b)
{
  if (a >> BASE_BITS != b >> BASE_BITS) return false;
  return ml_type_dtype(a) == ml_type_dtype(b) || ml_type_dtype(a) == ML_DTYPE_NONE || ml_type_dtype(b) == ML_DTYPE_NONE;
}

static const char *const open[] = { "tensor(", "seq(", "optional(", "map(int64,", "map(string," };

const char *ml_type_format(uint32_t type, char *text, size_t size)
{
  size_t used = 0;
  int depth = depth_of(type);
  if (size) *text = '\0';
  for (uint32_t t = type; used < size; t = ml_type_inner(t)) {
    ml_kind kind = ml_type_kind(t);
    used += (size_t)snprintf(text + used, size - used, "%s", kind <= ML_KIND_MAP_STRING ? open[kind] : "?(");
    if (kind == ML_KIND_TENSOR) break;
  }
  if (used < size) used += (size_t)snprintf(text + used, size - used, "%s)", ml_type_dtype(type) ? ml_dtype_name(ml_type_dtype(type)) : "any");
  for (int i = 0; i < depth && used < size; i++) used += (size_t)snprintf(text + used, size - used, ")");
  return text;
}

bool ml_type_parse(const char *text, uint32_t *type)
{
  ml_kind kinds[ML_TYPE_DEPTH], kind;
  char again[128];
  int depth = 0;
  const char *at = text;
  do {
    for (kind = ML_KIND_TENSOR; kind <= ML_KIND_MAP_STRING && strncmp(at, open[kind], strlen(open[kind])) != 0;) kind++;
    if (kind > ML_KIND_MAP_STRING) return false;
    at += strlen(open[kind]);
    if (kind != ML_KIND_TENSOR && depth == ML_TYPE_DEPTH) return false;
    if (kind != ML_KIND_TENSOR) kinds[depth++] = kind;
  } while (kind != ML_KIND_TENSOR);
  size_t length = strcspn(at, ")");
  if (length >= sizeof again) return false;
  memcpy(again, at, length);
  again[length] = '\0';
  *type = ml_type_tensor(ml_dtype_from_name(again));
  while (depth > 0) *type = ml_type_of(kinds[--depth], *type);
  return strcmp(ml_type_format(*type, again, sizeof again), text) == 0; /* the dtype may be unknown, and what closes the parentheses anything */
}

ml_status ml_container_new(uint32_t type, size_t count, ml_container **out, ml_error *err)
{
  size_t bytes;
  *out = NULL;
  if (!ml_mul_size(count, sizeof(ml_item), &bytes) || !ml_add_size(bytes, sizeof(ml_container), &bytes)) return ml_fail_memory(err, SIZE_MAX, "a sequence");
  ml_container *c = ml_alloc_zero(1, bytes);
  if (!c) return ml_fail_memory(err, bytes, "a sequence");
  c->references = 1;
  c->type = type;
  c->count = count;
  *out = c;
  return ML_OK;
}

ml_container *ml_container_retain(ml_container *container)
{
  __atomic_fetch_add(&container->references, 1, __ATOMIC_RELAXED);
  return container;
}

void ml_container_release(ml_container *c)
{
  if (!c || __atomic_fetch_sub(&c->references, 1, __ATOMIC_ACQ_REL) != 1) return;
  for (size_t i = 0; i < c->count; i++) {
    ml_tensor_release(c->items[i].tensor);
    ml_container_release(c->items[i].container); /* as deep as the type, which is ML_TYPE_DEPTH at most */
  }
  ml_free(c);
}

void ml_view_of_container(ml_container **slot, ml_view *view)
{
  *view = (ml_view){ .data = slot, .count = 1, .dtype = ML_CONTAINER, .type = (*slot)->type };
}

void ml_item_view(ml_item *item, ml_view *view)
{
  if (item->container) ml_view_of_container(&item->container, view);
  else *view = item->tensor->view;
}

ml_status ml_item_of(const ml_view *view, ml_item *out, ml_error *err)
{
  *out = (ml_item){ NULL, NULL };
  if (!view->type) return ml_tensor_copy_of(view, &out->tensor, err);
  out->container = ml_container_retain(ml_view_container(view));
  return ML_OK;
}
