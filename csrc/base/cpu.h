/* What this machine can do, and what time it is. May include: libc. */
#ifndef ML_BASE_CPU_H
#define ML_BASE_CPU_H
#include <stddef.h>
#include <stdint.h>

typedef enum ml_isa { ML_ISA_REF = 0, ML_ISA_AVX2 = 1, ML_ISA_AVX512 = 2, ML_ISA_NEON = 3 } ml_isa;
/* Best instruction set both the processor and this build support (AVX2 means AVX2+FMA). */
ml_isa ml_cpu_isa(void);
const char *ml_isa_name(ml_isa isa);
/* Bytes of memory this process may have: the machine's, or its container's when that is less. At least 64 MiB. */
size_t ml_memory_size(void);
/* Monotonic clock, nanoseconds. */
uint64_t ml_clock_ns(void);

#endif
