/* Shared by the bindings (csrc/lua/lua_NOUN.c), the only files that know Lua.
 * Lives here: error crossing, argument helpers, the tensor userdata, one registration function per noun.
 * May include: everything above. Ownership: a pushed userdata owns one reference, dropped by __gc or close(). */
#ifndef ML_LUA_LUA_CORE_H
#define ML_LUA_LUA_CORE_H
#include <stdbool.h>
#include <stdint.h>
#include "base/status.h"
#include "graph/program.h"
#include "lua/compat.h"
#include "tensor/tensor.h"

/* ---- errors: the one place where an ml_error becomes a Lua value (error.c) ---- */
/* Misuse by the programmer: raises message with the caller's position. Does not return. */
int ml__lua_raise(lua_State *L, const ml_error *err);
/* A failing environment (file, data, memory): pushes nil, message, code name; returns 3. */
int ml__lua_fail(lua_State *L, const ml_error *err);
/* raise for INVALID_ARGUMENT/OUT_OF_RANGE/FAILED_PRECONDITION/UNIMPLEMENTED, else fail */
int ml__lua_error(lua_State *L, const ml_error *err);

/* ---- arguments ---- */
int64_t ml__lua_check_int(lua_State *L, int index);   /* an integral number within ±2^53; raises "integer expected, got 1.5" */
int64_t ml__lua_opt_int(lua_State *L, int index, int64_t fallback);
/* Fields of the option table at index; absent (nil) gives the fallback; a wrong type raises naming the field. */
double ml__lua_opt_number_field(lua_State *L, int index, const char *field, double fallback);
int64_t ml__lua_opt_int_field(lua_State *L, int index, const char *field, int64_t fallback);
bool ml__lua_opt_bool_field(lua_State *L, int index, const char *field, bool fallback);
const char *ml__lua_opt_string_field(lua_State *L, int index, const char *field, const char *fallback); /* borrowed from the table */
/* An array of integers into dims (a shape); raises when longer than ML_MAX_RANK. Returns the rank. */
int32_t ml__lua_check_dims(lua_State *L, int index, int64_t *dims);
void ml__lua_push_dims(lua_State *L, const int64_t *dims, int32_t rank);
/* Pushes an integral value so that 5.4 sees an integer. */
void ml__lua_push_int(lua_State *L, int64_t value);

/* ---- userdata ---- */
/* Class set-up: metatable NAME with __index = methods, __gc, __tostring (may be NULL), __name. */
void ml__lua_class(lua_State *L, const char *name, const luaL_Reg *methods, lua_CFunction gc, lua_CFunction tostring);
#define ML_LUA_TENSOR "mlserve.tensor"
ml_tensor *ml__lua_check_tensor(lua_State *L, int index);              /* borrowed; raises otherwise */
ml_tensor *ml__lua_test_tensor(lua_State *L, int index);               /* NULL when it is something else */
void ml__lua_push_tensor(lua_State *L, ml_tensor *tensor);             /* takes over the reference */
/* Tensor userdata or nested Lua table of numbers/strings/booleans at index -> one reference (caller releases).
 * dtype NONE: float32 for numbers, string for strings, bool for booleans. Raggedness and mixed types are errors naming the place. */
ml_status ml__lua_to_tensor(lua_State *L, int index, ml_dtype dtype, ml_tensor **out, ml_error *err);
/* Element i of a view as a Lua value. */
void ml__lua_push_element(lua_State *L, const ml_view *view, size_t i);
/* Nested Lua table of a view's elements. */
void ml__lua_push_nested(lua_State *L, const ml_view *view);

#define ML_LUA_GRAPH "mlserve.graph"
ml_graph *ml__lua_check_graph(lua_State *L, int index);                /* borrowed */
void ml__lua_push_graph(lua_State *L, ml_graph *graph);                /* takes over */
#define ML_LUA_PROGRAM "mlserve.program"
ml_program *ml__lua_check_program(lua_State *L, int index);            /* borrowed */
/* Pushes a servable object and gives the place for what it holds; NULL there counts as closed. */
struct ml_servable **ml__lua_new_servable(lua_State *L);
/* {name =, dtype =, shape =} */
void ml__lua_push_signature(lua_State *L, const ml_value *value);
/* Array of tensors (or nested tables, converted to the dtype wanted[i] when given) at index into out[n], one reference each; the caller releases
 * what was filled (out is zeroed first). */
ml_status ml__lua_to_tensors(lua_State *L, int index, size_t n, const ml_dtype *wanted, ml_tensor **out, ml_error *err);

/* Values of any type (lua_value.c). An array at index into out[n], of the types of values[n]; the caller releases what was filled (out is zeroed first). */
ml_status ml__lua_to_items(lua_State *L, int index, size_t n, ml_value *const *values, ml_item *out, ml_error *err);
void ml__lua_release_items(ml_item *items, size_t n);
void ml__lua_push_item(lua_State *L, const ml_item *item); /* retains what it pushes */

/* ---- registration: each adds its functions to the table on top of the stack (lua_init.c calls all) ---- */
#define ML_LUA_NOUNS(X) X(tensor) X(rng) X(graph) X(program) X(trainer) X(metrics) X(table) X(format) X(servable) X(loader) X(batch) X(counters) X(json) X(base64) X(system) \
  X(verify) X(convert) X(reply)
#define X(noun) void ml__lua_open_##noun(lua_State *L);
ML_LUA_NOUNS(X)
#undef X

#endif
