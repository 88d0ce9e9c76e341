/* Memory that runs out: the n-th allocation fails while a model is loaded, compiled, run twice and freed, or trained for a step; for every n on a model
 * of each kind, for some n on all of spec/golden. What must come of it: RESOURCE_EXHAUSTED, nothing left behind, and (persistent failures) no
 * difference to that. Run from the root of the repository. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/rng.h"
#include "format/onnx.h"
#include "graph/program.h"
#include "tap.h"
#include "train/trainer.h"

enum { MAX_IN = 16, MOST = 20000 };

/* ---------------------------------------------------------------- inference ---- */
typedef struct scene {
  char folder[512];
  ml_tensor *in[MAX_IN]; /* of the test data; not part of what may fail */
  size_t n_in;
  ml_graph *training;    /* for training instead */
} scene;

static ml_status take(void *context, ml_session *session, ml_error *err) {
  ml_tensor *copy;
  (void)context;
  const ml_view *out = ml_session_output(session, 0);
  if (out->type) return ML_OK; /* a sequence */
  ML_TRY(ml_tensor_copy_of(out, &copy, err));
  ml_tensor_release(copy);
  return ML_OK;
}

static ml_status live_and_die(const scene *s, ml_error *err) {
  char path[600];
  ml_graph *g = NULL;
  ml_program *program = NULL;
  ml_view views[MAX_IN];
  snprintf(path, sizeof path, "%s/model.onnx", s->folder);
  ml_status status = ml_onnx_load(path, NULL, &g, err);
  if (status == ML_OK) status = ml_program_new(g, NULL, &program, err);
  for (size_t i = 0; i < s->n_in; i++) views[i] = s->in[i]->view;
  bool whole = status == ML_OK && g->n_inputs == s->n_in;
  for (int runs = 0; runs < 2 && status == ML_OK && whole; runs++) status = ml_program_run(program, views, take, NULL, err);
  ml_program_release(program);
  ml_graph_free(g);
  return status;
}

/* ---------------------------------------------------------------- training ---- */
static ml_value *weights(ml_graph *g, const int64_t *dims, int32_t rank) {
  ml_tensor *t;
  ml_value *v = NULL;
  if (ml_tensor_new(ML_FLOAT32, dims, rank, &t, NULL) != ML_OK) return NULL;
  ml_rng_uniform(5, (uint64_t)dims[0], -0.3f, 0.3f, t->view.data, t->view.count);
  if (ml_graph_initializer(g, NULL, t, true, &v, NULL) != ML_OK) v = NULL;
  ml_tensor_release(t);
  return v;
}

static ml_value *node(ml_graph *g, const char *op, const ml_attr *attrs, size_t n_attrs, ml_value *a, ml_value *b, ml_value *c) {
  ml_value *in[] = { a, b, c }, *out = NULL;
  ml_error err = { 0 };
  if (!ok(ml_graph_node(g, ml_op_find("", op), NULL, attrs, n_attrs, c ? 3 : b ? 2 : 1, in, 1, NULL, &out, &err) == ML_OK, "%s: %s", op, err.message)) exit(1);
  return out;
}

/* images (N,2,6,6) -> Conv -> Relu -> MaxPool -> Flatten -> Gemm -> Sigmoid */
static ml_graph *convolutional(void) {
  static const int64_t two[] = { 2, 2 };
  ml_graph *g = NULL;
  ml_value *x;
  ml_graph_new("cnn", &g, NULL);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ ML_UNKNOWN, 2, 6, 6 }, 4, &x, NULL);
  x = node(g, "Conv", NULL, 0, x, weights(g, (int64_t[]){ 3, 2, 3, 3 }, 4), weights(g, (int64_t[]){ 3 }, 1));
  x = node(g, "Relu", NULL, 0, x, NULL, NULL);
  x = node(g, "MaxPool", (ml_attr[]){ ml_attr_of_ints("kernel_shape", two, 2), ml_attr_of_ints("strides", two, 2) }, 2, x, NULL, NULL);
  x = node(g, "Flatten", NULL, 0, x, NULL, NULL);
  x = node(g, "Gemm", NULL, 0, x, weights(g, (int64_t[]){ 12, 1 }, 2), weights(g, (int64_t[]){ 1 }, 1));
  ml_graph_output(g, node(g, "Sigmoid", NULL, 0, x, NULL, NULL), NULL);
  return g;
}

/* sequences (N,6,12) -> GRU over them, batch in the middle -> its last state -> Gemm -> Sigmoid */
static ml_graph *recurrent(void) {
  static const int64_t permuted[] = { 1, 0, 2 };
  ml_graph *g = NULL;
  ml_value *x, *out[2];
  ml_graph_new("rnn", &g, NULL);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ ML_UNKNOWN, 6, 12 }, 3, &x, NULL);
  x = node(g, "Transpose", (ml_attr[]){ ml_attr_of_ints("perm", permuted, 3) }, 1, x, NULL, NULL);
  ml_value *in[] = { x, weights(g, (int64_t[]){ 1, 12, 12 }, 3), weights(g, (int64_t[]){ 1, 12, 4 }, 3) };
  ml_error err = { 0 };
  ml_attr hidden = ml_attr_of_int("hidden_size", 4);
  if (!ok(ml_graph_node(g, ml_op_find("", "GRU"), NULL, &hidden, 1, 3, in, 2, NULL, out, &err) == ML_OK, "GRU: %s", err.message)) exit(1);
  x = node(g, "Flatten", (ml_attr[]){ ml_attr_of_int("axis", 2) }, 1, out[1], NULL, NULL);
  x = node(g, "Gemm", NULL, 0, x, weights(g, (int64_t[]){ 4, 1 }, 2), weights(g, (int64_t[]){ 1 }, 1));
  ml_graph_output(g, node(g, "Sigmoid", NULL, 0, x, NULL, NULL), NULL);
  return g;
}

static ml_status train_and_die(const ml_graph *g, ml_error *err) {
  static float x[4 * 72], y[4] = { 0, 1, 1, 0 };
  ml_view input = { .data = x, .count = 4 * 72, .dtype = ML_FLOAT32, .rank = g->inputs[0]->rank }, target = { .data = y, .count = 4, .dtype = ML_FLOAT32, .rank = 2, .dims = { 4, 1 } };
  memcpy(input.dims, g->inputs[0]->dims, sizeof input.dims);
  input.dims[0] = 4;
  ml_train_data data = { .inputs = &input, .target = &target, .rows = 4 };
  ml_train_config config = { .loss = "binary_crossentropy", .optimizer = ml_optimizer_find("adam"), .seed = 4 };
  config.hyper = config.optimizer->defaults;
  ml_trainer *t = NULL;
  ml_graph *copy = NULL;
  ml_epoch_result result;
  double loss;
  ml_rng_uniform(1, 1, -1, 1, x, 4 * 72);
  ml_status status = ml_graph_clone(g, &copy, err);
  if (status == ML_OK) status = ml_trainer_new(copy, &config, &t, err);
  if (status == ML_OK) status = ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 2, .shuffle = true }, &result, err);
  if (status == ML_OK) status = ml_trainer_evaluate(t, &data, 4, NULL, &loss, err);
  if (status == ML_OK) status = ml_trainer_export(t, copy, err);
  ml_trainer_free(t);
  ml_graph_free(copy);
  return status;
}

/* ---------------------------------------------------------------- failing ---- */
static ml_status whole(const scene *s, ml_error *err) { return s->training ? train_and_die(s->training, err) : live_and_die(s, err); }

/* Every `step`-th allocation fails, the last one of a life included. False: the scene does not work at all. */
static bool sweep(const scene *s, uint64_t step, uint64_t *tried, bool *wrong) {
  ml_error err = { 0 };
  if (whole(s, &err) != ML_OK) return false;
  uint64_t before = ml_alloc_get_stats().allocations, live = ml_alloc_get_stats().live_blocks;
  if (whole(s, &err) != ML_OK) return false;
  uint64_t all = ml_alloc_get_stats().allocations - before;
  *tried = 0;
  *wrong = all == 0 || all > MOST;
  for (uint64_t n = 1; n <= all && !*wrong; n += step) {
    err = (ml_error){ 0 };
    ml_alloc_fail_at(n, n % 2 == 0);
    ml_status status = whole(s, &err);
    ml_alloc_fail_at(0, false);
    /* a constant that cannot be folded is computed in the run: one failure may do no harm */
    if (status != ML_OK && (status != ML_RESOURCE_EXHAUSTED || !err.message[0])) *wrong = true;
    if (ml_alloc_get_stats().live_blocks != live) *wrong = true;
    if (*wrong) printf("# allocation %llu of %llu: %s %s\n", (unsigned long long)n, (unsigned long long)all, ml_status_name(status), err.message);
    ++*tried;
  }
  return true;
}

static void open_scene(scene *s, const char *folder) {
  *s = (scene){ .n_in = 0 };
  snprintf(s->folder, sizeof s->folder, "%s", folder);
  for (; s->n_in < MAX_IN; s->n_in++) {
    char path[600];
    ml_file_map map;
    snprintf(path, sizeof path, "%s/test_data_set_0/input_%zu.pb", folder, s->n_in);
    if (ml_file_open_map(path, &map, NULL) != ML_OK) return;
    ml_status status = ml_onnx_tensor_read(map.bytes, map.size, path, &s->in[s->n_in], NULL, NULL, NULL);
    ml_file_unmap(&map);
    if (status != ML_OK) return;
  }
}

static void close_scene(scene *s) { while (s->n_in > 0) ml_tensor_release(s->in[--s->n_in]); }

static void every_allocation(const char *name, ml_graph *training) {
  char folder[400];
  scene s;
  uint64_t tried = 0;
  bool wrong = true;
  snprintf(folder, sizeof folder, "spec/golden/%s", name);
  open_scene(&s, training ? "" : folder);
  s.training = training;
  bool works = sweep(&s, 1, &tried, &wrong);
  ok(works && !wrong && tried > 20, "%s: each of %llu allocations may fail%s", name, (unsigned long long)tried, works ? "" : " (does not work at all)");
  close_scene(&s);
  ml_graph_free(training);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Every model of a folder, every 17th allocation. */
static void some_allocations(const char *folder) {
  enum { NAMES = 1000 };
  char *names[NAMES];
  size_t n = 0, models = 0, wrongs = 0;
  DIR *dir = opendir(folder);
  for (struct dirent *e; dir && n < NAMES && (e = readdir(dir));) if (e->d_name[0] != '.') names[n++] = strdup(e->d_name);
  if (dir) closedir(dir);
  qsort(names, n, sizeof *names, by_name);
  for (size_t i = 0; i < n; i++) {
    char path[500];
    scene s;
    uint64_t tried;
    bool wrong;
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    open_scene(&s, path);
    if (sweep(&s, 17, &tried, &wrong)) {
      models++;
      wrongs += wrong;
      if (wrong) printf("# %s\n", path);
    }
    close_scene(&s);
    free(names[i]);
  }
  ok(models > 5 && wrongs == 0, "%s: %zu models, %zu wrong", folder, models, wrongs);
}

int main(void) {
  static const char *const kinds[] = { "onnx/network", "onnx/external", "cnn/conv_2d", "cnn/conv_transpose_groups", "cnn/resize_cubic_sizes", "cnn/nonmaxsuppression",
                                       "recurrent/lstm_bidirectional", "recurrent/gru_lengths", "ml/skl_random_forest_strings", "ml/skl_svc_rbf_probability",
                                       "ml/categories_to_strings", "control/loop_growing", "control/if_nested_01", "control/sequence_strings",
                                       "control/scan_axes_0", "control/function_subgraph", "control/zipmap_string", "control/sequence_map" };
  static const char *const folders[] = { "onnx", "cnn", "ml", "recurrent", "control" };
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) every_allocation(kinds[i], NULL);
  every_allocation("training a convolutional network", convolutional());
  every_allocation("training a recurrent network", recurrent());
  for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
    char path[200];
    snprintf(path, sizeof path, "spec/golden/%s", folders[i]);
    some_allocations(path);
  }
  return done();
}
