/* Dropout: while training, y = x keep / (1 - ratio), each keep being 1 with probability 1 - ratio; otherwise y = x. y and the
 * bool output mask have the shape of x. Inputs: data, ratio (default 0.5), training_mode (default false; read at every run).
 * Element i is decided by place i of the Philox stream keyed by (run seed, node's stream, run step): the same for any number
 * of threads.
 * Gradient: dx = mask ? dy / (1 - ratio) : 0; training graphs must keep the mask output.
 * Reference: ONNX Dropout-13 (Srivastava et al. 2014). */
#include "ops/elementwise.h"
#include <string.h>
#include "base/rng.h"
#include "base/thread.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml_op_infer_same(ctx, err));
  if (ctx->n_in > 1) ML_TRY(ml__op_check_scalar(ctx->in[1], "ratio", err));
  if (ctx->n_in > 2) ML_TRY(ml__op_check_scalar(ctx->in[2], "training_mode", err));
  if (ctx->n_out > 1) ml_op_set(ctx->out[1], ML_BOOL, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

/* A stream of its own for every (stream, step): the finaliser of splitmix64 (Steele, Lea, Flood 2014), a bijection for a
 * fixed stream. */
static uint64_t stream_of(uint64_t stream, uint64_t step) {
  uint64_t z = stream * UINT64_C(0x9E3779B97F4A7C15) + step;
  z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
  return z ^ (z >> 31);
}

typedef struct drop {
  ml_dtype dtype;
  const void *x;
  void *y;
  uint8_t *mask; /* may be NULL */
  size_t n;
  double scale;
  uint64_t threshold; /* ratio in units of 2^-32: 0 ... 2^32 */
  uint64_t seed, stream;
} drop;

enum { CHUNK = 4096 }; /* elements; a multiple of ML__BLOCK */

/* The 16 bytes of one Philox block decide 16 elements: a byte above the threshold's top byte keeps, one below drops. One
 * element in 256 hits it exactly; 24 bits of its own (words far behind those of the blocks) then decide, so that the ratio is
 * met to 2^-32 at a quarter of the cost. */
static void draw(const drop *d, size_t block, uint8_t keep[16]) {
  const uint32_t top = (uint32_t)(d->threshold >> 24), rest = (uint32_t)(d->threshold & 0xFFFFFF);
  uint32_t words[4], ties = 0;
  ml_philox(d->seed, d->stream, block, words);
  for (uint32_t k = 0; k < 16; ++k) {
    const uint32_t byte = words[k / 4] >> (k % 4 * 8) & 255;
    keep[k] = byte > top;
    ties |= (uint32_t)(byte == top) << k;
  }
  for (; ties != 0; ties &= ties - 1) {
    const uint32_t k = (uint32_t)__builtin_ctz(ties);
    keep[k] = ml_rng_u32(d->seed, d->stream, (UINT64_C(1) << 62) + block * 16 + k) >> 8 >= rest;
  }
}

static void drop_chunk(void *context, size_t chunk) {
  const drop *d = context;
  const size_t end = d->n - chunk * CHUNK < CHUNK ? d->n : (chunk + 1) * CHUNK;
  uint8_t keep[ML__BLOCK];
  for (size_t begin = chunk * CHUNK; begin < end; begin += ML__BLOCK) {
    const size_t m = end - begin < ML__BLOCK ? end - begin : ML__BLOCK;
    for (size_t i = 0; i < m; i += 16) draw(d, (begin + i) / 16, keep + i);
    ML_SWITCH_FLOAT(d->dtype, {
      const T *xs = (const T *)d->x + begin;
      T *ys = (T *)d->y + begin;
      const T scale = (T)d->scale;
      for (size_t i = 0; i < m; ++i) {
        const T scaled = xs[i] * scale;
        ys[i] = keep[i] ? scaled : (T)0;
      }
    })
    if (d->mask != NULL) memcpy(d->mask + begin, keep, m);
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *ratio_in = ctx->n_in > 1 ? ctx->in[1] : NULL, *mode = ctx->n_in > 2 ? ctx->in[2] : NULL;
  const ml_view *x = ctx->in[0], *y = ctx->out[0], *mask = ctx->n_out > 1 ? ctx->out[1] : NULL;
  const double ratio = ratio_in != NULL ? ml_element_get(ratio_in->data, ratio_in->dtype, 0) : 0.5;
  const bool training = mode != NULL && *(const uint8_t *)mode->data != 0;
  if (!training || ratio == 0) {
    ml__copy_run(ctx);
    if (mask != NULL && mask->count > 0) memset(mask->data, 1, mask->count);
    return ML_OK;
  }
  if (!(ratio > 0 && ratio <= 1)) return ml_fail(err, ML_INVALID_ARGUMENT, "ratio must be in [0, 1], got %g", ratio);
  if (y->count == 0) return ML_OK;
  drop d = { .dtype = x->dtype, .x = x->data, .y = y->data, .mask = mask != NULL ? mask->data : NULL, .n = y->count,
             .scale = ratio < 1 ? 1 / (1 - ratio) : 0, .threshold = (uint64_t)(ratio * 4294967296.0), .seed = ctx->run->seed,
             .stream = stream_of(ctx->stream, ctx->run->step) };
  const size_t chunks = (d.n + CHUNK - 1) / CHUNK;
  if (chunks < 8) {
    for (size_t c = 0; c < chunks; ++c) drop_chunk(&d, c);
  } else {
    ml_parallel(chunks, drop_chunk, &d);
  }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *dy = g->dout[0], *ratio = g->n_in > 1 ? g->in[1] : NULL, *mode = g->n_in > 2 ? g->in[2] : NULL;
  const ml_view *ratio_known = ratio != NULL ? g->shape_of(g, ratio) : NULL;
  const bool ratio_fixed = ratio_known != NULL && ratio_known->data != NULL;
  const double constant = ratio == NULL ? 0.5 : ratio_fixed ? ml_element_get(ratio_known->data, ratio_known->dtype, 0) : -1;
  const ml_view *mode_known = mode != NULL ? g->shape_of(g, mode) : NULL;
  const bool mode_fixed = mode_known != NULL && mode_known->data != NULL;
  g->din[0] = dy;
  if (mode == NULL || constant == 0 || (mode_fixed && *(const uint8_t *)mode_known->data == 0)) return; /* y = x */
  if (dy == NULL) return; /* only the mask is used: nothing flows */
  ml_value *scale;
  if (constant >= 0) scale = g->constant(g, constant < 1 ? 1 / (1 - constant) : 0, dy);
  else scale = ml_g1(g, "Reciprocal", ml_g2(g, "Sub", g->constant(g, 1.0, dy), ml__g_like(g, ratio, dy)));
  if (!mode_fixed) scale = ml_g3(g, "Where", mode, scale, g->constant(g, 1.0, dy));
  if (g->n_out < 2 || g->out[1] == NULL) ml_g_fail(g, "its mask output is needed and was not asked for");
  else g->din[0] = ml__g_where(g, g->out[1], ml_g2(g, "Mul", dy, scale));
}

static const ml_attr_def attrs[] = {
  { "seed", ML_ATTR_INT, false, "ignored: the seed belongs to the run" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_dropout = {
  .name = "Dropout", .domain = "", .since = 22, .min_in = 1, .max_in = 3, .min_out = 1, .max_out = 2,
  .flags = ML_OP_INPLACE | ML_OP_RANDOM,
  .attrs = attrs,
  .types = { ML_MASK_F, ML_MASK_F | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16), ML_BIT(ML_BOOL) },
  .formula = "y = training ? x keep / (1 - ratio) : x",
  .infer = infer,
  .run = run,
  .gradient = gradient,
};
