/* GridSample 22: Y[n][c][p] = X[n][c] interpolated at grid[n][p], whose coordinates run from -1 to 1, innermost dimension first.
 * X (N,C,D1…Dr), grid (N,O1…Or,r) -> Y (N,C,O1…Or), r = 1 to 3. mode linear, nearest or cubic (a = -0.75); beyond the edges
 * padding_mode zeros, border or reflection. Jaderberg et al. 2015; Keys 1981; ONNX operator specification. */
#include <math.h>
#include "base/thread.h"
#include "ops/window.h"

static const ml_attr_def attrs[] = {
  { "align_corners", ML_ATTR_INT, false,
    "0 (default): -1 and 1 are the edges of the image; 1: the centres of the corner pixels" },
  { "mode", ML_ATTR_STRING, false, "linear (default), nearest or cubic; bilinear and bicubic are older names" },
  { "padding_mode", ML_ATTR_STRING, false, "zeros (default), border or reflection" },
  { 0 },
};

enum { R_MAX = 3, TAPS_MAX = 64 };
typedef enum mode { LINEAR, NEAREST, CUBIC } mode;
typedef enum padding { ZEROS, BORDER, REFLECTION } padding;

static ml_status options(const ml_attrs *list, mode *m, padding *p, ml_error *err) {
  if (ml_attr_is(list, "mode", "linear", "linear") || ml_attr_is(list, "mode", "linear", "bilinear")) *m = LINEAR;
  else if (ml_attr_is(list, "mode", "linear", "nearest")) *m = NEAREST;
  else if (ml_attr_is(list, "mode", "linear", "cubic") || ml_attr_is(list, "mode", "linear", "bicubic")) *m = CUBIC;
  else return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'mode': expected linear, nearest or cubic");
  if (ml_attr_is(list, "padding_mode", "zeros", "zeros")) *p = ZEROS;
  else if (ml_attr_is(list, "padding_mode", "zeros", "border")) *p = BORDER;
  else if (ml_attr_is(list, "padding_mode", "zeros", "reflection")) *p = REFLECTION;
  else return ml_fail(err, ML_INVALID_ARGUMENT, "attribute 'padding_mode': expected zeros, border or reflection");
  return ML_OK;
}

static ml_status infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0], *grid = ctx->in[1];
  int64_t dims[ML_MAX_RANK];
  mode m;
  padding p;
  char a[96], b[96];
  ML_TRY(options(ctx->attrs, &m, &p, err));
  int32_t rank = x->rank != ML_UNKNOWN ? x->rank : grid->rank;
  if (rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], x->dtype, NULL, ML_UNKNOWN);
    return ML_OK;
  }
  bool fits = rank >= 3 && rank <= R_MAX + 2 && (grid->rank == ML_UNKNOWN || grid->rank == rank);
  if (fits && grid->rank == rank)
    fits = (grid->dims[rank - 1] < 0 || grid->dims[rank - 1] == rank - 2) &&
           (x->rank == ML_UNKNOWN || x->dims[0] < 0 || grid->dims[0] < 0 || x->dims[0] == grid->dims[0]);
  if (!fits)
    return ml_fail(err, ML_INVALID_ARGUMENT, "X %s and grid %s: expected (N, C, D1 … Dr) and (N, O1 … Or, r) with r from 1 to %d",
                   ml_shape_format(x->dims, x->rank, a, sizeof a), ml_shape_format(grid->dims, grid->rank, b, sizeof b), R_MAX);
  dims[0] = x->rank == rank && x->dims[0] >= 0 ? x->dims[0] : grid->rank == rank ? grid->dims[0] : ML_UNKNOWN;
  dims[1] = x->rank == rank ? x->dims[1] : ML_UNKNOWN;
  for (int32_t d = 2; d < rank; d++) dims[d] = grid->rank == rank ? grid->dims[d - 1] : ML_UNKNOWN;
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

/* x mirrored at low and high until it lies between them */
static double reflect(double x, double low, double high) {
  double span = high - low;
  if (!(span > 0)) return low;
  double rest = fmod(fabs(x - low), 2 * span);
  return low + (rest > span ? 2 * span - rest : rest);
}

static double cubic(double x) {
  const double a = -0.75;
  x = fabs(x);
  return x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0;
}

/* Positions (-1: counts as zero) and weights of one dimension of n pixels; gives their number. */
static int taps(double at, int64_t n, bool corners, mode m, padding p, bool single, int64_t *index, double *weight) {
  const double low = corners ? 0 : -0.5, high = corners ? (double)(n - 1) : (double)n - 0.5;
  double x = corners ? (at + 1) / 2 * (double)(n - 1) : ((at + 1) * (double)n - 1) / 2;
  if (single) x = (double)(float)x;
  if (m == NEAREST) x = rint(x);
  if (x < low || x > high) {
    if (p == BORDER) x = x < 0 ? 0 : (double)(n - 1);
    if (p == REFLECTION) x = reflect(x, low, high);
  }
  int count = m == NEAREST ? 1 : m == LINEAR ? 2 : 4;
  if (!(fabs(x) < 1e15)) { /* not a number, or far outside */
    for (int k = 0; k < count; k++) {
      index[k] = -1;
      weight[k] = 0;
    }
    return count;
  }
  double base = m == NEAREST ? x : floor(x) - (m == CUBIC ? 1 : 0);
  for (int k = 0; k < count; k++) {
    double position = base + k;
    weight[k] = m == NEAREST ? 1 : m == LINEAR ? 1 - fabs(x - position) : cubic(x - position);
    if (p == REFLECTION) position = trunc(reflect(position, low, high));
    int64_t i = (int64_t)position;
    if (p != ZEROS) i = i < 0 ? 0 : i >= n ? n - 1 : i;
    index[k] = i >= 0 && i < n ? i : -1;
  }
  return count;
}

typedef struct job {
  const ml_op_ctx *ctx;
  mode m;
  padding p;
  size_t units, chunks, positions; /* units: positions of all images */
} job;

static void chunk(void *context, size_t index) {
  const job *j = context;
  const ml_view *x = j->ctx->in[0], *grid = j->ctx->in[1], *y = j->ctx->out[0];
  const bool corners = ml_attr_int(j->ctx->attrs, "align_corners", 0) != 0, single = x->dtype == ML_FLOAT32;
  const int32_t r = x->rank - 2;
  const size_t channels = (size_t)x->dims[1], plane = ml__extent(x->dims, 2, x->rank);
  size_t first, end;
  ml__unit_range(j->units, j->chunks, index, &first, &end);
  for (size_t u = first; u < end; u++) {
    size_t place[TAPS_MAX], n = 1;
    double weight[TAPS_MAX];
    place[0] = 0;
    weight[0] = 1;
    for (int32_t d = 0; d < r; d++) { /* the product of the dimensions' taps, in place from the back */
      int64_t at[4];
      double w[4];
      int count = taps(ml_element_get(grid->data, grid->dtype, u * (size_t)r + (size_t)(r - 1 - d)), x->dims[d + 2], corners,
                       j->m, j->p, single, at, w);
      for (size_t i = n; i-- > 0;)
        for (int k = count - 1; k >= 0; k--) {
          size_t to = i * (size_t)count + (size_t)k;
          weight[to] = at[k] < 0 ? 0 : weight[i] * w[k];
          place[to] = at[k] < 0 ? place[i] * (size_t)x->dims[d + 2] : place[i] * (size_t)x->dims[d + 2] + (size_t)at[k];
        }
      n *= (size_t)count;
    }
    size_t used = 0;
    for (size_t i = 0; i < n; i++)
      if (weight[i] != 0) {
        place[used] = place[i];
        weight[used++] = weight[i];
      }
    size_t image = u / j->positions, position = u % j->positions;
    ML_SWITCH_FLOAT(x->dtype, {
      for (size_t c = 0; c < channels; c++) {
        const T *from = (const T *)x->data + (image * channels + c) * plane;
        double sum = 0;
        for (size_t i = 0; i < used; i++) sum += weight[i] * (double)from[place[i]];
        ((T *)y->data)[(image * channels + c) * j->positions + position] = (T)sum;
      }
    })
  }
}

static ml_status run(ml_op_ctx *ctx, ml_error *err) {
  const ml_view *x = ctx->in[0], *y = ctx->out[0];
  job j = { .ctx = ctx };
  if (y->count == 0) return ML_OK;
  ML_TRY(options(ctx->attrs, &j.m, &j.p, err));
  if (x->count == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "X has no pixels");
  j.positions = ml__extent(y->dims, 2, y->rank);
  j.units = (size_t)y->dims[0] * j.positions;
  if (ctx->in[1]->count != j.units * (size_t)(x->rank - 2))
    return ml_fail(err, ML_INVALID_ARGUMENT, "grid has %zu elements", ctx->in[1]->count);
  j.chunks = ml__unit_chunks(j.units, 50 + 16 * (double)x->dims[1], 64);
  ml_parallel(j.chunks, chunk, &j);
  return ML_OK;
}

const ml_op_def ml_op_grid_sample = {
  .name = "GridSample", .domain = "", .since = 22, .min_in = 2, .max_in = 2, .min_out = 1, .max_out = 1, .attrs = attrs,
  .types = { ML_MASK_F }, .formula = "Y = X interpolated at the grid's positions", .infer = infer, .run = run,
};
