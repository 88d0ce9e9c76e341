/* ReduceL1: the sum of magnitudes. Gradient: sign(x) dy.
 * data (any shape), axes (optional) -> data without those axes (extent 1 with keepdims). ONNX operator specification, version 18
 * to 20. */
#include "ops/reduce.h"

static void gradient(ml_grad *g) {
  if (!g->needs[0] || ml__g_reduce_noop(g)) return;
  ml_value *x = g->in[0], *dy = ml__g_keep(g, g->dout[0]);
  g->din[0] = ml_g2(g, "Mul", ml_g1(g, "Sign", x), dy);
}

ML__DEFINE_REDUCE(reduce_l1, "ReduceL1", ML_RED_L1, ML__MASK_REDUCE, "y = sum |x|", gradient);
