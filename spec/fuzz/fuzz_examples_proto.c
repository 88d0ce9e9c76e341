/* TensorFlow Serving's ClassificationRequest, RegressionRequest and MultiInferenceRequest on arbitrary bytes. The first byte says which. Build: clang
 * -fsanitize=fuzzer,address,undefined -Icsrc spec/fuzz/fuzz_examples_proto.c and the core (make fuzz). */
#include "proto_fuzz.h"
#include "serve/examples_proto.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  const ml_call_codec *codecs[] = {&ml_classify_proto, &ml_regress_proto, &ml_multi_inference_proto};
  fuzz_codec(codecs[data[0] % 3], data + 1, size - 1);
  return 0;
}
