/* Between lua_servable.c and the files that give a servable more methods. */
#ifndef ML_LUA_LUA_SERVABLE_H
#define ML_LUA_LUA_SERVABLE_H
#include "lua/compat.h"
#include "serve/call.h"
#include "serve/infer.h"

ml_servable *ml__lua_check_servable(lua_State *L, int index); /* borrowed; raises */
/* Raises when the table at index has a key that is not known (NULL-terminated). */
void ml__lua_check_keys(lua_State *L, int index, const char *what, const char *const *known);
int ml__lua_servable_predict_json(lua_State *L);
int ml__lua_servable_infer(lua_State *L);
ml_infer_options ml__lua_infer_options(lua_State *L, int index); /* borrowed from the table */
size_t ml__lua_check_json_size(lua_State *L, int index);
const ml_call_codec *ml__lua_check_codec(lua_State *L, int index); /* by its name */
int ml__lua_servable_call(lua_State *L, const ml_call_codec *codec); /* (servable, bytes, signature, model, version, tensor_content) */
ml_call_options ml__lua_call_options(lua_State *L, int signature, int names); /* strings belong to the arguments */
int ml__lua_push_inferred(lua_State *L, const ml_json_writer *out, size_t json); /* body, headers or nil */

/* lua_batch.c */
int ml__lua_servable_start_json(lua_State *L);
int ml__lua_servable_start_infer(lua_State *L);
int ml__lua_servable_start_proto(lua_State *L);
int ml__lua_servable_batching(lua_State *L);
int ml__lua_servable_batched(lua_State *L);
int ml__lua_servable_batch_stats(lua_State *L);
int ml__lua_servable_count_in(lua_State *L);

/* lua_counters.c */
ml_counters *ml__lua_check_counters(lua_State *L, int index); /* borrowed; raises */

#endif
