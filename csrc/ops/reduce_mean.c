/* ReduceMean: the mean. Gradient: dy / n, repeated, n = elements of x per element of y.
 * data (any shape), axes (optional) -> data without those axes (extent 1 with keepdims). ONNX operator specification, version 18
 * to 20. */
#include "ops/reduce.h"

static void gradient(ml_grad *g) {
  if (!g->needs[0] || ml__g_reduce_noop(g)) return;
  ml_value *x = g->in[0], *dy = ml__g_keep(g, g->dout[0]);
  ml_value *n = ml_g2(g, "Div", ml_g1(g, "Size", x), ml_g1(g, "Size", g->out[0]));
  dy = ml_g2(g, "Div", dy, ml__g_cast(g, n, g->shape_of(g, x)->dtype));
  g->din[0] = ml__g_expand_like(g, dy, x);
}

ML__DEFINE_REDUCE(reduce_mean, "ReduceMean", ML_RED_MEAN, ML__MASK_REDUCE, "y = sum x / n", gradient);
