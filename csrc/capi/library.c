/* The library as such: versions, names of numbers, threads, messages. The numbers of mlserve.h are the core's; the compiler checks it here. */
#include <assert.h>
#include <string.h>
#include "base/status.h"
#include "mlserve.h"

/* In front of tensor.h, whose ML_UNKNOWN is a dimension and no status. */
#define X(name, code, text) static_assert((int)MLSERVE_##name == (int)ML_##name, "mlserve.h and base/status.h differ in " #name);
ML_STATUS_MAP(X)
#undef X

#include "base/thread.h"
#include "capi/capi.h"
#include "mlserve_version.h"

#define SAME(name) static_assert((int)MLSERVE_##name == (int)ML_##name, "mlserve.h and tensor/dtype.h differ in " #name)
SAME(FLOAT32);
SAME(UINT8);
SAME(INT8);
SAME(UINT16);
SAME(INT16);
SAME(INT32);
SAME(INT64);
SAME(STRING);
SAME(BOOL);
SAME(FLOAT16);
SAME(FLOAT64);
SAME(UINT32);
SAME(UINT64);
SAME(BFLOAT16);
SAME(FLOAT8E4M3FN);
SAME(FLOAT8E4M3FNUZ);
SAME(FLOAT8E5M2);
SAME(FLOAT8E5M2FNUZ);
SAME(UINT4);
SAME(INT4);
SAME(FLOAT4E2M1);
SAME(FLOAT8E8M0);
SAME(UINT2);
SAME(INT2);
SAME(FLOAT6E2M3);
SAME(FLOAT6E3M2);
static_assert(MLSERVE_MESSAGE_MAX >= ML_ERROR_MAX, "a message may be longer than mlserve.h promises");

bool ml__capi_is_dtype(mlserve_dtype dtype) {
  switch (dtype) {
#define X(name, number, bytes, text) case number:
    ML_DTYPE_MAP(X)
#undef X
    return true;
  default: return false;
  }
}

mlserve_status ml__capi_end(ml_status status, const ml_error *err, char *message, size_t size) {
  if (!message || size == 0) return (mlserve_status)status;
  message[0] = '\0';
  if (status == ML_OK) return MLSERVE_OK;
  const char *text = err->code == status && err->message[0] ? err->message : ml_status_text(status);
  size_t length = strlen(text);
  if (length >= size) { /* cut between characters */
    length = size - 1;
    while (length > 0 && ((unsigned char)text[length] & 0xC0u) == 0x80u) length--;
  }
  memcpy(message, text, length);
  message[length] = '\0';
  return (mlserve_status)status;
}

uint32_t mlserve_abi_version(void) { return MLSERVE_ABI_VERSION; }
const char *mlserve_version(void) { return MLSERVE_VERSION; }
const char *mlserve_status_name(mlserve_status status) { return ml_status_name((ml_status)status); }
const char *mlserve_dtype_name(mlserve_dtype dtype) { return ml__capi_is_dtype(dtype) ? ml_dtype_name((ml_dtype)dtype) : "none"; }

size_t mlserve_dtype_size(mlserve_dtype dtype) {
  return ml__capi_is_dtype(dtype) && dtype != MLSERVE_STRING ? ml_dtype_size((ml_dtype)dtype) : 0;
}

mlserve_status mlserve_set_threads(int32_t threads, char *message, size_t message_size) {
  ml_error err = { .code = ML_OK };
  ml_status status = ML_OK;
  if (threads < 0) status = ml_fail(&err, ML_INVALID_ARGUMENT, "threads: 0 or more expected, got %d", (int)threads);
  else ml_set_threads(threads);
  return ml__capi_end(status, &err, message, message_size);
}

int32_t mlserve_threads(void) { return ml_threads(); }
