/* MurmurHash3 1 (com.microsoft, what skl2onnx makes of FeatureHasher): the 32-bit MurmurHash3 (x86 variant, Appleby 2011, public
 * domain description) of each string's bytes, or of each number's. X (any shape) -> Y (same) uint32, or int32 with positive = 0. */
#include <string.h>
#include "ops/op.h"

static const ml_attr_def attrs[] = {
  { "positive", ML_ATTR_INT, false, "1 (default): Y is uint32; 0: int32" },
  { "seed", ML_ATTR_INT, false, "start of the hash; default 0" },
  { 0 },
};

static uint32_t rotate(uint32_t v, int by) { return v << by | v >> (32 - by); }
static uint32_t scramble(uint32_t v) { return rotate(v * 0xCC9E2D51u, 15) * 0x1B873593u; }

static uint32_t hash(const unsigned char *bytes, size_t n, uint32_t seed) {
  uint32_t h = seed, tail = 0;
  for (; n >= 4; n -= 4, bytes += 4) {
    uint32_t word = (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    h = rotate(h ^ scramble(word), 13) * 5 + 0xE6546B64u;
  }
  for (size_t i = 0; i < n; i++) tail |= (uint32_t)bytes[i] << (8 * i);
  return h ^ scramble(tail);
}

static uint32_t finish(uint32_t h, size_t length) {
  h ^= (uint32_t)length;
  h = (h ^ h >> 16) * 0x85EBCA6Bu;
  h = (h ^ h >> 13) * 0xC2B2AE35u;
  return h ^ h >> 16;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  ml_op_set(ctx->out[0], ml_attr_int(ctx->attrs, "positive", 1) ? ML_UINT32 : ML_INT32, ctx->in[0]->dims, ctx->in[0]->rank);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  uint32_t seed = (uint32_t)ml_attr_int(ctx->attrs, "seed", 0), *y = ctx->out[0]->data;
  size_t size = ml_dtype_size(x->dtype);
  (void)err;
  for (size_t i = 0; i < x->count; i++) {
    ml_str s = { (const char *)x->data + i * size, size };
    if (x->dtype == ML_STRING) s = ((const ml_str *)x->data)[i];
    y[i] = finish(hash((const unsigned char *)s.bytes, s.length, seed), s.length);
  }
  return ML_OK;
}

const ml_op_def ml_op_ms_murmur_hash3 = {
  .name = "MurmurHash3", .domain = "com.microsoft", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F | ML_BIT(ML_INT32) | ML_BIT(ML_INT64) | ML_BIT(ML_UINT32) | ML_BIT(ML_UINT64) | ML_BIT(ML_STRING) },
  .formula = "Y = 32-bit MurmurHash3 of X", .infer = infer, .run = run,
};
