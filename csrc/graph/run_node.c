/* One node outside a session: constant folding and the evaluation of shape arithmetic at plan time. */
#include <string.h>
#include "graph/pass.h"

typedef struct node_run {
  ml_run run; /* first: the callbacks get a pointer to it */
  ml_view *views;
  ml_tensor **tensors;
  int32_t n_out;
  ml_arena *scratch;
} node_run;

static ml_status resize(ml_run *run, ml_view *out, const int64_t *dims, int32_t rank, ml_error *err)
{
  node_run *r = (node_run *)run;
  ml_tensor *tensor;
  ML_TRY(ml_tensor_new(out->dtype, dims, rank, &tensor, err));
  ptrdiff_t index = out - r->views;
  ml_tensor_release(r->tensors[index]);
  r->tensors[index] = tensor;
  *out = tensor->view;
  return ML_OK;
}

static void *scratch(ml_run *run, size_t bytes)
{
  node_run *r = (node_run *)run;
  if (!r->scratch) r->scratch = ml_arena_new();
  return r->scratch ? ml_arena_alloc(r->scratch, bytes) : NULL;
}

/* String results may point into inputs or scratch: give the tensor bytes of its own. */
static ml_status own_strings(node_run *r, ml_error *err)
{
  for (int32_t i = 0; i < r->n_out; i++) {
    if (!r->tensors[i] || r->tensors[i]->view.dtype != ML_STRING) continue;
    ml_tensor *copy;
    ML_TRY(ml_tensor_copy_of(&r->tensors[i]->view, &copy, err));
    ml_tensor_release(r->tensors[i]);
    r->tensors[i] = copy;
  }
  return ML_OK;
}

static ml_status run_prepared(ml_op_ctx *ctx, node_run *r, ml_view **pointers, ml_error *err)
{
  const ml_op_def *op = ctx->op;
  ML_TRY(ml__infer(ctx, err));
  for (int32_t i = 0; i < ctx->n_out; i++) {
    if (!pointers[i] || !ml_view_known(pointers[i])) continue; /* unknown: the operator calls resize */
    ML_TRY(ml_tensor_new(pointers[i]->dtype, pointers[i]->dims, pointers[i]->rank, &r->tensors[i], err));
    *pointers[i] = r->tensors[i]->view;
  }
  if (op->prepare) ML_TRY(op->prepare(ctx, &ctx->state, err));
  size_t bytes = 0;
  if (op->workspace) ML_TRY(op->workspace(ctx, &bytes, err));
  void *workspace = bytes ? ml_alloc(bytes) : NULL;
  if (bytes && !workspace) return ml_fail_memory(err, bytes, "workspace");
  ctx->workspace = workspace;
  ctx->run = &r->run;
  ml_status status = op->run(ctx, err);
  ml_free(workspace);
  return status == ML_OK ? own_strings(r, err) : status;
}

static ml_status run_node(const ml_node *node, ml_view *const *in, const struct ml_kernels *kernels, ml_tensor **out, ml_error *err)
{
  size_t n_out = (size_t)node->n_out;
  ml_view *views = ml_alloc_zero(n_out + 1, sizeof *views);
  ml_view **pointers = ml_alloc_zero(n_out + 1, sizeof *pointers);
  memset(out, 0, n_out * sizeof *out);
  ml_status status = views && pointers ? ML_OK : ml_fail_memory(err, n_out * sizeof *views, "a node run");
  node_run r = { .run = { .kernels = kernels, .resize = resize, .scratch = scratch }, .views = views, .tensors = out, .n_out = node->n_out };
  ml_op_ctx ctx = { .op = node->op, .attrs = &node->attrs, .name = node->name, .n_in = node->n_in, .n_out = node->n_out,
                    .in = in, .out = pointers, .stream = node->id };
  if (status == ML_OK) {
    for (size_t i = 0; i < n_out; i++) pointers[i] = node->out[i] ? &views[i] : NULL;
    status = run_prepared(&ctx, &r, pointers, err);
    if (status != ML_OK) ml_fail_in(err, status, "%s '%s'", node->op->name, node->name);
  }
  if (ctx.state && node->op->release) node->op->release(ctx.state);
  ml_arena_free(r.scratch);
  ml_free(views);
  ml_free(pointers);
  if (status != ML_OK)
    for (size_t i = 0; i < n_out; i++) {
      ml_tensor_release(out[i]);
      out[i] = NULL;
    }
  return status;
}

/* 16-bit floats of an operator that computes them in float32 are converted around it, as the pass `widen` has it for programs. */
static ml_status run_widened(const ml_node *node, ml_view *const *in, const struct ml_kernels *kernels, ml_tensor **out, ml_error *err)
{
  const size_t n_in = (size_t)node->n_in, n_out = (size_t)node->n_out;
  ml_view **wide_in = ml_alloc_zero(n_in, sizeof *wide_in);
  ml_tensor **wide = ml_alloc_zero(n_in, sizeof *wide);
  ml_status status = wide_in && wide ? ML_OK : ml_fail_memory(err, n_in * sizeof *wide, "a node run");
  for (size_t i = 0; i < n_in && status == ML_OK; i++) {
    wide_in[i] = in[i];
    if (!in[i] || !ml_op_widens(node->op, (int32_t)i, in[i]->dtype)) continue;
    status = ml_tensor_new(ML_FLOAT32, in[i]->dims, in[i]->rank, &wide[i], err);
    if (status != ML_OK) break;
    wide_in[i] = &wide[i]->view;
    ml_convert(in[i]->data, in[i]->dtype, wide[i]->view.data, ML_FLOAT32, in[i]->count);
  }
  memset(out, 0, n_out * sizeof *out);
  if (status == ML_OK) status = run_node(node, wide_in, kernels, out, err);
  for (size_t k = 0; k < n_out && status == ML_OK; k++) {
    ml_tensor *made = out[k];
    if (!made) continue;
    status = ml_tensor_cast(made, ml_op_narrowed(node->op, (int32_t)k, made->view.dtype, in, node->n_in), &out[k], err);
    ml_tensor_release(made);
    if (status != ML_OK) out[k] = NULL;
  }
  for (size_t k = 0; k < n_out && status != ML_OK; k++) {
    ml_tensor_release(out[k]);
    out[k] = NULL;
  }
  for (size_t i = 0; wide && i < n_in; i++) ml_tensor_release(wide[i]);
  ml_free(wide);
  ml_free(wide_in);
  return status;
}

ml_status ml__run_node(const ml_node *node, ml_view *const *in, const struct ml_kernels *kernels, ml_tensor **out, ml_error *err)
{
  for (int32_t i = 0; i < node->n_in; i++)
    if (in[i] && ml_op_widens(node->op, i, in[i]->dtype)) return run_widened(node, in, kernels, out, err);
  return run_node(node, in, kernels, out, err);
}
