/* What CumSum and CumProd share.
 * Lives here: their inputs, attributes and inference. May include: tensor, base. Ownership: nothing is kept. */
#ifndef ML_OPS_CUMULATE_H
#define ML_OPS_CUMULATE_H
#include "ops/elementwise.h"
#include "ops/movement.h"

#define ML__MASK_CUMULATE                                                                                                  \
  (ML_MASK_F | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) | ML_BIT(ML_UINT32) | ML_BIT(ML_UINT64) | ML_BIT(ML_FLOAT16) |           \
   ML_BIT(ML_BFLOAT16))

extern const ml_attr_def ml__cumulate_attrs[]; /* exclusive, reverse */
/* x (any shape), axis (scalar) -> like x */
ml_status ml__cumulate_infer(ml_op_ctx *ctx, ml_error *err);
/* The axis input for a tensor of this rank. */
ml_status ml__cumulate_axis(const ml_view *axis, int32_t rank, int32_t *out, ml_error *err);
ml_status ml__cumulate_run(ml_op_ctx *ctx, bool product, ml_error *err);

#endif
