/* Classify and regress of TensorFlow Serving's REST API. Texts of refusals: tensorflow/serving (util/json_tensor.cc, classifier.cc, regressor.cc) and
 * TensorFlow's example parser; expected numbers are worked out by hand: the models add, copy and compare. */
#include <string.h>

#include "base/alloc.h"
#include "serve/examples.h"
#include "tap.h"

static ml_error err;

static ml_value *input(ml_graph *g, const char *name, ml_dtype dtype, int32_t rank, int64_t last) {
  int64_t dims[4] = {ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN, ML_UNKNOWN};
  ml_value *v = NULL;
  if (rank > 1) dims[rank - 1] = last;
  if (ml_graph_input(g, name, dtype, dims, rank, &v, &err) != ML_OK) ok(false, "%s", err.message);
  return v;
}

static ml_value *node(ml_graph *g, const char *op, ml_value *a, ml_value *b, const char *out) {
  ml_value *v = NULL, *in[] = {a, b};
  if (ml_graph_node(g, ml_op_find("", op), NULL, NULL, 0, b ? 2 : 1, in, 1, &out, &v, &err) != ML_OK) ok(false, "%s", err.message);
  return v;
}

static ml_servable *serve(ml_graph *g, const ml_servable_options *options) {
  ml_program *program = NULL;
  ml_servable *s = NULL;
  if (ml_program_new(g, NULL, &program, &err) != ML_OK || ml_servable_new(program, options, &s, &err) != ML_OK) ok(false, "%s", err.message);
  ml_program_release(program);
  ml_graph_free(g);
  return s;
}

/* out = x + x */
static ml_servable *doubler(ml_dtype dtype, int32_t rank, int64_t last, const char *out, const ml_servable_options *options) {
  ml_graph *g = NULL;
  ml_graph_new("doubler", &g, &err);
  ml_value *x = input(g, "x", dtype, rank, last);
  ml_graph_output(g, dtype == ML_STRING || dtype == ML_BOOL ? node(g, "Identity", x, NULL, out) : node(g, "Add", x, x, out), &err);
  return serve(g, options);
}

static const char *answer(ml_servable *s, ml_examples_method method, const char *body, ml_status *status) {
  static char text[4096];
  size_t n = 0, size = strlen(body);
  ml_json_writer out;
  memset(&err, 0, sizeof err);
  ml_json_writer_init(&out);
  char *copy = malloc(size ? size : 1); /* exactly this many bytes, for the sanitiser */
  if (!copy) abort();
  memcpy(copy, body, size);
  *status = ml_servable_examples_json(s, method, copy, size, &out, &err);
  free(copy);
  for (size_t i = 0; i < out.length && n + 1 < sizeof text; i++)
    if (out.text[i] != ' ' && out.text[i] != '\n') text[n++] = out.text[i];
  text[n] = '\0';
  ml_json_writer_free(&out);
  return *status == ML_OK ? text : err.message;
}

static void gives(ml_servable *s, ml_examples_method method, const char *body, const char *expected) {
  ml_status status;
  const char *got = answer(s, method, body, &status);
  ok(status == ML_OK && strcmp(got, expected) == 0, "%s: %s", body, got);
}

static void refuses(ml_servable *s, ml_examples_method method, const char *body, ml_status code, const char *expected) {
  ml_status status;
  const char *got = answer(s, method, body, &status);
  ok(status == code && strcmp(got, expected) == 0, "%s: %s", body, got);
}

static void test_requests(void) {
  ml_servable *s = doubler(ML_FLOAT32, 2, 2, "scores", NULL);
  gives(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.0,2.5]},{\"x\":[0.1,-3e0]}]}", "{\"results\":[[[\"\",2.0],[\"\",5.0]],[[\"\",0.2],[\"\",-6.0]]]}");
  gives(s, ML_CLASSIFY, " {\"more\":{\"a\":[null]},\"examples\":[{\"x\":[1,2],\"unused\":[\"a\",{\"b64\":\"YQ==\"}],\"none\":[]}],\"signature_name\":\"\"} trailing",
        "{\"results\":[[[\"\",2.0],[\"\",4.0]]]}");
  gives(s, ML_CLASSIFY, "{\"context\":{\"x\":[1.0,2.0],\"y\":true},\"examples\":[{},{\"x\":[5.0,5.0]},{\"x\":[1.0],\"\\u0078\":[3.0,3.0]}]}",
        "{\"results\":[[[\"\",2.0],[\"\",4.0]],[[\"\",10.0],[\"\",10.0]],[[\"\",6.0],[\"\",6.0]]]}");
  gives(s, ML_CLASSIFY, "{\"examples\":[{}],\"examples\":1,\"context\":{\"x\":[NaN,-Infinity]}}", "{\"results\":[[[\"\",NaN],[\"\",-Infinity]]]}");
  refuses(s, ML_CLASSIFY, "", ML_INVALID_ARGUMENT, "JSON Parse error: The document is empty");
  refuses(s, ML_CLASSIFY, "[1]", ML_INVALID_ARGUMENT, "JSON Value: [1] Is not object");
  refuses(s, ML_CLASSIFY, "{}", ML_INVALID_ARGUMENT, "JSON Value: {} When method is classify, key 'examples' is expected and was not found");
  refuses(s, ML_REGRESS, "{\"instances\": []}", ML_INVALID_ARGUMENT,
          "JSON Value: {\"instances\":[]} When method is classify, key 'examples' is expected and was not found");
  refuses(s, ML_CLASSIFY, "{\"examples\":{}}", ML_INVALID_ARGUMENT, "JSON Value: {\"examples\":{}} Expecting 'examples' value to be an list/array");
  refuses(s, ML_CLASSIFY, "{\"examples\":[]}", ML_INVALID_ARGUMENT, "JSON Value: {\"examples\":[]} 'examples' value is an empty array");
  refuses(s, ML_CLASSIFY, "{\"examples\":[[1]]}", ML_INVALID_ARGUMENT, "Example must be JSON object but got JSON Array");
  refuses(s, ML_CLASSIFY, "{\"context\":3,\"examples\":[]}", ML_INVALID_ARGUMENT, "Example must be JSON object but got JSON Number");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.0,2]}]}", ML_INVALID_ARGUMENT, "Unexpected element type in feature: x expecting type: float");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"z\":[true,\"a\"]}]}", ML_INVALID_ARGUMENT, "Unexpected element type in feature: z expecting type: int64");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"z\":[\"a\",false]}]}", ML_INVALID_ARGUMENT, "Unexpected element type in feature: z expecting type: bytes");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":null}]}", ML_INVALID_ARGUMENT, "Feature: x has element with unexpected JSON type: Null");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[[1.0]]}]}", ML_INVALID_ARGUMENT, "Feature: x has element with unexpected JSON type: Array");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":{\"b64\":1}}]}", ML_INVALID_ARGUMENT, "Feature: x has element with unexpected JSON type: Object");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":{\"b64\":\"***\"}}]}", ML_INVALID_ARGUMENT, "Unable to base64 decode");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":18446744073709551615}]}", ML_INVALID_ARGUMENT, "Feature: x has uint64 element. Only int64 is supported.");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.0,2.0]},{}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Feature: x (data type: float) is required but could not be found.");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[\"a\",\"b\"]}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: string but expected type: float");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.0,2.0]},{\"x\":[1.0]}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Key: x, Index: 1.  Number of float values != expected.  Values size: 1 but output shape: [2]");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1e300,2.0]}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Key: x, Index: 0.  Value 1e+300 does not fit into type: float");
  refuses(s, ML_CLASSIFY, "{\"signature_name\":7,\"examples\":[]}", ML_INVALID_ARGUMENT,
          "JSON Value: {\"signature_name\":7,\"examples\":[]} not formatted correctly. 'signature_name' key must be a string value.");
  refuses(s, ML_CLASSIFY, "{\"signature_name\":\"other\",\"examples\":[]}", ML_INVALID_ARGUMENT, "No signature was found with the name: other");
  ml_status status; /* syntax comes before meaning */
  ok(strstr(answer(s, ML_CLASSIFY, "{\"examples\":[{\"x\":null}],}", &status), "JSON Parse error: Invalid value. at offset: ") && status == ML_INVALID_ARGUMENT,
     "a comma too many: %s", err.message);
  ok(strstr(answer(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.0,2.0}]}", &status), "JSON Parse error: Invalid value. at offset: ") != NULL, "%s", err.message);
  ml_servable_release(s);
  s = doubler(ML_FLOAT32, 2, 2, "scores", &(ml_servable_options){.max_elements = 3});
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.0,2.0]},{\"x\":[1.0,2.0]}]}", ML_RESOURCE_EXHAUSTED, "the request has more than 3 elements");
  ml_servable_release(s);
}

static void test_dtypes(void) {
  static const struct { ml_dtype dtype; const char *body, *expected; } cases[] = {
    {ML_FLOAT64, "[0.1,1e300]", "[[0.2,2e+300]]"},
    {ML_INT8, "[-64,63]", NULL}, {ML_INT16, "[-1,true]", NULL}, {ML_INT32, "[1,2]", NULL}, {ML_INT64, "[1,2]", NULL},
    {ML_UINT8, "[1,2]", NULL}, {ML_UINT32, "[1,2]", NULL}, {ML_UINT64, "[1,2]", NULL}, {ML_BOOL, "[true,0]", NULL},
  };
  ml_status status;
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) { /* integers are no scores: the refusal tells that they were read */
    ml_servable *s = doubler(cases[i].dtype, 2, 2, "scores", NULL);
    char body[128];
    snprintf(body, sizeof body, "{\"examples\":[{\"x\":%s}]}", cases[i].body);
    const char *got = answer(s, ML_CLASSIFY, body, &status);
    if (cases[i].expected) ok(status == ML_OK, "%s: %s", body, got);
    else ok(status == ML_INVALID_ARGUMENT && strstr(got, "Expected scores Tensor of DT_FLOAT. Got: "), "%s: %s", body, got);
    ml_servable_release(s);
  }
  ml_servable *s = doubler(ML_INT8, 2, 1, "scores", NULL);
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":128}]}", ML_INVALID_ARGUMENT, "Name: <unknown>, Key: x, Index: 0.  Value 128 does not fit into type: int8");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":1.0}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Key: x, Index: 0.  Data types don't match. Data type: float but expected type: int8");
  ml_servable_release(s);
  s = doubler(ML_STRING, 2, 2, "classes", NULL);
  gives(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[\"a\\u00e9\",{\"b64\":\"Yg==\"}]}]}", "{\"results\":[[[\"a\xc3\xa9\",0.0],[\"b\",0.0]]]}");
  ml_servable_release(s);
  s = doubler(ML_FLOAT16, 2, 1, "scores", NULL);
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":1.0}]}", ML_UNIMPLEMENTED, "Conversion of feature: x to type: half");
  ml_servable_release(s);
}

static void test_shapes(void) {
  ml_servable *s = doubler(ML_FLOAT32, 1, 0, "y", NULL);
  gives(s, ML_REGRESS, "{\"examples\":[{\"x\":1.5},{\"x\":[2]}]}", "{\"results\":[3.0,4.0]}");
  refuses(s, ML_REGRESS, "{\"examples\":[{\"x\":[]}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Key: x, Index: 0.  Number of UNKNOWN values != expected.  Values size: 0 but output shape: [1]");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"x\":1.5}]}", ML_FAILED_PRECONDITION,
          "Expected classification signature outputs to contain at least one of \"classes\" or \"scores\". Signature was: y");
  ml_servable_release(s);
  s = doubler(ML_FLOAT32, 2, ML_UNKNOWN, "outputs", NULL); /* as wide as the first example */
  gives(s, ML_REGRESS, "{\"examples\":[{\"x\":1.5},{\"x\":2}]}", "{\"results\":[3.0,4.0]}");
  refuses(s, ML_REGRESS, "{\"examples\":[{\"x\":[1.5,1.0]},{\"x\":[1.0]}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Key: x, Index: 1.  Number of float values != expected.  Values size: 1 but output shape: [2]");
  refuses(s, ML_REGRESS, "{\"examples\":[{\"x\":[1.5,1.0]}]}", ML_INVALID_ARGUMENT,
          "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]");
  gives(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.5,1.0]}]}", "{\"results\":[[[\"\",3.0],[\"\",2.0]]]}");
  gives(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[]},{\"x\":[]}]}", "{\"results\":[[],[]]}");
  ml_servable_release(s);
  s = doubler(ML_FLOAT32, 3, ML_UNKNOWN, "y", NULL);
  refuses(s, ML_REGRESS, "{\"examples\":[{\"x\":1.5}]}", ML_FAILED_PRECONDITION,
          "input 'x' has 2 open sizes: a feature, which is a flat list, cannot say them");
  ml_servable_release(s);
  s = doubler(ML_FLOAT32, 3, 2, "y", NULL); /* [batch, any, 2] */
  refuses(s, ML_REGRESS, "{\"examples\":[{\"x\":[1.5,1.0,2.0]}]}", ML_INVALID_ARGUMENT, "input 'x': 3 values do not fill rows of 2");
  refuses(s, ML_REGRESS, "{\"examples\":[{\"x\":[1.5,1.0,2.0,1.0]}]}", ML_INVALID_ARGUMENT,
          "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2,2]");
  ml_servable_release(s);
  s = doubler(ML_FLOAT32, 0, 0, "y", NULL);
  refuses(s, ML_REGRESS, "{\"examples\":[{\"x\":1.5}]}", ML_FAILED_PRECONDITION, "input 'x' is a scalar: it cannot hold one feature per example");
  ml_servable_release(s);
  s = doubler(ML_INT32, 1, 0, "y", NULL);
  refuses(s, ML_REGRESS, "{\"examples\":[{\"x\":1}]}", ML_INVALID_ARGUMENT, "Expected output Tensor of DT_FLOAT.  Got: int32");
  ml_servable_release(s);
}

/* columns of one matrix, labels of the model, several inputs, several signatures */
static void test_names(void) {
  static const char *const features[] = {"age", "income", "debt"}, *const classes[] = {"low", "middle", "high"};
  const ml_servable_options named = {.features = features, .n_features = 3, .classes = classes, .n_classes = 3};
  ml_servable *s = doubler(ML_FLOAT32, 2, 3, "y", &named);
  gives(s, ML_CLASSIFY, "{\"context\":{\"debt\":0.5},\"examples\":[{\"income\":2.0,\"age\":1},{\"age\":3.0,\"income\":4.0,\"debt\":5.0}]}",
        "{\"results\":[[[\"low\",2.0],[\"middle\",4.0],[\"high\",1.0]],[[\"low\",6.0],[\"middle\",8.0],[\"high\",10.0]]]}");
  gives(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.0,2.0,3.0]}]}", "{\"results\":[[[\"low\",2.0],[\"middle\",4.0],[\"high\",6.0]]]}");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"age\":1.0,\"debt\":1.0}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Feature: income (data type: float) is required but could not be found.");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"age\":[1.0,2.0],\"income\":1.0,\"debt\":1.0}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Key: age, Index: 0.  Number of float values != expected.  Values size: 2 but output shape: [1]");
  ml_servable_release(s);
  s = doubler(ML_FLOAT32, 2, 2, "y", &named); /* three names for two columns: of no use */
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"age\":1.0,\"income\":1.0,\"debt\":1.0}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Feature: x (data type: float) is required but could not be found.");
  gives(s, ML_CLASSIFY, "{\"examples\":[{\"x\":[1.0,2.0]}]}", "{\"results\":[[[\"\",2.0],[\"\",4.0]]]}");
  ml_servable_release(s);
  s = doubler(ML_FLOAT32, 2, 1, "p", &(ml_servable_options){.classes = classes, .n_classes = 2}); /* the score of the second of two */
  gives(s, ML_CLASSIFY, "{\"examples\":[{\"x\":0.25}]}", "{\"results\":[[[\"middle\",0.5]]]}");
  ml_servable_release(s);

  ml_graph *g = NULL;
  ml_graph_new("two", &g, &err);
  ml_value *name = input(g, "name", ML_STRING, 2, 2), *a = input(g, "a", ML_FLOAT32, 2, 2), *b = input(g, "b", ML_FLOAT32, 2, 2);
  ml_graph_output(g, node(g, "Add", a, b, "sum"), &err);
  ml_graph_output(g, node(g, "Identity", name, NULL, "label"), &err);
  ml_signature_tensor in[] = {{.name = "name"}, {.name = "a"}, {.name = "b"}}, both[] = {{.name = "classes", .value = "label"}, {.name = "scores", .value = "sum"}};
  ml_signature_tensor only[] = {{.name = "outputs", .value = "label"}}, swapped[] = {{.name = "classes", .value = "sum"}};
  ml_signature signatures[] = {
    {.name = "serving_default", .method = "tensorflow/serving/classify", .inputs = in, .n_inputs = 3, .outputs = both, .n_outputs = 2},
    {.name = "value", .inputs = in, .n_inputs = 3, .outputs = only, .n_outputs = 1},
    {.name = "swapped", .inputs = in, .n_inputs = 3, .outputs = swapped, .n_outputs = 1},
  };
  s = serve(g, &(ml_servable_options){.signatures = signatures, .n_signatures = 3});
  gives(s, ML_CLASSIFY, "{\"examples\":[{\"a\":[1.0,2.0],\"b\":[0.5,0.25],\"name\":[\"p\",\"q\"]}]}", "{\"results\":[[[\"p\",1.5],[\"q\",2.25]]]}");
  refuses(s, ML_REGRESS, "{\"signature_name\":\"value\",\"examples\":[{\"a\":[1.0,2.0],\"b\":[0.5,0.25],\"name\":[\"p\",\"q\"]}]}", ML_INVALID_ARGUMENT,
          "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]");
  refuses(s, ML_CLASSIFY, "{\"signature_name\":\"swapped\",\"examples\":[{\"a\":[1.0,2.0],\"b\":[0.5,0.25],\"name\":[\"p\",\"q\"]}]}", ML_INVALID_ARGUMENT,
          "Expected classes Tensor of DT_STRING. Got: float");
  refuses(s, ML_REGRESS, "{\"examples\":[{\"a\":[1.0,2.0],\"b\":[0.5,0.25],\"name\":[\"p\",\"q\"]}]}", ML_FAILED_PRECONDITION,
          "No regression outputs found in SignatureDef: classes, scores");
  refuses(s, ML_CLASSIFY, "{\"examples\":[{\"a\":[1.0,2.0],\"name\":[\"p\",\"q\"]}]}", ML_INVALID_ARGUMENT,
          "Name: <unknown>, Feature: b (data type: float) is required but could not be found.");
  ml_servable_release(s);
}

static void test_memory(void) {
  static const char *const features[] = {"age", "income"};
  const ml_servable_options named = {.features = features, .n_features = 2};
  static const char body[] = "{\"context\":{\"income\":2.0},\"examples\":[{\"age\":1.0,\"more\":[\"a\",{\"b64\":\"YQ==\"}]},{\"age\":3.0}]}";
  ml_servable *s = doubler(ML_FLOAT32, 2, 2, "y", &named);
  ml_status status;
  answer(s, ML_CLASSIFY, body, &status); /* the program keeps its session */
  ok(status == ML_OK, "with enough memory: %s", err.message);
  status = ML_RESOURCE_EXHAUSTED;
  uint64_t before = ml_alloc_get_stats().live_blocks, n = 0;
  while (status == ML_RESOURCE_EXHAUSTED && n < 1000) {
    ml_alloc_fail_at(++n, false);
    answer(s, ML_CLASSIFY, body, &status);
    ml_alloc_fail_at(0, false);
    if (status != ML_OK) {
      ok(status == ML_RESOURCE_EXHAUSTED, "allocation %d fails: %s", (int)n, err.message);
      ok(ml_alloc_get_stats().live_blocks == before, "nothing is left behind");
    }
  }
  ok(status == ML_OK && n > 5, "enough memory in the end");
  ml_servable_release(s);
}

int main(void) {
  test_requests();
  test_dtypes();
  test_shapes();
  test_names();
  test_memory();
  return done();
}
