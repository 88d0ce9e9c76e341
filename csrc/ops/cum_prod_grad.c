/* mlserve.CumProdGrad: x, axis, dy -> dx of CumProd, without divisions, so that zeros in x do no harm.
 * With P_i = x_0 … x_(i-1):  dx_i = P_i S_i, where S_i = sum over j >= i of dy_j x_(i+1) … x_j = dy_i + x_(i+1) S_(i+1);
 * exclusive: S_i = dy_(i+1) + x_(i+1) S_(i+1), S of the last element 0. Two passes: S from the end, then P from the start. */
#include "ops/cumulate.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__cumulate_infer(ctx, err));
  if (ctx->in[2]->dtype != ctx->in[0]->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dy is %s, x is %s", ml_dtype_name(ctx->in[2]->dtype),
                   ml_dtype_name(ctx->in[0]->dtype));
  return ML_OK;
}

#define RUN(T)                                                                             \
  for (size_t o = 0; o < outer * inner; o++) {                                             \
    const size_t base = o / inner * length * inner + o % inner;                            \
    const T *xs = (const T *)x->data + base, *ds = (const T *)dy->data + base;             \
    T *gs = (T *)dx->data + base, s = 0, p = 1;                                            \
    for (size_t k = length; k-- > 0;) {                                                    \
      const size_t i = (reverse ? length - 1 - k : k) * inner, next = reverse ? i - inner : i + inner; \
      if (k + 1 < length) s = (exclusive ? ds[next] : ds[i]) + xs[next] * s;               \
      else s = exclusive ? 0 : ds[i];                                                      \
      gs[i] = s;                                                                           \
    }                                                                                      \
    for (size_t k = 0; k < length; k++) {                                                  \
      const size_t i = (reverse ? length - 1 - k : k) * inner;                             \
      gs[i] *= p;                                                                          \
      p *= xs[i];                                                                          \
    }                                                                                      \
  }

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *dy = ctx->in[2], *dx = ctx->out[0];
  int32_t axis = 0;
  ML_TRY(ml__cumulate_axis(ctx->in[1], x->rank, &axis, err));
  if (dy->count != x->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "dy has %zu elements, expected %zu", dy->count, x->count);
  if (dx->count == 0) return ML_OK;
  const bool exclusive = ml_attr_int(ctx->attrs, "exclusive", 0) != 0, reverse = ml_attr_int(ctx->attrs, "reverse", 0) != 0;
  const size_t outer = ml__extent(x->dims, 0, axis), length = (size_t)x->dims[axis],
               inner = ml__extent(x->dims, axis + 1, x->rank);
  ML_SWITCH_FLOAT(x->dtype, RUN(T))
  return ML_OK;
}

const ml_op_def ml_op_cum_prod_grad = {
  .name = "CumProdGrad", .domain = "mlserve", .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .attrs = ml__cumulate_attrs, .types = { ML_MASK_F, ML_BIT(ML_INT32) | ML_BIT(ML_INT64), ML_MASK_F },
  .formula = "dx of CumProd", .infer = infer, .run = run,
};
