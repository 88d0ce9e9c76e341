/* Fuzz target: compressed bodies. Whatever comes in, no more comes out than is allowed; what comes out survives there and back. The first byte
 * chooses coding and limit. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "net/compress.h"

#define CHECK(condition) \
  do {                   \
    if (!(condition)) abort(); \
  } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  ml_coding coding = data[0] & 1 ? ML_CODING_GZIP : ML_CODING_DEFLATE;
  ml_inflate_limits limits = {.bytes = (size_t)(data[0] >> 1) * 512 + 1, .ratio = 300};
  char *out, *packed, *back;
  size_t out_size, packed_size, back_size;
  ml_error err;
  ml_status status = ml_inflate(coding, data + 1, size - 1, limits, &out, &out_size, &err);
  CHECK((status == ML_OK) == (out != NULL));
  if (status != ML_OK) {
    CHECK(status == ML_DATA_LOSS || status == ML_RESOURCE_EXHAUSTED);
    return 0;
  }
  CHECK(out_size <= limits.bytes);
  CHECK(ml_deflate(coding, out, out_size, 1, &packed, &packed_size, &err) == ML_OK);
  CHECK(ml_inflate(coding, packed, packed_size, (ml_inflate_limits){limits.bytes, 0}, &back, &back_size, &err) == ML_OK);
  CHECK(back_size == out_size && memcmp(back, out, out_size) == 0);
  ml_free(out);
  ml_free(packed);
  ml_free(back);
  return 0;
}
