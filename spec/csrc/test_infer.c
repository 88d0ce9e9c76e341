/* The infer request of KServe's v2 protocol. Forms of bodies: the Open Inference Protocol and Triton's documents of the binary tensor data and
 * classification extensions; texts of refusals: Triton's http_server.cc, infer_request.cc and model.cc. The models copy, add and subtract, so that
 * expected numbers are worked out by hand. */
#include <string.h>

#include "serve/infer.h"
#include "tap.h"

static ml_error err;

static ml_value *input(ml_graph *g, const char *name, ml_dtype dtype, int32_t rank, const int64_t *dims) {
  ml_value *v = NULL;
  if (ml_graph_input(g, name, dtype, dims, rank, &v, &err) != ML_OK) ok(false, "%s", err.message);
  return v;
}

static void output(ml_graph *g, const char *op, ml_value *a, ml_value *b, const char *name) {
  ml_value *v = NULL, *in[] = {a, b};
  if (ml_graph_node(g, ml_op_find("", op), NULL, NULL, 0, b ? 2 : 1, in, 1, &name, &v, &err) != ML_OK || ml_graph_output(g, v, &err) != ML_OK)
    ok(false, "%s: %s", op, err.message);
}

static ml_servable *serve(ml_graph *g, size_t most) {
  ml_servable_options options = {.model = "m", .version = 3, .max_elements = most};
  ml_program *program = NULL;
  ml_servable *s = NULL;
  if (ml_program_new(g, NULL, &program, &err) != ML_OK || ml_servable_new(program, &options, &s, &err) != ML_OK) ok(false, "%s", err.message);
  ml_program_release(program);
  ml_graph_free(g);
  return s;
}

/* y = x */
static ml_servable *copier(ml_dtype dtype, int32_t rank, const int64_t *dims) {
  ml_graph *g = NULL;
  ml_graph_new("copier", &g, &err);
  output(g, "Identity", input(g, "x", dtype, rank, dims), NULL, "y");
  return serve(g, 0);
}

static const int64_t any2[] = {ML_UNKNOWN, 2};

/* sum = a + b, diff = a - b, of rows of two */
static ml_servable *adder(const char *classes) {
  ml_graph *g = NULL;
  ml_graph_new("adder", &g, &err);
  ml_value *a = input(g, "a", ML_FLOAT32, 2, any2), *b = input(g, "b", ML_FLOAT32, 2, any2);
  output(g, "Add", a, b, "sum");
  output(g, "Sub", a, b, "diff");
  if (classes) ml_graph_set_property(g, "mlserve.classes", classes, strlen(classes), &err);
  return serve(g, 1000);
}

static char text[1 << 16];
static size_t text_size, json_size;

/* The answer lies in text; its JSON, or the refusal, is returned without the blanks between tokens. */
static const char *answer(ml_servable *s, const char *body, size_t size, size_t json, ml_status *status) {
  static char compact[1 << 16];
  ml_json_writer out;
  size_t n = 0;
  bool quoted = false;
  memset(&err, 0, sizeof err);
  ml_json_writer_init(&out);
  char *copy = malloc(size ? size : 1); /* exactly this many bytes, for the sanitiser */
  if (size) memcpy(copy, body, size);
  *status = ml_servable_infer(s, copy, size, json, NULL, &out, &json_size, &err);
  free(copy);
  text_size = out.length;
  if (out.length) memcpy(text, out.text, out.length);
  size_t end = json_size == ML_INFER_JSON ? out.length : json_size;
  for (size_t i = 0; *status == ML_OK && i < end; i++) {
    if (text[i] == '"' && (i == 0 || text[i - 1] != '\\')) quoted = !quoted;
    if (quoted || text[i] != ' ') compact[n++] = text[i];
  }
  compact[n] = '\0';
  ml_json_writer_free(&out);
  return *status == ML_OK ? compact : err.message;
}

static void gives(ml_servable *s, const char *body, const char *expected) {
  ml_status status;
  const char *got = answer(s, body, strlen(body), ML_INFER_JSON, &status);
  ok(status == ML_OK && json_size == ML_INFER_JSON && strcmp(got, expected) == 0, "%s: %s", body, got);
}

static void refuses_sized(ml_servable *s, const char *body, size_t size, size_t json, ml_status code, const char *expected) {
  ml_status status;
  const char *got = answer(s, body, size, json, &status);
  ok(status == code && text_size == 0 && strcmp(got, expected) == 0, "%s: %s", body, got);
}

static void refuses(ml_servable *s, const char *body, const char *expected) {
  refuses_sized(s, body, strlen(body), ML_INFER_JSON, ML_INVALID_ARGUMENT, expected);
}

#define HEAD "{\"model_name\":\"m\",\"model_version\":\"3\",\"outputs\":["
#define X(type, shape, data) "{\"inputs\":[{\"name\":\"x\",\"shape\":" shape ",\"datatype\":\"" type "\",\"data\":" data "}]}"
#define Y(type, shape, data) HEAD "{\"name\":\"y\",\"datatype\":\"" type "\",\"shape\":" shape ",\"data\":" data "}]}"
#define A "{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[5,2]}"
#define B "{\"name\":\"b\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,3]}"

static void test_json(void) {
  ml_servable *s = copier(ML_FLOAT32, 2, any2);
  gives(s, X("FP32", "[2,2]", "[1,2.5,-3e2,0.1]"), Y("FP32", "[2,2]", "[1.0,2.5,-300.0,0.1]"));
  gives(s, X("FP32", "[2,2]", "[[1,2.5],[-3e2,0.1]]"), Y("FP32", "[2,2]", "[1.0,2.5,-300.0,0.1]"));
  gives(s, X("FP32", "[1,2]", " [ [ [1] , [2] ] ] "), Y("FP32", "[1,2]", "[1.0,2.0]"));
  gives(s, X("FP32", "[0,2]", "[]"), Y("FP32", "[0,2]", "[]"));
  gives(s, X("FP32", "[1,2]", "[NaN,-Infinity]"), Y("FP32", "[1,2]", "[NaN,-Infinity]"));
  /* keys in any order, others ignored, first of two counts */
  gives(s, "{\"inputs\":[{\"data\":[1,2],\"parameters\":{\"content_type\":\"np\"},\"extra\":{\"a\":[null]},\"datatype\":\"FP32\",\"shape\":[1,2],"
        "\"name\":\"x\",\"name\":\"z\"}],\"id\":\"42\",\"more\":[]}",
        "{\"id\":\"42\",\"model_name\":\"m\",\"model_version\":\"3\",\"outputs\":[{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[1.0,2.0]}]}");
  refuses(s, X("FP32", "[1,2]", "[1]"), "Failed to parse 'data' field: shape does not match true shape");
  refuses(s, X("FP32", "[1,2]", "[1,2,3]"), "Unable to parse 'data': Shape does not match true shape of 'data' field");
  refuses(s, X("FP32", "[1000000000,2]", "[1]"), "input 'x': the request has more than 67108864 elements");
  refuses(s, X("FP32", "[1000000,2]", "[1]"), "Unable to parse 'data': Shape does not match true shape of 'data' field");
  refuses(s, X("FP32", "[4611686018427387904,2]", "[1]"),
          "invalid shape for input 'x': shape [4611686018427387904,2] causes total element count to exceed maximum size of 9223372036854775807");
  refuses(s, X("FP32", "[1,3]", "[1,2,3]"),
          "[request id: <id_unknown>] unexpected shape for input 'x' for model 'm'. Expected [-1,2], got [1,3]. ");
  refuses(s, X("FP32", "[2]", "[1,2]"), "[request id: <id_unknown>] unexpected shape for input 'x' for model 'm'. Expected [-1,2], got [2]. ");
  refuses(s, X("INT32", "[1,2]", "[1,2]"), "[request id: <id_unknown>] inference input 'x' data-type is 'INT32', but model 'm' expects 'FP32'");
  refuses(s, X("FLOAT", "[1,2]", "[1,2]"), "invalid datatype for input x");
  refuses(s, X("FP32", "[1,2]", "[1,\"2\"]"), "Unable to parse 'data': attempt to access JSON non-number as number");
  refuses(s, X("FP32", "[1,2]", "[1,null]"), "Unable to parse 'data': attempt to access JSON non-number as number");
  refuses(s, X("FP32", "[1,2]", "1"), "Unable to parse 'data': attempt to access JSON non-array as array");
  refuses(s, X("FP32", "[1,-2]", "[1]"), "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer");
  refuses(s, X("FP32", "[1,1.5]", "[1]"), "Unable to parse 'shape': attempt to access JSON non-unsigned-integer as unsigned-integer");
  refuses(s, X("FP32", "2", "[1]"), "Unable to parse 'shape': attempt to access JSON non-array as array");
  refuses(s, X("FP32", "[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]", "[1]"), "Unable to parse 'shape': more than 16 dimensions");
  refuses(s, "", "failed to parse the request JSON buffer: The document is empty. at 0");
  refuses(s, "{}", "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'");
  refuses(s, "[]", "Unable to parse 'inputs': attempt to access JSON non-object as object");
  refuses(s, "{\"inputs\":{}}", "Unable to parse 'inputs': attempt to access JSON non-array as array");
  refuses(s, "{\"inputs\":[1]}", "Unable to parse 'inputs': attempt to access JSON non-object as object");
  refuses(s, "{\"id\":1,\"inputs\":[]}", "Unable to parse 'id': attempt to access JSON non-string as string");
  refuses(s, "{\"inputs\":[{\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}",
          "Unable to parse 'name': attempt to access non-existing object member 'name'");
  refuses(s, "{\"inputs\":[{\"name\":\"x\",\"datatype\":\"FP32\",\"data\":[1]}]}",
          "Unable to parse 'shape': attempt to access non-existing object member 'shape'");
  refuses(s, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"data\":[1]}]}",
          "Unable to parse 'datatype': attempt to access non-existing object member 'datatype'");
  refuses(s, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\"}]}",
          "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', 'shared_memory_region' in 'parameters'. But no "
          "field is set");
  refuses(s, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"FP32\",\"data\":[1,2],\"parameters\":{\"binary_data_size\":8}}]}",
          "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', 'shared_memory_region' in 'parameters'. But set "
          "'data' 'binary_data_size'");
  /* a refusal gives way to a syntax error anywhere in the JSON */
  ml_status status;
  const char *broken = "{\"inputs\":[{\"name\":\"z\",\"shape\":[9],\"datatype\":\"FP32\",\"data\":[1]}],}";
  ok(strstr(answer(s, broken, strlen(broken), ML_INFER_JSON, &status), "failed to parse the request JSON buffer: ") == err.message, "%s", err.message);
  broken = X("FP32", "[1,2]", "[1,2]") " x";
  ok(strstr(answer(s, broken, strlen(broken), ML_INFER_JSON, &status), "failed to parse the request JSON buffer: ") == err.message, "%s", err.message);
  ml_servable_release(s);
}

static void test_inputs_and_outputs(void) {
  ml_servable *s = adder(NULL);
  const char *both = "{\"inputs\":[" B "," A "]}";
  gives(s, both, HEAD "{\"name\":\"sum\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[6.0,5.0]},"
        "{\"name\":\"diff\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[4.0,-1.0]}]}");
  gives(s, "{\"outputs\":[{\"name\":\"diff\"},{\"name\":\"diff\"}],\"inputs\":[" A "," B "]}",
        HEAD "{\"name\":\"diff\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[4.0,-1.0]}]}");
  gives(s, "{\"outputs\":[{\"name\":\"diff\"},{\"name\":\"sum\"}],\"inputs\":[" A "," B "],\"parameters\":{\"priority\":2,\"timeout\":5000,"
        "\"sequence_id\":7,\"sequence_start\":true,\"mine\":\"x\",\"binary_data_output\":false}}",
        HEAD "{\"name\":\"diff\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[4.0,-1.0]},"
        "{\"name\":\"sum\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[6.0,5.0]}]}");
  refuses(s, "{\"id\":\"7\",\"inputs\":[" A "]}",
          "[request id: 7] expected 2 inputs but got 1 inputs for model 'm'. Got input(s) ['a'], but missing required input(s) ['b']. Please provide all "
          "required input(s).");
  refuses(s, "{\"inputs\":[]}",
          "[request id: <id_unknown>] expected 2 inputs but got 0 inputs for model 'm'. Got input(s) [], but missing required input(s) ['a','b']. Please "
          "provide all required input(s).");
  refuses(s, "{\"inputs\":[" A ",{\"name\":\"c\",\"shape\":[1],\"datatype\":\"FP32\",\"data\":[1]}]}", "unexpected inference input 'c' for model 'm'");
  refuses(s, "{\"inputs\":[" A "," A "]}", "input 'a' already exists in request");
  refuses(s, "{\"inputs\":[" A "," B "],\"outputs\":[{\"name\":\"z\"}]}", "unexpected inference output 'z' for model 'm'");
  refuses(s, "{\"inputs\":[" A "," B "],\"outputs\":[{}]}", "Unable to parse 'name': attempt to access non-existing object member 'name'");
  refuses(s, "{\"inputs\":[" A "," B "],\"parameters\":{\"triton_x\":1}}",
          "parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.");
  refuses(s, "{\"inputs\":[" A "," B "],\"parameters\":{\"p\":[1]}}", "parameter 'p' has invalid type. It should be either 'int', 'bool', or 'string'.");
  refuses(s, "{\"inputs\":[" A "," B "],\"parameters\":{\"priority\":-1}}",
          "Unable to parse 'priority': attempt to access JSON non-unsigned-integer as unsigned-integer");
  refuses(s, "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"INT8\",\"data\":[1,2]}],\"id\":\"late\"}",
          "[request id: late] inference input 'a' data-type is 'INT8', but model 'm' expects 'FP32'");
  const char *region = "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":{\"shared_memory_region\":\"r\"}}]}";
  refuses_sized(s, region, strlen(region), ML_INFER_JSON, ML_UNIMPLEMENTED, "shared memory is not supported: data are sent in the body");
  refuses(s, "{\"inputs\":[{\"name\":\"a\",\"shape\":[501,2],\"datatype\":\"FP32\",\"data\":[1]}]}", "input 'a': the request has more than 1000 elements");
  ok(ml_servable_max_batch(s) == 250, "1000 elements are 250 rows of two inputs of two: %d", (int)ml_servable_max_batch(s));
  ml_servable_release(s);
}

static void test_datatypes(void) {
  static const struct { ml_dtype dtype; const char *name, *data, *back, *wrong, *refusal;
  } cases[] = {
      {ML_BOOL, "BOOL", "[true,false]", "[true,false]", "[1,0]", "boolean as boolean"},
      {ML_UINT8, "UINT8", "[0,255]", "[0,255]", "[0,256]", "256 is out of range for UINT8"},
      {ML_UINT16, "UINT16", "[0,65535]", "[0,65535]", "[0,65536]", "65536 is out of range for UINT16"},
      {ML_UINT32, "UINT32", "[0,4294967295]", "[0,4294967295]", "[-1,0]", "unsigned-integer as unsigned-integer"},
      {ML_UINT64, "UINT64", "[0,18446744073709551615]", "[0,18446744073709551615]", "[0,18446744073709551616]", "unsigned-integer"},
      {ML_INT8, "INT8", "[-128,127]", "[-128,127]", "[0,128]", "128 is out of range for INT8"},
      {ML_INT16, "INT16", "[-32768,32767]", "[-32768,32767]", "[-32769,0]", "-32769 is out of range for INT16"},
      {ML_INT32, "INT32", "[-2147483648,2147483647]", "[-2147483648,2147483647]", "[0,1.0]", "signed-integer as signed-integer"},
      {ML_INT64, "INT64", "[-9223372036854775808,9223372036854775807]", "[-9223372036854775808,9223372036854775807]", "[0,9223372036854775808]",
       "signed-integer as signed-integer"},
      {ML_FLOAT16, "FP16", "[0.5,65504]", "[0.5,65504.0]", "[true,0]", "number as number"},
      {ML_BFLOAT16, "BF16", "[0.5,-2]", "[0.5,-2.0]", "[{},0]", "number as number"},
      {ML_FLOAT32, "FP32", "[0.1,16777217]", "[0.1,16777216.0]", "[[],\"\"]", "number as number"},
      {ML_FLOAT64, "FP64", "[0.1,16777217]", "[0.1,16777217.0]", "[false,1]", "number as number"},
      {ML_STRING, "BYTES", "[\"\",\"\\u00e9\\n\\ud83d\\ude00\"]", "[\"\",\"\xc3\xa9\\n\xf0\x9f\x98\x80\"]", "[1,\"\"]", "string as string"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    char body[512], expected[512];
    ml_servable *s = copier(cases[i].dtype, 2, any2);
    ml_status status;
    snprintf(body, sizeof body, X("%s", "[1,2]", "%s"), cases[i].name, cases[i].data);
    snprintf(expected, sizeof expected, Y("%s", "[1,2]", "%s"), cases[i].name, cases[i].back);
    gives(s, body, expected);
    snprintf(body, sizeof body, X("%s", "[1,2]", "%s"), cases[i].name, cases[i].wrong);
    const char *got = answer(s, body, strlen(body), ML_INFER_JSON, &status);
    ok(status == ML_INVALID_ARGUMENT && strstr(got, cases[i].refusal), "%s: %s", body, got);
    ml_servable_release(s);
  }
}

/* JSON and binary behind each other in `body`. */
static size_t join(char *body, const char *json, const void *binary, size_t size) {
  size_t n = strlen(json);
  memcpy(body, json, n);
  if (size) memcpy(body + n, binary, size);
  return n;
}

static void test_binary(void) {
  char body[1024];
  ml_status status;
  ml_servable *s = adder(NULL);
  const float a[] = {5, 2}, sum[] = {6, 5}, diff[] = {4, -1};
  const char *got;
  /* a in binary, b in JSON; the answer in binary by the request's parameter, but for one output */
  size_t n = join(body, "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}," B "],"
                  "\"outputs\":[{\"name\":\"sum\"},{\"name\":\"diff\",\"parameters\":{\"binary_data\":false}}],\"parameters\":{\"binary_data_output\":true}}",
                  a, sizeof a);
  got = answer(s, body, n + 8, n, &status);
  ok(status == ML_OK && strcmp(got, HEAD "{\"name\":\"sum\",\"datatype\":\"FP32\",\"shape\":[1,2],\"parameters\":{\"binary_data_size\":8}},"
     "{\"name\":\"diff\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[4.0,-1.0]}]}") == 0, "%s", got);
  ok(text_size == json_size + 8 && memcmp(text + json_size, sum, 8) == 0, "the sum in 8 bytes behind %zu of JSON", json_size);
  for (size_t cut = 1; cut < 8; cut++) {
    char expected[160];
    snprintf(expected, sizeof expected, "unexpected size for input 'a', expecting %zu additional bytes for model 'm'", cut);
    refuses_sized(s, body, n + 8 - cut, n, ML_INVALID_ARGUMENT, expected);
  }
  refuses_sized(s, body, n + 9, n, ML_INVALID_ARGUMENT, "unexpected additional input data for model 'm'");
  refuses_sized(s, body, n, n + 1, ML_INVALID_ARGUMENT, (snprintf(text, sizeof text, "inference header size should be in range (0, %zu), got: %zu", n, n + 1), text));
  /* all outputs, by the request's parameter; binary data of an unknown input are skipped for the message */
  n = join(body, "{\"inputs\":[" A "," B "],\"parameters\":{\"binary_data_output\":true}}", NULL, 0);
  answer(s, body, n, ML_INFER_JSON, &status);
  ok(status == ML_OK && text_size == json_size + 16 && memcmp(text + json_size, sum, 8) == 0 && memcmp(text + json_size + 8, diff, 8) == 0, "both outputs");
  n = join(body, "{\"inputs\":[" A ",{\"name\":\"q\",\"shape\":[2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}]}", a, 8);
  refuses_sized(s, body, n + 8, n, ML_INVALID_ARGUMENT, "unexpected inference input 'q' for model 'm'");
  n = join(body, "{\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":4}}]}", a, 4);
  refuses_sized(s, body, n + 4, n, ML_INVALID_ARGUMENT, "[request id: <id_unknown>] input byte size mismatch for input 'a' for model 'm'. Expected 8, got 4");
  ml_servable_release(s);

  /* the example of the binary extension's document: UINT32 [2,2] in 16 bytes, BOOL [3] in 3; any byte but 0 is true */
  ml_graph *g = NULL;
  ml_graph_new("two", &g, &err);
  output(g, "Identity", input(g, "input0", ML_UINT32, 2, (int64_t[]){2, 2}), NULL, "output0");
  output(g, "Identity", input(g, "input1", ML_BOOL, 1, (int64_t[]){3}), NULL, "output1");
  s = serve(g, 0);
  unsigned char raw[19] = {1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 0, 1, 0, 0, 1, 0, 7};
  n = join(body, "{\"model_name\":\"mymodel\",\"inputs\":[{\"name\":\"input0\",\"shape\":[2,2],\"datatype\":\"UINT32\",\"parameters\":"
           "{\"binary_data_size\":16}},{\"name\":\"input1\",\"shape\":[3],\"datatype\":\"BOOL\",\"parameters\":{\"binary_data_size\":3}}],"
           "\"outputs\":[{\"name\":\"output0\",\"parameters\":{\"binary_data\":true}},{\"name\":\"output1\"}]}", raw, sizeof raw);
  got = answer(s, body, n + 19, n, &status);
  ok(status == ML_OK && strcmp(got, HEAD "{\"name\":\"output0\",\"datatype\":\"UINT32\",\"shape\":[2,2],\"parameters\":{\"binary_data_size\":16}},"
     "{\"name\":\"output1\",\"datatype\":\"BOOL\",\"shape\":[3],\"data\":[true,false,true]}]}") == 0, "%s", got);
  ok(text_size == json_size + 16 && memcmp(text + json_size, raw, 16) == 0, "16 bytes come back");
  ok(ml_servable_max_batch(s) == 0 && !ml_servable_batches(s), "a model of fixed shapes takes no batches");
  ml_servable_release(s);
}

static void test_binary_strings(void) {
  char body[1024];
  ml_status status;
  ml_servable *s = copier(ML_STRING, 2, any2);
  static const char raw[] = "\3\0\0\0a\0\xff\0\0\0\0"; /* three bytes that are no text, and none */
  size_t n = join(body, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":11}}],"
                  "\"parameters\":{\"binary_data_output\":true}}", raw, 11);
  const char *got = answer(s, body, n + 11, n, &status);
  ok(status == ML_OK && text_size == json_size + 11 && memcmp(text + json_size, raw, 11) == 0, "%s", got);
#define STRINGS(size, shape) "{\"inputs\":[{\"name\":\"x\",\"shape\":" shape ",\"datatype\":\"BYTES\",\"parameters\":{\"binary_data_size\":" #size "}}]}"
  n = join(body, STRINGS(11, "[1,2]"), raw, 11);
  got = answer(s, body, n + 11, n, &status);
  ok(status == ML_OK && strcmp(got, Y("BYTES", "[1,2]", "[\"a\\u0000\xef\xbf\xbd\",\"\"]")) == 0, "as JSON, what is no UTF-8 is replaced: %s", got);
  n = join(body, STRINGS(7, "[1,2]"), raw, 7);
  refuses_sized(s, body, n + 7, n, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] expected 2 string elements for inference input 'x' for model 'm', got 1");
  n = join(body, STRINGS(10, "[1,2]"), raw, 10);
  refuses_sized(s, body, n + 10, n, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] incomplete string length indicator for inference input 'x' for model 'm', expecting 4 bytes but only 3 bytes "
                "available. Please make sure the string length indicator is in one buffer.");
  n = join(body, STRINGS(16, "[1,2]"), "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
  refuses_sized(s, body, n + 16, n, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] unexpected number of string elements 3 for inference input 'x' for model 'm', expecting 2");
  n = join(body, STRINGS(8, "[1,2]"), "\0\0\0\0\5\0\0\0", 8);
  refuses_sized(s, body, n + 8, n, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] incomplete string data for inference input 'x' for model 'm', expecting string of length 5 but only 0 bytes "
                "available");
  n = join(body, STRINGS(8, "[1,2]"), "\4\0\0\0abcd", 8);
  refuses_sized(s, body, n + 8, n, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] expected 2 string elements for inference input 'x' for model 'm', got 1");
  ml_servable_release(s);
}

static void test_raw(void) {
  ml_status status;
  ml_servable *s = copier(ML_FLOAT32, 2, any2);
  const float x[] = {1.5f, -2};
  const char *got = answer(s, (const char *)x, sizeof x, 0, &status);
  ok(status == ML_OK && strcmp(got, HEAD "{\"name\":\"y\",\"datatype\":\"FP32\",\"shape\":[1,2],\"parameters\":{\"binary_data_size\":8}}]}") == 0 &&
     memcmp(text + json_size, x, 8) == 0, "a row without JSON: %s", got);
  refuses_sized(s, (const char *)x, 7, 0, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] input byte size mismatch for input 'x' for model 'm'. Expected 8, got 7");
  ml_servable_release(s);
  s = copier(ML_FLOAT32, 2, (int64_t[]){ML_UNKNOWN, ML_UNKNOWN});
  got = answer(s, (const char *)x, sizeof x, 0, &status);
  ok(status == ML_OK && strstr(got, "\"shape\":[1,2]"), "one dimension follows from the size: %s", got);
  ml_servable_release(s);
  s = copier(ML_FLOAT32, 3, (int64_t[]){ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN});
  refuses_sized(s, (const char *)x, sizeof x, 0, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] The shape of the raw input 'x' can not be deduced because there are more than one variable-sized dimension");
  ml_servable_release(s);
  s = copier(ML_STRING, 2, (int64_t[]){ML_UNKNOWN, 1});
  got = answer(s, "some\0bytes", 10, 0, &status);
  ok(status == ML_OK && text_size == json_size + 14 && memcmp(text + json_size, "\12\0\0\0some\0bytes", 14) == 0, "all of the body is one string: %s", got);
  ml_servable_release(s);
  s = copier(ML_STRING, 2, any2);
  refuses_sized(s, "x", 1, 0, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] For BYTE datatype raw input 'x', the model must have input shape [1]");
  ml_servable_release(s);
  s = adder(NULL);
  refuses_sized(s, "x", 1, 0, ML_INVALID_ARGUMENT,
                "[request id: <id_unknown>] Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'm' model configuration");
  ml_servable_release(s);
}

/* Triton's document: "value:index:label", largest first, one list for each row of the batch. */
static void test_classification(void) {
  ml_servable *s = adder("[\"cat\",\"dog\"]");
  gives(s, "{\"inputs\":[" A "," B "],\"outputs\":[{\"name\":\"diff\",\"parameters\":{\"classification\":5}},{\"name\":\"sum\",\"parameters\":"
        "{\"classification\":1}}]}",
        HEAD "{\"name\":\"diff\",\"datatype\":\"BYTES\",\"shape\":[1,2],\"data\":[\"4.000000:0:cat\",\"-1.000000:1:dog\"]},"
        "{\"name\":\"sum\",\"datatype\":\"BYTES\",\"shape\":[1,1],\"data\":[\"6.000000:0:cat\"]}]}");
  ml_servable_release(s);
  s = copier(ML_FLOAT32, 2, (int64_t[]){ML_UNKNOWN, 4});
  const char *wanted = "],\"outputs\":[{\"name\":\"y\",\"parameters\":{\"classification\":3}}]}";
  char body[512];
  snprintf(body, sizeof body, "{\"inputs\":[{\"name\":\"x\",\"shape\":[2,4],\"datatype\":\"FP32\",\"data\":[0.25,NaN,-0.5,0.25,-1e-7,0,-Infinity,1e20]}%s",
           wanted);
  gives(s, body, Y("BYTES", "[2,3]", "[\"0.250000:0\",\"0.250000:3\",\"-0.500000:2\",\"100000002004087734272.000000:3\",\"0.000000:1\",\"-0.000000:0\"]"));
  ml_servable_release(s);
  s = copier(ML_INT64, 1, (int64_t[]){3});
  snprintf(body, sizeof body, "{\"inputs\":[{\"name\":\"x\",\"shape\":[3],\"datatype\":\"INT64\",\"data\":[-9007199254740993,9007199254740992,"
           "9007199254740993]}%s", wanted);
  gives(s, body, Y("BYTES", "[3]", "[\"9007199254740993:2\",\"9007199254740992:1\",\"-9007199254740993:0\"]"));
  ml_servable_release(s);
  s = copier(ML_BOOL, 1, (int64_t[]){1});
  snprintf(body, sizeof body, "{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"BOOL\",\"data\":[true]}%s", wanted);
  refuses(s, body, "class result not available for output due to unsupported type 'BOOL'");
  ml_servable_release(s);
}

static void test_statistics(void) {
  ml_servable *s = adder(NULL);
  ml_json_writer out;
  gives(s, "{\"inputs\":[" A "," B "],\"outputs\":[{\"name\":\"sum\"}]}", HEAD "{\"name\":\"sum\",\"datatype\":\"FP32\",\"shape\":[1,2],\"data\":[6.0,5.0]}]}");
  gives(s, "{\"inputs\":[{\"name\":\"a\",\"shape\":[3,2],\"datatype\":\"FP32\",\"data\":[1,2,3,4,5,6]},{\"name\":\"b\",\"shape\":[3,2],\"datatype\":\"FP32\","
        "\"data\":[0,0,0,0,0,0]}],\"outputs\":[{\"name\":\"sum\"}]}",
        HEAD "{\"name\":\"sum\",\"datatype\":\"FP32\",\"shape\":[3,2],\"data\":[1.0,2.0,3.0,4.0,5.0,6.0]}]}");
  refuses(s, "{}", "Unable to parse 'inputs': attempt to access non-existing object member 'inputs'");
  ml_json_writer_init(&out);
  ml_servable_put_statistics(s, "named", "007", &out);
  ml_json_put_raw(&out, "", 1);
  ok(strstr(out.text, "{\"name\": \"named\", \"version\": \"007\", \"last_inference\": 1") == out.text, "%s", out.text);
  ok(strstr(out.text, "\"inference_count\": 4, \"execution_count\": 2, \"inference_stats\": {\"success\": {\"count\": 2, \"ns\": "), "%s", out.text);
  ok(strstr(out.text, "\"fail\": {\"count\": 1, \"ns\": "), "%s", out.text);
  ok(strstr(out.text, "\"batch_stats\": [{\"batch_size\": 1, \"compute_input\": {\"count\": 1, ") && strstr(out.text, "{\"batch_size\": 3, "), "%s", out.text);
  ml_json_writer_free(&out);
  ml_servable_release(s);
}

static void test_truncation(void) {
  ml_servable *s = adder(NULL);
  char body[512];
  const float a[] = {5, 2};
  size_t n = join(body, "{\"id\":\"x\",\"inputs\":[{\"name\":\"a\",\"shape\":[1,2],\"datatype\":\"FP32\",\"parameters\":{\"binary_data_size\":8}}," B "]}", a, 8);
  bool all = true;
  ml_status status;
  for (size_t size = 0; size < n; size++) {
    answer(s, body, size, ML_INFER_JSON, &status);
    all = all && status == ML_INVALID_ARGUMENT && strstr(err.message, "failed to parse the request JSON buffer: ") == err.message;
  }
  ok(all, "every prefix is a syntax error");
  for (size_t i = 0; i < n; i++) { /* any byte changed: an answer or the client's fault */
    for (int c = 0; c < 256; c += 5) {
      char kept = body[i];
      body[i] = (char)c;
      answer(s, body, n + 8, n, &status);
      all = all && (status == ML_OK || status == ML_INVALID_ARGUMENT || status == ML_UNIMPLEMENTED);
      body[i] = kept;
    }
  }
  ok(all, "every byte changed is an answer or the client's fault");
  ml_servable_release(s);
}

static void test_memory(void) {
  const char *body = "{\"id\":\"1\",\"inputs\":[{\"name\":\"x\",\"shape\":[1,2],\"datatype\":\"BYTES\",\"data\":[\"a\",\"b\"]}],\"outputs\":[{\"name\":\"y\","
                     "\"parameters\":{\"binary_data\":true}}]}";
  bool leaked = false;
  uint64_t n = 1;
  ml_servable *s = copier(ML_STRING, 2, any2);
  ml_status status;
  answer(s, body, strlen(body), ML_INFER_JSON, &status); /* the program keeps a session */
  uint64_t live = ml_alloc_get_stats().live_blocks;
  for (;; n++) {
    ml_alloc_fail_at(n, false);
    answer(s, body, strlen(body), ML_INFER_JSON, &status);
    ml_alloc_fail_at(0, false);
    leaked = leaked || ml_alloc_get_stats().live_blocks != live;
    if (status == ML_OK || n > 100) break;
    if (status != ML_RESOURCE_EXHAUSTED) ok(false, "allocation %llu: %s", (unsigned long long)n, err.message);
  }
  ok(!leaked && n > 5 && n < 100, "each of %llu allocations may fail", (unsigned long long)n - 1);
  ml_servable_release(s);
}

int main(void) {
  test_json();
  test_inputs_and_outputs();
  test_datatypes();
  test_binary();
  test_binary_strings();
  test_raw();
  test_classification();
  test_statistics();
  test_truncation();
  test_memory();
  ok(ml_alloc_get_stats().live_blocks == 0, "nothing leaks: %llu blocks", (unsigned long long)ml_alloc_get_stats().live_blocks);
  return done();
}
