/* csrc/eval from C: decoding, errors, memory. The values of the metrics are compared with scikit-learn's in
 * spec/metrics_spec.lua; the few here are worked out by hand or from published examples. */
#include <math.h>
#include <string.h>
#include "eval/metrics.h"
#include "tap.h"

static ml_view view(void *data, ml_dtype dtype, int64_t rows, int64_t columns) {
  ml_view v = {data, (size_t)(rows * (columns > 0 ? columns : 1)), dtype, columns > 0 ? 2 : 1, {rows, columns}, 0};
  return v;
}

static double value_of(const char *name, ml_view y_true, ml_view y_pred, ml_metric_options options, ml_error *err) {
  ml_metric_result result = {0.0, ""};
  ml_status status = ml_metric_evaluate(ml_metric_find(name), &y_true, &y_pred, &options, &result, err);
  return status == ML_OK ? result.value : -HUGE_VAL;
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-12 * fmax(1.0, fabs(b)); }

static void test_registry(void) {
  ok(ml_metric_find("auc") == ml_metric_find("roc_auc") && ml_metric_find("auc") != NULL, "auc is roc_auc");
  ok(ml_metric_find("sparse_categorical_accuracy") == ml_metric_find("accuracy"), "Keras's name for accuracy");
  ok(ml_metric_find("accurac") == NULL && ml_metric_find("") == NULL, "unknown names");
  for (size_t i = 0; i < ml_metric_count(); ++i)
    ok(ml_metric_find(ml_metric_at(i)->name) == ml_metric_at(i), "%s is found", ml_metric_at(i)->name);
  ok(ml_metric_at(ml_metric_count()) == NULL, "past the end");
  ok(!ml_metric_find("log_loss")->larger_is_better && ml_metric_find("f1")->larger_is_better, "directions");
}

/* four rows: (label, score) (0, .1) (0, .4) (1, .35) (1, .8): AUC .75, the example of scikit-learn's documentation */
static void test_binary(void) {
  float labels[] = {0, 0, 1, 1}, scores[] = {0.1f, 0.4f, 0.35f, 0.8f};
  int64_t ids[] = {0, 0, 1, 1};
  uint8_t one_hot[] = {1, 0, 1, 0, 0, 1, 0, 1};
  double pairs[] = {0.9, 0.1, 0.6, 0.4, 0.65, 0.35, 0.2, 0.8};
  ml_metric_options options = ml_metric_options_default();
  ml_view truths[] = {view(labels, ML_FLOAT32, 4, 0), view(labels, ML_FLOAT32, 4, 1), view(ids, ML_INT64, 4, 0),
                      view(one_hot, ML_UINT8, 4, 2)};
  ml_view guesses[] = {view(scores, ML_FLOAT32, 4, 0), view(scores, ML_FLOAT32, 4, 1), view(pairs, ML_FLOAT64, 4, 2)};
  ml_error err;
  for (size_t t = 0; t < 4; ++t)
    for (size_t g = 0; g < 3; ++g) {
      if (t == 3 && g < 2) continue; /* one-hot labels want a column per class, unless the task is given */
      ok(near(value_of("auc", truths[t], guesses[g], options, &err), 0.75), "auc, labels %zu, scores %zu", t, g);
      ok(near(value_of("accuracy", truths[t], guesses[g], options, &err), 0.75), "accuracy, labels %zu, scores %zu", t, g);
      ok(near(value_of("recall", truths[t], guesses[g], options, &err), 0.5), "recall, labels %zu, scores %zu", t, g);
      ok(near(value_of("precision", truths[t], guesses[g], options, &err), 1.0), "precision, labels %zu, scores %zu", t, g);
    }
  options.task = ML_EVAL_BINARY;
  ok(near(value_of("accuracy", truths[3], guesses[0], options, &err), 0.75), "one-hot labels, one score, task given");
  options.threshold = 0.3;
  ok(near(value_of("recall", truths[0], guesses[0], options, &err), 1.0), "threshold");
  double nine[] = {0.9}, one[] = {1.0};
  options.threshold = 0.5;
  ok(near(value_of("log_loss", view(one, ML_FLOAT64, 1, 0), view(nine, ML_FLOAT64, 1, 0), options, &err), -log(0.9)), "log loss");
  double zero[] = {0.0};
  ok(near(value_of("log_loss", view(one, ML_FLOAT64, 1, 0), view(zero, ML_FLOAT64, 1, 0), options, &err), 52.0 * log(2.0)),
     "log loss is clipped at 2^-52");
}

static void test_confusion(void) {
  /* scikit-learn's documentation: y_true = [2, 0, 2, 2, 0, 1], y_pred = [0, 0, 2, 2, 0, 2] */
  int32_t labels[] = {2, 0, 2, 2, 0, 1}, calls[] = {0, 0, 2, 2, 0, 2};
  uint64_t counts[9], expected[9] = {2, 0, 0, 0, 0, 1, 1, 0, 2};
  ml_view y = view(labels, ML_INT32, 6, 0), f = view(calls, ML_INT32, 6, 0);
  ml_metric_options options = ml_metric_options_default();
  ml_eval_data data;
  ml_error err;
  if (!ok(ml_eval_data_new(&y, &f, &options, &data, &err) == ML_OK, "class ids decode")) return;
  ok(data.classes == 3 && data.scores == NULL && data.task == ML_EVAL_CATEGORICAL, "three classes without scores");
  ml_eval_confusion(&data, counts);
  ok(memcmp(counts, expected, sizeof counts) == 0, "confusion matrix");
  ok(near(ml_eval_class(&data, 0).precision, 2.0 / 3.0) && ml_eval_class(&data, 1).f1 == 0.0, "class scores");
  ml_metric_result result;
  ok(ml_metric_compute(ml_metric_find("roc_auc"), &data, &options, &result, &err) == ML_INVALID_ARGUMENT, "no AUC from ids");
  ok(ml_metric_compute(ml_metric_find("r2"), &data, &options, &result, &err) == ML_INVALID_ARGUMENT, "no r2 of classes");
  ml_eval_data_free(&data);
}

static void test_errors(void) {
  float labels[] = {0, 1, 2, 0}, scores[] = {0.1f, NAN, 0.3f, INFINITY}, wide[] = {.5f, .5f, .5f, .5f, .5f, .5f, .5f, .5f};
  float negative[] = {0, -1, 0, 1}, halves[] = {0, 0.5f, 1, 1}, probabilities[] = {0.1f, 0.2f, 1.5f, 0.3f}, soft[] = {.5f, .5f,
                                                                                                                      0, 1};
  ml_metric_options options = ml_metric_options_default();
  ml_view y = view(labels, ML_FLOAT32, 4, 0);
  ml_error err = {ML_OK, ""};
#define FAILS(metric, truth, guess, words)                                                                 \
  ok(value_of(metric, truth, guess, options, &err) == -HUGE_VAL && strstr(err.message, words) != NULL, "%s: %s", words, \
     err.message)
  FAILS("accuracy", y, view(scores, ML_FLOAT32, 4, 0), "row 2 holds NaN");
  FAILS("accuracy", y, view(scores + 2, ML_FLOAT32, 2, 0), "row 2 holds an infinite");
  FAILS("accuracy", y, view(labels, ML_FLOAT32, 3, 0), "y_true has 4 rows, y_pred has 3");
  FAILS("accuracy", view(labels, ML_FLOAT32, 0, 0), view(labels, ML_FLOAT32, 0, 0), "y_true is empty");
  options.task = ML_EVAL_CATEGORICAL;
  FAILS("accuracy", y, view(wide, ML_FLOAT32, 4, 2), "row 3 is class 2");
  FAILS("accuracy", view(negative, ML_FLOAT32, 4, 0), view(wide, ML_FLOAT32, 4, 2), "row 2 holds -1");
  FAILS("accuracy", view(halves, ML_FLOAT32, 4, 0), view(wide, ML_FLOAT32, 4, 2), "row 2 holds 0.5");
  FAILS("accuracy", view(soft, ML_FLOAT32, 2, 2), view(wide, ML_FLOAT32, 2, 2), "row 1 is not one-hot");
  options.task = ML_EVAL_BINARY;
  FAILS("log_loss", view(negative + 2, ML_FLOAT32, 2, 0), view(probabilities + 2, ML_FLOAT32, 2, 0), "row 1 of the predictions");
  options.task = ML_EVAL_AUTO;
  FAILS("mse", y, view(wide, ML_FLOAT32, 4, 2), "1 values a row, y_pred has 2");
  ml_str text[] = {{"a", 1}};
  FAILS("mse", view(text, ML_STRING, 1, 0), y, "must be numeric");
  ml_metric_result result;
  ml_view one = view(labels + 1, ML_FLOAT32, 1, 0), half = view(wide, ML_FLOAT32, 1, 0);
  options.task = ML_EVAL_BINARY;
  ok(ml_metric_evaluate(ml_metric_find("auc"), &one, &half, &options, &result, &err) == ML_OK && isnan(result.value),
     "undefined AUC");
  ok(strstr(result.note, "only class 1 occurs") != NULL, "the note says why: %s", result.note);
}

static void every_allocation(ml_eval_task task, const ml_view *y, const ml_view *f) {
  ml_metric_options options = ml_metric_options_default();
  uint64_t live = ml_alloc_get_stats().live_blocks;
  options.task = task;
  for (size_t i = 0; i < ml_metric_count(); ++i) {
    const ml_metric *metric = ml_metric_at(i);
    if ((metric->tasks & 1u << task) == 0) continue;
    ml_metric_result result;
    ml_status status = ML_OK;
    uint64_t n = 0;
    do {
      ml_error err;
      ml_alloc_fail_at(++n, false);
      status = ml_metric_evaluate(metric, y, f, &options, &result, &err);
      if (status != ML_OK && status != ML_RESOURCE_EXHAUSTED) break;
    } while (status != ML_OK && n < 100);
    ml_alloc_fail_at(0, false);
    ok(status == ML_OK && n > 1, "%s, %s survives every failing allocation (%d)", ml_eval_task_name(task), metric->name, (int)n);
  }
  ok(ml_alloc_get_stats().live_blocks == live, "%s: nothing leaks", ml_eval_task_name(task));
}

static void test_memory(void) {
  float ids[] = {0, 1, 2, 0}, three[] = {.5f, .2f, .3f, .1f, .8f, .1f, .3f, .3f, .4f, .4f, .3f, .3f};
  float flags[] = {0, 1, 1, 0}, two[] = {.5f, .5f, .1f, .9f, .7f, .3f, .8f, .2f};
  ml_view y = view(ids, ML_FLOAT32, 4, 0), f = view(three, ML_FLOAT32, 4, 3);
  every_allocation(ML_EVAL_CATEGORICAL, &y, &f);
  y = view(flags, ML_FLOAT32, 4, 0), f = view(two, ML_FLOAT32, 4, 2);
  every_allocation(ML_EVAL_BINARY, &y, &f);
  every_allocation(ML_EVAL_REGRESSION, &f, &f);
}

int main(void) {
  test_registry();
  test_binary();
  test_confusion();
  test_errors();
  test_memory();
  return done();
}
