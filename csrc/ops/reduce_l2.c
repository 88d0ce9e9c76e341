/* ReduceL2: the Euclidean norm. Gradient: x / y dy, 0 where y is 0.
 * data (any shape), axes (optional) -> data without those axes (extent 1 with keepdims). ONNX operator specification, version 18
 * to 20. */
#include "ops/reduce.h"

static void gradient(ml_grad *g) {
  if (!g->needs[0] || ml__g_reduce_noop(g)) return;
  ml_value *x = g->in[0], *dy = ml__g_keep(g, g->dout[0]);
  ml_value *y = ml__g_keep(g, g->out[0]);
  ml_value *safe = ml_g3(g, "Where", ml_g2(g, "Equal", y, g->constant(g, 0, x)), g->constant(g, 1, x), y);
  g->din[0] = ml_g2(g, "Mul", ml_g2(g, "Div", x, safe), dy);
}

ML__DEFINE_REDUCE(reduce_l2, "ReduceL2", ML_RED_L2, ML__MASK_REDUCE, "y = sqrt sum x^2", gradient);
