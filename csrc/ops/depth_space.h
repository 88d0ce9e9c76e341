/* What DepthToSpace and SpaceToDepth share.
 * Lives here: the two maps, which are each other's inverse. May include: ops/movement.h. Ownership: nothing is kept.
 * Depth (N, C b b, H, W) <-> space (N, C, H b, W b). Mode DCR: channel (i b + j) C + c goes to row i, column j of its block; CRD:
 * channel c b b + i b + j. */
#ifndef ML_OPS_DEPTH_SPACE_H
#define ML_OPS_DEPTH_SPACE_H
#include "ops/movement.h"

extern const ml_attr_def ml__depth_space_attrs[];
ml_status ml__depth_space_infer(ml_op_ctx *ctx, bool to_space, ml_error *err);
ml_status ml__depth_space_run(ml_op_ctx *ctx, bool to_space, ml_error *err);

#endif
