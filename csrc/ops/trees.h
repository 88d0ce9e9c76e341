/* Decision trees, packed for speed. Lives here: the one form in which TreeEnsemble, TreeEnsembleClassifier and
 * TreeEnsembleRegressor run. May include: tensor, base. Ownership: ml__trees_pack copies what it needs; ml__trees_free frees the
 * result. A packed ensemble is immutable.
 *
 * Every comparison becomes "x <= split": x < t is x <= the number before t, >= and > exchange the branches, == and set membership
 * are chains of two tests a member. A leaf leads to itself, so a walk of as many steps as the tree is deep needs no branch, and
 * several walks are interleaved to hide the latency of the loads: several trees for one row, several rows for one tree. */
#ifndef ML_OPS_TREES_H
#define ML_OPS_TREES_H
#include "ops/op.h"

typedef enum ml__tree_mode { /* TreeEnsemble-5's numbers */
  ML__TREE_LEQ = 0, ML__TREE_LT, ML__TREE_GTE, ML__TREE_GT, ML__TREE_EQ, ML__TREE_NEQ, ML__TREE_MEMBER, ML__TREE_LEAF
} ml__tree_mode;

typedef struct ml__tree_node { /* as a model file has it */
  double split;
  int64_t feature;
  size_t yes, no;                /* children, as indices of the list of nodes */
  size_t first, count;           /* a leaf's votes; a MEMBER's members */
  ml__tree_mode mode;
  bool missing_yes;              /* a NaN takes the yes branch */
} ml__tree_node;

typedef struct ml__tree_vote { /* a leaf's contribution to a target */
  double weight;
  size_t target;
} ml__tree_vote;

typedef enum ml__tree_aggregate { ML__TREE_AVERAGE = 0, ML__TREE_SUM, ML__TREE_MIN, ML__TREE_MAX } ml__tree_aggregate;

typedef struct ml__tree_list {
  const ml__tree_node *nodes; size_t n_nodes;
  const size_t *roots; size_t n_roots;
  const ml__tree_vote *votes; size_t n_votes;
  const double *members;
  size_t n_targets;
  ml__tree_aggregate aggregate;
  bool wide;                     /* float64 thresholds, features and sums; otherwise float32 */
} ml__tree_list;

enum { ML__MAX_TARGETS = 1 << 20 }; /* a file's number decides how large the output is */

typedef struct ml__trees ml__trees;
/* Indices of nodes, votes and members must be in range already; features are checked, cycles found. Errors name a node by its
 * index. */
ml_status ml__trees_pack(const ml__tree_list *list, ml__trees **out, ml_error *err);
void ml__trees_free(void *trees); /* NULL allowed */
ml_dtype ml__trees_dtype(const ml__trees *trees); /* of X and the scores: float32 or float64 */
size_t ml__trees_targets(const ml__trees *trees);
size_t ml__trees_features(const ml__trees *trees); /* least number of features X must have */
double ml__trees_steps(const ml__trees *trees); /* comparisons per row */
/* scores (rows, targets) from x (rows, features), both of ml__trees_dtype. A target that got no vote is -0.0. plain: one walk
 * after
 * the other, the oracle of the interleaved walks. Split over threads by rows. */
void ml__trees_run(const ml__trees *trees, bool plain, const void *x, size_t rows, size_t features, void *scores);

/* The nodes_* attributes of TreeEnsembleClassifier and TreeEnsembleRegressor. Votes come from <prefix>_treeids, _nodeids, _ids
 * and
 * _weights (or _weights_as_tensor) with targets below n_targets. x: dtype of X, or NONE when not known. The list is the caller's
 * to
 * free with ml__tree_read_free; its memory is one block. */
typedef struct ml__tree_read {
  ml__tree_list list;
  void *memory;
} ml__tree_read;
ml_status ml__tree_read_nodes(const ml_attrs *attrs, const char *prefix, size_t n_targets, ml_dtype x, ml__tree_read *out,
                              ml_error *err);
void ml__tree_read_free(ml__tree_read *read);
/* A FLOATS attribute or its _as_tensor form (float32 or float64); absent: count 0. Both given is an error. */
ml_status ml__float_list(const ml_attrs *attrs, const char *name, ml_view *out, ml_error *err);

#endif
