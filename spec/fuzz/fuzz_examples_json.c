/* Classify and regress on arbitrary bodies, against servables of several types. Demands, beyond no crash and no leak: a refusal has a message and a
 * client's or the model's code; an answer is JSON. Dictionary: json.dict. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/examples.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)
enum { N_SERVABLES = 5 };
static ml_servable *servables[N_SERVABLES];

static ml_servable *make(ml_dtype dtype, bool two, int32_t rank, int64_t last) {
  static const char *const features[] = {"a", "b"}, *const classes[] = {"no", "yes"};
  ml_error err;
  ml_graph *g;
  ml_value *a, *b = NULL, *y;
  ml_program *program;
  ml_servable *s;
  int64_t dims[3] = {ML_UNKNOWN, last, ML_UNKNOWN};
  const char *name = "scores";
  ml_servable_options options = {.max_elements = 10000, .features = features, .n_features = 2, .classes = classes, .n_classes = 2};
  DEMAND(ml_graph_new("fuzz", &g, &err) == ML_OK && ml_graph_input(g, "x", dtype, dims, rank, &a, &err) == ML_OK);
  if (two) DEMAND(ml_graph_input(g, "z", dtype, dims, rank, &b, &err) == ML_OK);
  ml_value *in[] = {a, b};
  DEMAND(ml_graph_node(g, ml_op_find("", two ? "Add" : "Identity"), NULL, NULL, 0, two ? 2 : 1, in, 1, &name, &y, &err) == ML_OK);
  DEMAND(ml_graph_output(g, y, &err) == ML_OK);
  DEMAND(ml_program_new(g, NULL, &program, &err) == ML_OK && ml_servable_new(program, &options, &s, &err) == ML_OK);
  ml_program_release(program);
  ml_graph_free(g);
  return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!servables[0]) {
    servables[0] = make(ML_FLOAT32, false, 2, 2);
    servables[1] = make(ML_FLOAT64, true, 2, ML_UNKNOWN);
    servables[2] = make(ML_STRING, false, 2, ML_UNKNOWN);
    servables[3] = make(ML_INT64, false, 3, 2);
    servables[4] = make(ML_FLOAT32, false, 1, 0);
  }
  for (size_t i = 0; i < 2 * N_SERVABLES; i++) {
    ml_json_writer out;
    ml_json_reader reader;
    ml_error err = {0};
    ml_json_writer_init(&out);
    ml_status status = ml_servable_examples_json(servables[i / 2], i % 2 ? ML_REGRESS : ML_CLASSIFY, (const char *)data, size, &out, &err);
    if (status != ML_OK) {
      DEMAND(err.message[0] && (status == ML_INVALID_ARGUMENT || status == ML_RESOURCE_EXHAUSTED || status == ML_FAILED_PRECONDITION));
    } else {
      ml_json_reader_init(&reader, out.text, out.length);
      reader.allow_nonfinite = true;
      DEMAND(ml_json_skip(&reader, &err) == ML_OK && ml_json_expect_end(&reader, &err) == ML_OK);
    }
    ml_json_writer_free(&out);
  }
  return 0;
}
