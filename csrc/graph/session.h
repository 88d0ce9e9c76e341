/* Inside of programs and sessions; for csrc/graph only. */
#ifndef ML_GRAPH_SESSION_H
#define ML_GRAPH_SESSION_H
#include <pthread.h>
#include "graph/program.h"

#define ML__IDLE_SESSIONS 16

/* Memory that a program's sessions and folded constants take (ml_compile_options.max_memory). */
typedef struct ml__budget {
  size_t limit;
  size_t used; /* atomic */
} ml__budget;
/* budget NULL: no limit (folding outside a program) */
ml_status ml__budget_take(ml__budget *budget, size_t bytes, const char *what, ml_error *err);
void ml__budget_give(ml__budget *budget, size_t bytes);

struct ml_program {
  uint32_t references;
  ml__budget budget;       /* of a program that is no subgraph; options.budget is the one to use */
  ml_compile_options options;
  const struct ml_kernels *kernels;
  ml_graph *graph;
  void **states;           /* per node, from prepare */
  pthread_mutex_t lock;    /* of idle */
  ml_session *idle[ML__IDLE_SESSIONS];
  size_t n_idle;
  struct ml__subprogram { const ml_graph *graph; ml_program *program; } *subprograms; /* of every graph attribute of `graph`'s nodes */
  size_t n_subprograms;
};

/* The program of a graph attribute of the program's graph. */
ml_program *ml__subprogram(const ml_program *program, const ml_graph *graph);
/* ml_program_run with a seed and step for random operators. */
ml_status ml__program_run(ml_program *program, const ml_view *inputs, uint64_t seed, uint64_t step,
                          ml_status (*take)(void *context, ml_session *session, ml_error *err), void *context, ml_error *err);
/* Frees the idle sessions, whose memory a busy one needs; false: there were none. */
bool ml__drop_idle(ml_program *program);

/* Frees without dropping a reference on the program. */
void ml__session_destroy(ml_session *session);

#endif
