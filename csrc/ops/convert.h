/* Conversion between any two element types, strings included.
 * Lives here: what Cast and CastLike share. May include: codec (decimal numbers), tensor, base. Text of numbers: shortest that
 * reads back, "NaN", "INF", "-INF"; read case-insensitively, also "+INF" and "Infinity". Strings made here live in the run's
 * scratch memory. */
#ifndef ML_OPS_CONVERT_H
#define ML_OPS_CONVERT_H
#include "ops/op.h"

ml_status ml__cast_check(const ml_op_ctx *ctx, ml_round *round, ml_error *err); /* attribute round_mode */
ml_status ml__cast_run(ml_op_ctx *ctx, ml_error *err); /* input 0 to the dtype of output 0 */

#endif
