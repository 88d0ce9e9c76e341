/* The predict request on arbitrary bodies, against servables of several types. Demands, beyond no crash and no leak: a refusal
 * has a message and a client's code; an answer is JSON. Build: clang -fsanitize=fuzzer,address,undefined -Icsrc
 * spec/fuzz/fuzz_predict_json.c and the core (make fuzz); dictionary: json.dict. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/servable.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)
enum { N_SERVABLES = 5 };
static ml_servable *servables[N_SERVABLES];

static ml_servable *make(ml_dtype dtype, bool two, int32_t rank) {
  ml_error err;
  ml_graph *g;
  ml_value *a, *b, *y;
  ml_program *program;
  ml_servable *s;
  int64_t dims[3] = {ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN};
  const char *name = dtype == ML_STRING ? "y_bytes" : "y";
  ml_servable_options options = {.max_elements = 10000};
  DEMAND(ml_graph_new("fuzz", &g, &err) == ML_OK && ml_graph_input(g, "x", dtype, dims, rank, &a, &err) == ML_OK);
  if (two) DEMAND(ml_graph_input(g, "z", dtype, dims, rank, &b, &err) == ML_OK);
  ml_value *in[] = {a, two ? b : NULL};
  DEMAND(ml_graph_node(g, ml_op_find("", two ? "Add" : "Identity"), NULL, NULL, 0, two ? 2 : 1, in, 1, &name, &y, &err) == ML_OK);
  DEMAND(ml_graph_output(g, y, &err) == ML_OK);
  if (two) DEMAND(ml_graph_output(g, a, &err) == ML_OK);
  DEMAND(ml_program_new(g, NULL, &program, &err) == ML_OK && ml_servable_new(program, &options, &s, &err) == ML_OK);
  ml_program_release(program);
  ml_graph_free(g);
  return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!servables[0]) {
    servables[0] = make(ML_FLOAT32, false, 2);
    servables[1] = make(ML_FLOAT32, true, 2);
    servables[2] = make(ML_STRING, false, 1);
    servables[3] = make(ML_INT64, false, 3);
    servables[4] = make(ML_BOOL, false, 1);
  }
  for (size_t i = 0; i < N_SERVABLES; i++) {
    ml_json_writer out;
    ml_json_reader reader;
    ml_error err = {0};
    ml_json_writer_init(&out);
    ml_status status = ml_servable_predict_json(servables[i], (const char *)data, size, NULL, &out, &err);
    if (status != ML_OK) {
      bool clients = status == ML_INVALID_ARGUMENT || status == ML_RESOURCE_EXHAUSTED;
      DEMAND(err.message[0] && clients && out.length == 0);
    } else {
      ml_json_reader_init(&reader, out.text, out.length);
      reader.allow_nonfinite = true;
      DEMAND(ml_json_skip(&reader, &err) == ML_OK && ml_json_expect_end(&reader, &err) == ML_OK);
    }
    ml_json_writer_free(&out);
  }
  return 0;
}
