/* Rewrites of a graph before it runs.
 * Lives here: the contract of csrc/graph/passes/NAME.c and the list of them, in the order they run. May include: graph, ops.
 * A pass edits the graph it is given and leaves it valid; it may leave unused nodes behind (compile prunes at the end). */
#ifndef ML_GRAPH_PASS_H
#define ML_GRAPH_PASS_H
#include "graph/program.h"

typedef struct ml_pass {
  const char *name;
  ml_level level; /* lowest optimisation level at which it runs */
  ml_status (*run)(ml_graph *graph, const ml_compile_options *options, ml_error *err);
} ml_pass;

/* name, lowest level. What runs at level none makes a graph runnable and cannot be switched off. */
#define ML_PASSES(X)   \
  X(eliminate, EXACT)  \
  X(widen, NONE)       \
  X(fold, EXACT)       \
  X(fuse_dense, EXACT)

#define X(name, level) ml_status ml__pass_##name(ml_graph *graph, const ml_compile_options *options, ml_error *err);
ML_PASSES(X)
#undef X

/* Is this value the same in every run: an initialiser that is not a parameter being trained. */
bool ml__is_constant(const ml_value *value, const ml_compile_options *options);
/* Constant folding of all nodes but those that `keep` (NULL: none) says so of. */
ml_status ml__fold(ml_graph *graph, const ml_compile_options *options, bool (*keep)(const ml_node *node), ml_error *err);
/* By value id: the only node that reads the value, NULL when none, several or the graph's outputs do. Caller frees with ml_free. */
ml_status ml__single_users(const ml_graph *graph, ml_node ***users, ml_error *err);

/* Runs one node once on the given input views (all with data): prepare, workspace, run. Gives new tensors, one reference each (NULL for
 * outputs not wanted). */
ml_status ml__run_node(const ml_node *node, ml_view *const *in, const struct ml_kernels *kernels, ml_tensor **out, ml_error *err);

/* The operator's infer, with its outputs unknown before: the only way to call it. */
ml_status ml__infer(ml_op_ctx *ctx, ml_error *err);

#endif
