/* A predict request is decoded in one pass: the keys of the root object are walked as they come, and `instances` or `inputs` is
 * read with the signature known by then. Only when signature_name stands behind the data and names another signature is the data
 * read again. Request buffers (one growing array per input) are pooled, so a request like an earlier one allocates nothing. They
 * are copied into the session's arena once the shape is known, which costs a few percent of parsing the digits. Refusals repeat
 * the words of tensorflow/serving's util/json_tensor.cc, because clients match on them. A request whose syntax is broken gets the
 * syntax error, wherever the first wrong value stands: the server it imitates parses everything first. */
#include "serve/servable.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "serve/call.h"
#include "serve/json_tensor.h"
#include "serve/properties.h"
#include "serve/statistics.h"

enum { MAX_IDLE = 16, KEPT_BYTES = 4 << 20, KEY_SCRATCH = 256 };
#define DEFAULT_ELEMENTS ((size_t)64 << 20)

/* Buffers of one request. */
struct ml_request {
  ml_servable *servable;
  ml_json_decoder decoder;
  const ml_signature *signature;
  size_t n;                    /* inputs of the graph */
  ml_json_tensor *tensors;     /* by signature input */
  ml_json_shape *shapes;       /* of an item (instances) or the whole (inputs), by signature input */
  ml_json_shape *first;        /* shape of item 0 */
  bool *seen;
  ml_view *views;              /* by graph input */
  bool row;
  size_t rows;
  const ml_view **outputs;     /* by graph output: what there is to encode */
  ml_session *session;         /* that they belong to, when the request ran by itself */
  ml_ticket ticket;            /* … or in a batch */
  ml_request *next;
};

struct ml_servable {
  atomic_uint references;
  ml_program *program;
  ml_arena *arena;
  const char *model;
  int64_t version;
  ml_signature *signatures;
  size_t n_signatures, n_inputs, n_outputs, max_elements;
  ml_statistics *statistics;
  const char **features, **classes;
  size_t n_features, n_classes;
  _Atomic(ml_batcher *) batcher; /* set once; NULL: requests run where they are read */
  pthread_mutex_t mutex; /* of the pool */
  ml_request *idle;
  size_t n_idle;
  ml_calls calls;
  atomic_bool probed;
  ml_probe probe; /* when probed, does not change any more */
};

/* ---------------------------------------------------------------- life ---- */
static ml_status bind_tensor(ml_servable *s, const char *signature, bool input, ml_signature_tensor *t,
                             const ml_signature_tensor *from, ml_error *err) {
  const ml_graph *g = ml_program_graph(s->program);
  const char *kind = input ? "input" : "output";
  size_t n = input ? g->n_inputs : g->n_outputs, i = 0;
  if (!from->name || !*from->name) return ml_fail(err, ML_INVALID_ARGUMENT, "signature '%s': %s without a name", signature, kind);
  const char *value = from->value ? from->value : from->name;
  while (i < n && strcmp((input ? g->inputs : g->outputs)[i]->name, value) != 0) i++;
  if (i == n) return ml_fail(err, ML_INVALID_ARGUMENT, "signature '%s': the model has no %s '%s'", signature, kind, value);
  const ml_value *v = (input ? g->inputs : g->outputs)[i];
  *t = (ml_signature_tensor){.index = i, .dtype = v->dtype, .rank = v->rank};
  t->name = ml_arena_strndup(s->arena, from->name, strlen(from->name));
  t->value = ml_arena_strndup(s->arena, value, strlen(value));
  if (!t->name || !t->value) return ml_fail_memory(err, 1, "a signature");
  memcpy(t->dims, v->dims, sizeof t->dims);
  return ML_OK;
}

static ml_status bind_list(ml_servable *s, const char *signature, bool input, const ml_signature_tensor *from, size_t n,
                           const ml_signature_tensor **out, ml_error *err) {
  ml_signature_tensor *list = ml_arena_alloc(s->arena, (n + 1) * sizeof *list);
  if (!list) return ml_fail_memory(err, n * sizeof *list, "a signature");
  for (size_t i = 0; i < n; i++) {
    ML_TRY(bind_tensor(s, signature, input, &list[i], &from[i], err));
    for (size_t k = 0; k < i; k++)
      if (strcmp(list[k].name, list[i].name) == 0 || (input && list[k].index == list[i].index))
        return ml_fail(err, ML_INVALID_ARGUMENT, "signature '%s': %s '%s' is given twice", signature, input ? "input" : "output",
                       list[i].name);
  }
  *out = list;
  return ML_OK;
}

static ml_status add_signature(ml_servable *s, const ml_signature *from, ml_error *err) {
  ml_signature *to = &s->signatures[s->n_signatures];
  if (!from->name || !*from->name) return ml_fail(err, ML_INVALID_ARGUMENT, "a signature without a name");
  for (size_t i = 0; i < s->n_signatures; i++)
    if (strcmp(s->signatures[i].name, from->name) == 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "signature '%s' is given twice", from->name);
  if (from->n_inputs != s->n_inputs)
    return ml_fail(err, ML_INVALID_ARGUMENT, "signature '%s' has %zu inputs, the model %zu", from->name, from->n_inputs,
                   s->n_inputs);
  if (from->n_outputs == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "signature '%s' has no outputs", from->name);
  const char *method = from->method ? from->method : ML_PREDICT_METHOD;
  *to = (ml_signature){.n_inputs = from->n_inputs, .n_outputs = from->n_outputs};
  to->name = ml_arena_strndup(s->arena, from->name, strlen(from->name));
  to->method = ml_arena_strndup(s->arena, method, strlen(method));
  if (!to->name || !to->method) return ml_fail_memory(err, 1, "a signature");
  ML_TRY(bind_list(s, to->name, true, from->inputs, from->n_inputs, &to->inputs, err));
  ML_TRY(bind_list(s, to->name, false, from->outputs, from->n_outputs, &to->outputs, err));
  s->n_signatures++;
  return ML_OK;
}

static ml_status add_default(ml_servable *s, ml_error *err) {
  const ml_graph *g = ml_program_graph(s->program);
  ml_signature_tensor *list = ml_arena_alloc(s->arena, (g->n_inputs + g->n_outputs + 1) * sizeof *list);
  if (!list) return ml_fail_memory(err, 1, "a signature");
  for (size_t i = 0; i < g->n_inputs; i++) list[i].name = g->inputs[i]->name;
  for (size_t i = 0; i < g->n_outputs; i++) list[g->n_inputs + i].name = g->outputs[i]->name;
  ml_signature all = {.name = ML_SERVING_DEFAULT,
                      .inputs = list,
                      .n_inputs = g->n_inputs,
                      .outputs = list + g->n_inputs,
                      .n_outputs = g->n_outputs};
  return add_signature(s, &all, err);
}

static ml_status copy_names(ml_servable *s, const char *const *from, size_t n, const char ***out, ml_error *err) {
  const char **list = ml_arena_alloc(s->arena, (n + 1) * sizeof *list);
  bool whole = list != NULL;
  for (size_t i = 0; i < n && whole; i++) whole = (list[i] = ml_arena_strndup(s->arena, from[i], strlen(from[i]))) != NULL;
  *out = list;
  return whole ? ML_OK : ml_fail_memory(err, n * sizeof *list, "names of features");
}

static ml_status fill(ml_servable *s, const ml_servable_options *given, ml_error *err) {
  const ml_graph *g = ml_program_graph(s->program);
  ml_servable_options own = *given, *options = &own;
  ML_TRY(ml_servable_properties(g, s->arena, options, err));
  const char *model = options->model ? options->model : g->name;
  s->n_inputs = g->n_inputs;
  s->n_outputs = g->n_outputs;
  s->version = options->version;
  s->max_elements = options->max_elements ? options->max_elements : DEFAULT_ELEMENTS;
  s->model = ml_arena_strndup(s->arena, model, strlen(model));
  s->signatures = ml_arena_alloc(s->arena, (options->n_signatures + 1) * sizeof *s->signatures);
  if (!s->model || !s->signatures) return ml_fail_memory(err, 1, "a servable");
  ML_TRY(ml_statistics_new(&s->statistics, err));
  s->n_features = options->n_features;
  s->n_classes = options->n_classes;
  ML_TRY(copy_names(s, options->features, options->n_features, &s->features, err));
  ML_TRY(copy_names(s, options->classes, options->n_classes, &s->classes, err));
  if (options->n_signatures == 0) return add_default(s, err);
  for (size_t i = 0; i < options->n_signatures; i++) ML_TRY(add_signature(s, &options->signatures[i], err));
  return ML_OK;
}

ml_status ml_servable_new(ml_program *program, const ml_servable_options *options, ml_servable **out, ml_error *err) {
  static const ml_servable_options defaults = {0};
  *out = NULL;
  ml_servable *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "a servable");
  atomic_init(&s->references, 1);
  ml_calls_init(&s->calls);
  pthread_mutex_init(&s->mutex, NULL); /* cannot fail with default attributes on the systems we build for */
  s->program = ml_program_retain(program);
  s->arena = ml_arena_new();
  ml_status status = s->arena ? fill(s, options ? options : &defaults, err) : ml_fail_memory(err, 1, "a servable");
  if (status == ML_OK) *out = s;
  else ml_servable_release(s);
  return status;
}

static void request_free(ml_request *r, size_t n) {
  if (!r) return;
  for (size_t i = 0; r->tensors && i < n; i++) ml_free(r->tensors[i].data);
  ml_json_decoder_free(&r->decoder);
  ml_free(r->tensors);
  ml_free(r->shapes);
  ml_free(r->first);
  ml_free(r->seen);
  ml_free(r->views);
  ml_free(r->outputs);
  ml_ticket_free(&r->ticket);
  ml_free(r);
}

ml_servable *ml_servable_retain(ml_servable *servable) {
  atomic_fetch_add_explicit(&servable->references, 1, memory_order_relaxed);
  return servable;
}

void ml_servable_release(ml_servable *servable) {
  if (!servable || atomic_fetch_sub_explicit(&servable->references, 1, memory_order_acq_rel) != 1) return;
  while (servable->idle) {
    ml_request *r = servable->idle;
    servable->idle = r->next;
    request_free(r, servable->n_inputs);
  }
  ml_calls_free(&servable->calls, servable);
  ml_batcher_free(servable->batcher);
  pthread_mutex_destroy(&servable->mutex);
  ml_program_release(servable->program);
  ml_statistics_free(servable->statistics);
  ml_arena_free(servable->arena);
  ml_free(servable);
}

const char *ml_servable_model(const ml_servable *servable) { return servable->model; }
int64_t ml_servable_version(const ml_servable *servable) { return servable->version; }
ml_program *ml_servable_program(const ml_servable *servable) { return servable->program; }
size_t ml_servable_max_elements(const ml_servable *servable) { return servable->max_elements; }
ml_statistics *ml_servable_statistics(const ml_servable *servable) { return servable->statistics; }
ml_calls *ml_servable_calls(ml_servable *servable) { return &servable->calls; }
size_t ml_servable_n_features(const ml_servable *servable) { return servable->n_features; }
const char *const *ml_servable_features(const ml_servable *servable) { return servable->features; }
size_t ml_servable_signatures(const ml_servable *servable) { return servable->n_signatures; }
const char *const *ml_servable_classes(const ml_servable *servable, size_t *n) {
  *n = servable->n_classes;
  return servable->classes;
}

const ml_signature *ml_servable_signature_at(const ml_servable *servable, size_t index) { return &servable->signatures[index]; }

const ml_signature *ml_servable_signature(const ml_servable *servable, const char *name, size_t length) {
  for (size_t i = 0; i < servable->n_signatures; i++) {
    const char *have = servable->signatures[i].name;
    if (strlen(have) == length && memcmp(have, name, length) == 0) return &servable->signatures[i];
  }
  return NULL;
}

/* ---------------------------------------------------------------- pool ---- */
static ml_status take_request(ml_servable *s, ml_request **out, ml_error *err) {
  pthread_mutex_lock(&s->mutex);
  ml_request *r = s->idle;
  if (r) {
    s->idle = r->next;
    s->n_idle--;
  }
  pthread_mutex_unlock(&s->mutex);
  if (!r) {
    size_t n = s->n_inputs;
    r = ml_alloc_zero(1, sizeof *r);
    if (!r) return ml_fail_memory(err, sizeof *r, "a request");
    r->n = n;
    r->tensors = ml_alloc_zero(n + 1, sizeof *r->tensors);
    r->shapes = ml_alloc_zero(n + 1, sizeof *r->shapes);
    r->first = ml_alloc_zero(n + 1, sizeof *r->first);
    r->seen = ml_alloc_zero(n + 1, sizeof *r->seen);
    r->views = ml_alloc_zero(n + 1, sizeof *r->views);
    r->outputs = ml_alloc_zero(s->n_outputs + 1, sizeof *r->outputs);
    if (!r->tensors || !r->shapes || !r->first || !r->seen || !r->views || !r->outputs) {
      request_free(r, n);
      return ml_fail_memory(err, n * sizeof *r->views, "a request");
    }
  }
  *out = r;
  return ML_OK;
}

static void return_request(ml_servable *s, ml_request *r) {
  size_t bytes = 0;
  for (size_t i = 0; i < r->n; i++) bytes += r->tensors[i].bytes;
  pthread_mutex_lock(&s->mutex);
  bool keep = s->n_idle < MAX_IDLE && bytes <= KEPT_BYTES; /* one large request should not pin its memory */
  if (keep) {
    r->next = s->idle;
    s->idle = r;
    s->n_idle++;
  }
  pthread_mutex_unlock(&s->mutex);
  if (!keep) request_free(r, s->n_inputs);
}

/* ---------------------------------------------------------------- instances ---- */
/* "a,b" */
static const char *input_names(const ml_signature *g, char *text, size_t size) {
  size_t n = 0;
  text[0] = '\0';
  for (size_t i = 0; i < g->n_inputs && n < size; i++)
    n += (size_t)snprintf(text + n, size - n, "%s%s", i ? "," : "", g->inputs[i].name);
  return text;
}

static size_t find_input(const ml_signature *g, const char *name, size_t length) {
  size_t i = 0;
  while (i < g->n_inputs && !(strlen(g->inputs[i].name) == length && memcmp(g->inputs[i].name, name, length) == 0)) i++;
  return i;
}

/* One value of batch element `item` for input i: read, and compared with the shape of the first. */
static ml_status read_item(ml_request *r, size_t i, size_t item, ml_error *err) {
  ml_json_tensor *t = &r->tensors[i];
  ml_json_shape *shape = &r->shapes[i];
  size_t before = t->count;
  ML_TRY(ml_json_tensor_read(&r->decoder, r->signature->inputs[i].dtype, t, shape, err));
  if (item == 0) {
    r->first[i] = *shape;
    return ML_OK;
  }
  const ml_json_shape *first = &r->first[i];
  if (ml_shape_equal(shape->dims, shape->rank, first->dims, first->rank)) return ML_OK;
  size_t size = t->count - before, expected = before / item;
  char a[256], b[256];
  if (size != expected)
    return ml_json_refuse(&r->decoder, err, ML_INVALID_ARGUMENT, "Expecting tensor size: %zu but got: %zu", expected, size);
  return ml_json_refuse(&r->decoder, err, ML_INVALID_ARGUMENT, "Expecting shape %s but got: %s",
                        ml_json_shape_text(first->dims, first->rank, a, sizeof a),
                        ml_json_shape_text(shape->dims, shape->rank, b, sizeof b));
}

/* Puts the item's place in front of a refusal; a syntax error stays as it is. */
static ml_status in_item(ml_request *r, size_t item, const char *key, size_t key_length, ml_status status, ml_error *err) {
  if (!r->decoder.semantic || !err) return status;
  char message[ML_ERROR_MAX];
  snprintf(message, sizeof message, "%s", err->message);
  if (key)
    return ml_fail(err, status, "Failed to process element: %zu key: %.*s of 'instances' list. Error: %s: %s", item,
                   (int)(key_length < 100 ? key_length : 100), key, ml_status_name(status), message);
  return ml_fail(err, status, "Failed to process element: %zu of 'instances' list. Error: %s: %s", item, ml_status_name(status),
                 message);
}

static ml_status wrong_keys(ml_request *r, const char *at, size_t item, ml_error *err) {
  char text[260], names[160];
  return ml_json_refuse(&r->decoder, err, ML_INVALID_ARGUMENT,
                        "Failed to process element: %zu of 'instances' list. JSON object: %s keys must be equal to: %s", item,
                        ml_json_quote(&r->decoder, at, text), input_names(r->signature, names, sizeof names));
}

/* Members of the object at `at`; SIZE_MAX when it is broken. */
static size_t count_members(const ml_request *r, const char *at) {
  ml_json_reader reader = r->decoder.reader;
  char scratch[KEY_SCRATCH];
  const char *key;
  size_t length, n = 0;
  bool first = true, more;
  reader.at = at;
  reader.depth = 0;
  if (ml_json_enter_object(&reader, NULL) != ML_OK) return SIZE_MAX;
  for (;; n++) {
    if (ml_json_object_next(&reader, &first, &more, scratch, sizeof scratch, &key, &length, NULL) != ML_OK) return SIZE_MAX;
    if (!more) return n;
    if (ml_json_skip(&reader, NULL) != ML_OK) return SIZE_MAX;
  }
}

static ml_status read_object_item(ml_request *r, size_t item, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  const ml_signature *g = r->signature;
  const char *begin = reader->at, *key;
  char scratch[KEY_SCRATCH];
  size_t length, members = 0;
  bool first = true, more;
  memset(r->seen, 0, r->n * sizeof *r->seen);
  ML_TRY(ml_json_enter_object(reader, err));
  for (;; members++) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    size_t i = find_input(g, key, length);
    if (i == g->n_inputs || r->seen[i]) {
      if (i < g->n_inputs || count_members(r, begin) != g->n_inputs) return wrong_keys(r, begin, item, err);
      ml_status status = ml_json_refuse(&r->decoder, err, ML_INVALID_ARGUMENT, "JSON object: does not have named input: %.*s",
                                        (int)(length < 100 ? length : 100), key);
      return in_item(r, item, key, length, status, err);
    }
    r->seen[i] = true;
    ml_status status = read_item(r, i, item, err);
    if (status != ML_OK) return in_item(r, item, key, length, status, err);
  }
  return members == g->n_inputs ? ML_OK : wrong_keys(r, begin, item, err);
}

static ml_status read_instances(ml_request *r, const char *root, ml_error *err) {
  ml_json_decoder *d = &r->decoder;
  char text[260];
  bool first = true, more, objects = false;
  if (ml_json_peek(&d->reader) != ML_JSON_ARRAY) {
    ml_json_reader copy = d->reader;
    ML_TRY(ml_json_skip(&copy, err));
    return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "JSON Value: %s Expecting 'instances' to be an list/array",
                          ml_json_quote(d, root, text));
  }
  ML_TRY(ml_json_enter_array(&d->reader, err));
  size_t item = 0;
  for (;; item++) {
    ML_TRY(ml_json_array_next(&d->reader, &first, &more, err));
    if (!more) break;
    bool object = ml_json_peek(&d->reader) == ML_JSON_OBJECT && !ml_json_is_base64(d);
    if (item == 0) {
      objects = object;
      if (!objects && r->signature->n_inputs != 1)
        return ml_json_refuse(
            d, err, ML_INVALID_ARGUMENT,
            "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map");
    } else if (object != objects) {
      return ml_json_refuse(d, err, ML_INVALID_ARGUMENT,
                            objects ? "Expecting object but got list at item %zu of input list"
                                    : "Expecting value/list but got object at item %zu of input list",
                            item);
    }
    if (objects) {
      ML_TRY(read_object_item(r, item, err));
      continue;
    }
    ml_status status = read_item(r, 0, item, err);
    if (status != ML_OK) return in_item(r, item, NULL, 0, status, err);
  }
  if (item == 0)
    return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "JSON Value: %s No values in 'instances' array",
                          ml_json_quote(d, root, text));
  r->rows = item;
  return ML_OK;
}

/* ---------------------------------------------------------------- inputs ---- */
static ml_status read_inputs(ml_request *r, ml_error *err) {
  ml_json_decoder *d = &r->decoder;
  const ml_signature *g = r->signature;
  bool first = true, more;
  if (ml_json_peek(&d->reader) != ML_JSON_OBJECT || ml_json_is_base64(d)) {
    if (g->n_inputs != 1)
      return ml_json_refuse(
          d, err, ML_INVALID_ARGUMENT,
          "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map");
    return ml_json_tensor_read(d, g->inputs[0].dtype, &r->tensors[0], &r->shapes[0], err);
  }
  memset(r->seen, 0, r->n * sizeof *r->seen);
  ML_TRY(ml_json_enter_object(&d->reader, err));
  for (;;) {
    char scratch[KEY_SCRATCH];
    const char *key;
    size_t length;
    ML_TRY(ml_json_object_next(&d->reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    size_t i = find_input(g, key, length);
    if (i == g->n_inputs || r->seen[i]) { /* nobody asked for it */
      ML_TRY(ml_json_skip(&d->reader, err));
      continue;
    }
    r->seen[i] = true;
    ML_TRY(ml_json_tensor_read(d, g->inputs[i].dtype, &r->tensors[i], &r->shapes[i], err));
  }
  for (size_t i = 0; i < g->n_inputs; i++)
    if (!r->seen[i])
      return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "Missing named input: %s in 'inputs' object.", g->inputs[i].name);
  return ML_OK;
}

/* ---------------------------------------------------------------- root ---- */
/* `at` is where the data begins; shapes hold what the signature says, as guesses for the buffers. */
static ml_status read_data(ml_request *r, const char *root, ml_error *err) {
  const ml_signature *g = r->signature;
  r->decoder.elements = 0;
  r->decoder.strings_used = 0;
  for (size_t i = 0; i < g->n_inputs; i++) {
    const ml_signature_tensor *in = &g->inputs[i];
    int32_t skip = r->row ? 1 : 0; /* items have no batch dimension */
    r->tensors[i].count = 0;
    memset(r->shapes[i].dims, 0, sizeof r->shapes[i].dims);
    for (int32_t k = skip; k < in->rank; k++) r->shapes[i].dims[k - skip] = in->dims[k] > 0 ? in->dims[k] : 0;
  }
  return r->row ? read_instances(r, root, err) : read_inputs(r, err);
}

static bool key_is(const char *key, size_t length, const char *text) {
  return length == strlen(text) && memcmp(key, text, length) == 0;
}

static ml_status no_signature(ml_request *r, const char *name, size_t length, ml_error *err) {
  return ml_json_refuse(&r->decoder, err, ML_INVALID_ARGUMENT, "Serving signature name: \"%.*s\" not found in signature def",
                        (int)(length < 200 ? length : 200), name);
}

/* The string at the reader as a signature of the servable. */
static ml_status read_signature(ml_servable *s, ml_request *r, const char *root, const ml_signature **out, ml_error *err) {
  ml_json_reader *reader = &r->decoder.reader;
  char text[260], name[256];
  size_t length;
  if (ml_json_peek(reader) != ML_JSON_STRING) {
    ml_json_reader copy = *reader;
    ML_TRY(ml_json_skip(&copy, err));
    return ml_json_refuse(&r->decoder, err, ML_INVALID_ARGUMENT,
                          "JSON Value: %s not formatted correctly. 'signature_name' key must be a string value.",
                          ml_json_quote(&r->decoder, root, text));
  }
  ML_TRY(ml_json_string_length(reader, &length, err));
  if (length > sizeof name) return no_signature(r, reader->at + 1, length, err);
  ML_TRY(ml_json_string_read(reader, name, &length, err));
  *out = ml_servable_signature(s, name, length);
  return *out ? ML_OK : no_signature(r, name, length, err);
}

static ml_status read_root(ml_servable *s, ml_request *r, const char *signature, ml_error *err) {
  ml_json_decoder *d = &r->decoder;
  ml_json_reader *reader = &d->reader;
  const char *data = NULL, *root, *key;
  char scratch[KEY_SCRATCH], text[260];
  const ml_signature *named = NULL;
  size_t length;
  bool first = true, more, instances = false, inputs = false;
  ml_json_kind kind = ml_json_peek(reader);
  if (kind == ML_JSON_END) return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "JSON Parse error: The document is empty");
  root = reader->at;
  if (kind != ML_JSON_OBJECT) {
    ML_TRY(ml_json_skip(reader, err));
    return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "JSON Value: %s Is not object", ml_json_quote(d, root, text));
  }
  signature = signature ? signature : ML_SERVING_DEFAULT;
  r->signature = ml_servable_signature(s, signature, strlen(signature));
  const ml_signature *assumed = r->signature;
  ML_TRY(ml_json_enter_object(reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
    if (!more) break;
    bool is_instances = key_is(key, length, "instances");
    if (is_instances || key_is(key, length, "inputs")) {
      bool again = is_instances ? instances : inputs;
      *(is_instances ? &instances : &inputs) = true;
      if (again) {
        ML_TRY(ml_json_skip(reader, err));
        continue;
      }
      if (data)
        return ml_json_refuse(
            d, err, ML_INVALID_ARGUMENT,
            "JSON Value: %s Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ",
            ml_json_quote(d, root, text));
      data = reader->at;
      r->row = is_instances;
      ml_json_reader before = *reader;
      if (r->signature && read_data(r, root, err) == ML_OK) continue;
      if (named && r->signature) return err ? err->code : ML_INVALID_ARGUMENT;
      /* a signature_name further on may make it right, and decides which refusal is given */
      *reader = before;
      d->semantic = false;
      assumed = NULL;
      ML_TRY(ml_json_skip(reader, err));
    } else if (key_is(key, length, "signature_name") && !named) {
      ML_TRY(read_signature(s, r, root, &named, err));
      if (!data) r->signature = assumed = named;
    } else {
      ML_TRY(ml_json_skip(reader, err));
    }
  }
  if (!data) return ml_json_refuse(d, err, ML_INVALID_ARGUMENT, "Missing 'inputs' or 'instances' key");
  if (named) r->signature = named;
  if (!r->signature) return no_signature(r, signature, strlen(signature), err);
  if (r->signature == assumed) return ML_OK;
  reader->at = data;
  reader->depth = 1;
  return read_data(r, root, err);
}

/* Syntax errors in one form; a refusal gives way to a syntax error further on in the body. */
__attribute__((cold)) static ml_status finish_failure(ml_request *r, ml_status status, ml_error *err) {
  ml_json_reader reader = r->decoder.reader;
  ml_error syntax = {0};
  if (status != ML_INVALID_ARGUMENT && status != ML_UNIMPLEMENTED) return status;
  if (r->decoder.semantic) {
    reader.at = reader.begin;
    reader.depth = 0;
    if (ml_json_peek(&reader) == ML_JSON_END || ml_json_skip(&reader, &syntax) == ML_OK) return status;
  } else {
    if (!err) return status;
    syntax = *err;
  }
  return ml_fail(err, ML_INVALID_ARGUMENT, "JSON Parse error: Invalid value. at offset: %zu (%s)",
                 (size_t)(reader.at - reader.begin), syntax.message);
}

/* ---------------------------------------------------------------- response ---- */
static bool is_base64_name(const char *name) {
  size_t n = strlen(name);
  return n >= 6 && strcmp(name + n - 6, "_bytes") == 0;
}

static ml_status check_outputs(const ml_request *r, size_t *rows, ml_error *err) {
  const ml_signature *g = r->signature;
  for (size_t i = 0; i < g->n_outputs; i++) {
    const ml_view *v = r->outputs[g->outputs[i].index];
    ML_TRY(ml_json_tensor_writable(v->type ? ml_type_dtype(v->type) : v->dtype, err));
    if (!r->row) continue;
    if (ml_type_kind(v->type) == ML_KIND_SEQUENCE) { /* one element a row: what ZipMap makes of probabilities */
      size_t count = ml_view_container(v)->count;
      if (i == 0) *rows = count;
      else if (count != *rows)
        return ml_fail(err, ML_INVALID_ARGUMENT, "Tensor name: %s has inconsistent batch size: %zu expecting: %zu", g->outputs[i].name, count, *rows);
      continue;
    }
    if (v->rank < 1) return ml_fail(err, ML_INVALID_ARGUMENT, "Tensor name: %s has no shape information ", g->outputs[i].name);
    if (i == 0) *rows = (size_t)v->dims[0];
    else if ((size_t)v->dims[0] != *rows)
      return ml_fail(err, ML_INVALID_ARGUMENT, "Tensor name: %s has inconsistent batch size: %lld expecting: %zu",
                     g->outputs[i].name, (long long)v->dims[0], *rows);
  }
  return ML_OK;
}

static void put_key(ml_json_writer *out, const char *name) {
  ml_json_put_string(out, name, strlen(name));
  ml_json_put_literal(out, ": ");
}

static void put_predictions(const ml_signature *g, const ml_view *const *outputs, size_t rows, ml_json_writer *out) {
  ml_json_put_literal(out, "{\n    \"predictions\": [");
  for (size_t row = 0; row < rows && out->status == ML_OK; row++) {
    if (row) ml_json_put_literal(out, ", ");
    if (g->n_outputs > 1) ml_json_put_literal(out, "\n        {\n");
    for (size_t i = 0; i < g->n_outputs; i++) {
      const ml_signature_tensor *o = &g->outputs[i];
      if (g->n_outputs > 1) {
        if (i) ml_json_put_literal(out, ",\n");
        ml_json_put_literal(out, "            ");
        put_key(out, o->name);
      }
      ml_json_put_row(out, outputs[o->index], row, is_base64_name(o->name));
    }
    if (g->n_outputs > 1) ml_json_put_literal(out, "\n        }");
  }
  ml_json_put_literal(out, "\n    ]\n}");
}

static void put_outputs(const ml_signature *g, const ml_view *const *outputs, ml_json_writer *out) {
  ml_json_put_literal(out, "{\n    \"outputs\": ");
  if (g->n_outputs > 1) ml_json_put_literal(out, "{\n");
  for (size_t i = 0; i < g->n_outputs; i++) {
    const ml_signature_tensor *o = &g->outputs[i];
    if (g->n_outputs > 1) {
      if (i) ml_json_put_literal(out, ",\n");
      ml_json_put_literal(out, "        ");
      put_key(out, o->name);
    }
    ml_json_put_tensor(out, outputs[o->index], is_base64_name(o->name));
  }
  if (g->n_outputs > 1) ml_json_put_literal(out, "\n    }");
  ml_json_put_literal(out, "\n}");
}

/* ---------------------------------------------------------------- predict ---- */
static ml_status make_views(ml_request *r, ml_error *err) {
  const ml_signature *g = r->signature;
  for (size_t i = 0; i < g->n_inputs; i++) {
    const ml_json_shape *shape = r->row ? &r->first[i] : &r->shapes[i];
    ml_view *v = &r->views[g->inputs[i].index];
    int32_t at = 0;
    v->data = r->tensors[i].data;
    v->dtype = g->inputs[i].dtype;
    if (r->row && shape->rank == ML_MAX_RANK)
      return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': rank over %d", g->inputs[i].name, ML_MAX_RANK);
    if (r->row) v->dims[at++] = (int64_t)r->rows;
    for (int32_t k = 0; k < shape->rank; k++) v->dims[at++] = shape->dims[k];
    v->rank = at;
    ML_TRY(ml_shape_count(v->dims, v->rank, v->dtype, &v->count, err));
    if (v->count != r->tensors[i].count)
      return ml_fail(err, ML_INTERNAL, "input '%s': %zu elements for a shape of %zu", g->inputs[i].name, r->tensors[i].count,
                     v->count);
  }
  return ML_OK;
}

static ml_status check_inputs(const ml_servable *s, ml_error *err) {
  const ml_graph *g = ml_program_graph(s->program);
  char text[96];
  for (size_t i = 0; i < g->n_inputs; i++)
    if (g->inputs[i]->type)
      return ml_fail(err, ML_UNIMPLEMENTED, "input '%s' is %s, which a request cannot hold", g->inputs[i]->name,
                     ml_type_format(g->inputs[i]->type, text, sizeof text));
  return ML_OK;
}

ml_status ml_request_decode_json(ml_servable *servable, const char *body, size_t size, const char *signature, ml_request **out,
                                 ml_error *err) {
  ml_request *r = NULL;
  ml_error local;
  *out = NULL;
  if (!err) err = &local;
  ML_TRY(check_inputs(servable, err));
  ML_TRY(take_request(servable, &r, err));
  r->servable = servable;
  ml_json_decoder_reset(&r->decoder, body, size, servable->max_elements);
  ml_status status = read_root(servable, r, signature, err);
  if (status != ML_OK) status = finish_failure(r, status, err);
  else status = make_views(r, err);
  if (status == ML_OK) *out = r;
  else return_request(servable, r);
  return status;
}

ml_status ml_request_run(ml_request *r, ml_error *err) {
  ml_servable *s = r->servable;
  ML_TRY(ml_program_acquire(s->program, r->views, &r->session, err));
  for (size_t i = 0; i < s->n_inputs; i++) {
    const ml_view *from = &r->views[i];
    if (from->count > 0) memcpy(ml_session_input(r->session, i)->data, from->data, from->count * ml_dtype_size(from->dtype));
  }
  ML_TRY(ml_session_run(r->session, err));
  for (size_t i = 0; i < s->n_outputs; i++) r->outputs[i] = ml_session_output(r->session, i);
  return ML_OK;
}

ml_status ml_request_encode_json(ml_request *r, ml_json_writer *out, ml_error *err) {
  size_t rows = 0;
  ML_TRY(check_outputs(r, &rows, err));
  if (r->row) put_predictions(r->signature, r->outputs, rows, out);
  else put_outputs(r->signature, r->outputs, out);
  return out->status == ML_OK ? ML_OK : ml_fail_memory(err, out->capacity, "a response");
}

void ml_request_free(ml_request *r) {
  if (!r) return;
  ml_servable *s = r->servable;
  if (r->session) ml_program_return(s->program, r->session);
  r->session = NULL;
  ml_servable *last = ml_ticket_leave(&r->ticket); /* the request's buffers are the servable's */
  return_request(s, r);
  ml_servable_release(last);
}

ml_status ml_servable_predict_json(ml_servable *servable, const char *body, size_t size, const char *signature,
                                   ml_json_writer *out, ml_error *err) {
  ml_request *r = NULL;
  ml_error local;
  if (!err) err = &local;
  ML_TRY(ml_request_decode_json(servable, body, size, signature, &r, err));
  ml_status status = ml_request_run(r, err);
  if (status == ML_OK) status = ml_request_encode_json(r, out, err);
  ml_request_free(r);
  return status;
}

/* ---------------------------------------------------------------- batched ---- */
const ml_probe *ml_servable_probe(ml_servable *servable) {
  if (!atomic_load(&servable->probed)) {
    ml_probe probe;
    ml_probe_program(servable->program, &probe);
    pthread_mutex_lock(&servable->mutex);
    if (!atomic_load(&servable->probed)) servable->probe = probe;
    atomic_store(&servable->probed, true);
    pthread_mutex_unlock(&servable->mutex);
  }
  return &servable->probe;
}

ml_status ml_servable_set_batcher(ml_servable *servable, ml_batcher *batcher, ml_error *err) {
  pthread_mutex_lock(&servable->mutex);
  bool set = servable->batcher == NULL;
  if (set) atomic_store_explicit(&servable->batcher, batcher, memory_order_release);
  pthread_mutex_unlock(&servable->mutex);
  return set ? ML_OK : ml_fail(err, ML_FAILED_PRECONDITION, "batching of model '%s' is set already", servable->model);
}

ml_batcher *ml_servable_batcher(const ml_servable *servable) { return atomic_load_explicit(&servable->batcher, memory_order_acquire); }

ml_status ml_ticket_submit(ml_ticket *t, ml_servable *s, const ml_view *inputs, const ml_request_options *options, ml_error *err) {
  if (!s->batcher) return ml_fail(err, ML_FAILED_PRECONDITION, "model '%s' has no batcher", s->model);
  if (!t->results) t->results = ml_alloc_zero(s->n_outputs + 1, sizeof *t->results);
  if (!t->outputs) t->outputs = ml_alloc_zero(s->n_outputs + 1, sizeof *t->outputs);
  if (!t->job.outputs) t->job.outputs = ml_alloc_zero(s->n_outputs + 1, sizeof *t->job.outputs);
  if (!t->results || !t->outputs || !t->job.outputs) return ml_fail_memory(err, s->n_outputs * sizeof *t->results, "a request");
  t->job.inputs = inputs;
  t->job.priority = options->priority;
  t->job.deadline_ns = options->deadline_ns;
  t->job.id = options->id;
  t->job.port = options->port ? ml_batch_port_retain(options->port) : NULL;
  ml_status status = ml_batcher_submit(s->batcher, &t->job, err);
  if (status == ML_OK) {
    t->servable = ml_servable_retain(s);
  } else {
    ml_batch_port_release(t->job.port);
    t->job.port = NULL;
  }
  return status;
}

ml_status ml_ticket_wait(ml_ticket *t, ml_error *err) {
  if (!t->servable) return ml_fail(err, ML_FAILED_PRECONDITION, "the request was not submitted");
  ml_status status = ml_batcher_wait(t->servable->batcher, &t->job);
  if (status != ML_OK) {
    if (err) *err = t->job.error;
    return status;
  }
  for (size_t i = 0; i < t->servable->n_outputs; i++) {
    ml_item_view(&t->job.outputs[i], &t->results[i]);
    t->outputs[i] = &t->results[i];
  }
  return ML_OK;
}

bool ml_ticket_over(ml_ticket *t) { return ml_batcher_over(t->servable->batcher, &t->job); }
bool ml_ticket_cancel(ml_ticket *t) { return ml_batcher_cancel(t->servable->batcher, &t->job); }
bool ml_ticket_expire(ml_ticket *t) { return ml_batcher_expire(t->servable->batcher, &t->job); }

ml_servable *ml_ticket_leave(ml_ticket *t) {
  ml_servable *s = t->servable;
  if (!s) return NULL;
  if (!ml_batcher_cancel(s->batcher, &t->job)) ml_batcher_wait(s->batcher, &t->job); /* a run that has begun is bounded */
  ml_batch_job_clear(&t->job, s->n_outputs);
  ml_batch_port_release(t->job.port);
  t->job.port = NULL;
  t->servable = NULL;
  return s;
}

void ml_ticket_free(ml_ticket *t) {
  ml_free(t->results);
  ml_free(t->outputs);
  ml_free(t->job.outputs);
}

ml_ticket *ml_request_ticket(ml_request *r) { return &r->ticket; }

ml_status ml_request_submit(ml_request *r, const ml_request_options *options, ml_error *err) {
  return ml_ticket_submit(&r->ticket, r->servable, r->views, options, err);
}

ml_status ml_request_wait(ml_request *r, ml_error *err) {
  ML_TRY(ml_ticket_wait(&r->ticket, err));
  memcpy(r->outputs, r->ticket.outputs, r->servable->n_outputs * sizeof *r->outputs);
  return ML_OK;
}
