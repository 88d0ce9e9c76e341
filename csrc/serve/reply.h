/* The other side of both REST protocols: what a client sends and what it got back, to and from tensors.
 * Lives here: tensors as JSON and as the bytes of KServe's binary extension; answers to predict and infer as tensors. An answer comes from
 * anybody: all of it is checked, and what it makes us allocate is bounded by its size. May include: tensor, codec, base.
 * Ownership: a reply owns its values and borrows the body; every function may be called from any thread. */
#ifndef ML_SERVE_REPLY_H
#define ML_SERVE_REPLY_H
#include "codec/json.h"
#include "tensor/tensor.h"

typedef struct ml_reply_value {
  char *name; size_t name_length;  /* NULL: the only value of an answer without names */
  ml_tensor *tensor;               /* NULL: the value is no tensor (a list of maps, say), but … */
  const char *text; size_t length; /* … this JSON within the body */
} ml_reply_value;

typedef struct ml_reply {
  ml_reply_value *values;
  size_t n, capacity;
  bool named;
  char *version, *id;              /* of an infer answer; NULL where it says nothing */
} ml_reply;

/* The element type that the caller wants for an output (name NULL: the only one); ML_DTYPE_NONE: as the numbers look. */
typedef ml_dtype ml_reply_dtype(void *context, const char *name, size_t length);

/* {"predictions": …} or {"outputs": …}. Numbers without fraction and exponent are int64, others float32. DATA_LOSS: no such answer. */
ml_status ml_reply_predict(const char *body, size_t size, ml_reply_dtype *dtype, void *context, ml_reply *out, ml_error *err);
/* KServe's answer; json_size: how many bytes of it are JSON, the rest are binary outputs. DATA_LOSS: no such answer. */
ml_status ml_reply_infer(const char *body, size_t size, size_t json_size, ml_reply *out, ml_error *err);
void ml_reply_free(ml_reply *reply); /* zeroed is allowed */
/* Bytes of the binary extension (and of gRPC's raw contents) as a tensor. DATA_LOSS: they are none of this datatype ("FP32") and shape. */
ml_status ml_reply_tensor(const char *bytes, size_t size, const char *datatype, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err);

/* Nested lists, or with row >= 0 that row. Strings that are no UTF-8 turn all into {"b64": …} unless `plain`: then INVALID_ARGUMENT. */
ml_status ml_request_json(ml_tensor *tensor, int64_t row, bool plain, ml_json_writer *out, ml_error *err);
/* Element for element, little-endian, strings with their length in front. */
ml_status ml_request_bytes(const ml_view *view, ml_json_writer *out, ml_error *err);

#endif
