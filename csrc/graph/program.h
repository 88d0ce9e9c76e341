/* From graph to running.
 * Lives here: compile (passes, packed constants) -> program; plan (shapes, arena offsets) -> session (one arena) -> run.
 * May include: graph, ops, kernels, base. Ownership: programs are reference-counted, immutable and shared by threads; a session is private to one
 * thread at a time and holds a reference on its program. A run allocates nothing, hashes nothing and locks nothing, except in operators whose
 * output shape depends on the data. */
#ifndef ML_GRAPH_PROGRAM_H
#define ML_GRAPH_PROGRAM_H
#include "graph/graph.h"

typedef enum ml_level {
  ML_LEVEL_NONE = 0,  /* reference kernels, no passes */
  ML_LEVEL_EXACT = 1, /* passes that keep the order of rounding operations */
  ML_LEVEL_FAST = 2   /* everything (default) */
} ml_level;

typedef struct ml_program ml_program;
typedef struct ml_session ml_session;

typedef struct ml_compile_options {
  ml_level level;
  uint64_t max_loop;     /* iterations a Loop may take, an error beyond; 0: 100,000,000 */
  bool keep_parameters;  /* trainable initialisers stay variables: not folded, not packed; bound by ml_session_bind */
  const char *disabled;  /* (optional) comma-separated names of passes to leave out, for debugging */
  size_t max_memory;     /* bytes that all sessions of the program and its folded constants may take together (weights not counted); a model that
                            wants more gets RESOURCE_EXHAUSTED instead of the machine; 0: half of what the machine or its container has */
  struct ml__budget *budget; /* private: subgraphs share that of the program around them */
} ml_compile_options;

/* Compiles a copy of the graph; the graph is not changed. options NULL: level fast. */
ml_status ml_program_new(const ml_graph *graph, const ml_compile_options *options, ml_program **out, ml_error *err);
ml_program *ml_program_retain(ml_program *program);
void ml_program_release(ml_program *program); /* NULL allowed */
const ml_graph *ml_program_graph(const ml_program *program); /* the optimised graph; inputs and outputs as in the original */

/* A session for these input shapes (one ml_view per graph input: dtype and shape; data ignored). Unknown ranks/dims are errors; a shape that
 * contradicts the graph's is INVALID_ARGUMENT naming input, expected and got. */
ml_status ml_session_new(ml_program *program, const ml_view *inputs, ml_session **out, ml_error *err);
void ml_session_free(ml_session *session);
/* Views of inputs and outputs. An input's data points into the session's arena (fill it) unless bound to memory of the caller; output shapes are
 * valid after the run (before it where they do not depend on data). */
ml_view *ml_session_input(ml_session *session, size_t index);
ml_view *ml_session_output(ml_session *session, size_t index);
/* Uses the caller's memory (of the right size, any alignment of the element) from now on; NULL goes back to the arena. */
void ml_session_bind_input(ml_session *session, size_t index, void *data);
void ml_session_bind_output(ml_session *session, size_t index, void *data); /* only outputs of known shape */
/* keep_parameters: memory of a trainable initialiser, by its name in the graph. */
ml_status ml_session_bind_parameter(ml_session *session, const char *name, void *data, ml_error *err);
void ml_session_seed(ml_session *session, uint64_t seed, uint64_t step);
ml_status ml_session_run(ml_session *session, ml_error *err);
bool ml_session_fits(const ml_session *session, const ml_view *inputs); /* are these its shapes */

/* Convenience with pooling: finds or makes a session for the shapes of `inputs` (data read in place), runs it, hands its output views to
 * `take` (may be called from any thread; program is shared). Idle sessions are kept, at most 16 per program. */
ml_status ml_program_run(ml_program *program, const ml_view *inputs,
                         ml_status (*take)(void *context, ml_session *session, ml_error *err), void *context, ml_error *err);
/* The halves of the above, for callers that fill the input in place: */
ml_status ml_program_acquire(ml_program *program, const ml_view *inputs, ml_session **out, ml_error *err);
void ml_program_return(ml_program *program, ml_session *session);

/* Steps of a session, for `inspect --profile` and bench. */
typedef struct ml_step_info { const char *op, *name; double flops; uint64_t ns; /* of the last profiled run */ const ml_view *out; } ml_step_info;
size_t ml_session_steps(const ml_session *session);
ml_step_info ml_session_step(const ml_session *session, size_t index);
ml_status ml_session_run_profiled(ml_session *session, ml_error *err);
size_t ml_session_arena_bytes(const ml_session *session);

#endif
