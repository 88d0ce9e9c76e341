/* TensorFlow Serving's Predict over gRPC: PredictRequest to PredictResponse, as functions of bytes.
 * Lives here: the codec, TensorProto in both directions, and ModelSpec, which all methods of PredictionService begin with. Knows no HTTP and no
 * framing. May include: graph, tensor, codec, base. Field numbers and texts: tensorflow/serving's predict.proto, model.proto and predict_util.cc,
 * tensorflow's tensor.proto. */
#ifndef ML_SERVE_PREDICT_PROTO_H
#define ML_SERVE_PREDICT_PROTO_H
#include "serve/call.h"

extern const ml_call_codec ml_predict_proto;

/* Whom a request asks; strings borrow its bytes. */
typedef struct ml_model_spec {
  bool given, versioned, labelled; /* the message, its version, its label instead */
  ml_str name, label, signature;   /* empty: not given */
  int64_t version;
} ml_model_spec;

/* The ModelSpec of a request: its field 1, or with `task` field 1 of its first field 1 (MultiInference). Looks at nothing else, so it costs next to
 * nothing. INTERNAL: the bytes are no message. */
ml_status ml_model_spec_peek(const void *bytes, size_t size, bool task, ml_model_spec *out, ml_error *err);

/* The signature of that name; empty: of the options, or "serving_default". NULL: none; *name is what was looked for. */
const ml_signature *ml_model_spec_signature(const ml_call *call, ml_str asked, ml_str *name);
/* ModelSpec of an answer about `signature`, as field `number`. */
size_t ml_model_spec_size(const ml_call *call, const char *signature, uint32_t number);
uint8_t *ml_model_spec_write(const ml_call *call, const char *signature, uint32_t number, uint8_t *to);

/* A TensorProto alone, as clients get and send it: whatever its type is, in tensor_content or in lists. DATA_LOSS: it is none. */
ml_status ml_tensor_proto_read(const void *bytes, size_t size, ml_tensor **out, ml_error *err);
/* INVALID_ARGUMENT: TensorFlow has no such element type. */
ml_status ml_tensor_proto_write(const ml_view *view, ml_pb_writer *out, ml_error *err);

#endif
