/* Hardmax 13: output = 1 at the first largest element along an axis, 0 elsewhere. input (any shape) -> output (same).
 * ONNX operator specification. */
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "-1 (default)" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  int32_t axis;
  ML_TRY(ml_op_infer_same(ctx, err));
  return ctx->in[0]->rank == ML_UNKNOWN ? ML_OK
                                        : ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), ctx->in[0]->rank, &axis, err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  int32_t axis;
  if (x->count == 0) return ML_OK;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", -1), x->rank, &axis, err));
  size_t outer = ml__extent(x->dims, 0, axis), n = (size_t)x->dims[axis], inner = ml__extent(x->dims, axis + 1, x->rank);
  ML_SWITCH_FLOAT(x->dtype, {
    for (size_t o = 0; o < outer; o++)
      for (size_t c = 0; c < inner; c++) {
        const T *from = (const T *)x->data + o * n * inner + c;
        T *to = (T *)ctx->out[0]->data + o * n * inner + c;
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
          if (from[i * inner] > from[best * inner] ||
              (from[i * inner] != from[i * inner] && from[best * inner] == from[best * inner]))
            best = i;
        for (size_t i = 0; i < n; i++) to[i * inner] = i == best ? 1 : 0;
      }
  })
  return ML_OK;
}

const ml_op_def ml_op_hardmax = {
  .name = "Hardmax", .domain = "", .since = 13, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_INPLACE,
  .attrs = attrs, .types = { ML_MASK_F }, .formula = "y = 1 at the first max along axis, else 0", .infer = infer, .run = run,
};
