/* Reductions over axes.
 * Lives here: the one engine behind every Reduce* and Arg* operator, their shape inference and gradient snippets. May include:
 * tensor, kernels, base. Ownership: nothing is kept. An empty set gives the neutral element: sum 0, product 1, max -inf, min +inf
 * (integers: the type's limits), mean NaN. */
#ifndef ML_OPS_REDUCE_H
#define ML_OPS_REDUCE_H
#include "ops/movement.h"

typedef enum ml_reduction {
  ML_RED_SUM,
  ML_RED_MEAN,
  ML_RED_MAX,
  ML_RED_MIN,
  ML_RED_PROD,
  ML_RED_L1,
  ML_RED_L2,
  ML_RED_LOG_SUM,
  ML_RED_LOG_SUM_EXP,
  ML_RED_SUM_SQUARE
} ml_reduction;

/* data, axes (optional int64; none: every axis) -> reduced; attributes keepdims, noop_with_empty_axes */
extern const ml_attr_def ml__reduce_attrs[];
#define ML__MASK_REDUCE (ML_MASK_F | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) | ML_BIT(ML_UINT32) | ML_BIT(ML_UINT64))
ml_status ml__reduce_infer(ml_op_ctx *ctx, ml_error *err);
ml_status ml__reduce_run(ml_op_ctx *ctx, ml_reduction reduction, ml_error *err);
double ml__reduce_flops(const ml_op_ctx *ctx);

/* ArgMax/ArgMin: data -> int64 index along one axis; attributes axis, keepdims, select_last_index */
extern const ml_attr_def ml__arg_attrs[];
ml_status ml__arg_infer(ml_op_ctx *ctx, ml_error *err);
ml_status ml__arg_run(ml_op_ctx *ctx, bool largest, ml_error *err);

/* ---- gradients of Reduce* ---- */
/* true: noop_with_empty_axes makes the operator the identity, and din[0] has been set */
bool ml__g_reduce_noop(ml_grad *g);
/* y, an output or its gradient, with the reduced dimensions back as 1 (rank 0 stays: it broadcasts) */
ml_value *ml__g_keep(ml_grad *g, ml_value *y);
/* node of the same kind over the same axes, with keepdims = 1 */
ml_value *ml__g_reduce(ml_grad *g, const char *op, ml_value *x);

#define ML__DEFINE_REDUCE(stem, title, reduction, mask, text, backward)                               \
  static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__reduce_run(ctx, reduction, err); } \
  const ml_op_def ml_op_##stem = {                                                                    \
    .name = title,                                                                                    \
    .domain = "",                                                                                     \
    .since = 20,                                                                                      \
    .min_in = 1,                                                                                      \
    .max_in = 2,                                                                                      \
    .min_out = 1,                                                                                     \
    .max_out = 1,                                                                                     \
    .attrs = ml__reduce_attrs,                                                                        \
    .types = { mask, ML_BIT(ML_INT64) },                                                              \
    .formula = text,                                                                                  \
    .infer = ml__reduce_infer,                                                                        \
    .run = run,                                                                                       \
    .gradient = backward,                                                                             \
    .flops = ml__reduce_flops,                                                                        \
  }

#endif
