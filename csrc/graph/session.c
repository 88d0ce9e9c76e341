/* Sessions: steps, views and one arena for one set of input shapes.
 *
 * Making one: (1) infer every node with the real shapes and evaluate at once what is constant by then (shape arithmetic); (2) give every remaining
 * value a buffer; views (Reshape …) and in-place operators share their input's; (3) lay buffers of overlapping life times out in one arena, lowest
 * offset first; (4) set the pointers. A step whose output shape cannot be known before its data is (and everything that depends on it) is
 * "dynamic": it is inferred again in each run and its memory grows as needed.
 *
 * Memory of inputs, outputs and parameters may be replaced by the caller's (bind): they never share a buffer with other values, except
 * through views, whose pointers are then moved too (`root`). */
#include <string.h>
#include "base/cpu.h"
#include "graph/pass.h"
#include "graph/session.h"

#define NO_BUFFER UINT32_MAX
#define EVALUATE_MAX 4096 /* elements of a value evaluated at plan time */

typedef struct step {
  ml_op_ctx ctx;
  const ml_node *node;
  bool dynamic;
  uint64_t ns;
} step;

typedef struct buffer {
  size_t offset, bytes;
  size_t first, last; /* steps; last == SIZE_MAX: to the end of the run */
} buffer;

typedef struct place { /* per value of the graph */
  uint32_t buffer;  /* NO_BUFFER: constant, or grown at run time */
  uint32_t root;    /* value whose pointer this one's is (a view of it); itself otherwise */
  bool has_views;
  ml_tensor *known; /* evaluated at plan time; one reference */
  void *grown;      /* memory of a dynamic value */
  size_t grown_bytes;
} place;

struct ml_session {
  ml_run run; /* first: the callbacks get a pointer to it */
  step *steps;
  size_t n_steps;
  ml_view **inputs, **outputs; /* pointers into views */
  ml_program *program;
  ml_view *views;  /* by value id */
  place *places;   /* by value id */
  ml_view **pointers;
  size_t n_values;
  unsigned char *arena;
  size_t arena_bytes;
  size_t taken;          /* of the program's budget */
  size_t scratch_taken;
  bool containers;       /* some step makes sequences or runs subgraphs: their memory is not in the budget, so its growth is watched */
  int64_t thread_bytes;  /* ml_alloc_thread_bytes when the run began */
  void *workspace;
  ml_arena *scratch;
  ml_container **given; /* made by this run, one reference each */
  size_t n_given, cap_given;
  uint64_t subruns;     /* of subgraphs in this run: their random numbers differ */
  buffer *buffers;
  size_t n_buffers;
};

static ml_status take_memory(ml_session *s, size_t bytes, const char *what, ml_error *err)
{
  ml_status status = ml__budget_take(s->program->options.budget, bytes, what, err);
  if (status != ML_OK && ml__drop_idle(s->program)) status = ml__budget_take(s->program->options.budget, bytes, what, err);
  if (status == ML_OK) s->taken += bytes;
  return status;
}

static void give_memory(ml_session *s, size_t bytes)
{
  ml__budget_give(s->program->options.budget, bytes);
  s->taken -= bytes;
}

static void drop_scratch(ml_session *s)
{
  ml_arena_free(s->scratch);
  s->scratch = NULL;
  give_memory(s, s->scratch_taken);
  s->scratch_taken = 0;
}

/* ---- callbacks of operators ---- */
static ml_status grow_value(ml_session *s, ml_view *view, ml_error *err)
{
  size_t id = (size_t)(view - s->views), count, bytes;
  ML_TRY(ml_shape_count(view->dims, view->rank, view->dtype, &count, err));
  bytes = count * ml_dtype_size(view->dtype);
  place *p = &s->places[id];
  if (bytes > p->grown_bytes || !p->grown) {
    ML_TRY(take_memory(s, bytes - p->grown_bytes, "an output", err));
    void *memory = ml_alloc(bytes ? bytes : 1);
    if (!memory) {
      give_memory(s, bytes - p->grown_bytes);
      return ml_fail_memory(err, bytes, "an output");
    }
    ml_free(p->grown);
    p->grown = memory;
    p->grown_bytes = bytes;
  }
  view->count = count;
  view->data = p->grown;
  return ML_OK;
}

static ml_status resize(ml_run *run, ml_view *out, const int64_t *dims, int32_t rank, ml_error *err)
{
  ml_session *s = (ml_session *)run;
  out->rank = rank;
  for (int32_t i = 0; i < rank; i++) out->dims[i] = dims[i];
  return grow_value(s, out, err);
}

static void *scratch(ml_run *run, size_t bytes)
{
  ml_session *s = (ml_session *)run;
  if (take_memory(s, bytes, "an operator", NULL) != ML_OK) return NULL;
  s->scratch_taken += bytes;
  if (!s->scratch) s->scratch = ml_arena_new();
  return s->scratch ? ml_arena_alloc(s->scratch, bytes) : NULL;
}

/* Sequences and stacked outputs that a loop makes longer and longer. */
static ml_status check_growth(const ml_session *s, ml_error *err)
{
  int64_t grown = ml_alloc_thread_bytes() - s->thread_bytes;
  size_t limit = s->program->options.budget->limit;
  if (grown <= 0 || (uint64_t)grown <= limit) return ML_OK;
  return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%lld bytes of sequences and stacked values are over the limit of %zu bytes (max_memory)", (long long)grown, limit);
}

static ml_status give(ml_run *run, ml_view *out, ml_container *container, ml_error *err)
{
  ml_session *s = (ml_session *)run;
  ml_status status = ml_grow(&s->given, &s->cap_given, s->n_given + 1, sizeof *s->given, "sequences", err);
  if (status == ML_OK && !out->data) status = grow_value(s, out, err);
  if (status == ML_OK) status = check_growth(s, err);
  if (status != ML_OK) {
    ml_container_release(container);
    return status;
  }
  s->given[s->n_given++] = container;
  *(ml_container **)out->data = container;
  return ML_OK;
}

static void forget_containers(ml_session *s)
{
  while (s->n_given > 0) ml_container_release(s->given[--s->n_given]);
}

typedef struct subrun {
  ml_status (*take)(void *context, ml_view *const *out, ml_error *err);
  void *context;
} subrun;

static ml_status take_outputs(void *context, ml_session *session, ml_error *err)
{
  const subrun *r = context;
  return r->take(r->context, session->outputs, err);
}

static ml_status subgraph(ml_run *run, const ml_graph *graph, ml_view *const *in, ml_status (*take)(void *context, ml_view *const *out, ml_error *err),
                          void *context, ml_error *err)
{
  ml_session *s = (ml_session *)run;
  enum { STACK = 16 };
  ml_program *program = ml__subprogram(s->program, graph);
  ML_TRY(check_growth(s, err));
  ml_view stack[STACK], *views = stack;
  size_t n = program->graph->n_inputs, wrapped = 0;
  if (n > STACK && !(views = ml_alloc(n * sizeof *views))) return ml_fail_memory(err, n * sizeof *views, "a subgraph");
  ml_container *optional[STACK]; /* a value where the subgraph takes an optional one (Loop may carry either) */
  ml_status status = ML_OK;
  for (size_t i = 0; i < n && status == ML_OK; i++) {
    uint32_t wanted = program->graph->inputs[i]->type;
    views[i] = *in[i];
    if (ml_type_kind(wanted) != ML_KIND_OPTIONAL || ml_type_kind(views[i].type) == ML_KIND_OPTIONAL || wrapped == STACK) continue;
    status = ml_container_new(ml_type_of(ML_KIND_OPTIONAL, ml_view_type(in[i])), 1, &optional[wrapped], err);
    if (status == ML_OK) status = ml_item_of(in[i], &optional[wrapped++]->items[0], err);
    if (status == ML_OK) ml_view_of_container(&optional[wrapped - 1], &views[i]);
  }
  subrun r = { take, context };
  if (status == ML_OK) status = ml__program_run(program, views, run->seed, run->step + (++s->subruns << 32), take_outputs, &r, err);
  while (wrapped > 0) ml_container_release(optional[--wrapped]);
  if (views != stack) ml_free(views);
  return status;
}

/* ---- making one ---- */
static ml_status take_inputs(ml_session *s, const ml_view *inputs, ml_error *err)
{
  const ml_graph *g = s->program->graph;
  for (size_t i = 0; i < g->n_inputs; i++) {
    const ml_value *v = g->inputs[i];
    const ml_view *given = &inputs[i];
    char expected[160], got[160];
    if (given->dtype != v->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': expected %s, got %s", v->name, ml_dtype_name(v->dtype), ml_dtype_name(given->dtype));
    char type_expected[96], type_got[96];
    if (given->type != v->type && !(given->type && v->type && ml_type_fits(given->type, v->type)))
      return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': expected %s, got %s", v->name,
                     ml_type_format(v->type ? v->type : ml_type_tensor(v->dtype), type_expected, sizeof type_expected),
                     ml_type_format(given->type ? given->type : ml_type_tensor(given->dtype), type_got, sizeof type_got));
    bool fits = ml_view_known(given) && (v->rank == ML_UNKNOWN || v->rank == given->rank);
    for (int32_t d = 0; fits && d < v->rank; d++) fits = v->dims[d] == ML_UNKNOWN || v->dims[d] == given->dims[d];
    if (!fits)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': expected shape %s, got %s", v->name, ml_shape_format(v->dims, v->rank, expected, sizeof expected),
                     ml_shape_format(given->dims, given->rank, got, sizeof got));
    ml_view *view = &s->views[v->id];
    *view = *given;
    view->data = NULL;
    ml_status status = ml_shape_count(view->dims, view->rank, view->dtype, &view->count, err);
    if (status != ML_OK) return ml_fail_in(err, status, "input '%s'", v->name);
  }
  return ML_OK;
}

/* Everything the node reads is known now, and running it is cheap: its result belongs to the plan. */
static bool evaluable(const step *st)
{
  const ml_op_def *op = st->node->op;
  if (op->flags & (ML_OP_RANDOM | ML_OP_TRAINING)) return false;
  for (size_t i = 0; i < st->node->attrs.count; i++) if (st->node->attrs.items[i].type == ML_ATTR_GRAPH) return false;
  bool shape_only = op == &ml_op_shape || op == &ml_op_size;
  for (int32_t i = 0; i < st->ctx.n_in && !shape_only; i++)
    if (st->ctx.in[i] && !st->ctx.in[i]->data) return false;
  for (int32_t i = 0; i < st->ctx.n_out; i++) {
    const ml_view *view = st->ctx.out[i];
    if (!view) continue;
    if (!ml_view_known(view) || view->count > EVALUATE_MAX || view->type) return false;
    if (st->node->out[i]->is_output) return false; /* outputs have memory that callers may bind */
  }
  return true;
}

static ml_status evaluate(ml_session *s, step *st, ml_error *err)
{
  enum { MAX = 16 };
  ml_tensor *out[MAX];
  size_t bytes = 0;
  if (st->ctx.n_out > MAX) return ML_OK;
  ML_TRY(ml__run_node(st->node, st->ctx.in, s->program->kernels, out, err));
  for (int32_t i = 0; i < st->ctx.n_out; i++) {
    if (!out[i]) continue;
    s->places[st->node->out[i]->id].known = out[i];
    *st->ctx.out[i] = out[i]->view;
    bytes += out[i]->view.count * ml_dtype_size(out[i]->view.dtype);
  }
  st->node = NULL; /* no step */
  return take_memory(s, bytes, "a constant", err);
}

static ml_status infer_steps(ml_session *s, ml_error *err)
{
  const ml_graph *g = s->program->graph;
  ml_view **pointer = s->pointers;
  for (size_t i = 0; i < g->n_nodes; i++) {
    const ml_node *node = g->nodes[i];
    step *st = &s->steps[i];
    st->node = node;
    st->ctx = (ml_op_ctx){ .op = node->op, .attrs = &node->attrs, .name = node->name, .n_in = node->n_in, .n_out = node->n_out,
                           .in = pointer, .out = pointer + node->n_in, .stream = node->id, .state = s->program->states[i], .run = &s->run };
    bool unknown = false;
    for (int32_t k = 0; k < node->n_in; k++) {
      *pointer++ = node->in[k] ? &s->views[node->in[k]->id] : NULL;
      unknown = unknown || (node->in[k] && !ml_view_known(&s->views[node->in[k]->id]));
    }
    for (int32_t k = 0; k < node->n_out; k++) {
      *pointer++ = node->out[k] ? &s->views[node->out[k]->id] : NULL;
    }
    ml_status status = ml__infer(&st->ctx, err);
    for (int32_t k = 0; k < node->n_out && status == ML_OK; k++) {
      ml_view *view = st->ctx.out[k];
      if (!view) continue;
      view->data = NULL;
      if (!ml_view_known(view)) unknown = true;
      else status = ml_shape_count(view->dims, view->rank, view->dtype, &view->count, err);
      size_t bytes = view->count * ml_dtype_size(view->dtype), limit = s->program->options.budget->limit;
      if (status == ML_OK && bytes > limit)
        status = ml_fail(err, ML_RESOURCE_EXHAUSTED, "an output of %zu bytes is over the limit of %zu bytes (max_memory)", bytes, limit);
    }
    if (status == ML_OK && !unknown && evaluable(st)) status = evaluate(s, st, err);
    if (status != ML_OK) return ml_fail_in(err, status, "%s '%s'", node->op->name, node->name);
    st->dynamic = unknown;
  }
  size_t kept = 0; /* evaluated nodes are no steps */
  for (size_t i = 0; i < g->n_nodes; i++)
    if (s->steps[i].node) s->steps[kept++] = s->steps[i];
  s->n_steps = kept;
  return ML_OK;
}

/* May the output of this step have the bytes of value `from`: same size, nobody else needs them later, and they are ours. */
static bool takes_over(const ml_session *s, const step *st, int32_t input, const size_t *last_use, size_t index)
{
  if (input >= st->ctx.n_in || !st->ctx.in[input] || !st->ctx.out[0]) return false;
  const ml_value *from = st->node->in[input], *to = st->node->out[0];
  const place *p = &s->places[from->id];
  const ml_view *a = st->ctx.in[input], *b = st->ctx.out[0];
  if (p->buffer == NO_BUFFER || s->places[p->root].buffer == NO_BUFFER) return false;
  if (from->is_input || from->is_output || s->places[p->root].has_views || to->is_output) return false;
  const ml_graph *g = s->program->graph;
  if (g->values[p->root]->is_input || g->values[p->root]->is_output) return false;
  if (a->count != b->count || ml_dtype_size(a->dtype) != ml_dtype_size(b->dtype)) return false;
  if (last_use[from->id] != index) return false;
  for (int32_t i = 0; i < st->ctx.n_in; i++) if (i != input && st->node->in[i] == from) return false; /* x op x reads it twice */
  return true;
}

static uint32_t new_buffer(ml_session *s, const ml_view *view, size_t first, size_t last)
{
  size_t bytes = view->count * ml_dtype_size(view->dtype);
  s->buffers[s->n_buffers] = (buffer){ 0, (bytes + ML_ALIGN - 1) / ML_ALIGN * ML_ALIGN, first, last };
  return (uint32_t)s->n_buffers++;
}

static void give_buffers(ml_session *s, size_t *last_use)
{
  const ml_graph *g = s->program->graph;
  for (size_t i = 0; i < s->n_steps; i++)
    for (int32_t k = 0; k < s->steps[i].ctx.n_in; k++)
      if (s->steps[i].node->in[k]) last_use[s->steps[i].node->in[k]->id] = i;
  for (size_t i = 0; i < g->n_inputs; i++) s->places[g->inputs[i]->id].buffer = new_buffer(s, &s->views[g->inputs[i]->id], 0, SIZE_MAX);
  for (size_t i = 0; i < s->n_steps; i++) {
    step *st = &s->steps[i];
    for (int32_t k = 0; k < st->ctx.n_out; k++) {
      const ml_value *out = st->node->out[k];
      if (!out || st->dynamic) continue;
      place *p = &s->places[out->id];
      const ml_value *in0 = st->ctx.n_in > 0 ? st->node->in[0] : NULL;
      const ml_op_def *op = st->node->op;
      if (k == 0 && (op->flags & ML_OP_VIEW) && in0 && !out->is_output && st->ctx.in[0]->dtype == st->ctx.out[0]->dtype &&
          s->places[in0->id].buffer != NO_BUFFER) {
        const place *from = &s->places[in0->id];
        p->buffer = from->buffer;
        p->root = from->root;
        s->places[p->root].has_views = true;
        buffer *b = &s->buffers[p->buffer];
        if (b->last != SIZE_MAX && last_use[out->id] > b->last) b->last = last_use[out->id];
        continue;
      }
      if (k == 0 && (((op->flags & ML_OP_INPLACE) && takes_over(s, st, 0, last_use, i)) ||
                     ((op->flags & ML_OP_INPLACE1) && takes_over(s, st, 1, last_use, i)))) {
        int32_t from = (op->flags & ML_OP_INPLACE) && takes_over(s, st, 0, last_use, i) ? 0 : 1;
        p->buffer = s->places[st->node->in[from]->id].buffer;
        s->buffers[p->buffer].last = last_use[out->id] > i ? last_use[out->id] : i;
        continue;
      }
      size_t last = out->is_output ? SIZE_MAX : last_use[out->id] > i ? last_use[out->id] : i;
      p->buffer = new_buffer(s, st->ctx.out[k], i, last);
    }
  }
}

/* Lowest free offset among the buffers alive at the same time. Active buffers are kept sorted by offset. */
static ml_status lay_out(ml_session *s, ml_error *err)
{
  uint32_t *active = ml_alloc((s->n_buffers + 1) * sizeof *active);
  if (!active) return ml_fail_memory(err, s->n_buffers * sizeof *active, "a plan");
  size_t n_active = 0, total = 0;
  for (size_t i = 0; i < s->n_buffers; i++) { /* buffers were made in order of their first step */
    buffer *b = &s->buffers[i];
    size_t kept = 0, offset = 0, at;
    for (size_t k = 0; k < n_active; k++)
      if (s->buffers[active[k]].last == SIZE_MAX || s->buffers[active[k]].last >= b->first) active[kept++] = active[k];
    n_active = kept;
    for (at = 0; at < n_active && s->buffers[active[at]].offset < offset + b->bytes; at++)
      offset = s->buffers[active[at]].offset + s->buffers[active[at]].bytes;
    b->offset = offset;
    memmove(&active[at + 1], &active[at], (n_active - at) * sizeof *active);
    active[at] = (uint32_t)i;
    n_active++;
    size_t end;
    if (!ml_add_size(offset, b->bytes, &end)) {
      ml_free(active);
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the model's tensors do not fit into memory");
    }
    if (end > total) total = end;
  }
  ml_free(active);
  s->arena_bytes = total;
  ML_TRY(take_memory(s, total, "the tensors of a call", err));
  s->arena = ml_alloc_zero(total + 1, 1);
  return s->arena ? ML_OK : ml_fail_memory(err, total, "a session");
}

static void *value_memory(const ml_session *s, size_t id)
{
  const place *p = &s->places[id];
  return p->buffer == NO_BUFFER ? NULL : s->arena + s->buffers[p->buffer].offset;
}

static bool is_alias(const ml_session *s, const step *st)
{
  return !st->dynamic && (st->node->op->flags & ML_OP_VIEW) && st->node->out[0] && s->places[st->node->out[0]->id].root != st->node->out[0]->id;
}

static ml_status finish(ml_session *s, ml_error *err)
{
  const ml_graph *g = s->program->graph;
  for (size_t i = 0; i < s->n_values; i++)
    if (s->places[i].buffer != NO_BUFFER) s->views[i].data = value_memory(s, i);
  size_t kept = 0, workspace = 0;
  for (size_t i = 0; i < s->n_steps; i++) {
    step *st = &s->steps[i];
    if (is_alias(s, st)) continue; /* its output is its input */
    s->containers = s->containers || (st->node->op->flags & ML_OP_CONTAINERS) != 0;
    for (int32_t k = 0; k < st->ctx.n_out; k++) s->containers = s->containers || (st->node->out[k] && st->node->out[k]->type);
    size_t bytes = 0;
    if (st->node->op->workspace && !st->dynamic) {
      ml_status status = st->node->op->workspace(&st->ctx, &bytes, err);
      if (status != ML_OK) return ml_fail_in(err, status, "%s '%s'", st->node->op->name, st->node->name);
    }
    if (bytes > workspace) {
      ml_status status = take_memory(s, bytes - workspace, "workspace", err);
      if (status != ML_OK) return ml_fail_in(err, status, "%s '%s'", st->node->op->name, st->node->name);
      workspace = bytes;
    }
    s->steps[kept++] = *st;
  }
  s->n_steps = kept;
  if (workspace && !(s->workspace = ml_alloc(workspace))) return ml_fail_memory(err, workspace, "workspace");
  for (size_t i = 0; i < s->n_steps; i++) s->steps[i].ctx.workspace = s->workspace;
  for (size_t i = 0; i < g->n_inputs; i++) s->inputs[i] = &s->views[g->inputs[i]->id];
  for (size_t i = 0; i < g->n_outputs; i++) s->outputs[i] = &s->views[g->outputs[i]->id];
  return ML_OK;
}

static ml_status build(ml_session *s, const ml_view *inputs, ml_error *err)
{
  const ml_program *p = s->program;
  const ml_graph *g = p->graph;
  size_t n_pointers = 0;
  for (size_t i = 0; i < g->n_nodes; i++) n_pointers += (size_t)(g->nodes[i]->n_in + g->nodes[i]->n_out);
  s->n_values = g->n_values;
  s->views = ml_alloc_zero(g->n_values + 1, sizeof *s->views);
  s->places = ml_alloc_zero(g->n_values + 1, sizeof *s->places);
  s->steps = ml_alloc_zero(g->n_nodes + 1, sizeof *s->steps);
  s->pointers = ml_alloc_zero(n_pointers + 1, sizeof *s->pointers);
  s->inputs = ml_alloc_zero(g->n_inputs + 1, sizeof *s->inputs);
  s->outputs = ml_alloc_zero(g->n_outputs + 1, sizeof *s->outputs);
  s->buffers = ml_alloc_zero(g->n_values + 1, sizeof *s->buffers);
  size_t *last_use = ml_alloc_zero(g->n_values + 1, sizeof *last_use);
  ml_status status = s->views && s->places && s->steps && s->pointers && s->inputs && s->outputs && s->buffers && last_use
                       ? ML_OK : ml_fail_memory(err, g->n_values * sizeof *s->views, "a session");
  for (size_t i = 0; i < g->n_values && status == ML_OK; i++) {
    s->places[i].buffer = NO_BUFFER;
    s->places[i].root = (uint32_t)i;
    if (!g->values[i]->init) continue;
    s->views[i] = g->values[i]->init->view;
    if (p->options.keep_parameters && g->values[i]->trainable) s->views[i].data = NULL; /* not a constant while planning */
  }
  if (status == ML_OK) status = take_inputs(s, inputs, err);
  if (status == ML_OK) status = infer_steps(s, err);
  for (size_t i = 0; i < g->n_values && status == ML_OK; i++)
    if (g->values[i]->init) s->views[i].data = g->values[i]->init->view.data;
  if (status == ML_OK) {
    give_buffers(s, last_use);
    status = lay_out(s, err);
  }
  ml_free(last_use);
  return status == ML_OK ? finish(s, err) : status;
}

ml_status ml_session_new(ml_program *program, const ml_view *inputs, ml_session **out, ml_error *err)
{
  *out = NULL;
  ml_session *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "a session");
  s->program = ml_program_retain(program);
  s->run = (ml_run){ .kernels = program->kernels, .max_loop = program->options.max_loop, .resize = resize, .scratch = scratch, .give = give, .subgraph = subgraph };
  ml_status status = build(s, inputs, err);
  if (status != ML_OK) {
    ml_session_free(s);
    return status;
  }
  *out = s;
  return ML_OK;
}

void ml__session_destroy(ml_session *s)
{
  for (size_t i = 0; s->places && i < s->n_values; i++) {
    ml_tensor_release(s->places[i].known);
    ml_free(s->places[i].grown);
  }
  forget_containers(s);
  ml_free(s->given);
  ml_free(s->steps);
  ml_free(s->inputs);
  ml_free(s->outputs);
  ml_free(s->views);
  ml_free(s->places);
  ml_free(s->pointers);
  ml_free(s->arena);
  ml_free(s->workspace);
  ml_free(s->buffers);
  drop_scratch(s);
  ml__budget_give(s->program->options.budget, s->taken);
  ml_free(s);
}

void ml_session_free(ml_session *session)
{
  if (!session) return;
  ml_program *program = session->program;
  ml__session_destroy(session);
  ml_program_release(program);
}

/* ---- using one ---- */
ml_view *ml_session_input(ml_session *session, size_t index) { return session->inputs[index]; }
ml_view *ml_session_output(ml_session *session, size_t index) { return session->outputs[index]; }
size_t ml_session_arena_bytes(const ml_session *session) { return session->arena_bytes; }

static void set_memory(ml_session *s, size_t id, void *data)
{
  s->views[id].data = data;
  if (!s->places[id].has_views) return;
  for (size_t i = 0; i < s->n_values; i++) if (s->places[i].root == id) s->views[i].data = data;
}

void ml_session_bind_input(ml_session *session, size_t index, void *data)
{
  size_t id = (size_t)(session->inputs[index] - session->views);
  set_memory(session, id, data ? data : value_memory(session, id));
}

void ml_session_bind_output(ml_session *session, size_t index, void *data)
{
  size_t id = (size_t)(session->outputs[index] - session->views);
  if (session->places[id].buffer != NO_BUFFER) set_memory(session, id, data ? data : value_memory(session, id));
}

ml_status ml_session_bind_parameter(ml_session *session, const char *name, void *data, ml_error *err)
{
  const ml_value *v = ml_graph_find(session->program->graph, name);
  if (!v || !v->init || !v->trainable || !session->program->options.keep_parameters)
    return ml_fail(err, ML_NOT_FOUND, "no trainable parameter named '%s'", name);
  set_memory(session, v->id, data);
  return ML_OK;
}

void ml_session_seed(ml_session *session, uint64_t seed, uint64_t step_number)
{
  session->run.seed = seed;
  session->run.step = step_number;
}

bool ml_session_fits(const ml_session *session, const ml_view *inputs)
{
  for (size_t i = 0; i < session->program->graph->n_inputs; i++) {
    const ml_view *a = session->inputs[i], *b = &inputs[i];
    if (a->dtype != b->dtype || a->type != b->type || !ml_shape_equal(a->dims, a->rank, b->dims, b->rank)) return false;
  }
  return true;
}

/* A step whose shapes depend on data: infer again, make room, then run. */
static ml_status run_dynamic(ml_session *s, step *st, ml_error *err)
{
  ML_TRY(ml__infer(&st->ctx, err));
  for (int32_t i = 0; i < st->ctx.n_out; i++)
    if (st->ctx.out[i] && ml_view_known(st->ctx.out[i])) ML_TRY(grow_value(s, st->ctx.out[i], err));
  size_t bytes = 0;
  if (st->node->op->workspace) ML_TRY(st->node->op->workspace(&st->ctx, &bytes, err));
  ML_TRY(take_memory(s, bytes, "workspace", err));
  void *workspace = bytes ? ml_alloc(bytes) : NULL;
  st->ctx.workspace = workspace;
  ml_status status = bytes && !workspace ? ml_fail_memory(err, bytes, "workspace") : st->node->op->run(&st->ctx, err);
  ml_free(workspace);
  give_memory(s, bytes);
  st->ctx.workspace = NULL;
  return status;
}

static inline void begin_run(ml_session *s)
{
  if (s->scratch) drop_scratch(s);
  forget_containers(s);
  s->subruns = 0;
  if (s->containers) s->thread_bytes = ml_alloc_thread_bytes();
}

ml_status ml_session_run(ml_session *s, ml_error *err)
{
  begin_run(s);
  for (size_t i = 0; i < s->n_steps; i++) {
    step *st = &s->steps[i];
    ml_status status = st->dynamic ? run_dynamic(s, st, err) : st->ctx.op->run(&st->ctx, err);
    if (__builtin_expect(status != ML_OK, 0)) return ml_fail_in(err, status, "%s '%s'", st->ctx.op->name, st->ctx.name);
  }
  return ML_OK;
}

ml_status ml_session_run_profiled(ml_session *s, ml_error *err)
{
  begin_run(s);
  for (size_t i = 0; i < s->n_steps; i++) {
    step *st = &s->steps[i];
    uint64_t begin = ml_clock_ns();
    ml_status status = st->dynamic ? run_dynamic(s, st, err) : st->ctx.op->run(&st->ctx, err);
    st->ns = ml_clock_ns() - begin;
    if (status != ML_OK) return ml_fail_in(err, status, "%s '%s'", st->ctx.op->name, st->ctx.name);
  }
  return ML_OK;
}

size_t ml_session_steps(const ml_session *session) { return session->n_steps; }

ml_step_info ml_session_step(const ml_session *session, size_t index)
{
  const step *st = &session->steps[index];
  const ml_view *out = st->ctx.n_out > 0 ? st->ctx.out[0] : NULL;
  double flops = st->ctx.op->flops ? st->ctx.op->flops(&st->ctx) : out ? (double)out->count : 0;
  return (ml_step_info){ .op = st->ctx.op->name, .name = st->ctx.name, .flops = flops, .ns = st->ns, .out = out };
}
