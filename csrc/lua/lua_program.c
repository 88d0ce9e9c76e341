/* mlserve.program: a compiled model. run() gives new tensors; run_into() writes into given ones and allocates nothing once a session for the
 * shapes exists. */
#include <string.h>
#include "lua/lua_core.h"

#define MAX_IO 64

typedef struct program_box {
  ml_program *program;
  ml_session *session; /* for run_into: the shapes used last */
} program_box;

static program_box *check_box(lua_State *L, int index)
{
  program_box *box = luaL_checkudata(L, index, ML_LUA_PROGRAM);
  luaL_argcheck(L, box->program != NULL, index, "the program has been closed");
  return box;
}

ml_program *ml__lua_check_program(lua_State *L, int index) { return check_box(L, index)->program; }

static int program_gc(lua_State *L)
{
  program_box *box = luaL_checkudata(L, 1, ML_LUA_PROGRAM);
  ml_session_free(box->session);
  ml_program_release(box->program);
  *box = (program_box){ 0 };
  return 0;
}

static int program_tostring(lua_State *L)
{
  program_box *box = luaL_checkudata(L, 1, ML_LUA_PROGRAM);
  if (box->program) lua_pushfstring(L, "program '%s': %d steps", ml_program_graph(box->program)->name, (int)ml_program_graph(box->program)->n_nodes);
  else lua_pushliteral(L, "program (closed)");
  return 1;
}

/* program(graph[, {level = "none"|"exact"|"fast", disabled = "pass,pass", max_memory = bytes, max_loop = n}]) */
static int new_program(lua_State *L)
{
  static const char *const levels[] = { "none", "exact", "fast" };
  const ml_graph *g = ml__lua_check_graph(L, 1);
  if (g->n_inputs > MAX_IO || g->n_outputs > MAX_IO) return luaL_argerror(L, 1, "more than 64 inputs or outputs");
  const char *level = ml__lua_opt_string_field(L, 2, "level", "fast");
  ml_compile_options options = { .disabled = ml__lua_opt_string_field(L, 2, "disabled", NULL),
                                 .max_memory = (size_t)ml__lua_opt_int_field(L, 2, "max_memory", 0),
                                 .max_loop = (uint64_t)ml__lua_opt_int_field(L, 2, "max_loop", 0) };
  int at = 0;
  while (at < 3 && strcmp(levels[at], level) != 0) at++;
  if (at == 3) return luaL_error(L, "option 'level': none, exact or fast expected, got '%s'", level);
  options.level = (ml_level)at;
  program_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = (program_box){ 0 };
  luaL_setmetatable(L, ML_LUA_PROGRAM);
  ml_error err;
  if (ml_program_new(g, &options, &box->program, &err) != ML_OK) return ml__lua_error(L, &err);
  return 1;
}

/* ---- run ---- */
typedef struct batch {
  ml_program *program;
  const ml_graph *graph;
  ml_item in[MAX_IO], out[MAX_IO];
} batch;

static ml_status take_all(void *context, ml_session *session, ml_error *err)
{
  batch *b = context;
  for (size_t i = 0; i < b->graph->n_outputs; i++) ML_TRY(ml_item_of(ml_session_output(session, i), &b->out[i], err));
  return ML_OK;
}

static ml_status run_batch(batch *b, ml_error *err)
{
  ml_view views[MAX_IO];
  for (size_t i = 0; i < b->graph->n_inputs; i++) ml_item_view(&b->in[i], &views[i]);
  return ml_program_run(b->program, views, take_all, b, err);
}

/* run(inputs) -> outputs: arrays of values in the graph's order; tensors may be given as nested tables */
static int program_run(lua_State *L)
{
  batch b = { .program = check_box(L, 1)->program };
  b.graph = ml_program_graph(b.program);
  ml_error err;
  ml_status status = ml__lua_to_items(L, 2, b.graph->n_inputs, b.graph->inputs, b.in, &err);
  if (status == ML_OK) status = run_batch(&b, &err);
  ml__lua_release_items(b.in, b.graph->n_inputs);
  if (status != ML_OK) {
    ml__lua_release_items(b.out, b.graph->n_outputs);
    return ml__lua_error(L, &err);
  }
  lua_createtable(L, (int)b.graph->n_outputs, 0);
  for (size_t i = 0; i < b.graph->n_outputs; i++) {
    ml__lua_push_item(L, &b.out[i]);
    lua_rawseti(L, -2, (int)i + 1);
  }
  ml__lua_release_items(b.out, b.graph->n_outputs);
  return 1;
}

/* A session for the shapes of views in the box. */
static ml_status box_session(program_box *box, const ml_view *views, ml_error *err)
{
  if (box->session && ml_session_fits(box->session, views)) return ML_OK;
  ml_session_free(box->session);
  box->session = NULL;
  return ml_session_new(box->program, views, &box->session, err);
}

/* run_into(output, input): first output and only input, both tensors of the right shape and dtype */
static int program_run_into(lua_State *L)
{
  program_box *box = check_box(L, 1);
  ml_tensor *out = ml__lua_check_tensor(L, 2), *in = ml__lua_check_tensor(L, 3);
  const ml_graph *g = ml_program_graph(box->program);
  ml_error err;
  if (g->n_inputs != 1) return luaL_error(L, "run_into works on models of one input, this one has %d", (int)g->n_inputs);
  ml_status status = box_session(box, &in->view, &err);
  if (status != ML_OK) return ml__lua_error(L, &err);
  const ml_view *view = ml_session_output(box->session, 0);
  if (out->view.dtype != view->dtype || !ml_shape_equal(out->view.dims, out->view.rank, view->dims, view->rank)) {
    char expected[160], got[160];
    return luaL_error(L, "the output tensor is %s %s, the model gives %s %s", ml_dtype_name(out->view.dtype),
                      ml_shape_format(out->view.dims, out->view.rank, got, sizeof got), ml_dtype_name(view->dtype),
                      ml_shape_format(view->dims, view->rank, expected, sizeof expected));
  }
  ml_session_bind_input(box->session, 0, in->view.data);
  ml_session_bind_output(box->session, 0, out->view.data);
  status = ml_session_run(box->session, &err);
  ml_session_bind_input(box->session, 0, NULL); /* the tensors may be collected before the next call */
  ml_session_bind_output(box->session, 0, NULL);
  if (status != ML_OK) return ml__lua_error(L, &err);
  lua_settop(L, 2);
  return 1;
}

/* profile(inputs[, runs]) -> array of {op, name, flops, ns, shape} (ns: smallest of the runs), bytes of the arena */
static int program_profile(lua_State *L)
{
  program_box *box = check_box(L, 1);
  const ml_graph *g = ml_program_graph(box->program);
  ml_tensor *in[MAX_IO];
  ml_view views[MAX_IO];
  ml_dtype wanted[MAX_IO];
  ml_session *session = NULL;
  ml_error err;
  int64_t runs = ml__lua_opt_int(L, 3, 10);
  for (size_t i = 0; i < g->n_inputs; i++) wanted[i] = g->inputs[i]->dtype;
  ml_status status = ml__lua_to_tensors(L, 2, g->n_inputs, wanted, in, &err);
  for (size_t i = 0; i < g->n_inputs && status == ML_OK; i++) views[i] = in[i]->view;
  if (status == ML_OK) status = ml_session_new(box->program, views, &session, &err);
  size_t n = session ? ml_session_steps(session) : 0;
  uint64_t *best = ml_alloc_zero(n + 1, sizeof *best);
  if (status == ML_OK && !best) status = ml_fail_memory(&err, n * sizeof *best, "a profile");
  for (size_t i = 0; i < g->n_inputs && status == ML_OK; i++) ml_session_bind_input(session, i, views[i].data);
  for (int64_t r = 0; r < runs && status == ML_OK; r++) {
    status = ml_session_run_profiled(session, &err);
    for (size_t i = 0; i < n; i++) {
      uint64_t ns = ml_session_step(session, i).ns;
      if (r == 0 || ns < best[i]) best[i] = ns;
    }
  }
  if (status == ML_OK) {
    lua_createtable(L, (int)n, 0);
    for (size_t i = 0; i < n; i++) {
      ml_step_info info = ml_session_step(session, i);
      lua_createtable(L, 0, 5);
      lua_pushstring(L, info.op);
      lua_setfield(L, -2, "op");
      lua_pushstring(L, info.name);
      lua_setfield(L, -2, "name");
      lua_pushnumber(L, info.flops);
      lua_setfield(L, -2, "flops");
      lua_pushnumber(L, (double)best[i]);
      lua_setfield(L, -2, "ns");
      if (info.out) {
        ml__lua_push_dims(L, info.out->dims, info.out->rank);
        lua_setfield(L, -2, "shape");
      }
      lua_rawseti(L, -2, (int)i + 1);
    }
    ml__lua_push_int(L, (int64_t)ml_session_arena_bytes(session));
  }
  ml_free(best);
  ml_session_free(session);
  for (size_t i = 0; i < g->n_inputs; i++) ml_tensor_release(in[i]);
  return status == ML_OK ? 2 : ml__lua_error(L, &err);
}

/* graph() -> a copy of the optimised graph */
static int program_graph(lua_State *L)
{
  ml_graph *copy;
  ml_error err;
  if (ml_graph_clone(ml_program_graph(check_box(L, 1)->program), &copy, &err) != ML_OK) return ml__lua_error(L, &err);
  ml__lua_push_graph(L, copy);
  return 1;
}

void ml__lua_open_program(lua_State *L)
{
  static const luaL_Reg methods[] = { { "run", program_run }, { "run_into", program_run_into }, { "profile", program_profile },
                                      { "graph", program_graph }, { "close", program_gc }, { NULL, NULL } };
  static const luaL_Reg functions[] = { { "program", new_program }, { NULL, NULL } };
  ml__lua_class(L, ML_LUA_PROGRAM, methods, program_gc, program_tostring);
  luaL_setfuncs(L, functions, 0);
}
