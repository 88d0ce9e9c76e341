/* Fuzz target: a model is loaded, compiled at a level and run with made-up inputs, under limits. Its mutator works on fields of the
 * protobuf, at any depth, and keeps lengths right, so that most of what it makes is still a model. Demands: no crash, no hang, no leak, a message
 * with every refusal, and no more memory than the limit. The last byte chooses the level and the inputs' values; seeds are models. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "codec/protobuf.h"
#include "format/onnx.h"
#include "graph/program.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

#define DEMAND(condition) do { if (!(condition)) abort(); } while (0)
enum { MAX_IO = 16, MAX_ELEMENTS = 4096, MAX_MEMORY = 8 << 20, MAX_DEPTH = 24 };

/* ---------------------------------------------------------------- running ---- */
static ml_tensor *input_of(const ml_value *v, unsigned choice) {
  int64_t dims[ML_MAX_RANK] = { 0 };
  int32_t rank = v->rank == ML_UNKNOWN ? (int32_t)(choice % 4) : v->rank;
  ml_tensor *t;
  ml_str texts[] = { { "a", 1 }, { "", 0 }, { "cat dog", 7 } };
  for (int32_t d = 0; d < rank; d++) dims[d] = v->rank == ML_UNKNOWN || v->dims[d] == ML_UNKNOWN ? 1 + (int64_t)(choice / 4 % 3) : v->dims[d];
  size_t count;
  if (v->type || ml_dtype_size(v->dtype) == 0 || ml_shape_count(dims, rank, v->dtype, &count, NULL) != ML_OK || count > MAX_ELEMENTS) return NULL;
  if (ml_tensor_new(v->dtype, dims, rank, &t, NULL) != ML_OK) return NULL;
  for (size_t i = 0; i < count; i++) {
    if (v->dtype == ML_STRING) ((ml_str *)t->view.data)[i] = texts[(i + choice) % 3];
    else if (v->dtype == ML_FLOAT32 || v->dtype == ML_FLOAT64 || ml_dtype_is_integer(v->dtype))
      ml_element_set(t->view.data, v->dtype, i, (double)((i + choice) % 5) - (choice / 16 % 3));
  }
  return t;
}

static ml_status take(void *context, ml_session *session, ml_error *err) {
  const ml_graph *g = context;
  (void)err;
  for (size_t i = 0; i < g->n_outputs; i++) {
    const ml_view *view = ml_session_output(session, i);
    size_t count;
    if (view->type) continue; /* a sequence */
    DEMAND(ml_view_known(view) && ml_shape_count(view->dims, view->rank, view->dtype, &count, NULL) == ML_OK && count == view->count);
  }
  return ML_OK;
}

static void run_graph(const ml_graph *g, unsigned choice) {
  ml_program *program = NULL;
  ml_error err = { 0 };
  ml_tensor *given[MAX_IO] = { 0 };
  ml_view views[MAX_IO];
  ml_compile_options options = { .level = (ml_level)(choice % 3), .max_memory = MAX_MEMORY, .max_loop = 1000 };
  bool whole = g->n_inputs <= MAX_IO;
  if (ml_program_new(g, &options, &program, &err) != ML_OK) {
    DEMAND(!program && err.message[0]);
    return;
  }
  for (size_t i = 0; whole && i < g->n_inputs; i++) {
    whole = (given[i] = input_of(g->inputs[i], choice)) != NULL;
    if (whole) views[i] = given[i]->view;
  }
  for (int runs = 0; whole && runs < 2; runs++)
    DEMAND(ml_program_run(program, views, take, (void *)(uintptr_t)g, &err) == ML_OK || err.message[0]);
  for (size_t i = 0; i < MAX_IO; i++) ml_tensor_release(given[i]);
  ml_program_release(program);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t live = ml_alloc_get_stats().live_blocks;
  ml_onnx_limits limits = { .max_nodes = 200, .max_bytes = 1 << 20 };
  ml_error err = { 0 };
  ml_graph *g = NULL;
  if (size == 0) return 0;
  if (ml_onnx_read(data, size - 1, "fuzz", &limits, &g, &err) == ML_OK) run_graph(g, data[size - 1]);
  else DEMAND(!g && err.message[0]);
  ml_graph_free(g);
  DEMAND(ml_alloc_get_stats().live_blocks == live);
  return 0;
}

/* ---------------------------------------------------------------- mutating ---- */
static uint64_t state;
static size_t below(size_t n) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return n ? (size_t)(state % n) : 0;
}

static uint64_t odd_number(void) {
  static const uint64_t odd[] = { 0, 1, 2, 3, 4, 5, 7, 8, 16, 255, 256, 65536, INT32_MAX, UINT32_MAX, UINT64_C(1) << 40, INT64_MAX,
                                  UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 1, UINT64_MAX - 2 };
  return odd[below(sizeof odd / sizeof *odd)];
}

/* Whether the bytes may be a message: they read as fields to the end, and are not a short text. */
static bool is_message(const ml_pb_field *f, const ml_pb_reader *parent) {
  ml_pb_reader reader = ml_pb_reader_sub(parent, f);
  ml_pb_field inner;
  ml_status status = ML_OK;
  size_t n = 0;
  ml_error err;
  while (ml_pb_next(&reader, &inner, &status, &err)) n++;
  return status == ML_OK && n > 0 && f->size > 2;
}

static size_t count_fields(ml_pb_reader reader, int depth) {
  ml_pb_field f;
  ml_status status;
  ml_error err;
  size_t n = 0;
  while (ml_pb_next(&reader, &f, &status, &err)) {
    n++;
    if (f.wire == ML_PB_BYTES && depth < MAX_DEPTH && is_message(&f, &reader)) n += count_fields(ml_pb_reader_sub(&reader, &f), depth + 1);
  }
  return n;
}

static void put_field(ml_pb_writer *w, const ml_pb_field *f) {
  switch (f->wire) {
    case ML_PB_VARINT: ml_pb_put_varint(w, f->number, f->integer); break;
    case ML_PB_FIXED32: ml_pb_put_float(w, f->number, ml_pb_float(f)); break;
    case ML_PB_FIXED64: ml_pb_put_double(w, f->number, ml_pb_double(f)); break;
    default: ml_pb_put_bytes(w, f->number, f->bytes, f->size); break;
  }
}

/* Bytes of a text, a packed list or raw data, changed a little. */
static void put_changed_bytes(ml_pb_writer *w, const ml_pb_field *f) {
  uint8_t bytes[512];
  size_t n = f->size;
  if (n > sizeof bytes - 8) {
    ml_pb_put_bytes(w, f->number, f->bytes, n - below(9) % n);
    return;
  }
  if (n > 0) memcpy(bytes, f->bytes, n);
  n = LLVMFuzzerMutate(bytes, n, sizeof bytes);
  ml_pb_put_bytes(w, f->number, bytes, n);
}

static void put_changed(ml_pb_writer *w, const ml_pb_field *f) {
  static const float odd[] = { 0, -1, 0.5f, 1e30f, -1e30f, 1e-40f, 3 };
  switch (below(8)) {
    case 0: return;                                   /* left out */
    case 1: put_field(w, f); put_field(w, f); return; /* twice */
    default: break;
  }
  if (f->wire == ML_PB_VARINT) ml_pb_put_varint(w, f->number, below(3) ? odd_number() : f->integer + 1 - 2 * below(2));
  else if (f->wire == ML_PB_FIXED32) ml_pb_put_float(w, f->number, below(9) ? odd[below(7)] : (float)__builtin_nan(""));
  else if (f->wire == ML_PB_FIXED64) ml_pb_put_double(w, f->number, (double)odd[below(7)]);
  else put_changed_bytes(w, f);
}

/* Copies the message with field number `target` (counted in order, at any depth) changed; what is left of the count. */
static size_t copy_changed(ml_pb_reader reader, ml_pb_writer *w, size_t target, int depth) {
  ml_pb_field f, before = { 0 };
  ml_status status;
  ml_error err;
  while (ml_pb_next(&reader, &f, &status, &err)) {
    bool now = target-- == 0, inside = f.wire == ML_PB_BYTES && depth < MAX_DEPTH && is_message(&f, &reader);
    if (now && inside && below(4) != 0) { /* a whole message: left out, twice, or in the place of the one before it */
      size_t how = below(3);
      if (how == 1) put_field(w, &f);
      if (how > 0) put_field(w, how == 2 && before.wire == ML_PB_BYTES ? &before : &f);
    } else if (now) {
      put_changed(w, &f);
    } else if (inside && target != SIZE_MAX) {
      size_t n = count_fields(ml_pb_reader_sub(&reader, &f), depth + 1);
      if (target < n) {
        size_t mark = ml_pb_open(w, f.number);
        copy_changed(ml_pb_reader_sub(&reader, &f), w, target, depth + 1);
        ml_pb_close(w, mark);
        target = SIZE_MAX / 2;
      } else {
        put_field(w, &f);
        target -= n;
      }
    } else {
      put_field(w, &f);
    }
    before = f;
    if (now) target = SIZE_MAX / 2;
  }
  return target;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
  ml_pb_reader reader;
  ml_pb_writer w;
  state = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
  if (size < 8 || below(16) == 0) return LLVMFuzzerMutate(data, size, max_size);
  uint8_t choice = below(4) ? data[size - 1] : (uint8_t)below(256);
  ml_pb_reader_init(&reader, data, size - 1);
  ml_pb_writer_init(&w);
  copy_changed(reader, &w, below(count_fields(reader, 0)), 0);
  if (w.status == ML_OK && w.size > 0 && w.size < max_size) {
    memcpy(data, w.bytes, w.size);
    data[w.size] = choice;
    size = w.size + 1;
  }
  ml_pb_writer_free(&w);
  return size;
}
