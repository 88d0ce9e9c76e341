/* What a model file says about how it is to be served: the metadata entries mlserve.signatures, mlserve.features and mlserve.classes.
 * May include: servable, graph, codec, base. */
#ifndef ML_SERVE_PROPERTIES_H
#define ML_SERVE_PROPERTIES_H
#include "base/alloc.h"
#include "serve/servable.h"

/* Fills what options lacks from the graph's properties; memory is the arena's. JSON forms: signatures { NAME: { "inputs": { PUBLIC NAME: GRAPH'S NAME },
 * "outputs": { … }, "method_name": … } }, features and classes arrays of strings or numbers. INVALID_ARGUMENT names the entry that is
 * not so. */
ml_status ml_servable_properties(const ml_graph *graph, ml_arena *arena, ml_servable_options *options, ml_error *err);

#endif
