#include "kernels/simd_avx2.h"
#include "kernels/eltwise_f32.inc.h"
