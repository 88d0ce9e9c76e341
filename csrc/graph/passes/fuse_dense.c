/* Gemm or MatMul with constant weights, a following Add of a constant row and a following activation become one mlserve.Dense step
 * with packed weights. */
#include <string.h>
#include "graph/pass.h"

static const struct { const ml_op_def *op; const char *name; const char *alpha; float fallback; } activations[] = {
  { &ml_op_relu, "Relu", NULL, 0 },     { &ml_op_sigmoid, "Sigmoid", NULL, 0 },   { &ml_op_tanh, "Tanh", NULL, 0 },
  { &ml_op_leaky_relu, "LeakyRelu", "alpha", 0.01f }, { &ml_op_elu, "Elu", "alpha", 1.0f }, { &ml_op_softplus, "Softplus", NULL, 0 },
};

static bool constant_matrix(const ml_value *v, const ml_compile_options *options)
{
  return ml__is_constant(v, options) && v->dtype == ML_FLOAT32 && v->rank == 2 && v->dims[0] > 0 && v->dims[1] > 0;
}

/* A constant row of n values: (n), (1, n), (1, 1, n) … */
static bool constant_row(const ml_value *v, int64_t n, const ml_compile_options *options)
{
  if (!ml__is_constant(v, options) || v->dtype != ML_FLOAT32 || v->rank < 1 || v->dims[v->rank - 1] != n) return false;
  for (int32_t i = 0; i < v->rank - 1; i++) if (v->dims[i] != 1) return false;
  return true;
}

typedef struct dense { ml_value *x, *w, *bias; bool transposed; } dense;

static bool match_product(const ml_node *node, const ml_compile_options *options, dense *d)
{
  if (node->op != &ml_op_gemm && node->op != &ml_op_mat_mul) return false;
  ml_value *x = node->in[0], *w = node->in[1];
  if (x->dtype != ML_FLOAT32 || x->rank < 2 || !constant_matrix(w, options)) return false;
  *d = (dense){ x, w, NULL, false };
  if (node->op == &ml_op_mat_mul) return true;
  if (ml_attr_int(&node->attrs, "transA", 0) || ml_attr_float(&node->attrs, "alpha", 1) != 1) return false;
  d->transposed = ml_attr_int(&node->attrs, "transB", 0) != 0;
  ml_value *c = node->n_in > 2 ? node->in[2] : NULL;
  if (!c) return true;
  if (ml_attr_float(&node->attrs, "beta", 1) != 1 || c->rank > 2 || !constant_row(c, w->dims[d->transposed ? 0 : 1], options)) return false;
  d->bias = c;
  return true;
}

/* Extends d over `Add(product, constant row)`; gives the node to continue from. */
static ml_node *absorb_bias(ml_node *const *users, ml_node *last, dense *d, const ml_compile_options *options)
{
  ml_node *user = users[last->out[0]->id];
  if (d->bias || !user || user->op != &ml_op_add) return last;
  ml_value *other = user->in[0] == last->out[0] ? user->in[1] : user->in[0];
  if (!constant_row(other, d->w->dims[d->transposed ? 0 : 1], options) || other->rank > last->out[0]->rank) return last;
  d->bias = other;
  return user;
}

/* The last node of the pattern becomes the Dense, so the value it makes keeps its name and users; the others are left without users. */
static ml_status fuse(ml_graph *graph, ml_node *const *users, ml_node *product, dense *d, const ml_compile_options *options, ml_error *err)
{
  ml_node *last = absorb_bias(users, product, d, options);
  ml_attr attrs[3];
  size_t n_attrs = 0;
  if (d->transposed) attrs[n_attrs++] = ml_attr_of_int("transB", 1);
  const ml_node *user = users[last->out[0]->id];
  for (size_t k = 0; user && k < sizeof activations / sizeof *activations; k++) {
    if (user->op != activations[k].op) continue;
    attrs[n_attrs++] = ml_attr_of_str("activation", activations[k].name);
    if (activations[k].alpha) attrs[n_attrs++] = ml_attr_of_float("alpha", ml_attr_float(&user->attrs, activations[k].alpha, activations[k].fallback));
    last = users[last->out[0]->id];
    break;
  }
  ml_value *const in[] = { d->x, d->w, d->bias };
  return ml_graph_become(graph, last, &ml_op_dense, attrs, n_attrs, d->bias ? 3 : 2, in, err);
}

ml_status ml__pass_fuse_dense(ml_graph *graph, const ml_compile_options *options, ml_error *err)
{
  ml_node **users;
  ML_TRY(ml__single_users(graph, &users, err));
  ml_status status = ML_OK;
  for (size_t i = 0; i < graph->n_nodes && status == ML_OK; i++) {
    dense d;
    if (match_product(graph->nodes[i], options, &d)) status = fuse(graph, users, graph->nodes[i], &d, options, err);
  }
  ml_free(users);
  return status == ML_OK ? ml_graph_prune(graph, err) : status;
}
