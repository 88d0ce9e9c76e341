/* Finding the position of a value in a constant list.
 * Lives here: the hash table behind LabelEncoder and OneHotEncoder. May include: tensor, base.
 * Ownership: a lookup copies nothing of string keys: the list (attribute memory) must outlive it. */
#ifndef ML_OPS_LOOKUP_H
#define ML_OPS_LOOKUP_H
#include "ops/op.h"

typedef struct ml__lookup ml__lookup;

/* Of repeated keys the first counts. Keys: strings, or numbers: -0 equals 0 and a NaN equals a NaN. */
ml_status ml__lookup_new(const ml_view *keys, ml__lookup **out, ml_error *err);
void ml__lookup_free(void *lookup); /* NULL allowed */
/* Position in the list of element i of x, or SIZE_MAX. Strings look up strings, integers (floats are truncated) integers, floats
 * floats. */
size_t ml__lookup_find(const ml__lookup *lookup, const ml_view *x, size_t i);

/* A list attribute (FLOATS, INTS, STRINGS) or TENSOR attribute as a view of rank 1 on its memory; false: absent. */
bool ml__attr_list(const ml_attrs *attrs, const char *name, ml_view *out);

#endif
