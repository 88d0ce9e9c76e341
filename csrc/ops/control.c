/* Values between runs of a subgraph. */
#include "ops/control.h"
#include <string.h>

ml_status ml__keep(ml_item *slot, const ml_view *from, ml_error *err) {
  ml_tensor *have = slot->tensor;
  if (have && !from->type && from->dtype != ML_STRING && have->view.dtype == from->dtype &&
      ml_shape_equal(have->view.dims, have->view.rank, from->dims, from->rank)) {
    if (from->count > 0) memcpy(have->view.data, from->data, from->count * ml_dtype_size(from->dtype));
    return ML_OK;
  }
  ml_item next;
  if (from->type && !ml_view_container(from)) return ml_fail(err, ML_FAILED_PRECONDITION, "a sequence without a value");
  ML_TRY(ml_item_of(from, &next, err));
  ml_tensor_release(slot->tensor);
  ml_container_release(slot->container);
  *slot = next;
  return ML_OK;
}

void ml__keep_free(ml_item *slots, size_t count) {
  for (size_t i = 0; slots && i < count; i++) {
    ml_tensor_release(slots[i].tensor);
    ml_container_release(slots[i].container);
  }
  ml_free(slots);
}

ml_status ml__stack_push(ml_op_ctx *ctx, ml__stack *stack, const ml_view *value, ml_error *err) {
  size_t size = ml_dtype_size(value->dtype), bytes = value->count * size;
  if (value->type) return ml_fail(err, ML_INVALID_ARGUMENT, "a sequence cannot be stacked");
  if (stack->count == 0) {
    stack->element = *value;
  } else if (value->dtype != stack->element.dtype || !ml_shape_equal(value->dims, value->rank, stack->element.dims, stack->element.rank)) {
    char now[128], before[128];
    return ml_fail(err, ML_INVALID_ARGUMENT, "iteration %lld gives shape %s, those before %s", (long long)stack->count,
                   ml_shape_format(value->dims, value->rank, now, sizeof now),
                   ml_shape_format(stack->element.dims, stack->element.rank, before, sizeof before));
  }
  ML_TRY(ml_grow(&stack->bytes, &stack->capacity, stack->size + bytes, 1, "a stacked output", err));
  unsigned char *to = stack->bytes + stack->size;
  if (bytes > 0) memcpy(to, value->data, bytes);
  if (value->dtype == ML_STRING) { /* the bytes live in the subgraph's run, which is over soon */
    for (size_t i = 0; i < value->count; i++) {
      ml_str s = ((const ml_str *)value->data)[i];
      char *copy = ctx->run->scratch(ctx->run, s.length + 1);
      if (!copy) return ml_fail_memory(err, s.length, "a string");
      if (s.length > 0) memcpy(copy, s.bytes, s.length);
      s.bytes = copy;
      memcpy(to + i * sizeof s, &s, sizeof s);
    }
  }
  stack->size += bytes;
  stack->count++;
  return ML_OK;
}

void ml__stacked(ml_view *out, const ml_view *element, int64_t axis, int64_t count) {
  int64_t dims[ML_MAX_RANK];
  int32_t rank = element->rank < 0 || element->rank >= ML_MAX_RANK ? ML_UNKNOWN : element->rank + 1;
  if (axis < 0) axis += rank;
  if (rank != ML_UNKNOWN && (axis < 0 || axis >= rank)) rank = ML_UNKNOWN; /* run says so */
  for (int32_t i = 0; i < rank; i++) dims[i] = i < axis ? element->dims[i] : i == axis ? count : element->dims[i - 1];
  ml_op_set(out, element->dtype, dims, rank);
}

ml_status ml__stack_finish(ml_op_ctx *ctx, ml__stack *stack, ml_view *out, int64_t axis, bool reversed, const ml_view *declared, ml_error *err) {
  ml_view element = stack->element, made = { .rank = ML_UNKNOWN };
  if (!out) return ML_OK;
  if (stack->count == 0) {
    element = *declared;
    if (element.rank < 0) element.rank = 0;
    for (int32_t i = 0; i < element.rank; i++) if (element.dims[i] < 0) element.dims[i] = 0;
  }
  int32_t at;
  if (element.rank + 1 > ML_MAX_RANK) return ml_fail(err, ML_INVALID_ARGUMENT, "a stacked output of rank over %d", ML_MAX_RANK);
  ML_TRY(ml_axis_normalise(axis, element.rank + 1, &at, err));
  ml__stacked(&made, &element, at, stack->count);
  if (!ml_view_known(out)) ML_TRY(ctx->run->resize(ctx->run, out, made.dims, made.rank, err));
  else if (!ml_shape_equal(out->dims, out->rank, made.dims, made.rank)) return ml_fail(err, ML_INTERNAL, "a stacked output has another shape than planned");
  size_t outer = 1, inner = ml_dtype_size(element.dtype), n = (size_t)stack->count;
  for (int32_t i = 0; i < element.rank; i++) *(i < at ? &outer : &inner) *= (size_t)element.dims[i];
  if (outer == 0 || inner == 0) return ML_OK;
  for (size_t t = 0; t < n; t++) {
    const unsigned char *from = stack->bytes + t * outer * inner;
    size_t place = reversed ? n - 1 - t : t;
    for (size_t o = 0; o < outer; o++) memcpy((unsigned char *)out->data + (o * n + place) * inner, from + o * inner, inner);
  }
  return ML_OK;
}

bool ml__known_bool(const ml_view *view, bool *value) {
  if (!view || !view->data || view->count != 1 || view->dtype != ML_BOOL) return false;
  *value = *(const unsigned char *)view->data != 0;
  return true;
}
