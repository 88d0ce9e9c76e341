/* Groups of inputs and outputs of the optimisers of ai.onnx.preview.training (ops/training_step.h). */
#include "ops/training_step.h"
#include "ops/elementwise.h"

static ml_status check_scalar(const ml_view *view, const char *what, ml_error *err) {
  if (ml_view_known(view) && view->count != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s has %zu elements, expected 1", what, view->count);
  return ML_OK;
}

ml_status ml__step_infer(ml_op_ctx *ctx, int32_t in_groups, int32_t out_groups, ml_error *err) {
  static const char *const kinds[] = { "tensor", "gradient", "accumulated tensor", "second accumulated tensor" };
  const int32_t n = (ctx->n_in - 2) / in_groups;
  ML_TRY(ml__op_check_present(ctx, ctx->n_in, err));
  ML_TRY(ml__op_check_types(ctx, err));
  if (n < 1 || n * in_groups != ctx->n_in - 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%d inputs behind R and T, expected a multiple of %d", (int)ctx->n_in - 2,
                   (int)in_groups);
  if (ctx->n_out > n * out_groups)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%d outputs, expected %d", (int)ctx->n_out, (int)(n * out_groups));
  ML_TRY(check_scalar(ctx->in[0], "the learning rate R", err));
  ML_TRY(check_scalar(ctx->in[1], "the update count T", err));
  for (int32_t i = 0; i < n; i++) {
    const ml_view *x = ctx->in[2 + i];
    for (int32_t k = 1; k < in_groups; k++) {
      const ml_view *with = ctx->in[2 + k * n + i];
      char text[2][96];
      if (with->dtype != x->dtype)
        return ml_fail(err, ML_INVALID_ARGUMENT, "tensor %d is %s, its %s is %s", (int)i, ml_dtype_name(x->dtype), kinds[k],
                       ml_dtype_name(with->dtype));
      if (ml_view_known(x) && ml_view_known(with) && !ml_shape_equal(x->dims, x->rank, with->dims, with->rank))
        return ml_fail(err, ML_INVALID_ARGUMENT, "tensor %d has shape %s, its %s has shape %s", (int)i,
                       ml_shape_format(x->dims, x->rank, text[0], sizeof text[0]), kinds[k],
                       ml_shape_format(with->dims, with->rank, text[1], sizeof text[1]));
    }
    for (int32_t k = 0; k < out_groups; k++)
      if (ml__out(ctx, k * n + i) != NULL) ml_op_like(ctx->out[k * n + i], x);
  }
  return ML_OK;
}

ml__step ml__step_init(const ml_op_ctx *ctx) {
  return (ml__step){ .rate = ml_element_get(ctx->in[0]->data, ctx->in[0]->dtype, 0), .count = *(const int64_t *)ctx->in[1]->data };
}

void ml__step_run(ml_op_ctx *ctx, const ml__step *step, int32_t in_groups, int32_t out_groups, ml__step_of *of) {
  const int32_t n = (ctx->n_in - 2) / in_groups;
  for (int32_t i = 0; i < n; i++) {
    for (size_t at = 0; at < ctx->in[2 + i]->count; at++) {
      double in[ML__STEP_GROUPS], out[ML__STEP_GROUPS];
      for (int32_t k = 0; k < in_groups; k++) {
        const ml_view *x = ctx->in[2 + k * n + i];
        in[k] = ml_element_get(x->data, x->dtype, at);
      }
      of(step, in, out);
      for (int32_t k = 0; k < out_groups; k++) {
        const ml_view *y = ml__out(ctx, k * n + i);
        if (y != NULL) ml_element_set(y->data, y->dtype, at, out[k]);
      }
    }
  }
}
