/* Registry of operators and the helpers every operator uses (contract: ops/op.h).
 * The registry is one constant table expanded from ops.def. A lookup scans it: names differ early, so a hundred rows take
 * about a tenth of a microsecond, and only reading a model or building a graph looks names up. An index would need either a
 * mutable global or a second list. */
#include "ops/op.h"
#include "ops/elementwise.h"
#include <string.h>

/* ---------------------------------------------------------------- registry ---- */
static const ml_op_def *const ml__ops[] = {
#define ML_OP(stem) &ml_op_##stem,
#include "ops/ops.def"
#undef ML_OP
};

size_t ml_op_count(void) { return sizeof ml__ops / sizeof ml__ops[0]; }

const ml_op_def *ml_op_at(size_t index) { return index < ml_op_count() ? ml__ops[index] : NULL; }

const ml_op_def *ml_op_find(const char *domain, const char *name) {
  if (domain == NULL || strcmp(domain, "ai.onnx") == 0) domain = "";
  if (name == NULL || name[0] == '\0') return NULL;
  for (size_t i = 0; i < ml_op_count(); ++i) {
    const ml_op_def *op = ml__ops[i];
    if (op->name[0] == name[0] && strcmp(op->name, name) == 0 && strcmp(op->domain, domain) == 0) return op;
  }
  return NULL;
}

/* ---------------------------------------------------------------- attributes ---- */
const ml_attr *ml_attr_find(const ml_attrs *attrs, const char *name) {
  if (attrs == NULL) return NULL;
  for (size_t i = 0; i < attrs->count; ++i)
    if (strcmp(attrs->items[i].name, name) == 0) return &attrs->items[i];
  return NULL;
}

int64_t ml_attr_int(const ml_attrs *attrs, const char *name, int64_t fallback) {
  const ml_attr *attr = ml_attr_find(attrs, name);
  return attr != NULL && attr->type == ML_ATTR_INT ? attr->as.i : fallback;
}

float ml_attr_float(const ml_attrs *attrs, const char *name, float fallback) {
  const ml_attr *attr = ml_attr_find(attrs, name);
  return attr != NULL && attr->type == ML_ATTR_FLOAT ? attr->as.f : fallback;
}

ml_str ml_attr_str(const ml_attrs *attrs, const char *name, const char *fallback) {
  const ml_attr *attr = ml_attr_find(attrs, name);
  if (attr != NULL && attr->type == ML_ATTR_STRING) return attr->as.s;
  return (ml_str){ fallback, fallback == NULL ? 0 : strlen(fallback) };
}

bool ml_attr_is(const ml_attrs *attrs, const char *name, const char *fallback, const char *value) {
  ml_str s = ml_attr_str(attrs, name, fallback);
  return s.bytes != NULL && s.length == strlen(value) && memcmp(s.bytes, value, s.length) == 0;
}

/* ---------------------------------------------------------------- subgraphs ---- */
int32_t ml_op_declared_inputs(const ml_op_ctx *ctx) {
  int32_t n = ctx->n_in;
  for (size_t i = 0; i < ctx->attrs->count; ++i)
    if (ctx->attrs->items[i].type == ML_ATTR_GRAPH) n -= ml_subgraph_captures(ctx->attrs->items[i].as.graph);
  return n;
}

bool ml_op_subgraph(const ml_op_ctx *ctx, const char *name, ml_subgraph *out) {
  int32_t at = ml_op_declared_inputs(ctx);
  for (size_t i = 0; i < ctx->attrs->count; ++i) {
    const ml_attr *attr = &ctx->attrs->items[i];
    if (attr->type != ML_ATTR_GRAPH) continue;
    const struct ml_graph *graph = attr->as.graph;
    int32_t captures = ml_subgraph_captures(graph);
    if (strcmp(attr->name, name) == 0) {
      *out = (ml_subgraph){ graph, ml_subgraph_inputs(graph), ml_subgraph_outputs(graph), captures, ctx->in + at };
      return true;
    }
    at += captures;
  }
  return false;
}

ml_status ml_op_pass(ml_op_ctx *ctx, ml_view *out, const ml_view *from, ml_error *err) {
  if (out == NULL) return ML_OK;
  if (from->type != 0) {
    if (!ml_type_fits(from->type, out->type)) return ml_fail(err, ML_INVALID_ARGUMENT, "a value's type is not the declared one");
    ml_container *container = ml_view_container(from);
    if (container == NULL) return ml_fail(err, ML_FAILED_PRECONDITION, "a sequence without a value");
    return ctx->run->give(ctx->run, out, ml_container_retain(container), err);
  }
  if (out->dtype != from->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "a value is %s, expected %s", ml_dtype_name(from->dtype), ml_dtype_name(out->dtype));
  bool planned = ml_view_known(out) && (out->data != NULL || out->count == 0);
  if (!planned) ML_TRY(ctx->run->resize(ctx->run, out, from->dims, from->rank, err));
  else if (!ml_shape_equal(out->dims, out->rank, from->dims, from->rank)) {
    char got[128], expected[128];
    return ml_fail(err, ML_INVALID_ARGUMENT, "a value has shape %s, expected %s", ml_shape_format(from->dims, from->rank, got, sizeof got),
                   ml_shape_format(out->dims, out->rank, expected, sizeof expected));
  }
  if (from->count == 0) return ML_OK;
  if (from->dtype != ML_STRING) {
    memcpy(out->data, from->data, from->count * ml_dtype_size(from->dtype));
    return ML_OK;
  }
  const ml_str *strings = from->data;
  ml_str *copies = out->data;
  for (size_t i = 0; i < from->count; ++i) {
    char *bytes = ctx->run->scratch(ctx->run, strings[i].length + 1);
    if (bytes == NULL) return ml_fail_memory(err, strings[i].length, "a string");
    if (strings[i].length > 0) memcpy(bytes, strings[i].bytes, strings[i].length);
    copies[i] = (ml_str){ bytes, strings[i].length };
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- inference ---- */
void ml_op_set(ml_view *out, ml_dtype dtype, const int64_t *dims, int32_t rank) {
  if (out == NULL) return;
  out->dtype = dtype;
  out->rank = rank;
  out->count = 0;
  if (rank < 0) return;
  if (rank > 0) memmove(out->dims, dims, (size_t)rank * sizeof dims[0]);
  size_t count;
  if (ml_view_known(out) && ml_shape_count(out->dims, rank, dtype, &count, NULL) == ML_OK) out->count = count;
}

void ml_op_set_type(ml_view *out, uint32_t type) {
  if (out == NULL) return;
  if (ml_type_kind(type) == ML_KIND_TENSOR) {
    ml_op_set(out, ml_type_dtype(type), NULL, ML_UNKNOWN);
    return;
  }
  ml_op_set(out, ML_CONTAINER, NULL, 0);
  out->type = type;
}

void ml_op_like(ml_view *out, const ml_view *in) {
  if (out == NULL) return;
  ml_op_set(out, in->dtype, in->dims, in->rank);
  out->type = in->type;
}

/* "float32, float64" for a mask of dtypes */
static const char *mask_text(uint32_t mask, char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (int32_t n = 1; n < 32; ++n) {
    if ((mask & ML_BIT(n)) == 0 || ml_dtype_size((ml_dtype)n) == 0) continue;
    const char *name = ml_dtype_name((ml_dtype)n);
    size_t length = strlen(name);
    if (used + length + 3 > size) break;
    if (used > 0) { memcpy(text + used, ", ", 2); used += 2; }
    memcpy(text + used, name, length + 1);
    used += length;
  }
  return text;
}

/* ---- 16-bit floats ---- */
static uint32_t mask_of(const ml_op_def *op, int32_t i) {
  int32_t k = i < 3 ? i : 3;
  while (k > 0 && op->types[k] == 0) --k;
  return op->types[k];
}

bool ml_op_widens(const ml_op_def *op, int32_t i, ml_dtype dtype) {
  if (dtype != ML_FLOAT16 && dtype != ML_BFLOAT16) return false;
  if (op->flags & (ML_OP_TRAINING | ML_OP_INTERNAL) || (op->domain[0] != '\0' && !(op->flags & ML_OP_WIDEN))) return false;
  return (mask_of(op, i) & (ML_BIT(dtype) | ML_BIT(ML_FLOAT32))) == ML_BIT(ML_FLOAT32);
}

ml_dtype ml_op_narrowed(const ml_op_def *op, int32_t k, ml_dtype made, ml_view *const *in, int32_t n_in) {
  const int32_t from = op->like[k < 3 ? k : 3];
  if (made != ML_FLOAT32 || from >= n_in || in[from] == NULL) return made;
  return ml_op_widens(op, from, in[from]->dtype) ? in[from]->dtype : made;
}

enum { INFER_STACK = 8, INFER_VALUES = 64 };

ml_status ml_op_infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_op_def *op = ctx->op;
  bool any = false;
  for (int32_t i = 0; i < ctx->n_in && !any; ++i) any = ctx->in[i] != NULL && ml_op_widens(op, i, ctx->in[i]->dtype);
  if (!any) return op->infer(ctx, err);
  ml_view stack[INFER_STACK], *pointers_stack[INFER_STACK], *views = stack, **pointers = pointers_stack;
  float values[INFER_VALUES];
  size_t used = 0, n = (size_t)ctx->n_in;
  if (n > INFER_STACK) {
    views = ml_alloc(n * sizeof *views);
    pointers = ml_alloc(n * sizeof *pointers);
  }
  ml_status status = views != NULL && pointers != NULL ? ML_OK : ml_fail_memory(err, n * sizeof *views, "shape inference");
  for (size_t i = 0; i < n && status == ML_OK; ++i) {
    pointers[i] = ctx->in[i];
    if (ctx->in[i] == NULL || !ml_op_widens(op, (int32_t)i, ctx->in[i]->dtype)) continue;
    pointers[i] = &views[i];
    views[i] = *ctx->in[i];
    views[i].dtype = ML_FLOAT32;
    views[i].data = NULL; /* shapes depend on the values of small inputs only (OneHot's depth) */
    if (ctx->in[i]->data == NULL || ctx->in[i]->count > INFER_VALUES - used) continue;
    ml_convert(ctx->in[i]->data, ctx->in[i]->dtype, values + used, ML_FLOAT32, views[i].count);
    views[i].data = values + used;
    used += views[i].count;
  }
  if (status == ML_OK) {
    ml_op_ctx wide = *ctx;
    wide.in = pointers;
    status = op->infer(&wide, err);
    for (int32_t k = 0; k < ctx->n_out && status == ML_OK; ++k)
      if (ctx->out[k] != NULL) ctx->out[k]->dtype = ml_op_narrowed(op, k, ctx->out[k]->dtype, ctx->in, ctx->n_in);
  }
  if (views != stack) ml_free(views);
  if (pointers != pointers_stack) ml_free(pointers);
  return status;
}

ml_status ml__op_check_types(const ml_op_ctx *ctx, ml_error *err) {
  uint32_t mask = 0;
  for (int32_t i = 0; i < ctx->n_in; ++i) {
    if (i < 4 && ctx->op->types[i] != 0) mask = ctx->op->types[i];
    if (mask == 0 || ctx->in[i] == NULL || ctx->in[i]->dtype == ML_DTYPE_NONE) continue;
    ml_dtype dtype = ctx->in[i]->dtype;
    if ((uint32_t)dtype < 32 && (mask & ML_BIT(dtype)) != 0) continue;
    char text[160];
    return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has dtype %s, expected one of %s", (int)i, ml_dtype_name(dtype),
                   mask_text(mask, text, sizeof text));
  }
  return ML_OK;
}

ml_status ml__op_check_present(const ml_op_ctx *ctx, int32_t needed, ml_error *err) {
  for (int32_t i = 0; i < needed; ++i)
    if (i >= ctx->n_in || ctx->in[i] == NULL) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", (int)i);
  return ML_OK;
}

ml_status ml_op_infer_same(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_present(ctx, 1, err));
  ML_TRY(ml__op_check_types(ctx, err));
  ml_op_like(ctx->out[0], ctx->in[0]);
  return ML_OK;
}

/* The broadcast shape of inputs first … n_in-1, whose dtypes must agree. */
ml_status ml__op_broadcast(const ml_op_ctx *ctx, int32_t first, int64_t *dims, int32_t *rank, ml_error *err) {
  *rank = 0;
  bool known = true;
  for (int32_t i = first; i < ctx->n_in; ++i) {
    const ml_view *in = ctx->in[i];
    if (in == NULL) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", (int)i);
    if (in->dtype != ctx->in[first]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "inputs %d and %d must have one dtype, got %s and %s", (int)first, (int)i,
                     ml_dtype_name(ctx->in[first]->dtype), ml_dtype_name(in->dtype));
    if (in->rank < 0) { known = false; continue; }
    int64_t merged[ML_MAX_RANK];
    int32_t merged_rank;
    ML_TRY(ml_shape_broadcast(dims, *rank, in->dims, in->rank, merged, &merged_rank, err));
    if (merged_rank > 0) memcpy(dims, merged, (size_t)merged_rank * sizeof dims[0]);
    *rank = merged_rank;
  }
  if (!known) *rank = ML_UNKNOWN;
  return ML_OK;
}

static ml_status infer_broadcast(ml_op_ctx *ctx, bool compare, ml_error *err) {
  int64_t dims[ML_MAX_RANK];
  int32_t rank;
  ML_TRY(ml__op_check_present(ctx, 1, err));
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__op_broadcast(ctx, 0, dims, &rank, err));
  ml_op_set(ctx->out[0], compare ? ML_BOOL : ctx->in[0]->dtype, dims, rank);
  return ML_OK;
}

ml_status ml_op_infer_broadcast(ml_op_ctx *ctx, ml_error *err) { return infer_broadcast(ctx, false, err); }

ml_status ml_op_infer_compare(ml_op_ctx *ctx, ml_error *err) { return infer_broadcast(ctx, true, err); }

ml_status ml_op_ints(const ml_view *view, int64_t *out, size_t capacity, size_t *count, bool *known, const char *what,
                     ml_error *err) {
  *count = 0;
  *known = false;
  if (view == NULL || view->dtype == ML_DTYPE_NONE) return ML_OK;
  if (view->dtype != ML_INT64 && view->dtype != ML_INT32)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s must be int64 or int32, got %s", what, ml_dtype_name(view->dtype));
  if (!ml_view_known(view)) return ML_OK;
  if (view->count > capacity)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s has %zu values, at most %zu are possible", what, view->count, capacity);
  *count = view->count;
  *known = view->count == 0 || view->data != NULL;
  if (!*known) return ML_OK;
  if (view->dtype == ML_INT64) {
    if (view->count > 0) memcpy(out, view->data, view->count * sizeof out[0]);
  } else {
    const int32_t *values = view->data;
    for (size_t i = 0; i < view->count; ++i) out[i] = values[i];
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- broadcasting ---- */
void ml_bcast_init(ml_bcast *b, const ml_view *out, const ml_view *const *operands, int32_t n) {
  int64_t step[3] = { 1, 1, 1 }; /* elements per unit of the current dimension of each operand */
  int64_t dims[ML_MAX_RANK], stride[3][ML_MAX_RANK]; /* innermost first */
  int32_t rank = 0;
  for (int32_t d = out->rank - 1; d >= 0; --d) {
    int64_t extent = out->dims[d], here[3] = { 0, 0, 0 };
    bool merge = rank > 0;
    for (int32_t k = 0; k < n; ++k) {
      int32_t at = d - (out->rank - operands[k]->rank);
      int64_t mine = at < 0 ? 1 : operands[k]->dims[at];
      here[k] = mine == 1 ? 0 : step[k];
      step[k] *= mine;
      if (merge && here[k] != stride[k][rank - 1] * dims[rank - 1]) merge = false;
    }
    if (extent == 1) continue;
    if (merge) {
      dims[rank - 1] *= extent;
      continue;
    }
    dims[rank] = extent;
    for (int32_t k = 0; k < n; ++k) stride[k][rank] = here[k];
    ++rank;
  }
  if (rank == 0) {
    dims[0] = 1;
    for (int32_t k = 0; k < n; ++k) stride[k][0] = 0;
    rank = 1;
  }
  b->rank = rank;
  for (int32_t d = 0; d < rank; ++d) {
    b->dims[d] = dims[rank - 1 - d];
    for (int32_t k = 0; k < n; ++k) b->stride[k][d] = stride[k][rank - 1 - d];
  }
}

void ml_bcast_rows(const ml_bcast *b, int32_t n, void (*row)(void *context, const size_t *offset, size_t out_offset),
                   void *context) {
  int64_t index[ML_MAX_RANK] = { 0 };
  size_t offset[3] = { 0, 0, 0 }, out_offset = 0;
  const int32_t last = b->rank - 1;
  const size_t length = (size_t)b->dims[last];
  for (int32_t d = 0; d <= last; ++d)
    if (b->dims[d] == 0) return;
  for (;;) {
    row(context, offset, out_offset);
    out_offset += length;
    int32_t d = last - 1;
    for (; d >= 0; --d) { /* the next row: an odometer over the outer dimensions */
      for (int32_t k = 0; k < n; ++k) offset[k] += (size_t)b->stride[k][d];
      if (++index[d] < b->dims[d]) break;
      for (int32_t k = 0; k < n; ++k) offset[k] -= (size_t)(b->stride[k][d] * b->dims[d]);
      index[d] = 0;
    }
    if (d < 0) return;
  }
}

/* ---------------------------------------------------------------- gradients ---- */
ml_value *ml_gn(ml_grad *g, const char *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in) {
  ml_value *out = NULL;
  return g->emit(g, op, attrs, n_attrs, n_in, in, 1, &out) == ML_OK ? out : NULL;
}

void ml_g_fail(ml_grad *g, const char *why)
{
  if (g->fail) g->fail(g, why);
}

ml_value *ml_g1(ml_grad *g, const char *op, ml_value *x) { return ml_gn(g, op, NULL, 0, 1, (ml_value *const[]){ x }); }

ml_value *ml_g2(ml_grad *g, const char *op, ml_value *x, ml_value *y) {
  return ml_gn(g, op, NULL, 0, 2, (ml_value *const[]){ x, y });
}

ml_value *ml_g3(ml_grad *g, const char *op, ml_value *x, ml_value *y, ml_value *z) {
  return ml_gn(g, op, NULL, 0, 3, (ml_value *const[]){ x, y, z });
}

ml_value *ml_g_reduce_to(ml_grad *g, ml_value *dy, ml_value *x) {
  if (dy == NULL || x == NULL) return NULL;
  const ml_view *from = g->shape_of(g, dy), *to = g->shape_of(g, x);
  if (from != NULL && to != NULL && ml_view_known(from) && ml_view_known(to) &&
      ml_shape_equal(from->dims, from->rank, to->dims, to->rank)) return dy;
  return ml_g2(g, "mlserve.ReduceTo", dy, x);
}
