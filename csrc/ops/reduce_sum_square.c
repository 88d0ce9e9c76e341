/* ReduceSumSquare: the sum of squares. Gradient: 2 x dy.
 * data (any shape), axes (optional) -> data without those axes (extent 1 with keepdims). ONNX operator specification, version 18
 * to 20. */
#include "ops/reduce.h"

static void gradient(ml_grad *g) {
  if (!g->needs[0] || ml__g_reduce_noop(g)) return;
  ml_value *x = g->in[0], *dy = ml__g_keep(g, g->dout[0]);
  g->din[0] = ml_g2(g, "Mul", ml_g2(g, "Mul", x, g->constant(g, 2, x)), dy);
}

ML__DEFINE_REDUCE(reduce_sum_square, "ReduceSumSquare", ML_RED_SUM_SQUARE, ML__MASK_REDUCE, "y = sum x^2", gradient);
