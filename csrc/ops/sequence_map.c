/* SequenceMap 17: runs body on each element of a sequence. Further inputs are sequences of the same length, of which body gets the element, or
 * tensors, which it gets as they are. Each output of body becomes a sequence. ONNX operator specification. No gradient flows through it. */
#include "ops/control.h"
#include "ops/sequence.h"

static const ml_attr_def attrs[] = {
  { "body", ML_ATTR_GRAPH, true, "run for each element" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_subgraph body;
  uint32_t inner;
  ml_op_subgraph(ctx, "body", &body);
  ML_TRY(ml__expect_kind(ctx, 0, ML_KIND_SEQUENCE, &inner, err));
  int32_t declared = ml_op_declared_inputs(ctx);
  if (body.n_in != declared) return ml_fail(err, ML_INVALID_ARGUMENT, "body has %d inputs, expected %d", body.n_in, declared);
  if (body.n_out < ctx->n_out) return ml_fail(err, ML_INVALID_ARGUMENT, "body has %d outputs, expected %d", body.n_out, ctx->n_out);
  for (int32_t k = 0; k < ctx->n_out; k++) {
    ml_view element;
    ml_subgraph_output(body.graph, k, &element);
    ml_op_set_type(ctx->out[k], ml_type_of(ML_KIND_SEQUENCE, ml_view_type(&element)));
  }
  return ML_OK;
}

typedef struct map { ml_op_ctx *ctx; size_t index; ml_container **made; } map;

static ml_status take(void *context, ml_view *const *out, ml_error *err) {
  map *m = context;
  for (int32_t k = 0; k < m->ctx->n_out; k++)
    if (m->made[k]) ML_TRY(ml_item_of(out[k], &m->made[k]->items[m->index], err));
  return ML_OK;
}

static ml_status each(map *m, const ml_subgraph *body, size_t count, ml_view *views, ml_view **in, ml_error *err) {
  ml_op_ctx *ctx = m->ctx;
  for (int32_t k = 0; k < ctx->n_out; k++) if (ctx->out[k]) ML_TRY(ml_container_new(ctx->out[k]->type, count, &m->made[k], err));
  for (int32_t i = 0; i < body->n_captures; i++) in[body->n_in + i] = body->captures[i];
  for (int32_t i = 0; i < body->n_in; i++) {
    const ml_container *c = ml_view_container(ctx->in[i]);
    in[i] = c ? &views[i] : ctx->in[i];
    if (c && c->count != count) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has %zu elements, expected %zu", i, c->count, count);
  }
  for (m->index = 0; m->index < count; m->index++) {
    for (int32_t i = 0; i < body->n_in; i++) if (in[i] == &views[i]) ml_item_view(&ml_view_container(ctx->in[i])->items[m->index], &views[i]);
    ml_status status = ctx->run->subgraph(ctx->run, body->graph, in, take, m, err);
    if (status != ML_OK) return ml_fail_in(err, status, "element %zu", m->index);
  }
  for (int32_t k = 0; k < ctx->n_out; k++) {
    ml_container *made = m->made[k];
    m->made[k] = NULL;
    if (made) ML_TRY(ctx->run->give(ctx->run, ctx->out[k], made, err));
  }
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_subgraph body;
  ml_op_subgraph(ctx, "body", &body);
  size_t n_in = (size_t)(body.n_in + body.n_captures);
  ml_view *views = ml_alloc_zero(n_in + 1, sizeof *views);
  ml_view **in = ml_alloc_zero(n_in + 1, sizeof *in);
  map m = { .ctx = ctx, .made = ml_alloc_zero((size_t)ctx->n_out + 1, sizeof(ml_container *)) };
  ml_status status = views && in && m.made ? each(&m, &body, ml_view_container(ctx->in[0])->count, views, in, err) : ml_fail_memory(err, n_in * sizeof *views, "a map");
  for (int32_t k = 0; m.made && k < ctx->n_out; k++) ml_container_release(m.made[k]);
  ml_free(m.made);
  ml_free(views);
  ml_free(in);
  return status;
}

const ml_op_def ml_op_sequence_map = {
  .name = "SequenceMap", .domain = "", .since = 17, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = INT16_MAX, .flags = ML_OP_CONTAINERS | ML_OP_VARIADIC,
  .attrs = attrs, .formula = "y_i = body(s_i, …)", .infer = infer, .run = run,
};
