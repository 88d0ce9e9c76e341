/* Alone, a call's elements go from the request's bytes into the session's inputs, and from its outputs into the answer: nothing is copied twice. In a
 * batch they wait where they are in the bytes when they lie there as elements, and are unpacked into buffers of the call when they do not. Calls and
 * their buffers are pooled by servable, so a call like an earlier one allocates nothing. */
#include "serve/call.h"

#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "serve/infer_model.h"
#include "serve/statistics.h"

enum { MAX_IDLE = 16, KEPT_BYTES = 4 << 20 };

/* ---------------------------------------------------------------- pool ---- */
void ml_calls_init(ml_calls *calls) {
  *calls = (ml_calls){0};
  pthread_mutex_init(&calls->mutex, NULL); /* cannot fail with default attributes on the systems we build for */
}

static void destroy(ml_call *c, size_t n_inputs) {
  for (size_t i = 0; c->buffers && i < n_inputs; i++) ml_free(c->buffers[i].data);
  ml_free(c->views);
  ml_free(c->wires);
  ml_free(c->seen);
  ml_free(c->buffers);
  ml_free(c->wanted);
  ml_free(c->outputs);
  ml_free(c->answers);
  ml_ticket_free(&c->ticket);
  ml_free(c);
}

void ml_calls_free(ml_calls *calls, ml_servable *servable) {
  size_t n = calls->idle ? ml_program_graph(ml_servable_program(servable))->n_inputs : 0;
  while (calls->idle) {
    ml_call *c = calls->idle;
    calls->idle = c->next;
    destroy(c, n);
  }
  pthread_mutex_destroy(&calls->mutex);
}

/* Outputs of the signature that has most. */
static size_t most_outputs(const ml_servable *s) {
  size_t most = 0;
  for (size_t i = 0; i < ml_servable_signatures(s); i++)
    if (ml_servable_signature_at(s, i)->n_outputs > most) most = ml_servable_signature_at(s, i)->n_outputs;
  return most;
}

static ml_status take(ml_servable *s, ml_call **out, ml_error *err) {
  const ml_graph *g = ml_program_graph(ml_servable_program(s));
  ml_calls *calls = ml_servable_calls(s);
  pthread_mutex_lock(&calls->mutex);
  ml_call *c = calls->idle;
  if (c) {
    calls->idle = c->next;
    calls->n--;
  }
  pthread_mutex_unlock(&calls->mutex);
  if (!c) {
    c = ml_alloc_zero(1, sizeof *c);
    if (!c) return ml_fail_memory(err, sizeof *c, "a request");
    c->views = ml_alloc_zero(g->n_inputs + 1, sizeof *c->views);
    c->wires = ml_alloc_zero(g->n_inputs + 1, sizeof *c->wires);
    c->seen = ml_alloc_zero(g->n_inputs + 1, sizeof *c->seen);
    c->buffers = ml_alloc_zero(g->n_inputs + 1, sizeof *c->buffers);
    c->outputs = ml_alloc_zero(g->n_outputs + 1, sizeof *c->outputs);
    c->n_answers = most_outputs(s);
    c->answers = ml_alloc_zero(c->n_answers + 1, sizeof *c->answers);
    if (!c->views || !c->wires || !c->seen || !c->buffers || !c->outputs || !c->answers) {
      destroy(c, g->n_inputs);
      return ml_fail_memory(err, g->n_inputs * sizeof *c->views, "a request");
    }
  } else if (g->n_inputs > 0) {
    memset(c->views, 0, g->n_inputs * sizeof *c->views);
    memset(c->wires, 0, g->n_inputs * sizeof *c->wires);
    memset(c->seen, 0, g->n_inputs * sizeof *c->seen);
  }
  c->servable = s;
  c->signature = NULL;
  c->n_wanted = 0;
  c->id_length = 0;
  c->priority = c->timeout_us = 0;
  *out = c;
  return ML_OK;
}

static void give(ml_servable *s, ml_call *c) {
  ml_calls *calls = ml_servable_calls(s);
  size_t n = ml_program_graph(ml_servable_program(s))->n_inputs, bytes = c->wanted_bytes;
  for (size_t i = 0; i < n; i++) bytes += c->buffers[i].bytes;
  pthread_mutex_lock(&calls->mutex);
  bool keep = calls->n < MAX_IDLE && bytes <= KEPT_BYTES; /* one large request should not pin its memory */
  if (keep) {
    c->next = calls->idle;
    calls->idle = c;
    calls->n++;
  }
  pthread_mutex_unlock(&calls->mutex);
  if (!keep) destroy(c, n);
}

void ml_call_free(ml_call *c) {
  if (!c) return;
  ml_servable *s = c->servable;
  for (size_t i = 0; i < c->n_answers; i++) ml_answer_clear(&c->answers[i]);
  if (c->session) ml_program_return(ml_servable_program(s), c->session);
  c->session = NULL;
  ml_servable *last = ml_ticket_leave(&c->ticket); /* the call's buffers are the servable's */
  give(s, c);
  ml_servable_release(last);
}

/* ---------------------------------------------------------------- for the codecs ---- */
ml_ticket *ml_call_ticket(ml_call *c) { return &c->ticket; }

const char *ml_call_version(const ml_call *c, char text[24]) {
  if (c->options.version) return c->options.version;
  snprintf(text, 24, "%lld", (long long)ml_servable_version(c->servable));
  return text;
}

ml_status ml_call_want(ml_call *c, ml_wanted wanted, ml_error *err) {
  size_t need = (c->n_wanted + 1) * sizeof wanted; /* each output once */
  if (need > c->wanted_bytes) ML_TRY(ml_grow(&c->wanted, &c->wanted_bytes, need, 1, "a request", err));
  c->wanted[c->n_wanted++] = wanted;
  return ML_OK;
}

ml_status ml_call_malformed(ml_status status, ml_error *err) {
  if (status != ML_DATA_LOSS) return status;
  ml_error detail = *err;
  return ml_fail(err, ML_INTERNAL, "the request is no message of this method: %s", detail.message);
}

/* ---------------------------------------------------------------- life ---- */
static void count_failure(const ml_call *c) {
  if (c->codec->counted) ml_statistics_failure(ml_servable_statistics(c->servable), ml_clock_ns() - c->begin_ns);
}

ml_status ml_call_decode(ml_servable *servable, const ml_call_codec *codec, const void *bytes, size_t size, const ml_call_options *options,
                         ml_call **out, ml_error *err) {
  ml_call *c = NULL;
  ml_error local;
  *out = NULL;
  if (!err) err = &local;
  ML_TRY(take(servable, &c, err));
  c->codec = codec;
  c->options = options ? *options : (ml_call_options){0};
  c->begin_ns = codec->counted ? ml_clock_ns() : 0;
  ml_status status = codec->decode(c, bytes, size, err);
  if (status == ML_OK) {
    *out = c;
    return ML_OK;
  }
  count_failure(c);
  ml_call_free(c);
  return status;
}

static ml_status run(ml_call *c, ml_error *err) {
  ml_program *program = ml_servable_program(c->servable);
  const ml_graph *g = ml_program_graph(program);
  ML_TRY(ml_program_acquire(program, c->views, &c->session, err));
  for (size_t i = 0; i < g->n_inputs; i++)
    ML_TRY(ml_call_malformed(ml_wire_copy(&c->wires[i], c->views[i].dtype, c->views[i].count, ml_session_input(c->session, i)->data, err), err));
  if (c->codec->counted) c->decoded_ns = ml_clock_ns();
  ML_TRY(ml_session_run(c->session, err));
  for (size_t i = 0; i < g->n_outputs; i++) c->outputs[i] = ml_session_output(c->session, i);
  return ML_OK;
}

ml_status ml_call_run(ml_call *c, ml_error *err) {
  ml_error local;
  ml_status status = run(c, err ? err : &local);
  if (status != ML_OK) count_failure(c);
  return status;
}

static ml_status unpack(ml_call *c, ml_error *err) {
  const ml_graph *g = ml_program_graph(ml_servable_program(c->servable));
  for (size_t i = 0; i < g->n_inputs; i++) {
    ml_view *v = &c->views[i];
    const ml_wire *w = &c->wires[i];
    struct ml_call_buffer *b = &c->buffers[i];
    size_t bytes = v->count * ml_dtype_size(v->dtype); /* the shape has been checked */
    if (ml_wire_in_place(w, v->dtype, v->count) || (w->bytes && w->bytes == b->data)) { /* or the codec has unpacked it */
      v->data = (void *)(uintptr_t)w->bytes; /* read only */
      continue;
    }
    if (bytes + 1 > b->bytes) ML_TRY(ml_grow(&b->data, &b->bytes, bytes + 1, 1, "a request", err));
    v->data = b->data;
    ML_TRY(ml_call_malformed(ml_wire_copy(w, v->dtype, v->count, v->data, err), err));
  }
  return ML_OK;
}

ml_status ml_call_submit(ml_call *c, const ml_request_options *options, ml_error *err) {
  ml_request_options own = *options;
  ml_error local;
  if (!err) err = &local;
  if (c->priority > 0) own.priority = c->priority < UINT32_MAX ? (uint32_t)c->priority : UINT32_MAX;
  if (c->timeout_us > 0 && c->timeout_us < UINT32_MAX) {
    uint64_t deadline = ml_clock_ns() + c->timeout_us * 1000;
    if (!own.deadline_ns || deadline < own.deadline_ns) own.deadline_ns = deadline;
  }
  ml_status status = unpack(c, err);
  if (c->codec->counted) c->decoded_ns = ml_clock_ns();
  if (status == ML_OK) status = ml_ticket_submit(&c->ticket, c->servable, c->views, &own, err);
  if (status != ML_OK) count_failure(c);
  return status;
}

static size_t rows_of(const ml_call *c) { return ml_servable_batches(c->servable) ? (size_t)c->views[0].dims[0] : 1; }

ml_status ml_call_finish(ml_call *c, ml_pb_writer *out, ml_error *err) {
  const ml_graph *g = ml_program_graph(ml_servable_program(c->servable));
  ml_status status = ML_OK;
  ml_error local;
  if (!err) err = &local;
  if (!c->session) {
    status = ml_ticket_wait(&c->ticket, err);
    if (status == ML_OK) memcpy(c->outputs, c->ticket.outputs, g->n_outputs * sizeof *c->outputs);
  }
  uint64_t ran = c->codec->counted ? ml_clock_ns() : 0;
  if (status == ML_OK) status = c->codec->encode(c, out, err);
  if (status == ML_OK && out->status != ML_OK) status = ml_fail_memory(err, out->capacity, "a response");
  if (status != ML_OK) {
    count_failure(c);
  } else if (c->codec->counted) {
    uint64_t end = ml_clock_ns();
    ml_statistics_success(ml_servable_statistics(c->servable), rows_of(c), (uint64_t[]){c->decoded_ns - c->begin_ns, ran - c->decoded_ns, end - ran});
  }
  return status;
}

ml_status ml_servable_call(ml_servable *servable, const ml_call_codec *codec, const void *bytes, size_t size, const ml_call_options *options,
                           ml_pb_writer *out, ml_error *err) {
  ml_call *c;
  ML_TRY(ml_call_decode(servable, codec, bytes, size, options, &c, err));
  ml_status status = ml_call_run(c, err);
  if (status == ML_OK) status = ml_call_finish(c, out, err);
  ml_call_free(c);
  return status;
}
