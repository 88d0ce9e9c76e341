/* FlexAttention of ai.onnx.preview: Y = prob_mod(softmax(score_mod(scale Q K'))) V for every head, the two modifiers being
 * subgraphs that take and give a whole tensor (B, Hq, Sq, Sk) of the softmax's precision: softmax_precision, by default float32
 * (float64 for float64).
 * Q (B, Hq, Sq, D), K (B, H, Sk, D), V (B, H, Sk, Dv) -> Y (B, Hq, Sq, Dv); Hq is a multiple of H, neighbouring query heads share
 * a key head. Without modifiers it is Attention of those inputs, and run and differentiated as such; with them Attention makes
 * the scores, which then lie in memory as a whole. Reference: ONNX FlexAttention-1; Dong et al. 2024, "Flex attention". */
#include <math.h>
#include <string.h>
#include "ops/elementwise.h"
#include "ops/movement.h"
#include "ops/product.h"

#define MASK (ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16))

static const char *const modifiers[] = { "score_mod", "prob_mod" };

/* The node as an Attention: what its subgraphs capture stands behind Q, K and V and is no input of that. */
static ml_op_ctx plain(const ml_op_ctx *ctx) {
  ml_op_ctx as = *ctx;
  as.n_in = 3;
  return as;
}

static bool is_plain(const ml_op_ctx *ctx) {
  ml_subgraph modifier;
  return !ml_op_subgraph(ctx, modifiers[0], &modifier) && !ml_op_subgraph(ctx, modifiers[1], &modifier);
}

static ml_dtype precision_of(const ml_op_ctx *ctx) {
  return (ml_dtype)ml_attr_int(ctx->attrs, "softmax_precision", ctx->in[0]->dtype == ML_FLOAT64 ? ML_FLOAT64 : ML_FLOAT32);
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const int64_t precision = ml_attr_int(ctx->attrs, "softmax_precision", ML_FLOAT32);
  ml_op_ctx as = plain(ctx);
  ML_TRY(ml__op_check_present(&as, 3, err));
  ML_TRY(ml__op_check_types(&as, err));
  for (int32_t i = 0; i < 3; i++)
    if (ctx->in[i]->rank != 4 && ctx->in[i]->rank != ML_UNKNOWN)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has rank %d, expected 4", (int)i, (int)ctx->in[i]->rank);
  if (precision < 1 || precision > 31 || (MASK & ML_BIT(precision)) == 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'softmax_precision' is %lld, no floating-point type",
                   (long long)precision);
  for (int i = 0; i < 2; i++) {
    ml_subgraph m;
    if (ml_op_subgraph(ctx, modifiers[i], &m) && (m.n_in != 1 || m.n_out != 1))
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s has %d inputs and %d outputs, expected 1 of each", modifiers[i], (int)m.n_in,
                     (int)m.n_out);
  }
  return ml_op_attention.infer(&as, err);
}

/* ---------------------------------------------------------------- with modifiers ---- */
/* Memory of a run: Attention's own, the scores in the type of the computation and (if it is another) in that of the modifiers,
 * one head of V and of Y, the inputs of a modifier. */
typedef struct layout {
  ml_dtype dtype, precision; /* of the computation; of the modifiers */
  size_t scores, modified, value, result, inputs, total;
} layout;

static ml_status add(size_t *total, size_t count, size_t size, size_t *at, ml_error *err) {
  size_t bytes;
  *at = *total;
  if (!ml_mul_size(count, size, &bytes) || bytes > SIZE_MAX / 16 ||
      !ml_add_size(*total, (bytes + ML_ALIGN - 1) / ML_ALIGN * ML_ALIGN, total))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the scores are too large");
  return ML_OK;
}

static ml_status scores_shape(const ml_op_ctx *ctx, ml_view *scores, ml_dtype dtype, void *data, ml_error *err) {
  const int64_t *q = ctx->in[0]->dims;
  *scores = (ml_view){ .data = data, .dtype = dtype, .rank = 4, .dims = { q[0], q[1], q[2], ctx->in[1]->dims[2] } };
  return ml_shape_count(scores->dims, 4, dtype, &scores->count, err);
}

static ml_status arrange(ml_op_ctx *ctx, layout *l, ml_error *err) {
  ml_op_ctx as = plain(ctx);
  ml_view scores;
  size_t captures = 0;
  *l = (layout){ .dtype = ctx->in[0]->dtype == ML_FLOAT64 || precision_of(ctx) == ML_FLOAT64 ? ML_FLOAT64 : ML_FLOAT32,
                 .precision = precision_of(ctx) };
  const size_t size = ml_dtype_size(l->dtype), width = (size_t)ctx->in[2]->dims[3];
  for (int i = 0; i < 2; i++) {
    ml_subgraph m;
    if (ml_op_subgraph(ctx, modifiers[i], &m) && (size_t)m.n_captures > captures) captures = (size_t)m.n_captures;
  }
  ML_TRY(ml_op_attention.workspace(&as, &l->total, err));
  l->total = (l->total + ML_ALIGN - 1) / ML_ALIGN * ML_ALIGN;
  ML_TRY(scores_shape(ctx, &scores, l->dtype, NULL, err));
  ML_TRY(add(&l->total, scores.count, size, &l->scores, err));
  ML_TRY(add(&l->total, l->precision == l->dtype ? 0 : scores.count, ml_dtype_size(l->precision), &l->modified, err));
  ML_TRY(add(&l->total, (size_t)scores.dims[3] * width, size, &l->value, err));
  ML_TRY(add(&l->total, (size_t)scores.dims[2] * width, size, &l->result, err));
  return add(&l->total, captures + 1, sizeof(ml_view *), &l->inputs, err);
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  if (is_plain(ctx)) {
    ml_op_ctx as = plain(ctx);
    return ml_op_attention.workspace(&as, bytes, err);
  }
  layout l;
  ML_TRY(arrange(ctx, &l, err));
  *bytes = l.total;
  return ML_OK;
}

/* What a modifier gave takes the place of what it was given. */
static ml_status take(void *context, ml_view *const *out, ml_error *err) {
  const ml_view *to = context, *from = out[0];
  char text[2][96];
  if (from->dtype != to->dtype || !ml_shape_equal(from->dims, from->rank, to->dims, to->rank))
    return ml_fail(err, ML_INVALID_ARGUMENT, "gives %s %s, expected %s %s", ml_dtype_name(from->dtype),
                   ml_shape_format(from->dims, from->rank, text[0], sizeof text[0]), ml_dtype_name(to->dtype),
                   ml_shape_format(to->dims, to->rank, text[1], sizeof text[1]));
  if (to->count > 0) memmove(to->data, from->data, to->count * ml_dtype_size(to->dtype));
  return ML_OK;
}

static ml_status modify(ml_op_ctx *ctx, const layout *l, const char *name, const ml_view *scores, ml_error *err) {
  ml_subgraph m;
  if (!ml_op_subgraph(ctx, name, &m)) return ML_OK;
  char *memory = ctx->workspace;
  ml_view **in = (ml_view **)(void *)(memory + l->inputs), given = *scores;
  if (l->precision != l->dtype) {
    given.dtype = l->precision;
    given.data = memory + l->modified;
    ml_convert(scores->data, l->dtype, given.data, l->precision, scores->count);
  }
  in[0] = &given;
  for (int32_t i = 0; i < m.n_captures; i++) in[i + 1] = m.captures[i];
  ml_status status = ctx->run->subgraph(ctx->run, m.graph, in, take, &given, err);
  if (status != ML_OK) return ml_fail_in(err, status, "%s", name);
  if (l->precision != l->dtype) ml_convert(given.data, l->precision, scores->data, l->dtype, scores->count);
  return ML_OK;
}

static void softmax(const ml_view *scores) {
  const size_t n = (size_t)scores->dims[3], rows = n == 0 ? 0 : scores->count / n;
  ML_SWITCH_FLOAT(scores->dtype, {
    for (size_t r = 0; r < rows; r++) {
      T *x = (T *)scores->data + r * n, largest = x[0], sum = 0;
      for (size_t i = 1; i < n; i++)
        if (x[i] > largest) largest = x[i];
      for (size_t i = 0; i < n; i++) sum += x[i] = (T)exp(x[i] - largest);
      for (size_t i = 0; i < n; i++) x[i] /= sum;
    }
  })
}

/* Y = probabilities V, head by head */
static void weigh(const ml_op_ctx *ctx, const layout *l, const ml_view *scores) {
  const ml_view *v = ctx->in[2], *y = ctx->out[0];
  const size_t heads = (size_t)scores->dims[1], L = (size_t)scores->dims[2], S = (size_t)scores->dims[3],
               width = (size_t)v->dims[3], shared = heads / (size_t)(v->dims[1] > 0 ? v->dims[1] : 1),
               size = ml_dtype_size(l->dtype), from = ml_dtype_size(v->dtype);
  char *value = (char *)ctx->workspace + l->value, *result = (char *)ctx->workspace + l->result;
  for (size_t h = 0; L * S * width > 0 && h < (size_t)scores->dims[0] * heads; h++) {
    ml_convert((const char *)v->data + h / shared * S * width * from, v->dtype, value, l->dtype, S * width);
    ml__product(ctx->run->kernels, l->dtype, false, false, L, width, S, 1, (const char *)scores->data + h * L * S * size, S,
                value, width, 0, result, width);
    ml_convert(result, l->dtype, (char *)y->data + h * L * width * from, y->dtype, L * width);
  }
  if (S == 0 && y->count > 0) memset(y->data, 0, y->count * from);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_op_ctx as = plain(ctx);
  if (is_plain(ctx)) return ml_op_attention.run(&as, err);
  layout l;
  ml_view scores;
  ML_TRY(arrange(ctx, &l, err));
  ML_TRY(scores_shape(ctx, &scores, l.dtype, (char *)ctx->workspace + l.scores, err));
  ml_view *const only_scores[4] = { NULL, NULL, NULL, &scores };
  as.out = only_scores;
  as.n_out = 4;
  ML_TRY(ml_op_attention.run(&as, err));
  ML_TRY(modify(ctx, &l, modifiers[0], &scores, err));
  softmax(&scores);
  ML_TRY(modify(ctx, &l, modifiers[1], &scores, err));
  weigh(ctx, &l, &scores);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  for (size_t i = 0; i < g->attrs->count; i++)
    if (g->attrs->items[i].type == ML_ATTR_GRAPH) {
      ml_g_fail(g, "through a modifier");
      return;
    }
  ml_op_attention.gradient(g);
}

static double flops(const ml_op_ctx *ctx) {
  ml_op_ctx as = plain(ctx);
  return ml_op_attention.flops(&as);
}

static const ml_attr_def attrs[] = {
  { "prob_mod", ML_ATTR_GRAPH, false, "subgraph from probabilities to probabilities" },
  { "scale", ML_ATTR_FLOAT, false, "1 / sqrt(D) by default" },
  { "score_mod", ML_ATTR_GRAPH, false, "subgraph from scores to scores" },
  { "softmax_precision", ML_ATTR_INT, false, "type that the modifiers see; float32 (float64 for float64) by default" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_flex_attention = {
  .name = "FlexAttention", .domain = "ai.onnx.preview", .since = 1, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .attrs = attrs,
  .types = { MASK },
  .formula = "Y = mod(softmax(mod(scale Q K'))) V by heads",
  .infer = infer,
  .workspace = workspace,
  .run = run,
  .gradient = gradient,
  .flops = flops,
};
