/* CSV reader: RFC 4180 and what files in the wild add to it.
 * A cell is found by looking for the delimiter or the line end; only quoted cells are looked at byte by byte, and only those
 * with a doubled quote inside are copied. Quoting decides where a cell ends, not what it means: "1.5" is a number and "" is
 * missing. */
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "data/table_builder.h"

typedef enum cell_end { END_CELL, END_ROW, END_FILE } cell_end;

typedef struct csv {
  const char *at, *end, *source;
  size_t line;
  char delimiter;
  bool trim;
  char *scratch; /* the last unescaped cell */
  size_t scratch_capacity;
} csv;

static ml_status fail_line(const csv *c, ml_error *err, size_t line, const char *what) {
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s:%zu: %s", c->source, line, what);
}

static bool at_line_end(const csv *c) {
  return c->at < c->end && (*c->at == '\n' || (*c->at == '\r' && c->at + 1 < c->end && c->at[1] == '\n'));
}

static void skip_line_end(csv *c) {
  c->at += *c->at == '\r' ? 2 : 1;
  ++c->line;
}

static void skip_spaces(csv *c) {
  while (c->at < c->end && (*c->at == ' ' || *c->at == '\t') && *c->at != c->delimiter) ++c->at;
}

static ml_status after_cell(csv *c, size_t line, cell_end *ended, ml_error *err) {
  if (c->at == c->end) *ended = END_FILE;
  else if (*c->at == c->delimiter) ++c->at, *ended = END_CELL;
  else if (at_line_end(c)) skip_line_end(c), *ended = END_ROW;
  else return fail_line(c, err, line, "text after a closing quote (a quote inside a quoted field is written twice)");
  return ML_OK;
}

/* c->at is on the opening quote */
static ml_status quoted_cell(csv *c, ml__cell *cell, cell_end *ended, ml_error *err) {
  const char *begin = ++c->at, *copied = begin;
  size_t used = 0;
  bool escaped = false;
  for (;; ++c->at) {
    if (c->at == c->end) return fail_line(c, err, cell->line, "the quote opened here is never closed");
    if (*c->at == '\n') ++c->line;
    if (*c->at != '"') continue;
    if (c->at + 1 == c->end || c->at[1] != '"') break;
    size_t chunk = (size_t)(c->at + 1 - copied); /* with one of the two quotes */
    ML_TRY(ml_grow(&c->scratch, &c->scratch_capacity, used + chunk, 1, "a quoted field", err));
    memcpy(c->scratch + used, copied, chunk);
    used += chunk;
    copied = ++c->at + 1;
    escaped = true;
  }
  if (escaped) {
    size_t chunk = (size_t)(c->at - copied);
    ML_TRY(ml_grow(&c->scratch, &c->scratch_capacity, used + chunk, 1, "a quoted field", err));
    memcpy(c->scratch + used, copied, chunk);
    cell->bytes = c->scratch;
    cell->length = used + chunk;
  } else {
    cell->bytes = begin;
    cell->length = (size_t)(c->at - begin);
  }
  ++c->at;
  if (c->trim) skip_spaces(c);
  return after_cell(c, cell->line, ended, err);
}

/* The next cell, valid until the call after. */
static ml_status next_cell(csv *c, ml__cell *cell, cell_end *ended, ml_error *err) {
  cell->line = c->line;
  if (c->trim) skip_spaces(c);
  if (c->at < c->end && *c->at == '"') return quoted_cell(c, cell, ended, err);
  cell->bytes = c->at;
  while (c->at < c->end && *c->at != c->delimiter && *c->at != '\n') ++c->at;
  cell->length = (size_t)(c->at - cell->bytes);
  if (c->at == c->end) {
    *ended = END_FILE;
  } else if (*c->at == '\n') {
    if (cell->length > 0 && c->at[-1] == '\r') --cell->length;
    *ended = END_ROW;
    ++c->line;
    ++c->at;
  } else {
    *ended = END_CELL;
    ++c->at;
  }
  if (c->trim)
    while (cell->length > 0 && (cell->bytes[cell->length - 1] == ' ' || cell->bytes[cell->length - 1] == '\t')) --cell->length;
  return ML_OK;
}

static void skip_blank_lines(csv *c) {
  while (at_line_end(c)) skip_line_end(c);
}

/* The header, or without one as many numbered names as the first row has cells. */
static ml_status read_names(csv *c, ml__builder *builder, ml_error *err) {
  cell_end ended = END_CELL;
  ml__cell cell;
  csv before = *c;
  size_t index;
  for (size_t column = 1; ended == END_CELL; ++column) {
    char numbered[32];
    ML_TRY(next_cell(c, &cell, &ended, err));
    if (!builder->options->header || cell.length == 0) {
      (void)snprintf(numbered, sizeof numbered, "column_%zu", column);
      cell.bytes = numbered;
      cell.length = strlen(numbered);
    }
    index = ml__builder_find(builder, cell.bytes, cell.length);
    if (index != SIZE_MAX)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s:%zu: columns %zu and %zu have the same name '%s'", c->source, cell.line,
                     index + 1, column, builder->drafts[index].name);
    ML_TRY(ml__builder_add(builder, cell.bytes, cell.length, &index, err));
  }
  if (!builder->options->header) c->at = before.at, c->line = before.line;
  return ml__builder_check_rules(builder, err);
}

static ml_status fail_ragged(csv *c, ml__builder *builder, size_t line, size_t cells, ml_error *err) {
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s:%zu: the row has %zu cell%s, the %s has %zu", c->source, line, cells,
                 cells == 1 ? "" : "s", builder->options->header ? "header" : "first row", builder->draft_count);
}

static ml_status read_rows(csv *c, ml__builder *builder, ml_error *err) {
  for (skip_blank_lines(c); c->at < c->end; skip_blank_lines(c)) {
    size_t line = c->line, count = 0;
    cell_end ended = END_CELL;
    ml__cell cell;
    ML_TRY(ml__builder_row(builder, err));
    for (; ended == END_CELL; ++count) {
      ML_TRY(next_cell(c, &cell, &ended, err));
      if (count < builder->draft_count) ML_TRY(ml__builder_put_cell(builder, count, &cell, err));
    }
    if (count != builder->draft_count) return fail_ragged(c, builder, line, count, err);
    ++builder->rows;
  }
  return ML_OK;
}

static ml_status check_text(const char *text, size_t length, const char *source, ml_error *err) {
  if (length >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s: UTF-16 text; save it as UTF-8", source);
  const char *zero = length > 0 ? memchr(text, '\0', length) : NULL;
  if (zero == NULL) return ML_OK;
  size_t line = 1;
  for (const char *at = text; at < zero; ++at) line += *at == '\n' ? 1 : 0;
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s:%zu: a zero byte: this is not a text file", source, line);
}

static ml_status parse(csv *c, ml__builder *builder, ml_error *err) {
  bool again;
  skip_blank_lines(c);
  if (c->at == c->end) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: the file is empty", c->source);
  ML_TRY(read_names(c, builder, err));
  csv rows = *c;
  ML_TRY(read_rows(c, builder, err));
  if (builder->rows == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: no rows after the header", c->source);
  ML_TRY(ml__builder_settle(builder, &again, err));
  if (again) {
    c->at = rows.at, c->line = rows.line;
    ML_TRY(read_rows(c, builder, err));
  }
  return ML_OK;
}

ml_status ml_table_parse_csv(const char *text, size_t length, const char *source, const ml_table_options *options, ml_table *out,
                             ml_error *err) {
  csv c = {.source = source, .line = 1, .delimiter = options->delimiter, .trim = options->trim};
  ml__builder builder;
  memset(out, 0, sizeof *out);
  if (c.delimiter == '\0' || c.delimiter == '"' || c.delimiter == '\n' || c.delimiter == '\r')
    return ml_fail(err, ML_INVALID_ARGUMENT, "the delimiter must be one character other than a quote or a line end");
  ML_TRY(check_text(text, length, source, err));
  if (length == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: the file is empty", source);
  c.at = length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? text + 3 : text;
  c.end = text + length;
  ML_TRY(ml__builder_init(&builder, options, source, err));
  ml_status status = parse(&c, &builder, err);
  if (status == ML_OK) status = ml__builder_finish(&builder, out, err);
  ml_free(c.scratch);
  if (status != ML_OK) ml__builder_free(&builder);
  return status;
}

ml_status ml_table_read_csv(const char *path, const ml_table_options *options, ml_table *out, ml_error *err) {
  ml_file_map map;
  memset(out, 0, sizeof *out);
  ML_TRY(ml_file_open_map(path, &map, err));
  ml_status status = ml_table_parse_csv((const char *)map.bytes, map.size, path, options, out, err);
  ml_file_unmap(&map);
  return status;
}
