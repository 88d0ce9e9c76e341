/* The process-wide registry of deployed models: servables by integer handle.
 * Lives here: one of the core's three process-wide objects. Lua states of one process (nginx's worker threads) share nothing but
 * numbers; this turns a number back into a model. May include: servable. Ownership: the registry holds one reference on each;
 * thread-safe. */
#ifndef ML_SERVE_REGISTRY_H
#define ML_SERVE_REGISTRY_H
#include "serve/servable.h"

/* Retains servable. Handles are positive, below 2^53 and never used twice. */
ml_status ml_registry_add(ml_servable *servable, int64_t *handle, ml_error *err);
/* One reference for the caller; NULL: no such handle (any more). */
ml_servable *ml_registry_get(int64_t handle);
/* Drops the registry's reference; requests under way keep theirs. False: no such handle. */
bool ml_registry_remove(int64_t handle);

#endif
