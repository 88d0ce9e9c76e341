/* Equal: z = (a == b), bool, with NumPy broadcasting; false where either is NaN. Numbers, bool and strings (byte by byte; in
 * files from version 19 on). No gradient. Reference: ONNX Equal-13, Equal-19. */
#include "ops/elementwise.h"
#include <string.h>

static bool same_string(ml_str a, ml_str b) {
  return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

ML_BINARY_ROWS(rows, ML_CASES2_NUMERIC(uint8_t, a == b) ML_CASE2(ML_BOOL, uint8_t, uint8_t, (a != 0) == (b != 0)))

static void string_rows(ml_dtype dtype, const void *x, size_t sx, const void *y, size_t sy, void *z, size_t n) {
  const ml_str *xs = x;
  const ml_str *ys = y;
  uint8_t *zs = z;
  (void)dtype;
  for (size_t i = 0; i < n; ++i) zs[i] = same_string(xs[i * sx], ys[i * sy]);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  (void)err;
  ml__binary_run(ctx, -1, ctx->in[0]->dtype == ML_STRING ? string_rows : rows);
  return ML_OK;
}

const ml_op_def ml_op_equal = {
  .name = "Equal", .domain = "", .since = 19, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .types = { ML_MASK_N | ML_BIT(ML_BOOL) | ML_BIT(ML_STRING) },
  .formula = "z = a == b",
  .infer = ml_op_infer_compare,
  .run = run,
};
