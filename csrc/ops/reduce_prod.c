/* ReduceProd: the product. Gradient: the product of the other elements, times dy.
 * data (any shape), axes (optional) -> data without those axes (extent 1 with keepdims). ONNX operator specification, version 18
 * to 20. */
#include "ops/reduce.h"

static void gradient(ml_grad *g) {
  if (!g->needs[0] || ml__g_reduce_noop(g)) return;
  ml_value *x = g->in[0], *dy = ml__g_keep(g, g->dout[0]);
  /* p: product of the elements that are not 0; a single 0 gets p, the others of its group nothing; two zeros leave nothing for
   * anybody */
  ml_value *zero = g->constant(g, 0, x), *one = g->constant(g, 1, x), *is_zero = ml_g2(g, "Equal", x, zero);
  ml_value *rest = ml_g3(g, "Where", is_zero, one, x), *p = ml__g_reduce(g, "ReduceProd", rest);
  ml_value *zeros = ml__g_reduce(g, "ReduceSum", ml__g_cast(g, is_zero, g->shape_of(g, x)->dtype));
  ml_value *of_zero = ml_g3(g, "Where", ml_g2(g, "Equal", zeros, one), p, zero);
  ml_value *of_other = ml_g3(g, "Where", ml_g2(g, "Equal", zeros, zero), ml_g2(g, "Div", p, rest), zero);
  g->din[0] = ml_g2(g, "Mul", ml_g3(g, "Where", is_zero, of_zero, of_other), dy);
}

ML__DEFINE_REDUCE(reduce_prod, "ReduceProd", ML_RED_PROD, ML__MASK_REDUCE, "y = product x", gradient);
