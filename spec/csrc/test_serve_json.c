/* The predict request of TensorFlow Serving's REST API: shapes, types, texts of refusals (tensorflow/serving, util/json_tensor.cc
 * and its tests), the registry, threads. Expected numbers are worked out by hand: the models add, copy and compare. */
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "serve/registry.h"
#include "serve/servable.h"
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
  if (ml_graph_node(g, ml_op_find("", op), NULL, NULL, 0, b ? 2 : 1, in, 1, &out, &v, &err) != ML_OK)
    ok(false, "%s", err.message);
  return v;
}

static ml_servable *serve(ml_graph *g, const ml_servable_options *options) {
  ml_program *program = NULL;
  ml_servable *s = NULL;
  if (ml_program_new(g, NULL, &program, &err) != ML_OK || ml_servable_new(program, options, &s, &err) != ML_OK)
    ok(false, "%s", err.message);
  ml_program_release(program);
  ml_graph_free(g);
  return s;
}

/* y = x + x of a dtype and rank */
static ml_servable *doubler(ml_dtype dtype, int32_t rank, int64_t last) {
  ml_graph *g = NULL;
  ml_graph_new("doubler", &g, &err);
  ml_value *x = input(g, "x", dtype, rank, last);
  ml_graph_output(g, dtype == ML_STRING || dtype == ML_BOOL ? node(g, "Identity", x, NULL, "y") : node(g, "Add", x, x, "y"),
                  &err);
  return serve(g, NULL);
}

/* sum = a + b, same = a */
static ml_servable *adder(const ml_servable_options *options) {
  ml_graph *g = NULL;
  ml_graph_new("adder", &g, &err);
  ml_value *a = input(g, "a", ML_FLOAT32, 2, 2), *b = input(g, "b", ML_FLOAT32, 2, 2);
  ml_graph_output(g, node(g, "Add", a, b, "sum"), &err);
  ml_graph_output(g, node(g, "Identity", a, NULL, "same"), &err);
  return serve(g, options);
}

/* Without white space, because clients parse. */
static const char *answer(ml_servable *s, const char *body, size_t size, const char *signature, ml_status *status) {
  static char text[4096];
  ml_json_writer out;
  size_t n = 0;
  memset(&err, 0, sizeof err);
  ml_json_writer_init(&out);
  char *copy = malloc(size ? size : 1); /* exactly this many bytes, for the sanitiser */
  if (size) memcpy(copy, body, size);
  *status = ml_servable_predict_json(s, copy, size, signature, &out, &err);
  free(copy);
  for (size_t i = 0; i < out.length && n + 1 < sizeof text; i++)
    if (out.text[i] != ' ' && out.text[i] != '\n') text[n++] = out.text[i];
  text[n] = '\0';
  ml_json_writer_free(&out);
  return *status == ML_OK ? text : err.message;
}

static void gives(ml_servable *s, const char *body, const char *expected) {
  ml_status status;
  const char *got = answer(s, body, strlen(body), NULL, &status);
  ok(status == ML_OK && strcmp(got, expected) == 0, "%s: %s", body, got);
}

static void refuses(ml_servable *s, const char *body, ml_status code, const char *expected) {
  ml_status status;
  const char *got = answer(s, body, strlen(body), NULL, &status);
  ok(status == code && strcmp(got, expected) == 0, "%s: %s", body, got);
}

static void refuses_like(ml_servable *s, const char *body, ml_status code, const char *part) {
  ml_status status;
  const char *got = answer(s, body, strlen(body), NULL, &status);
  ok(status == code && strstr(got, part) != NULL, "%s: %s", body, got);
}

static void test_row(void) {
  ml_servable *s = doubler(ML_FLOAT32, 2, 2);
  gives(s, "{\"instances\":[[1,2.5],[3,-4e0]]}", "{\"predictions\":[[2.0,5.0],[6.0,-8.0]]}");
  gives(s, " {\"instances\" : [ { \"x\" : [1, 2] } ] } trailing bytes", "{\"predictions\":[[2.0,4.0]]}");
  gives(s, "{\"signature_name\":\"serving_default\",\"instances\":[[1,2]],\"more\":{\"a\":[null]}}",
        "{\"predictions\":[[2.0,4.0]]}");
  gives(s, "{\"instances\":[[1,2]],\"signature_name\":\"serving_default\"}", "{\"predictions\":[[2.0,4.0]]}");
  gives(s, "{\"instances\":[[1,2]],\"instances\":\"later ones do not count\"}", "{\"predictions\":[[2.0,4.0]]}");
  gives(s, "{\"instances\":[[NaN,-Infinity],[Infinity,-Inf]]}", "{\"predictions\":[[NaN,-Infinity],[Infinity,-Infinity]]}");
  gives(s, "{\"\\u0069nstances\":[[0.1,0.2]]}", "{\"predictions\":[[0.2,0.4]]}");
  refuses(s, "{\"instances\":[[1,2],[1,2,3]]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting tensor size: 2 but got: 3");
  refuses(s, "{\"instances\":[[1,2],[[1],[2]]]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: Expecting shape [2] but got: [2,1]");
  refuses(s, "{\"instances\":[[\"x\",1]]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"x\" Type: String is not of "
          "expected type: float");
  refuses(s, "{\"instances\":[[1,null]]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: null Type: Null is not of "
          "expected type: float");
  refuses(s, "{\"instances\":[[1,[2]]]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Encountered list at unexpected level: 1 "
          "expected < 1");
  refuses(s, "{\"instances\":[[[1,2],3]]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: 3 found at incorrect level: 2 "
          "in the JSON DOM. Expected at level: 2");
  refuses(s, "{\"instances\":[[[1,2],[3,4,5]]]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. Error: INVALID_ARGUMENT: Encountered list at unexpected size: 3 at "
          "level: 1 expected size: 2");
  refuses(s, "{\"instances\":[{\"x\":[1,2]},[1,2]]}", ML_INVALID_ARGUMENT,
          "Expecting object but got list at item 1 of input list");
  refuses(s, "{\"instances\":[[1,2],{\"x\":[1,2]}]}", ML_INVALID_ARGUMENT,
          "Expecting value/list but got object at item 1 of input list");
  refuses(s, "{\"instances\":[{\"zz\":[1,2]}]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 key: zz of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does not have named "
          "input: zz");
  refuses(s, "{\"instances\": [{ \"x\": [1,2], \"zz\": 5 }]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. JSON object: {\"x\":[1,2],\"zz\":5} keys must be equal to: x");
  refuses(s, "{\"instances\":[{}]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. JSON object: {} keys must be equal to: x");
  refuses(s, "{\"instances\": []}", ML_INVALID_ARGUMENT, "JSON Value: {\"instances\":[]} No values in 'instances' array");
  refuses(s, "{\"instances\": 5}", ML_INVALID_ARGUMENT,
          "JSON Value: {\"instances\":5} Expecting 'instances' to be an list/array");
  refuses(s, "", ML_INVALID_ARGUMENT, "JSON Parse error: The document is empty");
  refuses(s, "  \n", ML_INVALID_ARGUMENT, "JSON Parse error: The document is empty");
  refuses_like(s, "nonsense", ML_INVALID_ARGUMENT, "JSON Parse error: Invalid value. at offset: 0");
  refuses_like(s, "{\"instances\":[[1,2]", ML_INVALID_ARGUMENT, "JSON Parse error: Invalid value. at offset: 19");
  refuses_like(s, "{\"instances\":[[1,\"x\"],}", ML_INVALID_ARGUMENT, "JSON Parse error: Invalid value.");
  refuses_like(s, "{\"instances\":[[1,]]}", ML_INVALID_ARGUMENT, "JSON Parse error: Invalid value.");
  refuses_like(s, "{\"instances\":[[01,2]]}", ML_INVALID_ARGUMENT, "JSON Parse error: Invalid value.");
  refuses(s, "[1, 2]", ML_INVALID_ARGUMENT, "JSON Value: [1,2] Is not object");
  refuses(s, "{}", ML_INVALID_ARGUMENT, "Missing 'inputs' or 'instances' key");
  refuses(s, "{\"instances\":[[1,2]],\"inputs\":[[1,2]]}", ML_INVALID_ARGUMENT,
          "JSON Value: {\"instances\":[[1,2]],\"inputs\":[[1,2]]} Not formatted correctly expecting only one of 'inputs' or "
          "'instances' keys to exist ");
  refuses(s, "{\"signature_name\":5,\"instances\":[[1,2]]}", ML_INVALID_ARGUMENT,
          "JSON Value: {\"signature_name\":5,\"instances\":[[1,2]]} not formatted correctly. 'signature_name' key must be a "
          "string value.");
  refuses(s, "{\"signature_name\":\"S\",\"instances\":[[1,2]]}", ML_INVALID_ARGUMENT,
          "Serving signature name: \"S\" not found in signature def");
  refuses(s, "{\"instances\":[[1,2]],\"signature_name\":\"S\"}", ML_INVALID_ARGUMENT,
          "Serving signature name: \"S\" not found in signature def");
  refuses_like(s, "{\"instances\":[[1,2,3]]}", ML_INVALID_ARGUMENT, "input 'x'"); /* the model's own shape */
  refuses_like(s, "{\"instances\":[[]]}", ML_INVALID_ARGUMENT, "input 'x'");
  char deep[300] = "{\"instances\":";
  memset(deep + 13, '[', 200);
  refuses_like(s, deep, ML_INVALID_ARGUMENT, "JSON Parse error");
  ml_servable_release(s);
}

static void test_column(void) {
  ml_servable *s = doubler(ML_FLOAT32, 2, ML_UNKNOWN), *two = adder(NULL);
  gives(s, "{\"inputs\":[[1,2,3],[4,5,6]]}", "{\"outputs\":[[2.0,4.0,6.0],[8.0,10.0,12.0]]}");
  gives(s, "{\"inputs\":{\"x\":[[1]],\"other\":[1,{}]}}", "{\"outputs\":[[2.0]]}");
  gives(s, "{\"inputs\":[[],[]]}", "{\"outputs\":[[],[]]}");
  refuses(s, "{\"inputs\":[[1,2],[3]]}", ML_INVALID_ARGUMENT,
          "Encountered list at unexpected size: 1 at level: 1 expected size: 2");
  refuses(s, "{\"inputs\":[[\"x\"]]}", ML_INVALID_ARGUMENT, "JSON Value: \"x\" Type: String is not of expected type: float");
  refuses(s, "{\"inputs\":{\"y\":[[1]]}}", ML_INVALID_ARGUMENT, "Missing named input: x in 'inputs' object.");
  gives(two, "{\"inputs\":{\"b\":[[10,20]],\"a\":[[1,2]]}}", "{\"outputs\":{\"sum\":[[11.0,22.0]],\"same\":[[1.0,2.0]]}}");
  refuses(two, "{\"inputs\":{\"b\":[[10,20]]}}", ML_INVALID_ARGUMENT, "Missing named input: a in 'inputs' object.");
  refuses(two, "{\"inputs\":[[10,20]]}", ML_INVALID_ARGUMENT,
          "inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map");
  gives(two, "{\"instances\":[{\"a\":[1,2],\"b\":[3,4]},{\"b\":[7,8],\"a\":[5,6]}]}",
        "{\"predictions\":[{\"sum\":[4.0,6.0],\"same\":[1.0,2.0]},{\"sum\":[12.0,14.0],\"same\":[5.0,6.0]}]}");
  refuses(two, "{\"instances\":[[1,2]]}", ML_INVALID_ARGUMENT,
          "instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map");
  refuses(two, "{\"instances\":[{\"a\":[1,2]}]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. JSON object: {\"a\":[1,2]} keys must be equal to: a,b");
  refuses(two, "{\"instances\":[{\"a\":[1,2],\"a\":[1,2]}]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 of 'instances' list. JSON object: {\"a\":[1,2],\"a\":[1,2]} keys must be equal to: a,b");
  refuses(two, "{\"instances\":[{\"a\":[1,2],\"b\":[3,true]}]}", ML_INVALID_ARGUMENT,
          "Failed to process element: 0 key: b of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: true Type: True is not "
          "of expected type: float");
  ml_servable_release(s);
  ml_servable_release(two);
}

static void test_types(void) {
  static const struct { ml_dtype dtype; const char *body, *expected; } good[] = {
    {ML_INT32, "{\"instances\":[[1],[-3]]}", "{\"predictions\":[[2],[-6]]}"},
    {ML_INT64, "{\"instances\":[[4611686018427387903]]}", "{\"predictions\":[[9223372036854775806]]}"},
    {ML_UINT64, "{\"instances\":[[9223372036854775807]]}", "{\"predictions\":[[18446744073709551614]]}"},
    {ML_UINT8, "{\"instances\":[[100]]}", "{\"predictions\":[[200]]}"},
    {ML_FLOAT64, "{\"instances\":[[0.1, 1e300]]}", "{\"predictions\":[[0.2,2e300]]}"},
    {ML_BOOL, "{\"instances\":[[true,false]]}", "{\"predictions\":[[true,false]]}"},
    {ML_STRING, "{\"instances\":[[\"a\\u00e9\",{\"b64\":\"aGk=\"}]]}", "{\"predictions\":[[\"a\xc3\xa9\",\"hi\"]]}"},
  };
  static const struct { ml_dtype dtype; const char *body; ml_status code; const char *text;
  } bad[] = {
      {ML_INT32, "{\"inputs\":[[1.0]]}", ML_INVALID_ARGUMENT, "JSON Value: 1.0 Type: Number is not of expected type: int32"},
      {ML_INT32, "{\"inputs\":[[2147483648]]}", ML_INVALID_ARGUMENT,
       "JSON Value: 2147483648 Type: Number is not of expected type: int32"},
      {ML_INT64, "{\"inputs\":[[9223372036854775808]]}", ML_INVALID_ARGUMENT,
       "JSON Value: 9223372036854775808 Type: Number is not of expected type: int64"},
      {ML_INT64, "{\"inputs\":[[1e2]]}", ML_INVALID_ARGUMENT, "JSON Value: 1e2 Type: Number is not of expected type: int64"},
      {ML_UINT8, "{\"inputs\":[[-1]]}", ML_INVALID_ARGUMENT, "JSON Value: -1 Type: Number is not of expected type: uint8"},
      {ML_UINT64, "{\"inputs\":[[-1]]}", ML_INVALID_ARGUMENT, "JSON Value: -1 Type: Number is not of expected type: uint64"},
      {ML_BOOL, "{\"inputs\":[[1]]}", ML_INVALID_ARGUMENT, "JSON Value: 1 Type: Number is not of expected type: bool"},
      {ML_STRING, "{\"inputs\":[[1]]}", ML_INVALID_ARGUMENT, "JSON Value: 1 Type: Number is not of expected type: string"},
      {ML_STRING, "{\"inputs\":[[{\"b64\":\"!\"}]]}", ML_INVALID_ARGUMENT, "Unable to base64 decode"},
      {ML_STRING, "{\"inputs\":[[{\"b64\":\"aGk=\",\"x\":1}]]}", ML_INVALID_ARGUMENT,
       "JSON Value: {\"b64\":\"aGk=\",\"x\":1} Type: Object is not of expected type: string"},
      {ML_FLOAT32, "{\"inputs\":[[{\"b64\":\"aGk=\"}]]}", ML_INVALID_ARGUMENT,
       "JSON Value: {\"b64\":\"aGk=\"} Type: Object is not of expected type: float"},
      {ML_FLOAT16, "{\"inputs\":[[1.5]]}", ML_UNIMPLEMENTED, "Conversion of JSON Value: 1.5 to type: half"},
  };
  for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
    ml_servable *s = doubler(good[i].dtype, 2, ML_UNKNOWN);
    if (s) gives(s, good[i].body, good[i].expected);
    ml_servable_release(s);
  }
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    ml_graph *g = NULL;
    ml_graph_new("copy", &g, &err);
    ml_graph_output(g, node(g, "Identity", input(g, "x", bad[i].dtype, 2, ML_UNKNOWN), NULL, "y"), &err);
    ml_servable *s = serve(g, NULL);
    if (s) refuses(s, bad[i].body, bad[i].code, bad[i].text);
    ml_servable_release(s);
  }
  /* scalars, and strings whose output name asks for base64 */
  ml_graph *g = NULL;
  ml_graph_new("bytes", &g, &err);
  ml_graph_output(g, node(g, "Identity", input(g, "text", ML_STRING, 1, 0), NULL, "image_bytes"), &err);
  ml_servable *s = serve(g, NULL);
  gives(s, "{\"instances\":[{\"b64\":\"/w==\"},{\"b64\":\"aGk\"}]}", "{\"predictions\":[{\"b64\":\"/w==\"},{\"b64\":\"aGk=\"}]}");
  gives(s, "{\"instances\":[{\"text\":\"hi\"},{\"text\":{\"b64\":\"/w==\"}}]}",
        "{\"predictions\":[{\"b64\":\"aGk=\"},{\"b64\":\"/w==\"}]}");
  gives(s,
        "{\"instances\":[\"a string longer than any before\",\"and another one that needs its "
        "room\",\"\",{\"b64\":\"aGlnaA==\"}],\"signature_name\":\"serving_default\"}",
        "{\"predictions\":[{\"b64\":\"YSBzdHJpbmcgbG9uZ2VyIHRoYW4gYW55IGJlZm9yZQ==\"},{\"b64\":"
        "\"YW5kIGFub3RoZXIgb25lIHRoYXQgbmVlZHMgaXRzIHJvb20=\"},{\"b64\":\"\"},"
        "{\"b64\":\"aGlnaA==\"}]}");
  gives(s, "{\"inputs\":[\"a\",\"\"]}", "{\"outputs\":[{\"b64\":\"YQ==\"},{\"b64\":\"\"}]}");
  ml_servable_release(s);
  g = NULL;
  ml_graph_new("scalar", &g, &err);
  ml_graph_output(g, node(g, "Neg", input(g, "x", ML_FLOAT32, 0, 0), NULL, "y"), &err);
  s = serve(g, NULL);
  gives(s, "{\"inputs\":2}", "{\"outputs\":-2.0}");
  ml_servable_release(s);
  /* outputs without a common batch */
  g = NULL;
  ml_graph_new("shapes", &g, &err);
  ml_value *x = input(g, "x", ML_FLOAT32, 2, 2);
  ml_graph_output(g, node(g, "Size", x, NULL, "n"), &err);
  s = serve(g, NULL);
  refuses(s, "{\"instances\":[[1,2]]}", ML_INVALID_ARGUMENT, "Tensor name: n has no shape information ");
  gives(s, "{\"inputs\":[[1,2]]}", "{\"outputs\":2}");
  ml_servable_release(s);
  g = NULL;
  ml_graph_new("shapes", &g, &err);
  x = input(g, "x", ML_FLOAT32, 2, 2);
  ml_graph_output(g, node(g, "Identity", x, NULL, "a"), &err);
  ml_graph_output(g, node(g, "Shape", x, NULL, "b"), &err);
  s = serve(g, NULL);
  refuses(s, "{\"instances\":[[1,2],[1,2],[1,2]]}", ML_INVALID_ARGUMENT,
          "Tensor name: b has inconsistent batch size: 2 expecting: 3");
  ml_servable_release(s);
}

static void test_signatures(void) {
  const ml_signature_tensor in[] = {{.name = "left", .value = "a"}, {.name = "right", .value = "b"}},
                            out[] = {{.name = "total", .value = "sum"}};
  const ml_signature_tensor swapped[] = {{.name = "left", .value = "b"}, {.name = "right", .value = "a"}},
                            same[] = {{.name = "kept", .value = "same"}};
  const ml_signature signatures[] = {{.name = "serving_default", .inputs = in, .n_inputs = 2, .outputs = out, .n_outputs = 1},
                                     {.name = "other", .inputs = swapped, .n_inputs = 2, .outputs = same, .n_outputs = 1}};
  ml_servable_options options = {.model = "m", .version = 3, .signatures = signatures, .n_signatures = 2, .max_elements = 8};
  ml_servable *s = adder(&options);
  gives(s, "{\"instances\":[{\"left\":[1,2],\"right\":[3,4]}]}", "{\"predictions\":[[4.0,6.0]]}");
  gives(s, "{\"signature_name\":\"other\",\"instances\":[{\"left\":[1,2],\"right\":[3,4]}]}", "{\"predictions\":[[3.0,4.0]]}");
  gives(s, "{\"instances\":[{\"left\":[1,2],\"right\":[3,4]}],\"signature_name\":\"other\"}", "{\"predictions\":[[3.0,4.0]]}");
  ml_status status;
  const char *body = "{\"inputs\":{\"left\":[[1,2]],\"right\":[[3,4]]}}";
  const char *got = answer(s, body, strlen(body), "other", &status);
  ok(status == ML_OK && strcmp(got, "{\"outputs\":[[3.0,4.0]]}") == 0, "the caller's signature: %s", got);
  got = answer(s, body, strlen(body), "none", &status);
  ok(status == ML_INVALID_ARGUMENT && strstr(got, "\"none\""), "%s", got);
  refuses(s, "{\"inputs\":{\"left\":[[1,2],[1,2],[1,2]],\"right\":[[3,4],[1,2],[1,2]]}}", ML_RESOURCE_EXHAUSTED,
          "the request has more than 8 elements");
  ok(strcmp(ml_servable_model(s), "m") == 0 && ml_servable_version(s) == 3 && ml_servable_signatures(s) == 2, "name and version");
  const ml_signature *g = ml_servable_signature(s, "other", 5);
  ok(g && g->inputs[0].index == 1 && g->inputs[0].dtype == ML_FLOAT32 && g->inputs[0].rank == 2 && g->inputs[0].dims[1] == 2,
     "what a signature says");
  ml_servable_release(s);
  const ml_signature wrong[] = {{.name = "a", .inputs = in, .n_inputs = 1, .outputs = out, .n_outputs = 1},
                                {.name = "a", .inputs = in, .n_inputs = 2, .outputs = in, .n_outputs = 1},
                                {.name = "a", .inputs = in, .n_inputs = 2, .outputs = out, .n_outputs = 0},
                                {.name = "", .inputs = in, .n_inputs = 2, .outputs = out, .n_outputs = 1}};
  static const char *const texts[] = {"1 inputs", "no output 'a'", "no outputs", "without a name"};
  for (size_t i = 0; i < 4; i++) {
    options.signatures = &wrong[i];
    options.n_signatures = 1;
    ml_graph *graph = NULL;
    ml_program *program = NULL;
    ml_graph_new("adder", &graph, &err);
    ml_value *a = input(graph, "a", ML_FLOAT32, 2, 2), *b = input(graph, "b", ML_FLOAT32, 2, 2);
    ml_graph_output(graph, node(graph, "Add", a, b, "sum"), &err);
    ml_program_new(graph, NULL, &program, &err);
    ok(ml_servable_new(program, &options, &s, &err) == ML_INVALID_ARGUMENT && !s && strstr(err.message, texts[i]), "%s",
       err.message);
    ml_program_release(program);
    ml_graph_free(graph);
  }
}

static void test_registry(void) {
  ml_servable *s = doubler(ML_FLOAT32, 2, 2);
  int64_t a = 0, b = 0;
  ok(ml_registry_add(s, &a, &err) == ML_OK && ml_registry_add(s, &b, &err) == ML_OK && a > 0 && b > a, "handles grow");
  ml_servable_release(s);
  ml_servable *got = ml_registry_get(a);
  ok(got == s && !ml_registry_get(0) && !ml_registry_get(b + 1) && !ml_registry_get(-1), "found by handle");
  ok(ml_registry_remove(a) && !ml_registry_remove(a) && !ml_registry_get(a), "removed once");
  gives(got, "{\"instances\":[[1,2]]}", "{\"predictions\":[[2.0,4.0]]}");
  ml_servable_release(got);
  ok(ml_registry_remove(b), "the other too");
}

static void *predict_often(void *context) {
  ml_json_writer out;
  size_t wrong = 0;
  ml_json_writer_init(&out);
  for (int i = 0; i < 300; i++) {
    char body[64];
    out.length = 0;
    snprintf(body, sizeof body, "{\"instances\":[[%d,1]%s]}", i, i % 3 ? "" : ",[2,3]");
    ml_status status = ml_servable_predict_json(context, body, strlen(body), NULL, &out, NULL);
    char expected[64];
    snprintf(expected, sizeof expected, "[[%d.0, 2.0]%s", 2 * i, i % 3 ? "\n" : ", [4.0, 6.0]");
    ml_json_put_raw(&out, "", 1);
    wrong += status != ML_OK || !strstr(out.text, expected);
  }
  ml_json_writer_free(&out);
  return (void *)wrong;
}

static void test_threads(void) {
  ml_servable *s = doubler(ML_FLOAT32, 2, 2);
  pthread_t threads[4];
  size_t wrong = 0;
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, predict_often, s);
  for (int i = 0; i < 4; i++) {
    void *result;
    pthread_join(threads[i], &result);
    wrong += (size_t)result;
  }
  ok(wrong == 0, "four threads, %zu wrong answers", wrong);
  ml_servable_release(s);
}

static void test_truncation(void) {
  const char *body =
      "{\"signature_name\":\"serving_default\",\"x\":{\"y\":[1,{}]},\"instances\":[{\"a\":[1.5,-2e1],\"b\":[3,4]},{\"b\":[7,8],"
      "\"a\":[5,6]}]}";
  ml_servable *s = adder(NULL);
  ml_status status;
  size_t length = strlen(body), accepted = 0;
  for (size_t n = 0; n < length; n++) {
    const char *text = answer(s, body, n, NULL, &status);
    if (status == ML_OK) accepted++;
    else if (strncmp(text, "JSON Parse error", 16) != 0) ok(false, "cut at %zu: %s", n, text);
  }
  ok(accepted == 0, "cut anywhere it is a syntax error");
  for (size_t n = 0; n < length; n++) {
    char copy[256];
    memcpy(copy, body, length);
    for (int bit = 0; bit < 8; bit++) {
      copy[n] = (char)(body[n] ^ (1 << bit));
      answer(s, copy, length, NULL, &status);
    }
  }
  answer(s, body, length, NULL, &status);
  ok(status == ML_OK, "and still serves");
  ml_servable_release(s);
}

static void test_memory(void) {
  const char *body = "{\"instances\":[{\"a\":[1,2],\"b\":[3,4]}]}";
  uint64_t live = ml_alloc_get_stats().live_blocks, n = 1;
  bool leaked = false;
  for (;; n++) {
    ml_graph *g = NULL;
    ml_program *program = NULL;
    ml_servable *s = NULL;
    ml_json_writer out;
    int64_t handle;
    ml_json_writer_init(&out);
    ml_graph_new("adder", &g, &err);
    ml_value *a = input(g, "a", ML_FLOAT32, 2, 2), *b = input(g, "b", ML_FLOAT32, 2, 2);
    ml_graph_output(g, node(g, "Add", a, b, "sum"), &err);
    ml_program_new(g, NULL, &program, &err);
    ml_alloc_fail_at(n, false);
    ml_status status = ml_servable_new(program, NULL, &s, &err);
    if (status == ML_OK) status = ml_servable_predict_json(s, body, strlen(body), NULL, &out, &err);
    if (status == ML_OK) status = ml_registry_add(s, &handle, &err);
    ml_alloc_fail_at(0, false);
    if (status == ML_OK) ml_registry_remove(handle);
    ml_servable_release(s);
    ml_program_release(program);
    ml_graph_free(g);
    ml_json_writer_free(&out);
    leaked = leaked || ml_alloc_get_stats().live_blocks != live;
    if (status == ML_OK || n > 500) break;
    if (status != ML_RESOURCE_EXHAUSTED) ok(false, "allocation %llu: %s", (unsigned long long)n, err.message);
  }
  ok(!leaked && n > 5 && n < 500, "each of %llu allocations may fail", (unsigned long long)n - 1);
  ml_servable *s = doubler(ML_FLOAT32, 2, 30);
  char big[1024] = "{\"instances\":[[0.5";
  for (int i = 1; i < 30; i++) strcat(big, ",-1.25e-1");
  strcat(big, "]]}");
  ml_json_writer out;
  ml_json_writer_init(&out);
  uint64_t before = 0;
  for (int i = 0; i < 3; i++) {
    before = ml_alloc_get_stats().allocations;
    out.length = 0;
    ml_servable_predict_json(s, big, strlen(big), NULL, &out, &err);
  }
  ok(ml_alloc_get_stats().allocations == before, "a request like the last allocates nothing");
  ml_json_writer_free(&out);
  ml_servable_release(s);
}

/* With an argument: processor time of a request of one row of 30 that gives one number, and of the model alone. */
static void measure(void) {
  ml_graph *g = NULL;
  ml_graph_new("largest", &g, &err);
  ml_value *x = input(g, "x", ML_FLOAT32, 2, 30);
  ml_graph_output(g, node(g, "ReduceMax", x, NULL, "y"), &err);
  ml_servable *s = serve(g, NULL);
  char body[1024] = "{\"inputs\":[[17.99";
  for (int i = 1; i < 30; i++) snprintf(body + strlen(body), 32, ",%.4g", 0.0123 * i * i * i);
  strcat(body, "]]}");
  ml_json_writer out;
  ml_json_writer_init(&out);
  size_t length = strlen(body);
  int n = 300000;
  clock_t start = clock();
  for (int i = 0; i < n; i++) {
    out.length = 0;
    ml_servable_predict_json(s, body, length, NULL, &out, &err);
  }
  double request = (double)(clock() - start) / CLOCKS_PER_SEC / n * 1e9;
  ml_view view = {.dtype = ML_FLOAT32, .rank = 2, .dims = {1, 30}, .count = 30};
  start = clock();
  for (int i = 0; i < n; i++) {
    ml_session *session = NULL;
    if (ml_program_acquire(ml_servable_program(s), &view, &session, &err) == ML_OK) ml_session_run(session, &err);
    ml_program_return(ml_servable_program(s), session);
  }
  double model = (double)(clock() - start) / CLOCKS_PER_SEC / n * 1e9;
  printf("# %zu bytes in, %zu out: %.0f ns a request, %.0f ns of them the model\n", length, out.length, request, model);
  ml_json_writer_free(&out);
  ml_servable_release(s);
}

int main(int argc, char **argv) {
  (void)argv;
  if (argc > 1) measure();
  test_row();
  test_column();
  test_types();
  test_signatures();
  test_registry();
  test_threads();
  test_truncation();
  test_memory();
  ok(ml_alloc_get_stats().live_blocks == 0, "nothing leaks: %llu blocks", (unsigned long long)ml_alloc_get_stats().live_blocks);
  return done();
}
