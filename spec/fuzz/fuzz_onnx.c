/* The ONNX reader on arbitrary bytes. Demands, beyond no crash and no leak: a refusal has a message; a model that is read can be
 * written, and what was written can be read and written again without a change. The first byte chooses between a model, a tensor
 * and an npy file. Build: clang -fsanitize=fuzzer,address,undefined -Icsrc spec/fuzz/fuzz_onnx.c and the core (make fuzz); seeds:
 * spec/golden/onnx. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "format/npy.h"
#include "format/onnx.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)

static void check_model(const uint8_t *data, size_t size) {
  ml_error err = {0};
  ml_graph *first = NULL, *second = NULL;
  void *once = NULL, *twice = NULL;
  size_t once_size, twice_size;
  ml_onnx_limits limits = {.max_nodes = 1000, .max_bytes = 1 << 20};
  if (ml_onnx_read(data, size, "fuzz", &limits, &first, &err) != ML_OK) {
    DEMAND(!first && err.message[0]);
    return;
  }
  if (ml_onnx_write(first, &once, &once_size, &err) == ML_OK) { /* a value may lack a type */
    /* what only wider limits allow (names of the import) may make the second reading fail, not the third differ */
    if (ml_onnx_read(once, once_size, "again", NULL, &second, &err) == ML_OK) {
      ml_graph *third = NULL;
      DEMAND(ml_onnx_write(second, &twice, &twice_size, &err) == ML_OK);
      ml_free(once);
      once = NULL;
      DEMAND(ml_onnx_read(twice, twice_size, "third", NULL, &third, &err) == ML_OK);
      DEMAND(ml_onnx_write(third, &once, &once_size, &err) == ML_OK);
      DEMAND(once_size == twice_size && memcmp(once, twice, once_size) == 0);
      ml_graph_free(third);
    }
  } else {
    DEMAND(err.message[0]);
  }
  ml_free(once);
  ml_free(twice);
  ml_graph_free(first);
  ml_graph_free(second);
}

static void check_tensor(const uint8_t *data, size_t size) {
  ml_error err = {0};
  ml_tensor *t = NULL, *back = NULL;
  void *bytes;
  size_t n;
  if (ml_onnx_tensor_read(data, size, "fuzz", &t, NULL, NULL, &err) != ML_OK) return;
  DEMAND(ml_onnx_tensor_write(t, "t", &bytes, &n, &err) == ML_OK);
  DEMAND(ml_onnx_tensor_read(bytes, n, "again", &back, NULL, NULL, &err) == ML_OK);
  DEMAND(back->view.count == t->view.count && back->view.dtype == t->view.dtype);
  if (t->view.dtype != ML_STRING && t->view.count)
    DEMAND(memcmp(t->view.data, back->view.data, t->view.count * ml_dtype_size(t->view.dtype)) == 0);
  ml_free(bytes);
  ml_tensor_release(t);
  ml_tensor_release(back);
}

static void check_npy(const uint8_t *data, size_t size) {
  ml_error err = {0};
  ml_tensor *t = NULL, *back = NULL;
  void *bytes;
  size_t n;
  if (ml_npy_read(data, size, "fuzz", &t, &err) != ML_OK) return;
  DEMAND(ml_npy_write(t, &bytes, &n, &err) == ML_OK && ml_npy_read(bytes, n, "again", &back, &err) == ML_OK);
  DEMAND(back->view.count == t->view.count && back->view.dtype == t->view.dtype);
  ml_free(bytes);
  ml_tensor_release(t);
  ml_tensor_release(back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > 0 && data[0] == 't') check_tensor(data + 1, size - 1);
  else if (size > 0 && data[0] == 'n') check_npy(data + 1, size - 1);
  else check_model(data, size);
  return 0;
}
