/* Inside of the ONNX reader (onnx_read.c, onnx_type.c, onnx_attr.c, onnx_function.c); nobody else includes it.
 * Lives here: the state of an import. One importer reads one graph message: the model's, a subgraph (which looks names up in the importer
 * around it, `outer`, and captures what it finds) or a function's body (whose nodes go into the caller's graph under names of their own, `call`).
 * Shared with the writer: types. May include: graph, codec, base. Ownership: importers live on the stack of whoever reads the node they belong to. */
#ifndef ML_FORMAT_ONNX_IMPORT_H
#define ML_FORMAT_ONNX_IMPORT_H
#include "format/onnx_proto.h"
#include "format/opset.h"

typedef struct ml__function { /* a FunctionProto */
  const char *name, *domain, *overload;
  ml_pb_reader body;
  bool checked; /* its operators have been looked at */
} ml__function;

typedef struct ml__binding { const char *name; ml_value *value; const char *as; } ml__binding; /* value: of an input (NULL: left out); as: of an output */

typedef struct ml__call { /* of a function */
  const char *prefix;  /* in front of the names that the body defines */
  ml__binding *inputs, *outputs;
  size_t n_inputs, n_outputs;
  const ml_attr *attrs;
  size_t n_attrs;
} ml__call;

typedef struct ml__importer {
  ml__onnx_source *source;
  struct ml__importer *outer; /* NULL: the model's graph */
  const ml__call *call;       /* NULL: outside functions */
  const ml__onnx_node *subgraph_of; /* the node that the subgraph belongs to, with its inputs; NULL: the model's graph */
  bool local;                 /* names are those of the call's function, not of the graph */
  size_t depth;               /* subgraphs and calls around it */
  ml_graph *graph;
  ml_arena *arena;            /* of the current nodes */
  int64_t ir_version, versions[ML__OPSET_DOMAINS]; /* imported version of each domain known here; 0: not imported */
  ml_pb_reader model, body;   /* whole model; the graph or function */
  ml__upgrade upgrade;
  ml_value **captured;        /* of a subgraph: values of outer->graph, in order of its captures */
  size_t n_captured, cap_captured;
} ml__importer;

/* A declared type. */
typedef struct ml__declared {
  ml_dtype dtype; /* NONE: not given */
  uint32_t type;  /* a container's; 0: tensor */
  int32_t rank;   /* ML_UNKNOWN: no shape */
  int64_t dims[ML_MAX_RANK];
  const char *names[ML_MAX_RANK]; /* in the graph's arena */
} ml__declared;

/* Tensors and subgraphs decoded for a node; tensors are released when the node has been made (the graph has its own references then), subgraphs
 * only when it has not. */
typedef struct ml__owned {
  ml_tensor **tensors; size_t n_tensors, cap_tensors;
  ml_graph **graphs; size_t n_graphs, cap_graphs;
} ml__owned;

/* A string field as a C string in arena; `what` names the field in messages. */
ml_status ml__onnx_text(const ml_pb_field *f, ml_arena *arena, const char *what, const char **out, ml_error *err);
/* A singular embedded message: may come once. */
ml_status ml__onnx_message(const ml_pb_reader *parent, const ml_pb_field *f, bool *seen, const char *what, ml_pb_reader *out, ml_error *err);

/* onnx_type.c */
ml_status ml__onnx_read_type(ml__importer *im, ml_pb_reader reader, ml__declared *type, ml_error *err);
void ml__onnx_put_type(ml_pb_writer *w, const ml_value *v);
void ml__onnx_put_coded_type(ml_pb_writer *w, uint32_t type); /* contents of a TypeProto without shapes */

/* onnx_attr.c: all attributes of a node whose inputs are in place; subgraphs append their captures to the inputs. */
ml_status ml__onnx_read_attrs(ml__importer *im, ml_pb_reader node_reader, ml__onnx_node *node, ml__owned *owned, ml_error *err);
/* One AttributeProto; *left_out: it refers to an attribute that the call does not have. */
ml_status ml__onnx_read_attr(ml__importer *im, ml_pb_reader reader, ml__onnx_node *node, ml_attr *attr, bool *left_out, ml__owned *owned, ml_error *err);
void ml__onnx_release_owned(ml__owned *owned);

/* onnx_read.c */
ml_status ml__onnx_local_name(const ml__importer *im, const char *name, const char **out, ml_error *err); /* what a name defined here is called in the graph */
ml_status ml__onnx_read_opset(ml__importer *im, ml_pb_reader reader, ml_error *err);
ml_status ml__onnx_read_nodes(ml__importer *im, uint32_t field, ml_error *err);
/* Reads the subgraph `reader` as an attribute of `node` (of im): *out is the caller's, its captures have been appended to the node's inputs. */
ml_status ml__onnx_read_subgraph(ml__importer *im, ml_pb_reader reader, ml__onnx_node *node, ml_graph **out, ml_error *err);

/* onnx_function.c */
ml_status ml__onnx_read_function(ml__importer *im, ml_pb_reader reader, ml_error *err);           /* notes it in the source */
ml__function *ml__onnx_find_function(const ml__importer *im, const char *domain, const char *name, const char *overload); /* NULL: none */
ml_status ml__onnx_function_opsets(ml__importer *im, const ml__function *function, ml_error *err); /* those of the body, into im */
ml_status ml__onnx_call(ml__importer *im, const ml__function *function, const ml__onnx_node *node, const char *place, ml_error *err);

#endif
