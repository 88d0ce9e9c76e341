/* Stochastic gradient descent with (Nesterov) momentum: v = momentum v + g; w -= lr (nesterov ? g + momentum v : v).
 * Sutskever, Martens, Dahl, Hinton: "On the importance of initialization and momentum in deep learning", ICML 2013, in PyTorch's form. */
#include "train/optimizer.h"

static void step(const ml_kernels *k, const ml_hyper *h, uint64_t t, float *w, const float *g, float *const *slots, size_t n)
{
  (void)t;
  k->sgd_f32(w, g, h->momentum != 0 ? slots[0] : NULL, n, h->learning_rate, h->momentum, h->nesterov, h->l1, h->l2, h->weight_decay);
}

const ml_optimizer ml_optimizer_sgd = { .name = "sgd", .slots = 1, .defaults = { .learning_rate = 0.01f }, .step = step };
