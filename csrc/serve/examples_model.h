/* Examples with named features for a model that takes tensors, whatever the form of requests.
 * Lives here: features to inputs, and which of the outputs are the classes, scores or values of a result. Knows neither JSON requests nor protobuf
 * ones. May include: servable.h and what that may. Texts are those of tensorflow/serving (classifier.cc, regressor.cc) and, for what a model's own
 * parsing of examples would refuse, of TensorFlow's example parser. */
#ifndef ML_SERVE_EXAMPLES_MODEL_H
#define ML_SERVE_EXAMPLES_MODEL_H
#include "serve/examples.h"

typedef enum ml_feature_kind { ML_FEATURE_UNSET, ML_FEATURE_FLOATS, ML_FEATURE_INTS, ML_FEATURE_BYTES } ml_feature_kind;

extern const char *const ml_feature_kinds[]; /* TensorFlow Serving's names of them */

typedef union ml_feature_cell {
  struct { double wide; float narrow; } real; /* each rounded once from where it comes from */
  int64_t integer;
  ml_str bytes;
} ml_feature_cell;

typedef struct ml_feature {
  const char *name;
  ml_feature_kind kind;
  bool there;
  ml_feature_cell *cells; size_t capacity; /* bytes */
  size_t count;
} ml_feature;

typedef struct ml_example_rows { /* what an input gets */
  void *data; size_t bytes;
  size_t count, per_example;
} ml_example_rows;

typedef struct ml_examples { /* zeroed, then servable, signature and arena set */
  ml_servable *servable;
  const ml_signature *signature;
  ml_arena *arena;            /* tables */
  ml_feature *own, *shared;   /* of the example at hand and of the context: one per input, then one per column */
  size_t n_features, n_inputs, last; /* last: where the feature before was found */
  bool columns;               /* the one input is filled from columns */
  bool refused;               /* the last failure was about meaning; its message is complete */
  ml_example_rows *rows;      /* by signature input */
  ml_view *views;             /* by graph input */
  size_t elements, count;     /* count: of examples */
} ml_examples;

ml_status ml_examples_prepare(ml_examples *examples, ml_error *err); /* features and rows */
void ml_examples_clear(ml_examples *examples); /* frees what is not the arena's */
/* The feature of that name in own or shared; NULL: nobody asks for it. */
ml_feature *ml_examples_find(ml_examples *examples, ml_feature *set, const char *name, size_t length);
void ml_examples_begin(ml_examples *examples, ml_feature *set); /* no feature is there */
/* Room for one more element of a feature, which is the caller's to count; NULL: out of memory. */
ml_feature_cell *ml_feature_room(ml_feature *feature, ml_error *err);
ml_status ml_examples_add(ml_examples *examples, ml_error *err); /* what own and shared hold is one more example */
ml_status ml_examples_views(ml_examples *examples, ml_error *err); /* of all of them */

/* ---- results ---- */
typedef struct ml_results ml_results;
struct ml_results { /* what the answer is of, and where it goes */
  const ml_servable *servable;
  const ml_signature *signature;
  size_t count;                  /* examples */
  const ml_view *const *outputs; /* by graph output */
  void (*example)(ml_results *results, size_t index, bool end);            /* of a classification: before its classes and after them */
  void (*class_)(ml_results *results, size_t index, ml_str label, float score);
  void (*value)(ml_results *results, size_t index, float value);           /* of a regression: one for each example */
};
ml_status ml_results_classes(ml_results *results, ml_error *err);
ml_status ml_results_values(ml_results *results, ml_error *err);

#endif
