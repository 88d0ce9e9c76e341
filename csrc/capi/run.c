/* Running a model of the C API. Names become indices before the run, so that a wrong one costs nothing; results are copied out of the session, which
 * goes back to the program's pool. */
#include <string.h>
#include "capi/capi.h"

enum { ON_STACK = 8 }; /* inputs and outputs that need no allocation */

typedef struct call {
  const mlserve_model *model;
  mlserve_value *const *inputs;
  mlserve_value **outputs;
  size_t n_outputs;
  ml_view *views;        /* by input of the model */
  size_t *which;         /* output of the model, by output of the call */
  mlserve_value **fresh; /* values made for it, until the run has succeeded */
} call;

static ml_status find(const mlserve_info *infos, size_t n, const char *name, const char *what, size_t *out, ml_error *err) {
  if (!name) return ml_fail(err, ML_INVALID_ARGUMENT, "the name of an %s is NULL", what);
  for (size_t i = 0; i < n; i++) {
    if (strcmp(infos[i].name, name) != 0) continue;
    *out = i;
    return ML_OK;
  }
  return ml_fail(err, ML_NOT_FOUND, "the model has no %s named '%s'", what, name);
}

ml_status ml__capi_check_elements(const ml_view *view, ml_error *err) {
  const unsigned char *bytes = view->data;
  if (view->dtype != ML_BOOL && ml_dtype_bits(view->dtype) >= 8) return ML_OK;
  for (size_t i = 0; i < view->count; i++) {
    unsigned char element = bytes[i];
    if (view->dtype == ML_BOOL && element > 1) /* operators index with it */
      return ml_fail(err, ML_INVALID_ARGUMENT, "element %zu is %u, a bool is 0 or 1", i, (unsigned)element);
    if (view->dtype != ML_BOOL) ml_mask_small(&element, view->dtype, 1);
    if (element != bytes[i])
      return ml_fail(err, ML_INVALID_ARGUMENT, "element %zu is byte %u, which is no %s", i, (unsigned)bytes[i], ml_dtype_name(view->dtype));
  }
  return ML_OK;
}

/* What is wrong with a tensor's element type or shape, the session says. */
static ml_status check_type(const mlserve_info *info, const mlserve_value *value, ml_error *err) {
  uint32_t type = ml__capi_type(&value->view);
  if (ml__capi_kind(info->type) == MLSERVE_KIND_TENSOR && !value->view.type) return ML_OK;
  if (ml_type_fits(info->type, type)) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': expected %s, got %s", info->name, info->type_text, mlserve_value_type(value));
}

static ml_status take_inputs(call *c, const char *const *names, size_t n, ml_error *err) {
  const mlserve_model *model = c->model;
  if (n != model->n_inputs) return ml_fail(err, ML_INVALID_ARGUMENT, "the model has %zu inputs, %zu are given", model->n_inputs, n);
  if (n > 0 && !c->inputs) return ml_fail(err, ML_INVALID_ARGUMENT, "mlserve_run: inputs is NULL");
  if (names) for (size_t i = 0; i < n; i++) c->views[i].dtype = ML_DTYPE_NONE; /* not given yet */
  for (size_t i = 0; i < n; i++) {
    size_t at = i;
    if (names) ML_TRY(find(model->inputs, n, names[i], "input", &at, err));
    const mlserve_value *value = c->inputs[i];
    const char *name = model->inputs[at].name;
    if (!ml__capi_is_value(value)) return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s' is %s", name, value ? "no value" : "NULL");
    if (names && c->views[at].dtype != ML_DTYPE_NONE) return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s' is given twice", name);
    c->views[at] = value->view;
    ML_TRY(check_type(&model->inputs[at], value, err));
    if (value->view.type) continue;
    ml_status status = ml__capi_check_elements(&value->view, err);
    if (status != ML_OK) return ml_fail_in(err, status, "input '%s'", name);
  }
  return ML_OK;
}

static ml_status take_outputs(call *c, const char *const *names, ml_error *err) {
  const mlserve_model *model = c->model;
  size_t n = c->n_outputs;
  if (n > 0 && !c->outputs) return ml_fail(err, ML_INVALID_ARGUMENT, "mlserve_run: outputs is NULL");
  for (size_t i = 0; i < n; i++) {
    c->which[i] = i;
    c->fresh[i] = NULL;
    if (names) ML_TRY(find(model->outputs, model->n_outputs, names[i], "output", &c->which[i], err));
    else if (i >= model->n_outputs) return ml_fail(err, ML_INVALID_ARGUMENT, "the model has %zu outputs, %zu are asked for", model->n_outputs, n);
    const mlserve_info *info = &model->outputs[c->which[i]];
    const mlserve_value *value = c->outputs[i];
    if (!value) continue;
    if (!ml__capi_is_value(value)) return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' is no value", info->name);
    if (value->view.dtype == ML_STRING || value->view.type || value->part)
      return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s': %s; give NULL", info->name,
                     value->view.type ? "only a tensor can be written into" :
                     value->part ? "a part of another value cannot be written into" : "strings cannot be written into a value");
    for (size_t k = 0; k < i; k++)
      if (c->outputs[k] == value) return ml_fail(err, ML_INVALID_ARGUMENT, "output '%s' has the same value as another output", info->name);
  }
  return ML_OK;
}

static ml_status take_results(void *context, ml_session *session, ml_error *err) {
  call *c = context;
  for (size_t i = 0; i < c->n_outputs; i++) {
    const ml_view *result = ml_session_output(session, c->which[i]);
    const char *name = c->model->outputs[c->which[i]].name;
    if (c->outputs[i]) {
      ML_TRY(ml__capi_value_store(c->outputs[i], result, name, err));
      continue;
    }
    ml_item item;
    ML_TRY(ml_item_of(result, &item, err));
    ML_TRY(ml__capi_value_of(item, false, &c->fresh[i], err));
  }
  return ML_OK;
}

static ml_status run_call(call *c, const char *const *input_names, size_t n_inputs, const char *const *output_names, ml_error *err) {
  ML_TRY(take_outputs(c, output_names, err));
  ML_TRY(take_inputs(c, input_names, n_inputs, err));
  ml_status status = ml_program_run(c->model->program, c->views, take_results, c, err);
  for (size_t i = 0; i < c->n_outputs; i++) { /* new values are handed out all or none */
    if (!c->fresh[i]) continue;
    if (status == ML_OK) c->outputs[i] = c->fresh[i];
    else mlserve_value_free(c->fresh[i]);
  }
  return status;
}

/* A call of more inputs or outputs than fit on the stack. */
static ml_status run_large(call *c, const char *const *input_names, size_t n_inputs, const char *const *output_names, ml_error *err) {
  const size_t n = c->n_outputs;
  c->views = ml_alloc_zero(c->model->n_inputs + 1, sizeof *c->views);
  c->which = ml_alloc_zero(n, sizeof *c->which); /* n is the caller's, and may be absurd: the product is checked */
  c->fresh = ml_alloc_zero(n, sizeof *c->fresh);
  ml_status status = c->views && c->which && c->fresh ? run_call(c, input_names, n_inputs, output_names, err) : ml_fail_memory(err, n, "a call");
  ml_free(c->views);
  ml_free(c->which);
  ml_free(c->fresh);
  return status;
}

static ml_status run(const mlserve_model *model, const char *const *input_names, mlserve_value *const *inputs, size_t n_inputs,
                     const char *const *output_names, mlserve_value **outputs, size_t n_outputs, ml_error *err) {
  ml_view views[ON_STACK];
  size_t which[ON_STACK];
  mlserve_value *fresh[ON_STACK];
  if (!ml__capi_is_model(model)) return ml_fail(err, ML_INVALID_ARGUMENT, "mlserve_run: model is %s", model ? "no model" : "NULL");
  call c = { .model = model, .inputs = inputs, .outputs = outputs, .n_outputs = n_outputs, .views = views, .which = which, .fresh = fresh };
  if (model->n_inputs <= ON_STACK && n_outputs <= ON_STACK) return run_call(&c, input_names, n_inputs, output_names, err);
  return run_large(&c, input_names, n_inputs, output_names, err);
}

mlserve_status mlserve_run(const mlserve_model *model, const char *const *input_names, mlserve_value *const *inputs, size_t n_inputs,
                           const char *const *output_names, mlserve_value **outputs, size_t n_outputs, char *message, size_t message_size) {
  ml_error err;
  err.code = ML_OK;
  err.message[0] = '\0';
  ml_status status = run(model, input_names, inputs, n_inputs, output_names, outputs, n_outputs, &err);
  return ml__capi_end(status, &err, message, message_size);
}
