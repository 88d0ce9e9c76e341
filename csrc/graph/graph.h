/* The graph: the one representation of a model.
 * Lives here: values, nodes, building and editing, shape inference, clone. May include: ops, tensor, base.
 * Ownership: an ml_graph owns its values, nodes, names and attributes (one arena) and holds one reference on each initialiser.
 * Not thread-safe while it is edited; reading from several threads is.
 *
 * Invariants: nodes are in topological order; a value has at most one producer (SSA); names of values are unique and not empty;
 * every value knows its users only through ml_graph_uses (computed). */
#ifndef ML_GRAPH_GRAPH_H
#define ML_GRAPH_GRAPH_H
#include "ops/op.h"

typedef struct ml_node ml_node;
typedef struct ml_graph ml_graph;

struct ml_value { /* read-only outside csrc/graph, except where said */
  uint32_t id;                     /* index in graph->values */
  const char *name;
  ml_dtype dtype;                  /* NONE: not inferred yet */
  int32_t rank;                    /* ML_UNKNOWN: not known */
  uint32_t type;                   /* 0: a tensor; else a container (tensor/container.h): dtype is ML_CONTAINER, rank 0 */
  int64_t dims[ML_MAX_RANK];
  const char *dim_names[ML_MAX_RANK]; /* symbolic name of an unknown dimension, or NULL */
  ml_tensor *init;                 /* initialiser; one reference held; NULL: computed or an input */
  bool trainable;                  /* initialiser that training may change; may be set by anybody */
  bool is_input, is_output;
  ml_node *producer;               /* NULL: input or initialiser */
};

struct ml_node {
  uint32_t id;                     /* unique and stable within the graph; the node's random stream */
  const ml_op_def *op;
  const char *name;                /* never NULL; made from op and id when the file has none */
  ml_attrs attrs;
  int32_t n_in, n_out;
  ml_value **in;                   /* NULL: left out */
  ml_value **out;                  /* NULL: not wanted */
};

typedef struct ml_property { const char *key, *value; size_t length; } ml_property;

struct ml_graph {
  ml_arena *arena;
  const char *name;
  ml_value **values; size_t n_values, cap_values;
  ml_node **nodes; size_t n_nodes, cap_nodes;
  ml_value **inputs; size_t n_inputs, cap_inputs;    /* without initialisers; a subgraph's captures stand last */
  size_t n_captures;               /* values of the graphs around a subgraph that it reads (ops/op.h, ml_subgraph) */
  ml_value **outputs; size_t n_outputs, cap_outputs;
  ml_property *properties; size_t n_properties, cap_properties; /* ONNX metadata_props */
  const char *producer_name, *producer_version, *doc; /* may be NULL */
  int64_t model_version;
  int64_t onnx_opset, onnx_ml_opset; /* operator sets of the file it was read from; 0: none */
  uint32_t next_node, next_name;
  void *names;                     /* private: hash from name to value */
};

ml_status ml_graph_new(const char *name, ml_graph **out, ml_error *err);
void ml_graph_free(ml_graph *graph); /* NULL allowed */
/* Deep copy; initialiser tensors are shared (retained), trained values too. */
ml_status ml_graph_clone(const ml_graph *graph, ml_graph **out, ml_error *err);

/* ---- building; name NULL: a unique one is made from `hint` ---- */
ml_status ml_graph_input(ml_graph *g, const char *name, ml_dtype dtype, const int64_t *dims, int32_t rank, ml_value **out, ml_error *err);
/* An input with the dtype, type and shape of a view: any kind of value. */
ml_status ml_graph_input_like(ml_graph *g, const char *name, const ml_view *like, ml_value **out, ml_error *err);
/* In a subgraph: a value of a graph around it, as an input behind the formal ones; all formal inputs must be there. */
ml_status ml_graph_capture(ml_graph *g, const char *name, const ml_value *outer, ml_value **out, ml_error *err);
/* Turns a capture into an initialiser of the subgraph. */
void ml_graph_fix_capture(ml_graph *g, size_t index, ml_tensor *tensor);
/* Retains tensor. */
ml_status ml_graph_initializer(ml_graph *g, const char *name, ml_tensor *tensor, bool trainable, ml_value **out, ml_error *err);
/* Checks arity and attributes against op, copies attrs, makes output values (names given or made; n_out_names may be fewer than n_out), runs shape
 * inference of the node. out_names[i] == "" : that output is not wanted. Appends at the end (the inputs must exist already). Tensors among the
 * attributes are retained; subgraphs are taken over on success, and `in` has the captures of each behind the declared inputs. */
ml_status ml_graph_node(ml_graph *g, const ml_op_def *op, const char *name, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in,
                        size_t n_out, const char *const *out_names, ml_value **out, ml_error *err);
ml_status ml_graph_output(ml_graph *g, ml_value *value, ml_error *err);
void ml_graph_clear_outputs(ml_graph *g); /* the graph has no outputs until others are marked */
ml_value *ml_graph_find(const ml_graph *g, const char *name); /* NULL: no such value */
ml_status ml_graph_rename(ml_graph *g, ml_value *value, const char *name, ml_error *err);
/* Symbolic name of an unknown dimension ("batch"); inference carries the name of the first dimension on. */
ml_status ml_graph_set_dim_name(ml_graph *g, ml_value *value, int32_t axis, const char *name, ml_error *err);
ml_status ml_graph_set_property(ml_graph *g, const char *key, const char *value, size_t length, ml_error *err);
void ml_graph_remove_property(ml_graph *g, const char *key); /* nothing happens when there is none */
const ml_property *ml_graph_property(const ml_graph *g, const char *key);
/* Replaces the initialiser's tensor (same dtype; another shape needs ml_graph_infer afterwards). */
ml_status ml_graph_set_initializer(ml_graph *g, ml_value *value, ml_tensor *tensor, ml_error *err);

/* ---- editing ---- */
/* Every use of `from` (node inputs and, when outputs is true, graph outputs) becomes `to`. */
void ml_graph_replace(ml_graph *g, ml_value *from, ml_value *to, bool outputs);
/* Removes every node `dead` says so of, in one pass. */
void ml_graph_remove_if(ml_graph *g, bool (*dead)(const ml_node *node));
/* Makes the node another one: new operator, attributes and inputs; outputs (and so their names and users) stay. */
ml_status ml_graph_become(ml_graph *g, ml_node *node, const ml_op_def *op, const ml_attr *attrs, size_t n_attrs, size_t n_in, ml_value *const *in, ml_error *err);
/* Makes output `index` of the node exist (a value with a name of its own) when it was not wanted before. */
ml_status ml_graph_want_output(ml_graph *g, ml_node *node, int32_t index, ml_error *err);
/* Moves the last node to position `index` (after ml_graph_node, to insert in the middle). */
void ml_graph_move_last(ml_graph *g, size_t index);
size_t ml_graph_node_index(const ml_graph *g, const ml_node *node);
/* Number of node inputs and graph outputs that use each value, indexed by value id; caller frees with ml_free. */
ml_status ml_graph_uses(const ml_graph *g, uint32_t **uses, ml_error *err);
/* Drops nodes whose outputs nobody uses and initialisers nobody reads. */
ml_status ml_graph_prune(ml_graph *g, ml_error *err);
/* Runs shape inference over all nodes again. */
ml_status ml_graph_infer(ml_graph *g, ml_error *err);
/* Shape inference of one node: fills in dtype and shape of its outputs; message begins with operator and node name. */
ml_status ml_node_infer(ml_graph *g, ml_node *node, ml_error *err);
/* dtype/shape (and data when an initialiser) of a value as a view */
void ml_value_view(const ml_value *value, ml_view *view);
/* Every unknown first dimension of inputs, as dims text: "(-1, 30)"… for messages */
size_t ml_graph_parameters(const ml_graph *g, bool trainable_only); /* number of elements */

#endif
