/* Driving element-by-element operators: shapes that need no broadcasting or one repeated scalar go to one call of the inner
 * loop, the rest row by row through ml_bcast. See elementwise.h. */
#include "ops/elementwise.h"
#include <string.h>
#include "base/thread.h"

ml_status ml__op_check_scalar(const ml_view *view, const char *what, ml_error *err) {
  if (view == NULL || view->rank <= 0) return ML_OK;
  for (int32_t d = 0; d < view->rank; ++d) {
    if (view->dims[d] == 1 || view->dims[d] == ML_UNKNOWN) continue;
    char text[128];
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s must be a scalar, got shape %s", what,
                   ml_shape_format(view->dims, view->rank, text, sizeof text));
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- unary ---- */
typedef struct unary_job {
  ml__loop *loop;
  const ml_kernels *kernels;
  const char *from;
  char *to;
  size_t size, n;
  float alpha, gamma;
} unary_job;

static void unary_chunk(void *context, size_t chunk) {
  const unary_job *job = context;
  size_t begin = chunk * ML__CHUNK, n = job->n - begin < ML__CHUNK ? job->n - begin : ML__CHUNK;
  job->loop(job->kernels, job->from + begin * job->size, job->to + begin * job->size, n, job->alpha, job->gamma);
}

void ml__unary_run(ml_op_ctx *ctx, ml__loop *f32, ml__loop *f64, float alpha, float gamma) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  const ml_kernels *kernels = ctx->run->kernels;
  const size_t n = y->count;
  if (n == 0) return;
  ml__loop *loop = x->dtype == ML_FLOAT32 ? f32 : f64;
  if (n < ML__PARALLEL) {
    loop(kernels, x->data, y->data, n, alpha, gamma);
    return;
  }
  unary_job job = { .loop = loop, .kernels = kernels, .from = x->data, .to = y->data, .size = ml_dtype_size(x->dtype), .n = n,
                    .alpha = alpha, .gamma = gamma };
  ml_parallel((n + ML__CHUNK - 1) / ML__CHUNK, unary_chunk, &job);
}

void ml__copy_run(ml_op_ctx *ctx) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  if (y->count == 0 || x->data == y->data) return;
  memcpy(y->data, x->data, y->count * ml_dtype_size(x->dtype));
}

/* ---------------------------------------------------------------- binary ---- */
typedef struct binary_job {
  const ml_kernels *kernels;
  int kernel; /* >= 0: float32 through the kernel table */
  ml__rows *rows;
  ml_dtype dtype;
  const char *x, *y;
  char *z;
  size_t sx, sy, size, out_size; /* strides, bytes per element */
  size_t n;
} binary_job;

static void binary_span(const binary_job *job, size_t x, size_t y, size_t z, size_t n) {
  const void *px = job->x + x * job->size, *py = job->y + y * job->size;
  void *pz = job->z + z * job->out_size;
  if (job->kernel >= 0) job->kernels->binary_f32((ml_binary)job->kernel, px, (int)job->sx, py, (int)job->sy, pz, n);
  else job->rows(job->dtype, px, job->sx, py, job->sy, pz, n);
}

static void binary_row(void *context, const size_t *offset, size_t out_offset) {
  const binary_job *job = context;
  binary_span(job, offset[0], offset[1], out_offset, job->n);
}

static void binary_chunk(void *context, size_t chunk) {
  const binary_job *job = context;
  size_t begin = chunk * ML__CHUNK, n = job->n - begin < ML__CHUNK ? job->n - begin : ML__CHUNK;
  binary_span(job, begin * job->sx, begin * job->sy, begin, n);
}

void ml__binary(const ml_kernels *kernels, int kernel, ml__rows *rows, const ml_view *x, const ml_view *y, const ml_view *z) {
  const size_t n = z->count;
  if (n == 0) return;
  if (x->dtype != ML_FLOAT32) kernel = -1;
  /* An operand that broadcasts to z and has z's number of elements has z's layout. */
  const size_t sx = x->count == n ? 1 : x->count == 1 ? 0 : 2, sy = y->count == n ? 1 : y->count == 1 ? 0 : 2;
  if (kernel >= 0 && sx < 2 && sy < 2 && n < 2 * ML__PARALLEL) { /* the common case first and lean */
    kernels->binary_f32((ml_binary)kernel, x->data, (int)sx, y->data, (int)sy, z->data, n);
    return;
  }
  binary_job job = { .kernels = kernels, .kernel = kernel, .rows = rows, .dtype = x->dtype, .x = x->data, .y = y->data,
                     .z = z->data, .sx = sx, .sy = sy, .size = ml_dtype_size(x->dtype),
                     .out_size = ml_dtype_size(z->dtype), .n = n };
  if (sx < 2 && sy < 2) {
    if (n < 2 * ML__PARALLEL) binary_span(&job, 0, 0, 0, n);
    else ml_parallel((n + ML__CHUNK - 1) / ML__CHUNK, binary_chunk, &job);
    return;
  }
  ml_bcast b;
  ml_bcast_init(&b, z, (const ml_view *const[]){ x, y }, 2);
  job.n = (size_t)b.dims[b.rank - 1];
  job.sx = (size_t)b.stride[0][b.rank - 1];
  job.sy = (size_t)b.stride[1][b.rank - 1];
  ml_bcast_rows(&b, 2, binary_row, &job);
}

void ml__variadic_run(ml_op_ctx *ctx, int kernel, ml__rows *rows) {
  if (ctx->n_in == 1) {
    ml__copy_run(ctx);
    return;
  }
  ml__binary_run(ctx, kernel, rows);
  for (int32_t i = 2; i < ctx->n_in; ++i) ml__binary(ctx->run->kernels, kernel, rows, ctx->out[0], ctx->in[i], ctx->out[0]);
}

/* ---------------------------------------------------------------- gradients ---- */
/* Does a have the shape that a and b broadcast to, whatever the unknown dimensions turn out to be? */
static bool covers(const ml_view *a, const ml_view *b) {
  if (a == NULL || b == NULL || a->rank < 0 || b->rank < 0 || b->rank > a->rank) return false;
  for (int32_t d = 1; d <= b->rank; ++d) {
    int64_t mine = a->dims[a->rank - d], other = b->dims[b->rank - d];
    if (other != 1 && mine <= 1 && other != mine) return false; /* a repeats, or might */
    if (other == ML_UNKNOWN && mine <= 1) return false;
  }
  return true;
}

ml_value *ml__g_operand(ml_grad *g, int32_t i, ml_value *d) {
  if (d == NULL) return NULL;
  bool same = true;
  for (int32_t k = 0; k < g->n_in && same; ++k)
    if (k != i && g->in[k] != NULL && g->in[k] != g->in[i]) same = covers(g->shape_of(g, g->in[i]), g->shape_of(g, g->in[k]));
  return same ? d : ml_g_reduce_to(g, d, g->in[i]);
}

ml_value *ml__g_unary(ml_grad *g, const char *function, ml_value *value, float alpha, float gamma) {
  const ml_attr attrs[] = { ml_attr_of_str("function", function), ml_attr_of_float("alpha", alpha),
                            ml_attr_of_float("gamma", gamma) };
  return ml_gn(g, "mlserve.UnaryGrad", attrs, 3, 2, (ml_value *const[]){ value, g->dout[0] });
}

void ml__g_extremum(ml_grad *g) {
  ml_value *dy = g->dout[0], *count = NULL;
  if (g->n_in == 1) {
    g->din[0] = dy;
    return;
  }
  for (int32_t i = 0; i < g->n_in; ++i) {
    ml_value *hit = ml__g_like(g, ml_g2(g, "Equal", g->in[i], g->out[0]), dy);
    count = i == 0 ? hit : ml_g2(g, "Add", count, hit);
    if (g->needs[i]) g->din[i] = hit; /* kept until the count is known */
  }
  ml_value *share = ml_g2(g, "Div", dy, count);
  for (int32_t i = 0; i < g->n_in; ++i)
    if (g->needs[i]) g->din[i] = ml__g_operand(g, i, ml_g2(g, "Mul", share, g->din[i]));
}
