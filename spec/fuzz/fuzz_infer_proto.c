/* KServe's ModelInferRequest on arbitrary bytes. Build: clang
 * -fsanitize=fuzzer,address,undefined -Icsrc spec/fuzz/fuzz_infer_proto.c and the core (make fuzz). */
#include "proto_fuzz.h"
#include "serve/infer_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  ml_str model, version;
  ml_error err = {0};
  ml_status status = ml_infer_peek(data, size, &model, &version, &err);
  DEMAND(status == ML_OK || (status == ML_INTERNAL && err.message[0]));
  fuzz_codec(&ml_infer_proto, data, size);
  return 0;
}
