/* The infer request of KServe's v2 protocol (Open Inference Protocol) over REST, with Triton's extensions for binary tensors and classification.
 * Lives here: body bytes to input views, output views to body bytes, the two with a run between, and the statistics of such runs. Knows no HTTP.
 * May include: graph, tensor, codec, base. Ownership: a decoded request borrows the body, the options' strings and the servable, which must
 * outlive it; every function may be called from any thread. */
#ifndef ML_SERVE_INFER_H
#define ML_SERVE_INFER_H
#include "serve/infer_model.h"

typedef struct ml_infer ml_infer; /* a decoded request */

#define ML_INFER_JSON SIZE_MAX /* all of a body is JSON */

typedef struct ml_infer_options {
  const char *model, *version; /* what responses and messages call it; NULL: as the servable says */
} ml_infer_options;

/* json_size: how many bytes of the body are JSON (the rest are the binary inputs), 0 for a raw binary request, or ML_INFER_JSON. Refusals carry
 * Triton's texts; INVALID_ARGUMENT is the client's fault. */
ml_status ml_infer_decode(ml_servable *servable, const char *body, size_t size, size_t json_size, const ml_infer_options *options, ml_infer **out,
                          ml_error *err);
/* One for each input of the graph. Their data may lie in the body at any address: to be copied, not to be computed with. */
const ml_view *ml_infer_inputs(const ml_infer *request);
size_t ml_infer_rows(const ml_infer *request); /* size of the batch; 1 for a model that takes none */
uint64_t ml_infer_priority(const ml_infer *request); /* parameters of the request; 0: none */
uint64_t ml_infer_timeout(const ml_infer *request);  /* microseconds */
/* Appends the response to out. outputs: one for each output of the graph. *json_size: bytes of JSON when binary outputs follow, else ML_INFER_JSON. */
ml_status ml_infer_encode(const ml_infer *request, const ml_view *const *outputs, ml_json_writer *out, size_t *json_size, ml_error *err);
void ml_infer_free(ml_infer *request); /* NULL allowed */

/* The same in a batch: submit, which takes priority and timeout from the request where it has them, and finish, which waits for the run, encodes
 * and counts. The body must stay until ml_infer_free. */
ml_status ml_infer_submit(ml_infer *request, const ml_request_options *options, ml_error *err);
ml_status ml_infer_finish(ml_infer *request, ml_json_writer *out, size_t *json_size, ml_error *err);
ml_ticket *ml_infer_ticket(ml_infer *request); /* borrowed */

/* All at once, counted in the servable's statistics. */
ml_status ml_servable_infer(ml_servable *servable, const char *body, size_t size, size_t json_size, const ml_infer_options *options,
                            ml_json_writer *out, size_t *out_json_size, ml_error *err);

#endif
