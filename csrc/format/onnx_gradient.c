/* Gradient of ai.onnx.preview.training: a node that names a function of its own graph, the tensor y of the tensors xs and zs,
 * and asks for dy/dx at the values of its inputs (one for each of xs, then of zs). It is no operator that runs: reading expands
 * it into the nodes of the gradient, which the operators' own gradients emit (train/autodiff.c), so a Gradient of a Gradient is
 * nothing special. A y of several elements counts as their sum.
 *
 * Usually the inputs are the very tensors named by xs and zs; then the nodes that computed y serve both. Otherwise (other values,
 * or a name that depends on another one, which cuts the path between them) what lies between the names and y is computed once
 * more from the inputs. Reference: ONNX Gradient-1. */
#include <string.h>

#include "format/opset.h"
#include "train/autodiff.h"

enum {
  GROWTH = 16, /* times that a gradient may multiply the nodes of a graph; about four is usual */
  LOOKS = 64   /* times that the Gradients of a model may go over max_nodes nodes */
};

bool ml__onnx_is_gradient(const char *domain, const char *op) {
  return strcmp(op, "Gradient") == 0 && strcmp(domain, "ai.onnx.preview.training") == 0;
}

typedef struct question {
  ml_graph *graph;
  const ml__onnx_node *node;
  size_t n_xs, n;      /* names: xs, then zs */
  ml_value **named;    /* the tensors of that name … */
  ml_value **given;    /* … and the inputs in their place */
  ml_value *y;
  size_t n_values, n_nodes; /* before the node */
} question;

/* ---------------------------------------------------------------- names ---- */
static const ml_attr *find(const ml__onnx_node *n, const char *name) {
  const ml_attrs all = {n->attrs, n->n_attrs};
  return ml_attr_find(&all, name);
}

static ml_status resolve(const question *q, ml_str name, ml_value **out, ml_error *err) {
  char *text = ml_strndup(name.bytes, name.length);
  if (!text) return ml_fail_memory(err, name.length, "a name");
  *out = ml_graph_find(q->graph, text);
  ml_status status = *out ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "tensor '%s' is not computed before the node", text);
  ml_free(text);
  return status;
}

static ml_status read_names(question *q, ml_arena *scratch, ml_error *err) {
  const ml__onnx_node *n = q->node;
  const ml_attr *lists[2] = {find(n, "xs"), find(n, "zs")}, *y = find(n, "y");
  for (size_t i = 0; i < n->n_attrs; i++)
    if (&n->attrs[i] != lists[0] && &n->attrs[i] != lists[1] && &n->attrs[i] != y)
      return ml_fail(err, ML_INVALID_ARGUMENT, "unknown attribute '%s'", n->attrs[i].name);
  if (!lists[0] || lists[0]->type != ML_ATTR_STRINGS || lists[0]->count == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'xs' is no list of names");
  if (lists[1] && lists[1]->type != ML_ATTR_STRINGS) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'zs' is no list of names");
  if (!y || y->type != ML_ATTR_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'y' is no name");
  q->n_xs = lists[0]->count;
  q->n = q->n_xs + (lists[1] ? lists[1]->count : 0);
  if (n->n_in != q->n) return ml_fail(err, ML_INVALID_ARGUMENT, "%zu inputs for the %zu names of xs and zs", n->n_in, q->n);
  if (n->n_out > q->n_xs) return ml_fail(err, ML_INVALID_ARGUMENT, "%zu outputs for the %zu names of xs", n->n_out, q->n_xs);
  q->named = ml_arena_alloc(scratch, q->n * sizeof *q->named);
  q->given = ml_arena_alloc(scratch, q->n * sizeof *q->given);
  if (!q->named || !q->given) return ml_fail_memory(err, q->n, "a gradient");
  for (size_t i = 0; i < q->n; i++) {
    const ml_attr *list = lists[i >= q->n_xs];
    ML_TRY(resolve(q, list->as.strings[i < q->n_xs ? i : i - q->n_xs], &q->named[i], err));
    if (!n->in[i]) return ml_fail(err, ML_INVALID_ARGUMENT, "input %zu is left out", i);
    q->given[i] = n->in[i];
    if (q->given[i]->dtype != q->named[i]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %zu is %s, tensor '%s' is %s", i, ml_dtype_name(q->given[i]->dtype),
                     q->named[i]->name, ml_dtype_name(q->named[i]->dtype));
    if (i < q->n_xs && q->named[i]->dtype != ML_FLOAT32 && q->named[i]->dtype != ML_FLOAT64)
      return ml_fail(err, ML_UNIMPLEMENTED, "tensor '%s' is %s: gradients are float32 or float64", q->named[i]->name,
                     ml_dtype_name(q->named[i]->dtype));
  }
  ML_TRY(resolve(q, y->as.s, &q->y, err));
  if (q->y->dtype == ML_FLOAT32 || q->y->dtype == ML_FLOAT64) return ML_OK;
  return ml_fail(err, ML_UNIMPLEMENTED, "tensor '%s' is %s: gradients are float32 or float64", q->y->name,
                 ml_dtype_name(q->y->dtype));
}

/* ---------------------------------------------------------------- the function ---- */
static ml_status emit(const question *q, const char *op, const ml_attr *attr, ml_value *in, const char *const *name,
                      ml_value **out, ml_error *err) {
  return ml_graph_node(q->graph, ml_op_find("", op), NULL, attr, attr ? 1 : 0, 1, &in, 1, name, out, err);
}

/* Do the inputs stand where their names do, none of them computed from another? */
static ml_status stands(const question *q, bool *out, ml_error *err) {
  bool *depends = ml_alloc_zero(q->n_values + 1, sizeof *depends);
  if (!depends) return ml_fail_memory(err, q->n_values, "a gradient");
  *out = true;
  for (size_t i = 0; i < q->n; i++) {
    *out = *out && q->given[i] == q->named[i];
    depends[q->named[i]->id] = true;
  }
  for (size_t i = 0; i < q->n_nodes; i++) {
    const ml_node *node = q->graph->nodes[i];
    bool any = false;
    for (int32_t k = 0; k < node->n_in; k++) any = any || (node->in[k] && depends[node->in[k]->id]);
    for (int32_t k = 0; any && k < node->n_out; k++) {
      if (!node->out[k]) continue;
      *out = *out && !depends[node->out[k]->id]; /* a name so far */
      depends[node->out[k]->id] = true;
    }
  }
  ml_free(depends);
  return ML_OK;
}

static ml_status copy_node(const question *q, const ml_node *node, ml_value **place, ml_error *err) {
  for (size_t i = 0; i < node->attrs.count; i++)
    if (node->attrs.items[i].type == ML_ATTR_GRAPH || node->attrs.items[i].type == ML_ATTR_GRAPHS)
      return ml_fail(err, ML_UNIMPLEMENTED, "%s '%s' has a subgraph, which is not differentiated at other values", node->op->name,
                     node->name);
  const size_t n_in = (size_t)node->n_in, n_out = (size_t)node->n_out;
  ml_value **in = ml_alloc_zero(n_in + n_out + 1, sizeof *in);
  const char **names = ml_alloc_zero(n_out + 1, sizeof *names);
  ml_status status = in && names ? ML_OK : ml_fail_memory(err, n_in, "a gradient");
  if (status == ML_OK) {
    for (size_t i = 0; i < n_in; i++) in[i] = node->in[i] && place[node->in[i]->id] ? place[node->in[i]->id] : node->in[i];
    for (size_t i = 0; i < n_out; i++) names[i] = node->out[i] ? NULL : "";
    status = ml_graph_node(q->graph, node->op, NULL, node->attrs.items, node->attrs.count, n_in, in, n_out, names, in + n_in, err);
  }
  for (size_t i = 0; i < n_out && status == ML_OK; i++)
    if (node->out[i] && !place[node->out[i]->id]) place[node->out[i]->id] = in[n_in + i]; /* names keep their inputs */
  ml_free(in);
  ml_free(names);
  return status;
}

/* y computed once more from the inputs; place: by value id, what stands for it. */
static ml_status substitute(question *q, ml_value **place, bool *wanted, ml_error *err) {
  for (size_t i = 0; i < q->n; i++) { /* one input may stand for two names, whose gradients are two */
    ML_TRY(emit(q, "Identity", NULL, q->given[i], NULL, &q->given[i], err));
    place[q->named[i]->id] = q->given[i];
  }
  wanted[q->y->id] = true;
  for (size_t i = q->n_nodes; i-- > 0;) {
    const ml_node *node = q->graph->nodes[i];
    bool any = false;
    for (int32_t k = 0; k < node->n_out; k++) any = any || (node->out[k] && wanted[node->out[k]->id] && !place[node->out[k]->id]);
    for (int32_t k = 0; any && k < node->n_in; k++) if (node->in[k]) wanted[node->in[k]->id] = true;
  }
  for (size_t i = 0; i < q->n_nodes; i++) {
    const ml_node *node = q->graph->nodes[i];
    bool any = false, moved = false;
    for (int32_t k = 0; k < node->n_out; k++) any = any || (node->out[k] && wanted[node->out[k]->id] && !place[node->out[k]->id]);
    for (int32_t k = 0; k < node->n_in; k++) moved = moved || (node->in[k] && place[node->in[k]->id]);
    if (any && moved) ML_TRY(copy_node(q, node, place, err));
  }
  if (place[q->y->id]) q->y = place[q->y->id];
  return ML_OK;
}

static ml_status function_at_inputs(question *q, ml_error *err) {
  bool direct = false;
  ML_TRY(stands(q, &direct, err));
  if (direct) return ML_OK;
  ml_value **place = ml_alloc_zero(q->n_values + 1, sizeof *place);
  bool *wanted = ml_alloc_zero(q->n_values + 1, sizeof *wanted);
  ml_status status = place && wanted ? substitute(q, place, wanted, err) : ml_fail_memory(err, q->n_values, "a gradient");
  ml_free(place);
  ml_free(wanted);
  return status;
}

/* ---------------------------------------------------------------- the answer ---- */
static ml_status zeros_like(const question *q, ml_value *x, ml_value **out, ml_error *err) {
  const int64_t one = 1;
  ml_tensor *zero;
  ML_TRY(ml_tensor_new(x->dtype, &one, 1, &zero, err));
  memset(zero->view.data, 0, ml_dtype_size(x->dtype));
  const ml_attr value = {.name = "value", .type = ML_ATTR_TENSOR, .count = 1, .as = {.tensor = zero}};
  ml_value *shape;
  ml_status status = emit(q, "Shape", NULL, x, NULL, &shape, err);
  if (status == ML_OK) status = emit(q, "ConstantOfShape", &value, shape, NULL, out, err);
  ml_tensor_release(zero);
  return status;
}

static bool is_float(const ml_value *value) {
  return value && (value->dtype == ML_FLOAT32 || value->dtype == ML_FLOAT64);
}

/* Results that do not change with the inputs' values, or only in jumps: nothing flows, and that is right. */
static bool is_flat(const ml_op_def *op) {
  static const char *const names[] = {"Bernoulli", "Ceil", "EyeLike", "Floor", "Hardmax", "RandomNormalLike", "RandomUniformLike",
                                      "Round", "Sign"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!*op->domain && strcmp(op->name, names[i]) == 0) return true;
  return false;
}

/* Differentiation takes an operator without a gradient for a constant; a model that asks for a derivative gets no wrong one. */
static ml_status check_path(const question *q, bool *depends, bool *wanted, ml_error *err) {
  const ml_graph *g = q->graph;
  wanted[q->y->id] = true;
  for (size_t i = 0; i < q->n_xs; i++) depends[q->given[i]->id] = true;
  for (size_t i = g->n_nodes; i-- > 0;) {
    const ml_node *node = g->nodes[i];
    bool any = false;
    for (int32_t k = 0; k < node->n_out; k++) any = any || (is_float(node->out[k]) && wanted[node->out[k]->id]);
    for (int32_t k = 0; any && k < node->n_in; k++) if (node->in[k]) wanted[node->in[k]->id] = true;
  }
  for (size_t i = 0; i < g->n_nodes; i++) {
    const ml_node *node = g->nodes[i];
    bool any = false, leads = false;
    for (int32_t k = 0; k < node->n_in; k++) any = any || (is_float(node->in[k]) && depends[node->in[k]->id]);
    for (int32_t k = 0; any && k < node->n_out; k++) {
      if (!is_float(node->out[k])) continue;
      leads = leads || wanted[node->out[k]->id];
      depends[node->out[k]->id] = !is_flat(node->op);
    }
    if (leads && !node->op->gradient && !is_flat(node->op))
      return ml_fail(err, ML_UNIMPLEMENTED, "%s '%s' between xs and y has no gradient", node->op->name, node->name);
  }
  return ML_OK;
}

static ml_status check_differentiable(const question *q, ml_error *err) {
  bool *marks = ml_alloc_zero(2 * q->graph->n_values + 1, sizeof *marks);
  if (!marks) return ml_fail_memory(err, q->graph->n_values, "a gradient");
  ml_status status = check_path(q, marks, marks + q->graph->n_values, err);
  ml_free(marks);
  return status;
}

static ml_status answer(question *q, ml_value **grads, ml_error *err) {
  const ml_attr keep = ml_attr_of_int("keepdims", 0);
  ml_view y;
  ml_value_view(q->y, &y);
  if (!ml_view_known(&y) || y.count != 1) ML_TRY(emit(q, "ReduceSum", &keep, q->y, NULL, &q->y, err));
  ML_TRY(check_differentiable(q, err));
  ML_TRY(ml_differentiate(q->graph, q->y, q->given, q->n_xs, grads, err));
  for (size_t i = 0; i < q->node->n_out; i++) {
    const char *name = q->node->out[i];
    if (name && !*name) continue;
    if (!grads[i]) ML_TRY(zeros_like(q, q->given[i], &grads[i], err));
    ML_TRY(emit(q, "Identity", NULL, grads[i], &name, &grads[i], err));
  }
  return ML_OK;
}

ml_status ml__onnx_gradient(ml__upgrade *u, const ml__onnx_node *node, size_t max_nodes, ml_error *err) {
  u->differentiated += u->graph->n_nodes;
  if (u->graph->n_nodes > max_nodes / GROWTH || u->differentiated / LOOKS > max_nodes)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu nodes are too many to be differentiated under a limit of %zu nodes",
                   u->graph->n_nodes, max_nodes);
  question q = {.graph = u->graph, .node = node, .n_values = u->graph->n_values, .n_nodes = u->graph->n_nodes};
  ML_TRY(read_names(&q, u->scratch, err));
  ml_value **grads = ml_arena_alloc(u->scratch, q.n_xs * sizeof *grads);
  if (!grads) return ml_fail_memory(err, q.n_xs, "a gradient");
  ML_TRY(function_at_inputs(&q, err));
  ML_TRY(answer(&q, grads, err));
  for (size_t i = q.n_values; i < u->graph->n_values; i++) {
    bool known = false; /* to the file */
    for (size_t k = 0; k < node->n_out; k++) known = known || (*node->out[k] && u->graph->values[i] == grads[k]);
    if (!known) ML_TRY(ml__opset_made(u, u->graph->values[i], err));
  }
  return ML_OK;
}
