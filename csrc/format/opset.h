/* Operator versions: every ONNX node becomes the canonical (newest) form of its operator on the way in and, where a file should
 * stay readable by runtimes of opset 17, an older form on the way out. Lives here: what a node looks like between file and graph,
 * and the two walks over one table of rows (opset.c). May include: graph, tensor, base. Ownership: nodes under conversion live in
 * the scratch arena of the import or export. */
#ifndef ML_FORMAT_OPSET_H
#define ML_FORMAT_OPSET_H
#include "graph/graph.h"

/* ---- domains ---- */
enum { ML__OPSET_DOMAINS = 5 };
/* Number of the domain, ai.onnx ("" too) being 0; -1 when no operator here is of it. */
int32_t ml__opset_domain(const char *domain);
const char *ml__opset_domain_name(int32_t domain);
/* Newest version whose operators we know; 0 for -1. */
int32_t ml__opset_newest(int32_t domain);

/* ---- reading ---- */
enum { ML__OPSET_ROOM = 8, ML__OPSET_AFTER = 2 }; /* inputs and attributes an upgrade may add; nodes it may put behind */

typedef struct ml__after { /* a node behind the upgraded one, reading its output `output` */
  const char *op;
  size_t output;
  ml_value *second;    /* second input or NULL */
  ml_attr attr;        /* type NONE: none */
  const char *out_name;
} ml__after;

typedef struct ml__onnx_node {
  const char *domain, *op, *name;
  int64_t version;                /* of the domain's operator set in the file */
  ml_attr *attrs; size_t n_attrs; /* room for ML__OPSET_ROOM more; tensors are borrowed */
  ml_value **in; size_t n_in;     /* room for ML__OPSET_ROOM more */
  const char **out; size_t n_out; /* "": not wanted; NULL: wanted under any name */
  ml__after after[ML__OPSET_AFTER]; size_t n_after;
} ml__onnx_node;

typedef struct ml__upgrade {
  ml_graph *graph;
  ml_arena *scratch;
  size_t differentiated; /* nodes, by Gradients so far */
  ml_value **made; size_t n_made, cap_made; /* values that the file does not know, whose names must give way */
} ml__upgrade;

/* Brings node to the canonical form: attributes and inputs change, constants and nodes in front of it are added to the graph. */
ml_status ml__opset_upgrade(ml__upgrade *upgrade, ml__onnx_node *node, ml_error *err);
/* Of Scan 8 (opset_scan.c): the subgraph attribute changes owner; it is NULL when it was freed on the way. */
ml_status ml__opset_up_scan(ml__upgrade *upgrade, ml__onnx_node *node, ml_error *err);
/* What the operator is called today: Upsample has become Resize, Scatter ScatterElements. */
const char *ml__opset_current_name(const char *domain, const char *op);
/* First version of ai.onnx that has the operator (1 when it has always been there). */
int32_t ml__opset_introduced(const char *domain, const char *op);
/* Gradient of ai.onnx.preview.training (onnx_gradient.c): is a node one; the nodes that compute what it asks for, in its place (the
 * limit keeps Gradients of Gradients from growing without end). */
bool ml__onnx_is_gradient(const char *domain, const char *op);
ml_status ml__onnx_gradient(ml__upgrade *upgrade, const ml__onnx_node *node, size_t max_nodes, ml_error *err);
/* Notes a value made by the import. */
ml_status ml__opset_made(ml__upgrade *upgrade, ml_value *value, ml_error *err);
/* Inputs that are floats but not parameters (running statistics, bounds, ratios): never trained. */
bool ml__opset_is_parameter(const ml_op_def *op, int32_t input);

/* ---- writing ---- */
typedef struct ml__draft {
  const ml_node *node;
  ml_attr *attrs; size_t n_attrs; /* room for ML__OPSET_ROOM more */
  ml_value **in; size_t n_in;     /* room for ML__OPSET_ROOM more */
  ml_tensor *extra;               /* one more constant, to be input number extra_input; one reference */
  size_t extra_input;
  size_t extra_again;             /* a second input that is the same constant; 0: none */
} ml__draft;

/* Lowest version of the node's domain that can express it, not below `at_least`. */
int32_t ml__opset_needed(const ml_node *node, int32_t at_least);
/* The node's form in version `target`, which is at least what it needs. */
ml_status ml__opset_downgrade(ml__draft *draft, int32_t target, ml_arena *scratch, ml_error *err);

#endif
