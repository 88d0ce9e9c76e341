/* bench_alloc MODEL CALLS [capi]: runs a model of one float input that often for one row, in a session of its own or through the C API; prints how many
 * allocations the runs made (there are to be none).
 * Under callgrind, the difference of two runs with different CALLS gives the instructions of a call (build-aux/bench.sh does that). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/thread.h"
#include "format/onnx.h"
#include "graph/program.h"
#include "mlserve.h"

static float x[1024], y[1024];

static void must(ml_status status, const ml_error *err)
{
  if (status == ML_OK) return;
  fprintf(stderr, "bench_alloc: %s\n", err->message);
  exit(1);
}

static void must_c(mlserve_status status, const char *message)
{
  if (status == MLSERVE_OK) return;
  fprintf(stderr, "bench_alloc: %s\n", message);
  exit(1);
}

static void through_c_api(const char *path, const ml_view *view, long calls)
{
  mlserve_model *model;
  mlserve_value *in, *out;
  char message[MLSERVE_MESSAGE_MAX];
  must_c(mlserve_load(path, NULL, &model, message, sizeof message), message);
  must_c(mlserve_value_wrap(MLSERVE_FLOAT32, view->dims, view->rank, x, sizeof x, &in, message, sizeof message), message);
  must_c(mlserve_value_wrap(MLSERVE_FLOAT32, NULL, 0, y, sizeof y, &out, message, sizeof message), message);
  must_c(mlserve_run(model, NULL, &in, 1, NULL, &out, 1, message, sizeof message), message); /* makes the session */
  uint64_t before = ml_alloc_get_stats().allocations;
  for (; calls > 0; calls--) must_c(mlserve_run(model, NULL, &in, 1, NULL, &out, 1, message, sizeof message), message);
  printf("%" PRIu64 "\n", ml_alloc_get_stats().allocations - before);
  mlserve_value_free(in);
  mlserve_value_free(out);
  mlserve_model_free(model);
}

int main(int argc, char **argv)
{
  ml_graph *graph;
  ml_program *program;
  ml_session *session;
  ml_error err;
  bool c_api = argc == 4 && strcmp(argv[3], "capi") == 0;
  if (argc != 3 && !c_api) return 2;
  ml_set_threads(1);
  must(ml_onnx_load(argv[1], NULL, &graph, &err), &err);
  must(ml_program_new(graph, NULL, &program, &err), &err);
  ml_view view = { .dtype = ML_FLOAT32, .rank = 2, .dims = { 1, graph->inputs[0]->dims[1] }, .count = (size_t)graph->inputs[0]->dims[1] };
  if (view.count > sizeof x / sizeof *x) return 2;
  for (size_t i = 0; i < view.count; i++) x[i] = (float)i / 100 - 0.15f;
  must(ml_session_new(program, &view, &session, &err), &err);
  ml_session_bind_input(session, 0, x);
  long calls = strtol(argv[2], NULL, 10);
  if (c_api) {
    through_c_api(argv[1], &view, calls);
  } else {
    uint64_t before = ml_alloc_get_stats().allocations;
    for (; calls > 0; calls--) must(ml_session_run(session, &err), &err);
    printf("%" PRIu64 "\n", ml_alloc_get_stats().allocations - before);
  }
  ml_session_free(session);
  ml_program_release(program);
  ml_graph_free(graph);
  return 0;
}
