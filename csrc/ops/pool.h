/* What the pools share.
 * Lives here: attributes, shape inference, the window and a parallel loop over the (image, channel) planes. May include:
 * ops/window.h, tensor, base. Ownership: nothing is kept. */
#ifndef ML_OPS_POOL_H
#define ML_OPS_POOL_H
#include "ops/window.h"

/* X (N,C,D1…) -> Y (N,C,O1…) with the attributes kernel_shape, auto_pad, pads, strides, dilations, ceil_mode. */
ml_status ml__pool_window(const ml_attrs *attrs, const ml_view *x, ml__window *w, ml_error *err);
ml_status ml__pool_infer(ml_op_ctx *ctx, ml_error *err);
/* of the gradients: dY, X -> dX; all extents known */
ml_status ml__pool_grad_infer(ml_op_ctx *ctx, ml_error *err);
ml_status ml__pool_grad_window(const ml_op_ctx *ctx, ml__window *w, ml_error *err);
double ml__pool_flops(const ml_op_ctx *ctx);

/* One plane after the other, several at a time on threads. */
typedef struct ml__planes {
  const ml_op_ctx *ctx;
  ml__window w;
  size_t in, out; /* elements of a plane on the window's input and output side */
  void (*plane)(const struct ml__planes *p, size_t index);
  size_t count, chunks; /* filled by ml__planes_run */
} ml__planes;
/* After p->w has been filled: count planes of `flops` operations each. */
void ml__planes_run(ml__planes *p, size_t count, double flops);

#define ML__POOL_ATTRS                                                                                                           \
  { "auto_pad", ML_ATTR_STRING, false, "NOTSET (default: pads), SAME_UPPER, SAME_LOWER or VALID" },                              \
      { "ceil_mode", ML_ATTR_INT, false, "0 (default); 1: the last window may end beyond the padding" },                         \
      { "dilations", ML_ATTR_INTS, false, "1 (default): distance of taps, per spatial dimension" },                              \
      { "kernel_shape", ML_ATTR_INTS, true, "size of the window, per spatial dimension" },                                       \
      { "pads", ML_ATTR_INTS, false, "0 (default): all beginnings, then all ends" },                                             \
      { "strides", ML_ATTR_INTS, false, "1 (default), per spatial dimension" }

#endif
