/* Runs one operator on given inputs, as a session would but with every block of memory of exactly the size asked for, so that a
 * sanitiser or valgrind sees each access outside; and compares results. Shared by the tests of operators. */
#ifndef MLSERVE_SPEC_OPS_CASE_H
#define MLSERVE_SPEC_OPS_CASE_H
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "kernels/kernels.h"
#include "ops/op.h"
#include "tap.h"

enum { CASE_IN = 6, CASE_OUT = 4, CASE_ATTRS = 6 };

typedef struct op_case {
  const char *name, *domain, *op;
  ml_attr attrs[CASE_ATTRS];
  size_t n_attrs;
  ml_view in[CASE_IN]; /* dtype NONE: left out */
  int32_t n_in;
  ml_view out[CASE_OUT];
  int32_t n_out;
  double tolerance; /* |got - want| <= tolerance (1 + |want|) */
} op_case;

typedef struct op_run {
  ml_run run; /* first: the callback gets a pointer to it */
  void *scratch[8];
  size_t n_scratch;
  ml_view out[8];
  int32_t n_out;
} op_run;

__attribute__((unused)) static void *op_scratch(ml_run *run, size_t bytes) {
  op_run *r = (op_run *)run;
  return r->n_scratch < 8 ? (r->scratch[r->n_scratch++] = malloc(bytes ? bytes : 1)) : NULL;
}

__attribute__((unused)) static void op_run_free(op_run *r) {
  for (size_t i = 0; i < r->n_scratch; i++) free(r->scratch[i]);
  for (int32_t i = 0; i < r->n_out; i++) free(r->out[i].data);
  memset(r, 0, sizeof *r);
}

/* Only infer: shapes into out. */
__attribute__((unused)) static ml_status op_infer(const ml_op_def *op, const ml_attrs *attrs, int32_t n_in, ml_view *const *in,
                                                  int32_t n_out, ml_view *out, ml_error *err) {
  ml_view *outs[8];
  for (int32_t i = 0; i < n_out; i++) {
    memset(&out[i], 0, sizeof out[i]);
    out[i].rank = ML_UNKNOWN;
    outs[i] = &out[i];
  }
  ml_op_ctx ctx = { .op = op, .attrs = attrs, .name = "node", .n_in = n_in, .n_out = n_out, .in = in, .out = outs };
  return op->infer(&ctx, err);
}

/* infer, prepare, workspace, run, release; free the result with op_run_free whatever the status. */
__attribute__((unused)) static ml_status op_execute(const ml_op_def *op, const ml_attrs *attrs, const ml_kernels *kernels,
                                                    int32_t n_in, ml_view *const *in, int32_t n_out, op_run *r, ml_error *err) {
  ml_view *outs[8];
  void *state = NULL, *workspace = NULL;
  size_t bytes = 0;
  memset(r, 0, sizeof *r);
  r->run.kernels = kernels;
  r->run.scratch = op_scratch;
  r->n_out = n_out;
  for (int32_t i = 0; i < n_out; i++) outs[i] = &r->out[i];
  ml_op_ctx ctx = { .op = op, .attrs = attrs, .name = "node", .n_in = n_in, .n_out = n_out, .in = in, .out = outs };
  ML_TRY(op_infer(op, attrs, n_in, in, n_out, r->out, err));
  for (int32_t i = 0; i < n_out; i++) {
    ML_TRY(ml_shape_count(r->out[i].dims, r->out[i].rank, r->out[i].dtype, &r->out[i].count, err));
    if (r->out[i].count == 0) continue;
    r->out[i].data = malloc(r->out[i].count * ml_dtype_size(r->out[i].dtype));
    if (!r->out[i].data) return ml_fail_memory(err, r->out[i].count, "a test");
    memset(r->out[i].data, 0xA5, r->out[i].count * ml_dtype_size(r->out[i].dtype));
  }
  ml_status status = op->prepare ? op->prepare(&ctx, &state, err) : ML_OK;
  ctx.state = state;
  if (status == ML_OK && op->workspace) status = op->workspace(&ctx, &bytes, err);
  if (status == ML_OK && bytes) workspace = ctx.workspace = malloc(bytes);
  ctx.run = &r->run;
  if (status == ML_OK) status = op->run(&ctx, err);
  free(workspace);
  if (state && op->release) op->release(state);
  return status;
}

/* "" when equal, else what differs */
__attribute__((unused)) static const char *op_differs(const ml_view *got, const ml_view *want, double tolerance, char *text,
                                                      size_t size) {
  char a[96], b[96];
  text[0] = '\0';
  if (got->dtype != want->dtype || !ml_shape_equal(got->dims, got->rank, want->dims, want->rank)) {
    snprintf(text, size, "got %s %s, want %s %s", ml_dtype_name(got->dtype), ml_shape_format(got->dims, got->rank, a, sizeof a),
             ml_dtype_name(want->dtype), ml_shape_format(want->dims, want->rank, b, sizeof b));
    return text;
  }
  for (size_t i = 0; i < want->count; i++) {
    if (want->dtype == ML_STRING) {
      ml_str g = ((const ml_str *)got->data)[i], w = ((const ml_str *)want->data)[i];
      if (g.length == w.length && (w.length == 0 || memcmp(g.bytes, w.bytes, w.length) == 0)) continue;
      snprintf(text, size, "element %zu: got '%.*s', want '%.*s'", i, (int)g.length, g.bytes, (int)w.length, w.bytes);
      return text;
    }
    if (want->dtype == ML_INT64 || want->dtype == ML_UINT64) {
      if (((const uint64_t *)got->data)[i] == ((const uint64_t *)want->data)[i]) continue;
      snprintf(text, size, "element %zu: got %lld, want %lld", i, ((const long long *)got->data)[i],
               ((const long long *)want->data)[i]);
      return text;
    }
    double g = ml_element_get(got->data, got->dtype, i), w = ml_element_get(want->data, want->dtype, i);
    if (g == w || (isnan(g) && isnan(w)) || fabs(g - w) <= tolerance * (1 + fabs(w))) continue;
    snprintf(text, size, "element %zu: got %.9g, want %.9g", i, g, w);
    return text;
  }
  return text;
}

/* What infer says when less is known must not contradict what it says when all is. */
__attribute__((unused)) static void op_check_partial(const op_case *c, const ml_op_def *op, const ml_attrs *attrs,
                                                     const ml_view *full) {
  for (int32_t mode = 0; mode < 4; mode++) {
    for (int32_t which = 0; which < c->n_in; which++) {
      ml_view in[CASE_IN], *pointers[CASE_IN], out[CASE_OUT];
      ml_error err = { 0 };
      if (c->in[which].dtype == ML_DTYPE_NONE) continue;
      for (int32_t i = 0; i < c->n_in; i++) {
        in[i] = c->in[i];
        pointers[i] = in[i].dtype == ML_DTYPE_NONE ? NULL : &in[i];
      }
      in[which].data = NULL; /* 0: contents unknown, 1: a dimension, 2: every dimension, 3: the rank */
      if (mode > 0) in[which].count = 0;
      for (int32_t d = 0; d < in[which].rank && mode > 0; d++)
        if (mode >= 2 || d == 0) in[which].dims[d] = ML_UNKNOWN;
      if (mode == 3) in[which].rank = ML_UNKNOWN;
      if (op->domain[0] == 'm' && strcmp(op->name, "Dense") == 0 && which > 0 && mode > 0) continue; /* constant by contract */
      ml_status status = op_infer(op, attrs, c->n_in, pointers, c->n_out, out, &err);
      if (!ok(status == ML_OK, "%s: infer with input %d partly unknown (%d): %s", c->name, (int)which, (int)mode, err.message))
        continue;
      for (int32_t k = 0; k < c->n_out; k++) {
        bool agrees = out[k].dtype == full[k].dtype && (out[k].rank == ML_UNKNOWN || out[k].rank == full[k].rank);
        for (int32_t d = 0; agrees && d < out[k].rank; d++)
          agrees = out[k].dims[d] == ML_UNKNOWN || out[k].dims[d] == full[k].dims[d];
        ok(agrees, "%s: partial inference of output %d with input %d partly unknown (%d) contradicts the full one", c->name,
           (int)k, (int)which, (int)mode);
      }
    }
  }
}

__attribute__((unused)) static void op_check_case(const op_case *c) {
  const ml_op_def *op = ml_op_find(c->domain, c->op);
  const ml_kernels *tables[] = { ml_kernel_table_ref(), ml_kernel_table() };
  ml_attrs attrs = { c->attrs, c->n_attrs };
  ml_view in[CASE_IN], *pointers[CASE_IN];
  if (!ok(op != NULL, "%s: operator %s exists", c->name, c->op)) return;
  for (int32_t i = 0; i < c->n_in; i++) {
    in[i] = c->in[i];
    pointers[i] = in[i].dtype == ML_DTYPE_NONE ? NULL : &in[i];
  }
  for (size_t t = 0; t < 2; t++) {
    op_run r;
    ml_error err = { 0 };
    char text[256];
    ml_status status = op_execute(op, &attrs, tables[t], c->n_in, pointers, c->n_out, &r, &err);
    if (ok(status == ML_OK, "%s (%s): %s", c->name, tables[t]->name, err.message)) {
      for (int32_t k = 0; k < c->n_out; k++) {
        op_differs(&r.out[k], &c->out[k], c->tolerance, text, sizeof text);
        ok(text[0] == '\0', "%s (%s): output %d: %s", c->name, tables[t]->name, (int)k, text);
      }
      if (t == 0) op_check_partial(c, op, &attrs, r.out);
    }
    op_run_free(&r);
  }
}

/* ---- hand-made views ---- */
__attribute__((unused)) static ml_view view_of(void *data, ml_dtype dtype, int32_t rank, const int64_t *dims) {
  ml_view v = { .data = data, .dtype = dtype, .rank = rank };
  for (int32_t i = 0; i < rank; i++) v.dims[i] = dims[i];
  if (ml_shape_count(v.dims, rank, dtype, &v.count, NULL) != ML_OK) v.count = 0;
  return v;
}
#define DIMS(...) \
  (const int64_t[]) { __VA_ARGS__ }
#define RANK(...) (int32_t)(sizeof(DIMS(__VA_ARGS__)) / sizeof(int64_t))
#define VIEW(data, dtype, ...) view_of(data, dtype, RANK(__VA_ARGS__), DIMS(__VA_ARGS__))
#define SCALAR(data, dtype) view_of(data, dtype, 0, NULL)

/* The operator must refuse with this status and a message that holds `text`. */
__attribute__((unused)) static void op_check_refused(const char *domain, const char *name, const ml_attr *list, size_t n_attrs,
                                                     int32_t n_in, ml_view *in, int32_t n_out, ml_status want, const char *text) {
  const ml_op_def *op = ml_op_find(domain, name);
  ml_view *pointers[CASE_IN];
  ml_attrs attrs = { list, n_attrs };
  op_run r;
  ml_error err = { 0 };
  for (int32_t i = 0; i < n_in; i++) pointers[i] = in[i].dtype == ML_DTYPE_NONE ? NULL : &in[i];
  ml_status status = op_execute(op, &attrs, ml_kernel_table(), n_in, pointers, n_out, &r, &err);
  ok(status == want && strstr(err.message, text) != NULL, "%s refuses (%s): got %s '%s'", name, text, ml_status_name(status),
     err.message);
  op_run_free(&r);
}

#endif
