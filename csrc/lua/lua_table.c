/* Tables and rows in Lua: reading CSV/JSONL into columns, writing CSV, choosing and splitting rows, naming classes.
 * lua/mlserve/data.lua makes datasets of these; every index that Lua sees is 1-based. What C owns while Lua values are made
 * sits in a userdata with __gc, and arrays of temporary numbers are plain userdata, so that an error raised by Lua itself frees
 * them. */
#include <string.h>
#include "data/rows.h"
#include "data/table.h"
#include "lua/lua_core.h"

#define TABLE_CLASS "mlserve.raw_table"
#define CLASSES_CLASS "mlserve.raw_classes"

static int table_gc(lua_State *L) {
  ml_table_free(luaL_checkudata(L, 1, TABLE_CLASS));
  return 0;
}

static int classes_gc(lua_State *L) {
  ml_classes_free(luaL_checkudata(L, 1, CLASSES_CLASS));
  return 0;
}

static void *push_box(lua_State *L, size_t size, const char *name) {
  void *box = lua_newuserdatauv(L, size, 0);
  memset(box, 0, size);
  luaL_setmetatable(L, name);
  return box;
}

/* count * size bytes that Lua collects */
static void *push_buffer(lua_State *L, size_t count, size_t size) {
  size_t bytes;
  if (!ml_mul_size(count > 0 ? count : 1, size, &bytes)) luaL_error(L, "too many rows");
  return lua_newuserdatauv(L, bytes, 0);
}

/* ---- reading ---- */

/* The array at the top as borrowed strings: they live as long as the table does. */
static const char **strings_at_top(lua_State *L, const char *what, size_t *count) {
  int list = lua_gettop(L);
  *count = lua_rawlen(L, list);
  const char **strings = push_buffer(L, *count, sizeof *strings);
  for (size_t i = 0; i < *count; ++i) {
    lua_rawgeti(L, list, (int)i + 1);
    if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "%s must be an array of strings", what);
    strings[i] = lua_tostring(L, -1);
    lua_pop(L, 1);
  }
  return strings;
}

static ml_column_type check_type(lua_State *L, int index) {
  const char *name = ml__lua_opt_string_field(L, index, "type", "any");
  for (ml_column_type type = ML_COLUMN_ANY; type <= ML_COLUMN_TEXT; ++type)
    if (strcmp(name, ml_column_type_name(type)) == 0) return type;
  luaL_error(L, "a column's type must be \"number\" or \"text\", got \"%s\"", name);
  return ML_COLUMN_ANY;
}

/* Leaves buffers on the stack that the options point into; *jsonl says which reader. */
static ml_table_options check_options(lua_State *L, int index, bool *jsonl) {
  ml_table_options options = ml_table_options_default();
  *jsonl = false;
  if (lua_isnoneornil(L, index)) return options;
  luaL_checktype(L, index, LUA_TTABLE);
  *jsonl = strcmp(ml__lua_opt_string_field(L, index, "format", "csv"), "jsonl") == 0;
  const char *delimiter = ml__lua_opt_string_field(L, index, "delimiter", ",");
  if (strlen(delimiter) != 1) luaL_error(L, "delimiter must be one character, got '%s'", delimiter);
  options.delimiter = delimiter[0];
  options.header = ml__lua_opt_bool_field(L, index, "header", true);
  options.trim = ml__lua_opt_bool_field(L, index, "trim", false);
  options.subset = ml__lua_opt_bool_field(L, index, "subset", false);
  lua_getfield(L, index, "missing");
  if (lua_istable(L, -1)) options.missing = strings_at_top(L, "missing", &options.missing_count);
  lua_getfield(L, index, "rules");
  if (!lua_istable(L, -1)) return options;
  int list = lua_gettop(L);
  options.rule_count = lua_rawlen(L, list);
  ml_column_rule *rules = push_buffer(L, options.rule_count, sizeof *rules);
  for (size_t i = 0; i < options.rule_count; ++i) {
    lua_rawgeti(L, list, (int)i + 1);
    luaL_checktype(L, -1, LUA_TTABLE);
    int rule = lua_gettop(L);
    const char *name = ml__lua_opt_string_field(L, rule, "name", NULL);
    if (name == NULL) luaL_error(L, "a column rule needs a name");
    rules[i] = (ml_column_rule){name, check_type(L, rule), ml__lua_opt_bool_field(L, rule, "keep", false),
                                ml__lua_opt_bool_field(L, rule, "required", false)};
    lua_pop(L, 1);
  }
  options.rules = rules;
  return options;
}

/* The column's values as a tensor (N); numbers change hands instead of being copied. */
static ml_status column_tensor(ml_column *column, size_t rows, ml_tensor **out, ml_error *err) {
  int64_t dims[1] = {(int64_t)rows};
  if (column->type == ML_COLUMN_TEXT) return ml_tensor_from_strings(column->texts, dims, 1, out, err);
  ml_storage *storage = ml_storage_wrap(column->numbers, rows * sizeof(double), ml_free, column->numbers);
  if (storage == NULL) return ml_fail_memory(err, rows * sizeof(double), "a table column");
  column->numbers = NULL;
  ml_status status = ml_tensor_on(storage, 0, ML_FLOAT64, dims, 1, out, err);
  ml_storage_release(storage);
  return status;
}

static int push_table(lua_State *L, ml_table *table) {
  lua_createtable(L, 0, 2);
  ml__lua_push_int(L, (int64_t)table->rows);
  lua_setfield(L, -2, "rows");
  lua_createtable(L, (int)table->column_count, 0);
  for (size_t c = 0; c < table->column_count; ++c) {
    ml_column *column = &table->columns[c];
    ml_tensor *values;
    ml_error err;
    if (column_tensor(column, table->rows, &values, &err) != ML_OK) return ml__lua_fail(L, &err);
    ml__lua_push_tensor(L, values);
    lua_createtable(L, 0, 5);
    lua_insert(L, -2);
    lua_setfield(L, -2, "values");
    lua_pushstring(L, column->name);
    lua_setfield(L, -2, "name");
    lua_pushstring(L, ml_column_type_name(column->type));
    lua_setfield(L, -2, "type");
    ml__lua_push_int(L, (int64_t)column->missing);
    lua_setfield(L, -2, "missing");
    lua_pushboolean(L, column->integral);
    lua_setfield(L, -2, "integral");
    lua_rawseti(L, -2, (int)c + 1);
  }
  lua_setfield(L, -2, "columns");
  return 1;
}

/* read_table(path[, options]) -> { rows, columns = { { name, type, values, missing, integral }, … } } or nil, message, code */
static int read_table(lua_State *L) {
  const char *path = luaL_checkstring(L, 1);
  bool jsonl;
  ml_table_options options = check_options(L, 2, &jsonl);
  ml_table *table = push_box(L, sizeof *table, TABLE_CLASS);
  ml_error err;
  ml_status status = jsonl ? ml_table_read_jsonl(path, &options, table, &err) : ml_table_read_csv(path, &options, table, &err);
  return status == ML_OK ? push_table(L, table) : ml__lua_fail(L, &err);
}

/* parse_table(text, source[, options]): the same from a string; `source` names it in messages */
static int parse_table(lua_State *L) {
  size_t length;
  const char *text = luaL_checklstring(L, 1, &length), *source = luaL_checkstring(L, 2);
  bool jsonl;
  ml_table_options options = check_options(L, 3, &jsonl);
  ml_table *table = push_box(L, sizeof *table, TABLE_CLASS);
  ml_error err;
  ml_status status = jsonl ? ml_table_parse_jsonl(text, length, source, &options, table, &err)
                           : ml_table_parse_csv(text, length, source, &options, table, &err);
  return status == ML_OK ? push_table(L, table) : ml__lua_fail(L, &err);
}

/* ---- columns ---- */

/* Views of the tensors in the array at index; the array keeps them alive. */
static ml_view *check_columns(lua_State *L, int index, size_t *count) {
  luaL_checktype(L, index, LUA_TTABLE);
  *count = lua_rawlen(L, index);
  ml_view *views = push_buffer(L, *count, sizeof *views);
  for (size_t i = 0; i < *count; ++i) {
    lua_rawgeti(L, index, (int)i + 1);
    views[i] = ml__lua_check_tensor(L, -1)->view;
    lua_pop(L, 1);
  }
  return views;
}

/* write_csv(path, names, columns[, delimiter]) -> true or nil, message, code */
static int write_csv(lua_State *L) {
  const char *path = luaL_checkstring(L, 1), *delimiter = luaL_optstring(L, 4, ",");
  size_t count, name_count;
  ml_error err;
  luaL_checktype(L, 2, LUA_TTABLE);
  if (strlen(delimiter) != 1) return luaL_error(L, "delimiter must be one character, got '%s'", delimiter);
  ml_view *columns = check_columns(L, 3, &count);
  lua_pushvalue(L, 2);
  const char **names = strings_at_top(L, "names", &name_count);
  if (name_count != count) return luaL_error(L, "%d names for %d columns", (int)name_count, (int)count);
  if (ml_csv_write(path, names, columns, count, delimiter[0], &err) != ML_OK) return ml__lua_fail(L, &err);
  lua_pushboolean(L, 1);
  return 1;
}

/* stack_columns(columns[, dtype]) -> tensor (N, F), float32 unless dtype is "float64" */
static int stack_columns(lua_State *L) {
  size_t count;
  ml_tensor *out;
  ml_error err;
  ml_dtype dtype = ml_dtype_from_name(luaL_optstring(L, 2, "float32"));
  ml_view *columns = check_columns(L, 1, &count);
  if (ml_stack_columns(columns, count, dtype, &out, &err) != ML_OK) return ml__lua_error(L, &err);
  ml__lua_push_tensor(L, out);
  return 1;
}

/* select_column(tensor, column) -> tensor (N) */
static int select_column(lua_State *L) {
  ml_tensor *tensor = ml__lua_check_tensor(L, 1), *out;
  int64_t column = ml__lua_check_int(L, 2);
  ml_error err;
  if (column < 1) return luaL_error(L, "columns are counted from 1");
  if (ml_select_column(&tensor->view, (size_t)column - 1, &out, &err) != ML_OK) return ml__lua_error(L, &err);
  ml__lua_push_tensor(L, out);
  return 1;
}

static void push_number(lua_State *L, const char *field, double value) {
  lua_pushnumber(L, value);
  lua_setfield(L, -2, field);
}

/* describe_column(tensor, column) -> { count, missing, mean, stddev, min, quartile_1, median, quartile_3, max } */
static int describe_column(lua_State *L) {
  ml_tensor *tensor = ml__lua_check_tensor(L, 1);
  int64_t column = ml__lua_opt_int(L, 2, 1);
  ml_column_stats stats;
  ml_error err;
  if (column < 1) return luaL_error(L, "columns are counted from 1");
  if (ml_column_describe(&tensor->view, (size_t)column - 1, &stats, &err) != ML_OK) return ml__lua_error(L, &err);
  lua_createtable(L, 0, 9);
  ml__lua_push_int(L, (int64_t)stats.count);
  lua_setfield(L, -2, "count");
  ml__lua_push_int(L, (int64_t)stats.missing);
  lua_setfield(L, -2, "missing");
  push_number(L, "mean", stats.mean);
  push_number(L, "stddev", stats.stddev);
  push_number(L, "min", stats.min);
  push_number(L, "quartile_1", stats.quartile_1);
  push_number(L, "median", stats.median);
  push_number(L, "quartile_3", stats.quartile_3);
  push_number(L, "max", stats.max);
  return 1;
}

/* encode_classes(labels[, fixed]) -> ids (N) int64, names, counts; or nil, message, code for a label that is missing or not in
 * fixed */
static int encode_classes(lua_State *L) {
  ml_tensor *labels = ml__lua_check_tensor(L, 1), *ids;
  ml_str *fixed = NULL;
  size_t fixed_count = 0;
  ml_error err;
  if (!lua_isnoneornil(L, 2)) {
    luaL_checktype(L, 2, LUA_TTABLE);
    fixed_count = lua_rawlen(L, 2);
    fixed = push_buffer(L, fixed_count, sizeof *fixed);
    for (size_t i = 0; i < fixed_count; ++i) {
      lua_rawgeti(L, 2, (int)i + 1);
      if (lua_type(L, -1) != LUA_TSTRING) return luaL_error(L, "classes must be an array of strings");
      fixed[i].bytes = lua_tolstring(L, -1, &fixed[i].length);
      lua_pop(L, 1);
    }
  }
  ml_classes *classes = push_box(L, sizeof *classes, CLASSES_CLASS);
  if (ml_classes_encode(&labels->view, fixed, fixed_count, classes, &err) != ML_OK) return ml__lua_fail(L, &err);
  int64_t dims[1] = {(int64_t)labels->view.count};
  if (ml_tensor_new(ML_INT64, dims, 1, &ids, &err) != ML_OK) return ml__lua_fail(L, &err);
  for (size_t row = 0; row < labels->view.count; ++row) ((int64_t *)ids->view.data)[row] = classes->ids[row];
  ml__lua_push_tensor(L, ids);
  lua_createtable(L, (int)classes->count, 0);
  lua_createtable(L, (int)classes->count, 0);
  for (size_t c = 0; c < classes->count; ++c) {
    lua_pushlstring(L, classes->names[c].bytes, classes->names[c].length);
    lua_rawseti(L, -3, (int)c + 1);
    ml__lua_push_int(L, (int64_t)classes->counts[c]);
    lua_rawseti(L, -2, (int)c + 1);
  }
  return 3;
}

/* ---- rows ---- */

/* 1-based row numbers in a Lua array or an integer tensor -> 0-based; leaves a buffer on the stack. */
static int64_t *check_rows(lua_State *L, int index, size_t *count) {
  ml_tensor *tensor = ml__lua_test_tensor(L, index);
  int64_t *rows;
  if (tensor != NULL) {
    if (!ml_dtype_is_integer(tensor->view.dtype))
      luaL_error(L, "row indices must be integers, got a tensor of %s", ml_dtype_name(tensor->view.dtype));
    *count = tensor->view.count;
    rows = push_buffer(L, *count, sizeof *rows);
    ml_convert(tensor->view.data, tensor->view.dtype, rows, ML_INT64, *count);
  } else {
    luaL_checktype(L, index, LUA_TTABLE);
    *count = lua_rawlen(L, index);
    rows = push_buffer(L, *count, sizeof *rows);
    for (size_t i = 0; i < *count; ++i) {
      lua_rawgeti(L, index, (int)i + 1);
      rows[i] = ml__lua_check_int(L, -1);
      lua_pop(L, 1);
    }
  }
  for (size_t i = 0; i < *count; ++i) --rows[i];
  return rows;
}

/* take_rows(tensor, indices) -> tensor of these rows in this order; indices from 1, a table or an integer tensor */
static int take_rows(lua_State *L) {
  ml_tensor *tensor = ml__lua_check_tensor(L, 1), *out;
  size_t count;
  int64_t *rows = check_rows(L, 2, &count);
  ml_error err;
  if (tensor->view.rank > 0)
    for (size_t i = 0; i < count; ++i)
      if (rows[i] < 0 || rows[i] >= tensor->view.dims[0])
        return luaL_error(L, "row %d is outside 1 to %d", (int)rows[i] + 1, (int)tensor->view.dims[0]);
  if (ml_take_rows(&tensor->view, rows, count, &out, &err) != ML_OK) return ml__lua_error(L, &err);
  ml__lua_push_tensor(L, out);
  return 1;
}

static int push_rows(lua_State *L, const uint32_t *rows, size_t count) {
  int64_t dims[1] = {(int64_t)count};
  ml_tensor *out;
  ml_error err;
  if (ml_tensor_new(ML_INT64, dims, 1, &out, &err) != ML_OK) return ml__lua_fail(L, &err);
  for (size_t i = 0; i < count; ++i) ((int64_t *)out->view.data)[i] = (int64_t)rows[i] + 1;
  ml__lua_push_tensor(L, out);
  return 1;
}

/* split_rows(rows, { test = count, seed, shuffle, classes = ids tensor, class_count }) -> train, test: int64 row numbers from 1
 * */
static int split_rows(lua_State *L) {
  int64_t rows = ml__lua_check_int(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  int64_t test = ml__lua_opt_int_field(L, 2, "test", 0);
  ml_split_options options = {.seed = (uint64_t)ml__lua_opt_int_field(L, 2, "seed", 0),
                              .class_count = (size_t)ml__lua_opt_int_field(L, 2, "class_count", 0),
                              .shuffle = ml__lua_opt_bool_field(L, 2, "shuffle", true)};
  ml_error err;
  if (rows < 1 || test < 0 || test > rows) return luaL_error(L, "a test part of %d from %d rows", (int)test, (int)rows);
  options.test = (size_t)test;
  lua_getfield(L, 2, "classes");
  if (!lua_isnil(L, -1)) {
    ml_tensor *ids = ml__lua_check_tensor(L, -1);
    if ((int64_t)ids->view.count != rows) return luaL_error(L, "split_rows: classes must have one id a row");
    uint32_t *classes = push_buffer(L, (size_t)rows, sizeof *classes);
    ml_convert(ids->view.data, ids->view.dtype, classes, ML_UINT32, (size_t)rows);
    options.classes = classes;
  }
  uint32_t *train_rows = push_buffer(L, (size_t)(rows - test), sizeof *train_rows);
  uint32_t *test_rows = push_buffer(L, (size_t)test, sizeof *test_rows);
  if (ml_split_rows((size_t)rows, &options, train_rows, test_rows, &err) != ML_OK) return ml__lua_error(L, &err);
  int pushed = push_rows(L, train_rows, (size_t)(rows - test));
  return pushed != 1 ? pushed : (pushed = push_rows(L, test_rows, options.test)) != 1 ? pushed : 2;
}

/* new_object(metatable) -> an empty userdata with that metatable: the only kind of object whose # both Lua 5.4 and LuaJIT ask
 * for */
static int new_object(lua_State *L) {
  luaL_checktype(L, 1, LUA_TTABLE);
  (void)lua_newuserdatauv(L, 0, 0);
  lua_pushvalue(L, 1);
  lua_setmetatable(L, -2);
  return 1;
}

void ml__lua_open_table(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"read_table", read_table},
      {"parse_table", parse_table},
      {"write_csv", write_csv},
      {"stack_columns", stack_columns},
      {"select_column", select_column},
      {"describe_column", describe_column},
      {"encode_classes", encode_classes},
      {"take_rows", take_rows},
      {"split_rows", split_rows},
      {"new_object", new_object},
      {NULL, NULL},
  };
  static const luaL_Reg methods[] = {{NULL, NULL}};
  ml__lua_class(L, TABLE_CLASS, methods, table_gc, NULL);
  ml__lua_class(L, CLASSES_CLASS, methods, classes_gc, NULL);
  luaL_setfuncs(L, functions, 0);
}
