/* Philox4x32-10 and what is drawn from it. Key = seed (low word, high word); counter = (index low, index high, stream low, stream
 * high). Constants and round function as in the paper named in rng.h. */
#include "base/rng.h"

#include <assert.h>
#include <math.h>

#define PHILOX_M0 0xD2511F53u
#define PHILOX_M1 0xCD9E8D57u
#define PHILOX_W0 0x9E3779B9u /* golden ratio */
#define PHILOX_W1 0xBB67AE85u /* sqrt(3) - 1 */

static inline void philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  uint32_t c0 = (uint32_t)index, c1 = (uint32_t)(index >> 32), c2 = (uint32_t)stream, c3 = (uint32_t)(stream >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t p0 = (uint64_t)PHILOX_M0 * c0, p1 = (uint64_t)PHILOX_M1 * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c1 = (uint32_t)p1;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c3 = (uint32_t)p0;
    k0 += PHILOX_W0;
    k1 += PHILOX_W1;
  }
  out[0] = c0;
  out[1] = c1;
  out[2] = c2;
  out[3] = c3;
}

void ml_philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]) { philox(seed, stream, index, out); }

uint32_t ml_rng_u32(uint64_t seed, uint64_t stream, uint64_t index) {
  uint32_t words[4];
  philox(seed, stream, index / 4, words);
  return words[index % 4];
}

static inline float unit(uint32_t word) { return (float)(word >> 8) * 0x1p-24f; }

float ml_rng_float(uint64_t seed, uint64_t stream, uint64_t index) { return unit(ml_rng_u32(seed, stream, index)); }

void ml_rng_uniform(uint64_t seed, uint64_t stream, float low, float high, float *out, size_t count) {
  /* in double, so that high - low neither overflows nor is rounded; the result may still round up to high */
  double start = (double)low, width = (double)high - (double)low;
  float last = high > low ? nextafterf(high, low) : low;
  for (size_t i = 0; i < count; i += 4) {
    uint32_t words[4];
    philox(seed, stream, i / 4, words);
    for (size_t j = 0; j < 4 && j < count - i; ++j) {
      float value = (float)(start + width * (double)unit(words[j]));
      out[i + j] = value < high ? value : last;
    }
  }
}

/* Box-Muller: two words to two independent standard normal numbers. The radius comes from (0, 1] in 2^32 steps (at most 6.66). */
static inline void normal_pair(uint32_t a, uint32_t b, float out[2]) {
  float radius = sqrtf(-2.0f * logf((float)(((double)a + 1.0) * 0x1p-32)));
  float angle = (float)((double)b * (0x1p-32 * 6.283185307179586477));
  out[0] = radius * cosf(angle);
  out[1] = radius * sinf(angle);
}

static inline void normal_block(uint64_t seed, uint64_t stream, uint64_t index, float out[4]) {
  uint32_t words[4];
  philox(seed, stream, index, words);
  normal_pair(words[0], words[1], out);
  normal_pair(words[2], words[3], out + 2);
}

/* A number within 2 standard deviations for element i, whose first draw was not. Redraws come from blocks no array is long
 * enough to use itself: attempt in the top byte, element below. 255 blocks fail with probability 10^-1370. */
static float redraw(uint64_t seed, uint64_t stream, uint64_t i) {
  for (uint64_t attempt = 1; attempt < 256; ++attempt) {
    float z[4];
    normal_block(seed, stream, (attempt << 56) + i, z);
    for (int j = 0; j < 4; ++j) {
      if (fabsf(z[j]) <= 2.0f) return z[j];
    }
  }
  return 0.0f;
}

void ml_rng_normal(uint64_t seed, uint64_t stream, float mean, float stddev, int truncated, float *out, size_t count) {
  for (size_t i = 0; i < count; i += 4) {
    float z[4];
    normal_block(seed, stream, i / 4, z);
    for (size_t j = 0; j < 4 && j < count - i; ++j) {
      float value = z[j];
      if (truncated && fabsf(value) > 2.0f) value = redraw(seed, stream, i + j);
      out[i + j] = mean + stddev * value;
    }
  }
}

/* Step s swaps position count-1-s with one of those up to it, chosen by the upper half of (64 random bits * candidates): Lemire,
 * "Fast random integer generation in an interval", ACM TOMACS 29, 2019. Without rejection the bias is below candidates / 2^64. */
void ml_rng_permutation(uint64_t seed, uint64_t stream, uint32_t *out, size_t count) {
  assert(count <= (uint64_t)UINT32_MAX + 1);
  for (size_t i = 0; i < count; ++i) out[i] = (uint32_t)i;
  uint32_t words[4];
  for (size_t s = 0; s + 1 < count; ++s) {
    if (s % 2 == 0) philox(seed, stream, s / 2, words);
    uint64_t candidates = count - s; /* at most 2^32, so that the products below fit */
    uint64_t low = words[s % 2 * 2], high = words[s % 2 * 2 + 1];
    size_t chosen = (size_t)((high * candidates + (low * candidates >> 32)) >> 32);
    size_t last = count - 1 - s;
    uint32_t swap = out[last];
    out[last] = out[chosen];
    out[chosen] = swap;
  }
}
