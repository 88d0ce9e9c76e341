/* Processor features and the clock. The compilers' run-time support asks CPUID and, for AVX state, the operating system. */
#include "base/cpu.h"

#include <time.h>

ml_isa ml_cpu_isa(void) {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return ML_ISA_REF;
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return ML_ISA_AVX512;
  }
  return ML_ISA_AVX2;
#elif defined(__aarch64__)
  return ML_ISA_NEON; /* part of the base instruction set */
#else
  return ML_ISA_REF;
#endif
}

const char *ml_isa_name(ml_isa isa) {
  switch (isa) {
    case ML_ISA_REF: return "ref";
    case ML_ISA_AVX2: return "avx2";
    case ML_ISA_AVX512: return "avx512";
    case ML_ISA_NEON: return "neon";
  }
  return "unknown";
}

uint64_t ml_clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
