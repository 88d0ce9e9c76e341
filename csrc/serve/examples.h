/* Classify and regress of TensorFlow Serving's REST API: examples with named features instead of tensors.
 * Lives here: a request's body to the body of its response, as functions of bytes. Knows no HTTP. May include: servable.h and what that may.
 *
 * Where TensorFlow's models take serialised tf.Examples and parse them themselves, the features of ours are their inputs: the feature of an input's
 * name fills its rows. A model with one matrix of floats and known names of its columns (ml_servable_options.features) also takes its columns as
 * features of one value each. `context` holds features that all examples share; an example's own win. Whole numbers are taken for floats, too. */
#ifndef ML_SERVE_EXAMPLES_H
#define ML_SERVE_EXAMPLES_H
#include "serve/servable.h"

typedef enum ml_examples_method { ML_CLASSIFY, ML_REGRESS } ml_examples_method;

/* Appends the body of the response to out. Failures carry TensorFlow Serving's texts and codes. Any thread at any time. */
ml_status ml_servable_examples_json(ml_servable *servable, ml_examples_method method, const char *body, size_t size, ml_json_writer *out, ml_error *err);

#endif
