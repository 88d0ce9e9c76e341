/* Model files: ONNX in and out, operator set upgrades, external data, safetensors, npy.
 * Expected values: spec/golden/onnx (ONNX Runtime and NumPy, made by spec/golden/make_onnx.py). What mlserve writes is judged by
 * onnx and ONNX Runtime in spec/interop/onnx_files.py, for which `test_format DIRECTORY` leaves files. Run from the root of the
 * repository. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__) && defined(SYS_openat2)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#endif

#include "base/file.h"
#include "codec/protobuf.h"
#include "format/npy.h"
#include "format/onnx.h"
#include "format/safetensors.h"
#include "graph/program.h"
#include "tap.h"

#define GOLDEN "spec/golden/onnx"
enum { MAX_IO = 16 };
static char directory[256]; /* of this run's files */

static const char *in_directory(const char *name) {
  static char paths[4][1024];
  static int turn;
  char *path = paths[turn = (turn + 1) % 4];
  snprintf(path, sizeof paths[0], "%s/%s", directory, name);
  return path;
}

static void write_file(const char *path, const void *bytes, size_t size) {
  ml_error err = {0};
  if (ml_file_write(path, bytes, size, &err) != ML_OK) ok(false, "%s", err.message);
}

static bool mentions(const ml_error *err, const char *text) { return strstr(err->message, text) != NULL; }

/* ---------------------------------------------------------------- running ---- */
typedef struct results { ml_tensor *out[MAX_IO]; size_t n; } results;

static ml_status take(void *context, ml_session *session, ml_error *err) {
  results *r = context;
  for (size_t i = 0; i < r->n; i++) ML_TRY(ml_tensor_copy_of(ml_session_output(session, i), &r->out[i], err));
  return ML_OK;
}

static void free_results(results *r) {
  for (size_t i = 0; i < MAX_IO; i++) ml_tensor_release(r->out[i]);
  *r = (results){0};
}

static ml_status run_graph(const ml_graph *g, ml_tensor *const *inputs, results *r, ml_error *err) {
  ml_program *program = NULL;
  ml_view views[MAX_IO];
  *r = (results){.n = g->n_outputs};
  for (size_t i = 0; i < g->n_inputs; i++) views[i] = inputs[i]->view;
  ml_status status = ml_program_new(g, NULL, &program, err);
  if (status == ML_OK) status = ml_program_run(program, views, take, r, err);
  ml_program_release(program);
  return status;
}

static bool equal(const ml_view *a, const ml_view *b) {
  if (a->dtype != b->dtype || !ml_shape_equal(a->dims, a->rank, b->dims, b->rank)) return false;
  for (size_t i = 0; i < a->count; i++) {
    if (a->dtype == ML_STRING) {
      const ml_str *x = &((const ml_str *)a->data)[i], *y = &((const ml_str *)b->data)[i];
      if (x->length != y->length || memcmp(x->bytes, y->bytes, x->length) != 0) return false;
    } else if (ml_dtype_is_float(a->dtype)) {
      double x = ml_element_get(a->data, a->dtype, i), y = ml_element_get(b->data, b->dtype, i);
      if (!(fabs(x - y) <= 1e-6 + 1e-5 * fabs(y)) && !(isnan(x) && isnan(y)) && !(x == y)) return false;
    }
  }
  size_t size = ml_dtype_size(a->dtype);
  return a->dtype == ML_STRING || ml_dtype_is_float(a->dtype) || a->count == 0 || memcmp(a->data, b->data, a->count * size) == 0;
}

/* ---------------------------------------------------------------- golden models ---- */
static ml_tensor *golden_tensor(const char *name, const char *kind, size_t i) {
  char path[512];
  ml_file_map map;
  ml_tensor *tensor = NULL;
  ml_error err;
  snprintf(path, sizeof path, GOLDEN "/%s/test_data_set_0/%s_%zu.pb", name, kind, i);
  if (access(path, R_OK) != 0) return NULL;
  if (ml_file_open_map(path, &map, &err) != ML_OK ||
      ml_onnx_tensor_read(map.bytes, map.size, path, &tensor, NULL, NULL, &err) != ML_OK)
    ok(false, "%s: %s", path, err.message);
  ml_file_unmap(&map);
  return tensor;
}

static bool check_case(const char *name, const char *way, const ml_graph *g, ml_tensor *const *inputs,
                       ml_tensor *const *expected) {
  results r;
  ml_error err = {0};
  ml_status status = run_graph(g, inputs, &r, &err);
  bool good = ok(status == ML_OK, "%s, %s: runs: %s", name, way, err.message);
  for (size_t i = 0; good && i < r.n; i++)
    good = ok(expected[i] && equal(&r.out[i]->view, &expected[i]->view), "%s, %s: output %zu", name, way, i);
  free_results(&r);
  return good;
}

/* Reads, runs, writes, reads back, runs, writes again: equal outputs and the second file equal to the first. */
static void golden_case(const char *name) {
  char path[512];
  ml_error err = {0};
  ml_graph *g = NULL, *back = NULL;
  ml_tensor *inputs[MAX_IO] = {0}, *expected[MAX_IO] = {0};
  void *bytes = NULL, *again = NULL;
  size_t size = 0, size_again = 0;
  snprintf(path, sizeof path, GOLDEN "/%s/model.onnx", name);
  if (ok(ml_onnx_load(path, NULL, &g, &err) == ML_OK, "%s loads: %s", name, err.message)) {
    for (size_t i = 0; i < g->n_inputs; i++) inputs[i] = golden_tensor(name, "input", i);
    for (size_t i = 0; i < g->n_outputs; i++) expected[i] = golden_tensor(name, "output", i);
    check_case(name, "as read", g, inputs, expected);
    if (ok(ml_onnx_write(g, &bytes, &size, &err) == ML_OK, "%s is written: %s", name, err.message) &&
        ok(ml_onnx_read(bytes, size, name, NULL, &back, &err) == ML_OK, "%s is read back: %s", name, err.message)) {
      check_case(name, "read back", back, inputs, expected);
      if (ok(ml_onnx_write(back, &again, &size_again, &err) == ML_OK, "%s is written again: %s", name, err.message)) {
        void *third = NULL;
        size_t size_third = 0;
        ml_graph *once_more = NULL;
        ml_onnx_read(again, size_again, name, NULL, &once_more, &err);
        if (once_more) ml_onnx_write(once_more, &third, &size_third, &err);
        ok(third && size_again == size_third && memcmp(again, third, size_third) == 0, "%s: rewriting changes nothing", name);
        ml_free(third);
        ml_graph_free(once_more);
      }
      snprintf(path, sizeof path, "%s.onnx", name);
      write_file(in_directory(path), bytes, size);
      for (size_t i = 0; i < g->n_inputs + g->n_outputs; i++) {
        void *pb;
        size_t pb_size, k = i < g->n_inputs ? i : i - g->n_inputs;
        bool input = i < g->n_inputs;
        if (ml_onnx_tensor_write(input ? inputs[k] : expected[k], (input ? g->inputs : g->outputs)[k]->name, &pb, &pb_size,
                                 &err) != ML_OK)
          continue;
        snprintf(path, sizeof path, "%s.%s_%zu.pb", name, input ? "input" : "output", k);
        write_file(in_directory(path), pb, pb_size);
        ml_free(pb);
      }
    }
  }
  for (size_t i = 0; i < MAX_IO; i++) {
    ml_tensor_release(inputs[i]);
    ml_tensor_release(expected[i]);
  }
  ml_free(bytes);
  ml_free(again);
  ml_graph_free(g);
  ml_graph_free(back);
}

static void test_golden(void) {
  DIR *d = opendir(GOLDEN);
  if (!ok(d != NULL, "%s is there", GOLDEN)) return;
  size_t n = 0;
  for (struct dirent *e; (e = readdir(d)) != NULL;) {
    if (e->d_name[0] == '.') continue;
    golden_case(e->d_name);
    n++;
  }
  closedir(d);
  ok(n >= 60, "%zu golden models", n);
}

static void test_network(void) {
  ml_error err = {0};
  ml_graph *g;
  if (!ok(ml_onnx_load(GOLDEN "/network/model.onnx", NULL, &g, &err) == ML_OK, "network: %s", err.message)) return;
  ok(g->n_inputs == 1 && g->inputs[0]->dim_names[0] && strcmp(g->inputs[0]->dim_names[0], "batch") == 0,
     "a named dimension of an input");
  const ml_value *h = ml_graph_find(g, "h");
  ok(h && h->dims[0] == ML_UNKNOWN && h->dim_names[0] && strcmp(h->dim_names[0], "batch") == 0, "a named dimension inside");
  ok(g->model_version == 7 && g->doc && strcmp(g->doc, "a network") == 0 && strcmp(g->producer_name, "golden") == 0,
     "version, text, producer");
  const ml_property *author = ml_graph_property(g, "author");
  ok(author && author->length == 6 && memcmp(author->value, "golden", 6) == 0, "metadata");
  ok(!ml_graph_property(g, "mlserve.frozen"), "the list of frozen weights is flags now");
  ok(ml_graph_find(g, "0.weight")->trainable && !ml_graph_find(g, "0.bias")->trainable, "trainable weights");
  ok(ml_graph_parameters(g, true) == 38 && ml_graph_parameters(g, false) == 43, "38 of 43 parameters can be trained");
  void *bytes;
  size_t size;
  ml_graph *back = NULL;
  if (ok(ml_onnx_write(g, &bytes, &size, &err) == ML_OK && ml_onnx_read(bytes, size, "network", NULL, &back, &err) == ML_OK,
         "network again: %s", err.message)) {
    ok(back->model_version == 7 && ml_graph_property(back, "author") && !ml_graph_find(back, "0.bias")->trainable,
       "metadata survives");
    ok(back->outputs[0]->dim_names[0] && strcmp(back->outputs[0]->dim_names[0], "batch") == 0,
       "a named dimension of an output survives");
  }
  ml_graph_free(back);
  ml_free(bytes);
  ml_graph_free(g);
  if (!ok(ml_onnx_load(GOLDEN "/batchnormalization_9/model.onnx", NULL, &g, &err) == ML_OK, "%s", err.message)) return;
  ok(ml_graph_find(g, "s")->trainable && !ml_graph_find(g, "m")->trainable && !ml_graph_find(g, "v")->trainable,
     "running statistics are no parameters");
  ml_graph_free(g);
}

/* ---------------------------------------------------------------- files made here ---- */
/* A model message in the making: fields as (opens) { } so that hostile files can be said in a few lines. */
typedef struct maker { ml_pb_writer w; size_t graph; } maker;

static void begin_model(maker *m, int64_t opset) {
  ml_pb_writer_init(&m->w);
  ml_pb_put_varint(&m->w, 1, 8);
  if (opset) {
    size_t mark = ml_pb_open(&m->w, 8);
    ml_pb_put_varint(&m->w, 2, (uint64_t)opset);
    ml_pb_close(&m->w, mark);
  }
  m->graph = ml_pb_open(&m->w, 7);
  ml_pb_put_string(&m->w, 2, "made");
}

static void put_io(maker *m, uint32_t field, const char *name, int type, const int64_t *dims, int rank) {
  size_t a = ml_pb_open(&m->w, field);
  ml_pb_put_string(&m->w, 1, name);
  size_t b = ml_pb_open(&m->w, 2), c = ml_pb_open(&m->w, 1), s;
  ml_pb_put_varint(&m->w, 1, (uint64_t)type);
  s = ml_pb_open(&m->w, 2);
  for (int i = 0; i < rank; i++) {
    size_t d = ml_pb_open(&m->w, 1);
    ml_pb_put_varint(&m->w, 1, (uint64_t)dims[i]);
    ml_pb_close(&m->w, d);
  }
  ml_pb_close(&m->w, s);
  ml_pb_close(&m->w, c);
  ml_pb_close(&m->w, b);
  ml_pb_close(&m->w, a);
}

static void put_node(maker *m, const char *op, const char *domain, const char *name, const char *in, const char *in2,
                     const char *out) {
  size_t a = ml_pb_open(&m->w, 1);
  if (in) ml_pb_put_bytes(&m->w, 1, in, strlen(in));
  if (in2) ml_pb_put_bytes(&m->w, 1, in2, strlen(in2));
  if (out) ml_pb_put_bytes(&m->w, 2, out, strlen(out));
  ml_pb_put_string(&m->w, 3, name);
  ml_pb_put_string(&m->w, 4, op);
  ml_pb_put_string(&m->w, 7, domain);
  ml_pb_close(&m->w, a);
}

static const int64_t two[1] = {2};
static const float pair[2] = {1, 2};

static void put_init(maker *m, const char *name, int type, const int64_t *dims, int rank, const void *raw, size_t size) {
  size_t a = ml_pb_open(&m->w, 5);
  for (int i = 0; i < rank; i++) ml_pb_put_varint(&m->w, 1, (uint64_t)dims[i]);
  ml_pb_put_varint(&m->w, 2, (uint64_t)type);
  ml_pb_put_string(&m->w, 8, name);
  if (raw) ml_pb_put_bytes(&m->w, 9, raw, size);
  ml_pb_close(&m->w, a);
}

/* Ends the model, reads it, and expects a refusal that mentions `text` (NULL: success). */
static void expect(maker *m, const char *what, ml_status code, const char *text) {
  ml_error err = {0};
  ml_graph *g = NULL;
  ml_pb_close(&m->w, m->graph);
  ml_status status = ml_onnx_read(m->w.bytes, m->w.size, "made", NULL, &g, &err);
  ok(status == code && (!text || mentions(&err, text)), "%s: %s", what, status == ML_OK ? "read" : err.message);
  ok((status == ML_OK) == (g != NULL), "%s: a graph only on success", what);
  ml_graph_free(g);
  ml_pb_writer_free(&m->w);
}

static void test_structure(void) {
  maker m;
  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Relu", "", "n", "x", NULL, "y");
  put_io(&m, 12, "y", 1, two, 1);
  expect(&m, "a plain model", ML_OK, NULL);

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Foo", "", "n1", "x", NULL, "y");
  put_node(&m, "Bar", "com.example", "n2", "y", NULL, "z");
  put_node(&m, "Foo", "", "n3", "z", NULL, "w");
  put_node(&m, "ReduceTo", "mlserve", "", "w", NULL, "v");
  put_io(&m, 12, "v", 1, two, 1);
  expect(&m, "unsupported operators at once", ML_UNIMPLEMENTED,
         "unsupported operators: Foo (domain ai.onnx, version 17) at node 'n1', Bar (domain com.example) at node 'n2', ReduceTo "
         "(domain mlserve) at node 3");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  for (int i = 0; i < 40; i++) {
    char op[32], out[32];
    snprintf(op, sizeof op, "Unknown%d", i);
    snprintf(out, sizeof out, "o%d", i);
    put_node(&m, op, "", out, "x", NULL, out);
  }
  put_io(&m, 12, "o1", 1, two, 1);
  expect(&m, "a long list is cut and counted", ML_UNIMPLEMENTED, "more");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Add", "", "a", "x", "c", "b");
  put_node(&m, "Relu", "", "r", "b", NULL, "c");
  put_io(&m, 12, "c", 1, two, 1);
  expect(&m, "a cycle", ML_INVALID_ARGUMENT, "input 'c'");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Relu", "", "r", "x", NULL, "y");
  put_node(&m, "Neg", "", "n", "x", NULL, "y");
  put_io(&m, 12, "y", 1, two, 1);
  expect(&m, "a name defined twice", ML_INVALID_ARGUMENT, "'y'");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Relu", "", "r", "x", NULL, "y");
  put_io(&m, 12, "y", 1, two, 1);
  expect(&m, "an input listed twice", ML_INVALID_ARGUMENT, "'x'");

  begin_model(&m, 17);
  put_init(&m, "w", 1, two, 1, pair, 8);
  put_init(&m, "w", 1, two, 1, pair, 8);
  put_io(&m, 12, "w", 1, two, 1);
  expect(&m, "an initialiser defined twice", ML_INVALID_ARGUMENT, "'w'");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_io(&m, 12, "y", 1, two, 1);
  expect(&m, "an output that nothing makes", ML_INVALID_ARGUMENT, "'y'");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  expect(&m, "no outputs", ML_INVALID_ARGUMENT, "no outputs");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Relu", "", "r", "x", NULL, "y");
  put_io(&m, 12, "y", 7, two, 1);
  expect(&m, "an output of another type", ML_INVALID_ARGUMENT, "'y'");

  begin_model(&m, 99);
  put_io(&m, 11, "x", 1, two, 1);
  put_io(&m, 12, "x", 1, two, 1);
  expect(&m, "an operator set of the future", ML_UNIMPLEMENTED, "99");

  begin_model(&m, 0);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Relu", "", "r", "x", NULL, "y");
  put_io(&m, 12, "y", 1, two, 1);
  expect(&m, "no operator set", ML_INVALID_ARGUMENT, "not imported");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Gelu", "", "g", "x", NULL, "y");
  put_io(&m, 12, "y", 1, two, 1);
  expect(&m, "an operator before its time", ML_INVALID_ARGUMENT, "version 20");

  for (int64_t number = 29; number < 70; number++) { /* 31 is what the core calls a sequence: its elements would be pointers out of the file */
    begin_model(&m, 17);
    put_init(&m, "w", (int)number, (const int64_t[]){1}, 1, pair, 8);
    put_node(&m, "Identity", "", "n", "w", NULL, "y");
    put_io(&m, 12, "y", 1, two, 1);
    expect(&m, "an element type that is none", ML_INVALID_ARGUMENT, "unknown element type");
  }

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, (const int64_t[]){-5}, 1);
  put_io(&m, 12, "x", 1, two, 1);
  expect(&m, "a negative dimension", ML_INVALID_ARGUMENT, "negative");

  begin_model(&m, 17);
  put_io(&m, 11, "x\xff", 1, two, 1);
  expect(&m, "a name that is not UTF-8", ML_INVALID_ARGUMENT, "UTF-8");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  put_node(&m, "Relu", "", "r", "x", NULL, "y");
  size_t sub = ml_pb_open(&m.w, 15);
  ml_pb_close(&m.w, sub);
  put_io(&m, 12, "y", 1, two, 1);
  expect(&m, "an empty sparse initialiser", ML_INVALID_ARGUMENT, "sparse tensor without values");

  begin_model(&m, 17);
  put_io(&m, 12, "x", 1, two, 1);
  ml_pb_close(&m.w, m.graph);
  size_t function = ml_pb_open(&m.w, 25);
  ml_pb_put_string(&m.w, 1, "MyFunction");
  ml_pb_put_string(&m.w, 10, "mine");
  ml_pb_close(&m.w, function);
  m.graph = ml_pb_open(&m.w, 99);
  expect(&m, "an output of nothing beside a function", ML_INVALID_ARGUMENT, "output 'x'");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  ml_pb_close(&m.w, m.graph);
  m.graph = ml_pb_open(&m.w, 7);
  expect(&m, "two graphs", ML_INVALID_ARGUMENT, "twice");

  begin_model(&m, 17);
  put_io(&m, 11, "x", 1, two, 1);
  size_t node = ml_pb_open(&m.w, 1);
  ml_pb_put_string(&m.w, 1, "x");
  ml_pb_put_string(&m.w, 2, "y");
  ml_pb_put_string(&m.w, 4, "Relu");
  size_t attr = ml_pb_open(&m.w, 5);
  ml_pb_put_string(&m.w, 1, "body");
  size_t body = ml_pb_open(&m.w, 6);
  ml_pb_close(&m.w, body);
  ml_pb_put_varint(&m.w, 20, 5);
  ml_pb_close(&m.w, attr);
  ml_pb_close(&m.w, node);
  put_io(&m, 12, "y", 1, two, 1);
  expect(&m, "an attribute that is a graph, empty", ML_INVALID_ARGUMENT, "'body': the graph has no outputs");
}

static void put_node_attr(maker *m, int attr_case) {
  size_t node = ml_pb_open(&m->w, 1);
  ml_pb_put_string(&m->w, 1, "x");
  ml_pb_put_string(&m->w, 2, "y");
  ml_pb_put_string(&m->w, 4, "LeakyRelu");
  for (int k = 0; k < (attr_case == 0 ? 2 : 1); k++) {
    size_t attr = ml_pb_open(&m->w, 5);
    ml_pb_put_string(&m->w, 1, "alpha");
    if (attr_case == 1) ml_pb_put_varint(&m->w, 3, 1);                          /* an int where a float belongs */
    else if (attr_case == 2) ml_pb_put_varint(&m->w, 2, 1);                     /* wrong wire type */
    else ml_pb_put_float(&m->w, 2, 0.5f);
    if (attr_case == 3) ml_pb_put_varint(&m->w, 3, 1);                          /* two values */
    if (attr_case != 4) ml_pb_put_varint(&m->w, 20, attr_case == 1 ? 2 : 1);    /* 4: no type, as in old files */
    if (attr_case == 5) ml_pb_put_string(&m->w, 21, "outer");                   /* a function's attribute */
    ml_pb_close(&m->w, attr);
  }
  ml_pb_close(&m->w, node);
}

static void test_attributes(void) {
  static const struct { ml_status code; const char *text, *what;
  } cases[] = {
      {ML_INVALID_ARGUMENT, "twice", "an attribute given twice"},
      {ML_INVALID_ARGUMENT, "alpha", "an attribute of the wrong type"},
      {ML_DATA_LOSS, "wire type", "an attribute of the wrong wire type"},
      {ML_INVALID_ARGUMENT, "several", "an attribute with two values"},
      {ML_OK, NULL, "an attribute without a type"},
      {ML_INVALID_ARGUMENT, "outside a function", "a reference outside a function"},
  };
  for (int i = 0; i < 6; i++) {
    maker m;
    begin_model(&m, 17);
    put_io(&m, 11, "x", 1, two, 1);
    put_node_attr(&m, i);
    put_io(&m, 12, "y", 1, two, 1);
    expect(&m, cases[i].what, cases[i].code, cases[i].text);
  }
}

static void test_tensors(void) {
  static const struct { int type, rank; int64_t dims[20]; size_t size; ml_status code; const char *text, *what; } cases[] = {
    {1, 1, {2}, 8, ML_OK, NULL, "raw data"},
    {1, 1, {2}, 7, ML_INVALID_ARGUMENT, "needs 8", "raw data cut short"},
    {1, 1, {3}, 8, ML_INVALID_ARGUMENT, "needs 12", "a shape that claims more"},
    {1, 2, {INT64_MAX, INT64_MAX}, 8, ML_RESOURCE_EXHAUSTED, "'w'", "a product that overflows"},
    {1, 2, {INT64_C(1) << 61, 8}, 8, ML_RESOURCE_EXHAUSTED, "'w'", "a product that wraps to zero"},
    {1, 1, {INT64_C(1) << 40}, 8, ML_INVALID_ARGUMENT, "'w'", "a terabyte in eight bytes"},
    {1, 1, {-2}, 8, ML_INVALID_ARGUMENT, "negative", "a negative dimension"},
    {1, 17, {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 4, ML_INVALID_ARGUMENT, "rank over 16", "rank 17"},
    {0, 1, {2}, 8, ML_INVALID_ARGUMENT, "element type", "no element type"},
    {77, 1, {2}, 8, ML_INVALID_ARGUMENT, "77", "an unknown element type"},
    {14, 1, {1}, 8, ML_UNIMPLEMENTED, "complex64", "complex numbers"},
    {15, 1, {1}, 16, ML_UNIMPLEMENTED, "complex128", "wide complex numbers"},
    {22, 1, {3}, 2, ML_OK, NULL, "three int4 in two bytes"},
    {22, 1, {3}, 3, ML_INVALID_ARGUMENT, "needs 2", "three int4 in three bytes"},
    {25, 1, {5}, 2, ML_OK, NULL, "five uint2 in two bytes"},
    {28, 1, {3}, 3, ML_OK, NULL, "three float6e3m2 in three bytes"},
    {28, 1, {5}, 3, ML_INVALID_ARGUMENT, "needs 4", "five float6e3m2 in three bytes"},
    {8, 1, {2}, 8, ML_INVALID_ARGUMENT, "strings", "strings as raw data"},
    {1, 2, {0, 5}, 0, ML_OK, NULL, "no elements"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    maker m;
    unsigned char raw[64] = {0};
    memcpy(raw, pair, sizeof pair);
    begin_model(&m, 17);
    put_init(&m, "w", cases[i].type, cases[i].dims, cases[i].rank, raw, cases[i].size);
    put_node(&m, "Identity", "", "n", "w", NULL, "y");
    put_io(&m, 12, "y", cases[i].type == 77 ? 1 : cases[i].type, NULL, 0);
    expect(&m, cases[i].what, cases[i].code, cases[i].text);
  }
  /* the same tensor with the elements packed, unpacked and mixed; and in the wrong field */
  for (int way = 0; way < 5; way++) {
    ml_pb_writer w;
    ml_pb_writer_init(&w);
    ml_pb_put_varint(&w, 1, 4);
    ml_pb_put_varint(&w, 2, way == 4 ? 1 : 6);
    if (way == 0) ml_pb_put_bytes(&w, 5, "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x80\x01\x00", 14);
    else {
      ml_pb_put_varint(&w, 5, 1);
      ml_pb_put_varint(&w, 5, UINT64_MAX);
      if (way == 1) ml_pb_put_varint(&w, 5, 128), ml_pb_put_varint(&w, 5, 0);
      else ml_pb_put_bytes(&w, 5, "\x80\x01\x00", 3);
      if (way == 3) ml_pb_put_bytes(&w, 9, pair, 8);
    }
    ml_tensor *t = NULL;
    ml_error err = {0};
    ml_status status = ml_onnx_tensor_read(w.bytes, w.size, "tensor", &t, NULL, NULL, &err);
    if (way < 3) {
      const int32_t *v = t ? t->view.data : NULL;
      ok(status == ML_OK && v[0] == 1 && v[1] == -1 && v[2] == 128 && v[3] == 0, "int32_data, way %d: %s", way, err.message);
    } else {
      ok(status == ML_INVALID_ARGUMENT && !t && mentions(&err, way == 3 ? "both" : "belong in float_data"), "refused: %s",
         err.message);
    }
    ml_tensor_release(t);
    ml_pb_writer_free(&w);
  }
  ml_pb_writer w;
  ml_pb_writer_init(&w);
  ml_pb_put_varint(&w, 1, 1);
  ml_pb_put_varint(&w, 2, 2);
  ml_pb_put_varint(&w, 5, 256);
  ml_tensor *t;
  ml_error err = {0};
  ok(ml_onnx_tensor_read(w.bytes, w.size, "tensor", &t, NULL, NULL, &err) == ML_INVALID_ARGUMENT &&
         mentions(&err, "256 does not fit uint8"),
     "%s", err.message);
  ml_pb_writer_free(&w);
}

/* ---------------------------------------------------------------- truncation, memory ---- */
static const char *const hostile_cases[] = {"network", "initialisers_typed", "labelencoder_4", "softmax_9_default",
                                            "split_18_uneven"};
enum { N_HOSTILE = sizeof hostile_cases / sizeof *hostile_cases };

static void test_truncation(void) {
  for (size_t c = 0; c < N_HOSTILE; c++) {
    char path[256];
    ml_file_map map;
    ml_error err = {0};
    snprintf(path, sizeof path, GOLDEN "/%s/model.onnx", hostile_cases[c]);
    if (ml_file_open_map(path, &map, &err) != ML_OK) continue;
    size_t good = 0;
    for (size_t n = 0; n < map.size; n++) {
      ml_graph *g = NULL;
      unsigned char *copy = ml_alloc(n ? n : 1); /* exactly n bytes, so that a sanitiser sees a read behind them */
      memcpy(copy, map.bytes, n);
      ml_status status = ml_onnx_read(copy, n, "cut", NULL, &g, &err);
      if (status == ML_OK) good++; /* a cut between two fields behind the graph is a model too */
      else if (!err.message[0]) ok(false, "%s cut at %zu: no message", path, n);
      ml_graph_free(g);
      ml_free(copy);
    }
    ok(good <= map.size / 4, "%s: cut anywhere it is refused or still whole (%zu of %zu)", hostile_cases[c], good, map.size);
    for (size_t n = 0; n < map.size; n++) { /* one byte changed */
      ml_graph *g = NULL;
      unsigned char *copy = ml_alloc(map.size);
      memcpy(copy, map.bytes, map.size);
      copy[n] = (unsigned char)(copy[n] ^ (1u << (n % 8)));
      ml_onnx_read(copy, map.size, "changed", NULL, &g, &err);
      ml_graph_free(g);
      ml_free(copy);
    }
    ml_file_unmap(&map);
  }
}

static ml_status load_write(const char *path) {
  ml_error err;
  ml_graph *g = NULL, *back = NULL;
  void *bytes = NULL;
  size_t size = 0;
  ml_status status = ml_onnx_load(path, NULL, &g, &err);
  if (status == ML_OK) status = ml_onnx_write(g, &bytes, &size, &err);
  if (status == ML_OK) status = ml_onnx_read(bytes, size, "back", NULL, &back, &err);
  ml_free(bytes);
  ml_graph_free(back);
  ml_graph_free(g);
  return status;
}

static void test_memory(void) {
  static const char *const names[] = {"network",           "initialisers_typed", "labelencoder_4", "dropout_9_mask",
                                      "softmax_9_default", "split_18_uneven",    "external"};
  for (size_t c = 0; c < sizeof names / sizeof *names; c++) {
    char path[256];
    uint64_t live = ml_alloc_get_stats().live_blocks, n = 1;
    snprintf(path, sizeof path, GOLDEN "/%s/model.onnx", names[c]);
    bool leaked = false, wrong = false;
    for (;; n++) {
      ml_alloc_fail_at(n, n % 2 == 0);
      ml_status status = load_write(path);
      ml_alloc_fail_at(0, false);
      leaked = leaked || ml_alloc_get_stats().live_blocks != live;
      if (status == ML_OK) break;
      wrong = wrong || status != ML_RESOURCE_EXHAUSTED;
      if (n > 5000) break;
    }
    ok(!leaked && !wrong && n > 10 && n < 5000, "%s: each of %llu allocations may fail%s%s", names[c], (unsigned long long)n - 1,
       leaked ? ", leaks" : "", wrong ? ", wrong status" : "");
  }
}

/* ---------------------------------------------------------------- external data ---- */
static void put_external(maker *m, const char *location, const char *offset, const char *length) {
  const char *const pairs[][2] = {{"location", location}, {"offset", offset}, {"length", length}, {"evil_key", "1"}};
  size_t a = ml_pb_open(&m->w, 5);
  ml_pb_put_varint(&m->w, 1, 2);
  ml_pb_put_varint(&m->w, 2, 1);
  ml_pb_put_string(&m->w, 8, "w");
  for (size_t i = 0; i < 4; i++) {
    if (!pairs[i][1]) continue;
    size_t e = ml_pb_open(&m->w, 13);
    ml_pb_put_string(&m->w, 1, pairs[i][0]);
    ml_pb_put_string(&m->w, 2, pairs[i][1]);
    ml_pb_close(&m->w, e);
  }
  ml_pb_put_varint(&m->w, 14, 1);
  ml_pb_close(&m->w, a);
}

static void external_case(const char *location, const char *offset, const char *length, ml_status code, const char *what) {
  maker m;
  begin_model(&m, 17);
  put_external(&m, location, offset, length);
  put_node(&m, "Identity", "", "n", "w", NULL, "y");
  put_io(&m, 12, "y", 1, two, 1);
  ml_pb_close(&m.w, m.graph);
  const char *path = in_directory("ext/model.onnx");
  write_file(path, m.w.bytes, m.w.size);
  ml_graph *g = NULL;
  ml_error err = {0};
  ml_status status = ml_onnx_load(path, NULL, &g, &err);
  ok(status == code && (code == ML_OK || mentions(&err, "external data")), "%s: %s", what,
     status == ML_OK ? "read" : err.message);
  if (g) ok(((const float *)ml_graph_find(g, "w")->init->view.data)[1] == 2, "%s: its value", what);
  ml_graph_free(g);
  if (code == ML_OK) {
    ok(ml_onnx_read(m.w.bytes, m.w.size, "bytes", NULL, &g, &err) == ML_INVALID_ARGUMENT && mentions(&err, "memory"),
       "external data of bytes: %s", err.message);
  }
  ml_pb_writer_free(&m.w);
}

/* The same attack through an attribute: Constant.value. */
static void external_attribute(const char *location, ml_status code, const char *what) {
  maker m;
  begin_model(&m, 17);
  size_t node = ml_pb_open(&m.w, 1);
  ml_pb_put_string(&m.w, 2, "y");
  ml_pb_put_string(&m.w, 4, "Constant");
  size_t attr = ml_pb_open(&m.w, 5);
  ml_pb_put_string(&m.w, 1, "value");
  size_t a = ml_pb_open(&m.w, 5), e;
  ml_pb_put_varint(&m.w, 1, 2);
  ml_pb_put_varint(&m.w, 2, 1);
  e = ml_pb_open(&m.w, 13);
  ml_pb_put_string(&m.w, 1, "location");
  ml_pb_put_string(&m.w, 2, location);
  ml_pb_close(&m.w, e);
  ml_pb_put_varint(&m.w, 14, 1);
  ml_pb_close(&m.w, a);
  ml_pb_put_varint(&m.w, 20, 4);
  ml_pb_close(&m.w, attr);
  ml_pb_close(&m.w, node);
  put_io(&m, 12, "y", 1, two, 1);
  ml_pb_close(&m.w, m.graph);
  const char *path = in_directory("ext/model.onnx");
  write_file(path, m.w.bytes, m.w.size);
  ml_graph *g = NULL;
  ml_error err = {0};
  ml_status status = ml_onnx_load(path, NULL, &g, &err);
  ok(status == code && (code == ML_OK || (mentions(&err, "external data") && mentions(&err, "'value'"))), "an attribute: %s: %s", what,
     status == ML_OK ? "read" : err.message);
  ml_graph_free(g);
  ml_pb_writer_free(&m.w);
}

static bool device;
static void external_cases(void) {
  char path[600];
  external_case("w.bin", "0", "8", ML_OK, "a file beside the model");
  external_case("w.bin", NULL, NULL, ML_OK, "no offset, no length");
  external_case("sub/deep/w.bin", "0", "8", ML_OK, "a file below");
  external_case("", "0", "8", ML_INVALID_ARGUMENT, "no location");
  external_case("../outside.bin", "0", "8", ML_INVALID_ARGUMENT, "parent directory");
  external_case("sub/../../outside.bin", "0", "8", ML_INVALID_ARGUMENT, "parent directory further on");
  external_case("sub/../w.bin", "0", "8", ML_INVALID_ARGUMENT, "a detour");
  external_case("./w.bin", "0", "8", ML_INVALID_ARGUMENT, "a dot");
  external_case("sub//deep/w.bin", "0", "8", ML_INVALID_ARGUMENT, "an empty component");
  external_case("sub/", "0", "8", ML_INVALID_ARGUMENT, "a slash at the end");
  external_case("..", "0", "8", ML_INVALID_ARGUMENT, "dot dot alone");
  snprintf(path, sizeof path, "%s", in_directory("outside.bin"));
  external_case(path, "0", "8", ML_INVALID_ARGUMENT, "an absolute path");
  external_case("/etc/passwd", "0", "8", ML_INVALID_ARGUMENT, "the password file");
  external_case("soft.bin", "0", "8", ML_INVALID_ARGUMENT, "a symbolic link");
  external_case("softdir/deep/w.bin", "0", "8", ML_INVALID_ARGUMENT, "a symbolic link on the way");
  external_case("up/outside.bin", "0", "8", ML_INVALID_ARGUMENT, "a symbolic link upwards");
  external_case("hard.bin", "0", "8", ML_INVALID_ARGUMENT, "a hard link");
  external_case("fifo", "0", "8", ML_INVALID_ARGUMENT, "a FIFO");
  external_case("sub", "0", "8", ML_INVALID_ARGUMENT, "a directory");
  external_case("missing.bin", "0", "8", ML_NOT_FOUND, "a missing file");
  external_case("w.bin", "1", "8", ML_DATA_LOSS, "over the end");
  external_case("w.bin", "8", NULL, ML_DATA_LOSS, "behind the end");
  external_case("w.bin", "18446744073709551615", "8", ML_DATA_LOSS, "the largest offset");
  external_case("w.bin", "18446744073709551616", "8", ML_INVALID_ARGUMENT, "an offset over 64 bits");
  external_case("w.bin", "-1", "8", ML_INVALID_ARGUMENT, "a negative offset");
  external_case("w.bin", "0", "7", ML_INVALID_ARGUMENT, "another length");
  external_case("w.bin", "0", "9223372036854775807", ML_INVALID_ARGUMENT, "a huge length");
  external_case("w.bin", "0x0", "8", ML_INVALID_ARGUMENT, "hexadecimal");
  external_case("w.bin", " 0", "8", ML_INVALID_ARGUMENT, "a space");
  external_case("w.bin", "", "8", ML_INVALID_ARGUMENT, "an empty offset");
  external_case("short.bin", "0", "8", ML_DATA_LOSS, "a truncated file");
  external_case("empty.bin", "0", "8", ML_DATA_LOSS, "an empty file");
  external_case("soft.bin/w.bin", "0", "8", ML_INVALID_ARGUMENT, "below a link to a file");
  external_case("w.bin/w.bin", "0", "8", ML_NOT_FOUND, "below a file");
  if (device) external_case("device", "0", "8", ML_INVALID_ARGUMENT, "a device");
  memset(path, 'x', 300);
  path[300] = '\0';
  external_case(path, "0", "8", ML_UNAVAILABLE, "a name longer than names are");
  external_attribute("w.bin", ML_OK, "a file beside the model");
  external_attribute("../outside.bin", ML_INVALID_ARGUMENT, "parent directory");
  external_attribute("soft.bin", ML_INVALID_ARGUMENT, "a symbolic link");
  external_attribute("hard.bin", ML_INVALID_ARGUMENT, "a hard link");
  external_attribute("fifo", ML_INVALID_ARGUMENT, "a FIFO");
}

/* The same without openat2, as on kernels and in sandboxes that lack it: a filter makes the call fail in a child, which then opens by component. */
static void without_openat2(void) {
#if defined(__linux__) && defined(SYS_openat2)
  struct sock_filter rules[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat2, 0, 1),
                                BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
  struct sock_fprog filter = {4, rules};
  fflush(stdout);
  pid_t child = fork();
  if (child == 0) {
    unsigned before = tap_failed;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) _exit(77);
    external_cases();
    fflush(stdout);
    _exit(tap_failed == before ? 0 : 1);
  }
  int status = -1;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) return; /* this machine allows no filters */
  ok(child > 0 && status == 0, "external data without openat2: status %d", status);
#endif
}

static void test_external(void) {
  ml_error err;
  ml_make_directories(in_directory("ext/sub/deep"), &err);
  write_file(in_directory("ext/w.bin"), pair, 8);
  write_file(in_directory("ext/sub/deep/w.bin"), pair, 8);
  write_file(in_directory("ext/twice.bin"), pair, 8);
  write_file(in_directory("outside.bin"), pair, 8);
  static const char *const links[] = {"ext/hard.bin", "ext/soft.bin", "ext/softdir", "ext/up", "ext/fifo", "ext/device"};
  for (size_t i = 0; i < sizeof links / sizeof *links; i++) unlink(in_directory(links[i])); /* of an earlier run */
  ok(link(in_directory("ext/twice.bin"), in_directory("ext/hard.bin")) == 0 &&
         symlink("w.bin", in_directory("ext/soft.bin")) == 0 && symlink("sub", in_directory("ext/softdir")) == 0 &&
         symlink("..", in_directory("ext/up")) == 0 && mkfifo(in_directory("ext/fifo"), 0600) == 0,
     "links and a FIFO are made");
  write_file(in_directory("ext/short.bin"), pair, 7);
  write_file(in_directory("ext/empty.bin"), pair, 0);
  device = mknod(in_directory("ext/device"), S_IFCHR | 0600, makedev(1, 5)) == 0; /* /dev/zero; only root may make one */
  external_cases();
  without_openat2();
}

/* ---------------------------------------------------------------- writing ---- */
static void test_refusals(void) {
  ml_error err = {0};
  ml_graph *g = NULL;
  ml_value *x, *y;
  void *bytes;
  size_t size;
  const ml_op_def *op = ml_op_find("mlserve", "ReduceTo");
  ml_graph_new("g", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, two, 1, &x, &err);
  if (ok(op && ml_graph_node(g, op, "n", NULL, 0, 2, (ml_value *[]){x, x}, 1, NULL, &y, &err) == ML_OK, "a training node: %s",
         err.message)) {
    ml_graph_output(g, y, &err);
    ok(ml_onnx_write(g, &bytes, &size, &err) == ML_INVALID_ARGUMENT && mentions(&err, "ReduceTo 'n'") && !bytes,
       "is not written: %s", err.message);
  }
  ml_graph_free(g);
}

/* Models of operators that need a newer set than 17, and forms that must be turned back, for the interop script. */
static void write_newer(const char *name, const char *op, const ml_attr *attrs, size_t n_attrs, bool reduce) {
  ml_error err = {0};
  ml_graph *g = NULL;
  ml_value *x, *y = NULL, *axes = NULL, *z;
  char file[128];
  ml_tensor *t;
  ml_graph_new("g", &g, &err);
  ml_graph_input(g, "x", ML_FLOAT32, (int64_t[]){ML_UNKNOWN, 4}, 2, &x, &err);
  x->dim_names[0] = "batch";
  ml_status status = ml_graph_node(g, ml_op_find("", op), op, attrs, n_attrs, 1, &x, 1, NULL, &y, &err);
  if (status == ML_OK && reduce) {
    ml_tensor_new(ML_INT64, (int64_t[]){1}, 1, &t, &err);
    *(int64_t *)t->view.data = 1;
    ml_graph_initializer(g, "axes", t, false, &axes, &err);
    ml_tensor_release(t);
    status = ml_graph_node(g, ml_op_find("", "ReduceMean"), "mean", NULL, 0, 2, (ml_value *[]){y, axes}, 1, NULL, &z, &err);
    y = z;
  }
  if (!ok(status == ML_OK, "%s: %s", name, err.message)) {
    ml_graph_free(g);
    return;
  }
  ml_graph_output(g, y, &err);
  snprintf(file, sizeof file, "%s.onnx", name);
  ok(ml_onnx_save(g, in_directory(file), &err) == ML_OK, "%s is saved: %s", name, err.message);
  results r;
  ml_tensor_new(ML_FLOAT32, (int64_t[]){3, 4}, 2, &t, &err);
  for (int i = 0; i < 12; i++) ((float *)t->view.data)[i] = (float)(i - 5) * 0.4f;
  if (ok(run_graph(g, &t, &r, &err) == ML_OK, "%s runs: %s", name, err.message)) {
    void *pb;
    size_t size;
    ml_onnx_tensor_write(t, "x", &pb, &size, &err);
    snprintf(file, sizeof file, "%s.input_0.pb", name);
    write_file(in_directory(file), pb, size);
    ml_free(pb);
    ml_onnx_tensor_write(r.out[0], "y", &pb, &size, &err);
    snprintf(file, sizeof file, "%s.output_0.pb", name);
    write_file(in_directory(file), pb, size);
    ml_free(pb);
  }
  free_results(&r);
  ml_tensor_release(t);
  ml_graph_free(g);
}

static void test_newer(void) {
  write_newer("written_gelu", "Gelu", NULL, 0, true);
  write_newer("written_mish", "Mish", NULL, 0, true);
  write_newer("written_swish", "Swish", NULL, 0, false);
  write_newer("written_relu_mean", "Relu", NULL, 0, true);
  ml_attr to = ml_attr_of_int("to", ML_FLOAT64);
  write_newer("written_cast", "Cast", &to, 1, false);
}

/* ---------------------------------------------------------------- safetensors ---- */
static void safetensors_case(const char *header, size_t data, ml_status code, const char *text) {
  unsigned char bytes[1024] = {0};
  uint64_t length = strlen(header);
  ml_safetensors *file = NULL;
  ml_error err = {0};
  memcpy(bytes, &length, 8);
  memcpy(bytes + 8, header, length);
  ml_status status = ml_safetensors_read(bytes, 8 + length + data, "case", &file, &err);
  ok(status == code && (!text || mentions(&err, text)), "safetensors %.60s: %s", header, status == ML_OK ? "read" : err.message);
  ml_safetensors_free(file);
}

static void test_safetensors(void) {
  ml_error err = {0};
  ml_tensor *a, *b, *c;
  ml_tensor_new(ML_BOOL, (int64_t[]){3}, 1, &a, &err);
  ml_tensor_new(ML_FLOAT32, (int64_t[]){2, 2}, 2, &b, &err);
  ml_tensor_new(ML_INT64, NULL, 0, &c, &err);
  ((uint8_t *)a->view.data)[1] = 1;
  for (int i = 0; i < 4; i++) ((float *)b->view.data)[i] = (float)i / 2;
  *(int64_t *)c->view.data = INT64_MIN;
  const ml_named_tensor tensors[] = {{"flags", a}, {"w\"1", b}, {"step", c}};
  const ml_metadata metadata[] = {{"epoch", "3"}, {"text", "a\"b\n"}};
  char path[512];
  snprintf(path, sizeof path, "%s", in_directory("tensors.safetensors"));
  ml_safetensors *file = NULL;
  if (ok(ml_safetensors_save(path, tensors, 3, metadata, 2, &err) == ML_OK && ml_safetensors_load(path, &file, &err) == ML_OK,
         "saved, loaded: %s", err.message)) {
    ml_tensor *w = ml_safetensors_find(file, "w\"1");
    ok(file->n_tensors == 3 && w && equal(&w->view, &b->view) && w->view.data && (uintptr_t)w->view.data % 4 == 0, "floats");
    ok(ml_safetensors_find(file, "flags") && equal(&ml_safetensors_find(file, "flags")->view, &a->view), "booleans");
    ok(ml_safetensors_find(file, "step") && equal(&ml_safetensors_find(file, "step")->view, &c->view), "a scalar");
    ok(!ml_safetensors_find(file, "x") && !ml_safetensors_metadata(file, "x"), "what is not there");
    ok(strcmp(ml_safetensors_metadata(file, "text"), "a\"b\n") == 0 && file->n_metadata == 2, "metadata");
    ml_tensor *kept = ml_tensor_retain(w);
    ml_safetensors_free(file);
    ok(((float *)kept->view.data)[3] == 1.5f, "a tensor outlives the file");
    ml_tensor_release(kept);
  }
  ml_file_map map;
  ml_file_open_map(path, &map, &err);
  for (size_t n = 0; n < map.size; n++) {
    unsigned char *copy = ml_alloc(n + 1);
    memcpy(copy, map.bytes, n);
    if (ml_safetensors_read(copy, n, "cut", &file, &err) == ML_OK) {
      ok(false, "cut at %zu it is refused", n);
      ml_safetensors_free(file);
    }
    ml_free(copy);
  }
  uint64_t live = ml_alloc_get_stats().live_blocks, n = 1;
  bool leaked = false;
  for (;; n++) {
    ml_alloc_fail_at(n, false);
    ml_status status = ml_safetensors_load(path, &file, &err);
    if (status == ML_OK) {
      ml_safetensors_free(file);
      status = ml_safetensors_save(in_directory("again.safetensors"), tensors, 3, metadata, 2, &err);
    }
    ml_alloc_fail_at(0, false);
    leaked = leaked || ml_alloc_get_stats().live_blocks != live;
    if (status == ML_OK || n > 1000) break;
  }
  ok(!leaked && n > 10 && n < 1000, "each of %llu allocations may fail", (unsigned long long)n - 1);
  ml_file_unmap(&map);
  const ml_named_tensor twice[] = {{"a", b}, {"a", b}};
  ok(ml_safetensors_save(path, twice, 2, NULL, 0, &err) == ML_INVALID_ARGUMENT && mentions(&err, "'a'"), "%s", err.message);
  ml_tensor_release(a);
  ml_tensor_release(b);
  ml_tensor_release(c);

  safetensors_case("{}", 0, ML_OK, NULL);
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}  ", 4, ML_OK, NULL);
  safetensors_case(
      "{\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]},\"a\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]"
      "}}",
      3, ML_OK, NULL);
  safetensors_case("[]", 0, ML_DATA_LOSS, "'{'");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5, ML_DATA_LOSS, "belong to no tensor");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, ML_DATA_LOSS, "outside");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, ML_DATA_LOSS, "needs 8");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 8, ML_DATA_LOSS, "hole");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, ML_DATA_LOSS, "hole");
  safetensors_case(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,"
      "3]}}",
      3, ML_DATA_LOSS, "overlap");
  safetensors_case(
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,"
      "2]}}",
      2, ML_DATA_LOSS, "twice");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 0,
                   ML_RESOURCE_EXHAUSTED, "'a'");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, ML_INVALID_ARGUMENT, "non-negative");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, ML_INVALID_ARGUMENT, "integer");
  safetensors_case("{\"a\":{\"dtype\":\"F8_E9M9\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, ML_INVALID_ARGUMENT, "F8_E9M9");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, ML_INVALID_ARGUMENT, "missing");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, ML_INVALID_ARGUMENT, "'x'");
  safetensors_case("{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4,8]}}", 4, ML_INVALID_ARGUMENT, "offsets");
  safetensors_case("{\"__metadata__\":{\"a\":1}}", 0, ML_INVALID_ARGUMENT, "string");
  safetensors_case("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0, ML_DATA_LOSS, "twice");
  safetensors_case("{\"a\":5}", 0, ML_INVALID_ARGUMENT, "object");
  safetensors_case("{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, ML_INVALID_ARGUMENT, "NUL");
  unsigned char huge[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
  ok(ml_safetensors_read(huge, 16, "huge", &file, &err) == ML_DATA_LOSS && mentions(&err, "claims"), "%s", err.message);
}

/* ---------------------------------------------------------------- npy ---- */
static void npy_case(int version, const char *header, const void *data, size_t size, ml_status code, const char *text) {
  unsigned char bytes[1024];
  size_t length = strlen(header), at = 0;
  memcpy(bytes, "\x93NUMPY", 6);
  bytes[6] = (unsigned char)version;
  bytes[7] = 0;
  bytes[8] = (unsigned char)length;
  bytes[9] = (unsigned char)(length >> 8);
  at = 10;
  if (version > 1) bytes[10] = bytes[11] = 0, at = 12;
  memcpy(bytes + at, header, length);
  if (size) memcpy(bytes + at + length, data, size);
  ml_tensor *t = NULL;
  ml_error err = {0};
  ml_status status = ml_npy_read(bytes, at + length + size, "case", &t, &err);
  ok(status == code && (!text || mentions(&err, text)), "npy %.60s: %s", header, status == ML_OK ? "read" : err.message);
  if (t && strstr(header, "'fortran_order': True") && t->view.rank == 2) {
    const int16_t *v = t->view.data; /* stored by columns: 1 4 2 5 3 6 */
    bool right = true;
    for (int16_t i = 0; i < 6; i++) right = right && v[i] == i + 1;
    ok(right, "Fortran order is turned");
  }
  ml_tensor_release(t);
}

static void test_npy(void) {
  static const int16_t columns[] = {1, 4, 2, 5, 3, 6};
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }  \n", columns, 12, ML_OK, NULL);
  npy_case(2, "{'descr': '<i2', 'fortran_order': True, 'shape': (2, 3), }\n", columns, 12, ML_OK, NULL);
  npy_case(3, "{\"shape\":(6,),\"descr\":\"<i2\",\"fortran_order\":False}", columns, 12, ML_OK, NULL);
  npy_case(1, "{'descr': '|b1', 'fortran_order': False, 'shape': ()}\n", "\x05", 1, ML_OK, NULL);
  npy_case(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 5)}\n", NULL, 0, ML_OK, NULL);
  npy_case(1, "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", columns, 8, ML_UNIMPLEMENTED, "'|O'");
  npy_case(1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}\n", columns, 4, ML_UNIMPLEMENTED, "structured");
  npy_case(1, "{'descr': '>i2', 'fortran_order': False, 'shape': (6,)}\n", columns, 12, ML_UNIMPLEMENTED, "big-endian");
  npy_case(1, "{'descr': '<U4', 'fortran_order': False, 'shape': (1,)}\n", columns, 12, ML_UNIMPLEMENTED, "'<U4'");
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (7,)}\n", columns, 12, ML_DATA_LOSS, "needs 14");
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (5,)}\n", columns, 12, ML_DATA_LOSS, "needs 10");
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (4611686018427387904, 4)}\n", columns, 0, ML_RESOURCE_EXHAUSTED,
           NULL);
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (99999999999999999999,)}\n", columns, 0, ML_INVALID_ARGUMENT,
           "large");
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (-1,)}\n", columns, 12, ML_DATA_LOSS, "dimension");
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (6)}\n", columns, 12, ML_DATA_LOSS, "shape");
  npy_case(1, "{'descr': '<i2', 'fortran_order': False}\n", columns, 12, ML_DATA_LOSS, "missing");
  npy_case(1, "{'descr': '<i2', 'descr': '<i2', 'fortran_order': False, 'shape': (6,)}\n", columns, 12, ML_DATA_LOSS, "descr");
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (6,), 'x': 1}\n", columns, 12, ML_DATA_LOSS, "'x'");
  npy_case(1, "{'descr': '<i2', 'fortran_order': 1, 'shape': (6,)}\n", columns, 12, ML_DATA_LOSS, "fortran_order");
  npy_case(1, "{'descr': '<i2', 'fortran_order': False, 'shape': (6,)} __import__('os')\n", columns, 12, ML_DATA_LOSS, "after");
  npy_case(9, "{}", NULL, 0, ML_UNIMPLEMENTED, "version 9");
  ml_error err = {0};
  ml_tensor *t, *back = NULL;
  ml_tensor_new(ML_FLOAT64, (int64_t[]){3}, 1, &t, &err);
  for (int i = 0; i < 3; i++) ((double *)t->view.data)[i] = i * 0.1;
  char path[512];
  snprintf(path, sizeof path, "%s", in_directory("array.npy"));
  ok(ml_npy_save(path, t, &err) == ML_OK && ml_npy_load(path, &back, &err) == ML_OK && equal(&t->view, &back->view),
     "saved, loaded %s", err.message);
  ml_tensor_release(back);
  void *bytes;
  size_t size;
  ml_npy_write(t, &bytes, &size, &err);
  ok(size == 64 * 2 + 24 && ((char *)bytes)[127] == '\n', "data begins aligned");
  for (size_t n = 0; n < size; n++) {
    unsigned char *copy = ml_alloc(n + 1);
    memcpy(copy, bytes, n);
    if (ml_npy_read(copy, n, "cut", &back, &err) == ML_OK) ok(false, "cut at %zu it is refused", n);
    ml_free(copy);
  }
  uint64_t live = ml_alloc_get_stats().live_blocks;
  for (uint64_t n = 1; n < 100; n++) {
    ml_alloc_fail_at(n, false);
    ml_status status = ml_npy_load(path, &back, &err);
    ml_alloc_fail_at(0, false);
    if (status == ML_OK) ml_tensor_release(back);
    if (ml_alloc_get_stats().live_blocks != live) ok(false, "allocation %llu fails: a leak", (unsigned long long)n);
    if (status == ML_OK) break;
  }
  ml_free(bytes);
  ml_tensor_release(t);
  ml_tensor *s;
  ml_tensor_new(ML_STRING, two, 1, &s, &err);
  ok(ml_npy_save(path, s, &err) == ML_INVALID_ARGUMENT && mentions(&err, "string"), "%s", err.message);
  ml_tensor_release(s);
}

int main(int argc, char **argv) {
  char pattern[] = "/tmp/mlserve-format-XXXXXX";
  const char *made = argc > 1 ? argv[1] : mkdtemp(pattern);
  ml_error err;
  snprintf(directory, sizeof directory, "%s", made);
  ml_make_directories(directory, &err);
  test_golden();
  test_network();
  test_structure();
  test_attributes();
  test_tensors();
  test_external();
  test_refusals();
  test_newer();
  test_safetensors();
  test_npy();
  test_truncation();
  test_memory();
  if (argc == 1) {
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    if (system(command) != 0) printf("# %s is left\n", directory);
  }
  ok(ml_alloc_get_stats().live_blocks == 0, "nothing leaks: %llu blocks", (unsigned long long)ml_alloc_get_stats().live_blocks);
  return done();
}
