/* TensorFlow Serving's Classify, Regress and MultiInference over gRPC, as functions of bytes: tensorflow.Examples in, results out.
 * Lives here: the codecs. Knows no HTTP and no framing. May include: graph, tensor, codec, base. Features find their inputs as in the REST API
 * (serve/examples.h). Field numbers and texts: tensorflow/serving's classification.proto, regression.proto, inference.proto, input.proto, util.cc and
 * multi_inference.cc; tensorflow's example.proto and feature.proto. */
#ifndef ML_SERVE_EXAMPLES_PROTO_H
#define ML_SERVE_EXAMPLES_PROTO_H
#include "serve/call.h"

extern const ml_call_codec ml_classify_proto, ml_regress_proto, ml_multi_inference_proto;

#endif
