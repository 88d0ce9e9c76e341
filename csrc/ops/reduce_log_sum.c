/* ReduceLogSum: the logarithm of the sum. Gradient: dy / sum x, repeated.
 * data (any shape), axes (optional) -> data without those axes (extent 1 with keepdims). ONNX operator specification, version 18
 * to 20. */
#include "ops/reduce.h"

static void gradient(ml_grad *g) {
  if (!g->needs[0] || ml__g_reduce_noop(g)) return;
  ml_value *x = g->in[0], *dy = ml__g_keep(g, g->dout[0]);
  dy = ml_g2(g, "Div", dy, ml__g_reduce(g, "ReduceSum", x));
  g->din[0] = ml__g_expand_like(g, dy, x);
}

ML__DEFINE_REDUCE(reduce_log_sum, "ReduceLogSum", ML_RED_LOG_SUM, ML__MASK_REDUCE, "y = log sum x", gradient);
