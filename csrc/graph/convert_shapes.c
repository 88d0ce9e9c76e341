/* Shape arithmetic. Exporters write x.view(x.shape[0], 256) as Shape, Gather, Unsqueeze, Concat, Reshape. What such a chain gives is
 * followed element by element: a known dimension is a number, an unknown one "dimension d of value x". A chain that is all numbers
 * becomes a constant; a Reshape of the rest copies its own dimensions by 0, and one that remains is -1. */
#include <string.h>
#include "graph/convert.h"

enum { MAX_ELEMENTS = ML_MAX_RANK };

typedef struct element { /* of: NULL for a number; else dimension `number` of that value */
  int64_t number;
  const ml_value *of;
} element;

typedef struct vector { int32_t rank; size_t n; element items[MAX_ELEMENTS]; } vector; /* rank 0 or 1, int64 */

typedef struct chains { vector **of; ml_arena *arena; } chains; /* by value id; NULL: not a chain */

static bool constant_vector(const ml_value *v, vector *out) {
  if (!v->init || v->dtype != ML_INT64 || v->rank > 1 || v->init->view.count > MAX_ELEMENTS) return false;
  *out = (vector){.rank = v->rank, .n = v->init->view.count};
  for (size_t i = 0; i < out->n; i++) out->items[i].number = ((const int64_t *)v->init->view.data)[i];
  return true;
}

static bool get(const chains *c, const ml_node *n, int32_t index, vector *out) {
  const ml_value *v = index < n->n_in ? n->in[index] : NULL;
  if (!v) return false;
  if (!c->of[v->id]) return constant_vector(v, out);
  *out = *c->of[v->id];
  return true;
}

static bool get_numbers(const chains *c, const ml_node *n, int32_t index, vector *out) {
  if (!get(c, n, index, out)) return false;
  for (size_t i = 0; i < out->n; i++)
    if (out->items[i].of) return false;
  return true;
}

static int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

static bool of_shape(const ml_node *n, vector *out) {
  const ml_value *x = n->in[0];
  if (x->rank == ML_UNKNOWN) return false;
  int64_t start = ml_attr_int(&n->attrs, "start", 0), end = ml_attr_int(&n->attrs, "end", x->rank);
  start = clamp(start < 0 ? start + x->rank : start, 0, x->rank);
  end = clamp(end < 0 ? end + x->rank : end, start, x->rank);
  *out = (vector){.rank = 1};
  for (int64_t d = start; d < end; d++)
    out->items[out->n++] = x->dims[d] == ML_UNKNOWN ? (element){d, x} : (element){x->dims[d], NULL};
  return true;
}

static bool of_size(const ml_node *n, vector *out) {
  const ml_value *x = n->in[0];
  size_t count;
  if (x->rank == ML_UNKNOWN || ml_shape_count(x->dims, x->rank, x->dtype, &count, NULL) != ML_OK) return false;
  *out = (vector){.n = 1, .items[0].number = (int64_t)count};
  return true;
}

static bool of_gather(const chains *c, const ml_node *n, vector *out) {
  vector from, at;
  if (!get(c, n, 0, &from) || from.rank != 1 || !get_numbers(c, n, 1, &at) || ml_attr_int(&n->attrs, "axis", 0) > 0) return false;
  *out = (vector){.rank = at.rank, .n = at.n};
  for (size_t i = 0; i < at.n; i++) {
    int64_t index = at.items[i].number < 0 ? at.items[i].number + (int64_t)from.n : at.items[i].number;
    if (index < 0 || index >= (int64_t)from.n) return false;
    out->items[i] = from.items[index];
  }
  return true;
}

static bool of_slice(const chains *c, const ml_node *n, vector *out) {
  vector from, start, end, step = {.n = 1, .items[0].number = 1};
  if (!get(c, n, 0, &from) || from.rank != 1 || !get_numbers(c, n, 1, &start) || !get_numbers(c, n, 2, &end)) return false;
  if (start.n != 1 || end.n != 1) return false;
  if (n->n_in > 4 && n->in[4] && (!get_numbers(c, n, 4, &step) || step.n != 1 || step.items[0].number < 1)) return false;
  int64_t size = (int64_t)from.n, a = start.items[0].number, b = end.items[0].number;
  a = clamp(a < 0 ? a + size : a, 0, size);
  b = clamp(b < 0 ? b + size : b, 0, size);
  *out = (vector){.rank = 1};
  for (int64_t i = a; i < b; i += step.items[0].number) out->items[out->n++] = from.items[i];
  return true;
}

static bool of_concat(const chains *c, const ml_node *n, vector *out) {
  *out = (vector){.rank = 1};
  for (int32_t k = 0; k < n->n_in; k++) {
    vector part;
    if (!get(c, n, k, &part) || part.rank != 1 || out->n + part.n > MAX_ELEMENTS) return false;
    memcpy(out->items + out->n, part.items, part.n * sizeof *part.items);
    out->n += part.n;
  }
  return true;
}

static bool follow(const chains *c, const ml_node *n, vector *out) {
  const ml_op_def *op = n->op;
  if (op == &ml_op_shape) return of_shape(n, out);
  if (op == &ml_op_size) return of_size(n, out);
  if (n->n_out < 1 || !n->out[0] || n->out[0]->dtype != ML_INT64) return false;
  if (op == &ml_op_gather) return of_gather(c, n, out);
  if (op == &ml_op_slice) return of_slice(c, n, out);
  if (op == &ml_op_concat) return of_concat(c, n, out);
  if (op == &ml_op_identity || (op == &ml_op_cast && n->in[0]->dtype == ML_INT64)) return get(c, n, 0, out);
  if (op != &ml_op_squeeze && op != &ml_op_unsqueeze) return false;
  if (!get(c, n, 0, out) || out->n != 1 || out->rank != (op == &ml_op_squeeze)) return false; /* one element: scalar and list of one */
  out->rank = 1 - out->rank;
  return op == &ml_op_squeeze || n->out[0]->rank == 1;
}

static bool is_numbers(const vector *v) {
  for (size_t i = 0; i < v->n; i++)
    if (v->items[i].of) return false;
  return true;
}

static ml_status tensor_of(const vector *v, ml_tensor **out, ml_error *err) {
  int64_t dim = (int64_t)v->n;
  ML_TRY(ml_tensor_new(ML_INT64, &dim, v->rank, out, err));
  for (size_t i = 0; i < v->n; i++) ((int64_t *)(*out)->view.data)[i] = v->items[i].number;
  return ML_OK;
}

static ml_status make_constant(ml_value *out, const vector *v, ml_error *err) {
  ml_tensor *tensor;
  ML_TRY(tensor_of(v, &tensor, err));
  out->init = tensor;
  out->producer = NULL;
  out->rank = tensor->view.rank;
  memcpy(out->dims, tensor->view.dims, sizeof out->dims);
  return ML_OK;
}

/* The shape in a Reshape that is a chain with dimensions in it: as a constant, when that is possible. */
static ml_status close_reshape(ml_graph *g, const chains *c, ml_node *n, bool *changed, ml_error *err) {
  vector shape;
  const ml_value *x = n->in[0];
  if (n->in[1]->init || !get(c, n, 1, &shape) || shape.rank != 1 || ml_attr_int(&n->attrs, "allowzero", 0)) return ML_OK;
  size_t open = 0;
  for (size_t i = 0; i < shape.n; i++) {
    element *e = &shape.items[i];
    if (!e->of && e->number < 1) { /* -1 takes the one place there is; what 0 copies stays the same */
      open += e->number == -1;
      continue;
    }
    if (!e->of) continue;
    if (e->of == x && e->number == (int64_t)i) *e = (element){0, NULL};
    else {
      *e = (element){-1, NULL};
      open++;
    }
  }
  if (open > 1) return ML_OK;
  ml_tensor *tensor;
  ml_value *constant;
  ML_TRY(tensor_of(&shape, &tensor, err));
  ml_status status = ml_graph_initializer(g, NULL, tensor, false, &constant, err);
  ml_tensor_release(tensor);
  ML_TRY(status);
  n->in[1] = constant;
  *changed = true;
  return ML_OK;
}

static bool is_constant_now(const ml_node *n) { return n->n_out == 1 && n->out[0] && n->out[0]->init; }

ml_status ml__simplify_shapes(ml_graph *g, bool *changed, ml_error *err) {
  size_t n_values = g->n_values;
  chains c = {ml_alloc_zero(n_values + 1, sizeof *c.of), ml_arena_new()};
  ml_status status = c.of && c.arena ? ML_OK : ml_fail_memory(err, n_values * sizeof *c.of, "shape arithmetic");
  for (size_t i = 0; i < g->n_nodes && status == ML_OK; i++) {
    ml_node *n = g->nodes[i];
    vector v;
    bool reads_new = false; /* a constant made here has no place in the table */
    for (int32_t k = 0; k < n->n_in; k++) reads_new = reads_new || (n->in[k] && n->in[k]->id >= n_values);
    if (reads_new || n->n_in < 1 || !n->in[0]) continue;
    if (n->op == &ml_op_reshape) status = close_reshape(g, &c, n, changed, err);
    else if (follow(&c, n, &v)) {
      if (is_numbers(&v)) {
        *changed = true;
        status = make_constant(n->out[0], &v, err);
        continue;
      }
      vector *kept = ml_arena_alloc(c.arena, sizeof *kept);
      if (!kept) status = ml_fail_memory(err, sizeof *kept, "shape arithmetic");
      else *kept = v, c.of[n->out[0]->id] = kept;
    }
  }
  ml_free(c.of);
  ml_arena_free(c.arena);
  ML_TRY(status);
  ml_graph_remove_if(g, is_constant_now);
  ML_TRY(ml_graph_prune(g, err));
  return ml_graph_infer(g, err);
}
