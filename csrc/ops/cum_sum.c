/* CumSum: y[i] = x[0] + … + x[i] along an axis (without x[i] when exclusive, from the end when reversed). x (any shape), axis
 * (scalar int32 or int64) -> like x. Gradient: dx = the sums of dy in the other direction. Reference: ONNX CumSum-14. */
#include "ops/cumulate.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__cumulate_run(ctx, false, err); }

static void gradient(ml_grad *g) {
  ml_attr a[] = { ml_attr_of_int("exclusive", ml_attr_int(g->attrs, "exclusive", 0)),
                  ml_attr_of_int("reverse", ml_attr_int(g->attrs, "reverse", 0) == 0) };
  if (g->needs[0]) g->din[0] = ml_gn(g, "CumSum", a, 2, 2, (ml_value *const[]){ g->dout[0], g->in[1] });
}

const ml_op_def ml_op_cum_sum = {
  .name = "CumSum", .domain = "", .since = 14, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = ml__cumulate_attrs,
  .types = { ML__MASK_CUMULATE, ML_BIT(ML_INT32) | ML_BIT(ML_INT64) }, .formula = "y[i] = x[0] + ... + x[i]",
  .infer = ml__cumulate_infer, .run = run, .gradient = gradient,
};
