/* Adam: m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w -= lr (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + epsilon).
 * Kingma, Ba: "Adam: a method for stochastic optimization", ICLR 2015. AdamW (Loshchilov, Hutter, ICLR 2019) adds w -= lr decay w. */
#include <math.h>
#include "train/optimizer.h"

static void step(const ml_kernels *k, const ml_hyper *h, uint64_t t, float *w, const float *g, float *const *slots, size_t n)
{
  double c1 = 1 / (1 - pow((double)h->beta1, (double)t)), c2 = 1 / (1 - pow((double)h->beta2, (double)t));
  k->adam_f32(w, g, slots[0], slots[1], n, h->learning_rate, h->beta1, h->beta2, h->epsilon, (float)c1, (float)c2, h->l1, h->l2, h->weight_decay);
}

const ml_optimizer ml_optimizer_adam = {
  .name = "adam", .slots = 2, .defaults = { .learning_rate = 0.001f, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-7f }, .step = step };
const ml_optimizer ml_optimizer_adamw = {
  .name = "adamw", .slots = 2, .defaults = { .learning_rate = 0.001f, .beta1 = 0.9f, .beta2 = 0.999f, .epsilon = 1e-7f, .weight_decay = 0.004f }, .step = step };
