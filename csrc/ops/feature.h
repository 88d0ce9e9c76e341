/* What ai.onnx.ml's per-feature operators share.
 * Lives here: attributes that hold one value or one per feature (last dimension). May include: tensor, base. Ownership: nothing
 * is kept. */
#ifndef ML_OPS_FEATURE_H
#define ML_OPS_FEATURE_H
#include "ops/lookup.h"
#include "ops/movement.h"

#define ML__MASK_FEATURE (ML_MASK_F | ML_BIT(ML_INT32) | ML_BIT(ML_INT64))

/* Features of x: its last dimension (1 for rank 0), ML_UNKNOWN when not known. */
static inline int64_t ml__features(const ml_view *x) {
  return x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->rank == 0 ? 1 : x->dims[x->rank - 1];
}

/* List attribute `name` has one value or one per feature of x; absent: *out has count 0. */
static inline ml_status ml__feature_list(const ml_attrs *attrs, const char *name, const ml_view *x, ml_view *out, ml_error *err) {
  int64_t n = ml__features(x);
  *out = (ml_view) { .count = 0 };
  if (!ml__attr_list(attrs, name, out)) return ML_OK;
  if (out->count == 1 || n < 0 || out->count == (size_t)n) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s has %zu values, expected 1 or %lld, the number of features", name,
                 out->count, (long long)n);
}

#endif
