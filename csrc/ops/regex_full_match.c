/* RegexFullMatch 20: does the whole string match the pattern? X (any shape) string -> Y (same) bool. ONNX operator specification;
 * the pattern's syntax is in regex.c. */
#include <string.h>
#include "ops/op.h"
#include "ops/regex.h"

static const ml_attr_def attrs[] = {
  { "pattern", ML_ATTR_STRING, true, "regular expression in RE2's syntax" },
  { 0 },
};

static ml_status prepare(ml_op_ctx *ctx, void **out, ml_error *err) {
  ml__regex *m = NULL;
  ml_status status = ml__regex_new(ml_attr_str(ctx->attrs, "pattern", ""), "pattern", &m, err);
  *out = m;
  return status;
}

static void release(void *state) { ml__regex_free(state); }

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ml_op_set(ctx->out[0], ML_BOOL, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  (void)err;
  *bytes = ml__regex_room(ctx->state);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  (void)err;
  memset(ctx->workspace, 0, ml__regex_room(ctx->state));
  for (size_t i = 0; i < x->count; i++)
    ((uint8_t *)ctx->out[0]->data)[i] = ml__regex_matches(ctx->state, ((const ml_str *)x->data)[i], ctx->workspace);
  return ML_OK;
}

const ml_op_def ml_op_regex_full_match = {
  .name = "RegexFullMatch", .domain = "", .since = 20, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_BIT(ML_STRING) }, .formula = "Y = the whole of X matches pattern", .infer = infer, .prepare = prepare,
  .release = release, .workspace = workspace, .run = run,
};
