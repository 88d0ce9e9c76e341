/* Reshape 21: the same elements in another shape.
 * data (any shape), shape (r) int64 -> (shape). In `shape`, -1 (once) is what makes the counts agree; 0 copies the input's
 * dimension at that place, or is a literal 0 with allowzero=1. ONNX operator specification. */
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "allowzero", ML_ATTR_INT, false, "0 (default): a 0 in shape copies the input's dimension; 1: it means 0" },
  { 0 },
};

/* Fills dims from the requested shape; the element counts are compared as far as dimensions are known. */
static ml_status resolve(const ml_view *x, int64_t *dims, int32_t rank, bool allow_zero, ml_error *err) {
  bool copied[ML_MAX_RANK] = { false };
  int32_t hole = -1;
  bool zero = false;
  for (int32_t i = 0; i < rank; i++) {
    if (dims[i] < -1)
      return ml_fail(err, ML_INVALID_ARGUMENT, "shape: element %d is %lld, expected -1 or more", (int)i, (long long)dims[i]);
    if (dims[i] == -1) {
      if (hole >= 0)
        return ml_fail(err, ML_INVALID_ARGUMENT, "shape: elements %d and %d are both -1, one at most can be inferred", (int)hole,
                       (int)i);
      hole = i;
    } else if (dims[i] == 0 && allow_zero) {
      zero = true;
    } else if (dims[i] == 0) {
      if (x->rank != ML_UNKNOWN && i >= x->rank)
        return ml_fail(err, ML_INVALID_ARGUMENT, "shape: element %d is 0 (copy) but the input's rank is %d", (int)i,
                       (int)x->rank);
      dims[i] = x->rank == ML_UNKNOWN ? ML_UNKNOWN : x->dims[i];
      copied[i] = true;
    }
  }
  if (zero && hole >= 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "shape: 0 and -1 together with allowzero=1 leave the shape open");
  if (x->rank == ML_UNKNOWN) return ML_OK;
  /* copied dimensions are on both sides and cancel out */
  size_t want = 1, have = 1;
  for (int32_t i = 0; i < rank; i++)
    if (!copied[i] && i != hole && !ml_mul_size(want, (size_t)dims[i], &want))
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "shape: overflow at element %d (%lld)", (int)i, (long long)dims[i]);
  for (int32_t i = 0; i < x->rank; i++) {
    if (i < rank && copied[i]) continue;
    if (x->dims[i] < 0) return ML_OK; /* the batch, say: run() compares the counts */
    if (!ml_mul_size(have, (size_t)x->dims[i], &have))
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "input shape overflows at dimension %d", (int)i);
  }
  char text[160];
  ml_shape_format(x->dims, x->rank, text, sizeof text);
  if (hole >= 0) {
    if (want == 0 || have % want)
      return ml_fail(err, ML_INVALID_ARGUMENT, "shape: cannot infer element %d: %zu elements of input %s do not divide by %zu",
                     (int)hole, have, text, want);
    dims[hole] = (int64_t)(have / want);
  } else if (want != have) {
    bool empty = false; /* a copied zero makes both sides empty whatever the rest */
    for (int32_t i = 0; i < rank; i++) empty = empty || (copied[i] && dims[i] == 0);
    if (!empty) return ml_fail(err, ML_INVALID_ARGUMENT, "shape: %zu elements asked for, input %s has %zu", want, text, have);
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  int64_t dims[ML_MAX_RANK];
  size_t rank;
  bool known;
  if (ctx->in[1]->rank == 1 && ctx->in[1]->dims[0] > ML_MAX_RANK)
    return ml_fail(err, ML_INVALID_ARGUMENT, "shape: rank %lld is above %d", (long long)ctx->in[1]->dims[0], ML_MAX_RANK);
  ML_TRY(ml__ints(ctx->in[1], dims, ML_MAX_RANK, &rank, &known, "shape", err));
  if (!known) {
    ml__infer_unknown(ctx, x->dtype, ctx->in[1]);
    return ML_OK;
  }
  ML_TRY(resolve(x, dims, (int32_t)rank, ml_attr_int(ctx->attrs, "allowzero", 0) != 0, err));
  ml_op_set(ctx->out[0], x->dtype, dims, (int32_t)rank);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml__g_reshape_like(g, g->dout[0], g->in[0]);
}

const ml_op_def ml_op_reshape = {
  .name = "Reshape", .domain = "", .since = 25, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .flags = ML_OP_VIEW,
  .attrs = attrs, .types = { ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y = x in the shape of the second input", .infer = infer,
  .run = ml__run_copy, .gradient = gradient,
};
