/* float16 and bfloat16 arithmetic: a node whose operator computes in float32 what it is given in 16 bits (ml_op_widens) reads its inputs through
 * Casts to float32 and gives its outputs through Casts back. So no operator needs 16-bit arithmetic, each result is rounded once, and
 * what moves data keeps it at 16 bits. A value is cast to float32 once, however many nodes read it.
 *
 * At level fast a node reads the float32 result of another one directly: the rounding between the two is left out. Casts the model itself
 * has are never left out: there the rounding is part of the model. */
#include <string.h>
#include "graph/pass.h"

typedef struct widening {
  ml_graph *graph;
  bool skip_rounding;
  ml_value **wide;      /* by id of a value of the graph as given: the same in float32, NULL: not made yet */
  ml_node **order;      /* nodes in the order they are to run in */
  size_t n_order, cap_order;
} widening;

static ml_status place(widening *w, ml_node *node, ml_error *err)
{
  ML_TRY(ml_grow(&w->order, &w->cap_order, w->n_order + 1, sizeof *w->order, "nodes", err));
  w->order[w->n_order++] = node;
  return ML_OK;
}

static ml_status add_cast(widening *w, ml_value *from, ml_dtype to, ml_value **out, ml_error *err)
{
  const ml_attr attr = ml_attr_of_int("to", to);
  ml_value *in[1] = { from };
  return ml_graph_node(w->graph, &ml_op_cast, NULL, &attr, 1, 1, in, 1, NULL, out, err);
}

static ml_status widen_inputs(widening *w, ml_node *node, const bool *widens, ml_error *err)
{
  for (int32_t i = 0; i < node->n_in; i++) {
    if (!widens[i]) continue;
    ml_value **wide = &w->wide[node->in[i]->id];
    if (!*wide) {
      ML_TRY(add_cast(w, node->in[i], ML_FLOAT32, wide, err));
      ML_TRY(place(w, (*wide)->producer, err));
    }
    node->in[i] = *wide;
  }
  return ML_OK;
}

/* A new float32 value takes the place of the node's output; the output itself, with its name and its users, comes from a Cast behind. */
static ml_status narrow_output(widening *w, ml_node *node, int32_t k, ml_error *err)
{
  ml_value *narrow = node->out[k], *wide;
  ML_TRY(add_cast(w, narrow, narrow->dtype, &wide, err));
  ml_node *cast = wide->producer;
  wide->dtype = ML_FLOAT32;
  wide->producer = node;
  cast->in[0] = wide;
  cast->out[0] = narrow;
  narrow->producer = cast;
  node->out[k] = wide;
  if (w->skip_rounding) w->wide[narrow->id] = wide;
  return place(w, cast, err);
}

static ml_status widen_node(widening *w, ml_node *node, ml_error *err)
{
  enum { MAX = 64 };
  bool stack[MAX], *widens = stack, any = false;
  size_t n = (size_t)node->n_in + (size_t)node->n_out;
  if (n > MAX && !(widens = ml_alloc(n * sizeof *widens))) return ml_fail_memory(err, n, "a pass");
  bool *narrows = widens + node->n_in;
  for (int32_t i = 0; i < node->n_in; i++) any |= widens[i] = node->in[i] && ml_op_widens(node->op, i, node->in[i]->dtype);
  /* inference has given an output 16 bits where the operator makes float32 */
  for (int32_t k = 0; k < node->n_out; k++) {
    const uint8_t like = node->op->like[k < 3 ? k : 3];
    narrows[k] = node->out[k] && like < node->n_in && widens[like] && node->out[k]->dtype == node->in[like]->dtype;
  }
  ml_status status = any ? widen_inputs(w, node, widens, err) : ML_OK;
  if (status == ML_OK) status = place(w, node, err);
  for (int32_t k = 0; k < node->n_out && status == ML_OK; k++)
    if (narrows[k]) status = narrow_output(w, node, k, err);
  if (widens != stack) ml_free(widens);
  return status;
}

ml_status ml__pass_widen(ml_graph *graph, const ml_compile_options *options, ml_error *err)
{
  widening w = { .graph = graph, .skip_rounding = options->level >= ML_LEVEL_FAST };
  w.wide = ml_alloc_zero(graph->n_values + 1, sizeof *w.wide);
  if (!w.wide) return ml_fail_memory(err, graph->n_values * sizeof *w.wide, "a pass");
  ml_status status = ML_OK;
  const size_t n_nodes = graph->n_nodes;
  for (size_t i = 0; i < n_nodes && status == ML_OK; i++) status = widen_node(&w, graph->nodes[i], err);
  if (status == ML_OK && w.n_order > 0) memcpy(graph->nodes, w.order, w.n_order * sizeof *graph->nodes); /* all of them, in another order */
  ml_free(w.order);
  ml_free(w.wide);
  return status;
}
