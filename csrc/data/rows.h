/* What is done to rows once they are columns: choose, split, group into a matrix, name classes, describe.
 * Lives here: functions on views and tensors; no files. May include: tensor, base.
 * Ownership: returned tensors are one reference; ml_classes belongs to the caller until ml_classes_free. Indices are 0-based. */
#ifndef ML_DATA_ROWS_H
#define ML_DATA_ROWS_H
#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "tensor/tensor.h"

/* Rows of `from` in the order of `rows` (repeats allowed), any dtype. Fails naming the index that is out of range. */
ml_status ml_take_rows(const ml_view *from, const int64_t *rows, size_t count, ml_tensor **out, ml_error *err);

/* Columns (N) or (N,1), numeric -> (N, F) of dtype float32 or float64. */
ml_status ml_stack_columns(const ml_view *columns, size_t column_count, ml_dtype dtype, ml_tensor **out, ml_error *err);

/* Column `column` of (N, F) -> (N), same dtype. */
ml_status ml_select_column(const ml_view *from, size_t column, ml_tensor **out, ml_error *err);

typedef struct ml_split_options {
  size_t test;               /* rows that go to the test part */
  const uint32_t *classes;   /* (rows) class of each row; NULL: not stratified */
  size_t class_count;
  uint64_t seed;
  bool shuffle;              /* false: the last rows are the test part (not with classes) */
} ml_split_options;
/* Fills train (rows - test) and test. Stratified: class c gets the floor of its share of the training part, and the rows still
 * wanting go to the classes with the largest remainders, equal ones in class order. Order within a part is random. */
ml_status ml_split_rows(size_t rows, const ml_split_options *options, uint32_t *train, uint32_t *test, ml_error *err);

/* Names for class ids. Text is sorted bytewise, numbers by value ("2" before "10"). */
typedef struct ml_classes {
  ml_str *names;
  size_t count;
  uint32_t *ids;             /* (rows) 0-based */
  size_t *counts;            /* (count) rows of each class */
  ml_arena *arena;           /* private */
} ml_classes;
/* `fixed` (fixed_count names, or NULL) gives classes and order; a label outside is an error naming its row, as is a missing
 * label. labels: (N) or (N,1), numeric or string. */
ml_status ml_classes_encode(const ml_view *labels, const ml_str *fixed, size_t fixed_count, ml_classes *out, ml_error *err);
void ml_classes_free(ml_classes *classes); /* a zeroed struct is allowed */

typedef struct ml_column_stats {
  size_t count, missing;     /* with and without a value (NaN) */
  double mean, stddev;       /* stddev with n - 1; NaN with fewer than two values */
  double min, quartile_1, median, quartile_3, max; /* linear interpolation between ranks; NaN without values */
} ml_column_stats;
/* Column `column` of a (N, F) or (N) numeric view. */
ml_status ml_column_describe(const ml_view *view, size_t column, ml_column_stats *out, ml_error *err);

#endif
