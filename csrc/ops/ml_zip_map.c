/* ZipMap 1 (ai.onnx.ml): each row of the scores (rows, classes) as a map from class to score; a rank-1 input is one row. The result is a sequence of
 * maps with int64 or string keys. ONNX operator specification. */
#include <string.h>
#include "ops/sequence.h"

static const ml_attr_def attrs[] = {
  { "classlabels_int64s", ML_ATTR_INTS, false, "the keys; exactly one of the two lists" },
  { "classlabels_strings", ML_ATTR_STRINGS, false, "the keys" },
  { 0 },
};

static ml_status keys_of(const ml_op_ctx *ctx, ml_view *keys, ml_error *err) {
  const ml_attr *ints = ml_attr_find(ctx->attrs, "classlabels_int64s"), *strings = ml_attr_find(ctx->attrs, "classlabels_strings");
  bool has_ints = ints && ints->count > 0, has_strings = strings && strings->count > 0;
  if (has_ints == has_strings) return ml_fail(err, ML_INVALID_ARGUMENT, "exactly one of classlabels_int64s and classlabels_strings must be given");
  const ml_attr *attr = has_ints ? ints : strings;
  *keys = (ml_view) { .data = has_ints ? (void *)(uintptr_t)ints->as.ints : (void *)(uintptr_t)strings->as.strings, .count = attr->count,
                      .dtype = has_ints ? ML_INT64 : ML_STRING, .rank = 1, .dims = { (int64_t)attr->count } };
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ml_view keys;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(keys_of(ctx, &keys, err));
  const ml_view *x = ctx->in[0];
  if (x->rank > 2 || x->rank == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "scores of rank %d, expected 1 or 2", x->rank);
  if (x->rank > 0 && x->dims[x->rank - 1] >= 0 && x->dims[x->rank - 1] != keys.dims[0])
    return ml_fail(err, ML_INVALID_ARGUMENT, "%lld scores a row for %lld classes", (long long)x->dims[x->rank - 1], (long long)keys.dims[0]);
  uint32_t map = ml_type_of(keys.dtype == ML_INT64 ? ML_KIND_MAP_INT64 : ML_KIND_MAP_STRING, ml_type_tensor(x->dtype));
  ml_op_set_type(ctx->out[0], ml_type_of(ML_KIND_SEQUENCE, map));
  return ML_OK;
}

/* Rows share the keys and one copy of the scores. */
static ml_status zip(ml_tensor *keys, ml_tensor *scores, int64_t rows, ml_container *made, ml_error *err) {
  for (int64_t r = 0; r < rows; r++) {
    ml_container *map;
    ml_tensor *row;
    ML_TRY(ml_container_new(ml_type_inner(made->type), 2, &map, err));
    made->items[r].container = map;
    map->items[0].tensor = ml_tensor_retain(keys);
    ML_TRY(ml_tensor_rows(scores, r * keys->view.dims[0], (r + 1) * keys->view.dims[0], &row, err));
    map->items[1].tensor = row;
  }
  return ML_OK;
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  ml_view keys_view, flat = *ctx->in[0];
  ml_tensor *keys = NULL, *scores = NULL;
  ml_container *made = NULL;
  ML_TRY(keys_of(ctx, &keys_view, err));
  int64_t columns = flat.dims[flat.rank - 1], rows = flat.rank == 2 ? flat.dims[0] : 1;
  if (columns != keys_view.dims[0]) return ml_fail(err, ML_INVALID_ARGUMENT, "%lld scores a row for %lld classes", (long long)columns, (long long)keys_view.dims[0]);
  flat.rank = 1;
  flat.dims[0] = (int64_t)flat.count;
  ml_status status = ml_tensor_copy_of(&keys_view, &keys, err);
  if (status == ML_OK) status = ml_tensor_copy_of(&flat, &scores, err);
  if (status == ML_OK) status = ml_container_new(ctx->out[0]->type, (size_t)rows, &made, err);
  if (status == ML_OK) status = zip(keys, scores, rows, made, err);
  ml_tensor_release(keys);
  ml_tensor_release(scores);
  if (status == ML_OK) return ctx->run->give(ctx->run, ctx->out[0], made, err);
  ml_container_release(made);
  return status;
}

const ml_op_def ml_op_ml_zip_map = {
  .name = "ZipMap", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs, .types = { ML_BIT(ML_FLOAT32) | ML_BIT(ML_FLOAT64) },
  .formula = "y_r = {class_c: x_rc}", .infer = infer, .run = run,
};
