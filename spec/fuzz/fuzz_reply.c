/* Answers of both REST protocols on arbitrary bytes. The first two bytes are the size of the JSON in front of binary data (0xffff: all is JSON).
 * Demands, beyond no crash and no leak: a refusal has a message, says DATA_LOSS or that memory was short, and leaves nothing; every value is a
 * tensor of as many elements as its shape says, or a text within the body. Build: make fuzz; dictionary: json.dict. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)

static void look(ml_status status, ml_reply *reply, const char *body, size_t size, const ml_error *err) {
  if (status != ML_OK) {
    DEMAND(err->message[0] && (status == ML_DATA_LOSS || status == ML_RESOURCE_EXHAUSTED) && reply->n == 0);
    return;
  }
  for (size_t i = 0; i < reply->n; i++) {
    const ml_reply_value *v = &reply->values[i];
    DEMAND(reply->named == (v->name != NULL));
    if (!v->tensor) {
      DEMAND(v->text >= body && v->text + v->length <= body + size && v->length > 0);
      continue;
    }
    size_t count = 1;
    for (int32_t k = 0; k < v->tensor->view.rank; k++) count *= (size_t)v->tensor->view.dims[k];
    DEMAND(count == v->tensor->view.count && count <= size);
  }
  ml_reply_free(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  ml_reply reply;
  ml_error err = {0};
  if (size < 2) return 0;
  size_t json = (size_t)data[0] << 8 | data[1];
  const char *body = (const char *)data + 2;
  size -= 2;
  look(ml_reply_predict(body, size, NULL, NULL, &reply, &err), &reply, body, size, &err);
  look(ml_reply_infer(body, size, json == 0xffff ? size : json, &reply, &err), &reply, body, size, &err);
  return 0;
}
