/* The vector forms of the optimiser steps; included by optimizer_f32_avx2.c and optimizer_f32_avx512.c after their simd header.
 * Formulas are in kernels.h and optimizer_f32_ref.c. Each kernel is one pass; the last vector is masked. */
#include "kernels/kernels_internal.h"

#define NAME(f) ML__CAT3(f, _, ML__ISA)
#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef struct penalty {
  vf l1, double_l2, shrink;
  bool has_l1;
} penalty;

static inline penalty make_penalty(float lr, float l1, float l2, float decay) {
  return (penalty){.l1 = v_set1(l1), .double_l2 = v_set1(2.0f * l2), .shrink = v_set1(lr * decay), .has_l1 = l1 != 0.0f};
}
/* Gradient with the penalties; at w = 0 the subgradient of l1|w| that is nearest to zero. */
ALWAYS_INLINE vf penalised(const penalty *p, vf g, vf w) {
  g = v_fma(p->double_l2, w, g);
  if (!p->has_l1) return g;
  const vf at_zero = v_xor(v_max(v_zero(), v_sub(v_abs(g), p->l1)), v_sign_bits(g));
  return v_select(v_eq(w, v_zero()), at_zero, v_add(g, v_xor(p->l1, v_sign_bits(w))));
}
/* w - lr decay w - step; with l1 a weight that would change its sign stops at zero */
ALWAYS_INLINE vf stepped(const penalty *p, vf w, vf step) {
  const vf to = v_sub(w, v_fma(p->shrink, w, step));
  return p->has_l1 ? v_select(v_lt(v_mul(w, to), v_zero()), v_zero(), to) : to;
}

/* The body runs once per vector with i, the first index, and left, how many elements remain. */
#define FOR_VECTORS for (size_t i = 0, left = n; i < n; i += VW, left -= ml__min(left, VW))
#define GET(p) (left >= VW ? v_load((p) + i) : v_load_n((p) + i, left))
#define PUT(p, v) (left >= VW ? v_store((p) + i, v) : v_store_n((p) + i, v, left))

void NAME(ml__adam_f32)(float *w, const float *g, float *m, float *v, size_t n, float lr, float beta1, float beta2, float eps,
                        float c1, float c2, float l1, float l2, float decay) {
  const penalty p = make_penalty(lr, l1, l2, decay);
  const vf b1 = v_set1(beta1), b2 = v_set1(beta2), a1 = v_set1(1.0f - beta1), a2 = v_set1(1.0f - beta2);
  const vf rate = v_set1(lr), k1 = v_set1(c1), k2 = v_set1(c2), e = v_set1(eps);
  FOR_VECTORS {
    const vf wi = GET(w), gi = penalised(&p, GET(g), wi);
    const vf mi = v_fma(b1, GET(m), v_mul(a1, gi)), vi_ = v_fma(b2, GET(v), v_mul(a2, v_mul(gi, gi)));
    PUT(m, mi);
    PUT(v, vi_);
    PUT(w, stepped(&p, wi, v_div(v_mul(rate, v_mul(mi, k1)), v_add(v_sqrt(v_mul(vi_, k2)), e))));
  }
}

void NAME(ml__sgd_f32)(float *w, const float *g, float *velocity, size_t n, float lr, float momentum, bool nesterov, float l1,
                       float l2, float decay) {
  const penalty p = make_penalty(lr, l1, l2, decay);
  const vf rate = v_set1(lr), mu = v_set1(momentum);
  if (velocity == NULL) {
    FOR_VECTORS {
      const vf wi = GET(w);
      PUT(w, stepped(&p, wi, v_mul(rate, penalised(&p, GET(g), wi))));
    }
    return;
  }
  FOR_VECTORS {
    const vf wi = GET(w), gi = penalised(&p, GET(g), wi), vi_ = v_fma(mu, GET(velocity), gi);
    PUT(velocity, vi_);
    PUT(w, stepped(&p, wi, v_mul(rate, nesterov ? v_fma(mu, vi_, gi) : vi_)));
  }
}

void NAME(ml__rmsprop_f32)(float *w, const float *g, float *s, float *velocity, size_t n, float lr, float rho, float momentum,
                           float eps, float l1, float l2, float decay) {
  const penalty p = make_penalty(lr, l1, l2, decay);
  const vf rate = v_set1(lr), r = v_set1(rho), q = v_set1(1.0f - rho), mu = v_set1(momentum), e = v_set1(eps);
  FOR_VECTORS {
    const vf wi = GET(w), gi = penalised(&p, GET(g), wi), si = v_fma(r, GET(s), v_mul(q, v_mul(gi, gi)));
    PUT(s, si);
    vf d = v_div(gi, v_add(v_sqrt(si), e));
    if (velocity != NULL) {
      d = v_fma(mu, GET(velocity), d);
      PUT(velocity, d);
    }
    PUT(w, stepped(&p, wi, v_mul(rate, d)));
  }
}

void NAME(ml__adagrad_f32)(float *w, const float *g, float *s, size_t n, float lr, float eps, float l1, float l2, float decay) {
  const penalty p = make_penalty(lr, l1, l2, decay);
  const vf rate = v_set1(lr), e = v_set1(eps);
  FOR_VECTORS {
    const vf wi = GET(w), gi = penalised(&p, GET(g), wi), si = v_fma(gi, gi, GET(s));
    PUT(s, si);
    PUT(w, stepped(&p, wi, v_div(v_mul(rate, gi), v_add(v_sqrt(si), e))));
  }
}
