/* One element type of the convolution engine; included by conv_engine.c with T (the type), NAME(f) and GEMM defined. */

/* cols (channels * P, n) for the outputs [o0, o0 + n) of channels x (channels, I). */
static void NAME(gather)(const ml__conv *c, const T *x, size_t channels, size_t o0, size_t n, T *cols) {
  const ml__window *w = &c->w;
  const int32_t last = w->n - 1;
  const int64_t width = w->out[last], step = w->stride[last];
  int64_t tap[ML__WINDOW_RANK] = { 0 }, start[ML__WINDOW_RANK], at[ML__WINDOW_RANK];
  size_t rest = o0;
  for (int32_t d = last; d >= 0; d--) {
    start[d] = (int64_t)(rest % (size_t)w->out[d]);
    rest /= (size_t)w->out[d];
  }
  for (size_t p = 0; p < c->P; p++) {
    int64_t lo, hi, done = 0;
    const int64_t shift = tap[last] * w->dilation[last] - w->begin[last];
    ml__window_valid(w, last, tap[last], &lo, &hi);
    memcpy(at, start, sizeof at);
    while (done < (int64_t)n) { /* one row of outputs at a time */
      const int64_t from = at[last], to = width - from < (int64_t)n - done ? width : from + (int64_t)n - done;
      int64_t base;
      const bool inside = ml__window_row(w, at, tap, &base);
      int64_t a = inside ? (lo < from ? from : lo > to ? to : lo) : to, b = inside ? (hi > to ? to : hi < a ? a : hi) : to;
      for (size_t ch = 0; ch < channels; ch++) {
        T *row = cols + (ch * c->P + p) * n + done;
        const T *src = x + ch * c->I + (inside ? base + shift : 0);
        for (int64_t o = from; o < a; o++) row[o - from] = 0;
        if (step == 1)
          for (int64_t o = a; o < b; o++) row[o - from] = src[o];
        else
          for (int64_t o = a; o < b; o++) row[o - from] = src[o * step];
        for (int64_t o = b; o < to; o++) row[o - from] = 0;
      }
      done += to - from;
      at[last] = 0;
      (void)ml__next_index(at, w->out, last);
    }
    (void)ml__next_index(tap, w->kernel, w->n);
  }
}

/* The inverse: adds every element of cols to the place gather would have read. */
static void NAME(scatter)(const ml__conv *c, const T *cols, size_t channels, size_t o0, size_t n, T *x) {
  const ml__window *w = &c->w;
  const int32_t last = w->n - 1;
  const int64_t width = w->out[last], step = w->stride[last];
  int64_t tap[ML__WINDOW_RANK] = { 0 }, start[ML__WINDOW_RANK], at[ML__WINDOW_RANK];
  size_t rest = o0;
  for (int32_t d = last; d >= 0; d--) {
    start[d] = (int64_t)(rest % (size_t)w->out[d]);
    rest /= (size_t)w->out[d];
  }
  for (size_t p = 0; p < c->P; p++) {
    int64_t lo, hi, done = 0;
    const int64_t shift = tap[last] * w->dilation[last] - w->begin[last];
    ml__window_valid(w, last, tap[last], &lo, &hi);
    memcpy(at, start, sizeof at);
    while (done < (int64_t)n) {
      const int64_t from = at[last], to = width - from < (int64_t)n - done ? width : from + (int64_t)n - done;
      int64_t base;
      const bool inside = ml__window_row(w, at, tap, &base);
      int64_t a = lo < from ? from : lo > to ? to : lo, b = hi > to ? to : hi < a ? a : hi;
      for (size_t ch = 0; ch < channels && inside; ch++) {
        const T *row = cols + (ch * c->P + p) * n + done;
        T *dst = x + (int64_t)(ch * c->I) + base + shift;
        if (step == 1)
          for (int64_t o = a; o < b; o++) dst[o] += row[o - from];
        else
          for (int64_t o = a; o < b; o++) dst[o * step] += row[o - from];
      }
      done += to - from;
      at[last] = 0;
      (void)ml__next_index(at, w->out, last);
    }
    (void)ml__next_index(tap, w->kernel, w->n);
  }
}

/* ---- one input channel per group ---- */
/* y[o] = bias + sum over the `rows` given rows of x and the taps of each; every tap of the outputs [lo, hi) lies in the row. The
 * sums of a block of outputs stay in registers. */
#define DIRECT_BLOCKS(LOAD)                                                                                                      \
  for (; o < hi && hi - lo >= BLOCK; o += BLOCK) {                                                                               \
    if (o > hi - BLOCK) o = hi - BLOCK; /* the last block overlaps the one before, with the same results */                      \
    VECTOR s0 = start, s1 = start, s2 = start, s3 = start;                                                                       \
    for (size_t r = 0; r < rows; r++)                                                                                            \
      for (int64_t k = 0; k < taps; k++) {                                                                                       \
        const VECTOR f = weight[r][k] - (VECTOR){ 0 };                                                                           \
        const T *const src = x[r] + o * step + k * d;                                                                            \
        s0 += f * LOAD(src);                                                                                                     \
        s1 += f * LOAD(src + LANES * step);                                                                                      \
        s2 += f * LOAD(src + 2 * LANES * step);                                                                                  \
        s3 += f * LOAD(src + 3 * LANES * step);                                                                                  \
      }                                                                                                                          \
    memcpy(y + o, &s0, sizeof s0);                                                                                               \
    memcpy(y + o + LANES, &s1, sizeof s1);                                                                                       \
    memcpy(y + o + 2 * LANES, &s2, sizeof s2);                                                                                   \
    memcpy(y + o + 3 * LANES, &s3, sizeof s3);                                                                                   \
  }
static inline VECTOR NAME(load)(const T *from) {
  VECTOR v;
  memcpy(&v, from, sizeof v);
  return v;
}
static inline VECTOR NAME(load_even)(const T *from) {
  VECTOR v = { 0 };
  for (int i = 0; i < (int)(sizeof v / sizeof(T)); i++) v[i] = from[2 * i];
  return v;
}
static void NAME(direct_row)(const T *const *x, const T *const *weight, size_t rows, int64_t taps, int64_t d, int64_t step,
                             int64_t lo, int64_t hi, T bias, T *y) {
  enum { LANES = sizeof(VECTOR) / sizeof(T), BLOCK = 4 * LANES };
  const VECTOR start = bias - (VECTOR){ 0 };
  int64_t o = lo;
  if (step == 1) DIRECT_BLOCKS(NAME(load))
  else if (step == 2) DIRECT_BLOCKS(NAME(load_even))
  for (; o < hi; o++) {
    T sum = bias;
    for (size_t r = 0; r < rows; r++)
      for (int64_t k = 0; k < taps; k++) sum += weight[r][k] * x[r][o * step + k * d];
    y[o] = sum;
  }
}
#undef DIRECT_BLOCKS

static void NAME(direct_plane)(const ml__conv *c, const T *x, const T *weights, T bias, T *y) {
  const ml__window *w = &c->w;
  const int32_t last = w->n - 1;
  const int64_t width = w->out[last], step = w->stride[last], taps = w->kernel[last], d = w->dilation[last];
  int64_t at[ML__WINDOW_RANK] = { 0 }, lo, hi, first, end;
  ml__window_valid(w, last, 0, &first, &hi); /* outputs all of whose taps in a row lie in the input: from first to end */
  ml__window_valid(w, last, taps - 1, &lo, &end);
  if (end < first) end = first;
  do {
    int64_t tap[ML__WINDOW_RANK] = { 0 };
    const T *row[DIRECT_ROWS], *weight[DIRECT_ROWS], *now = weights;
    size_t rows = 0;
    do {
      int64_t base;
      if (ml__window_row(w, at, tap, &base)) {
        row[rows] = x + base - w->begin[last];
        weight[rows++] = now;
      }
      now += taps;
    } while (ml__next_index(tap, w->kernel, last));
    NAME(direct_row)(row, weight, rows, taps, d, step, first, end, bias, y);
    for (int64_t o = 0; o < width; o++) { /* the edges */
      if (o == first) o = end;
      if (o >= width) break;
      T sum = bias;
      for (int64_t k = 0; k < taps; k++) {
        const int64_t pos = o * step + k * d;
        if (pos < w->begin[last] || pos - w->begin[last] >= w->in[last]) continue;
        for (size_t r = 0; r < rows; r++) sum += weight[r][k] * row[r][pos];
      }
      y[o] = sum;
    }
    y += width;
  } while (ml__next_index(at, w->out, last));
}

static void NAME(direct_chunk)(void *context, size_t index) {
  const job *j = context;
  const ml__conv *c = j->c;
  size_t first, end, planes = c->G * c->M;
  ml__unit_range(c->N * planes, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    size_t image = u / planes, plane = u % planes;
    NAME(direct_plane)(c, (const T *)j->x + (image * c->G + plane / c->M) * c->I, (const T *)j->weights + plane * c->P,
                       j->bias ? ((const T *)j->bias)[plane] : 0, (T *)j->y + u * c->O);
  }
}

/* ---- y = W cols(x) ---- */
static void NAME(forward_chunk)(void *context, size_t index) {
  const job *j = context;
  const ml__conv *c = j->c;
  const blocks *b = &j->blocks;
  const size_t K = c->C * c->P;
  T *cols = (T *)j->workspace + index * b->buffer;
  size_t first, end;
  ml__unit_range(b->units, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    size_t col = u % b->col_blocks * b->cols, row = u / b->col_blocks % b->row_blocks * b->rows,
           at = u / b->col_blocks / b->row_blocks;
    size_t group = at % c->G, n = c->O - col < b->cols ? c->O - col : b->cols, m = c->M - row < b->rows ? c->M - row : b->rows;
    const T *x = (const T *)j->x + at * c->C * c->I, *weights = (const T *)j->weights + (group * c->M + row) * K;
    T *y = (T *)j->y + (at * c->M + row) * c->O + col;
    bool start = j->bias != NULL || K == 0; /* y holds the bias already */
    for (size_t i = 0; i < m && start; i++) {
      const T value = j->bias ? ((const T *)j->bias)[group * c->M + row + i] : 0;
      for (size_t o = 0; o < n; o++) y[i * c->O + o] = value;
    }
    if (b->plain) {
      if (K) GEMM(j->kernels, false, false, m, n, K, weights, K, x + col, c->I, start, y, c->O);
      continue;
    }
    for (size_t ch = 0; ch < c->C; ch += b->channels) {
      size_t some = c->C - ch < b->channels ? c->C - ch : b->channels;
      NAME(gather)(c, x + ch * c->I, some, col, n, cols);
      GEMM(j->kernels, false, false, m, n, some * c->P, weights + ch * c->P, K, cols, n, start, y, c->O);
      start = true;
    }
  }
}

/* ---- the same for few and large images: all columns first, by channels, then the product, by rows ---- */
static void NAME(columns_chunk)(void *context, size_t index) {
  const job *j = context;
  const ml__conv *c = j->c;
  size_t first, end;
  ml__unit_range(c->C, j->chunks, index, &first, &end);
  if (first < end)
    NAME(gather)(c, (const T *)j->x + (j->at * c->C + first) * c->I, end - first, 0, c->O,
                 (T *)j->workspace + first * c->P * c->O);
}

static void NAME(rows_chunk)(void *context, size_t index) {
  const job *j = context;
  const ml__conv *c = j->c;
  const size_t K = c->C * c->P, row = index * j->blocks.rows, group = j->at % c->G;
  const size_t m = c->M - row < j->blocks.rows ? c->M - row : j->blocks.rows;
  T *y = (T *)j->y + (j->at * c->M + row) * c->O;
  for (size_t i = 0; i < m && j->bias; i++) {
    const T value = ((const T *)j->bias)[group * c->M + row + i];
    for (size_t o = 0; o < c->O; o++) y[i * c->O + o] = value;
  }
  GEMM(j->kernels, false, false, m, c->O, K, (const T *)j->weights + (group * c->M + row) * K, K, (const T *)j->workspace, c->O,
       j->bias != NULL, y, c->O);
}

/* ---- dx = cols^-1 (W' dy); each unit owns the channels it writes ---- */
static void NAME(data_chunk)(void *context, size_t index) {
  const job *j = context;
  const ml__conv *c = j->c;
  const blocks *b = &j->blocks;
  const size_t K = c->C * c->P;
  T *cols = (T *)j->workspace + index * b->buffer;
  size_t first, end;
  ml__unit_range(b->units, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    size_t ch = u % b->channel_blocks * b->channels, at = u / b->channel_blocks, group = at % c->G;
    size_t some = c->C - ch < b->channels ? c->C - ch : b->channels;
    const T *dy = (const T *)j->x + at * c->M * c->O, *weights = (const T *)j->weights + group * c->M * K + ch * c->P;
    T *dx = (T *)j->y + (at * c->C + ch) * c->I;
    for (size_t i = 0; i < some; i++) {
      const T value = j->bias ? ((const T *)j->bias)[group * c->C + ch + i] : 0;
      for (size_t o = 0; o < c->I; o++) dx[i * c->I + o] = value;
    }
    for (size_t col = 0; col < c->O && c->M > 0; col += b->cols) {
      size_t n = c->O - col < b->cols ? c->O - col : b->cols;
      if (b->plain) {
        GEMM(j->kernels, true, false, some, n, c->M, weights, K, dy + col, c->O, true, dx + col, c->I);
        continue;
      }
      GEMM(j->kernels, true, false, some * c->P, n, c->M, weights, K, dy + col, c->O, false, cols, n);
      NAME(scatter)(c, cols, some, col, n, dx);
    }
  }
}

/* ---- dW = sum dy cols(x)'; each unit owns a block of dW ---- */
static void NAME(weights_chunk)(void *context, size_t index) {
  const job *j = context;
  const ml__conv *c = j->c;
  const blocks *b = &j->blocks;
  const size_t K = c->C * c->P;
  T *cols = (T *)j->workspace + index * b->buffer;
  size_t first, end;
  ml__unit_range(b->units, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    size_t ch = u % b->channel_blocks * b->channels, row = u / b->channel_blocks % b->row_blocks * b->rows;
    size_t group = u / b->channel_blocks / b->row_blocks;
    size_t some = c->C - ch < b->channels ? c->C - ch : b->channels, m = c->M - row < b->rows ? c->M - row : b->rows;
    T *dw = (T *)j->y + (group * c->M + row) * K + ch * c->P;
    for (size_t i = 0; i < m; i++) memset(dw + i * K, 0, some * c->P * sizeof(T));
    for (size_t image = 0; image < c->N; image++) {
      const T *dy = (const T *)j->weights + ((image * c->G + group) * c->M + row) * c->O;
      const T *x = (const T *)j->x + ((image * c->G + group) * c->C + ch) * c->I;
      for (size_t col = 0; col < c->O; col += b->cols) {
        size_t n = c->O - col < b->cols ? c->O - col : b->cols;
        if (b->plain) {
          GEMM(j->kernels, false, true, m, some, n, dy + col, c->O, x + col, c->I, true, dw, K);
          continue;
        }
        NAME(gather)(c, x, some, col, n, cols);
        GEMM(j->kernels, false, true, m, some * c->P, n, dy + col, c->O, cols, n, true, dw, K);
      }
    }
  }
}
