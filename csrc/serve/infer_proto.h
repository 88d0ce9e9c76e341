/* KServe's v2 protocol (Open Inference Protocol) over gRPC: ModelInferRequest to ModelInferResponse, as functions of bytes.
 * Lives here: the codec. Knows no HTTP and no framing. May include: graph, tensor, codec, base. Field numbers: the protocol's grpc_predict_v2.proto;
 * texts and what is done where the protocol leaves it open: Triton's infer_handler.cc. */
#ifndef ML_SERVE_INFER_PROTO_H
#define ML_SERVE_INFER_PROTO_H
#include "serve/call.h"

extern const ml_call_codec ml_infer_proto;

/* Whom a request asks: its model_name and model_version, borrowed; empty: not given. INTERNAL: the bytes are no message. */
ml_status ml_infer_peek(const void *bytes, size_t size, ml_str *model, ml_str *version, ml_error *err);

#endif
