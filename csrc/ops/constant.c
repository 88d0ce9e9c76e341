/* Constant 21: a tensor held by an attribute. Exactly one of the value_* attributes is given; scalars make rank 0, lists rank 1.
 * String elements point at the attribute's bytes, which the graph keeps. */
#include <string.h>
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "value", ML_ATTR_TENSOR, false, "the tensor" },
  { "value_float", ML_ATTR_FLOAT, false, "a float32 scalar" },
  { "value_floats", ML_ATTR_FLOATS, false, "float32, rank 1" },
  { "value_int", ML_ATTR_INT, false, "an int64 scalar" },
  { "value_ints", ML_ATTR_INTS, false, "int64, rank 1" },
  { "value_string", ML_ATTR_STRING, false, "a string scalar" },
  { "value_strings", ML_ATTR_STRINGS, false, "strings, rank 1" },
  { 0 },
};

/* The value as a view on the attribute's memory. */
static ml_status value_of(const ml_attrs *list, ml_view *out, ml_error *err) {
  const ml_attr *found = NULL;
  for (const ml_attr_def *def = attrs; def->name; def++) {
    const ml_attr *a = ml_attr_find(list, def->name);
    if (!a) continue;
    if (found)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attributes %s and %s are both given, expected one", found->name, a->name);
    found = a;
  }
  if (!found)
    return ml_fail(err, ML_INVALID_ARGUMENT, "no value: expected one of value, value_float(s), value_int(s), value_string(s)");
  memset(out, 0, sizeof *out);
  out->count = 1;
  switch (found->type) {
    case ML_ATTR_TENSOR:
      if (!found->as.tensor) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute value is empty");
      *out = found->as.tensor->view;
      return ML_OK;
    case ML_ATTR_FLOAT:
      out->dtype = ML_FLOAT32;
      out->data = (void *)(uintptr_t)&found->as.f;
      return ML_OK;
    case ML_ATTR_INT:
      out->dtype = ML_INT64;
      out->data = (void *)(uintptr_t)&found->as.i;
      return ML_OK;
    case ML_ATTR_STRING:
      out->dtype = ML_STRING;
      out->data = (void *)(uintptr_t)&found->as.s;
      return ML_OK;
    case ML_ATTR_FLOATS:
      out->dtype = ML_FLOAT32;
      out->data = (void *)(uintptr_t)found->as.floats;
      break;
    case ML_ATTR_INTS:
      out->dtype = ML_INT64;
      out->data = (void *)(uintptr_t)found->as.ints;
      break;
    default:
      out->dtype = ML_STRING;
      out->data = (void *)(uintptr_t)found->as.strings;
      break;
  }
  out->rank = 1;
  out->count = found->count;
  out->dims[0] = (int64_t)found->count;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_view v;
  ML_TRY(value_of(ctx->attrs, &v, err));
  ml_op_set(ctx->out[0], v.dtype, v.dims, v.rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_view v;
  ML_TRY(value_of(ctx->attrs, &v, err));
  if (v.count > 0) memcpy(ctx->out[0]->data, v.data, v.count * ml_dtype_size(v.dtype));
  return ML_OK;
}

const ml_op_def ml_op_constant = {
  .name = "Constant", .domain = "", .since = 25, .min_in = 0, .max_in = 0, .min_out = 1, .max_out = 1, .attrs = attrs,
  .formula = "y = the attribute's value", .infer = infer, .run = run,
};
