/* mlserve.trainer: the epoch loop in C, driven by lua/mlserve/train. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/cpu.h"
#include "base/interrupt.h"
#include "lua/lua_core.h"
#include "train/trainer.h"

#define ML_LUA_TRAINER "mlserve.trainer"
#define MAX_INPUTS 64

typedef struct trainer_box {
  ml_trainer *trainer;
  size_t n_inputs;
  ml_dtype dtypes[MAX_INPUTS];
} trainer_box;

static trainer_box *check_box(lua_State *L, int index)
{
  trainer_box *box = luaL_checkudata(L, index, ML_LUA_TRAINER);
  luaL_argcheck(L, box->trainer != NULL, index, "the trainer has been closed");
  return box;
}

static ml_trainer *check_trainer(lua_State *L, int index) { return check_box(L, index)->trainer; }

static int trainer_gc(lua_State *L)
{
  trainer_box *box = luaL_checkudata(L, 1, ML_LUA_TRAINER);
  ml_trainer_free(box->trainer);
  box->trainer = NULL;
  return 0;
}

/* One row per hyper-parameter; both ways between the option table and ml_hyper. */
static const struct { const char *name; size_t offset; } hypers[] = {
  { "learning_rate", offsetof(ml_hyper, learning_rate) }, { "beta1", offsetof(ml_hyper, beta1) }, { "beta2", offsetof(ml_hyper, beta2) },
  { "epsilon", offsetof(ml_hyper, epsilon) }, { "momentum", offsetof(ml_hyper, momentum) }, { "rho", offsetof(ml_hyper, rho) },
  { "l1", offsetof(ml_hyper, l1) }, { "l2", offsetof(ml_hyper, l2) }, { "weight_decay", offsetof(ml_hyper, weight_decay) },
};

static void read_hyper(lua_State *L, int index, ml_hyper *hyper)
{
  for (size_t i = 0; i < sizeof hypers / sizeof *hypers; i++) {
    float *field = (float *)(void *)((char *)hyper + hypers[i].offset);
    double value = ml__lua_opt_number_field(L, index, hypers[i].name, (double)*field);
    if (!(value >= 0) || isinf(value)) luaL_error(L, "option '%s': a finite number of at least 0 expected, got %f", hypers[i].name, value);
    *field = (float)value;
  }
  hyper->nesterov = ml__lua_opt_bool_field(L, index, "nesterov", hyper->nesterov);
}

/* trainer(graph, options) */
static int new_trainer(lua_State *L)
{
  const ml_graph *g = ml__lua_check_graph(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  luaL_argcheck(L, g->n_inputs <= MAX_INPUTS, 1, "too many inputs");
  const char *name = ml__lua_opt_string_field(L, 2, "optimizer", "adam");
  ml_train_config config = {
    .loss = ml__lua_opt_string_field(L, 2, "loss", NULL), .optimizer = ml_optimizer_find(name),
    .clip_norm = (float)ml__lua_opt_number_field(L, 2, "clip_norm", 0), .clip_value = (float)ml__lua_opt_number_field(L, 2, "clip_value", 0),
    .from_logits = ml__lua_opt_bool_field(L, 2, "from_logits", false), .delta = (float)ml__lua_opt_number_field(L, 2, "delta", 1),
    .weighted = ml__lua_opt_bool_field(L, 2, "weighted", false), .seed = (uint64_t)ml__lua_opt_int_field(L, 2, "seed", 0) };
  if (!config.optimizer) return luaL_error(L, "unknown optimizer '%s'; known: %s", name, ml_optimizer_names());
  if (!config.loss) return luaL_error(L, "option 'loss' is missing");
  config.hyper = config.optimizer->defaults;
  read_hyper(L, 2, &config.hyper);
  trainer_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  memset(box, 0, sizeof *box);
  luaL_setmetatable(L, ML_LUA_TRAINER);
  box->n_inputs = g->n_inputs;
  for (size_t i = 0; i < g->n_inputs; i++) box->dtypes[i] = g->inputs[i]->dtype;
  ml_error err;
  if (ml_trainer_new(g, &config, &box->trainer, &err) != ML_OK) return ml__lua_error(L, &err);
  return 1;
}

/* The tensors of an epoch or evaluation: {inputs = {…}, target = t, weights = t, predictions = t}. */
typedef struct rows {
  ml_tensor *inputs[MAX_INPUTS], *target, *weights;
  ml_view views[MAX_INPUTS];
  ml_train_data data;
  float *predictions;
  size_t n;
} rows;

static void release_rows(rows *r)
{
  for (size_t i = 0; i < r->n; i++) ml_tensor_release(r->inputs[i]);
  ml_tensor_release(r->target);
  ml_tensor_release(r->weights);
}

static ml_status tensor_field(lua_State *L, const char *field, ml_dtype dtype, ml_tensor **out, ml_error *err)
{
  lua_getfield(L, 2, field);
  ml_status status = lua_isnil(L, -1) ? ML_OK : ml__lua_to_tensor(L, -1, dtype, out, err);
  lua_pop(L, 1);
  return status == ML_OK ? status : ml_fail_in(err, status, "option '%s'", field);
}

static ml_status read_rows(lua_State *L, const trainer_box *box, rows *r, ml_error *err)
{
  ml_view target;
  memset(r, 0, sizeof *r);
  r->n = box->n_inputs;
  ml_trainer_target(box->trainer, &target);
  lua_getfield(L, 2, "inputs");
  ml_status status = ml__lua_to_tensors(L, -1, box->n_inputs, box->dtypes, r->inputs, err);
  lua_pop(L, 1);
  if (status != ML_OK) return ml_fail_in(err, status, "option 'inputs'");
  ML_TRY(tensor_field(L, "target", target.dtype, &r->target, err));
  ML_TRY(tensor_field(L, "weights", ML_FLOAT32, &r->weights, err));
  if (!r->target) return ml_fail(err, ML_INVALID_ARGUMENT, "option 'target' is missing");
  for (size_t i = 0; i < r->n; i++) r->views[i] = r->inputs[i]->view;
  size_t n = r->target->view.rank ? (size_t)r->target->view.dims[0] : 0;
  if (r->weights && r->weights->view.count != n)
    return ml_fail(err, ML_INVALID_ARGUMENT, "option 'weights': %zu values expected, got %zu", n, r->weights->view.count);
  lua_getfield(L, 2, "predictions");
  ml_tensor *predictions = ml__lua_test_tensor(L, -1);
  lua_pop(L, 1);
  if (predictions && (predictions->view.dtype != ML_FLOAT32 || predictions->view.rank < 1 || (size_t)predictions->view.dims[0] != n))
    return ml_fail(err, ML_INVALID_ARGUMENT, "option 'predictions': a float32 tensor of %zu rows expected", n);
  r->predictions = predictions ? predictions->view.data : NULL;
  r->data = (ml_train_data){ .inputs = r->views, .target = &r->target->view, .weights = r->weights ? r->weights->view.data : NULL, .rows = n };
  return ML_OK;
}

static size_t size_field(lua_State *L, const char *field, int64_t fallback)
{
  int64_t value = ml__lua_opt_int_field(L, 2, field, fallback);
  if (value < 0) luaL_error(L, "option '%s': at least 0 expected, got %d", field, (int)value);
  return (size_t)value;
}

/* epoch{inputs, target, weights, batch_size, shuffle, epoch, max_steps, first_step, predictions, deadline} -> result table */
static int trainer_epoch(lua_State *L)
{
  trainer_box *box = check_box(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  double deadline = ml__lua_opt_number_field(L, 2, "deadline", 0);
  ml_epoch_options options = {
    .batch_size = size_field(L, "batch_size", 32), .shuffle = ml__lua_opt_bool_field(L, 2, "shuffle", true), .epoch = size_field(L, "epoch", 0),
    .max_steps = size_field(L, "max_steps", 0), .first_step = size_field(L, "first_step", 0), .interrupt = ml_interrupt_flag(),
    .deadline_ns = deadline > 0 ? ml_clock_ns() + (uint64_t)(deadline * 1e9) : 0 };
  rows r;
  ml_epoch_result result;
  ml_error err;
  ml_status status = read_rows(L, box, &r, &err);
  options.predictions = r.predictions;
  if (status == ML_OK) status = ml_trainer_epoch(box->trainer, &r.data, &options, &result, &err);
  release_rows(&r);
  if (status != ML_OK) return ml__lua_error(L, &err);
  lua_createtable(L, 0, 6);
  lua_pushnumber(L, result.loss);
  lua_setfield(L, -2, "loss");
  lua_pushnumber(L, result.penalty);
  lua_setfield(L, -2, "penalty");
  ml__lua_push_int(L, (int64_t)result.steps);
  lua_setfield(L, -2, "steps");
  ml__lua_push_int(L, (int64_t)result.rows);
  lua_setfield(L, -2, "rows");
  lua_pushboolean(L, result.diverged);
  lua_setfield(L, -2, "diverged");
  lua_pushboolean(L, result.interrupted);
  lua_setfield(L, -2, "interrupted");
  return 1;
}

/* evaluate{inputs, target, weights, batch_size, predictions} -> loss */
static int trainer_evaluate(lua_State *L)
{
  trainer_box *box = check_box(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  size_t batch_size = size_field(L, "batch_size", 256);
  rows r;
  double loss;
  ml_error err;
  ml_status status = read_rows(L, box, &r, &err);
  if (status == ML_OK) status = ml_trainer_evaluate(box->trainer, &r.data, batch_size, r.predictions, &loss, &err);
  release_rows(&r);
  if (status != ML_OK) return ml__lua_error(L, &err);
  lua_pushnumber(L, loss);
  return 1;
}

static int trainer_target(lua_State *L)
{
  ml_view view;
  ml_trainer_target(check_trainer(L, 1), &view);
  lua_createtable(L, 0, 2);
  lua_pushstring(L, ml_dtype_name(view.dtype));
  lua_setfield(L, -2, "dtype");
  ml__lua_push_dims(L, view.dims, view.rank);
  lua_setfield(L, -2, "shape");
  return 1;
}

static int trainer_set(lua_State *L)
{
  read_hyper(L, 2, ml_trainer_hyper(check_trainer(L, 1)));
  return 0;
}

static int trainer_get(lua_State *L)
{
  const ml_hyper *hyper = ml_trainer_hyper(check_trainer(L, 1));
  lua_newtable(L);
  for (size_t i = 0; i < sizeof hypers / sizeof *hypers; i++) {
    lua_pushnumber(L, (double)*(const float *)(const void *)((const char *)hyper + hypers[i].offset));
    lua_setfield(L, -2, hypers[i].name);
  }
  lua_pushboolean(L, hyper->nesterov);
  lua_setfield(L, -2, "nesterov");
  return 1;
}

static int trainer_steps(lua_State *L)
{
  ml__lua_push_int(L, (int64_t)ml_trainer_steps(check_trainer(L, 1)));
  return 1;
}

static int trainer_set_steps(lua_State *L)
{
  int64_t steps = ml__lua_check_int(L, 2);
  luaL_argcheck(L, steps >= 0, 2, "at least 0 expected");
  ml_trainer_set_steps(check_trainer(L, 1), (uint64_t)steps);
  return 0;
}

static int trainer_penalty(lua_State *L)
{
  lua_pushnumber(L, ml_trainer_penalty(check_trainer(L, 1)));
  return 1;
}

/* ---- state ---- */
static ml_status copy_floats(const float *data, size_t count, const int64_t *dims, int32_t rank, ml_tensor **out, ml_error *err)
{
  ml_view view = { .data = (void *)(uintptr_t)data, .count = count, .dtype = ML_FLOAT32, .rank = rank };
  memcpy(view.dims, dims, (size_t)rank * sizeof *dims);
  return ml_tensor_copy_of(&view, out, err);
}

static int trainer_weights(lua_State *L)
{
  size_t count;
  const float *flat = ml_trainer_array(check_trainer(L, 1), 0, &count);
  int64_t dims = (int64_t)count;
  ml_tensor *out;
  ml_error err;
  if (copy_floats(flat, count, &dims, 1, &out, &err) != ML_OK) return ml__lua_error(L, &err);
  ml__lua_push_tensor(L, out);
  return 1;
}

static int trainer_set_weights(lua_State *L)
{
  size_t count;
  float *flat = ml_trainer_array(check_trainer(L, 1), 0, &count);
  const ml_view *view = &ml__lua_check_tensor(L, 2)->view;
  luaL_argcheck(L, view->dtype == ML_FLOAT32 && view->count == count, 2, "not the weights of this trainer");
  memcpy(flat, view->data, count * sizeof *flat);
  return 0;
}

static void array_name(char *text, size_t size, size_t array, const char *parameter)
{
  if (array == 0) snprintf(text, size, "param/%s", parameter);
  else if (array == 1) snprintf(text, size, "gradient/%s", parameter);
  else snprintf(text, size, "slot%zu/%s", array - 2, parameter);
}

static int push_arrays(lua_State *L, bool gradients)
{
  ml_trainer *t = check_trainer(L, 1);
  lua_newtable(L);
  for (size_t a = 0; a < ml_trainer_arrays(t); a++) {
    if ((a == 1) != gradients) continue;
    size_t count;
    const float *flat = ml_trainer_array(t, a, &count);
    for (size_t i = 0; i < ml_trainer_parameters(t); i++) {
      const ml_parameter *p = ml_trainer_parameter(t, i);
      char name[512];
      ml_tensor *out;
      ml_error err;
      if (copy_floats(flat + p->offset, p->count, p->dims, p->rank, &out, &err) != ML_OK) return ml__lua_error(L, &err);
      array_name(name, sizeof name, a, p->name);
      ml__lua_push_tensor(L, out);
      lua_setfield(L, -2, gradients ? p->name : name);
    }
  }
  return 1;
}

/* state() -> {["param/NAME"] = tensor, ["slot0/NAME"] = tensor, ["running/NAME"] = tensor, …}: copies */
static int trainer_state(lua_State *L)
{
  const ml_trainer *t = check_trainer(L, 1);
  push_arrays(L, false);
  for (size_t i = 0; i < ml_trainer_statistics(t); i++) {
    const char *name;
    const ml_tensor *statistic = ml_trainer_statistic(t, i, &name);
    ml_tensor *out;
    ml_error err;
    if (ml_tensor_copy_of(&statistic->view, &out, &err) != ML_OK) return ml__lua_error(L, &err);
    lua_pushfstring(L, "running/%s", name);
    ml__lua_push_tensor(L, out);
    lua_settable(L, -3);
  }
  return 1;
}

/* gradients() -> {NAME = tensor}: of the last step, before the optimiser used them */
static int trainer_gradients(lua_State *L) { return push_arrays(L, true); }

/* The tensor called name in the state table at 2, checked against what it is to replace. */
static const ml_tensor *state_tensor(lua_State *L, const char *name, ml_dtype dtype, const int64_t *dims, int32_t rank)
{
  lua_getfield(L, 2, name);
  const ml_tensor *tensor = ml__lua_test_tensor(L, -1);
  lua_pop(L, 1);
  if (!tensor) luaL_error(L, "the state has no '%s'", name);
  if (tensor->view.dtype != dtype || !ml_shape_equal(tensor->view.dims, tensor->view.rank, dims, rank))
    luaL_error(L, "'%s' in the state has another dtype or shape than the model's", name);
  return tensor;
}

/* load_state(state): raises, changing nothing, when a name is missing or a shape differs */
static int trainer_load_state(lua_State *L)
{
  ml_trainer *t = check_trainer(L, 1);
  luaL_checktype(L, 2, LUA_TTABLE);
  for (int store = 0; store < 2; store++) { /* first look, then change */
    char name[512];
    for (size_t a = 0; a < ml_trainer_arrays(t); a++) {
      size_t count;
      float *flat = ml_trainer_array(t, a, &count);
      for (size_t i = 0; a != 1 && i < ml_trainer_parameters(t); i++) {
        const ml_parameter *p = ml_trainer_parameter(t, i);
        array_name(name, sizeof name, a, p->name);
        const ml_tensor *tensor = state_tensor(L, name, ML_FLOAT32, p->dims, p->rank);
        if (store) memcpy(flat + p->offset, tensor->view.data, p->count * sizeof *flat);
      }
    }
    for (size_t i = 0; i < ml_trainer_statistics(t); i++) {
      const char *statistic_name;
      ml_view *to = &ml_trainer_statistic(t, i, &statistic_name)->view;
      snprintf(name, sizeof name, "running/%s", statistic_name);
      const ml_tensor *tensor = state_tensor(L, name, to->dtype, to->dims, to->rank);
      if (store) memcpy(to->data, tensor->view.data, to->count * ml_dtype_size(to->dtype));
    }
  }
  return 0;
}

static int trainer_parameters(lua_State *L)
{
  const ml_trainer *t = check_trainer(L, 1);
  lua_newtable(L);
  for (size_t i = 0; i < ml_trainer_parameters(t); i++) {
    const ml_parameter *p = ml_trainer_parameter(t, i);
    lua_createtable(L, 0, 2);
    lua_pushstring(L, p->name);
    lua_setfield(L, -2, "name");
    ml__lua_push_dims(L, p->dims, p->rank);
    lua_setfield(L, -2, "shape");
    lua_rawseti(L, -2, (int)i + 1);
  }
  return 1;
}

static int trainer_export(lua_State *L)
{
  ml_error err;
  if (ml_trainer_export(check_trainer(L, 1), ml__lua_check_graph(L, 2), &err) != ML_OK) return ml__lua_error(L, &err);
  return 0;
}

void ml__lua_open_trainer(lua_State *L)
{
  static const luaL_Reg methods[] = {
    { "epoch", trainer_epoch }, { "evaluate", trainer_evaluate }, { "target", trainer_target }, { "set", trainer_set }, { "get", trainer_get },
    { "steps", trainer_steps }, { "set_steps", trainer_set_steps }, { "penalty", trainer_penalty }, { "weights", trainer_weights },
    { "set_weights", trainer_set_weights }, { "state", trainer_state }, { "load_state", trainer_load_state }, { "gradients", trainer_gradients },
    { "parameters", trainer_parameters }, { "export", trainer_export }, { "close", trainer_gc }, { NULL, NULL } };
  static const luaL_Reg functions[] = { { "trainer", new_trainer }, { NULL, NULL } };
  ml__lua_class(L, ML_LUA_TRAINER, methods, trainer_gc, NULL);
  luaL_setfuncs(L, functions, 0);
}
