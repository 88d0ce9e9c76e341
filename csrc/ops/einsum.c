/* Einsum 12: the Einstein sum convention. Every dimension of every operand has a letter (… stands for the ones not named, which
 * broadcast from the back); the output has the letters after "->", the product of the operands is summed over all others. Without
 * "->" the output has the ellipsis, then the letters that occur once, in alphabetical order. A letter twice in one operand means
 * its diagonal. Inputs (1 or more, numbers) -> Output. ONNX operator specification; numpy.einsum.
 *
 * Two operands are brought into the shape of a batched matrix product (letters in both and the output: batch; in both, summed:
 * inner; the rest: rows and columns). Everything else runs as plain nested loops.
 * Gradient of operand i: the Einsum of dY and the other operands with i's letters as output. */
#include <string.h>
#include "ops/movement.h"
#include "ops/product.h"

enum { LETTERS = 52, LABELS = LETTERS + ML_MAX_RANK, OPERANDS = 16, TEXT = 512 };

static const ml_attr_def attrs[] = {
  { "equation", ML_ATTR_STRING, true, "letters of the operands, separated by commas, and (optional) -> letters of the output" },
  { 0 },
};

typedef struct term { /* labels of one operand or the output, in the order of its dimensions */
  int32_t rank;
  int16_t label[ML_MAX_RANK];
} term;

typedef struct equation {
  int32_t n;
  term in[OPERANDS], out;
  int64_t size[LABELS]; /* of each label; ML_UNKNOWN: not known; 0 operands: not used */
  bool used[LABELS], output[LABELS];
} equation;

static int letter(char c) { return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? c - 'a' + 26 : -1; }

/* The term in text[from … to-1]; dots: dimensions of its ellipsis (numbered from the back). rank ML_UNKNOWN: any number of
 * letters. */
static ml_status read_term(const char *text, size_t from, size_t to, int32_t rank, int32_t dots, term *out, bool *ellipsis,
                           ml_error *err) {
  int32_t letters = 0;
  *ellipsis = false;
  for (size_t i = from; i < to; i++) {
    if (text[i] == ' ') continue;
    if (text[i] == '.') {
      if (*ellipsis || to - i < 3 || text[i + 1] != '.' || text[i + 2] != '.')
        return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation': a stray '.' in '%.*s'", (int)(to - from), text + from);
      *ellipsis = true;
      i += 2;
    } else if (letter(text[i]) < 0) {
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation': unexpected '%c'", text[i]);
    } else {
      letters++;
    }
  }
  if (rank != ML_UNKNOWN) dots = rank - letters;
  if (rank != ML_UNKNOWN && (dots < 0 || (dots > 0 && !*ellipsis)))
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation': '%.*s' does not fit an operand of rank %d", (int)(to - from),
                   text + from, (int)rank);
  if (!*ellipsis) dots = 0;
  if (letters + dots > ML_MAX_RANK)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation': more than %d dimensions", ML_MAX_RANK);
  out->rank = 0;
  for (size_t i = from; i < to; i++) {
    if (text[i] == '.') {
      for (int32_t k = dots; k-- > 0;) out->label[out->rank++] = (int16_t)(LETTERS + k);
      i += 2;
    } else if (text[i] != ' ') {
      out->label[out->rank++] = (int16_t)letter(text[i]);
    }
  }
  return ML_OK;
}

static ml_status add_sizes(equation *e, int32_t operand, const ml_view *v, ml_error *err) {
  for (int32_t d = 0; d < v->rank; d++) {
    int16_t label = e->in[operand].label[d];
    int64_t have = v->dims[d], *size = &e->size[label];
    if (!e->used[label] || *size == 1 || (*size < 0 && have != 1)) *size = have;
    else if (have >= 0 && have != 1 && have != *size)
      return ml_fail(err, ML_INVALID_ARGUMENT, "dimension %d of operand %d is %lld, elsewhere that letter stands for %lld",
                     (int)d, (int)operand, (long long)have, (long long)*size);
    e->used[label] = true;
  }
  return ML_OK;
}

/* *known false: some operand's rank is not known, and only the number of operands has been checked. */
static ml_status read_equation(const ml_op_ctx *ctx, equation *e, bool *known, ml_error *err) {
  ml_str s = ml_attr_str(ctx->attrs, "equation", "");
  char text[TEXT];
  size_t end = s.length, at = 0, arrow = 0;
  int32_t dots = 0;
  int count[LETTERS] = { 0 };
  bool explicit_output = false, ellipsis, any = false;
  if (s.length >= TEXT)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation' has %zu characters, at most %d are possible", s.length,
                   TEXT - 1);
  if (ctx->n_in > OPERANDS)
    return ml_fail(err, ML_UNIMPLEMENTED, "%d operands, at most %d are possible", (int)ctx->n_in, OPERANDS);
  if (s.length) memcpy(text, s.bytes, s.length);
  memset(e, 0, sizeof *e);
  e->n = ctx->n_in;
  for (size_t i = 0; i + 1 < s.length; i++)
    if (text[i] == '-' && text[i + 1] == '>') {
      explicit_output = true;
      arrow = i + 2;
      end = i;
      break;
    }
  *known = true;
  for (int32_t i = 0; i < e->n; i++) {
    size_t stop = at;
    while (stop < end && text[stop] != ',') stop++;
    if ((i + 1 < e->n) != (stop < end))
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation' is not for %d operand%s", (int)e->n, e->n == 1 ? "" : "s");
    if (!ctx->in[i]) return ml_fail(err, ML_INVALID_ARGUMENT, "input %d is missing", (int)i);
    if (ctx->in[i]->rank == ML_UNKNOWN) *known = false;
    ML_TRY(read_term(text, at, stop, ctx->in[i]->rank, 0, &e->in[i], &ellipsis, err));
    any = any || ellipsis;
    for (int32_t d = 0; d < e->in[i].rank; d++) {
      if (e->in[i].label[d] < LETTERS) count[e->in[i].label[d]]++;
      else if (e->in[i].label[d] - LETTERS >= dots) dots = e->in[i].label[d] - LETTERS + 1;
    }
    if (ctx->in[i]->rank != ML_UNKNOWN) ML_TRY(add_sizes(e, i, ctx->in[i], err));
    at = stop + 1;
  }
  if (explicit_output) {
    ML_TRY(read_term(text, arrow, s.length, ML_UNKNOWN, dots, &e->out, &ellipsis, err));
    if (any && !*known && ellipsis) e->out.rank = ML_UNKNOWN;
  } else {
    if (any && !*known) e->out.rank = ML_UNKNOWN;
    else {
      for (int32_t k = dots; k-- > 0;) e->out.label[e->out.rank++] = (int16_t)(LETTERS + k);
      for (int16_t l = 0; l < LETTERS; l++) {
        if (count[l] != 1) continue;
        if (e->out.rank == ML_MAX_RANK)
          return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation': more than %d dimensions", ML_MAX_RANK);
        e->out.label[e->out.rank++] = l;
      }
    }
  }
  for (int32_t d = 0; d < e->out.rank; d++) {
    int16_t l = e->out.label[d];
    if (e->output[l]) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation': a letter twice in the output");
    e->output[l] = true;
    if (l < LETTERS && count[l] == 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'equation': the output has a letter that no operand has");
  }
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  equation e;
  bool known;
  int64_t dims[ML_MAX_RANK];
  ML_TRY(read_equation(ctx, &e, &known, err));
  for (int32_t i = 1; i < e.n; i++)
    if (ctx->in[i]->dtype != ctx->in[0]->dtype)
      return ml_fail(err, ML_INVALID_ARGUMENT, "operand %d is %s, operand 0 %s", (int)i, ml_dtype_name(ctx->in[i]->dtype),
                     ml_dtype_name(ctx->in[0]->dtype));
  for (int32_t d = 0; d < e.out.rank; d++) dims[d] = known ? e.size[e.out.label[d]] : ML_UNKNOWN;
  ml_op_set(ctx->out[0], ctx->in[0]->dtype, dims, e.out.rank);
  return ML_OK;
}

/* How far operand i moves when each label grows by one: repeated labels add up, broadcast ones do not move. */
static void label_strides(const equation *e, const ml_op_ctx *ctx, int32_t i, int64_t *step) {
  int64_t own[ML_MAX_RANK];
  memset(step, 0, LABELS * sizeof *step);
  ml__strides(ctx->in[i]->dims, ctx->in[i]->rank, own);
  for (int32_t d = 0; d < ctx->in[i]->rank; d++)
    if (ctx->in[i]->dims[d] != 1) step[e->in[i].label[d]] += own[d];
}

/* ---------------------------------------------------------------- two operands: a matrix product ---- */
typedef struct matrices {
  int16_t label[LABELS];            /* batch, then rows, columns, inner */
  int32_t batch, rows, cols, inner; /* how many of each */
  size_t B, M, N, K;
  size_t elements; /* of the three packed operands together */
} matrices;

static bool member(const term *t, int16_t label) {
  for (int32_t d = 0; d < t->rank; d++)
    if (t->label[d] == label) return true;
  return false;
}

/* false: not of that form, or not worth it */
static bool as_matrices(const equation *e, ml_dtype dtype, matrices *m) {
  if (e->n != 2 || !(ML__MASK_PRODUCT & ML_BIT(dtype))) return false;
  *m = (matrices){ .B = 1, .M = 1, .N = 1, .K = 1 };
  int16_t kinds[4][LABELS];
  int32_t *number[4] = { &m->batch, &m->rows, &m->cols, &m->inner };
  size_t *product[4] = { &m->B, &m->M, &m->N, &m->K };
  for (int16_t l = 0; l < LABELS; l++) {
    if (!e->used[l]) continue;
    bool a = member(&e->in[0], l), b = member(&e->in[1], l);
    if (!e->output[l] && !(a && b)) return false; /* summed in one operand alone */
    int kind = !e->output[l] ? 3 : a && b ? 0 : a ? 1 : 2;
    kinds[kind][(*number[kind])++] = l;
    if (!ml_mul_size(*product[kind], (size_t)e->size[l], product[kind])) return false;
  }
  int32_t total = 0;
  for (int k = 0; k < 4; k++)
    for (int32_t i = 0; i < *number[k]; i++) m->label[total++] = kinds[k][i];
  if (total > ML__MOVE_RANK) return false;
  size_t a, b, c;
  return ml_mul_size(m->M, m->K, &a) && ml_mul_size(m->K, m->N, &b) && ml_mul_size(m->M, m->N, &c) && ml_add_size(a, b, &a) &&
         ml_add_size(a, c, &a) && ml_mul_size(a, m->B, &m->elements) && m->elements <= (SIZE_MAX >> 5);
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  equation e;
  matrices m;
  bool known;
  *bytes = 0;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(read_equation(ctx, &e, &known, err));
  if (as_matrices(&e, ctx->in[0]->dtype, &m)) *bytes = m.elements * ml_dtype_size(ctx->in[0]->dtype);
  return ML_OK;
}

/* Moves between an operand or the output (strides by label) and its packed form over the labels list[0 … n-1]. */
static void pack(const equation *e, const int16_t *list, int32_t n, size_t size, const int64_t *step, const void *from, void *to,
                 bool unpack) {
  int64_t dims[ML__MOVE_RANK], loose[ML__MOVE_RANK], dense[ML__MOVE_RANK], s = 1;
  for (int32_t i = n - 1; i >= 0; i--) {
    dims[i] = e->size[list[i]];
    loose[i] = step[list[i]];
    dense[i] = s;
    s *= dims[i];
  }
  ml__move(dims, n, size, from, unpack ? dense : loose, to, unpack ? loose : dense);
}

static void run_matrices(ml_op_ctx *ctx, const equation *e, const matrices *m) {
  const ml_dtype dtype = ctx->in[0]->dtype;
  const size_t size = ml_dtype_size(dtype), a = m->B * m->M * m->K, b = m->B * m->K * m->N;
  int64_t step[LABELS], own[ML_MAX_RANK];
  int16_t list[LABELS];
  char *A = ctx->workspace, *B = A + a * size, *C = B + b * size;
  const int16_t *rows = m->label + m->batch, *cols = rows + m->rows, *inner = cols + m->cols;
  int32_t n = m->batch;
  memcpy(list, m->label, (size_t)n * sizeof *list);
  for (int32_t i = 0; i < m->rows; i++) list[n++] = rows[i];
  for (int32_t i = 0; i < m->inner; i++) list[n++] = inner[i];
  label_strides(e, ctx, 0, step);
  pack(e, list, n, size, step, ctx->in[0]->data, A, false);
  n = m->batch;
  for (int32_t i = 0; i < m->inner; i++) list[n++] = inner[i];
  for (int32_t i = 0; i < m->cols; i++) list[n++] = cols[i];
  label_strides(e, ctx, 1, step);
  pack(e, list, n, size, step, ctx->in[1]->data, B, false);
  for (size_t i = 0; i < m->B; i++)
    ml__product(ctx->run->kernels, dtype, false, false, m->M, m->N, m->K, 1, A + i * m->M * m->K * size, m->K,
                B + i * m->K * m->N * size, m->N, 0, C + i * m->M * m->N * size, m->N);
  memset(step, 0, sizeof step);
  ml__strides(ctx->out[0]->dims, ctx->out[0]->rank, own);
  for (int32_t d = 0; d < e->out.rank; d++) step[e->out.label[d]] = own[d];
  pack(e, m->label, m->batch + m->rows + m->cols, size, step, C, ctx->out[0]->data, true);
}

/* ---------------------------------------------------------------- anything: nested loops ---- */
typedef struct loops {
  int32_t outer, total; /* labels of the output come first */
  int64_t dims[LABELS];
  int64_t step[OPERANDS][LABELS];
} loops;

/* The next index from dimension `first` to `end`; false: all done. */
static bool advance(const loops *l, int32_t n, int64_t *index, int64_t *offset, int32_t first, int32_t end) {
  for (int32_t d = end - 1; d >= first; d--) {
    for (int32_t i = 0; i < n; i++) offset[i] += l->step[i][d];
    if (++index[d] < l->dims[d]) return true;
    for (int32_t i = 0; i < n; i++) offset[i] -= l->step[i][d] * l->dims[d];
    index[d] = 0;
  }
  return false;
}

/* SUM: type of the sum; GET(data, i): element i as SUM */
#define LOOPS(SUM, GET, SET)                                                                                                     \
  do {                                                                                                                           \
    size_t at = 0;                                                                                                               \
    do {                                                                                                                         \
      SUM sum = 0;                                                                                                               \
      if (!empty) do {                                                                                                           \
          SUM product = GET(ctx->in[0]->data, (size_t)offset[0]);                                                                \
          for (int32_t i = 1; i < e->n; i++) product = (SUM)(product * GET(ctx->in[i]->data, (size_t)offset[i]));                \
          sum = (SUM)(sum + product);                                                                                            \
        } while (advance(&l, e->n, index, offset, l.outer, l.total));                                                            \
      SET;                                                                                                                       \
      at++;                                                                                                                      \
    } while (advance(&l, e->n, index, offset, 0, l.outer));                                                                      \
  } while (0)
#define AS_DOUBLE(data, i) ((double)((const T *)(data))[i])
#define AS_BITS(data, i) ((uint64_t)((const T *)(data))[i])
#define BY_DTYPE(data, i) ml_element_get(data, dtype, i)

static void run_loops(ml_op_ctx *ctx, const equation *e) {
  const ml_dtype dtype = ctx->in[0]->dtype;
  loops l = { .outer = e->out.rank };
  int64_t index[LABELS] = { 0 }, offset[OPERANDS] = { 0 }, step[LABELS];
  int16_t list[LABELS];
  bool empty = false; /* nothing to sum over */
  void *y = ctx->out[0]->data;
  for (int32_t d = 0; d < e->out.rank; d++) list[l.total++] = e->out.label[d];
  for (int16_t k = 0; k < LABELS; k++)
    if (e->used[k] && !e->output[k]) list[l.total++] = k;
  for (int32_t d = 0; d < l.total; d++) {
    l.dims[d] = e->size[list[d]];
    empty = empty || l.dims[d] == 0;
  }
  for (int32_t i = 0; i < e->n; i++) {
    label_strides(e, ctx, i, step);
    for (int32_t d = 0; d < l.total; d++) l.step[i][d] = step[list[d]];
  }
  switch (dtype) {
    case ML_FLOAT32: {
      typedef float T;
      LOOPS(double, AS_DOUBLE, ((T *)y)[at] = (T)sum);
    } break;
    case ML_FLOAT64: {
      typedef double T;
      LOOPS(double, AS_DOUBLE, ((T *)y)[at] = sum);
    } break;
    case ML_FLOAT16:
    case ML_BFLOAT16:
      LOOPS(double, BY_DTYPE, ml_element_set(y, dtype, at, sum));
      break;
      ML_SWITCH_INTEGER_CASES(LOOPS(uint64_t, AS_BITS, ((T *)y)[at] = (T)sum);)
    default: break;
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  equation e;
  matrices m;
  bool known;
  if (ctx->out[0]->count == 0) return ML_OK;
  ML_TRY(read_equation(ctx, &e, &known, err));
  if (as_matrices(&e, ctx->in[0]->dtype, &m)) run_matrices(ctx, &e, &m);
  else run_loops(ctx, &e);
  return ML_OK;
}

/* ---------------------------------------------------------------- gradient ---- */
static size_t put_term(const term *t, char *to) {
  size_t n = 0;
  for (int32_t d = 0; d < t->rank; d++) to[n++] = (char)(t->label[d] < 26 ? 'A' + t->label[d] : 'a' + t->label[d] - 26);
  return n;
}

static void gradient(ml_grad *g) {
  ml_view views[OPERANDS], *pointers[OPERANDS];
  equation e;
  bool known = false;
  ml_op_ctx ctx = { .op = g->op, .attrs = g->attrs, .n_in = g->n_in, .in = pointers };
  for (int32_t i = 0; i < g->n_in && i < OPERANDS; i++) {
    views[i] = *g->shape_of(g, g->in[i]);
    pointers[i] = &views[i];
  }
  if (!g->dout[0]) return;
  if (read_equation(&ctx, &e, &known, NULL) != ML_OK || !known) {
    ml_g_fail(g, "Einsum gradient with operands of unknown rank");
    return;
  }
  int16_t next = 0; /* an ellipsis becomes letters nobody uses */
  int16_t name[ML_MAX_RANK];
  for (int32_t k = 0; k < ML_MAX_RANK; k++) {
    while (next < LETTERS && e.used[next]) next++;
    name[k] = next < LETTERS ? next++ : 0;
  }
  for (int32_t i = 0; i <= e.n; i++) {
    term *t = i < e.n ? &e.in[i] : &e.out;
    for (int32_t d = 0; d < t->rank; d++)
      if (t->label[d] >= LETTERS) t->label[d] = name[t->label[d] - LETTERS];
  }
  for (int32_t i = 0; i < g->n_in; i++) {
    if (!g->needs[i]) continue;
    char text[(OPERANDS + 2) * (ML_MAX_RANK + 2)];
    size_t n = put_term(&e.out, text);
    ml_value *in[OPERANDS] = { g->dout[0] };
    size_t n_in = 1;
    bool simple = true;
    for (int32_t d = 0; d < e.in[i].rank; d++) {
      bool elsewhere = member(&e.out, e.in[i].label[d]);
      for (int32_t k = 0; k < e.n; k++) elsewhere = elsewhere || (k != i && member(&e.in[k], e.in[i].label[d]));
      for (int32_t k = 0; k < d; k++) simple = simple && e.in[i].label[k] != e.in[i].label[d];
      simple = simple && elsewhere;
    }
    if (!simple) {
      ml_g_fail(g, "Einsum gradient of a diagonal or of a sum over one operand alone");
      return;
    }
    for (int32_t k = 0; k < e.n; k++) {
      if (k == i) continue;
      text[n++] = ',';
      n += put_term(&e.in[k], text + n);
      in[n_in++] = g->in[k];
    }
    text[n++] = '-';
    text[n++] = '>';
    n += put_term(&e.in[i], text + n);
    text[n] = '\0';
    ml_attr list = ml_attr_of_str("equation", text);
    g->din[i] = ml_g_reduce_to(g, ml_gn(g, "Einsum", &list, 1, n_in, in), g->in[i]);
  }
}

const ml_op_def ml_op_einsum = {
  .name = "Einsum", .domain = "", .since = 28, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .flags = ML_OP_VARIADIC,
  .attrs = attrs,
  .types = { ML_MASK_N | ML_BIT(ML_FLOAT16) | ML_BIT(ML_BFLOAT16) },
  .formula = "y = sum over letters not in the output of the product",
  .infer = infer, .workspace = workspace, .run = run, .gradient = gradient,
};
