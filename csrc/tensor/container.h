/* Values that are not tensors: ONNX's sequences, optionals and maps.
 * Lives here: the coded type of any value, and the reference-counted container. May include: tensor, base.
 * Ownership: a container holds one reference on each of its items; ml_container_new gives one reference, ml_container_release drops it. A
 * container is filled once, by whoever made it, and never changed afterwards, so that runs and threads may share it.
 *
 * In views and graphs a container is a scalar of the pseudo element type ML_CONTAINER: the one element is a pointer to it. Plans, buffers and
 * aliases so treat it as any other value; `type` says what kind of container it is. */
#ifndef ML_TENSOR_CONTAINER_H
#define ML_TENSOR_CONTAINER_H
#include "tensor/tensor.h"

/* A value's type in one number: 0 is a tensor (dtype and shape are kept apart). A container has the element dtype of its innermost tensors in
 * bits 0–7 (0: not known) and its constructors above, four bits each, innermost first. */
typedef enum ml_kind { ML_KIND_TENSOR = 0, ML_KIND_SEQUENCE = 1, ML_KIND_OPTIONAL = 2, ML_KIND_MAP_INT64 = 3, ML_KIND_MAP_STRING = 4 } ml_kind;
enum { ML_TYPE_DEPTH = 6 }; /* constructors a type can have */

/* kind of `inner`; inner is a container's type, or ml_type_tensor(dtype). ML_TYPE_DEPTH exceeded: 0. */
uint32_t ml_type_of(ml_kind kind, uint32_t inner);
static inline uint32_t ml_type_tensor(ml_dtype dtype) { return (uint32_t)dtype; }
static inline ml_dtype ml_type_dtype(uint32_t type) { return (ml_dtype)(type & 0xFF); }
ml_kind ml_type_kind(uint32_t type);     /* outermost constructor; TENSOR when there is none */
uint32_t ml_type_inner(uint32_t type);   /* without the outermost constructor */
/* Same constructors, and the same dtype where both know it. */
bool ml_type_fits(uint32_t a, uint32_t b);
/* "seq(map(int64,tensor(float32)))", as ONNX Runtime writes types; returns text */
const char *ml_type_format(uint32_t type, char *text, size_t size);
bool ml_type_parse(const char *text, uint32_t *type); /* what ml_type_format writes, and nothing else */

typedef struct ml_container ml_container;
typedef struct ml_item { /* one of both, by the container's inner type; a map has two items: rank-1 tensors of keys and values */
  ml_tensor *tensor;
  ml_container *container;
} ml_item;
struct ml_container {
  uint32_t references; /* private */
  uint32_t type;
  size_t count;        /* items; an optional has one or none */
  ml_item items[];
};

ml_status ml_container_new(uint32_t type, size_t count, ml_container **out, ml_error *err); /* items NULL */
ml_container *ml_container_retain(ml_container *container);
void ml_container_release(ml_container *container); /* NULL allowed; thread-safe */
static inline ml_item ml_item_retain(ml_item item)
{
  if (item.tensor) ml_tensor_retain(item.tensor);
  if (item.container) ml_container_retain(item.container);
  return item;
}

/* The container a view holds; NULL when it holds none. */
static inline ml_container *ml_view_container(const ml_view *view) { return view->type && view->data ? *(ml_container **)view->data : NULL; }
/* Makes a view of a container's slot. */
void ml_view_of_container(ml_container **slot, ml_view *view);
/* A value of a container: an item as a view (of the tensor, or of the item's container pointer). */
void ml_item_view(ml_item *item, ml_view *view);
/* What `view` holds as an item with one reference: a copy of a tensor, the container itself. */
ml_status ml_item_of(const ml_view *view, ml_item *out, ml_error *err);

#endif
