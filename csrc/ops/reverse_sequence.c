/* ReverseSequence: the first sequence_lens[b] steps of every batch entry b in reverse order, the others as they are. input
 * (time, batch, …) or (batch, time, …), sequence_lens (batch) int64 -> like input. Gradient: the same reversal of dy.
 * Reference: ONNX ReverseSequence-28. */
#include "ops/movement.h"
#include <string.h>

static const ml_attr_def attrs[] = {
  { "batch_axis", ML_ATTR_INT, false, "1 (default) or 0" },
  { "time_axis", ML_ATTR_INT, false, "0 (default) or 1: the other one" },
  { 0 },
};

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *lengths = ctx->in[1];
  const int64_t batch = ml_attr_int(ctx->attrs, "batch_axis", 1), time = ml_attr_int(ctx->attrs, "time_axis", 0);
  ML_TRY(ml__op_check_types(ctx, err));
  if (batch < 0 || batch > 1 || time != 1 - batch)
    return ml_fail(err, ML_INVALID_ARGUMENT,
                   "attributes 'batch_axis' and 'time_axis' are %lld and %lld, expected 0 and 1 or 1 and 0",
                   (long long)batch, (long long)time);
  if (x->rank != ML_UNKNOWN && x->rank < 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "input has rank %d, expected 2 or more", (int)x->rank);
  if (lengths->rank != ML_UNKNOWN && lengths->rank != 1)
    return ml_fail(err, ML_INVALID_ARGUMENT, "sequence_lens has rank %d, expected 1", (int)lengths->rank);
  if (x->rank != ML_UNKNOWN && lengths->rank == 1 && x->dims[batch] >= 0 && lengths->dims[0] >= 0 &&
      lengths->dims[0] != x->dims[batch])
    return ml_fail(err, ML_INVALID_ARGUMENT, "sequence_lens has %lld elements, expected %lld", (long long)lengths->dims[0],
                   (long long)x->dims[batch]);
  ml_op_like(ctx->out[0], x);
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  const int64_t *lengths = ctx->in[1]->data;
  const bool batch_first = ml_attr_int(ctx->attrs, "batch_axis", 1) == 0;
  if (y->count == 0) return ML_OK;
  const int64_t batches = x->dims[batch_first ? 0 : 1], times = x->dims[batch_first ? 1 : 0];
  const size_t bytes = ml__extent(x->dims, 2, x->rank) * ml_dtype_size(x->dtype);
  const int64_t batch_step = batch_first ? times : 1, time_step = batch_first ? 1 : batches;
  for (int64_t b = 0; b < batches; b++) {
    if (lengths[b] < 0 || lengths[b] > times)
      return ml_fail(err, ML_OUT_OF_RANGE, "sequence_lens: element %lld is %lld, expected 0 to %lld", (long long)b,
                     (long long)lengths[b], (long long)times);
    for (int64_t t = 0; t < times; t++) {
      const int64_t from = t < lengths[b] ? lengths[b] - 1 - t : t;
      memcpy((char *)y->data + (size_t)(b * batch_step + t * time_step) * bytes,
             (const char *)x->data + (size_t)(b * batch_step + from * time_step) * bytes, bytes);
    }
  }
  return ML_OK;
}

static void gradient(ml_grad *g) {
  ml_attr a[] = { ml_attr_of_int("batch_axis", ml_attr_int(g->attrs, "batch_axis", 1)),
                  ml_attr_of_int("time_axis", ml_attr_int(g->attrs, "time_axis", 0)) };
  if (g->needs[0]) g->din[0] = ml_gn(g, "ReverseSequence", a, 2, 2, (ml_value *const[]){ g->dout[0], g->in[1] });
}

const ml_op_def ml_op_reverse_sequence = {
  .name = "ReverseSequence", .domain = "", .since = 28, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_ANY, ML_BIT(ML_INT64) }, .formula = "y = x with its first steps reversed", .infer = infer, .run = run,
  .gradient = gradient,
};
