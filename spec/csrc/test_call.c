/* Requests of binary protocols, as far as Lua cannot see them: allocations, those that fail, and bytes that end or change anywhere. What messages
 * mean is in spec/serve/tfserving_grpc_spec.lua and kserve_grpc_spec.lua, against TensorFlow's and Triton's own. */
#include <pthread.h>
#include <string.h>

#include "serve/examples_proto.h"
#include "serve/infer_proto.h"
#include "serve/predict_proto.h"
#include "tap.h"

static ml_error err;

static ml_servable *serve(ml_dtype dtype, bool two) {
  static const int64_t any2[] = {ML_UNKNOWN, 2};
  ml_graph *g = NULL;
  ml_value *a = NULL, *b = NULL, *y = NULL;
  ml_program *program = NULL;
  ml_servable *s = NULL;
  const char *name = "y";
  ml_servable_options options = {.model = "m", .version = 3};
  bool made = ml_graph_new("g", &g, &err) == ML_OK && ml_graph_input(g, "x", dtype, any2, 2, &a, &err) == ML_OK;
  if (two) made = made && ml_graph_input(g, "z", dtype, any2, 2, &b, &err) == ML_OK;
  ml_value *in[] = {a, b};
  made = made && ml_graph_node(g, ml_op_find("", two ? "Add" : "Identity"), NULL, NULL, 0, two ? 2 : 1, in, 1, &name, &y, &err) == ML_OK
         && ml_graph_output(g, y, &err) == ML_OK && ml_program_new(g, NULL, &program, &err) == ML_OK
         && ml_servable_new(program, &options, &s, &err) == ML_OK;
  if (!made) ok(false, "%s", err.message);
  ml_program_release(program);
  ml_graph_free(g);
  return s;
}

static void put_shape(ml_pb_writer *w, int64_t rows) {
  size_t shape = ml_pb_open(w, 2);
  for (int i = 0; i < 2; i++) {
    size_t dim = ml_pb_open(w, 2);
    ml_pb_put_varint(w, 1, i ? 2 : (uint64_t)rows);
    ml_pb_close(w, dim);
  }
  ml_pb_close(w, shape);
}

/* Rows of two, as varints of which the last stands for all others when `dtype` is int64, else packed floats or strings. */
static void put_input(ml_pb_writer *w, const char *name, ml_dtype dtype, int64_t rows) {
  size_t entry = ml_pb_open(w, 2);
  ml_pb_put_string(w, 1, name);
  size_t tensor = ml_pb_open(w, 2);
  ml_pb_put_varint(w, 1, dtype == ML_FLOAT32 ? 1 : dtype == ML_INT64 ? 9 : 7);
  put_shape(w, rows);
  if (dtype == ML_FLOAT32) {
    size_t list = ml_pb_open(w, 5);
    for (int64_t i = 0; i < 2 * rows; i++) {
      float value = (float)i / 2;
      uint8_t *to = ml_pb_reserve(w, sizeof value);
      memcpy(to, &value, sizeof value);
      w->size += sizeof value;
    }
    ml_pb_close(w, list);
  } else if (dtype == ML_INT64) {
    ml_pb_put_bytes(w, 10, "\7\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", 11);
  } else {
    for (int64_t i = 0; i < 2 * rows; i++) ml_pb_put_bytes(w, 8, "some text", (size_t)i % 9);
  }
  ml_pb_close(w, tensor);
  ml_pb_close(w, entry);
}

/* The same as an InferInputTensor: floats as typed contents, others raw (*raw gets them). */
static void put_infer_input(ml_pb_writer *w, const char *name, ml_dtype dtype, int64_t rows, ml_pb_writer *raw) {
  size_t input = ml_pb_open(w, 5);
  ml_pb_put_string(w, 1, name);
  ml_pb_put_string(w, 2, dtype == ML_FLOAT32 ? "FP32" : dtype == ML_INT64 ? "INT64" : "BYTES");
  ml_pb_put_varint(w, 3, (uint64_t)rows);
  ml_pb_put_varint(w, 3, 2);
  if (dtype == ML_FLOAT32) {
    size_t contents = ml_pb_open(w, 5);
    for (int64_t i = 0; i < 2 * rows; i++) ml_pb_put_float(w, 6, (float)i);
    ml_pb_close(w, contents);
  } else {
    size_t piece = ml_pb_open(raw, 7);
    for (int64_t i = 0; i < 2 * rows; i++) {
      uint64_t bits = 4 | UINT64_C(0x64636261) << 32; /* "abcd" behind its length, or an integer */
      memcpy(ml_pb_reserve(raw, sizeof bits), &bits, sizeof bits);
      raw->size += sizeof bits;
    }
    ml_pb_close(raw, piece);
  }
  ml_pb_close(w, input);
}

static void put_example(ml_pb_writer *w, const char *name, ml_dtype dtype) {
  size_t example = ml_pb_open(w, 1), features = ml_pb_open(w, 1), entry = ml_pb_open(w, 1);
  ml_pb_put_string(w, 1, name);
  size_t value = ml_pb_open(w, 2), list = ml_pb_open(w, dtype == ML_FLOAT32 ? 2 : dtype == ML_INT64 ? 3 : 1);
  for (int i = 0; i < 2; i++) {
    if (dtype == ML_FLOAT32) ml_pb_put_float(w, 1, 1.5f);
    else if (dtype == ML_INT64) ml_pb_put_varint(w, 1, 300);
    else ml_pb_put_string(w, 1, "some text");
  }
  ml_pb_close(w, list);
  ml_pb_close(w, value);
  ml_pb_close(w, entry);
  ml_pb_close(w, features);
  ml_pb_close(w, example);
}

static void put_spec(ml_pb_writer *w) {
  size_t spec = ml_pb_open(w, 1);
  ml_pb_put_string(w, 1, "m");
  ml_pb_close(w, spec);
}

static ml_pb_writer request_of(const ml_call_codec *codec, ml_dtype dtype, bool two, int64_t rows) {
  ml_pb_writer w, raw;
  ml_pb_writer_init(&w);
  ml_pb_writer_init(&raw);
  if (codec == &ml_predict_proto) {
    put_spec(&w);
    put_input(&w, "x", dtype, rows);
    if (two) put_input(&w, "z", dtype, rows);
    ml_pb_put_string(&w, 3, "y");
  } else if (codec == &ml_infer_proto) {
    ml_pb_put_string(&w, 1, "m");
    ml_pb_put_string(&w, 3, "some id");
    put_infer_input(&w, "x", dtype, rows, &raw);
    if (two) put_infer_input(&w, "z", dtype, rows, &raw);
    if (raw.size > 0) {
      memcpy(ml_pb_reserve(&w, raw.size), raw.bytes, raw.size);
      w.size += raw.size;
    }
  } else {
    bool tasks = codec == &ml_multi_inference_proto;
    size_t task = tasks ? ml_pb_open(&w, 1) : 0;
    put_spec(&w);
    if (tasks) ml_pb_put_string(&w, 2, "tensorflow/serving/classify");
    if (tasks) ml_pb_close(&w, task);
    size_t input = ml_pb_open(&w, 2), list = ml_pb_open(&w, 1);
    for (int64_t i = 0; i < rows; i++) put_example(&w, "x", dtype);
    ml_pb_close(&w, list);
    ml_pb_close(&w, input);
  }
  ml_pb_writer_free(&raw);
  return w;
}

static ml_pb_writer request(ml_dtype dtype, bool two, int64_t rows) { return request_of(&ml_predict_proto, dtype, two, rows); }

static ml_status call_with(ml_servable *s, const ml_call_codec *codec, const void *bytes, size_t size, ml_pb_writer *out) {
  memset(&err, 0, sizeof err);
  out->size = 0;
  out->status = ML_OK;
  return ml_servable_call(s, codec, bytes, size, NULL, out, &err);
}

static ml_status call(ml_servable *s, const void *bytes, size_t size, ml_pb_writer *out) { return call_with(s, &ml_predict_proto, bytes, size, out); }

static void test_answer(void) {
  static const uint8_t expected[] = {0x0a, 27, 0x0a, 1, 'y', 0x12, 22, 0x08, 1, 0x12, 8, 0x12, 2, 0x08, 1, 0x12, 2, 0x08, 2, 0x2a, 8,
                                     0, 0, 0, 0, 0, 0, 0x80, 0x3f, 0x12, 24, 0x0a, 1, 'm', 0x12, 2, 0x08, 3, 0x1a, 15, 's', 'e', 'r', 'v', 'i', 'n', 'g', '_', 'd', 'e', 'f', 'a', 'u', 'l', 't'};
  ml_servable *s = serve(ML_FLOAT32, true);
  ml_pb_writer in = request(ML_FLOAT32, true, 1), out;
  ml_pb_writer_init(&out);
  ok(call(s, in.bytes, in.size, &out) == ML_OK, "answers: %s", err.message);
  ok(out.size == sizeof expected && memcmp(out.bytes, expected, sizeof expected) == 0, "0 + 0 and 0.5 + 0.5");
  ml_pb_writer_free(&out);
  ml_pb_writer_free(&in);
  ml_servable_release(s);
}

static const ml_dtype dtypes[] = {ML_FLOAT32, ML_INT64, ML_STRING};
static const ml_call_codec *const codecs[] = {&ml_predict_proto, &ml_infer_proto, &ml_classify_proto, &ml_multi_inference_proto};

/* Can a model that copies this type classify? */
static bool fits(const ml_call_codec *codec, ml_dtype dtype) {
  return codec == &ml_predict_proto || codec == &ml_infer_proto || dtype == ML_FLOAT32;
}

static void test_allocations(void) {
  for (size_t d = 0; d < 3; d++)
    for (size_t k = 0; k < 2; k++) {
      bool two = dtypes[d] == ML_FLOAT32;
      ml_servable *s = serve(dtypes[d], two);
      ml_pb_writer in = request_of(codecs[k], dtypes[d], two, 20), out;
      ml_pb_writer_init(&out);
      for (int i = 0; i < 2; i++) ok(call_with(s, codecs[k], in.bytes, in.size, &out) == ML_OK, "answers: %s", err.message);
      uint64_t before = ml_alloc_get_stats().allocations;
      for (int i = 0; i < 10; i++) call_with(s, codecs[k], in.bytes, in.size, &out);
      ok(ml_alloc_get_stats().allocations == before, "a request like the one before allocates nothing");
      ml_pb_writer_free(&out);
      ml_pb_writer_free(&in);
      ml_servable_release(s);
    }
}

static ml_status batched(ml_servable *s, const ml_call_codec *codec, const ml_pb_writer *in, ml_pb_writer *out) {
  ml_call *c;
  ml_request_options options = {0};
  ml_status status = ml_call_decode(s, codec, in->bytes, in->size, NULL, &c, &err);
  if (status != ML_OK) return status;
  status = ml_call_submit(c, &options, &err);
  if (status == ML_OK) status = ml_call_finish(c, out, &err);
  ml_call_free(c);
  return status;
}

/* Every allocation of a call fails once, alone and in a batch. */
static void test_memory(void) {
  for (size_t d = 0; d < 3; d++)
    for (size_t k = 0; k < 8; k++) {
      const ml_call_codec *codec = codecs[k % 4];
      if (!fits(codec, dtypes[d])) continue;
      ml_pb_writer in = request_of(codec, dtypes[d], false, 20), out;
      uint64_t n = 1, live = ml_alloc_get_stats().live_blocks;
      bool leaked = false;
      ml_pb_writer_init(&out);
      for (;; n++) {
        ml_servable *s = serve(dtypes[d], false);
        ml_batcher *batcher = NULL;
        if (k >= 4 && (ml_batcher_new(ml_servable_program(s), &(ml_batch_options){.merge = true}, &batcher, &err) != ML_OK
                       || ml_servable_set_batcher(s, batcher, &err) != ML_OK)) ok(false, "%s", err.message);
        ml_alloc_fail_at(n, false);
        ml_status status = k < 4 ? call_with(s, codec, in.bytes, in.size, &out) : batched(s, codec, &in, &out);
        ml_alloc_fail_at(0, false);
        if (status != ML_OK) leaked = leaked || out.size > 0;
        ml_pb_writer_free(&out);
        ml_servable_release(s);
        leaked = leaked || ml_alloc_get_stats().live_blocks != live;
        if (status == ML_OK || n > 200) break;
        if (status != ML_RESOURCE_EXHAUSTED) ok(false, "allocation %llu: %s", (unsigned long long)n, err.message);
      }
      ok(!leaked && n > 7 && n < 200, "each of %llu allocations may fail", (unsigned long long)n - 1);
      ml_pb_writer_free(&in);
    }
}

/* Every beginning of a request, and every request with one byte changed: an answer or a refusal. */
static void test_damage(void) {
  for (size_t d = 0; d < 3; d++)
    for (size_t k = 0; k < 4; k++) {
      const ml_call_codec *codec = codecs[k];
      if (!fits(codec, dtypes[d])) continue;
      ml_servable *s = serve(dtypes[d], false);
      ml_pb_writer in = request_of(codec, dtypes[d], false, 2), out;
      bool whole = true;
      size_t answers = 0;
      ml_pb_writer_init(&out);
      for (size_t size = 0; size < in.size; size++) {
        uint8_t *copy = malloc(size ? size : 1); /* exactly this many bytes, for the sanitiser */
        memcpy(copy, in.bytes, size);
        ml_status status = call_with(s, codec, copy, size, &out);
        whole = whole && (status == ML_OK || ((status == ML_INTERNAL || status == ML_INVALID_ARGUMENT) && err.message[0] && out.size == 0));
        free(copy);
      }
      for (size_t at = 0; at < in.size; at++)
        for (unsigned change = 1; change < 256; change = change * 2 + 1) {
          in.bytes[at] ^= (uint8_t)change;
          ml_status status = call_with(s, codec, in.bytes, in.size, &out);
          in.bytes[at] ^= (uint8_t)change;
          whole = whole && (status == ML_OK || (err.message[0] && out.size == 0));
          answers += status == ML_OK;
        }
      ok(whole && answers > 30, "damaged requests are answered or refused, %zu answered", answers);
      ml_pb_writer_free(&out);
      ml_pb_writer_free(&in);
      ml_servable_release(s);
    }
}

typedef struct caller {
  ml_servable *servable;
  const ml_call_codec *codec;
  bool batched;
  size_t wrong;
} caller;

static void *call_often(void *context) {
  caller *c = context;
  ml_pb_writer in = request_of(c->codec, ML_FLOAT32, true, 3), out, first;
  ml_request_options options = {0};
  ml_error local;
  ml_pb_writer_init(&out);
  ml_pb_writer_init(&first);
  for (int i = 0; i < 200; i++) {
    ml_call *call = NULL;
    out.size = 0;
    ml_status status = ml_call_decode(c->servable, c->codec, in.bytes, in.size, NULL, &call, &local);
    if (status == ML_OK) status = c->batched ? ml_call_submit(call, &options, &local) : ml_call_run(call, &local);
    if (status == ML_OK) status = ml_call_finish(call, i ? &out : &first, &local);
    ml_call_free(call);
    if (status != ML_OK || (i > 0 && (out.size != first.size || memcmp(out.bytes, first.bytes, out.size) != 0))) c->wrong++;
  }
  ml_pb_writer_free(&first);
  ml_pb_writer_free(&out);
  ml_pb_writer_free(&in);
  return NULL;
}

/* Many threads, one servable: pool, program and batcher are shared. */
static void test_threads(void) {
  ml_servable *s = serve(ML_FLOAT32, true);
  ml_batcher *batcher = NULL;
  caller callers[6];
  pthread_t threads[6];
  size_t wrong = 0;
  if (ml_batcher_new(ml_servable_program(s), &(ml_batch_options){.merge = true}, &batcher, &err) != ML_OK
      || ml_servable_set_batcher(s, batcher, &err) != ML_OK) ok(false, "%s", err.message);
  for (size_t i = 0; i < 6; i++) callers[i] = (caller){s, i % 2 ? &ml_infer_proto : &ml_predict_proto, i >= 3, 0};
  for (size_t i = 0; i < 6; i++) pthread_create(&threads[i], NULL, call_often, &callers[i]);
  for (size_t i = 0; i < 6; i++) {
    pthread_join(threads[i], NULL);
    wrong += callers[i].wrong;
  }
  ok(wrong == 0, "%zu of 1200 concurrent calls were wrong", wrong);
  ml_servable_release(s);
}

static void test_peek(void) {
  ml_model_spec spec;
  ok(ml_model_spec_peek("", 0, false, &spec, &err) == ML_OK && !spec.given, "nothing asks nobody");
  ok(ml_model_spec_peek("\12\0", 2, false, &spec, &err) == ML_OK && spec.given && spec.name.length == 0, "an empty ModelSpec is one");
  ok(ml_model_spec_peek("\12\12\12\1m\32\1s\42\2la", 12, false, &spec, &err) == ML_OK && spec.labelled && !spec.versioned && spec.label.length == 2
         && memcmp(spec.label.bytes, "la", 2) == 0 && spec.signature.length == 1, "name, signature and label");
  ok(ml_model_spec_peek("\12\6\42\0\22\2\10\5", 8, false, &spec, &err) == ML_OK && spec.versioned && !spec.labelled && spec.version == 5,
     "of label and version the last counts");
  ok(ml_model_spec_peek("\12\6\22\2\10\5\42\0", 8, false, &spec, &err) == ML_OK && !spec.versioned && spec.labelled, "and the other way round");
  ok(ml_model_spec_peek("\12\3\12\1a\12\3\12\1b", 10, false, &spec, &err) == ML_OK && spec.name.bytes[0] == 'b', "in pieces");
  ok(ml_model_spec_peek("\12\5\12\3\12\1a\12\5\12\3\12\1b", 14, true, &spec, &err) == ML_OK && spec.name.bytes[0] == 'a', "the first task's");
  ok(ml_model_spec_peek("\12\2\12\5", 4, false, &spec, &err) == ML_INTERNAL && strstr(err.message, "claims 5 bytes"), "malformed: %s", err.message);
}

int main(void) {
  test_peek();
  test_answer();
  test_allocations();
  test_memory();
  test_damage();
  test_threads();
  ok(ml_alloc_get_stats().live_blocks == 0, "nothing leaks: %llu blocks", (unsigned long long)ml_alloc_get_stats().live_blocks);
  return done();
}
