/* Processor features, memory and the clock. The compilers' run-time support asks CPUID and, for AVX state, the operating system. */
#include "base/cpu.h"

#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

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

/* The number in a file of the control group file system; SIZE_MAX when there is none ("max"). */
static size_t group_limit(const char *path) {
  char text[32];
  int file = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t n = file < 0 ? -1 : read(file, text, sizeof text - 1);
  if (file >= 0) close(file);
  if (n <= 0 || text[0] < '0' || text[0] > '9') return SIZE_MAX;
  text[n] = '\0';
  return (size_t)strtoull(text, NULL, 10);
}

size_t ml_memory_size(void) {
  long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  size_t size = SIZE_MAX / 4, least = (size_t)64 << 20;
  if (pages > 0 && page > 0 && (size_t)pages < size / (size_t)page) size = (size_t)pages * (size_t)page;
  static const char *const groups[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
  for (size_t i = 0; i < 2; i++) {
    size_t limit = group_limit(groups[i]);
    if (limit < size) size = limit;
  }
  return size < least ? least : size;
}
