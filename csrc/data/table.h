/* Tables: rows of named, typed columns, read from CSV and JSONL.
 * Lives here: the table, its readers and the CSV writer. May include: tensor, codec, base.
 * Ownership: a table owns its columns' arrays until ml_table_free; ml_column_take_numbers hands one over. Texts point into the
 * table. A reader maps or borrows its input only while it runs.
 * Bad data fails with "FILE:LINE: column N (NAME): …"; a table is either whole or not there at all. */
#ifndef ML_DATA_TABLE_H
#define ML_DATA_TABLE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/status.h"
#include "tensor/tensor.h"

#define ML_TABLE_MAX_COLUMNS ((size_t)1 << 20)

typedef enum ml_column_type { ML_COLUMN_ANY = 0, ML_COLUMN_NUMBER, ML_COLUMN_TEXT } ml_column_type;
const char *ml_column_type_name(ml_column_type type); /* "any", "number", "text" */

typedef struct ml_column {
  const char *name;     /* NUL-terminated, unique in the table */
  ml_column_type type;  /* never ANY */
  double *numbers;      /* (rows) NaN where missing; NULL for text */
  ml_str *texts;        /* (rows) empty where missing; NULL for numbers */
  size_t missing;       /* rows without a value */
  bool integral;        /* numbers: every value present is an integer within ±2^53 */
} ml_column;

typedef struct ml_table {
  ml_column *columns;
  size_t column_count, rows;
  ml_arena *arena;      /* private: names and texts */
} ml_table;

/* What a caller says about one column by name. */
typedef struct ml_column_rule {
  const char *name;
  ml_column_type type;  /* ANY: inferred, number when every value present is one */
  bool keep;            /* part of the result when options.subset */
  bool required;        /* a missing value is an error */
} ml_column_rule;

typedef struct ml_table_options {
  char delimiter;                   /* CSV */
  bool header;                      /* CSV: the first row names the columns; else column_1, column_2, … */
  bool trim;                        /* CSV: strip spaces and tabs around names and texts (numbers always allow them) */
  const char *const *missing;       /* texts that mean "no value"; NULL: the default list below */
  size_t missing_count;
  const ml_column_rule *rules;      /* columns not named are inferred; a rule for a column that is not there is an error */
  size_t rule_count;
  bool subset;                      /* only columns whose rule says keep, in the rules' order */
} ml_table_options;
/* ',', header, no trim, missing "" NA N/A NaN nan null NULL ?, no rules */
ml_table_options ml_table_options_default(void);

/* RFC 4180 with LF or CRLF, an optional UTF-8 byte order mark, quoted fields with "" and line ends inside; blank lines are
 * skipped. `source` names the input in messages. The table is zeroed on failure. */
ml_status ml_table_read_csv(const char *path, const ml_table_options *options, ml_table *out, ml_error *err);
ml_status ml_table_parse_csv(const char *text, size_t length, const char *source, const ml_table_options *options, ml_table *out,
                             ml_error *err);
/* One JSON object a line; columns in order of first appearance. true/false are 1/0, null and an absent key are missing, a column
 * with any string is text (numbers in it keep their spelling), nested values are an error. */
ml_status ml_table_read_jsonl(const char *path, const ml_table_options *options, ml_table *out, ml_error *err);
ml_status ml_table_parse_jsonl(const char *text, size_t length, const char *source, const ml_table_options *options,
                               ml_table *out, ml_error *err);
void ml_table_free(ml_table *table); /* a zeroed struct is allowed */

/* Writes names and rows as CSV (atomically). Columns are views of equal length N of any dtype, (N) or (N,1); NaN becomes an empty
 * field, floats the shortest text that reads back the same, integral floats no fraction. */
ml_status ml_csv_write(const char *path, const char *const *names, const ml_view *columns, size_t column_count, char delimiter,
                       ml_error *err);

/* Decimal number (sign, fraction, exponent, inf/infinity in any case) with spaces around it allowed; false: not a number. */
bool ml_parse_number(const char *text, size_t length, double *out);

#endif
