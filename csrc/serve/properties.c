#include "serve/properties.h"

#include <string.h>

#include "codec/json.h"

enum { KEY_SIZE = 4096, MOST = 1 << 20 };

typedef struct source {
  ml_json_reader reader;
  ml_arena *arena;
  char *key; /* KEY_SIZE bytes */
} source;

/* ---- growing arrays; the old ones stay in the arena ---- */
static void *grown(ml_arena *arena, void *list, size_t n, size_t size)
{
  if (n & (n - 1)) return list; /* full at powers of two only */
  size_t room = n ? 2 * n : 1;
  void *larger = room > MOST ? NULL : ml_arena_alloc(arena, room * size);
  if (larger && n) memcpy(larger, list, n * size);
  return larger;
}

static ml_status copied(source *from, const char *text, size_t length, const char **out, ml_error *err)
{
  *out = ml_arena_strndup(from->arena, text, length);
  return *out ? ML_OK : ml_fail_memory(err, length, "metadata");
}

static ml_status text(source *from, const char **out, ml_error *err)
{
  size_t length = 0;
  ml_json_kind kind = ml_json_peek(&from->reader);
  if (kind == ML_JSON_NUMBER) {
    ml_json_number number;
    const char *begin = from->reader.at;
    ML_TRY(ml_json_number_read(&from->reader, &number, err));
    return copied(from, begin, (size_t)(from->reader.at - begin), out, err);
  }
  if (kind != ML_JSON_STRING) return ml_json_fail(&from->reader, err, "a string expected");
  ML_TRY(ml_json_string_length(&from->reader, &length, err));
  char *bytes = ml_arena_alloc(from->arena, length + 1);
  if (!bytes) return ml_fail_memory(err, length, "metadata");
  ML_TRY(ml_json_string_read(&from->reader, bytes, &length, err));
  bytes[length] = 0;
  *out = bytes;
  return ML_OK;
}

static ml_status list(source *from, const char *const **out, size_t *n, ml_error *err)
{
  const char **names = NULL;
  bool first = true, more;
  size_t count = 0;
  ML_TRY(ml_json_enter_array(&from->reader, err));
  while (true) {
    ML_TRY(ml_json_array_next(&from->reader, &first, &more, err));
    if (!more) break;
    names = grown(from->arena, names, count, sizeof *names);
    if (!names) return ml_fail_memory(err, count, "metadata");
    ML_TRY(text(from, &names[count++], err));
  }
  *out = names;
  *n = count;
  return ML_OK;
}

/* false: the object has ended */
static ml_status next_key(source *from, bool *first, bool *more, const char **key, ml_error *err)
{
  const char *borrowed = NULL;
  size_t length = 0;
  ML_TRY(ml_json_object_next(&from->reader, first, more, from->key, KEY_SIZE, &borrowed, &length, err));
  return *more ? copied(from, borrowed, length, key, err) : ML_OK;
}

static ml_status names(source *from, const ml_signature_tensor **out, size_t *n, ml_error *err)
{
  ml_signature_tensor *tensors = NULL;
  bool first = true, more;
  size_t count = 0;
  const char *key;
  ML_TRY(ml_json_enter_object(&from->reader, err));
  while (true) {
    ML_TRY(next_key(from, &first, &more, &key, err));
    if (!more) break;
    tensors = grown(from->arena, tensors, count, sizeof *tensors);
    if (!tensors) return ml_fail_memory(err, count, "metadata");
    tensors[count] = (ml_signature_tensor){ .name = key };
    ML_TRY(text(from, &tensors[count++].value, err));
  }
  *out = tensors;
  *n = count;
  return ML_OK;
}

static ml_status signature(source *from, ml_signature *out, ml_error *err)
{
  bool first = true, more;
  const char *key;
  ML_TRY(ml_json_enter_object(&from->reader, err));
  while (true) {
    ML_TRY(next_key(from, &first, &more, &key, err));
    if (!more) return ML_OK;
    if (strcmp(key, "inputs") == 0) ML_TRY(names(from, &out->inputs, &out->n_inputs, err));
    else if (strcmp(key, "outputs") == 0) ML_TRY(names(from, &out->outputs, &out->n_outputs, err));
    else if (strcmp(key, "method_name") == 0) ML_TRY(text(from, &out->method, err));
    else return ml_json_fail(&from->reader, err, "unknown key '%s' (known: inputs, outputs, method_name)", key);
  }
}

static ml_status signatures(source *from, ml_servable_options *options, ml_error *err)
{
  ml_signature *all = NULL;
  bool first = true, more;
  size_t count = 0;
  const char *key;
  ML_TRY(ml_json_enter_object(&from->reader, err));
  while (true) {
    ML_TRY(next_key(from, &first, &more, &key, err));
    if (!more) break;
    all = grown(from->arena, all, count, sizeof *all);
    if (!all) return ml_fail_memory(err, count, "metadata");
    all[count] = (ml_signature){ .name = key };
    ML_TRY(signature(from, &all[count++], err));
  }
  options->signatures = all;
  options->n_signatures = count;
  return ML_OK;
}

/* ---- the entries ---- */
static ml_status read_features(source *from, ml_servable_options *options, ml_error *err)
{
  return options->features ? ML_OK : list(from, &options->features, &options->n_features, err);
}

static ml_status read_classes(source *from, ml_servable_options *options, ml_error *err)
{
  return options->classes ? ML_OK : list(from, &options->classes, &options->n_classes, err);
}

static ml_status read_signatures(source *from, ml_servable_options *options, ml_error *err)
{
  return options->n_signatures ? ML_OK : signatures(from, options, err);
}

static const struct entry {
  const char *name;
  ml_status (*read)(source *from, ml_servable_options *options, ml_error *err);
} entries[] = { { "mlserve.features", read_features }, { "mlserve.classes", read_classes }, { "mlserve.signatures", read_signatures } };

ml_status ml_servable_properties(const ml_graph *graph, ml_arena *arena, ml_servable_options *options, ml_error *err)
{
  char key[KEY_SIZE];
  source from = { .arena = arena, .key = key };
  for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
    const ml_property *property = ml_graph_property(graph, entries[i].name);
    if (!property) continue;
    ml_json_reader_init(&from.reader, property->value, property->length);
    ml_status status = entries[i].read(&from, options, err);
    if (status != ML_OK) return ml_fail_in(err, status, "metadata entry '%s'", entries[i].name);
  }
  return ML_OK;
}
