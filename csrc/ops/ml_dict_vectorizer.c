/* DictVectorizer 1 (ai.onnx.ml): the values of a map in the order of a vocabulary, 0 (or an empty string) where the map has no such key; (1, n).
 * ONNX operator specification; the leading dimension is that of ONNX Runtime. */
#include <string.h>
#include "ops/sequence.h"

static const ml_attr_def attrs[] = {
  { "int64_vocabulary", ML_ATTR_INTS, false, "the keys; exactly one of the two lists, of the map's key type" },
  { "string_vocabulary", ML_ATTR_STRINGS, false, "the keys" },
  { 0 },
};

static ml_status vocabulary(const ml_op_ctx *ctx, const ml_attr **out, bool *strings, ml_error *err) {
  const ml_attr *ints = ml_attr_find(ctx->attrs, "int64_vocabulary"), *text = ml_attr_find(ctx->attrs, "string_vocabulary");
  if ((ints && ints->count > 0) == (text && text->count > 0)) return ml_fail(err, ML_INVALID_ARGUMENT, "exactly one of int64_vocabulary and string_vocabulary must be given");
  *strings = text && text->count > 0;
  *out = *strings ? text : ints;
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_attr *words = NULL;
  bool strings = false;
  uint32_t inner;
  ML_TRY(vocabulary(ctx, &words, &strings, err));
  ML_TRY(ml__expect_kind(ctx, 0, strings ? ML_KIND_MAP_STRING : ML_KIND_MAP_INT64, &inner, err));
  ml_op_set(ctx->out[0], ml_type_dtype(inner), (int64_t[]) { 1, (int64_t)words->count }, 2);
  return ML_OK;
}

static bool same_key(const ml_view *keys, size_t i, const ml_attr *words, size_t w, bool strings) {
  if (!strings) return ((const int64_t *)keys->data)[i] == words->as.ints[w];
  ml_str a = ((const ml_str *)keys->data)[i], b = words->as.strings[w];
  return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_attr *words = NULL;
  bool strings = false;
  ML_TRY(vocabulary(ctx, &words, &strings, err));
  const ml_container *map = ml_view_container(ctx->in[0]);
  const ml_view *keys = &map->items[0].tensor->view, *values = &map->items[1].tensor->view;
  size_t size = ml_dtype_size(values->dtype);
  for (size_t w = 0; w < words->count; w++) {
    char *to = (char *)ctx->out[0]->data + w * size;
    size_t i = 0;
    while (i < keys->count && !same_key(keys, i, words, w, strings)) i++;
    memset(to, 0, size);
    if (i < keys->count) memcpy(to, (const char *)values->data + i * size, size);
    else if (values->dtype == ML_STRING) ((ml_str *)ctx->out[0]->data)[w].bytes = "";
  }
  return ML_OK;
}

const ml_op_def ml_op_ml_dict_vectorizer = {
  .name = "DictVectorizer", .domain = "ai.onnx.ml", .since = 1, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_CONTAINERS, .attrs = attrs,
  .formula = "y_0w = x[vocabulary_w]", .infer = infer, .run = run,
};
