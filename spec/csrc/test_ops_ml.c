/* Classical models, recurrent layers and text operators under hostile conditions; their values are checked by spec/ml_spec.lua.
 * For every model of spec/golden/ml and spec/golden/recurrent: each allocation of compiling and of the first run fails once (a clean error,
 * nothing leaks), and the file is damaged in many places (an error or a result, never a crash: attributes are untrusted). Run from the root
 * of the repository. */
#include <dirent.h>
#include <stdint.h>
#include <string.h>

#include "base/file.h"
#include "format/onnx.h"
#include "graph/program.h"
#include "tap.h"

enum { MAX_IO = 16, DAMAGES = 200 };

static ml_status nothing(void *context, ml_session *session, ml_error *err) {
  (void)context, (void)session, (void)err;
  return ML_OK;
}

static ml_status compile_and_run(const ml_graph *g, ml_tensor *const *inputs, ml_error *err) {
  ml_program *program = NULL;
  ml_view views[MAX_IO];
  for (size_t i = 0; i < g->n_inputs; i++) views[i] = inputs[i]->view;
  ml_status status = ml_program_new(g, NULL, &program, err);
  if (status == ML_OK) status = ml_program_run(program, views, nothing, NULL, err);
  ml_program_release(program);
  return status;
}

static bool load_inputs(const char *folder, ml_tensor **inputs, size_t n) {
  for (size_t i = 0; i < n; i++) {
    char path[512];
    ml_file_map map;
    ml_error err = { 0 };
    const char *name;
    size_t length;
    snprintf(path, sizeof path, "%s/test_data_set_0/input_%zu.pb", folder, i);
    if (ml_file_open_map(path, &map, &err) != ML_OK) return false;
    ml_status status = ml_onnx_tensor_read(map.bytes, map.size, path, &inputs[i], &name, &length, &err);
    ml_file_unmap(&map);
    if (status != ML_OK) return false;
  }
  return true;
}

/* Every allocation fails once. */
static void out_of_memory(const char *folder, const ml_graph *g, ml_tensor *const *inputs) {
  ml_error err = { 0 };
  size_t runs = 0, bad = 0;
  ml_status status = compile_and_run(g, inputs, &err);
  ok(status == ML_OK, "%s runs%s%s", folder, status == ML_OK ? "" : ": ", err.message);
  uint64_t live = ml_alloc_get_stats().live_blocks;
  for (status = ML_INTERNAL; status != ML_OK && runs < 5000; runs++) {
    ml_alloc_fail_at(runs + 1, false);
    status = compile_and_run(g, inputs, &err);
    ml_alloc_fail_at(0, false);
    if (status != ML_OK && status != ML_RESOURCE_EXHAUSTED) bad++;
    if (ml_alloc_get_stats().live_blocks != live) bad++;
  }
  ok(status == ML_OK && bad == 0, "%s: out of memory at each of %zu allocations", folder, runs);
}

/* Bytes of the file replaced, one to three at a time, by ones that make small, large and negative numbers. */
static void damaged(const char *folder, const unsigned char *bytes, size_t size, ml_tensor *const *inputs, size_t n_inputs) {
  static const unsigned char values[] = { 0, 1, 2, 5, 0x7f, 0x80, 0xff };
  size_t ran = 0;
  uint64_t live = ml_alloc_get_stats().live_blocks, state = size;
  unsigned char *copy = malloc(size);
  for (int i = 0; i < DAMAGES; i++) {
    ml_graph *g = NULL;
    ml_error err = { 0 };
    memcpy(copy, bytes, size);
    for (int k = 0; k <= i % 3; k++) {
      state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
      copy[(state >> 33) % size] = values[(state >> 20) % sizeof values];
    }
    if (ml_onnx_read(copy, size, folder, NULL, &g, &err) != ML_OK) continue;
    if (g->n_inputs == n_inputs && compile_and_run(g, inputs, &err) == ML_OK) ran++;
    ml_graph_free(g);
  }
  free(copy);
  ok(ml_alloc_get_stats().live_blocks == live, "%s: %d damaged files, %zu of them ran", folder, DAMAGES, ran);
}

static void model(const char *folder) {
  char path[512];
  ml_file_map map;
  ml_error err = { 0 };
  ml_graph *g = NULL;
  ml_tensor *inputs[MAX_IO] = { NULL };
  snprintf(path, sizeof path, "%s/model.onnx", folder);
  if (ml_file_open_map(path, &map, &err) != ML_OK || ml_onnx_read(map.bytes, map.size, path, NULL, &g, &err) != ML_OK) {
    ok(false, "%s: %s", folder, err.message);
    return;
  }
  if (load_inputs(folder, inputs, g->n_inputs)) {
    out_of_memory(folder, g, inputs);
    damaged(folder, map.bytes, map.size, inputs, g->n_inputs);
  } else ok(false, "%s: no inputs", folder);
  for (size_t i = 0; i < MAX_IO; i++) ml_tensor_release(inputs[i]);
  ml_graph_free(g);
  ml_file_unmap(&map);
}

int main(void) {
  static const char *const roots[] = { "spec/golden/ml", "spec/golden/recurrent" };
  size_t models = 0;
  for (size_t i = 0; i < 2; i++) {
    DIR *dir = opendir(roots[i]);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
      char folder[400];
      if (entry->d_name[0] == '.') continue;
      snprintf(folder, sizeof folder, "%s/%s", roots[i], entry->d_name);
      model(folder);
      models++;
    }
    if (dir) closedir(dir);
  }
  ok(models > 100, "%zu models", models);
  return done();
}
