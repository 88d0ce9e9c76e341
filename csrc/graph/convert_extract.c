/* A part of a graph, and a graph of one batch size. */
#include <string.h>
#include "graph/convert.h"

static ml_status find_values(const ml_graph *g, const char *const *names, size_t n, const char *what, ml_value **out, ml_error *err) {
  for (size_t i = 0; i < n; i++) {
    out[i] = ml_graph_find(g, names[i]);
    if (!out[i]) return ml_fail(err, ML_INVALID_ARGUMENT, "%s '%s': the graph has no value of this name", what, names[i]);
    for (size_t k = 0; k < i; k++)
      if (out[k] == out[i]) return ml_fail(err, ML_INVALID_ARGUMENT, "%s '%s' is named twice", what, names[i]);
  }
  return ML_OK;
}

/* Whatever gave the value its contents no longer does. */
static ml_status detach(ml_graph *g, ml_value *v, ml_error *err) {
  ml_node *producer = v->producer;
  ml_tensor_release(v->init);
  v->init = NULL;
  v->trainable = false;
  v->producer = NULL;
  if (!producer) return ML_OK;
  int32_t k = 0;
  while (producer->out[k] != v) k++;
  producer->out[k] = NULL;
  ML_TRY(ml_graph_want_output(g, producer, k, err)); /* the node may be needed for its other outputs */
  ml_value *twin = producer->out[k];
  twin->dtype = v->dtype;
  twin->type = v->type;
  twin->rank = v->rank;
  memcpy(twin->dims, v->dims, sizeof v->dims);
  return ML_OK;
}

static ml_status set_inputs(ml_graph *g, ml_value *const *values, size_t n, ml_error *err) {
  for (size_t i = 0; i < g->n_inputs; i++) g->inputs[i]->is_input = false;
  for (size_t i = 0; i < n; i++) {
    if (values[i]->dtype == ML_DTYPE_NONE)
      return ml_fail(err, ML_FAILED_PRECONDITION, "input '%s': its element type is not known", values[i]->name);
    ML_TRY(detach(g, values[i], err));
    values[i]->is_input = true;
  }
  ML_TRY(ml_grow(&g->inputs, &g->cap_inputs, n, sizeof *g->inputs, "inputs", err));
  memcpy(g->inputs, values, n * sizeof *values);
  g->n_inputs = n;
  return ML_OK;
}

static ml_status set_outputs(ml_graph *g, ml_value *const *values, size_t n, ml_error *err) {
  for (size_t i = 0; i < g->n_outputs; i++) g->outputs[i]->is_output = false;
  g->n_outputs = 0;
  for (size_t i = 0; i < n; i++) ML_TRY(ml_graph_output(g, values[i], err));
  return ML_OK;
}

static ml_status check_source(const ml_value *v, ml_error *err) {
  if (!v || v->init || v->producer || v->is_input) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "the outputs need input '%s', which is not among the inputs", v->name);
}

static ml_status extract(ml_graph *g, ml_value **in, size_t n_in, ml_value **out, size_t n_out, ml_error *err) {
  if (n_in > 0) ML_TRY(set_inputs(g, in, n_in, err));
  if (n_out > 0) ML_TRY(set_outputs(g, out, n_out, err));
  ML_TRY(ml_graph_prune(g, err));
  for (size_t i = 0; i < g->n_nodes; i++)
    for (int32_t k = 0; k < g->nodes[i]->n_in; k++) ML_TRY(check_source(g->nodes[i]->in[k], err));
  for (size_t i = 0; i < g->n_outputs; i++) ML_TRY(check_source(g->outputs[i], err));
  if (n_in > 0) return ML_OK;
  uint32_t *uses;
  ML_TRY(ml_graph_uses(g, &uses, err));
  size_t kept = 0;
  for (size_t i = 0; i < g->n_inputs; i++) {
    if (uses[g->inputs[i]->id]) g->inputs[kept++] = g->inputs[i];
    else g->inputs[i]->is_input = false;
  }
  g->n_inputs = kept;
  ml_free(uses);
  return ML_OK;
}

ml_status ml_graph_extract(ml_graph *g, const char *const *inputs, size_t n_inputs, const char *const *outputs, size_t n_outputs, ml_error *err) {
  ml_value **values = ml_alloc_zero(n_inputs + n_outputs + 1, sizeof *values);
  if (!values) return ml_fail_memory(err, (n_inputs + n_outputs) * sizeof *values, "a part of a graph");
  ml_status status = find_values(g, inputs, n_inputs, "input", values, err);
  if (status == ML_OK) status = find_values(g, outputs, n_outputs, "output", values + n_inputs, err);
  if (status == ML_OK) status = extract(g, values, n_inputs, values + n_inputs, n_outputs, err);
  ml_free(values);
  return status;
}

ml_status ml_graph_set_batch(ml_graph *g, int64_t batch, ml_error *err) {
  bool any = false;
  if (batch < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "batch %lld: at least 1 expected", (long long)batch);
  for (size_t i = 0; i < g->n_inputs; i++) {
    ml_value *input = g->inputs[i];
    if (input->rank < 1 || input->dims[0] != ML_UNKNOWN) continue;
    any = true;
    const char *name = input->dim_names[0];
    input->dims[0] = batch;
    input->dim_names[0] = NULL;
    for (size_t k = 0; name && k < g->n_values; k++) {
      ml_value *v = g->values[k];
      for (int32_t d = 0; d < v->rank; d++) {
        if (v->dims[d] != ML_UNKNOWN || !v->dim_names[d] || strcmp(v->dim_names[d], name) != 0) continue;
        v->dims[d] = batch;
        v->dim_names[d] = NULL;
      }
    }
  }
  if (!any) return ml_fail(err, ML_FAILED_PRECONDITION, "no input has an unknown first dimension");
  return ml_graph_infer(g, err);
}
