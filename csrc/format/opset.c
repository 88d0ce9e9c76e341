/* One row per (operator, version) at which its form changed: `up` turns the form before into the form from `to` on, `down` goes
 * back and `fits` says whether this very node can go back. Rows of an operator stand in ascending order; reading walks them
 * upwards from the file's version, writing downwards to the target's. Versions that only widened types need no row. Source:
 * docs/Changelog.md of the ONNX repository, and the schemas of onnx 1.23. */
#include "format/opset.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

#include "tensor/container.h"

/* ---------------------------------------------------------------- helpers ---- */
static const ml_attr *find(const ml_attr *attrs, size_t n, const char *name) {
  for (size_t i = 0; i < n; i++) if (strcmp(attrs[i].name, name) == 0) return &attrs[i];
  return NULL;
}

/* Takes an attribute out; type NONE when there is none. */
static ml_attr take(ml_attr *attrs, size_t *n, const char *name) {
  for (size_t i = 0; i < *n; i++) {
    if (strcmp(attrs[i].name, name) != 0) continue;
    ml_attr found = attrs[i];
    memmove(&attrs[i], &attrs[i + 1], (--*n - i) * sizeof *attrs);
    return found;
  }
  return (ml_attr){0};
}

static ml_status wrong_type(const char *name, const char *expected, ml_error *err) {
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is not %s", name, expected);
}

/* Takes an integer attribute out. */
static ml_status take_int(ml__onnx_node *n, const char *name, int64_t fallback, int64_t *out, ml_error *err) {
  ml_attr a = take(n->attrs, &n->n_attrs, name);
  if (a.type != ML_ATTR_NONE && a.type != ML_ATTR_INT) return wrong_type(name, "an int", err);
  *out = a.type == ML_ATTR_INT ? a.as.i : fallback;
  return ML_OK;
}

static void push(ml__onnx_node *n, ml_attr attr) { n->attrs[n->n_attrs++] = attr; }

static void set_input(ml_value **in, size_t *n_in, size_t index, ml_value *value) {
  while (*n_in <= index) in[(*n_in)++] = NULL;
  in[index] = value;
}

ml_status ml__opset_made(ml__upgrade *u, ml_value *value, ml_error *err) {
  ML_TRY(ml_grow(&u->made, &u->cap_made, u->n_made + 1, sizeof(ml_value *), "an import", err));
  u->made[u->n_made++] = value;
  return ML_OK;
}

/* A constant of the import, never trained. */
static ml_status constant(ml__upgrade *u, ml_dtype dtype, const void *data, const int64_t *dims, int32_t rank, ml_value **out,
                          ml_error *err) {
  ml_view view = {.data = (void *)(uintptr_t)data, .dtype = dtype, .rank = rank};
  if (rank > 0) memcpy(view.dims, dims, (size_t)rank * sizeof *dims);
  ML_TRY(ml_shape_count(view.dims, rank, dtype, &view.count, err));
  ml_tensor *tensor;
  ML_TRY(ml_tensor_copy_of(&view, &tensor, err));
  ml_status status = ml_graph_initializer(u->graph, NULL, tensor, false, out, err);
  ml_tensor_release(tensor);
  return status == ML_OK ? ml__opset_made(u, *out, err) : status;
}

static ml_status constant_ints(ml__upgrade *u, const int64_t *values, size_t n, ml_value **out, ml_error *err) {
  int64_t dim = (int64_t)n;
  return constant(u, ML_INT64, values, &dim, 1, out, err);
}

static ml_status constant_like(ml__upgrade *u, float value, const ml_value *like, ml_value **out, ml_error *err) {
  ml_dtype dtype = like && like->dtype != ML_DTYPE_NONE ? like->dtype : ML_FLOAT32;
  uint64_t element = 0; /* room for any numeric element */
  if (dtype == ML_STRING) return ml_fail(err, ML_INVALID_ARGUMENT, "strings where numbers are expected");
  ml_element_set(&element, dtype, 0, (double)value);
  return constant(u, dtype, &element, NULL, 0, out, err);
}

/* A node in front of the one being upgraded. */
static ml_status emit(ml__upgrade *u, const char *op, const ml_attr *attr, size_t n_in, ml_value *const *in, ml_value **out,
                      ml_error *err) {
  const ml_op_def *def = ml_op_find("", op);
  if (!def) return ml_fail(err, ML_UNIMPLEMENTED, "operator %s is missing", op);
  ML_TRY(ml_graph_node(u->graph, def, NULL, attr, attr ? 1 : 0, n_in, in, 1, NULL, out, err));
  return ml__opset_made(u, *out, err);
}

/* Appends `count` dimensions of size 1. */
static ml_status unsqueeze_end(ml__upgrade *u, ml_value *value, int64_t count, ml_value **out, ml_error *err) {
  int64_t axes[ML_MAX_RANK];
  if (value->rank + count > ML_MAX_RANK) return ml_fail(err, ML_INVALID_ARGUMENT, "rank over %d", ML_MAX_RANK);
  for (int64_t i = 0; i < count; i++) axes[i] = value->rank + i;
  ml_value *in[2] = {value, NULL};
  ML_TRY(constant_ints(u, axes, (size_t)count, &in[1], err));
  return emit(u, "Unsqueeze", NULL, 2, in, out, err);
}

/* Attribute `name` (ints) becomes input `index`; nothing happens when it is absent. */
static ml_status ints_to_input(ml__upgrade *u, ml__onnx_node *n, const char *name, size_t index, bool empty_too, ml_error *err) {
  ml_attr a = take(n->attrs, &n->n_attrs, name);
  if (a.type == ML_ATTR_NONE) return ML_OK;
  if (a.type != ML_ATTR_INTS) return wrong_type(name, "a list of ints", err);
  if (a.count == 0 && !empty_too) return ML_OK;
  ml_value *value;
  ML_TRY(constant_ints(u, a.as.ints, a.count, &value, err));
  set_input(n->in, &n->n_in, index, value);
  return ML_OK;
}

/* Values of a constant integer input. */
static bool constant_values(const ml_value *value, const int64_t **values, size_t *count) {
  ml_view view;
  ml_value_view(value, &view);
  if (view.dtype != ML_INT64 || view.rank > 1 || (!view.data && view.count > 0)) return false;
  if (!view.data && !value->init && !(value->producer && value->producer->op == &ml_op_constant)) return false;
  *values = view.data;
  *count = view.count;
  return true;
}

/* ---------------------------------------------------------------- upgrades ---- */
/* Before 7 the second operand was repeated only on request, its dimensions lying at `axis` of the first; numpy's rule aligns at
 * the end. */
static ml_status up_broadcast(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  int64_t broadcast = 0, axis = 0;
  bool has_axis = find(n->attrs, n->n_attrs, "axis") != NULL;
  ML_TRY(take_int(n, "broadcast", 0, &broadcast, err));
  ML_TRY(take_int(n, "axis", 0, &axis, err));
  if (!broadcast || !has_axis || n->n_in < 2 || !n->in[0] || !n->in[1]) return ML_OK;
  const ml_value *a = n->in[0], *b = n->in[1];
  if (a->rank == ML_UNKNOWN || b->rank == ML_UNKNOWN)
    return ml_fail(err, ML_UNIMPLEMENTED, "attribute 'axis' with operands of unknown rank");
  if (b->rank == 0) return ML_OK;
  if (axis < 0) axis += a->rank;
  if (axis < 0 || axis + b->rank > a->rank)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'axis' is %lld, the operands have ranks %d and %d", (long long)axis,
                   a->rank, b->rank);
  int64_t trailing = a->rank - axis - b->rank;
  return trailing == 0 ? ML_OK : unsqueeze_end(u, n->in[1], trailing, &n->in[1], err);
}

/* Before 10 the number of elements was an attribute. */
static ml_status up_top_k(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  ml_attr k = take(n->attrs, &n->n_attrs, "k");
  if (k.type == ML_ATTR_NONE) return ML_OK;
  if (k.type != ML_ATTR_INT) return wrong_type("k", "an int", err);
  ml_value *value;
  ML_TRY(constant_ints(u, &k.as.i, 1, &value, err));
  set_input(n->in, &n->n_in, 1, value);
  return ML_OK;
}

/* Before 20 the axis was an attribute, and 1 by default. */
static ml_status up_dft(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  int64_t axis = 1;
  ml_value *value;
  ML_TRY(take_int(n, "axis", 1, &axis, err));
  ML_TRY(constant(u, ML_INT64, &axis, NULL, 0, &value, err));
  set_input(n->in, &n->n_in, 2, value);
  return ML_OK;
}

/* Before 7 a slope of one dimension meant channels (axis 1). */
static ml_status up_prelu(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  if (n->n_in < 2 || !n->in[0] || !n->in[1]) return ML_OK;
  const ml_value *x = n->in[0], *slope = n->in[1];
  if (slope->rank != 1 || slope->dims[0] == 1) return ML_OK;
  if (x->rank == ML_UNKNOWN) return ml_fail(err, ML_UNIMPLEMENTED, "slope per channel with an input of unknown rank");
  return x->rank <= 2 ? ML_OK : unsqueeze_end(u, n->in[1], x->rank - 2, &n->in[1], err);
}

static ml_status up_gemm(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u;
  int64_t ignored;
  return take_int(n, "broadcast", 0, &ignored, err);
}

static ml_status up_clip(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  static const char *const names[] = {"min", "max"};
  for (size_t i = 0; i < 2; i++) {
    ml_attr a = take(n->attrs, &n->n_attrs, names[i]);
    if (a.type == ML_ATTR_NONE) continue;
    if (a.type != ML_ATTR_FLOAT) return wrong_type(names[i], "a float", err);
    ml_value *value;
    ML_TRY(constant_like(u, a.as.f, n->n_in > 0 ? n->in[0] : NULL, &value, err));
    set_input(n->in, &n->n_in, i + 1, value);
  }
  return ML_OK;
}

/* is_test (before 7) asked for training at run time; as everybody does, a model read from a file means inference. */
static ml_status up_dropout(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  int64_t ignored;
  ML_TRY(take_int(n, "is_test", 0, &ignored, err));
  ml_attr ratio = take(n->attrs, &n->n_attrs, "ratio");
  if (ratio.type != ML_ATTR_NONE) {
    if (ratio.type != ML_ATTR_FLOAT) return wrong_type("ratio", "a float", err);
    ml_value *value;
    ML_TRY(constant_like(u, ratio.as.f, NULL, &value, err));
    set_input(n->in, &n->n_in, 1, value);
  }
  if (n->version < 10 && n->n_out > 1 && *n->out[1] && n->n_in > 0 && n->in[0] &&
      n->in[0]->dtype != ML_BOOL) { /* the mask had the type of the data */
    ml_dtype dtype = n->in[0]->dtype != ML_DTYPE_NONE ? n->in[0]->dtype : ML_FLOAT32;
    n->after[n->n_after++] = (ml__after){.op = "Cast", .output = 1, .attr = ml_attr_of_int("to", dtype), .out_name = n->out[1]};
    n->out[1] = NULL;
  }
  return ML_OK;
}

/* Before 13: the input as a matrix, split at `axis` (1 by default), each row normalised as a whole. */
static ml_status up_softmax(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  int64_t axis = 1;
  ML_TRY(take_int(n, "axis", 1, &axis, err));
  push(n, ml_attr_of_int("axis", -1));
  if (n->n_in < 1 || !n->in[0] || n->n_out < 1 || !*n->out[0]) return ML_OK;
  ml_value *x = n->in[0], *shape;
  if (x->rank != ML_UNKNOWN) {
    if (axis < -(int64_t)x->rank || axis > x->rank)
      return ml_fail(err, ML_OUT_OF_RANGE, "axis %lld for rank %d", (long long)axis, x->rank);
    if (x->rank > 0 && (axis < 0 ? axis + x->rank : axis) == x->rank - 1) return ML_OK;
  }
  ml_attr flatten = ml_attr_of_int("axis", axis);
  ML_TRY(emit(u, "Shape", NULL, 1, &x, &shape, err));
  ML_TRY(emit(u, "Flatten", &flatten, 1, &x, &n->in[0], err));
  n->after[n->n_after++] = (ml__after){.op = "Reshape", .output = 0, .second = shape, .out_name = n->out[0]};
  n->out[0] = NULL;
  return ML_OK;
}

static ml_status up_cast(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u;
  static const char *const names[] = {"UNDEFINED", "FLOAT",  "UINT8", "INT8",    "UINT16", "INT16",  "INT32",
                                      "INT64",     "STRING", "BOOL",  "FLOAT16", "DOUBLE", "UINT32", "UINT64"};
  ml_attr to = take(n->attrs, &n->n_attrs, "to");
  if (to.type == ML_ATTR_INT) { /* some writers ran ahead of the version they declared */
    push(n, to);
    return ML_OK;
  }
  if (to.type != ML_ATTR_STRING) return wrong_type("to", "a string", err);
  for (size_t i = 1; i < sizeof names / sizeof *names; i++) {
    if (to.as.s.length != strlen(names[i]) || memcmp(to.as.s.bytes, names[i], to.as.s.length) != 0) continue;
    push(n, ml_attr_of_int("to", (int64_t)i));
    return ML_OK;
  }
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'to' is '%.*s', which is no type",
                 (int)(to.as.s.length < 40 ? to.as.s.length : 40), to.as.s.bytes);
}

static ml_status up_concat(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u, (void)err;
  if (!find(n->attrs, n->n_attrs, "axis")) push(n, ml_attr_of_int("axis", 1));
  return ML_OK;
}

static ml_status up_selu(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u, (void)err; /* the defaults had fewer digits */
  if (!find(n->attrs, n->n_attrs, "alpha")) push(n, ml_attr_of_float("alpha", 1.6732f));
  if (!find(n->attrs, n->n_attrs, "gamma")) push(n, ml_attr_of_float("gamma", 1.0507f));
  return ML_OK;
}

static ml_status up_reshape(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  if (!find(n->attrs, n->n_attrs, "shape")) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'shape' is missing");
  return ints_to_input(u, n, "shape", 1, true, err);
}

static ml_status up_slice(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  ML_TRY(ints_to_input(u, n, "starts", 1, true, err));
  ML_TRY(ints_to_input(u, n, "ends", 2, true, err));
  return ints_to_input(u, n, "axes", 3, false, err);
}

static ml_status up_split_sizes(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  const ml_attr to = ml_attr_of_int("to", ML_INT64);
  if (n->n_in > 1 && n->in[1] && n->in[1]->dtype != ML_INT64) /* version 1 took the sizes in the type of the data */
    ML_TRY(emit(u, "Cast", &to, 1, &n->in[1], &n->in[1], err));
  return ints_to_input(u, n, "split", 1, false, err);
}

static ml_status up_split_count(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u, (void)err;
  if ((n->n_in < 2 || !n->in[1]) && !find(n->attrs, n->n_attrs, "num_outputs"))
    push(n, ml_attr_of_int("num_outputs", (int64_t)n->n_out));
  return ML_OK;
}

static ml_status up_axes(ml__upgrade *u, ml__onnx_node *n, ml_error *err) { return ints_to_input(u, n, "axes", 1, false, err); }

/* Tile-1 repeated along one axis given by two scalars. */
static ml_status up_tile(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  if (n->n_in < 3 || !n->in[0] || !n->in[1] || !n->in[2])
    return n->n_in == 2 ? ML_OK : ml_fail(err, ML_INVALID_ARGUMENT, "3 inputs expected");
  ml_view tiles, axis;
  ml_value_view(n->in[1], &tiles);
  ml_value_view(n->in[2], &axis);
  if (n->in[0]->rank < 1 || !tiles.data || !axis.data || tiles.count != 1 || axis.count != 1 || tiles.dtype == ML_STRING ||
      axis.dtype == ML_STRING)
    return ml_fail(err, ML_UNIMPLEMENTED, "version 1 with 'tiles' or 'axis' that are not constants, or an input of unknown rank");
  int64_t repeats[ML_MAX_RANK];
  for (int32_t i = 0; i < n->in[0]->rank; i++) repeats[i] = 1;
  double k = ml_element_get(axis.data, axis.dtype, 0), times = ml_element_get(tiles.data, tiles.dtype, 0);
  if (!(k >= 0 && k < n->in[0]->rank) || !(times >= 0 && times < 9e15))
    return ml_fail(err, ML_OUT_OF_RANGE, "'tiles' or 'axis' out of range");
  repeats[(int32_t)k] = (int64_t)times;
  n->n_in = 2;
  return constant_ints(u, repeats, (size_t)n->in[0]->rank, &n->in[1], err);
}

/* spatial = 0 (before 9): statistics for every element of an image, which is the canonical form of the input as a matrix. */
static ml_status up_batch_normalization_9(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  int64_t spatial = 1, ignored, flat = -1;
  ML_TRY(take_int(n, "is_test", 0, &ignored, err));
  ML_TRY(take_int(n, "spatial", 1, &spatial, err));
  if (spatial || n->n_in < 5 || !n->in[0] || n->n_out < 1 || !*n->out[0]) return ML_OK;
  for (size_t i = 1; i < n->n_out; i++)
    if (*n->out[i]) return ml_fail(err, ML_UNIMPLEMENTED, "training with spatial=0 (statistics per element) is not supported");
  const ml_attr axis = ml_attr_of_int("axis", 1);
  ml_value *shape, *x = n->in[0], *in[2] = {NULL, NULL};
  ML_TRY(emit(u, "Shape", NULL, 1, &x, &shape, err));
  ML_TRY(emit(u, "Flatten", &axis, 1, &x, &n->in[0], err));
  ML_TRY(constant_ints(u, &flat, 1, &in[1], err));
  for (size_t i = 1; i < 5; i++) {
    in[0] = n->in[i];
    if (in[0]) ML_TRY(emit(u, "Reshape", NULL, 2, in, &n->in[i], err));
  }
  n->after[n->n_after++] = (ml__after){.op = "Reshape", .output = 0, .second = shape, .out_name = n->out[0]};
  n->out[0] = NULL;
  return ML_OK;
}

/* Before 14 more than one output meant training; the fourth and fifth (saved statistics) were for the backward pass. */
static ml_status up_batch_normalization_14(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u, (void)err;
  while (n->n_out > 1 && !*n->out[n->n_out - 1]) n->n_out--;
  if (n->n_out > 1) push(n, ml_attr_of_int("training_mode", 1));
  if (n->n_out > 3) n->n_out = 3;
  return ML_OK;
}

/* ---- images ---- */
static ml_status up_pad_2(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u;
  ml_attr pads = take(n->attrs, &n->n_attrs, "paddings");
  if (pads.type == ML_ATTR_NONE) return ML_OK;
  if (pads.type != ML_ATTR_INTS) return wrong_type("paddings", "a list of ints", err);
  pads.name = "pads";
  push(n, pads);
  return ML_OK;
}

static ml_status up_pad_11(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  if (!find(n->attrs, n->n_attrs, "pads")) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'pads' is missing");
  ML_TRY(ints_to_input(u, n, "pads", 1, true, err));
  ml_attr value = take(n->attrs, &n->n_attrs, "value");
  if (value.type == ML_ATTR_NONE) return ML_OK;
  if (value.type != ML_ATTR_FLOAT) return wrong_type("value", "a float", err);
  ml_value *scalar;
  ML_TRY(constant_like(u, value.as.f, n->in[0], &scalar, err));
  set_input(n->in, &n->n_in, 2, scalar);
  return ML_OK;
}

/* Resize-10 and Upsample knew one way of sampling, and had the scales where the region of interest is now. */
static void resize_as_before_11(ml__onnx_node *n) {
  push(n, ml_attr_of_str("coordinate_transformation_mode", "asymmetric"));
  push(n, ml_attr_of_str("nearest_mode", "floor"));
}

static ml_status up_resize(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u;
  if (n->n_in != 2) return ml_fail(err, ML_INVALID_ARGUMENT, "%zu inputs, expected 2", n->n_in);
  set_input(n->in, &n->n_in, 2, n->in[1]);
  n->in[1] = NULL;
  resize_as_before_11(n);
  return ML_OK;
}

static ml_status scales_input(ml__upgrade *u, ml__onnx_node *n, const float *scales, size_t count, ml_error *err) {
  int64_t dim = (int64_t)count;
  ml_value *value;
  ML_TRY(constant(u, ML_FLOAT32, scales, &dim, 1, &value, err));
  set_input(n->in, &n->n_in, 1, value);
  return ML_OK;
}

static ml_status up_upsample_7(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u;
  ml_attr height = take(n->attrs, &n->n_attrs, "height_scale"), width = take(n->attrs, &n->n_attrs, "width_scale");
  if (height.type == ML_ATTR_NONE && width.type == ML_ATTR_NONE) return ML_OK; /* written ahead of its version */
  if (height.type != ML_ATTR_FLOAT || width.type != ML_ATTR_FLOAT) return wrong_type("height_scale' or 'width_scale", "a float", err);
  const float scales[4] = {1, 1, height.as.f, width.as.f};
  ml_attr *mode = (ml_attr *)(uintptr_t)find(n->attrs, n->n_attrs, "mode");
  if (mode && mode->type == ML_ATTR_STRING && mode->as.s.length == 8 && memcmp(mode->as.s.bytes, "bilinear", 8) == 0)
    mode->as.s = (ml_str){"linear", 6};
  return scales_input(u, n, scales, 4, err);
}

static ml_status up_upsample_9(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  ml_attr scales = take(n->attrs, &n->n_attrs, "scales");
  if (scales.type == ML_ATTR_NONE) return ML_OK;
  if (scales.type != ML_ATTR_FLOATS) return wrong_type("scales", "a list of floats", err);
  return scales_input(u, n, scales.as.floats, scales.count, err);
}

static ml_status up_roi_align(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u, (void)err;
  push(n, ml_attr_of_str("coordinate_transformation_mode", "output_half_pixel"));
  return ML_OK;
}

/* The exponent was a float. */
static ml_status up_exponent(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u;
  ml_attr p = take(n->attrs, &n->n_attrs, "p");
  if (p.type == ML_ATTR_FLOAT) {
    if (!(p.as.f >= 1 && p.as.f < 1e6f && p.as.f == (float)(int64_t)p.as.f))
      return ml_fail(err, ML_UNIMPLEMENTED, "attribute 'p' is %g, only whole numbers are supported", (double)p.as.f);
    p = ml_attr_of_int("p", (int64_t)p.as.f);
  }
  if (p.type != ML_ATTR_NONE) push(n, p);
  return ML_OK;
}

/* Version 1 had one list of classes and mapped strings to positions, or positions to strings, by the type of its input. */
static ml_status up_label_encoder(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  ml_attr classes = take(n->attrs, &n->n_attrs, "classes_strings");
  if (classes.type != ML_ATTR_STRINGS) return wrong_type("classes_strings", "a list of strings", err);
  int64_t *positions = ml_arena_alloc(u->scratch, (classes.count + 1) * sizeof *positions);
  if (!positions) return ml_fail_memory(err, classes.count * sizeof *positions, "an import");
  for (size_t i = 0; i < classes.count; i++) positions[i] = (int64_t)i;
  bool from_strings = n->n_in > 0 && n->in[0] && n->in[0]->dtype == ML_STRING;
  classes.name = from_strings ? "keys_strings" : "values_strings";
  push(n, classes);
  push(n, ml_attr_of_ints(from_strings ? "values_int64s" : "keys_int64s", positions, classes.count));
  return ML_OK;
}

/* Whether all steps or the last one are wanted is said by the outputs since 7. */
static ml_status up_recurrent(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u;
  int64_t ignored;
  return take_int(n, "output_sequence", 0, &ignored, err);
}

/* ---------------------------------------------------------------- downgrades ---- */
static bool fits_never(const ml_node *n) {
  (void)n;
  return false;
}

static bool fits_any(const ml_node *n) {
  (void)n;
  return true;
}

static bool fits_reduce_axes(const ml_node *n) {
  const int64_t *values;
  size_t count;
  if (ml_attr_int(&n->attrs, "noop_with_empty_axes", 0) != 0) return false;
  return n->n_in < 2 || !n->in[1] || constant_values(n->in[1], &values, &count);
}

static ml_status down_reduce_axes(ml__draft *d, ml_arena *scratch, ml_error *err) {
  take(d->attrs, &d->n_attrs, "noop_with_empty_axes");
  const int64_t *values;
  size_t count;
  if (d->n_in > 1 && d->in[1] && constant_values(d->in[1], &values, &count) && count > 0) {
    int64_t *copy = ml_arena_alloc(scratch, count * sizeof *copy);
    if (!copy) return ml_fail_memory(err, count * sizeof *copy, "an export");
    memcpy(copy, values, count * sizeof *copy);
    d->attrs[d->n_attrs++] = ml_attr_of_ints("axes", copy, count);
  }
  d->n_in = 1;
  return ML_OK;
}

static bool is_bool(const ml_node *n) { return n->n_in > 0 && n->in[0] && n->in[0]->dtype == ML_BOOL; }
static bool is_string(const ml_node *n) { return n->n_in > 0 && n->in[0] && n->in[0]->dtype == ML_STRING; }
static bool fits_not_bool(const ml_node *n) { return !is_bool(n); }
static bool fits_not_string(const ml_node *n) { return !is_string(n); }

/* Length of the axis that Split divides; -1 when unknown. */
static int64_t split_length(const ml_node *n) {
  int32_t axis;
  if (n->n_in < 1 || !n->in[0] || n->in[0]->rank < 1) return -1;
  if (ml_axis_normalise(ml_attr_int(&n->attrs, "axis", 0), n->in[0]->rank, &axis, NULL) != ML_OK) return -1;
  return n->in[0]->dims[axis];
}

static bool fits_split(const ml_node *n) { return (n->n_in > 1 && n->in[1]) || split_length(n) >= 0; }

static ml_status down_split(ml__draft *d, ml_arena *scratch, ml_error *err) {
  take(d->attrs, &d->n_attrs, "num_outputs");
  int64_t parts = d->node->n_out, length = split_length(d->node);
  if ((d->n_in > 1 && d->in[1]) || length % parts == 0) return ML_OK;
  (void)scratch;
  int64_t size = (length + parts - 1) / parts; /* the last part is the shorter one */
  ML_TRY(ml_tensor_new(ML_INT64, &parts, 1, &d->extra, err));
  for (int64_t i = 0; i < parts; i++) {
    int64_t left = length - i * size;
    ((int64_t *)d->extra->view.data)[i] = left < 0 ? 0 : left < size ? left : size;
  }
  d->extra_input = 1;
  return ML_OK;
}

static ml_status down_saturate(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "saturate");
  return ML_OK;
}

static bool has_dtype(const ml_node *n, uint32_t mask) { /* any input of one of these types */
  for (int32_t i = 0; i < n->n_in; i++)
    if (n->in[i] && (uint32_t)n->in[i]->dtype < 32 && mask & ML_BIT(n->in[i]->dtype)) return true;
  return false;
}

static bool fits_unsigned(const ml_node *n) {
  return !has_dtype(n, ML_BIT(ML_INT8) | ML_BIT(ML_INT16) | ML_BIT(ML_INT32) | ML_BIT(ML_INT64));
}

static bool fits_no_bfloat(const ml_node *n) { return !has_dtype(n, ML_BIT(ML_BFLOAT16)); }

static bool fits_no_half(const ml_node *n) { return !has_dtype(n, ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16)); }

/* Scatter: max and min came after add and mul. */
static bool fits_reduction(const ml_node *n) {
  return !ml_attr_is(&n->attrs, "reduction", "none", "max") && !ml_attr_is(&n->attrs, "reduction", "none", "min");
}

/* The seventh input came with 24, the windows with 25. */
static bool fits_attention_24(const ml_node *n) {
  return (n->n_in < 7 || !n->in[6]) && !(ml_attr_int(&n->attrs, "is_causal", 0) && n->n_in > 4 && n->in[4]);
}

static bool fits_attention_25(const ml_node *n) {
  return ml_attr_int(&n->attrs, "left_window_size", -1) == -1 && ml_attr_int(&n->attrs, "right_window_size", -1) == -1;
}

static ml_status down_attention_25(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "left_window_size");
  take(d->attrs, &d->n_attrs, "right_window_size");
  return ML_OK;
}

/* Blocks, 16-bit integers and a type given by attribute came with 21 (Dequantize: 23), a precision with 23. */
static bool fits_quantize(const ml_node *n) {
  const ml_dtype out = n->out[0] ? n->out[0]->dtype : ML_UINT8;
  const ml_value *zero = n->n_in > 2 ? n->in[2] : NULL;
  return ml_attr_int(&n->attrs, "block_size", 0) == 0 && (out == ML_UINT8 || (out == ML_INT8 && zero)) && fits_no_half(n);
}

static bool fits_dequantize(const ml_node *n) {
  return ml_attr_int(&n->attrs, "block_size", 0) == 0 && !has_dtype(n, ML_BIT(ML_INT16) | ML_BIT(ML_UINT16)) && fits_no_half(n);
}

static bool fits_precision(const ml_node *n) { return ml_attr_int(&n->attrs, "precision", 0) == 0; }

static bool fits_output_dtype(const ml_node *n) {
  int64_t dtype = ml_attr_int(&n->attrs, "output_dtype", 0);
  return dtype == 0 || (n->n_in > 1 && n->in[1] && dtype == (int64_t)n->in[1]->dtype);
}

static ml_status down_quantize(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "saturate");
  take(d->attrs, &d->n_attrs, "block_size");
  take(d->attrs, &d->n_attrs, "output_dtype");
  return ML_OK;
}

static ml_status down_precision(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "precision");
  return ML_OK;
}

static ml_status down_output_dtype(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "output_dtype");
  return ML_OK;
}

static ml_status down_stash_type(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "stash_type");
  return ML_OK;
}

static ml_status down_round_mode(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "round_mode");
  return ML_OK;
}

/* LabelEncoder-4 may hold its lists as tensors; version 2 has lists of strings, int64s and floats. */
static const char *const label_tensors[] = {"keys_tensor", "values_tensor", "default_tensor"};

static bool fits_label_encoder(const ml_node *n) {
  for (size_t i = 0; i < 3; i++) {
    const ml_attr *a = ml_attr_find(&n->attrs, label_tensors[i]);
    if (!a) continue;
    const ml_view *view = &a->as.tensor->view;
    if (view->dtype != ML_STRING && view->dtype != ML_INT64 && view->dtype != ML_FLOAT32) return false;
    if (view->count == 0 || (i == 2 && view->count != 1)) return false;
  }
  return true;
}

static ml_status down_label_encoder(ml__draft *d, ml_arena *scratch, ml_error *err) {
  static const char *const names[3][3] = {{"keys_strings", "keys_int64s", "keys_floats"},
                                          {"values_strings", "values_int64s", "values_floats"},
                                          {"default_string", "default_int64", "default_float"}};
  (void)scratch, (void)err;
  for (size_t i = 0; i < 3; i++) {
    ml_attr a = take(d->attrs, &d->n_attrs, label_tensors[i]);
    if (a.type == ML_ATTR_NONE) continue;
    const ml_view *view = &a.as.tensor->view; /* the graph keeps it alive */
    size_t kind = view->dtype == ML_STRING ? 0 : view->dtype == ML_INT64 ? 1 : 2;
    ml_attr to = {.name = names[i][kind], .count = i == 2 ? 1 : view->count};
    if (kind == 0) {
      to.type = i == 2 ? ML_ATTR_STRING : ML_ATTR_STRINGS;
      if (i == 2) to.as.s = *(const ml_str *)view->data;
      else to.as.strings = view->data;
    } else if (kind == 1) {
      to.type = i == 2 ? ML_ATTR_INT : ML_ATTR_INTS;
      if (i == 2) to.as.i = *(const int64_t *)view->data;
      else to.as.ints = view->data;
    } else {
      to.type = i == 2 ? ML_ATTR_FLOAT : ML_ATTR_FLOATS;
      if (i == 2) to.as.f = *(const float *)view->data;
      else to.as.floats = view->data;
    }
    take(d->attrs, &d->n_attrs, to.name); /* the tensor form wins over a scalar default beside it */
    d->attrs[d->n_attrs++] = to;
  }
  return ML_OK;
}

/* ---- images ---- */
static bool attr_present(const ml_node *n, const char *name) { return ml_attr_find(&n->attrs, name) != NULL; }
static bool fits_pad_axes(const ml_node *n) { return n->n_in < 4 || !n->in[3]; }
static bool fits_pad_mode(const ml_node *n) { return !ml_attr_is(&n->attrs, "mode", "constant", "wrap"); }
static bool fits_resize_18(const ml_node *n) {
  return !attr_present(n, "antialias") && !attr_present(n, "axes") && !attr_present(n, "keep_aspect_ratio_policy");
}
static bool fits_resize_19(const ml_node *n) {
  return !ml_attr_is(&n->attrs, "coordinate_transformation_mode", "half_pixel", "half_pixel_symmetric");
}
/* How an output length came about when ceil_mode rounds up: does a window start in the padding behind, which only version 22 drops? */
static void pool_ceil(const ml_node *n, bool *dropped, bool *floor) {
  const ml_value *x = n->in[0], *y = n->out[0];
  const ml_attr *kernel = ml_attr_find(&n->attrs, "kernel_shape"), *strides = ml_attr_find(&n->attrs, "strides");
  const ml_attr *pads = ml_attr_find(&n->attrs, "pads"), *dilations = ml_attr_find(&n->attrs, "dilations");
  *dropped = false;
  *floor = true;
  if (!y || !kernel || x->rank < 3 || y->rank != x->rank || kernel->count != (size_t)x->rank - 2) return;
  size_t spatial = kernel->count;
  for (size_t d = 0; d < spatial; d++) {
    int64_t in = x->dims[d + 2], out = y->dims[d + 2], stride = strides && strides->count == spatial ? strides->as.ints[d] : 1;
    int64_t dilation = dilations && dilations->count == spatial ? dilations->as.ints[d] : 1;
    int64_t room = in - ((kernel->as.ints[d] - 1) * dilation + 1);
    if (pads && pads->count == 2 * spatial) room += pads->as.ints[d] + pads->as.ints[d + spatial];
    if (in < 0 || out < 0 || stride < 1) return;
    *dropped = *dropped || out != (room + stride - 1) / stride + 1;
    *floor = *floor && out == room / stride + 1;
  }
}

static bool pool_rounds_up(const ml_node *n) {
  return ml_attr_int(&n->attrs, "ceil_mode", 0) && ml_attr_is(&n->attrs, "auto_pad", "NOTSET", "NOTSET");
}

static bool fits_pool(const ml_node *n) {
  bool dropped, floor;
  if (!pool_rounds_up(n)) return true;
  pool_ceil(n, &dropped, &floor);
  return !dropped || floor;
}

/* Where every window that rounding up adds is dropped again, rounding down says the same. */
static ml_status down_pool(ml__draft *d, ml_arena *scratch, ml_error *err) {
  bool dropped, floor;
  (void)scratch, (void)err;
  if (!pool_rounds_up(d->node)) return ML_OK;
  pool_ceil(d->node, &dropped, &floor);
  if (dropped && floor) take(d->attrs, &d->n_attrs, "ceil_mode");
  return ML_OK;
}

static bool fits_average_pool(const ml_node *n) { return !attr_present(n, "dilations"); }
static bool fits_lp_pool(const ml_node *n) { return !attr_present(n, "dilations") && !attr_present(n, "ceil_mode"); }
static bool fits_space_to_depth(const ml_node *n) { return ml_attr_is(&n->attrs, "mode", "DCR", "DCR"); }

static ml_status down_space_to_depth(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "mode");
  return ML_OK;
}

static bool fits_mod(const ml_node *n) {
  return ml_attr_int(&n->attrs, "fmod", 0) != 0 || !n->in[0] || !ml_dtype_is_float(n->in[0]->dtype);
}

static bool fits_grid_sample(const ml_node *n) { return n->n_in > 0 && n->in[0] && n->in[0]->rank == 4; }

/* Version 18 takes any value, or none. */
static bool fits_optional(const ml_node *n) { return n->n_in > 0 && n->in[0] && ml_type_kind(n->in[0]->type) == ML_KIND_OPTIONAL; }

/* ---- forms of before 17, for runtimes that know no newer one ---- */
/* Before 13 what is normalised was everything from the axis on. */
static bool fits_softmax(const ml_node *n) {
  int64_t axis = ml_attr_int(&n->attrs, "axis", -1);
  return axis == -1 || (n->in[0] && n->in[0]->rank > 0 && axis == n->in[0]->rank - 1);
}

static ml_status down_softmax(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "axis");
  d->attrs[d->n_attrs++] = ml_attr_of_int("axis", -1); /* the default was 1 */
  return ML_OK;
}

static bool fits_split_13(const ml_node *n) {
  const int64_t *values;
  size_t count;
  return n->n_in < 2 || !n->in[1] || constant_values(n->in[1], &values, &count);
}

static ml_status down_split_13(ml__draft *d, ml_arena *scratch, ml_error *err) {
  const int64_t *values = NULL;
  size_t count = 0;
  if (d->extra) values = d->extra->view.data, count = d->extra->view.count;
  else if (d->n_in > 1 && d->in[1]) constant_values(d->in[1], &values, &count);
  d->n_in = 1;
  if (!values) return ML_OK;
  int64_t *copy = ml_arena_alloc(scratch, (count + 1) * sizeof *copy);
  if (!copy) return ml_fail_memory(err, count * sizeof *copy, "an export");
  memcpy(copy, values, count * sizeof *copy);
  ml_tensor_release(d->extra);
  d->extra = NULL;
  d->attrs[d->n_attrs++] = ml_attr_of_ints("split", copy, count);
  return ML_OK;
}

static bool is_constant_of(const ml_value *v, ml_dtype dtype) { return v->init && v->dtype == dtype && v->init->view.count == 1; }

static bool fits_dropout(const ml_node *n) {
  const ml_value *ratio = n->n_in > 1 ? n->in[1] : NULL, *mode = n->n_in > 2 ? n->in[2] : NULL;
  return (!ratio || is_constant_of(ratio, ML_FLOAT32)) && !ml_attr_find(&n->attrs, "seed") &&
         (!mode || (is_constant_of(mode, ML_BOOL) && !*(const bool *)mode->init->view.data));
}

static ml_status down_dropout(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  if (d->n_in > 1 && d->in[1]) d->attrs[d->n_attrs++] = ml_attr_of_float("ratio", *(const float *)d->in[1]->init->view.data);
  d->n_in = 1;
  return ML_OK;
}

/* Before 13 the region of interest and the scales were there always, if only as empty lists. */
static ml_status down_resize_13(ml__draft *d, ml_arena *scratch, ml_error *err) {
  bool roi = d->n_in > 1 && d->in[1], scales = d->n_in > 2 && d->in[2];
  int64_t none = 0;
  (void)scratch;
  if (roi && scales) return ML_OK;
  ML_TRY(ml_tensor_new(ML_FLOAT32, &none, 1, &d->extra, err));
  d->extra_input = roi ? 2 : 1;
  d->extra_again = roi || scales ? 0 : 2;
  return ML_OK;
}

static bool fits_roi_align(const ml_node *n) {
  return ml_attr_is(&n->attrs, "coordinate_transformation_mode", "half_pixel", "output_half_pixel");
}

static ml_status down_roi_align(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "coordinate_transformation_mode");
  return ML_OK;
}

static bool fits_no_reduction(const ml_node *n) { return ml_attr_is(&n->attrs, "reduction", "none", "none"); }

static ml_status down_reduction(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "reduction");
  return ML_OK;
}

static bool fits_quantize_13(const ml_node *n) { /* one scale for all: the axis says nothing */
  return n->in[1] && (n->in[1]->rank == 0 || (n->in[1]->rank == 1 && n->in[1]->dims[0] == 1));
}

static ml_status down_axis(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  take(d->attrs, &d->n_attrs, "axis");
  return ML_OK;
}

/* Modes had the names of their two-dimensional forms. */
static ml_status down_grid_sample(ml__draft *d, ml_arena *scratch, ml_error *err) {
  (void)scratch, (void)err;
  const ml_attrs all = d->node->attrs;
  bool linear = ml_attr_is(&all, "mode", "", "linear"), cubic = ml_attr_is(&all, "mode", "", "cubic");
  if (!linear && !cubic) return ML_OK; /* nearest, or none: the default had another name too */
  take(d->attrs, &d->n_attrs, "mode");
  d->attrs[d->n_attrs++] = ml_attr_of_str("mode", linear ? "bilinear" : "bicubic");
  return ML_OK;
}

static ml_status up_grid_sample(ml__upgrade *u, ml__onnx_node *n, ml_error *err) {
  (void)u, (void)err;
  const ml_attrs all = {n->attrs, n->n_attrs};
  bool linear = ml_attr_is(&all, "mode", "", "bilinear"), cubic = ml_attr_is(&all, "mode", "", "bicubic");
  if (!linear && !cubic) return ML_OK;
  take(n->attrs, &n->n_attrs, "mode");
  push(n, ml_attr_of_str("mode", linear ? "linear" : "cubic"));
  return ML_OK;
}

/* ---------------------------------------------------------------- the table ---- */
typedef struct opset_row {
  const char *domain, *op;
  int32_t to; /* first version of the new form */
  ml_status (*up)(ml__upgrade *u, ml__onnx_node *n,
                  ml_error *err); /* (optional) NULL: the forms differ in nothing a reader minds */
  bool (*fits)(const ml_node *n); /* (optional) NULL: never written in the form before `to` */
  ml_status (*down)(ml__draft *d, ml_arena *scratch, ml_error *err);        /* (optional) NULL: nothing to change */
} opset_row;

static const opset_row rows[] = {
  {"", "Add", 7, up_broadcast, NULL, NULL},
  {"", "AffineGrid", 20, NULL, fits_never, NULL},
  {"", "And", 7, up_broadcast, NULL, NULL},
  {"", "Attention", 23, NULL, fits_never, NULL},
  {"", "Attention", 24, NULL, fits_attention_24, NULL},
  {"", "Attention", 25, NULL, fits_attention_25, down_attention_25},
  {"", "AveragePool", 19, NULL, fits_average_pool, NULL},
  {"", "AveragePool", 22, NULL, fits_pool, down_pool},
  {"", "BatchNormalization", 9, up_batch_normalization_9, NULL, NULL},
  {"", "BatchNormalization", 14, up_batch_normalization_14, NULL, NULL},
  {"", "BitCast", 26, NULL, fits_never, NULL},
  {"", "BitShift", 28, NULL, fits_unsigned, NULL},
  {"", "BitwiseAnd", 18, NULL, fits_never, NULL},
  {"", "BitwiseNot", 18, NULL, fits_never, NULL},
  {"", "BitwiseOr", 18, NULL, fits_never, NULL},
  {"", "BitwiseXor", 18, NULL, fits_never, NULL},
  {"", "Cast", 6, up_cast, NULL, NULL},
  {"", "Cast", 19, NULL, fits_any, down_saturate},
  {"", "Cast", 24, NULL, fits_any, down_round_mode},
  {"", "CastLike", 19, NULL, fits_any, down_saturate},
  {"", "CastLike", 24, NULL, fits_any, down_round_mode},
  {"", "CausalConvWithState", 27, NULL, fits_never, NULL},
  {"", "CenterCropPad", 18, NULL, fits_never, NULL},
  {"", "Clip", 11, up_clip, NULL, NULL},
  {"", "Col2Im", 18, NULL, fits_never, NULL},
  {"", "Compress", 28, NULL, fits_no_bfloat, NULL},
  {"", "Concat", 4, up_concat, NULL, NULL},
  {"", "CumProd", 26, NULL, fits_never, NULL},
  {"", "DFT", 20, up_dft, fits_never, NULL},
  {"", "DeformConv", 19, NULL, fits_never, NULL},
  {"", "DequantizeLinear", 13, NULL, fits_quantize_13, down_axis},
  {"", "DequantizeLinear", 21, NULL, fits_dequantize, down_quantize},
  {"", "DequantizeLinear", 23, NULL, fits_output_dtype, down_output_dtype},
  {"", "Div", 7, up_broadcast, NULL, NULL},
  {"", "Dropout", 12, up_dropout, fits_dropout, down_dropout},
  {"", "Equal", 7, up_broadcast, NULL, NULL},
  {"", "Equal", 19, NULL, fits_not_string, NULL},
  {"", "GRU", 7, up_recurrent, NULL, NULL},
  {"", "Gelu", 20, NULL, fits_never, NULL},
  {"", "Gemm", 7, up_gemm, NULL, NULL},
  {"", "GlobalLpPool", 2, up_exponent, NULL, NULL},
  {"", "Greater", 7, up_broadcast, NULL, NULL},
  {"", "GridSample", 20, up_grid_sample, fits_grid_sample, down_grid_sample},
  {"", "GroupNormalization", 21, NULL, fits_never, NULL},
  {"", "Hardmax", 13, up_softmax, fits_softmax, down_softmax},
  {"", "ImageDecoder", 20, NULL, fits_never, NULL},
  {"", "LSTM", 7, up_recurrent, NULL, NULL},
  {"", "Less", 7, up_broadcast, NULL, NULL},
  {"", "LinearAttention", 27, NULL, fits_never, NULL},
  {"", "LogSoftmax", 13, up_softmax, fits_softmax, down_softmax},
  {"", "LpPool", 2, up_exponent, NULL, NULL},
  {"", "LpPool", 18, NULL, fits_lp_pool, NULL},
  {"", "LpPool", 22, NULL, fits_pool, down_pool},
  {"", "MaxPool", 22, NULL, fits_pool, down_pool},
  {"", "Mish", 18, NULL, fits_never, NULL},
  {"", "Mod", 28, NULL, fits_mod, NULL},
  {"", "Mul", 7, up_broadcast, NULL, NULL},
  {"", "OptionalGetElement", 18, NULL, fits_optional, NULL},
  {"", "OptionalHasElement", 18, NULL, fits_optional, NULL},
  {"", "Or", 7, up_broadcast, NULL, NULL},
  {"", "PRelu", 7, up_prelu, NULL, NULL},
  {"", "Pad", 2, up_pad_2, NULL, NULL},
  {"", "Pad", 11, up_pad_11, NULL, NULL},
  {"", "Pad", 18, NULL, fits_pad_axes, NULL},
  {"", "Pad", 19, NULL, fits_pad_mode, NULL},
  {"", "Pow", 7, up_broadcast, NULL, NULL},
  {"", "QLinearMatMul", 21, NULL, fits_no_half, NULL},
  {"", "QuantizeLinear", 13, NULL, fits_quantize_13, down_axis},
  {"", "QuantizeLinear", 21, NULL, fits_quantize, down_quantize},
  {"", "QuantizeLinear", 23, NULL, fits_precision, down_precision},
  {"", "RMSNormalization", 23, NULL, fits_never, NULL},
  {"", "RNN", 7, up_recurrent, NULL, NULL},
  {"", "Range", 27, NULL, fits_no_half, down_stash_type},
  {"", "ReduceL1", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceL2", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceLogSum", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceLogSumExp", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceMax", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceMax", 20, NULL, fits_not_bool, NULL},
  {"", "ReduceMean", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceMin", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceMin", 20, NULL, fits_not_bool, NULL},
  {"", "ReduceProd", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceSum", 13, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "ReduceSumSquare", 18, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "RegexFullMatch", 20, NULL, fits_never, NULL},
  {"", "Reshape", 5, up_reshape, NULL, NULL},
  {"", "Resize", 11, up_resize, NULL, NULL},
  {"", "Resize", 13, NULL, fits_any, down_resize_13},
  {"", "Resize", 18, NULL, fits_resize_18, NULL},
  {"", "Resize", 19, NULL, fits_resize_19, NULL},
  {"", "ReverseSequence", 28, NULL, fits_no_bfloat, NULL},
  {"", "RoiAlign", 16, up_roi_align, fits_roi_align, down_roi_align},
  {"", "RotaryEmbedding", 23, NULL, fits_never, NULL},
  {"", "ScatterElements", 16, NULL, fits_no_reduction, down_reduction},
  {"", "ScatterElements", 18, NULL, fits_reduction, NULL},
  {"", "ScatterND", 16, NULL, fits_no_reduction, down_reduction},
  {"", "ScatterND", 18, NULL, fits_reduction, NULL},
  {"", "Scan", 9, ml__opset_up_scan, NULL, NULL},
  {"", "Selu", 6, up_selu, NULL, NULL},
  {"", "Slice", 10, up_slice, NULL, NULL},
  {"", "Softmax", 13, up_softmax, fits_softmax, down_softmax},
  {"", "SpaceToDepth", 28, NULL, fits_space_to_depth, down_space_to_depth},
  {"", "Split", 13, up_split_sizes, fits_split_13, down_split_13},
  {"", "Split", 18, up_split_count, fits_split, down_split},
  {"", "Squeeze", 13, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "StringConcat", 20, NULL, fits_never, NULL},
  {"", "StringSplit", 20, NULL, fits_never, NULL},
  {"", "Sub", 7, up_broadcast, NULL, NULL},
  {"", "SwiGLU", 28, NULL, fits_never, NULL},
  {"", "Swish", 24, NULL, fits_never, NULL},
  {"", "TensorScatter", 24, NULL, fits_never, NULL},
  {"", "Tile", 6, up_tile, NULL, NULL},
  {"", "TopK", 10, up_top_k, NULL, NULL},
  {"", "TopK", 24, NULL, fits_no_bfloat, NULL},
  {"", "Unique", 28, NULL, fits_no_bfloat, NULL},
  {"", "Unsqueeze", 13, up_axes, fits_reduce_axes, down_reduce_axes},
  {"", "Upsample", 7, up_upsample_7, NULL, NULL},
  {"", "Upsample", 9, up_upsample_9, NULL, NULL},
  {"", "Upsample", INT32_MAX, up_resize, NULL, NULL},
  {"", "Xor", 7, up_broadcast, NULL, NULL},
  {"ai.onnx.ml", "LabelEncoder", 2, up_label_encoder, NULL, NULL},
  {"ai.onnx.ml", "LabelEncoder", 4, NULL, fits_label_encoder, down_label_encoder},
  {"ai.onnx.ml", "TreeEnsemble", 5, NULL, fits_never, NULL},
};
enum { N_ROWS = sizeof rows / sizeof *rows };

/* Attributes of ai.onnx that came later: before `since` only the default could be meant (NEEDED: any value needs `since`). */
#define NEEDED INT64_MIN
static const struct { const char *op, *attr; int32_t since; int64_t fallback;
} later[] = {
    {"ArgMax", "select_last_index", 12, 0}, {"ArgMin", "select_last_index", 12, 0}, {"BatchNormalization", "training_mode", 14, 0},
    {"Constant", "value_float", 12, NEEDED}, {"Constant", "value_floats", 12, NEEDED}, {"Constant", "value_int", 12, NEEDED},
    {"Constant", "value_ints", 12, NEEDED}, {"Constant", "value_string", 12, NEEDED}, {"Constant", "value_strings", 12, NEEDED},
    {"GRU", "layout", 14, 0}, {"GatherND", "batch_dims", 12, 0}, {"LSTM", "layout", 14, 0}, {"RNN", "layout", 14, 0},
    {"Reshape", "allowzero", 14, 0}, {"Shape", "end", 15, NEEDED}, {"Shape", "start", 15, 0},
};

/* Element types that an operator of ai.onnx takes only since a version. */
#define SMALL (ML_BIT(ML_INT8) | ML_BIT(ML_UINT8) | ML_BIT(ML_INT16) | ML_BIT(ML_UINT16))
static const struct { const char *op; int32_t since; uint32_t types;
} wider[] = {
    {"Add", 14, SMALL}, {"Clip", 12, ML_MASK_I}, {"Div", 14, SMALL}, {"IsInf", 20, ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16)},
    {"Max", 12, ML_MASK_I}, {"MaxPool", 12, SMALL}, {"Min", 12, ML_MASK_I},
    {"Mul", 14, SMALL}, {"Pow", 12, ML_MASK_I}, {"ReduceMax", 12, ML_BIT(ML_INT8) | ML_BIT(ML_UINT8)},
    {"ReduceMin", 12, ML_BIT(ML_INT8) | ML_BIT(ML_UINT8)}, {"Relu", 14, ML_MASK_I}, {"Sub", 14, SMALL},
};

/* Sequences and optionals in operators that were there before them. */
static int32_t needed_by_container(const ml_node *node, const ml_value *v) {
  const char *op = node->op->name;
  bool control = strcmp(op, "If") == 0 || strcmp(op, "Loop") == 0 || strcmp(op, "Scan") == 0;
  if (!control && strcmp(op, "Identity") != 0) return 0;
  return ml_type_kind(v->type) == ML_KIND_OPTIONAL ? 16 : control ? 13 : 14;
}

static int32_t needed_by_tables(const ml_node *node, int32_t needed) {
  if (*node->op->domain) return needed;
  for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
    if (later[i].since <= needed || strcmp(later[i].op, node->op->name) != 0) continue;
    const ml_attr *a = ml_attr_find(&node->attrs, later[i].attr);
    if (a && (later[i].fallback == NEEDED || a->as.i != later[i].fallback)) needed = later[i].since;
  }
  for (int32_t i = 0; i < node->n_in + node->n_out; i++) {
    const ml_value *v = i < node->n_in ? node->in[i] : node->out[i - node->n_in];
    int32_t least = v && v->type ? needed_by_container(node, v) : 0;
    if (least > needed) needed = least;
  }
  for (size_t i = 0; i < sizeof wider / sizeof *wider; i++)
    if (wider[i].since > needed && strcmp(wider[i].op, node->op->name) == 0 && has_dtype(node, wider[i].types)) needed = wider[i].since;
  return needed;
}

static const struct { const char *op; int32_t version;
} introduced[] = {
    {"Acos", 7}, {"Acosh", 9}, {"AffineGrid", 20}, {"Asin", 7}, {"Asinh", 9}, {"Atan", 7}, {"Atanh", 9}, {"Attention", 23},
    {"Bernoulli", 15}, {"BitCast", 26}, {"BitShift", 11}, {"BitwiseAnd", 18}, {"BitwiseNot", 18}, {"BitwiseOr", 18},
    {"BitwiseXor", 18}, {"BlackmanWindow", 17}, {"CastLike", 15}, {"CausalConvWithState", 27}, {"Celu", 12}, {"CenterCropPad", 18}, {"Col2Im", 18},
    {"Compress", 9}, {"ConcatFromSequence", 11}, {"ConstantOfShape", 9}, {"ConvInteger", 10}, {"Cos", 7}, {"Cosh", 9},
    {"CumProd", 26}, {"CumSum", 11}, {"DFT", 17}, {"DeformConv", 19}, {"DequantizeLinear", 10}, {"Det", 11},
    {"DynamicQuantizeLinear", 11}, {"Einsum", 12}, {"Erf", 9}, {"Expand", 8}, {"EyeLike", 9}, {"GatherElements", 11},
    {"GatherND", 11}, {"Gelu", 20}, {"GreaterOrEqual", 12}, {"GridSample", 16}, {"GroupNormalization", 18}, {"HammingWindow", 17},
    {"HannWindow", 17}, {"HardSwish", 14}, {"ImageDecoder", 20}, {"IsInf", 10}, {"IsNaN", 9}, {"LayerNormalization", 17}, {"LessOrEqual", 12},
    {"LinearAttention", 27},
    {"MatMulInteger", 10}, {"MaxUnpool", 9}, {"MeanVarianceNormalization", 9}, {"MelWeightMatrix", 17}, {"Mish", 18}, {"Mod", 10},
    {"Multinomial", 7}, {"NegativeLogLikelihoodLoss", 12}, {"NonMaxSuppression", 10}, {"NonZero", 9}, {"OneHot", 9},
    {"Optional", 15}, {"OptionalGetElement", 15}, {"OptionalHasElement", 15}, {"QLinearConv", 10}, {"QLinearMatMul", 10},
    {"QuantizeLinear", 10}, {"RMSNormalization", 23}, {"Range", 11}, {"RegexFullMatch", 20}, {"Resize", 10},
    {"ReverseSequence", 10}, {"RoiAlign", 10}, {"RotaryEmbedding", 23}, {"Round", 11}, {"STFT", 17}, {"Scan", 8}, {"Scatter", 9},
    {"ScatterElements", 11}, {"ScatterND", 11}, {"SequenceAt", 11}, {"SequenceConstruct", 11}, {"SequenceEmpty", 11},
    {"SequenceErase", 11}, {"SequenceInsert", 11}, {"SequenceLength", 11}, {"SequenceMap", 17}, {"Shrink", 9}, {"Sign", 9},
    {"Sin", 7}, {"Sinh", 9}, {"SoftmaxCrossEntropyLoss", 12}, {"SplitToSequence", 11}, {"StringConcat", 20},
    {"StringNormalizer", 10}, {"StringSplit", 20}, {"SwiGLU", 28}, {"Swish", 24}, {"Tan", 7}, {"TensorScatter", 24}, {"TfIdfVectorizer", 9},
    {"Trilu", 14}, {"Unique", 11}, {"Where", 9},
};

/* The newest versions are those of onnx 1.23. */
static const struct { const char *domain; int32_t newest;
} domains[ML__OPSET_DOMAINS] = {{"", 28}, {"ai.onnx.ml", 5}, {"ai.onnx.preview", 1}, {"ai.onnx.preview.training", 1}, {"com.microsoft", 1}};

int32_t ml__opset_domain(const char *domain) {
  if (strcmp(domain, "ai.onnx") == 0) return 0;
  for (int32_t i = 0; i < ML__OPSET_DOMAINS; i++)
    if (strcmp(domains[i].domain, domain) == 0) return i;
  return -1;
}

const char *ml__opset_domain_name(int32_t domain) { return domains[domain].domain; }

int32_t ml__opset_newest(int32_t domain) { return domain < 0 ? 0 : domains[domain].newest; }

const char *ml__opset_current_name(const char *domain, const char *op) {
  if (*domain) return op;
  if (strcmp(op, "Upsample") == 0) return "Resize";
  return strcmp(op, "Scatter") == 0 ? "ScatterElements" : op;
}

int32_t ml__opset_introduced(const char *domain, const char *op) {
  if (*domain) return strcmp(op, "TreeEnsemble") == 0 ? 5 : 1;
  for (size_t i = 0; i < sizeof introduced / sizeof *introduced; i++)
    if (strcmp(introduced[i].op, op) == 0) return introduced[i].version;
  return 1;
}

static bool is_row_of(const opset_row *row, const char *domain, const char *op) {
  return row->op[0] == op[0] && strcmp(row->op, op) == 0 && strcmp(row->domain, domain) == 0;
}

ml_status ml__opset_upgrade(ml__upgrade *upgrade, ml__onnx_node *node, ml_error *err) {
  if (node->version < 6 && !*node->domain)
    take(node->attrs, &node->n_attrs, "consumed_inputs"); /* a hint for running in place, long gone */
  for (size_t i = 0; i < N_ROWS; i++)
    if (rows[i].up && rows[i].to > node->version && is_row_of(&rows[i], node->domain, node->op))
      ML_TRY(rows[i].up(upgrade, node, err));
  return ML_OK;
}

/* The opset that gave an element type to the operators that take it. */
static int32_t dtype_introduced(const ml_value *value) {
  switch (value ? value->dtype : ML_DTYPE_NONE) {
    case ML_BFLOAT16: return 13;
    case ML_FLOAT8E4M3FN:
    case ML_FLOAT8E4M3FNUZ:
    case ML_FLOAT8E5M2:
    case ML_FLOAT8E5M2FNUZ: return 19;
    case ML_UINT4:
    case ML_INT4: return 21;
    case ML_FLOAT4E2M1: return 23;
    case ML_FLOAT8E8M0: return 24;
    case ML_UINT2:
    case ML_INT2: return 25;
    case ML_FLOAT6E2M3:
    case ML_FLOAT6E3M2: return 28;
    default: return 1;
  }
}

int32_t ml__opset_needed(const ml_node *node, int32_t at_least) {
  const ml_op_def *op = node->op;
  int32_t needed = at_least;
  for (int32_t i = 0; i < node->n_in + node->n_out && !*op->domain; i++) {
    const int32_t from = dtype_introduced(i < node->n_in ? node->in[i] : node->out[i - node->n_in]);
    if (from > needed) needed = from;
  }
  for (size_t i = N_ROWS; i-- > 0;)
    if (rows[i].fits && rows[i].to > needed && is_row_of(&rows[i], op->domain, op->name) && !rows[i].fits(node))
      needed = rows[i].to;
  needed = needed_by_tables(node, needed);
  int32_t first = ml__opset_introduced(op->domain, op->name);
  return first > needed ? first : needed;
}

ml_status ml__opset_downgrade(ml__draft *draft, int32_t target, ml_arena *scratch, ml_error *err) {
  const ml_op_def *op = draft->node->op;
  for (size_t i = N_ROWS; i-- > 0;)
    if (rows[i].down && rows[i].to > target && is_row_of(&rows[i], op->domain, op->name))
      ML_TRY(rows[i].down(draft, scratch, err));
  for (size_t i = 0; i < sizeof later / sizeof *later && !*op->domain; i++)
    if (later[i].since > target && strcmp(later[i].op, op->name) == 0) take(draft->attrs, &draft->n_attrs, later[i].attr);
  return ML_OK;
}

bool ml__opset_is_parameter(const ml_op_def *op, int32_t input) {
  static const struct { const char *op; int32_t first; } others[] = { /* inputs from `first` on are settings or statistics */
    {"BatchNormalization", 3}, {"Clip", 1}, {"DequantizeLinear", 1}, {"Dropout", 1}, {"GRU", 4}, {"MelWeightMatrix", 0},
    {"NonMaxSuppression", 0}, {"OneHot", 2}, {"Pad", 1}, {"QLinearConv", 0}, {"QLinearMatMul", 0}, {"QuantizeLinear", 1},
    {"RNN", 4}, {"Range", 0}, {"Resize", 1}, {"RoiAlign", 1}, {"RotaryEmbedding", 1}, {"STFT", 1},
  };
  if (!*op->domain && strcmp(op->name, "LSTM") == 0) return input < 4 || input == 7; /* not lengths and first states */
  for (size_t i = 0; i < sizeof others / sizeof *others; i++)
    if (!*op->domain && strcmp(op->name, others[i].op) == 0) return input < others[i].first;
  return true;
}
