/* ConcatFromSequence 11: the tensors of a sequence side by side along axis; with new_axis 1, stacked along a new one. ONNX operator specification. */
#include <string.h>
#include "ops/sequence.h"

static const ml_attr_def attrs[] = {
  { "axis", ML_ATTR_INT, true, "axis to join along, negative from the end" },
  { "new_axis", ML_ATTR_INT, false, "1: axis is a new one; default 0" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  uint32_t inner;
  ML_TRY(ml__expect_kind(ctx, 0, ML_KIND_SEQUENCE, &inner, err));
  if (ml_type_kind(inner) != ML_KIND_TENSOR) return ml_fail(err, ML_INVALID_ARGUMENT, "the elements are no tensors");
  ml_op_set_type(ctx->out[0], inner);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_container *from = ml_view_container(ctx->in[0]);
  bool stacked = ml_attr_int(ctx->attrs, "new_axis", 0) != 0;
  if (from->count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "the sequence is empty");
  const ml_view *first = &from->items[0].tensor->view;
  int64_t dims[ML_MAX_RANK];
  int32_t rank = first->rank + stacked, axis;
  if (rank > ML_MAX_RANK) return ml_fail(err, ML_INVALID_ARGUMENT, "rank over %d", ML_MAX_RANK);
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), rank, &axis, err));
  for (int32_t d = 0; d < rank; d++) dims[d] = stacked ? (d < axis ? first->dims[d] : d == axis ? 0 : first->dims[d - 1]) : d == axis ? 0 : first->dims[d];
  for (size_t i = 0; i < from->count; i++) {
    const ml_view *view = &from->items[i].tensor->view;
    bool fits = view->rank == first->rank && view->dtype == first->dtype;
    for (int32_t d = 0; d < view->rank && fits; d++) fits = (!stacked && d == axis) || view->dims[d] == first->dims[d];
    char a[128], b[128];
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "element %zu has shape %s, element 0 %s", i, ml_shape_format(view->dims, view->rank, a, sizeof a),
                     ml_shape_format(first->dims, first->rank, b, sizeof b));
    if (__builtin_add_overflow(dims[axis], stacked ? 1 : view->dims[axis], &dims[axis])) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "too many elements");
  }
  ML_TRY(ctx->run->resize(ctx->run, ctx->out[0], dims, rank, err));
  size_t outer = 1, inner = ml_dtype_size(first->dtype), at = 0;
  for (int32_t d = 0; d < rank; d++) if (d != axis) *(d < axis ? &outer : &inner) *= (size_t)dims[d];
  size_t row = (size_t)dims[axis] * inner;
  for (size_t i = 0; i < from->count && outer * row > 0; i++) { /* string elements live as long as the sequence, which the run holds */
    const ml_view *view = &from->items[i].tensor->view;
    size_t bytes = (stacked ? 1 : (size_t)view->dims[axis]) * inner;
    for (size_t o = 0; o < outer && bytes > 0; o++) memcpy((char *)ctx->out[0]->data + o * row + at, (const char *)view->data + o * bytes, bytes);
    at += bytes;
  }
  return ML_OK;
}

const ml_op_def ml_op_concat_from_sequence = {
  .name = "ConcatFromSequence", .domain = "", .since = 11, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS, .attrs = attrs,
  .formula = "y = s_0, s_1, … joined along axis", .infer = infer, .run = run,
};
