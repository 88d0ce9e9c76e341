/* Metrics in Lua: core.metric, core.metric_list, core.metrics_report, core.confusion_matrix.
 * Labels and predictions are tensors or (nested) Lua tables of numbers. What C owns while Lua values are made sits in a
 * userdata with __gc, so that an error raised by Lua itself frees it. */
#include <math.h>
#include <string.h>
#include "eval/metrics.h"
#include "lua/lua_core.h"

#define DATA_CLASS "mlserve.eval_data"

static int data_gc(lua_State *L) {
  ml_eval_data_free(luaL_checkudata(L, 1, DATA_CLASS));
  return 0;
}

static ml_eval_data *push_data(lua_State *L) {
  ml_eval_data *data = lua_newuserdatauv(L, sizeof *data, 0);
  memset(data, 0, sizeof *data);
  luaL_setmetatable(L, DATA_CLASS);
  return data;
}

/* Replaces a table at index by a float64 tensor (so that Lua's numbers keep their precision). */
static const ml_view *check_values(lua_State *L, int index) {
  ml_tensor *tensor = ml__lua_test_tensor(L, index);
  ml_error err;
  if (tensor == NULL) {
    luaL_checktype(L, index, LUA_TTABLE);
    if (ml__lua_to_tensor(L, index, ML_FLOAT64, &tensor, &err) != ML_OK) ml__lua_raise(L, &err);
    ml__lua_push_tensor(L, tensor);
    lua_replace(L, index);
  }
  return &tensor->view;
}

static ml_metric_options check_options(lua_State *L, int index) {
  static const char *const known[] = {"task", "average", "threshold", "k", "classes", NULL};
  ml_metric_options options = ml_metric_options_default();
  if (lua_isnoneornil(L, index)) return options;
  luaL_checktype(L, index, LUA_TTABLE);
  for (lua_pushnil(L); lua_next(L, index) != 0; lua_pop(L, 1)) {
    const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "(not a string)";
    size_t i = 0;
    while (known[i] != NULL && strcmp(known[i], name) != 0) ++i;
    if (known[i] == NULL)
      luaL_error(L, "unknown metric option '%s'; the options are average, classes, k, task, threshold", name);
  }
  const char *task = ml__lua_opt_string_field(L, index, "task", "auto");
  if (!ml_eval_task_from_name(task, &options.task))
    luaL_error(L, "task must be \"binary\", \"categorical\" or \"regression\", got \"%s\"", task);
  const char *average = ml__lua_opt_string_field(L, index, "average", "auto");
  if (!ml_eval_average_from_name(average, &options.average))
    luaL_error(L, "average must be \"binary\", \"macro\", \"micro\" or \"weighted\", got \"%s\"", average);
  options.threshold = ml__lua_opt_number_field(L, index, "threshold", options.threshold);
  int64_t k = ml__lua_opt_int_field(L, index, "k", (int64_t)options.top_k);
  if (k < 1) luaL_error(L, "k must be at least 1");
  options.top_k = (size_t)k;
  lua_getfield(L, index, "classes"); /* a number, or an array of names */
  if (lua_istable(L, -1)) {
    options.classes = lua_rawlen(L, -1);
  } else if (!lua_isnil(L, -1)) {
    int64_t classes = ml__lua_check_int(L, -1);
    if (classes < 2) luaL_error(L, "classes must be at least 2");
    options.classes = (size_t)classes;
  }
  lua_pop(L, 1);
  return options;
}

/* metric(name, y_true, y_pred[, options]) -> value, note or nil */
static int metric(lua_State *L) {
  const char *name = luaL_checkstring(L, 1);
  const ml_metric *row = ml_metric_find(name);
  if (row == NULL) return luaL_error(L, "unknown metric '%s'", name);
  const ml_view *y_true = check_values(L, 2), *y_pred = check_values(L, 3);
  ml_metric_options options = check_options(L, 4);
  ml_metric_result result;
  ml_error err;
  if (ml_metric_evaluate(row, y_true, y_pred, &options, &result, &err) != ML_OK) return ml__lua_error(L, &err);
  lua_pushnumber(L, result.value);
  if (result.note[0] == '\0') return 1;
  lua_pushstring(L, result.note);
  return 2;
}

/* metric_list() -> { { name, aliases = {…}, larger_is_better, binary, categorical, regression }, … } */
static int metric_list(lua_State *L) {
  lua_createtable(L, (int)ml_metric_count(), 0);
  for (size_t i = 0; i < ml_metric_count(); ++i) {
    const ml_metric *row = ml_metric_at(i);
    lua_createtable(L, 0, 6);
    lua_pushstring(L, row->name);
    lua_setfield(L, -2, "name");
    lua_newtable(L);
    int count = 0;
    for (const char *at = row->aliases; *at != '\0';) {
      size_t length = strcspn(at, ",");
      lua_pushlstring(L, at, length);
      lua_rawseti(L, -2, ++count);
      at += length + (at[length] == ',' ? 1 : 0);
    }
    lua_setfield(L, -2, "aliases");
    lua_pushboolean(L, row->larger_is_better);
    lua_setfield(L, -2, "larger_is_better");
    for (ml_eval_task task = ML_EVAL_BINARY; task <= ML_EVAL_REGRESSION; ++task) {
      lua_pushboolean(L, (row->tasks & 1u << task) != 0);
      lua_setfield(L, -2, ml_eval_task_name(task));
    }
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

#define CONFUSION_MAX 1000 /* classes; more would be millions of Lua numbers */

/* Pushes the matrix as nested tables, or nil when it is too large. */
static void push_confusion(lua_State *L, const ml_eval_data *data) {
  if (data->classes > CONFUSION_MAX) {
    lua_pushnil(L);
    return;
  }
  uint64_t *counts = lua_newuserdatauv(L, data->classes * data->classes * sizeof *counts, 0);
  ml_eval_confusion(data, counts);
  lua_createtable(L, (int)data->classes, 0);
  for (size_t t = 0; t < data->classes; ++t) {
    lua_createtable(L, (int)data->classes, 0);
    for (size_t p = 0; p < data->classes; ++p) {
      ml__lua_push_int(L, (int64_t)counts[t * data->classes + p]);
      lua_rawseti(L, -2, (int)p + 1);
    }
    lua_rawseti(L, -2, (int)t + 1);
  }
  lua_remove(L, -2);
}

static int confusion_matrix(lua_State *L) {
  const ml_view *y_true = check_values(L, 1), *y_pred = check_values(L, 2);
  ml_metric_options options = check_options(L, 3);
  ml_eval_data *data = push_data(L);
  ml_error err;
  if (ml_eval_data_new(y_true, y_pred, &options, data, &err) != ML_OK) return ml__lua_error(L, &err);
  if (data->task == ML_EVAL_REGRESSION) return luaL_error(L, "a confusion matrix needs class labels");
  push_confusion(L, data);
  if (lua_isnil(L, -1)) return luaL_error(L, "a confusion matrix of more than %d classes is too large", CONFUSION_MAX);
  return 1;
}

static void push_scores(lua_State *L, ml_class_scores scores) {
  lua_createtable(L, 0, 5);
  lua_pushnumber(L, scores.precision);
  lua_setfield(L, -2, "precision");
  lua_pushnumber(L, scores.recall);
  lua_setfield(L, -2, "recall");
  lua_pushnumber(L, scores.f1);
  lua_setfield(L, -2, "f1");
  ml__lua_push_int(L, (int64_t)scores.support);
  lua_setfield(L, -2, "support");
}

/* Table at the top gets per_class, averages and confusion; names are at index `names` (0: none). */
static void add_classes(lua_State *L, const ml_eval_data *data, int names) {
  lua_createtable(L, (int)data->classes, 0);
  for (size_t c = 0; c < data->classes; ++c) {
    push_scores(L, ml_eval_class(data, c));
    if (names != 0) lua_rawgeti(L, names, (int)c + 1);
    else lua_pushnil(L);
    if (lua_isnil(L, -1)) {
      lua_pop(L, 1);
      lua_pushfstring(L, "%d", (int)c);
    }
    lua_setfield(L, -2, "class");
    lua_rawseti(L, -2, (int)c + 1);
  }
  lua_setfield(L, -2, "per_class");
  lua_createtable(L, 0, 3);
  for (ml_eval_average average = ML_AVERAGE_MACRO; average <= ML_AVERAGE_WEIGHTED; ++average) {
    push_scores(L, ml_eval_class_average(data, average));
    lua_setfield(L, -2, ml_eval_average_name(average));
  }
  lua_setfield(L, -2, "averages");
  push_confusion(L, data);
  lua_setfield(L, -2, "confusion");
}

/* metrics_report(y_true, y_pred, task[, options]) -> { task, rows, metrics = {…}, notes = {…}, … }
 * Everything that can be said about these predictions: each metric of the task by name (roc_auc as "auc"), a note for those
 * that are undefined or cannot be computed, and for classes per_class, averages and confusion. top_k_accuracy only where k <
 * classes. */
static int metrics_report(lua_State *L) {
  const ml_view *y_true = check_values(L, 1), *y_pred = check_values(L, 2);
  const char *task = luaL_optstring(L, 3, "auto");
  int names = 0;
  ml_metric_options options = check_options(L, 4);
  if (!ml_eval_task_from_name(task, &options.task))
    return luaL_error(L, "task must be \"binary\", \"categorical\" or \"regression\", got \"%s\"", task);
  lua_settop(L, 4);
  if (!lua_isnil(L, 4)) {
    lua_getfield(L, 4, "classes");
    if (lua_istable(L, -1)) names = lua_gettop(L);
  }
  ml_eval_data *data = push_data(L);
  ml_error err;
  if (ml_eval_data_new(y_true, y_pred, &options, data, &err) != ML_OK) return ml__lua_error(L, &err);

  lua_createtable(L, 0, 8);
  lua_pushstring(L, ml_eval_task_name(data->task));
  lua_setfield(L, -2, "task");
  ml__lua_push_int(L, (int64_t)data->rows);
  lua_setfield(L, -2, "rows");
  lua_createtable(L, 0, 16);
  lua_createtable(L, 0, 0);
  for (size_t i = 0; i < ml_metric_count(); ++i) {
    const ml_metric *row = ml_metric_at(i);
    const char *name = row->compute == ml_metric_roc_auc ? "auc" : row->name;
    ml_metric_result result;
    if ((row->tasks & 1u << data->task) == 0) continue;
    if (data->task != ML_EVAL_REGRESSION && (row->tasks & ML_TASKS_VALUES) != 0) continue;
    if (row->compute == ml_metric_top_k_accuracy && options.top_k >= data->classes) continue;
    ml_status status = ml_metric_compute(row, data, &options, &result, &err);
    if (status == ML_OK) {
      lua_pushnumber(L, result.value);
      lua_setfield(L, -3, name);
    } else if (status != ML_INVALID_ARGUMENT) {
      return ml__lua_error(L, &err);
    }
    const char *note = status == ML_OK ? result.note : err.message;
    if (note[0] != '\0') {
      lua_pushstring(L, note);
      lua_setfield(L, -2, name);
    }
  }
  lua_setfield(L, -3, "notes");
  lua_setfield(L, -2, "metrics");
  if (data->task != ML_EVAL_REGRESSION) add_classes(L, data, names);
  return 1;
}

void ml__lua_open_metrics(lua_State *L) {
  static const luaL_Reg functions[] = {
      {"metric", metric},
      {"metric_list", metric_list},
      {"metrics_report", metrics_report},
      {"confusion_matrix", confusion_matrix},
      {NULL, NULL},
  };
  static const luaL_Reg methods[] = {{NULL, NULL}};
  ml__lua_class(L, DATA_CLASS, methods, data_gc, NULL);
  luaL_setfuncs(L, functions, 0);
}
