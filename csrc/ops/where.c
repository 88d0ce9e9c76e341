/* Where: z = c ? a : b with NumPy broadcasting of all three; c is bool, a and b have any one dtype, strings too (the string's
 * bytes stay with their owner). Gradient: da = c ? dz : 0, db = c ? 0 : dz, summed over repeated dimensions.
 * Reference: ONNX Where-16. */
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_present(ctx, 3, err));
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *c = ctx->in[0];
  int64_t dims[ML_MAX_RANK], all[ML_MAX_RANK];
  int32_t rank, all_rank = ML_UNKNOWN;
  ML_TRY(ml__op_broadcast(ctx, 1, dims, &rank, err));
  if (rank >= 0 && c->rank >= 0) ML_TRY(ml_shape_broadcast(c->dims, c->rank, dims, rank, all, &all_rank, err));
  ml_op_set(ctx->out[0], ctx->in[1]->dtype, all, all_rank);
  return ML_OK;
}

typedef struct choice {
  const ml_view *c, *a, *b, *z;
  size_t size; /* bytes per element */
  size_t n, sc, sa, sb;
} choice;

/* Both sides are read before the choice, so that compilers turn the loop into a masked one. */
#define CHOOSE(TYPE)                                                                                                       \
  do {                                                                                                                     \
    const TYPE *as = (const TYPE *)w->a->data + offset[1];                                                                 \
    const TYPE *bs = (const TYPE *)w->b->data + offset[2];                                                                 \
    TYPE *zs = (TYPE *)w->z->data + out_offset;                                                                            \
    const size_t n = w->n, sc = w->sc, sa = w->sa, sb = w->sb;                                                             \
    if (sc == 1 && sa == 1 && sb == 1) {                                                                                   \
      for (size_t i = 0; i < n; ++i) {                                                                                     \
        const TYPE a = as[i], b = bs[i];                                                                                   \
        zs[i] = cs[i] ? a : b;                                                                                             \
      }                                                                                                                    \
    } else if (sc == 1 && sa == 1 && sb == 0) {                                                                            \
      const TYPE b = bs[0];                                                                                                \
      for (size_t i = 0; i < n; ++i) {                                                                                     \
        const TYPE a = as[i];                                                                                              \
        zs[i] = cs[i] ? a : b;                                                                                             \
      }                                                                                                                    \
    } else {                                                                                                               \
      for (size_t i = 0; i < n; ++i) zs[i] = cs[i * sc] ? as[i * sa] : bs[i * sb];                                         \
    }                                                                                                                      \
  } while (0)

static void row(void *context, const size_t *offset, size_t out_offset) {
  const choice *w = context;
  const uint8_t *cs = (const uint8_t *)w->c->data + offset[0];
  switch (w->size) {
    case 1: CHOOSE(uint8_t); break;
    case 2: CHOOSE(uint16_t); break;
    case 4: CHOOSE(uint32_t); break;
    case 8: CHOOSE(uint64_t); break;
    default: CHOOSE(ml_str); break;
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *c = ctx->in[0], *a = ctx->in[1], *b = ctx->in[2], *z = ctx->out[0];
  const size_t n = z->count;
  (void)err;
  if (n == 0) return ML_OK;
  choice w = { .c = c, .a = a, .b = b, .z = z, .size = ml_dtype_size(z->dtype), .n = n, .sc = c->count == n, .sa = a->count == n,
               .sb = b->count == n };
  if ((w.sc || c->count == 1) && (w.sa || a->count == 1) && (w.sb || b->count == 1)) {
    row(&w, (const size_t[]){ 0, 0, 0 }, 0);
    return ML_OK;
  }
  ml_bcast bc;
  ml_bcast_init(&bc, z, (const ml_view *const[]){ c, a, b }, 3);
  const int32_t last = bc.rank - 1;
  w.n = (size_t)bc.dims[last];
  w.sc = (size_t)bc.stride[0][last];
  w.sa = (size_t)bc.stride[1][last];
  w.sb = (size_t)bc.stride[2][last];
  ml_bcast_rows(&bc, 3, row, &w);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_value *zero = g->constant(g, 0.0, g->dout[0]);
  if (g->needs[1]) g->din[1] = ml__g_operand(g, 1, ml_g3(g, "Where", g->in[0], g->dout[0], zero));
  if (g->needs[2]) g->din[2] = ml__g_operand(g, 2, ml_g3(g, "Where", g->in[0], zero, g->dout[0]));
}

const ml_op_def ml_op_where = {
  .name = "Where", .domain = "", .since = 16, .min_in = 3, .max_in = 3, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE1,
  .types = { ML_BIT(ML_BOOL), ML_MASK_ANY },
  .formula = "z = c ? a : b",
  .infer = infer,
  .run = run,
  .gradient = gradient,
};
