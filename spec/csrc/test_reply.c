/* Answers of both REST protocols made into tensors, in exact buffers, with a failing allocator, and cut at every byte. What answers mean to a caller
 * is tested over sockets in spec/client_spec.lua. Expected values are written down from the protocols' documents. */
#include <string.h>

#include "base/alloc.h"
#include "serve/reply.h"
#include "tap.h"

static ml_error err;
static ml_reply reply;

/* a copy without a byte to spare lives until the next call: texts of a reply point into it */
static const char *exact(const char *text, size_t size) {
  static char *kept;
  free(kept);
  kept = malloc(size ? size : 1);
  if (!kept) abort();
  memcpy(kept, text, size);
  return kept;
}

static ml_status predict(const char *text, size_t size) {
  ml_reply_free(&reply);
  return ml_reply_predict(exact(text, size), size, NULL, NULL, &reply, &err);
}

static ml_status infer(const char *text, size_t size, size_t json) {
  ml_reply_free(&reply);
  return ml_reply_infer(exact(text, size), size, json, &reply, &err);
}

static const ml_reply_value *value(const char *name) {
  for (size_t i = 0; i < reply.n; i++)
    if (name ? reply.values[i].name && strcmp(reply.values[i].name, name) == 0 : !reply.values[i].name) return &reply.values[i];
  return NULL;
}

static bool floats(const ml_reply_value *v, const float *expected, size_t n) {
  return v && v->tensor && v->tensor->view.dtype == ML_FLOAT32 && v->tensor->view.count == n && memcmp(v->tensor->view.data, expected, n * sizeof *expected) == 0;
}

static const char ROWS[] = "{\"x\": [{}], \"predictions\": [{\"a\": 1, \"b\": [0.5, 2], \"t\": \"u\"}, {\"t\": {\"b64\": \"AA==\"}, \"b\": [1, 4], \"a\": 2.5}]} ";
static const char COLUMNS[] = "{\"outputs\": {\"n\": [1, -2], \"f\": [[1.5], [2]], \"map\": [{\"p\": 0.5}], \"deep\": [[1], 2], \"\": true}}";
static const char JSON[] = "{\"model_name\": \"m\", \"model_version\": \"7\", \"id\": \"\\u0041\", \"outputs\": [{\"datatype\": \"FP32\", \"data\": [[1, 2]], \"name\": \"y\","
                           " \"shape\": [2, 1]}, {\"name\": \"h\", \"datatype\": \"BF16\", \"shape\": [1], \"data\": [1]}, {\"name\": \"u\", \"datatype\": \"UINT16\", \"shape\": [1],"
                           " \"data\": [65535]}]}";
static const char BINARY[] = "{\"outputs\": [{\"name\": \"s\", \"datatype\": \"BYTES\", \"shape\": [2], \"parameters\": {\"x\": 1, \"binary_data_size\": 11}}, {\"name\": \"b\", \"datatype\":"
                             " \"BOOL\", \"shape\": [2], \"parameters\": {\"binary_data_size\": 2}}]}" "\2\0\0\0hi\1\0\0\0\377" "\0\2";
static const size_t BINARY_TAIL = 13;

static void test_predict(void) {
  static const float a[] = {1, 2.5f}, b[] = {0.5f, 2, 1, 4}, f[] = {1.5f, 2};
  static const int64_t n[] = {1, -2};
  ok(predict(ROWS, sizeof ROWS - 1) == ML_OK && reply.named && reply.n == 3, "rows by name: %s", err.message);
  ok(floats(value("a"), a, 2) && value("a")->tensor->view.rank == 1, "an output whose second number has a fraction");
  ok(floats(value("b"), b, 4) && value("b")->tensor->view.rank == 2, "rows of two");
  const ml_str *t = value("t") && value("t")->tensor ? value("t")->tensor->view.data : NULL;
  ok(t && t[0].length == 1 && t[0].bytes[0] == 'u' && t[1].length == 1 && t[1].bytes[0] == 0, "texts and bytes");

  ok(predict(COLUMNS, sizeof COLUMNS - 1) == ML_OK && reply.named && reply.n == 5, "columns by name: %s", err.message);
  const ml_reply_value *v = value("n");
  ok(v && v->tensor && v->tensor->view.dtype == ML_INT64 && memcmp(v->tensor->view.data, n, sizeof n) == 0, "integers");
  ok(floats(value("f"), f, 2), "floats");
  ok((v = value("map")) && !v->tensor && v->length == 12 && memcmp(v->text, "[{\"p\": 0.5}]", 12) == 0, "maps are text");
  ok((v = value("deep")) && !v->tensor && v->length == 8, "ragged lists are text");
  ok((v = value("")) && v->tensor && v->tensor->view.dtype == ML_BOOL && v->tensor->view.rank == 0, "an output without letters in its name");

  static const char *const bad[] = {"", "[]", "{", "{}", "{\"predictions\": [1}", "{\"predictions\": [1], \"outputs\": [1]}", "{\"predictions\": [1]} x",
                                    "{\"predictions\": nope}", "{\"predictions\": [[[", "{\"outputs\": {\"a\": 1, }}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
    ok(predict(bad[i], strlen(bad[i])) == ML_DATA_LOSS && err.message[0] && reply.n == 0, "refused: %s", bad[i]);
}

static void test_infer(void) {
  static const float y[] = {1, 2};
  ok(infer(JSON, sizeof JSON - 1, sizeof JSON - 1) == ML_OK && reply.n == 3, "an answer in JSON: %s", err.message);
  ok(floats(value("y"), y, 2) && value("y")->tensor->view.rank == 2 && value("y")->tensor->view.dims[0] == 2, "data before their shape");
  ok(reply.version && strcmp(reply.version, "7") == 0 && reply.id && strcmp(reply.id, "A") == 0, "version and id");
  ok(value("h")->tensor->view.dtype == ML_BFLOAT16 && *(const uint16_t *)value("h")->tensor->view.data == 0x3f80, "bfloat16");
  ok(value("u")->tensor->view.dtype == ML_UINT16 && *(const uint16_t *)value("u")->tensor->view.data == 65535, "uint16");
  const size_t size = sizeof BINARY - 1, json = size - BINARY_TAIL;
  ok(infer(BINARY, size, json) == ML_OK && reply.n == 2, "a binary answer: %s", err.message);
  const ml_str *s = value("s") ? value("s")->tensor->view.data : NULL;
  ok(s && s[0].length == 2 && memcmp(s[0].bytes, "hi", 2) == 0 && s[1].length == 1 && s[1].bytes[0] == '\377', "strings");
  ok(memcmp(value("b")->tensor->view.data, "\0\1", 2) == 0, "any byte but 0 is true");
  for (size_t cut = 0; cut < size; cut++) ok(infer(BINARY, cut, json < cut ? json : cut) == ML_DATA_LOSS && reply.n == 0, "cut at %zu", cut);
  for (size_t cut = 0; cut < sizeof JSON - 1; cut++) ok(infer(JSON, cut, cut) == ML_DATA_LOSS && reply.n == 0, "cut at %zu", cut);
  ok(infer(JSON, sizeof JSON - 1, sizeof JSON) == ML_DATA_LOSS, "more JSON than body");
}

static void test_requests(void) {
  static const int64_t dims[] = {2};
  static const ml_str bytes[] = {{"a", 1}, {"\377", 1}};
  ml_tensor *text = NULL, *half = NULL;
  ml_json_writer out;
  ml_json_writer_init(&out);
  ok(ml_tensor_from_strings(bytes, dims, 1, &text, &err) == ML_OK && ml_tensor_new(ML_FLOAT16, dims, 1, &half, &err) == ML_OK, "tensors");
  ((uint16_t *)half->view.data)[1] = 0x3e00;
  ok(ml_request_json(text, -1, false, &out, &err) == ML_OK && out.length == 34 && memcmp(out.text, "[{\"b64\": \"YQ==\"}, {\"b64\": \"/w==\"}]", 34) == 0, "bytes as base64");
  out.length = 0;
  ok(ml_request_json(text, -1, true, &out, &err) == ML_INVALID_ARGUMENT && ml_request_json(text, 2, false, &out, &err) == ML_INVALID_ARGUMENT, "refused");
  ok(ml_request_json(half, -1, false, &out, &err) == ML_OK && out.length == 10 && memcmp(out.text, "[0.0, 1.5]", 10) == 0, "float16 as numbers");
  out.length = 0;
  ok(ml_request_bytes(&text->view, &out, &err) == ML_OK && out.length == 10 && memcmp(out.text, "\1\0\0\0a\1\0\0\0\377", 10) == 0, "strings with their lengths");
  ml_json_writer_free(&out);
  ml_tensor_release(text);
  ml_tensor_release(half);
}

static void test_memory(void) {
  ml_status status = ML_RESOURCE_EXHAUSTED;
  static const struct { const char *text; size_t size; } all[] = {{ROWS, sizeof ROWS - 1}, {COLUMNS, sizeof COLUMNS - 1}, {JSON, sizeof JSON - 1}, {BINARY, sizeof BINARY - 1}};
  for (size_t i = 0; i < 4; i++) {
    unsigned failures = 0;
    for (unsigned n = 1; n < 200; n++) {
      ml_reply_free(&reply);
      const char *text = exact(all[i].text, all[i].size);
      ml_alloc_fail_at(n, false);
      if (i < 2) status = ml_reply_predict(text, all[i].size, NULL, NULL, &reply, &err);
      else status = ml_reply_infer(text, all[i].size, all[i].size - (i == 3 ? BINARY_TAIL : 0), &reply, &err);
      ml_alloc_fail_at(0, false);
      if (status == ML_OK) break;
      failures++;
      if (!ok(status == ML_RESOURCE_EXHAUSTED && reply.n == 0, "allocation %u of answer %zu: %s", n, i, err.message)) break;
    }
    ok(status == ML_OK && failures > 2, "answer %zu after %u failures", i, failures);
  }
}

int main(void) {
  test_predict();
  test_infer();
  test_requests();
  test_memory();
  ml_reply_free(&reply);
  exact("", 0);
  return done();
}
