/* Graph to program: passes, then each operator's prepare (packed weights). A program is immutable from then on, but for its pool of idle
 * sessions, which has a lock. */
#include <pthread.h>
#include <string.h>
#include "base/cpu.h"
#include "graph/pass.h"
#include "graph/session.h"
#include "kernels/kernels.h"

enum { MAX_LOOP = 100000000 };

bool ml__is_constant(const ml_value *value, const ml_compile_options *options)
{
  return value->init && !(options->keep_parameters && value->trainable);
}

ml_status ml__single_users(const ml_graph *graph, ml_node ***users, ml_error *err)
{
  ml_node **map = ml_alloc_zero(graph->n_values + 1, sizeof *map);
  bool *seen = ml_alloc_zero(graph->n_values + 1, sizeof *seen);
  if (!map || !seen) {
    ml_free(map);
    ml_free(seen);
    return ml_fail_memory(err, graph->n_values * sizeof *map, "a pass");
  }
  for (size_t i = 0; i < graph->n_outputs; i++) seen[graph->outputs[i]->id] = true;
  for (size_t i = 0; i < graph->n_nodes; i++)
    for (int32_t k = 0; k < graph->nodes[i]->n_in; k++) {
      const ml_value *v = graph->nodes[i]->in[k];
      if (!v) continue;
      map[v->id] = seen[v->id] ? NULL : graph->nodes[i];
      seen[v->id] = true;
    }
  ml_free(seen);
  *users = map;
  return ML_OK;
}

static const ml_pass passes[] = {
#define X(name, level) { #name, ML_LEVEL_##level, ml__pass_##name },
  ML_PASSES(X)
#undef X
};

static bool listed(const char *list, const char *name)
{
  size_t n = strlen(name);
  for (const char *at = list; at && (at = strstr(at, name)); at += n)
    if ((at == list || at[-1] == ',') && (at[n] == ',' || at[n] == '\0')) return true;
  return false;
}

/* Outputs the session may bind must be computed by a node, each by its own: anything else goes through an Identity. */
static ml_status own_outputs(ml_graph *g, ml_error *err)
{
  for (size_t i = 0; i < g->n_outputs; i++) {
    ml_value *v = g->outputs[i], *copy;
    bool again = false;
    for (size_t k = 0; k < i; k++) again = again || g->outputs[k] == v;
    if (v->producer && !again) continue;
    ML_TRY(ml_graph_node(g, &ml_op_identity, NULL, NULL, 0, 1, &v, 1, NULL, &copy, err));
    copy->is_output = true;
    g->outputs[i] = copy;
  }
  return ML_OK;
}

/* What a subgraph reads of a constant becomes a constant of the subgraph, so that it is folded and packed there. */
static void fix_captures(ml_program *p)
{
  for (size_t i = 0; i < p->graph->n_nodes; i++) {
    ml_node *node = p->graph->nodes[i];
    size_t at = (size_t)node->n_in;
    for (size_t k = node->attrs.count; k-- > 0;) { /* from the last: the rest keep their places */
      if (node->attrs.items[k].type != ML_ATTR_GRAPH) continue;
      ml_graph *sub = node->attrs.items[k].as.graph;
      for (size_t c = sub->n_captures; c-- > 0;) {
        const ml_value *outer = node->in[--at];
        if (!ml__is_constant(outer, &p->options)) continue;
        ml_graph_fix_capture(sub, c, outer->init);
        memmove(&node->in[at], &node->in[at + 1], ((size_t)node->n_in - at - 1) * sizeof *node->in);
        node->n_in--;
      }
    }
  }
}

static ml_status compile_subgraphs(ml_program *p, ml_error *err)
{
  size_t count = 0;
  for (size_t i = 0; i < p->graph->n_nodes; i++) {
    const ml_attrs *attrs = &p->graph->nodes[i]->attrs;
    for (size_t k = 0; k < attrs->count; k++) count += attrs->items[k].type == ML_ATTR_GRAPH;
  }
  if (count == 0) return ML_OK;
  p->subprograms = ml_alloc_zero(count, sizeof *p->subprograms);
  if (!p->subprograms) return ml_fail_memory(err, count * sizeof *p->subprograms, "subgraphs");
  ml_compile_options options = p->options;
  options.keep_parameters = false; /* training changes nothing inside subgraphs */
  for (size_t i = 0; i < p->graph->n_nodes; i++) {
    const ml_node *node = p->graph->nodes[i];
    for (size_t k = 0; k < node->attrs.count; k++) {
      const ml_attr *attr = &node->attrs.items[k];
      if (attr->type != ML_ATTR_GRAPH) continue;
      struct ml__subprogram *sub = &p->subprograms[p->n_subprograms];
      ml_status status = ml_program_new(attr->as.graph, &options, &sub->program, err);
      if (status != ML_OK) return ml_fail_in(err, status, "%s '%s': %s", node->op->name, node->name, attr->name);
      sub->graph = attr->as.graph;
      p->n_subprograms++;
    }
  }
  return ML_OK;
}

ml_program *ml__subprogram(const ml_program *program, const ml_graph *graph)
{
  size_t i = 0;
  while (program->subprograms[i].graph != graph) i++;
  return program->subprograms[i].program;
}

ml_status ml__budget_take(ml__budget *budget, size_t bytes, const char *what, ml_error *err)
{
  if (!budget) return ML_OK;
  size_t used = __atomic_load_n(&budget->used, __ATOMIC_RELAXED);
  do {
    if (bytes > budget->limit || used > budget->limit - bytes)
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu bytes for %s, beside %zu in use, are over the limit of %zu bytes (max_memory)", bytes, what, used,
                     budget->limit);
  } while (!__atomic_compare_exchange_n(&budget->used, &used, used + bytes, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return ML_OK;
}

void ml__budget_give(ml__budget *budget, size_t bytes) { __atomic_sub_fetch(&budget->used, bytes, __ATOMIC_RELAXED); }

static ml_status prepare_nodes(ml_program *p, ml_error *err)
{
  const ml_graph *g = p->graph;
  p->states = ml_alloc_zero(g->n_nodes + 1, sizeof *p->states);
  if (!p->states) return ml_fail_memory(err, g->n_nodes * sizeof *p->states, "a program");
  for (size_t i = 0; i < g->n_nodes; i++) {
    const ml_node *node = g->nodes[i];
    if (!node->op->prepare) continue;
    size_t total = (size_t)(node->n_in + node->n_out);
    ml_view *views = ml_alloc_zero(total + 1, sizeof *views);
    ml_view **pointers = ml_alloc_zero(total + 1, sizeof *pointers);
    ml_status status = views && pointers ? ML_OK : ml_fail_memory(err, total * sizeof *views, "a program");
    for (size_t k = 0; k < total && status == ML_OK; k++) {
      ml_value *v = k < (size_t)node->n_in ? node->in[k] : node->out[k - (size_t)node->n_in];
      if (!v) continue;
      pointers[k] = &views[k];
      ml_value_view(v, &views[k]);
      if (p->options.keep_parameters && v->trainable) views[k].data = NULL; /* may change: not to be packed */
    }
    if (status == ML_OK) {
      ml_op_ctx ctx = { .op = node->op, .attrs = &node->attrs, .name = node->name, .n_in = node->n_in, .n_out = node->n_out,
                        .in = pointers, .out = pointers + node->n_in, .stream = node->id };
      status = node->op->prepare(&ctx, &p->states[i], err);
      if (status != ML_OK) status = ml_fail_in(err, status, "%s '%s'", node->op->name, node->name);
    }
    ml_free(views);
    ml_free(pointers);
    if (status != ML_OK) return status;
  }
  return ML_OK;
}

ml_status ml_program_new(const ml_graph *graph, const ml_compile_options *options, ml_program **out, ml_error *err)
{
  *out = NULL;
  ml_program *p = ml_alloc_zero(1, sizeof *p);
  if (!p) return ml_fail_memory(err, sizeof *p, "a program");
  p->references = 1;
  p->options = options ? *options : (ml_compile_options){ .level = ML_LEVEL_FAST };
  if (p->options.max_loop == 0) p->options.max_loop = MAX_LOOP;
  pthread_mutex_init(&p->lock, NULL);
  if (!p->options.budget) {
    p->budget.limit = p->options.max_memory ? p->options.max_memory : ml_memory_size() / 2;
    p->options.budget = &p->budget;
  }
  ml_status status = ml_graph_clone(graph, &p->graph, err);
  if (status == ML_OK) status = ml_graph_infer(p->graph, err);
  for (size_t i = 0; i < sizeof passes / sizeof *passes && status == ML_OK; i++)
    if (p->options.level >= passes[i].level && (passes[i].level == ML_LEVEL_NONE || !listed(p->options.disabled, passes[i].name)))
      status = passes[i].run(p->graph, &p->options, err);
  if (status == ML_OK) status = own_outputs(p->graph, err);
  if (status == ML_OK) fix_captures(p);
  if (status == ML_OK) status = ml_graph_infer(p->graph, err);
  if (status == ML_OK) status = compile_subgraphs(p, err);
  if (status == ML_OK) status = prepare_nodes(p, err);
  p->options.disabled = NULL; /* the caller's string */
  if (status != ML_OK) {
    ml_program_release(p);
    return status;
  }
  p->kernels = p->options.level == ML_LEVEL_NONE ? ml_kernel_table_ref() : ml_kernel_table();
  *out = p;
  return ML_OK;
}

ml_program *ml_program_retain(ml_program *program)
{
  if (program) __atomic_add_fetch(&program->references, 1, __ATOMIC_RELAXED);
  return program;
}

void ml_program_release(ml_program *p)
{
  if (!p || __atomic_sub_fetch(&p->references, 1, __ATOMIC_ACQ_REL) != 0) return;
  for (size_t i = 0; i < p->n_idle; i++) ml__session_destroy(p->idle[i]);
  for (size_t i = 0; p->states && i < p->graph->n_nodes; i++)
    if (p->states[i] && p->graph->nodes[i]->op->release) p->graph->nodes[i]->op->release(p->states[i]);
  for (size_t i = 0; i < p->n_subprograms; i++) ml_program_release(p->subprograms[i].program);
  ml_free(p->subprograms);
  ml_free(p->states);
  ml_graph_free(p->graph);
  pthread_mutex_destroy(&p->lock);
  ml_free(p);
}

const ml_graph *ml_program_graph(const ml_program *program) { return program->graph; }

/* ---- the pool of idle sessions: they hold no reference on the program while they lie here ---- */
bool ml__drop_idle(ml_program *p)
{
  ml_session *dropped[ML__IDLE_SESSIONS];
  pthread_mutex_lock(&p->lock);
  size_t n = p->n_idle;
  memcpy(dropped, p->idle, n * sizeof *dropped);
  p->n_idle = 0;
  pthread_mutex_unlock(&p->lock);
  for (size_t i = 0; i < n; i++) ml__session_destroy(dropped[i]);
  return n > 0;
}

ml_status ml_program_acquire(ml_program *p, const ml_view *inputs, ml_session **out, ml_error *err)
{
  ml_session *found = NULL;
  pthread_mutex_lock(&p->lock);
  for (size_t i = p->n_idle; i-- > 0 && !found;) {
    if (!ml_session_fits(p->idle[i], inputs)) continue;
    found = p->idle[i];
    memmove(&p->idle[i], &p->idle[i + 1], (p->n_idle - i - 1) * sizeof *p->idle);
    p->n_idle--;
  }
  pthread_mutex_unlock(&p->lock);
  if (!found) { /* memory is short: sessions for other shapes are worth less than this one */
    ml_status status = ml_session_new(p, inputs, out, err);
    return status == ML_RESOURCE_EXHAUSTED && ml__drop_idle(p) ? ml_session_new(p, inputs, out, err) : status;
  }
  ml_program_retain(p);
  *out = found;
  return ML_OK;
}

void ml_program_return(ml_program *p, ml_session *session)
{
  ml_session *surplus = NULL;
  pthread_mutex_lock(&p->lock);
  if (p->n_idle == ML__IDLE_SESSIONS) { /* the one that has been idle longest goes */
    surplus = p->idle[0];
    memmove(&p->idle[0], &p->idle[1], (p->n_idle - 1) * sizeof *p->idle);
    p->n_idle--;
  }
  p->idle[p->n_idle++] = session;
  pthread_mutex_unlock(&p->lock);
  if (surplus) ml__session_destroy(surplus);
  ml_program_release(p);
}

ml_status ml_program_run(ml_program *program, const ml_view *inputs,
                         ml_status (*take)(void *context, ml_session *session, ml_error *err), void *context, ml_error *err)
{
  return ml__program_run(program, inputs, 0, 0, take, context, err);
}

ml_status ml__program_run(ml_program *program, const ml_view *inputs, uint64_t seed, uint64_t step,
                          ml_status (*take)(void *context, ml_session *session, ml_error *err), void *context, ml_error *err)
{
  ml_session *session;
  ML_TRY(ml_program_acquire(program, inputs, &session, err));
  ml_session_seed(session, seed, step);
  for (size_t i = 0; i < program->graph->n_inputs; i++) ml_session_bind_input(session, i, inputs[i].data);
  ml_status status = ml_session_run(session, err);
  if (status == ML_OK) status = take(context, session, err);
  for (size_t i = 0; i < program->graph->n_inputs; i++) ml_session_bind_input(session, i, NULL);
  ml_program_return(program, session);
  return status;
}
