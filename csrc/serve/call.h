/* A request of a binary protocol between its bytes and its answer's.
 * Lives here: what the codecs of all such protocols fill and read, the run between, alone or in a batch, and the pool that makes requests free of
 * allocations. Knows no message. May include: graph, tensor, codec, base. Ownership: a call borrows its bytes, its options' strings and the servable
 * until ml_call_free; it belongs to one thread at a time. */
#ifndef ML_SERVE_CALL_H
#define ML_SERVE_CALL_H
#include "serve/answer.h"
#include "serve/servable.h"
#include "serve/wire_tensor.h"

typedef struct ml_call ml_call;

typedef struct ml_call_options {
  const char *model, *version; /* what answers and messages call it; NULL: as the servable says */
  const char *signature;       /* TensorFlow Serving's, for a request that names none; NULL: "serving_default" */
  bool content;                /* TensorFlow Serving's, answers: tensor_content instead of typed lists */
} ml_call_options;

/* Bytes to call and call to bytes. Refusals carry the texts and codes of the server that the protocol is of; bytes that are no message of the
 * protocol get INTERNAL, as gRPC's table of codes says. */
typedef struct ml_call_codec {
  ml_status (*decode)(ml_call *call, const void *bytes, size_t size, ml_error *err);
  ml_status (*encode)(ml_call *call, ml_pb_writer *out, ml_error *err); /* nothing is written when it fails */
  bool counted; /* in the servable's statistics */
} ml_call_codec;

ml_status ml_call_decode(ml_servable *servable, const ml_call_codec *codec, const void *bytes, size_t size, const ml_call_options *options,
                         ml_call **out, ml_error *err);
/* Runs a decoded call on this thread, or hands it to the servable's batcher; then finish waits for that, encodes and counts. A call that failed is
 * only to be freed. */
ml_status ml_call_run(ml_call *call, ml_error *err);
ml_status ml_call_submit(ml_call *call, const ml_request_options *options, ml_error *err);
ml_status ml_call_finish(ml_call *call, ml_pb_writer *out, ml_error *err);
ml_ticket *ml_call_ticket(ml_call *call); /* borrowed */
void ml_call_free(ml_call *call); /* NULL allowed */

/* All at once: appends the answer to out. */
ml_status ml_servable_call(ml_servable *servable, const ml_call_codec *codec, const void *bytes, size_t size, const ml_call_options *options,
                           ml_pb_writer *out, ml_error *err);

/* ---- for the codecs ---- */
typedef struct ml_wanted { /* an output of the answer */
  size_t index;            /* among the signature's */
  uint64_t classes;        /* 0: the tensor itself */
} ml_wanted;

struct ml_call {
  ml_servable *servable;
  const ml_call_codec *codec;
  ml_call_options options;
  /* decode */
  const ml_signature *signature;
  ml_view *views;           /* by graph input, zeroed: type and shape, no data */
  ml_wire *wires;           /* by graph input, zeroed: where the data are */
  bool *seen;               /* for the codec: by signature input, zeroed */
  ml_wanted *wanted; size_t n_wanted, wanted_bytes; /* empty: all outputs of the signature (MultiInference: its tasks) */
  const char *id; size_t id_length;
  uint64_t priority, timeout_us; /* that the request asks for; 0: none */
  /* encode */
  const ml_view **outputs;  /* by graph output */
  ml_answer *answers; size_t n_answers; /* for the outputs of any signature, zeroed; cleared when the call ends */
  struct ml_call_buffer { void *data; size_t bytes; } *buffers; /* by graph input: for what does not lie in the bytes as elements */
  /* private */
  ml_session *session;
  ml_ticket ticket;
  uint64_t begin_ns, decoded_ns;
  ml_call *next;
};

/* "model" of the answer, and its version as text (of at most 24 bytes, in text) */
static inline const char *ml_call_model(const ml_call *call) { return call->options.model ? call->options.model : ml_servable_model(call->servable); }
const char *ml_call_version(const ml_call *call, char text[24]);
/* One more output of the answer. */
ml_status ml_call_want(ml_call *call, ml_wanted wanted, ml_error *err);
static inline size_t ml_call_n_outputs(const ml_call *call) { return call->n_wanted ? call->n_wanted : call->signature->n_outputs; }
static inline ml_wanted ml_call_wanted(const ml_call *call, size_t i) { return call->n_wanted ? call->wanted[i] : (ml_wanted){i, 0}; }
/* A failure of the protobuf codec as that of a call: DATA_LOSS becomes INTERNAL, others stay what they are. */
ml_status ml_call_malformed(ml_status status, ml_error *err);

/* ---- the servable's pool ---- */
void ml_calls_init(struct ml_calls *calls);
void ml_calls_free(struct ml_calls *calls, ml_servable *servable);

#endif
