/* Building and editing graphs. Names live in an open-addressing hash (graph->names); everything small lives in the graph's arena. */
#include "graph/pass.h"
#include <stdio.h>
#include <string.h>

typedef struct name_table {
  ml_value **slots;
  size_t capacity, count; /* capacity is a power of two; removed names leave NULL-named entries behind until the next growth */
} name_table;

static uint64_t hash_name(const char *name)
{
  uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 0x100000001b3u;
  return h;
}

static ml_value **find_slot(name_table *table, const char *name)
{
  size_t mask = table->capacity - 1, i = (size_t)hash_name(name) & mask;
  while (table->slots[i] && strcmp(table->slots[i]->name, name) != 0) i = (i + 1) & mask;
  return &table->slots[i];
}

static ml_status grow_names(ml_graph *g, ml_error *err)
{
  name_table *table = g->names;
  if (table->count * 2 < table->capacity) return ML_OK;
  size_t capacity = table->capacity ? table->capacity * 2 : 64;
  ml_value **slots = ml_alloc_zero(capacity, sizeof *slots);
  if (!slots) return ml_fail_memory(err, capacity * sizeof *slots, "value names");
  name_table next = { slots, capacity, 0 };
  for (size_t i = 0; i < g->n_values; i++) {
    if (!g->values[i]->name) continue;
    *find_slot(&next, g->values[i]->name) = g->values[i];
    next.count++;
  }
  ml_free(table->slots);
  *table = next;
  return ML_OK;
}

ml_value *ml_graph_find(const ml_graph *g, const char *name)
{
  name_table *table = g->names;
  return table->capacity && name && *name ? *find_slot(table, name) : NULL;
}

ml_status ml_graph_new(const char *name, ml_graph **out, ml_error *err)
{
  *out = NULL;
  ml_graph *g = ml_alloc_zero(1, sizeof *g);
  if (!g) return ml_fail_memory(err, sizeof *g, "a graph");
  g->arena = ml_arena_new();
  g->names = ml_alloc_zero(1, sizeof(name_table));
  if (!g->arena || !g->names || !(g->name = ml_arena_strndup(g->arena, name ? name : "model", strlen(name ? name : "model")))) {
    ml_graph_free(g);
    return ml_fail_memory(err, sizeof *g, "a graph");
  }
  *out = g;
  return ML_OK;
}

static void free_attrs(const ml_attrs *attrs, bool subgraphs)
{
  for (size_t i = 0; i < attrs->count; i++) {
    const ml_attr *a = &attrs->items[i];
    if (a->type == ML_ATTR_TENSOR) ml_tensor_release(a->as.tensor);
    if (a->type == ML_ATTR_GRAPH && subgraphs) ml_graph_free(a->as.graph);
    if (a->type == ML_ATTR_TENSORS) for (size_t k = 0; k < a->count; k++) ml_tensor_release(a->as.tensors[k]);
  }
}

void ml_graph_free(ml_graph *g)
{
  if (!g) return;
  for (size_t i = 0; i < g->n_values; i++) ml_tensor_release(g->values[i]->init);
  for (size_t i = 0; i < g->n_nodes; i++) free_attrs(&g->nodes[i]->attrs, true);
  if (g->names) ml_free(((name_table *)g->names)->slots);
  ml_free(g->names);
  ml_free(g->values);
  ml_free(g->nodes);
  ml_free(g->inputs);
  ml_free(g->outputs);
  ml_free(g->properties);
  ml_arena_free(g->arena);
  ml_free(g);
}

/* A name nobody has: hint, hint_1, hint_2 … */
static const char *unique_name(ml_graph *g, const char *hint, ml_error *err)
{
  const char *name = ml_graph_find(g, hint) ? NULL : ml_arena_strndup(g->arena, hint, strlen(hint));
  while (!name) {
    name = ml_arena_printf(g->arena, "%s_%u", hint, ++g->next_name);
    if (!name) break;
    if (ml_graph_find(g, name)) name = NULL;
  }
  if (!name) ml_fail_memory(err, strlen(hint), "a name");
  return name;
}

static ml_status add_value(ml_graph *g, const char *name, const char *hint, ml_value **out, ml_error *err)
{
  if (name && *name) {
    if (ml_graph_find(g, name)) return ml_fail(err, ML_INVALID_ARGUMENT, "the name '%s' is used twice", name);
    name = ml_arena_strndup(g->arena, name, strlen(name));
    if (!name) return ml_fail_memory(err, 1, "a name");
  } else {
    name = unique_name(g, hint, err);
    if (!name) return ML_RESOURCE_EXHAUSTED;
  }
  ML_TRY(ml_grow(&g->values, &g->cap_values, g->n_values + 1, sizeof *g->values, "values", err));
  ML_TRY(grow_names(g, err));
  ml_value *v = ml_arena_alloc(g->arena, sizeof *v);
  if (!v) return ml_fail_memory(err, sizeof *v, "a value");
  v->id = (uint32_t)g->n_values;
  v->name = name;
  v->rank = ML_UNKNOWN;
  g->values[g->n_values++] = v;
  name_table *table = g->names;
  *find_slot(table, name) = v;
  table->count++;
  *out = v;
  return ML_OK;
}

ml_status ml_graph_rename(ml_graph *g, ml_value *value, const char *name, ml_error *err)
{
  if (strcmp(value->name, name) == 0) return ML_OK;
  if (!*name) return ml_fail(err, ML_INVALID_ARGUMENT, "an empty name for value '%s'", value->name);
  if (ml_graph_find(g, name)) return ml_fail(err, ML_INVALID_ARGUMENT, "the name '%s' is used twice", name);
  name = ml_arena_strndup(g->arena, name, strlen(name));
  if (!name) return ml_fail_memory(err, 1, "a name");
  value->name = name;
  /* open addressing cannot drop one entry: build the table again */
  name_table *table = g->names;
  memset(table->slots, 0, table->capacity * sizeof *table->slots);
  for (size_t i = 0; i < g->n_values; i++) *find_slot(table, g->values[i]->name) = g->values[i];
  return ML_OK;
}

static void shape_from_tensor(ml_value *v)
{
  v->dtype = v->init->view.dtype;
  v->rank = v->init->view.rank;
  memcpy(v->dims, v->init->view.dims, sizeof v->dims);
}

ml_status ml_graph_input(ml_graph *g, const char *name, ml_dtype dtype, const int64_t *dims, int32_t rank, ml_value **out, ml_error *err)
{
  if (rank > ML_MAX_RANK) return ml_fail(err, ML_INVALID_ARGUMENT, "input '%s': rank %d, at most %d", name ? name : "", rank, ML_MAX_RANK);
  ml_view like = { .dtype = dtype, .rank = rank };
  for (int32_t i = 0; i < rank; i++) like.dims[i] = dims[i] < 0 ? ML_UNKNOWN : dims[i];
  return ml_graph_input_like(g, name, &like, out, err);
}

ml_status ml_graph_input_like(ml_graph *g, const char *name, const ml_view *like, ml_value **out, ml_error *err)
{
  ML_TRY(ml_grow(&g->inputs, &g->cap_inputs, g->n_inputs + 1, sizeof *g->inputs, "inputs", err));
  ml_value *v;
  ML_TRY(add_value(g, name, "input", &v, err));
  v->dtype = like->dtype;
  v->type = like->type;
  v->rank = like->rank;
  memcpy(v->dims, like->dims, sizeof v->dims);
  v->is_input = true;
  g->inputs[g->n_inputs++] = v;
  if (out) *out = v;
  return ML_OK;
}

/* ---- subgraphs ---- */
ml_status ml_graph_capture(ml_graph *g, const char *name, const ml_value *outer, ml_value **out, ml_error *err)
{
  ml_view like;
  ml_value_view(outer, &like);
  ML_TRY(ml_graph_input_like(g, name, &like, out, err));
  g->n_captures++;
  return ML_OK;
}

void ml_graph_fix_capture(ml_graph *g, size_t index, ml_tensor *tensor)
{
  size_t at = g->n_inputs - g->n_captures + index;
  ml_value *v = g->inputs[at];
  v->init = ml_tensor_retain(tensor);
  v->is_input = false;
  shape_from_tensor(v);
  memmove(&g->inputs[at], &g->inputs[at + 1], (g->n_inputs - at - 1) * sizeof *g->inputs);
  g->n_inputs--;
  g->n_captures--;
}

int32_t ml_subgraph_captures(const ml_graph *graph) { return (int32_t)graph->n_captures; }
int32_t ml_subgraph_inputs(const ml_graph *graph) { return (int32_t)(graph->n_inputs - graph->n_captures); }
int32_t ml_subgraph_outputs(const ml_graph *graph) { return (int32_t)graph->n_outputs; }
void ml_subgraph_output(const ml_graph *graph, int32_t index, ml_view *view)
{
  ml_value_view(graph->outputs[index], view);
  view->data = NULL;
}

ml_status ml_graph_initializer(ml_graph *g, const char *name, ml_tensor *tensor, bool trainable, ml_value **out, ml_error *err)
{
  ml_value *v;
  ML_TRY(add_value(g, name, "constant", &v, err));
  v->init = ml_tensor_retain(tensor);
  v->trainable = trainable;
  shape_from_tensor(v);
  if (out) *out = v;
  return ML_OK;
}

ml_status ml_graph_set_initializer(ml_graph *g, ml_value *value, ml_tensor *tensor, ml_error *err)
{
  (void)g;
  if (!value->init) return ml_fail(err, ML_INVALID_ARGUMENT, "value '%s' is not an initialiser", value->name);
  if (tensor->view.dtype != value->dtype)
    return ml_fail(err, ML_INVALID_ARGUMENT, "initialiser '%s' is %s, not %s", value->name, ml_dtype_name(value->dtype), ml_dtype_name(tensor->view.dtype));
  ml_tensor_retain(tensor);
  ml_tensor_release(value->init);
  value->init = tensor;
  shape_from_tensor(value);
  return ML_OK;
}

/* ---- attributes ---- */
static void *copy_bytes(ml_arena *arena, const void *bytes, size_t size)
{
  void *copy = ml_arena_alloc(arena, size ? size : 1);
  if (copy && size) memcpy(copy, bytes, size);
  return copy;
}

static bool copy_str(ml_arena *arena, ml_str from, ml_str *to)
{
  to->bytes = ml_arena_strndup(arena, from.bytes, from.length);
  to->length = from.length;
  return to->bytes != NULL;
}

static bool copy_attr(ml_graph *g, const ml_attr *from, ml_attr *to)
{
  ml_arena *arena = g->arena;
  *to = *from;
  if (!(to->name = ml_arena_strndup(arena, from->name, strlen(from->name)))) return false;
  switch (from->type) {
    case ML_ATTR_STRING: return copy_str(arena, from->as.s, &to->as.s);
    case ML_ATTR_FLOATS: return (to->as.floats = copy_bytes(arena, from->as.floats, from->count * sizeof(float))) != NULL;
    case ML_ATTR_INTS: return (to->as.ints = copy_bytes(arena, from->as.ints, from->count * sizeof(int64_t))) != NULL;
    case ML_ATTR_STRINGS: {
      ml_str *strings = ml_arena_alloc(arena, (from->count + 1) * sizeof *strings);
      if (!strings) return false;
      for (size_t i = 0; i < from->count; i++) if (!copy_str(arena, from->as.strings[i], &strings[i])) return false;
      to->as.strings = strings;
      return true;
    }
    case ML_ATTR_TENSORS: return (to->as.tensors = copy_bytes(arena, from->as.tensors, from->count * sizeof(ml_tensor *))) != NULL;
    default: return true;
  }
}

/* Second half of copying, which cannot fail: takes the references. Subgraphs are taken over. */
static void retain_attrs(const ml_attrs *attrs)
{
  for (size_t i = 0; i < attrs->count; i++) {
    const ml_attr *a = &attrs->items[i];
    if (a->type == ML_ATTR_TENSOR) ml_tensor_retain(a->as.tensor);
    if (a->type == ML_ATTR_TENSORS) for (size_t k = 0; k < a->count; k++) ml_tensor_retain(a->as.tensors[k]);
  }
}

static size_t captures_of(const ml_attr *attrs, size_t n_attrs)
{
  size_t n = 0;
  for (size_t i = 0; i < n_attrs; i++) if (attrs[i].type == ML_ATTR_GRAPH) n += attrs[i].as.graph->n_captures;
  return n;
}

static const char *attr_type_name(ml_attr_type type)
{
  static const char *const names[] = { "none", "float", "int", "string", "tensor", "graph", "floats", "ints", "strings", "tensors", "graphs", "sparse tensor", "sparse tensors", "type" };
  return (size_t)type < sizeof names / sizeof *names ? names[type] : "unknown type";
}

static ml_status check_attrs(const ml_op_def *op, const ml_attr *attrs, size_t n_attrs, ml_error *err)
{
  for (size_t i = 0; i < n_attrs; i++) {
    const ml_attr_def *def = op->attrs;
    while (def && def->name && strcmp(def->name, attrs[i].name) != 0) def++;
    if (!def || !def->name) return ml_fail(err, ML_INVALID_ARGUMENT, "unknown attribute '%s'", attrs[i].name);
    if (def->type != attrs[i].type)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is %s, expected %s", attrs[i].name, attr_type_name(attrs[i].type), attr_type_name(def->type));
    for (size_t k = 0; k < i; k++)
      if (strcmp(attrs[k].name, attrs[i].name) == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is given twice", attrs[i].name);
  }
  for (const ml_attr_def *def = op->attrs; def && def->name; def++) {
    if (!def->required) continue;
    ml_attrs all = { attrs, n_attrs };
    if (!ml_attr_find(&all, def->name)) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute '%s' is missing", def->name);
  }
  return ML_OK;
}

static ml_status check_arity(const ml_op_def *op, size_t n_in, ml_value *const *in, size_t n_out, ml_error *err)
{
  size_t used = n_in;
  while (used > 0 && !in[used - 1]) used--;
  if (used < (size_t)op->min_in || (used > (size_t)op->max_in && !(op->flags & ML_OP_VARIADIC)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "%zu inputs, expected %d to %d", used, op->min_in, op->max_in);
  for (int32_t i = 0; i < op->min_in; i++)
    if (!in[i]) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", i);
  if (n_out < (size_t)op->min_out || n_out > (size_t)op->max_out)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%zu outputs, expected %d to %d", n_out, op->min_out, op->max_out);
  return ML_OK;
}

static ml_status add_node(ml_graph *g, const ml_op_def *op, const char *name, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in,
                          size_t n_out, const char *const *out_names, ml_node **out_node, ml_error *err)
{
  ML_TRY(check_attrs(op, attrs, n_attrs, err));
  ML_TRY(check_arity(op, n_in - captures_of(attrs, n_attrs), in, n_out, err));
  ML_TRY(ml_grow(&g->nodes, &g->cap_nodes, g->n_nodes + 1, sizeof *g->nodes, "nodes", err));
  ml_node *node = ml_arena_alloc(g->arena, sizeof *node);
  ml_attr *items = ml_arena_alloc(g->arena, (n_attrs + 1) * sizeof *items);
  ml_value **pointers = ml_arena_alloc(g->arena, (n_in + n_out + 1) * sizeof *pointers);
  if (!node || !items || !pointers) return ml_fail_memory(err, sizeof *node, "a node");
  for (size_t i = 0; i < n_attrs; i++) if (!copy_attr(g, &attrs[i], &items[i])) return ml_fail_memory(err, 1, "attributes");
  node->id = g->next_node;
  node->op = op;
  node->name = name && *name ? ml_arena_strndup(g->arena, name, strlen(name)) : ml_arena_printf(g->arena, "%s_%u", op->name, node->id);
  if (!node->name) return ml_fail_memory(err, 1, "a name");
  node->attrs = (ml_attrs){ items, n_attrs };
  node->n_in = (int32_t)n_in;
  node->n_out = (int32_t)n_out;
  node->in = pointers;
  node->out = pointers + n_in;
  for (size_t i = 0; i < n_in; i++) node->in[i] = in[i];
  size_t before = g->n_values;
  ml_status status = ML_OK;
  for (size_t i = 0; i < n_out && status == ML_OK; i++) {
    const char *out_name = out_names ? out_names[i] : NULL;
    if (out_name && !*out_name) continue;
    status = add_value(g, out_name, node->name, &node->out[i], err);
    if (status == ML_OK) node->out[i]->producer = node;
  }
  if (status != ML_OK) { /* leave no half-made node: the values made so far become orphans without a producer */
    for (size_t i = before; i < g->n_values; i++) g->values[i]->producer = NULL;
    return status;
  }
  retain_attrs(&node->attrs);
  g->next_node++;
  g->nodes[g->n_nodes++] = node;
  *out_node = node;
  return ML_OK;
}

ml_status ml_graph_node(ml_graph *g, const ml_op_def *op, const char *name, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in,
                        size_t n_out, const char *const *out_names, ml_value **out, ml_error *err)
{
  ml_node *node;
  ml_status status = add_node(g, op, name, attrs, n_attrs, n_in, in, n_out, out_names, &node, err);
  if (status != ML_OK) return ml_fail_in(err, status, "%s%s%s%s", op->name, name && *name ? " '" : "", name && *name ? name : "", name && *name ? "'" : "");
  status = ml_node_infer(g, node, err);
  if (status != ML_OK) {
    free_attrs(&node->attrs, false); /* subgraphs stay the caller's */
    g->n_nodes--;
    for (int32_t i = 0; i < node->n_out; i++) if (node->out[i]) node->out[i]->producer = NULL;
    return status;
  }
  if (out) for (size_t i = 0; i < n_out; i++) out[i] = node->out[i];
  return ML_OK;
}

ml_status ml_graph_output(ml_graph *g, ml_value *value, ml_error *err)
{
  ML_TRY(ml_grow(&g->outputs, &g->cap_outputs, g->n_outputs + 1, sizeof *g->outputs, "outputs", err));
  g->outputs[g->n_outputs++] = value;
  value->is_output = true;
  return ML_OK;
}

void ml_graph_clear_outputs(ml_graph *g)
{
  for (size_t i = 0; i < g->n_outputs; i++) g->outputs[i]->is_output = false;
  g->n_outputs = 0;
}

ml_status ml_graph_set_dim_name(ml_graph *g, ml_value *value, int32_t axis, const char *name, ml_error *err)
{
  if (axis < 0 || axis >= value->rank) return ml_fail(err, ML_OUT_OF_RANGE, "value '%s' has no axis %d", value->name, axis);
  const char *copy = ml_arena_strndup(g->arena, name, strlen(name));
  if (!copy) return ml_fail_memory(err, strlen(name), "a dimension name");
  value->dim_names[axis] = copy;
  return ML_OK;
}

ml_status ml_graph_set_property(ml_graph *g, const char *key, const char *value, size_t length, ml_error *err)
{
  const char *copy = ml_arena_strndup(g->arena, value, length);
  if (!copy) return ml_fail_memory(err, length, "metadata");
  for (size_t i = 0; i < g->n_properties; i++)
    if (strcmp(g->properties[i].key, key) == 0) {
      g->properties[i].value = copy;
      g->properties[i].length = length;
      return ML_OK;
    }
  ML_TRY(ml_grow(&g->properties, &g->cap_properties, g->n_properties + 1, sizeof *g->properties, "metadata", err));
  const char *name = ml_arena_strndup(g->arena, key, strlen(key));
  if (!name) return ml_fail_memory(err, strlen(key), "metadata");
  g->properties[g->n_properties++] = (ml_property){ name, copy, length };
  return ML_OK;
}

void ml_graph_remove_property(ml_graph *g, const char *key)
{
  const ml_property *property = ml_graph_property(g, key);
  if (!property) return;
  size_t at = (size_t)(property - g->properties);
  memmove(&g->properties[at], &g->properties[at + 1], (--g->n_properties - at) * sizeof *g->properties);
}

const ml_property *ml_graph_property(const ml_graph *g, const char *key)
{
  for (size_t i = 0; i < g->n_properties; i++) if (strcmp(g->properties[i].key, key) == 0) return &g->properties[i];
  return NULL;
}

/* ---- editing ---- */
void ml_graph_replace(ml_graph *g, ml_value *from, ml_value *to, bool outputs)
{
  for (size_t i = 0; i < g->n_nodes; i++)
    for (int32_t k = 0; k < g->nodes[i]->n_in; k++)
      if (g->nodes[i]->in[k] == from) g->nodes[i]->in[k] = to;
  if (!outputs || !from->is_output) return;
  for (size_t i = 0; i < g->n_outputs; i++) if (g->outputs[i] == from) g->outputs[i] = to;
  from->is_output = false;
  to->is_output = true;
}

void ml_graph_remove_if(ml_graph *g, bool (*dead)(const ml_node *node))
{
  size_t kept = 0;
  for (size_t i = 0; i < g->n_nodes; i++) {
    ml_node *node = g->nodes[i];
    if (!dead(node)) {
      g->nodes[kept++] = node;
      continue;
    }
    free_attrs(&node->attrs, true);
    for (int32_t k = 0; k < node->n_out; k++) if (node->out[k] && node->out[k]->producer == node) node->out[k]->producer = NULL;
  }
  g->n_nodes = kept;
}

ml_status ml_graph_become(ml_graph *g, ml_node *node, const ml_op_def *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in, ml_error *err)
{
  ML_TRY(check_attrs(op, attrs, n_attrs, err));
  ML_TRY(check_arity(op, n_in - captures_of(attrs, n_attrs), in, (size_t)node->n_out, err));
  ml_attr *items = ml_arena_alloc(g->arena, (n_attrs + 1) * sizeof *items);
  ml_value **inputs = ml_arena_alloc(g->arena, (n_in + 1) * sizeof *inputs);
  if (!items || !inputs) return ml_fail_memory(err, sizeof *items, "a node");
  for (size_t i = 0; i < n_attrs; i++) if (!copy_attr(g, &attrs[i], &items[i])) return ml_fail_memory(err, 1, "attributes");
  ml_attrs next = { items, n_attrs };
  retain_attrs(&next);
  free_attrs(&node->attrs, true);
  memcpy(inputs, in, n_in * sizeof *inputs);
  node->op = op;
  node->attrs = next;
  node->in = inputs;
  node->n_in = (int32_t)n_in;
  return ML_OK;
}

ml_status ml_graph_want_output(ml_graph *g, ml_node *node, int32_t index, ml_error *err)
{
  if (index >= node->op->max_out) return ml_fail(err, ML_INVALID_ARGUMENT, "%s has no output %d", node->op->name, index);
  if (index >= node->n_out) {
    ml_value **out = ml_arena_alloc(g->arena, ((size_t)index + 1) * sizeof *out);
    if (!out) return ml_fail_memory(err, sizeof *out, "a node");
    memcpy(out, node->out, (size_t)node->n_out * sizeof *out);
    node->out = out;
    node->n_out = index + 1;
  }
  if (node->out[index]) return ML_OK;
  ML_TRY(add_value(g, NULL, node->name, &node->out[index], err));
  node->out[index]->producer = node;
  return ML_OK;
}

void ml_graph_move_last(ml_graph *g, size_t index)
{
  ml_node *node = g->nodes[g->n_nodes - 1];
  memmove(&g->nodes[index + 1], &g->nodes[index], (g->n_nodes - 1 - index) * sizeof *g->nodes);
  g->nodes[index] = node;
}

size_t ml_graph_node_index(const ml_graph *g, const ml_node *node)
{
  size_t i = 0;
  while (i < g->n_nodes && g->nodes[i] != node) i++;
  return i;
}

ml_status ml_graph_uses(const ml_graph *g, uint32_t **uses, ml_error *err)
{
  uint32_t *count = ml_alloc_zero(g->n_values + 1, sizeof *count);
  if (!count) return ml_fail_memory(err, g->n_values * sizeof *count, "use counts");
  for (size_t i = 0; i < g->n_nodes; i++)
    for (int32_t k = 0; k < g->nodes[i]->n_in; k++) if (g->nodes[i]->in[k]) count[g->nodes[i]->in[k]->id]++;
  for (size_t i = 0; i < g->n_outputs; i++) count[g->outputs[i]->id]++;
  *uses = count;
  return ML_OK;
}

ml_status ml_graph_prune(ml_graph *g, ml_error *err)
{
  uint32_t *uses;
  ML_TRY(ml_graph_uses(g, &uses, err));
  size_t kept = g->n_nodes; /* compact from the end: users come after producers, so one backward pass is enough */
  for (size_t i = g->n_nodes; i-- > 0;) {
    ml_node *node = g->nodes[i];
    bool used = false;
    for (int32_t k = 0; k < node->n_out; k++) used = used || (node->out[k] && uses[node->out[k]->id]);
    if (used) {
      g->nodes[--kept] = node;
      continue;
    }
    for (int32_t k = 0; k < node->n_in; k++) if (node->in[k]) uses[node->in[k]->id]--;
    for (int32_t k = 0; k < node->n_out; k++) if (node->out[k]) node->out[k]->producer = NULL;
    free_attrs(&node->attrs, true);
    node->attrs.count = 0;
  }
  if (kept > 0) memmove(g->nodes, g->nodes + kept, (g->n_nodes - kept) * sizeof *g->nodes);
  g->n_nodes -= kept;
  for (size_t i = 0; i < g->n_values; i++) {
    ml_value *v = g->values[i];
    if (!v->init || uses[v->id]) continue;
    ml_tensor_release(v->init);
    v->init = NULL;
    v->trainable = false;
  }
  ml_free(uses);
  return ML_OK;
}

/* ---- shapes ---- */
void ml_value_view(const ml_value *value, ml_view *view)
{
  const ml_tensor *known = value->init;
  if (!known && value->producer && value->producer->op == &ml_op_constant) {
    const ml_attr *attr = ml_attr_find(&value->producer->attrs, "value");
    if (attr) known = attr->as.tensor;
  }
  if (known) {
    *view = known->view;
    return;
  }
  memset(view, 0, sizeof *view);
  view->dtype = value->dtype;
  view->type = value->type;
  view->rank = value->rank;
  memcpy(view->dims, value->dims, sizeof view->dims);
  if (ml_view_known(view) && ml_shape_count(view->dims, view->rank, view->dtype, &view->count, NULL) != ML_OK) view->count = 0;
}

ml_status ml__infer(ml_op_ctx *ctx, ml_error *err)
{
  for (int32_t i = 0; i < ctx->n_in; i++) {
    char text[96];
    if (ctx->in[i] && ctx->in[i]->type && !(ctx->op->flags & ML_OP_CONTAINERS))
      return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is %s, expected a tensor", i, ml_type_format(ctx->in[i]->type, text, sizeof text));
  }
  for (int32_t i = 0; i < ctx->n_out; i++) if (ctx->out[i]) *ctx->out[i] = (ml_view){ .rank = ML_UNKNOWN };
  return ml_op_infer(ctx, err);
}

#define NODE_MAX_STACK 16 /* operators with more inputs or outputs take their views from the heap */

ml_status ml_node_infer(ml_graph *g, ml_node *node, ml_error *err)
{
  (void)g;
  ml_view stack[NODE_MAX_STACK];
  ml_view *pointers_stack[NODE_MAX_STACK];
  size_t total = (size_t)node->n_in + (size_t)node->n_out;
  ml_view *views = stack, **pointers = pointers_stack;
  if (total > NODE_MAX_STACK) {
    views = ml_alloc_zero(total, sizeof *views);
    pointers = ml_alloc_zero(total, sizeof *pointers);
    if (!views || !pointers) {
      ml_free(views);
      ml_free(pointers);
      return ml_fail_memory(err, total * sizeof *views, "shape inference");
    }
  }
  for (int32_t i = 0; i < node->n_in; i++) {
    pointers[i] = node->in[i] ? &views[i] : NULL;
    if (node->in[i]) ml_value_view(node->in[i], &views[i]);
  }
  for (int32_t i = 0; i < node->n_out; i++) {
    pointers[node->n_in + i] = node->out[i] ? &views[node->n_in + i] : NULL;
  }
  ml_op_ctx ctx = { .op = node->op, .attrs = &node->attrs, .name = node->name, .n_in = node->n_in, .n_out = node->n_out,
                    .in = pointers, .out = pointers + node->n_in, .stream = node->id };
  ml_status status = ml__infer(&ctx, err);
  if (status != ML_OK) status = ml_fail_in(err, status, "%s '%s'", node->op->name, node->name);
  for (int32_t i = 0; i < node->n_out && status == ML_OK; i++) {
    ml_value *v = node->out[i];
    const ml_view *view = pointers[node->n_in + i];
    if (!v) continue;
    if (view->dtype) v->dtype = view->dtype;
    v->type = view->type;
    if (view->rank != ML_UNKNOWN) {
      bool refine = v->rank == view->rank; /* a declared dimension stays where inference cannot tell */
      for (int32_t d = 0; d < view->rank; d++)
        if (view->dims[d] != ML_UNKNOWN || !refine) v->dims[d] = view->dims[d];
      v->rank = view->rank;
    }
    /* the batch dimension keeps its name through the graph, for people and for the written file */
    const ml_value *first = node->n_in > 0 ? node->in[0] : NULL;
    if (first && first->rank > 0 && v->rank > 0 && first->dims[0] == ML_UNKNOWN && v->dims[0] == ML_UNKNOWN && !v->dim_names[0])
      v->dim_names[0] = first->dim_names[0];
  }
  if (views != stack) {
    ml_free(views);
    ml_free(pointers);
  }
  return status;
}

ml_status ml_graph_infer(ml_graph *g, ml_error *err)
{
  for (size_t i = 0; i < g->n_nodes; i++) ML_TRY(ml_node_infer(g, g->nodes[i], err));
  return ML_OK;
}

size_t ml_graph_parameters(const ml_graph *g, bool trainable_only)
{
  size_t total = 0;
  for (size_t i = 0; i < g->n_values; i++)
    if (g->values[i]->init && (g->values[i]->trainable || (!trainable_only && ml_dtype_is_float(g->values[i]->dtype)))) total += g->values[i]->init->view.count;
  return total;
}

/* ---- clone ---- */
static ml_status clone_into(const ml_graph *from, ml_graph *to, ml_value **map, ml_error *err)
{
  for (size_t i = 0; i < from->n_inputs; i++) {
    const ml_value *v = from->inputs[i];
    ml_view like;
    ml_value_view(v, &like);
    ML_TRY(ml_graph_input_like(to, v->name, &like, &map[v->id], err));
  }
  for (size_t i = 0; i < from->n_values; i++) {
    const ml_value *v = from->values[i];
    if (v->init) ML_TRY(ml_graph_initializer(to, v->name, v->init, v->trainable, &map[v->id], err));
  }
  for (size_t i = 0; i < from->n_nodes; i++) {
    const ml_node *node = from->nodes[i];
    const char *names[NODE_MAX_STACK];
    ml_value *in[NODE_MAX_STACK];
    size_t n_in = (size_t)node->n_in, n_out = (size_t)node->n_out;
    const char **out_names = n_out <= NODE_MAX_STACK ? names : ml_arena_alloc(to->arena, n_out * sizeof *out_names);
    ml_value **inputs = n_in <= NODE_MAX_STACK ? in : ml_arena_alloc(to->arena, n_in * sizeof *inputs);
    if (!out_names || !inputs) return ml_fail_memory(err, 1, "a node");
    for (size_t k = 0; k < n_in; k++) inputs[k] = node->in[k] ? map[node->in[k]->id] : NULL;
    for (size_t k = 0; k < n_out; k++) out_names[k] = node->out[k] ? node->out[k]->name : "";
    ml_node *copy;
    ML_TRY(add_node(to, node->op, node->name, node->attrs.items, node->attrs.count, n_in, inputs, n_out, out_names, &copy, err));
    copy->id = node->id;
    for (size_t k = 0; k < copy->attrs.count; k++) {
      ml_attr *attr = (ml_attr *)(uintptr_t)&copy->attrs.items[k];
      ml_status status = attr->type == ML_ATTR_GRAPH ? ml_graph_clone(attr->as.graph, &attr->as.graph, err) : ML_OK;
      if (status != ML_OK) { /* subgraphs from k on still belong to `from`: make this graph forget them */
        for (size_t j = k; j < copy->attrs.count; j++)
          if (copy->attrs.items[j].type == ML_ATTR_GRAPH) ((ml_attr *)(uintptr_t)&copy->attrs.items[j])->type = ML_ATTR_NONE;
        return status;
      }
    }
    for (size_t k = 0; k < n_out; k++) if (node->out[k]) map[node->out[k]->id] = copy->out[k];
  }
  for (size_t i = 0; i < from->n_values; i++) {
    const ml_value *v = from->values[i];
    ml_value *copy = map[v->id];
    if (!copy) continue;
    copy->dtype = v->dtype;
    copy->type = v->type;
    copy->rank = v->rank;
    memcpy(copy->dims, v->dims, sizeof v->dims);
    for (int32_t d = 0; d < v->rank; d++) {
      if (!v->dim_names[d]) continue;
      copy->dim_names[d] = ml_arena_strndup(to->arena, v->dim_names[d], strlen(v->dim_names[d]));
      if (!copy->dim_names[d]) return ml_fail_memory(err, 1, "a dimension name");
    }
  }
  for (size_t i = 0; i < from->n_outputs; i++) ML_TRY(ml_graph_output(to, map[from->outputs[i]->id], err));
  for (size_t i = 0; i < from->n_properties; i++)
    ML_TRY(ml_graph_set_property(to, from->properties[i].key, from->properties[i].value, from->properties[i].length, err));
  const char *const texts[] = { from->producer_name, from->producer_version, from->doc };
  const char **const copies[] = { &to->producer_name, &to->producer_version, &to->doc };
  for (size_t i = 0; i < 3; i++)
    if (texts[i] && !(*copies[i] = ml_arena_strndup(to->arena, texts[i], strlen(texts[i])))) return ml_fail_memory(err, 1, "a graph");
  to->model_version = from->model_version;
  to->n_captures = from->n_captures;
  to->onnx_opset = from->onnx_opset;
  to->onnx_ml_opset = from->onnx_ml_opset;
  if (to->next_node < from->next_node) to->next_node = from->next_node;
  to->next_name = from->next_name;
  return ML_OK;
}

ml_status ml_graph_clone(const ml_graph *graph, ml_graph **out, ml_error *err)
{
  *out = NULL;
  ml_graph *copy;
  ML_TRY(ml_graph_new(graph->name, &copy, err));
  ml_value **map = ml_alloc_zero(graph->n_values + 1, sizeof *map);
  ml_status status = map ? clone_into(graph, copy, map, err) : ml_fail_memory(err, graph->n_values * sizeof *map, "a graph copy");
  ml_free(map);
  if (status != ML_OK) {
    ml_graph_free(copy);
    return status;
  }
  *out = copy;
  return ML_OK;
}
