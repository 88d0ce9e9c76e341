/* MelWeightMatrix: the weights (dft_length / 2 + 1, num_mel_bins) that turn a spectrum into mel bands: triangles that are
 * evenly spaced on the scale mel(f) = 2595 log10(1 + f / 700) between two frequencies, with corners at whole bins. Scalars
 * num_mel_bins, dft_length, sample_rate, lower_edge_hertz, upper_edge_hertz. Reference: ONNX MelWeightMatrix-17. */
#include "ops/cosine_window.h"
#include <math.h>
#include <string.h>

static const ml_attr_def attrs[] = {
  { "output_datatype", ML_ATTR_INT, false, "float32 by default" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t bands, length, rate, dims[2];
  ml_dtype dtype;
  ML_TRY(ml__output_datatype(ctx, &dtype, err));
  ML_TRY(ml__scalar_int(ctx->in[0], 0, "num_mel_bins", &bands, err));
  ML_TRY(ml__scalar_int(ctx->in[1], 0, "dft_length", &length, err));
  ML_TRY(ml__scalar_int(ctx->in[2], 1, "sample_rate", &rate, err));
  for (int32_t i = 3; i < 5; i++) {
    ML_TRY(ml__op_check_scalar(ctx->in[i], i == 3 ? "lower_edge_hertz" : "upper_edge_hertz", err));
    if (ctx->in[i]->dtype != ML_DTYPE_NONE && !ml_dtype_is_float(ctx->in[i]->dtype))
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has dtype %s, expected a float", (int)i,
                     ml_dtype_name(ctx->in[i]->dtype));
  }
  dims[0] = length == ML_UNKNOWN ? ML_UNKNOWN : length / 2 + 1;
  dims[1] = bands;
  ml_op_set(ctx->out[0], dtype, dims, 2);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *y = ctx->out[0];
  int64_t bands, length, rate;
  ML_TRY(ml__scalar_int(ctx->in[0], 0, "num_mel_bins", &bands, err));
  ML_TRY(ml__scalar_int(ctx->in[1], 0, "dft_length", &length, err));
  ML_TRY(ml__scalar_int(ctx->in[2], 1, "sample_rate", &rate, err));
  const double low = 2595 * log10(1 + ml_element_get(ctx->in[3]->data, ctx->in[3]->dtype, 0) / 700),
               high = 2595 * log10(1 + ml_element_get(ctx->in[4]->data, ctx->in[4]->dtype, 0) / 700),
               step = (high - low) / ((double)bands + 2);
  if (y->count == 0) return ML_OK;
  memset(y->data, 0, y->count * ml_dtype_size(y->dtype));
  for (int64_t b = 0; b < bands; b++) {
    int64_t corner[3];
    for (int64_t k = 0; k < 3; k++) {
      const double hertz = 700 * (pow(10, ((double)(b + k) * step + low) / 2595) - 1),
                   bin = floor(((double)length + 1) * hertz / (double)rate);
      if (!(bin >= 0 && bin < (double)y->dims[0] + (k == 2)))
        return ml_fail(err, ML_OUT_OF_RANGE, "band %lld reaches bin %g of %lld", (long long)b, bin, (long long)y->dims[0]);
      corner[k] = (int64_t)bin;
    }
    const int64_t rise = corner[1] - corner[0], fall = corner[2] - corner[1];
    if (rise == 0) ml_element_set(y->data, y->dtype, (size_t)(corner[1] * bands + b), 1);
    for (int64_t j = corner[0]; rise > 0 && j <= corner[1]; j++)
      ml_element_set(y->data, y->dtype, (size_t)(j * bands + b), (double)(j - corner[0]) / (double)rise);
    for (int64_t j = corner[1]; j < corner[2]; j++)
      ml_element_set(y->data, y->dtype, (size_t)(j * bands + b), (double)(corner[2] - j) / (double)fall);
  }
  return ML_OK;
}

const ml_op_def ml_op_mel_weight_matrix = {
  .name = "MelWeightMatrix", .domain = "", .since = 17, .min_in = 5, .max_in = 5, .min_out = 1, .max_out = 1, .attrs = attrs,
  .formula = "y = triangles even on the mel scale", .infer = infer, .run = run,
};
