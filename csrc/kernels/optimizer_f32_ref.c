/* The optimiser steps in plain C: the oracle of the tests and the fallback on any processor. Formulas and sources are in
 * kernels.h. */
#include <math.h>
#include "kernels/kernels_internal.h"

/* Gradient of loss + l2 w^2 + l1 |w|; at w = 0 the subgradient that is nearest to zero. */
static float penalised(float g, float w, float l1, float l2) {
  g += 2.0f * l2 * w;
  if (l1 == 0.0f) return g;
  if (w != 0.0f) return g + copysignf(l1, w);
  const float left = fabsf(g) - l1;
  return copysignf(left < 0.0f ? 0.0f : left, g);
}

/* w less the decoupled decay and the step; with l1 a weight that would change its sign stops at zero. */
static float stepped(float w, float step, float lr, float l1, float decay) {
  const float to = w - (step + lr * decay * w);
  return l1 != 0.0f && w * to < 0.0f ? 0.0f : to;
}

void ml__adam_f32_ref(float *w, const float *g, float *m, float *v, size_t n, float lr, float beta1, float beta2, float eps,
                      float c1, float c2, float l1, float l2, float decay) {
  for (size_t i = 0; i < n; i++) {
    const float gi = penalised(g[i], w[i], l1, l2);
    m[i] = beta1 * m[i] + (1.0f - beta1) * gi;
    v[i] = beta2 * v[i] + (1.0f - beta2) * gi * gi;
    w[i] = stepped(w[i], lr * (m[i] * c1) / (sqrtf(v[i] * c2) + eps), lr, l1, decay);
  }
}

void ml__sgd_f32_ref(float *w, const float *g, float *velocity, size_t n, float lr, float momentum, bool nesterov, float l1,
                     float l2, float decay) {
  for (size_t i = 0; i < n; i++) {
    const float gi = penalised(g[i], w[i], l1, l2);
    float d = gi;
    if (velocity != NULL) {
      velocity[i] = momentum * velocity[i] + gi;
      d = nesterov ? gi + momentum * velocity[i] : velocity[i];
    }
    w[i] = stepped(w[i], lr * d, lr, l1, decay);
  }
}

void ml__rmsprop_f32_ref(float *w, const float *g, float *s, float *velocity, size_t n, float lr, float rho, float momentum,
                         float eps, float l1, float l2, float decay) {
  for (size_t i = 0; i < n; i++) {
    const float gi = penalised(g[i], w[i], l1, l2);
    s[i] = rho * s[i] + (1.0f - rho) * gi * gi;
    float d = gi / (sqrtf(s[i]) + eps);
    if (velocity != NULL) d = velocity[i] = momentum * velocity[i] + d;
    w[i] = stepped(w[i], lr * d, lr, l1, decay);
  }
}

void ml__adagrad_f32_ref(float *w, const float *g, float *s, size_t n, float lr, float eps, float l1, float l2, float decay) {
  for (size_t i = 0; i < n; i++) {
    const float gi = penalised(g[i], w[i], l1, l2);
    s[i] += gi * gi;
    w[i] = stepped(w[i], lr * gi / (sqrtf(s[i]) + eps), lr, l1, decay);
  }
}
