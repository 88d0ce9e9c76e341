/* Convolution of 8-bit integers.
 * Lives here: the engine under ConvInteger and QLinearConv. May include: ops/conv.h, ops/quantize.h. Ownership: nothing is
 * kept; the workspace is the caller's. */
#ifndef ML_OPS_CONV_INTEGER_H
#define ML_OPS_CONV_INTEGER_H
#include "ops/conv.h"
#include "ops/quantize.h"

typedef struct ml__conv_i8 {
  const ml_view *x, *w, *x_zero, *w_zero; /* zero points may be NULL; w_zero: one value, or one per filter */
  ml__window window;
  size_t images, groups, channels, filters; /* channels and filters of one group */
  size_t taps, inputs, outputs;             /* of the kernel, positions of x and of y */
} ml__conv_i8;

/* Output shape of dtype into y. */
ml_status ml__conv_i8_infer(const ml_op_ctx *ctx, const ml_view *x, const ml_view *w, ml_dtype dtype, ml_view *y, ml_error *err);
ml_status ml__conv_i8_init(ml__conv_i8 *c, const ml_op_ctx *ctx, const ml_view *x, const ml_view *w, const ml_view *x_zero,
                           const ml_view *w_zero, ml_error *err);
ml_status ml__conv_i8_workspace(const ml__conv_i8 *c, size_t *bytes, ml_error *err);
/* Calls store for parts of the result: `n` consecutive positions, from `position` on, of `filters` filters from `filter` (of
 * all groups) on; sums[f * ld + i] belongs to filter f, position i. */
typedef void ml__conv_i8_store(void *context, size_t image, size_t filter, size_t filters, size_t position, size_t n,
                               const int32_t *sums, size_t ld);
void ml__conv_i8_run(const ml__conv_i8 *c, ml__conv_i8_store *store, void *context, void *workspace);

#endif
