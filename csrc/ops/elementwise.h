/* What element-by-element operators share.
 * Lives here: templates that make the run() of a unary or a binary operator from one C expression, checks for infer(), steps
 * of gradients.
 * May include: ops/op.h, kernels, base. Private to csrc/ops; owns nothing.
 *
 * float32 goes through the kernel table wherever it has the function; every other dtype runs the expression in its own C type
 * (<tgmath.h>: exp(x) is expf for float). Every loop reads element i before it writes element i, so out may be in
 * (ML_OP_INPLACE). Tensors beyond ML__PARALLEL elements are cut into fixed chunks for the thread pool: element-wise, so
 * results cannot depend on threads. */
#ifndef ML_OPS_ELEMENTWISE_H
#define ML_OPS_ELEMENTWISE_H
#include <tgmath.h>
#include "kernels/kernels.h"
#include "ops/op.h"

/* ---------------------------------------------------------------- inference (op.c) ---- */
/* Inputs 0 … needed-1 are given. */
ml_status ml__op_check_present(const ml_op_ctx *ctx, int32_t needed, ml_error *err);
/* Broadcast shape of inputs first … n_in-1, which must have one dtype; *rank is ML_UNKNOWN when one rank is. */
ml_status ml__op_broadcast(const ml_op_ctx *ctx, int32_t first, int64_t *dims, int32_t *rank, ml_error *err);
/* Fails unless `view` may be a scalar: rank 0, or one element. NULL passes. */
ml_status ml__op_check_scalar(const ml_view *view, const char *what, ml_error *err);

/* ---------------------------------------------------------------- unary ---- */
typedef void ml__loop(const ml_kernels *kernels, const void *from, void *to, size_t n, float alpha, float gamma);
/* Runs output 0 = f(input 0): f32 or f64 by dtype. */
void ml__unary_run(ml_op_ctx *ctx, ml__loop *f32, ml__loop *f64, float alpha, float gamma);
/* Output 0 = input 0 (nothing to do in place). */
void ml__copy_run(ml_op_ctx *ctx);

#define ML__BLOCK 512 /* elements per block of two-stage functions; lives on the stack */

/* loop over x of type T: y = EXPRESSION in x, alpha, gamma */
#define ML__UNARY_LOOP(NAME, TYPE, EXPRESSION)                                                                             \
  static void NAME(const ml_kernels *kernels, const void *from, void *to, size_t n, float alpha_, float gamma_) {          \
    typedef TYPE T;                                                                                                        \
    const T alpha __attribute__((unused)) = (T)alpha_, gamma __attribute__((unused)) = (T)gamma_;                          \
    const T *xs = from;                                                                                                    \
    T *ys = to;                                                                                                            \
    (void)kernels;                                                                                                         \
    for (size_t i = 0; i < n; ++i) {                                                                                       \
      const T x = xs[i];                                                                                                   \
      ys[i] = (T)(EXPRESSION);                                                                                             \
    }                                                                                                                      \
  }
#define ML__UNARY_RUN(ALPHA, GAMMA)                                                                                        \
  static ml_status run(ml_op_ctx *ctx, ml_error *err) {                                                                    \
    (void)err;                                                                                                             \
    ml__unary_run(ctx, loop_f32, loop_f64, ALPHA, GAMMA);                                                                  \
    return ML_OK;                                                                                                          \
  }

/* run() of a float function the kernels have; ALPHA and GAMMA are evaluated once per run and may read ctx->attrs */
#define ML_UNARY_KERNEL(KERNEL, EXPRESSION, ALPHA, GAMMA)                                                                  \
  static void loop_f32(const ml_kernels *kernels, const void *from, void *to, size_t n, float alpha, float gamma) {        \
    kernels->unary_f32(KERNEL, from, to, n, alpha, gamma);                                                                 \
  }                                                                                                                        \
  ML__UNARY_LOOP(loop_f64, double, EXPRESSION)                                                                             \
  ML__UNARY_RUN(ALPHA, GAMMA)

/* run() of a float function in plain C */
#define ML_UNARY_FLOAT(EXPRESSION, ALPHA, GAMMA)                                                                           \
  ML__UNARY_LOOP(loop_f32, float, EXPRESSION)                                                                              \
  ML__UNARY_LOOP(loop_f64, double, EXPRESSION)                                                                             \
  ML__UNARY_RUN(ALPHA, GAMMA)

/* float32 loop with a kernel inside: t = KERNEL(BEFORE(x)) block by block, then y = AFTER(x, t) */
#define ML__INSIDE_LOOP(NAME, BEFORE, KERNEL, AFTER)                                                                       \
  static void NAME(const ml_kernels *kernels, const void *from, void *to, size_t n, float alpha_, float gamma_) {          \
    typedef float T;                                                                                                       \
    const T alpha __attribute__((unused)) = alpha_, gamma __attribute__((unused)) = gamma_;                                \
    float inner[ML__BLOCK];                                                                                                \
    for (size_t done = 0; done < n; done += ML__BLOCK) {                                                                   \
      const size_t m = n - done < ML__BLOCK ? n - done : ML__BLOCK;                                                        \
      const float *xs = (const float *)from + done;                                                                        \
      float *ys = (float *)to + done;                                                                                      \
      for (size_t i = 0; i < m; ++i) {                                                                                     \
        const T x = xs[i];                                                                                                 \
        inner[i] = (T)(BEFORE);                                                                                            \
      }                                                                                                                    \
      kernels->unary_f32(KERNEL, inner, inner, m, 1.0f, 1.0f);                                                             \
      for (size_t i = 0; i < m; ++i) {                                                                                     \
        const T x = xs[i], t = inner[i];                                                                                   \
        ys[i] = (T)(AFTER);                                                                                                \
      }                                                                                                                    \
    }                                                                                                                      \
  }
/* run() of a float function that has such a loop for float32 */
#define ML_UNARY_INSIDE(BEFORE, KERNEL, AFTER, EXPRESSION, ALPHA, GAMMA)                                                   \
  ML__INSIDE_LOOP(loop_f32, BEFORE, KERNEL, AFTER)                                                                         \
  ML__UNARY_LOOP(loop_f64, double, EXPRESSION)                                                                             \
  ML__UNARY_RUN(ALPHA, GAMMA)

/* one dtype of a unary operator with integer types, inside a switch: R may be T */
#define ML_CASE1(DTYPE, TYPE, R, EXPRESSION)                                                                               \
  case DTYPE: {                                                                                                            \
    typedef TYPE T;                                                                                                        \
    const T *xs = from;                                                                                                    \
    R *ys = to;                                                                                                            \
    for (size_t i = 0; i < n; ++i) {                                                                                       \
      const T x = xs[i];                                                                                                   \
      ys[i] = (R)(EXPRESSION);                                                                                             \
    }                                                                                                                      \
  } break;
#define ML_CASES1_FLOAT(R, EXPRESSION) ML_CASE1(ML_FLOAT32, float, R, EXPRESSION) ML_CASE1(ML_FLOAT64, double, R, EXPRESSION)
#define ML_CASES1_SIGNED(R, EXPRESSION)                                                                                    \
  ML_CASE1(ML_INT8, int8_t, R, EXPRESSION) ML_CASE1(ML_INT16, int16_t, R, EXPRESSION)                                      \
  ML_CASE1(ML_INT32, int32_t, R, EXPRESSION) ML_CASE1(ML_INT64, int64_t, R, EXPRESSION)
#define ML_CASES1_UNSIGNED(R, EXPRESSION)                                                                                  \
  ML_CASE1(ML_UINT8, uint8_t, R, EXPRESSION) ML_CASE1(ML_UINT16, uint16_t, R, EXPRESSION)                                  \
  ML_CASE1(ML_UINT32, uint32_t, R, EXPRESSION) ML_CASE1(ML_UINT64, uint64_t, R, EXPRESSION)
/* run() made of such cases; KERNEL: an ml_unary for float32, or -1 */
#define ML_UNARY_CASES(KERNEL, CASES)                                                                                      \
  static ml_status run(ml_op_ctx *ctx, ml_error *err) {                                                                    \
    const void *from = ctx->in[0]->data;                                                                                   \
    void *to = ctx->out[0]->data;                                                                                          \
    const size_t n = ctx->out[0]->count;                                                                                   \
    const int kernel = (KERNEL);                                                                                           \
    (void)err;                                                                                                             \
    if (n == 0) return ML_OK;                                                                                              \
    if (kernel >= 0 && ctx->in[0]->dtype == ML_FLOAT32) {                                                                  \
      ctx->run->kernels->unary_f32((ml_unary)kernel, from, to, n, 0.0f, 0.0f);                                             \
      return ML_OK;                                                                                                        \
    }                                                                                                                      \
    switch (ctx->in[0]->dtype) { CASES default: break; }                                                                   \
    return ML_OK;                                                                                                          \
  }

/* ---------------------------------------------------------------- binary ---- */
/* z[i] = x[i * sx] op y[i * sy], strides 0 or 1 */
typedef void ml__rows(ml_dtype dtype, const void *x, size_t sx, const void *y, size_t sy, void *z, size_t n);
/* z = x op y with broadcasting to z; kernel: an ml_binary for float32, or -1. z may be x or y where that has z's shape. */
void ml__binary(const ml_kernels *kernels, int kernel, ml__rows *rows, const ml_view *x, const ml_view *y, const ml_view *z);
static inline void ml__binary_run(ml_op_ctx *ctx, int kernel, ml__rows *rows) {
  ml__binary(ctx->run->kernels, kernel, rows, ctx->in[0], ctx->in[1], ctx->out[0]);
}
/* Output 0 = in[0] op in[1] op … (Max, Min, Sum, Mean). */
void ml__variadic_run(ml_op_ctx *ctx, int kernel, ml__rows *rows);

/* one dtype: operands a and b of type T, result R (which may be T) */
#define ML_CASE2(DTYPE, TYPE, R, EXPRESSION)                                                                               \
  case DTYPE: {                                                                                                            \
    typedef TYPE T;                                                                                                        \
    const T *xs = x;                                                                                                       \
    const T *ys = y;                                                                                                       \
    R *zs = z;                                                                                                             \
    if (sx == 1 && sy == 1) {                                                                                              \
      for (size_t i = 0; i < n; ++i) {                                                                                     \
        const T a = xs[i], b = ys[i];                                                                                      \
        zs[i] = (R)(EXPRESSION);                                                                                           \
      }                                                                                                                    \
    } else {                                                                                                               \
      for (size_t i = 0; i < n; ++i) {                                                                                     \
        const T a = xs[i * sx], b = ys[i * sy];                                                                            \
        zs[i] = (R)(EXPRESSION);                                                                                           \
      }                                                                                                                    \
    }                                                                                                                      \
  } break;
#define ML_CASES2_FLOAT(R, EXPRESSION) ML_CASE2(ML_FLOAT32, float, R, EXPRESSION) ML_CASE2(ML_FLOAT64, double, R, EXPRESSION)
#define ML_CASES2_SIGNED(R, EXPRESSION)                                                                                    \
  ML_CASE2(ML_INT8, int8_t, R, EXPRESSION) ML_CASE2(ML_INT16, int16_t, R, EXPRESSION)                                      \
  ML_CASE2(ML_INT32, int32_t, R, EXPRESSION) ML_CASE2(ML_INT64, int64_t, R, EXPRESSION)
#define ML_CASES2_UNSIGNED(R, EXPRESSION)                                                                                  \
  ML_CASE2(ML_UINT8, uint8_t, R, EXPRESSION) ML_CASE2(ML_UINT16, uint16_t, R, EXPRESSION)                                  \
  ML_CASE2(ML_UINT32, uint32_t, R, EXPRESSION) ML_CASE2(ML_UINT64, uint64_t, R, EXPRESSION)
#define ML_CASES2_INTEGER(R, EXPRESSION) ML_CASES2_SIGNED(R, EXPRESSION) ML_CASES2_UNSIGNED(R, EXPRESSION)
#define ML_CASES2_NUMERIC(R, EXPRESSION) ML_CASES2_FLOAT(R, EXPRESSION) ML_CASES2_INTEGER(R, EXPRESSION)
#define ML_BINARY_ROWS(NAME, CASES)                                                                                        \
  static void NAME(ml_dtype dtype, const void *x, size_t sx, const void *y, size_t sy, void *z, size_t n) {                \
    switch (dtype) { CASES default: break; }                                                                               \
  }
#define ML_BINARY_RUN(KERNEL)                                                                                              \
  static ml_status run(ml_op_ctx *ctx, ml_error *err) {                                                                    \
    (void)err;                                                                                                             \
    ml__binary_run(ctx, KERNEL, rows);                                                                                     \
    return ML_OK;                                                                                                          \
  }

/* ---------------------------------------------------------------- along one axis (softmax.c) ---- */
/* x as (outer, length, inner) around an axis; false when the axis is outside the rank. */
bool ml__axis_split(const ml_view *x, int64_t axis, size_t *outer, size_t *length, size_t *inner);
ml_status ml__softmax_infer(ml_op_ctx *ctx, ml_error *err);
ml_status ml__softmax_run(ml_op_ctx *ctx, bool log_form, ml_error *err);
void ml__softmax_gradient(ml_grad *g, bool log_form);

/* ---------------------------------------------------------------- cutting work for the thread pool ---- */
#define ML__PARALLEL ((size_t)1 << 17) /* elements from which the pool is asked */
#define ML__CHUNK ((size_t)1 << 15)    /* elements per chunk, whatever the number of threads */

/* ---------------------------------------------------------------- gradients ---- */
/* `d`, a gradient of the shape all inputs broadcast to, for input i: summed back unless input i provably has that shape
 * already. */
ml_value *ml__g_operand(ml_grad *g, int32_t i, ml_value *d);
/* dx of a unary operator: node mlserve.UnaryGrad(value, dy), value being the input or output its table (unary_grad.c) wants. */
ml_value *ml__g_unary(ml_grad *g, const char *function, ml_value *value, float alpha, float gamma);
/* The whole gradient of Max and Min: dy in equal parts to the inputs that equal the output. */
void ml__g_extremum(ml_grad *g);
/* value as the dtype of dy (0 and 1 for a bool) */
static inline ml_value *ml__g_like(ml_grad *g, ml_value *value, ml_value *dy) { return ml_g2(g, "CastLike", value, dy); }
/* keep ? dy : 0 */
static inline ml_value *ml__g_where(ml_grad *g, ml_value *keep, ml_value *dy) {
  return ml_g3(g, "Where", keep, dy, g->constant(g, 0.0, dy));
}

#endif
