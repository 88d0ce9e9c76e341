/* Drops what does nothing at inference: Identity, Dropout without training_mode, Cast to the type a value has already. */
#include "graph/pass.h"

static bool is_idle(const ml_node *node, const ml_compile_options *options)
{
  if (node->op == &ml_op_identity) return true;
  if (node->op == &ml_op_cast) return node->in[0]->dtype && node->in[0]->dtype == node->out[0]->dtype;
  if (node->op != &ml_op_dropout || (node->n_out > 1 && node->out[1])) return false;
  const ml_value *mode = node->n_in > 2 ? node->in[2] : NULL;
  if (!mode) return true;
  return ml__is_constant(mode, options) && mode->init->view.count == 1 && !*(const bool *)mode->init->view.data;
}

ml_status ml__pass_eliminate(ml_graph *graph, const ml_compile_options *options, ml_error *err)
{
  ml_value **instead = ml_alloc_zero(graph->n_values + 1, sizeof *instead);
  if (!instead) return ml_fail_memory(err, graph->n_values * sizeof *instead, "a pass");
  for (size_t i = 0; i < graph->n_nodes; i++) {
    ml_node *node = graph->nodes[i];
    for (int32_t k = 0; k < node->n_in; k++)
      if (node->in[k] && instead[node->in[k]->id]) node->in[k] = instead[node->in[k]->id];
    if (is_idle(node, options) && !node->out[0]->is_output) instead[node->out[0]->id] = node->in[0]; /* an output keeps its name and memory */
  }
  ml_free(instead);
  return ml_graph_prune(graph, err);
}
