/* Attention: Y = softmax(softcap(scale Q K') + mask) V for every head (Vaswani et al. 2017, "Attention is all you need").
 *
 * Q (B, Hq, Sq, D), K (B, Hkv, Sk, D), V (B, Hkv, Sk, Dv), or all of rank 3: (B, Sq, Hq * D) and so on with the attributes
 * q_num_heads and kv_num_heads; Hq is a multiple of Hkv, neighbouring query heads share a key head (grouped queries).
 * attn_mask (broadcast to (B, Hq, Sq, T); bool: true takes part; else added; a shorter last dimension hides the rest),
 * past_key (B, Hkv, P, D) and past_value stand in front of K and V, T = P + Sk; nonpad_kv_seqlen (B) int64: keys from there on
 * are padding.
 * -> Y like Q with Dv for D, present_key (B, Hkv, T, D), present_value (B, Hkv, T, Dv), qk_matmul_output (B, Hq, Sq, T).
 *
 * Query i stands at position i + offset, offset being P, nonpad_kv_seqlen - Sq, or 0. is_causal hides keys behind that
 * position, the window attributes those too far from it. A query that sees no key at all gives zeros.
 * Computed in float32 (float64 for float64) whatever softmax_precision says, in blocks of queries, so that the scores are
 * never whole. In bfloat16 every step is rounded, as the operator's definition by others has it (within the softmax too
 * unless softmax_precision asks for more): with 8 bits that decides the last digit.
 * Gradient: from the probabilities P, computed again: dV = P' dY, dP = dY V', dS = P (dP - sum P dP), through the soft cap
 * 1 - (s / cap)^2, dQ = scale dS K, dK = scale dS' Q. Reference: ONNX Attention-25. */
#include <math.h>
#include <string.h>
#include "base/thread.h"
#include "ops/movement.h"
#include "ops/product.h"

enum {
  BLOCK = 64, /* queries */
  SLICES = 16 /* of the heads, for the thread pool */
};

#define MASK_FLOAT (ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16))

static const ml_attr_def attrs[] = {
  { "is_causal", ML_ATTR_INT, false, "0 (default); 1: no query sees a key behind its position" },
  { "kv_num_heads", ML_ATTR_INT, false, "heads of K and V; needed for rank 3" },
  { "left_window_size", ML_ATTR_INT, false, "-1 (default): no limit; else keys before its position a query sees" },
  { "q_num_heads", ML_ATTR_INT, false, "heads of Q; needed for rank 3" },
  { "qk_matmul_output_mode", ML_ATTR_INT, false,
   "output 3: 0 (default) scaled Q K', 1 after the soft cap, 2 with the mask, 3 softmax" },
  { "right_window_size", ML_ATTR_INT, false, "-1 (default): no limit; else keys behind its position a query sees" },
  { "scale", ML_ATTR_FLOAT, false, "1 / sqrt(D) by default" },
  { "softcap", ML_ATTR_FLOAT, false, "0 (default): none; else scores become cap tanh(score / cap)" },
  { "softmax_precision", ML_ATTR_INT, false, "only for bfloat16: by default its own; else float32, or float64 for float64" },
  { 0 },
};

typedef struct shape {
  int64_t B, Hq, Hkv, Sq, Sk, D, Dv, P, T; /* ML_UNKNOWN: not known */
} shape;

/* ---------------------------------------------------------------- shapes ---- */
static ml_status agree(int64_t *known, int64_t also, const char *what, ml_error *err) {
  if (*known == ML_UNKNOWN) *known = also;
  if (also == ML_UNKNOWN || *known == also) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %lld and %lld", what, (long long)*known, (long long)also);
}

/* Extents of a tensor in heads: batch, heads, length, size. */
static ml_status in_heads(const ml_view *x, int64_t heads, const char *what, int64_t out[4], ml_error *err) {
  if (x->rank == 4) {
    memcpy(out, x->dims, 4 * sizeof out[0]);
    return ML_OK;
  }
  if (heads < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "inputs of rank 3 need the attributes q_num_heads and kv_num_heads");
  if (x->dims[2] >= 0 && x->dims[2] % heads != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: %lld features do not make %lld heads", what, (long long)x->dims[2],
                   (long long)heads);
  out[0] = x->dims[0];
  out[1] = heads;
  out[2] = x->dims[1];
  out[3] = x->dims[2] < 0 ? ML_UNKNOWN : x->dims[2] / heads;
  return ML_OK;
}

static ml_status measure_past(const ml_op_ctx *ctx, shape *s, ml_error *err) {
  const ml_view *past[2] = { ml__in(ctx, 4), ml__in(ctx, 5) };
  s->P = 0;
  if ((past[0] == NULL) != (past[1] == NULL)) return ml_fail(err, ML_INVALID_ARGUMENT, "past_key and past_value come together");
  if (past[0] == NULL) return ML_OK;
  s->P = ML_UNKNOWN;
  for (int32_t i = 0; i < 2; i++) {
    const char *what = i == 0 ? "past_key" : "past_value";
    if (past[i]->dtype != ctx->in[i + 1]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s, what it goes before is %s", what, ml_dtype_name(past[i]->dtype),
                     ml_dtype_name(ctx->in[i + 1]->dtype));
    if (past[i]->rank == ML_UNKNOWN) continue;
    if (past[i]->rank != 4) return ml_fail(err, ML_INVALID_ARGUMENT, "%s has rank %d, expected 4", what, (int)past[i]->rank);
    ML_TRY(agree(&s->B, past[i]->dims[0], "the batch", err));
    ML_TRY(agree(&s->Hkv, past[i]->dims[1], "the number of key heads", err));
    ML_TRY(agree(&s->P, past[i]->dims[2], "the length of the past", err));
    ML_TRY(agree(i == 0 ? &s->D : &s->Dv, past[i]->dims[3], "the size of a head", err));
  }
  return ML_OK;
}

static ml_status measure_mask(const ml_op_ctx *ctx, shape *s, ml_error *err) {
  const ml_view *mask = ml__in(ctx, 3), *nonpad = ml__in(ctx, 6);
  char text[128];
  if (nonpad != NULL && ml__in(ctx, 4) != NULL)
    return ml_fail(err, ML_INVALID_ARGUMENT, "nonpad_kv_seqlen and past_key exclude each other");
  if (nonpad != NULL && nonpad->rank != ML_UNKNOWN &&
      (nonpad->rank != 1 || (nonpad->dims[0] >= 0 && s->B >= 0 && nonpad->dims[0] != s->B)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "nonpad_kv_seqlen has shape %s, expected (%lld)",
                   ml_shape_format(nonpad->dims, nonpad->rank, text, sizeof text), (long long)s->B);
  if (mask == NULL || mask->rank == ML_UNKNOWN) return ML_OK;
  const int64_t want[4] = { s->B, s->Hq, s->Sq, s->T };
  bool fits = mask->rank >= 1 && mask->rank <= 4;
  for (int32_t d = 0; d < mask->rank && fits; d++) {
    const int64_t extent = mask->dims[d], most = want[4 - mask->rank + d];
    if (extent == ML_UNKNOWN || most == ML_UNKNOWN) continue;
    fits = d == mask->rank - 1 ? extent <= most : extent == 1 || extent == most;
  }
  if (fits) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "attn_mask has shape %s, expected one that broadcasts to (%lld, %lld, %lld, %lld)",
                 ml_shape_format(mask->dims, mask->rank, text, sizeof text), (long long)want[0], (long long)want[1],
                 (long long)want[2], (long long)want[3]);
}

static ml_status measure(const ml_op_ctx *ctx, shape *s, ml_error *err) {
  static const char *const names[] = { "Q", "K", "V" };
  int64_t dims[3][4];
  const int64_t heads_q = ml_attr_int(ctx->attrs, "q_num_heads", 0), heads_kv = ml_attr_int(ctx->attrs, "kv_num_heads", 0);
  for (int32_t i = 0; i < 3; i++) {
    const ml_view *x = ctx->in[i];
    if ((x->rank != 3 && x->rank != 4) || x->rank != ctx->in[0]->rank)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s has rank %d, expected 3 or 4, the same for Q, K and V", names[i],
                     (int)x->rank);
    ML_TRY(in_heads(x, i == 0 ? heads_q : heads_kv, names[i], dims[i], err));
  }
  *s = (shape){ .B = dims[0][0], .Hq = dims[0][1], .Hkv = dims[1][1], .Sq = dims[0][2], .Sk = dims[1][2], .D = dims[0][3],
                .Dv = dims[2][3] };
  for (int32_t i = 1; i < 3; i++) ML_TRY(agree(&s->B, dims[i][0], "the batch", err));
  ML_TRY(agree(&s->Hkv, dims[2][1], "the number of key heads", err));
  ML_TRY(agree(&s->Sk, dims[2][2], "the number of keys", err));
  ML_TRY(agree(&s->D, dims[1][3], "the size of a head", err));
  ML_TRY(measure_past(ctx, s, err));
  if (s->Hq > 0 && s->Hkv >= 0 && (s->Hkv == 0 || s->Hq % s->Hkv != 0))
    return ml_fail(err, ML_INVALID_ARGUMENT, "%lld query heads cannot share %lld key heads", (long long)s->Hq, (long long)s->Hkv);
  s->T = ML_UNKNOWN;
  if (s->P != ML_UNKNOWN && s->Sk != ML_UNKNOWN && __builtin_add_overflow(s->P, s->Sk, &s->T))
    return ml_fail(err, ML_INVALID_ARGUMENT, "too many keys");
  return measure_mask(ctx, s, err);
}

static ml_status check_attributes(const ml_op_ctx *ctx, ml_error *err) {
  static const char *const windows[] = { "left_window_size", "right_window_size" };
  const int64_t mode = ml_attr_int(ctx->attrs, "qk_matmul_output_mode", 0);
  if (mode < 0 || mode > 3) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'qk_matmul_output_mode' is %lld",
                                           (long long)mode);
  for (size_t i = 0; i < 2; i++)
    if (ml_attr_int(ctx->attrs, windows[i], -1) < -1)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is %lld", windows[i],
                     (long long)ml_attr_int(ctx->attrs, windows[i], -1));
  if (!(ml_attr_float(ctx->attrs, "softcap", 0) >= 0)) return ml_fail(err, ML_INVALID_ARGUMENT,
                                                                      "attribute 'softcap' is negative");
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(check_attributes(ctx, err));
  for (int32_t i = 0; i < ctx->n_in; i++) {
    const ml_view *x = ctx->in[i];
    if (x == NULL || x->dtype == ML_DTYPE_NONE) continue;
    const uint32_t mask = i == 3 ? MASK_FLOAT | ML_MASK_I | ML_BIT(ML_BOOL) : i == 6 ? ML_BIT(ML_INT64) : MASK_FLOAT;
    if ((mask & ML_BIT(x->dtype)) == 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d has dtype %s", (int)i, ml_dtype_name(x->dtype));
  }
  const ml_view *q = ctx->in[0];
  if (ctx->in[1]->dtype != q->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Q is %s, K is %s", ml_dtype_name(q->dtype), ml_dtype_name(ctx->in[1]->dtype));
  shape s = { ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN };
  bool ranks = true;
  for (int32_t i = 0; i < 3; i++) ranks = ranks && ctx->in[i]->rank != ML_UNKNOWN;
  if (q->rank != ML_UNKNOWN && q->rank != 3 && q->rank != 4)
    return ml_fail(err, ML_INVALID_ARGUMENT, "Q has rank %d, expected 3 or 4", (int)q->rank);
  if (ranks) ML_TRY(measure(ctx, &s, err));
  int64_t features = ML_UNKNOWN;
  if (s.Hq >= 0 && s.Dv >= 0 && __builtin_mul_overflow(s.Hq, s.Dv, &features))
    return ml_fail(err, ML_INVALID_ARGUMENT, "too many features");
  const int64_t flat[] = { s.B, s.Sq, features }, deep[] = { s.B, s.Hq, s.Sq, s.Dv }, keys[] = { s.B, s.Hkv, s.T, s.D },
                values[] = { s.B, s.Hkv, s.T, s.Dv }, scores[] = { s.B, s.Hq, s.Sq, s.T };
  ml_op_set(ctx->out[0], q->dtype, q->rank == 3 ? flat : deep, q->rank == ML_UNKNOWN ? ML_UNKNOWN : q->rank);
  ml_op_set(ml__out(ctx, 1), ctx->in[1]->dtype, keys, 4);
  ml_op_set(ml__out(ctx, 2), ctx->in[2]->dtype, values, 4);
  ml_op_set(ml__out(ctx, 3), q->dtype, scores, 4);
  return ML_OK;
}

/* ---------------------------------------------------------------- forward ---- */
typedef struct job {
  const ml_op_ctx *ctx;
  shape s;
  ml_dtype dtype; /* of the computation */
  size_t size;    /* bytes per element of it */
  size_t per_slice; /* bytes of workspace */
  size_t slices;
  double scale;
  float cap;
  bool causal;
  bool coarse, coarse_softmax; /* bfloat16: round after each step (and within the softmax) */
  float root;                  /* then: of the scale, for Q and K */
  int64_t left, right;
  int64_t mode;
  int64_t mask_stride[3]; /* of batch, head, query; 0 where it repeats */
} job;

static size_t round_up(size_t bytes) { return (bytes + ML_ALIGN - 1) / ML_ALIGN * ML_ALIGN; }

/* Memory of one slice: scores of a block, its queries and results, keys and values of a head. */
static ml_status slice_bytes(const shape *s, size_t size, size_t *bytes, ml_error *err) {
  const size_t rows[] = { BLOCK, BLOCK, BLOCK, (size_t)s->T, (size_t)s->T },
               cols[] = { (size_t)s->T, (size_t)s->D, (size_t)s->Dv, (size_t)s->D, (size_t)s->Dv };
  *bytes = 0;
  for (size_t i = 0; i < 5; i++) {
    size_t n;
    if (!ml_mul_size(rows[i], cols[i], &n) || !ml_mul_size(n, size, &n) || n > SIZE_MAX / 128 || !ml_add_size(*bytes,
        round_up(n), bytes))
      return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the heads are too large");
  }
  return ML_OK;
}

static size_t slices_of(const shape *s) {
  const size_t heads = (size_t)s->B * (size_t)s->Hq;
  return heads < SLICES ? heads : SLICES;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  shape s;
  ML_TRY(measure(ctx, &s, err));
  ML_TRY(slice_bytes(&s, ctx->in[0]->dtype == ML_FLOAT64 ? sizeof(double) : sizeof(float), bytes, err));
  *bytes *= slices_of(&s);
  return ML_OK;
}

/* Where rows of a head lie in a tensor of rank 3 or 4. */
typedef struct rows {
  const char *data;
  size_t ld; /* elements between rows */
} rows;

static rows rows_of(const ml_view *x, int64_t batch, int64_t head, int64_t heads, int64_t length, int64_t width) {
  const int64_t at = x->rank == 4 ? (batch * heads + head) * length * width : batch * length * heads * width + head * width;
  return (rows){ (const char *)x->data + (size_t)at * ml_dtype_size(x->dtype), (size_t)(x->rank == 4 ? width : heads * width) };
}

/* n rows into contiguous ones of another type */
static void gather(rows from, ml_dtype from_dtype, char *to, ml_dtype dtype, size_t n, size_t width) {
  for (size_t i = 0; i < n; i++)
    ml_convert(from.data + i * from.ld * ml_dtype_size(from_dtype), from_dtype, to + i * width * ml_dtype_size(dtype), dtype,
               width);
}

/* All T rows of K or V (input 1 or 2) of a key head in the type of the computation: in place, or gathered into memory. */
static rows all_rows(const job *j, int32_t input, int64_t batch, int64_t head, int64_t width, char *memory) {
  const ml_view *x = j->ctx->in[input], *past = ml__in(j->ctx, input + 3);
  const rows now = rows_of(x, batch, head, j->s.Hkv, j->s.Sk, width);
  if (past == NULL && x->dtype == j->dtype) return now;
  if (past != NULL)
    gather(rows_of(past, batch, head, j->s.Hkv, j->s.P, width), past->dtype, memory, j->dtype, (size_t)j->s.P, (size_t)width);
  gather(now, x->dtype, memory + (size_t)(j->s.P * width) * j->size, j->dtype, (size_t)j->s.Sk, (size_t)width);
  return (rows){ memory, (size_t)width };
}

static double mask_at(const ml_view *mask, size_t at) {
  if (mask->dtype == ML_BOOL) return ((const uint8_t *)mask->data)[at] != 0 ? 0 : -INFINITY;
  return ml_element_get(mask->data, mask->dtype, at);
}

/* Keys [*first, *last) that a query at this position may see. */
static void visible(const job *j, int64_t position, int64_t keys, int64_t *first, int64_t *last) {
  *first = j->left >= 0 && position > j->left ? position - j->left : 0;
  *last = keys;
  if (j->causal && *last > position + 1) *last = position < -1 ? 0 : position + 1;
  if (j->right >= 0 && position < INT64_MAX - 1 - j->right && *last > position + j->right + 1)
    *last = position + j->right < -1 ? 0 : position + j->right + 1;
  if (*first > *last) *first = *last;
}

/* Scores of a query to probabilities, in place; keys that are hidden get 0. `shown` (may be NULL): row of output 3. */
#define SOFTMAX(T, TANH, EXP, STEP, INNER)                                                               \
  {                                                                                                      \
    T *x = scores, largest = -(T)INFINITY, sum = 0;                                                      \
    bool any = false;                                                                                    \
    if (shown >= 0 && j->mode == 0) show(j, shown, x);                                                   \
    if (j->cap > 0)                                                                                      \
      for (int64_t k = 0; k < T_; k++) x[k] = STEP((T)j->cap * STEP(TANH(STEP(x[k] / (T)j->cap))));      \
    if (shown >= 0 && j->mode == 1) show(j, shown, x);                                                   \
    for (int64_t k = 0; k < T_; k++) {                                                                   \
      double bias = k >= first && k < last ? 0 : -INFINITY;                                              \
      if (mask != NULL && bias == 0) bias = k < mask_length ? mask_at(mask, mask_row + (size_t)k) : -INFINITY; \
      if (bias > -INFINITY || bias != bias) any = true;                                                  \
      x[k] = bias == -INFINITY ? -(T)INFINITY : STEP(x[k] + (T)bias);                                    \
      if (x[k] > largest || x[k] != x[k]) largest = x[k];                                                \
    }                                                                                                    \
    if (shown >= 0 && j->mode == 2) show(j, shown, x);                                                   \
    if (!any || largest == -(T)INFINITY) {                                                               \
      for (int64_t k = 0; k < T_; k++) x[k] = 0;                                                         \
    } else {                                                                                             \
      for (int64_t k = 0; k < T_; k++) {                                                                 \
        x[k] = INNER(EXP(INNER(x[k] - largest)));                                                        \
        sum = INNER(sum + x[k]);                                                                         \
      }                                                                                                  \
      for (int64_t k = 0; k < T_; k++) x[k] = STEP(x[k] / sum);                                          \
    }                                                                                                    \
    if (shown >= 0 && j->mode == 3) show(j, shown, x);                                                   \
  }
#define EXACT(x) (x)
#define INSIDE(x) (j->coarse_softmax ? coarse(x) : (x))

static float coarse(float x) { return ml_bfloat_to_float(ml_float_to_bfloat(x)); }

static void show(const job *j, int64_t row, const void *scores) {
  const ml_view *out = ml__out(j->ctx, 3);
  const size_t T = (size_t)j->s.T;
  ml_convert(scores, j->dtype, (char *)out->data + (size_t)row * T * ml_dtype_size(out->dtype), out->dtype, T);
}

/* cold: short code is worth more than speed here */
__attribute__((cold)) static void softmax_row_coarse(const job *j, void *scores, int64_t first, int64_t last, size_t mask_row,
                                                     int64_t shown) {
  const ml_view *mask = ml__in(j->ctx, 3);
  const int64_t T_ = j->s.T, mask_length = mask != NULL ? mask->dims[mask->rank - 1] : 0;
  SOFTMAX(float, tanhf, expf, coarse, INSIDE)
}

static void softmax_row(const job *j, void *scores, int64_t first, int64_t last, size_t mask_row, int64_t shown) {
  const ml_view *mask = ml__in(j->ctx, 3);
  const int64_t T_ = j->s.T, mask_length = mask != NULL ? mask->dims[mask->rank - 1] : 0;
  if (j->dtype == ML_FLOAT64) SOFTMAX(double, tanh, exp, EXACT, EXACT)
  else SOFTMAX(float, tanhf, expf, EXACT, EXACT)
}

/* x = coarse(factor x) */
static void coarsen(char *memory, size_t n, float factor) {
  float *x = (float *)(void *)memory;
  for (size_t i = 0; i < n; i++) x[i] = coarse(factor * x[i]);
}

static void one_head(const job *j, int64_t batch, int64_t head, char *memory) {
  const shape *s = &j->s;
  const ml_view *q = j->ctx->in[0], *nonpad = ml__in(j->ctx, 6), *y = j->ctx->out[0];
  char *scores = memory, *queries = scores + round_up((size_t)(BLOCK * s->T) * j->size),
       *result = queries + round_up((size_t)(BLOCK * s->D) * j->size),
       *keys = result + round_up((size_t)(BLOCK * s->Dv) * j->size),
       *values = keys + round_up((size_t)(s->T * s->D) * j->size);
  const int64_t key_head = head / (s->Hq / s->Hkv), limit = nonpad != NULL ? ((const int64_t *)nonpad->data)[batch] : s->T,
                offset = nonpad != NULL ? limit - s->Sq : s->P;
  const rows k = all_rows(j, 1, batch, key_head, s->D, keys), v = all_rows(j, 2, batch, key_head, s->Dv, values),
             all_q = rows_of(q, batch, head, s->Hq, s->Sq, s->D);
  if (j->coarse) coarsen(keys, (size_t)(s->T * s->D), j->root); /* bfloat16 was gathered into it */
  for (int64_t begin = 0; begin < s->Sq; begin += BLOCK) {
    const int64_t n = s->Sq - begin < BLOCK ? s->Sq - begin : BLOCK;
    rows from = { all_q.data + (size_t)begin * all_q.ld * ml_dtype_size(q->dtype), all_q.ld };
    if (q->dtype != j->dtype) {
      gather(from, q->dtype, queries, j->dtype, (size_t)n, (size_t)s->D);
      from = (rows){ queries, (size_t)s->D };
      if (j->coarse) coarsen(queries, (size_t)(n * s->D), j->root);
    }
    ml__product(j->ctx->run->kernels, j->dtype, false, true, (size_t)n, (size_t)s->T, (size_t)s->D, j->scale, from.data, from.ld,
                k.data, k.ld, 0, scores, (size_t)s->T);
    if (j->coarse) coarsen(scores, (size_t)(n * s->T), 1);
    int64_t end = 0; /* keys that any query of the block sees */
    for (int64_t i = 0; i < n; i++) {
      int64_t first, last;
      visible(j, begin + i + offset, limit, &first, &last);
      if (last > end) end = last;
      (j->coarse ? softmax_row_coarse : softmax_row)(j, scores + (size_t)(i * s->T) * j->size, first, last,
                  (size_t)(batch * j->mask_stride[0] + head * j->mask_stride[1] + (begin + i) * j->mask_stride[2]),
                  ml__out(j->ctx, 3) != NULL ? (batch * s->Hq + head) * s->Sq + begin + i : -1);
    }
    if (y == NULL) continue;
    const rows all_y = rows_of(y, batch, head, s->Hq, s->Sq, s->Dv);
    char *to = (char *)(uintptr_t)all_y.data + (size_t)begin * all_y.ld * ml_dtype_size(y->dtype);
    const bool direct = y->dtype == j->dtype;
    ml__product(j->ctx->run->kernels, j->dtype, false, false, (size_t)n, (size_t)s->Dv, (size_t)end, 1, scores, (size_t)s->T,
                v.data,
                v.ld, 0, direct ? to : result, direct ? all_y.ld : (size_t)s->Dv);
    for (int64_t i = 0; i < n && !direct; i++)
      ml_convert(result + (size_t)(i * s->Dv) * j->size, j->dtype, to + (size_t)i * all_y.ld * ml_dtype_size(y->dtype), y->dtype,
                 (size_t)s->Dv);
  }
}

static void slice(void *context, size_t index) {
  const job *j = context;
  const size_t heads = (size_t)j->s.B * (size_t)j->s.Hq;
  for (size_t i = index * heads / j->slices; i < (index + 1) * heads / j->slices; i++)
    one_head(j, (int64_t)i / j->s.Hq, (int64_t)i % j->s.Hq, (char *)j->ctx->workspace + index * j->per_slice);
}

/* present_key or present_value: the past, then the new rows, by head */
static void present(const ml_op_ctx *ctx, const shape *s, int32_t input, int64_t width, const ml_view *out) {
  const ml_view *x = ctx->in[input], *past = ml__in(ctx, input + 3);
  const size_t row = (size_t)width * ml_dtype_size(out->dtype);
  char *to = out->data;
  for (int64_t b = 0; b < s->B; b++)
    for (int64_t h = 0; h < s->Hkv; h++) {
      if (past != NULL)
        gather(rows_of(past, b, h, s->Hkv, s->P, width), past->dtype, to, out->dtype, (size_t)s->P, (size_t)width);
      to += (size_t)s->P * row;
      gather(rows_of(x, b, h, s->Hkv, s->Sk, width), x->dtype, to, out->dtype, (size_t)s->Sk, (size_t)width);
      to += (size_t)s->Sk * row;
    }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *mask = ml__in(ctx, 3), *nonpad = ml__in(ctx, 6);
  job j = { .ctx = ctx, .dtype = ctx->in[0]->dtype == ML_FLOAT64 ? ML_FLOAT64 : ML_FLOAT32,
            .cap = ml_attr_float(ctx->attrs, "softcap", 0), .causal = ml_attr_int(ctx->attrs, "is_causal", 0) != 0,
            .left = ml_attr_int(ctx->attrs, "left_window_size", -1), .right = ml_attr_int(ctx->attrs, "right_window_size", -1),
            .mode = ml_attr_int(ctx->attrs, "qk_matmul_output_mode", 0) };
  ML_TRY(measure(ctx, &j.s, err));
  const shape *s = &j.s;
  j.size = ml_dtype_size(j.dtype);
  j.slices = slices_of(s);
  j.scale = s->D > 0 ? 1 / sqrt((double)s->D) : 1;
  if (ml_attr_find(ctx->attrs, "scale") != NULL) j.scale = (double)ml_attr_float(ctx->attrs, "scale", 1);
  if (ctx->in[0]->dtype == ML_BFLOAT16 && ctx->op == &ml_op_attention) { /* FlexAttention's softmax is float32 */
    j.coarse = true;
    j.coarse_softmax = ml_attr_int(ctx->attrs, "softmax_precision", ML_BFLOAT16) == ML_BFLOAT16;
    j.root = coarse((float)sqrt(fabs(j.scale)));
    j.scale = j.scale < 0 ? -1 : 1;
  }
  for (int64_t b = 0; nonpad != NULL && b < s->B; b++) {
    const int64_t n = ((const int64_t *)nonpad->data)[b];
    if (n < 0 || n > s->T)
      return ml_fail(err, ML_OUT_OF_RANGE, "nonpad_kv_seqlen: element %lld is %lld, expected 0 to %lld", (long long)b,
                     (long long)n,
                     (long long)s->T);
  }
  int64_t stride = mask != NULL ? mask->dims[mask->rank - 1] : 0;
  for (int32_t d = 2; mask != NULL && d >= 0; d--) {
    const int32_t at = d - (4 - mask->rank);
    if (at < 0) break;
    j.mask_stride[d] = mask->dims[at] == 1 ? 0 : stride;
    stride *= mask->dims[at];
  }
  if (ml__out(ctx, 1) != NULL && ml__out(ctx, 1)->count > 0) present(ctx, s, 1, s->D, ml__out(ctx, 1));
  if (ml__out(ctx, 2) != NULL && ml__out(ctx, 2)->count > 0) present(ctx, s, 2, s->Dv, ml__out(ctx, 2));
  if (j.slices == 0 || s->Sq == 0) return ML_OK;
  ML_TRY(slice_bytes(s, j.size, &j.per_slice, err));
  if (j.slices == 1 || (double)s->B * (double)s->Hq * (double)s->Sq * (double)s->T * (double)(s->D + s->Dv) < 1e6)
    for (size_t i = 0; i < j.slices; i++) slice(&j, i);
  else ml_parallel(j.slices, slice, &j);
  return ML_OK;
}

/* ---------------------------------------------------------------- gradient ---- */
static ml_value *transpose(ml_grad *g, ml_value *x, int64_t a, int64_t b, int64_t c, int64_t d) {
  const int64_t perm[] = { a, b, c, d };
  ml_attr list = ml_attr_of_ints("perm", perm, 4);
  return ml_gn(g, "Transpose", &list, 1, 1, &x);
}

static ml_value *swap_last(ml_grad *g, ml_value *x) { return transpose(g, x, 0, 1, 3, 2); }

/* (B, S, H * width) to (B, H, S, width), and back */
static ml_value *split_heads(ml_grad *g, ml_value *x, int64_t heads) {
  const int64_t to[] = { 0, 0, heads, -1 };
  return transpose(g, ml_g2(g, "Reshape", x, g->ints(g, to, 4)), 0, 2, 1, 3);
}

static ml_value *join_heads(ml_grad *g, ml_value *x) {
  const int64_t to[] = { 0, 0, -1 };
  return ml_g2(g, "Reshape", transpose(g, x, 0, 2, 1, 3), g->ints(g, to, 3));
}

/* Scores or probabilities of the same node, computed again. */
static ml_value *scores_again(ml_grad *g, int64_t mode) {
  ml_attr list[10];
  ml_value *in[7], *out[4] = { NULL, NULL, NULL, NULL };
  size_t n = 0;
  for (size_t i = 0; i < g->attrs->count && n < 9; i++)
    if (strcmp(g->attrs->items[i].name, "qk_matmul_output_mode") != 0) list[n++] = g->attrs->items[i];
  list[n++] = ml_attr_of_int("qk_matmul_output_mode", mode);
  for (int32_t i = 0; i < g->n_in && i < 7; i++) in[i] = g->in[i];
  return g->emit(g, "Attention", list, n, (size_t)g->n_in, in, 4, out) == ML_OK ? out[3] : NULL;
}

/* x (B, Hkv, T, width) with every head repeated for the query heads that share it */
static ml_value *repeat_heads(ml_grad *g, ml_value *x, int64_t times) {
  if (times == 1) return x;
  const int64_t axis = 2, tile[] = { 1, 1, times, 1, 1 };
  ml_value *wide = ml_g2(g, "Tile", ml_g2(g, "Unsqueeze", x, g->ints(g, &axis, 1)), g->ints(g, tile, 5));
  const ml_view *v = g->shape_of(g, x);
  if (v == NULL) return NULL;
  const int64_t to[] = { 0, v->dims[1] * times, -1, v->dims[3] };
  return ml_g2(g, "Reshape", wide, g->ints(g, to, 4));
}

/* the inverse: (B, Hq, T, width) summed over the heads that share */
static ml_value *sum_heads(ml_grad *g, ml_value *x, int64_t heads, int64_t times) {
  if (times == 1) return x;
  const ml_view *v = x != NULL ? g->shape_of(g, x) : NULL;
  if (v == NULL) return NULL;
  const int64_t axis = 2, to[] = { 0, heads, times, -1, v->dims[3] };
  ml_attr keep = ml_attr_of_int("keepdims", 0);
  return ml_gn(g, "ReduceSum", &keep, 1, 2, (ml_value *const[]){ ml_g2(g, "Reshape", x, g->ints(g, to, 5)), g->ints(g, &axis,
      1) });
}

static void gradient(ml_grad *g) {
  const ml_view *q = g->shape_of(g, g->in[0]), *k = g->shape_of(g, g->in[1]), *v = g->shape_of(g, g->in[2]);
  ml_value *dy = g->dout[0];
  bool others = false;
  for (int32_t i = 1; i < g->n_out; i++) others = others || g->dout[i] != NULL;
  for (int32_t i = 3; i < g->n_in; i++) others = others || g->needs[i];
  if (others) {
    ml_g_fail(g, "only from Y to Q, K and V");
    return;
  }
  if (dy == NULL || q == NULL || k == NULL || v == NULL) return;
  const bool flat = q->rank == 3;
  const int64_t Hq = flat ? ml_attr_int(g->attrs, "q_num_heads", 0) : q->rank == 4 ? q->dims[1] : 0,
                Hkv = flat ? ml_attr_int(g->attrs, "kv_num_heads", 0) : k->rank == 4 ? k->dims[1] : 0,
                D = q->rank > 0 ? q->dims[q->rank - 1] : -1, size = flat && Hq > 0 ? D / Hq : D;
  if (Hq < 1 || Hkv < 1 || D < 1 || v->rank != q->rank || v->dims[v->rank - 1] < 1 || (g->n_in > 4 && g->in[4] != NULL)) {
    ml_g_fail(g, "heads of unknown number or size, or a past");
    return;
  }
  const float cap = ml_attr_float(g->attrs, "softcap", 0);
  const double scale = ml_attr_find(g->attrs, "scale") ? (double)ml_attr_float(g->attrs, "scale", 1) : 1 / sqrt((double)size);
  const int64_t times = Hq / Hkv, last = -1;
  ml_value *Q = flat ? split_heads(g, g->in[0], Hq) : g->in[0], *K = flat ? split_heads(g, g->in[1], Hkv) : g->in[1],
           *V = flat ? split_heads(g, g->in[2], Hkv) : g->in[2], *P = scores_again(g, 3);
  if (flat) dy = split_heads(g, dy, Hq);
  if (g->needs[2]) g->din[2] = sum_heads(g, ml_g2(g, "MatMul", swap_last(g, P), dy), Hkv, times);
  if (g->needs[0] || g->needs[1]) {
    ml_value *dP = ml_g2(g, "MatMul", dy, swap_last(g, repeat_heads(g, V, times)));
    ml_value *dot = ml_g2(g, "ReduceSum", ml_g2(g, "Mul", P, dP), g->ints(g, &last, 1));
    ml_value *dS = ml_g2(g, "Mul", P, ml_g2(g, "Sub", dP, dot));
    if (cap > 0) { /* 1 - tanh^2, tanh being the capped score over the cap */
      ml_value *t = ml_g2(g, "Mul", scores_again(g, 1), g->constant(g, 1 / (double)cap, dy));
      dS = ml_g2(g, "Mul", dS, ml_g2(g, "Sub", g->constant(g, 1, dy), ml_g2(g, "Mul", t, t)));
    }
    dS = ml_g2(g, "Mul", dS, g->constant(g, scale, dy));
    if (g->needs[0]) g->din[0] = ml_g2(g, "MatMul", dS, repeat_heads(g, K, times));
    if (g->needs[1]) g->din[1] = sum_heads(g, ml_g2(g, "MatMul", swap_last(g, dS), Q), Hkv, times);
  }
  for (int32_t i = 0; i < 3 && flat; i++)
    if (g->din[i] != NULL) g->din[i] = join_heads(g, g->din[i]);
}

static double flops(const ml_op_ctx *ctx) {
  shape s;
  if (measure(ctx, &s, NULL) != ML_OK) return 0;
  return 2.0 * (double)s.B * (double)s.Hq * (double)s.Sq * (double)s.T * (double)(s.D + s.Dv);
}

const ml_op_def ml_op_attention = {
  .name = "Attention", .domain = "", .since = 25, .min_in = 3, .max_in = 7, .min_out = 1, .max_out = 4, .attrs = attrs,
  .formula = "Y = softmax(scale Q K' + mask) V by heads", .infer = infer, .workspace = workspace, .run = run,
  .gradient = gradient,
  .flops = flops,
};
