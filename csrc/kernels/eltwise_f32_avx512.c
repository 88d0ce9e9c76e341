#include "kernels/simd_avx512.h"
#include "kernels/eltwise_f32.inc.h"
