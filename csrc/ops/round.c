/* Round: y = the nearest integer, halves to the even one (IEEE 754 roundTiesToEven); y has the shape of x.
 * No gradient (zero almost everywhere). Reference: ONNX Round-11. */
#include "ops/elementwise.h"

ML_UNARY_FLOAT(rint(x), 0, 0)

const ml_op_def ml_op_round = {
  .name = "Round", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F },
  .formula = "y = round half to even(x)",
  .infer = ml_op_infer_same,
  .run = run,
};
