/* What a model is like, found out by running it: the time one row takes, and whether its rows influence each other.
 * May include: graph, tensor, base. Decides what batcher.h may be used for. */
#ifndef ML_SERVE_PROBE_H
#define ML_SERVE_PROBE_H
#include "graph/program.h"

typedef struct ml_probe {
  uint64_t run_ns;    /* one row, the shortest of a few runs; 0: it could not be run */
  bool mergeable;     /* requests may share a run */
  bool exact;         /* …, with equal results to the last bit */
  bool contradicted;  /* rows do influence each other (else not mergeable only means that it is not known) */
  char reason[256];   /* why not mergeable, or why its results are not equal; "" */
} ml_probe;

/* Mergeable: every input and output is a tensor whose first dimension is open (and has one name, where the graph names it), and running
 * random rows together (16 of a cheap model, 3 of a dear one) gives what the first three give by themselves. Never fails: what cannot be run is not mergeable. */
void ml_probe_program(ml_program *program, ml_probe *out);

#endif
