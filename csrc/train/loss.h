/* Losses by Keras's names: how each is appended to a graph as operators. May include: graph, ops. */
#ifndef ML_TRAIN_LOSS_H
#define ML_TRAIN_LOSS_H
#include "train/trainer.h"

typedef struct ml_loss_graph {
  ml_value *target;  /* graph input */
  ml_value *weight;  /* graph input (rows), or NULL */
  ml_value *loss;    /* scalar */
} ml_loss_graph;

/* Appends target input, loss nodes and (config->weighted) weight input for the graph's first output. A cross-entropy on the result of
 * Sigmoid or Softmax works on their input (logits), which is exact where probabilities saturate. */
ml_status ml_loss_append(ml_graph *graph, const ml_train_config *config, ml_loss_graph *out, ml_error *err);

#endif
