/* One operator on hostile inputs: bytes choose operator, types, shapes, attributes and values, mostly plausible, some absurd. What the graph accepts
 * goes through prepare, infer, workspace and run as in a session, but with every block of exactly the size asked for, so that a sanitiser sees
 * each access outside; and, whole, through compile and run at every level. Shared by spec/fuzz/fuzz_ops.c (bytes from libFuzzer)
 * and spec/csrc/test_hostile.c (bytes from a fixed generator). Demands: no crash, a message with every refusal, nothing leaks, and
 * results that are what they claim to be. */
#ifndef MLSERVE_SPEC_OP_FUZZ_H
#define MLSERVE_SPEC_OP_FUZZ_H
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "graph/pass.h"
#include "graph/program.h"
#include "kernels/kernels.h"

#define FUZZ_DEMAND(condition) \
  do { \
    if (!(condition)) { fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, fuzz_operator); abort(); } \
  } while (0)

enum { FUZZ_IN = 8, FUZZ_OUT = 8, FUZZ_ATTRS = 24, FUZZ_INPUT_MAX = 2048 /* elements */, FUZZ_OUTPUT_MAX = 1 << 20 /* bytes */ };

static const char *fuzz_operator = "";

typedef struct fuzz_source { const uint8_t *bytes; size_t size; } fuzz_source;

static unsigned fuzz_byte(fuzz_source *s) {
  if (s->size == 0) return 0;
  s->size--;
  return *s->bytes++;
}
static size_t fuzz_below(fuzz_source *s, size_t n) { return n ? (n > 256 ? fuzz_byte(s) * 256 + fuzz_byte(s) : fuzz_byte(s)) % n : 0; }

static int64_t fuzz_int(fuzz_source *s) {
  static const int64_t odd[] = { -1, -2, -3, 5, 7, 8, 9, 16, 17, 64, 100, 127, 128, 255, 256, -128, -100, 1000, 65535, INT32_MAX, INT32_MIN,
                                 INT64_C(1) << 31, INT64_C(1) << 32, INT64_C(1) << 40, INT64_C(1) << 62, INT64_MAX, INT64_MIN, INT64_MAX - 1 };
  unsigned b = fuzz_byte(s);
  return b < 200 ? b % 5 : odd[b % (sizeof odd / sizeof *odd)];
}

static double fuzz_float(fuzz_source *s) {
  static const double odd[] = { -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-40, 1e-10, 1e10, 3e9, -3e9, 1e19, -1e19, 1e30, -1e30, 3e38, 127.5, 255.5, 1e300,
                                INFINITY, -INFINITY, NAN };
  unsigned b = fuzz_byte(s);
  return b < 160 ? (double)(b % 8) - 2 : odd[b % (sizeof odd / sizeof *odd)];
}

static ml_str fuzz_text(fuzz_source *s, const char *doc) {
  static const char *const words[] = { "", "a", "cat", "1", "-1.5", "nan", "x,y", "...ij,jk->ik", "ij->ji", "\xc3\xa9t\xc3\xa9", "(a|b)*c", "[a-", "NOTSET", "SAME_UPPER",
                                       "SAME_LOWER", "VALID", "ij,jk", "long long long long long long long text", "*", "a{2,3}", "Relu", "Tanh" };
  if (doc && fuzz_byte(s) % 4 != 0) { /* a word of the attribute's description is often one of its values */
    size_t n = 0, at = 0, begin;
    for (size_t i = 0; doc[i]; i++) n += doc[i] == ' ';
    for (size_t skip = fuzz_below(s, n + 1); skip > 0; at++) skip -= doc[at] == ' ';
    while (doc[at] && strchr(" \"'(,;:", doc[at])) at++;
    for (begin = at; doc[at] && !strchr(" \"',;:)", doc[at]);) at++;
    return (ml_str){ doc + begin, at - begin };
  }
  const char *word = words[fuzz_below(s, sizeof words / sizeof *words)];
  return (ml_str){ word, strlen(word) };
}

static ml_dtype fuzz_dtype(fuzz_source *s, uint32_t mask) {
  ml_dtype all[32];
  size_t n = 0;
  for (int d = 1; d < 32; d++)
    if ((mask == 0 || (mask & ML_BIT(d)) != 0) && ml_dtype_is_element(d)) all[n++] = (ml_dtype)d;
  return n ? all[fuzz_below(s, n)] : ML_FLOAT32;
}

static void fuzz_shape(fuzz_source *s, ml_view *view) {
  static const int64_t sizes[] = { 1, 2, 3, 4, 2, 3, 1, 5, 0, 8, 7, 17 };
  view->rank = (int32_t)(fuzz_byte(s) % 16);
  if (view->rank > 6) view->rank = (int32_t)(view->rank % 5);
  size_t count = 1;
  for (int32_t d = 0; d < view->rank; d++) {
    view->dims[d] = sizes[fuzz_below(s, sizeof sizes / sizeof *sizes)];
    if (count * (size_t)view->dims[d] > FUZZ_INPUT_MAX) view->dims[d] = 1;
    count *= (size_t)view->dims[d];
  }
}

static void fuzz_fill(fuzz_source *s, ml_tensor *t, ml_str *strings) {
  ml_view *v = &t->view;
  unsigned mode = fuzz_byte(s);
  for (size_t i = 0; i < v->count; i++) {
    if (v->dtype == ML_STRING) strings[i] = fuzz_text(s, NULL);
    else if (v->dtype == ML_BOOL) ((uint8_t *)v->data)[i] = fuzz_byte(s) & 1;
    else if (v->dtype == ML_FLOAT32 || v->dtype == ML_FLOAT64) ml_element_set(v->data, v->dtype, i, fuzz_float(s));
    else if (ml_dtype_is_integer(v->dtype)) {
      int64_t value = mode % 4 == 0 ? (int64_t)i : fuzz_int(s); /* counting up: axes, permutations, sizes */
      memcpy((char *)v->data + i * ml_dtype_size(v->dtype), &value, ml_dtype_size(v->dtype));
    } else {
      for (size_t b = 0; b < ml_dtype_size(v->dtype); b++) ((uint8_t *)v->data)[i * ml_dtype_size(v->dtype) + b] = (uint8_t)fuzz_byte(s);
    }
  }
}

/* A tensor of `view`'s type and shape; NULL: out of memory */
static ml_tensor *fuzz_tensor(fuzz_source *s, const ml_view *view) {
  ml_tensor *t;
  ml_str strings[FUZZ_INPUT_MAX];
  size_t count;
  if (ml_shape_count(view->dims, view->rank, view->dtype, &count, NULL) != ML_OK || count > FUZZ_INPUT_MAX) return NULL;
  if (ml_tensor_new(view->dtype, view->dims, view->rank, &t, NULL) != ML_OK) return NULL;
  fuzz_fill(s, t, strings);
  if (view->dtype != ML_STRING) return t;
  ml_tensor_release(t);
  return ml_tensor_from_strings(strings, view->dims, view->rank, &t, NULL) == ML_OK ? t : NULL;
}

/* ---- what to run ---- */
typedef struct fuzz_spec {
  const ml_op_def *op;
  ml_tensor *data[FUZZ_IN]; /* what each input holds; NULL: left out */
  bool constant[FUZZ_IN];
  unsigned unknown[FUZZ_IN]; /* 1: dimensions, 2: the rank too is not known before the run */
  int32_t n_in, n_out;
  ml_attr attrs[FUZZ_ATTRS]; /* arrays from malloc, tensors with a reference */
  size_t n_attrs;
} fuzz_spec;

static void fuzz_attr_free(ml_attr *a) {
  if (a->type == ML_ATTR_TENSOR) ml_tensor_release(a->as.tensor);
  if (a->type == ML_ATTR_FLOATS || a->type == ML_ATTR_INTS || a->type == ML_ATTR_STRINGS) free((void *)(uintptr_t)a->as.ints);
}

static void fuzz_spec_free(fuzz_spec *c) {
  for (int32_t i = 0; i < FUZZ_IN; i++) ml_tensor_release(c->data[i]);
  for (size_t i = 0; i < c->n_attrs; i++) fuzz_attr_free(&c->attrs[i]);
  memset(c, 0, sizeof *c);
}

static size_t fuzz_element(ml_attr_type type) {
  return type == ML_ATTR_FLOATS ? sizeof(float) : type == ML_ATTR_INTS ? sizeof(int64_t) : sizeof(ml_str);
}

static void fuzz_put(fuzz_source *s, const ml_attr_def *def, void *items, size_t at) {
  if (def->type == ML_ATTR_FLOATS) ((float *)items)[at] = (float)fuzz_float(s);
  else if (def->type == ML_ATTR_INTS) ((int64_t *)items)[at] = fuzz_int(s);
  else ((ml_str *)items)[at] = fuzz_text(s, def->doc);
}

static const ml_attr_def *fuzz_def(const ml_op_def *op, const char *name) {
  const ml_attr_def *def = op->attrs;
  while (strcmp(def->name, name) != 0) def++;
  return def;
}

static void fuzz_add_attr(fuzz_source *s, const ml_attr_def *def, fuzz_spec *c) {
  if (c->n_attrs == FUZZ_ATTRS) return;
  ml_attr *attr = &c->attrs[c->n_attrs];
  *attr = (ml_attr){ .name = def->name, .type = def->type, .count = 1 };
  switch (def->type) {
    case ML_ATTR_FLOAT: attr->as.f = (float)fuzz_float(s); break;
    case ML_ATTR_INT: attr->as.i = fuzz_int(s); break;
    case ML_ATTR_STRING: attr->as.s = fuzz_text(s, def->doc); break;
    case ML_ATTR_TENSOR: {
      ml_view like = { .dtype = fuzz_dtype(s, 0) };
      fuzz_shape(s, &like);
      if (!(attr->as.tensor = fuzz_tensor(s, &like))) return;
      break;
    }
    case ML_ATTR_FLOATS:
    case ML_ATTR_INTS:
    case ML_ATTR_STRINGS: {
      size_t count = fuzz_byte(s) % 12;
      if (count > 6) count %= 4; /* mostly as many as there are dimensions */
      void *items = calloc(count + 1, fuzz_element(def->type));
      if (!items) abort();
      for (size_t i = 0; i < count; i++) fuzz_put(s, def, items, i);
      attr->count = count;
      attr->as.ints = items; /* every list form is a pointer here */
      break;
    }
    default: return; /* subgraphs and lists of tensors need more than one node */
  }
  c->n_attrs++;
}

static void fuzz_drop_attr(fuzz_spec *c, size_t at) {
  fuzz_attr_free(&c->attrs[at]);
  c->attrs[at] = c->attrs[--c->n_attrs];
}

static void fuzz_random(fuzz_source *s, const ml_op_def *op, fuzz_spec *c) {
  int32_t most = op->max_in + ((op->flags & ML_OP_VARIADIC) ? 2 : 0);
  if (most > FUZZ_IN) most = FUZZ_IN;
  c->op = op;
  c->n_in = op->min_in + (most > op->min_in ? (int32_t)fuzz_below(s, (size_t)(most - op->min_in + 1)) : 0);
  most = op->max_out < FUZZ_OUT ? op->max_out : FUZZ_OUT;
  c->n_out = op->min_out + (most > op->min_out ? (int32_t)fuzz_below(s, (size_t)(most - op->min_out + 1)) : 0);
  ml_dtype base = fuzz_dtype(s, op->types[0]);
  uint32_t mask = op->types[0];
  ml_view first = { 0 };
  for (int32_t i = 0; i < c->n_in; i++) {
    ml_view like = { 0 };
    unsigned how = fuzz_byte(s), more = fuzz_byte(s);
    if (i < 4 && op->types[i] != 0) mask = op->types[i];
    if (i >= op->min_in && how % 8 == 7) continue; /* left out */
    bool shared = (mask == 0 || (mask & ML_BIT(base)) != 0) && how % 16 < 12;
    like.dtype = shared ? base : fuzz_dtype(s, mask);
    if (i > 0 && (how & 32) != 0) { /* the first's shape, or the end of it */
      like.rank = (how & 64) != 0 && first.rank > 0 ? first.rank - 1 : first.rank;
      memcpy(like.dims, first.dims + (first.rank - like.rank), (size_t)like.rank * sizeof *like.dims);
    } else {
      fuzz_shape(s, &like);
    }
    if (i == 0) first = like;
    c->data[i] = fuzz_tensor(s, &like);
    c->constant[i] = (how & 128) != 0;
    c->unknown[i] = more % 8 == 0 ? 2 : more % 8 < 3 ? 1 : 0;
  }
  for (const ml_attr_def *def = op->attrs; def && def->name; def++)
    if (def->required || fuzz_byte(s) % 2 == 0) fuzz_add_attr(s, def, c);
}

/* ---- from a valid model of one node, changed a little ---- */
/* The node and its inputs, `given` for the graph's; false: not a model of one node that reads inputs and constants only. */
__attribute__((unused)) static bool fuzz_from_graph(const ml_graph *g, ml_tensor *const *given, fuzz_spec *c) {
  const ml_node *node = g->n_nodes == 1 ? g->nodes[0] : NULL;
  if (!node || node->n_in > FUZZ_IN || node->n_out > FUZZ_OUT || node->attrs.count > FUZZ_ATTRS) return false;
  for (size_t i = 0; i < node->attrs.count; i++) if (node->attrs.items[i].type >= ML_ATTR_TENSORS || node->attrs.items[i].type == ML_ATTR_GRAPH) return false;
  *c = (fuzz_spec){ .op = node->op, .n_in = node->n_in, .n_out = node->n_out };
  for (int32_t i = 0; i < node->n_in; i++) {
    const ml_value *v = node->in[i];
    if (!v) continue;
    c->constant[i] = v->init != NULL;
    ml_tensor *t = v->init;
    for (size_t k = 0; k < g->n_inputs; k++) if (g->inputs[k] == v) t = given[k];
    if (!t || t->view.count > 16 * FUZZ_INPUT_MAX) return false;
    c->data[i] = t;
  }
  for (int32_t i = 0; i < c->n_in; i++) if (c->data[i]) ml_tensor_retain(c->data[i]);
  for (size_t i = 0; i < node->attrs.count; i++) {
    ml_attr *a = &c->attrs[c->n_attrs++];
    *a = node->attrs.items[i];
    if (a->type == ML_ATTR_TENSOR) ml_tensor_retain(a->as.tensor);
    if (a->type < ML_ATTR_FLOATS || a->type > ML_ATTR_STRINGS) continue;
    size_t bytes = a->count * fuzz_element(a->type);
    void *copy = malloc(bytes + 1);
    if (!copy) abort();
    if (bytes) memcpy(copy, a->as.ints, bytes);
    a->as.ints = copy;
  }
  return true;
}

__attribute__((unused)) static void fuzz_copy(const fuzz_spec *from, fuzz_spec *to) {
  *to = *from;
  for (int32_t i = 0; i < to->n_in; i++) if (to->data[i]) ml_tensor_retain(to->data[i]);
  for (size_t i = 0; i < to->n_attrs; i++) {
    ml_attr *a = &to->attrs[i];
    if (a->type == ML_ATTR_TENSOR) ml_tensor_retain(a->as.tensor);
    if (a->type < ML_ATTR_FLOATS || a->type > ML_ATTR_STRINGS) continue;
    size_t bytes = a->count * fuzz_element(a->type);
    void *copy = malloc(bytes + 1);
    if (!copy) abort();
    if (bytes) memcpy(copy, a->as.ints, bytes);
    a->as.ints = copy;
  }
}

/* Another shape, values repeated as needed. */
static void fuzz_reshape(fuzz_source *s, fuzz_spec *c, int32_t i) {
  ml_view like = c->data[i]->view;
  int32_t d = like.rank > 0 ? (int32_t)fuzz_below(s, (size_t)like.rank) : 0;
  unsigned how = fuzz_byte(s) % 8;
  if (how == 0 && like.rank > 0) {
    memmove(&like.dims[d], &like.dims[d + 1], (size_t)(--like.rank - d) * sizeof *like.dims);
  } else if (how == 1 && like.rank < 7) {
    memmove(&like.dims[d + 1], &like.dims[d], (size_t)(like.rank++ - d) * sizeof *like.dims);
    like.dims[d] = 1 + (int64_t)fuzz_below(s, 2);
  } else if (like.rank > 0) {
    like.dims[d] = how == 2 ? 0 : how == 3 ? 1 : how == 4 ? like.dims[d] * 2 : how == 5 ? like.dims[d] + 1 : how == 6 && like.dims[d] > 0 ? like.dims[d] - 1
                 : (int64_t)fuzz_below(s, 40);
  }
  size_t count = 1;
  for (int32_t k = 0; k < like.rank; k++) count *= (size_t)like.dims[k];
  ml_tensor *t;
  if (like.dtype == ML_STRING || count > 32 * FUZZ_INPUT_MAX || ml_tensor_new(like.dtype, like.dims, like.rank, &t, NULL) != ML_OK) return;
  size_t size = ml_dtype_size(like.dtype);
  for (size_t k = 0; k < count && like.count > 0; k++)
    memcpy((char *)t->view.data + k * size, (const char *)like.data + k % like.count * size, size);
  ml_tensor_release(c->data[i]);
  c->data[i] = t;
}

static void fuzz_change_values(fuzz_source *s, fuzz_spec *c, int32_t i) {
  ml_tensor *t, *some;
  ml_view like = { .dtype = c->data[i]->view.dtype, .rank = 1, .dims = { 8 } };
  if (like.dtype == ML_STRING || c->data[i]->view.count == 0 || ml_tensor_copy_of(&c->data[i]->view, &t, NULL) != ML_OK) return;
  if ((some = fuzz_tensor(s, &like)) != NULL) {
    size_t size = ml_dtype_size(like.dtype);
    for (size_t k = 1 + fuzz_below(s, 8); k-- > 0;)
      memcpy((char *)t->view.data + fuzz_below(s, t->view.count) * size, (const char *)some->view.data + k * size, size);
    ml_tensor_release(some);
  }
  ml_tensor_release(c->data[i]);
  c->data[i] = t;
}

static void fuzz_change_attr(fuzz_source *s, fuzz_spec *c, size_t at) {
  ml_attr *a = &c->attrs[at];
  const ml_attr_def *def = fuzz_def(c->op, a->name);
  bool list = a->type == ML_ATTR_FLOATS || a->type == ML_ATTR_INTS || a->type == ML_ATTR_STRINGS;
  unsigned how = fuzz_byte(s);
  if (list && a->count > 0 && how % 8 < 6) {
    if (how % 8 == 0) a->count--;
    else fuzz_put(s, def, (void *)(uintptr_t)a->as.ints, fuzz_below(s, a->count));
  } else {
    fuzz_drop_attr(c, at);
    if (how % 8 != 7 || def->required) fuzz_add_attr(s, def, c);
  }
}

__attribute__((unused)) static void fuzz_mutate(fuzz_source *s, fuzz_spec *c) {
  for (size_t changes = 1 + fuzz_below(s, 3); changes > 0; changes--) {
    int32_t i = c->n_in > 0 ? (int32_t)fuzz_below(s, (size_t)c->n_in) : 0;
    unsigned how = fuzz_byte(s) % 16;
    if (how < 5 && c->n_attrs > 0) {
      fuzz_change_attr(s, c, fuzz_below(s, c->n_attrs));
    } else if (how == 5 && c->op->attrs) {
      size_t n = 0;
      while (c->op->attrs[n].name) n++;
      const ml_attr_def *def = &c->op->attrs[fuzz_below(s, n)];
      if (!ml_attr_find(&(ml_attrs){ c->attrs, c->n_attrs }, def->name)) fuzz_add_attr(s, def, c);
    } else if (!c->data[i]) {
      continue;
    } else if (how < 9) {
      fuzz_reshape(s, c, i);
    } else if (how < 12) {
      fuzz_change_values(s, c, i);
    } else if (how == 12) {
      ml_tensor *t;
      ml_dtype to = fuzz_dtype(s, ML_MASK_N | ML_BIT(ML_BOOL));
      if (c->data[i]->view.dtype == ML_STRING || ml_tensor_cast(c->data[i], to, &t, NULL) != ML_OK) continue;
      ml_tensor_release(c->data[i]);
      c->data[i] = t;
    } else if (how == 13) {
      c->constant[i] = !c->constant[i];
    } else if (how == 14) {
      c->unknown[i] = 1 + fuzz_byte(s) % 2;
    } else if (i >= c->op->min_in) {
      ml_tensor_release(c->data[i]);
      c->data[i] = NULL;
    }
  }
}

/* ---- running with blocks of exact size ---- */
typedef struct fuzz_run {
  ml_run run; /* first: the callbacks get a pointer to it */
  void *blocks[64];
  size_t n_blocks, bytes;
} fuzz_run;

static void *fuzz_block(fuzz_run *r, size_t bytes) {
  if (r->n_blocks == 64 || bytes > FUZZ_OUTPUT_MAX) return NULL;
  return r->blocks[r->n_blocks++] = malloc(bytes);
}

static ml_status fuzz_memory(fuzz_run *r, ml_view *view, ml_error *err) {
  ML_TRY(ml_shape_count(view->dims, view->rank, view->dtype, &view->count, err));
  size_t bytes = view->count * ml_dtype_size(view->dtype);
  view->data = fuzz_block(r, bytes);
  if (!view->data) return ml_fail_memory(err, bytes, "an output");
  memset(view->data, 0xA5, bytes);
  return ML_OK;
}

static ml_status fuzz_resize(ml_run *run, ml_view *out, const int64_t *dims, int32_t rank, ml_error *err) {
  FUZZ_DEMAND(rank >= 0 && rank <= ML_MAX_RANK);
  out->rank = rank;
  for (int32_t i = 0; i < rank; i++) out->dims[i] = dims[i];
  return fuzz_memory((fuzz_run *)run, out, err);
}

static void *fuzz_scratch(ml_run *run, size_t bytes) {
  void *block = fuzz_block((fuzz_run *)run, bytes);
  if (block) memset(block, 0, bytes);
  return block;
}

static void fuzz_check_result(const ml_view *view) {
  size_t count, sum = 0;
  if (view->type) return; /* a sequence */
  FUZZ_DEMAND(ml_view_known(view) && ml_shape_count(view->dims, view->rank, view->dtype, &count, NULL) == ML_OK && count == view->count);
  if (view->dtype == ML_BOOL) for (size_t i = 0; i < count; i++) FUZZ_DEMAND(((const uint8_t *)view->data)[i] <= 1);
  if (view->dtype == ML_STRING)
    for (size_t i = 0; i < count; i++) {
      ml_str text = ((const ml_str *)view->data)[i];
      for (size_t k = 0; k < text.length; k++) sum += (unsigned char)text.bytes[k];
    }
  FUZZ_DEMAND(sum < SIZE_MAX);
}

/* The operator's life as in a program and a session. What memory lacks is refused, as a session with a limit does. */
static ml_status fuzz_life(const ml_node *node, ml_view *const *in, ml_view *const *constant, ml_view *out, bool in_place, fuzz_run *r, ml_error *err) {
  const ml_op_def *op = node->op;
  ml_view *outs[FUZZ_OUT] = { 0 };
  void *state = NULL, *workspace = NULL;
  for (int32_t i = 0; i < node->n_out; i++)
    if (node->out[i]) {
      out[i] = (ml_view){ .rank = ML_UNKNOWN };
      outs[i] = &out[i];
    }
  ml_op_ctx ctx = { .op = op, .attrs = &node->attrs, .name = node->name, .n_in = node->n_in, .n_out = node->n_out, .in = constant, .out = outs };
  ml_status status = ml__infer(&ctx, err);
  if (status == ML_OK && op->prepare) status = op->prepare(&ctx, &state, err);
  ctx.state = state;
  bool known = true;
  for (int32_t i = 0; i < node->n_out && status == ML_OK; i++)
    if (outs[i]) {
      known = known && ml_view_known(&out[i]);
      out[i].data = NULL;
    }
  ctx.in = in;
  if (status == ML_OK && !known) { /* dynamic: once more with the data */
    status = ml__infer(&ctx, err);
  }
  for (int32_t i = 0; i < node->n_out && status == ML_OK; i++)
    if (outs[i] && ml_view_known(&out[i])) status = fuzz_memory(r, &out[i], err);
  size_t bytes = 0;
  if (status == ML_OK && op->workspace) status = op->workspace(&ctx, &bytes, err);
  if (status == ML_OK && bytes > 16 * FUZZ_OUTPUT_MAX) status = ml_fail_memory(err, bytes, "workspace");
  if (status == ML_OK && bytes && posix_memalign(&workspace, ML_ALIGN, bytes) != 0) workspace = NULL;
  ctx.workspace = workspace;
  ctx.run = &r->run;
  for (int32_t k = 0; k < 2 && in_place && status == ML_OK; k++) {
    if (!(op->flags & (k == 0 ? ML_OP_INPLACE : ML_OP_INPLACE1)) || k >= node->n_in || !in[k] || !outs[0]) continue;
    bool twice = false;
    for (int32_t i = 0; i < node->n_in; i++) twice = twice || (i != k && node->in[i] == node->in[k]);
    if (twice || in[k]->count != out[0].count || ml_dtype_size(in[k]->dtype) != ml_dtype_size(out[0].dtype) || node->in[k]->init) continue;
    if (out[0].count) memcpy(out[0].data, in[k]->data, out[0].count * ml_dtype_size(out[0].dtype));
    in[k]->data = out[0].data;
    break;
  }
  if (status == ML_OK) status = op->run(&ctx, err);
  for (int32_t i = 0; i < node->n_out && status == ML_OK; i++) if (outs[i]) fuzz_check_result(&out[i]);
  free(workspace);
  if (state && op->release) op->release(state);
  return status;
}

static ml_status fuzz_take(void *context, ml_session *session, ml_error *err) {
  const ml_graph *g = context;
  (void)err;
  for (size_t i = 0; i < g->n_outputs; i++) fuzz_check_result(ml_session_output(session, i));
  return ML_OK;
}

/* Whole: compiled at a level and run. */
static ml_status fuzz_program(const ml_graph *g, const ml_view *inputs, ml_level level, ml_error *err) {
  ml_program *program = NULL;
  ml_compile_options options = { .level = level, .max_memory = 16 << 20 };
  ml_status status = ml_program_new(g, &options, &program, err);
  if (status == ML_OK) status = ml_program_run(program, inputs, fuzz_take, (void *)(uintptr_t)g, err);
  ml_program_release(program);
  return status;
}

/* Whether a node of a file may be this operator alone: one with subgraphs needs more. */
static bool fuzz_has(const ml_op_def *op) {
  for (const ml_attr_def *def = op->attrs; def && def->name; def++)
    if (def->type == ML_ATTR_GRAPH) return false;
  return !(op->flags & (ML_OP_TRAINING | ML_OP_INTERNAL));
}

/* Makes the graph: what checks a file's node checks this one. */
static ml_status fuzz_build(const fuzz_spec *c, ml_graph *g, ml_value **in, ml_error *err) {
  ml_value *out[FUZZ_OUT];
  for (int32_t i = 0; i < c->n_in; i++) {
    in[i] = NULL;
    if (!c->data[i]) continue;
    const ml_view *view = &c->data[i]->view;
    int64_t dims[ML_MAX_RANK];
    for (int32_t d = 0; d < view->rank; d++) dims[d] = c->unknown[i] && (d == 0 || c->unknown[i] == 1) ? ML_UNKNOWN : view->dims[d];
    if (c->constant[i]) ML_TRY(ml_graph_initializer(g, NULL, c->data[i], false, &in[i], err));
    else ML_TRY(ml_graph_input(g, NULL, view->dtype, dims, c->unknown[i] == 2 ? ML_UNKNOWN : view->rank, &in[i], err));
  }
  ML_TRY(ml_graph_node(g, c->op, NULL, c->attrs, c->n_attrs, (size_t)c->n_in, in, (size_t)c->n_out, NULL, out, err));
  for (int32_t i = 0; i < c->n_out; i++) ML_TRY(ml_graph_output(g, out[i], err));
  return ML_OK;
}

static ml_status fuzz_execute(const fuzz_spec *c, const ml_graph *g, ml_value *const *values, unsigned flags, ml_error *err) {
  ml_view views[2 * FUZZ_IN], out[FUZZ_OUT], *in[FUZZ_IN] = { 0 }, *constant[FUZZ_IN] = { 0 }, inputs[FUZZ_IN];
  size_t n = 0;
  for (int32_t i = 0; i < c->n_in; i++) {
    if (!c->data[i]) continue;
    views[i] = views[FUZZ_IN + i] = c->data[i]->view;
    if (!values[i]->init) {
      views[FUZZ_IN + i].data = NULL;
      inputs[n++] = c->data[i]->view;
    }
    in[i] = &views[i];
    constant[i] = &views[FUZZ_IN + i];
  }
  fuzz_run r = { .run = { .kernels = (flags & 1) != 0 ? ml_kernel_table() : ml_kernel_table_ref(), .resize = fuzz_resize, .scratch = fuzz_scratch } };
  bool whole = (c->op->flags & ML_OP_CONTAINERS) != 0; /* sequences need a session */
  for (int32_t i = 0; i < c->n_out; i++) whole = whole || (g->nodes[0]->out[i] && g->nodes[0]->out[i]->type);
  ml_status status = whole ? fuzz_program(g, inputs, (ml_level)(flags / 16 % 3), err) : fuzz_life(g->nodes[0], in, constant, out, (flags & 2) != 0, &r, err);
  for (size_t i = 0; i < r.n_blocks; i++) free(r.blocks[i]);
  FUZZ_DEMAND(status == ML_OK || err->message[0]);
  err->message[0] = '\0';
  if ((flags & 12) != 0 && !whole) FUZZ_DEMAND(fuzz_program(g, inputs, (ml_level)(flags / 16 % 3), err) == ML_OK || err->message[0]);
  return status;
}

/* How the node ran: the status of its life, or of building it. Frees the spec. */
static ml_status fuzz_operator_case(fuzz_spec *c, unsigned flags) {
  uint64_t live = ml_alloc_get_stats().live_blocks;
  ml_error err = { 0 };
  ml_graph *g = NULL;
  ml_value *values[FUZZ_IN];
  fuzz_operator = c->op->name;
  ml_status status = ml_graph_new("fuzz", &g, &err);
  FUZZ_DEMAND(status == ML_OK);
  status = fuzz_build(c, g, values, &err);
  FUZZ_DEMAND(status == ML_OK || err.message[0]);
  if (status == ML_OK) status = fuzz_execute(c, g, values, flags, &err);
  ml_graph_free(g);
  FUZZ_DEMAND(ml_alloc_get_stats().live_blocks == live);
  fuzz_spec_free(c);
  return status;
}

#endif
