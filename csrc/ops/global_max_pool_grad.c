/* mlserve.GlobalMaxPoolGrad: dX = zeros with dY where the channel's first largest X lies (NaN is the largest).
 * dY (N,C,1…), X (N,C,D1…) -> dX (shape of X). */
#include <string.h>
#include "ops/pool.h"

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *dy = ctx->in[0], *x = ctx->in[1];
  if (x->count == 0) return ML_OK;
  if (dy->count == 0 || x->rank < 2 || dy->count != ml__extent(x->dims, 0, 2))
    return ml_fail(err, ML_INVALID_ARGUMENT, "dY has %zu elements, expected one per image and channel", dy->count);
  size_t n = x->count / dy->count;
  memset(ctx->out[0]->data, 0, x->count * ml_dtype_size(x->dtype));
  ML_SWITCH_FLOAT(x->dtype, {
    const T *v = x->data;
    T *to = ctx->out[0]->data;
    for (size_t c = 0; c < dy->count; c++, v += n, to += n) {
      size_t at = 0;
      for (size_t i = 1; i < n; i++)
        if (v[i] > v[at] || (v[i] != v[i] && v[at] == v[at])) at = i;
      to[at] = ((const T *)dy->data)[c];
    }
  })
  return ML_OK;
}

const ml_op_def ml_op_global_max_pool_grad = {
  .name = "GlobalMaxPoolGrad", .domain = "mlserve", .since = 1, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_TRAINING, .types = { ML_MASK_F }, .formula = "dX = dY where Y came from", .infer = ml__pool_grad_infer,
  .run = run,
};
