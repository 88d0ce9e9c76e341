/* HannWindow: y[n] = 0.5 - 0.5 cos(2 pi n / N) with N = size (periodic) or size - 1. size (scalar) -> (size).
 * Von Hann; Blackman, Tukey 1958. Reference: ONNX HannWindow-17. */
#include "ops/cosine_window.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) { return ml__cosine_window_run(ctx, 0.5, 0.5, 0, err); }

const ml_op_def ml_op_hann_window = {
  .name = "HannWindow", .domain = "", .since = 17, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .attrs = ml__cosine_window_attrs, .types = { ML_BIT(ML_INT32) | ML_BIT(ML_INT64) },
  .formula = "y = 0.5 - 0.5 cos(2 pi n / N)", .infer = ml__cosine_window_infer, .run = run,
};
