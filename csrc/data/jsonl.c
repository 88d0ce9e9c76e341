/* JSONL reader: one object a line, each key a column. The JSON reader is moved from line to line over the whole text, so that its
 * messages name the right line; a value may not cross a line end, since that is how a JSONL file loses half a row unnoticed. */
#include <string.h>
#include "base/file.h"
#include "codec/json.h"
#include "data/table_builder.h"

typedef struct jsonl {
  ml_json_reader reader;
  const char *source;
  size_t line;
  char *scratch; /* the last unescaped string */
  size_t scratch_capacity;
} jsonl;

static ml_status read_value(jsonl *j, ml__builder *builder, size_t column, ml_error *err) {
  ml_json_kind kind = ml_json_peek(&j->reader);
  ml__cell cell = {j->reader.at, 0, j->line};
  ml_json_number number;
  switch (kind) {
    case ML_JSON_NULL:
      ML_TRY(ml_json_literal_read(&j->reader, kind, err));
      return ml__builder_put_missing(builder, column, j->line, err);
    case ML_JSON_TRUE:
    case ML_JSON_FALSE:
      ML_TRY(ml_json_literal_read(&j->reader, kind, err));
      cell.length = (size_t)(j->reader.at - cell.bytes);
      return ml__builder_put_number(builder, column, kind == ML_JSON_TRUE ? 1.0 : 0.0, &cell, err);
    case ML_JSON_NUMBER:
      ML_TRY(ml_json_number_read(&j->reader, &number, err));
      cell.length = (size_t)(j->reader.at - cell.bytes);
      if (number.value != number.value) return ml__builder_put_missing(builder, column, j->line, err);
      return ml__builder_put_number(builder, column, number.value, &cell, err);
    case ML_JSON_STRING:
      ML_TRY(ml_json_string_length(&j->reader, &cell.length, err));
      ML_TRY(ml_grow(&j->scratch, &j->scratch_capacity, cell.length + 1, 1, "a text value", err));
      ML_TRY(ml_json_string_read(&j->reader, j->scratch, &cell.length, err));
      cell.bytes = j->scratch;
      return ml__builder_put_text(builder, column, &cell, err);
    case ML_JSON_ARRAY:
    case ML_JSON_OBJECT:
      return ml__builder_fail(builder, err, column, j->line, "nested values are not supported");
    default:
      return ml_json_fail(&j->reader, err, "a value is missing");
  }
}

static ml_status read_object(jsonl *j, ml__builder *builder, ml_error *err) {
  char scratch[1024];
  const char *key;
  size_t key_length, column;
  bool first = true, more;
  ML_TRY(ml__builder_row(builder, err));
  ML_TRY(ml_json_enter_object(&j->reader, err));
  for (;;) {
    ML_TRY(ml_json_object_next(&j->reader, &first, &more, scratch, sizeof scratch, &key, &key_length, err));
    if (!more) break;
    if (memchr(key, '\0', key_length) != NULL) return ml_json_fail(&j->reader, err, "a zero byte in a key");
    column = ml__builder_find(builder, key, key_length);
    if (column == SIZE_MAX) ML_TRY(ml__builder_add(builder, key, key_length, &column, err));
    if (builder->drafts[column].filled > builder->rows)
      return ml__builder_fail(builder, err, column, j->line, "the key occurs twice in one object");
    ML_TRY(read_value(j, builder, column, err));
    builder->drafts[column].filled = builder->rows + 1;
  }
  for (column = 0; column < builder->draft_count; ++column)
    if (builder->drafts[column].filled <= builder->rows) ML_TRY(ml__builder_put_missing(builder, column, j->line, err));
  return ml_json_expect_end(&j->reader, err);
}

static ml_status read_lines(jsonl *j, const char *text, size_t length, ml__builder *builder, ml_error *err) {
  const char *end = text + length;
  j->line = 0;
  ml_json_reader_init(&j->reader, text, length);
  for (const char *at = text, *next; at < end; at = next) {
    const char *line_end = memchr(at, '\n', (size_t)(end - at));
    if (line_end == NULL) line_end = end;
    next = line_end < end ? line_end + 1 : end;
    ++j->line;
    j->reader.at = at;
    j->reader.end = line_end;
    j->reader.depth = 0;
    ml_json_kind kind = ml_json_peek(&j->reader);
    if (kind == ML_JSON_END && j->reader.at == line_end) continue; /* a blank line */
    if (kind != ML_JSON_OBJECT)
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s:%zu: the line must hold one JSON object", j->source, j->line);
    ml_error detail;
    ml_status status = read_object(j, builder, &detail);
    if (status != ML_OK) { /* the builder's messages name the source already, the JSON reader's do not */
      bool named = strncmp(detail.message, j->source, strlen(j->source)) == 0;
      return named || status != ML_INVALID_ARGUMENT ? ml_fail(err, status, "%s", detail.message)
                                                    : ml_fail(err, status, "%s:%zu: %s", j->source, j->line, detail.message);
    }
    ++builder->rows;
  }
  return ML_OK;
}

static ml_status parse(jsonl *j, const char *text, size_t length, ml__builder *builder, ml_error *err) {
  bool again;
  ML_TRY(read_lines(j, text, length, builder, err));
  if (builder->rows == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: the file is empty", j->source);
  if (builder->draft_count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: no object has a key", j->source);
  ML_TRY(ml__builder_check_rules(builder, err));
  for (size_t i = 0; i < builder->draft_count; ++i)
    if (builder->drafts[i].required && builder->drafts[i].missing > 0) /* the column appeared after the first line */
      return ml_fail(err, ML_INVALID_ARGUMENT, "%s: column %zu (%s): the first rows have no value", j->source, i + 1,
                     builder->drafts[i].name);
  ML_TRY(ml__builder_settle(builder, &again, err));
  if (again) ML_TRY(read_lines(j, text, length, builder, err));
  return ML_OK;
}

ml_status ml_table_parse_jsonl(const char *text, size_t length, const char *source, const ml_table_options *options,
                               ml_table *out, ml_error *err) {
  jsonl j = {.source = source};
  ml__builder builder;
  memset(out, 0, sizeof *out);
  if (length == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "%s: the file is empty", source);
  if (length >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, length -= 3;
  ML_TRY(ml__builder_init(&builder, options, source, err));
  ml_status status = parse(&j, text, length, &builder, err);
  if (status == ML_OK) status = ml__builder_finish(&builder, out, err);
  ml_free(j.scratch);
  if (status != ML_OK) ml__builder_free(&builder);
  return status;
}

ml_status ml_table_read_jsonl(const char *path, const ml_table_options *options, ml_table *out, ml_error *err) {
  ml_file_map map;
  memset(out, 0, sizeof *out);
  ML_TRY(ml_file_open_map(path, &map, err));
  ml_status status = ml_table_parse_jsonl((const char *)map.bytes, map.size, path, options, out, err);
  ml_file_unmap(&map);
  return status;
}
