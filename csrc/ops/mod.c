/* Mod: z = remainder of a / b with NumPy broadcasting. fmod = 0: sign of the divisor, as Python's % (a result of
 * zero too: -0 for a negative divisor); fmod = 1: sign of the dividend, as C's fmod. Integers: x mod 0 = 0, no input traps;
 * floats: x mod 0 = NaN.
 * Gradient: da = dz, db = -dz (a - z) / b, summed over repeated dimensions. Reference: ONNX Mod-28. */
#include "ops/elementwise.h"

ML_BINARY_ROWS(rows_c, ML_CASES2_FLOAT(T, fmod(a, b)) ML_CASES2_SIGNED(T, b == 0 || b == -1 ? 0 : a % b)
               ML_CASES2_UNSIGNED(T, b == 0 ? 0 : a % b))
/* r + b where remainder and divisor differ in sign; |r| < |b|, so the sum cannot overflow */
#define PYTHON(r, b) ((r) != 0 && ((r) < 0) != ((b) < 0) ? (r) + (b) : (r))
#define PYTHON_FLOAT(r, b) ((r) == 0 ? copysign((T)0, b) : PYTHON(r, b))
ML_BINARY_ROWS(rows_python, ML_CASES2_FLOAT(T, PYTHON_FLOAT(fmod(a, b), b)) ML_CASES2_SIGNED(T, b == 0 || b == -1 ? 0 : PYTHON(a % b, b))
               ML_CASES2_UNSIGNED(T, b == 0 ? 0 : a % b))

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml__binary_run(ctx, -1, ml_attr_int(ctx->attrs, "fmod", 0) != 0 ? rows_c : rows_python);
  return ML_OK;
}

static void gradient(ml_grad *g) {
  if (g->needs[0]) g->din[0] = ml__g_operand(g, 0, g->dout[0]);
  if (!g->needs[1]) return;
  /* a mod b = a - q b with a whole number q, constant between the jumps */
  ml_value *quotient = ml_g2(g, "Div", ml_g2(g, "Sub", g->in[0], g->out[0]), g->in[1]);
  g->din[1] = ml__g_operand(g, 1, ml_g1(g, "Neg", ml_g2(g, "Mul", g->dout[0], quotient)));
}

static const ml_attr_def attrs[] = {
  { "fmod", ML_ATTR_INT, false, "default 0: 1 takes the sign of the dividend" },
  { NULL, ML_ATTR_NONE, false, NULL },
};

const ml_op_def ml_op_mod = {
  .name = "Mod", .domain = "", .since = 28, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .flags = ML_OP_INPLACE | ML_OP_INPLACE1,
  .attrs = attrs,
  .types = { ML_MASK_N },
  .formula = "z = a mod b",
  .infer = ml_op_infer_broadcast,
  .run = run,
  .gradient = gradient,
};
