/* LinearAttention: a state S (dk, dv) for every key head, updated position by position and read by the queries.
 * With key k, value v, query q of a position, decay e = exp(g) (1 without gating) and rate b:
 *   linear, gated:       S = e S + k v'
 *   delta, gated_delta:  S = e S + b k (v - (e S)' k)'
 *   o = scale S' q, scale = 1 / sqrt(dk) unless given.
 * query (B, T, Hq * dk), key (B, T, H * dk), value (B, T, H * dv), past_state (B, H, dk, dv) optional, decay (B, T, H) or
 * (B, T, H * dk) where gated, beta (B, T, H) or (B, T, 1) where delta -> output (B, T, Hq * dv), present_state (B, H, dk, dv).
 * Hq is a multiple of H; neighbouring query heads read one state. Computed in float32, one position after the
 * other; chunk_size is a hint that changes no result. Not differentiated. Reference: ONNX LinearAttention-27; Yang et al.
 * 2024, "Gated delta networks". */
#include <math.h>
#include <string.h>
#include "base/thread.h"
#include "ops/elementwise.h"
#include "ops/movement.h"

enum { SLICES = 16 }; /* of the key heads, for the thread pool */

#define MASK (ML_BIT(ML_FLOAT32) | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16))

static const char *const names[] = { "query", "key", "value", "past_state", "decay", "beta" };

typedef struct shape {
  int64_t B, T, Hq, H, dk, dv; /* ML_UNKNOWN: not known */
  int64_t decays, rates;       /* last dimensions of decay and beta */
} shape;

typedef struct rule { bool gated, delta; } rule;

static ml_status rule_of(const ml_op_ctx *ctx, rule *r, ml_error *err) {
  static const char *const rules[] = { "linear", "gated", "delta", "gated_delta" };
  for (int i = 0; i < 4; i++) {
    if (!ml_attr_is(ctx->attrs, "update_rule", "gated_delta", rules[i])) continue;
    *r = (rule){ (i & 1) != 0, (i & 2) != 0 };
    const bool has[2] = { ml__in(ctx, 4) != NULL, ml__in(ctx, 5) != NULL }, wants[2] = { r->gated, r->delta };
    for (int k = 0; k < 2; k++)
      if (has[k] != wants[k])
        return ml_fail(err, ML_INVALID_ARGUMENT, "update rule %s %s input %s", rules[i], wants[k] ? "needs" : "has no",
                       names[4 + k]);
    return ML_OK;
  }
  return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'update_rule' is none of linear, gated, delta and gated_delta");
}

static ml_status agree(int64_t *known, int64_t also, const char *what, ml_error *err) {
  if (*known == ML_UNKNOWN) *known = also;
  if (also == ML_UNKNOWN || *known == also) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %lld and %lld", what, (long long)*known, (long long)also);
}

static ml_status per_head(const ml_view *x, const char *what, int64_t heads, int64_t *size, ml_error *err) {
  if (x->dims[2] == ML_UNKNOWN) return ML_OK;
  if (x->dims[2] % heads != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: %lld features do not make %lld heads", what, (long long)x->dims[2],
                   (long long)heads);
  return agree(size, x->dims[2] / heads, "the size of a head", err);
}

static ml_status measure(const ml_op_ctx *ctx, shape *s, ml_error *err) {
  *s = (shape){ ML_UNKNOWN, ML_UNKNOWN, ml_attr_int(ctx->attrs, "q_num_heads", 0), ml_attr_int(ctx->attrs, "kv_num_heads", 0),
                ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN };
  if (s->H < 1 || s->Hq < 1 || s->Hq % s->H != 0)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%lld query heads cannot share %lld key heads", (long long)s->Hq, (long long)s->H);
  for (int32_t i = 0; i < ctx->n_in; i++) {
    const ml_view *x = ctx->in[i];
    if (x == NULL || x->rank == ML_UNKNOWN) continue;
    if (x->rank != (i == 3 ? 4 : 3))
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s has rank %d, expected %d", names[i], (int)x->rank, i == 3 ? 4 : 3);
    ML_TRY(agree(&s->B, x->dims[0], "the batch", err));
    if (i != 3) ML_TRY(agree(&s->T, x->dims[1], "the number of positions", err));
    if (i == 0) ML_TRY(per_head(x, names[i], s->Hq, &s->dk, err));
    if (i == 1) ML_TRY(per_head(x, names[i], s->H, &s->dk, err));
    if (i == 2) ML_TRY(per_head(x, names[i], s->H, &s->dv, err));
    if (i == 3) {
      ML_TRY(agree(&s->H, x->dims[1], "the number of key heads", err));
      ML_TRY(agree(&s->dk, x->dims[2], "the size of a key", err));
      ML_TRY(agree(&s->dv, x->dims[3], "the size of a value", err));
    }
    if (i == 4) s->decays = x->dims[2];
    if (i == 5) s->rates = x->dims[2];
  }
  if (s->decays != ML_UNKNOWN && s->decays != s->H && s->dk != ML_UNKNOWN &&
      (s->decays % s->H != 0 || s->decays / s->H != s->dk))
    return ml_fail(err, ML_INVALID_ARGUMENT, "decay has %lld features, expected %lld or %lld times %lld", (long long)s->decays,
                   (long long)s->H, (long long)s->H, (long long)s->dk);
  if (s->rates != ML_UNKNOWN && s->rates != s->H && s->rates != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "beta has %lld features, expected 1 or %lld", (long long)s->rates, (long long)s->H);
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  rule r;
  shape s;
  ML_TRY(ml__op_check_present(ctx, 3, err));
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(rule_of(ctx, &r, err));
  for (int32_t i = 1; i < ctx->n_in; i++)
    if (ctx->in[i] != NULL && i != 3 && ctx->in[i]->dtype != ctx->in[0]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "query is %s, %s is %s", ml_dtype_name(ctx->in[0]->dtype), names[i],
                     ml_dtype_name(ctx->in[i]->dtype));
  ML_TRY(measure(ctx, &s, err));
  int64_t features = ML_UNKNOWN;
  if (s.dv != ML_UNKNOWN && __builtin_mul_overflow(s.Hq, s.dv, &features))
    return ml_fail(err, ML_INVALID_ARGUMENT, "too many features");
  ml_op_set(ctx->out[0], ctx->in[0]->dtype, (const int64_t[]){ s.B, s.T, features }, 3);
  ml_op_set(ml__out(ctx, 1), ml__in(ctx, 3) != NULL ? ctx->in[3]->dtype : ctx->in[0]->dtype,
            (const int64_t[]){ s.B, s.H, s.dk, s.dv }, 4);
  return ML_OK;
}

/* ---------------------------------------------------------------- forward ---- */
typedef struct job {
  const ml_op_ctx *ctx;
  shape s;
  rule r;
  size_t heads, slices;
  size_t per_slice; /* bytes: the state; query, key and decays; value and result */
  double scale;
} job;

static ml_status prepare_job(const ml_op_ctx *ctx, job *j, ml_error *err) {
  *j = (job){ .ctx = ctx };
  ML_TRY(rule_of(ctx, &j->r, err));
  ML_TRY(measure(ctx, &j->s, err));
  const size_t dk = (size_t)j->s.dk, dv = (size_t)j->s.dv;
  j->heads = (size_t)j->s.B * (size_t)j->s.H;
  j->slices = j->heads < SLICES ? j->heads : SLICES;
  const float scale = ml_attr_float(ctx->attrs, "scale", 0);
  j->scale = scale != 0 ? (double)scale : dk > 0 ? 1 / sqrt((double)dk) : 1;
  size_t n;
  if (!ml_mul_size(dk + 3, dv + 3, &n) || !ml_mul_size(n, sizeof(float), &n) || n > SIZE_MAX / (2 * SLICES))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "the heads are too large");
  j->per_slice = (n + ML_ALIGN - 1) / ML_ALIGN * ML_ALIGN;
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  job j;
  ML_TRY(prepare_job(ctx, &j, err));
  *bytes = j.slices * j.per_slice;
  return ML_OK;
}

static void load(const job *j, int32_t input, size_t at, size_t count, void *to) {
  const ml_view *x = j->ctx->in[input];
  if (count > 0) ml_convert((const char *)x->data + at * ml_dtype_size(x->dtype), x->dtype, to, ML_FLOAT32, count);
}

static void store(const void *from, const ml_view *to, size_t at, size_t count) {
  if (count > 0) ml_convert(from, ML_FLOAT32, (char *)to->data + at * ml_dtype_size(to->dtype), to->dtype, count);
}

/* All positions of one key head and the query heads that read its state. */
static void one_head(const job *j, size_t batch, size_t head, void *memory) {
  const size_t H = (size_t)j->s.H, Hq = (size_t)j->s.Hq, dk = (size_t)j->s.dk, dv = (size_t)j->s.dv,
               group = Hq / H, decays = (size_t)(j->s.decays > 0 ? j->s.decays : 0) / H,
               rates = j->s.rates == 1 ? 0 : H;
  float *S = memory, *q = S + dk * dv, *k = q + dk, *g = k + dk, *v = g + dk, *o = v + dv;
  const ml_view *present = ml__out(j->ctx, 1), *out = j->ctx->out[0];
  if (ml__in(j->ctx, 3) != NULL) load(j, 3, (batch * H + head) * dk * dv, dk * dv, S);
  else memset(S, 0, dk * dv * sizeof(float));
  for (size_t t = 0; t < (size_t)j->s.T; t++) {
    const size_t at = batch * (size_t)j->s.T + t;
    load(j, 1, (at * H + head) * dk, dk, k);
    load(j, 2, (at * H + head) * dv, dv, v);
    if (j->r.gated) {
      load(j, 4, (at * H + head) * decays, decays, g);
      for (size_t d = 0; d < dk; d++) {
        const float e = expf(g[decays == 1 ? 0 : d]);
        for (size_t m = 0; m < dv; m++) S[d * dv + m] *= e;
      }
    }
    if (j->r.delta) {
      float rate;
      load(j, 5, rates == 0 ? at : at * H + head, 1, &rate);
      memset(o, 0, dv * sizeof(float));
      for (size_t d = 0; d < dk; d++)
        for (size_t m = 0; m < dv; m++) o[m] += S[d * dv + m] * k[d];
      for (size_t m = 0; m < dv; m++) v[m] = rate * (v[m] - o[m]);
    }
    for (size_t d = 0; d < dk; d++)
      for (size_t m = 0; m < dv; m++) S[d * dv + m] += k[d] * v[m];
    for (size_t h = head * group; out != NULL && h < (head + 1) * group; h++) {
      load(j, 0, (at * Hq + h) * dk, dk, q);
      memset(o, 0, dv * sizeof(float));
      for (size_t d = 0; d < dk; d++)
        for (size_t m = 0; m < dv; m++) o[m] += S[d * dv + m] * q[d];
      for (size_t m = 0; m < dv; m++) o[m] *= (float)j->scale;
      store(o, out, (at * Hq + h) * dv, dv);
    }
  }
  if (present != NULL) store(S, present, (batch * H + head) * dk * dv, dk * dv);
}

static void slice(void *context, size_t index) {
  const job *j = context;
  for (size_t i = index * j->heads / j->slices; i < (index + 1) * j->heads / j->slices; i++)
    one_head(j, i / (size_t)j->s.H, i % (size_t)j->s.H, (char *)j->ctx->workspace + index * j->per_slice);
}

static double work(const shape *s) {
  return 2.0 * (double)s->B * (double)s->T * (double)(2 * s->H + s->Hq) * (double)s->dk * (double)s->dv;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  job j;
  ML_TRY(prepare_job(ctx, &j, err));
  if (j.slices > 1 && work(&j.s) >= 2e6) ml_parallel(j.slices, slice, &j);
  else
    for (size_t i = 0; i < j.slices; i++) slice(&j, i);
  return ML_OK;
}

static double flops(const ml_op_ctx *ctx) {
  shape s;
  return measure(ctx, &s, NULL) == ML_OK ? work(&s) : 0;
}

static const ml_attr_def attrs[] = {
  { "chunk_size", ML_ATTR_INT, false, "a hint for other engines, without effect" },
  { "kv_num_heads", ML_ATTR_INT, true, "heads of key and value" },
  { "q_num_heads", ML_ATTR_INT, true, "heads of query" },
  { "scale", ML_ATTR_FLOAT, false, "0 (default): 1 / sqrt(dk)" },
  { "update_rule", ML_ATTR_STRING, false, "linear, gated, delta or gated_delta (default)" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_linear_attention = {
  .name = "LinearAttention", .domain = "", .since = 27, .min_in = 3, .max_in = 6, .min_out = 1, .max_out = 2,
  .attrs = attrs,
  .types = { MASK },
  .formula = "S = e S + b k (v - e S' k)', o = scale S' q",
  .infer = infer,
  .workspace = workspace,
  .run = run,
  .flops = flops,
};
