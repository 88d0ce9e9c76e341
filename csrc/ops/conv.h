/* The engine under Conv, ConvTranspose, their gradients and Col2Im.
 * Lives here: a convolution's geometry and its three products. May include: ops/window.h, kernels, base. Ownership: nothing is
 * kept; the workspace is the caller's.
 *
 * With cols the (C/G * P, O) matrix whose column o holds the inputs that output position o sees (P = taps of the kernel), one
 * image and one group of a convolution is y (M/G, O) = W (M/G, C/G * P) cols. So
 *   forward:      y  = W cols(x)          (im2col, then a matrix product)
 *   back to data: dx = cols^-1 (W' dy)    (a matrix product, then col2im: every column added where it came from)
 *   to weights:   dW = sum over images dy cols(x)'.
 * cols is never whole: blocks of columns and of channels that fit into the second-level cache are made and used at once. A kernel
 * of one tap needs no cols; one channel per group (depthwise) is a direct loop. Chellapilla et al. 2006,
 * "High performance convolutional neural networks for document processing". */
#ifndef ML_OPS_CONV_H
#define ML_OPS_CONV_H
#include "kernels/kernels.h"
#include "ops/window.h"

typedef struct ml__conv {
  ml__window w;
  size_t N, G;    /* images, groups */
  size_t C, M;    /* channels of x and of y in one group */
  size_t P, I, O; /* taps; positions of x and of y */
} ml__conv;

typedef enum ml__conv_kind { ML__CONV_FORWARD, ML__CONV_DATA, ML__CONV_WEIGHTS } ml__conv_kind;

/* From a window whose extents are known; channels are those of all groups. */
void ml__conv_set(ml__conv *c, const ml__window *w, int64_t images, int64_t groups, int64_t channels_x, int64_t channels_y);
ml_status ml__conv_workspace(const ml__conv *c, ml__conv_kind kind, ml_dtype dtype, size_t *bytes, ml_error *err);
/* bias: one value per channel of the result, or NULL. dtype float32 or float64 for everything. */
void ml__conv_forward(const ml__conv *c, const ml_kernels *kernels, ml_dtype dtype, const void *x, const void *weights,
                      const void *bias, void *y, void *workspace);
void ml__conv_data(const ml__conv *c, const ml_kernels *kernels, ml_dtype dtype, const void *dy, const void *weights,
                   const void *bias, void *dx, void *workspace);
void ml__conv_weights(const ml__conv *c, const ml_kernels *kernels, ml_dtype dtype, const void *dy, const void *x, void *dw,
                      void *workspace);
/* x (C, I) += the columns cols (C * P, O) where they came from. */
void ml__conv_scatter(const ml__conv *c, ml_dtype dtype, const void *cols, void *x);

/* Group count of a node and whether channels fit: x (N, C, …), weights (M, C/G, …) or, transposed, (C, M/G, …). */
ml_status ml__conv_groups(const ml_attrs *attrs, const ml_view *x, const ml_view *weights, bool transposed, int64_t *groups,
                          ml_error *err);
/* The bias, when given, has one value for each of `channels` (may be unknown) and the dtype of x. */
ml_status ml__conv_check_bias(const ml_view *bias, const ml_view *x, int64_t channels, ml_error *err);
/* Window, geometry and output shape of a ConvTranspose (auto_pad, output_shape, output_padding): as a convolution from y to x, so
 * w.in is the size of Y and w.out that of X. */
ml_status ml__conv_transpose_window(const ml_attrs *attrs, const ml_view *x, const ml_view *weights, ml__window *w,
                                    ml_error *err);
/* The whole gradient of a convolution: dX and dW by one node of `op`, dB by summing dY over everything but dimension 1. */
void ml__conv_gradient(ml_grad *g, const char *op);
extern const ml_attr_def ml__conv_attrs[], ml__conv_transpose_attrs[];

#endif
