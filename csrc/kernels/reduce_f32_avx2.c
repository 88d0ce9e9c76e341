#include "kernels/simd_avx2.h"
#include "kernels/reduce_f32.inc.h"
