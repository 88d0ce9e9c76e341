/* Shared by the sequence and optional operators.
 * Lives here: reading sequences and making them. May include: ops. */
#ifndef ML_OPS_SEQUENCE_H
#define ML_OPS_SEQUENCE_H
#include "ops/op.h"

/* The input must be a container of this kind; its inner type into *inner. */
ml_status ml__expect_kind(const ml_op_ctx *ctx, int32_t input, ml_kind kind, uint32_t *inner, ml_error *err);
/* The integer scalar (int32, int64) at input, which may be left out: fallback. */
ml_status ml__position(const ml_op_ctx *ctx, int32_t input, int64_t fallback, int64_t *out, ml_error *err);
/* Position `at`, negative from the end, in [0, count); `extra` 1: count is allowed too. Names position and count. */
ml_status ml__in_sequence(int64_t at, size_t count, int extra, size_t *out, ml_error *err);
/* A new sequence: items of `from` (NULL: none) without `without` (count: all) and with `insert` before position `at` (NULL: none). */
ml_status ml__edit_sequence(ml_op_ctx *ctx, const ml_container *from, size_t without, const ml_view *insert, size_t at, ml_error *err);
/* Gives the value of an item to an output. */
ml_status ml__pass_item(ml_op_ctx *ctx, ml_view *out, ml_item *item, ml_error *err);

#endif
