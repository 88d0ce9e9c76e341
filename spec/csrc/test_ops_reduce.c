/* Reductions: results against spec/golden (made by other software), long sums, hostile axes, independence of the number of
 * threads. */
#include "base/thread.h"
#include "ops_case.h"
#include "../golden/ops_reduce.h"

static int64_t twice[] = { 0, 0 }, nine[] = { 9 }, first[] = { 0 }, last[] = { -1 };
static float floats[16];

static void hostile(void) {
  ml_attr axis = ml_attr_of_int("axis", -3);
  ml_view x = VIEW(floats, ML_FLOAT32, 2, 3), empty = VIEW(NULL, ML_FLOAT32, 0, 3);
  op_check_refused("", "ReduceSum", NULL, 0, 2, (ml_view[]) { x, VIEW(twice, ML_INT64, 2) }, 1, ML_INVALID_ARGUMENT,
                   "named twice");
  op_check_refused("", "ReduceSum", NULL, 0, 2, (ml_view[]) { x, VIEW(nine, ML_INT64, 1) }, 1, ML_INVALID_ARGUMENT, "9");
  op_check_refused("", "ReduceSum", NULL, 0, 2, (ml_view[]) { x, VIEW(floats, ML_FLOAT32, 1) }, 1, ML_INVALID_ARGUMENT,
                   "dtype float32");
  op_check_refused("", "ReduceMean", NULL, 0, 1, (ml_view[]) { VIEW(floats, ML_BOOL, 2) }, 1, ML_INVALID_ARGUMENT, "bool");
  op_check_refused("", "ArgMax", &axis, 1, 1, (ml_view[]) { x }, 1, ML_INVALID_ARGUMENT, "-3");
  op_check_refused("", "ArgMin", NULL, 0, 1, (ml_view[]) { empty }, 1, ML_INVALID_ARGUMENT, "dimension 0 of the input is 0");
}

/* Sums of (rows, cols) large enough for several chunks, against double; one thread and three give the same bits. */
static void threads(void) {
  enum { ROWS = 1200, COLS = 700 };
  static const char *const names[] = { "ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2", "ReduceLogSumExp" };
  float *x = malloc(ROWS * COLS * sizeof *x);
  if (!ok(x != NULL, "memory")) return;
  for (size_t i = 0; i < ROWS * COLS; i++) x[i] = (float)((double)(i * 2654435761u % 10007) / 10007 - 0.3);
  ml_view view = VIEW(x, ML_FLOAT32, ROWS, COLS), axes[2] = { VIEW(first, ML_INT64, 1), VIEW(last, ML_INT64, 1) };
  ml_attrs attrs = { NULL, 0 };
  for (size_t k = 0; k < sizeof names / sizeof *names; k++)
    for (size_t a = 0; a < 2; a++) {
      ml_view *in[] = { &view, &axes[a] };
      op_run r[2];
      ml_error err = { 0 };
      bool good = true;
      for (int t = 0; t < 2; t++) {
        ml_set_threads(t ? 3 : 1);
        good = op_execute(ml_op_find("", names[k]), &attrs, ml_kernel_table(), 2, in, 1, &r[t], &err) == ML_OK && good;
      }
      good = good && memcmp(r[0].out[0].data, r[1].out[0].data, r[0].out[0].count * sizeof(float)) == 0;
      ok(good, "%s over axis %zu: the same bits with one thread and three %s", names[k], a, err.message);
      for (size_t o = 0; good && k == 0 && o < r[0].out[0].count; o++) {
        double sum = 0;
        for (size_t i = 0; i < (a ? COLS : ROWS); i++) sum += (double)x[a ? o * COLS + i : i * COLS + o];
        good = fabs(sum - (double)((float *)r[0].out[0].data)[o]) < 1e-3;
      }
      ok(good, "%s over axis %zu: long sums are right", names[k], a);
      op_run_free(&r[0]);
      op_run_free(&r[1]);
    }
  ml_set_threads(0);
  free(x);
}

int main(void) {
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) op_check_case(&cases[i]);
  hostile();
  threads();
  return done();
}
