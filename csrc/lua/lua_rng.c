/* Random tensors and permutations, by seed and stream. */
#include "base/rng.h"
#include "lua/lua_core.h"

static uint64_t check_seed(lua_State *L, int index) { return (uint64_t)ml__lua_opt_int(L, index, 0); }

static int random_tensor(lua_State *L, bool normal)
{
  int64_t dims[ML_MAX_RANK];
  int32_t rank = ml__lua_check_dims(L, 1, dims);
  float a = (float)luaL_optnumber(L, 2, 0), b = (float)luaL_optnumber(L, 3, 1);
  uint64_t seed = check_seed(L, 4), stream = check_seed(L, 5);
  ml_tensor *out;
  ml_error err;
  if (ml_tensor_new(ML_FLOAT32, dims, rank, &out, &err) != ML_OK) return ml__lua_error(L, &err);
  if (normal) ml_rng_normal(seed, stream, a, b, lua_toboolean(L, 6), out->view.data, out->view.count);
  else ml_rng_uniform(seed, stream, a, b, out->view.data, out->view.count);
  ml__lua_push_tensor(L, out);
  return 1;
}

/* random_uniform(shape[, low[, high[, seed[, stream]]]]) */
static int random_uniform(lua_State *L) { return random_tensor(L, false); }

/* random_normal(shape[, mean[, stddev[, seed[, stream[, truncated]]]]]) */
static int random_normal(lua_State *L) { return random_tensor(L, true); }

/* permutation(seed, stream, n) -> array of 1…n in random order */
static int permutation(lua_State *L)
{
  uint64_t seed = check_seed(L, 1), stream = check_seed(L, 2);
  int64_t n = ml__lua_check_int(L, 3);
  luaL_argcheck(L, n >= 0 && n < INT32_MAX, 3, "a number of elements expected");
  uint32_t *order = ml_alloc(((size_t)n + 1) * sizeof *order);
  if (!order) return luaL_error(L, "out of memory");
  ml_rng_permutation(seed, stream, order, (size_t)n);
  lua_createtable(L, (int)n, 0);
  for (int64_t i = 0; i < n; i++) {
    ml__lua_push_int(L, (int64_t)order[i] + 1);
    lua_rawseti(L, -2, (int)i + 1);
  }
  ml_free(order);
  return 1;
}

void ml__lua_open_rng(lua_State *L)
{
  static const luaL_Reg functions[] = { { "random_uniform", random_uniform }, { "random_normal", random_normal }, { "permutation", permutation }, { NULL, NULL } };
  luaL_setfuncs(L, functions, 0);
}
