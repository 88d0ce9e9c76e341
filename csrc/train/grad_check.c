/* Numerical check of gradients: central differences (f(x+h) - f(x-h)) / 2h against ml_differentiate. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/rng.h"
#include "graph/program.h"
#include "train/autodiff.h"

typedef struct checker {
  ml_graph *graph;         /* inputs of the original, then its float64 initialisers as inputs; outputs: scalar, then gradients */
  ml_program *program;
  ml_session *session;
} checker;

static ml_status add_node(ml_graph *g, const char *name, size_t n_in, ml_value *const *in, const ml_attr *attrs, size_t n_attrs, ml_value **out, ml_error *err)
{
  return ml_graph_node(g, ml_op_find("", name), NULL, attrs, n_attrs, n_in, in, 1, NULL, out, err);
}

/* sum over all outputs of <r, output> with fixed random weights r */
static ml_status scalar_of_outputs(ml_graph *g, const ml_session *plain, ml_value **scalar, ml_error *err)
{
  *scalar = NULL;
  for (size_t k = 0; k < g->n_outputs; k++) {
    ml_value *out = g->outputs[k], *product, *sum;
    if (out->dtype != ML_FLOAT64) continue;
    const ml_view *view = ml_session_output((ml_session *)(uintptr_t)plain, k);
    ml_tensor *r;
    ML_TRY(ml_tensor_new(ML_FLOAT64, view->dims, view->rank, &r, err));
    for (size_t i = 0; i < r->view.count; i++) ((double *)r->view.data)[i] = (double)ml_rng_float(7, k, i) + 0.5;
    ml_value *weights;
    ml_status status = ml_graph_initializer(g, NULL, r, false, &weights, err);
    ml_tensor_release(r);
    ML_TRY(status);
    ML_TRY(add_node(g, "Mul", 2, (ml_value *[]){ out, weights }, NULL, 0, &product, err));
    ml_attr keep = ml_attr_of_int("keepdims", 0);
    ML_TRY(add_node(g, "ReduceSum", 1, &product, &keep, 1, &sum, err));
    if (*scalar) ML_TRY(add_node(g, "Add", 2, (ml_value *[]){ *scalar, sum }, NULL, 0, &sum, err));
    *scalar = sum;
  }
  return *scalar ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "a gradient check needs a float64 output");
}

static ml_status evaluate_scalar(checker *c, double *value, ml_error *err)
{
  ML_TRY(ml_session_run(c->session, err));
  *value = *(const double *)ml_session_output(c->session, 0)->data;
  return ML_OK;
}

static ml_status compare(checker *c, ml_value *const *wrt, ml_value *const *grads, size_t n, double h, ml_grad_check_result *result, ml_error *err)
{
  for (size_t i = 0; i < n; i++) {
    ml_view *view = NULL;
    for (size_t k = 0; k < c->graph->n_inputs; k++) if (c->graph->inputs[k] == wrt[i]) view = ml_session_input(c->session, k);
    size_t output = 0;
    for (size_t k = 1; k < c->graph->n_outputs; k++) if (grads[i] && c->graph->outputs[k] == grads[i]) output = k;
    double base;
    ML_TRY(evaluate_scalar(c, &base, err));
    size_t count = view->count;
    double *analytic = ml_alloc_zero(count + 1, sizeof *analytic), *x = view->data;
    if (!analytic) return ml_fail_memory(err, count * sizeof *analytic, "a gradient check");
    if (output) {
      const ml_view *gradient = ml_session_output(c->session, output);
      if (!ml_shape_equal(gradient->dims, gradient->rank, view->dims, view->rank)) {
        char got[128], expected[128];
        ml_free(analytic);
        return ml_fail(err, ML_INTERNAL, "the gradient of '%s' has shape %s, not %s", wrt[i]->name, ml_shape_format(gradient->dims, gradient->rank, got, sizeof got),
                       ml_shape_format(view->dims, view->rank, expected, sizeof expected));
      }
      memcpy(analytic, gradient->data, count * sizeof *analytic);
    }
    ml_status status = ML_OK;
    for (size_t k = 0; k < count && status == ML_OK; k++) {
      double at = x[k], up = 0, down = 0;
      x[k] = at + h;
      status = evaluate_scalar(c, &up, err);
      x[k] = at - h;
      if (status == ML_OK) status = evaluate_scalar(c, &down, err);
      x[k] = at;
      double numeric = (up - down) / (2 * h), scale = fmax(1, fmax(fabs(numeric), fabs(analytic[k]))), error = fabs(numeric - analytic[k]) / scale;
      result->elements++;
      if (error <= result->max_error) continue; /* NaN compares false and is kept */
      result->max_error = isnan(error) ? INFINITY : error;
      snprintf(result->where, sizeof result->where, "%.80s[%zu]: analytic %.9g, numeric %.9g", wrt[i]->name, k, analytic[k], numeric);
    }
    ml_free(analytic);
    ML_TRY(status);
  }
  return ML_OK;
}

/* Every float64 initialiser becomes an input, so that one session can perturb inputs and parameters alike. */
static ml_status parameters_to_inputs(ml_graph *g, ml_error *err)
{
  for (size_t i = 0, n = g->n_values; i < n; i++) {
    ml_value *v = g->values[i];
    if (!v->init || v->dtype != ML_FLOAT64 || !v->trainable) continue;
    ML_TRY(ml_grow(&g->inputs, &g->cap_inputs, g->n_inputs + 1, sizeof *g->inputs, "inputs", err));
    g->inputs[g->n_inputs++] = v;
    v->is_input = true;
    ml_tensor_release(v->init);
    v->init = NULL;
  }
  return ML_OK;
}

static void fill(const checker *c, const ml_graph *original, const ml_view *inputs)
{
  for (size_t i = 0; i < c->graph->n_inputs; i++) {
    ml_view *view = ml_session_input(c->session, i);
    const ml_view *from = i < original->n_inputs ? &inputs[i] : &ml_graph_find(original, c->graph->inputs[i]->name)->init->view;
    if (view->count) memcpy(view->data, from->data, view->count * ml_dtype_size(view->dtype));
  }
}

static ml_status check(checker *c, const ml_graph *original, const ml_view *inputs, double h, ml_grad_check_result *result, ml_error *err)
{
  ml_program *plain_program;
  ml_session *plain = NULL;
  ML_TRY(ml_program_new(original, &(ml_compile_options){ .level = ML_LEVEL_NONE }, &plain_program, err));
  ml_status status = ml_session_new(plain_program, inputs, &plain, err);
  for (size_t i = 0; status == ML_OK && i < original->n_inputs; i++) ml_session_bind_input(plain, i, inputs[i].data);
  if (status == ML_OK) status = ml_session_run(plain, err); /* the shapes of the outputs */
  ml_value *scalar = NULL, **wrt = NULL, **grads = NULL;
  ml_view *views = NULL;
  size_t n = 0;
  if (status == ML_OK) status = parameters_to_inputs(c->graph, err);
  if (status == ML_OK) status = scalar_of_outputs(c->graph, plain, &scalar, err);
  size_t n_inputs = c->graph->n_inputs;
  if (status == ML_OK) {
    wrt = ml_alloc_zero(n_inputs + 1, sizeof *wrt);
    grads = ml_alloc_zero(n_inputs + 1, sizeof *grads);
    views = ml_alloc_zero(n_inputs + 1, sizeof *views);
    if (!wrt || !grads || !views) status = ml_fail_memory(err, n_inputs * sizeof *views, "a gradient check");
  }
  if (status == ML_OK) {
    for (size_t i = 0; i < n_inputs; i++) {
      views[i] = i < original->n_inputs ? inputs[i] : ml_graph_find(original, c->graph->inputs[i]->name)->init->view;
      if (c->graph->inputs[i]->dtype == ML_FLOAT64) wrt[n++] = c->graph->inputs[i];
    }
    status = ml_differentiate(c->graph, scalar, wrt, n, grads, err);
  }
  if (status == ML_OK) {
    for (size_t i = 0; i < c->graph->n_outputs; i++) c->graph->outputs[i]->is_output = false;
    c->graph->n_outputs = 0;
    status = ml_graph_output(c->graph, scalar, err);
  }
  for (size_t i = 0; i < n && status == ML_OK; i++) if (grads[i]) status = ml_graph_output(c->graph, grads[i], err);
  if (status == ML_OK) status = ml_program_new(c->graph, &(ml_compile_options){ .level = ML_LEVEL_NONE }, &c->program, err);
  if (status == ML_OK) status = ml_session_new(c->program, views, &c->session, err);
  if (status == ML_OK) fill(c, original, inputs);
  if (status == ML_OK) status = compare(c, wrt, grads, n, h > 0 ? h : 1e-6, result, err);
  ml_free(wrt);
  ml_free(grads);
  ml_free(views);
  ml_session_free(plain);
  ml_program_release(plain_program);
  return status;
}

ml_status ml_grad_check(const ml_graph *graph, const ml_view *inputs, double h, ml_grad_check_result *result, ml_error *err)
{
  *result = (ml_grad_check_result){ 0 };
  checker c = { 0 };
  ML_TRY(ml_graph_clone(graph, &c.graph, err));
  ml_status status = check(&c, graph, inputs, h, result, err);
  ml_session_free(c.session);
  ml_program_release(c.program);
  ml_graph_free(c.graph);
  return status;
}
