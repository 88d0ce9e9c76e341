/* Fuzz target for the CSV and JSONL readers. The first byte chooses reader and options, the rest is the file. What parses must be
 * consistent: every column has a value or a gap in each row.
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -Icsrc spec/fuzz/fuzz_csv.c csrc/{base,codec,tensor,data}/…*.c -lm
 * -lpthread */
#include <math.h>
#include "data/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  ml_column_rule rules[] = {{"a", ML_COLUMN_NUMBER, true, (data[0] & 64) != 0}, {"b", ML_COLUMN_TEXT, true, false}};
  ml_table_options options = ml_table_options_default();
  options.header = (data[0] & 2) == 0;
  options.trim = (data[0] & 4) != 0;
  options.delimiter = (data[0] & 8) != 0 ? ';' : ',';
  if ((data[0] & 16) != 0) options.rules = rules, options.rule_count = 2, options.subset = (data[0] & 32) != 0;
  ml_table table;
  ml_error err;
  ml_status status = ((data[0] & 1) != 0 ? ml_table_parse_jsonl : ml_table_parse_csv)((const char *)data + 1, size - 1, "fuzz",
                                                                                      &options, &table, &err);
  if (status == ML_OK) {
    if (table.rows == 0) __builtin_trap();
    for (size_t c = 0; c < table.column_count; ++c) {
      const ml_column *column = &table.columns[c];
      size_t missing = 0;
      for (size_t row = 0; row < table.rows; ++row)
        missing += column->type == ML_COLUMN_TEXT ? column->texts[row].length == 0 : isnan(column->numbers[row]) != 0;
      if (missing < column->missing || (column->type == ML_COLUMN_NUMBER && missing != column->missing)) __builtin_trap();
    }
  }
  ml_table_free(&table);
  if (ml_alloc_get_stats().live_blocks != 0) __builtin_trap();
  return 0;
}
