/* SoftmaxCrossEntropyLoss 13: l = -w_t log softmax(scores)_t, reduced. scores (N,C,D…), labels (N,D…), weights (C) optional
 * -> loss (rank 0, or the labels' shape with reduction none), log_prob (scores' shape) on demand. ONNX operator specification;
 * cross_entropy.h. Gradient: mlserve.SoftmaxCrossEntropyGrad; what comes back through log_prob is d - softmax(scores) sum_c d. */
#include "ops/cross_entropy.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__cross_entropy_run(ctx, true, err); }

static void gradient(ml_grad *g) {
  if (!g->needs[0]) return;
  ml_value *through_loss = ml__cross_entropy_gradient(g, "mlserve.SoftmaxCrossEntropyGrad"),
           *d = g->n_out > 1 ? g->dout[1] : NULL, *through_logs = NULL;
  if (d) {
    int64_t one = 1;
    ml_attr axis = ml_attr_of_int("axis", 1);
    ml_value *sum = ml_g2(g, "ReduceSum", d, g->ints(g, &one, 1)), *p = ml_gn(g, "Softmax", &axis, 1, 1, g->in);
    through_logs = ml_g2(g, "Sub", d, ml_g2(g, "Mul", p, sum));
  }
  g->din[0] = through_loss && through_logs ? ml_g2(g, "Add", through_loss, through_logs)
              : through_loss               ? through_loss
                                           : through_logs;
}

const ml_op_def ml_op_softmax_cross_entropy_loss = {
  .name = "SoftmaxCrossEntropyLoss", .domain = "", .since = 13, .min_in = 2, .max_in = 3, .min_out = 1, .max_out = 2,
  .attrs = ml__cross_entropy_attrs, .types = { ML_MASK_F, ML_BIT(ML_INT32) | ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "loss = -w_t log softmax(scores)_t, reduced", .infer = ml__cross_entropy_infer,
  .workspace = ml__cross_entropy_workspace, .run = run, .gradient = gradient,
};
