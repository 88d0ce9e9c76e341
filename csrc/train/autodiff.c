#include "train/autodiff.h"
#include <string.h>

typedef struct driver {
  ml_graph *graph;
  ml_error *err;
  ml_status status;
  ml_view views[4]; /* of the last four shape_of, in turn */
  unsigned next_view;
} driver;

static ml_status emit(ml_grad *g, const char *name, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in, size_t n_out, ml_value **out)
{
  driver *d = g->driver;
  for (size_t i = 0; i < n_out; i++) out[i] = NULL;
  if (d->status != ML_OK) return d->status;
  const char *dot = strrchr(name, '.');
  char domain[32] = "";
  if (dot && (size_t)(dot - name) < sizeof domain) memcpy(domain, name, (size_t)(dot - name));
  const ml_op_def *op = ml_op_find(domain, dot ? dot + 1 : name);
  if (!op) return d->status = ml_fail(d->err, ML_INTERNAL, "the gradient of %s asks for an unknown operator %s", g->op->name, name);
  d->status = ml_graph_node(d->graph, op, NULL, attrs, n_attrs, n_in, in, n_out, NULL, out, d->err);
  if (d->status != ML_OK) ml_fail_in(d->err, d->status, "gradient of %s", g->op->name);
  return d->status;
}

static ml_value *add_constant(driver *d, ml_dtype dtype, const int64_t *dims, int32_t rank, const double *values)
{
  if (d->status != ML_OK) return NULL;
  ml_tensor *tensor;
  ml_value *value = NULL;
  d->status = ml_tensor_new(dtype, dims, rank, &tensor, d->err);
  if (d->status != ML_OK) return NULL;
  for (size_t i = 0; i < tensor->view.count; i++) ml_element_set(tensor->view.data, dtype, i, values[i]);
  d->status = ml_graph_initializer(d->graph, NULL, tensor, false, &value, d->err);
  ml_tensor_release(tensor);
  return value;
}

static ml_value *constant(ml_grad *g, double value, ml_value *like)
{
  return like ? add_constant(g->driver, like->dtype, NULL, 0, &value) : NULL;
}

static ml_value *ints(ml_grad *g, const int64_t *values, size_t count)
{
  driver *d = g->driver;
  if (d->status != ML_OK) return NULL;
  ml_tensor *tensor;
  ml_value *value = NULL;
  int64_t dims[1] = { (int64_t)count };
  d->status = ml_tensor_new(ML_INT64, dims, 1, &tensor, d->err);
  if (d->status != ML_OK) return NULL;
  if (count) memcpy(tensor->view.data, values, count * sizeof *values);
  d->status = ml_graph_initializer(d->graph, NULL, tensor, false, &value, d->err);
  ml_tensor_release(tensor);
  return value;
}

static const ml_view *shape_of(ml_grad *g, const ml_value *value)
{
  driver *d = g->driver;
  ml_view *view = &d->views[d->next_view++ % 4];
  ml_value_view(value, view);
  if (value->init && value->trainable) view->data = NULL;
  return view;
}

static void fail(ml_grad *g, const char *why)
{
  driver *d = g->driver;
  if (d->status == ML_OK) d->status = ml_fail(d->err, ML_UNIMPLEMENTED, "gradient of %s: %s", g->op->name, why);
}

/* Gradient contributions of several users are added up. */
static void accumulate(ml_grad *g, ml_value **slot, ml_value *contribution)
{
  if (!contribution) return;
  *slot = *slot ? ml_g2(g, "Add", *slot, contribution) : contribution;
}

static ml_status differentiate_node(driver *d, const ml_node *node, const bool *depends, ml_value **dvalue)
{
  enum { MAX = 64 };
  if (node->n_in > MAX || node->n_out > MAX) return ml_fail(d->err, ML_UNIMPLEMENTED, "%s '%s': more than %d inputs", node->op->name, node->name, MAX);
  ml_value *dout[MAX] = { 0 }, *din[MAX] = { 0 };
  bool needs[MAX], any_out = false, any_in = false;
  for (int32_t i = 0; i < node->n_out; i++) {
    dout[i] = node->out[i] ? dvalue[node->out[i]->id] : NULL;
    any_out = any_out || dout[i];
  }
  for (int32_t i = 0; i < node->n_in; i++) {
    needs[i] = node->in[i] && depends[node->in[i]->id] && (node->in[i]->dtype == ML_FLOAT32 || node->in[i]->dtype == ML_FLOAT64);
    any_in = any_in || needs[i];
  }
  if (!any_out || !node->op->gradient) return ML_OK;
  for (int32_t i = 0; i < node->n_in; i++)
    if (node->in[i] && depends[node->in[i]->id] && (node->in[i]->dtype == ML_FLOAT16 || node->in[i]->dtype == ML_BFLOAT16))
      return d->status = ml_fail(d->err, ML_UNIMPLEMENTED, "%s '%s': input %d is %s; gradients are computed in float32 and float64", node->op->name,
                                 node->name, i, ml_dtype_name(node->in[i]->dtype));
  if (!any_in) return ML_OK;
  ml_grad g = { .op = node->op, .attrs = &node->attrs, .n_in = node->n_in, .n_out = node->n_out, .in = node->in, .out = node->out,
                .dout = dout, .needs = needs, .din = din, .emit = emit, .constant = constant, .ints = ints, .shape_of = shape_of, .fail = fail, .driver = d };
  node->op->gradient(&g);
  for (int32_t i = 0; i < node->n_in; i++)
    if (needs[i]) accumulate(&g, &dvalue[node->in[i]->id], din[i]);
  return d->status;
}

ml_status ml_differentiate(ml_graph *g, ml_value *loss, ml_value *const *wrt, size_t n, ml_value **grads, ml_error *err)
{
  driver d = { .graph = g, .err = err };
  size_t n_values = g->n_values, n_nodes = g->n_nodes;
  bool *depends = ml_alloc_zero(n_values + 1, sizeof *depends);
  ml_value **dvalue = ml_alloc_zero(n_values + 1, sizeof *dvalue);
  if (!depends || !dvalue) d.status = ml_fail_memory(err, n_values * sizeof *dvalue, "differentiation");
  for (size_t i = 0; i < n && d.status == ML_OK; i++) depends[wrt[i]->id] = true;
  for (size_t i = 0; i < n_nodes && d.status == ML_OK; i++) {
    const ml_node *node = g->nodes[i];
    bool any = false;
    for (int32_t k = 0; k < node->n_in; k++) any = any || (node->in[k] && depends[node->in[k]->id]);
    for (int32_t k = 0; k < node->n_out; k++) if (node->out[k] && any) depends[node->out[k]->id] = true;
  }
  if (d.status == ML_OK) {
    const double one = 1;
    int64_t dims[ML_MAX_RANK];
    for (int32_t i = 0; i < loss->rank; i++) dims[i] = 1;
    dvalue[loss->id] = add_constant(&d, loss->dtype, dims, loss->rank < 0 ? 0 : loss->rank, &one);
  }
  for (size_t i = n_nodes; i-- > 0 && d.status == ML_OK;) differentiate_node(&d, g->nodes[i], depends, dvalue);
  for (size_t i = 0; i < n && d.status == ML_OK; i++) grads[i] = dvalue[wrt[i]->id];
  ml_free(depends);
  ml_free(dvalue);
  return d.status;
}
