/* What the CSV and the JSONL reader share: columns that grow row by row and change their mind about their type.
 * Lives here: internal to csrc/data. May include: tensor, base.
 * Reading takes one pass when every column is numeric: values are parsed straight into the columns. A column that meets a text
 * drops its numbers; when any column is text in the end, the reader walks its input again and only copies texts. */
#ifndef ML_DATA_TABLE_BUILDER_H
#define ML_DATA_TABLE_BUILDER_H
#include "data/table.h"

typedef struct ml__cell {
  const char *bytes;
  size_t length;
  size_t line;          /* where it begins, from 1 */
} ml__cell;

typedef struct ml__draft {
  char *name;
  size_t name_length;
  ml_column_type declared;
  bool keep, required, text, integral;
  double *numbers;      /* ml_alloc, row_capacity long; NULL once the column is text or when it is not kept */
  ml_str *texts;        /* arena, second pass */
  size_t missing;
  size_t filled;        /* rows that have a value or a missing mark in this pass */
} ml__draft;

typedef struct ml__builder {
  const ml_table_options *options;
  const char *source;
  ml_arena *arena;
  ml__draft *drafts;
  size_t draft_count, draft_capacity;
  uint32_t *slots;      /* hash of names -> draft + 1; slot_count is a power of two */
  size_t slot_count;
  size_t rows, row_capacity;
  bool copying;         /* second pass */
  bool missing_starts[256]; /* first bytes of the missing texts */
  bool empty_is_missing;
} ml__builder;

ml_status ml__builder_init(ml__builder *builder, const ml_table_options *options, const char *source, ml_error *err);
void ml__builder_free(ml__builder *builder);
/* SIZE_MAX when there is none */
size_t ml__builder_find(const ml__builder *builder, const char *name, size_t length);
/* Applies the rule of that name; the name must be new. Earlier rows count as missing. */
ml_status ml__builder_add(ml__builder *builder, const char *name, size_t length, size_t *index, ml_error *err);
/* Fails when a rule names a column that does not exist. */
ml_status ml__builder_check_rules(const ml__builder *builder, ml_error *err);
/* Makes room for row builder->rows; the reader puts every kept column, then increments rows. */
ml_status ml__builder_row(ml__builder *builder, ml_error *err);
bool ml__builder_is_missing(const ml__builder *builder, const char *bytes, size_t length);
ml_status ml__builder_put_missing(ml__builder *builder, size_t column, size_t line, ml_error *err);
ml_status ml__builder_put_number(ml__builder *builder, size_t column, double value, const ml__cell *spelling, ml_error *err);
/* An untyped cell (CSV): missing, number or text. */
ml_status ml__builder_put_cell(ml__builder *builder, size_t column, const ml__cell *cell, ml_error *err);
/* A cell known to be text (JSON string). */
ml_status ml__builder_put_text(ml__builder *builder, size_t column, const ml__cell *cell, ml_error *err);
/* Ends the first pass; *again says whether the reader must walk its input once more. */
ml_status ml__builder_settle(ml__builder *builder, bool *again, ml_error *err);
/* Hands everything over to out. */
ml_status ml__builder_finish(ml__builder *builder, ml_table *out, ml_error *err);
/* "source:line: column N (name): message" */
ml_status ml__builder_fail(const ml__builder *builder, ml_error *err, size_t column, size_t line, const char *format, ...)
    __attribute__((format(printf, 5, 6), cold));

#endif
