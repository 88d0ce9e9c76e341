/* Pow: z = a^b with NumPy broadcasting; z has the dtype of a, b may have another. Integer a and b: repeated squaring modulo
 * 2^bits; a negative exponent gives 1/a^|b| truncated (0 unless |a| = 1; 0^-1 = 0). Integer a, float b: through double,
 * saturated.
 * Gradient: da = dz b a^(b-1), 0 where b = 0; db = dz z ln a, 0 where a = 0 and b >= 0 (PyTorch's conventions).
 * Reference: ONNX Pow-15. */
#include "ops/elementwise.h"

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_present(ctx, 2, err));
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *a = ctx->in[0], *b = ctx->in[1];
  int64_t dims[ML_MAX_RANK];
  int32_t rank = ML_UNKNOWN;
  if (a->rank >= 0 && b->rank >= 0) ML_TRY(ml_shape_broadcast(a->dims, a->rank, b->dims, b->rank, dims, &rank, err));
  ml_op_set(ctx->out[0], a->dtype, dims, rank);
  return ML_OK;
}

static uint64_t power(uint64_t base, uint64_t exponent) {
  uint64_t result = 1;
  for (; exponent != 0; exponent >>= 1, base *= base)
    if (exponent & 1) result *= base;
  return result;
}

static int64_t signed_power(int64_t base, int64_t exponent) {
  if (exponent >= 0) return (int64_t)power((uint64_t)base, (uint64_t)exponent);
  return base == 1 ? 1 : base == -1 ? ((exponent & 1) != 0 ? -1 : 1) : 0;
}

ML_BINARY_ROWS(rows_same,
               ML_CASES2_FLOAT(T, pow(a, b)) ML_CASES2_SIGNED(T, signed_power(a, b)) ML_CASES2_UNSIGNED(T, power(a, b)))

/* one row of unequal dtypes */
typedef struct mixed {
  const ml_view *a, *b, *z;
  size_t n, sa, sb;
} mixed;

static void row_mixed(void *context, const size_t *offset, size_t out_offset) {
  const mixed *m = context;
  const bool whole = ml_dtype_is_integer(m->a->dtype) && ml_dtype_is_integer(m->b->dtype);
  for (size_t i = 0; i < m->n; ++i) {
    const size_t ia = offset[0] + i * m->sa, ib = offset[1] + i * m->sb;
    if (whole) { /* exact: the element converted to 64 bits, not to double */
      int64_t base = 0, exponent = 0;
      ml_convert((const char *)m->a->data + ia * ml_dtype_size(m->a->dtype), m->a->dtype, &base, ML_INT64, 1);
      ml_convert((const char *)m->b->data + ib * ml_dtype_size(m->b->dtype), m->b->dtype, &exponent, ML_INT64, 1);
      base = signed_power(base, exponent);
      if (m->z->dtype == ML_INT32) ((int32_t *)m->z->data)[out_offset + i] = (int32_t)base;
      else ((int64_t *)m->z->data)[out_offset + i] = base;
    } else {
      ml_element_set(m->z->data, m->z->dtype, out_offset + i,
                     pow(ml_element_get(m->a->data, m->a->dtype, ia), ml_element_get(m->b->data, m->b->dtype, ib)));
    }
  }
}

/* a^2 and a^3 by multiplying; false when the exponent is no such constant */
static bool run_small(ml_op_ctx *ctx) {
  const ml_view *a = ctx->in[0], *b = ctx->in[1], *z = ctx->out[0];
  const ml_kernels *k = ctx->run->kernels;
  if (a->dtype != ML_FLOAT32 || b->count != 1 || a->count != z->count || ml_dtype_size(b->dtype) == 0) return false;
  const double exponent = ml_element_get(b->data, b->dtype, 0);
  const float *xs = a->data;
  float *zs = z->data;
  if (exponent == 2) {
    k->binary_f32(ML_BIN_MUL, xs, 1, xs, 1, zs, z->count);
  } else if (exponent == 3) {
    for (size_t i = 0; i < z->count; ++i) zs[i] = xs[i] * xs[i] * xs[i];
  } else {
    return false;
  }
  return true;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *a = ctx->in[0], *b = ctx->in[1], *z = ctx->out[0];
  (void)err;
  if (z->count == 0 || run_small(ctx)) return ML_OK;
  if (a->dtype == b->dtype) {
    ml__binary_run(ctx, -1, rows_same);
    return ML_OK;
  }
  ml_bcast bc;
  ml_bcast_init(&bc, z, (const ml_view *const[]){ a, b }, 2);
  const int32_t last = bc.rank - 1;
  mixed m = {
    .a = a, .b = b, .z = z, .n = (size_t)bc.dims[last], .sa = (size_t)bc.stride[0][last], .sb = (size_t)bc.stride[1][last]
  };
  ml_bcast_rows(&bc, 2, row_mixed, &m);
  return ML_OK;
}

/* Can an exponent be zero? Known constants are looked at, so that x^2 costs no extra nodes. */
static bool may_be_zero(const ml_view *b) {
  if (b == NULL || b->data == NULL || !ml_view_known(b)) return true;
  for (size_t i = 0; i < b->count; ++i)
    if (ml_element_get(b->data, b->dtype, i) == 0) return true;
  return false;
}

static void gradient(ml_grad *g) {
  const ml_view *va = g->shape_of(g, g->in[0]), *vb = g->shape_of(g, g->in[1]);
  ml_value *a = g->in[0], *dz = g->dout[0];
  ml_value *b = va != NULL && vb != NULL && va->dtype == vb->dtype ? g->in[1] : ml__g_like(g, g->in[1], a);
  if (g->needs[0]) {
    ml_value *slope = ml_g2(g, "Mul", b, ml_g2(g, "Pow", a, ml_g2(g, "Sub", b, g->constant(g, 1.0, b))));
    if (may_be_zero(vb)) {
      ml_value *zero = g->constant(g, 0.0, b);
      slope = ml_g3(g, "Where", ml_g2(g, "Equal", b, zero), zero, slope);
    }
    g->din[0] = ml__g_operand(g, 0, ml_g2(g, "Mul", dz, slope));
  }
  if (g->needs[1]) {
    ml_value *zero = g->constant(g, 0.0, a);
    ml_value *flat = ml_g2(g, "And", ml_g2(g, "Equal", a, zero), ml_g2(g, "GreaterOrEqual", b, zero));
    ml_value *d = ml_g2(g, "Mul", dz, ml_g2(g, "Mul", g->out[0], ml_g1(g, "Log", a)));
    d = ml__g_operand(g, 1, ml_g3(g, "Where", flat, zero, d));
    g->din[1] = b == g->in[1] ? d : ml__g_like(g, d, g->in[1]);
  }
}

const ml_op_def ml_op_pow = {
  .name = "Pow", .domain = "", .since = 15, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE,
  .types = { ML_MASK_F | ML_BIT(ML_INT32) | ML_BIT(ML_INT64), ML_MASK_N },
  .formula = "z = a^b",
  .infer = infer,
  .run = run,
  .gradient = gradient,
};
