/* CastMap 1 (ai.onnx.ml): the values of a map with int64 keys, in ascending order of the keys, as a tensor (1, n) of float32, int64 or string. DENSE:
 * one column a key; SPARSE: column k holds the value of key k, of max_map columns, others are 0. ONNX operator specification; the leading dimension
 * is that of ONNX Runtime. */
#include <string.h>
#include "ops/convert.h"
#include "ops/sequence.h"

static const ml_attr_def attrs[] = {
  { "cast_to", ML_ATTR_STRING, false, "TO_FLOAT (default), TO_STRING or TO_INT64" },
  { "map_form", ML_ATTR_STRING, false, "DENSE (default) or SPARSE" },
  { "max_map", ML_ATTR_INT, false, "columns of SPARSE; default 1" },
  { 0 },
};

enum { MAX_COLUMNS = 1 << 24 };

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  uint32_t inner;
  ML_TRY(ml__expect_kind(ctx, 0, ML_KIND_MAP_INT64, &inner, err));
  bool sparse = ml_attr_is(ctx->attrs, "map_form", "DENSE", "SPARSE");
  if (!sparse && !ml_attr_is(ctx->attrs, "map_form", "DENSE", "DENSE")) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute map_form is neither DENSE nor SPARSE");
  ml_dtype to = ml_attr_is(ctx->attrs, "cast_to", "TO_FLOAT", "TO_FLOAT") ? ML_FLOAT32 : ml_attr_is(ctx->attrs, "cast_to", "TO_FLOAT", "TO_INT64") ? ML_INT64
              : ml_attr_is(ctx->attrs, "cast_to", "TO_FLOAT", "TO_STRING") ? ML_STRING : ML_DTYPE_NONE;
  if (to == ML_DTYPE_NONE) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute cast_to is none of TO_FLOAT, TO_STRING, TO_INT64");
  int64_t columns = sparse ? ml_attr_int(ctx->attrs, "max_map", 1) : ML_UNKNOWN;
  if (sparse && (columns < 0 || columns > MAX_COLUMNS)) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute max_map is %lld", (long long)columns);
  if (ml_type_dtype(inner) != ML_STRING && ml_type_dtype(inner) != ML_FLOAT32) return ml_fail(err, ML_INVALID_ARGUMENT, "maps of %s, expected string or float32", ml_dtype_name(ml_type_dtype(inner)));
  ml_op_set(ctx->out[0], to, (int64_t[]) { 1, columns }, 2);
  return ML_OK;
}

/* Items of the map by ascending key: a map may have them in any order. */
static void sort_by_key(const int64_t *keys, size_t *order, size_t count) {
  for (size_t gap = count / 2; gap > 0; gap /= 2) /* Shell's sort: maps are small, or sorted already */
    for (size_t i = gap; i < count; i++) {
      size_t moved = order[i], k = i;
      for (; k >= gap && keys[order[k - gap]] > keys[moved]; k -= gap) order[k] = order[k - gap];
      order[k] = moved;
    }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_container *map = ml_view_container(ctx->in[0]);
  const ml_view *keys = &map->items[0].tensor->view, *values = &map->items[1].tensor->view;
  ml_view *out = ctx->out[0], arranged = { .dtype = values->dtype, .rank = 2, .dims = { 1 } };
  bool sparse = ml_attr_is(ctx->attrs, "map_form", "DENSE", "SPARSE");
  size_t n = keys->count, size = ml_dtype_size(values->dtype), columns = sparse ? (size_t)out->dims[1] : n;
  const int64_t *key = keys->data;
  size_t *order = ctx->run->scratch(ctx->run, (n + 1) * sizeof *order);
  char *items = ctx->run->scratch(ctx->run, columns * size + 1);
  if (!order || !items) return ml_fail_memory(err, columns * size, "a map");
  for (size_t i = 0; i < n; i++) order[i] = i;
  if (!sparse) sort_by_key(key, order, n);
  memset(items, 0, columns * size);
  if (values->dtype == ML_STRING) for (size_t c = 0; c < columns; c++) ((ml_str *)(void *)items)[c].bytes = "0"; /* a number for what is not there */
  if (values->dtype == ML_STRING && out->dtype != ML_STRING) for (size_t c = 0; c < columns; c++) ((ml_str *)(void *)items)[c].length = 1;
  for (size_t i = 0; i < n; i++) {
    size_t from = order[i], column = i;
    if (sparse) {
      if (key[from] < 0 || (uint64_t)key[from] >= columns) return ml_fail(err, ML_OUT_OF_RANGE, "key %lld with max_map %zu", (long long)key[from], columns);
      column = (size_t)key[from];
    }
    memcpy(items + column * size, (const char *)values->data + from * size, size);
  }
  arranged.data = items;
  arranged.count = columns;
  arranged.dims[1] = (int64_t)columns;
  if (!sparse) ML_TRY(ctx->run->resize(ctx->run, out, arranged.dims, 2, err));
  ml_view *in = &arranged;
  ml_op_ctx cast = *ctx;
  cast.in = &in;
  return ml__cast_run(&cast, err);
}

const ml_op_def ml_op_ml_cast_map = {
  .name = "CastMap", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS, .attrs = attrs,
  .formula = "y = the values of x by key", .infer = infer, .run = run,
};
