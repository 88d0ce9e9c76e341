/* Loop 25: runs body while its condition holds, at most M times. Inputs: M (int64 scalar, left out: no bound), cond (bool scalar, left out: true),
 * then the first values of the carried ones. Body: (iteration, condition, carried…) -> (condition, carried…, scanned…). Outputs: the last values of
 * the carried ones, then each scanned output stacked along a new first axis. ONNX operator specification. No gradient flows through it.
 * Carried values are copied between iterations: a body's session keeps its memory for the next one. */
#include "ops/control.h"

static const ml_attr_def attrs[] = {
  { "body", ML_ATTR_GRAPH, true, "run in each iteration" },
  { 0 },
};

enum { FIXED = 2 }; /* iteration (or M) and condition, in front of what is carried */

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_subgraph body;
  ml_op_subgraph(ctx, "body", &body);
  int32_t carried = ml_op_declared_inputs(ctx) - FIXED;
  if (carried < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "%d inputs, expected at least 2", carried + FIXED);
  if (body.n_in != carried + FIXED) return ml_fail(err, ML_INVALID_ARGUMENT, "body has %d inputs, expected %d", body.n_in, carried + FIXED);
  if (body.n_out < carried + 1) return ml_fail(err, ML_INVALID_ARGUMENT, "body has %d outputs, expected at least %d", body.n_out, carried + 1);
  if (ctx->n_out > body.n_out - 1) return ml_fail(err, ML_INVALID_ARGUMENT, "%d outputs, but body has %d", ctx->n_out, body.n_out);
  for (int32_t i = 0; i < carried; i++) if (!ctx->in[FIXED + i]) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", FIXED + i);
  for (int32_t k = 0; k < ctx->n_out; k++) {
    ml_view element;
    ml_subgraph_output(body.graph, k + 1, &element);
    if (k >= carried) {
      if (element.type) return ml_fail(err, ML_INVALID_ARGUMENT, "output %d: a sequence cannot be stacked", k);
      ml__stacked(ctx->out[k], &element, 0, ML_UNKNOWN);
      continue;
    }
    const ml_view *first = ctx->in[FIXED + k];
    if (element.type) {
      ml_op_set_type(ctx->out[k], element.type);
      continue;
    }
    if (first->dtype && element.dtype && first->dtype != element.dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is %s, but body gives %s for it", FIXED + k, ml_dtype_name(first->dtype), ml_dtype_name(element.dtype));
    bool same = ml_view_known(&element) && ml_shape_equal(element.dims, element.rank, first->dims, first->rank);
    ml_op_set(ctx->out[k], element.dtype ? element.dtype : first->dtype, element.dims, same ? element.rank : ML_UNKNOWN);
  }
  return ML_OK;
}

typedef struct loop {
  ml_op_ctx *ctx;
  int32_t carried, scanned;
  unsigned char go; /* the condition */
  ml_item *state;   /* carried */
  ml__stack *stacks;
} loop;

static ml_status take(void *context, ml_view *const *out, ml_error *err) {
  loop *l = context;
  bool go;
  if (!ml__known_bool(out[0], &go)) return ml_fail(err, ML_INVALID_ARGUMENT, "the condition that body gives is no single bool");
  l->go = go;
  for (int32_t i = 0; i < l->carried; i++) ML_TRY(ml__keep(&l->state[i], out[1 + i], err));
  for (int32_t i = 0; i < l->scanned; i++)
    if (l->ctx->out[l->carried + i]) ML_TRY(ml__stack_push(l->ctx, &l->stacks[i], out[1 + l->carried + i], err));
  return ML_OK;
}

static ml_status iterate(loop *l, const ml_subgraph *body, int64_t most, ml_error *err) {
  ml_op_ctx *ctx = l->ctx;
  int64_t iteration = 0;
  ml_view number = { .data = &iteration, .count = 1, .dtype = ML_INT64 }, condition = { .data = &l->go, .count = 1, .dtype = ML_BOOL };
  size_t n_in = (size_t)(body->n_in + body->n_captures);
  ml_view *views = ml_alloc_zero((size_t)l->carried + 1, sizeof *views);
  ml_view **in = ml_alloc_zero(n_in + 1, sizeof *in);
  ml_status status = views && in ? ML_OK : ml_fail_memory(err, n_in * sizeof *in, "a loop");
  if (status == ML_OK) {
    in[0] = &number;
    in[1] = &condition;
    for (int32_t i = 0; i < l->carried; i++) in[FIXED + i] = &views[i];
    for (int32_t i = 0; i < body->n_captures; i++) in[body->n_in + i] = body->captures[i];
  }
  for (; status == ML_OK && l->go && (most < 0 || iteration < most); iteration++) {
    if ((uint64_t)iteration >= ctx->run->max_loop) status = ml_fail(err, ML_RESOURCE_EXHAUSTED, "more than %llu iterations", (unsigned long long)ctx->run->max_loop);
    for (int32_t i = 0; i < l->carried; i++) ml_item_view(&l->state[i], &views[i]);
    if (status == ML_OK) status = ctx->run->subgraph(ctx->run, body->graph, in, take, l, err);
    if (status != ML_OK) status = ml_fail_in(err, status, "iteration %lld", (long long)iteration);
  }
  ml_free(views);
  ml_free(in);
  return status;
}

static ml_status finish(loop *l, const ml_subgraph *body, ml_error *err) {
  for (int32_t k = 0; k < l->ctx->n_out; k++) {
    ml_view view;
    if (k < l->carried) {
      ml_item_view(&l->state[k], &view);
      ML_TRY(ml_op_pass(l->ctx, l->ctx->out[k], &view, err));
    } else {
      ml_subgraph_output(body->graph, k + 1, &view);
      ML_TRY(ml__stack_finish(l->ctx, &l->stacks[k - l->carried], l->ctx->out[k], 0, false, &view, err));
    }
  }
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_subgraph body;
  ml_op_subgraph(ctx, "body", &body);
  loop l = { .ctx = ctx, .carried = ml_op_declared_inputs(ctx) - FIXED, .go = 1 };
  l.scanned = ctx->n_out > l.carried ? ctx->n_out - l.carried : 0;
  int64_t most = -1;
  bool go = true;
  if (ctx->in[0]) {
    if (ctx->in[0]->dtype != ML_INT64 || ctx->in[0]->count != 1) return ml_fail(err, ML_INVALID_ARGUMENT, "the number of iterations must be one int64");
    most = *(const int64_t *)ctx->in[0]->data;
    if (most < 0) most = 0;
  }
  if (ctx->in[1] && !ml__known_bool(ctx->in[1], &go)) return ml_fail(err, ML_INVALID_ARGUMENT, "the condition must be one bool");
  l.go = go;
  l.state = ml_alloc_zero((size_t)l.carried + 1, sizeof *l.state);
  l.stacks = ml_alloc_zero((size_t)l.scanned + 1, sizeof *l.stacks);
  ml_status status = l.state && l.stacks ? ML_OK : ml_fail_memory(err, sizeof *l.state, "a loop");
  for (int32_t i = 0; i < l.carried && status == ML_OK; i++) status = ml__keep(&l.state[i], ctx->in[FIXED + i], err);
  if (status == ML_OK) status = iterate(&l, &body, most, err);
  if (status == ML_OK) status = finish(&l, &body, err);
  for (int32_t i = 0; l.stacks && i < l.scanned; i++) ml_free(l.stacks[i].bytes);
  ml_free(l.stacks);
  ml__keep_free(l.state, (size_t)l.carried);
  return status;
}

const ml_op_def ml_op_loop = {
  .name = "Loop", .domain = "", .since = 25, .min_in = 0, .max_in = 2, .min_out = 0, .max_out = INT16_MAX, .flags = ML_OP_CONTAINERS | ML_OP_VARIADIC,
  .attrs = attrs, .formula = "while i < M and cond: cond, carried…, scanned… = body(i, cond, carried…)", .infer = infer, .run = run,
};
