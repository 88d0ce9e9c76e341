/* Scan 25: runs body once for each element of the scanned inputs. Inputs: the first values of the state, then num_scan_inputs tensors cut along
 * their scan axis. Body: (state…, slices…) -> (state…, elements…). Outputs: the last state, then each element stacked along its scan axis.
 * ONNX operator specification; version 8, with its batch dimension, is a Scan of Scans (format/opset.c). No gradient flows through it. */
#include "ops/control.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "body", ML_ATTR_GRAPH, true, "run for each element" },
  { "num_scan_inputs", ML_ATTR_INT, true, "how many inputs are cut, the last ones" },
  { "scan_input_axes", ML_ATTR_INTS, false, "axis each input is cut along; default 0" },
  { "scan_input_directions", ML_ATTR_INTS, false, "1: from the last element; default 0" },
  { "scan_output_axes", ML_ATTR_INTS, false, "axis each output is stacked along; default 0" },
  { "scan_output_directions", ML_ATTR_INTS, false, "1: each element in front of the one before; default 0" },
  { 0 },
};

static int64_t of_list(const ml_op_ctx *ctx, const char *name, int32_t index) {
  const ml_attr *attr = ml_attr_find(ctx->attrs, name);
  return attr && (size_t)index < attr->count ? attr->as.ints[index] : 0;
}

static ml_status check_list(const ml_op_ctx *ctx, const char *name, int32_t count, bool direction, ml_error *err) {
  const ml_attr *attr = ml_attr_find(ctx->attrs, name);
  if (!attr) return ML_OK;
  if (attr->count != (size_t)count) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s has %zu values, expected %d", name, attr->count, count);
  for (size_t i = 0; i < attr->count && direction; i++)
    if (attr->as.ints[i] != 0 && attr->as.ints[i] != 1) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute %s: %lld is neither 0 nor 1", name, (long long)attr->as.ints[i]);
  return ML_OK;
}

typedef struct shape { int32_t states, slices, elements; int64_t length; } shape; /* length: of the scanned inputs, ML_UNKNOWN */

static ml_status measure(const ml_op_ctx *ctx, const ml_subgraph *body, shape *s, ml_error *err) {
  int32_t declared = ml_op_declared_inputs(ctx);
  int64_t n = ml_attr_int(ctx->attrs, "num_scan_inputs", 0);
  if (n < 1 || n > declared) return ml_fail(err, ML_INVALID_ARGUMENT, "num_scan_inputs is %lld with %d inputs", (long long)n, declared);
  s->slices = (int32_t)n;
  s->states = declared - s->slices;
  s->elements = body->n_out - s->states;
  if (body->n_in != declared) return ml_fail(err, ML_INVALID_ARGUMENT, "body has %d inputs, expected %d", body->n_in, declared);
  if (s->elements < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "body has %d outputs for a state of %d", body->n_out, s->states);
  if (ctx->n_out > body->n_out) return ml_fail(err, ML_INVALID_ARGUMENT, "%d outputs, but body has %d", ctx->n_out, body->n_out);
  ML_TRY(check_list(ctx, "scan_input_axes", s->slices, false, err));
  ML_TRY(check_list(ctx, "scan_input_directions", s->slices, true, err));
  ML_TRY(check_list(ctx, "scan_output_axes", s->elements, false, err));
  ML_TRY(check_list(ctx, "scan_output_directions", s->elements, true, err));
  s->length = ML_UNKNOWN;
  for (int32_t i = 0; i < declared; i++) {
    const ml_view *in = ctx->in[i];
    if (!in) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", i);
    if (in->type) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is a sequence, expected a tensor", i);
    if (i < s->states || in->rank == ML_UNKNOWN) continue;
    int32_t axis;
    ml_status status = ml_axis_normalise(of_list(ctx, "scan_input_axes", i - s->states), in->rank, &axis, err);
    if (status != ML_OK) return ml_fail_in(err, status, "input %d", i);
    int64_t length = in->dims[axis];
    if (length >= 0 && s->length >= 0 && length != s->length)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has %lld elements along its scan axis, expected %lld", i, (long long)length, (long long)s->length);
    if (length >= 0) s->length = length;
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_subgraph body;
  shape s;
  ml_op_subgraph(ctx, "body", &body);
  ML_TRY(measure(ctx, &body, &s, err));
  for (int32_t k = 0; k < ctx->n_out; k++) {
    ml_view element;
    ml_subgraph_output(body.graph, k, &element);
    if (element.type) return ml_fail(err, ML_INVALID_ARGUMENT, "output %d is a sequence, expected a tensor", k);
    if (k < s.states) {
      bool same = ml_view_known(&element) && ml_shape_equal(element.dims, element.rank, ctx->in[k]->dims, ctx->in[k]->rank);
      ml_op_set(ctx->out[k], element.dtype ? element.dtype : ctx->in[k]->dtype, element.dims, same ? element.rank : ML_UNKNOWN);
    } else {
      ml__stacked(ctx->out[k], &element, of_list(ctx, "scan_output_axes", k - s.states), s.length);
    }
  }
  return ML_OK;
}

typedef struct slice { size_t outer, inner; unsigned char *bytes; bool reversed; const ml_view *from; } slice;
typedef struct scan {
  ml_op_ctx *ctx;
  shape s;
  ml_item *state;
  ml__stack *stacks;
  slice *slices;
  ml_view *views; /* formal inputs */
  ml_view **in;
} scan;

static ml_status take(void *context, ml_view *const *out, ml_error *err) {
  scan *sc = context;
  for (int32_t i = 0; i < sc->s.states; i++) ML_TRY(ml__keep(&sc->state[i], out[i], err));
  for (int32_t i = sc->s.states; i < sc->ctx->n_out; i++)
    if (sc->ctx->out[i]) ML_TRY(ml__stack_push(sc->ctx, &sc->stacks[i - sc->s.states], out[i], err));
  return ML_OK;
}

static ml_status make_slice(scan *sc, int32_t i, ml_error *err) {
  slice *sl = &sc->slices[i];
  const ml_view *from = sc->ctx->in[sc->s.states + i];
  ml_view *view = &sc->views[sc->s.states + i];
  int32_t axis;
  ML_TRY(ml_axis_normalise(of_list(sc->ctx, "scan_input_axes", i), from->rank, &axis, err));
  *sl = (slice) { .outer = 1, .inner = ml_dtype_size(from->dtype), .from = from, .reversed = of_list(sc->ctx, "scan_input_directions", i) == 1 };
  *view = (ml_view) { .dtype = from->dtype, .rank = from->rank - 1 };
  for (int32_t d = 0; d < from->rank; d++) {
    if (d == axis) continue;
    view->dims[d < axis ? d : d - 1] = from->dims[d];
    *(d < axis ? &sl->outer : &sl->inner) *= (size_t)from->dims[d];
  }
  size_t bytes = sl->outer * sl->inner; /* a part of what `from` has */
  view->count = bytes / ml_dtype_size(from->dtype);
  sl->bytes = ml_alloc(bytes + 1);
  view->data = sl->bytes;
  return sl->bytes ? ML_OK : ml_fail_memory(err, bytes, "a slice");
}

static void cut(const slice *sl, size_t length, size_t t) {
  size_t at = sl->reversed ? length - 1 - t : t;
  if (sl->inner == 0) return;
  for (size_t o = 0; o < sl->outer; o++) memcpy(sl->bytes + o * sl->inner, (const unsigned char *)sl->from->data + (o * length + at) * sl->inner, sl->inner);
}

static ml_status iterate(scan *sc, const ml_subgraph *body, ml_error *err) {
  for (int32_t i = 0; i < sc->s.states; i++) ML_TRY(ml__keep(&sc->state[i], sc->ctx->in[i], err));
  for (int32_t i = 0; i < sc->s.slices; i++) ML_TRY(make_slice(sc, i, err));
  for (int32_t i = 0; i < body->n_in; i++) sc->in[i] = &sc->views[i];
  for (int32_t i = 0; i < body->n_captures; i++) sc->in[body->n_in + i] = body->captures[i];
  for (int64_t t = 0; t < sc->s.length; t++) {
    for (int32_t i = 0; i < sc->s.states; i++) ml_item_view(&sc->state[i], &sc->views[i]);
    for (int32_t i = 0; i < sc->s.slices; i++) cut(&sc->slices[i], (size_t)sc->s.length, (size_t)t);
    ml_status status = sc->ctx->run->subgraph(sc->ctx->run, body->graph, sc->in, take, sc, err);
    if (status != ML_OK) return ml_fail_in(err, status, "element %lld", (long long)t);
  }
  for (int32_t k = 0; k < sc->ctx->n_out; k++) {
    ml_view view;
    int32_t e = k - sc->s.states;
    if (e < 0) {
      ml_item_view(&sc->state[k], &view);
      ML_TRY(ml_op_pass(sc->ctx, sc->ctx->out[k], &view, err));
    } else {
      ml_subgraph_output(body->graph, k, &view);
      ML_TRY(ml__stack_finish(sc->ctx, &sc->stacks[e], sc->ctx->out[k], of_list(sc->ctx, "scan_output_axes", e),
                              of_list(sc->ctx, "scan_output_directions", e) == 1, &view, err));
    }
  }
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_subgraph body;
  scan sc = { .ctx = ctx };
  ml_op_subgraph(ctx, "body", &body);
  ML_TRY(measure(ctx, &body, &sc.s, err));
  size_t n_in = (size_t)(body.n_in + body.n_captures);
  sc.state = ml_alloc_zero((size_t)sc.s.states + 1, sizeof *sc.state);
  sc.stacks = ml_alloc_zero((size_t)sc.s.elements + 1, sizeof *sc.stacks);
  sc.slices = ml_alloc_zero((size_t)sc.s.slices + 1, sizeof *sc.slices);
  sc.views = ml_alloc_zero(n_in + 1, sizeof *sc.views);
  sc.in = ml_alloc_zero(n_in + 1, sizeof *sc.in);
  ml_status status = sc.state && sc.stacks && sc.slices && sc.views && sc.in ? iterate(&sc, &body, err) : ml_fail_memory(err, sizeof sc, "a scan");
  for (int32_t i = 0; sc.stacks && i < sc.s.elements; i++) ml_free(sc.stacks[i].bytes);
  for (int32_t i = 0; sc.slices && i < sc.s.slices; i++) ml_free(sc.slices[i].bytes);
  ml__keep_free(sc.state, (size_t)sc.s.states);
  ml_free(sc.stacks);
  ml_free(sc.slices);
  ml_free(sc.views);
  ml_free(sc.in);
  return status;
}

const ml_op_def ml_op_scan = {
  .name = "Scan", .domain = "", .since = 25, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = INT16_MAX, .flags = ML_OP_VARIADIC, .attrs = attrs,
  .formula = "state…, element_t… = body(state…, x_t…) for every t", .infer = infer, .run = run,
};
