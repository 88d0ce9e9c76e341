/* Reading and making sequences. Their tensors are shared between them, never changed. */
#include "ops/sequence.h"

ml_status ml__expect_kind(const ml_op_ctx *ctx, int32_t input, ml_kind kind, uint32_t *inner, ml_error *err) {
  static const char *const names[] = { "a tensor", "a sequence", "an optional", "a map with int64 keys", "a map with string keys" };
  const ml_view *in = input < ctx->n_in ? ctx->in[input] : NULL;
  char text[96];
  if (!in) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", input);
  uint32_t type = ml_view_type(in);
  if (ml_type_kind(type) != kind) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is %s, expected %s", input, ml_type_format(type, text, sizeof text), names[kind]);
  *inner = ml_type_inner(type);
  return ML_OK;
}

ml_status ml__position(const ml_op_ctx *ctx, int32_t input, int64_t fallback, int64_t *out, ml_error *err) {
  const ml_view *in = input < ctx->n_in ? ctx->in[input] : NULL;
  size_t count;
  bool known;
  *out = fallback;
  if (!in) return ML_OK;
  ML_TRY(ml_op_ints(in, out, 1, &count, &known, "the position", err));
  return count == 1 ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "the position has %zu elements, expected 1", count);
}

ml_status ml__in_sequence(int64_t at, size_t count, int extra, size_t *out, ml_error *err) {
  int64_t n = (int64_t)count, i = at < 0 ? at + n : at;
  if (i < 0 || i >= n + extra) return ml_fail(err, ML_OUT_OF_RANGE, "position %lld in a sequence of %zu", (long long)at, count);
  *out = (size_t)i;
  return ML_OK;
}

ml_status ml__edit_sequence(ml_op_ctx *ctx, const ml_container *from, size_t without, const ml_view *insert, size_t at, ml_error *err) {
  size_t have = from ? from->count : 0, n = have + (insert != NULL) - (without < have), k = 0;
  ml_container *made;
  ML_TRY(ml_container_new(ctx->out[0]->type, n, &made, err));
  for (size_t i = 0; i <= have; i++) {
    if (insert && i == at) {
      ml_status status = ml_item_of(insert, &made->items[k++], err);
      if (status != ML_OK) {
        ml_container_release(made);
        return status;
      }
    }
    if (i < have && i != without) made->items[k++] = ml_item_retain(from->items[i]);
  }
  return ctx->run->give(ctx->run, ctx->out[0], made, err);
}

ml_status ml__pass_item(ml_op_ctx *ctx, ml_view *out, ml_item *item, ml_error *err) {
  ml_view view;
  ml_item_view(item, &view);
  return ml_op_pass(ctx, out, &view, err);
}
