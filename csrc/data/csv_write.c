/* CSV writer: fields are quoted only where RFC 4180 asks for it; numbers are written so that reading gives them back bit for bit.
 * A row whose only field is empty would be a blank line, which readers skip: it is written as "". */
#include <math.h>
#include <string.h>
#include "base/file.h"
#include "codec/json.h"
#include "data/table.h"

static void put_text(ml_json_writer *w, const char *bytes, size_t length, char delimiter) {
  bool quote = false;
  for (size_t i = 0; i < length && !quote; ++i)
    quote = bytes[i] == delimiter || bytes[i] == '"' || bytes[i] == '\n' || bytes[i] == '\r';
  quote = quote || (length > 0 && (bytes[0] == ' ' || bytes[length - 1] == ' '));
  if (!quote) {
    ml_json_put_raw(w, bytes, length);
    return;
  }
  ml_json_put_literal(w, "\"");
  for (size_t i = 0; i < length; ++i) {
    if (bytes[i] == '"') ml_json_put_literal(w, "\"");
    ml_json_put_raw(w, bytes + i, 1);
  }
  ml_json_put_literal(w, "\"");
}

static void put_value(ml_json_writer *w, const ml_view *column, size_t row, char delimiter) {
  if (column->dtype == ML_STRING) {
    const ml_str *text = (const ml_str *)column->data + row;
    put_text(w, text->bytes, text->length, delimiter);
  } else if (column->dtype == ML_INT64) {
    ml_json_put_int64(w, ((const int64_t *)column->data)[row]);
  } else if (column->dtype == ML_UINT64) {
    ml_json_put_uint64(w, ((const uint64_t *)column->data)[row]);
  } else {
    double value = ml_element_get(column->data, column->dtype, row);
    if (isnan(value)) return;
    if (isinf(value)) ml_json_put_raw(w, value < 0.0 ? "-inf" : "inf", value < 0.0 ? 4 : 3);
    else if (value == floor(value) && fabs(value) <= 0x1p53 && !(value == 0.0 && signbit(value)))
      ml_json_put_int64(w, (int64_t)value);
    else if (column->dtype == ML_FLOAT64) ml_json_put_double(w, value);
    else ml_json_put_float(w, (float)value);
  }
}

static ml_status write_rows(ml_writer *file, ml_json_writer *w, const char *const *names, const ml_view *columns,
                            size_t column_count, char delimiter, ml_error *err) {
  size_t rows = (size_t)columns[0].dims[0];
  for (size_t row = 0; row <= rows; ++row) { /* 0: the header */
    for (size_t c = 0; c < column_count; ++c) {
      size_t before = w->length;
      if (row == 0) put_text(w, names[c], strlen(names[c]), delimiter);
      else put_value(w, &columns[c], row - 1, delimiter);
      if (column_count == 1 && w->length == before) ml_json_put_literal(w, "\"\"");
      ml_json_put_raw(w, c + 1 < column_count ? &delimiter : "\n", 1);
    }
    if (w->status != ML_OK) return ml_fail_memory(err, w->length, "CSV text");
    if (w->length >= 65536 || row == rows) {
      ML_TRY(ml_writer_write(file, w->text, w->length, err));
      w->length = 0;
    }
  }
  return ML_OK;
}

ml_status ml_csv_write(const char *path, const char *const *names, const ml_view *columns, size_t column_count, char delimiter,
                       ml_error *err) {
  ml_writer *file;
  ml_json_writer w;
  if (column_count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "a CSV file needs at least one column");
  if (delimiter == '\0' || delimiter == '"' || delimiter == '\n' || delimiter == '\r')
    return ml_fail(err, ML_INVALID_ARGUMENT, "the delimiter must be one character other than a quote or a line end");
  for (size_t c = 0; c < column_count; ++c) {
    if (columns[c].rank < 1 || (int64_t)columns[c].count != columns[c].dims[0])
      return ml_fail(err, ML_INVALID_ARGUMENT, "column '%s' must have one value a row", names[c]);
    if (columns[c].dims[0] != columns[0].dims[0])
      return ml_fail(err, ML_INVALID_ARGUMENT, "column '%s' has %lld rows, column '%s' has %lld", names[c],
                     (long long)columns[c].dims[0], names[0], (long long)columns[0].dims[0]);
  }
  ML_TRY(ml_writer_open(path, &file, err));
  ml_json_writer_init(&w);
  ml_status status = write_rows(file, &w, names, columns, column_count, delimiter, err);
  ml_json_writer_free(&w);
  if (status == ML_OK) return ml_writer_commit(file, err);
  ml_writer_abort(file);
  return status;
}
