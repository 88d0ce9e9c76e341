/* bench_alloc MODEL CALLS: runs a model of one float input that often for one row; prints how many allocations the runs made (there are to be none).
 * Under callgrind, the difference of two runs with different CALLS gives the instructions of a call (build-aux/bench.sh does that). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/thread.h"
#include "format/onnx.h"
#include "graph/program.h"

static float x[1024];

static void must(ml_status status, const ml_error *err)
{
  if (status == ML_OK) return;
  fprintf(stderr, "bench_alloc: %s\n", err->message);
  exit(1);
}

int main(int argc, char **argv)
{
  ml_graph *graph;
  ml_program *program;
  ml_session *session;
  ml_error err;
  if (argc != 3) return 2;
  ml_set_threads(1);
  must(ml_onnx_load(argv[1], NULL, &graph, &err), &err);
  must(ml_program_new(graph, NULL, &program, &err), &err);
  ml_view view = { .dtype = ML_FLOAT32, .rank = 2, .dims = { 1, graph->inputs[0]->dims[1] }, .count = (size_t)graph->inputs[0]->dims[1] };
  if (view.count > sizeof x / sizeof *x) return 2;
  for (size_t i = 0; i < view.count; i++) x[i] = (float)i / 100 - 0.15f;
  must(ml_session_new(program, &view, &session, &err), &err);
  ml_session_bind_input(session, 0, x);
  uint64_t before = ml_alloc_get_stats().allocations;
  for (long calls = strtol(argv[2], NULL, 10); calls > 0; calls--) must(ml_session_run(session, &err), &err);
  printf("%" PRIu64 "\n", ml_alloc_get_stats().allocations - before);
  ml_session_free(session);
  ml_program_release(program);
  ml_graph_free(graph);
  return 0;
}
