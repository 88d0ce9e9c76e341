/* LpNormalization 22: output = input / norm along one axis, norm = sum |x| (p = 1) or sqrt(sum x^2) (p = 2); 0 where the norm is
 * 0. input (any shape) -> output (same). ONNX operator specification. */
#include <math.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "-1 (default): axis the norm is taken along" },
  { "p", ML_ATTR_INT, false, "2 (default) or 1: order of the norm" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int64_t p = ml_attr_int(ctx->attrs, "p", 2);
  int32_t axis;
  ML_TRY(ml_op_infer_same(ctx, err));
  if (p != 1 && p != 2) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'p' is %lld, expected 1 or 2", (long long)p);
  return ctx->in[0]->rank == ML_UNKNOWN ? ML_OK
                                        : ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), ctx->in[0]->rank, &axis, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const bool squares = ml_attr_int(ctx->attrs, "p", 2) == 2;
  int32_t axis;
  if (x->count == 0) return ML_OK;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
  size_t outer = ml__extent(x->dims, 0, axis), n = (size_t)x->dims[axis], inner = ml__extent(x->dims, axis + 1, x->rank);
  ML_SWITCH_FLOAT(x->dtype, {
    for (size_t o = 0; o < outer; o++)
      for (size_t c = 0; c < inner; c++) {
        const T *from = (const T *)x->data + o * n * inner + c;
        T *to = (T *)ctx->out[0]->data + o * n * inner + c;
        double norm = 0;
        for (size_t i = 0; i < n; i++)
          norm += squares ? (double)from[i * inner] * (double)from[i * inner] : fabs((double)from[i * inner]);
        if (squares) norm = sqrt(norm);
        for (size_t i = 0; i < n; i++) to[i * inner] = norm == 0 ? 0 : (T)((double)from[i * inner] / norm);
      }
  })
  return ML_OK;
}

const ml_op_def ml_op_lp_normalization = {
  .name = "LpNormalization", .domain = "", .since = 22, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .attrs = attrs, .types = { ML_MASK_F }, .formula = "y = x / norm(x, axis)", .infer = infer, .run = run,
};
