/* TfIdfVectorizer 9: counts of known n-grams. X (C) or (N,C) int32, int64 or string -> Y (M) or (N,M) float32, M =
 * max(ngram_indexes) + 1. An n-gram is n elements, min_gram_length <= n <= max_gram_length, with 0 to max_skip_count elements
 * left out between neighbours, the same number everywhere; a 1-gram counts once. mode TF: Y[ngram_indexes[i]] is the count c of
 * n-gram i; TFIDF: c weights[i]; IDF: weights[i] where c > 0. prepare builds a trie of the pool: a node's children lie in one
 * hash table with the key (node, token), a token being a first position in the pool. ONNX operator specification. */
#include <string.h>
#include "ops/lookup.h"
#include "ops/movement.h"

static const ml_attr_def attrs[] = {
  { "mode", ML_ATTR_STRING, true, "TF, IDF or TFIDF" },
  { "pool_int64s", ML_ATTR_INTS, false, "elements of all n-grams, 1-grams first; one of the pool_* attributes" },
  { "pool_strings", ML_ATTR_STRINGS, false, "elements of all n-grams" },
  { "ngram_counts", ML_ATTR_INTS, true, "where in the pool the 1-grams, 2-grams, … begin" },
  { "ngram_indexes", ML_ATTR_INTS, true, "column of each n-gram in Y" },
  { "weights", ML_ATTR_FLOATS, false, "weight of each n-gram; default 1" },
  { "min_gram_length", ML_ATTR_INT, true, "shortest n" },
  { "max_gram_length", ML_ATTR_INT, true, "longest n" },
  { "max_skip_count", ML_ATTR_INT, true, "elements left out at most" },
  { 0 },
};

typedef struct model {
  ml_view pool, counts, indexes, weights;
  size_t columns;
  int64_t shortest, longest, skips;
  size_t mode;
} model;

enum { MODE_TF, MODE_IDF, MODE_TFIDF };

enum { MAX_COLUMNS = 1 << 24 }; /* a file's number decides how large the output is */

static ml_status model_of(const ml_attrs *list, model *m, ml_error *err) {
  ml_view ints = { 0 }, strings = { 0 };
  *m = (model) { .shortest = ml_attr_int(list, "min_gram_length", 1), .longest = ml_attr_int(list, "max_gram_length", 1),
                 .skips = ml_attr_int(list, "max_skip_count", 0) };
  bool has_ints = ml__attr_list(list, "pool_int64s", &ints) && ints.count > 0;
  bool has_strings = ml__attr_list(list, "pool_strings", &strings) && strings.count > 0;
  if (has_ints == has_strings)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attributes pool_int64s and pool_strings: expected one of them, got %s",
                   has_ints ? "both" : "neither");
  m->pool = has_ints ? ints : strings;
  (void)ml__attr_list(list, "ngram_counts", &m->counts);
  (void)ml__attr_list(list, "ngram_indexes", &m->indexes);
  (void)ml__attr_list(list, "weights", &m->weights);
  static const char *const modes[] = { "TF", "IDF", "TFIDF" };
  size_t mode = 0;
  while (mode < 3 && !ml_attr_is(list, "mode", "", modes[mode])) mode++;
  if (mode == 3) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute mode: expected TF, IDF or TFIDF");
  m->mode = mode;
  if (m->shortest < 1 || m->longest < m->shortest || m->longest > INT32_MAX)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attributes min_gram_length %lld and max_gram_length %lld: expected 1 <= min <= max",
                   (long long)m->shortest, (long long)m->longest);
  if (m->skips < 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute max_skip_count is %lld", (long long)m->skips);
  if ((uint64_t)m->longest > m->counts.count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute ngram_counts has %zu values, expected %lld, max_gram_length",
                   m->counts.count,
                   (long long)m->longest);
  for (size_t i = 0; i < m->indexes.count; i++) {
    int64_t column = ((const int64_t *)m->indexes.data)[i];
    if (column < 0 || column >= MAX_COLUMNS)
      return ml_fail(err, ML_INVALID_ARGUMENT, "attribute ngram_indexes[%zu] is %lld", i, (long long)column);
    if ((size_t)column >= m->columns) m->columns = (size_t)column + 1;
  }
  if (m->columns == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "attribute ngram_indexes is empty");
  if (m->weights.count != 0 && m->weights.count != m->indexes.count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute weights has %zu values for %zu n-grams", m->weights.count,
                   m->indexes.count);
  return ML_OK;
}

#define NOTHING UINT32_MAX

typedef struct edge {
  uint32_t node, token, child; /* child NOTHING: free */
} edge;

typedef struct state {
  ml__lookup *tokens;
  edge *edges;
  uint32_t *gram;              /* per trie node: the n-gram that ends there, or NOTHING */
  size_t mask;
  uint32_t nodes;
} state;

static void release(void *p) {
  state *s = p;
  if (!s) return;
  ml__lookup_free(s->tokens);
  ml_free(s->edges);
  ml_free(s->gram);
  ml_free(s);
}

static edge *probe(const state *s, uint32_t node, uint32_t token) {
  uint64_t h = ((uint64_t)node << 32 | token) * UINT64_C(0x9e3779b97f4a7c15);
  size_t at = (size_t)(h ^ h >> 29) & s->mask;
  while (s->edges[at].child != NOTHING && (s->edges[at].node != node || s->edges[at].token != token)) at = (at + 1) & s->mask;
  return &s->edges[at];
}

static ml_status build(const model *m, state *s, ml_error *err) {
  const int64_t *counts = m->counts.data;
  size_t gram = 0;
  s->nodes = 1;
  s->gram[0] = NOTHING;
  for (size_t n = 1; n <= m->counts.count; n++) {
    int64_t begin = counts[n - 1], end = n < m->counts.count ? counts[n] : (int64_t)m->pool.count;
    if (begin < 0 || end < begin || (uint64_t)end > m->pool.count || (size_t)(end - begin) % n != 0 || (n == 1 && begin != 0))
      return ml_fail(err, ML_INVALID_ARGUMENT,
                     "attribute ngram_counts[%zu]: %lld to %lld of a pool of %zu is no list of %zu-grams", n - 1,
                     (long long)begin, (long long)end, m->pool.count, n);
    for (size_t at = (size_t)begin; at < (size_t)end; at += n, gram++) {
      uint32_t node = 0;
      if (gram >= m->indexes.count)
        return ml_fail(err, ML_INVALID_ARGUMENT, "attribute ngram_indexes has %zu values, there are more n-grams",
                       m->indexes.count);
      for (size_t k = 0; k < n; k++) {
        uint32_t token = (uint32_t)ml__lookup_find(s->tokens, &m->pool, at + k);
        edge *e = probe(s, node, token);
        if (e->child == NOTHING) {
          *e = (edge) { node, token, s->nodes };
          s->gram[s->nodes++] = NOTHING;
        }
        node = e->child;
      }
      s->gram[node] = (uint32_t)gram;
    }
  }
  if (gram != m->indexes.count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "attribute ngram_indexes has %zu values for %zu n-grams", m->indexes.count, gram);
  return ML_OK;
}

static ml_status prepare(ml_op_ctx *ctx, void **out, ml_error *err) {
  model m;
  size_t capacity = 8;
  ML_TRY(model_of(ctx->attrs, &m, err));
  if (m.pool.count > INT32_MAX / 4) return ml_fail(err, ML_RESOURCE_EXHAUSTED, "a pool of %zu elements is too large",
                                                   m.pool.count);
  while (capacity / 2 < m.pool.count) capacity *= 2;
  state *s = ml_alloc_zero(1, sizeof *s);
  if (!s) return ml_fail_memory(err, sizeof *s, "n-grams");
  ml_status status = ml__lookup_new(&m.pool, &s->tokens, err);
  if (status == ML_OK) {
    s->mask = capacity - 1;
    s->edges = ml_alloc_zero(capacity, sizeof *s->edges);
    s->gram = ml_alloc_zero(m.pool.count + 1, sizeof *s->gram);
    if (!s->edges || !s->gram) status = ml_fail_memory(err, capacity * sizeof *s->edges, "n-grams");
  }
  for (size_t i = 0; status == ML_OK && i < capacity; i++) s->edges[i].child = NOTHING;
  if (status == ML_OK) status = build(&m, s, err);
  if (status == ML_OK) *out = s;
  else release(s);
  return status;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  model m;
  char text[96];
  ML_TRY(ml__op_check_types(ctx, err));
  ML_TRY(model_of(ctx->attrs, &m, err));
  if ((x->dtype == ML_STRING) != (m.pool.dtype == ML_STRING))
    return ml_fail(err, ML_INVALID_ARGUMENT, "X is %s, the pool is %s", ml_dtype_name(x->dtype), ml_dtype_name(m.pool.dtype));
  if (x->rank != ML_UNKNOWN && x->rank != 1 && x->rank != 2)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X: expected shape (C) or (N, C), got %s", ml_shape_format(x->dims, x->rank, text,
                                                                                                        sizeof text));
  if (x->rank == 2) ml_op_set(ctx->out[0], ML_FLOAT32, (int64_t[]) { x->dims[0], (int64_t)m.columns }, 2);
  else ml_op_set(ctx->out[0], ML_FLOAT32, (int64_t[]) { (int64_t)m.columns }, x->rank);
  return ML_OK;
}

static ml_status workspace(ml_op_ctx *ctx, size_t *bytes, ml_error *err) {
  const ml_view *x = ctx->in[0];
  return ml_mul_size((size_t)(x->rank > 0 ? x->dims[x->rank - 1] : 0), sizeof(uint32_t), bytes)
           ? ML_OK : ml_fail(err, ML_RESOURCE_EXHAUSTED, "rows are too long");
}

/* Adds the n-grams of one row of C tokens. */
static void count_row(const model *m, const state *s, const uint32_t *tokens, size_t C, float *to) {
  const int64_t *indexes = m->indexes.data;
  const float *weights = m->weights.count ? m->weights.data : NULL;
  for (size_t step = 1; step <= C && step - 1 <= (uint64_t)m->skips; step++)
    for (size_t begin = 0; begin < C; begin++) {
      uint32_t node = 0;
      size_t at = begin;
      for (int64_t n = 1; n <= m->longest && at < C; n++, at += step) {
        if (tokens[at] == NOTHING) break;
        node = probe(s, node, tokens[at])->child;
        if (node == NOTHING) break;
        if (n < m->shortest || (n == 1 && step > 1) || s->gram[node] == NOTHING) continue;
        float *y = to + indexes[s->gram[node]], w = weights && m->mode != MODE_TF ? weights[s->gram[node]] : 1;
        *y = m->mode == MODE_IDF ? w : *y + w;
      }
    }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0];
  const state *s = ctx->state;
  model m;
  ML_TRY(model_of(ctx->attrs, &m, err));
  size_t rows = x->rank == 2 ? (size_t)x->dims[0] : 1, C = (size_t)x->dims[x->rank - 1];
  float *to = ctx->out[0]->data;
  uint32_t *tokens = ctx->workspace;
  for (size_t r = 0; r < rows; r++, to += m.columns) {
    for (size_t i = 0; i < C; i++) {
      size_t at = ml__lookup_find(s->tokens, x, r * C + i);
      tokens[i] = at == SIZE_MAX ? NOTHING : (uint32_t)at;
    }
    memset(to, 0, m.columns * sizeof *to);
    count_row(&m, s, tokens, C, to);
  }
  return ML_OK;
}

const ml_op_def ml_op_tfidf_vectorizer = {
  .name = "TfIdfVectorizer", .domain = "", .since = 9, .min_in = 1, .max_in = 1, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_BIT(ML_INT32) | ML_BIT(ML_INT64) | ML_BIT(ML_STRING) }, .formula = "Y = counts of n-grams, weighted",
      .infer = infer,
  .prepare = prepare, .release = release, .workspace = workspace, .run = run,
};
