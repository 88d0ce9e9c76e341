/* Tests of ops/op.c and of the element-wise operators, activations, softmax and their gradients.
 * Expected values: spec/golden/ops_elementwise.h (NumPy, SciPy, cross-checked with ONNX Runtime). Gradients: central
 * differences in float64. The gradient tests run an eager ml_grad: every emitted node is computed at once. */
#include <math.h>
#include <string.h>
#include "../golden/ops_elementwise.h"
#include "base/rng.h"
#include "base/thread.h"
#include "kernels/kernels.h"
#include "tap.h"

/* ---------------------------------------------------------------- calling operators directly ---- */
enum { MAX_IO = 8 };

typedef struct call {
  ml_op_ctx ctx;
  ml_attrs attrs;
  ml_run run;
  ml_view in[MAX_IO], out[MAX_IO];
  ml_view *in_at[MAX_IO], *out_at[MAX_IO];
  ml_error err;
} call;

static ml_view view_of(ml_dtype dtype, int32_t rank, const int64_t *dims, const void *data) {
  ml_view v = { .data = (void *)(uintptr_t)data, .dtype = dtype, .rank = rank };
  v.count = rank >= 0;
  for (int32_t d = 0; d < rank; ++d) {
    v.dims[d] = dims[d];
    v.count = dims[d] < 0 ? 0 : v.count * (size_t)dims[d];
  }
  return v;
}

#define DIMS(...) (int32_t)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t)), (const int64_t[]){ __VA_ARGS__ }
#define F32(data, ...) view_of(ML_FLOAT32, DIMS(__VA_ARGS__), data)
#define F64(data, ...) view_of(ML_FLOAT64, DIMS(__VA_ARGS__), data)
#define SCALAR(dtype, data) view_of(dtype, 0, NULL, data)

static void call_new(call *c, const char *domain, const char *op, const ml_attr *attrs, size_t n_attrs, int32_t n_in,
                     int32_t n_out) {
  memset(c, 0, sizeof *c);
  c->attrs = (ml_attrs){ attrs, n_attrs };
  c->run = (ml_run){ .seed = 7, .step = 3, .kernels = ml_kernel_table() };
  c->ctx = (ml_op_ctx){ .op = ml_op_find(domain, op),
                        .attrs = &c->attrs,
                        .name = "n",
                        .n_in = n_in,
                        .n_out = n_out,
                        .in = c->in_at,
                        .out = c->out_at,
                        .stream = 5,
                        .run = &c->run };
  for (int i = 0; i < MAX_IO; ++i) {
    c->in_at[i] = &c->in[i];
    c->out_at[i] = &c->out[i];
  }
}

/* infer must fail and its message contain `text` */
static void refuses(call *c, const char *text) {
  const ml_status status = c->ctx.op->infer(&c->ctx, &c->err);
  ok(status == ML_INVALID_ARGUMENT && strstr(c->err.message, text) != NULL, "%s refuses: %s (%d %s)", c->ctx.op->name, text,
     (int)status, c->err.message);
}

static bool close_to(double got, double want, double rtol, double atol) {
  if (isnan(want)) return isnan(got);
  if (isinf(want)) return got == want;
  return fabs(got - want) <= atol + rtol * fabs(want);
}

/* compares an output with the table */
static bool same_as(const ml_view *got, const gold_tensor *want, double rtol, char *why, size_t size) {
  if ((int)got->dtype != want->dtype) return snprintf(why, size, "dtype %d", (int)got->dtype), false;
  if (!ml_shape_equal(got->dims, got->rank, want->dims, want->rank))
    return ml_shape_format(got->dims, got->rank, why, size), false;
  const size_t bytes = ml_dtype_size(got->dtype);
  for (size_t i = 0; i < got->count; ++i) {
    if (got->dtype == ML_STRING) {
      const ml_str a = ((const ml_str *)got->data)[i], b = ((const ml_str *)want->data)[i];
      if (a.length != b.length || memcmp(a.bytes, b.bytes, a.length) != 0) return snprintf(why, size, "string %zu", i), false;
    } else if (ml_dtype_is_float(got->dtype)) {
      const double a = ml_element_get(got->data, got->dtype, i), b = ml_element_get(want->data, got->dtype, i);
      if (!close_to(a, b, rtol, got->dtype == ML_FLOAT32 ? 2e-7 : 1e-15))
        return snprintf(why, size, "element %zu: %.9g, not %.9g", i, a, b), false;
    } else if (memcmp((const char *)got->data + i * bytes, (const char *)want->data + i * bytes, bytes) != 0) {
      return snprintf(why, size, "element %zu: %g, not %g", i, ml_element_get(got->data, got->dtype, i),
                      ml_element_get(want->data, got->dtype, i)),
             false;
    }
  }
  return true;
}

/* ---------------------------------------------------------------- the table ---- */
/* in_place: -1: apart, 0 or 1: output 0 lies in that input */
static void run_case(const gold_case *g, const ml_kernels *kernels, int in_place) {
  static _Alignas(64) char memory[MAX_IO][16384];
  ml_attr attrs[2];
  call c;
  for (size_t i = 0; i < g->n_attrs; ++i) {
    attrs[i] = (ml_attr){ .name = g->attrs[i].name, .type = g->attrs[i].type, .count = 1 };
    if (attrs[i].type == ML_ATTR_INT) attrs[i].as.i = g->attrs[i].i;
    else if (attrs[i].type == ML_ATTR_FLOAT) attrs[i].as.f = g->attrs[i].f;
    else attrs[i].as.s = (ml_str){ g->attrs[i].s, strlen(g->attrs[i].s) };
  }
  call_new(&c, g->domain, g->op, attrs, g->n_attrs, g->n_in, g->n_out);
  if (!ok(c.ctx.op != NULL && c.ctx.op->run != NULL, "%s: operator %s", g->name, g->op)) return;
  c.run.kernels = kernels;
  for (int32_t i = 0; i < g->n_in; ++i) {
    if (g->in[i].rank < 0) {
      c.in_at[i] = NULL;
      continue;
    }
    c.in[i] = view_of((ml_dtype)g->in[i].dtype, g->in[i].rank, g->in[i].dims, memory[i]);
    if (c.in[i].count > 0) memcpy(memory[i], g->in[i].data, c.in[i].count * ml_dtype_size(c.in[i].dtype));
  }
  if (!ok(c.ctx.op->infer(&c.ctx, &c.err) == ML_OK, "%s: infer: %s", g->name, c.err.message)) return;
  for (int32_t i = 0; i < g->n_out; ++i) c.out[i].data = memory[MAX_IO - 1 - i];
  if (in_place >= 0) {
    const ml_view *in = in_place < g->n_in ? c.in_at[in_place] : NULL;
    if ((c.ctx.op->flags & (in_place == 0 ? ML_OP_INPLACE : ML_OP_INPLACE1)) == 0 || in == NULL || in->dtype != c.out[0].dtype ||
        !ml_shape_equal(in->dims, in->rank, c.out[0].dims, c.out[0].rank)) return;
    c.out[0].data = in->data;
  }
  char why[256] = "";
  const ml_status status = c.ctx.op->run(&c.ctx, &c.err);
  bool same = status == ML_OK;
  for (int32_t i = 0; i < g->n_out && same; ++i) same = same_as(&c.out[i], &g->out[i], g->rtol, why, sizeof why);
  ok(same, "%s (%s, kernels %s, in place %d): %s %s", g->name, g->op, kernels->name, in_place, why,
     status == ML_OK ? "" : c.err.message);
}

static void test_table(void) {
  for (size_t i = 0; i < sizeof gold / sizeof gold[0]; ++i)
    for (int in_place = -1; in_place < 2; ++in_place) {
      run_case(&gold[i], ml_kernel_table(), in_place);
      run_case(&gold[i], ml_kernel_table_ref(), in_place);
    }
}

/* Long vectors: float32 against float64 through the same operator, so that blocks, remainders and the pool's chunks are met. */
static void test_long(void) {
  static const struct { const char *op; double low, high, rtol;
  } rows[] = {
    { "Abs", -9, 9, 0 },           { "Exp", -20, 20, 1e-5 },        { "Log", 0.01, 50, 1e-5 },
    { "Sqrt", 0, 50, 1e-6 },       { "Reciprocal", 0.1, 9, 1e-6 },  { "Erf", -4, 4, 1e-5 },
    { "Relu", -9, 9, 0 },          { "Sigmoid", -20, 20, 1e-5 },    { "Tanh", -9, 9, 1e-5 },
    { "Softplus", -20, 20, 1e-5 }, { "Softsign", -9, 9, 1e-6 },     { "LeakyRelu", -9, 9, 1e-6 },
    { "Elu", -9, 9, 1e-5 },        { "Selu", -9, 9, 1e-5 },         { "Celu", -9, 9, 1e-5 },
    { "HardSwish", -9, 9, 1e-5 },  { "Mish", -9, 9, 1e-5 },         { "Gelu", -3, 9, 1e-5 },
    { "Swish", -9, 9, 1e-5 },      { "ThresholdedRelu", -9, 9, 0 }, { "Round", -9, 9, 0 },
    { "Floor", -9, 9, 0 },         { "Softmax", -9, 9, 2e-5 },      { "LogSoftmax", -9, 9, 2e-5 },
  };
  enum { N = 140001 };
  float *x = ml_alloc(N * 4), *y = ml_alloc(N * 4);
  double *xd = ml_alloc(N * 8), *yd = ml_alloc(N * 8);
  if (!ok(x != NULL && y != NULL && xd != NULL && yd != NULL, "memory")) return;
  for (size_t r = 0; r < sizeof rows / sizeof rows[0]; ++r) {
    ml_rng_uniform(11, r, (float)rows[r].low, (float)rows[r].high, x, N);
    for (size_t i = 0; i < N; ++i) xd[i] = x[i];
    call c, d;
    call_new(&c, "", rows[r].op, NULL, 0, 1, 1);
    call_new(&d, "", rows[r].op, NULL, 0, 1, 1);
    const bool axis = strstr(rows[r].op, "oftmax") != NULL;
    c.in[0] = axis ? F32(x, 20000, 7) : F32(x, N);
    d.in[0] = axis ? F64(xd, 20000, 7) : F64(xd, N);
    c.ctx.op->infer(&c.ctx, &c.err);
    d.ctx.op->infer(&d.ctx, &d.err);
    c.out[0].data = y;
    d.out[0].data = yd;
    bool good = c.ctx.op->run(&c.ctx, &c.err) == ML_OK && d.ctx.op->run(&d.ctx, &d.err) == ML_OK;
    size_t bad = 0;
    for (size_t i = 0; i < c.out[0].count && good; ++i)
      if (!close_to(y[i], yd[i], rows[r].rtol, 4e-7)) good = false, bad = i;
    ok(good, "%s on %d elements: %g gives %g, not %g", rows[r].op, N, (double)x[bad], (double)y[bad], yd[bad]);
  }
  /* binary, with and without a row to repeat */
  call c;
  call_new(&c, "", "Sub", NULL, 0, 2, 1);
  float *z = ml_alloc(300000 * 4), *w = ml_alloc(300000 * 4);
  ml_rng_uniform(1, 1, -1, 1, z, 300000);
  for (int form = 0; form < 3; ++form) {
    c.in[0] = F32(z, 1000, 300);
    c.in[1] = form == 0 ? F32(z, 1000, 300) : form == 1 ? F32(z, 300) : F32(z, 1);
    c.ctx.op->infer(&c.ctx, &c.err);
    c.out[0].data = w;
    bool good = c.ctx.op->run(&c.ctx, &c.err) == ML_OK;
    for (size_t i = 0; i < 300000 && good; ++i) good = w[i] == z[i] - (form == 0 ? z[i] : form == 1 ? z[i % 300] : z[0]);
    ok(good, "Sub of 300000 elements, form %d", form);
  }
  ml_free(x); ml_free(y); ml_free(xd); ml_free(yd); ml_free(z); ml_free(w);
}

/* ---------------------------------------------------------------- op.c ---- */
static void test_registry(void) {
  ok(ml_op_count() > 100, "%zu operators", ml_op_count());
  ok(ml_op_find("", "Add") == &ml_op_add && ml_op_find("ai.onnx", "Add") == &ml_op_add && ml_op_find(NULL, "Add") == &ml_op_add,
     "Add is found");
  ok(ml_op_find("mlserve", "UnaryGrad") == &ml_op_unary_grad && ml_op_find("", "UnaryGrad") == NULL, "domains keep names apart");
  ok(ml_op_find("", "Addd") == NULL && ml_op_find("", "Ad") == NULL && ml_op_find("", "") == NULL && ml_op_find("", NULL) == NULL,
     "unknown names");
  ok(ml_op_at(0) == &ml_op_abs && ml_op_at(ml_op_count()) == NULL, "by index");
  for (size_t i = 0; i < ml_op_count(); ++i) {
    const ml_op_def *op = ml_op_at(i);
    ok(ml_op_find(op->domain, op->name) == op, "%s is found by its name", op->name);
  }
}

static void test_attributes(void) {
  const ml_attr items[] = { ml_attr_of_int("axis", 3), ml_attr_of_float("alpha", 0.5f), ml_attr_of_str("mode", "fast") };
  const ml_attrs attrs = { items, 3 };
  ok(ml_attr_int(&attrs, "axis", -1) == 3 && ml_attr_int(&attrs, "axes", -1) == -1 && ml_attr_int(NULL, "axis", 9) == 9, "int");
  ok(ml_attr_float(&attrs, "alpha", 1) == 0.5f && ml_attr_float(&attrs, "beta", 2) == 2, "float");
  ok(ml_attr_str(&attrs, "mode", "x").length == 4 && ml_attr_str(&attrs, "none", "xyz").length == 3, "string");
  ok(ml_attr_str(&attrs, "none", NULL).bytes == NULL, "string without fallback");
  ok(ml_attr_is(&attrs, "mode", "slow", "fast") && ml_attr_is(&attrs, "none", "slow", "slow") &&
         !ml_attr_is(&attrs, "mode", "slow", "fas"),
     "is");
}

static void test_ints(void) {
  int64_t out[4] = { 0 };
  size_t count;
  bool known;
  ml_error err;
  ml_view v = view_of(ML_INT64, DIMS(3), (const int64_t[]){ 5, -1, INT64_MIN });
  ok(ml_op_ints(&v, out, 4, &count, &known, "axes", &err) == ML_OK && known && count == 3 && out[2] == INT64_MIN, "int64 values");
  v = view_of(ML_INT32, DIMS(2), (const int32_t[]){ 5, -7 });
  ok(ml_op_ints(&v, out, 4, &count, &known, "axes", &err) == ML_OK && known && count == 2 && out[1] == -7, "int32 values");
  ok(ml_op_ints(&v, out, 1, &count, &known, "axes", &err) == ML_INVALID_ARGUMENT &&
         strstr(err.message, "axes has 2 values") != NULL,
     "too many");
  v.data = NULL;
  ok(ml_op_ints(&v, out, 4, &count, &known, "axes", &err) == ML_OK && !known && count == 2, "unknown values");
  v = view_of(ML_INT64, DIMS(0), NULL);
  ok(ml_op_ints(&v, out, 4, &count, &known, "axes", &err) == ML_OK && known && count == 0, "no values");
  v = F32(NULL, 2);
  ok(ml_op_ints(&v, out, 4, &count, &known, "axes", &err) == ML_INVALID_ARGUMENT && strstr(err.message, "float32") != NULL,
     "wrong dtype");
  ok(ml_op_ints(NULL, out, 4, &count, &known, "axes", &err) == ML_OK && !known, "left out");
}

static void test_broadcasting(void) {
  const ml_view out = F32(NULL, 2, 3, 4, 5), a = F32(NULL, 4, 5), b = F32(NULL, 2, 1, 1, 1), s = SCALAR(ML_FLOAT32, NULL);
  ml_bcast bc;
  ml_bcast_init(&bc, &out, (const ml_view *const[]){ &a, &b, &s }, 3);
  ok(bc.rank == 3 && bc.dims[0] == 2 && bc.dims[1] == 3 && bc.dims[2] == 20, "adjacent dimensions are merged");
  ok(bc.stride[0][0] == 0 && bc.stride[0][2] == 1 && bc.stride[1][0] == 1 && bc.stride[1][1] == 0 && bc.stride[2][2] == 0,
     "strides");
  ml_bcast_init(&bc, &out, (const ml_view *const[]){ &out, &s }, 2);
  ok(bc.rank == 1 && bc.dims[0] == 120 && bc.stride[0][0] == 1 && bc.stride[1][0] == 0, "everything is merged");
  ml_bcast_init(&bc, &s, (const ml_view *const[]){ &s }, 1);
  ok(bc.rank == 1 && bc.dims[0] == 1, "scalars");

  call c;
  call_new(&c, "", "Add", NULL, 0, 2, 1);
  c.in[0] = F32(NULL, -1, 3);
  c.in[1] = F32(NULL, 3);
  ok(c.ctx.op->infer(&c.ctx, &c.err) == ML_OK && c.out[0].rank == 2 && c.out[0].dims[0] == -1 && c.out[0].dims[1] == 3 &&
         c.out[0].count == 0,
     "unknown dimension stays unknown");
  c.in[1].rank = ML_UNKNOWN;
  ok(c.ctx.op->infer(&c.ctx, &c.err) == ML_OK && c.out[0].rank == ML_UNKNOWN, "unknown rank stays unknown");
}

/* ---------------------------------------------------------------- refusals ---- */
static void test_refusals(void) {
  call c;
  call_new(&c, "", "Add", NULL, 0, 2, 1);
  c.in[0] = F32(NULL, 2, 3);
  c.in[1] = F32(NULL, 4);
  refuses(&c, "(2, 3)");
  refuses(&c, "(4)");
  c.in[1] = F64(NULL, 3);
  refuses(&c, "inputs 0 and 1 must have one dtype, got float32 and float64");
  c.in[0] = view_of(ML_STRING, DIMS(3), NULL);
  refuses(&c, "input 0 has dtype string, expected one of float32, uint8");
  c.in_at[0] = NULL;
  refuses(&c, "input 0 is missing");
  call_new(&c, "", "Exp", NULL, 0, 1, 1);
  c.in[0] = view_of(ML_INT32, DIMS(3), NULL);
  refuses(&c, "input 0 has dtype int32, expected one of float32, float64");
  call_new(&c, "", "And", NULL, 0, 2, 1);
  c.in[0] = c.in[1] = F32(NULL, 3);
  refuses(&c, "expected one of bool");
  call_new(&c, "", "Clip", NULL, 0, 3, 1);
  c.in[0] = F32(NULL, 3);
  c.in[1] = F32(NULL, 3);
  c.in[2] = SCALAR(ML_FLOAT32, NULL);
  refuses(&c, "min must be a scalar, got shape (3)");
  c.in[1] = SCALAR(ML_FLOAT64, NULL);
  refuses(&c, "min must have the dtype of the input, float32, got float64");
  call_new(&c, "", "PRelu", NULL, 0, 2, 1);
  c.in[0] = F32(NULL, 3);
  c.in[1] = F32(NULL, 2, 3);
  refuses(&c, "slope of shape (2, 3)");
  call_new(&c, "", "Where", NULL, 0, 3, 1);
  c.in[0] = F32(NULL, 3);
  c.in[1] = c.in[2] = F32(NULL, 3);
  refuses(&c, "input 0 has dtype float32");
  c.in[0] = view_of(ML_BOOL, DIMS(3), NULL);
  c.in[2] = F64(NULL, 3);
  refuses(&c, "inputs 1 and 2");
  const ml_attr axis = ml_attr_of_int("axis", 2), form = ml_attr_of_str("approximate", "quick"),
                f = ml_attr_of_str("function", "Sine");
  call_new(&c, "", "Softmax", &axis, 1, 1, 1);
  c.in[0] = F32(NULL, 2, 3);
  refuses(&c, "axis");
  call_new(&c, "", "Gelu", &form, 1, 1, 1);
  c.in[0] = F32(NULL, 2, 3);
  refuses(&c, "got \"quick\"");
  call_new(&c, "mlserve", "UnaryGrad", &f, 1, 2, 1);
  c.in[0] = c.in[1] = F32(NULL, 2, 3);
  refuses(&c, "unknown function \"Sine\"");
  call_new(&c, "mlserve", "ReduceTo", NULL, 0, 2, 1);
  c.in[0] = F32(NULL, 2, 3);
  c.in[1] = F32(NULL, 2);
  refuses(&c, "shape (2, 3) cannot be summed to shape (2)");
  call_new(&c, "mlserve", "SoftmaxGrad", NULL, 0, 2, 1);
  c.in[0] = F32(NULL, 2, 3);
  c.in[1] = F32(NULL, 2);
  refuses(&c, "dy has shape (2)");
  call_new(&c, "", "Dropout", NULL, 0, 2, 1);
  c.in[0] = F32(NULL, 2, 3);
  c.in[1] = F32(NULL, 2);
  refuses(&c, "ratio must be a scalar");
}

/* ---------------------------------------------------------------- dropout ---- */
enum { DROP_N = 100003 };
static void dropout(call *c, float ratio, const float *x, float *y, uint8_t *mask) {
  static float r;
  static uint8_t yes = 1;
  r = ratio;
  call_new(c, "", "Dropout", NULL, 0, 3, 2);
  c->in[0] = F32(x, DROP_N);
  c->in[1] = SCALAR(ML_FLOAT32, &r);
  c->in[2] = SCALAR(ML_BOOL, &yes);
  c->ctx.op->infer(&c->ctx, &c->err);
  c->out[0].data = y;
  c->out[1].data = mask;
}

static void test_dropout(void) {
  float *x = ml_alloc(DROP_N * 4), *y = ml_alloc(DROP_N * 4), *z = ml_alloc(DROP_N * 4);
  uint8_t *mask = ml_alloc(DROP_N), *other = ml_alloc(DROP_N);
  call c;
  for (size_t i = 0; i < DROP_N; ++i) x[i] = (float)i + 1;
  dropout(&c, 0.3f, x, y, mask);
  ok(c.ctx.op->run(&c.ctx, &c.err) == ML_OK && c.out[1].dtype == ML_BOOL, "dropout runs");
  size_t kept = 0, wrong = 0;
  for (size_t i = 0; i < DROP_N; ++i) {
    kept += mask[i];
    wrong += !close_to(y[i], mask[i] ? x[i] / 0.7 : 0, 1e-6, 0);
  }
  ok(wrong == 0, "kept elements are scaled by 1 / (1 - ratio), others are 0");
  ok(fabs((double)kept / DROP_N - 0.7) < 0.007, "%zu of %d are kept (5 sigma)", kept, DROP_N);
  const int threads = ml_threads();
  ml_set_threads(1);
  dropout(&c, 0.3f, x, z, other);
  c.ctx.op->run(&c.ctx, &c.err);
  ml_set_threads(threads);
  ok(memcmp(mask, other, DROP_N) == 0 && memcmp(y, z, DROP_N * 4) == 0, "the same with one thread");
  static const char *const keys[] = { "step", "stream", "seed" };
  for (int key = 0; key < 3; ++key) {
    dropout(&c, 0.3f, x, z, other);
    if (key == 0) ++c.run.step;
    if (key == 1) ++c.ctx.stream;
    if (key == 2) ++c.run.seed;
    c.ctx.op->run(&c.ctx, &c.err);
    size_t equal = 0;
    for (size_t i = 0; i < DROP_N; ++i) equal += mask[i] == other[i];
    ok(fabs((double)equal / DROP_N - 0.58) < 0.01, "another %s gives an independent mask (%zu equal)", keys[key],
       equal); /* 0.7^2 + 0.3^2 */
  }
  dropout(&c, 1.0f, x, y, mask);
  c.ctx.op->run(&c.ctx, &c.err);
  ok(y[0] == 0 && y[DROP_N - 1] == 0 && mask[17] == 0, "ratio 1 drops everything");
  dropout(&c, 0.3f, x, y, NULL);
  c.out_at[1] = NULL;
  memcpy(z, x, DROP_N * 4);
  c.in[0].data = c.out[0].data = z;
  ok(c.ctx.op->run(&c.ctx, &c.err) == ML_OK && (z[0] == 0 || close_to(z[0], 1 / 0.7, 1e-6, 0)), "in place, without mask");
  dropout(&c, 1.5f, x, y, mask);
  ok(c.ctx.op->run(&c.ctx, &c.err) == ML_INVALID_ARGUMENT && strstr(c.err.message, "ratio must be in [0, 1], got 1.5") != NULL,
     "%s", c.err.message);
  dropout(&c, NAN, x, y, mask);
  ok(c.ctx.op->run(&c.ctx, &c.err) == ML_INVALID_ARGUMENT, "ratio NaN: %s", c.err.message);
  ml_free(x); ml_free(y); ml_free(z); ml_free(mask); ml_free(other);
}

/* ---------------------------------------------------------------- gradients ---- */
struct ml_value { /* what graph.h defines for the product: here, a computed tensor */
  ml_view view;
  bool constant;
};

typedef struct tape {
  ml_value values[256];
  size_t n_values, used;
  double memory[1 << 14];
  char error[600];
} tape;

static ml_value *tape_value(tape *t, ml_view view) {
  if (t->n_values == 256) return NULL;
  ml_value *value = &t->values[t->n_values++];
  *value = (ml_value){ .view = view };
  return value;
}

static void *tape_memory(tape *t, size_t bytes) {
  void *at = &t->memory[t->used];
  t->used += (bytes + 7) / 8;
  if (t->used > sizeof t->memory / sizeof t->memory[0]) abort();
  return at;
}

static ml_status tape_emit(ml_grad *g, const char *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in,
                           size_t n_out, ml_value **out) {
  tape *t = g->driver;
  const char *dot = strchr(op, '.');
  char domain[32] = "";
  if (dot != NULL) snprintf(domain, sizeof domain, "%.*s", (int)(dot - op), op);
  call c;
  call_new(&c, domain, dot == NULL ? op : dot + 1, attrs, n_attrs, (int32_t)n_in, (int32_t)n_out);
  ml_status status = c.ctx.op != NULL && c.ctx.op->run != NULL ? ML_OK : ML_NOT_FOUND;
  for (size_t i = 0; i < n_in; ++i) {
    if (in[i] == NULL) return ML_INTERNAL;
    c.in[i] = in[i]->view;
  }
  if (status == ML_OK) status = c.ctx.op->infer(&c.ctx, &c.err);
  for (size_t i = 0; i < n_out && status == ML_OK; ++i)
    c.out[i].data = tape_memory(t, c.out[i].count * ml_dtype_size(c.out[i].dtype));
  void *state = NULL;
  if (status == ML_OK && c.ctx.op->prepare != NULL) status = c.ctx.op->prepare(&c.ctx, &state, &c.err);
  c.ctx.state = state;
  if (status == ML_OK) status = c.ctx.op->run(&c.ctx, &c.err);
  if (status == ML_OK && c.ctx.op->release != NULL) c.ctx.op->release(state);
  if (status != ML_OK) {
    snprintf(t->error, sizeof t->error, "%s: %s", op, c.err.message);
    return status;
  }
  for (size_t i = 0; i < n_out; ++i) out[i] = tape_value(t, c.out[i]);
  return ML_OK;
}

static ml_value *tape_constant(ml_grad *g, double value, ml_value *like) {
  if (like == NULL) return NULL;
  void *data = tape_memory(g->driver, 8);
  ml_element_set(data, like->view.dtype, 0, value);
  return tape_value(g->driver, SCALAR(like->view.dtype, data));
}

static const ml_view *tape_shape_of(ml_grad *g, const ml_value *value) {
  static ml_view shape; /* data only of constants, as in the product */
  static ml_view pair[4];
  static int at;
  (void)g;
  shape = value->view;
  if (!value->constant) shape.data = NULL;
  pair[at = (at + 1) % 4] = shape;
  return &pair[at];
}

/* d sum(y * weight) / d inputs by the gradient and by central differences, in float64. kept: bit i: input i is a constant. */
static void check_gradient(const char *name, const char *op, const ml_attr *attrs, size_t n_attrs, int32_t n_in,
                           const ml_view *in, unsigned constants, int32_t n_out) {
  static tape t;
  memset(&t, 0, sizeof t);
  call c;
  call_new(&c, "", op, attrs, n_attrs, n_in, n_out);
  ml_value *gin[MAX_IO] = { NULL }, *gout[MAX_IO] = { NULL }, *dout[MAX_IO] = { NULL }, *din[MAX_IO] = { NULL };
  bool needs[MAX_IO] = { false };
  for (int32_t i = 0; i < n_in; ++i) {
    c.in[i] = in[i];
    if (in[i].dtype == ML_DTYPE_NONE) {
      c.in_at[i] = NULL;
      continue;
    }
    gin[i] = tape_value(&t, in[i]);
    gin[i]->constant = (constants >> i) & 1;
    needs[i] = in[i].dtype == ML_FLOAT64 && !gin[i]->constant;
  }
  if (!ok(c.ctx.op->infer(&c.ctx, &c.err) == ML_OK, "%s: %s", name, c.err.message)) return;
  for (int32_t i = 0; i < n_out; ++i) c.out[i].data = tape_memory(&t, c.out[i].count * ml_dtype_size(c.out[i].dtype));
  if (!ok(c.ctx.op->run(&c.ctx, &c.err) == ML_OK, "%s: %s", name, c.err.message)) return;
  for (int32_t i = 0; i < n_out; ++i) gout[i] = tape_value(&t, c.out[i]);
  const size_t n = c.out[0].count;
  double *weight = tape_memory(&t, n * 8);
  for (size_t i = 0; i < n; ++i) weight[i] = 0.3 + 0.17 * (double)(i % 7);
  ml_view dy = c.out[0];
  dy.data = weight;
  dout[0] = tape_value(&t, dy);
  ml_grad g = { .op = c.ctx.op,
                .attrs = &c.attrs,
                .n_in = n_in,
                .n_out = n_out,
                .in = gin,
                .out = gout,
                .dout = dout,
                .needs = needs,
                .din = din,
                .emit = tape_emit,
                .constant = tape_constant,
                .shape_of = tape_shape_of,
                .driver = &t };
  if (!ok(c.ctx.op->gradient != NULL, "%s: gradient exists", name)) return;
  c.ctx.op->gradient(&g);
  double *out = tape_memory(&t, n * 8);
  c.out[0].data = out;
  for (int32_t k = 0; k < n_in; ++k) {
    if (!needs[k]) continue;
    if (!ok(din[k] != NULL, "%s: gradient of input %d: %s", name, (int)k, t.error)) continue;
    if (!ok(din[k]->view.dtype == ML_FLOAT64 && ml_shape_equal(din[k]->view.dims, din[k]->view.rank, in[k].dims, in[k].rank),
            "%s: gradient of input %d has its shape", name, (int)k)) continue;
    for (size_t i = 0; i < in[k].count; ++i) {
      double *at = (double *)in[k].data + i, sum[2] = { 0, 0 };
      const double saved = *at, h = 1e-6 * (fabs(saved) > 1 ? fabs(saved) : 1);
      for (int side = 0; side < 2; ++side) {
        *at = saved + (side == 0 ? -h : h);
        c.ctx.op->run(&c.ctx, &c.err);
        for (size_t j = 0; j < n; ++j) sum[side] += weight[j] * out[j];
      }
      *at = saved;
      const double want = (sum[1] - sum[0]) / (2 * h), got = ((const double *)din[k]->view.data)[i];
      if (!close_to(got, want, 2e-6, 2e-8)) {
        ok(false, "%s: input %d element %zu: %.9g, not %.9g", name, (int)k, i, got, want);
        break;
      }
    }
    ok(true, "%s: input %d", name, (int)k);
  }
}

static void test_gradients(void) {
  double x[] = { -4.1, -3.2, -2, -0.9, -0.4, 0.3, 0.7, 1.2, 2.1, 3.3, 5.2, 7.4 },
         p[] = { 0.2, 0.5, 0.9, 1.3, 2.2, 3.1, 4, 5, 6, 7.5, 8, 9 };
  const ml_view vx = F64(x, 3, 4), vp = F64(p, 3, 4);
  static const char *const any[] = {
    "Abs",        "Exp",  "Neg",  "Erf",         "Relu",      "Sigmoid", "Tanh", "Softplus", "Softsign",        "LeakyRelu",
    "Elu",        "Selu", "Celu", "HardSigmoid", "HardSwish", "Mish",    "Gelu", "Swish",    "ThresholdedRelu", "Softmax",
    "LogSoftmax", "Max",  "Min",  "Sum",         "Mean",      "Dropout", "Clip"
  };
  for (size_t i = 0; i < sizeof any / sizeof any[0]; ++i) check_gradient(any[i], any[i], NULL, 0, 1, &vx, 0, 1);
  static const char *const positive[] = { "Log", "Sqrt", "Reciprocal" };
  for (size_t i = 0; i < 3; ++i) check_gradient(positive[i], positive[i], NULL, 0, 1, &vp, 0, 1);
  const ml_attr alpha = ml_attr_of_float("alpha", 0.6f), both[] = { alpha, ml_attr_of_float("beta", 0.3f) },
                selu[] = { alpha, ml_attr_of_float("gamma", 1.3f) }, form = ml_attr_of_str("approximate", "tanh"),
                axis = ml_attr_of_int("axis", 0), middle = ml_attr_of_int("axis", 1), fmod1 = ml_attr_of_int("fmod", 1);
  static const char *const with_alpha[] = { "LeakyRelu", "Elu", "Celu", "Swish", "ThresholdedRelu" };
  for (size_t i = 0; i < 5; ++i) check_gradient("with alpha", with_alpha[i], &alpha, 1, 1, &vx, 0, 1);
  check_gradient("HardSigmoid set", "HardSigmoid", both, 2, 1, &vx, 0, 1);
  check_gradient("Selu set", "Selu", selu, 2, 1, &vx, 0, 1);
  check_gradient("Gelu tanh", "Gelu", &form, 1, 1, &vx, 0, 1);
  check_gradient("Softmax axis 0", "Softmax", &axis, 1, 1, &vx, 0, 1);
  const ml_view cube = F64(x, 2, 3, 2);
  check_gradient("LogSoftmax axis 1", "LogSoftmax", &middle, 1, 1, &cube, 0, 1);
  check_gradient("Softmax axis 1", "Softmax", &middle, 1, 1, &cube, 0, 1);

  double y[] = { 1.1, -0.6, 2.3, 0.9, -1.7, 0.45, 1.9, -2.4, 0.33, 1.6, -0.8, 2.7 }, row[] = { 0.8, -1.3, 2.4, 0.6 },
         column[] = { 1.4, -0.7, 2.2 }, one = 1.7;
  const ml_view operands[] = { F64(y, 3, 4), F64(row, 4), F64(column, 3, 1), SCALAR(ML_FLOAT64, &one), F64(&one, 1, 1, 1) };
  static const char *const binary[] = { "Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean" };
  for (size_t i = 0; i < 8; ++i)
    for (size_t k = 0; k < 5; ++k) {
      char name[64];
      snprintf(name, sizeof name, "%s form %zu", binary[i], k);
      check_gradient(name, binary[i], NULL, 0, 2, (const ml_view[]){ vx, operands[k] }, 0, 1);
      check_gradient(name, binary[i], NULL, 0, 2, (const ml_view[]){ operands[k], vx }, 0, 1);
    }
  check_gradient("outer product", "Mul", NULL, 0, 2, (const ml_view[]){ operands[1], operands[2] }, 0, 1);
  static const char *const variadic[] = { "Max", "Min", "Sum", "Mean" };
  for (size_t i = 0; i < 4; ++i)
    check_gradient("of three", variadic[i], NULL, 0, 3, (const ml_view[]){ operands[1], vx, operands[2] }, 0, 1);
  check_gradient("Mod", "Mod", &fmod1, 1, 2, (const ml_view[]){ vx, operands[3] }, 0, 1);
  check_gradient("PRelu", "PRelu", NULL, 0, 2, (const ml_view[]){ vx, operands[1] }, 0, 1);
  check_gradient("PRelu column", "PRelu", NULL, 0, 2, (const ml_view[]){ vx, operands[2] }, 0, 1);

  double exponent[] = { 2, 3, 0.5, -1.5 }, zero[] = { 0, 1, 2, 0 }, base[] = { 0, 0.5, 2, 1.5 };
  int64_t whole[] = { 2, 3, 0, -1 };
  check_gradient("Pow", "Pow", NULL, 0, 2, (const ml_view[]){ vp, F64(exponent, 4) }, 0, 1);
  check_gradient("Pow constant", "Pow", NULL, 0, 2, (const ml_view[]){ vp, F64(exponent, 4) }, 2, 1);
  check_gradient("Pow square", "Pow", NULL, 0, 2, (const ml_view[]){ vx, SCALAR(ML_FLOAT64, exponent) }, 2, 1);
  check_gradient("Pow zero exponent", "Pow", NULL, 0, 2, (const ml_view[]){ F64(base, 4), F64(zero, 4) }, 2, 1);
  check_gradient("Pow int exponent", "Pow", NULL, 0, 2, (const ml_view[]){ vx, view_of(ML_INT64, DIMS(4), whole) }, 2, 1);

  const double low = -1, high = 3;
  check_gradient("Clip both", "Clip", NULL, 0, 3, (const ml_view[]){ vx, SCALAR(ML_FLOAT64, &low), SCALAR(ML_FLOAT64, &high) }, 6,
                 1);
  check_gradient("Clip high", "Clip", NULL, 0, 3, (const ml_view[]){ vx, { 0 }, SCALAR(ML_FLOAT64, &high) }, 6, 1);
  const uint8_t condition[] = { 1, 0, 1 }, yes = 1, no = 0;
  check_gradient("Where", "Where", NULL, 0, 3, (const ml_view[]){ view_of(ML_BOOL, DIMS(3, 1), condition), vx, operands[1] }, 1,
                 1);
  check_gradient("Where outer", "Where", NULL, 0, 3,
                 (const ml_view[]){ view_of(ML_BOOL, DIMS(3, 1), condition), operands[1], operands[3] }, 1, 1);
  const float ratio = 0.4f;
  const ml_view vr = SCALAR(ML_FLOAT32, &ratio), on = SCALAR(ML_BOOL, &yes), off = SCALAR(ML_BOOL, &no);
  check_gradient("Dropout constant", "Dropout", NULL, 0, 3, (const ml_view[]){ vx, vr, on }, 6, 2);
  check_gradient("Dropout inputs", "Dropout", NULL, 0, 3, (const ml_view[]){ vx, vr, on }, 0, 2);
  check_gradient("Dropout off", "Dropout", NULL, 0, 3, (const ml_view[]){ vx, vr, off }, 6, 2);
  check_gradient("Dropout inputs off", "Dropout", NULL, 0, 3, (const ml_view[]){ vx, vr, off }, 0, 2);
}

/* Where shapes are partly unknown, gradients are summed only where that can be needed: batch plus bias costs one ReduceTo. */
static ml_view unknown_shapes[2];
static int emitted;

static const ml_view *unknown_shape_of(ml_grad *g, const ml_value *value) {
  return value == g->in[0] ? &unknown_shapes[0] : value == g->in[1] ? &unknown_shapes[1] : tape_shape_of(g, value);
}

static ml_status counting_emit(ml_grad *g, const char *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in,
                               size_t n_out, ml_value **out) {
  ++emitted;
  return tape_emit(g, op, attrs, n_attrs, n_in, in, n_out, out);
}

static void test_needless_sums(void) {
  static const struct { ml_view a, b; int nodes; } rows[] = {
    { { .rank = 2, .dims = { -1, 4 } }, { .rank = 1, .dims = { 4 } }, 1 },
    { { .rank = 2, .dims = { -1, 4 } }, { .rank = 0 }, 1 },
    { { .rank = 2, .dims = { -1, 4 } }, { .rank = 2, .dims = { 1, 4 } }, 1 },
    { { .rank = 2, .dims = { -1, 4 } }, { .rank = 2, .dims = { -1, 4 } }, 2 }, /* either may turn out to be 1 */
    { { .rank = 2, .dims = { 3, 4 } }, { .rank = 2, .dims = { 3, 4 } }, 0 },
    { { .rank = 2, .dims = { 3, 4 } }, { .rank = 2, .dims = { -1, 4 } }, 1 },
    { { .rank = ML_UNKNOWN }, { .rank = 1, .dims = { 4 } }, 2 },
  };
  double data[12] = { 0 };
  for (size_t r = 0; r < sizeof rows / sizeof rows[0]; ++r) {
    static tape t;
    memset(&t, 0, sizeof t);
    ml_value *in[] = { tape_value(&t, F64(data, 3, 4)), tape_value(&t, F64(data, 4)) },
             *out[] = { tape_value(&t, F64(data, 3, 4)) }, *dout[] = { tape_value(&t, F64(data, 3, 4)) }, *din[2] = { NULL };
    const bool needs[] = { true, true };
    ml_grad g = { .op = &ml_op_add, .n_in = 2, .n_out = 1, .in = in, .out = out, .dout = dout, .needs = needs, .din = din,
                  .emit = counting_emit, .constant = tape_constant, .shape_of = unknown_shape_of, .driver = &t };
    unknown_shapes[0] = rows[r].a;
    unknown_shapes[1] = rows[r].b;
    emitted = 0;
    ml_op_add.gradient(&g);
    ok(emitted == rows[r].nodes && din[0] != NULL && din[1] != NULL, "row %zu: %d nodes, not %d", r, emitted, rows[r].nodes);
  }
}

/* Ties: equal inputs share the gradient, as PyTorch's binary maximum. */
static void test_ties(void) {
  static tape t;
  double a[] = { 1, 2, 3 }, b[] = { 1, 5, 0 }, y[] = { 1, 5, 3 }, dy[] = { 8, 8, 8 };
  memset(&t, 0, sizeof t);
  ml_value *in[] = { tape_value(&t, F64(a, 3)), tape_value(&t, F64(b, 3)) }, *out[] = { tape_value(&t, F64(y, 3)) },
           *dout[] = { tape_value(&t, F64(dy, 3)) }, *din[2] = { NULL };
  ml_grad g = { .op = &ml_op_max,
                .n_in = 2,
                .n_out = 1,
                .in = in,
                .out = out,
                .dout = dout,
                .needs = (const bool[]){ true, true },
                .din = din,
                .emit = tape_emit,
                .constant = tape_constant,
                .shape_of = tape_shape_of,
                .driver = &t };
  ml_op_max.gradient(&g);
  if (!ok(din[0] != NULL && din[1] != NULL, "gradient of Max: %s", t.error)) return;
  const double *da = din[0]->view.data, *db = din[1]->view.data;
  ok(da[0] == 4 && da[1] == 0 && da[2] == 8 && db[0] == 4 && db[1] == 8 && db[2] == 0, "ties are split evenly");
}

/* float32 UnaryGrad and SoftmaxGrad against float64, in place too */
static void test_float_gradients(void) {
  static const char *const names[] = { "Abs",       "Celu",      "Elu",  "Erf",        "Gelu", "GeluTanh",       "HardSigmoid",
                                       "HardSwish", "LeakyRelu", "Mish", "Reciprocal", "Relu", "Selu",           "Sigmoid",
                                       "Softplus",  "Softsign",  "Sqrt", "Swish",      "Tanh", "ThresholdedRelu" };
  float v[100], d[100], r[100];
  double vd[100], dd[100], rd[100];
  for (size_t k = 0; k < 22; ++k) {
    const bool soft = k >= 20;
    ml_rng_uniform(5, k, soft ? 0.01f : -0.99f, 0.99f, v, 100);
    ml_rng_uniform(6, k, -2, 2, d, 100);
    for (size_t i = 0; i < 100; ++i) {
      vd[i] = v[i];
      dd[i] = d[i];
    }
    const ml_attr unary[] = { ml_attr_of_str("function", soft ? "" : names[k]), ml_attr_of_float("alpha", 0.8f),
                              ml_attr_of_float("gamma", 1.1f) },
                  along[] = { ml_attr_of_int("log", k == 21) };
    for (int in_place = 0; in_place < 3; ++in_place) {
      call c, e;
      call_new(&c, "mlserve", soft ? "SoftmaxGrad" : "UnaryGrad", soft ? along : unary, soft ? 1 : 3, 2, 1);
      call_new(&e, "mlserve", soft ? "SoftmaxGrad" : "UnaryGrad", soft ? along : unary, soft ? 1 : 3, 2, 1);
      float value[100], dy[100];
      memcpy(value, v, sizeof v);
      memcpy(dy, d, sizeof d);
      c.in[0] = F32(value, 10, 10);
      c.in[1] = F32(dy, 10, 10);
      e.in[0] = F64(vd, 10, 10);
      e.in[1] = F64(dd, 10, 10);
      const bool inferred = c.ctx.op->infer(&c.ctx, &c.err) == ML_OK && e.ctx.op->infer(&e.ctx, &e.err) == ML_OK;
      c.out[0].data = in_place == 0 ? r : in_place == 1 ? value : dy;
      e.out[0].data = rd;
      bool good = inferred && c.ctx.op->run(&c.ctx, &c.err) == ML_OK && e.ctx.op->run(&e.ctx, &e.err) == ML_OK;
      size_t bad = 0;
      for (size_t i = 0; i < 100 && good; ++i)
        if (!close_to(((float *)c.out[0].data)[i], rd[i], 1e-5, 1e-6)) good = false, bad = i;
      ok(good, "%s float32, in place %d: at %g: %g, not %g", soft ? "SoftmaxGrad" : names[k], in_place, vd[bad],
         (double)((float *)c.out[0].data)[bad], rd[bad]);
    }
  }
}

int main(void) {
  test_registry();
  test_attributes();
  test_ints();
  test_broadcasting();
  test_refusals();
  test_table();
  test_long();
  test_dropout();
  test_gradients();
  test_needless_sums();
  test_ties();
  test_float_gradients();
  return done();
}
