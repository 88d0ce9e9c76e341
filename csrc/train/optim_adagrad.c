/* Adagrad: s += g^2; w -= lr g / (sqrt(s) + epsilon). Duchi, Hazan, Singer: "Adaptive subgradient methods for online learning and stochastic
 * optimization", JMLR 12, 2011; the accumulator starts at zero, as in PyTorch. */
#include "train/optimizer.h"

static void step(const ml_kernels *k, const ml_hyper *h, uint64_t t, float *w, const float *g, float *const *slots, size_t n)
{
  (void)t;
  k->adagrad_f32(w, g, slots[0], n, h->learning_rate, h->epsilon, h->l1, h->l2, h->weight_decay);
}

const ml_optimizer ml_optimizer_adagrad = { .name = "adagrad", .slots = 1, .defaults = { .learning_rate = 0.001f, .epsilon = 1e-7f }, .step = step };
