/* Scan 8 in terms of Scan 9: version 8 has a batch dimension in front of everything, and an optional length per sequence. So it becomes a Scan over the
 * batch whose body is the Scan over the sequence: batch elements in, results stacked, no state between them. */
#include <string.h>
#include "format/opset.h"

static ml_attr take_attr(ml__onnx_node *n, const char *name) {
  for (size_t i = 0; i < n->n_attrs; i++) {
    if (strcmp(n->attrs[i].name, name) != 0) continue;
    ml_attr found = n->attrs[i];
    memmove(&n->attrs[i], &n->attrs[i + 1], (--n->n_attrs - i) * sizeof *n->attrs);
    return found;
  }
  return (ml_attr){0};
}

/* Inputs of the new body: each declared input without its batch dimension, then what the old body captures. */
static ml_status add_inputs(ml_graph *body, const ml__onnx_node *n, size_t declared, ml_value **in, ml_error *err) {
  for (size_t i = 1; i < n->n_in; i++) {
    const ml_value *given = n->in[i];
    if (!given) return ml_fail(err, ML_INVALID_ARGUMENT, "input %zu is missing", i);
    if (i >= declared) {
      ML_TRY(ml_graph_capture(body, given->name, given, &in[i - 1], err));
      continue;
    }
    ml_view like = {.dtype = given->dtype, .rank = given->rank > 0 ? given->rank - 1 : ML_UNKNOWN};
    if (given->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "input %zu has no batch dimension", i);
    if (like.rank > 0) memcpy(like.dims, given->dims + 1, (size_t)like.rank * sizeof *like.dims);
    ML_TRY(ml_graph_input_like(body, NULL, &like, &in[i - 1], err));
  }
  return ML_OK;
}

/* *moved: the new body owns the old one. */
static ml_status fill(ml__upgrade *u, ml_graph *body, const ml__onnx_node *n, const ml_attr *attrs, size_t n_attrs, size_t n_out, bool *moved, ml_error *err) {
  size_t captures = (size_t)ml_subgraph_captures(attrs[0].as.graph), declared = n->n_in - captures;
  ml_value **in = ml_arena_alloc(u->scratch, (n->n_in + 1) * sizeof *in), **out = ml_arena_alloc(u->scratch, (n_out + 1) * sizeof *out);
  if (!in || !out) return ml_fail_memory(err, n->n_in * sizeof *in, "a scan");
  ML_TRY(add_inputs(body, n, declared, in, err));
  ML_TRY(ml_graph_node(body, &ml_op_scan, NULL, attrs, n_attrs, n->n_in - 1, in, n_out, NULL, out, err));
  *moved = true;
  for (size_t k = 0; k < n_out; k++) ML_TRY(ml_graph_output(body, out[k], err));
  return ML_OK;
}

ml_status ml__opset_up_scan(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  ml_attr attrs[3] = {take_attr(n, "body"), take_attr(n, "num_scan_inputs"), take_attr(n, "directions")};
  bool moved = false;
  ml_graph *body;
  if (attrs[0].type == ML_ATTR_GRAPH) n->attrs[n->n_attrs++] = attrs[0]; /* stays with the node until it has moved */
  if (attrs[0].type != ML_ATTR_GRAPH || attrs[1].type != ML_ATTR_INT) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'body' or 'num_scan_inputs' is missing");
  size_t captures = (size_t)ml_subgraph_captures(attrs[0].as.graph);
  if (n->n_in < captures + 2) return ml_fail(err, ML_INVALID_ARGUMENT, "%zu inputs, expected at least 2", n->n_in - captures);
  if (n->in[0]) return ml_fail(err, ML_UNIMPLEMENTED, "sequence_lens is not supported");
  attrs[2].name = "scan_input_directions";
  ML_TRY(ml_graph_new("batch", &body, err));
  ml_status status = fill(u, body, n, attrs, attrs[2].type == ML_ATTR_INTS ? 3 : 2, n->n_out, &moved, err);
  if (status != ML_OK) {
    ml_graph_free(body);
    if (moved) n->attrs[n->n_attrs - 1].as.graph = NULL;
    return status;
  }
  int64_t cut = (int64_t)(n->n_in - 1 - captures);
  n->attrs[n->n_attrs - 1].as.graph = body;
  n->attrs[n->n_attrs++] = ml_attr_of_int("num_scan_inputs", cut);
  memmove(n->in, n->in + 1, --n->n_in * sizeof *n->in);
  return ML_OK;
}
