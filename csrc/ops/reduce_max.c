/* ReduceMax: the largest element; a NaN wins. Gradient: dy, shared equally by the elements that reach the maximum.
 * data (any shape), axes (optional) -> data without those axes (extent 1 with keepdims). ONNX operator specification, version 18
 * to 20. */
#include "ops/reduce.h"

static void gradient(ml_grad *g) {
  if (!g->needs[0] || ml__g_reduce_noop(g)) return;
  ml_value *x = g->in[0], *dy = ml__g_keep(g, g->dout[0]);
  ml_value *y = ml__g_keep(g, g->out[0]);
  ml_value *hit = ml__g_cast(g, ml_g2(g, "Equal", x, y), g->shape_of(g, x)->dtype);
  g->din[0] = ml_g2(g, "Mul", hit, ml_g2(g, "Div", dy, ml__g_reduce(g, "ReduceSum", hit)));
}

ML__DEFINE_REDUCE(reduce_max, "ReduceMax", ML_RED_MAX, ML__MASK_REDUCE | ML_BIT(ML_INT8) | ML_BIT(ML_UINT8) | ML_BIT(ML_BOOL),
                  "y = max x", gradient);
