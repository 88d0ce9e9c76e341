/* The safetensors reader on arbitrary bytes. Demands, beyond no crash and no leak: a refusal has a message; every tensor that is
 * read can be found and lies where its bytes are readable. Build: clang -fsanitize=fuzzer,address,undefined -Icsrc
 * spec/fuzz/fuzz_safetensors.c csrc/format/safetensors.c and base, codec, tensor. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)

/* The first eight bytes are the header's length, which chance rarely hits: an input that begins with '{' gets one that fits. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  ml_error err = {0};
  ml_safetensors *file = NULL;
  uint8_t *bytes = malloc(size + 8);
  if (!bytes) return 0;
  size_t n = size;
  if (size > 0 && data[0] == '{') {
    const uint8_t *stop = memchr(data, '\n', size); /* a new line ends the header */
    uint64_t length = stop ? (uint64_t)(stop - data) + 1 : size;
    memcpy(bytes, &length, 8);
    memcpy(bytes + 8, data, size);
    n += 8;
  } else if (size > 0) {
    memcpy(bytes, data, size);
  }
  if (ml_safetensors_read(bytes, n, "fuzz", &file, &err) != ML_OK) {
    DEMAND(!file && err.message[0]);
  } else {
    unsigned sum = 0;
    for (size_t i = 0; i < file->n_tensors; i++) {
      const ml_view *v = &file->tensors[i].tensor->view;
      DEMAND(ml_safetensors_find(file, file->tensors[i].name) == file->tensors[i].tensor);
      for (size_t k = 0; k < v->count * ml_dtype_size(v->dtype); k++) sum += ((const uint8_t *)v->data)[k];
    }
    DEMAND(sum < 255u * (unsigned)(n + 1));
    for (size_t i = 0; i < file->n_metadata; i++)
      DEMAND(ml_safetensors_metadata(file, file->metadata[i].key) == file->metadata[i].value);
    ml_safetensors_free(file);
  }
  free(bytes);
  return 0;
}
