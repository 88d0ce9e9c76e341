/* Reductions. Adjacent dimensions that are all kept or all reduced merge, which leaves an alternating list; its innermost entry
 * decides the loop: when it is reduced, each output folds contiguous runs in LANES independent partial results that are combined
 * in a fixed order; when it is kept, up to BLOCK neighbouring outputs are folded together, row by row. Both orders depend on the
 * shape only. Floats accumulate in double, integers modulo 2^64; float32 sums of the two plain patterns go to the kernels.
 * LogSumExp is max + log sum exp(x - max). */
#include "ops/reduce.h"
#include <float.h>
#include <math.h>
#include <string.h>
#include "base/thread.h"
#include "kernels/kernels.h"

enum { LANES = 16, BLOCK = 64 };
#define CHUNK_ELEMENTS (1 << 18) /* elements a parallel chunk reads at least */

const ml_attr_def ml__reduce_attrs[] = {
  { "keepdims", ML_ATTR_INT, false, "1 (default): reduced dimensions stay with extent 1" },
  { "noop_with_empty_axes", ML_ATTR_INT, false, "0 (default): no axes means all; 1: no axes means none" },
  { 0 },
};

/* ---------------------------------------------------------------- shapes ---- */
typedef struct plan_axes {
  bool set[ML_MAX_RANK];
  bool known, noop;
  size_t count; /* number of axes where known or the tensor's length is; SIZE_MAX otherwise */
} plan_axes;

static ml_status axes_of(const ml_op_ctx *ctx, plan_axes *out, ml_error *err) {
  const ml_view *x = ctx->in[0], *axes = ml__in(ctx, 1);
  int64_t list[ML_MAX_RANK];
  memset(out, 0, sizeof *out);
  ML_TRY(ml__ints(axes, list, ML_MAX_RANK, &out->count, &out->known, "axes", err));
  if (!out->known) {
    out->count = axes->rank == 1 && axes->dims[0] >= 0 ? (size_t)axes->dims[0] : SIZE_MAX;
    return ML_OK;
  }
  if (out->count == 0) {
    out->noop = ml_attr_int(ctx->attrs, "noop_with_empty_axes", 0) != 0;
    for (int32_t i = 0; i < x->rank; i++) out->set[i] = !out->noop;
    return ML_OK;
  }
  return x->rank == ML_UNKNOWN ? ML_OK : ml__axes(list, out->count, x->rank, out->set, err);
}

ml_status ml__reduce_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  bool keep = ml_attr_int(ctx->attrs, "keepdims", 1) != 0;
  int64_t dims[ML_MAX_RANK];
  int32_t rank = 0;
  plan_axes axes;
  ML_TRY(axes_of(ctx, &axes, err));
  if (x->rank == ML_UNKNOWN) {
    bool all = axes.known && axes.count == 0 && !axes.noop && !keep;
    ml_op_set(ctx->out[0], x->dtype, dims, all ? 0 : ML_UNKNOWN);
    return ML_OK;
  }
  if (!axes.known) {
    for (int32_t i = 0; i < x->rank; i++) dims[i] = ML_UNKNOWN;
    if (keep) rank = x->rank;
    else
      rank =
          axes.count == SIZE_MAX || axes.count == 0 || axes.count > (size_t)x->rank ? ML_UNKNOWN : x->rank - (int32_t)axes.count;
    ml_op_set(ctx->out[0], x->dtype, dims, rank);
    return ML_OK;
  }
  for (int32_t i = 0; i < x->rank; i++) {
    if (!axes.set[i]) dims[rank++] = x->dims[i];
    else if (keep) dims[rank++] = 1;
  }
  ml_op_set(ctx->out[0], x->dtype, dims, rank);
  return ML_OK;
}

double ml__reduce_flops(const ml_op_ctx *ctx) { return (double)ctx->in[0]->count; }

/* ---------------------------------------------------------------- geometry ---- */
typedef struct geometry {
  int32_t n_kept, n_reduced;
  int64_t kept[ML_MAX_RANK], kept_stride[ML_MAX_RANK];       /* outer kept dimensions */
  int64_t reduced[ML_MAX_RANK], reduced_stride[ML_MAX_RANK]; /* outer reduced dimensions, before `run` */
  int64_t run;   /* contiguous elements folded into one output; 1 when the innermost dimension is kept */
  int64_t width; /* neighbouring outputs; 1 when the innermost dimension is reduced */
  size_t outer;  /* outputs / width */
  size_t n;      /* elements folded into each output */
} geometry;

static void plan(const ml_view *x, const bool *set, geometry *p) {
  int64_t dims[ML_MAX_RANK], stride[ML_MAX_RANK];
  bool red[ML_MAX_RANK];
  int32_t n = 0;
  memset(p, 0, sizeof *p);
  for (int32_t i = 0; i < x->rank; i++) {
    if (x->dims[i] == 1) continue;
    if (n > 0 && red[n - 1] == set[i]) dims[n - 1] *= x->dims[i];
    else {
      dims[n] = x->dims[i];
      red[n++] = set[i];
    }
  }
  ml__strides(dims, n, stride);
  p->run = p->width = 1;
  if (n > 0 && red[n - 1]) p->run = dims[n - 1];
  else if (n > 0) p->width = dims[n - 1];
  p->outer = 1;
  p->n = (size_t)p->run;
  for (int32_t i = 0; i + 1 < n; i++) {
    if (red[i]) {
      p->reduced[p->n_reduced] = dims[i];
      p->reduced_stride[p->n_reduced++] = stride[i];
      p->n *= (size_t)dims[i];
    } else {
      p->kept[p->n_kept] = dims[i];
      p->kept_stride[p->n_kept++] = stride[i];
      p->outer *= (size_t)dims[i];
    }
  }
}

static __attribute__((noinline)) int64_t kept_offset(const geometry *p, size_t index) {
  int64_t offset = 0;
  for (int32_t i = p->n_kept - 1; i >= 0; i--) {
    offset += (int64_t)(index % (size_t)p->kept[i]) * p->kept_stride[i];
    index /= (size_t)p->kept[i];
  }
  return offset;
}

typedef struct odometer {
  int64_t index[ML_MAX_RANK], offset;
} odometer;

/* Next outer reduced index; false after the last. */
static __attribute__((noinline)) bool next(const geometry *p, odometer *o) {
  for (int32_t i = p->n_reduced - 1; i >= 0; i--) {
    o->offset += p->reduced_stride[i];
    if (++o->index[i] < p->reduced[i]) return true;
    o->offset -= p->reduced_stride[i] * p->reduced[i];
    o->index[i] = 0;
  }
  return false;
}

/* ---------------------------------------------------------------- folding ---- */
#define INLINE static inline __attribute__((always_inline))

INLINE double start_f(ml_reduction r) {
  switch (r) {
    case ML_RED_PROD: return 1;
    case ML_RED_MAX: return -INFINITY;
    case ML_RED_MIN: return INFINITY;
    default: return 0;
  }
}

/* shift: LogSumExp's maximum */
INLINE double step_f(ml_reduction r, double a, double x, double shift) {
  switch (r) {
    case ML_RED_PROD: return a * x;
    case ML_RED_MAX: return x > a || x != x ? x : a;
    case ML_RED_MIN: return x < a || x != x ? x : a;
    case ML_RED_L1: return a + fabs(x);
    case ML_RED_L2:
    case ML_RED_SUM_SQUARE: return a + x * x;
    case ML_RED_LOG_SUM_EXP: return a + exp(x - shift);
    default: return a + x;
  }
}

INLINE double combine_f(ml_reduction r, double a, double b) {
  switch (r) {
    case ML_RED_PROD: return a * b;
    case ML_RED_MAX: return b > a || b != b ? b : a;
    case ML_RED_MIN: return b < a || b != b ? b : a;
    default: return a + b;
  }
}

static __attribute__((noinline)) double finish_f(ml_reduction r, double a, size_t n, double shift) {
  switch (r) {
    case ML_RED_MEAN: return a / (double)n;
    case ML_RED_L2: return sqrt(a);
    case ML_RED_LOG_SUM: return log(a);
    case ML_RED_LOG_SUM_EXP: return log(a) + shift;
    default: return a;
  }
}

static double safe_shift(double max) { return isfinite(max) ? max : 0; }

/* One pass of `r` for float type T: over runs into one result, over rows into `width` results. */
#define DEFINE_FOLD(T, suffix)                                                                                                  \
  INLINE double runs_##suffix(ml_reduction r, const geometry *p, const T *x, double shift) {                                    \
    double lane[LANES];                                                                                                         \
    for (int i = 0; i < LANES; i++) lane[i] = start_f(r);                                                                       \
    odometer o = { { 0 }, 0 };                                                                                                  \
    do {                                                                                                                        \
      const T *v = x + o.offset;                                                                                                \
      int64_t i = 0;                                                                                                            \
      for (; i + LANES <= p->run; i += LANES)                                                                                   \
        for (int k = 0; k < LANES; k++) lane[k] = step_f(r, lane[k], (double)v[i + k], shift);                                  \
      for (; i < p->run; i++) lane[i % LANES] = step_f(r, lane[i % LANES], (double)v[i], shift);                                \
    } while (next(p, &o));                                                                                                      \
    for (int half = LANES / 2; half > 0; half /= 2)                                                                             \
      for (int k = 0; k < half; k++) lane[k] = combine_f(r, lane[k], lane[k + half]);                                           \
    return lane[0];                                                                                                             \
  }                                                                                                                             \
  INLINE void rows_##suffix(ml_reduction r, const geometry *p, const T *x, int64_t n, const double *shift, double *acc) {       \
    for (int64_t k = 0; k < n; k++) acc[k] = start_f(r);                                                                        \
    odometer o = { { 0 }, 0 };                                                                                                  \
    do {                                                                                                                        \
      const T *v = x + o.offset;                                                                                                \
      for (int64_t k = 0; k < n; k++) acc[k] = step_f(r, acc[k], (double)v[k], r == ML_RED_LOG_SUM_EXP ? shift[k] : 0);         \
    } while (next(p, &o));                                                                                                      \
  }                                                                                                                             \
  INLINE void fold_##suffix(ml_reduction kind, ml_reduction r, const geometry *p, const T *x, T *y, size_t begin, size_t end) { \
    for (size_t i = begin; i < end; i++) {                                                                                      \
      const T *from = x + kept_offset(p, i);                                                                                    \
      if (p->width == 1) {                                                                                                      \
        double shift = kind == ML_RED_LOG_SUM_EXP ? safe_shift(runs_##suffix(ML_RED_MAX, p, from, 0)) : 0;                      \
        y[i] = (T)finish_f(r, runs_##suffix(kind, p, from, shift), p->n, shift);                                                \
        continue;                                                                                                               \
      }                                                                                                                         \
      for (int64_t at = 0; at < p->width; at += BLOCK) {                                                                        \
        int64_t n = p->width - at < BLOCK ? p->width - at : BLOCK;                                                              \
        double acc[BLOCK], shift[BLOCK] = { 0 };                                                                                \
        if (kind == ML_RED_LOG_SUM_EXP) {                                                                                       \
          rows_##suffix(ML_RED_MAX, p, from + at, n, shift, acc);                                                               \
          for (int64_t k = 0; k < n; k++) shift[k] = safe_shift(acc[k]);                                                        \
        }                                                                                                                       \
        rows_##suffix(kind, p, from + at, n, shift, acc);                                                                       \
        for (int64_t k = 0; k < n; k++) y[(int64_t)i * p->width + at + k] = (T)finish_f(r, acc[k], p->n, shift[k]);             \
      }                                                                                                                         \
    }                                                                                                                           \
  }                                                                                                                             \
  static void float_##suffix(ml_reduction r, const geometry *p, const T *x, T *y, size_t begin, size_t end) {                   \
    switch (r) {                                                                                                                \
      case ML_RED_MAX: fold_##suffix(ML_RED_MAX, r, p, x, y, begin, end); break;                                                \
      case ML_RED_MIN: fold_##suffix(ML_RED_MIN, r, p, x, y, begin, end); break;                                                \
      case ML_RED_PROD: fold_##suffix(ML_RED_PROD, r, p, x, y, begin, end); break;                                              \
      case ML_RED_L1: fold_##suffix(ML_RED_L1, r, p, x, y, begin, end); break;                                                  \
      case ML_RED_L2:                                                                                                           \
      case ML_RED_SUM_SQUARE: fold_##suffix(ML_RED_SUM_SQUARE, r, p, x, y, begin, end); break;                                  \
      case ML_RED_LOG_SUM_EXP: fold_##suffix(ML_RED_LOG_SUM_EXP, r, p, x, y, begin, end); break;                                \
      default: fold_##suffix(ML_RED_SUM, r, p, x, y, begin, end); break;                                                        \
    }                                                                                                                           \
  }
DEFINE_FOLD(float, f32)
DEFINE_FOLD(double, f64)

/* ---- integers: exact modulo 2^64, one element at a time; roots and logarithms through double ---- */
typedef struct integer {
  uint64_t bits;
  double real;
} integer;

/* is_signed: bits hold an int64 */
static __attribute__((noinline)) void step_i(ml_reduction r, bool is_signed, integer *a, uint64_t v) {
  bool less = is_signed ? (int64_t)v < (int64_t)a->bits : v < a->bits,
       more = is_signed ? (int64_t)v > (int64_t)a->bits : v > a->bits;
  double real = is_signed ? (double)(int64_t)v : (double)v;
  switch (r) {
    case ML_RED_SUM:
    case ML_RED_MEAN:
      a->bits += v;
      a->real += real;
      break;
    case ML_RED_MAX:
      if (more) a->bits = v;
      break;
    case ML_RED_MIN:
      if (less) a->bits = v;
      break;
    case ML_RED_PROD: a->bits *= v; break;
    case ML_RED_L1: a->bits += is_signed && (int64_t)v < 0 ? 0 - v : v; break;
    case ML_RED_SUM_SQUARE: a->bits += v * v; break;
    case ML_RED_L2: a->real += real * real; break;
    case ML_RED_LOG_SUM: a->real += real; break;
    case ML_RED_LOG_SUM_EXP: { /* running maximum in bits, sum relative to it */
      double max = is_signed ? (double)(int64_t)a->bits : (double)a->bits;
      if (a->real == 0) {
        a->bits = v;
        a->real = 1;
      } else if (more) {
        a->real = a->real * exp(max - real) + 1;
        a->bits = v;
      } else a->real += exp(real - max);
      break;
    }
  }
}

static __attribute__((noinline)) double finish_i(ml_reduction r, bool is_signed, const integer *a, size_t n) {
  double top = is_signed ? (double)(int64_t)a->bits : (double)a->bits;
  switch (r) {
    case ML_RED_MEAN: return a->real / (double)n;
    case ML_RED_L2: return sqrt(a->real);
    case ML_RED_LOG_SUM: return log(a->real);
    default: return log(a->real) + (a->real > 0 ? top : 0);
  }
}

#define DEFINE_INTEGER(T, suffix, dtype, lowest, highest)                                                       \
  static void integer_##suffix(ml_reduction r, const geometry *p, const T *x, T *y, size_t begin, size_t end) { \
    bool is_signed = (T) - 1 < (T)1;                                                                            \
    for (size_t i = begin; i < end; i++)                                                                        \
      for (int64_t w = 0; w < p->width; w++) {                                                                  \
        integer a = { r == ML_RED_PROD  ? 1                                                                     \
                      : r == ML_RED_MAX ? (uint64_t)(lowest)                                                    \
                      : r == ML_RED_MIN ? (uint64_t)(highest)                                                   \
                                        : 0,                                                                    \
                      0 };                                                                                      \
        if (p->n > 0) {                                                                                         \
          odometer o = { { 0 }, 0 };                                                                            \
          const T *from = x + kept_offset(p, i) + w;                                                            \
          do                                                                                                    \
            for (int64_t k = 0; k < p->run; k++) step_i(r, is_signed, &a, (uint64_t)from[o.offset + k]);        \
          while (next(p, &o));                                                                                  \
        }                                                                                                       \
        T *out = &y[(int64_t)i * p->width + w];                                                                 \
        if (r == ML_RED_MEAN || r == ML_RED_L2 || r == ML_RED_LOG_SUM || r == ML_RED_LOG_SUM_EXP) {             \
          double v = finish_i(r, is_signed, &a, p->n);                                                          \
          ml_convert(&v, ML_FLOAT64, out, dtype, 1);                                                            \
        } else *out = (T)a.bits;                                                                                \
      }                                                                                                         \
  }
DEFINE_INTEGER(int32_t, i32, ML_INT32, (int64_t)INT32_MIN, INT32_MAX)
DEFINE_INTEGER(int64_t, i64, ML_INT64, INT64_MIN, INT64_MAX)
DEFINE_INTEGER(uint32_t, u32, ML_UINT32, 0, UINT32_MAX)
DEFINE_INTEGER(uint64_t, u64, ML_UINT64, 0, UINT64_MAX)
DEFINE_INTEGER(int8_t, i8, ML_INT8, (int64_t)INT8_MIN, INT8_MAX)
DEFINE_INTEGER(uint8_t, u8, ML_UINT8, 0, UINT8_MAX)
DEFINE_INTEGER(bool, b, ML_BOOL, 0, 1)

/* ---------------------------------------------------------------- running ---- */
typedef struct task {
  geometry p;
  ml_reduction r;
  ml_dtype dtype;
  const ml_kernels *kernels;
  const void *x;
  void *y;
  size_t step;
} task;

/* Sum and mean of float32 where the reduced elements are one contiguous run or the rows of one matrix. */
static bool sum_by_kernel(const task *t, size_t begin, size_t end) {
  const geometry *p = &t->p;
  if (t->dtype != ML_FLOAT32 || (t->r != ML_RED_SUM && t->r != ML_RED_MEAN)) return false;
  bool runs = p->width == 1 && p->n_reduced == 0, rows = p->width > 1 && p->n_reduced == 1;
  if (!runs && !rows) return false;
  const float *x = t->x;
  float *y = t->y;
  for (size_t i = begin; i < end; i++) {
    const float *from = x + kept_offset(p, i);
    float *to = y + (int64_t)i * p->width;
    if (runs) *to = t->kernels->sum_f32(from, (size_t)p->run);
    else t->kernels->column_sum_f32(from, (size_t)p->reduced[0], (size_t)p->width, (size_t)p->reduced_stride[0], to, false);
    if (t->r == ML_RED_MEAN)
      for (int64_t k = 0; k < p->width; k++) to[k] /= (float)p->n;
  }
  return true;
}

static void chunk(void *context, size_t index) {
  const task *t = context;
  const geometry *p = &t->p;
  size_t begin = index * t->step, end = begin + t->step < p->outer ? begin + t->step : p->outer;
  if (sum_by_kernel(t, begin, end)) return;
  switch (t->dtype) {
    case ML_FLOAT32: float_f32(t->r, p, t->x, t->y, begin, end); break;
    case ML_FLOAT64: float_f64(t->r, p, t->x, t->y, begin, end); break;
    case ML_INT32: integer_i32(t->r, p, t->x, t->y, begin, end); break;
    case ML_INT64: integer_i64(t->r, p, t->x, t->y, begin, end); break;
    case ML_UINT32: integer_u32(t->r, p, t->x, t->y, begin, end); break;
    case ML_UINT64: integer_u64(t->r, p, t->x, t->y, begin, end); break;
    case ML_INT8: integer_i8(t->r, p, t->x, t->y, begin, end); break;
    case ML_UINT8: integer_u8(t->r, p, t->x, t->y, begin, end); break;
    case ML_BOOL: integer_b(t->r, p, t->x, t->y, begin, end); break;
    default: break;
  }
}

/* Nothing to fold: the neutral element everywhere. */
static void neutral(ml_reduction r, ml_view *y) {
  static const geometry none = { .width = 1 };
  static const double nothing = 0;
  unsigned char value[8];
  if (y->dtype == ML_FLOAT32) {
    float v = (float)finish_f(r, start_f(r), 0, 0);
    memcpy(value, &v, sizeof v);
  } else if (y->dtype == ML_FLOAT64) {
    double v = finish_f(r, start_f(r), 0, 0);
    memcpy(value, &v, sizeof v);
  } else {
    union {
      uint64_t force;
      unsigned char bytes[8];
    } one = { 0 };
    task t = { .p = none, .r = r, .dtype = y->dtype, .x = &nothing, .y = &one, .step = 1 };
    t.p.outer = 1;
    chunk(&t, 0);
    memcpy(value, one.bytes, sizeof value);
  }
  ml__fill(y->data, value, ml_dtype_size(y->dtype), y->count);
}

ml_status ml__reduce_run(ml_op_ctx *ctx, ml_reduction r, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  plan_axes axes;
  ML_TRY(axes_of(ctx, &axes, err));
  if (axes.noop) return ml__run_copy(ctx, err);
  size_t outputs = 1;
  for (int32_t i = 0; i < x->rank; i++)
    if (!axes.set[i]) outputs *= (size_t)x->dims[i];
  if (outputs != y->count)
    return ml_fail(err, ML_INVALID_ARGUMENT, "axes: they leave %zu elements, the output has %zu", outputs, y->count);
  if (y->count == 0) return ML_OK;
  if (x->count == 0) {
    neutral(r, y);
    return ML_OK;
  }
  task t = { .r = r, .dtype = x->dtype, .kernels = ctx->run->kernels, .x = x->data, .y = y->data };
  plan(x, axes.set, &t.p);
  size_t per_output = t.p.n * (size_t)t.p.width;
  t.step = per_output >= CHUNK_ELEMENTS ? 1 : CHUNK_ELEMENTS / per_output;
  if (t.step > t.p.outer) t.step = t.p.outer;
  size_t chunks = (t.p.outer + t.step - 1) / t.step;
  if (chunks == 1) chunk(&t, 0);
  else ml_parallel(chunks, chunk, &t);
  return ML_OK;
}

/* ---------------------------------------------------------------- ArgMax, ArgMin ---- */
const ml_attr_def ml__arg_attrs[] = {
  { "axis", ML_ATTR_INT, false, "0 (default): dimension searched" },
  { "keepdims", ML_ATTR_INT, false, "1 (default): that dimension stays with extent 1" },
  { "select_last_index", ML_ATTR_INT, false, "0 (default): the first of equal elements; 1: the last" },
  { 0 },
};

ml_status ml__arg_infer(ml_op_ctx *ctx, ml_error *err) {
  ML_TRY(ml__op_check_types(ctx, err));
  const ml_view *x = ctx->in[0];
  bool keep = ml_attr_int(ctx->attrs, "keepdims", 1) != 0;
  int64_t dims[ML_MAX_RANK];
  int32_t rank = 0, axis;
  if (x->rank == ML_UNKNOWN) {
    ml_op_set(ctx->out[0], ML_INT64, dims, ML_UNKNOWN);
    return ML_OK;
  }
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, &axis, err));
  for (int32_t i = 0; i < x->rank; i++) {
    if (i != axis) dims[rank++] = x->dims[i];
    else if (keep) dims[rank++] = 1;
  }
  ml_op_set(ctx->out[0], ML_INT64, dims, rank);
  return ML_OK;
}

/* A NaN is the extreme of both searches, as in NumPy. */
#define ARG_SEARCH(better)                                                                 \
  for (size_t o = 0; o < outer; o++)                                                       \
    for (size_t i = 0; i < inner; i++) {                                                   \
      const T *v = (const T *)x->data + o * n * inner + i;                                 \
      T best = v[0];                                                                       \
      size_t at = 0;                                                                       \
      for (size_t k = 1; k < n; k++) {                                                     \
        T c = v[k * inner];                                                                \
        if (best != best ? (last && c != c) : (better || c != c || (last && c == best))) { \
          best = c;                                                                        \
          at = k;                                                                          \
        }                                                                                  \
      }                                                                                    \
      ((int64_t *)y->data)[o * inner + i] = (int64_t)at;                                   \
    }

ml_status ml__arg_run(ml_op_ctx *ctx, bool largest, ml_error *err) {
  const ml_view *x = ctx->in[0];
  ml_view *y = ctx->out[0];
  bool last = ml_attr_int(ctx->attrs, "select_last_index", 0) != 0;
  int32_t axis;
  ML_TRY(ml_axis_normalise(ml_attr_int(ctx->attrs, "axis", 0), x->rank, &axis, err));
  if (y->count == 0) return ML_OK;
  size_t n = (size_t)x->dims[axis], outer = ml__extent(x->dims, 0, axis), inner = ml__extent(x->dims, axis + 1, x->rank);
  if (n == 0) return ml_fail(err, ML_INVALID_ARGUMENT, "dimension %d of the input is 0: there is no extreme element", (int)axis);
  if (largest) {
    ML_SWITCH_NUMERIC(x->dtype, ARG_SEARCH(c > best))
  } else {
    ML_SWITCH_NUMERIC(x->dtype, ARG_SEARCH(c < best))
  }
  return ML_OK;
}

/* ---------------------------------------------------------------- gradients ---- */
static ml_value *axes_value(ml_grad *g) { return g->n_in > 1 ? g->in[1] : NULL; }

/* No axes given, as far as the graph tells. */
static bool axes_empty(ml_grad *g) {
  ml_value *axes = axes_value(g);
  const ml_view *view = axes ? g->shape_of(g, axes) : NULL;
  return !view || (view->rank == 1 && view->dims[0] == 0);
}

bool ml__g_reduce_noop(ml_grad *g) {
  if (!axes_empty(g) || ml_attr_int(g->attrs, "noop_with_empty_axes", 0) == 0) return false;
  if (g->needs[0]) g->din[0] = g->dout[0];
  return true;
}

ml_value *ml__g_keep(ml_grad *g, ml_value *y) {
  if (ml_attr_int(g->attrs, "keepdims", 1) != 0 || axes_empty(g)) return y;
  return ml_g2(g, "Unsqueeze", y, axes_value(g));
}

ml_value *ml__g_reduce(ml_grad *g, const char *op, ml_value *x) {
  ml_attr keep = ml_attr_of_int("keepdims", 1);
  ml_value *in[2] = { x, axes_value(g) };
  return ml_gn(g, op, &keep, 1, in[1] ? 2 : 1, in);
}
