/* Valid nodes with their inputs, from folders of cases in ONNX's layout (model.onnx, test_data_set_0/input_N.pb): what op_fuzz.h starts from where
 * random bytes would hardly find a valid node. */
#ifndef MLSERVE_SPEC_OP_SEEDS_H
#define MLSERVE_SPEC_OP_SEEDS_H
#include <dirent.h>
#include "base/file.h"
#include "format/onnx.h"
#include "op_fuzz.h"

enum { SEEDS_MAX = 4096 };
static fuzz_spec seeds[SEEDS_MAX];
static ml_graph *seed_graphs[SEEDS_MAX]; /* texts of attributes belong to them */
static size_t n_seeds;

static ml_tensor *seed_input(const char *folder, size_t index) {
  char path[1200];
  ml_file_map map;
  ml_tensor *t = NULL;
  snprintf(path, sizeof path, "%s/test_data_set_0/input_%zu.pb", folder, index);
  if (ml_file_open_map(path, &map, NULL) != ML_OK) return NULL;
  if (ml_onnx_tensor_read(map.bytes, map.size, path, &t, NULL, NULL, NULL) != ML_OK) t = NULL;
  ml_file_unmap(&map);
  return t;
}

static void seed_case(const char *folder) {
  char path[1200];
  ml_graph *g = NULL;
  ml_tensor *given[FUZZ_IN] = { 0 };
  snprintf(path, sizeof path, "%s/model.onnx", folder);
  if (n_seeds == SEEDS_MAX || ml_onnx_load(path, NULL, &g, NULL) != ML_OK) return;
  bool whole = g->n_inputs <= FUZZ_IN;
  for (size_t i = 0; i < g->n_inputs && whole; i++) whole = (given[i] = seed_input(folder, i)) != NULL;
  if (whole && fuzz_from_graph(g, given, &seeds[n_seeds])) {
    seed_graphs[n_seeds++] = g;
    g = NULL;
  }
  for (size_t i = 0; i < FUZZ_IN; i++) ml_tensor_release(given[i]);
  ml_graph_free(g);
}

static int seed_by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Every case in the folder, in the order of their names. */
static void seed_folder(const char *folder) {
  char *names[SEEDS_MAX], path[1024];
  size_t n = 0;
  DIR *dir = opendir(folder);
  for (struct dirent *e; dir && n < SEEDS_MAX && (e = readdir(dir));)
    if (e->d_name[0] != '.') names[n++] = strdup(e->d_name);
  if (dir) closedir(dir);
  qsort(names, n, sizeof *names, seed_by_name);
  for (size_t i = 0; i < n; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    seed_case(path);
    free(names[i]);
  }
}

/* spec/golden's and, where MLSERVE_CASES names a folder (ONNX's own node tests), its. */
static void seed_all(void) {
  static const char *const folders[] = { "spec/golden/onnx", "spec/golden/cnn", "spec/golden/ml", "spec/golden/recurrent" };
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) seed_folder(folders[i]);
  const char *more = getenv("MLSERVE_CASES");
  if (more && *more) seed_folder(more);
}

__attribute__((unused)) static void seed_free(void) {
  while (n_seeds > 0) {
    fuzz_spec_free(&seeds[--n_seeds]);
    ml_graph_free(seed_graphs[n_seeds]);
  }
}

#endif
