/* SplitToSequence 24: the tensor cut along axis into a sequence: pieces of one length (split a scalar; the last may be shorter), of given lengths
 * (split rank 1), or of one element each (no split), where keepdims 0 drops the axis. ONNX operator specification. */
#include <string.h>
#include "ops/sequence.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, false, "axis to cut along, negative from the end; default 0" },
  { "keepdims", ML_ATTR_INT, false, "0: without split, pieces lose the axis; default 1" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml_op_set_type(ctx->out[0], ml_type_of(ML_KIND_SEQUENCE, ml_type_tensor(ctx->in[0]->dtype)));
  return ML_OK;
}

/* Elements begin … begin+length-1 along the axis. */
static ml_status piece(const ml_view *from, int32_t axis, int64_t begin, int64_t length, bool drop, ml_tensor **out, ml_error *err) {
  ml_view view = *from;
  size_t outer = 1, inner = ml_dtype_size(from->dtype);
  for (int32_t d = 0; d < from->rank; d++) if (d != axis) *(d < axis ? &outer : &inner) *= (size_t)from->dims[d];
  view.dims[axis] = length;
  if (drop) {
    memmove(&view.dims[axis], &view.dims[axis + 1], (size_t)(view.rank - axis - 1) * sizeof *view.dims);
    view.rank--;
  }
  ml_tensor *tensor;
  ML_TRY(ml_tensor_new(from->dtype, view.dims, view.rank, &tensor, err));
  size_t bytes = (size_t)length * inner, row = (size_t)from->dims[axis] * inner;
  for (size_t o = 0; o < outer && bytes > 0; o++)
    memcpy((char *)tensor->view.data + o * bytes, (const char *)from->data + o * row + (size_t)begin * inner, bytes);
  if (from->dtype != ML_STRING) {
    *out = tensor;
    return ML_OK;
  }
  ml_status status = ml_tensor_copy_of(&tensor->view, out, err); /* with bytes of its own */
  ml_tensor_release(tensor);
  return status;
}

static ml_status lengths_of(const ml_op_ctx *ctx, int64_t total, int64_t **out, size_t *count, ml_error *err) {
  const ml_view *split = ctx->n_in > 1 ? ctx->in[1] : NULL;
  size_t given = split ? split->count : 0;
  int64_t each = 1;
  bool known, list = split && split->rank == 1;
  size_t n = list ? given : (size_t)total;
  int64_t *lengths = ml_alloc((n + 1) * sizeof *lengths);
  if (!lengths) return ml_fail_memory(err, n * sizeof *lengths, "pieces");
  ml_status status = ML_OK;
  if (list) {
    status = ml_op_ints(split, lengths, n, count, &known, "split", err);
  } else {
    if (split) status = ml_op_ints(split, &each, 1, &given, &known, "split", err);
    if (status == ML_OK && each <= 0) status = ml_fail(err, ML_INVALID_ARGUMENT, "split is %lld", (long long)each);
    *count = 0;
    for (int64_t at = 0; status == ML_OK && at < total; at += each) {
      int64_t length = total - at < each ? total - at : each;
      lengths[(*count)++] = length;
      if (length == total - at) break; /* at += each could overflow */
    }
  }
  int64_t sum = 0;
  for (size_t i = 0; i < *count && status == ML_OK; i++)
    if (lengths[i] < 0 || __builtin_add_overflow(sum, lengths[i], &sum) || sum > total)
      status = ml_fail(err, ML_INVALID_ARGUMENT, "split takes more than the %lld elements of the axis", (long long)total);
  if (status == ML_OK && sum != total) status = ml_fail(err, ML_INVALID_ARGUMENT, "split takes %lld of the %lld elements of the axis", (long long)sum, (long long)total);
  if (status == ML_OK) *out = lengths;
  else ml_free(lengths);
  return status;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *from = ctx->in[0];
  bool drop = ml_attr_int(ctx->attrs, "keepdims", 1) == 0 && !(ctx->n_in > 1 && ctx->in[1]);
  int32_t axis;
  int64_t *lengths = NULL, at = 0;
  size_t count;
  ml_container *made = NULL;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), from->rank, &axis, err));
  ML_TRY(lengths_of(ctx, from->dims[axis], &lengths, &count, err));
  ml_status status = ml_container_new(ctx->out[0]->type, count, &made, err);
  for (size_t i = 0; i < count && status == ML_OK; i++) {
    status = piece(from, axis, at, lengths[i], drop, &made->items[i].tensor, err);
    at += lengths[i];
  }
  ml_free(lengths);
  if (status == ML_OK) return ctx->run->give(ctx->run, ctx->out[0], made, err);
  ml_container_release(made);
  return status;
}

const ml_op_def ml_op_split_to_sequence = {
  .name = "SplitToSequence", .domain = "", .since = 24, .min_in = 1, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ~UINT32_C(0), (UINT32_C(1) << ML_INT32) | (UINT32_C(1) << ML_INT64) }, .formula = "y = x cut along axis", .infer = infer, .run = run,
};
