/* Rewriting a model for its file: what `mlserve convert` does. Other than the passes of a program, these leave standard ONNX behind.
 * Lives here: cutting out a part, fixing the batch, folding and simplifying, float16. May include: graph, ops, kernels, tensor, base.
 * Each edits the graph in place; after an error it is valid to free and nothing else, so callers work on a clone. */
#ifndef ML_GRAPH_CONVERT_H
#define ML_GRAPH_CONVERT_H
#include "graph/graph.h"

/* Keeps what lies between named values: `inputs` become the graph's inputs (whatever computed them goes), `outputs` its outputs. n 0: the
 * graph's own; inputs that no output needs are then dropped. Fails naming an unknown value, or an input that an output needs and the list lacks. */
ml_status ml_graph_extract(ml_graph *g, const char *const *inputs, size_t n_inputs, const char *const *outputs, size_t n_outputs, ml_error *err);
/* Unknown first dimensions of inputs, and every dimension with the same symbolic name, become `batch`. Fails when no input has one. */
ml_status ml_graph_set_batch(ml_graph *g, int64_t batch, ml_error *err);
/* Nodes whose inputs are constant become initialisers; DequantizeLinear stays, since its input is the small form of a weight. */
ml_status ml_graph_fold(ml_graph *g, ml_error *err);
/* Folding, dead code, nodes that change nothing, shape arithmetic on known dimensions, BatchNormalization into the product before it; until nothing
 * changes. Parameters stay trainable. */
ml_status ml_graph_simplify(ml_graph *g, ml_error *err);

typedef struct ml_half_note { /* an initialiser that float16 does not hold as it was */
  const char *name;
  size_t saturated; /* elements beyond ±65504, which they became */
  size_t tiny;      /* elements closer to zero than the smallest float16, which they became (not zero: somebody may divide by them) */
  double largest;   /* largest finite magnitude */
} ml_half_note;

typedef struct ml_half_report { ml_half_note *notes; size_t n, capacity; } ml_half_report; /* notes: ml_free; names are the graph's */

/* float32 becomes float16 in every value, but for operators that ONNX defines for float32 only, which get Cast nodes around them.
 * keep_io: inputs and outputs of the graph stay float32. */
ml_status ml_graph_to_half(ml_graph *g, bool keep_io, ml_half_report *report, ml_error *err);

/* ---- steps of ml_graph_simplify; *changed becomes true when they did something ---- */
ml_status ml__simplify_noops(ml_graph *g, bool *changed, ml_error *err);      /* convert_simplify.c */
ml_status ml__simplify_shapes(ml_graph *g, bool *changed, ml_error *err);     /* convert_shapes.c */
ml_status ml__simplify_batch_norm(ml_graph *g, bool *changed, ml_error *err); /* convert_batch_norm.c */
/* Every use of node's only wanted output becomes `same`, and the node is left for ml_graph_prune. An output of the graph keeps its
 * name: then `same` must be computed, no output itself, and is called as the output from now on. False: not possible. */
bool ml__simplify_bypass(ml_graph *g, ml_node *node, ml_value *same);

#endif
