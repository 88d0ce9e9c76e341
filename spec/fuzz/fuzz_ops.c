/* Fuzz target: every operator that files may hold, on hostile types, shapes, attributes and values (spec/csrc/op_fuzz.h): made at random, or
 * valid nodes changed a little (spec/csrc/op_seeds.h). The first three bytes choose. */
#include "../csrc/op_seeds.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static bool ready;
  if (!ready) seed_all();
  ready = true;
  if (size < 4) return 0;
  fuzz_source s = { data + 4, size - 4 };
  fuzz_spec c = { 0 };
  size_t number = (size_t)(data[1] * 256 + data[2]);
  if (data[0] % 4 != 0 && n_seeds > 0) {
    fuzz_copy(&seeds[number % n_seeds], &c);
    fuzz_mutate(&s, &c);
  } else {
    const ml_op_def *op = ml_op_at(number % ml_op_count());
    if (!fuzz_has(op)) return 0;
    fuzz_random(&s, op, &c);
  }
  fuzz_operator_case(&c, data[3]);
  return 0;
}
