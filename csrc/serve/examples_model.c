/* The features of one example are collected first, because a name may come twice and the last one counts, and then appended to the inputs' rows. */
#include "serve/examples_model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "serve/json_tensor.h"

const char *const ml_feature_kinds[] = {"UNKNOWN", "float", "int64", "bytes"}; /* in TensorFlow Serving's words … */
static const char *const type_names[] = {"invalid", "float", "int64", "string"}; /* … and in TensorFlow's */

#define REFUSE(w, err, ...) ((w)->refused = true, ml_fail(err, __VA_ARGS__))

/* Clients send the same order again and again: the one behind the last is looked at first. */
ml_feature *ml_examples_find(ml_examples *w, ml_feature *set, const char *name, size_t length) {
  for (size_t k = 0; k < w->n_features; k++) {
    size_t i = (w->last + 1 + k) % w->n_features;
    if (strlen(set[i].name) == length && memcmp(set[i].name, name, length) == 0) {
      w->last = i;
      return &set[i];
    }
  }
  return NULL;
}

void ml_examples_begin(ml_examples *w, ml_feature *set) {
  for (size_t i = 0; i < w->n_features; i++) set[i].there = false;
}

ml_feature_cell *ml_feature_room(ml_feature *f, ml_error *err) {
  size_t need;
  if (!ml_mul_size(f->count + 1, sizeof *f->cells, &need)) {
    ml_fail_memory(err, SIZE_MAX, "a request");
    return NULL;
  }
  if (need > f->capacity && ml_grow(&f->cells, &f->capacity, need, 1, "a request", err) != ML_OK) return NULL;
  return &f->cells[f->count];
}

/* ---------------------------------------------------------------- inputs ---- */
static ml_status mismatch(ml_examples *w, const ml_feature *f, ml_dtype dtype, ml_error *err) {
  return REFUSE(w, err, ML_INVALID_ARGUMENT,
                        "Name: <unknown>, Key: %.100s, Index: %zu.  Data types don't match. Data type: %s but expected type: %s", f->name, w->count,
                        type_names[f->kind], ml_tf_dtype_name(dtype));
}

static ml_status does_not_fit(ml_examples *w, const ml_feature *f, ml_dtype dtype, const char *text, ml_error *err) {
  return REFUSE(w, err, ML_INVALID_ARGUMENT, "Name: <unknown>, Key: %.100s, Index: %zu.  Value %s does not fit into type: %s", f->name,
                        w->count, text, ml_tf_dtype_name(dtype));
}

static ml_status store_float(ml_examples *w, const ml_feature *f, const ml_feature_cell *c, float *to, ml_error *err) {
  char text[40];
  *to = f->kind == ML_FEATURE_INTS ? (float)c->integer : c->real.narrow;
  if (f->kind == ML_FEATURE_INTS || !isinf(*to) || isinf(c->real.wide)) return ML_OK;
  snprintf(text, sizeof text, "%g", c->real.wide);
  return does_not_fit(w, f, ML_FLOAT32, text, err);
}

static ml_status store_integer(ml_examples *w, const ml_feature *f, ml_dtype dtype, int64_t value, char *to, ml_error *err) {
  int64_t low = 0, high = 0;
  switch (dtype) {
    case ML_INT8: low = INT8_MIN; high = INT8_MAX; break;
    case ML_INT16: low = INT16_MIN; high = INT16_MAX; break;
    case ML_INT32: low = INT32_MIN; high = INT32_MAX; break;
    case ML_INT64: low = INT64_MIN; high = INT64_MAX; break;
    case ML_UINT8: high = UINT8_MAX; break;
    case ML_UINT32: high = UINT32_MAX; break;
    case ML_UINT64: high = INT64_MAX; break;
    default: high = 1; break; /* bool */
  }
  if (value < low || value > high) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return does_not_fit(w, f, dtype, text, err);
  }
  switch (ml_dtype_size(dtype)) { /* two's complement: the low bytes are the value, signed or not */
    case 1: *(uint8_t *)to = (uint8_t)value; break;
    case 2: *(uint16_t *)(void *)to = (uint16_t)value; break;
    case 4: *(uint32_t *)(void *)to = (uint32_t)value; break;
    default: *(uint64_t *)(void *)to = (uint64_t)value; break;
  }
  return ML_OK;
}

/* The values of f behind those that the input has. */
static ml_status append(ml_examples *w, const ml_feature *f, ml_dtype dtype, ml_example_rows *r, ml_error *err) {
  size_t size = ml_dtype_size(dtype), need, most = ml_servable_max_elements(w->servable);
  bool real = dtype == ML_FLOAT32 || dtype == ML_FLOAT64;
  if (f->count > most - w->elements) return REFUSE(w, err, ML_RESOURCE_EXHAUSTED, "the request has more than %zu elements", most);
  if (f->kind != ML_FEATURE_UNSET && (real ? f->kind == ML_FEATURE_BYTES : dtype == ML_STRING ? f->kind != ML_FEATURE_BYTES : f->kind != ML_FEATURE_INTS)) return mismatch(w, f, dtype, err);
  if (!ml_add_size(r->count, f->count, &need) || !ml_mul_size(need, size, &need)) return ml_fail_memory(err, SIZE_MAX, "a request");
  if (need > r->bytes) ML_TRY(ml_grow(&r->data, &r->bytes, need, 1, "a request", err));
  for (size_t i = 0; i < f->count; i++) {
    const ml_feature_cell *c = &f->cells[i];
    char *to = (char *)r->data + (r->count + i) * size;
    if (dtype == ML_FLOAT32) ML_TRY(store_float(w, f, c, (float *)(void *)to, err));
    else if (dtype == ML_FLOAT64) *(double *)(void *)to = f->kind == ML_FEATURE_INTS ? (double)c->integer : c->real.wide;
    else if (dtype == ML_STRING) *(ml_str *)(void *)to = c->bytes;
    else ML_TRY(store_integer(w, f, dtype, c->integer, to, err));
  }
  r->count += f->count;
  w->elements += f->count;
  return ML_OK;
}

static ml_status wrong_count(ml_examples *w, const ml_feature *f, size_t expected, ml_error *err) {
  return REFUSE(w, err, ML_INVALID_ARGUMENT,
                        "Name: <unknown>, Key: %.100s, Index: %zu.  Number of %s values != expected.  Values size: %zu but output shape: [%zu]", f->name,
                        w->count, ml_feature_kinds[f->kind], f->count, expected);
}

static ml_status missing(ml_examples *w, const char *name, ml_dtype dtype, ml_error *err) {
  return REFUSE(w, err, ML_INVALID_ARGUMENT, "Name: <unknown>, Feature: %.200s (data type: %s) is required but could not be found.", name,
                        ml_tf_dtype_name(dtype));
}

/* Elements of an example that an input has room for; SIZE_MAX: as many as the first example has. */
static ml_status size_of_example(ml_examples *w, const ml_signature_tensor *t, size_t *out, ml_error *err) {
  bool supported = ml_dtype_bits(t->dtype) >= 8 && !ml_dtype_is_small(t->dtype) && t->dtype != ML_FLOAT16 && t->dtype != ML_BFLOAT16 && t->dtype != ML_UINT16;
  size_t open = 0;
  if (!supported)
    return REFUSE(w, err, ML_UNIMPLEMENTED, "Conversion of feature: %s to type: %s", t->name, ml_tf_dtype_name(t->dtype));
  if (t->rank == 0)
    return REFUSE(w, err, ML_FAILED_PRECONDITION, "input '%s' is a scalar: it cannot hold one feature per example", t->name);
  *out = 1;
  for (int32_t k = 1; k < t->rank; k++) {
    if (t->dims[k] < 0) open++;
    else if (!ml_mul_size(*out, (size_t)t->dims[k], out)) return ml_fail_memory(err, SIZE_MAX, "a request");
  }
  if (open > 1)
    return REFUSE(w, err, ML_FAILED_PRECONDITION, "input '%s' has %zu open sizes: a feature, which is a flat list, cannot say them", t->name,
                          open);
  if (open == 1 || t->rank == ML_UNKNOWN) *out = SIZE_MAX;
  return ML_OK;
}

static const ml_feature *given(const ml_examples *w, size_t i) { return w->own[i].there ? &w->own[i] : w->shared[i].there ? &w->shared[i] : NULL; }

static ml_status append_columns(ml_examples *w, ml_error *err) {
  ml_dtype dtype = w->signature->inputs[0].dtype;
  for (size_t i = 1; i < w->n_features; i++) {
    const ml_feature *f = given(w, i);
    if (!f) return missing(w, w->own[i].name, dtype, err);
    if (f->count != 1) return wrong_count(w, f, 1, err);
    ML_TRY(append(w, f, dtype, &w->rows[0], err));
  }
  return ML_OK;
}

static ml_status append_inputs(ml_examples *w, ml_error *err) {
  for (size_t i = 0; i < w->n_inputs; i++) {
    const ml_feature *f = given(w, i);
    ml_example_rows *r = &w->rows[i];
    if (!f) return missing(w, w->own[i].name, w->signature->inputs[i].dtype, err);
    if (r->per_example == SIZE_MAX) r->per_example = f->count;
    if (f->count != r->per_example) return wrong_count(w, f, r->per_example, err);
    ML_TRY(append(w, f, w->signature->inputs[i].dtype, r, err));
  }
  return ML_OK;
}

ml_status ml_examples_add(ml_examples *w, ml_error *err) {
  if (w->count == 0) w->columns = w->n_features > w->n_inputs && !given(w, 0);
  ML_TRY(w->columns ? append_columns(w, err) : append_inputs(w, err));
  w->count++;
  return ML_OK;
}

static bool can_have_columns(const ml_examples *w) {
  const ml_signature_tensor *t = &w->signature->inputs[0];
  size_t n = ml_servable_n_features(w->servable);
  if (n == 0 || w->n_inputs != 1 || (t->dtype != ML_FLOAT32 && t->dtype != ML_FLOAT64)) return false;
  return t->rank == ML_UNKNOWN || (t->rank == 2 && (t->dims[1] < 0 || (size_t)t->dims[1] == n));
}

ml_status ml_examples_prepare(ml_examples *w, ml_error *err) {
  size_t n = w->n_inputs = w->signature->n_inputs, columns = can_have_columns(w) ? ml_servable_n_features(w->servable) : 0;
  const char *const *names = ml_servable_features(w->servable);
  const ml_graph *g = ml_program_graph(ml_servable_program(w->servable));
  char text[96];
  for (size_t i = 0; i < g->n_inputs; i++)
    if (g->inputs[i]->type)
      return REFUSE(w, err, ML_UNIMPLEMENTED, "input '%s' is %s, which a request cannot hold", g->inputs[i]->name,
                            ml_type_format(g->inputs[i]->type, text, sizeof text));
  w->n_features = n + columns;
  w->own = ml_arena_alloc(w->arena, 2 * (w->n_features + 1) * sizeof *w->own);
  w->rows = ml_arena_alloc(w->arena, (n + 1) * sizeof *w->rows);
  w->views = ml_arena_alloc(w->arena, (n + 1) * sizeof *w->views);
  if (!w->own || !w->rows || !w->views) return ml_fail_memory(err, w->n_features * sizeof *w->own, "a request");
  w->shared = w->own + w->n_features;
  for (size_t i = 0; i < w->n_features; i++) w->own[i].name = w->shared[i].name = i < n ? w->signature->inputs[i].name : names[i - n];
  for (size_t i = 0; i < n; i++) ML_TRY(size_of_example(w, &w->signature->inputs[i], &w->rows[i].per_example, err));
  return ML_OK;
}

ml_status ml_examples_views(ml_examples *w, ml_error *err) {
  const ml_signature *g = w->signature;
  for (size_t i = 0; i < g->n_inputs; i++) {
    const ml_signature_tensor *t = &g->inputs[i];
    ml_view *v = &w->views[t->index];
    ml_example_rows *r = &w->rows[i];
    if (!r->data) ML_TRY(ml_grow(&r->data, &r->bytes, 1, 1, "a request", err)); /* examples of no elements */
    *v = (ml_view){.data = r->data, .dtype = t->dtype, .rank = t->rank == ML_UNKNOWN ? 2 : t->rank};
    v->dims[0] = (int64_t)w->count;
    size_t fixed = 1, per_example = r->count / w->count;
    for (int32_t k = 1; k < t->rank; k++) if (t->dims[k] >= 0) fixed *= (size_t)t->dims[k]; /* checked by size_of_example */
    for (int32_t k = 1; k < v->rank; k++) {
      if (t->rank != ML_UNKNOWN && t->dims[k] >= 0) v->dims[k] = t->dims[k];
      else if (fixed != 0 && per_example % fixed == 0) v->dims[k] = (int64_t)(per_example / fixed);
      else return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': %zu values do not fill rows of %zu", t->name, per_example, fixed);
    }
    ML_TRY(ml_shape_count(v->dims, v->rank, v->dtype, &v->count, err));
    if (v->count != r->count)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': %zu values for a shape of %zu", t->name, r->count, v->count);
  }
  return ML_OK;
}

void ml_examples_clear(ml_examples *w) {
  for (size_t i = 0; w->own && i < 2 * w->n_features; i++) ml_free(w->own[i].cells);
  for (size_t i = 0; w->rows && i < w->n_inputs; i++) ml_free(w->rows[i].data);
}

/* ---------------------------------------------------------------- results ---- */
static const ml_signature_tensor *named_output(const ml_signature *g, const char *name) {
  for (size_t i = 0; i < g->n_outputs; i++) if (strcmp(g->outputs[i].name, name) == 0) return &g->outputs[i];
  return NULL;
}

/* "a, b": what there is instead */
static const char *output_names(const ml_signature *g, char *text, size_t size) {
  size_t n = 0;
  text[0] = '\0';
  for (size_t i = 0; i < g->n_outputs && n < size; i++) n += (size_t)snprintf(text + n, size - n, "%s%s", i ? ", " : "", g->outputs[i].name);
  return text;
}

static bool is_real(const ml_view *v) { return !v->type && (v->dtype == ML_FLOAT32 || v->dtype == ML_FLOAT64); }
static bool is_label(const ml_view *v) { return !v->type && (v->dtype == ML_STRING || v->dtype == ML_INT64); }

static float real_at(const ml_view *v, size_t i) {
  return v->dtype == ML_FLOAT32 ? ((const float *)v->data)[i] : (float)((const double *)v->data)[i];
}

static ml_str label_at(const ml_view *v, size_t i, char text[24]) {
  if (v->dtype == ML_STRING) return ((const ml_str *)v->data)[i];
  snprintf(text, 24, "%lld", (long long)((const int64_t *)v->data)[i]);
  return (ml_str){text, strlen(text)};
}

static ml_status expect_matrix(ml_results *w, const ml_view *v, const char *which, ml_error *err) {
  char shape[256];
  if (v->type || v->rank != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Expected Tensor shape: [batch_size num_classes] but got %s", ml_json_shape_text(v->dims, v->type ? 0 : v->rank, shape, sizeof shape));
  if ((size_t)v->dims[0] != w->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Expected %s output batch size of %zu. Got: %lld", which, w->count, (long long)v->dims[0]);
  return ML_OK;
}

/* Scores of n classes, labels from a matrix of their own, from the model's classes, or none. */
static ml_status put_matrix(ml_results *w, const ml_view *classes, const ml_view *scores, ml_error *err) {
  size_t n = (size_t)(scores ? scores : classes)->dims[1], known;
  const char *const *labels = ml_servable_classes(w->servable, &known);
  size_t from = n == 1 && known == 2 ? 1 : 0; /* one score of two classes is the second one's */
  char text[24];
  if (classes && scores && classes->dims[1] != scores->dims[1])
    return ml_fail(err, ML_INVALID_ARGUMENT, "Tensors class and score should match in dim_size(1). Got %lld vs. %lld", (long long)classes->dims[1],
                   (long long)scores->dims[1]);
  for (size_t i = 0; i < w->count; i++) {
    w->example(w, i, false);
    for (size_t c = 0; c < n; c++) {
      ml_str label = {"", 0};
      if (classes) label = label_at(classes, i * n + c, text);
      else if (known == n || from) label = (ml_str){labels[c + from], strlen(labels[c + from])};
      w->class_(w, c, label, scores ? real_at(scores, i * n + c) : 0);
    }
    w->example(w, i, true);
  }
  return ML_OK;
}

/* One map of label to score for each example: what ZipMap makes. */
static ml_status put_maps(ml_results *w, const ml_container *maps, ml_error *err) {
  char text[24];
  if (maps->count != w->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Expected scores output batch size of %zu. Got: %zu", w->count, maps->count);
  for (size_t i = 0; i < maps->count; i++) {
    const ml_container *map = maps->items[i].container;
    const ml_view *keys = &map->items[0].tensor->view, *values = &map->items[1].tensor->view;
    w->example(w, i, false);
    for (size_t c = 0; c < keys->count; c++) w->class_(w, c, label_at(keys, c, text), real_at(values, c));
    w->example(w, i, true);
  }
  return ML_OK;
}

static bool is_map_sequence(const ml_view *v) {
  if (ml_type_kind(v->type) != ML_KIND_SEQUENCE) return false;
  ml_kind inner = ml_type_kind(ml_type_inner(v->type));
  ml_dtype dtype = ml_type_dtype(v->type);
  return (inner == ML_KIND_MAP_INT64 || inner == ML_KIND_MAP_STRING) && (dtype == ML_FLOAT32 || dtype == ML_FLOAT64);
}

ml_status ml_results_classes(ml_results *w, ml_error *err) {
  const ml_signature *g = w->signature;
  const ml_signature_tensor *c = named_output(g, "classes"), *s = named_output(g, "scores");
  const ml_view *classes = c ? w->outputs[c->index] : NULL, *scores = s ? w->outputs[s->index] : NULL, *labels = NULL;
  char names[300];
  if (scores && is_map_sequence(scores)) return put_maps(w, ml_view_container(scores), err);
  if (classes || scores) { /* TensorFlow's convention */
    if (classes) ML_TRY(expect_matrix(w, classes, "classes", err));
    if (classes && !is_label(classes))
      return ml_fail(err, ML_INVALID_ARGUMENT, "Expected classes Tensor of DT_STRING. Got: %s", ml_tf_dtype_name(classes->dtype));
    if (scores) ML_TRY(expect_matrix(w, scores, "scores", err));
    if (scores && !is_real(scores))
      return ml_fail(err, ML_INVALID_ARGUMENT, "Expected scores Tensor of DT_FLOAT. Got: %s", ml_tf_dtype_name(scores->dtype));
    return put_matrix(w, classes, scores, err);
  }
  /* names are the model's own: the first output that holds a score per class, else the first that holds a label per example */
  for (size_t i = 0; i < g->n_outputs; i++) {
    const ml_view *v = w->outputs[g->outputs[i].index];
    if (is_map_sequence(v)) return put_maps(w, ml_view_container(v), err);
    if (is_real(v) && v->rank == 2 && (size_t)v->dims[0] == w->count) return put_matrix(w, NULL, v, err);
    if (!labels && is_label(v) && v->rank >= 1 && v->rank <= 2 && v->count == w->count && (size_t)v->dims[0] == w->count) labels = v;
  }
  if (labels) {
    ml_view matrix = *labels;
    matrix.rank = 2;
    matrix.dims[1] = 1;
    return put_matrix(w, &matrix, NULL, err);
  }
  return ml_fail(err, ML_FAILED_PRECONDITION,
                 "Expected classification signature outputs to contain at least one of \"classes\" or \"scores\". Signature was: %s", output_names(g, names, sizeof names));
}

static bool is_value_per_example(ml_results *w, const ml_view *v) {
  return is_real(v) && (v->rank == 1 || (v->rank == 2 && v->dims[1] == 1)) && (size_t)v->dims[0] == w->count;
}

ml_status ml_results_values(ml_results *w, ml_error *err) {
  const ml_signature *g = w->signature;
  const ml_signature_tensor *o = named_output(g, "outputs");
  const ml_view *v = NULL;
  char names[300];
  if (!o && g->n_outputs == 1) o = &g->outputs[0];
  for (size_t i = 0; i < g->n_outputs && !o && !v; i++) {
    const ml_view *each = w->outputs[g->outputs[i].index];
    if (is_value_per_example(w, each)) v = each;
  }
  if (o) v = w->outputs[o->index];
  if (!v) return ml_fail(err, ML_FAILED_PRECONDITION, "No regression outputs found in SignatureDef: %s", output_names(g, names, sizeof names));
  if (v->type || !(v->rank == 1 || (v->rank == 2 && v->dims[1] == 1)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got %s",
                   ml_json_shape_text(v->dims, v->type ? 0 : v->rank, names, sizeof names));
  if ((size_t)v->dims[0] != w->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Input batch size did not match output batch size: %zu vs. %lld", w->count, (long long)v->dims[0]);
  if (!is_real(v)) return ml_fail(err, ML_INVALID_ARGUMENT, "Expected output Tensor of DT_FLOAT.  Got: %s", ml_tf_dtype_name(v->dtype));
  for (size_t i = 0; i < v->count; i++) w->value(w, i, real_at(v, i));
  return ML_OK;
}
