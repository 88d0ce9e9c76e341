/* Batching (methods of mlserve.servable, put there by lua_servable.c):
 *   servable:batching(options) -> report: how its requests run from now on; only once. options: mode ("auto", "always", "never"),
 *     inline_below (µs), max_batch_size, max_execution_batch_size, batch_timeout_micros, max_enqueued_batches, max_queue_micros,
 *     num_batch_threads, allowed_batch_sizes, pad_variable_length_inputs, enable_large_batch_splitting. report: { threads, merge, exact, run_us, reason }
 *   servable:start_json(body[, signature[, port[, timeout[, priority]]]]) -> text | nil, message, code | job
 *   servable:start_infer(body[, json_size[, port[, timeout[, priority[, { model, version }]]]]]) -> body, headers | nil, message, code | job
 *   servable:batched() -> boolean: do its requests go to threads?   servable:batch_stats() -> table | nil
 *   servable:count_in(counters) -> true | nil, message: what its batches do is counted there (core.counters); only once
 *   servable:start_proto(method, bytes[, signature[, port[, timeout[, priority[, model[, version[, tensor_content]]]]]]]) -> bytes | nil, message, code |
 *   job; method: the name of one of the methods on bytes ("predict_proto" …)
 * core.batch_port() -> port: :pollfd() :events() :timeout() for cqueues.poll, :take() -> id of a job that is over | nil
 * job:id()  job:done()  job:text() -> what the method returns (blocks until it is over)  job:cancel() -> boolean  job:expire() -> boolean
 * job:left() -> seconds until its deadline | nil */
#include <stdio.h>
#include <string.h>
#include "base/cpu.h"
#include "lua/lua_core.h"
#include "lua/lua_servable.h"
#include "serve/probe.h"
#include "serve/statistics.h"

#define PORT "mlserve.batch_port"
#define JOB "mlserve.batch_job"
enum { MAX_SIZES = 256 };

/* ---- port ---- */
typedef struct port_box { ml_batch_port *port; uint64_t last; } port_box;

static port_box *check_port(lua_State *L, int index)
{
  port_box *box = luaL_checkudata(L, index, PORT);
  luaL_argcheck(L, box->port != NULL, index, "the port has been closed");
  return box;
}

static int new_port(lua_State *L)
{
  port_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  ml_error err;
  *box = (port_box){ 0 };
  luaL_setmetatable(L, PORT);
  return ml_batch_port_new(&box->port, &err) == ML_OK ? 1 : ml__lua_fail(L, &err);
}

static int port_close(lua_State *L)
{
  port_box *box = luaL_checkudata(L, 1, PORT);
  ml_batch_port_release(box->port);
  box->port = NULL;
  return 0;
}

static int port_pollfd(lua_State *L)
{
  lua_pushinteger(L, ml_batch_port_descriptor(check_port(L, 1)->port));
  return 1;
}

static int port_events(lua_State *L)
{
  lua_pushliteral(L, "r");
  return 1;
}

static int port_timeout(lua_State *L)
{
  lua_pushnil(L);
  return 1;
}

static int port_take(lua_State *L)
{
  uint64_t id;
  if (!ml_batch_port_take(check_port(L, 1)->port, &id)) return 0;
  ml__lua_push_int(L, (int64_t)id);
  return 1;
}

/* ---- job ---- */
typedef struct job_box {
  ml_request *request; /* one of the three */
  ml_infer *infer;
  ml_call *call;
  uint64_t id;
  int kept;            /* reference on what infer or call borrows, or LUA_NOREF */
  ml_json_writer out;
  ml_pb_writer bytes;  /* what a call gives */
} job_box;

static job_box *check_job(lua_State *L)
{
  job_box *box = luaL_checkudata(L, 1, JOB);
  luaL_argcheck(L, box->request || box->infer || box->call, 1, "the job has been taken");
  return box;
}

static ml_ticket *check_ticket(lua_State *L)
{
  job_box *box = check_job(L);
  return box->request ? ml_request_ticket(box->request) : box->infer ? ml_infer_ticket(box->infer) : ml_call_ticket(box->call);
}

/* Its buffers serve the next one, without waiting for the collector. */
static void forget(lua_State *L, job_box *box)
{
  ml_request_free(box->request);
  ml_infer_free(box->infer);
  ml_call_free(box->call);
  box->request = NULL;
  box->infer = NULL;
  box->call = NULL;
  luaL_unref(L, LUA_REGISTRYINDEX, box->kept);
  box->kept = LUA_NOREF;
}

static int job_close(lua_State *L)
{
  job_box *box = luaL_checkudata(L, 1, JOB);
  forget(L, box);
  ml_json_writer_free(&box->out);
  ml_pb_writer_free(&box->bytes);
  return 0;
}

static int job_id(lua_State *L)
{
  ml__lua_push_int(L, (int64_t)check_job(L)->id);
  return 1;
}

static int job_done(lua_State *L)
{
  lua_pushboolean(L, ml_ticket_over(check_ticket(L)));
  return 1;
}

static int job_cancel(lua_State *L)
{
  lua_pushboolean(L, ml_ticket_cancel(check_ticket(L)));
  return 1;
}

static int job_expire(lua_State *L)
{
  lua_pushboolean(L, ml_ticket_expire(check_ticket(L)));
  return 1;
}

static int job_left(lua_State *L)
{
  uint64_t deadline = check_ticket(L)->job.deadline_ns, now = ml_clock_ns();
  if (deadline == 0) return 0;
  lua_pushnumber(L, deadline > now ? (lua_Number)(deadline - now) / 1e9 : 0);
  return 1;
}

static int call_bytes(lua_State *L, job_box *box)
{
  ml_error err;
  ml_status status = ml_call_finish(box->call, &box->bytes, &err);
  forget(L, box);
  if (status == ML_OK) lua_pushlstring(L, (const char *)box->bytes.bytes, box->bytes.size);
  ml_pb_writer_free(&box->bytes);
  return status == ML_OK ? 1 : ml__lua_fail(L, &err);
}

static int job_text(lua_State *L)
{
  job_box *box = check_job(L);
  if (box->call) return call_bytes(L, box);
  size_t json = ML_INFER_JSON;
  ml_error err;
  ml_status status;
  if (box->infer) {
    status = ml_infer_finish(box->infer, &box->out, &json, &err);
  } else {
    status = ml_request_wait(box->request, &err);
    if (status == ML_OK) status = ml_request_encode_json(box->request, &box->out, &err);
  }
  bool infer = box->infer != NULL;
  forget(L, box);
  if (status == ML_OK && infer) ml__lua_push_inferred(L, &box->out, json);
  else if (status == ML_OK) lua_pushlstring(L, box->out.text, box->out.length);
  ml_json_writer_free(&box->out);
  return status != ML_OK ? ml__lua_fail(L, &err) : infer ? 2 : 1;
}

/* ---- of a servable ---- */
/* (…, port, timeout, priority) at index into a new job, which is left on the stack. */
static job_box *new_job(lua_State *L, int index, ml_request_options *options)
{
  port_box *port = lua_isnoneornil(L, index) ? NULL : check_port(L, index);
  double timeout = luaL_optnumber(L, index + 1, 0);
  int64_t priority = ml__lua_opt_int(L, index + 2, 0);
  luaL_argcheck(L, timeout >= 0 && timeout <= 1e9, index + 1, "seconds expected");
  luaL_argcheck(L, priority >= 0 && priority <= UINT32_MAX, index + 2, "a priority, 1 or more, expected");
  *options = (ml_request_options){ .priority = (uint32_t)priority };
  if (timeout > 0) options->deadline_ns = ml_clock_ns() + (uint64_t)(timeout * 1e9);
  job_box *box = lua_newuserdatauv(L, sizeof *box, 0);
  *box = (job_box){ .kept = LUA_NOREF };
  ml_json_writer_init(&box->out);
  ml_pb_writer_init(&box->bytes);
  luaL_setmetatable(L, JOB);
  if (port) {
    options->port = port->port;
    options->id = box->id = ++port->last;
  }
  return box;
}

int ml__lua_servable_start_json(lua_State *L)
{
  ml_servable *servable = ml__lua_check_servable(L, 1);
  ml_request_options options;
  ml_error err;
  size_t size;
  if (!ml_servable_batcher(servable)) return ml__lua_servable_predict_json(L);
  const char *body = luaL_checklstring(L, 2, &size), *signature = luaL_optstring(L, 3, NULL);
  job_box *box = new_job(L, 4, &options);
  ml_status status = ml_request_decode_json(servable, body, size, signature, &box->request, &err);
  if (status == ML_OK) status = ml_request_submit(box->request, &options, &err);
  if (status == ML_OK) return 1;
  forget(L, box);
  return ml__lua_fail(L, &err);
}

int ml__lua_servable_start_infer(lua_State *L)
{
  ml_servable *servable = ml__lua_check_servable(L, 1);
  ml_request_options options;
  ml_error err;
  size_t size;
  lua_settop(L, 7);
  ml_infer_options names = ml__lua_infer_options(L, 7);
  if (!ml_servable_batcher(servable)) {
    lua_pushvalue(L, 7);
    lua_replace(L, 4);
    return ml__lua_servable_infer(L);
  }
  const char *body = luaL_checklstring(L, 2, &size);
  size_t json = ml__lua_check_json_size(L, 3);
  job_box *box = new_job(L, 4, &options);
  lua_createtable(L, 3, 0);
  lua_pushvalue(L, 2);
  lua_rawseti(L, -2, 1);
  lua_pushstring(L, names.model);
  lua_rawseti(L, -2, 2);
  lua_pushstring(L, names.version);
  lua_rawseti(L, -2, 3);
  box->kept = luaL_ref(L, LUA_REGISTRYINDEX);
  ml_status status = ml_infer_decode(servable, body, size, json, &names, &box->infer, &err);
  if (status == ML_OK) status = ml_infer_submit(box->infer, &options, &err);
  else ml_statistics_failure(ml_servable_statistics(servable), 0);
  if (status == ML_OK) return 1;
  forget(L, box);
  return ml__lua_fail(L, &err);
}

int ml__lua_servable_start_proto(lua_State *L)
{
  ml_servable *servable = ml__lua_check_servable(L, 1);
  const ml_call_codec *codec = ml__lua_check_codec(L, 2);
  ml_request_options options;
  ml_error err;
  size_t size;
  lua_settop(L, 10);
  const char *bytes = luaL_checklstring(L, 3, &size);
  ml_call_options names = ml__lua_call_options(L, 4, 8);
  if (!ml_servable_batcher(servable)) {
    lua_remove(L, 2);
    for (int i = 0; i < 3; i++) lua_remove(L, 4);
    return ml__lua_servable_call(L, codec);
  }
  job_box *box = new_job(L, 5, &options);
  lua_createtable(L, 4, 0);
  static const int kept[] = { 3, 4, 8, 9 };
  for (int i = 0; i < 4; i++) {
    lua_pushvalue(L, kept[i]);
    lua_rawseti(L, -2, i + 1);
  }
  box->kept = luaL_ref(L, LUA_REGISTRYINDEX);
  ml_status status = ml_call_decode(servable, codec, bytes, size, &names, &box->call, &err);
  if (status == ML_OK) status = ml_call_submit(box->call, &options, &err);
  if (status == ML_OK) return 1;
  forget(L, box);
  return ml__lua_fail(L, &err);
}

static size_t size_field(lua_State *L, const char *name)
{
  int64_t value = ml__lua_opt_int_field(L, 2, name, 0);
  if (value < 0) luaL_error(L, "batching: option '%s': a number not below 0 expected", name);
  return (size_t)value;
}

static void read_sizes(lua_State *L, int64_t *sizes, ml_batch_options *o)
{
  lua_getfield(L, 2, "allowed_batch_sizes");
  if (!lua_isnil(L, -1)) {
    if (!lua_istable(L, -1)) luaL_error(L, "batching: option 'allowed_batch_sizes': an array expected, got %s", luaL_typename(L, -1));
    size_t n = lua_rawlen(L, -1);
    if (n > MAX_SIZES) luaL_error(L, "batching: option 'allowed_batch_sizes': at most %d expected", MAX_SIZES);
    for (size_t i = 0; i < n; i++, lua_pop(L, 1)) {
      lua_rawgeti(L, -1, (int)i + 1);
      sizes[i] = ml__lua_check_int(L, -1);
    }
    o->allowed = sizes;
    o->n_allowed = n;
  }
  lua_pop(L, 1);
}

static int report(lua_State *L, const ml_probe *probe, bool threads, bool merge, const char *reason)
{
  lua_createtable(L, 0, 5);
  lua_pushboolean(L, threads);
  lua_setfield(L, -2, "threads");
  lua_pushboolean(L, merge);
  lua_setfield(L, -2, "merge");
  lua_pushboolean(L, probe->exact);
  lua_setfield(L, -2, "exact");
  if (probe->run_ns) {
    lua_pushnumber(L, (lua_Number)probe->run_ns / 1000);
    lua_setfield(L, -2, "run_us");
  }
  lua_pushstring(L, reason);
  lua_setfield(L, -2, "reason");
  return 1;
}

int ml__lua_servable_batching(lua_State *L)
{
  static const char *const known[] = { "mode", "inline_below", "max_batch_size", "max_execution_batch_size", "batch_timeout_micros", "max_enqueued_batches",
                                       "max_queue_micros", "num_batch_threads", "allowed_batch_sizes", "pad_variable_length_inputs", "enable_large_batch_splitting", NULL };
  ml_servable *servable = ml__lua_check_servable(L, 1);
  int64_t sizes[MAX_SIZES];
  ml_probe probe = { 0 };
  ml_batcher *batcher;
  ml_error err;
  luaL_checktype(L, 2, LUA_TTABLE);
  ml__lua_check_keys(L, 2, "batching", known);
  const char *mode = ml__lua_opt_string_field(L, 2, "mode", "auto");
  bool always = strcmp(mode, "always") == 0;
  if (!always && strcmp(mode, "auto") != 0 && strcmp(mode, "never") != 0)
    return luaL_error(L, "batching: option 'mode': \"auto\", \"always\" or \"never\" expected, got \"%s\"", mode);
  double inline_below = ml__lua_opt_number_field(L, 2, "inline_below", 50);
  ml_batch_options o = { .max_rows = size_field(L, "max_batch_size"),
                         .max_run_rows = size_field(L, "max_execution_batch_size"),
                         .timeout_us = size_field(L, "batch_timeout_micros"),
                         .max_batches = size_field(L, "max_enqueued_batches"),
                         .max_wait_us = size_field(L, "max_queue_micros"),
                         .threads = size_field(L, "num_batch_threads"),
                         .pad = ml__lua_opt_bool_field(L, 2, "pad_variable_length_inputs", false),
                         .split = ml__lua_opt_bool_field(L, 2, "enable_large_batch_splitting", true) };
  read_sizes(L, sizes, &o);
  if (strcmp(mode, "never") == 0) return report(L, &probe, false, false, "batching is off");
  ml_program *program = ml_servable_program(servable);
  probe = *ml_servable_probe(servable);
  if (!always && probe.run_ns && (double)probe.run_ns < inline_below * 1000)
    return report(L, &probe, false, false, "a run is cheaper than handing it to a thread");
  o.merge = always ? !probe.contradicted : probe.mergeable && probe.exact;
  if (ml_batcher_new(program, &o, &batcher, &err) != ML_OK) return ml__lua_error(L, &err);
  if (ml_servable_set_batcher(servable, batcher, &err) != ML_OK) {
    ml_batcher_free(batcher);
    return ml__lua_error(L, &err);
  }
  return report(L, &probe, true, o.merge, probe.reason);
}

/* Do its requests go to threads? */
int ml__lua_servable_batched(lua_State *L)
{
  lua_pushboolean(L, ml_servable_batcher(ml__lua_check_servable(L, 1)) != NULL);
  return 1;
}

int ml__lua_servable_count_in(lua_State *L)
{
  char labels[300];
  ml_error err;
  ml_servable *servable = ml__lua_check_servable(L, 1);
  ml_counters *counters = ml__lua_check_counters(L, 2);
  ml_batcher *batcher = ml_servable_batcher(servable);
  const char *model = ml_servable_model(servable);
  size_t length = strlen(model);
  if (batcher && length < sizeof labels - 24) {
    memcpy(labels, model, length + 1);
    length += 1 + (size_t)snprintf(labels + length + 1, sizeof labels - length - 1, "%lld", (long long)ml_servable_version(servable));
    if (ml_batcher_count(batcher, counters, labels, length, &err) != ML_OK) return ml__lua_fail(L, &err);
  }
  lua_pushboolean(L, 1);
  return 1;
}

int ml__lua_servable_batch_stats(lua_State *L)
{
  ml_batcher *batcher = ml_servable_batcher(ml__lua_check_servable(L, 1));
  if (!batcher) return 0;
  ml_batch_stats s = ml_batcher_stats(batcher);
  const struct { const char *name; uint64_t value; } fields[] = {
    { "runs", s.runs }, { "rows", s.rows }, { "filled", s.filled }, { "jobs", s.jobs }, { "merged", s.merged }, { "refused", s.refused },
    { "expired", s.expired }, { "cancelled", s.cancelled }, { "failed", s.failed }, { "largest", s.largest }, { "queue_us", s.queue_ns / 1000 },
    { "run_us", s.run_ns / 1000 }, { "waiting_jobs", s.waiting_jobs }, { "waiting_rows", s.waiting_rows },
  };
  lua_createtable(L, 0, (int)(sizeof fields / sizeof *fields));
  for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
    ml__lua_push_int(L, (int64_t)fields[i].value);
    lua_setfield(L, -2, fields[i].name);
  }
  return 1;
}

void ml__lua_open_batch(lua_State *L)
{
  static const luaL_Reg port_methods[] = {
    { "pollfd", port_pollfd }, { "events", port_events }, { "timeout", port_timeout }, { "take", port_take }, { "close", port_close }, { NULL, NULL } };
  static const luaL_Reg job_methods[] = { { "id", job_id }, { "done", job_done }, { "text", job_text }, { "left", job_left }, { "cancel", job_cancel },
                                          { "expire", job_expire }, { "close", job_close }, { NULL, NULL } };
  static const luaL_Reg functions[] = { { "batch_port", new_port }, { NULL, NULL } };
  ml__lua_class(L, PORT, port_methods, port_close, NULL);
  ml__lua_class(L, JOB, job_methods, job_close, NULL);
  luaL_setfuncs(L, functions, 0);
}
