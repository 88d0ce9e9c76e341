/* Optimisers: update rules on flat arrays.
 * Lives here: the registry (one row and one file optim_NAME.c each) and their hyper-parameters, under Keras's names. May include: kernels, base. */
#ifndef ML_TRAIN_OPTIMIZER_H
#define ML_TRAIN_OPTIMIZER_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kernels/kernels.h"

typedef struct ml_hyper {
  float learning_rate;
  float beta1, beta2, epsilon; /* adam, adamw; epsilon of all adaptive ones */
  float momentum, rho;         /* sgd, rmsprop */
  bool nesterov;
  float l1, l2;                /* penalties on kernels (rank >= 2); see kernels.h for how they enter */
  float weight_decay;          /* decoupled (AdamW, SGDW) */
} ml_hyper;

typedef struct ml_optimizer {
  const char *name;
  size_t slots;                /* flat arrays of state beside the parameters, zero at the start */
  ml_hyper defaults;           /* Keras's */
  /* one step over n parameters; t counts from 1 */
  void (*step)(const ml_kernels *k, const ml_hyper *h, uint64_t t, float *w, const float *g, float *const *slots, size_t n);
} ml_optimizer;

#define ML_OPTIMIZERS(X) X(sgd) X(adam) X(adamw) X(rmsprop) X(adagrad)
#define X(name) extern const ml_optimizer ml_optimizer_##name;
ML_OPTIMIZERS(X)
#undef X

const ml_optimizer *ml_optimizer_find(const char *name); /* NULL: unknown */
const char *ml_optimizer_names(void);                    /* "sgd, adam, …" for messages */

#endif
