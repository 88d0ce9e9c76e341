/* Hostile models: every operator on hundreds of random types, shapes, attributes and values, and valid nodes with a few things changed
 * (op_fuzz.h). The generator is fixed, so a crash repeats; `test_hostile RUNS [OPERATOR]` runs longer, or one operator. With
 * MLSERVE_CASES naming a folder of ONNX's node tests, those are changed too. Run from the root of the repository. */
#include "op_seeds.h"
#include "tap.h"

static uint64_t random_state;
static uint8_t random_byte(void) {
  random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (uint8_t)(random_state >> 56);
}

/* `runs` cases of an operator, or (seed not NULL) from a valid node; how many of them ran. */
static int run_cases(const ml_op_def *op, const fuzz_spec *seed, int runs) {
  uint8_t bytes[600];
  int ran = 0;
  random_state = 0;
  for (const char *at = op->name; *at; at++) random_state = random_state * 31 + (unsigned char)*at;
  for (int i = 0; i < runs; i++) {
    fuzz_spec c = { 0 };
    fuzz_source s = { bytes, sizeof bytes };
    for (size_t k = 0; k < sizeof bytes; k++) bytes[k] = random_byte();
    if (seed) {
      fuzz_copy(seed, &c);
      if (i > 0) fuzz_mutate(&s, &c); /* the first one is the valid node */
    } else {
      fuzz_random(&s, op, &c);
    }
    ran += fuzz_operator_case(&c, random_byte()) == ML_OK;
  }
  return ran;
}

int main(int argc, char **argv) {
  int runs = argc > 1 ? atoi(argv[1]) : 400;
  const char *only = argc > 2 ? argv[2] : NULL;
  size_t operators = 0, ran = 0, all = 0;
  seed_all();
  for (size_t i = 0; i < ml_op_count(); i++) {
    const ml_op_def *op = ml_op_at(i);
    if (!fuzz_has(op) || (only && strcmp(only, op->name) != 0)) continue;
    ran += (size_t)run_cases(op, NULL, runs);
    all += (size_t)runs;
    operators++;
  }
  ok(only || (operators > 150 && ran > all / 20 && ran < all), "%zu operators: %zu of %zu random cases ran, the others were refused", operators, ran, all);
  ran = all = 0;
  for (size_t i = 0; i < n_seeds; i++) {
    if (only && strcmp(only, seeds[i].op->name) != 0) continue;
    ran += (size_t)run_cases(seeds[i].op, &seeds[i], runs / 4 + 1);
    all += (size_t)runs / 4 + 1;
  }
  ok(only || (n_seeds > 60 && ran > all / 10 && ran < all), "%zu valid nodes: %zu of %zu changed ones ran, the others were refused", n_seeds, ran, all);
  seed_free();
  return done();
}
