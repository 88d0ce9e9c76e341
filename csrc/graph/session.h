/* Inside of programs and sessions; for csrc/graph only. */
#ifndef ML_GRAPH_SESSION_H
#define ML_GRAPH_SESSION_H
#include <pthread.h>
#include "graph/program.h"

#define ML__IDLE_SESSIONS 16

struct ml_program {
  uint32_t references;
  ml_compile_options options;
  const struct ml_kernels *kernels;
  ml_graph *graph;
  void **states;           /* per node, from prepare */
  pthread_mutex_t lock;    /* of idle */
  ml_session *idle[ML__IDLE_SESSIONS];
  size_t n_idle;
};

/* Frees without dropping a reference on the program. */
void ml__session_destroy(ml_session *session);

#endif
