/* StringConcat 20: Z = X followed by Y, element by element with broadcasting. Strings. ONNX operator specification. */
#include <string.h>
#include "ops/elementwise.h"

typedef struct join {
  const ml_str *x, *y;
  ml_str *z;
  char *to; /* NULL: only measure */
  size_t bytes, length, sx, sy;
  bool overflow;
} join;

static void row(void *context, const size_t *offset, size_t out) {
  join *j = context;
  for (size_t i = 0; i < j->length; i++) {
    ml_str a = j->x[offset[0] + i * j->sx], b = j->y[offset[1] + i * j->sy];
    if (!j->to) {
      j->overflow = j->overflow || !ml_add_size(j->bytes, a.length, &j->bytes) || !ml_add_size(j->bytes, b.length, &j->bytes);
      continue;
    }
    if (a.length) memcpy(j->to, a.bytes, a.length);
    if (b.length) memcpy(j->to + a.length, b.bytes, b.length);
    j->z[out + i] = (ml_str) { j->to, a.length + b.length };
    j->to += a.length + b.length;
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *operands[2] = { ctx->in[0], ctx->in[1] };
  ml_view *z = ctx->out[0];
  ml_bcast b;
  if (z->count == 0) return ML_OK;
  ml_bcast_init(&b, z, operands, 2);
  join j = { .x = operands[0]->data, .y = operands[1]->data, .z = z->data, .length = (size_t)b.dims[b.rank - 1],
             .sx = (size_t)b.stride[0][b.rank - 1], .sy = (size_t)b.stride[1][b.rank - 1] };
  ml_bcast_rows(&b, 2, row, &j);
  j.to = j.overflow || j.bytes == SIZE_MAX ? NULL : ctx->run->scratch(ctx->run, j.bytes + 1);
  if (!j.to) return ml_fail_memory(err, j.bytes, "strings");
  ml_bcast_rows(&b, 2, row, &j);
  return ML_OK;
}

const ml_op_def ml_op_string_concat = {
  .name = "StringConcat", .domain = "", .since = 20, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1,
  .types = { ML_BIT(ML_STRING) }, .formula = "Z = X followed by Y", .infer = ml_op_infer_broadcast, .run = run,
};
