/* Windows that are sums of cosines: Hann, Hamming, Blackman.
 * Lives here: their attributes, inference and run. May include: tensor, base. Ownership: nothing is kept. */
#ifndef ML_OPS_COSINE_WINDOW_H
#define ML_OPS_COSINE_WINDOW_H
#include "ops/elementwise.h"
#include "ops/movement.h"

/* A numeric type given by attribute `name`; float32 by default. */
ml_status ml__output_datatype(const ml_op_ctx *ctx, ml_dtype *out, ml_error *err);
/* The value of a scalar integer input, not below `least`; ML_UNKNOWN while it is not known. */
ml_status ml__scalar_int(const ml_view *view, int64_t least, const char *what, int64_t *out, ml_error *err);

extern const ml_attr_def ml__cosine_window_attrs[]; /* output_datatype, periodic */
ml_status ml__cosine_window_infer(ml_op_ctx *ctx, ml_error *err);
/* y[n] = a - b cos(2 pi n / N) + c cos(4 pi n / N) */
ml_status ml__cosine_window_run(ml_op_ctx *ctx, double a, double b, double c, ml_error *err);

#endif
