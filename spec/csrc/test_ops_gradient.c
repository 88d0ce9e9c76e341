/* Gradients of the operators of shape, reduction, product, normalisation and loss, in float64 against central differences of
 * sum_k r_k . out_k with fixed "random" r. The gradient driver here is eager: emitting a node runs it at once. Every case runs
 * with all shapes known to the gradient code, and again with the first dimension of everything computed or fed hidden, as a graph
 * with an open batch has it. */
#include "ops_case.h"

/* ---------------------------------------------------------------- an eager driver ---- */
struct ml_value {
  ml_view view;
  ml_view shown; /* what gradient code is told */
};

enum { VALUES = 256 };

typedef struct tape {
  ml_grad g; /* first */
  struct ml_value values[VALUES];
  size_t n;
  bool hide; /* first dimensions */
  ml_error err;
} tape;

static void copy_view(ml_view *to, const ml_view *from) {
  *to = *from;
  size_t bytes = from->count * ml_dtype_size(from->dtype);
  to->data = malloc(bytes ? bytes : 1);
  if (to->data && bytes) memcpy(to->data, from->data, bytes);
}

static ml_value *add(tape *t, const ml_view *view, bool constant) {
  if (t->n == VALUES) return NULL;
  ml_value *v = &t->values[t->n++];
  copy_view(&v->view, view);
  v->shown = v->view;
  if (!constant) {
    v->shown.data = NULL;
    if (t->hide && v->shown.rank > 0) {
      v->shown.dims[0] = ML_UNKNOWN;
      v->shown.count = 0;
    }
  }
  return v;
}

static ml_status emit(ml_grad *g, const char *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in,
                      size_t n_out, ml_value **out) {
  tape *t = (tape *)g;
  const char *dot = strchr(op, '.');
  char domain[16] = "";
  ml_view *views[8];
  ml_attrs list = { attrs, n_attrs };
  op_run r;
  for (size_t i = 0; i < n_out; i++) out[i] = NULL;
  if (t->err.code) return t->err.code;
  if (dot) snprintf(domain, sizeof domain, "%.*s", (int)(dot - op), op);
  const ml_op_def *def = ml_op_find(domain, dot ? dot + 1 : op);
  if (!def) return ml_fail(&t->err, ML_NOT_FOUND, "no operator '%s'", op);
  for (size_t i = 0; i < n_in; i++) views[i] = in[i] ? &in[i]->view : NULL;
  ml_status status = op_execute(def, &list, ml_kernel_table(), (int32_t)n_in, views, (int32_t)n_out, &r, &t->err);
  if (status != ML_OK) ml_fail_in(&t->err, status, "%s", op);
  for (size_t i = 0; i < n_out && status == ML_OK; i++) out[i] = add(t, &r.out[i], false);
  op_run_free(&r);
  return status;
}

static ml_value *constant(ml_grad *g, double value, ml_value *like) {
  double room = 0;
  if (!like) return NULL;
  ml_element_set(&room, like->view.dtype, 0, value);
  ml_view v = SCALAR(&room, like->view.dtype);
  return add((tape *)g, &v, true);
}

static ml_value *ints(ml_grad *g, const int64_t *values, size_t count) {
  ml_view v = { .data = (void *)(uintptr_t)values, .count = count, .dtype = ML_INT64, .rank = 1, .dims = { (int64_t)count } };
  return add((tape *)g, &v, true);
}

static const ml_view *shape_of(ml_grad *g, const ml_value *value) {
  (void)g;
  return value ? &value->shown : NULL;
}

/* ---------------------------------------------------------------- the check ---- */
typedef struct grad_case {
  const char *name, *domain, *op;
  ml_attr attrs[3];
  size_t n_attrs;
  ml_view in[5];
  int32_t n_in, n_out;
  int32_t differentiate; /* inputs 0 … differentiate-1 */
  uint32_t only;         /* (optional) mask of outputs whose gradient flows; 0: all */
} grad_case;

static double weight_of(int32_t k, size_t i) { return sin(1.0 + 3.7 * (double)k + 1.3 * (double)i); }

static bool objective(const grad_case *c, const ml_op_def *op, const ml_attrs *attrs, ml_view *const *in, double *sum) {
  op_run r;
  ml_error err = { 0 };
  ml_status status = op_execute(op, attrs, ml_kernel_table(), c->n_in, in, c->n_out, &r, &err);
  *sum = 0;
  for (int32_t k = 0; k < c->n_out && status == ML_OK; k++)
    for (size_t i = 0; i < r.out[k].count && (!c->only || (c->only >> k & 1)); i++)
      *sum += weight_of(k, i) * ml_element_get(r.out[k].data, r.out[k].dtype, i);
  op_run_free(&r);
  return ok(status == ML_OK, "%s: %s", c->name, err.message);
}

static void check_input(const grad_case *c, const ml_op_def *op, const ml_attrs *attrs, int32_t which, const ml_value *din,
                        bool hide) {
  ml_view in[5], *pointers[5];
  const double h = 1e-6;
  if (!ok(din != NULL, "%s: input %d has a gradient", c->name, (int)which)) return;
  if (!ok(ml_shape_equal(din->view.dims, din->view.rank, c->in[which].dims, c->in[which].rank) &&
              din->view.dtype == c->in[which].dtype,
          "%s: gradient %d has the shape of its input", c->name, (int)which))
    return;
  for (int32_t i = 0; i < c->n_in; i++) {
    in[i] = c->in[i];
    pointers[i] = in[i].dtype ? &in[i] : NULL;
  }
  copy_view(&in[which], &c->in[which]);
  double *x = in[which].data;
  for (size_t i = 0; i < in[which].count; i++) {
    double keep = x[i], up, down;
    x[i] = keep + h;
    if (!objective(c, op, attrs, pointers, &up)) break;
    x[i] = keep - h;
    if (!objective(c, op, attrs, pointers, &down)) break;
    x[i] = keep;
    double want = (up - down) / (2 * h), got = ((const double *)din->view.data)[i];
    if (!ok(fabs(want - got) <= 2e-6 * (1 + fabs(want)), "%s%s: input %d, element %zu: got %.9g, differences %.9g", c->name,
            hide ? " (hidden)" : "", (int)which, i, got, want))
      break;
  }
  free(in[which].data);
}

static void check(const grad_case *c, bool hide) {
  static tape t;
  const ml_op_def *op = ml_op_find(c->domain, c->op);
  ml_attrs attrs = { c->attrs, c->n_attrs };
  ml_view *views[5];
  ml_value *in[5] = { NULL }, *out[5] = { NULL }, *dout[5] = { NULL }, *din[5] = { NULL };
  bool needs[5];
  op_run r;
  if (!ok(op && op->gradient, "%s: operator with a gradient", c->name)) return;
  memset(&t, 0, sizeof t);
  t.hide = hide;
  for (int32_t i = 0; i < c->n_in; i++) {
    views[i] = c->in[i].dtype ? (ml_view *)(uintptr_t)&c->in[i] : NULL;
    needs[i] = i < c->differentiate;
    if (views[i]) in[i] = add(&t, views[i], i >= c->differentiate && !ml_dtype_is_float(c->in[i].dtype));
  }
  ml_status status = op_execute(op, &attrs, ml_kernel_table(), c->n_in, views, c->n_out, &r, &t.err);
  for (int32_t k = 0; k < c->n_out && status == ML_OK; k++) {
    out[k] = add(&t, &r.out[k], false);
    if (c->only && !(c->only >> k & 1)) continue;
    for (size_t i = 0; i < r.out[k].count; i++) ml_element_set(r.out[k].data, r.out[k].dtype, i, weight_of(k, i));
    dout[k] = add(&t, &r.out[k], false);
  }
  op_run_free(&r);
  if (status == ML_OK) {
    t.g = (ml_grad) { .op = op,
                      .attrs = &attrs,
                      .n_in = c->n_in,
                      .n_out = c->n_out,
                      .in = in,
                      .out = out,
                      .dout = dout,
                      .needs = needs,
                      .din = din,
                      .emit = emit,
                      .constant = constant,
                      .ints = ints,
                      .shape_of = shape_of };
    op->gradient(&t.g);
  }
  if (ok(t.err.code == ML_OK && t.n < VALUES, "%s%s: gradient: %s", c->name, hide ? " (hidden)" : "", t.err.message))
    for (int32_t i = 0; i < c->differentiate; i++)
      if (in[i]) check_input(c, op, &attrs, i, din[i], hide);
  for (size_t i = 0; i < t.n; i++) free(t.values[i].view.data);
}

/* ---------------------------------------------------------------- cases ---- */
static double numbers[6][64]; /* in (-2, 2), not near a kink of any function here */
static double positive[64], zeros_in[6] = { 0.5, 0, 2, 0, 0, 3 }, one_zero[6] = { 0.5, 0, 2, 1.5, -1, 3 }, targets[16],
                            probabilities[16];
static int64_t v_1[] = { 1 }, v_02[] = { 0, 2 }, v_m1[] = { -1 }, v_shape[] = { 2, -1 }, v_expand[] = { 4, 1, 3 },
               v_tile[] = { 2, 3 }, v_split[] = { 1, 3 };
static int64_t starts[] = { 3, 0 }, ends[] = { -100, 3 }, axes[] = { 0, 1 }, steps[] = { -2, 1 }, rows[] = { 2, 0, -1, 2 },
               classes[] = { 1, 3, 0, 2, 1, 9 };

#define X(k, ...) VIEW(numbers[k], ML_FLOAT64, __VA_ARGS__)
#define P(...) VIEW(positive, ML_FLOAT64, __VA_ARGS__)
#define I(list) VIEW(list, ML_INT64, (int64_t)(sizeof(list) / sizeof *(list)))
#define INT(key, value)                                                \
  {                                                                    \
    .name = key, .type = ML_ATTR_INT, .count = 1, .as = { .i = value } \
  }
#define FLOAT(key, value)                                                \
  {                                                                      \
    .name = key, .type = ML_ATTR_FLOAT, .count = 1, .as = { .f = value } \
  }
#define TEXT(key, value)                                                                        \
  {                                                                                             \
    .name = key, .type = ML_ATTR_STRING, .count = 1, .as = { .s = { value, sizeof value - 1 } } \
  }

static void reductions(void) {
  static const char *const names[] = { "ReduceSum", "ReduceMean", "ReduceMax",    "ReduceMin",       "ReduceProd",
                                       "ReduceL1",  "ReduceL2",   "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare" };
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    for (int64_t keep = 0; keep < 2; keep++) {
      ml_view x = strcmp(names[i], "ReduceLogSum") == 0 ? P(2, 3, 2) : X(0, 2, 3, 2);
      grad_case one = { names[i], "", names[i], { INT("keepdims", keep) }, 1, { x, I(v_1) }, 2, 1, 1, 0 };
      grad_case two = { names[i], "", names[i], { INT("keepdims", keep) }, 1, { x, I(v_02) }, 2, 1, 1, 0 };
      grad_case all = { names[i], "", names[i], { INT("keepdims", keep) }, 1, { x }, 1, 1, 1, 0 };
      for (int hide = 0; hide < 2; hide++) {
        check(&one, hide);
        check(&two, hide);
        check(&all, hide);
      }
    }
}

static const char text_none[] = "none", text_sum[] = "sum";

int main(void) {
  for (size_t k = 0; k < 6; k++)
    for (size_t i = 0; i < 64; i++)
      numbers[k][i] = 1.9 * sin(0.7 + 12.9898 * (double)(i + 1) + 78.233 * (double)k) + (i % 2 ? 0.01 : -0.01);
  for (size_t i = 0; i < 64; i++) positive[i] = 0.2 + fabs(numbers[1][i]);
  for (size_t i = 0; i < 16; i++) {
    targets[i] = i % 3 ? 0.25 : 1;
    probabilities[i] = 0.1 + 0.05 * (double)i;
  }
  const grad_case cases[] = {
    { "reshape", "", "Reshape", { { 0 } }, 0, { X(0, 2, 3, 2), I(v_shape) }, 2, 1, 1, 0 },
    { "flatten", "", "Flatten", { { 0 } }, 0, { X(0, 2, 3, 2) }, 1, 1, 1, 0 },
    { "identity", "", "Identity", { { 0 } }, 0, { X(0, 2, 3) }, 1, 1, 1, 0 },
    { "squeeze", "", "Squeeze", { { 0 } }, 0, { X(0, 3, 1, 2), I(v_1) }, 2, 1, 1, 0 },
    { "unsqueeze", "", "Unsqueeze", { { 0 } }, 0, { X(0, 3, 2), I(v_02) }, 2, 1, 1, 0 },
    { "transpose", "", "Transpose", { { 0 } }, 0, { X(0, 3, 2, 2) }, 1, 1, 1, 0 },
    { "transpose perm",
      "",
      "Transpose",
      { { .name = "perm", .type = ML_ATTR_INTS, .count = 3, .as = { .ints = (const int64_t[]) { 1, 2, 0 } } } },
      1,
      { X(0, 3, 2, 4) },
      1,
      1,
      1,
      0 },
    { "concat", "", "Concat", { INT("axis", 1) }, 1, { X(0, 2, 3), X(1, 2, 1), X(2, 2, 2) }, 3, 1, 3, 0 },
    { "concat 0", "", "Concat", { INT("axis", 0) }, 1, { X(0, 2, 3), X(1, 1, 3) }, 2, 1, 2, 0 },
    { "concat -1", "", "Concat", { INT("axis", -1) }, 1, { X(0, 2), X(1, 3) }, 2, 1, 2, 0 },
    { "split", "", "Split", { INT("axis", 1) }, 1, { X(0, 2, 4), I(v_split) }, 2, 2, 1, 0 },
    { "split, one part", "", "Split", { INT("axis", 1) }, 1, { X(0, 2, 4), I(v_split) }, 2, 2, 1, 2 },
    { "slice", "", "Slice", { { 0 } }, 0, { X(0, 5, 4), I(starts), I(ends), I(axes), I(steps) }, 5, 1, 1, 0 },
    { "slice plain", "", "Slice", { { 0 } }, 0, { X(0, 5, 4), I(v_1), I(v_m1) }, 3, 1, 1, 0 },
    { "gather", "", "Gather", { { 0 } }, 0, { X(0, 3, 2), I(rows) }, 2, 1, 1, 0 },
    { "gather 1", "", "Gather", { INT("axis", 1) }, 1, { X(0, 2, 3, 2), I(rows) }, 2, 1, 1, 0 },
    { "expand up", "", "Expand", { { 0 } }, 0, { X(0, 1, 3), VIEW(v_expand, ML_INT64, 3) }, 2, 1, 1, 0 },
    { "tile", "", "Tile", { { 0 } }, 0, { X(0, 2, 2), I(v_tile) }, 2, 1, 1, 0 },
    { "cast", "", "Cast", { INT("to", ML_FLOAT64) }, 1, { X(0, 2, 2) }, 1, 1, 1, 0 },
    { "product with a zero", "", "ReduceProd", { { 0 } }, 0, { VIEW(one_zero, ML_FLOAT64, 2, 3), I(v_1) }, 2, 1, 1, 0 },
    { "product with zeros", "", "ReduceProd", { { 0 } }, 0, { VIEW(zeros_in, ML_FLOAT64, 2, 3), I(v_1) }, 2, 1, 1, 0 },
    { "gemm", "", "Gemm", { { 0 } }, 0, { X(0, 3, 4), X(1, 4, 2), X(2, 2) }, 3, 1, 3, 0 },
    { "gemm no C", "", "Gemm", { FLOAT("alpha", -0.5f) }, 1, { X(0, 3, 4), X(1, 4, 2) }, 2, 1, 2, 0 },
    { "gemm A'",
      "",
      "Gemm",
      { INT("transA", 1), FLOAT("alpha", 1.5f), FLOAT("beta", 0.5f) },
      3,
      { X(0, 4, 3), X(1, 4, 2), X(2, 3, 1) },
      3,
      1,
      3,
      0 },
    { "gemm B'", "", "Gemm", { INT("transB", 1), FLOAT("alpha", 0.25f) }, 2, { X(0, 3, 4), X(1, 2, 4), X(2, 3, 2) }, 3, 1, 3, 0 },
    { "gemm A'B'",
      "",
      "Gemm",
      { INT("transA", 1), INT("transB", 1), FLOAT("beta", -2) },
      3,
      { X(0, 4, 3), X(1, 2, 4), SCALAR(numbers[2], ML_FLOAT64) },
      3,
      1,
      3,
      0 },
    { "matmul", "", "MatMul", { { 0 } }, 0, { X(0, 3, 4), X(1, 4, 2) }, 2, 1, 2, 0 },
    { "matmul layer", "", "MatMul", { { 0 } }, 0, { X(0, 2, 3, 4), X(1, 4, 2) }, 2, 1, 2, 0 },
    { "matmul batch", "", "MatMul", { { 0 } }, 0, { X(0, 2, 1, 2, 3), X(1, 2, 3, 2) }, 2, 1, 2, 0 },
    { "matmul right batch", "", "MatMul", { { 0 } }, 0, { X(0, 2, 3), X(1, 2, 3, 2) }, 2, 1, 2, 0 },
    { "matmul vectors", "", "MatMul", { { 0 } }, 0, { X(0, 4), X(1, 4) }, 2, 1, 2, 0 },
    { "matmul vector matrix", "", "MatMul", { { 0 } }, 0, { X(0, 3), X(1, 3, 2) }, 2, 1, 2, 0 },
    { "matmul vector batch", "", "MatMul", { { 0 } }, 0, { X(0, 3), X(1, 2, 3, 2) }, 2, 1, 2, 0 },
    { "matmul batch vector", "", "MatMul", { { 0 } }, 0, { X(0, 2, 3, 2), X(1, 2) }, 2, 1, 2, 0 },
    { "batch normalisation",
      "",
      "BatchNormalization",
      { { 0 } },
      0,
      { X(0, 4, 3), X(1, 3), X(2, 3), X(3, 3), P(3) },
      5,
      1,
      3,
      0 },
    { "batch normalisation, training",
      "",
      "BatchNormalization",
      { INT("training_mode", 1) },
      1,
      { X(0, 4, 3), X(1, 3), X(2, 3), X(3, 3), P(3) },
      5,
      1,
      3,
      0 },
    { "batch normalisation, images",
      "",
      "BatchNormalization",
      { INT("training_mode", 1), FLOAT("epsilon", 0.1f) },
      2,
      { X(0, 2, 3, 2, 2), X(1, 3), X(2, 3), X(3, 3), P(3) },
      5,
      1,
      3,
      0 },
    { "layer normalisation", "", "LayerNormalization", { { 0 } }, 0, { X(0, 3, 5), X(1, 5), X(2, 5) }, 3, 1, 3, 0 },
    { "layer normalisation, two axes",
      "",
      "LayerNormalization",
      { INT("axis", 1) },
      1,
      { X(0, 2, 3, 2), X(1, 2), X(2, 3, 1) },
      3,
      1,
      3,
      0 },
    { "layer normalisation, no bias", "", "LayerNormalization", { INT("axis", 0) }, 1, { X(0, 2, 3), X(1, 2, 3) }, 2, 1, 2, 0 },
    { "softmax loss", "", "SoftmaxCrossEntropyLoss", { { 0 } }, 0, { X(0, 4, 4), VIEW(classes, ML_INT64, 4) }, 2, 1, 1, 0 },
    { "softmax loss, log_prob",
      "",
      "SoftmaxCrossEntropyLoss",
      { INT("ignore_index", 9) },
      1,
      { X(0, 3, 4, 2), VIEW(classes, ML_INT64, 3, 2), P(4) },
      3,
      2,
      1,
      0 },
    { "softmax loss, only log_prob",
      "",
      "SoftmaxCrossEntropyLoss",
      { { 0 } },
      0,
      { X(0, 4, 4), VIEW(classes, ML_INT64, 4) },
      2,
      2,
      1,
      2 },
    { "softmax loss, none",
      "",
      "SoftmaxCrossEntropyLoss",
      { TEXT("reduction", text_none), INT("ignore_index", 9) },
      2,
      { X(0, 3, 4, 2), VIEW(classes, ML_INT64, 3, 2), P(4) },
      3,
      1,
      1,
      0 },
    { "nll loss",
      "",
      "NegativeLogLikelihoodLoss",
      { INT("ignore_index", 9) },
      1,
      { X(0, 6, 4), VIEW(classes, ML_INT64, 6), P(4) },
      3,
      1,
      1,
      0 },
    { "nll loss, sum",
      "",
      "NegativeLogLikelihoodLoss",
      { TEXT("reduction", text_sum) },
      1,
      { X(0, 2, 4, 2), VIEW(classes, ML_INT64, 2, 2) },
      2,
      1,
      1,
      0 },
    { "squared error", "mlserve", "SquaredError", { { 0 } }, 0, { X(0, 4, 3), X(1, 4, 3), P(4) }, 3, 1, 1, 0 },
    { "absolute error", "mlserve", "AbsoluteError", { { 0 } }, 0, { X(0, 4, 3), X(1, 4, 3) }, 2, 1, 1, 0 },
    { "huber loss", "mlserve", "HuberLoss", { FLOAT("delta", 0.7f) }, 1, { X(0, 4, 3), X(1, 4, 3), P(4, 1) }, 3, 1, 1, 0 },
    { "binary cross-entropy",
      "mlserve",
      "BinaryCrossEntropy",
      { { 0 } },
      0,
      { VIEW(probabilities, ML_FLOAT64, 8, 2), VIEW(targets, ML_FLOAT64, 8, 2), P(8) },
      3,
      1,
      1,
      0 },
    { "sigmoid cross-entropy",
      "mlserve",
      "SigmoidCrossEntropy",
      { { 0 } },
      0,
      { X(0, 16), VIEW(targets, ML_FLOAT64, 16, 1), P(16) },
      3,
      1,
      1,
      0 },
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
    for (int hide = 0; hide < 2; hide++) check(&cases[i], hide);
  reductions();
  return done();
}
