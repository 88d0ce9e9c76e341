/* An order for elements of every numeric dtype.
 * Lives here: the key by which TopK and Unique compare. May include: tensor. Ownership: nothing is kept. */
#ifndef ML_OPS_ORDER_H
#define ML_OPS_ORDER_H
#include <string.h>
#include "ops/op.h"

/* Element i as an unsigned number that orders as the elements do. Floats: -inf < … < inf < NaN, all NaN are one value and -0
 * is 0. The bits of an IEEE number, read as an integer, already order within one sign: negative ones are inverted, others get
 * the sign bit set. */
static inline uint64_t ml__order_key(const void *data, ml_dtype dtype, size_t i) {
  switch (dtype) {
    case ML_FLOAT32: {
      float x = ((const float *)data)[i];
      uint32_t u;
      if (x == 0) x = 0;
      memcpy(&u, &x, sizeof u);
      return x != x ? UINT32_MAX : u >> 31 ? (uint32_t)~u : u | UINT32_C(0x80000000);
    }
    default: { /* double holds every value of the others */
      double x = ml_element_get(data, dtype, i);
      uint64_t u;
      if (x == 0) x = 0;
      memcpy(&u, &x, sizeof u);
      return x != x ? UINT64_MAX : u >> 63 ? ~u : u | UINT64_C(0x8000000000000000);
    }
    case ML_INT8: return (uint64_t)(int64_t)((const int8_t *)data)[i] ^ UINT64_C(0x8000000000000000);
    case ML_INT16: return (uint64_t)(int64_t)((const int16_t *)data)[i] ^ UINT64_C(0x8000000000000000);
    case ML_INT32: return (uint64_t)(int64_t)((const int32_t *)data)[i] ^ UINT64_C(0x8000000000000000);
    case ML_INT64: return (uint64_t)((const int64_t *)data)[i] ^ UINT64_C(0x8000000000000000);
    case ML_BOOL:
    case ML_UINT8: return ((const uint8_t *)data)[i];
    case ML_UINT16: return ((const uint16_t *)data)[i];
    case ML_UINT32: return ((const uint32_t *)data)[i];
    case ML_UINT64: return ((const uint64_t *)data)[i];
    case ML_STRING:
    case ML_DTYPE_NONE: return 0;
  }
}

#endif
