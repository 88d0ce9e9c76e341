/* The trainer: forward, loss, backward and optimiser step over flat parameter, gradient and moment arrays.
 * Lives here: losses by name, the training graph, the epoch loop over data in memory. May include: graph, data, eval.
 * Ownership: a trainer owns copies of the graph and the parameters; ml_trainer_export writes them into a graph. Not thread-safe. */
#ifndef ML_TRAIN_TRAINER_H
#define ML_TRAIN_TRAINER_H
#include <signal.h>
#include "graph/program.h"
#include "train/optimizer.h"

typedef struct ml_trainer ml_trainer;

typedef struct ml_train_config {
  const char *loss;             /* binary_crossentropy, categorical_crossentropy, sparse_categorical_crossentropy, mse, mae, huber */
  const ml_optimizer *optimizer;
  ml_hyper hyper;
  float clip_norm, clip_value;  /* 0: off; of the whole gradient vector / of each element */
  bool from_logits;             /* the cross-entropies: the output is logits, not probabilities */
  float delta;                  /* huber: where it turns linear; 0: 1 */
  bool weighted;                /* batches come with a weight per row */
  uint64_t seed;                /* of dropout and shuffling */
} ml_train_config;

/* Differentiates a copy of graph (its first output is the prediction) and lays its trainable initialisers out flat. Errors: unknown loss, an output
 * the loss cannot take, no trainable parameter, an operator without gradient between parameters and loss. */
ml_status ml_trainer_new(const ml_graph *graph, const ml_train_config *config, ml_trainer **out, ml_error *err);
void ml_trainer_free(ml_trainer *trainer); /* NULL allowed */
/* The input batches must have as targets: dtype and shape (first dimension unknown). */
void ml_trainer_target(const ml_trainer *trainer, ml_view *view);

typedef struct ml_train_data {
  const ml_view *inputs;   /* one per graph input, all with n rows */
  const ml_view *target;   /* as ml_trainer_target says */
  const float *weights;    /* (n), when config.weighted; else NULL */
  size_t rows;
} ml_train_data;

typedef struct ml_epoch_options {
  size_t batch_size;       /* >= 1; larger than rows: full batch */
  bool shuffle;
  uint64_t epoch;          /* selects the permutation; counts from 0 */
  size_t max_steps;        /* 0: the whole epoch */
  size_t first_step;       /* steps of this epoch already done (resuming) */
  float *predictions;      /* (optional) rows x outputs, in the order of the data: what the model said when the row was trained on */
  const volatile sig_atomic_t *interrupt; /* (optional) stops after the current step when it becomes non-zero */
  uint64_t deadline_ns;    /* 0: none; monotonic */
} ml_epoch_options;

typedef struct ml_epoch_result {
  double loss;             /* mean over the rows seen, without penalties */
  double penalty;          /* l1 sum|w| + l2 sum w^2 over kernels, after the last step */
  size_t steps, rows;
  bool diverged;           /* the loss or a gradient was NaN or infinite; the parameters are those before that step */
  bool interrupted;        /* by interrupt or deadline */
} ml_epoch_result;

ml_status ml_trainer_epoch(ml_trainer *trainer, const ml_train_data *data, const ml_epoch_options *options, ml_epoch_result *result, ml_error *err);
/* Mean loss (without penalties) in inference mode, and predictions when asked for. Weights do not change. */
ml_status ml_trainer_evaluate(ml_trainer *trainer, const ml_train_data *data, size_t batch_size, float *predictions, double *loss, ml_error *err);

ml_hyper *ml_trainer_hyper(ml_trainer *trainer); /* may be changed between epochs (schedules) */
uint64_t ml_trainer_steps(const ml_trainer *trainer);
void ml_trainer_set_steps(ml_trainer *trainer, uint64_t steps);
double ml_trainer_penalty(const ml_trainer *trainer);

/* Flat state: array 0 = parameters, 1 = gradients of the last step, 2… = optimiser slots. Borrowed. */
size_t ml_trainer_arrays(const ml_trainer *trainer);
float *ml_trainer_array(ml_trainer *trainer, size_t index, size_t *count);
/* Named pieces of each array, for checkpoints. */
typedef struct ml_parameter { const char *name; size_t offset, count; int32_t rank; int64_t dims[ML_MAX_RANK]; } ml_parameter;
size_t ml_trainer_parameters(const ml_trainer *trainer);
const ml_parameter *ml_trainer_parameter(const ml_trainer *trainer, size_t index);
/* Running statistics of BatchNormalization: not parameters, but state. The tensor is borrowed and may be written to. */
size_t ml_trainer_statistics(const ml_trainer *trainer);
ml_tensor *ml_trainer_statistic(const ml_trainer *trainer, size_t index, const char **name);
/* Writes parameters (and running statistics) into the initialisers of the same names. */
ml_status ml_trainer_export(const ml_trainer *trainer, ml_graph *graph, ml_error *err);

#endif
