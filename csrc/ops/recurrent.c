/* LSTM, GRU and RNN (contract: ops/recurrent.h; the arithmetic: ops/recurrent.inc.h). Weights that are constant are packed once
 * for the dense kernel, with both biases in them; weights that training changes go through the general matrix product. */
#include "ops/recurrent.h"
#include <string.h>
#include <tgmath.h>
#undef I /* of <complex.h> */
#include "ops/elementwise.h"

/* ---------------------------------------------------------------- attributes and shapes ---- */
typedef struct act_row {
  const char *name;
  ml__gate_act act;
  int parameters;
  float alpha, beta;
} act_row;

static const act_row acts[] = {
  { "Sigmoid", ML__GATE_SIGMOID, 0, 0, 0 }, { "Tanh", ML__GATE_TANH, 0, 0, 0 }, { "Relu", ML__GATE_RELU, 0, 0, 0 },
  { "LeakyRelu", ML__GATE_LEAKY_RELU, 1, 0.01f, 0 }, { "ThresholdedRelu", ML__GATE_THRESHOLDED_RELU, 1, 1, 0 },
  { "ScaledTanh", ML__GATE_SCALED_TANH, 2, 1, 1 }, { "HardSigmoid", ML__GATE_HARD_SIGMOID, 2, 0.2f, 0.5f },
  { "Elu", ML__GATE_ELU, 1, 1, 0 }, { "Softsign", ML__GATE_SOFTSIGN, 0, 0, 0 }, { "Softplus", ML__GATE_SOFTPLUS, 0, 0, 0 },
  { "Affine", ML__GATE_AFFINE, 2, 1, 0 },
};

static bool same_name(ml_str s, const char *name) { /* without regard to case, as everybody reads them */
  size_t n = strlen(name);
  if (s.length != n) return false;
  for (size_t i = 0; i < n; i++) if ((s.bytes[i] | 32) != (name[i] | 32)) return false;
  return true;
}

static ml_status gates_of(const ml_attrs *list, ml__recurrent *m, ml_error *err) {
  static const ml__gate defaults[3][3] = { { { ML__GATE_TANH, 0, 0 } }, { { ML__GATE_SIGMOID, 0, 0 }, { ML__GATE_TANH, 0, 0 } },
                                           { { ML__GATE_SIGMOID, 0, 0 }, { ML__GATE_TANH, 0, 0 }, { ML__GATE_TANH, 0, 0 } } };
  size_t each = (size_t)m->cell + 1, used_alpha = 0, used_beta = 0;
  ml_view names = { 0 }, alpha = { 0 }, beta = { 0 };
  for (size_t d = 0; d < 2; d++) memcpy(m->gates[d], defaults[m->cell], sizeof m->gates[d]);
  if (!ml__attr_list(list, "activations", &names) || names.count == 0) return ML_OK;
  (void)ml__attr_list(list, "activation_alpha", &alpha);
  (void)ml__attr_list(list, "activation_beta", &beta);
  if (names.count != each * m->D)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute activations has %zu values, expected %zu", names.count, each * m->D);
  for (size_t i = 0; i < names.count; i++) {
    ml_str s = ((const ml_str *)names.data)[i];
    const act_row *row = acts, *end = acts + sizeof acts / sizeof *acts;
    while (row < end && !same_name(s, row->name)) row++;
    if (row == end)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute activations[%zu]: unknown activation '%.*s'", i,
                     s.length > 40 ? 40 : (int)s.length, s.bytes);
    ml__gate *g = &m->gates[i / each][i % each];
    *g = (ml__gate) { row->act, row->alpha, row->beta };
    if (row->parameters > 0 && used_alpha < alpha.count) g->alpha = ((const float *)alpha.data)[used_alpha++];
    if (row->parameters > 1 && used_beta < beta.count) g->beta = ((const float *)beta.data)[used_beta++];
  }
  return ML_OK;
}

/* Input `v` has the shape; 0 stands for a dimension not known yet. */
static ml_status expect(const ml_view *v, const char *name, ml_dtype dtype, const size_t *dims, int32_t rank, ml_error *err) {
  if (!v) return ML_OK;
  int64_t want[3] = { 0 };
  char got[96], text[96];
  if (v->dtype != dtype && v->dtype != ML_DTYPE_NONE)
    return ml_fail(err, ML_INVALID_ARGUMENT, "%s is %s, expected %s", name, ml_dtype_name(v->dtype), ml_dtype_name(dtype));
  if (v->rank == ML_UNKNOWN) return ML_OK;
  bool fits = v->rank == rank;
  for (int32_t i = 0; i < rank; i++) {
    want[i] = dims[i] ? (int64_t)dims[i] : ML_UNKNOWN;
    fits = fits && (v->dims[i] < 0 || want[i] < 0 || v->dims[i] == want[i]);
  }
  if (fits) return ML_OK;
  return ml_fail(err, ML_INVALID_ARGUMENT, "%s: expected shape %s, got %s", name, ml_shape_format(want, rank, text, sizeof text),
                 ml_shape_format(v->dims, v->rank, got, sizeof got));
}

static size_t known_dim(const ml_view *v, int32_t i) { return v && v->rank > i && v->dims[i] > 0 ? (size_t)v->dims[i] : 0; }

ml_status ml__recurrent_of(const ml_op_ctx *ctx, ml__cell cell, ml__recurrent *m, bool *known, ml_error *err) {
  static const size_t n_gates[] = { 1, 3, 4 };
  const ml_view *X = ctx->in[ML__REC_X], *W = ctx->in[ML__REC_W], *R = ctx->in[ML__REC_R];
  ML_TRY(ml__op_check_present(ctx, 3, err));
  *m = (ml__recurrent) { .cell = cell, .dtype = X->dtype, .G = n_gates[cell] };
  m->batch_first = ml_attr_int(ctx->attrs, "layout", 0) != 0;
  m->input_forget = ml_attr_int(ctx->attrs, "input_forget", 0) != 0;
  m->linear_before_reset = ml_attr_int(ctx->attrs, "linear_before_reset", 0) != 0;
  m->clip = ml_attr_float(ctx->attrs, "clip", 0);
  bool both = ml_attr_is(ctx->attrs, "direction", "forward", "bidirectional");
  m->reverse = ml_attr_is(ctx->attrs, "direction", "forward", "reverse");
  if (!both && !m->reverse && !ml_attr_is(ctx->attrs, "direction", "forward", "forward"))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute direction: expected forward, reverse or bidirectional");
  m->D = both ? 2 : 1;
  int64_t H = ml_attr_int(ctx->attrs, "hidden_size", 0);
  if (H < 0 || H > INT32_MAX) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute hidden_size is %lld", (long long)H);
  m->H = H ? (size_t)H : known_dim(R, 2);
  m->S = known_dim(X, m->batch_first ? 1 : 0);
  m->B = known_dim(X, m->batch_first ? 0 : 1);
  m->I = known_dim(X, 2) ? known_dim(X, 2) : known_dim(W, 2);
  ML_TRY(gates_of(ctx->attrs, m, err));
  size_t GH = m->G * m->H, a = m->batch_first ? m->B : m->D, b = m->batch_first ? m->D : m->B;
  ML_TRY(expect(X, "X", m->dtype, (size_t[]) { 0, 0, m->I }, 3, err));
  ML_TRY(expect(W, "W", m->dtype, (size_t[]) { m->D, GH, m->I }, 3, err));
  ML_TRY(expect(R, "R", m->dtype, (size_t[]) { m->D, GH, m->H }, 3, err));
  ML_TRY(expect(ml__in(ctx, ML__REC_B), "B", m->dtype, (size_t[]) { m->D, 2 * GH }, 2, err));
  ML_TRY(expect(ml__in(ctx, ML__REC_LENS), "sequence_lens", ML_INT32, (size_t[]) { m->B }, 1, err));
  ML_TRY(expect(ml__in(ctx, ML__REC_H0), "initial_h", m->dtype, (size_t[]) { a, b, m->H }, 3, err));
  if (cell == ML__CELL_LSTM) {
    ML_TRY(expect(ml__in(ctx, ML__REC_C0), "initial_c", m->dtype, (size_t[]) { a, b, m->H }, 3, err));
    ML_TRY(expect(ml__in(ctx, ML__REC_P), "P", m->dtype, (size_t[]) { m->D, 3 * m->H }, 2, err));
  }
  if (known) *known = ml_view_known(X) && ml_view_known(W) && ml_view_known(R);
  return ML_OK;
}

ml_status ml__recurrent_infer(ml_op_ctx *ctx, ml__cell cell, ml_error *err) {
  ml__recurrent m;
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(ml__recurrent_of(ctx, cell, &m, NULL, err));
  const ml_view *X = ctx->in[ML__REC_X];
  int64_t S = X->rank == 3 ? X->dims[m.batch_first] : ML_UNKNOWN, B = X->rank == 3 ? X->dims[!m.batch_first] : ML_UNKNOWN;
  int64_t D = (int64_t)m.D, H = m.H ? (int64_t)m.H : ML_UNKNOWN;
  if (ctx->in[ML__REC_R]->rank == 3 && ctx->in[ML__REC_R]->dims[2] == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "R is empty");
  if (m.batch_first) ml_op_set(ml__out(ctx, 0), m.dtype, (int64_t[]) { B, S, D, H }, 4);
  else ml_op_set(ml__out(ctx, 0), m.dtype, (int64_t[]) { S, D, B, H }, 4);
  for (int32_t i = 1; i < 3; i++)
    ml_op_set(ml__out(ctx, i), m.dtype, m.batch_first ? (int64_t[]) { B, D, H } : (int64_t[]) { D, B, H }, 3);
  return ML_OK;
}

/* ---------------------------------------------------------------- packed weights ---- */
typedef struct packed_weights {
  void *W, *R, *R2; /* input; recurrent; the GRU's last gate when it comes after the reset */
} packed_weights;

typedef struct state {
  const ml_kernels *kernels;
  packed_weights of[2];
} state;

void ml__recurrent_release(void *p) {
  state *s = p;
  if (!s) return;
  for (size_t d = 0; d < 2; d++) {
    ml_free(s->of[d].W);
    ml_free(s->of[d].R);
    ml_free(s->of[d].R2);
  }
  ml_free(s);
}

static ml_status pack(const ml_kernels *k, const float *w, size_t K, size_t N, const float *bias, void **out, ml_error *err) {
  size_t bytes = k->pack_bytes_f32(K, N);
  *out = ml_alloc(bytes);
  if (!*out) return ml_fail_memory(err, bytes, "packed weights");
  k->pack_f32(w, true, K, N, bias, *out);
  return ML_OK;
}

static ml_status pack_direction(const ml__recurrent *m, const ml_op_ctx *ctx, size_t d, state *s, float *sum, ml_error *err) {
  const ml_view *B = ml__in(ctx, ML__REC_B);
  size_t H = m->H, GH = m->G * H;
  const float *W = (const float *)ctx->in[ML__REC_W]->data + d * GH * m->I,
      *R = (const float *)ctx->in[ML__REC_R]->data + d * GH * H;
  const float *bias = B ? (const float *)B->data + d * 2 * GH : NULL;
  bool gru = m->cell == ML__CELL_GRU, linear = gru && m->linear_before_reset;
  for (size_t i = 0; bias && i < GH; i++) sum[i] = bias[i] + (linear && i >= 2 * H ? 0 : bias[GH + i]);
  ML_TRY(pack(s->kernels, W, m->I, GH, bias ? sum : NULL, &s->of[d].W, err));
  ML_TRY(pack(s->kernels, R, H, gru && !linear ? 2 * H : GH, NULL, &s->of[d].R, err));
  return gru && !linear ? pack(s->kernels, R + 2 * H * H, H, H, NULL, &s->of[d].R2, err) : ML_OK;
}

ml_status ml__recurrent_prepare(ml_op_ctx *ctx, ml__cell cell, void **out, ml_error *err) {
  ml__recurrent m;
  const ml_view *W = ctx->in[ML__REC_W], *R = ctx->in[ML__REC_R], *B = ml__in(ctx, ML__REC_B);
  ML_TRY(ml__recurrent_of(ctx, cell, &m, NULL, err));
  *out = NULL;
  if (m.dtype != ML_FLOAT32 || !W->data || !R->data || (B && !B->data) || m.H == 0 || m.I == 0) return ML_OK;
  state *s = ml_alloc_zero(1, sizeof *s);
  float *sum = ml_alloc_zero(m.G * m.H, sizeof *sum);
  ml_status status = s && sum ? ML_OK : ml_fail_memory(err, m.G * m.H * sizeof *sum, "packed weights");
  if (s) s->kernels = ml_kernel_table();
  for (size_t d = 0; d < m.D && status == ML_OK; d++) status = pack_direction(&m, ctx, d, s, sum, err);
  ml_free(sum);
  if (status == ML_OK) *out = s;
  else ml__recurrent_release(s);
  return status;
}

/* ---------------------------------------------------------------- running ---- */
typedef struct pass {
  const ml__recurrent *m;
  const ml_kernels *kernels;
  const packed_weights *packed; /* NULL: none */
  const void *X, *W, *R, *bias, *h0, *c0, *P;
  const int32_t *lens;
  void *gates, *hs, *cs, *hr, *rec;
} pass;

typedef struct back {
  const void *dY, *dYh, *dYc;
  void *dX, *dW, *dR, *dB, *dh0, *dc0, *dP;
  void *dgates, *dh, *dc, *carry, *step, *act;
} back;

static inline size_t length_of(const pass *p, size_t b) { return p->lens ? (size_t)p->lens[b] : p->m->S; }
/* Time of step k of sequence b. */
static inline size_t time_at(const pass *p, size_t d, size_t k, size_t b) {
  return d == 1 || p->m->reverse ? length_of(p, b) - 1 - k : k;
}
static inline size_t row_at(const pass *p, size_t d, size_t k, size_t b) {
  size_t t = time_at(p, d, k, b);
  return p->m->batch_first ? b * p->m->S + t : t * p->m->B + b;
}
static inline size_t state_at(const ml__recurrent *m, size_t d, size_t b) {
  return (m->batch_first ? b * m->D + d : d * m->B + b) * m->H;
}
static inline size_t output_at(const ml__recurrent *m, size_t d, size_t t, size_t b) {
  return (m->batch_first ? (b * m->S + t) * m->D + d : (t * m->D + d) * m->B + b) * m->H;
}

#define T float
#define DTYPE ML_FLOAT32
#define NAME(x) x##_f32
#include "ops/recurrent.inc.h"
#undef T
#undef DTYPE
#undef NAME
#define T double
#define DTYPE ML_FLOAT64
#define NAME(x) x##_f64
#include "ops/recurrent.inc.h"
#undef T
#undef DTYPE
#undef NAME

/* Rooms of the forward pass in elements, in the order gates, hs, cs, hr, rec; then the backward pass's. */
static ml_status rooms(const ml__recurrent *m, bool backward, size_t offset[11], size_t *bytes, ml_error *err) {
  size_t BH, SBH, GB, all;
  if (!ml_mul_size(m->B, m->H, &BH) || !ml_mul_size(BH, m->S + 1, &SBH) || !ml_mul_size(BH, m->G, &GB) || !ml_mul_size(SBH,
      m->G, &all))
    return ml_fail(err, ML_RESOURCE_EXHAUSTED, "%zu steps of %zu rows do not fit into memory", m->S, m->B);
  bool lstm = m->cell == ML__CELL_LSTM;
  const size_t counts[11] = { all, SBH, lstm ? SBH : 0, m->cell == ML__CELL_GRU ? SBH : 0, GB, all, BH, lstm ? BH : 0, BH, GB,
                              m->H };
  *bytes = 0;
  for (size_t i = 0; i < (backward ? 11u : 5u); i++) {
    offset[i] = *bytes;
    ML_TRY(ml__room_add(bytes, counts[i], ml_dtype_size(m->dtype), err));
  }
  return ML_OK;
}

static const void *data_of(const ml_op_ctx *ctx, int32_t i) {
  const ml_view *v = ml__in(ctx, i);
  return v ? v->data : NULL;
}

static ml_status pass_of(const ml_op_ctx *ctx, const ml__recurrent *m, const size_t *offset, pass *p, ml_error *err) {
  char *w = ctx->workspace;
  const ml_view *lens = ml__in(ctx, ML__REC_LENS);
  bool lstm = m->cell == ML__CELL_LSTM;
  *p = (pass) { .m = m, .kernels = ctx->run->kernels, .X = data_of(ctx, ML__REC_X), .W = data_of(ctx, ML__REC_W),
                .R = data_of(ctx, ML__REC_R), .bias = data_of(ctx, ML__REC_B), .h0 = data_of(ctx, ML__REC_H0),
                .c0 = lstm ? data_of(ctx, ML__REC_C0) : NULL, .P = lstm ? data_of(ctx, ML__REC_P) : NULL,
                .lens = lens ? lens->data : NULL, .gates = w + offset[0], .hs = w + offset[1], .cs = lstm ? w + offset[2] : NULL,
                .hr = m->cell == ML__CELL_GRU ? w + offset[3] : NULL, .rec = w + offset[4] };
  for (size_t b = 0; p->lens && b < m->B; b++)
    if (p->lens[b] < 0 || (size_t)p->lens[b] > m->S)
      return ml_fail(err, ML_INVALID_ARGUMENT, "sequence_lens[%zu] is %d, expected 0 to %zu", b, (int)p->lens[b], m->S);
  return ML_OK;
}

ml_status ml__recurrent_workspace(ml_op_ctx *ctx, ml__cell cell, size_t *bytes, ml_error *err) {
  ml__recurrent m;
  size_t offset[11];
  ML_TRY(ml__recurrent_of(ctx, cell, &m, NULL, err));
  return rooms(&m, false, offset, bytes, err);
}

ml_status ml__recurrent_run(ml_op_ctx *ctx, ml__cell cell, ml_error *err) {
  ml__recurrent m;
  pass p;
  size_t offset[11], bytes;
  ML_TRY(ml__recurrent_of(ctx, cell, &m, NULL, err));
  ML_TRY(rooms(&m, false, offset, &bytes, err));
  ML_TRY(pass_of(ctx, &m, offset, &p, err));
  const state *s = ctx->state;
  if (s && s->kernels == p.kernels) p.packed = s->of;
  ml_view *Y = ml__out(ctx, 0), *Yh = ml__out(ctx, 1), *Yc = ml__out(ctx, 2);
  if (m.B == 0 || m.H == 0) return ML_OK;
  for (size_t d = 0; d < m.D; d++) {
    if (m.dtype == ML_FLOAT32) {
      forward_f32(&p, d);
      give_f32(&p, d, Y ? Y->data : NULL, Yh ? Yh->data : NULL, Yc ? Yc->data : NULL);
    } else {
      forward_f64(&p, d);
      give_f64(&p, d, Y ? Y->data : NULL, Yh ? Yh->data : NULL, Yc ? Yc->data : NULL);
    }
  }
  return ML_OK;
}

double ml__recurrent_flops(const ml_op_ctx *ctx, ml__cell cell) {
  ml__recurrent m;
  if (ml__recurrent_of(ctx, cell, &m, NULL, NULL) != ML_OK) return 0;
  return 2.0 * (double)(m.S * m.B) * (double)(m.D * m.G * m.H) * (double)(m.I + m.H);
}

/* ---------------------------------------------------------------- gradient ---- */
void ml__recurrent_gradient(ml_grad *g, const char *name) {
  ml__recurrent m = { .cell = strcmp(name, "LSTM") == 0 ? ML__CELL_LSTM : strcmp(name, "GRU") == 0 ? ML__CELL_GRU
                      : ML__CELL_RNN };
  m.D = ml_attr_is(g->attrs, "direction", "forward", "bidirectional") ? 2 : 1;
  bool plain = gates_of(g->attrs, &m, NULL) == ML_OK && !(ml_attr_float(g->attrs, "clip", 0) > 0) &&
               ml_attr_int(g->attrs, "input_forget", 0) == 0;
  for (size_t d = 0; d < m.D; d++)
    for (size_t i = 0; i <= (size_t)m.cell; i++) plain = plain && m.gates[d][i].act <= ML__GATE_RELU;
  if (!plain) {
    ml_g_fail(g, "not with clip, input_forget or activations other than Sigmoid, Tanh and Relu");
    return;
  }
  ml_attr list[16];
  ml_value *in[ML__REC_INPUTS + 3] = { NULL }, *out[7] = { NULL };
  size_t n = 0;
  if (g->attrs->count + 1 > sizeof list / sizeof *list) return;
  for (; n < g->attrs->count; n++) list[n] = g->attrs->items[n];
  list[n++] = ml_attr_of_str("operator", name);
  for (int32_t i = 0; i < g->n_in && i < ML__REC_INPUTS; i++) in[i] = g->in[i];
  for (int32_t i = 0; i < g->n_out && i < 3; i++) in[ML__REC_INPUTS + i] = g->dout[i];
  if (g->emit(g, "mlserve.RecurrentGrad", list, n, ML__REC_INPUTS + 3, in, 7, out) != ML_OK) return;
  static const int32_t of[7] = { ML__REC_X, ML__REC_W, ML__REC_R, ML__REC_B, ML__REC_H0, ML__REC_C0, ML__REC_P };
  for (size_t i = 0; i < 7; i++)
    if (of[i] < g->n_in && g->in[of[i]] && g->needs[of[i]]) g->din[of[i]] = out[i];
}

ml_status ml__recurrent_grad_workspace(ml_op_ctx *ctx, ml__cell cell, size_t *bytes, ml_error *err) {
  ml__recurrent m;
  size_t offset[11];
  ML_TRY(ml__recurrent_of(ctx, cell, &m, NULL, err));
  return rooms(&m, true, offset, bytes, err);
}

static void *zeroed(const ml_op_ctx *ctx, int32_t i) {
  ml_view *v = ml__out(ctx, i);
  if (!v || !v->data || v->count == 0) return NULL;
  memset(v->data, 0, v->count * ml_dtype_size(v->dtype));
  return v->data;
}

ml_status ml__recurrent_grad_run(ml_op_ctx *ctx, ml__cell cell, ml_error *err) {
  ml__recurrent m;
  pass p;
  size_t o[11], bytes;
  ML_TRY(ml__recurrent_of(ctx, cell, &m, NULL, err));
  ML_TRY(rooms(&m, true, o, &bytes, err));
  ML_TRY(pass_of(ctx, &m, o, &p, err));
  char *w = ctx->workspace;
  back q = { .dY = data_of(ctx, ML__REC_INPUTS), .dYh = data_of(ctx, ML__REC_INPUTS + 1), .dYc = data_of(ctx, ML__REC_INPUTS + 2),
             .dX = zeroed(ctx, 0), .dW = zeroed(ctx, 1), .dR = zeroed(ctx, 2), .dB = zeroed(ctx, 3), .dh0 = zeroed(ctx, 4),
             .dc0 = zeroed(ctx, 5), .dP = zeroed(ctx, 6), .dgates = w + o[5], .dh = w + o[6],
             .dc = cell == ML__CELL_LSTM ? w + o[7] : NULL, .carry = w + o[8], .step = w + o[9], .act = w + o[10] };
  if (m.B == 0 || m.H == 0) return ML_OK;
  for (size_t d = 0; d < m.D; d++) {
    if (m.dtype == ML_FLOAT32) {
      forward_f32(&p, d);
      backward_f32(&p, &q, d);
    } else {
      forward_f64(&p, d);
      backward_f64(&p, &q, d);
    }
  }
  return ML_OK;
}
