/* RMSprop: s = rho s + (1-rho) g^2; w -= lr g / (sqrt(s) + epsilon), with optional momentum on the step.
 * Tieleman, Hinton: "Lecture 6.5: RMSprop", Coursera 2012, in PyTorch's form. */
#include "train/optimizer.h"

static void step(const ml_kernels *k, const ml_hyper *h, uint64_t t, float *w, const float *g, float *const *slots, size_t n)
{
  (void)t;
  k->rmsprop_f32(w, g, slots[0], h->momentum != 0 ? slots[1] : NULL, n, h->learning_rate, h->rho, h->momentum, h->epsilon, h->l1, h->l2, h->weight_decay);
}

const ml_optimizer ml_optimizer_rmsprop = {
  .name = "rmsprop", .slots = 2, .defaults = { .learning_rate = 0.001f, .rho = 0.9f, .epsilon = 1e-7f }, .step = step };
