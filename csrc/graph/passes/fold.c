/* Constant folding: a node whose inputs are all constant becomes initialisers. Random operators stay, and results that would
 * take more memory than their inputs by far (a huge Expand) are left to the run. */
#include <string.h>
#include "graph/pass.h"
#include "graph/session.h"
#include "kernels/kernels.h"

#define FOLD_MAX_GROWTH (1u << 20) /* bytes a folded result may exceed its inputs by */

static bool foldable(const ml_node *node, const ml_compile_options *options)
{
  if (node->op->flags & (ML_OP_RANDOM | ML_OP_TRAINING)) return false;
  size_t bytes_in = 0, bytes_out = 0;
  for (int32_t i = 0; i < node->n_in; i++) {
    if (!node->in[i]) continue;
    if (!ml__is_constant(node->in[i], options)) return false;
    bytes_in += node->in[i]->init->view.count * ml_dtype_size(node->in[i]->dtype);
  }
  for (size_t i = 0; i < node->attrs.count; i++) if (node->attrs.items[i].type == ML_ATTR_GRAPH) return false;
  for (int32_t i = 0; i < node->n_out; i++) {
    const ml_value *v = node->out[i];
    size_t count;
    if (!v) continue;
    if (v->type) return false;
    if (v->rank == ML_UNKNOWN || ml_shape_count(v->dims, v->rank, v->dtype, &count, NULL) != ML_OK) return false;
    bytes_out += count * ml_dtype_size(v->dtype); /* no overflow: returns before */
    if (bytes_out > bytes_in + FOLD_MAX_GROWTH) return false;
  }
  return ml__budget_take(options->budget, bytes_out, "a constant", NULL) == ML_OK; /* many small steps make a large sum */
}

static void fold_node(const ml_node *node)
{
  enum { MAX = 16 };
  ml_view views[MAX], *in[MAX];
  ml_tensor *out[MAX];
  if (node->n_in > MAX || node->n_out > MAX) return;
  for (int32_t i = 0; i < node->n_in; i++) {
    in[i] = node->in[i] ? &views[i] : NULL;
    if (node->in[i]) views[i] = node->in[i]->init->view;
  }
  if (ml__run_node(node, in, ml_kernel_table(), out, NULL) != ML_OK) return; /* it will fail, with its message, when it runs */
  bool trainable = false; /* a weight under another shape is a weight still */
  for (int32_t i = 0; i < node->n_in; i++) trainable = trainable || (node->in[i] && node->in[i]->trainable);
  for (int32_t i = 0; i < node->n_out; i++) {
    ml_value *v = node->out[i];
    if (!v) continue;
    v->init = out[i]; /* takes over the reference; the value keeps its name and its users */
    v->producer = NULL;
    v->dtype = out[i]->view.dtype;
    v->trainable = trainable && (v->dtype == ML_FLOAT32 || v->dtype == ML_FLOAT64);
    v->rank = out[i]->view.rank;
    memcpy(v->dims, out[i]->view.dims, sizeof v->dims);
  }
}

static bool is_folded(const ml_node *node)
{
  for (int32_t k = 0; k < node->n_out; k++) if (node->out[k] && !node->out[k]->init) return false;
  return true;
}

ml_status ml__pass_fold(ml_graph *graph, const ml_compile_options *options, ml_error *err) { return ml__fold(graph, options, NULL, err); }

ml_status ml__fold(ml_graph *graph, const ml_compile_options *options, bool (*keep)(const ml_node *node), ml_error *err)
{
  for (size_t i = 0; i < graph->n_nodes; i++) {
    ml_node *node = graph->nodes[i];
    ML_TRY(ml_node_infer(graph, node, err)); /* shapes may be known now that inputs are */
    if (!(keep && keep(node)) && foldable(node, options)) fold_node(node);
  }
  ml_graph_remove_if(graph, is_folded);
  return ml_graph_prune(graph, err);
}
