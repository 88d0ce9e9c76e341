/* What the fuzz targets of binary protocols share: servables of many types, and the demands, beyond no crash and no leak: a refusal has a message and
 * a code that a codec may give and leaves no answer; an answer is a message whose lengths are right. */
#ifndef MLSERVE_SPEC_PROTO_FUZZ_H
#define MLSERVE_SPEC_PROTO_FUZZ_H
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "serve/call.h"

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)

static const struct { ml_dtype dtype; int32_t rank; bool two; } fuzzed[] = {
  {ML_FLOAT32, 2, false}, {ML_FLOAT32, 2, true}, {ML_STRING, 1, false},  {ML_INT64, 3, false},      {ML_BOOL, 1, false}, {ML_FLOAT16, 2, false},
  {ML_UINT16, 1, false},  {ML_INT8, 0, false},   {ML_FLOAT64, 2, false}, {ML_FLOAT8E5M2, 1, false}, {ML_INT4, 1, false}, {ML_UINT32, 2, false},
};
enum { N_FUZZED = sizeof fuzzed / sizeof *fuzzed };
static ml_servable *servables[N_FUZZED];

static ml_servable *make(size_t i) {
  ml_error err;
  ml_graph *g;
  ml_value *a, *b, *y;
  ml_program *program;
  ml_servable *s;
  int64_t dims[3] = {ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN};
  const char *name = "y";
  ml_servable_options options = {.model = "m", .version = 3, .max_elements = 10000};
  bool two = fuzzed[i].two;
  DEMAND(ml_graph_new("fuzz", &g, &err) == ML_OK && ml_graph_input(g, "x", fuzzed[i].dtype, dims, fuzzed[i].rank, &a, &err) == ML_OK);
  if (two) DEMAND(ml_graph_input(g, "z", fuzzed[i].dtype, dims, fuzzed[i].rank, &b, &err) == ML_OK);
  ml_value *in[] = {a, two ? b : NULL};
  DEMAND(ml_graph_node(g, ml_op_find("", two ? "Add" : "Identity"), NULL, NULL, 0, two ? 2 : 1, in, 1, &name, &y, &err) == ML_OK);
  DEMAND(ml_graph_output(g, y, &err) == ML_OK);
  if (two) DEMAND(ml_graph_output(g, a, &err) == ML_OK);
  DEMAND(ml_program_new(g, NULL, &program, &err) == ML_OK && ml_servable_new(program, &options, &s, &err) == ML_OK);
  ml_program_release(program);
  ml_graph_free(g);
  return s;
}

static void demand_message(const void *bytes, size_t size) {
  ml_pb_reader reader;
  ml_pb_field field;
  ml_status status;
  ml_pb_reader_init(&reader, bytes, size);
  while (ml_pb_next(&reader, &field, &status, NULL)) {}
  DEMAND(status == ML_OK && reader.at == reader.end);
}

static void fuzz_codec(const ml_call_codec *codec, const uint8_t *data, size_t size) {
  for (size_t i = 0; i < N_FUZZED; i++) {
    ml_pb_writer out;
    ml_error err = {0};
    if (!servables[i]) servables[i] = make(i);
    ml_pb_writer_init(&out);
    ml_call_options options = {.content = size % 2 == 1};
    ml_status status = ml_servable_call(servables[i], codec, data, size, &options, &out, &err);
    if (status != ML_OK) {
      DEMAND(err.message[0] && out.size == 0);
      DEMAND(status == ML_INVALID_ARGUMENT || status == ML_UNIMPLEMENTED || status == ML_RESOURCE_EXHAUSTED || status == ML_FAILED_PRECONDITION
             || status == ML_INTERNAL);
    } else {
      demand_message(out.bytes, out.size);
    }
    ml_pb_writer_free(&out);
  }
}

#endif
