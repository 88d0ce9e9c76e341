/* The trainer: allocation failures, repeatability, stopping. What it computes is compared with PyTorch in spec/interop. */
#include <math.h>
#include <string.h>
#include "base/rng.h"
#include "base/thread.h"
#include "tap.h"
#include "train/trainer.h"

enum { ROWS = 70, IN = 6, HIDDEN = 9 };

static ml_status dense(ml_graph *g, ml_value *x, int64_t n_in, int64_t n_out, const char *act, uint64_t stream, ml_value **out, ml_error *err)
{
  ml_tensor *w = NULL, *b = NULL;
  ml_value *in[3] = { x, NULL, NULL };
  ml_status status = ml_tensor_new(ML_FLOAT32, (int64_t[]){ n_in, n_out }, 2, &w, err);
  if (status == ML_OK) status = ml_tensor_new(ML_FLOAT32, &n_out, 1, &b, err);
  if (status == ML_OK) ml_rng_uniform(3, stream, -0.5f, 0.5f, w->view.data, w->view.count);
  if (status == ML_OK) status = ml_graph_initializer(g, NULL, w, true, &in[1], err);
  if (status == ML_OK) status = ml_graph_initializer(g, NULL, b, true, &in[2], err);
  ml_tensor_release(w);
  ml_tensor_release(b);
  ML_TRY(status);
  ML_TRY(ml_graph_node(g, ml_op_find("", "Gemm"), NULL, NULL, 0, 3, in, 1, NULL, out, err));
  return ml_graph_node(g, ml_op_find("", act), NULL, NULL, 0, 1, out, 1, NULL, out, err);
}

/* Dense relu -> Dropout -> Dense sigmoid */
static ml_status build(ml_graph **graph, bool dropout, ml_error *err)
{
  ml_value *x, *h;
  ML_TRY(ml_graph_new("net", graph, err));
  ML_TRY(ml_graph_input(*graph, "x", ML_FLOAT32, (int64_t[]){ ML_UNKNOWN, IN }, 2, &x, err));
  ML_TRY(dense(*graph, x, IN, HIDDEN, "Relu", 1, &h, err));
  if (dropout) ML_TRY(ml_graph_node(*graph, ml_op_find("", "Dropout"), NULL, NULL, 0, 1, &h, 1, NULL, &h, err));
  ML_TRY(dense(*graph, h, HIDDEN, 1, "Sigmoid", 2, &h, err));
  return ml_graph_output(*graph, h, err);
}

static float X[ROWS * IN], Y[ROWS];
static ml_view x_view, y_view;
static ml_train_data data;

static void make_data(void)
{
  ml_rng_uniform(1, 1, -1, 1, X, ROWS * IN);
  for (int i = 0; i < ROWS; i++) Y[i] = X[i * IN] + X[i * IN + 1] > 0;
  x_view = (ml_view){ .data = X, .count = ROWS * IN, .dtype = ML_FLOAT32, .rank = 2, .dims = { ROWS, IN } };
  y_view = (ml_view){ .data = Y, .count = ROWS, .dtype = ML_FLOAT32, .rank = 2, .dims = { ROWS, 1 } };
  data = (ml_train_data){ .inputs = &x_view, .target = &y_view, .rows = ROWS };
}

static ml_train_config config_of(const char *optimizer, const char *loss)
{
  ml_train_config c = { .loss = loss, .optimizer = ml_optimizer_find(optimizer), .seed = 4 };
  c.hyper = c.optimizer->defaults;
  return c;
}

static ml_status train(const char *optimizer, int epochs, bool dropout, float *weights, ml_epoch_result *result, ml_error *err)
{
  ml_graph *g = NULL;
  ml_trainer *t = NULL;
  ml_train_config config = config_of(optimizer, "binary_crossentropy");
  ml_status status = build(&g, dropout, err);
  if (status == ML_OK) status = ml_trainer_new(g, &config, &t, err);
  for (int e = 0; e < epochs && status == ML_OK; e++)
    status = ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 16, .shuffle = true, .epoch = (uint64_t)e }, result, err);
  if (status == ML_OK) status = ml_trainer_export(t, g, err);
  if (status == ML_OK && weights) {
    size_t count;
    const float *flat = ml_trainer_array(t, 0, &count);
    memcpy(weights, flat, count * sizeof *flat);
  }
  ml_trainer_free(t);
  ml_graph_free(g);
  return status;
}

static void test_learning(void)
{
  static const char *const optimizers[] = { "sgd", "adam", "adamw", "rmsprop", "adagrad" };
  for (size_t i = 0; i < 5; i++) {
    ml_error err = { 0 };
    ml_epoch_result first = { 0 }, last = { 0 };
    ml_status status = train(optimizers[i], 1, false, NULL, &first, &err);
    if (status == ML_OK) status = train(optimizers[i], 40, false, NULL, &last, &err);
    ok(status == ML_OK && last.loss < first.loss && last.rows == ROWS && last.steps == 5, "%s: loss %.4f falls to %.4f %s", optimizers[i], first.loss, last.loss, err.message);
  }
}

static void test_repeatable(void)
{
  float a[256] = { 0 }, b[256] = { 0 }, c[256] = { 0 };
  ml_error err;
  ml_epoch_result r;
  ml_set_threads(1);
  train("adam", 5, true, a, &r, &err);
  train("adam", 5, true, b, &r, &err);
  ml_set_threads(3);
  train("adam", 5, true, c, &r, &err);
  ml_set_threads(0);
  ok(memcmp(a, b, sizeof a) == 0, "the same seed gives the same weights, bit for bit");
  ok(memcmp(a, c, sizeof a) == 0, "whatever the number of threads");
}

static void test_divergence(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_trainer *t = NULL;
  ml_epoch_result r;
  ml_train_config config = config_of("sgd", "mse");
  size_t count;
  float before[256];
  build(&g, false, &err);
  ml_trainer_new(g, &config, &t, &err);
  const float *flat = ml_trainer_array(t, 0, &count);
  memcpy(before, flat, count * sizeof *flat);
  float kept = X[3];
  X[3] = NAN;
  ml_status status = ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = ROWS }, &r, &err);
  X[3] = kept;
  ok(status == ML_OK && r.diverged && r.steps == 0, "a NaN in the data stops the epoch");
  ok(memcmp(before, flat, count * sizeof *flat) == 0, "and leaves the weights of before");
  ml_trainer_free(t);
  ml_graph_free(g);
}

static void test_stopping(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_trainer *t = NULL;
  ml_epoch_result r;
  volatile sig_atomic_t stop = 1;
  ml_train_config config = config_of("adam", "binary_crossentropy");
  build(&g, false, &err);
  ml_trainer_new(g, &config, &t, &err);
  ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 8, .interrupt = &stop }, &r, &err);
  ok(r.interrupted && r.steps == 1, "an interrupt ends the epoch after its step");
  ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 8, .max_steps = 3 }, &r, &err);
  ok(!r.interrupted && r.steps == 3 && ml_trainer_steps(t) == 4, "max_steps ends it too");
  ml_trainer_free(t);

  /* an epoch in two parts is the epoch */
  float whole[256], parts[256];
  size_t count;
  ml_trainer_new(g, &config, &t, &err);
  ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 8, .shuffle = true, .epoch = 2 }, &r, &err);
  memcpy(whole, ml_trainer_array(t, 0, &count), 4 * 100);
  ml_trainer_free(t);
  ml_trainer_new(g, &config, &t, &err);
  ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 8, .shuffle = true, .epoch = 2, .max_steps = 4 }, &r, &err);
  ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 8, .shuffle = true, .epoch = 2, .first_step = 4 }, &r, &err);
  memcpy(parts, ml_trainer_array(t, 0, &count), 4 * 100);
  ok(count >= 100 && memcmp(whole, parts, 4 * 100) == 0, "an epoch resumed in the middle ends with the same weights");
  ml_trainer_free(t);
  ml_graph_free(g);
}

static void test_penalties(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_trainer *t = NULL;
  ml_epoch_result r;
  ml_train_config config = config_of("sgd", "binary_crossentropy");
  config.hyper.l1 = 0.05f;
  config.hyper.learning_rate = 0.1f;
  build(&g, false, &err);
  ml_trainer_new(g, &config, &t, &err);
  for (uint64_t e = 0; e < 200; e++) ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 16, .shuffle = true, .epoch = e }, &r, &err);
  size_t count, zeros = 0;
  const float *flat = ml_trainer_array(t, 0, &count);
  const ml_parameter *kernel = ml_trainer_parameter(t, 0);
  for (size_t i = 0; i < kernel->count; i++) zeros += flat[kernel->offset + i] == 0;
  ok(kernel->rank == 2 && zeros > kernel->count / 2, "L1 makes weights exactly zero: %zu of %zu", zeros, kernel->count);
  double sum = 0;
  for (size_t k = 0; k < ml_trainer_parameters(t); k++) {
    const ml_parameter *p = ml_trainer_parameter(t, k);
    for (size_t i = 0; p->rank >= 2 && i < p->count; i++) sum += fabs((double)flat[p->offset + i]);
  }
  ok(fabs(r.penalty - 0.05 * sum) < 1e-6, "the penalty reported is l1 sum|w| of the kernels");
  ml_trainer_free(t);
  ml_graph_free(g);
}

static void test_errors(void)
{
  ml_error err;
  ml_graph *g = NULL;
  ml_trainer *t = NULL;
  ml_epoch_result r;
  ml_train_config config = config_of("adam", "banana");
  build(&g, false, &err);
  ok(ml_trainer_new(g, &config, &t, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "banana") && strstr(err.message, "huber"), "unknown loss: %s", err.message);
  for (size_t i = 0; i < g->n_values; i++) g->values[i]->trainable = false;
  config.loss = "mse";
  ok(ml_trainer_new(g, &config, &t, &err) == ML_FAILED_PRECONDITION, "nothing to train: %s", err.message);
  for (size_t i = 0; i < g->n_values; i++) g->values[i]->trainable = g->values[i]->init != NULL;
  ok(ml_trainer_new(g, &config, &t, &err) == ML_OK, "a trainer: %s", err.message);
  ml_view wrong = x_view;
  wrong.dims[1] = IN - 1;
  ml_train_data bad = { .inputs = &wrong, .target = &y_view, .rows = ROWS };
  ok(ml_trainer_epoch(t, &bad, &(ml_epoch_options){ .batch_size = 4 }, &r, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "'x'"), "wrong rows: %s", err.message);
  ok(ml_trainer_epoch(t, &data, &(ml_epoch_options){ .batch_size = 0 }, &r, &err) == ML_INVALID_ARGUMENT, "batch_size 0: %s", err.message);
  ml_trainer_free(t);
  ml_graph_free(g);
}

static void test_out_of_memory(void)
{
  ml_error err;
  ml_epoch_result r;
  uint64_t live = ml_alloc_get_stats().live_blocks;
  int n = 1, bad = 0;
  for (;; n++) {
    ml_alloc_fail_at((uint64_t)n, false);
    ml_status status = train("adam", 1, true, NULL, &r, &err);
    ml_alloc_fail_at(0, false);
    bad += ml_alloc_get_stats().live_blocks != live;
    if (status == ML_OK) break;
    bad += status != ML_RESOURCE_EXHAUSTED;
  }
  ok(n > 100 && bad == 0, "each of %d allocations may fail: a clean error, nothing leaks (%d)", n, bad);
}

int main(void)
{
  make_data();
  test_learning();
  test_repeatable();
  test_divergence();
  test_stopping();
  test_penalties();
  test_errors();
  test_out_of_memory();
  return done();
}
