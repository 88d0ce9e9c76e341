#include "kernels/simd_avx512.h"
#include "kernels/reduce_f32.inc.h"
