/* A model as KServe's v2 protocol (Open Inference Protocol) and Triton see it, whatever the form of requests.
 * Lives here: names of types, which inputs a model takes and gives, what of a request is accepted as one of them, classification, statistics. Knows
 * neither JSON requests nor protobuf ones. May include: graph, tensor, codec, base. Refusals carry Triton's texts; *prefixed is set for those that
 * Triton's core makes, which begin with the request's id (ml_infer_with_id). */
#ifndef ML_SERVE_INFER_MODEL_H
#define ML_SERVE_INFER_MODEL_H
#include "serve/answer.h"
#include "serve/servable.h"
#include "serve/wire_tensor.h"

/* The names that requests use: those of "serving_default", or of the first signature. */
const ml_signature *ml_infer_signature(const ml_servable *servable);
/* Whether all inputs and outputs have a first dimension of any size: that of the batch. */
bool ml_servable_batches(const ml_servable *servable);
/* Largest batch within the limit of elements; 0 for a model that takes none. */
int32_t ml_servable_max_batch(const ml_servable *servable);
/* The protocol's name of a dtype, NULL when it has none, and the way back: ML_DTYPE_NONE for a name that is none. */
const char *ml_infer_dtype_name(ml_dtype dtype);
ml_dtype ml_infer_dtype(const char *name, size_t length);
/* Index of a name; n when it is not there. */
size_t ml_infer_find(const ml_signature_tensor *list, size_t n, const char *name, size_t length);

typedef struct ml_infer_asked { /* whom a request asks, for messages */
  const ml_servable *servable;
  const char *model;
} ml_infer_asked;

/* Type and shape that a request gives an input, against the model's: fills view but for its data, and adds to *elements. */
ml_status ml_infer_accept(const ml_infer_asked *asked, const ml_signature_tensor *input, ml_dtype dtype, const int64_t *dims, int32_t rank,
                          size_t *elements, ml_view *view, bool *prefixed, ml_error *err);
/* Binary data of an accepted input: fills wire, whose elements can then be copied without fail. */
ml_status ml_infer_binary(const ml_infer_asked *asked, const char *name, const ml_view *view, const void *bytes, size_t size, ml_wire *wire,
                          bool *prefixed, ml_error *err);
/* Were all inputs given and no others? seen: by signature input; unknown: the first that is none, NULL: there is none. */
ml_status ml_infer_check(const ml_infer_asked *asked, const ml_signature *signature, size_t n_given, const bool *seen, const char *unknown,
                         bool *prefixed, ml_error *err);
/* "[request id: …] " before the message in err. */
ml_status ml_infer_with_id(const char *id, size_t length, ml_status status, ml_error *err);

/* An output as the protocol has it: classes > 0: the best so many of its elements as "value:index[:label]". */
ml_status ml_infer_answer(const ml_servable *servable, ml_answer *answer, const char *name, const ml_view *output, uint64_t classes, ml_error *err);
/* Bytes of its binary form: elements as they are, strings each behind its length in four bytes. */
ml_status ml_infer_binary_size(const ml_answer *answer, size_t *size, ml_error *err);
uint8_t *ml_infer_binary_write(const ml_view *view, uint8_t *to);

/* {"name": …, "inference_count": …} as in Triton's statistics extension; model, version: what it calls the servable, NULL: as that says */
void ml_servable_put_statistics(const ml_servable *servable, const char *model, const char *version, ml_json_writer *out);
void ml_infer_put_version(const ml_servable *servable, const char *version, ml_json_writer *out); /* with quotes */

#endif
