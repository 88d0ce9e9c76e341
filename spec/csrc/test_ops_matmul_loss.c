/* Products, normalisation, losses and ai.onnx.ml preprocessing: results against spec/golden (made by other software), hostile
 * input, failing allocations, independence of the number of threads. */
#include "base/alloc.h"
#include "base/thread.h"
#include "ops_case.h"
#include "../golden/ops_matmul_loss.h"

static float floats[256];
static int64_t labels[] = { 0, 7 }, negative[] = { -1, 0 };
static double doubles[8];

#define F(...) VIEW(floats, ML_FLOAT32, __VA_ARGS__)
#define REFUSE(domain, op, attrs, n_attrs, n_out, status, text, ...)                                             \
  op_check_refused(domain, op, attrs, n_attrs, (int32_t)(sizeof((ml_view[]) { __VA_ARGS__ }) / sizeof(ml_view)), \
                   (ml_view[]) { __VA_ARGS__ }, n_out, status, text)

static void hostile(void) {
  ml_view i64 = VIEW(labels, ML_INT64, 2), less = VIEW(negative, ML_INT64, 2), f64 = VIEW(doubles, ML_FLOAT64, 2, 3);
  ml_attr half = ml_attr_of_float("alpha", 0.5f), act = ml_attr_of_str("activation", "Maxout"),
          mode = ml_attr_of_str("reduction", "max");
  ml_attr delta = ml_attr_of_float("delta", 0), axis = ml_attr_of_int("axis", 5), stash = ml_attr_of_int("stash_type", 7),
          norm = ml_attr_of_str("norm", "L3");
  REFUSE("", "Gemm", NULL, 0, 1, ML_INVALID_ARGUMENT, "inner dimensions differ: A (2, 3), B (4, 5)", F(2, 3), F(4, 5));
  REFUSE("", "Gemm", NULL, 0, 1, ML_INVALID_ARGUMENT, "A: expected rank 2, got shape (2, 3, 1)", F(2, 3, 1), F(4, 5));
  REFUSE("", "Gemm", NULL, 0, 1, ML_INVALID_ARGUMENT, "C (3) does not broadcast", F(2, 3), F(3, 5), F(3));
  REFUSE("", "Gemm", NULL, 0, 1, ML_INVALID_ARGUMENT, "C (1, 2, 5) does not broadcast", F(2, 3), F(3, 5), F(1, 2, 5));
  REFUSE("", "Gemm", NULL, 0, 1, ML_INVALID_ARGUMENT, "A is float32, B is float64", F(2, 2), f64);
  REFUSE("", "Gemm", &half, 1, 1, ML_INVALID_ARGUMENT, "whole numbers", VIEW(labels, ML_INT64, 2, 1),
         VIEW(labels, ML_INT64, 1, 2));
  REFUSE("", "MatMul", NULL, 0, 1, ML_INVALID_ARGUMENT, "inner dimensions differ", F(2, 3), F(2, 3));
  REFUSE("", "MatMul", NULL, 0, 1, ML_INVALID_ARGUMENT, "batch dimensions", F(2, 3, 4), F(3, 4, 2));
  REFUSE("", "MatMul", NULL, 0, 1, ML_INVALID_ARGUMENT, "rank 0", SCALAR(floats, ML_FLOAT32), F(2));
  REFUSE("mlserve", "Dense", &act, 1, 1, ML_INVALID_ARGUMENT, "'Maxout' is not one of", F(2, 3), F(3, 4));
  REFUSE("mlserve", "Dense", NULL, 0, 1, ML_INVALID_ARGUMENT, "X: expected 3 in the last dimension", F(2, 4), F(3, 4));
  REFUSE("mlserve", "Dense", NULL, 0, 1, ML_INVALID_ARGUMENT, "B: expected 4 values", F(2, 3), F(3, 4), F(3));
  ml_view open = F(3, 4);
  open.data = NULL;
  REFUSE("mlserve", "Dense", NULL, 0, 1, ML_FAILED_PRECONDITION, "W must be constant", F(2, 3), open);
  REFUSE("", "SoftmaxCrossEntropyLoss", NULL, 0, 1, ML_OUT_OF_RANGE, "label 1 is 7, expected 0 to 2", F(2, 3), i64);
  REFUSE("", "SoftmaxCrossEntropyLoss", NULL, 0, 2, ML_OUT_OF_RANGE, "label 0 is -1", F(2, 3), less);
  REFUSE("", "SoftmaxCrossEntropyLoss", NULL, 0, 1, ML_OUT_OF_RANGE, "label 1 is 7", VIEW(doubles, ML_FLOAT64, 2, 3), i64);
  REFUSE("", "NegativeLogLikelihoodLoss", NULL, 0, 1, ML_OUT_OF_RANGE, "label 1 is 7", F(2, 3), i64);
  REFUSE("", "SoftmaxCrossEntropyLoss", NULL, 0, 1, ML_INVALID_ARGUMENT, "labels (2)", F(3, 3), i64);
  REFUSE("", "SoftmaxCrossEntropyLoss", NULL, 0, 1, ML_INVALID_ARGUMENT, "one value per class", F(2, 3), i64, F(2));
  REFUSE("", "SoftmaxCrossEntropyLoss", &mode, 1, 1, ML_INVALID_ARGUMENT, "got 'max'", F(2, 3), i64);
  REFUSE("", "SoftmaxCrossEntropyLoss", NULL, 0, 1, ML_INVALID_ARGUMENT, "expected (N, C", F(2), i64);
  REFUSE("mlserve", "SoftmaxCrossEntropyGrad", NULL, 0, 1, ML_OUT_OF_RANGE, "label 1 is 7", F(2, 3), i64,
         SCALAR(floats, ML_FLOAT32));
  REFUSE("mlserve", "SoftmaxCrossEntropyGrad", NULL, 0, 1, ML_INVALID_ARGUMENT, "dloss", F(2, 3), i64, F(2));
  REFUSE("mlserve", "SquaredError", NULL, 0, 1, ML_INVALID_ARGUMENT, "target (3, 2)", F(2, 3), F(3, 2));
  REFUSE("mlserve", "SquaredError", NULL, 0, 1, ML_INVALID_ARGUMENT, "sample_weight (3)", F(2, 3), F(2, 3), F(3));
  REFUSE("mlserve", "SquaredError", NULL, 0, 1, ML_INVALID_ARGUMENT, "one type", F(2, 3), f64);
  REFUSE("mlserve", "HuberLoss", &delta, 1, 1, ML_INVALID_ARGUMENT, "delta is 0", F(2, 3), F(2, 3));
  REFUSE("", "BatchNormalization", NULL, 0, 1, ML_INVALID_ARGUMENT, "scale: expected one value per channel", F(2, 3), F(2), F(3),
         F(3), F(3));
  REFUSE("", "BatchNormalization", NULL, 0, 3, ML_INVALID_ARGUMENT, "training_mode=1", F(2, 3), F(3), F(3), F(3), F(3));
  REFUSE("", "LayerNormalization", &axis, 1, 1, ML_INVALID_ARGUMENT, "5", F(2, 3), F(3));
  REFUSE("", "LayerNormalization", NULL, 0, 1, ML_INVALID_ARGUMENT, "Scale: shape (2, 3)", F(2, 3), F(2, 3));
  REFUSE("", "LayerNormalization", &stash, 1, 1, ML_INVALID_ARGUMENT, "stash_type is 7", F(2, 3), F(3));
  REFUSE("ai.onnx.ml", "Normalizer", &norm, 1, 1, ML_INVALID_ARGUMENT, "got 'L3'", F(2, 3));
  ml_attr offset = { .name = "offset", .type = ML_ATTR_FLOATS, .count = 2, .as = { .floats = floats } };
  REFUSE("ai.onnx.ml", "Scaler", &offset, 1, 1, ML_INVALID_ARGUMENT, "offset has 2 values, expected 1 or 3", F(2, 3));
  REFUSE("ai.onnx.ml", "Imputer", NULL, 0, 1, ML_INVALID_ARGUMENT, "imputed_value_floats is missing", F(2, 3));
  ml_attr keys[] = { ml_attr_of_ints("keys_int64s", labels, 2), ml_attr_of_ints("values_int64s", labels, 1),
                     ml_attr_of_ints("cats_int64s", labels, 2), ml_attr_of_int("zeros", 0) };
  REFUSE("ai.onnx.ml", "LabelEncoder", keys, 2, 1, ML_INVALID_ARGUMENT, "2 keys and 1 values", i64);
  REFUSE("ai.onnx.ml", "LabelEncoder", keys, 1, 1, ML_INVALID_ARGUMENT, "no values", i64);
  keys[1].count = 2;
  REFUSE("ai.onnx.ml", "LabelEncoder", keys, 2, 1, ML_INVALID_ARGUMENT, "X is float32, the keys are int64", F(2));
  REFUSE("ai.onnx.ml", "OneHotEncoder", keys + 2, 2, 1, ML_INVALID_ARGUMENT, "element 0, -1, is none of the categories", less);
  REFUSE("ai.onnx.ml", "OneHotEncoder", NULL, 0, 1, ML_INVALID_ARGUMENT, "expected one of cats_int64s and cats_strings", i64);
}

/* ---------------------------------------------------------------- threads ---- */
static void same_bits(const char *domain, const char *name, const ml_attr *list, size_t n_attrs, int32_t n_in, ml_view *in,
                      int32_t n_out) {
  ml_view *pointers[CASE_IN];
  ml_attrs attrs = { list, n_attrs };
  op_run r[2];
  ml_error err = { 0 };
  bool same = true;
  for (int32_t i = 0; i < n_in; i++) pointers[i] = &in[i];
  for (int t = 0; t < 2; t++) {
    ml_set_threads(t ? 3 : 1);
    same = op_execute(ml_op_find(domain, name), &attrs, ml_kernel_table(), n_in, pointers, n_out, &r[t], &err) == ML_OK && same;
  }
  for (int32_t k = 0; same && k < n_out; k++)
    same = memcmp(r[0].out[k].data, r[1].out[k].data, r[0].out[k].count * ml_dtype_size(r[0].out[k].dtype)) == 0;
  ok(same, "%s: the same bits with one thread and three %s", name, err.message);
  ml_set_threads(0);
  op_run_free(&r[0]);
  op_run_free(&r[1]);
}

static double at(const float *x, size_t ld, bool transposed, size_t i, size_t j) {
  return (double)(transposed ? x[j * ld + i] : x[i * ld + j]);
}

/* Sizes that are cut into chunks along rows and along columns; spot checks against sums in double. */
static void large(void) {
  enum { N = 700 };
  float *a = malloc(N * N * sizeof *a), *b = malloc(N * N * sizeof *b);
  if (ok(a && b, "memory")) {
    for (size_t i = 0; i < N * N; i++) {
      a[i] = (float)((double)(i * 2654435761u % 1009) / 1009 - 0.5);
      b[i] = (float)((double)(i * 40503u % 907) / 907 - 0.5);
    }
    for (int mode = 0; mode < 8; mode++) {
      bool ta = mode & 1, tb = mode & 2, tall = mode & 4;
      int64_t m = tall ? N : 90, n = tall ? 90 : N, k = 300;
      ml_attr list[2] = { ml_attr_of_int("transA", ta), ml_attr_of_int("transB", tb) };
      ml_view in[2] = { ta ? VIEW(a, ML_FLOAT32, k, m) : VIEW(a, ML_FLOAT32, m, k),
                        tb ? VIEW(b, ML_FLOAT32, n, k) : VIEW(b, ML_FLOAT32, k, n) };
      same_bits("", "Gemm", list, 2, 2, in, 1);
      ml_view *pointers[2] = { &in[0], &in[1] };
      ml_attrs attrs = { list, 2 };
      op_run r;
      ml_error err = { 0 };
      bool good = op_execute(ml_op_find("", "Gemm"), &attrs, ml_kernel_table(), 2, pointers, 1, &r, &err) == ML_OK;
      for (size_t i = 0; good && i < (size_t)m; i += 13)
        for (size_t j = 0; good && j < (size_t)n; j += 17) {
          double sum = 0;
          for (size_t l = 0; l < (size_t)k; l++)
            sum += at(a, (size_t)(ta ? m : k), ta, i, l) * at(b, (size_t)(tb ? k : n), tb, l, j);
          good = fabs(sum - (double)((float *)r.out[0].data)[i * (size_t)n + j]) < 1e-4;
        }
      ok(good, "Gemm %s%s%s is right", ta ? "A' " : "", tb ? "B' " : "", tall ? "tall" : "wide");
      op_run_free(&r);
    }
    ml_view dense[3] = { VIEW(a, ML_FLOAT32, N, 300), VIEW(b, ML_FLOAT32, 300, 130), VIEW(a, ML_FLOAT32, 130) };
    same_bits("mlserve", "Dense", NULL, 0, 3, dense, 1);
    ml_view batch[2] = { VIEW(a, ML_FLOAT32, 40, 60, 100), VIEW(b, ML_FLOAT32, 40, 100, 70) };
    same_bits("", "MatMul", NULL, 0, 2, batch, 1);
    ml_view norm[2] = { VIEW(a, ML_FLOAT32, N, N), VIEW(b, ML_FLOAT32, N) };
    same_bits("", "LayerNormalization", NULL, 0, 2, norm, 3);
  }
  free(a);
  free(b);
}

/* prepare with the n-th allocation failing: a clean error, nothing kept */
static void failing_memory(void) {
  ml_attr keys[] = { ml_attr_of_ints("keys_int64s", labels, 2), ml_attr_of_ints("values_int64s", labels, 2) };
  ml_view dense[2] = { F(2, 3), F(3, 4) }, x = VIEW(labels, ML_INT64, 2);
  uint64_t live = ml_alloc_get_stats().live_blocks;
  for (uint64_t n = 1; n <= 2; n++) {
    ml_alloc_fail_at(n, true);
    op_check_refused("mlserve", "Dense", NULL, 0, 2, dense, 1, ML_RESOURCE_EXHAUSTED, "packed weights");
    ml_alloc_fail_at(0, false);
  }
  ml_alloc_fail_at(1, true);
  op_check_refused("ai.onnx.ml", "LabelEncoder", keys, 2, 1, &x, 1, ML_RESOURCE_EXHAUSTED, "keys");
  ml_alloc_fail_at(0, false);
  ok(ml_alloc_get_stats().live_blocks == live, "failed preparations leave nothing behind");
}

int main(void) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) op_check_case(&cases[i]);
  hostile();
  failing_memory();
  large();
  return done();
}
