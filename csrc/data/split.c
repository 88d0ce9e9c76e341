/* Train/test splits. Which rows go where is a function of (seed, rows, classes) only. Stratified totals follow scikit-learn's
 * StratifiedShuffleSplit: the mode of the multivariate hypergeometric distribution, approximated by largest remainders. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include "base/rng.h"
#include "data/rows.h"

#define SPLIT_STREAM 0x73706c6974u /* "split": apart from the streams of initialisers and batches */

/* train_quota[c] of counts[c] rows for every class, so that they sum to `train`. */
static void share_out(const size_t *counts, size_t class_count, size_t rows, size_t train, size_t *train_quota) {
  size_t given = 0;
  for (size_t c = 0; c < class_count; ++c) {
    train_quota[c] = (size_t)((double)counts[c] / (double)rows * (double)train);
    given += train_quota[c];
  }
  while (given < train) {
    size_t best = class_count;
    double best_remainder = -1.0;
    for (size_t c = 0; c < class_count; ++c) {
      double share = (double)counts[c] / (double)rows * (double)train, remainder = share - (double)train_quota[c];
      if (remainder > best_remainder && remainder < 1.0 && train_quota[c] < counts[c] && train_quota[c] <= (size_t)share)
        best = c, best_remainder = remainder;
    }
    if (best == class_count) break;
    ++train_quota[best];
    ++given;
  }
}

static ml_status stratify(size_t rows, const ml_split_options *options, const uint32_t *order, size_t *counts, uint32_t *train,
                          uint32_t *test, ml_error *err) {
  size_t classes = options->class_count, *quota = counts + classes, train_rows = rows - options->test, present = 0;
  for (size_t row = 0; row < rows; ++row) {
    if (options->classes[row] >= classes)
      return ml_fail(err, ML_INVALID_ARGUMENT, "row %zu is class %" PRIu32 " of %zu", row + 1, options->classes[row], classes);
    ++counts[options->classes[row]];
  }
  for (size_t c = 0; c < classes; ++c) {
    if (counts[c] == 1)
      return ml_fail(err, ML_FAILED_PRECONDITION, "stratify: class %zu has a single row, so it cannot be in both parts", c);
    present += counts[c] > 0 ? 1 : 0;
  }
  if (options->test < present || train_rows < present)
    return ml_fail(err, ML_FAILED_PRECONDITION, "stratify: %zu rows cannot hold all %zu classes",
                   options->test < present ? options->test : train_rows, present);
  share_out(counts, classes, rows, train_rows, quota);
  size_t to_train = 0, to_test = 0;
  for (size_t i = 0; i < rows; ++i) {
    uint32_t row = order[i], c = options->classes[row];
    if (quota[c] > 0) --quota[c], train[to_train++] = row;
    else test[to_test++] = row;
  }
  return ML_OK;
}

ml_status ml_split_rows(size_t rows, const ml_split_options *options, uint32_t *train, uint32_t *test, ml_error *err) {
  size_t train_rows = rows - options->test, bytes;
  if (rows > UINT32_MAX) return ml_fail(err, ML_OUT_OF_RANGE, "%zu rows are too many to split", rows);
  if (options->test > rows) return ml_fail(err, ML_OUT_OF_RANGE, "a test part of %zu rows from %zu", options->test, rows);
  if (!options->shuffle) {
    if (options->classes != NULL) return ml_fail(err, ML_INVALID_ARGUMENT, "a stratified split is always shuffled");
    for (size_t i = 0; i < rows; ++i) *(i < train_rows ? &train[i] : &test[i - train_rows]) = (uint32_t)i;
    return ML_OK;
  }
  bytes = rows * sizeof(uint32_t);
  uint32_t *order = ml_alloc(bytes);
  if (order == NULL) return ml_fail_memory(err, bytes, "a split");
  ml_rng_permutation(options->seed, SPLIT_STREAM, order, rows);
  ml_status status = ML_OK;
  if (options->classes == NULL) {
    memcpy(test, order, options->test * sizeof *order);
    memcpy(train, order + options->test, train_rows * sizeof *order);
  } else {
    size_t *counts = ml_alloc_zero(2 * options->class_count, sizeof *counts);
    if (counts == NULL) status = ml_fail_memory(err, 2 * options->class_count * sizeof *counts, "a split");
    else status = stratify(rows, options, order, counts, train, test, err);
    ml_free(counts);
  }
  ml_free(order);
  return status;
}
