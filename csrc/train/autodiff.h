/* Reverse-mode differentiation of a graph: each operator's gradient emits nodes of the same graph.
 * Lives here: the driver; the formulas are beside the operators. May include: graph, ops. */
#ifndef ML_TRAIN_AUTODIFF_H
#define ML_TRAIN_AUTODIFF_H
#include "graph/graph.h"

/* Appends to g the nodes that compute d loss / d wrt[i]; loss is a float scalar (count 1). grads[i] has wrt[i]'s shape; NULL when loss does not
 * depend on it by a differentiable path. */
ml_status ml_differentiate(ml_graph *g, ml_value *loss, ml_value *const *wrt, size_t n, ml_value **grads, ml_error *err);

typedef struct ml_grad_check_result {
  double max_error;     /* largest |analytic - numeric| / max(1, |analytic|, |numeric|) */
  char where[160];      /* "W[3]: analytic 0.5, numeric 0.25" of that element */
  size_t elements;      /* compared */
} ml_grad_check_result;

/* Checks the gradients of a float64 graph numerically: the scalar sum_k <r_k, output_k> with fixed random r_k is differentiated with respect to
 * every float64 input and initialiser, analytically and by central differences with step h (0: 1e-6). inputs: one view with data per graph input. */
ml_status ml_grad_check(const ml_graph *graph, const ml_view *inputs, double h, ml_grad_check_result *result, ml_error *err);

#endif
