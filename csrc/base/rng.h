/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
 * Lives here: the only source of randomness in the core. May include: libc. No state: a number is a pure function of
 * (seed, stream, index), so results depend neither on thread count nor on the order of calls. */
#ifndef ML_BASE_RNG_H
#define ML_BASE_RNG_H
#include <stddef.h>
#include <stdint.h>

/* four 32-bit words for counter (index, stream) under key seed */
void ml_philox(uint64_t seed, uint64_t stream, uint64_t index, uint32_t out[4]);
/* word `index` of the stream: word index%4 of block index/4 */
uint32_t ml_rng_u32(uint64_t seed, uint64_t stream, uint64_t index);
/* uniform in [0, 1): 24 random bits */
float ml_rng_float(uint64_t seed, uint64_t stream, uint64_t index);
/* out[i] uniform in [low, high) */
void ml_rng_uniform(uint64_t seed, uint64_t stream, float low, float high, float *out, size_t count);
/* out[i] normal(mean, stddev) by Box-Muller; truncated: values beyond 2 stddev are drawn again (Keras's TruncatedNormal) */
void ml_rng_normal(uint64_t seed, uint64_t stream, float mean, float stddev, int truncated, float *out, size_t count);
/* Fisher-Yates shuffle of 0 … count-1 */
void ml_rng_permutation(uint64_t seed, uint64_t stream, uint32_t *out, size_t count);

#endif
