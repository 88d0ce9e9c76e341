/* TensorFlow Serving's PredictRequest on arbitrary bytes. Build: clang
 * -fsanitize=fuzzer,address,undefined -Icsrc spec/fuzz/fuzz_predict_proto.c and the core (make fuzz). */
#include "proto_fuzz.h"
#include "serve/predict_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  ml_model_spec spec;
  ml_error err = {0};
  ml_status status = ml_model_spec_peek(data, size, size % 2 == 1, &spec, &err);
  DEMAND(status == ML_OK || (status == ML_INTERNAL && err.message[0]));
  fuzz_codec(&ml_predict_proto, data, size);
  return 0;
}
