/* Trilu: the upper (or lower) triangle of every matrix of the last two dimensions, zero elsewhere. Diagonal k, a scalar input
 * (0 by default), is the lowest that upper keeps and the highest that lower keeps. y has the shape of x. Gradient: the same
 * triangle of dy. Reference: ONNX Trilu-14. */
#include "ops/elementwise.h"
#include "ops/movement.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "upper", ML_ATTR_INT, false, "1 (default): keep the upper triangle; 0: the lower" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_same(ctx, err));
  if (ctx->in[0]->rank != ML_UNKNOWN && ctx->in[0]->rank < 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "input has rank %d, expected 2 or more", (int)ctx->in[0]->rank);
  return ml__op_check_scalar(ml__in(ctx, 1), "k", err);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  const bool upper = ml_attr_int(ctx->attrs, "upper", 1) != 0;
  int64_t k = 0;
  size_t given;
  bool known;
  ML_TRY(ml__ints(ml__in(ctx, 1), &k, 1, &given, &known, "k", err));
  ML_TRY(ml__run_copy(ctx, err));
  if (y->count == 0) return ML_OK;
  const int64_t rows = x->dims[x->rank - 2], cols = x->dims[x->rank - 1];
  const size_t size = ml_dtype_size(x->dtype), matrices = y->count / ((size_t)rows * (size_t)cols);
  if (k < -rows) k = -rows; /* beyond these nothing changes any more */
  if (k > cols) k = cols;
  for (size_t m = 0; m < matrices; m++)
    for (int64_t r = 0; r < rows; r++) {
      /* columns before `split` are below the diagonal */
      int64_t split = r + k + (upper ? 0 : 1);
      split = split < 0 ? 0 : split > cols ? cols : split;
      char *row = (char *)y->data + (m * (size_t)rows + (size_t)r) * (size_t)cols * size;
      if (upper) memset(row, 0, (size_t)split * size);
      else memset(row + (size_t)split * size, 0, (size_t)(cols - split) * size);
    }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr upper = ml_attr_of_int("upper", ml_attr_int(g->attrs, "upper", 1));
  ml_value *in[2] = { g->dout[0], g->n_in > 1 ? g->in[1] : NULL };
  if (g->needs[0]) g->din[0] = ml_gn(g, "Trilu", &upper, 1, in[1] != NULL ? 2 : 1, in);
}

const ml_op_def ml_op_trilu = {
  .name = "Trilu", .domain = "", .since = 14, .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1, .flags = ML_OP_INPLACE,
  .attrs = attrs, .types = { ML_MASK_ANY & ~ML_BIT(ML_STRING), ML_BIT(ML_INT64) }, .formula = "y = triangle of x", .infer = infer,
  .run = run, .gradient = gradient,
};
