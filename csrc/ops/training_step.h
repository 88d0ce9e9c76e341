/* What Adam, Momentum and Adagrad of ai.onnx.preview.training share: inputs R (learning rate), T (update count) and n tensors to
 * optimise followed by n of each further kind; outputs n of each kind that changes.
 * Lives here: checks of the groups, the walk over the tensors. May include: ops/movement.h. Private to csrc/ops; owns nothing. */
#ifndef ML_OPS_TRAINING_STEP_H
#define ML_OPS_TRAINING_STEP_H
#include "ops/movement.h"

enum { ML__STEP_GROUPS = 4 };

typedef struct ml__step {
  double rate;   /* R */
  int64_t count; /* T */
  double k[6];   /* the operator's constants */
} ml__step;

/* One element: in has those of the groups of inputs, out takes those of the groups of outputs. */
typedef void ml__step_of(const ml__step *step, const double *in, double *out);

/* in_groups and out_groups: kinds of tensors among inputs and outputs (outputs 0 … look like the tensors of group 0). */
ml_status ml__step_infer(ml_op_ctx *ctx, int32_t in_groups, int32_t out_groups, ml_error *err);
/* R and T of a run. */
ml__step ml__step_init(const ml_op_ctx *ctx);
/* In float64 whatever the type of the tensors: an optimiser's step is small beside the gradient it takes. */
void ml__step_run(ml_op_ctx *ctx, const ml__step *step, int32_t in_groups, int32_t out_groups, ml__step_of *of);

#endif
