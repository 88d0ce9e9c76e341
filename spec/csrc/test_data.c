/* csrc/data from C: the CSV and JSONL grammars, messages, splits, classes, and every allocation failing once. */
#include <math.h>
#include <string.h>
#include <unistd.h>
#include "base/file.h"
#include "data/rows.h"
#include "data/table.h"
#include "tap.h"

typedef ml_status (*parser)(const char *, size_t, const char *, const ml_table_options *, ml_table *, ml_error *);

static ml_table table;
static ml_error err;
static ml_table_options options;

static bool parse_with(parser parse, const char *text, size_t length) {
  char *copy = malloc(length > 0 ? length : 1); /* exactly as long as the text, so that a sanitizer sees any byte read too far */
  if (length > 0) memcpy(copy, text, length);
  ml_table_free(&table);
  err.message[0] = '\0';
  bool fine = parse(copy, length, "t.csv", &options, &table, &err) == ML_OK;
  free(copy);
  return fine;
}

static bool csv(const char *text) { return parse_with(ml_table_parse_csv, text, strlen(text)); }
static bool jsonl(const char *text) { return parse_with(ml_table_parse_jsonl, text, strlen(text)); }

static bool is_text(size_t column, size_t row, const char *expected) {
  const ml_column *c = &table.columns[column];
  return c->type == ML_COLUMN_TEXT && c->texts[row].length == strlen(expected) &&
         memcmp(c->texts[row].bytes, expected, strlen(expected)) == 0;
}
static bool is_number(size_t column, size_t row, double expected) {
  const ml_column *c = &table.columns[column];
  return c->type == ML_COLUMN_NUMBER && (c->numbers[row] == expected || (isnan(expected) && isnan(c->numbers[row])));
}
static bool says(const char *words) { return strstr(err.message, words) != NULL; }

static void test_numbers(void) {
  static const struct { const char *text; double value; } good[] = {
      {"0", 0.0}, {"-0.5", -0.5}, {"+1.5", 1.5}, {".5", 0.5}, {"5.", 5.0}, {"1e3", 1000.0}, {" 7 ", 7.0}, {"007", 7.0},
      {"0.1", 0.1}, {"123456789012345678901234567890", 1.2345678901234568e29}, {"2.2250738585072011e-308",
                                                                                2.2250738585072011e-308},
      {"9007199254740993", 9007199254740992.0}, {"1e-400", 0.0}, {"inf", HUGE_VAL}, {"-Infinity", -HUGE_VAL}};
  static const char *const bad[] = {"", " ", "-", "+", ".", "e5", "1e", "1e+", "1.2.3", "1,5", "0x10", "1 2", "nan", "1e999",
                                    "infin", "--1"};
  double value;
  for (size_t i = 0; i < sizeof good / sizeof good[0]; ++i)
    ok(ml_parse_number(good[i].text, strlen(good[i].text), &value) && value == good[i].value, "number '%s'", good[i].text);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i)
    ok(!ml_parse_number(bad[i], strlen(bad[i]), &value), "no number '%s'", bad[i]);
}

static void test_csv(void) {
  options = ml_table_options_default();
  ok(csv("a,b,c\n1,x,2.5\n,y,\n3,NA,-1e2\n"), "plain: %s", err.message);
  ok(table.rows == 3 && table.column_count == 3, "size");
  ok(is_number(0, 0, 1) && is_number(0, 1, NAN) && is_number(0, 2,
                                                             3) && table.columns[0].missing == 1 && table.columns[0].integral,
     "a number column with a gap");
  ok(is_text(1, 0, "x") && is_text(1, 2, "") && table.columns[1].missing == 1, "a text column with a gap");
  ok(is_number(2, 2, -100) && !table.columns[2].integral, "fractions");

  ok(csv("\xef\xbb\xbf" "name,\"quoted, name\"\r\n\"a \"\"b\"\"\",1\r\n\"line\r\nend\",2") && table.rows == 2, "RFC 4180: %s",
     err.message);
  ok(strcmp(table.columns[0].name, "name") == 0 && strcmp(table.columns[1].name, "quoted, name") == 0,
     "byte order mark, quoted name");
  ok(is_text(0, 0, "a \"b\"") && is_text(0, 1, "line\r\nend") && is_number(1, 1, 2),
     "quotes, line ends inside, no last line end");
  ok(csv("a\n\n1\n\n\"\"\n2\n\n") && table.rows == 3 && is_number(0, 1, NAN),
     "blank lines are skipped, a quoted empty cell is not");
  ok(csv("a,b\n\"1.5\",\"x\"\"\"\n") && is_number(0, 0, 1.5) && is_text(1, 0, "x\""), "quoted numbers are numbers");
  ok(csv("a,b\n5\" disk,x\n") && is_text(0, 0, "5\" disk"), "a quote inside an unquoted cell is a character");
  ok(csv("a,,c\n1,2,3\n") && strcmp(table.columns[1].name, "column_2") == 0, "a nameless column");
  ok(csv("a,b\nNA,\n?,\n") && table.columns[0].type == ML_COLUMN_NUMBER && table.columns[0].missing == 2,
     "nothing but gaps is numeric");
  ok(csv("a,b\n1,2\nx,3\n4,5\n") && is_text(0, 0, "1") && is_text(0, 1, "x"), "a late text makes the column text, spelling kept");
  ok(csv("a,b\n1, x \n") && is_text(1, 0, " x "), "spaces belong to the text");

  options.trim = true;
  ok(csv("a , b\n 1 , x \n 2, \"y z\" \n") && is_text(1, 0, "x") && is_text(1, 1, "y z") && strcmp(table.columns[1].name,
                                                                                                   "b") == 0, "trim: %s",
     err.message);
  options = ml_table_options_default();
  options.header = false;
  options.delimiter = ';';
  ok(csv("1;x\n2;y") && table.rows == 2 && strcmp(table.columns[1].name, "column_2") == 0, "no header, other delimiter");
  options = ml_table_options_default();
  const char *missing[] = {"-999"};
  options.missing = missing, options.missing_count = 1;
  ok(csv("a,b\n-999,NA\n1,x\n") && is_number(0, 0, NAN) && is_text(1, 0, "NA"), "other missing values");
  ok(csv("a,b\n,1\n") && table.columns[0].type == ML_COLUMN_TEXT, "an empty cell is a text then");

  ml_column_rule rules[] = {{"c", ML_COLUMN_ANY, true, false}, {"a", ML_COLUMN_TEXT, true, true}};
  options = ml_table_options_default();
  options.rules = rules, options.rule_count = 2, options.subset = true;
  ok(csv("a,b,c\n1,2,3\n4,x,6\n") && table.column_count == 2 && is_number(0, 1, 6) && is_text(1, 0, "1"),
     "subset in its own order");
  ok(!csv("a,b,c\n1,2,3\n\n,x,6\n") && says("t.csv:4: column 1 (a): the value is missing"), "required: %s", err.message);
  ok(!csv("a,b\n1,2\n") && says("no column named 'c'; the columns are a, b"), "unknown column: %s", err.message);
  rules[1].type = ML_COLUMN_NUMBER;
  ok(!csv("a,b,c\n1,2,3\n\"q\n\",x,6\n") && says("t.csv:3: column 1 (a): 'q ' is not a number"), "not a number: %s", err.message);

  options = ml_table_options_default();
  ok(!csv("") && says("t.csv: the file is empty"), "empty: %s", err.message);
  ok(!csv("\n\r\n\n") && says("the file is empty"), "blank: %s", err.message);
  ok(!csv("a,b\n") && says("no rows after the header"), "header only: %s", err.message);
  ok(!csv("a,b\n1,2\n3\n") && says("t.csv:3: the row has 1 cell, the header has 2"), "short row: %s", err.message);
  ok(!csv("a,b\n1,2,3,4\n") && says("t.csv:2: the row has 4 cells"), "long row: %s", err.message);
  ok(!csv("a,b\n1,\"x\ny\n") && says("t.csv:2: the quote opened here is never closed"), "open quote: %s", err.message);
  ok(!csv("a,b\n1,\"x\"y\n") && says("t.csv:2: text after a closing quote"), "text behind a quote: %s", err.message);
  ok(!csv("a,b,a\n1,2,3\n") && says("columns 1 and 3 have the same name 'a'"), "duplicate names: %s", err.message);
  ok(!parse_with(ml_table_parse_csv, "a\n1\n\0\n", 6) && says("t.csv:3: a zero byte"), "zero byte: %s", err.message);
  ok(!parse_with(ml_table_parse_csv, "\xff\xfe" "a\0", 4) && says("UTF-16"), "UTF-16: %s", err.message);
  options.delimiter = '"';
  ok(!csv("a\n1\n") && says("delimiter"), "delimiter: %s", err.message);
  options = ml_table_options_default();
  ok(ml_table_read_csv("/nonexistent/x.csv", &options, &table, &err) == ML_NOT_FOUND, "no such file: %s", err.message);
}

static void test_jsonl(void) {
  options = ml_table_options_default();
  ok(jsonl("{\"a\":1,\"b\":\"x\"}\n\n {\"b\":\"\\u00e9\",\"a\":null,\"c\":true}\r\n{\"a\":-2.5}"), "plain: %s", err.message);
  ok(table.rows == 3 && table.column_count == 3, "size %zu %zu", table.rows, table.column_count);
  ok(is_number(0, 0, 1) && is_number(0, 1, NAN) && is_number(0, 2, -2.5) && table.columns[0].missing == 1, "numbers");
  ok(is_text(1, 0, "x") && is_text(1, 1, "\xc3\xa9") && is_text(1, 2, "") && table.columns[1].missing == 1, "texts");
  ok(is_number(2, 0, NAN) && is_number(2, 1, 1) && table.columns[2].missing == 2, "a late column, true is 1");
  ok(jsonl("{\"a\":1}\n{\"a\":\"x\"}\n{\"a\":2.50}") && is_text(0, 0, "1") && is_text(0, 2, "2.50"),
     "mixed is text, spelling kept");
  ok(!jsonl("{\"a\":1}\n[1]\n") && says("t.csv:2: the line must hold one JSON object"), "array: %s", err.message);
  ok(!jsonl("{\"a\":[1]}\n") && says("column 1 (a): nested"), "nested: %s", err.message);
  ok(!jsonl("{\"a\":1,\"a\":2}\n") && says("twice"), "key twice: %s", err.message);
  ok(!jsonl("{\"a\":1}\n{\"a\":1\n}\n") && says("t.csv:2:"), "object over two lines: %s", err.message);
  ok(!jsonl("{\"a\":1} {\"a\":2}\n") && says("t.csv:1:"), "two objects a line: %s", err.message);
  ok(!jsonl("") && says("empty") && !jsonl("\n") && says("empty"), "empty: %s", err.message);
  ok(!jsonl("{}\n") && says("no object has a key"), "no keys: %s", err.message);
  ml_column_rule rules[] = {{"a", ML_COLUMN_NUMBER, false, true}};
  options.rules = rules, options.rule_count = 1;
  ok(!jsonl("{\"a\":\"x\"}\n") && says("t.csv:1: column 1 (a): 'x' is not a number"), "not a number: %s", err.message);
  ok(!jsonl("{\"b\":1}\n") && says("no column named 'a'"), "unknown column: %s", err.message);
  ok(!jsonl("{\"a\":1}\n{\"b\":1}\n") && says("t.csv:2: column 1 (a): the value is missing"), "required: %s", err.message);
  ok(!jsonl("{\"b\":1}\n{\"a\":1}\n") && says("(a): the first rows have no value"), "required, late: %s", err.message);
}

static void test_write(void) {
  char path[] = P_tmpdir "/mlserve_csv_XXXXXX";
  int handle = mkstemp(path);
  if (!ok(handle >= 0, "temporary file")) return;
  close(handle);
  float a[] = {0.1f, NAN, 3.0f};
  int64_t b[] = {INT64_MAX, -1, 0};
  ml_str c[] = {{"x,y", 3}, {"say \"hi\"", 8}, {"", 0}};
  const char *names[] = {"a", "b", "c d"};
  ml_view columns[] = {{a, 3, ML_FLOAT32, 1, {3}, 0}, {b, 3, ML_INT64, 2, {3, 1}, 0}, {c, 3, ML_STRING, 1, {3}, 0}};
  ml_file_map map;
  static const char expected[] = "a,b,c d\n0.1,9223372036854775807,\"x,y\"\n,-1,\"say \"\"hi\"\"\"\n3,0,\n";
  ok(ml_csv_write(path, names, columns, 3, ',', &err) == ML_OK && ml_file_open_map(path, &map, &err) == ML_OK, "written: %s",
     err.message);
  ok(map.size == strlen(expected) && memcmp(map.bytes, expected, map.size) == 0, "as expected: %.*s", (int)map.size,
     (const char *)map.bytes);
  ml_file_unmap(&map);
  options = ml_table_options_default();
  ml_table_free(&table);
  ok(ml_table_read_csv(path, &options, &table, &err) == ML_OK && is_text(2, 1, "say \"hi\"") &&
         (float)table.columns[0].numbers[0] == 0.1f,
     "read again: %s", err.message);
  ml_table_free(&table);
  ok(ml_csv_write(path, names, columns, 1, ',', &err) == ML_OK && ml_table_read_csv(path, &options, &table, &err) == ML_OK &&
         table.rows == 3, "a gap in a single column survives");
  columns[1].dims[0] = 2, columns[1].count = 2;
  ok(ml_csv_write(path, names, columns, 3, ',', &err) == ML_INVALID_ARGUMENT && says("column 'b' has 2 rows"), "lengths: %s",
     err.message);
  unlink(path);
}

static void test_rows(void) {
  float x[] = {0, 1, 10, 11, 20, 21};
  ml_str s[] = {{"a", 1}, {"bb", 2}, {"", 0}};
  ml_view numbers = {x, 6, ML_FLOAT32, 2, {3, 2}, 0}, strings = {s, 3, ML_STRING, 1, {3}, 0};
  int64_t rows[] = {2, 0, 2}, wrong[] = {3};
  ml_tensor *t;
  if (ok(ml_take_rows(&numbers, rows, 3, &t, &err) == ML_OK, "rows of numbers")) {
    float expected[] = {20, 21, 0, 1, 20, 21};
    ok(t->view.dims[0] == 3 && memcmp(t->view.data, expected, sizeof expected) == 0, "values");
    ml_tensor_release(t);
  }
  if (ok(ml_take_rows(&strings, rows + 1, 2, &t, &err) == ML_OK, "rows of text")) {
    const ml_str *out = t->view.data;
    ok(out[0].length == 1 && out[0].bytes[0] == 'a' && out[1].length == 0, "texts");
    ml_tensor_release(t);
  }
  if (ok(ml_take_rows(&numbers, rows, 0, &t, &err) == ML_OK && t->view.dims[0] == 0, "no rows")) ml_tensor_release(t);
  ok(ml_take_rows(&numbers, wrong, 1, &t, &err) == ML_OUT_OF_RANGE && says("row index 3"), "outside: %s", err.message);

  double a[] = {1, 2, NAN};
  uint8_t b[] = {4, 5, 6};
  ml_view columns[] = {{a, 3, ML_FLOAT64, 1, {3}, 0}, {b, 3, ML_UINT8, 2, {3, 1}, 0}};
  if (ok(ml_stack_columns(columns, 2, ML_FLOAT32, &t, &err) == ML_OK, "side by side")) {
    const float *out = t->view.data;
    ok(t->view.dims[0] == 3 && t->view.dims[1] == 2 && out[1] == 4 && out[2] == 2 && isnan(out[4]) && out[5] == 6, "values");
    ml_tensor_release(t);
  }
  /* NumPy: mean, std(ddof=1) and percentile of [4, 1, 3, 2, 10] */
  double d[] = {4, 1, 3, 2, NAN, 10};
  ml_view column = {d, 6, ML_FLOAT64, 1, {6}, 0};
  ml_column_stats stats;
  ok(ml_column_describe(&column, 0, &stats, &err) == ML_OK && stats.count == 5 && stats.missing == 1 && stats.mean == 4.0 &&
         fabs(stats.stddev - 3.5355339059327378) < 1e-15 && stats.min == 1 && stats.quartile_1 == 2 && stats.median == 3 &&
         stats.quartile_3 == 4 && stats.max == 10, "summary");
  ok(ml_column_describe(&column, 1, &stats, &err) == ML_OUT_OF_RANGE, "no second column");
}

static void test_classes(void) {
  ml_str s[] = {{"b", 1}, {"a", 1}, {"b", 1}, {"ab", 2}};
  double n[] = {10, 2, 10, -1};
  ml_view text = {s, 4, ML_STRING, 1, {4}, 0}, numbers = {n, 4, ML_FLOAT64, 2, {4, 1}, 0};
  ml_str fixed[] = {{"b", 1}, {"a", 1}, {"ab", 2}, {"z", 1}}, digits[] = {{"-1", 2}, {"2", 1}, {"10.0", 4}};
  ml_classes c;
  if (ok(ml_classes_encode(&text, NULL, 0, &c, &err) == ML_OK, "text classes")) {
    ok(c.count == 3 && memcmp(c.names[1].bytes, "ab",
                              2) == 0 && c.ids[0] == 2 && c.ids[1] == 0 && c.ids[3] == 1 && c.counts[2] == 2, "sorted bytewise");
    ml_classes_free(&c);
  }
  if (ok(ml_classes_encode(&numbers, NULL, 0, &c, &err) == ML_OK, "number classes")) {
    ok(c.count == 3 && strcmp(c.names[2].bytes, "10") == 0 && c.ids[0] == 2 && c.ids[3] == 0, "sorted by value");
    ml_classes_free(&c);
  }
  if (ok(ml_classes_encode(&text, fixed, 4, &c, &err) == ML_OK, "fixed classes")) {
    ok(c.count == 4 && c.ids[0] == 0 && c.ids[3] == 2 && c.counts[3] == 0, "in the given order");
    ml_classes_free(&c);
  }
  if (ok(ml_classes_encode(&numbers, digits, 3, &c, &err) == ML_OK, "fixed number classes: %s", err.message)) {
    ok(c.ids[0] == 2 && c.ids[1] == 1 && c.ids[3] == 0, "matched by value");
    ml_classes_free(&c);
  }
  ok(ml_classes_encode(&text, fixed, 2, &c,
                       &err) == ML_INVALID_ARGUMENT && says("row 4: label 'ab' is none of the classes b, a"), "%s", err.message);
  fixed[1] = fixed[0];
  ok(ml_classes_encode(&text, fixed, 2, &c, &err) == ML_INVALID_ARGUMENT && says("listed twice"), "%s", err.message);
  s[2].length = 0;
  ok(ml_classes_encode(&text, NULL, 0, &c, &err) == ML_INVALID_ARGUMENT && says("row 3 has no label"), "%s", err.message);
}

static void test_split(void) {
  /* 569 rows, classes 357 and 212, test 0.2: scikit-learn's StratifiedShuffleSplit leaves 72 and 42 for the test part */
  enum { ROWS = 569, TEST = 114 };
  uint32_t classes[ROWS], train[ROWS], test[ROWS], again[ROWS], count[2] = {0, 0};
  for (uint32_t i = 0; i < ROWS; ++i) classes[i] = i % 8 < 3 && count[1] < 212 ? 1 : 0, ++count[classes[i]];
  for (uint32_t i = 0; count[1] < 212; ++i)
    if (classes[i] == 0) classes[i] = 1, ++count[1], --count[0];
  ml_split_options split = {TEST, classes, 2, 7, true};
  ok(ml_split_rows(ROWS, &split, train, test, &err) == ML_OK, "stratified: %s", err.message);
  unsigned char seen[ROWS] = {0};
  unsigned positives = 0, once = 0;
  for (size_t i = 0; i < ROWS - TEST; ++i) ++seen[train[i]];
  for (size_t i = 0; i < TEST; ++i) ++seen[test[i]], positives += classes[test[i]];
  for (size_t i = 0; i < ROWS; ++i) once += seen[i] == 1;
  ok(once == ROWS, "each row is in exactly one part");
  ok(positives == 42, "42 positive rows in the test part, got %u", positives);
  ok(ml_split_rows(ROWS, &split, again, test, &err) == ML_OK && memcmp(again, train, (ROWS - TEST) * sizeof *train) == 0,
     "same seed, same split");
  split.seed = 8;
  ok(ml_split_rows(ROWS, &split, again, test, &err) == ML_OK && memcmp(again, train, (ROWS - TEST) * sizeof *train) != 0,
     "other seed");
  ml_split_options plain = {2, NULL, 0, 0, false};
  ok(ml_split_rows(5, &plain, train, test, &err) == ML_OK && train[2] == 2 && test[0] == 3 && test[1] == 4, "unshuffled");
  uint32_t lonely[] = {0, 0, 0, 1};
  ml_split_options impossible = {2, lonely, 2, 0, true};
  ok(ml_split_rows(4, &impossible, train, test, &err) == ML_FAILED_PRECONDITION && says("class 1 has a single row"), "%s",
     err.message);
  uint32_t three[] = {0, 0, 1, 1, 2, 2};
  ml_split_options small = {2, three, 3, 0, true};
  ok(ml_split_rows(6, &small, train, test, &err) == ML_FAILED_PRECONDITION && says("2 rows cannot hold all 3 classes"), "%s",
     err.message);
}

/* Runs `body` with the 1st, 2nd, … allocation failing until it passes. */
static void every_allocation(const char *name, bool (*body)(ml_status *status)) {
  uint64_t live = ml_alloc_get_stats().live_blocks, n = 0;
  ml_status status = ML_OK;
  bool passed;
  do {
    ml_alloc_fail_at(++n, false);
    passed = body(&status);
    ml_alloc_fail_at(0, false);
    if (!passed && status != ML_RESOURCE_EXHAUSTED) break;
  } while (!passed && n < 2000);
  ok(passed && n > 1, "%s survives every failing allocation (%d, %s)", name, (int)n, passed ? "" : err.message);
  ok(ml_alloc_get_stats().live_blocks == live, "%s leaks nothing", name);
}

static bool read_some_csv(ml_status *status) {
  static char text[4096];
  if (text[0] == '\0') {
    strcpy(text, "a,b,\"c \"\"d\"\"\"\n");
    for (int i = 0; i < 120; ++i) strcat(text, i % 3 ? "1,x,\"y \"\"z\"\"\"\n" : "2.5,,3\n");
  }
  ml_table t;
  *status = ml_table_parse_csv(text, strlen(text), "t", &options, &t, &err);
  ml_table_free(&t);
  return *status == ML_OK;
}

static bool read_some_jsonl(ml_status *status) {
  static const char text[] = "{\"a\":1}\n{\"a\":2,\"b\":\"x\\n\"}\n{\"b\":\"y\",\"c\":3}\n";
  ml_table t;
  *status = ml_table_parse_jsonl(text, sizeof text - 1, "t", &options, &t, &err);
  ml_table_free(&t);
  return *status == ML_OK;
}

static bool encode_some(ml_status *status) {
  ml_str s[] = {{"b", 1}, {"a", 1}};
  ml_view text = {s, 2, ML_STRING, 1, {2}, 0};
  ml_classes c;
  *status = ml_classes_encode(&text, NULL, 0, &c, &err);
  ml_classes_free(&c);
  return *status == ML_OK;
}

static bool take_some(ml_status *status) {
  ml_str s[] = {{"b", 1}, {"a", 1}};
  ml_view text = {s, 2, ML_STRING, 1, {2}, 0};
  int64_t rows[] = {1, 0};
  ml_tensor *t = NULL;
  *status = ml_take_rows(&text, rows, 2, &t, &err);
  if (*status == ML_OK) ml_tensor_release(t);
  return *status == ML_OK;
}

static bool split_some(ml_status *status) {
  uint32_t classes[] = {0, 1, 0, 1}, train[4], test[4];
  ml_split_options split = {2, classes, 2, 0, true};
  *status = ml_split_rows(4, &split, train, test, &err);
  return *status == ML_OK;
}

static bool columns_some(ml_status *status) {
  double a[] = {4, 1, 3};
  ml_view column = {a, 3, ML_FLOAT64, 1, {3}, 0};
  ml_column_stats stats;
  ml_tensor *matrix = NULL, *single = NULL;
  *status = ml_column_describe(&column, 0, &stats, &err);
  if (*status == ML_OK) *status = ml_stack_columns(&column, 1, ML_FLOAT32, &matrix, &err);
  if (*status == ML_OK) *status = ml_select_column(&matrix->view, 0, &single, &err);
  if (*status == ML_OK) ml_tensor_release(single);
  ml_tensor_release(matrix);
  return *status == ML_OK;
}

static char written_path[] = P_tmpdir "/mlserve_csv_XXXXXX";

static bool write_some(ml_status *status) {
  double a[] = {4, 1, NAN};
  const char *names[] = {"a"};
  ml_view column = {a, 3, ML_FLOAT64, 1, {3}, 0};
  *status = ml_csv_write(written_path, names, &column, 1, ',', &err);
  return *status == ML_OK;
}

int main(void) {
  test_numbers();
  test_csv();
  test_jsonl();
  test_write();
  ml_table_free(&table);
  test_rows();
  test_classes();
  test_split();
  options = ml_table_options_default();
  every_allocation("CSV", read_some_csv);
  every_allocation("JSONL", read_some_jsonl);
  every_allocation("classes", encode_some);
  every_allocation("rows", take_some);
  every_allocation("split", split_some);
  every_allocation("columns", columns_some);
  int handle = mkstemp(written_path);
  if (ok(handle >= 0, "temporary file")) {
    close(handle);
    every_allocation("CSV writing", write_some);
    unlink(written_path);
  }
  ok(ml_alloc_get_stats().live_blocks == 0, "nothing is left");
  return done();
}
