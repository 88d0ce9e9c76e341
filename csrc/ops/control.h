/* Shared by If, Loop, Scan and SequenceMap.
 * Lives here: values kept between runs of a subgraph, and outputs stacked from them. May include: ops.
 * Ownership: a kept value owns one reference, dropped by ml__keep_free; a stack owns its bytes. */
#ifndef ML_OPS_CONTROL_H
#define ML_OPS_CONTROL_H
#include "ops/op.h"

/* Keeps a copy of `from` in *slot, in the memory that is there when it fits. */
ml_status ml__keep(ml_item *slot, const ml_view *from, ml_error *err);
void ml__keep_free(ml_item *slots, size_t count); /* and the array; NULL allowed */

/* Equal shapes, one behind the other. */
typedef struct ml__stack {
  unsigned char *bytes;
  size_t size, capacity;
  int64_t count;
  ml_view element; /* dtype and shape of the first; rank ML_UNKNOWN before */
} ml__stack;
ml_status ml__stack_push(ml_op_ctx *ctx, ml__stack *stack, const ml_view *value, ml_error *err);
/* Writes the stack with its elements along a new axis, the last one first when reversed. An empty stack has the element shape `declared`. */
ml_status ml__stack_finish(ml_op_ctx *ctx, ml__stack *stack, ml_view *out, int64_t axis, bool reversed, const ml_view *declared, ml_error *err);

/* Infer of an output that stacks values like `element` along a new axis. */
void ml__stacked(ml_view *out, const ml_view *element, int64_t axis, int64_t count);
/* The view of a constant or known scalar; false: not known. */
bool ml__known_bool(const ml_view *view, bool *value);

#endif
