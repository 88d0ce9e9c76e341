/* ReduceLogSumExp: log sum exp x, shifted by the maximum. Gradient: exp(x - y) dy.
 * data (any shape), axes (optional) -> data without those axes (extent 1 with keepdims). ONNX operator specification, version 18
 * to 20. */
#include "ops/reduce.h"

static void gradient(ml_grad *g) {
  if (!g->needs[0] || ml__g_reduce_noop(g)) return;
  ml_value *x = g->in[0], *dy = ml__g_keep(g, g->dout[0]);
  ml_value *y = ml__g_keep(g, g->out[0]);
  g->din[0] = ml_g2(g, "Mul", ml_g1(g, "Exp", ml_g2(g, "Sub", x, y)), dy);
}

ML__DEFINE_REDUCE(reduce_log_sum_exp, "ReduceLogSumExp", ML_RED_LOG_SUM_EXP, ML__MASK_REDUCE, "y = log sum exp x", gradient);
