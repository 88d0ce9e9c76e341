/* If 25: the outputs of then_branch when cond is true, else those of else_branch. cond: bool, one element. Branches have no formal inputs.
 * ONNX operator specification. No gradient flows through it. */
#include "ops/control.h"

static const ml_attr_def attrs[] = {
  { "then_branch", ML_ATTR_GRAPH, true, "run when cond is true" },
  { "else_branch", ML_ATTR_GRAPH, true, "run when cond is false" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_subgraph branches[2];
  ml_op_subgraph(ctx, "then_branch", &branches[0]);
  ml_op_subgraph(ctx, "else_branch", &branches[1]);
  if (ctx->in[0]->dtype && ctx->in[0]->dtype != ML_BOOL) return ml_fail(err, ML_INVALID_ARGUMENT, "the condition is %s, expected bool", ml_dtype_name(ctx->in[0]->dtype));
  for (int i = 0; i < 2; i++) {
    const char *name = i == 0 ? "then_branch" : "else_branch";
    if (branches[i].n_in != 0) return ml_fail(err, ML_INVALID_ARGUMENT, "%s has %d inputs, expected none", name, branches[i].n_in);
    if (branches[i].n_out < ctx->n_out) return ml_fail(err, ML_INVALID_ARGUMENT, "%s has %d outputs, expected %d", name, branches[i].n_out, ctx->n_out);
  }
  for (int32_t k = 0; k < ctx->n_out; k++) {
    ml_view a, b, *out = ctx->out[k];
    if (!out) continue;
    ml_subgraph_output(branches[0].graph, k, &a);
    ml_subgraph_output(branches[1].graph, k, &b);
    bool taken;
    if (ml__known_bool(ctx->in[0], &taken)) {
      ml_op_like(out, taken ? &a : &b);
      continue;
    }
    if (a.type || b.type) {
      char left[96], right[96];
      if (!ml_type_fits(ml_view_type(&a), ml_view_type(&b)))
        return ml_fail(err, ML_INVALID_ARGUMENT, "output %d is %s in then_branch and %s in else_branch", k, ml_type_format(ml_view_type(&a), left, sizeof left),
                       ml_type_format(ml_view_type(&b), right, sizeof right));
      ml_op_set_type(out, ml_type_dtype(a.type) ? a.type : b.type);
      continue;
    }
    if (a.dtype != b.dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "output %d is %s in then_branch and %s in else_branch", k, ml_dtype_name(a.dtype), ml_dtype_name(b.dtype));
    if (a.rank != b.rank) a.rank = ML_UNKNOWN;
    for (int32_t d = 0; d < a.rank; d++) if (a.dims[d] != b.dims[d]) a.dims[d] = ML_UNKNOWN;
    ml_op_set(out, a.dtype, a.dims, a.rank);
  }
  return ML_OK;
}

static ml_status take(void *context, ml_view *const *out, ml_error *err) {
  ml_op_ctx *ctx = context;
  for (int32_t k = 0; k < ctx->n_out; k++) ML_TRY(ml_op_pass(ctx, ctx->out[k], out[k], err));
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  bool condition;
  ml_subgraph branch;
  if (!ml__known_bool(ctx->in[0], &condition)) return ml_fail(err, ML_INVALID_ARGUMENT, "the condition has %zu elements, expected 1", ctx->in[0]->count);
  const char *name = condition ? "then_branch" : "else_branch";
  ml_op_subgraph(ctx, name, &branch);
  ml_status status = ctx->run->subgraph(ctx->run, branch.graph, branch.captures, take, ctx, err);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", name);
}

const ml_op_def ml_op_if = {
  .name = "If", .domain = "", .since = 25, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = INT16_MAX, .flags = ML_OP_CONTAINERS, .attrs = attrs,
  .formula = "y = cond ? then_branch() : else_branch()", .infer = infer, .run = run,
};
