/* A servable: a compiled model with the names callers know it by.
 * Lives here: signatures, the immutable servable, and the predict request of TensorFlow Serving's REST API as a function of
 * bytes. Knows no HTTP. May include: graph, tensor, codec, base. Ownership: reference-counted and immutable; every function may
 * be called from any thread at any time. A servable holds one reference on its program; pooled request buffers belong to it. */
#ifndef ML_SERVE_SERVABLE_H
#define ML_SERVE_SERVABLE_H
#include <pthread.h>
#include "codec/json.h"
#include "graph/program.h"
#include "serve/batcher.h"
#include "serve/probe.h"

#define ML_SERVING_DEFAULT "serving_default"
#define ML_PREDICT_METHOD "tensorflow/serving/predict"

typedef struct ml_signature_tensor {
  const char *name;        /* what callers say */
  const char *value;       /* the graph's name for it */
  /* the rest is filled by ml_servable_new */
  size_t index;            /* among the graph's inputs or outputs */
  ml_dtype dtype;
  int32_t rank;
  int64_t dims[ML_MAX_RANK];
} ml_signature_tensor;

typedef struct ml_signature {
  const char *name, *method; /* method NULL: ML_PREDICT_METHOD */
  const ml_signature_tensor *inputs; size_t n_inputs;
  const ml_signature_tensor *outputs; size_t n_outputs;
} ml_signature;

typedef struct ml_servable ml_servable;

typedef struct ml_servable_options {
  const char *model;       /* name; NULL: the graph's */
  int64_t version;
  const ml_signature *signatures;
  size_t n_signatures;     /* none: the model file's own, else "serving_default" with every input and output under the graph's names */
  size_t max_elements;     /* of the inputs of one request; 0: 64 Mi */
  const char *const *features; size_t n_features; /* names of the columns of the only input; NULL: those in the model file, if any */
  const char *const *classes; size_t n_classes;   /* labels of the scores, in their order; NULL: those in the model file, if any */
} ml_servable_options;

/* Retains program, copies the rest. Every signature must name every input of the graph, and at least one output. options NULL:
 * defaults. */
ml_status ml_servable_new(ml_program *program, const ml_servable_options *options, ml_servable **out, ml_error *err);
ml_servable *ml_servable_retain(ml_servable *servable);
void ml_servable_release(ml_servable *servable); /* NULL allowed */

const char *ml_servable_model(const ml_servable *servable);
int64_t ml_servable_version(const ml_servable *servable);
ml_program *ml_servable_program(const ml_servable *servable); /* borrowed */
size_t ml_servable_max_elements(const ml_servable *servable); /* of the inputs of one request */
struct ml_statistics *ml_servable_statistics(const ml_servable *servable); /* borrowed; see serve/statistics.h */
size_t ml_servable_n_features(const ml_servable *servable);
const char *const *ml_servable_features(const ml_servable *servable);
const char *const *ml_servable_classes(const ml_servable *servable, size_t *n);
size_t ml_servable_signatures(const ml_servable *servable);
const ml_signature *ml_servable_signature_at(const ml_servable *servable, size_t index);
const ml_signature *ml_servable_signature(const ml_servable *servable, const char *name, size_t length); /* NULL: none */

/* Body of a predict request to body of its response, appended to out. signature: used when the body names none; NULL:
 * "serving_default". Failures carry TensorFlow Serving's texts; INVALID_ARGUMENT is the client's fault, RESOURCE_EXHAUSTED an
 * exceeded limit or memory. */
ml_status ml_servable_predict_json(ml_servable *servable, const char *body, size_t size, const char *signature,
                                   ml_json_writer *out, ml_error *err);

/* ---- the same in steps ---- */
/* A request belongs to one thread at a time and ends with ml_request_free. The body is not read after decoding. A servable must outlive
 * its requests; one that was submitted sees to that by itself. */
typedef struct ml_request ml_request;
ml_status ml_request_decode_json(ml_servable *servable, const char *body, size_t size, const char *signature, ml_request **out,
                                 ml_error *err);
ml_status ml_request_run(ml_request *request, ml_error *err); /* on this thread */
ml_status ml_request_encode_json(ml_request *request, ml_json_writer *out, ml_error *err); /* after run or wait */
void ml_request_free(ml_request *request); /* NULL allowed; one that was submitted leaves the queue, or its run is waited for */

/* What its model is like, see probe.h: found out when first asked for, which takes some runs; a loader's thread does so beforehand. */
const ml_probe *ml_servable_probe(ml_servable *servable);

/* Requests may be submitted from now on. Takes over the batcher of the servable's program; only once. */
ml_status ml_servable_set_batcher(ml_servable *servable, ml_batcher *batcher, ml_error *err);
ml_batcher *ml_servable_batcher(const ml_servable *servable); /* borrowed; NULL: none */

typedef struct ml_request_options {
  uint32_t priority;     /* see ml_batch_job */
  uint64_t deadline_ns;  /* of ml_clock_ns, for the beginning of the run; 0: none */
  ml_batch_port *port;   /* retained; told `id` when the request is over; NULL: nobody is */
  uint64_t id;
} ml_request_options;
/* Instead of ml_request_run: to the servable's batcher. */
ml_status ml_request_submit(ml_request *request, const ml_request_options *options, ml_error *err);
ml_status ml_request_wait(ml_request *request, ml_error *err); /* blocks until it is over; its status */

/* A request's place in the batcher, for every protocol the same; zeroed before use. */
typedef struct ml_ticket {
  ml_servable *servable;   /* retained while it is submitted, else NULL */
  ml_batch_job job;
  const ml_view **outputs; /* by graph output, after ml_ticket_wait */
  ml_view *results;        /* private */
} ml_ticket;
ml_ticket *ml_request_ticket(ml_request *request); /* borrowed */
ml_status ml_ticket_submit(ml_ticket *ticket, ml_servable *servable, const ml_view *inputs, const ml_request_options *options, ml_error *err);
ml_status ml_ticket_wait(ml_ticket *ticket, ml_error *err);
bool ml_ticket_over(ml_ticket *ticket);
bool ml_ticket_cancel(ml_ticket *ticket); /* see ml_batcher_cancel */
bool ml_ticket_expire(ml_ticket *ticket);
/* Out of the queue, or after its run; drops the results. The servable is the caller's to release; NULL: it was not submitted. */
ml_servable *ml_ticket_leave(ml_ticket *ticket);
void ml_ticket_free(ml_ticket *ticket);   /* its buffers, after it has left */

/* ---- idle requests of binary protocols (serve/call.h) ---- */
typedef struct ml_calls {
  pthread_mutex_t mutex;
  struct ml_call *idle;
  size_t n;
} ml_calls;
ml_calls *ml_servable_calls(ml_servable *servable); /* borrowed */

#endif
