/* Model-local functions: a node that calls one is replaced by the nodes of its body, in the graph of the caller (ONNX IR specification, "Functions").
 * Inputs and outputs of the body are the caller's values; everything else it defines gets the call's name in front. A model's own function wins over
 * an operator of the same name. */
#include "format/onnx_import.h"
#include <string.h>

ml_status ml__onnx_read_function(ml__importer *im, ml_pb_reader reader, ml_error *err) {
  ml__onnx_source *source = im->source;
  ml__function function = {"", "", "", reader, false};
  ml_pb_reader fields = reader;
  ml_pb_field f;
  ml_status status;
  while (ml_pb_next(&fields, &f, &status, err)) {
    if (f.number == ML__FUNCTION_NAME) ML_TRY(ml__onnx_text(&f, source->scratch, "FunctionProto.name", &function.name, err));
    if (f.number == ML__FUNCTION_DOMAIN) ML_TRY(ml__onnx_text(&f, source->scratch, "FunctionProto.domain", &function.domain, err));
    if (f.number == ML__FUNCTION_OVERLOAD) ML_TRY(ml__onnx_text(&f, source->scratch, "FunctionProto.overload", &function.overload, err));
  }
  if (status != ML_OK) return status;
  if (strcmp(function.domain, "ai.onnx") == 0) function.domain = "";
  if (!*function.name) return ml_fail(err, ML_INVALID_ARGUMENT, "a function without a name");
  if (ml__onnx_find_function(im, function.domain, function.name, function.overload))
    return ml_fail(err, ML_INVALID_ARGUMENT, "function '%s' (domain %s) is defined twice", function.name, *function.domain ? function.domain : "ai.onnx");
  ML_TRY(ml_grow(&source->functions, &source->cap_functions, source->n_functions + 1, sizeof *source->functions, "functions", err));
  source->functions[source->n_functions++] = function;
  return ML_OK;
}

ml__function *ml__onnx_find_function(const ml__importer *im, const char *domain, const char *name, const char *overload) {
  for (size_t i = 0; i < im->source->n_functions; i++) {
    ml__function *f = &im->source->functions[i];
    if (strcmp(f->name, name) == 0 && strcmp(f->domain, domain) == 0 && strcmp(f->overload, overload) == 0) return f;
  }
  return NULL;
}

ml_status ml__onnx_function_opsets(ml__importer *im, const ml__function *function, ml_error *err) {
  ml_pb_reader reader = function->body;
  ml_pb_field f;
  ml_status status;
  int64_t outside[ML__OPSET_DOMAINS];
  memcpy(outside, im->versions, sizeof outside);
  memset(im->versions, 0, sizeof im->versions);
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number != ML__FUNCTION_OPSET) continue;
    ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "FunctionProto.opset_import", err));
    ML_TRY(ml__onnx_read_opset(im, ml_pb_reader_sub(&reader, &f), err));
  }
  for (int32_t i = 0; i < ML__OPSET_DOMAINS; i++)
    if (im->versions[i] == 0) im->versions[i] = outside[i]; /* what it does not say is as in the model */
  return status;
}

static bool has_attr(const ml__call *call, const char *name) {
  for (size_t i = 0; i < call->n_attrs; i++) if (strcmp(call->attrs[i].name, name) == 0) return true;
  return false;
}

/* Formal inputs and outputs bound to the call's, attributes with their defaults. */
static ml_status bind(ml__importer *im, const ml__function *function, const ml__onnx_node *node, ml__call *call, ml__owned *owned, ml_error *err) {
  ml_pb_reader reader = function->body;
  ml_pb_field f;
  ml_status status;
  size_t n_in = 0, n_out = 0, n_defaults = 0;
  while (ml_pb_next(&reader, &f, &status, err)) {
    n_in += f.number == ML__FUNCTION_INPUT;
    n_out += f.number == ML__FUNCTION_OUTPUT;
    n_defaults += f.number == ML__FUNCTION_ATTRIBUTE_PROTO;
  }
  if (status != ML_OK) return status;
  if (node->n_in > n_in || node->n_out > n_out)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%zu inputs and %zu outputs, the function has %zu and %zu", node->n_in, node->n_out, n_in, n_out);
  call->inputs = ml_arena_alloc(im->arena, (n_in + 1) * sizeof *call->inputs);
  call->outputs = ml_arena_alloc(im->arena, (n_out + 1) * sizeof *call->outputs);
  ml_attr *attrs = ml_arena_alloc(im->arena, (node->n_attrs + n_defaults + 1) * sizeof *attrs);
  if (!call->inputs || !call->outputs || !attrs) return ml_fail_memory(err, 1, "a function call");
  if (node->n_attrs) memcpy(attrs, node->attrs, node->n_attrs * sizeof *attrs);
  call->attrs = attrs;
  call->n_attrs = node->n_attrs;
  for (size_t i = 0; i < node->n_attrs; i++)
    if (attrs[i].type == ML_ATTR_GRAPH) return ml_fail(err, ML_UNIMPLEMENTED, "attribute '%s': functions of graphs are not supported", attrs[i].name);
  reader = function->body;
  while (ml_pb_next(&reader, &f, &status, err)) {
    if (f.number == ML__FUNCTION_INPUT) {
      ml__binding *b = &call->inputs[call->n_inputs];
      ML_TRY(ml__onnx_text(&f, im->arena, "FunctionProto.input", &b->name, err));
      b->value = call->n_inputs < node->n_in ? node->in[call->n_inputs] : NULL;
      call->n_inputs++;
    } else if (f.number == ML__FUNCTION_OUTPUT) {
      ml__binding *b = &call->outputs[call->n_outputs];
      ML_TRY(ml__onnx_text(&f, im->arena, "FunctionProto.output", &b->name, err));
      b->as = call->n_outputs < node->n_out ? node->out[call->n_outputs] : "";
      call->n_outputs++;
    } else if (f.number == ML__FUNCTION_ATTRIBUTE_PROTO) {
      bool left_out;
      ML_TRY(ml_pb_expect(&f, ML_PB_BYTES, "FunctionProto.attribute_proto", err));
      ML_TRY(ml__onnx_read_attr(im, ml_pb_reader_sub(&reader, &f), NULL, &attrs[call->n_attrs], &left_out, owned, err));
      if (!left_out && !has_attr(call, attrs[call->n_attrs].name)) call->n_attrs++;
    }
  }
  return status;
}

/* An output that the body does not compute is one of its inputs. */
static ml_status pass_through(ml__importer *im, const ml__call *call, ml_error *err) {
  for (size_t i = 0; i < call->n_outputs; i++) {
    const ml__binding *out = &call->outputs[i];
    if (!*out->as || ml_graph_find(im->graph, out->as)) continue;
    ml_value *from = NULL, *made;
    for (size_t k = 0; k < call->n_inputs; k++) if (strcmp(call->inputs[k].name, out->name) == 0) from = call->inputs[k].value;
    if (!from) return ml_fail(err, ML_INVALID_ARGUMENT, "the function computes no output '%s'", out->name);
    ML_TRY(ml_graph_node(im->graph, &ml_op_identity, NULL, NULL, 0, 1, &from, 1, &out->as, &made, err));
  }
  return ML_OK;
}

ml_status ml__onnx_call(ml__importer *im, const ml__function *function, const ml__onnx_node *node, const char *place, ml_error *err) {
  ml__call call = {0};
  ml__owned owned = {0};
  if (im->depth >= im->source->limits.max_depth)
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%s: calls and subgraphs nest deeper than %zu", place, im->source->limits.max_depth);
  call.prefix = ml_arena_printf(im->arena, "%s_%zu", *node->name ? node->name : function->name, ++im->source->calls);
  if (!call.prefix) return ml_fail_memory(err, 1, "a function call");
  ml_status status = bind(im, function, node, &call, &owned, err);
  ml__importer body = *im;
  body.call = &call;
  body.local = true;
  body.depth++;
  body.body = function->body;
  body.arena = NULL;
  if (status == ML_OK) status = ml__onnx_function_opsets(&body, function, err);
  if (status == ML_OK) status = ml__onnx_read_nodes(&body, ML__FUNCTION_NODE, err);
  if (status == ML_OK) status = pass_through(&body, &call, err);
  ml_arena_free(body.arena);
  /* one list of made-up names and of captures for the graph, whichever body made them */
  im->upgrade.made = body.upgrade.made;
  im->upgrade.n_made = body.upgrade.n_made;
  im->upgrade.cap_made = body.upgrade.cap_made;
  im->captured = body.captured;
  im->n_captured = body.n_captured;
  im->cap_captured = body.cap_captured;
  ml__onnx_release_owned(&owned);
  return status == ML_OK ? ML_OK : ml_fail_in(err, status, "%s", place);
}
