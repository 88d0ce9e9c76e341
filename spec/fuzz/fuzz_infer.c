/* KServe's infer request on arbitrary bodies, against servables of several types. The first two bytes are the size of the JSON in front of binary
 * data (0xffff: all is JSON). Demands, beyond no crash and no leak: a refusal has a message and a client's code and leaves no answer; an answer is
 * JSON with as many bytes behind it as its outputs say. Build: clang -fsanitize=fuzzer,address,undefined -Icsrc spec/fuzz/fuzz_infer.c and the core
 * (make fuzz); dictionary: json.dict. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/infer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)
enum { N_SERVABLES = 7 };
static ml_servable *servables[N_SERVABLES];

static ml_servable *make(ml_dtype dtype, bool two, int32_t rank) {
  ml_error err;
  ml_graph *g;
  ml_value *a, *b, *y;
  ml_program *program;
  ml_servable *s;
  int64_t dims[3] = {ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN};
  const char *name = "y", *classes = "[\"no\", 1, \"yes\"]";
  ml_servable_options options = {.max_elements = 10000};
  DEMAND(ml_graph_new("fuzz", &g, &err) == ML_OK && ml_graph_input(g, "x", dtype, dims, rank, &a, &err) == ML_OK);
  if (two) DEMAND(ml_graph_input(g, "z", dtype, dims, rank, &b, &err) == ML_OK);
  ml_value *in[] = {a, two ? b : NULL};
  DEMAND(ml_graph_node(g, ml_op_find("", two ? "Add" : "Identity"), NULL, NULL, 0, two ? 2 : 1, in, 1, &name, &y, &err) == ML_OK);
  DEMAND(ml_graph_output(g, y, &err) == ML_OK && ml_graph_set_property(g, "mlserve.classes", classes, strlen(classes), &err) == ML_OK);
  if (two) DEMAND(ml_graph_output(g, a, &err) == ML_OK);
  DEMAND(ml_program_new(g, NULL, &program, &err) == ML_OK && ml_servable_new(program, &options, &s, &err) == ML_OK);
  ml_program_release(program);
  ml_graph_free(g);
  return s;
}

/* Sum of the numbers behind "binary_data_size": in our own JSON. */
static size_t binary_bytes(const char *json, size_t size) {
  static const char key[] = "\"binary_data_size\": ";
  size_t sum = 0;
  for (size_t i = 0; i + sizeof key <= size; i++)
    if (memcmp(json + i, key, sizeof key - 1) == 0) sum += strtoull(json + i + sizeof key - 1, NULL, 10);
  return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!servables[0]) {
    servables[0] = make(ML_FLOAT32, false, 2);
    servables[1] = make(ML_FLOAT32, true, 2);
    servables[2] = make(ML_STRING, false, 1);
    servables[3] = make(ML_INT64, false, 3);
    servables[4] = make(ML_BOOL, false, 1);
    servables[5] = make(ML_FLOAT16, false, 2);
    servables[6] = make(ML_UINT16, false, 1);
  }
  if (size < 2) return 0;
  size_t json = (size_t)data[0] | (size_t)data[1] << 8;
  if (json == 0xffff) json = ML_INFER_JSON;
  for (size_t i = 0; i < N_SERVABLES; i++) {
    ml_json_writer out;
    ml_json_reader reader;
    ml_error err = {0};
    size_t out_json = 0;
    ml_json_writer_init(&out);
    ml_status status = ml_servable_infer(servables[i], (const char *)data + 2, size - 2, json, NULL, &out, &out_json, &err);
    if (status != ML_OK) {
      DEMAND(err.message[0] && out.length == 0 && (status == ML_INVALID_ARGUMENT || status == ML_UNIMPLEMENTED || status == ML_RESOURCE_EXHAUSTED));
    } else {
      size_t all = out_json == ML_INFER_JSON ? out.length : out_json;
      DEMAND(all <= out.length);
      ml_json_reader_init(&reader, out.text, all);
      reader.allow_nonfinite = true;
      DEMAND(ml_json_skip(&reader, &err) == ML_OK && ml_json_expect_end(&reader, &err) == ML_OK);
      if (out_json != ML_INFER_JSON) DEMAND(binary_bytes(out.text, all) == out.length - all);
    }
    ml_json_writer_free(&out);
  }
  return 0;
}
